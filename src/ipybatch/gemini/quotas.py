"""Quotas: what a 429 of Gemini tells of the limit that was met.

    QuotaFailure + RetryInfo     a minute's quota: how large it is, and when to come back
    Help only                    a daily or billing quota, too many batch jobs
    no details at all            anything

There is no Retry-After header: the time stands in the body, as text like "45.837906927s".

Source: replies quoted in public issues of google-genai, and
https://ai.google.dev/gemini-api/docs/rate-limits (2026-11-22).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

Kind = Literal["requests", "tokens"]

_PACIFIC = "America/Los_Angeles"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
_IN_WORDS = re.compile(r"retry in (\d+(?:\.\d+)?)\s*(ms|s)\b")


class Refusal(msgspec.Struct, frozen=True):
    """What one 429 says.

    Attributes:
        retry_s: When to come back, seconds; None if it does not say.
        is_daily: Whether the day's quota is used up.
        rpm: Requests a minute that are allowed; None where it does not say.
        tpm: Input tokens a minute, likewise.
    """

    retry_s: float | None = None
    is_daily: bool = False
    rpm: float | None = None
    tpm: float | None = None


def read_refusal(body: Any) -> Refusal:
    """Return what the body of a 429 tells; an empty `Refusal` for anything that is no such body."""
    error = _error(body)
    violations = list(_violations(_details(error)))
    delay_s = retry_delay_s(body)
    return Refusal(
        retry_s=_delay_in_words_s(str(error.get("message", ""))) if delay_s is None else delay_s,
        is_daily=any("PerDay" in violation.get("quotaId", "") for violation in violations),
        rpm=_quota(violations, "requests"),
        tpm=_quota(violations, "tokens"),
    )


def retry_delay_s(body: Any) -> float | None:
    """Return the RetryInfo of an error's body, seconds; None without one."""
    for detail in _details(_error(body)):
        match = _DURATION.fullmatch(str(detail.get("retryDelay", "")))
        if match:
            return float(match[1])
    return None


def midnight_pacific_s(now_s: float) -> float:
    """Return the Unix time of the next midnight in California, when daily quotas are given anew."""
    zone = ZoneInfo(_PACIFIC)
    day = datetime.fromtimestamp(now_s, UTC).astimezone(zone).date() + timedelta(days=1)
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def _error(body: Any) -> dict[str, Any]:
    error = body.get("error", body) if isinstance(body, dict) else {}
    return error if isinstance(error, dict) else {}


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    return [detail for detail in _list(error.get("details")) if isinstance(detail, dict)]


def _violations(details: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for detail in details:
        for violation in _list(detail.get("violations")):
            if isinstance(violation, dict) and isinstance(violation.get("quotaId"), str):
                yield violation


def _quota(violations: list[dict[str, Any]], kind: Kind) -> float | None:
    found = [_number(violation.get("quotaValue")) for violation in violations if _kind(violation["quotaId"]) == kind]
    known = [value for value in found if value]
    return min(known) if known else None


def _kind(quota_id: str) -> Kind | None:
    if "PerMinute" not in quota_id:
        return None
    return "tokens" if "Token" in quota_id else "requests"


def _delay_in_words_s(message: str) -> float | None:
    said = _IN_WORDS.search(message)
    if said is None:
        return None
    return float(said[1]) / (1000 if said[2] == "ms" else 1)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < 1e12 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
