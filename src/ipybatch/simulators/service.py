"""What every simulated service shares: requests in, replies out, faults, windows, and a record of it all.

Rule: no clock, no network, no waiting here.  A service is told ``now_s`` (seconds since its start) and gives a
`Reply` that says how to answer; `transport` and `serve` do the waiting and the answering.

A request is decided in this order:

    /_sim/...  --> the script: statistics, outages (not counted, never refused)
    outage     --> its kind
    ban        --> 403        both from `traffic`, for requests that the service rations
    too many   --> 429
    a fault    --> its kind
    otherwise  --> the service's own answer

A new service is a subclass with `items` and `answer`, and a line in the registry of `serve`.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict, cast
from urllib.parse import parse_qsl, urlsplit

from .faults import HANG_S, FaultKind, Faults
from .traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCRIPT = "/_sim/"
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class RequestLike(Protocol):
    """What a service reads of a request: `httpx.Request` has it, and so has `Request`."""

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
    """A request for tests and servers that have no httpx.

    Attributes:
        url: With or without scheme and host, ``/api/appdetails?appids=440``.
        method: The verb, in capitals.
        headers: As sent.
        content: The whole body.
        path: The path without its trailing slash: the services ignore one.
        query: The parameters; of a repeated one the last.
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
        """Take any request-like object."""
        if isinstance(request, cls):
            return request
        return cls(request.url, request.method, request.headers, request.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How to answer one request.

    Attributes:
        status: HTTP status.
        body: What the client gets.
        headers: Sent with it, Content-Length aside.
        delay_s: Time to wait at the server before answering, seconds.
        drop: "close" ends the line in order and "reset" hard, both without an answer; None answers.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: Literal["close", "reset"] | None = None


class Window(TypedDict):
    """The worst that one limit has seen."""

    limit: int
    per_s: float
    worst: int


class Span(TypedDict):
    """A ban or an outage, seconds since the start; `to_s` is None for one without an end."""

    from_s: float
    to_s: float | None
    requests: int


class Stats(TypedDict):
    """What a service has seen, ready for JSON.

    `statuses` counts replies by status, and "dropped"; `ids` counts how often each id was asked for, whatever
    the answer; `duplicates` are the ids asked for more than once; `arrivals` are the rationed requests, seconds
    since the start, sorted; `faults` counts what the seed or an outage broke, by kind; `requests` within bans and
    outages counts rationed requests.
    """

    requests: int
    statuses: dict[str, int]
    ids: dict[str, int]
    duplicates: list[str]
    worst: list[Window]
    arrivals: list[float]
    bans: list[Span]
    outages: list[Span]
    faults: dict[str, int]


class Service:
    """A simulated service: subclasses say what is asked for and what the sound answer is."""

    def __init__(self, *, faults: Faults | None = None, traffic: Traffic | None = None) -> None:
        """Take what goes wrong (default: nothing) and the rules of traffic (default: none)."""
        self.faults = faults or Faults()
        self.start_s: float | None = None  # what the clock of `transport` read at second 0
        self._traffic = traffic or Traffic()
        self._lock = threading.RLock()  # statistics are read from other threads than the server's
        self._sent: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._ids: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._broken: Counter[str] = Counter()

    def items(self, request: Request) -> Sequence[str]:
        """Return the ids this request asks for; subclasses override it."""
        return ()

    def rationed(self, request: Request) -> bool:
        """Say whether this request counts against the windows."""
        return True

    def answer(self, request: Request) -> Reply:
        """Return the sound answer; subclasses override it."""
        raise NotImplementedError

    def refusal(self, status: int) -> Reply:
        """Return what a client that is too fast gets: 429, or 403 when banned."""
        return Reply(status=status)

    def refused(self, request: Request, now_s: float) -> Reply | None:
        """Return the refusal of a request that keeps no limit, or None; no fault of the service's comes first."""
        verdict = self._traffic.judge(now_s) if self.rationed(request) else 200
        return None if verdict == 200 else self.refusal(verdict)

    def handle(self, request: RequestLike, now_s: float) -> Reply:
        """Decide one request that arrives ``now_s`` seconds after the start."""
        asked = Request.of(request)
        with self._lock:
            if asked.path.startswith(SCRIPT):
                return self._script(asked, now_s)
            reply = self._decide(asked, now_s)
            self._statuses["dropped" if reply.drop else str(reply.status)] += 1
            return reply

    def way_s(self, request: RequestLike) -> tuple[float, float]:
        """Return the way in and the way out of a request that is sent now, seconds."""
        asked = Request.of(request)
        if asked.path.startswith(SCRIPT):
            return 0.0, 0.0
        with self._lock:
            name = self._name(asked)
            self._sent[name] += 1
            return self.faults.way_s(name, self._sent[name])

    def outage(self, seconds: float, now_s: float, kind: FaultKind | None = None) -> None:
        """Be down from ``now_s`` on for ``seconds``; 0 ends the outage that lasts.

        Raises:
            ValueError: ``seconds`` is not >= 0, or ``kind`` is no kind of fault.
        """
        if not seconds >= 0:
            msg = f"seconds must be >= 0, got {seconds!r}"
            raise ValueError(msg)
        with self._lock:
            spans = [(a, min(b, now_s) if a <= now_s else b) for a, b in self.faults.outages]
            spans.append((now_s, now_s + seconds))
            kept = tuple(span for span in spans if span[0] < span[1])
            self.faults = replace(self.faults, outages=kept, outage_kind=kind or self.faults.outage_kind)

    def worst(self, per_s: float) -> int:
        """Return the largest number of rationed arrivals in any sliding window of ``per_s`` seconds."""
        with self._lock:
            return self._traffic.worst(per_s)

    def stats(self) -> Stats:
        """Return what the service has seen so far; any thread may ask."""
        with self._lock:
            return Stats(
                requests=self._statuses.total(),
                statuses=dict(sorted(self._statuses.items())),
                ids=dict(self._ids),
                duplicates=[item for item, count in self._ids.items() if count > 1],
                worst=[Window(limit=n, per_s=s, worst=self._traffic.worst(s)) for n, s in self._traffic.windows],
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
        name, nth = self._record(request, now_s)
        if self.faults.in_outage(now_s):
            return self._break(self.faults.outage_kind, request, nth)
        refusal = self.refused(request, now_s)
        if refusal is not None:
            return refusal
        kind = self.faults.kind(name, nth)
        reply = self._break(kind, request, nth) if kind else self.answer(request)
        return replace(reply, delay_s=reply.delay_s + self.faults.delay_s(name, nth))

    def _record(self, request: Request, now_s: float) -> tuple[str, int]:
        name = self._name(request)
        self._asked[name] += 1
        self._ids.update(self.items(request))
        if self.rationed(request):
            self._traffic.arrive(now_s)
        return name, self._asked[name]

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
            return replace(whole, body=whole.body[: len(whole.body) // 2])
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
    """Return a web page, as services that are in trouble do whatever they were asked for."""
    body = f"<!DOCTYPE html><html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>"
    return Reply(status=status, body=body.encode(), headers={"Content-Type": "text/html; charset=utf-8"})
