"""Retry: how long to wait before the next attempt, and when an item is given up.

Rule: retry is ours alone.  No client below us may resend on its own, and
every attempt passes limiter and breaker again.
"""

from __future__ import annotations

import random

from ipybatch.engine.data.policy import Retry
from ipybatch.engine.rules.classify import Kind, Verdict

FOREVER_S = 1e9


def back_off_s(retry: Retry, attempt: int, chance: random.Random) -> float:
    """Return the wait after the ``attempt``-th failure; full jitter keeps failing items from marching in step."""
    return chance.uniform(0.0, _grown_s(retry, attempt))


def alone_s(retry: Retry, attempt: int, now_unix_s: float, chance: random.Random) -> float:
    """Return how long one request waits by itself after a 429 that named no time, while others go on."""
    if retry.strategy == "next_second":
        return _next_second_s(now_unix_s)
    return _grown_s(retry, attempt) / 2 + back_off_s(retry, attempt, chance) / 2


def cool_down_s(retry: Retry, cool_downs: int, now_unix_s: float) -> float:
    """Return how long a resource rests after a 429 that named no time, its ``cool_downs``-th and one in a row."""
    if retry.strategy == "next_second":
        full_s = min(retry.max_s, 2.0 ** min(cool_downs, 60)) - 1.0
        return max(0.0, float(int(full_s))) + _next_second_s(now_unix_s)
    return _grown_s(retry, cool_downs + 1)


def is_last(retry: Retry, paid: int, verdict: Verdict) -> bool:
    """Say whether the item is given up after this failure.

    Args:
        paid: How many of its attempts count.
    """
    if verdict.kind in (Kind.PERMANENT, Kind.REFUSED, Kind.WITHHELD, Kind.HELD, Kind.SETUP):
        return True
    return paid >= retry.attempts


def _next_second_s(now_unix_s: float) -> float:
    return 1.05 - now_unix_s % 1.0


def _grown_s(retry: Retry, step: int) -> float:
    # The exponent is capped because 2.0**1024 overflows long after max_s holds.
    return min(retry.max_s, retry.initial_s * 2.0 ** min(step - 1, 60))
