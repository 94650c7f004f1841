"""Retry: what an error means, and how long to wait before the next attempt.

Rule: retry is ours alone.  No client below us may resend on its own, and
every attempt passes limiter and breaker again.

HTTP libraries are recognised by behaviour (a status code on the exception or
its response, the names of their transport errors), so none is imported.
"""

from __future__ import annotations

import math
import random
from enum import Enum
from typing import Any

import msgspec

from ipybatch.engine.data.policy import Retry
from ipybatch.errors import JournalError, Permanent, RateLimited, Refused, Transient, Withheld

_TRANSPORT_ERRORS = frozenset({"TransportError", "DecodingError", "ClientConnectionError", "ServerDisconnectedError"})


class Kind(Enum):
    """What the runner does after a failed attempt."""

    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    PERMANENT = "permanent"
    REFUSED = "refused"
    WITHHELD = "withheld"


class Verdict(msgspec.Struct, frozen=True):
    """What an error means.

    Attributes:
        retry_after_s: The service's own word, seconds; None if it said nothing.
        is_neutral: Whether it proves nothing about the service.
    """

    kind: Kind
    retry_after_s: float | None = None
    is_neutral: bool = False

    @property
    def counts(self) -> bool:
        """Whether the breaker counts it as a failure of the service."""
        return self.kind in (Kind.TRANSIENT, Kind.TIMEOUT) and not self.is_neutral


_SAID = (  # the first that fits
    (RateLimited, Kind.RATE_LIMITED),
    (Transient, Kind.TRANSIENT),
    (Permanent, Kind.PERMANENT),
    (Refused, Kind.REFUSED),
    (Withheld, Kind.WITHHELD),
)


def classify(error: BaseException, retry: Retry, now_unix_s: float) -> Verdict:
    """Return what ``error`` means under this policy."""
    for said, kind in _SAID:
        if isinstance(error, said):
            return Verdict(kind, getattr(error, "retry_after_s", None), not getattr(error, "counts", True))
    if isinstance(error, JournalError):  # of `attempt.add`: no fault of the item, nor of the service
        return Verdict(Kind.TRANSIENT, is_neutral=True)
    verdict = _by_status(error, now_unix_s) or _by_type(error)
    if verdict.kind is not Kind.RATE_LIMITED and retry.also_transient(error):
        return Verdict(Kind.TRANSIENT, _word_of(error, now_unix_s))
    return verdict


def _by_status(error: BaseException, now_unix_s: float) -> Verdict | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None) or getattr(error, "status", None)
    if not isinstance(status, int):
        return None
    if status == 429:
        return Verdict(Kind.RATE_LIMITED, _word_of(error, now_unix_s))
    if status in (401, 403):
        return Verdict(Kind.REFUSED)
    if status == 408 or status >= 500:
        return Verdict(Kind.TRANSIENT, _word_of(error, now_unix_s))
    return Verdict(Kind.PERMANENT)


def _word_of(error: BaseException, now_unix_s: float) -> float | None:
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or getattr(error, "headers", None)
    return parse_retry_after(headers, now_unix_s)


def _by_type(error: BaseException) -> Verdict:
    if isinstance(error, TimeoutError):
        return Verdict(Kind.TIMEOUT)
    if isinstance(error, ConnectionError) or not _TRANSPORT_ERRORS.isdisjoint(t.__name__ for t in type(error).__mro__):
        return Verdict(Kind.TRANSIENT)
    return Verdict(Kind.PERMANENT)


def parse_retry_after(headers: Any, now_unix_s: float) -> float | None:
    """Return the seconds of a Retry-After header, in either of its forms; None without one.

    Args:
        headers: Whatever the error carries under that name.

    Source: RFC 9110, section 10.2.3.
    """
    if not hasattr(headers, "get"):
        return None
    value = headers.get("Retry-After") or headers.get("retry-after")
    if value is None:
        return None
    try:
        wait_s = float(value)
    except (TypeError, ValueError):
        from email.utils import parsedate_to_datetime

        try:
            wait_s = parsedate_to_datetime(str(value)).timestamp() - now_unix_s
        except (OverflowError, TypeError, ValueError):
            return None
    return max(0.0, wait_s) if math.isfinite(wait_s) else None


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
    if verdict.kind in (Kind.PERMANENT, Kind.REFUSED, Kind.WITHHELD):
        return True
    if verdict.kind is Kind.RATE_LIMITED and retry.strategy == "next_second":
        return attempt >= min(2, retry.attempts)
    return attempt >= retry.attempts


def _grown_s(retry: Retry, step: int) -> float:
    # The exponent is capped because 2.0**1024 overflows long after max_s holds.
    return min(retry.max_s, retry.initial_s * 2.0 ** min(step - 1, 60))
