"""Durations: how long each lane takes for so many requests, by formulas that can be read.

    gap         60 / rpm; 0 where no rpm is known
    online      the longer of   gap * (n - 1) + latency   and   latency * ceil(n / concurrency)
    sequential  five start, a gap apart, and the next five when all of them are answered
    flex        as online, with 1 to 15 minutes for an answer
    batch       5 minutes to 24 hours, whatever n is

Online and sequential are given from half the latency to twice the latency with 5 % of the requests sent again, as
`BatchSession.estimate` does.

Source: https://ai.google.dev/gemini-api/docs/optimization, "Flex: Minutes (1-15 min target); Batch: Up to 24 hours"
(2026-11-22).  The 5 minutes are ours.
"""

from __future__ import annotations

import math

import msgspec

from ipybatch.gemini.pacer import MOST, automatic_concurrency

FLEX_S = (60.0, 900.0)
BATCH_S = (300.0, 86_400.0)
SEQUENTIAL = 5

_AGAIN = 1.05
_SEARCHED = 1000  # prompts; where the parallel mode has not won by then, it does not


class Pace(msgspec.Struct, frozen=True):
    """How requests follow each other.

    Attributes:
        latency_s: Seconds an answer takes.
        rpm: Requests a minute; None: not known, so that only the concurrency holds them back.
        concurrency: Requests at the same time; None: 60 % of the quota by Little's law, or 10 where no rpm is known.
    """

    latency_s: float
    rpm: float | None = None
    concurrency: int | None = None

    @property
    def at_once(self) -> int:
        """Requests at the same time."""
        if self.concurrency is not None:
            return self.concurrency
        return MOST if self.rpm is None else automatic_concurrency(self.rpm, self.latency_s)

    @property
    def gap_s(self) -> float:
        """Seconds between two starts."""
        return 0.0 if self.rpm is None else 60.0 / self.rpm

    def with_latency(self, latency_s: float) -> Pace:
        """Return the same pace, as many at once, with another latency."""
        return Pace(latency_s, self.rpm, self.at_once)


def online_s(pace: Pace, requests: int) -> tuple[float, float]:
    """Return seconds, from and to, for requests that run in parallel."""
    return (
        _parallel_s(pace.with_latency(pace.latency_s / 2), requests),
        _parallel_s(pace.with_latency(pace.latency_s * 2), math.ceil(requests * _AGAIN)),
    )


def sequential_s(pace: Pace, requests: int) -> tuple[float, float]:
    """Return seconds, from and to, for requests of which five run at a time."""
    return (
        _by_fives_s(pace.with_latency(pace.latency_s / 2), requests),
        _by_fives_s(pace.with_latency(pace.latency_s * 2), math.ceil(requests * _AGAIN)),
    )


def flex_s(pace: Pace, requests: int) -> tuple[float, float]:
    """Return seconds, from and to, in the flex lane."""
    low_s, high_s = FLEX_S
    return _parallel_s(pace.with_latency(low_s), requests), _parallel_s(pace.with_latency(high_s), requests)


def batch_s(requests: int) -> tuple[float, float]:
    """Return seconds, from and to, in the batch lane."""
    return BATCH_S if requests else (0.0, 0.0)


def parallel_from(pace: Pace) -> int | None:
    """Return from how many requests on the parallel mode is quicker than the sequential one; None: it never is."""
    return next(
        (n for n in range(2, _SEARCHED + 1) if _by_fives_s(pace, n) - _parallel_s(pace, n) > 1e-6 * pace.latency_s),
        None,
    )


def _parallel_s(pace: Pace, requests: int) -> float:
    if not requests:
        return 0.0
    return max(pace.gap_s * (requests - 1) + pace.latency_s, pace.latency_s * math.ceil(requests / pace.at_once))


def _by_fives_s(pace: Pace, requests: int) -> float:
    if not requests:
        return 0.0
    groups = math.ceil(requests / SEQUENTIAL)
    between_groups_s = max(pace.gap_s, pace.latency_s)  # from the last start of one to the first of the next
    return pace.gap_s * (requests - groups) + between_groups_s * (groups - 1) + pace.latency_s
