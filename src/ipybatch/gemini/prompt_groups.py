"""Prompt groups: prompts that are sent one by one, as rows of the panel's table, fifty to a row.

A group is for the eye only: the next one begins before the last has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import Event, Status
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import key_value
from ipybatch.engine.run.permits import Attempt

GROUP = 50


class PromptGroups:
    """Count prompts into groups as they start.

    Args:
        items: How many are to come.
        before: Groups that there were before.
    """

    def __init__(self, items: int, before: int, tell: Callable[[Event], None], clock: Clock) -> None:
        self._items, self._before, self._tell, self._clock = items, before, tell, clock
        self._group: dict[Any, int] = {}  # by key
        self._left: Counter[int] = Counter()
        self._completed: Counter[int] = Counter()

    def join(self, attempt: Attempt) -> None:
        """Put an item into its group, unless it is in one."""
        key = key_value(attempt.key)
        if key not in self._group:
            at = len(self._group)
            number = self._before + at // GROUP + 1
            self._group[key] = number
            if at % GROUP == 0:
                self._begin(number, max(1, min(GROUP, self._items - at)))
        attempt.join(self._group[key])

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """End groups whose items have all ended."""
        for outcome in outcomes:
            number = self._group.get(outcome.key, 0)
            if not number:
                continue
            self._left[number] -= 1
            self._completed[number] += outcome.status == "completed"
            if not self._left[number]:
                del self._left[number]
                status: Status = "completed" if self._completed[number] else "failed"
                self._tell(events.GroupEnded(self._clock.unix_s(), number, status))

    def _begin(self, number: int, items: int) -> None:
        self._left[number] = items
        self._tell(events.GroupStarted(self._clock.unix_s(), number, f"Group {number}", items))
