"""Feedback: what the end of an attempt tells breaker and limiter.

Rule: 429 cools the resource down and is no failure; timeouts, lost lines and
5xx are the service's failures; cancellations and errors of the item itself
prove nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from ipybatch.engine import events, retry
from ipybatch.engine.breaker import Breaker
from ipybatch.engine.clock import Clock
from ipybatch.engine.policy import Retry
from ipybatch.engine.resource import Resource
from ipybatch.engine.retry import Kind, Verdict
from ipybatch.engine.scheduler import Ticket


class Feedback(msgspec.Struct):
    """Pass on how attempts ended, and publish what that changes."""

    resource: Resource
    breaker: Breaker | None
    policy: Retry
    clock: Clock
    emit: Callable[[events.Event], None]
    on_cool_down: Callable[[float, str], None]
    _told: int = 0
    _depleted_s: float = -math.inf

    @property
    def gave_up(self) -> str:
        """Why the breaker ends the session; "" while it does not."""
        if self.breaker is None or not self.breaker.gave_up:
            return ""
        times = self.breaker.openings
        return f"the service failed: the breaker opened {times} times in a row" if times > 1 else "the breaker opened"

    def succeeded(self, now_s: float, ticket: Ticket) -> None:
        """Count an attempt that the service answered well."""
        if ticket.limiter.cool_downs:
            ticket.limiter.warm_up()
        breaker = self.breaker
        if breaker is not None and (breaker.failures or breaker.openings):
            breaker.succeed(now_s, ticket.epoch)
            self.tell()

    def failed(self, now_s: float, ticket: Ticket, verdict: Verdict | None) -> None:
        """Count an attempt that failed; without a verdict it was cancelled."""
        if self.breaker is not None:
            if verdict is not None and verdict.counts:
                self.breaker.fail(now_s, ticket.epoch)
            else:
                self.breaker.release(ticket.epoch)
            self.tell()
        if verdict is not None:
            self._cool_down(now_s, ticket, verdict)

    def wait(self, now_s: float, why: str) -> None:
        """Publish that nothing may start, and why, where that is news."""
        if why == "limit":
            shortest_s = min((rate.per_s for rate in self.resource.limiter.windows), default=1.0)
            if now_s >= self._depleted_s + shortest_s:
                self._depleted_s = now_s
                self.emit(events.Depleted(self.clock.unix_s()))
        self.tell()

    def tell(self) -> None:
        """Publish the breaker, if it moved."""
        breaker = self.breaker
        if breaker is None or breaker.moves == self._told:
            return
        self._told = breaker.moves
        at_s = self.clock.unix_s()
        probe_at_s = at_s + breaker.wait_s(self.clock.now_s()) if breaker.state == "open" else 0.0
        self.emit(events.BreakerMoved(at_s, breaker.state, breaker.failures, breaker.openings, probe_at_s))

    def _cool_down(self, now_s: float, ticket: Ticket, verdict: Verdict) -> None:
        wait_s = verdict.retry_after_s
        if wait_s is None:
            if verdict.kind is not Kind.RATE_LIMITED:
                return
            wait_s = retry.cool_down_s(self.policy, ticket.limiter.cool_downs, self.clock.unix_s())
        if ticket.limiter.cool_down(now_s, ticket.permit.started_s, wait_s):
            until_s = self.clock.unix_s() + wait_s
            self.on_cool_down(until_s, ticket.lane)
            reason = "the service asked us to slow down"
            self.emit(events.CooledDown(self.clock.unix_s(), until_s, reason, ticket.lane))
