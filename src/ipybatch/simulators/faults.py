"""Fault injection: which requests fail, how they fail, and how long replies take.

Rule: a decision depends on (seed, item, nth time that item was asked for), never on the order in which requests
arrive.  So two runs with different concurrency, or a run and its resume, meet the same faults.

One draw picks at most one fault:

    0        rate_429      +rate_500      +rate_drop      +rate_html      +rate_truncated      ...      1
    |--- 429 ---|---- 500 ----|---- drop ----|---- html ----|---- truncated ----|--- ... ---|--- none ---|

A second draw decides whether the reply is slow; two more give the latency and split it into the way to the server
and the way back, so that the arrival lies anywhere between sending and reply.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

FaultKind = Literal["429", "500", "drop", "html", "truncated", "503", "504", "drop_after", "hang"]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
HANG_S = 3600.0
_RATES = tuple(f"rate_{kind}" for kind in KINDS)


def uniforms(*key: object) -> tuple[float, float, float, float]:
    """Return four numbers in [0, 1) that depend on ``key`` alone and are the same in every process.

    One hash is enough, where seeding a `random.Random` for each request would fill 624 words.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=32).digest()
    a, b, c, d = struct.unpack("<4Q", digest)
    return (a >> 11) / 2**53, (b >> 11) / 2**53, (c >> 11) / 2**53, (d >> 11) / 2**53


def check(name: str, ok: bool, allowed: str, value: object) -> None:
    """Raise ValueError with the argument's name, its allowed range and its value, unless it is ``ok``."""
    if not ok:
        msg = f"{name} must be {allowed}, got {value!r}"
        raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Rates and kinds of the faults that a simulated service injects.  The default: no faults and no latency.

    Attributes:
        seed: Same seed, same faults.
        rate_429: Share of requests refused although they kept the limits, [0, 1].  They do not lead to a ban.
        rate_500: Share answered with status 500, [0, 1].
        rate_drop: Share whose connection is closed without a reply, [0, 1].
        rate_html: Share answered with a web page and status 200, [0, 1].
        rate_truncated: Share whose JSON ends in the middle, with status 200, [0, 1].
        rate_503: Share answered with status 503, [0, 1].
        rate_504: Share answered with status 504, [0, 1].
        rate_drop_after: Share whose connection is closed after the request was processed and billed, [0, 1].
        rate_hang: Share that gets no reply for an hour and is not processed, [0, 1].
            The nine shares add up to at most 1.
        rate_slow: Share that waits `slow_s` more, [0, 1], drawn apart from the nine.
        slow_s: How much longer a slow reply takes, seconds, >= 0.
        latency_s: From sending to reply, seconds: a number, or (lowest, highest), each >= 0 and finite.
        latency_sigma: Above 0 the latency is lognormal with this sigma, and `latency_s` is its median, >= 0.
        jitter_s: Up to this much is added to the latency, seconds, >= 0.
        outages: Pairs (from_s, to_s) since the simulator's start, in which every request gets `outage_kind`;
            0 <= from_s < to_s; ``math.inf`` means that the outage does not end.
        outage_kind: Any of the nine, such as "500" or "drop".

    Raises:
        ValueError: A field is outside its range; the message names the field, the value and the range.
    """

    seed: int = 0
    rate_429: float = 0.0
    rate_500: float = 0.0
    rate_drop: float = 0.0
    rate_html: float = 0.0
    rate_truncated: float = 0.0
    rate_503: float = 0.0
    rate_504: float = 0.0
    rate_drop_after: float = 0.0
    rate_hang: float = 0.0
    rate_slow: float = 0.0
    slow_s: float = 5.0
    latency_s: float | tuple[float, float] = 0.0
    latency_sigma: float = 0.0
    jitter_s: float = 0.0
    outages: tuple[tuple[float, float], ...] = ()
    outage_kind: FaultKind = "500"

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in (*_RATES, "rate_slow")}
        shares[" + ".join(_RATES)] = sum(getattr(self, name) for name in _RATES)
        for name, value in shares.items():  # five shares of 0.2 add up to slightly more than 1
            check(name, 0 <= value <= 1 + 1e-9, "in [0, 1]", value)
        for name in ("slow_s", "latency_sigma", "jitter_s"):
            value = getattr(self, name)
            check(name, 0 <= value < math.inf, ">= 0 and finite", value)
        span: tuple[float, ...] = self._latency_range()
        ok = len(span) == 2 and 0 <= span[0] <= span[1] < math.inf
        check("latency_s", ok, ">= 0 and finite, or a pair (lowest, highest) of such values", self.latency_s)
        object.__setattr__(self, "outages", tuple((from_s, to_s) for from_s, to_s in self.outages))
        for from_s, to_s in self.outages:
            check("outages", 0 <= from_s < to_s, "pairs with 0 <= from_s < to_s", (from_s, to_s))
        check("outage_kind", self.outage_kind in KINDS, f"one of {', '.join(KINDS)}", self.outage_kind)

    def kind(self, item: str, nth: int) -> FaultKind | None:
        """Return the fault of the ``nth`` request (from 1) for ``item``, or None."""
        draw = uniforms("kind", self.seed, item, nth)[0]
        for kind in KINDS:
            rate: float = getattr(self, f"rate_{kind}")
            if draw < rate:
                return kind
            draw -= rate
        return None

    def delay_s(self, item: str, nth: int) -> float:
        """Return how much longer than its latency this reply takes, seconds."""
        return self.slow_s if uniforms("slow", self.seed, item, nth)[0] < self.rate_slow else 0.0

    def way_s(self, item: str, nth: int) -> tuple[float, float]:
        """Return the latency to the server and back, seconds: one latency, split by the seed."""
        span, jitter, split, spread = uniforms("way", self.seed, item, nth)
        low_s, high_s = self._latency_range()
        middle_s = low_s + span * (high_s - low_s)
        # a draw of exactly 0 has no place on the normal curve
        factor = math.exp(self.latency_sigma * NormalDist().inv_cdf(spread or 0.5)) if self.latency_sigma else 1.0
        total_s = middle_s * factor + jitter * self.jitter_s
        return split * total_s, (1 - split) * total_s

    def in_outage(self, now_s: float) -> bool:
        """Say whether the service is down at ``now_s`` since its start: from_s <= now_s < to_s."""
        return any(from_s <= now_s < to_s for from_s, to_s in self.outages)

    def _latency_range(self) -> tuple[float, float]:
        return self.latency_s if isinstance(self.latency_s, tuple) else (self.latency_s, self.latency_s)
