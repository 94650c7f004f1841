"""Who asked when, as the server saw it: exact sliding windows, refusals and bans.

Rule: a request counts at its arrival, whatever becomes of it; one that is refused counts too.  A window is
half open, (t - per_s, t]: two requests exactly ``per_s`` apart are never in one.

    ok --more than limit in a window--> 429 --ban_after of them within per_s--> 403 for ban_s --> ok

Refused requests count, so "no 429" and "no window above its limit" are the same statement, and `worst`
proves it from the record, with no knowledge of what the client believes.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROUNDING_S = 1e-9  # 0.1 + 2.0 - 2.0 is above 0.1 by 1e-16: sums of floats, not a client in a hurry


class Traffic:
    """Record arrivals and judge each against the windows.

    All requests count as one client's: a real service tells clients apart by address, and one kernel has one.
    """

    def __init__(
        self, windows: Sequence[tuple[int, float]] = (), *, ban_after: int | None = None, ban_s: float = 300.0
    ) -> None:
        """Take the rules.

        Args:
            windows: Pairs (limit, per_s): at most ``limit`` >= 1 arrivals in ``per_s`` > 0 seconds.
            ban_after: 429s within ``per_s`` of the first window that end in a ban, >= 1; None for no bans.
            ban_s: How long a ban lasts, seconds, > 0.

        Raises:
            ValueError: A number is outside its range.
        """
        for limit, per_s in windows:
            _check("limit", limit >= 1, ">= 1", limit)
            _check("per_s", 0 < per_s < math.inf, "> 0 and finite", per_s)
        _check("ban_after", ban_after is None or ban_after >= 1, ">= 1 or None", ban_after)
        _check("ban_s", ban_s > 0, "> 0", ban_s)
        self.windows = tuple(windows)
        self.arrivals = array("d")
        self.bans: list[tuple[float, float]] = []
        self._ban_after = ban_after
        self._ban_s = ban_s
        self._refusals = array("d")

    def arrive(self, now_s: float) -> None:
        """Count one request; arrivals may be told out of order, since abandoned requests are told early."""
        insort(self.arrivals, now_s)

    def judge(self, now_s: float) -> int:
        """Return what the request that just arrived deserves: 200, 429 or 403."""
        if any(from_s <= now_s < to_s for from_s, to_s in self.bans):
            return 403
        if all(_within(self.arrivals, now_s, per_s) <= limit for limit, per_s in self.windows):
            return 200
        self._refuse(now_s)
        return 429

    def worst(self, per_s: float) -> int:
        """Return the largest number of arrivals in any sliding window of ``per_s`` seconds."""
        return max((_within(self.arrivals, at_s, per_s) for at_s in self.arrivals), default=0)

    def between(self, from_s: float, to_s: float) -> int:
        """Return the number of arrivals with from_s <= t < to_s."""
        return bisect_left(self.arrivals, to_s) - bisect_left(self.arrivals, from_s)

    def _refuse(self, now_s: float) -> None:
        insort(self._refusals, now_s)
        per_s = self.windows[0][1]
        if self._ban_after is not None and _within(self._refusals, now_s, per_s) >= self._ban_after:
            self.bans.append((now_s, now_s + self._ban_s))


def _within(times: array[float], now_s: float, per_s: float) -> int:
    """Count what lies in (now_s - per_s, now_s]."""
    return bisect_right(times, now_s) - bisect_right(times, now_s - per_s + _ROUNDING_S)


def _check(name: str, ok: bool, allowed: str, value: object) -> None:
    if not ok:
        msg = f"{name} must be {allowed}, got {value!r}"
        raise ValueError(msg)
