"""Staleness: how urgently a record wants to be fetched again.

    age      0 ........ 1 day ........ 3 days ........ 7 days ........
             |  fresh     |    low       |    medium     |    high
    missing  high

Rule: no clock here.  A record is judged once for a run, and the plan keeps the verdict.
"""

from __future__ import annotations

from typing import Literal, get_args

Staleness = Literal["high", "medium", "low", "fresh"]

DAY_S = 86_400.0
HIGH_S, MEDIUM_S, LOW_S = 7 * DAY_S, 3 * DAY_S, 1 * DAY_S
SKEW_S = 60.0

STALENESS: tuple[Staleness, ...] = get_args(Staleness)  # the stalest first


def staleness(fetched_at_s: float | None, now_s: float) -> Staleness:
    """Return how stale a record is.

    Args:
        fetched_at_s: When it was fetched, Unix time; None for a record that is missing. A time later than ``now_s`` by
            more than `SKEW_S` comes from a clock that was wrong and proves nothing: the record counts as missing.
        now_s: Unix time.
    """
    if fetched_at_s is None or fetched_at_s > now_s + SKEW_S:
        return "high"
    age_s = now_s - fetched_at_s
    if age_s > HIGH_S:
        return "high"
    if age_s > MEDIUM_S:
        return "medium"
    return "low" if age_s > LOW_S else "fresh"


def age_in_words(age_s: float) -> str:
    """Return an age as people say it: "3 h"."""
    for unit, seconds in (("d", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if age_s >= seconds:
            return f"{age_s / seconds:.0f} {unit}"
    return f"{max(0.0, age_s):.0f} s"
