"""Seconds: where the server's seconds begin, as its Date headers tell.

    Date says whole seconds, so an answer puts the server's clock between two bounds:

        sent ------- stamped "12:00:05" ------- received        12:00:05 <= server's clock < 12:00:06
        5 - received <= server - ours < 6 - sent

Rule: bounds of many answers are intersected; a hundred a second leave a few milliseconds.  Ours is any clock that runs
on: a wrong one is as good.
"""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime

GRACE_S = 0.05


class ServerClock:
    """A server's clock, seen from ours."""

    def __init__(self) -> None:
        self._low_s, self._high_s = -math.inf, math.inf  # of server - ours

    def learn(self, stamped_s: float, sent_s: float, received_s: float) -> None:
        """Take an answer's Date.

        Args:
            stamped_s: As Unix time.
            sent_s: When the request was sent, by our clock; ``received_s`` likewise.
        """
        low_s, high_s = stamped_s - received_s, stamped_s + 1.0 - sent_s
        together = max(self._low_s, low_s), min(self._high_s, high_s)
        # Bounds that contradict each other: a clock was set, we slept, or another machine answered.
        self._low_s, self._high_s = together if together[0] < together[1] else (low_s, high_s)

    def until_next_s(self, stamped_s: float, now_s: float) -> float:
        """Return seconds from ``now_s`` to 50 ms after the end of the second ``stamped_s``.

        The server's clock may be ahead of the lower bound, never behind it: what waits is late rather than early.
        """
        return max(0.0, stamped_s + 1.0 + GRACE_S - (now_s + self._low_s))


def read_date(text: str | None) -> float | None:
    """Return what a Date header says as Unix time; None if it is none."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (OverflowError, TypeError, ValueError):
        return None
