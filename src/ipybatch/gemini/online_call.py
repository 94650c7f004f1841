"""One request of generate_content, with its cost.

reserve money --> record that it is sent --> send once --> read the answer --> record usage, settle money --> result
                                               `--> no answer: it may be billed, and counts at what was reserved
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from ipybatch.engine.data.clock import Clock, in_thread
from ipybatch.engine.data.events import Event, Noted, Spent
from ipybatch.engine.rules.limiter import MOST_COOL_S, cut_words
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.store.journal import Journal
from ipybatch.errors import Held, ItemError, Permanent, RateLimited, Withheld
from ipybatch.gemini.batch.pending import Stake
from ipybatch.gemini.images import ImageStore
from ipybatch.gemini.money import usage
from ipybatch.gemini.money.budget import MARGIN, NOTHING, Money
from ipybatch.gemini.money.credits import find_credits
from ipybatch.gemini.prompt_files import PromptFiles
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.api import Api, NotSent
from ipybatch.gemini.service.pacer import MOMENT_S, REST_S, GeminiPacer
from ipybatch.gemini.service.reply import (
    UNTOLD,
    Answer,
    midnight_pacific_s,
    read_answer,
    read_refusal,
    result_of,
)
from ipybatch.gemini.service.request_config import RequestConfig
from ipybatch.gemini.service.whole_reply import IMAGES, drafts, keep_reply, names_beside
from ipybatch.gemini.tries import Unusable

_NO_USD = Decimal(0)
_NO_BOUND = (
    f"budget_usd has no room for the longest answer that the model may give, so {MARGIN} times the longest so far is"
    " reserved for each call: config={'max_output_tokens': ...} makes the budget a bound"
)


class NextModel(RateLimited):
    """A model refused, and another one may be asked in its place."""


class Ticket(Stake):
    """What is reserved for a call, and where it is on record.

    Attributes:
        reserved: Reserved in the budget, USD.
        prepaid: What counts as spent of it already, USD.
        is_settled: Whether the reservation is released.
        number: Its row in the usage; 0 before there is one.
        at_once: Requests in flight when it was sent, itself included; None in a batch job.
        job: Display name of its batch job; "" for none.
        item: Key in the job; None for none.
        unmatched: The error of an answer that may be another item's: it stands in no column of the item's own.
    """

    reserved: Decimal = _NO_USD
    prepaid: Decimal = _NO_USD
    is_settled: bool = False
    number: int = 0
    at_once: int | None = None
    job: str = ""
    item: str | None = None
    unmatched: Permanent | None = None


class Caller(msgspec.Struct):
    """Sends prompts one by one.

    Attributes:
        session: Name of the session.
        request_configs: Settings of requests, by lane.
        tell: Function that publishes an event.
        log: The calls on record.
        images: Where images of answers are saved; None: nowhere.
        keeps_reply: Whether the whole reply is kept in the item's result.
    """

    session: str
    api: Api
    request_configs: dict[str, RequestConfig]
    pacer: GeminiPacer
    money: Money
    journal: Journal
    clock: Clock
    tell: Callable[[Event], None]
    log: usage.CallLog
    images: ImageStore | None = None
    keeps_reply: bool = False
    _resting: set[str] = msgspec.field(default_factory=set)
    _in_flight: int = 0
    _is_advised: bool = False
    _told: tuple[float, float | None] | None = None

    async def call(self, prompt: Prompt, lane: str, attempt: Attempt, model: str | None = None) -> dict[str, Any]:
        """Send one request and return the item's result.

        Args:
            model: A model beside those of the session; None: the one whose turn it is.

        Raises:
            Withheld: The budget or the account does not allow it.
            ItemError: There is no result; the type says what to do.
        """
        turn = self.pacer.take()
        model = model or turn
        ticket = await self.reserve(prompt, model, lane)
        try:
            with self.money.credits_for(prompt, lane, self.session):
                answer, ms = await self._send(prompt, model, lane, attempt, ticket)
                return await self.finish(prompt, answer, model, lane, ms, ticket)
        finally:
            attempt.is_billed = False
            self.settle(ticket, None)
            self.tell_spent()

    def files_of(self, prompt: Prompt) -> PromptFiles:
        """Return the files that a prompt names."""
        return PromptFiles(prompt, self.api, self.clock)

    async def reserve(self, prompt: Prompt, model: str, lane: str) -> Ticket:
        """Reserve the most that a call can cost, so far as it is known; wait while calls in flight may make room.

        Raises:
            Withheld: The budget does not allow it.
        """
        request_config, budget = self.request_configs[lane], self.money.budget
        bound = self.money.bound(prompt, model, lane, request_config)
        if bound is None:
            return Ticket(reserved=await budget.reserve(NOTHING))
        if bound.is_known:
            reserved = await budget.reserve(bound)
        else:
            reserved = await budget.reserve(
                bound, lambda: self.money.bound(prompt, model, lane, request_config) or NOTHING
            )
            if reserved < bound.usd and budget.limit_usd is not None and not self._is_advised:
                self._is_advised = True
                self.tell(Noted(self.clock.unix_s(), _NO_BOUND))
        return Ticket(bound_usd=reserved, reserved=reserved)

    def settle(self, ticket: Ticket, usd: Decimal | None, *, is_told: bool = True) -> None:
        """Count the cost of a call in place of its reservation, once.

        Args:
            is_told: Whether an answer tells it; otherwise it is the most that it can be.
        """
        if not ticket.is_settled:
            ticket.is_settled = True
            cost = usd or _NO_USD
            unconfirmed_usd = (_NO_USD if is_told else cost) - ticket.prepaid
            self.money.budget.settle(ticket.reserved, cost - ticket.prepaid, unconfirmed_usd)

    async def finish(  # noqa: PLR0917  # what a call has become
        self, prompt: Prompt, answer: Answer, model: str, lane: str, ms: float, ticket: Ticket
    ) -> dict[str, Any]:
        """Record an answer's usage, settle it, save its images, and return the item's result.

        Args:
            ms: Time to the answer, milliseconds; 0.0 in a batch job.
            ticket: What is reserved for it: what it costs if the service did not tell its tokens.

        Raises:
            Unusable: The answer's verdict is not "ok", or it does not match the schema; it is billed all the same, and
                the error has it as its result.
            Permanent: An image cannot be saved; the error has the rest as its result.
        """
        usd = self.money.usd(model, answer.tokens, lane) if answer.tokens.are_told else ticket.bound_usd
        unmatched = ticket.unmatched
        status, data, unusable = (
            self._read(answer, lane) if unmatched is None else ("unmatched", msgspec.UNSET, unmatched)
        )
        self.record(ticket, prompt, model, lane, status, ms=ms, tokens=answer.tokens, usd=usd)
        self.money.learn(prompt, model, answer.tokens)
        self.settle(ticket, usd, is_told=answer.tokens.are_told)
        if lane != "online":
            self.money.save(model, lane, None if usd is None else usd - ticket.prepaid)
        images, dropped = list(answer.images), names_beside(answer.body)
        files: list[str] = []
        try:
            images += drafts(answer.body) if self.keeps_reply and "thoughts" in dropped else []
            if images and self.images is not None:
                name = prompt.id if unmatched is None else f"{prompt.id} unmatched"
                files = await in_thread(self.clock, self.images.save, name, images)
        except ItemError as error:
            unusable = unusable or Permanent(str(error))
        result = result_of(answer, usd=usd, data=data, files=files[: len(answer.images)])
        result["model"] = result["model"] or model
        if unmatched is not None:  # in no column where anybody looks for an answer
            result = {"unmatched": result.pop("text"), **result}
        if self.keeps_reply and unmatched is None and (reply := keep_reply(answer, files)) is not None:
            result["reply"], dropped = reply, []
        if len(files) < len(images):
            dropped.append(IMAGES)
        if dropped:
            result["dropped"] = ", ".join(dropped)
        if unusable is not None:
            unusable.result = result
            raise unusable
        return result

    def _read(self, answer: Answer, lane: str) -> tuple[str, Any, Permanent | None]:
        """Return an answer's status in the usage, its data under the schema, and the error of one that is unusable."""
        if answer.verdict != "ok":
            return answer.verdict, msgspec.UNSET, Unusable(answer.reason, answer.verdict)
        schema = self.request_configs[lane].schema
        if schema is None:
            return "ok", msgspec.UNSET, None
        try:
            return "ok", schema.parse(answer.text), None
        except Permanent as error:
            return "invalid", msgspec.UNSET, Unusable(str(error), "invalid")

    def record(self, ticket: Ticket, prompt: Prompt, model: str, lane: str, status: str, **ended: Any) -> None:
        """Record how a call has ended.

        Args:
            ended: Fields of `Call`: ms, tokens, usd.
        """
        call = self._entry(ticket, prompt, model, lane, status, **ended)
        if ticket.number:
            self.log.end(ticket.number, call)
        else:
            usage.record_calls(self.journal, call)

    def _entry(self, ticket: Ticket, prompt: Prompt, model: str, lane: str, status: str, **ended: Any) -> usage.Call:
        return usage.Call(
            at_s=self.clock.unix_s(),
            session=self.session,
            lane=lane,
            model=model,
            operation=prompt.operation,
            project=prompt.project,
            status=status,
            credits=find_credits(prompt.operation, 1, lane) if status == "ok" else None,
            job=ticket.job,
            item=ticket.item,
            bound_usd=ticket.bound_usd,
            at_once=ticket.at_once,
            **ended,
        )

    def tell_spent(self) -> None:
        """Publish the amount spent so far."""
        budget = self.money.budget
        limit = None if budget.limit_usd is None else float(budget.limit_usd)
        told = float(budget.spent_usd - budget.unconfirmed_usd), limit
        if told != self._told:  # a cancel ends thousands of prompts, and spends nothing
            self._told = told
            self.tell(Spent(self.clock.unix_s(), *told))

    async def _send(
        self, prompt: Prompt, model: str, lane: str, attempt: Attempt, ticket: Ticket
    ) -> tuple[Answer, float]:
        request_config = self.request_configs[lane]
        body = await self._body(prompt, request_config)
        self._in_flight += 1
        try:
            ticket.at_once = self._in_flight
            sent = self._entry(ticket, prompt, model, lane, usage.SENT, tokens=UNTOLD)
            ticket.number = await self.log.begin(sent)
            attempt.is_billed = True
            started_s = self.clock.now_s()
            try:
                reply = await self.api.generate(model, body)
                answer = read_answer(reply, image=request_config.wants_image(prompt.config))
            except BaseException as error:
                self._end_unanswered(error, prompt, model, lane, (self.clock.now_s() - started_s) * 1000, ticket)
                told = self._refused(error, model, started_s) if isinstance(error, RateLimited) else None
                if told is not None:
                    raise told from error
                raise
        finally:
            self._in_flight -= 1
        seconds = self.clock.now_s() - started_s
        pace = self.pacer.of(model)
        pace.answered(seconds)
        if not self.pacer.has_one:
            self.pacer.refresh(self.clock.unix_s())
        self._resting.discard(model)
        if advice := pace.advice():
            self.tell(Noted(self.clock.unix_s(), advice))
        if answer.tokens.in_ is not None:
            attempt.settle(tokens=float(answer.tokens.in_))
        return answer, seconds * 1000

    def _end_unanswered(  # noqa: PLR0917  # one private caller
        self, error: BaseException, prompt: Prompt, model: str, lane: str, ms: float, ticket: Ticket
    ) -> None:
        """Record a call without an answer: what the service refused costs nothing, all else may be billed.

        Source: https://ai.google.dev/gemini-api/docs/billing, "If your request fails with a 400 or 500 error, you won't
        be charged for the tokens used" (2026-11-22).
        """
        code = getattr(error.__cause__, "code", None)
        if isinstance(code, int) or isinstance(error, NotSent):
            status = str(code) if isinstance(code, int) else usage.NOT_SENT
            self.record(ticket, prompt, model, lane, status, ms=ms)
            return
        self.record(ticket, prompt, model, lane, usage.UNANSWERED, ms=ms, tokens=UNTOLD, usd=ticket.bound_usd)
        self.settle(ticket, ticket.bound_usd, is_told=False)

    async def _body(self, prompt: Prompt, request_config: RequestConfig) -> bytes:
        if not prompt.images:
            return prompt.body(request_config)
        return await in_thread(self.clock, prompt.body, request_config)  # it reads files

    def _refused(self, error: RateLimited, model: str, started_s: float) -> ItemError:
        """Learn from a 429, and return the error for the prompt."""
        now_s, refusal = self.clock.now_s(), read_refusal(getattr(error.__cause__, "details", None))
        pacer, pace = self.pacer, self.pacer.of(model)
        pace.refused(now_s, started_s, refusal)
        until_s = midnight_pacific_s(self.clock.unix_s())
        hours = (until_s - self.clock.unix_s()) / 3600
        if pacer.is_beside(model):
            if refusal.is_daily:
                return Held(f"the quota of {model} for today is used up: run again in {hours:.1f} h")
            told_s = min(refusal.retry_s or 0.0, MOST_COOL_S)
            return RateLimited(str(error), back_off_s=told_s if told_s >= MOMENT_S else None)
        if refusal.is_daily:
            pace.used_up_until_s = until_s
        elif pacer.has_one:
            return RateLimited(str(error), retry_after_s=refusal.retry_s)
        else:
            rest_s = pace.rest(now_s, started_s, refusal.retry_s)
            if rest_s >= REST_S:
                told = f" for {rest_s / 60:,.0f} min{cut_words(refusal.retry_s or 0.0)}"
                self._note_rest(model, f"{model} is not asked{told}: {error}")
        rest_s = pacer.rest_s(now_s)
        if rest_s == math.inf:
            return Withheld(
                f"the quota of every model for today is used up: run again after midnight Pacific, in {hours:.1f} h"
            )
        if refusal.is_daily:
            self._note_rest(model, f"the quota of {model} for today is used up, for {hours:.1f} h")
        if rest_s:
            return RateLimited(f"no model may be asked now; {error}", retry_after_s=rest_s)
        return NextModel(str(error), retry_after_s=0.0)

    def _note_rest(self, model: str, text: str) -> None:
        """Publish that a model is not asked for a while, once until it answers again."""
        if model not in self._resting:
            self._resting.add(model)
            self.tell(Noted(self.clock.unix_s(), f"{text}. The other models go on; ipybatch.lift() asks it at once"))
