"""Budget: money is reserved before a call and settled after it, so that a budget cannot be overspent.

    free --reserve--> reserved --settle--> spent, and the rest is free again

Rule: what is reserved is the most that a call can cost, and not what is expected of it.  So what is spent exceeds no
budget where every bound is known: where each model has a price, and ``max_output_tokens`` is set.

Without it an answer may have as many tokens as the model ever gives (65,536).  That much is reserved as long as the
budget has room for it, which is a bound as well.  When it has not, twice the longest answer so far is reserved, and the
session says so; and before there was an answer, all that is left, so that the first one goes alone.  The same holds for
input that does not follow from what is sent, such as a file.

A call that does not fit waits for the calls in flight, which may turn out cheaper.  If none is in flight, the call is
withheld, and the session ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from ipybatch.errors import InputError, Withheld
from ipybatch.gemini.money.credits import CreditAccount, InsufficientCredits, find_credits
from ipybatch.gemini.money.prices import Prices, Rates, check_prices, find_rates, rates_of
from ipybatch.gemini.money.tokens import (
    MOST_INPUT_TOKENS,
    MOST_OUTPUT_TOKENS,
    OUTPUT_TOKENS,
    Most,
    estimate_input,
    most_beside,
    most_call,
)
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.reply import Tokens
from ipybatch.gemini.service.request_config import RequestConfig

MARGIN = 2  # times the longest answer so far
_NO_USD = Decimal(0)
_MANY = Tokens(1_000_000, 1_000_000, 0, 0)  # to compare the prices of two lanes


class Bound(msgspec.Struct, frozen=True):
    """What may be reserved for a call, or for several.

    Attributes:
        usd: The most that it can cost.
        likely_usd: What is reserved if the budget has no room for that; the same where the bound follows from what is
            sent.
        is_seen: Whether ``likely_usd`` follows from answers; otherwise nothing else is in flight with it.
    """

    usd: Decimal
    likely_usd: Decimal
    is_seen: bool = True

    @property
    def is_known(self) -> bool:
        """Whether the bound follows from what is sent."""
        return self.usd == self.likely_usd

    @classmethod
    def of(cls, bounds: Iterable[Bound]) -> Bound:
        """Return the bound of several calls together."""
        usd, likely_usd, is_seen = _NO_USD, _NO_USD, True
        for bound in bounds:
            usd, likely_usd, is_seen = usd + bound.usd, likely_usd + bound.likely_usd, is_seen and bound.is_seen
        return cls(usd, likely_usd, is_seen)


NOTHING = Bound(_NO_USD, _NO_USD)


class Budget:
    """The budget of a session, in USD; to be used on one event loop.

    Attributes:
        limit_usd: The budget; None: unlimited.
        spent_usd: Cost so far, in this run, and what may have been one.
        unconfirmed_usd: The part of it that only may have been: of calls without an answer.
    """

    def __init__(self, limit_usd: float | Decimal | None) -> None:
        self.limit_usd = None if limit_usd is None else Decimal(str(limit_usd))
        self.spent_usd = self.unconfirmed_usd = _NO_USD
        self._reserved = _NO_USD
        self._holds = 0  # reservations
        self._waiting: deque[asyncio.Future[None]] = deque()

    def check(self, least: Decimal) -> None:
        """Check that the budget allows one call.

        Raises:
            InputError: It does not; the message says what one call may cost.
        """
        if self.limit_usd is not None and self.limit_usd < least:
            msg = f"budget_usd must be >= {least:.6f}, which one call may take, got {self.limit_usd}"
            raise InputError(msg)

    async def reserve(self, bound: Bound | Decimal, anew: Callable[[], Bound] | None = None) -> Decimal:
        """Reserve what a call, or several together, may cost, and return it; wait while calls in flight may make room.

        Args:
            bound: What may be reserved.
            anew: Function that returns it anew: after a wait more is known.

        Raises:
            Withheld: It does not fit, and nothing is in flight.
        """
        if isinstance(bound, Decimal):
            bound = Bound(bound, bound)
        has_waited = False
        while (amount := self._fitting(bound)) is None:
            if not self._holds:
                self._wake()
                assert self.limit_usd is not None
                msg = (
                    f"budget_usd is {self.limit_usd:f}: {self._said()}, and the next call may take"
                    f" {bound.likely_usd:.4f}. Raise it, and run again for the rest"
                )
                raise Withheld(msg)
            freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.appendleft(freed) if has_waited else self._waiting.append(freed)
            has_waited = True
            try:
                await freed
            except asyncio.CancelledError:
                if freed.done() and not freed.cancelled():
                    self._wake()  # in its place
                raise
            if anew is not None:
                bound = anew()
        self.hold(amount)
        if has_waited:
            self._wake()
        return amount

    def hold(self, usd: Decimal) -> None:
        """Reserve what is committed already, such as a job of an earlier process, whether it fits or not."""
        self._reserved += usd
        self._holds += 1

    def settle(self, reserved: Decimal, actual: Decimal, unconfirmed_usd: Decimal = _NO_USD) -> None:
        """Count the actual cost of a call, or of a job, in place of what `reserve` returned for it."""
        self.spend(actual, unconfirmed_usd)
        self.free(reserved)

    def spend(self, usd: Decimal, unconfirmed_usd: Decimal = _NO_USD) -> None:
        """Count a cost, and the part of it of which no answer came."""
        self.spent_usd += usd
        self.unconfirmed_usd += unconfirmed_usd

    def free(self, usd: Decimal) -> None:
        """Release a reservation."""
        self._reserved -= usd
        self._holds -= 1
        self._wake()

    def _said(self) -> str:
        if not self.unconfirmed_usd:
            return f"{self.spent_usd:.4f} is spent"
        return (
            f"{self.spent_usd - self.unconfirmed_usd:.4f} is spent, {self.unconfirmed_usd:.4f} may be, on calls without"
            " an answer"
        )

    def _fitting(self, bound: Bound) -> Decimal | None:
        """Return how much to reserve; None while that does not fit."""
        if self.limit_usd is None:
            return bound.likely_usd if bound.is_seen else bound.usd
        left = self.limit_usd - self.spent_usd - self._reserved
        if bound.usd <= left:
            return bound.usd
        if bound.likely_usd > left:
            return None
        if bound.is_seen:
            return bound.likely_usd
        return None if self._holds else left

    def _wake(self) -> None:
        """Let the first one that waits try again; it wakes the next one if it has found room."""
        while self._waiting:
            freed = self._waiting.popleft()
            if not freed.done():
                freed.set_result(None)
                return


class Money(msgspec.Struct):
    """Budget, prices and credits of a session.

    Attributes:
        budget: The budget in USD.
        prices: The user's own prices.
        account: The credit account; None: credits are not counted.
        output_tokens: Expected tokens of an answer, the least that is reserved for one where no bound is known.
        credits_held: Reservations for prompts in jobs, by what for and how much.
        saved_usd: How much more the answers by flex and batch would have cost online.
        has_prices: Whether a price was found for every answer so far.
    """

    budget: Budget
    prices: Prices | None = None
    account: CreditAccount | None = None
    output_tokens: float = OUTPUT_TOKENS
    credits_held: dict[tuple[str, Decimal], int] = {}
    saved_usd: Decimal = _NO_USD
    has_prices: bool = True
    _minute: float = 0.0
    _tiers: dict[tuple[str, str], list[tuple[int, Rates]]] = {}
    _bounds: dict[tuple[str, str, Most, int | None, int | None, int], Bound] = {}
    _beside: dict[str, Most] = {}  # what is sent beside all prompts, by lane
    _longest: dict[str, int] = {}  # answer of each model, tokens
    _widest: dict[str, int] = {}  # input of each model, tokens
    _fixed: dict[str, int] = {}  # least input of each model

    def usd(self, model: str, tokens: Tokens, lane: str) -> Decimal | None:
        """Return the cost of tokens, or None if no price is known, or a number of tokens."""
        if not tokens.are_told:
            return None
        rates = self.rates(model, lane, tokens.in_ or 0)
        return None if rates is None else rates.cost(tokens)

    def rates(self, model: str, lane: str, prompt: int) -> Rates | None:
        """Return the rates of calls with a prompt of so many tokens; None if no price is known."""
        minute = time.time() // 60  # for which they are kept: a price may hold for some hours of the day
        if minute != self._minute:
            self._minute, self._tiers, self._bounds = minute, {}, {}
        tiers = self._tiers.get((model, lane))
        if tiers is None:
            found = find_rates(model, lane, at=datetime.now(tz=UTC), own=check_prices(self.prices))
            tiers = self._tiers[model, lane] = found
        return rates_of(tiers, prompt)

    def save(self, model: str, lane: str, usd: Decimal | None) -> None:
        """Count how much more answers would have cost online."""
        if lane == "online":
            return
        paid, online = self.rates(model, lane, 0), self.rates(model, "online", 0)
        if usd is None or paid is None or online is None:
            self.has_prices = False
        elif (cost := paid.cost(_MANY)) > 0:
            self.saved_usd += max(_NO_USD, usd * (online.cost(_MANY) / cost - 1))

    def bound(self, prompt: Prompt, model: str, lane: str, request_config: RequestConfig) -> Bound | None:
        """Return what may be reserved for a call; None if no price is known."""
        most = most_call(prompt, self._most_beside(prompt, model, request_config))
        rates = self.rates(model, lane, most.asked)
        if rates is None:
            return None
        longest = self._longest.get(model) if most.is_open or most.answered is None else None
        widest = self._widest.get(model) if most.is_open else None
        size = model, lane, most, longest, widest, estimate_input(prompt, request_config) if most.is_open else 0
        found = self._bounds.get(size)
        if found is None:
            found = self._bounds[size] = self._bound(rates, *size)
        return found

    def _bound(  # noqa: PLR0917  # one private caller
        self, rates: Rates, model: str, lane: str, most: Most, longest: int | None, widest: int | None, expected: int
    ) -> Bound:
        usd = _cost(rates, most, most.asked, MOST_OUTPUT_TOKENS if most.answered is None else most.answered)
        if most.answered is not None and not most.is_open:
            return Bound(usd, usd)
        asked, answered = most.asked, most.answered
        if answered is None:
            answered = min(MOST_OUTPUT_TOKENS, max(MARGIN * (longest or 0), int(self.output_tokens)))
        if most.is_open:
            asked = min(asked, max(MARGIN * (widest or 0), expected))
        return Bound(usd, _cost(self.rates(model, lane, asked) or rates, most, asked, answered), longest is not None)

    def learn(self, prompt: Prompt, model: str, tokens: Tokens) -> None:
        """Learn from the tokens of an answer what further calls may have."""
        if not tokens.in_ or tokens.out is None or tokens.thoughts is None:
            return
        self._longest[model] = max(self._longest.get(model, 0), tokens.answered)
        self._widest[model] = max(self._widest.get(model, 0), tokens.in_)
        if prompt.system is None and not prompt.config:
            self._fixed[model] = min(self._fixed.get(model, MOST_INPUT_TOKENS), tokens.in_)

    def _most_beside(self, prompt: Prompt, model: str, request_config: RequestConfig) -> Most:
        """Return the bound of what is sent beside a prompt's contents.

        What is sent beside all of them has no more tokens than the shortest prompt had with it.
        """
        if prompt.system is not None or prompt.config:
            return most_beside(request_config, prompt.system, prompt.config)
        beside = self._beside.get(request_config.lane)
        if beside is None:
            beside = self._beside[request_config.lane] = most_beside(request_config, None, {})
        fixed = self._fixed.get(model)
        if fixed is None or (fixed >= beside.asked and not beside.has_cache):
            return beside
        key = f"{request_config.lane} {model}"
        known = self._beside.get(key)
        if known is None or known.asked != fixed:
            known = self._beside[key] = msgspec.structs.replace(beside, asked=fixed, has_cache=False)
        return known

    def reserve_credits(self, prompts: Sequence[Prompt], lane: str, session: str) -> int:
        """Reserve the credits of prompts, all at once, and return for how many of them they suffice, the first ones."""
        wanted = []
        for at, prompt in enumerate(prompts):
            amount, reference = find_credits(prompt.operation, 1, lane), f"{session}: {prompt.id}"
            if amount is not None and (reference, amount) not in self.credits_held:
                wanted.append((at, amount, prompt.operation, reference))
        if self.account is None or not wanted:
            return len(prompts)
        made = self.account.reserve_all([(amount, operation, what) for _, amount, operation, what in wanted])
        for (_, amount, _, reference), reservation in zip(wanted, made, strict=False):
            self.credits_held[reference, amount] = reservation
        return len(prompts) if len(made) == len(wanted) else wanted[len(made)][0]

    def release_credits(self) -> None:
        """Refund what was reserved for prompts that are not sent any more."""
        while self.account is not None and self.credits_held:
            self.account.refund(self.credits_held.popitem()[1])

    def credits_for(self, prompt: Prompt, lane: str, session: str) -> AbstractContextManager[None]:
        """Return what reserves the credits of a call, takes them if it succeeds, and refunds them if it fails.

        Raises:
            Withheld: The account has too few credits.
        """
        if self.account is None or (amount := find_credits(prompt.operation, 1, lane)) is None:
            return _NO_CREDITS
        return self._credits(self.account, amount, prompt.operation, f"{session}: {prompt.id}")

    @contextmanager
    def _credits(self, account: CreditAccount, amount: Decimal, operation: str, reference: str) -> Iterator[None]:
        reservation = self.credits_held.pop((reference, amount), None)
        try:
            if reservation is None:
                reservation = account.reserve(amount, operation, reference)
        except InsufficientCredits as error:
            raise Withheld(str(error)) from error
        try:
            yield
        except BaseException:
            account.refund(reservation)
            raise
        account.settle(reservation, amount)


_NO_CREDITS = nullcontext()


def _cost(rates: Rates, most: Most, asked: int, answered: int) -> Decimal:
    return rates.most(asked, answered, has_audio=most.has_audio, has_images=most.has_images, searches=most.searches)
