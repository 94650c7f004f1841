"""Charges: which of an item's attempts count against it.

Rule: an item pays for what it did itself, and for nothing else.  Nobody can
tell one failure from an outage; items that fail together tell:

    `failures` items failed in a row, and the breaker is open    an outage: given back
    what once succeeded failed, which the work's probe asks for  an outage: given back
    fewer, while others are left that can tell                   the last attempt waits for them
    fewer, or items that failed before while others succeeded    they pay
    a late result of an earlier state, a 429, our own set-up     given back

An item that failed while others succeeded is no witness of an outage any
more, and of each that it meets it pays for one attempt: so one that breaks the
service each time it is tried is given up in the end, alone.
"""

from __future__ import annotations

import msgspec

from ipybatch.engine.rules.breaker import CircuitBreaker

NO_ITEM = -1  # in place of a seq: what the work asks for to tell how the service is


class Charges(msgspec.Struct):
    """Count what is given back, by an item's seq."""

    _free: dict[int, int] = msgspec.field(default_factory=dict)
    _in_outage: dict[int, int] = msgspec.field(default_factory=dict)  # of that: in the present one
    _suspects: set[int] = msgspec.field(default_factory=set)  # failed, and then another succeeded
    _gone: set[int] = msgspec.field(default_factory=set)  # given up since the last success

    def paid(self, item: int, attempts: int) -> int:
        """Return how many of an item's attempts count."""
        return attempts - self._free.get(item, 0)

    def give_back(self, item: int) -> None:
        """Let an attempt count for nothing."""
        self._free[item] = self._free.get(item, 0) + 1

    def is_outage(self, breaker: CircuitBreaker) -> bool:
        """Say whether so many items have failed together that it is no fault of theirs."""
        if breaker.state == "closed":
            return False
        if NO_ITEM in breaker.failed:
            return True
        witnesses = sum(item not in self._suspects for item in breaker.failed)
        return witnesses >= max(2, breaker.policy.failures)

    def give_outage_back(self, breaker: CircuitBreaker) -> None:
        """Let what an outage has cost so far count for nothing."""
        for item, times in breaker.failed.items():
            owed = times - (item in self._suspects)
            self._free[item] = self._free.get(item, 0) + owed - self._in_outage.get(item, 0)
            self._in_outage[item] = owed

    def spare(self, item: int, breaker: CircuitBreaker) -> bool:
        """Let an item wait that opened the breaker alone, until another one tells whose fault it is; once an outage."""
        if breaker.state == "closed" or item in self._suspects or self._in_outage.get(item):
            return False
        self._in_outage[item] = 1
        self.give_back(item)
        return True

    def suspect(self, breaker: CircuitBreaker, succeeded: int) -> None:
        """Remember which items have failed, now that another has succeeded."""
        for item in breaker.failed:
            self._in_outage.pop(item, None)
            if item in self._gone:
                self._gone.discard(item)
                self._suspects.discard(item)
            elif item not in (succeeded, NO_ITEM):
                self._suspects.add(item)

    def give_up(self, item: int) -> None:
        """Let an item that fails once more be forgotten, as soon as another succeeds: until then it is no witness."""
        self._gone.add(item)

    def settle(self, item: int, *, has_succeeded: bool) -> None:
        """Forget what an item has cost that has its outcome."""
        self._free.pop(item, None)
        self._in_outage.pop(item, None)
        if has_succeeded:
            self._suspects.discard(item)
