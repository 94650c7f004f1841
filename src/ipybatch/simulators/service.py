"""A simulated HTTP service: requests in, replies out, injected faults, rate limits, and statistics of all of it.

Rule: no clock, no network and no waiting here.  A service is told ``now_s`` (seconds since its start) and returns a
`Reply`; `transport` and `serve` wait and answer.

A request is decided in this order:

    /_sim/...  --> statistics and outages by request (not counted, never refused)
    outage     --> the outage's kind of fault
    ban        --> 403        from `Traffic`, for requests that the service rate-limits
    too many   --> 429        likewise
    a fault    --> its kind, see `faults`
    otherwise  --> the service's own answer

`Traffic` keeps exact sliding windows.  A request counts at its arrival, also when it is refused.  A window is half
open, (t - per_s, t]: two requests exactly ``per_s`` apart are never in the same one.

    ok --more than limit in a window--> 429 --ban_after of them within per_s--> 403 for ban_s --> ok

Refused requests count, so "no 429" and "no window above its limit" are the same statement, and `Traffic.worst`
proves it from the record, independently of the client's own counters.

A new service is a subclass of `Service` with `items` and `answer`, and an entry in `serve.SERVICES`.
"""

from __future__ import annotations

import json
import math
import threading
from array import array
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict, cast
from urllib.parse import parse_qsl, urlsplit

from .faults import HANG_S, FaultKind, Faults, check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SCRIPT = "/_sim/"
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class RequestLike(Protocol):
    """The attributes of a request that a service reads: requests of httpx2 and httpx, and `Request`, have them."""

    @property
    def method(self) -> str:
        """The verb."""

    @property
    def url(self) -> object:
        """The address; its text is parsed, and scheme and host are ignored."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""

    @property
    def content(self) -> bytes:
        """The whole body."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request, for tests and servers without a client library.

    Attributes:
        url: With or without scheme and host, ``/api/appdetails?appids=440``.
        method: The verb, in capitals.
        headers: As sent.
        content: The whole body.
        path: The path without a trailing slash, which the services ignore.
        query: The parameters; a repeated one has its last value.
    """

    url: object
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    path: str = field(init=False)
    query: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(str(self.url))
        object.__setattr__(self, "path", parts.path.rstrip("/"))
        object.__setattr__(self, "query", dict(parse_qsl(parts.query, keep_blank_values=True)))

    @classmethod
    def of(cls, request: RequestLike) -> Request:
        """Convert any request-like object."""
        if isinstance(request, cls):
            return request
        return cls(request.url, request.method, request.headers, request.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The reply to one request.

    Attributes:
        status: HTTP status.
        body: The body.
        headers: The headers, without Content-Length.
        delay_s: Time to wait at the server before replying, seconds.
        drop: "close" closes the connection and "reset" resets it, both without a reply; None replies.
        sent: Called when the whole reply has left the service, or None.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: Literal["close", "reset"] | None = None
    sent: Callable[[], None] | None = None


class WindowStats(TypedDict):
    """One limit, and the largest number of requests in any of its windows."""

    limit: int
    per_s: float
    worst: int


class Span(TypedDict):
    """A ban or an outage, seconds since the start; `to_s` is None when it does not end."""

    from_s: float
    to_s: float | None
    requests: int


class Stats(TypedDict):
    """Statistics of a service, ready for JSON.

    `statuses` counts replies by status, and "dropped"; `ids` counts the requests for each id, whatever the reply;
    `duplicates` are the ids asked for more than once; `arrivals` are the times of the rate-limited requests, seconds
    since the start, sorted; `faults` counts injected faults and outages by kind; `requests` within bans and outages
    counts rate-limited requests.
    """

    requests: int
    statuses: dict[str, int]
    ids: dict[str, int]
    duplicates: list[str]
    worst: list[WindowStats]
    arrivals: list[float]
    bans: list[Span]
    outages: list[Span]
    faults: dict[str, int]


class Service:
    """A simulated service: a subclass defines the ids of a request and the answer without faults."""

    def __init__(self, *, faults: Faults | None = None, traffic: Traffic | None = None) -> None:
        """Set the faults (default: none) and the rate limits (default: none)."""
        self.faults = self._line = faults or Faults()  # the line's latency is the network's
        self.start_s: float | None = None  # reading of the clock of `transport` at second 0
        self._traffic = traffic or Traffic()
        self._lock = threading.RLock()  # statistics are read from other threads than the server's
        self._sent: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._ids: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._broken: Counter[str] = Counter()

    def items(self, request: Request) -> Sequence[str]:
        """Return the ids that this request asks for; subclasses override it."""
        return ()

    def rationed(self, request: Request) -> bool:
        """Return whether this request counts against the rate limits."""
        return True

    def answer(self, request: Request) -> Reply:
        """Return the answer without faults; subclasses override it."""
        raise NotImplementedError

    def refusal(self, status: int) -> Reply:
        """Return the reply to a client above its limit: 429, or 403 when banned."""
        return Reply(status=status)

    def refused(self, request: Request, now_s: float) -> Reply | None:
        """Return the refusal of a request above the limits, or None; injected faults come after it."""
        verdict = self._traffic.judge(now_s) if self.rationed(request) else 200
        return None if verdict == 200 else self.refusal(verdict)

    def handle(self, request: RequestLike, now_s: float) -> Reply:
        """Return the reply to a request that arrives ``now_s`` seconds after the start."""
        asked = Request.of(request)
        with self._lock:
            if asked.path.startswith(SCRIPT):
                return self._script(asked, now_s)
            reply = self._decide(asked, now_s)
            self._statuses["dropped" if reply.drop else str(reply.status)] += 1
            return reply

    def way_s(self, request: RequestLike) -> tuple[float, float]:
        """Return the latency to the server and back of a request that is sent now, seconds."""
        asked = Request.of(request)
        if asked.path.startswith(SCRIPT):
            return 0.0, 0.0
        with self._lock:
            name = self._name(asked)
            self._sent[name] += 1
            return self._line.way_s(name, self._sent[name])

    def outage(self, seconds: float, now_s: float, kind: FaultKind | None = None) -> None:
        """Start an outage of ``seconds`` at ``now_s``; 0 ends the present one.

        Raises:
            ValueError: ``seconds`` is not >= 0, or ``kind`` is no kind of fault.
        """
        check("seconds", seconds >= 0, ">= 0", seconds)
        with self._lock:
            spans = [(a, min(b, now_s) if a <= now_s else b) for a, b in self.faults.outages]
            spans.append((now_s, now_s + seconds))
            kept = tuple(span for span in spans if span[0] < span[1])
            self.faults = replace(self.faults, outages=kept, outage_kind=kind or self.faults.outage_kind)

    def worst(self, per_s: float) -> int:
        """Return the largest number of rate-limited arrivals in any sliding window of ``per_s`` seconds."""
        with self._lock:
            return self._traffic.worst(per_s)

    def stats(self) -> Stats:
        """Return the statistics so far; callable from any thread."""
        with self._lock:
            return Stats(
                requests=self._statuses.total(),
                statuses=dict(sorted(self._statuses.items())),
                ids=dict(self._ids),
                duplicates=[item for item, count in self._ids.items() if count > 1],
                worst=[WindowStats(limit=n, per_s=s, worst=self._traffic.worst(s)) for n, s in self._traffic.windows],
                arrivals=self._traffic.arrivals.tolist(),
                bans=self._spans(self._traffic.bans),
                outages=self._spans(self.faults.outages),
                faults=dict(sorted(self._broken.items())),
            )

    def _spans(self, spans: Sequence[tuple[float, float]]) -> list[Span]:
        between = self._traffic.between
        return [Span(from_s=a, to_s=b if b < math.inf else None, requests=between(a, b)) for a, b in spans]

    def _name(self, request: Request) -> str:
        return ",".join(self.items(request)) or request.path

    def _decide(self, request: Request, now_s: float) -> Reply:
        name = self._name(request)
        self._asked[name] += 1
        nth = self._asked[name]
        self._ids.update(self.items(request))
        if self.rationed(request):
            self._traffic.arrive(now_s)
        if self.faults.in_outage(now_s):
            return self._break(self.faults.outage_kind, request, nth)
        refusal = self.refused(request, now_s)
        if refusal is not None:
            return refusal
        kind = self.faults.kind(name, nth)
        reply = self._break(kind, request, nth) if kind else self.answer(request)
        return replace(reply, delay_s=reply.delay_s + self.faults.delay_s(name, nth))

    def _break(self, kind: FaultKind, request: Request, nth: int) -> Reply:
        self._broken[kind] += 1
        if kind == "429":
            return self.refusal(429)
        if kind == "drop":
            return Reply(drop="close" if nth % 2 else "reset")
        if kind == "drop_after":
            return replace(self.answer(request), drop="close" if nth % 2 else "reset")
        if kind == "truncated":
            whole = self.answer(request)
            return replace(whole, body=whole.body[: len(whole.body) // 2], sent=None)
        if kind == "hang":
            return Reply(drop="close", delay_s=HANG_S)
        return as_page("Service temporarily unavailable", status=200 if kind == "html" else int(kind))

    def _script(self, request: Request, now_s: float) -> Reply:
        what = request.path.removeprefix(SCRIPT)
        if what == "outage":
            try:
                kind = cast("FaultKind | None", request.query.get("kind"))  # Faults refuses any other word
                self.outage(float(request.query.get("seconds", "nan")), now_s, kind)
            except ValueError as error:
                return as_json({"error": str(error)}, status=400)
        elif what != "stats":
            return as_json({"error": f"/_sim/ has stats and outage, got {what!r}"}, status=404)
        return as_json(self.stats())


def as_json(value: object, *, status: int = 200) -> Reply:
    """Return a reply of compact JSON, characters beyond ASCII escaped as the real services do."""
    return Reply(
        status=status, body=_encode(value).encode(), headers={"Content-Type": "application/json; charset=utf-8"}
    )


def as_page(text: str, *, status: int) -> Reply:
    """Return a web page, as overloaded services do for any request."""
    body = f"<!DOCTYPE html><html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>"
    return Reply(status=status, body=body.encode(), headers={"Content-Type": "text/html; charset=utf-8"})


_ROUNDING_S = 1e-9  # 0.1 + 2.0 - 2.0 is above 0.1 by 1e-16: sums of floats, not a client in a hurry


class Traffic:
    """Sliding-window rate limits with bans, and the record of all arrivals.

    All requests count as one client's: a real service distinguishes clients by address, and one kernel has one.
    """

    def __init__(
        self, windows: Sequence[tuple[int, float]] = (), *, ban_after: int | None = None, ban_s: float = 300.0
    ) -> None:
        """Set the limits.

        Args:
            windows: Pairs (limit, per_s): at most ``limit`` >= 1 arrivals in ``per_s`` > 0 seconds.
            ban_after: 429s within ``per_s`` of the first window that end in a ban, >= 1; None for no bans.
            ban_s: How long a ban lasts, seconds, > 0.

        Raises:
            ValueError: A number is outside its range.
        """
        for limit, per_s in windows:
            check("limit", limit >= 1, ">= 1", limit)
            check("per_s", 0 < per_s < math.inf, "> 0 and finite", per_s)
        check("ban_after", ban_after is None or ban_after >= 1, ">= 1 or None", ban_after)
        check("ban_s", ban_s > 0, "> 0", ban_s)
        self.windows = tuple(windows)
        self.arrivals = array("d")
        self.bans: list[tuple[float, float]] = []
        self._ban_after = ban_after
        self._ban_s = ban_s
        self._refusals = array("d")

    def arrive(self, now_s: float) -> None:
        """Record one arrival, in any order: abandoned requests are recorded early."""
        insort(self.arrivals, now_s)

    def judge(self, now_s: float) -> int:
        """Return the status for the request that just arrived: 200, 429 or 403."""
        if any(from_s <= now_s < to_s for from_s, to_s in self.bans):
            return 403
        if all(_within(self.arrivals, now_s, per_s) <= limit for limit, per_s in self.windows):
            return 200
        insort(self._refusals, now_s)
        if self._ban_after is not None and _within(self._refusals, now_s, self.windows[0][1]) >= self._ban_after:
            self.bans.append((now_s, now_s + self._ban_s))
        return 429

    def worst(self, per_s: float) -> int:
        """Return the largest number of arrivals in any sliding window of ``per_s`` seconds."""
        return max((_within(self.arrivals, at_s, per_s) for at_s in self.arrivals), default=0)

    def between(self, from_s: float, to_s: float) -> int:
        """Return the number of arrivals with from_s <= t < to_s."""
        return bisect_left(self.arrivals, to_s) - bisect_left(self.arrivals, from_s)


def _within(times: array[float], now_s: float, per_s: float) -> int:
    """Count what lies in (now_s - per_s, now_s]."""
    return bisect_right(times, now_s) - bisect_right(times, now_s - per_s + _ROUNDING_S)
