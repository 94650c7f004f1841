"""Pacing of requests to models: quotas given by the user, or learned from replies.

Rule: no clock and no I/O here.  Google publishes no table of quotas, so none ships; an unknown quota is learned:

    no quota known         slow start: one more request in flight with each answer
    429 with a value       that many a minute, evenly spaced, or in a window if the service turns out to use one
    429 without a value    half as many in flight, then slowly more again
    daily quota used up    the other models, until midnight in California
    429 with a delay       the other models meanwhile
    429 after 429          the other models for a moment; from the third in a row for a minute, then two, ... an hour

Of several models the one goes first that may start first; of those that may start now, the first by priority.

Requests count from their start: an answer may take a minute, and a request that counted until a minute after its
answer would halve the pace.  Requests reach the service a moment after their start, hence `MARGIN_S`.

Prior art: slow start and additive increase, multiplicative decrease (RFC 5681); the generic cell rate algorithm
(ITU-T I.371) for the even pace; Little's law for how many run at once.

One subject, hence its length: when a request starts, and to which model.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import msgspec

from ipybatch.engine.data.policy import Rate, check, keep
from ipybatch.engine.rules.limiter import MOST_COOL_S, Cost, Window, cost_in, held_s
from ipybatch.errors import InputError
from ipybatch.gemini.service.reply import Refusal

MINUTE_S = 60.0
MARGIN_S = 0.2  # longest time from a request's start to its arrival, in a window of a minute
LATEST_S = 1.0  # the same, in a shorter window
BURST_S = 0.5  # at an even pace, the requests of this many seconds may start together
TENTH_FROM_RPM = 100  # from this rate on, each tenth of a minute is limited to a tenth of the requests
LEARNT = 0.97  # share of a learned quota that is used: the full quota would be exceeded again and again
SLOWER = 0.98
APART_S = 0.006  # between starts while no quota is known: a busy event loop reads the first 429 too late
LATE = 2  # requests that may be caught up after a late timer, at a learned pace
FIRST_AT_ONCE = 10
EVIDENCE = 5  # fewest requests that show a window
ADVISED_AFTER = 20  # answers
IN_A_ROW = 3  # 429 that tell no delay, after which a model rests for long: its quota of the day may be used up
MOMENT_S, REST_S, LONGEST_REST_S = 1.0, 60.0, 3600.0  # of such rests: the first, the first long one, the longest
LITTLE = 0.5
LEAST, MOST = 3, 10  # requests in flight, unless the user sets a number
SEQUENTIAL = 5  # requests in flight with sequential=True
DEFAULT_MODEL = "gemini-2.5-flash"


@dataclass(frozen=True, slots=True)
class Model:
    """A model and its quotas, as far as they are known.

    Attributes:
        name: Google's name of the model, such as "gemini-2.5-flash".
        rpm: Requests per minute, >= 1; None: learned from the service's replies.
        tpm: Input tokens per minute, >= 1; None: learned from the service's replies.
        priority: Of the models that may be asked now, those of a lower value are asked first.

    Raises:
        InputError: A field is invalid; the message names it.
    """

    name: str
    rpm: float | None = None
    tpm: float | None = None
    priority: int = 1

    def __post_init__(self) -> None:
        name = self.name.removeprefix("models/") if isinstance(self.name, str) else self.name
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", name):
            msg = f"model must be a name such as {DEFAULT_MODEL!r}, got {self.name!r}"
            raise InputError(msg)
        object.__setattr__(self, "name", name)
        for field, value in (("rpm", self.rpm), ("tpm", self.tpm)):
            if value is not None:
                keep(self, **{field: check(field, value, low=1)})
        keep(self, priority=check("priority", self.priority, low=-math.inf))


def choose_models(model: str | Model | None, models: Iterable[str | Model] | None) -> list[Model]:
    """Return the models to use, by priority.

    Raises:
        InputError: Both arguments are given, ``models`` is empty, or a model is given twice.
    """
    if model is not None and models is not None:
        msg = f"give model= or models=, not both: got {model!r} and {models!r}"
        raise InputError(msg)
    listed = [model if model is not None else DEFAULT_MODEL] if models is None else list(models)
    if isinstance(models, str) or not listed:
        msg = f"models must be a list of names or Model(...), got {models!r}"
        raise InputError(msg)
    made = [one if isinstance(one, Model) else Model(one) for one in listed]
    names = [one.name for one in made]
    if len(set(names)) < len(names):
        msg = f"models must differ, got {', '.join(names)}"
        raise InputError(msg)
    return sorted(made, key=lambda one: one.priority)


def automatic_concurrency(rpm: float, latency_s: float, most: int = MOST) -> int:
    """Return how many requests in flight use 60 % of a quota, by Little's law; from 3 to ``most``."""
    return max(LEAST, min(most, math.ceil(0.6 * rpm / MINUTE_S * latency_s)))


class StartWindow(Window):
    """A sliding window that counts requests from their start."""

    def answer(self, started_s: float, now_s: float) -> None:
        """Do nothing: only the start counts."""

    def spend(self, responded_s: float, cost: float) -> None:
        """Count ``cost`` until one window after a start."""
        self._spent.append((responded_s + held_s(self.rate) + MARGIN_S, cost))
        self._spent_sum += cost


class ArrivalWindow(msgspec.Struct):
    """A short sliding window, which a late arrival would exceed.

    A request arrives between its start and its answer, so it counts until ``per_s`` after the answer; or after
    ``LATEST_S``, since an answer may take long and an arrival does not.
    """

    rate: Rate
    _expiries: list[float] = msgspec.field(default_factory=list)  # a heap, of all that count
    _outdated: list[float] = msgspec.field(default_factory=list)  # a heap: those of answered requests, to be left out
    _open: deque[float] = msgspec.field(default_factory=deque)  # starts of requests without an answer, in order

    def used(self, now_s: float) -> float:
        """Return how much of the limit is used at ``now_s``, which never goes back."""
        while (self._expiries and self._expiries[0] <= now_s) or self._is_outdated:
            if self._is_outdated:
                heappop(self._outdated)
            heappop(self._expiries)
        return float(len(self._expiries) - len(self._outdated))

    def wait_s(self, now_s: float, cost: float) -> float:
        """Return seconds until ``cost`` fits; inf if only an answer can make room."""
        over = math.ceil(self.used(now_s) + cost - self.rate.limit)
        if over <= 0:
            return 0.0
        if over == 1 and self._expiries:
            return self._expiries[0] - now_s
        frees = sorted((Counter(self._expiries) - Counter(self._outdated)).elements())
        return frees[over - 1] - now_s if over <= len(frees) else math.inf

    def spend(self, started_s: float, cost: float) -> None:
        """Count a request that starts."""
        if cost:
            self._open.append(started_s)
            heappush(self._expiries, started_s + LATEST_S + self._span_s)

    def answer(self, started_s: float, now_s: float) -> None:
        """Record the answer to a request."""
        expiry_s, free_s = started_s + LATEST_S + self._span_s, now_s + self._span_s
        while self._open and self._open[0] + LATEST_S <= now_s:  # they expire before an answer makes room
            self._open.popleft()
        if free_s < expiry_s and started_s in self._open:
            self._open.remove(started_s)
            heappush(self._outdated, expiry_s)
            heappush(self._expiries, free_s)

    @property
    def _is_outdated(self) -> bool:
        """Whether the first expiry is one of an answered request."""
        return bool(self._outdated) and self._outdated[0] == self._expiries[0]

    @property
    def _span_s(self) -> float:
        return held_s(self.rate)


class ModelPacer(msgspec.Struct):
    """The pace of one model.

    Attributes:
        at_once: Requests in flight, as set by the user; None: chosen automatically.
        windows: The windows that limit it.
        latency_s: Moving average of the time to an answer, seconds; 0.0 before the first answer.
        used_up_until_s: Unix time at which the daily quota is renewed; 0.0 while it is not used up.
        rests_until_s: Time until which it is not asked, since it refused; for a session of several models.
        told_s: How long it told to wait when it last refused, seconds; 0.0 if it did not.
        in_flight: Requests in flight.
    """

    model: Model
    at_once: int | None = None
    windows: list[StartWindow | ArrivalWindow] = msgspec.field(default_factory=list)
    latency_s: float = 0.0
    used_up_until_s: float = 0.0
    rests_until_s: float = -math.inf
    told_s: float = 0.0
    in_flight: int = 0
    _rpm: float | None = None
    _interval_s: float = APART_S
    _burst_s: float = 0.0
    _due_s: float = -math.inf  # time of the next request at an even pace
    _share: float = LEARNT
    _ramp: float = FIRST_AT_ONCE
    _is_ramping: bool = True
    _is_even: bool = False
    _answers: int = 0
    _slowed_s: float = -math.inf  # time at which a 429 last changed the pace
    _refusals: int = 0  # 429 in a row that told no delay, or next to none
    _rested_s: float = -math.inf  # time of the latest of them
    _starts: deque[float] = msgspec.field(default_factory=deque)  # of the last minute

    def __post_init__(self) -> None:
        if self.model.rpm is not None:
            self._rpm = rpm = self.model.rpm
            self._interval_s, self._burst_s, self._is_even = MINUTE_S / rpm, BURST_S, True
            self.windows.append(StartWindow(Rate(rpm, per_s=MINUTE_S)))
            if rpm >= TENTH_FROM_RPM:
                self.windows.append(ArrivalWindow(Rate(rpm // 10, per_s=MINUTE_S / 10)))
        if self.model.tpm is not None:
            self.windows.append(StartWindow(Rate(self.model.tpm, per_s=MINUTE_S, unit="tokens")))

    @property
    def concurrency(self) -> int:
        """Requests that may be in flight now."""
        most = self.at_once or MOST
        if self._rpm is None:
            return max(1, min(most, int(self._ramp)))
        if self.at_once is None and self.latency_s:
            return automatic_concurrency(self._rpm, self.latency_s, most)
        return most

    @property
    def is_limited(self) -> bool:
        """Whether a quota of requests is known."""
        return self._rpm is not None

    def wait_s(self, now_s: float, cost: Cost) -> float:
        """Return seconds until a request may start, apart from the limit on requests in flight."""
        wait_s = max(0.0, self._due_s - self._burst_s - now_s, self.rests_until_s - now_s)
        for window in self.windows:
            wait_s = max(wait_s, window.wait_s(now_s, cost_in(window.rate.unit, cost)))
        return wait_s

    def start(self, now_s: float, cost: Cost) -> None:
        """Count a request that starts."""
        self._due_s = max(self._due_s, now_s) + self._interval_s
        for window in self.windows:
            window.spend(now_s, cost_in(window.rate.unit, cost))
        self._starts.append(now_s)
        while self._starts[0] <= now_s - MINUTE_S:
            self._starts.popleft()

    def advice(self) -> str:
        """Advise a higher concurrency, once, if the present one uses little of a known quota; "" otherwise."""
        if self._rpm is None or self.at_once is not None or self._answers != ADVISED_AFTER or not self.latency_s:
            return ""
        share = self.concurrency / self.latency_s * MINUTE_S / self._rpm
        if share > LITTLE:
            return ""
        return (
            f"{self.concurrency} at once use {share:.0%} of {self._rpm:g} requests a minute, as an answer takes"
            f" {self.latency_s:.1f} s: concurrency={math.ceil(self.concurrency / share)} would use all of it"
        )

    def settle(self, now_s: float, started_s: float, cost: Cost, actual: Cost) -> None:
        """Record the answer to a request, and its cost beyond the estimate."""
        for window in self.windows:
            window.answer(started_s, now_s)
            over = actual.get(window.rate.unit, 0.0) - cost_in(window.rate.unit, cost)
            if over > 0 and window.rate.unit in actual:
                window.spend(now_s, over)

    def answered(self, seconds: float) -> None:
        """Learn from an answer that took ``seconds``."""
        self._answers += 1
        self._refusals = 0
        self.latency_s = seconds if not self.latency_s else 0.8 * self.latency_s + 0.2 * seconds
        if self._rpm is None:
            self._ramp = min(self.at_once or MOST, self._ramp + (1.0 if self._is_ramping else 1.0 / self._ramp))

    def refused(self, now_s: float, started_s: float, refusal: Refusal) -> None:
        """Learn from the 429 that answered a request started at ``started_s``."""
        if self._starts:
            self._starts.pop()  # it did not count at the service
        if refusal.tpm is not None:
            self._hold_to(now_s, Rate(refusal.tpm, per_s=MINUTE_S, unit="tokens"))
        if started_s < self._slowed_s:
            return  # it was in flight when the pace was last changed: nothing new
        self._slowed_s = now_s
        if refusal.rpm is not None:
            self._learn(now_s, refusal.rpm, refusal.retry_s or 0.0)
        elif refusal.tpm is None and self._rpm is None:
            self._is_ramping = False
            self._ramp = max(1.0, min(self._ramp, self.concurrency) / 2)

    def rest(self, now_s: float, started_s: float, retry_s: float | None) -> float:
        """Ask it no more for a while, after a 429; return for how long, seconds.

        Args:
            retry_s: As long as the service told; None or 0: longer with each in a row, those together counted as one.
                Less than a second is believed twice in a row.
        """
        self.told_s = retry_s or 0.0
        rest_s = min(self.told_s, MOST_COOL_S)
        if self.told_s < MOMENT_S:
            if started_s >= self._rested_s:
                self._refusals, self._rested_s = self._refusals + 1, now_s
            more = self._refusals - IN_A_ROW
            if self.told_s:
                rest_s = MOMENT_S if more >= 0 else rest_s
            else:
                rest_s = MOMENT_S * 2.0 ** (self._refusals - 1) if more < 0 else min(REST_S * 2.0**more, LONGEST_REST_S)
        self.rests_until_s = max(self.rests_until_s, now_s + rest_s)
        return rest_s

    def lift(self, now_s: float) -> bool:
        """Let it be asked again at once; return whether it rested."""
        rested = self.rests_until_s > now_s or bool(self.used_up_until_s)
        self.rests_until_s, self.used_up_until_s, self._refusals = -math.inf, 0.0, 0
        return rested

    def _learn(self, now_s: float, rpm: float, retry_s: float) -> None:
        if rpm == self._rpm:
            self._share *= SLOWER
            if self._is_even:
                self._pace_evenly(now_s, rpm)
            return
        is_first = self._rpm is None
        self._rpm, self._interval_s = rpm, 0.0
        self.windows = [window for window in self.windows if window.rate.unit != "requests"]
        self._hold_to(now_s, Rate(rpm, per_s=MINUTE_S))
        span_s = self._span_s(now_s + retry_s, rpm) if is_first else None
        self._is_even = span_s is None
        if span_s is None:
            self._pace_evenly(now_s, rpm)
        elif span_s < MINUTE_S * 0.95:
            self._hold_to(now_s, Rate(max(1.0, rpm * span_s // MINUTE_S), per_s=span_s))

    def _span_s(self, free_s: float, rpm: float) -> float | None:
        """Return the length of the service's window, or None if the quota is no window.

        The next request fits at ``free_s``, when the first one leaves the window.  If as many requests started in that
        time as the quota allows, it is the window; a token bucket admits more at first.
        """
        span_s = free_s - self._starts[0] if self._starts else 0.0
        allowed = rpm * span_s / MINUTE_S
        return span_s if allowed >= EVIDENCE and 0.9 <= len(self._starts) / allowed <= 1.1 else None

    def _pace_evenly(self, now_s: float, rpm: float) -> None:
        self._interval_s = MINUTE_S / (rpm * self._share)
        self._burst_s = LATE * self._interval_s
        self._due_s = max(self._due_s, now_s + 2 * LATE * self._interval_s)

    def _hold_to(self, now_s: float, rate: Rate) -> None:
        """Keep a rate from now on; past requests count, but their tokens are unknown."""
        if any(window.rate == rate for window in self.windows):
            return
        span = rate.unit, rate.per_s
        self.windows = [window for window in self.windows if (window.rate.unit, window.rate.per_s) != span]
        window = StartWindow(rate) if rate.per_s >= MINUTE_S else ArrivalWindow(rate)
        for started_s in self._starts if rate.unit == "requests" else ():
            if started_s > now_s - rate.per_s:
                window.spend(started_s, 1.0)
                window.answer(started_s, started_s + MARGIN_S)
        self.windows.append(window)


class Start(msgspec.Struct, eq=False):
    """A request in flight.

    Attributes:
        pace: Of the model that it is for.
        is_open: Whether nobody has asked for its model yet.
    """

    pace: ModelPacer
    is_open: bool = True


class GeminiPacer:
    """The pace of a session, and which of its models takes the next request.

    A start is of one model, which the request then asks for by `take`.  Two requests that start at the same moment may
    take each other's.
    """

    def __init__(self, models: Sequence[Model], *, at_once: int | None = None) -> None:
        self._models = tuple(models)
        self._at_once = at_once
        self._pacers = [ModelPacer(model, at_once) for model in models]
        self._others: dict[str, ModelPacer] = {}  # that are asked beside these
        self._starts: dict[tuple[float, int], deque[Start]] = {}  # in flight, by time and identity of their costs
        self._open: deque[Start] = deque()

    @property
    def windows(self) -> list[StartWindow | ArrivalWindow]:
        """The windows of the current model."""
        return self.current.windows

    @property
    def current(self) -> ModelPacer:
        """The pacer of the first model with daily quota left, else of the one whose quota is renewed first."""
        left = [pacer for pacer in self._pacers if not pacer.used_up_until_s]
        return left[0] if left else min(self._pacers, key=lambda pacer: pacer.used_up_until_s)

    def of(self, name: str) -> ModelPacer:
        """Return the pacer of a model; one apart if it is not a model of the session."""
        for pacer in self._pacers:
            if pacer.model.name == name:
                return pacer
        if name not in self._others:
            self._others[name] = ModelPacer(Model(name), self._at_once)
        return self._others[name]

    @property
    def has_one(self) -> bool:
        """Whether the session has one model only."""
        return len(self._pacers) == 1

    def is_beside(self, name: str) -> bool:
        """Say whether a model is not one of the session's."""
        return name in self._others

    def rest_s(self, now_s: float) -> float:
        """Return seconds for which no model is to be asked; 0.0 if one may; inf if the day of all is used up.

        If all rest, the one that is free first rests no more: it is for the whole resource to cool down so long, or as
        long as the service told, which its bound is told of.
        """
        left = [pacer for pacer in self._pacers if not pacer.used_up_until_s]
        first = min(left, key=lambda pacer: pacer.rests_until_s, default=None)
        if first is None:
            return math.inf
        rest_s = max(0.0, first.rests_until_s - now_s)
        first.rests_until_s = -math.inf
        return first.told_s if rest_s and first.told_s > MOST_COOL_S else rest_s

    def refresh(self, unix_s: float) -> None:
        """Include models again whose daily quota has been renewed."""
        for pacer in self._pacers:
            if pacer.used_up_until_s <= unix_s:
                pacer.used_up_until_s = 0.0

    def wait_s(self, now_s: float, cost: Cost) -> float:
        """Return seconds until a request of ``cost`` may start; inf: not before a response."""
        return self._next(now_s, cost)[0] if cost_in("requests", cost) else 0.0

    def start(self, now_s: float, cost: Cost) -> None:
        """Count a request that starts."""
        if cost_in("requests", cost):
            pace = self._pacers[0] if self.has_one else self._next(now_s, cost)[1]
            pace.in_flight += 1
            pace.start(now_s, cost)
            start = Start(pace)
            self._open.append(start)
            self._starts.setdefault((now_s, id(cost)), deque()).append(start)

    def take(self) -> str:
        """Return the model of a request that has started."""
        while self._open:
            start = self._open.popleft()
            if start.is_open:
                start.is_open = False
                return start.pace.model.name
        return self.current.model.name

    def end(self, now_s: float, started_s: float, cost: Cost, actual: Cost) -> None:
        """Count the response to a request."""
        starts = self._starts.get((started_s, id(cost)))
        if starts is None:
            return
        start = starts.popleft()
        if not starts:
            del self._starts[started_s, id(cost)]
        if start.is_open:
            start.is_open = False
            self._open.remove(start)
        start.pace.in_flight -= 1
        start.pace.settle(now_s, started_s, cost, actual)

    def lift(self, now_s: float) -> bool:
        """Let all models be asked again at once; return whether one rested."""
        return sum(pacer.lift(now_s) for pacer in (*self._pacers, *self._others.values())) > 0

    def anew(self) -> GeminiPacer:
        """Return a new pacer of the same models, without what was learned."""
        return GeminiPacer(self._models, at_once=self._at_once)

    def _next(self, now_s: float, cost: Cost) -> tuple[float, ModelPacer]:
        """Return which model starts first, and in how many seconds; at the same time the first by priority."""
        if len(self._pacers) == 1:
            pace = self._pacers[0]
            return (math.inf if pace.in_flight >= pace.concurrency else pace.wait_s(now_s, cost)), pace
        found, found_s, first_s = self.current, math.inf, math.inf
        for pace in self._pacers:
            if pace.used_up_until_s and pace is not found:
                continue
            wait_s = math.inf if pace.in_flight >= pace.concurrency else pace.wait_s(now_s, cost)
            # Starts are a little apart while no quota is known: that alone is no reason to ask another model.
            rank_s = wait_s if pace.is_limited or wait_s > APART_S else 0.0
            if rank_s < first_s:
                found, found_s, first_s = pace, wait_s, rank_s
        return found_s, found
