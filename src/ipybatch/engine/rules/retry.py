"""Retry: how long to wait before the next attempt, and when an item is given up.

Rule: retry is ours alone.  No client below us may resend on its own, and
every attempt passes limiter and breaker again.
"""

from __future__ import annotations

import random

from ipybatch.engine.data.policy import Retry
from ipybatch.engine.rules.classify import Kind, Verdict


def back_off_s(retry: Retry, attempt: int, chance: random.Random) -> float:
    """Return the wait after the ``attempt``-th failure; full jitter keeps failing items from marching in step."""
    return chance.uniform(0.0, _grown_s(retry, attempt))


def cool_down_s(retry: Retry, cool_downs: int, now_unix_s: float) -> float:
    """Return how long a resource rests after a 429 that named no time, its ``cool_downs``-th and one in a row."""
    if retry.strategy == "next_second":
        return 1.05 - now_unix_s % 1.0
    return _grown_s(retry, cool_downs + 1)


def is_last(retry: Retry, attempt: int, verdict: Verdict) -> bool:
    """Say whether the item is given up after this failure."""
    if verdict.kind in (Kind.PERMANENT, Kind.REFUSED, Kind.WITHHELD, Kind.SETUP):
        return True
    if verdict.kind is Kind.RATE_LIMITED and retry.strategy == "next_second":
        return attempt >= min(2, retry.attempts)
    return attempt >= retry.attempts


def _grown_s(retry: Retry, step: int) -> float:
    # The exponent is capped because 2.0**1024 overflows long after max_s holds.
    return min(retry.max_s, retry.initial_s * 2.0 ** min(step - 1, 60))
