"""Quotas of the simulated Gemini (requests and tokens a minute, requests a day), refusals of whole accounts, and errors
as Google words them.

Rule: a refused request takes nothing from its quotas, and the delay told is the time after which one more fits.

Requests a minute come in one of two disciplines:

    rpm and burst   a bucket of ``burst`` tokens that gains rpm / 60 a second: strict in every second
    windows         at most N in any half-open window (t - per_s, t]; ``rpm`` alone is the window of a minute

All errors have one JSON shape:

    {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "...", "details": [{"@type": ...}, ...]}}

A refusal holds for every request of a key or a model, whoever sends it and however often, see `REFUSALS`:

    region, leaked                                            400, 403 for every call, files and jobs too
    billing, billing_400, credits, limit_zero, centuries      403, 400 and 429 for what generates; jobs can be read
    gone                                                      404 for what names the model

Source: https://ai.google.dev/gemini-api/docs/rate-limits, https://ai.google.dev/gemini-api/docs/troubleshooting,
https://google.aip.dev/193, and replies quoted in public issues, read 2026-11-22.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from ipybatch.simulators.faults import check
from ipybatch.simulators.service import Reply, as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Shape = Literal["a", "b", "c"]
DAY_S = 86400.0
_ROUNDING_S = 1e-6  # a client that waits for exactly what it was told is not too early
_DOCS = "https://ai.google.dev/gemini-api/docs/rate-limits"
_PREFIX = "generativelanguage.googleapis.com/generate_content_free_tier_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The quotas of one model.  The default is no limit.

    Attributes:
        rpm: Requests a minute, >= 1.
        burst: Makes ``rpm`` a token bucket of this size, >= 1.
        windows: Pairs (limit, per_s), each held in every sliding window; limit >= 1, per_s > 0 seconds.
        tpm: Input tokens in any minute, >= 1.
        rpd: Requests a day, >= 1.

    Raises:
        ValueError: A field is outside its range.
    """

    rpm: int | None = None
    burst: int | None = None
    windows: tuple[tuple[int, float], ...] = ()
    tpm: int | None = None
    rpd: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", tuple((limit, per_s) for limit, per_s in self.windows))
        for name in ("rpm", "burst", "tpm", "rpd"):
            value = getattr(self, name)
            check(name, value is None or value >= 1, ">= 1 or None", value)
        if self.burst is not None and self.rpm is None:
            msg = f"burst must come with rpm, got burst={self.burst!r} alone; give rpm="
            raise ValueError(msg)
        for limit, per_s in self.windows:
            check("windows", limit >= 1 and per_s > 0, "pairs (limit >= 1, per_s > 0)", (limit, per_s))


class Violation(NamedTuple):
    """One limit that a request exceeds, and the time until it no longer does."""

    metric: str
    quota_id: str
    value: int
    wait_s: float


class Gate(Protocol):
    """One limit of a quota."""

    def wait_s(self, now_s: float, tokens: int) -> float:
        """Return the time until a request of ``tokens`` fits, seconds."""

    def take(self, now_s: float, tokens: int) -> None:
        """Count an accepted request."""


class Bucket:
    """A token bucket: full at first, ``rate`` more each second, never above its size."""

    def __init__(self, size: int, rate: float) -> None:
        self._size = size
        self._rate = rate
        self._level = float(size)
        self._at_s = 0.0

    def wait_s(self, now_s: float, tokens: int) -> float:
        """Return the time until the bucket holds one more, seconds."""
        self._level = min(self._size, self._level + max(0.0, now_s - self._at_s) * self._rate)
        self._at_s = max(now_s, self._at_s)
        return max(0.0, (1 - self._level) / self._rate)

    def take(self, now_s: float, tokens: int) -> None:
        """Take one."""
        self._level -= 1


class Sliding:
    """At most ``limit`` in any window of ``per_s`` seconds: requests, or their tokens."""

    def __init__(self, limit: int, per_s: float, *, of_tokens: bool = False) -> None:
        self._limit = limit
        self._per_s = per_s
        self._of_tokens = of_tokens
        self._taken: deque[tuple[float, int]] = deque()
        self._sum = 0

    def wait_s(self, now_s: float, tokens: int) -> float:
        """Return the time until enough has left the window, seconds; if it never fits, until the window is empty."""
        while self._taken and self._taken[0][0] <= now_s - self._per_s:
            self._sum -= self._taken.popleft()[1]
        over = self._sum + (tokens if self._of_tokens else 1) - self._limit
        leaves_s = now_s + (self._per_s if over > 0 else 0.0)
        for at_s, weight in self._taken if over > 0 else ():
            leaves_s = at_s + self._per_s
            over -= weight
            if over <= 0:
                break
        return leaves_s - now_s

    def take(self, now_s: float, tokens: int) -> None:
        """Count one request."""
        weight = tokens if self._of_tokens else 1
        self._taken.append((now_s, weight))
        self._sum += weight


class Daily:
    """At most ``limit`` until ``reset_s``, and in each day after it."""

    def __init__(self, limit: int, reset_s: float) -> None:
        self._limit = limit
        self._reset_s = reset_s
        self._count = 0

    def wait_s(self, now_s: float, tokens: int) -> float:
        """Return the time until the count is reset, seconds."""
        while now_s >= self._reset_s:
            self._reset_s += DAY_S
            self._count = 0
        return self._reset_s - now_s if self._count >= self._limit else 0.0

    def take(self, now_s: float, tokens: int) -> None:
        """Count one request."""
        self._count += 1


class Meter:
    """All limits of one model."""

    def __init__(self, quota: Quota, reset_s: float) -> None:
        """Set the quota, and the end of its day, seconds since the start."""
        self._gates: list[tuple[Gate, tuple[str, str, int]]] = []
        if quota.rpm is not None:
            bucket: Gate = Bucket(quota.burst, quota.rpm / 60) if quota.burst else Sliding(quota.rpm, 60.0)
            self._requests(bucket, "PerMinute", quota.rpm)
        for limit, per_s in quota.windows:
            self._requests(Sliding(limit, per_s), "PerMinute", int(limit * 60 / per_s))
        if quota.tpm is not None:
            tokens = Sliding(quota.tpm, 60.0, of_tokens=True)
            kind = "GenerateContentInputTokensPerModelPerMinute-FreeTier"
            self._gates.append((tokens, (f"{_PREFIX}input_token_count", kind, quota.tpm)))
        if quota.rpd is not None:
            self._requests(Daily(quota.rpd, reset_s), "PerDay", quota.rpd)

    def take(self, now_s: float, tokens: int) -> list[Violation]:
        """Count a request that fits and return []; or return the limits that it exceeds and count nothing."""
        told = [Violation(*about, gate.wait_s(now_s, tokens)) for gate, about in self._gates]
        broken = [violation for violation in told if violation.wait_s > _ROUNDING_S]
        if not broken:
            for gate, _ in self._gates:
                gate.take(now_s, tokens)
        return broken

    def _requests(self, gate: Gate, per: str, value: int) -> None:
        about = f"{_PREFIX}requests", f"GenerateRequests{per}PerProjectPerModel-FreeTier", value
        self._gates.append((gate, about))


def as_exhausted(shape: Shape, violations: Sequence[Violation] = (), model: str = "") -> Reply:
    """Return a 429 in one of the three shapes of the real service.

    Args:
        shape: "a" tells quota, limit and delay; "b" only a link to the documentation; "c" nothing.
        violations: The limits that the request exceeds; without any, shape "a" tells a delay of one second.
        model: The model of the request.
    """
    if shape == "c":
        return as_error(429, "Resource has been exhausted (e.g. check quota).")
    message = "You exceeded your current quota, please check your plan and billing details."
    message += f" For more information on this error, head to: {_DOCS}."
    if shape == "b":
        return as_error(429, message, [_HELP])
    wait_s = max((violation.wait_s for violation in violations), default=1.0)
    failure = detail("QuotaFailure", violations=[_violation(violation, model) for violation in violations])
    retry = detail("RetryInfo", retryDelay=f"{wait_s:.9f}s")
    return as_error(
        429, f"{message} Please retry in {wait_s:.9f}s.", [failure, _HELP, retry] if violations else [retry]
    )


def _violation(violation: Violation, model: str) -> dict[str, object]:
    return {
        "quotaMetric": violation.metric,
        "quotaId": violation.quota_id,
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": str(violation.value),
    }


STATUSES = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_IN_TROUBLE = {
    500: "An internal error has occurred. Please retry or report in "
    "https://developers.generativeai.google/guide/troubleshooting",
    503: "The model is overloaded. Please try again later.",
    504: "Deadline expired before operation could complete.",
}


def as_error(code: int, message: str, details: Sequence[dict[str, Any]] = (), *, status: str = "") -> Reply:
    """Return an error reply; ``details`` are absent when there are none, ``status`` is the usual one of its code."""
    error: dict[str, Any] = {"code": code, "message": message, "status": status or STATUSES[code]}
    if details:
        error["details"] = list(details)
    return as_json({"error": error}, status=code)


def as_trouble(code: int) -> Reply:
    """Return a server error: 500, 503 or 504."""
    return as_error(code, _IN_TROUBLE[code])


def detail(kind: str, **fields: object) -> dict[str, Any]:
    """Return one entry of an error's details; ``kind`` is its type in google.rpc."""
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


CENTURIES_S = 9223372036854775807  # the greatest int64: what the service tells when it knows no time
STORAGE_BYTES = 21_474_836_480
_HELP = detail("Help", links=[{"description": "Learn more about Gemini API quotas", "url": _DOCS}])
_METRIC = "generativelanguage.googleapis.com/"
_CREDITS = (
    "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your project "
    "and billing."
)


def _exceeded(lines: Sequence[str], violations: Sequence[dict[str, object]], retry: str) -> Reply:
    message = "You exceeded your current quota, please check your plan and billing details. For more information on "
    message += "\n* ".join([f"this error, head to: {_DOCS}.", *lines])
    told = [_HELP, detail("QuotaFailure", violations=list(violations)), detail("RetryInfo", retryDelay=retry)]
    return as_error(429, message, told)


def storage_full(most: int) -> Reply:
    """Return 429 for an upload that does not fit: its RetryInfo tells 292 billion years."""
    metric = f"{_METRIC}file_storage_bytes"
    violation: dict[str, object] = {
        "quotaMetric": metric,
        "quotaId": "FileStorageBytesPerProject",
        "quotaValue": str(most),
    }
    return _exceeded([f"Quota exceeded for metric: {metric}, limit: {most}"], [violation], f"{CENTURIES_S}s")


def _limit_zero(model: str) -> Reply:
    """Return 429 for a model that the free tier does not have: it tells 25 s, for ever."""
    kinds = {
        "input_token_count": "GenerateContentInputTokensPerModelPerMinute-FreeTier",
        "requests": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
    }
    lines = [f"Quota exceeded for metric: {_PREFIX}{kind}, limit: 0, model: {model}" for kind in kinds]
    violations = [_violation(Violation(f"{_PREFIX}{kind}", quota, 0, 25.0), model) for kind, quota in kinds.items()]
    for violation in violations:
        del violation["quotaValue"]  # zero is absent, as protobuf has it
    return _exceeded([*lines, "Please retry in 25.465784708s."], violations, "25.465784708s")


def _centuries(model: str) -> Reply:
    violation = Violation(f"{_PREFIX}requests", "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", 10, 0.0)
    return _exceeded([], [_violation(violation, model)], f"{CENTURIES_S}s")


def model_gone(model: str) -> Reply:
    """Return 404 for a model that is unknown, misspelt or retired."""
    return as_error(
        404,
        f"models/{model} is not found for API version v1beta, or is not supported for generateContent. Call ListModels "
        "to see the list of available models and their supported methods.",
    )


def _billing(_: str) -> Reply:
    return as_error(
        403,
        "This API method requires billing to be enabled. Please enable billing on project #123456789 by visiting "
        "https://console.developers.google.com/billing/enable?project=123456789 then retry. If you enabled billing for "
        "this project recently, wait a few minutes for the action to propagate to our systems and retry.",
        [detail("ErrorInfo", reason="BILLING_DISABLED", domain="googleapis.com")],
    )


def _no_free_tier(_: str) -> Reply:
    message = (
        "Gemini API free tier is not available in your country. Please enable billing on your project in Google AI "
    )
    return as_error(400, f"{message}Studio.", status="FAILED_PRECONDITION")


REFUSALS: dict[str, Callable[[str], Reply]] = {
    "region": lambda _: as_error(400, "User location is not supported for the API use.", status="FAILED_PRECONDITION"),
    "leaked": lambda _: as_error(403, "Your API key was reported as leaked. Please use another API key."),
    "billing": _billing,
    "billing_400": _no_free_tier,
    "credits": lambda _: as_error(429, _CREDITS),
    "limit_zero": _limit_zero,
    "centuries": _centuries,
    "gone": model_gone,
}
_ALWAYS = ("region", "leaked")


class Refusals:
    """The refusals that hold for whole accounts and models."""

    def __init__(
        self, told: Mapping[str, str | tuple[str, float, float]], names: Iterable[str], credit: int | None
    ) -> None:
        """Set the refusals by key, by model or by "*" for all, and the prepaid generations of each key.

        Args:
            told: A word of `REFUSALS`, or (word, from_s, to_s).
            names: The keys and models that there are.
            credit: Generations billed to a key until its credits are gone; None for no end.

        Raises:
            ValueError: No such word, key or model, or a number outside its range.
        """
        names = ("*", *names)
        check("prepaid", credit is None or credit >= 0, ">= 0 or None", credit)
        self._told: dict[str, tuple[str, float, float]] = {}
        for name, how in told.items():
            word, from_s, to_s = span = how if isinstance(how, tuple) else (how, 0.0, float("inf"))
            check("refusals", name in names, f"keyed by {', '.join(names)}", name)
            check("refusals", word in REFUSALS, f"one of {', '.join(REFUSALS)}", word)
            check("refusals", from_s < to_s, "(word, from_s, to_s) with from_s < to_s", how)
            self._told[name] = span
        self._credit = credit

    def reply(self, key: str, model: str, now_s: float, *, generates: bool, billed: int) -> Reply | None:
        """Return the refusal of a request, or None; ``model`` is empty for a request that names none."""
        for name in ("*", key, model):
            word, from_s, to_s = self._told.get(name, ("", 0.0, 0.0))
            if from_s <= now_s < to_s and (word in _ALWAYS or generates or (word == "gone" and model)):
                return REFUSALS[word](model)
        if generates and self._credit is not None and billed >= self._credit:
            return REFUSALS["credits"](model)
        return None


def no_access(name: str) -> Reply:
    """Return 403 for a file of somebody else, or one that is too old."""
    return as_error(
        403, f"You do not have permission to access the File {name.removeprefix('files/')} or it may not exist."
    )


def not_found(what: str) -> Reply:
    """Return 404 for an unknown name."""
    return as_error(404, f"{what} is not found, or you have no permission to see it.")


def key_refusal(given: str | None) -> Reply:
    """Return 403 for a missing key and 400 for a wrong one."""
    if not given:
        return as_error(
            403,
            "Method doesn't allow unregistered callers (callers without established identity). "
            "Please use API Key or other form of API consumer identity to call this API.",
        )
    reason = detail(
        "ErrorInfo",
        reason="API_KEY_INVALID",
        domain="googleapis.com",
        metadata={"service": "generativelanguage.googleapis.com"},
    )
    return as_error(400, "API key not valid. Please pass a valid API key.", [reason])
