"""Rate headers: what a service's answer says of its limits.

    Retry-After: 30                       seconds, or a date in any form of HTTP
    retry-after-ms: 1500
    X-RateLimit-Limit: 60                 also X-Rate-Limit-, RateLimit-, and by window: X-RateLimit-Limit-Minute
    X-RateLimit-Remaining: 0
    X-RateLimit-Reset: 1700000060         seconds from now, Unix time or Unix milliseconds: its size tells
    RateLimit-Limit: 100, 100;w=60        drafts 00 to 06
    RateLimit: limit=100, remaining=50, reset=30
    RateLimit: "default";r=50;t=30        drafts 08 and later, with RateLimit-Policy: "default";q=100;w=60
    App-Rate-Limit: 20:1,100:120          with App-Rate-Limit-Count: 1:1,7:120; Method-Rate-Limit alike

Rule: nothing a server sends can raise here, nor give a number that is negative, infinite or none.  A date without a
zone is UTC, and every date is measured against the answer's own Date where it has one: the caller's clock may be wrong.

Source: RFC 9110, sections 5.6.7 and 10.2.3; draft-ietf-httpapi-ratelimit-headers 00 to 10 (2026-11-30).
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_tz
from typing import Any

import msgspec

_UNIX_S = 1e8  # from here on a number is a time, not a span: three years
_UNIX_MS = 1e11
_DAY_S = 86_400.0
_LONGEST = 2000  # characters of a header that are looked at
_SPANS_S = {"": None, "-second": 1.0, "-minute": 60.0, "-hour": 3600.0, "-day": 86400.0}
_COUNTED = [
    ([f"{prefix}{what}{suffix}" for what in ("limit", "remaining", "reset", "reset-after")], span_s)
    for prefix in ("x-ratelimit-", "x-rate-limit-", "ratelimit-")
    for suffix, span_s in _SPANS_S.items()
]
_NAMES = frozenset({"date", "retry-after", "retry-after-ms"})  # and what has "limit" in its name


class Quota(msgspec.Struct, frozen=True):
    """A window as a server counts it.

    Attributes:
        limit: Requests it allows; None where it is not told.
        remaining: How many of them are left.
        reset_s: Seconds from now until it begins anew.
        per_s: Its length, seconds.
    """

    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None
    per_s: float | None = None


class Told(msgspec.Struct, frozen=True):
    """What an answer says of the limits.

    Attributes:
        retry_after_s: How long to wait, seconds; None if it says nothing.
        quotas: Its windows.
    """

    retry_after_s: float | None = None
    quotas: tuple[Quota, ...] = ()

    @property
    def is_used_up(self) -> bool:
        """Whether a window has nothing left."""
        return any(quota.remaining == 0.0 for quota in self.quotas)

    @property
    def reset_s(self) -> float | None:
        """Seconds until what is used up begins anew; None where no answer says it."""
        ends = [quota.reset_s for quota in self.quotas if quota.remaining == 0.0 and quota.reset_s is not None]
        if not ends:  # some tell only when
            ends = [quota.reset_s for quota in self.quotas if quota.remaining is None and quota.reset_s is not None]
        return max(ends, default=None)


NOTHING_TOLD = Told()


def read_headers(headers: Any, now_unix_s: float) -> Told:
    """Return what an answer's headers say of the limits.

    Args:
        headers: Whatever a client keeps under that name: a mapping of names in any case; else nothing is told.
        now_unix_s: Our own clock, for answers without a Date.
    """
    found = _by_name(headers)
    if not found or found.keys() == {"date"}:  # what most answers say
        return NOTHING_TOLD
    dated_s = parse_date(found.get("date", ""))
    now_s = now_unix_s if dated_s is None else dated_s
    quotas = (*_counted(found, now_s), *_drafted(found), *_riot(found))
    retry_after_s = _retry_after_s(found, now_s)
    return Told(retry_after_s, quotas) if quotas or retry_after_s is not None else NOTHING_TOLD


def parse_date(text: str) -> float | None:
    """Return an HTTP date as Unix time, UTC where it names no zone; None for what is none of its three forms."""
    try:
        parts = parsedate_tz(text)
        if parts is None:
            return None
        unix_s = float(calendar.timegm((*parts[:6], 0, 1, 0))) - (parts[9] or 0)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None
    return unix_s if math.isfinite(unix_s) else None


def _by_name(headers: Any) -> dict[str, str]:
    """Return headers by their names in small letters; of one that comes several times, all, parted by commas."""
    found: dict[str, str] = {}
    try:
        pairs = list(headers.items())
    except Exception:  # a list, None, or an object of the user's
        return found
    for pair in pairs:
        try:
            name, value = pair
            name = name.lower() if type(name) is str else _text(name).lower()
            if name in _NAMES or "limit" in name:
                values = value if isinstance(value, list | tuple) else [value]
                text = ", ".join(_text(one) for one in values)[:_LONGEST]
                found[name] = f"{found[name]}, {text}" if name in found else text
        except Exception:  # noqa: S112  # as above
            continue
    return found


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value).strip()


def _number(text: str | None) -> float | None:
    """Return a number that is finite and not negative; None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def _retry_after_s(found: dict[str, str], now_s: float) -> float | None:
    wait_ms = _largest(found.get("retry-after-ms", ""))
    if wait_ms is not None:
        return wait_ms / 1000
    text = found.get("retry-after", "")
    wait_s = _largest(text)
    if wait_s is not None:  # some send the time itself
        return wait_s if wait_s < now_s - _DAY_S else max(0.0, wait_s - now_s)
    at_s = parse_date(text)
    return None if at_s is None else max(0.0, at_s - now_s)


def _largest(text: str) -> float | None:
    """Return the largest of the numbers of a header that may have come several times."""
    values = [value for value in map(_number, text.split(",")) if value is not None]
    return max(values, default=None)


def _reset_s(text: str | None, now_s: float) -> float | None:
    """Return seconds from now until a reset, however it is told."""
    if not text:
        return None
    value = _number(text)
    if value is None:
        at_s = parse_date(text)
        if at_s is None:
            at_s = _iso(text)
        return None if at_s is None else max(0.0, at_s - now_s)
    if value < _UNIX_S:
        return value
    return max(0.0, (value / 1000 if value >= _UNIX_MS else value) - now_s)


def _iso(text: str) -> float | None:
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ArithmeticError, ValueError):
        return None


def _counted(found: dict[str, str], now_s: float) -> Iterator[Quota]:
    """Yield the windows that are told by a header for each number."""
    for (limit_name, remaining_name, reset_name, after_name), span_s in _COUNTED:
        if found.keys().isdisjoint((limit_name, remaining_name, reset_name, after_name)):
            continue
        limit_text, *inline = found.get(limit_name, "").split(",")
        limit, remaining = _number(limit_text), _first(found.get(remaining_name))
        reset_s = _number(found.get(after_name))
        if reset_s is None:
            reset_s = _reset_s(found.get(reset_name), now_s)
        if limit is None and remaining is None and reset_s is None:
            continue
        per_s, policies = span_s, list(_policies(inline))
        if limit_name == "ratelimit-limit":
            policies += _policies([found.get("ratelimit-policy", "")])
        for allowed, window_s in policies:
            if allowed == limit and per_s is None:
                per_s = window_s
            else:
                yield Quota(allowed, per_s=window_s)
        yield Quota(limit, remaining, reset_s, per_s)


def _first(text: str | None) -> float | None:
    return None if text is None else _number(text.split(",")[0])


_SPLIT = re.compile(r'"[^"]*"|[^",]+|,')


def _drafted(found: dict[str, str]) -> Iterator[Quota]:
    """Yield the windows of the field RateLimit, with what its policies add, and policies alone."""
    if "ratelimit-limit" in found:
        return
    policies = dict(_members(found.get("ratelimit-policy", "")))
    told = list(_members(found.get("ratelimit", "")))
    if told and all("=" in name for name, _ in told):  # draft 07: limit=100, remaining=50, reset=30
        values = dict(name.split("=", 1) for name, _ in told)
        name = values.get("limit", "")
        told = [(name, {"r": values.get("remaining", ""), "t": values.get("reset", "")})]
    for name, given in told:
        policy = policies.pop(name, {})
        quota = Quota(_limit(name, policy), _number(given.get("r")), _number(given.get("t")), _span(policy))
        if _is_of_requests(policy) and (quota.remaining is not None or quota.reset_s is not None):
            yield quota
    for name, policy in policies.items():
        limit, per_s = _limit(name, policy), _span(policy)
        if limit is not None and per_s is not None and _is_of_requests(policy):
            yield Quota(limit, per_s=per_s)


def _members(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the members of a list of RFC 9651, and the parameters of each."""
    for member in "".join("\n" if part == "," else part for part in _SPLIT.findall(text)).split("\n"):
        name, *parameters = (part.strip() for part in member.split(";"))
        given = dict(part.split("=", 1) for part in parameters if "=" in part)
        if name:
            yield name.strip('"'), given


def _limit(name: str, policy: dict[str, str]) -> float | None:
    return _number(policy.get("q", name))


def _is_of_requests(policy: dict[str, str]) -> bool:
    return policy.get("qu", "requests").strip('"') == "requests"


def _span(policy: dict[str, str]) -> float | None:
    return _number(policy.get("w")) or None


def _policies(members: list[str]) -> Iterator[tuple[float, float]]:
    """Yield limit and length of ``100;w=60``."""
    for name, given in _members(",".join(members)):
        limit, per_s = _number(name), _span(given)
        if limit is not None and per_s is not None:
            yield limit, per_s


def _riot(found: dict[str, str]) -> Iterator[Quota]:
    """Yield the windows of App-Rate-Limit and Method-Rate-Limit: ``limit:seconds``, beside ``count:seconds``."""
    for name in ("app-rate-limit", "method-rate-limit"):
        for prefix in ("", "x-"):
            counts = {per_s: used for used, per_s in _pairs(found.get(f"{prefix}{name}-count", ""))}
            for limit, per_s in _pairs(found.get(f"{prefix}{name}", "")):
                used = counts.get(per_s)
                yield Quota(limit, None if used is None else max(0.0, limit - used), None, per_s)


def _pairs(text: str) -> Iterator[tuple[float, float]]:
    for part in text.split(","):
        count, _, span = part.partition(":")
        number, per_s = _number(count), _number(span)
        if number is not None and per_s:
            yield number, per_s
