"""Opening: when a session may start attempts by the clock on the wall, as a pure state machine.

Rule: nothing starts before the session's start, nor outside its working hours;
what runs finishes.  It is the session's own, and not its resource's: those who
share a resource keep each to their own hours.

    start_s          opens                closes           opens
       |---- waits ----|------ starts ------|---- waits ----|------ starts ...
"""

from __future__ import annotations

import math
from collections.abc import Callable
from zoneinfo import ZoneInfo

import msgspec

from ipybatch.engine.data.local_time import Hours, moment_words, zone_of
from ipybatch.engine.data.policy import Limits

_EXACT_S = 28 * 86_400  # whole weeks: beyond them an estimate need not count day by day


class Opening(msgspec.Struct):
    """When something may start.

    Attributes:
        hours: None for always.
        unix_s: Returns what the clock on the wall shows at a moment of the engine's clock, in Unix seconds.
        start_s: Nothing starts before it, Unix seconds.
        is_limited: Whether there is anything to ask: else something may start at any time.
    """

    hours: Hours | None = None
    zone: ZoneInfo = ZoneInfo("UTC")
    unix_s: Callable[[float], float] = float
    start_s: float = -math.inf
    is_limited: bool = False
    _window: tuple[float, float] = (math.inf, -math.inf)
    _known_s: float = math.inf  # from when on the window is the one that holds, or comes next

    def begin(self, start_s: float | None, zone: ZoneInfo) -> None:
        """Let nothing start before a moment, Unix; None for at once."""
        self.start_s, self.zone = -math.inf if start_s is None else start_s, zone
        self.is_limited = self.hours is not None or start_s is not None

    def wait_s(self, now_s: float) -> float:
        """Return seconds until something may start; 0.0 means now.

        Args:
            now_s: Of the engine's clock.
        """
        if not self.is_limited:
            return 0.0
        at_s = self.unix_s(now_s)
        return self.opens_s(at_s) - at_s

    def opens_s(self, at_s: float) -> float:
        """Return from when on something may start, Unix seconds: ``at_s`` itself within the hours."""
        at_s = max(at_s, self.start_s)
        if self.hours is None:
            return at_s
        return max(at_s, self._window_at(self.hours, at_s)[0])

    def why(self, at_s: float) -> str:
        """Return why nothing starts, and until when; "" when something may.

        Args:
            at_s: Unix seconds.
        """
        opens_s = self.opens_s(at_s)
        if opens_s <= at_s:
            return ""
        what = "it starts at" if at_s < self.start_s else "outside working hours: goes on at"
        return f"{what} {moment_words(opens_s, at_s, self.zone)}"

    def is_outside_hours(self, at_s: float) -> bool:
        """Say whether nothing starts as its working hours have yet to begin; before its start it waits for that."""
        return self.start_s <= at_s < self.opens_s(at_s)

    def open_s(self, from_s: float, until_s: float) -> float:
        """Return for how many seconds something may start between two moments, Unix."""
        found_s, at_s = 0.0, from_s
        while at_s < until_s and (opens_s := self.opens_s(at_s)) < until_s:
            at_s = self._closes_s(opens_s)
            found_s += min(at_s, until_s) - opens_s
        return found_s

    def lasts_s(self, from_s: float, open_s: float) -> float:
        """Return how long it takes from a moment on, Unix, until something could start for so many seconds.

        Exact for `_EXACT_S`; after that, by the share of the time that was open until then.
        """
        first_s = at_s = self.opens_s(from_s)
        left_s = open_s
        while at_s - first_s < _EXACT_S:
            opens_s = self.opens_s(at_s)
            at_s = self._closes_s(opens_s)
            if left_s <= at_s - opens_s:
                return opens_s + left_s - from_s
            left_s -= at_s - opens_s
        return at_s - from_s + left_s * (at_s - first_s) / (open_s - left_s)

    def _closes_s(self, opens_s: float) -> float:
        return math.inf if self.hours is None else self._window_at(self.hours, opens_s)[1]

    def _window_at(self, hours: Hours, at_s: float) -> tuple[float, float]:
        if not self._known_s <= at_s < self._window[1]:
            self._window, self._known_s = hours.window(at_s, self.zone), at_s
        return self._window


def opening_of(limits: Limits, start_s: float | None, unix_s: Callable[[float], float]) -> Opening:
    """Return when a session may start attempts.

    Args:
        start_s: Nothing starts before it, Unix seconds; None for at once.
    """
    opening = Opening(None if limits.hours is None else Hours.parse(limits.hours), unix_s=unix_s)
    if limits.hours is not None or start_s is not None:
        opening.begin(start_s, zone_of(limits.zone))
    return opening
