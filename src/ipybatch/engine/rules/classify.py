"""Classify: whose fault an error is, and so what follows.

Rule: it is decided here, from the error's structure, from the operation it
answers and from what went before; nowhere else, and never from its text.

    item      this item fails, alone
    service   it is tried again; the breaker counts it
    rate      the request waits, or the resource cools down; no item pays for it
    account   the session ends; its items run again at the next call
    us        our own set-up: said with what to do; never an outage

HTTP libraries are recognised by structure (module and class, a status on the
exception or its response), so none is imported.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, Literal

import msgspec

from ipybatch.engine.data.policy import Retry
from ipybatch.engine.rules.rate_headers import NOTHING_TOLD, Told
from ipybatch.errors import JournalError, Permanent, RateLimited, Refused, Transient, Withheld

Scope = Literal["item", "service", "rate", "account", "us"]

_TRANSPORT_ERRORS = frozenset({"TransportError", "DecodingError", "ClientConnectionError", "ServerDisconnectedError"})


class Kind(Enum):
    """What the runner does after a failed attempt."""

    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    PERMANENT = "permanent"
    REFUSED = "refused"
    WITHHELD = "withheld"
    SETUP = "setup"


_SCOPES: dict[str, Scope] = {  # by the word of a kind; all others are the item's
    "transient": "service",
    "timeout": "service",
    "rate_limited": "rate",
    "refused": "account",
    "withheld": "account",
    "setup": "us",
}


def scope_of(kind: str) -> Scope:
    """Return whose fault an error of a kind is, as far as its word tells."""
    return _SCOPES.get(kind, "item")


class Verdict(msgspec.Struct, frozen=True):
    """What an error means.

    Attributes:
        told: What the service itself said of its limits.
        is_neutral: Whether it proves nothing about the service.
        status: The HTTP status of the answer; None where there was none.
        advice: What the user can do about it; "" where nothing is known.
    """

    kind: Kind
    told: Told = NOTHING_TOLD
    is_neutral: bool = False
    status: int | None = None
    advice: str = ""

    @property
    def scope(self) -> Scope:
        """Whose fault it is."""
        return scope_of(self.kind.value)

    @property
    def retry_after_s(self) -> float | None:
        """How long the service asked us to wait, seconds; None if it said nothing."""
        return self.told.retry_after_s

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
            return Verdict(kind, Told(getattr(error, "retry_after_s", None)), not getattr(error, "counts", True))
    if isinstance(error, JournalError):  # of `attempt.add`: no fault of the item, nor of the service
        return Verdict(Kind.TRANSIENT, is_neutral=True)
    verdict = _by_status(error, now_unix_s) or _by_type(error)
    if verdict.kind is not Kind.RATE_LIMITED and retry.also_transient(error):
        return Verdict(Kind.TRANSIENT, Told(_word_of(error, now_unix_s)))
    return verdict


def _by_status(error: BaseException, now_unix_s: float) -> Verdict | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None) or getattr(error, "status", None)
    if not isinstance(status, int):
        return None
    if status == 429:
        return Verdict(Kind.RATE_LIMITED, Told(_word_of(error, now_unix_s)))
    if status in (401, 403):
        return Verdict(Kind.REFUSED)
    if status == 408 or status >= 500:
        return Verdict(Kind.TRANSIENT, Told(_word_of(error, now_unix_s)))
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
