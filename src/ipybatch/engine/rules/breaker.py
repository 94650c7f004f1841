"""Circuit breaker as a pure state machine: no clock, no I/O, no asyncio.

Rule: every breaker transition lives in this file, and every method takes
``now_s``.  The caller owns the clock.

It opens after failures in a row, whoever failed: a dead service must not see
more.  Whether the *service* failed, `charges` tells by the items that did.

States follow Nygard, *Release It!* (2nd ed., ch. 5).

    CLOSED --failures in a row--> OPEN --break elapsed--> HALF_OPEN
       ^                           ^                          |
       |                           +- probe fails: twice the -+
       |                              break, gives up in the end
       +-------------------- probe succeeds ------------------+
"""

from __future__ import annotations

import msgspec

from ipybatch.engine.data.events import BreakerState
from ipybatch.engine.data.policy import Breaker as Policy


class CircuitBreaker(msgspec.Struct):
    """Decide whether one attempt may start now.

    Attributes:
        failures: Failures in a row since the last success.
        openings: Openings in a row since the last success.
        moves: Grows with every change that a view would show.
        epoch: Grows with every transition: an attempt that outlives its epoch proves nothing.
        failed: How often each item has failed since the last success, by seq.
    """

    policy: Policy
    state: BreakerState = "closed"
    failures: int = 0
    openings: int = 0
    moves: int = 0
    _opened_at_s: float = 0.0
    _probing: bool = False
    epoch: int = 0
    failed: dict[int, int] = msgspec.field(default_factory=dict)

    @property
    def gave_up(self) -> bool:
        """Whether the service has failed so often that the session must stop."""
        return self.openings >= self.policy.give_up_after

    @property
    def break_s(self) -> float:
        """Length of the present break, seconds."""
        # The exponent is capped because 2.0**1024 overflows long after max_break_s holds.
        grown_s = self.policy.break_s * 2.0 ** min(max(0, self.openings - 1), 60)
        return min(self.policy.max_break_s, grown_s)

    def wait_s(self, now_s: float) -> float:
        """Return seconds until an attempt may start; 0.0 means now, inf until the probe ends."""
        if self.state == "closed":
            return 0.0
        if self.state == "half_open":
            return float("inf") if self._probing else 0.0
        return max(0.0, self._opened_at_s + self.break_s - now_s)

    def start(self, now_s: float) -> int:
        """Admit one attempt and return its epoch, to be handed back when it ends.

        The first attempt after a break is the probe.
        """
        if self.state != "closed":
            assert self.wait_s(now_s) == 0.0, "scheduler started an attempt the breaker refused"
            if self.state == "open":
                self._enter("half_open", now_s)
            self._probing = True
        return self.epoch

    def succeed(self, now_s: float, epoch: int) -> None:
        """Count an attempt that the service answered well."""
        if epoch != self.epoch:
            return
        if self.state == "half_open":
            self._enter("closed", now_s)
        if self.failures or self.openings:
            self.failures = self.openings = 0
            self.failed.clear()
            self.moves += 1

    def fail(self, now_s: float, epoch: int, item: int) -> None:
        """Count an attempt that failed transiently, and open when it is one too many."""
        if epoch != self.epoch:
            return
        self.failures += 1
        self.failed[item] = self.failed.get(item, 0) + 1
        self.moves += 1
        if self.state == "half_open" or self.failures >= self.policy.failures:
            self.openings += 1
            self._enter("open", now_s)

    def release(self, epoch: int) -> None:
        """Forget an attempt that proves nothing (cancelled, permanent error, 429): a probe's place is free again."""
        if epoch == self.epoch:
            self._probing = False

    def _enter(self, state: BreakerState, now_s: float) -> None:
        self.state = state
        self._opened_at_s = now_s
        self._probing = False
        self.epoch += 1
        self.moves += 1
