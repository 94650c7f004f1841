"""StoreLink: what passes between a limiter and its store.

Rule: one exchange at a time, and what a report says is kept until the store is
known to have it.

    say, cool, count --> unsaid --report--> said --its answer--> known
                                             ^ |
                                             +-+ the answer was lost: said again

A store of this machine answers at once.  One that is a network away is asked in
a thread, and its answer is taken in on the loop when it has come.  Then a
report may be counted although its answer was lost: what it says is numbered, so
that the store counts it once.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from ipybatch.engine.data.clock import Clock, boot_s
from ipybatch.engine.rules.limiter import Cost, Counted, Spent, Window
from ipybatch.engine.store.courier import Courier, courier_of
from ipybatch.engine.store.limit_store import Answer, LimitStore, Report, StoreBusy, asked, failed
from ipybatch.errors import JournalError

T = TypeVar("T")
Failure = StoreBusy | JournalError

MERGE_S = 0.005  # answers that came within so long are reported as one, of the last moment
AGAIN_S = 0.001, 0.005  # after another process held the store
PATIENCE_S = 0.2  # where something must be told while another process holds it
HANGS_S = 5.0  # so long an exchange that is under way is waited for where another must go before the loop goes on


class Sent(msgspec.Struct, frozen=True):
    """A report, and what is to be known when its answer comes.

    Attributes:
        at_s: When it was made.
        gain: What of an allowance may start only then, by unit; None for no allowance.
        cool_until_s: What it says of a cool-down, see `StoreLink.cool_until_s`.
        epoch: Of the limiter's allowance.
        slept_s: How long the machine had slept by then, see `slept_s`.
    """

    report: Report
    at_s: float
    gain: Cost | None
    cool_until_s: float | None
    epoch: int
    slept_s: float


def slept_s() -> float:
    """Return how long the machine has slept so far: its monotonic clock stands meanwhile, and other machines go on."""
    return boot_s() - time.monotonic()


class StoreLink:
    """A limiter's way to its store.

    Attributes:
        is_remote: Whether the store is a network away.
        cool_until_s: End of a cool-down that the store does not know; -inf: it was lifted; None: it knows all.
        counted: What the store does not know yet of the service's own count.
        latest: Of the requests that were answered the last that the next one adds to, until `merges_until_s`.
        number: Of the last report, and `known` what it said: see `Report`.
        round_s: How long an exchange takes; 0.0 with a store of this machine.
    """

    def __init__(self, store: LimitStore, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.is_remote = bool(getattr(store, "is_remote", False))
        self.cool_until_s: float | None = None
        self.counted: tuple[Counted, ...] = ()
        self.round_s = 0.0
        self._answered: dict[str, list[list[float]]] = {}  # not said, by unit: last at, cost, first at
        self.latest: list[float] = []  # of the requests among them
        self.merges_until_s = -math.inf
        self._said: list[Spent] = []  # with its time; the store may have it
        self.known = 0  # so much of what was said it has
        self.number = 0
        self._under_way: tuple[Future[Any], Callable[[], None]] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._under_way is not None

    def keep(self, now_s: float, unit: str, cost: float) -> None:
        """Keep what was answered for the next report; what came within a moment as one."""
        told = self._answered.setdefault(unit, [])
        if told and now_s < told[-1][2] + MERGE_S:
            told[-1][0] = now_s
            told[-1][1] += cost
        else:
            told.append([now_s, cost, now_s])

    def keep_one(self, now_s: float) -> None:
        """Keep that one request was answered, which cost nothing else."""
        self.latest, self.merges_until_s = [now_s, 1.0, now_s], now_s + MERGE_S
        self._answered.setdefault("requests", []).append(self.latest)

    def say_again(self, windows: Iterable[Window]) -> None:
        """Keep for the next report all that these hold: the store has lost it."""
        longest = {window.rate.unit: window for window in sorted(windows, key=lambda one: one.rate.per_s)}
        for unit, window in longest.items():
            self._answered[unit] = [[at_s, cost, at_s] for at_s, cost in window.spent()]
        self.merges_until_s = -math.inf

    def count(self, news: Sequence[Counted]) -> None:
        """Keep what the service counts for the next report."""
        self.counted = tuple({one.rate: one for one in (*self.counted, *news)}.values())

    def all_spent(self, now_s: float, history: Iterable[Spent]) -> list[Spent]:
        """Return what was answered, at a time each: what the store told, and what it is not known to have."""
        return sorted([*((now_s - ago_s, unit, cost) for ago_s, unit, cost in history), *self._said, *self._unsaid()])

    def say(self, now_s: float) -> list[Spent]:
        """Return what was answered and the store is not known to have, as the next report says it."""
        if self._answered:
            self._said += self._unsaid()
            self._answered, self.merges_until_s = {}, -math.inf
        return [(now_s - at_s, unit, cost) for at_s, unit, cost in self._said]

    def unsaid_cool_s(self, now_s: float) -> float | None:
        """Return what the store is to be told of a cool-down, as `Report.cool_s`."""
        until_s = self.cool_until_s
        if until_s is None or -math.inf < until_s <= now_s:
            return None
        return max(0.0, until_s - now_s)

    def numbered(self, report: Report, more: int) -> Report:
        """Return a report as a store takes it that is a network away, and may not get it, or get it late.

        Args:
            more: For how many further permits it asks.
        """
        self.number += 1
        return msgspec.structs.replace(report, more=more, round_s=self.round_s, number=self.number, said=self.known)

    def heard(self, now_s: float, sent: Sent) -> None:
        """Know that the store has what a report said."""
        if self._said:
            self.known += len(self._said) * self.is_remote
            self._said = []
        if self.cool_until_s is not None and self.cool_until_s == sent.cool_until_s:
            self.cool_until_s = None
        if self.counted and self.counted is sent.report.counted:
            self.counted = ()
        if self.is_remote:
            took_s = now_s - sent.at_s
            self.round_s = self.round_s + (took_s - self.round_s) / 4 if self.round_s else took_s

    def exchange(self, report: Report) -> Answer:
        """Exchange a report for an answer, on this thread.

        Raises:
            StoreBusy: Another process holds the store.
            JournalError: It cannot be read or written.
        """
        try:
            answer = self.store.exchange(report)
        except (StoreBusy, JournalError):
            raise
        except Exception as error:  # it may be anybody's
            raise failed(error) from error
        if not isinstance(answer, Answer):
            msg = f"the limit store's exchange() must return an Answer, got {type(answer).__name__}"
            raise JournalError(msg)
        return answer

    def history(self, name: str, since_s: float) -> list[Spent]:
        """Return what was answered within so many seconds, as the store knows it, on this thread.

        Raises:
            StoreBusy: Another process holds the store.
            JournalError: It cannot be read or written.
        """
        return list(asked(lambda: self.store.history(name, since_s))) if since_s else []

    def patiently(self, act: Callable[[], T]) -> T | None:
        """Do something with the store, and try again for a moment; None when another process holds it all the time.

        Raises:
            JournalError: It cannot be read or written.
        """
        ends_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return act()
            except StoreBusy:
                if time.monotonic() > ends_s:
                    return None
                time.sleep(random.uniform(*AGAIN_S))

    def send(
        self, sent: Sent, take: Callable[[Sent, Answer | Failure], None], loop: asyncio.AbstractEventLoop | None
    ) -> None:
        """Exchange a report, and take the answer in: at once, or on the loop when it has come."""
        if self.is_remote:
            self.ask(lambda: self.exchange(sent.report), lambda told: take(sent, told), loop)
            return
        told: Answer | Failure
        try:
            told = self.exchange(sent.report)
        except (StoreBusy, JournalError) as error:
            told = error
        take(sent, told)

    def ask(
        self, ask: Callable[[], T], take: Callable[[T | Failure], None], loop: asyncio.AbstractEventLoop | None
    ) -> None:
        """Ask the store something, and take in what it says: at once, or on the loop when it has come."""

        def outcome() -> T | Failure:
            try:
                return ask()
            except (StoreBusy, JournalError) as error:
                return error

        def take_in() -> None:
            if self._under_way is mine:  # else it was waited for
                self._under_way = None
                self.clock.hold(-1)
                take(found.result() if found.done() else JournalError("the limit store does not answer"))

        def call_back(_: Future[T | Failure]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                if loop is not None:
                    loop.call_soon_threadsafe(take_in, context=contextvars.Context())

        if not self.is_remote:
            take(outcome())
            return
        assert self._under_way is None
        self.clock.hold(+1)
        found = self.courier.call(self, outcome)
        mine = self._under_way = found, take_in
        found.add_done_callback(call_back)

    def finish(self, most_s: float = HANGS_S) -> None:
        """Wait for the exchange that is under way, at most so long, and take in what the store says."""
        if self._under_way is not None:
            found, take_in = self._under_way
            self.courier.wait(found, most_s)
            take_in()

    def close(self) -> None:
        """Need no thread any more."""
        if self.is_remote:
            self.courier.leave(self)

    @property
    def courier(self) -> Courier:
        """The threads of the store."""
        return courier_of(self.store)

    def _unsaid(self) -> list[Spent]:
        return [(at_s, unit, cost) for unit, told in self._answered.items() for at_s, cost, _ in told]
