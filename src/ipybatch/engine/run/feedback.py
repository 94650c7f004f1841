"""Feedback: what the end of an attempt tells the breaker and the limiter, what it costs its item, what is published."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.policy import Retry
from ipybatch.engine.rules import retry
from ipybatch.engine.rules.breaker import CircuitBreaker
from ipybatch.engine.rules.charges import NO_ITEM, Charges
from ipybatch.engine.rules.classify import Kind, Verdict
from ipybatch.engine.rules.doubt import Doubt
from ipybatch.engine.rules.limit_groups import LimitGroup, group_label, named_breakers
from ipybatch.engine.rules.opening import Opening
from ipybatch.engine.rules.scheduler import Ticket
from ipybatch.engine.run.judgement import Judgement
from ipybatch.engine.store.resources import Resource

DENIED_S = 3600.0  # so long without one success, though nothing is wrong with the items, and a session ends
TOLD_S = 60.0  # after so long of it the service's sentence is told
DENIED = 3  # times it was asked, at least: one long wait that the service names may end a little too early
STRAYS, OF = 5, 20  # so many answers 429 of the last ones are no strays
IN_A_ROW, SHORTEST_S = 3, 1.0  # a service that told less, and refused so often in a row, is not asked more often


class Following(msgspec.Struct, frozen=True):
    """What follows from an attempt that failed.

    Attributes:
        is_last: Whether its item is given up.
        wait_s: How long the item waits by itself otherwise.
        over: Why the session ends; "" while it need not.
    """

    is_last: bool
    wait_s: float
    over: str


class Feedback(msgspec.Struct):
    """What the end of an attempt tells the breaker and the limiter, and what it costs its item.

    A 429 that names a time cools the resource down. One that names none, though we hold to the service's windows, may
    be a stray: its own request waits, and only several of the last answers cool all (whether our window is full says
    nothing: at full speed it always is). Neither is a failure, nor costs the item an attempt. Timeouts, lost
    connections and 5xx are failures of the service; cancellations and errors of the item itself prove nothing.

    Attributes:
        has_failed: Whether an attempt has failed so far: else there is nothing to tell of those that succeed.
        has_succeeded: Whether an item has, in this start; ``succeeded_before``: asks what is on record.
        has_others: Asks whether an item that was not tried can tell whose fault a failure is.
        last_error: In one line.
        probe: What the work asks for to tell how the service is; None for nothing.
        opening: When something may start by the clock on the wall.
        charges: What an item's attempts have cost it.
        doubt: Whether one error meets every item.
    """

    resource: Resource
    policy: Retry
    clock: Clock
    emit: Callable[[events.Event], None]
    succeeded_before: Callable[[], bool]
    has_others: Callable[[Ticket], bool]
    has_failed: bool = False
    has_succeeded: bool = False
    last_error: str = ""
    probe: Callable[[], Any] | None = None
    opening: Opening = msgspec.field(default_factory=Opening)
    charges: Charges = msgspec.field(default_factory=Charges)
    doubt: Doubt = msgspec.field(default_factory=Doubt)
    _chance: random.Random = msgspec.field(default_factory=random.Random)
    _told: dict[str, int] = msgspec.field(default_factory=dict)  # moves of the breaker, by limit group
    _depleted_s: float = -math.inf
    _answers: dict[str, deque[bool]] = msgspec.field(default_factory=dict)  # the last ones, by limit group: 429 or not
    _denied_since_s: float | None = None
    _denied: int = 0  # times since then, one after the other
    _denied_at_s: float = -math.inf  # the latest of them
    _adjourned: tuple[float, float] = (0.0, 0.0)  # until when, as was told last, and for which start
    _told_about: set[str] = msgspec.field(default_factory=set)
    _has_before: bool | None = None  # None: not looked up

    def has_ever_succeeded(self) -> bool:
        """Say whether any item has, in this start or before."""
        if not self.has_succeeded and self._has_before is None:
            self._has_before = self.succeeded_before()
        return self.has_succeeded or bool(self._has_before)

    def succeeded(self, now_s: float, ticket: Ticket, item: int) -> None:
        """Count an attempt that the service answered well, after some that failed.

        Args:
            item: Seq of what succeeded; `NO_ITEM` for a probe.
        """
        self._denied_since_s = None
        self.doubt.succeed()
        if self._answers:
            self._note_answer(ticket, is_429=False)
        if ticket.limiter.cool_downs:
            ticket.limiter.warm_up()
        breaker = ticket.breaker
        if breaker is not None and (breaker.failures or breaker.openings):
            if ticket.epoch == breaker.epoch:
                self.charges.suspect(breaker, item)
            breaker.succeed(now_s, ticket.epoch)
            self.tell(ticket)

    def cancelled(self, ticket: Ticket) -> None:
        """Count an attempt that was cancelled."""
        self.has_failed = True
        if ticket.breaker is not None:
            ticket.breaker.release(ticket.epoch)
            self.tell(ticket)
        if ticket.is_asked:
            self.doubt.release()

    def failed(self, now_s: float, ticket: Ticket, error: BaseException, judged: Judgement) -> Following:
        """Count an attempt that failed, and return what follows."""
        self.has_failed, self.last_error = True, judged.text
        task, verdict = ticket.task, judged.verdict
        self._tell_breaker(now_s, ticket, verdict)
        is_denied = verdict.scope == "rate" or (verdict.scope == "us" and verdict.is_neutral)
        if is_denied or (ticket.is_probing and verdict.counts):
            self.charges.give_back(task.seq)
        if is_denied:
            if verdict.scope == "us":
                self.note(verdict.advice, judged.text)
            self._note_denial(now_s, ticket, judged)
        else:  # it was let through, or the service is out of order: that is bounded otherwise
            self._denied_since_s = None
        if self._answers and verdict.scope != "rate":
            self._note_answer(ticket, is_429=False)
        is_cooling = self._cool_down(now_s, ticket, verdict)
        paid = self.charges.paid(task.seq, task.attempts)
        is_last = retry.is_last(self.policy, paid, verdict) and not self._is_spared(ticket, verdict)
        if is_last and verdict.counts and ticket.breaker is not None:
            self.charges.give_up(task.seq)
        self._doubt(ticket, error, judged, is_last=is_last)
        wait_s = 0.0
        if not is_last and not is_cooling:
            wait_s = judged.wait_s(self.policy, task.attempts, paid, self.clock.unix_s(), self._chance)
        return Following(is_last, wait_s, self._why_over(now_s, judged))

    def _tell_breaker(self, now_s: float, ticket: Ticket, verdict: Verdict) -> None:
        breaker, item = ticket.breaker, NO_ITEM if ticket.is_probing else ticket.task.seq
        if breaker is None:
            return
        if verdict.counts:
            is_late = ticket.epoch != breaker.epoch
            breaker.fail(now_s, ticket.epoch, item)
            if is_late:
                self.charges.give_back(item)
            elif self.charges.is_outage(breaker):
                self.charges.give_outage_back(breaker)
        else:
            breaker.release(ticket.epoch)
        self.tell(ticket)

    def _is_spared(self, ticket: Ticket, verdict: Verdict) -> bool:
        """Say whether an item waits that would be given up: others have yet to tell whether it is an outage."""
        breaker = ticket.breaker
        if breaker is None or not verdict.counts or (self.probe is None and not self.has_others(ticket)):
            return False
        return self.charges.spare(ticket.task.seq, breaker)

    def _doubt(self, ticket: Ticket, error: BaseException, judged: Judgement, *, is_last: bool) -> None:
        doubt, task, was = self.doubt, ticket.task, self.doubt.state
        doubt.has_succeeded = self.has_succeeded
        if is_last:
            doubt.fail(task.seq, error, judged.verdict, judged.text, task.label, asked=ticket.is_asked)
        elif ticket.is_asked:
            doubt.release()
        if doubt.scope == "us" and doubt.state == "watching" and doubt.alike == [task.seq]:
            self.emit(events.Noted(self.clock.unix_s(), judged.text))
        if doubt.state == "asking" and was != "asking":
            text = f"{len(doubt.alike)} items failed alike, and none succeeded: one more tells whether any can"
            self.emit(events.Noted(self.clock.unix_s(), text))

    def _why_over(self, now_s: float, judged: Judgement) -> str:
        """Return why the session ends; "" while it need not."""
        if judged.verdict.ends_session:
            return judged.text
        if self._denied >= DENIED and (lasts_s := self._denied_for_s(now_s)) >= DENIED_S:
            return f"nothing was let through for {lasts_s / 60:,.0f} min: {judged.text}"
        return self.doubt.reason

    def note(self, about: str, text: str) -> None:
        """Publish a text, once about each thing."""
        if about not in self._told_about:
            self._told_about.add(about)
            self.emit(events.Noted(self.clock.unix_s(), text))

    def _note_denial(self, now_s: float, ticket: Ticket, judged: Judgement) -> None:
        if self._denied_since_s is None:
            self._denied_since_s, self._denied, self._denied_at_s = now_s, 0, -math.inf
        if ticket.permit.started_s >= self._denied_at_s:  # not one more of those that were under way together
            self._denied, self._denied_at_s = self._denied + 1, now_s
        has_lasted = self._denied >= DENIED and self._denied_for_s(now_s) >= TOLD_S
        if has_lasted and judged.verdict.scope == "rate":
            over = f"after {DENIED_S / 60:.0f} min of it the session ends"
            self.note("denied", f"the service lets nothing through, {over}: {judged.text}")

    def _denied_for_s(self, now_s: float) -> float:
        """Return how long nothing was let through; hours in which nothing may start are none of it."""
        if self._denied_since_s is None:
            return 0.0
        lasts_s = now_s - self._denied_since_s
        unix_s = self.clock.unix_s()
        return self.opening.open_s(unix_s - lasts_s, unix_s)

    def adjourn(self, now_s: float) -> None:
        """Publish that nothing starts by the clock on the wall, once for each time."""
        if self.opening.wait_s(now_s) == 0.0:
            return
        unix_s = self.clock.unix_s()
        until_s = self.opening.opens_s(unix_s)
        if self._adjourned != (until_s, self.opening.start_s):
            self._adjourned = until_s, self.opening.start_s
            self.emit(events.Adjourned(unix_s, until_s, self.opening.why(unix_s)))

    def resume(self) -> None:
        """Let the time of a pause count for nothing."""
        self._denied_since_s = None

    def wait(self, now_s: float, why: str) -> None:
        """Publish that the limits are used up, once a window, or that nothing starts by the clock on the wall."""
        if why == "hours":
            self.adjourn(now_s)
        if why == "limit":
            shortest_s = min((rate.per_s for rate in self.resource.limiter.windows), default=1.0)
            if now_s >= self._depleted_s + shortest_s:
                self._depleted_s = now_s
                self.emit(events.Depleted(self.clock.unix_s()))

    def tell(self, ticket: Ticket) -> None:
        """Publish the breaker of an attempt, if it moved."""
        for name, breaker in () if ticket.breaker is None else named_breakers(ticket.limit_group, ticket.breaker):
            if breaker.moves == self._told.get(name, 0):
                continue
            self._told[name] = breaker.moves
            at_s = self.clock.unix_s()
            probe_at_s = at_s + breaker.wait_s(self.clock.now_s()) if breaker.state == "open" else 0.0
            self.emit(
                events.BreakerMoved(
                    at_s, breaker.state, breaker.failures, breaker.openings, probe_at_s, group_label(name)
                )
            )

    def _cool_down(self, now_s: float, ticket: Ticket, verdict: Verdict) -> bool:
        """Cool the resource down where the error says so; say whether it does."""
        if verdict.told.quotas:
            ticket.limiter.heed(now_s, verdict.told)
        wait_s = verdict.retry_after_s
        if wait_s is None:
            if verdict.kind is not Kind.RATE_LIMITED or self._is_stray(ticket):
                return False
            wait_s = retry.cool_down_s(self.policy, ticket.limiter.cool_downs, self.clock.unix_s())
        elif ticket.limiter.cool_downs >= IN_A_ROW:
            wait_s = max(wait_s, SHORTEST_S)
        self._answers.pop(ticket.limit_group, None)
        ticket.limiter.cool_down(now_s, ticket.permit.started_s, wait_s)
        return True

    def _is_stray(self, ticket: Ticket) -> bool:
        """Say whether a 429 that names no time is one of few, though we hold to windows."""
        return "requests" in ticket.limiter.units and self._note_answer(ticket, is_429=True) < STRAYS

    def _note_answer(self, ticket: Ticket, *, is_429: bool) -> int:
        """Return how many of the last answers were 429."""
        answers = self._answers.get(ticket.limit_group)
        if answers is None:
            if not is_429:
                return 0
            answers = self._answers[ticket.limit_group] = deque(maxlen=OF)
        answers.append(is_429)
        return sum(answers)


def why_opened(breaker: CircuitBreaker, error: str) -> str:
    """Return why a breaker that gave up ends what it guards.

    Args:
        error: The last one.
    """
    times = breaker.openings
    often = f": the breaker opened {times} times in a row" if times > 1 else ", the breaker opened"
    return f"the service failed{often}; last: {error}"


def why_gave_up(limit_groups: Iterable[LimitGroup], error: str) -> str:
    """Return which limit groups gave up, and why; "" when none has."""
    gone = [limit_group for limit_group in limit_groups if limit_group.gave_up]
    if not gone:
        return ""
    names = ", ".join([limit_group.label for limit_group in gone[:_NAMED]])
    more = f" and {len(gone) - _NAMED:,} more" if len(gone) > _NAMED else ""
    breaker = gone[0].breaker
    assert breaker is not None
    return f"limit group{'' if len(gone) == 1 else 's'} {names}{more}: {why_opened(breaker, error)}"


_NAMED = 5  # limit groups in a reason
