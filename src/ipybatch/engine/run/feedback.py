"""Feedback: what the end of an attempt tells the breaker and the limiter, and what is published of that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.policy import Retry
from ipybatch.engine.rules import retry
from ipybatch.engine.rules.breaker import CircuitBreaker
from ipybatch.engine.rules.classify import Kind, Verdict
from ipybatch.engine.rules.limit_groups import LimitGroup, group_label, named_breakers
from ipybatch.engine.rules.scheduler import Ticket
from ipybatch.engine.store.resources import Resource


class Feedback(msgspec.Struct):
    """What the end of an attempt tells the breaker and the limiter.

    A 429 cools the resource down and is no failure; timeouts, lost connections and 5xx are failures of the service;
    cancellations and errors of the item itself prove nothing.

    Attributes:
        has_failed: Whether an attempt has failed so far: else there is nothing to tell of those that succeed.
    """

    resource: Resource
    policy: Retry
    clock: Clock
    emit: Callable[[events.Event], None]
    has_failed: bool = False
    _told: dict[str, int] = msgspec.field(default_factory=dict)  # moves of the breaker, by limit group
    _depleted_s: float = -math.inf

    def succeeded(self, now_s: float, ticket: Ticket) -> None:
        """Count an attempt that the service answered well."""
        if ticket.limiter.cool_downs:
            ticket.limiter.warm_up()
        breaker = ticket.breaker
        if breaker is not None and (breaker.failures or breaker.openings):
            breaker.succeed(now_s, ticket.epoch)
            self.tell(ticket)

    def failed(self, now_s: float, ticket: Ticket, verdict: Verdict | None) -> None:
        """Count an attempt that failed; without a verdict it was cancelled."""
        self.has_failed = True
        if ticket.breaker is not None:
            if verdict is not None and verdict.counts:
                ticket.breaker.fail(now_s, ticket.epoch)
            else:
                ticket.breaker.release(ticket.epoch)
            self.tell(ticket)
        if verdict is not None:
            self._cool_down(now_s, ticket, verdict)

    def wait(self, now_s: float, why: str) -> None:
        """Publish that the limits are used up, once a window."""
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

    def _cool_down(self, now_s: float, ticket: Ticket, verdict: Verdict) -> None:
        wait_s = verdict.retry_after_s
        if wait_s is None:
            if verdict.kind is not Kind.RATE_LIMITED:
                return
            wait_s = retry.cool_down_s(self.policy, ticket.limiter.cool_downs, self.clock.unix_s())
        ticket.limiter.cool_down(now_s, ticket.permit.started_s, wait_s)


def why_opened(breaker: CircuitBreaker) -> str:
    """Return why a breaker that gave up ends what it guards."""
    times = breaker.openings
    return f"the service failed: the breaker opened {times} times in a row" if times > 1 else "the breaker opened"


def why_gave_up(limit_groups: Iterable[LimitGroup]) -> str:
    """Return which limit groups gave up, and why; "" when none has."""
    gone = [limit_group for limit_group in limit_groups if limit_group.gave_up]
    if not gone:
        return ""
    names = ", ".join([limit_group.label for limit_group in gone[:_NAMED]])
    more = f" and {len(gone) - _NAMED:,} more" if len(gone) > _NAMED else ""
    breaker = gone[0].breaker
    assert breaker is not None
    return f"limit group{'' if len(gone) == 1 else 's'} {names}{more}: {why_opened(breaker)}"


_NAMED = 5  # limit groups in a reason
