"""Limiter: exact sliding windows as a pure state machine.

Rule: a permit is taken before a request starts and comes free ``per_s`` after
its *response*.  The request reaches the server somewhere between the two, so
whatever the jitter, the server never counts more than ``limit`` in any window:

    start        arrival at the server        response          response + per_s
      |------------------x----------------------|----------------------|
      permit taken                                              permit free again

Stamping at the start instead lets a slow request arrive late, beside requests
of the next window (measured: 105 where 100 were allowed; GCRA and leaky
buckets reach 199, they bound the average only).

One limiter belongs to one *resource*; sessions that name the same resource
share it, and the strictest of their limits hold.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ipybatch.engine.data.policy import Limits, Paced, Pacer, Rate
from ipybatch.engine.rules.rate_headers import Quota, Told

# Two clocks slewed by NTP may drift apart by 500 ppm, so a window is held that much longer.
CLOCK_DRIFT = 1.0005

SPREAD_S = 0.005
BURST = 200  # requests that are sent apart
LATE_S = 0.01  # what an event loop that has something to do may be late
TIMER_S = 0.002  # what an event loop can time well enough

MOST_COOL_S = 86_400.0  # a service's word is obeyed for a day; then it is asked again
NEWS_S = 1.0  # a cool-down that gets less longer is the same
LONG_COOL_S = 3600.0  # so long a cool-down is told with the way out, and what is left on record is cut to it

Cost = Mapping[str, float]
NO_COST: Cost = {}
NOTHING: Cost = {"requests": 0.0}
REFUSED: Cost = {"requests": 0.0}  # of a task that fails without being tried: it needs a slot, and no limit knows of it
Spent = tuple[float, str, float]  # time of the response, unit, cost


def held_s(rate: Rate) -> float:
    """Return how long after its response a request counts in a window, seconds."""
    return rate.per_s * CLOCK_DRIFT


def count_start(now_s: float, due_s: float) -> float:
    """Return when a start is taken to have been: one that its timer made a little late counts as punctual.

    Else every start adds its lateness: spacings of 10 ms came to 11, nine tenths of the rate (measured).
    """
    return due_s if 0.0 <= now_s - due_s < LATE_S else now_s


class Window(msgspec.Struct):
    """One sliding window of a resource."""

    rate: Rate
    in_flight: float = 0.0
    _spent: deque[tuple[float, float]] = msgspec.field(default_factory=deque)  # (free again at, cost), sorted
    _spent_sum: float = 0.0

    def under(self, rate: Rate) -> Window:
        """Return the same use under another limit."""
        return Window(rate, self.in_flight, deque(self._spent), self._spent_sum)

    def used(self, now_s: float) -> float:
        """Return how much of the limit is taken at ``now_s``."""
        spent = self._spent
        while spent and spent[0][0] <= now_s:
            self._spent_sum -= spent.popleft()[1]
        if not spent:
            self._spent_sum = 0.0
        return self.in_flight + self._spent_sum

    def wait_s(self, now_s: float, cost: float) -> float:
        """Return seconds until ``cost`` fits; inf if only a response can make room.

        What costs more than a limit that was lowered meanwhile starts when nothing else is in the window.
        """
        over = self.used(now_s) + cost - self.rate.limit
        if cost > self.rate.limit:
            over -= cost - self.rate.limit
        if over <= 1e-9:
            return 0.0
        for free_at_s, spent in self._spent:
            over -= spent
            if over <= 1e-9:
                return free_at_s - now_s
        return math.inf

    def refill(self, history: Iterable[Spent]) -> None:
        """Hold what was answered, and nothing else, beside what is in flight."""
        self._spent.clear()
        self._spent_sum = 0.0
        for responded_s, unit, cost in history:
            if unit == self.rate.unit:
                self.spend(responded_s, cost)

    def fill(self, now_s: float, used: float, reset_s: float) -> None:
        """Let at least ``used`` be taken: what the service counts beside ours, until it begins anew."""
        more = used - self.used(now_s)
        if more > 0.0:
            insort(self._spent, (now_s + min(reset_s, held_s(self.rate)), more))
            self._spent_sum += more

    def spent(self) -> list[tuple[float, float]]:
        """Return what was answered, as far as it counts: when, and the cost."""
        return [(free_at_s - held_s(self.rate), cost) for free_at_s, cost in self._spent]

    def spend(self, responded_s: float, cost: float) -> None:
        """Hold ``cost`` until ``per_s`` after the response; responses come in order of time."""
        self.used(responded_s)  # a window that nobody asks any more must not grow
        self._spent.append((responded_s + held_s(self.rate), cost))
        self._spent_sum += cost


class Counted(msgspec.Struct, frozen=True):
    """What the service counts of one of our windows.

    Attributes:
        used: At least so much of it is taken, also by others that we know nothing of.
        reset_s: Seconds until that is free again; inf: as long as the window is.
    """

    rate: Rate
    used: float
    reset_s: float = math.inf


class Permit(msgspec.Struct, frozen=True, gc=False):
    """Leave to send one request; give it back with `Limiter.respond`."""

    started_s: float
    cost: Cost


class Limiter:
    """Every limit of one resource, together.

    Attributes:
        windows: Of every rate that a session has had here.
        units: What they count.
    """

    def __init__(self) -> None:
        self.windows: dict[Rate, Window] = {}
        self.running = 0
        self.cool_until_s = -math.inf
        self.cool_downs = 0
        self._last_start_s = -math.inf
        self._cooled_at_s = -math.inf
        self._told_until_s = -math.inf  # as it was news last
        self._joined: dict[object, Limits] = {}
        self._declared: dict[object, Limits] = {}  # what they joined with
        self._most: dict[tuple[str, float], float] = {}  # of a unit, in such a window: the strictest that was declared
        self._concurrency: float = math.inf
        self._spacing_s = 0.0
        self._active: tuple[Window, ...] = ()
        self._pacers: tuple[Pacer, ...] = ()
        self._is_paced = False  # there is a window or a pacer
        self.units: tuple[str, ...] = ()
        self._in_flight: dict[int, Permit] = {}  # by id

    @property
    def parts(self) -> tuple[Limiter, ...]:
        """The limiters that are asked: itself."""
        return (self,)

    def join(self, member: object, limits: Limits, *, now_s: float = 0.0, spent: Iterable[Spent] = ()) -> None:
        """Add a session's limits; the strictest of all that joined hold.

        Args:
            spent: What earlier requests cost: a new window starts with it.
        """
        history = sorted(spent)
        for rate in limits.rates:
            if rate not in self.windows:
                window = self.windows[rate] = Window(rate)
                window.in_flight = sum(cost_in(window.rate.unit, permit.cost) for permit in self._in_flight.values())
                _fill(window, history, now_s)
        if limits.pacer is not None and member not in self._joined:
            for paced in limits.pacer.windows:
                _fill(paced, history, now_s)
        self._joined[member] = self._declared[member] = limits
        self._settle()

    def change(self, member: object, limits: Limits) -> None:
        """Put other limits in the place of a session's; a window goes on with what its requests used."""
        for rate in limits.rates:
            like = [window for known, window in self.windows.items() if _span(known) == _span(rate)]
            if like and rate not in self.windows:
                self.windows[rate] = like[-1].under(rate)
        declared = self._declared.get(member, limits)
        self.join(member, limits)
        self._declared[member] = declared
        self._settle()

    def leave(self, member: object) -> None:
        """Take a session's limits away; what its requests used stays counted."""
        self._joined.pop(member, None)
        self._declared.pop(member, None)
        self._settle()

    def wait_s(self, now_s: float, cost: Cost = NO_COST, *, slot: bool = True) -> float:
        """Return seconds until one request of ``cost`` may start; 0.0 means now, inf after a response at the earliest.

        Args:
            slot: Whether it takes a place among the ``concurrency``; further requests of one attempt do not.
        """
        if slot and self.running >= self._concurrency:
            return math.inf
        if cost is REFUSED:
            return 0.0
        is_request = cost is NO_COST or cost_in("requests", cost)  # else it asks for permits of its own
        free_s = self._last_start_s + self._spacing_s if is_request else -math.inf
        if self.cool_until_s > free_s:  # noqa: PLR1730  # max() costs a call for every item
            free_s = self.cool_until_s
        wait_s = free_s - now_s if free_s > now_s else 0.0
        if self._is_paced:
            for window in self._active:
                wait_s = max(wait_s, window.wait_s(now_s, cost_in(window.rate.unit, cost)))
            for pacer in self._pacers:
                wait_s = max(wait_s, pacer.wait_s(now_s, cost))
        return wait_s

    def start(self, now_s: float, cost: Cost, *, slot: bool = True) -> Permit | None:
        """Take a permit for a request that may start now; None when it may not, see `wait_s`."""
        if self._is_paced or self._spacing_s or now_s < self.cool_until_s or cost is not NO_COST:
            return self.acquire(now_s, cost, slot=slot) if self.wait_s(now_s, cost, slot=slot) == 0.0 else None
        if slot:
            if self.running >= self._concurrency:
                return None
            self.running += 1
        self._last_start_s = now_s
        permit = Permit(now_s, cost)
        self._in_flight[id(permit)] = permit
        return permit

    def acquire(self, now_s: float, cost: Cost = NO_COST, *, slot: bool = True) -> Permit:
        """Take a permit; `wait_s` must have said 0.0."""
        self.running += slot
        if cost == NOTHING:  # not in flight: thousands of such may wait
            return Permit(now_s, cost)
        if cost is NO_COST or cost_in("requests", cost):
            self._last_start_s = count_start(now_s, self._last_start_s + self._spacing_s) if self._spacing_s else now_s
        if self._is_paced:
            for window in self.windows.values():
                window.in_flight += cost_in(window.rate.unit, cost)
            for pacer in self._pacers:
                pacer.start(now_s, cost)
        permit = Permit(now_s, cost)
        self._in_flight[id(permit)] = permit
        return permit

    def respond(self, now_s: float, permit: Permit, actual: Cost = NO_COST, *, slot: bool = False) -> None:
        """Count the response to a permit's request: its place in the windows comes free ``per_s`` from now.

        Args:
            actual: What it really cost, by unit, where that is known only now.
            slot: Whether its place among the ``concurrency`` is given back as well.
        """
        self.running -= slot
        if self._in_flight.pop(id(permit), None) is None or not self._is_paced:
            return
        for window in self.windows.values():
            # With nothing in flight it is 0, not what the rounding of odd costs left.
            window.in_flight = window.in_flight - cost_in(window.rate.unit, permit.cost) if self._in_flight else 0.0
            window.spend(now_s, cost_in(window.rate.unit, {**permit.cost, **actual} if actual else permit.cost))
        for pacer in self._pacers:
            pacer.end(now_s, permit.started_s, permit.cost, actual)

    def free(self) -> None:
        """Give a place among the ``concurrency`` back."""
        self.running -= 1

    def give_back(self, permit: Permit, *, slot: bool) -> None:
        """Take a permit back for which nothing was sent."""
        self.running -= slot
        if self._in_flight.pop(id(permit), None) is not None:
            for window in self.windows.values():
                window.in_flight -= cost_in(window.rate.unit, permit.cost)

    def shown(self, rates: Iterable[Rate], now_s: float) -> list[tuple[float, float, float, str]]:
        """Return of each of these windows what is used, its limit, its length in seconds and its unit."""
        windows = (self.windows[rate] for rate in rates if rate in self.windows)
        return [(window.used(now_s), window.rate.limit, window.rate.per_s, window.rate.unit) for window in windows]

    def refuse(self, cost: Cost) -> str:
        """Say why a request of ``cost`` can never start; "" when it can."""
        for window in self._active:
            wanted = cost_in(window.rate.unit, cost)
            most = self._most.get(_span(window.rate), window.rate.limit)
            if not 0 <= wanted <= most:
                return f"cost must be >= 0 and <= {most:g} {window.rate.unit}, got {wanted:g}"
        return ""

    def cool_down(self, now_s: float, started_s: float, wait_s: float) -> bool:
        """Let nothing start for ``wait_s``, or for `MOST_COOL_S`; say whether that is news.

        Requests that were under way when the last cool-down began say nothing new: they only make it longer.
        """
        news = self._prolong(now_s, wait_s)
        if started_s >= self._cooled_at_s:
            self._cooled_at_s = now_s
            self.cool_downs += 1
        return news

    def flying(self, apart: Cost) -> Cost:
        """Return what may be in flight before the next report, by unit."""
        flying = dict(apart)
        for permit in self._in_flight.values():
            if permit.cost is NO_COST:
                flying["requests"] += 1.0
            else:
                for unit in {"requests", *permit.cost}:
                    flying[unit] = flying.get(unit, 0.0) + cost_in(unit, permit.cost)
        return flying

    def heed(self, now_s: float, told: Told) -> None:
        """Hold to what an answer says of the service's own count: never looser than the limits.

        What is used up holds everything until it begins anew. A smaller rest than ours fills the window that it is of:
        another tool, or another machine, has used it.
        """
        counted, hold_s = [], 0.0
        for quota in told.quotas:
            if quota.remaining is None:
                continue
            reset_s = math.inf if quota.reset_s is None else quota.reset_s
            if quota.remaining < 1.0 and reset_s < math.inf:
                hold_s = max(hold_s, reset_s)
            rate = self._rate_of(quota)
            if rate is not None and reset_s > 0.0:
                counted.append(Counted(rate, rate.limit - max(0.0, quota.remaining), reset_s))
        if counted:
            self._count(now_s, counted)
        if hold_s and now_s + hold_s > self.cool_until_s:
            self._hold(now_s, hold_s)

    def knows(self, quota: Quota) -> bool:
        """Say whether a window of the service is one of ours."""
        return self._rate_of(quota) is not None

    def _rate_of(self, quota: Quota) -> Rate | None:
        """Return the rate that is a window of the service: of its length, else of its limit, else the only one."""
        rates = [window.rate for window in self._active if window.rate.unit == "requests"]
        if quota.per_s is not None:
            same = [rate for rate in rates if math.isclose(rate.per_s, quota.per_s, rel_tol=0.01)]
        else:
            same = [rate for rate in rates if rate.limit == quota.limit] or (rates if len(rates) == 1 else [])
        return min(same, key=lambda rate: rate.limit, default=None)

    def _count(self, now_s: float, counted: Sequence[Counted]) -> None:
        for one in counted:
            self.windows[one.rate].fill(now_s, one.used, one.reset_s)

    def _hold(self, now_s: float, hold_s: float) -> None:
        self._prolong(now_s, hold_s)

    def _prolong(self, now_s: float, wait_s: float) -> bool:
        """Let nothing start for so long; say whether that is news: not what each of those in flight says once more."""
        until_s = now_s + min(wait_s, MOST_COOL_S)
        news = until_s > self.cool_until_s and (self.cool_until_s <= now_s or until_s > self._told_until_s + NEWS_S)
        self.cool_until_s = max(self.cool_until_s, until_s)
        if news:
            self._told_until_s = until_s
        return news

    def warm_up(self) -> None:
        """Forget how often it cooled down in a row: the service answered well."""
        self.cool_downs = 0

    def _settle(self) -> None:
        joined = self._joined.values()
        self._concurrency = min((limits.concurrency for limits in joined), default=math.inf)
        self._spacing_s = max((limits.spacing_s for limits in joined), default=0.0)
        wanted = {rate for limits in joined for rate in limits.rates}
        self._spacing_s = max([self._spacing_s, *map(_spread_s, wanted)])
        self._active = tuple(window for rate, window in self.windows.items() if rate in wanted)
        self._pacers = tuple(limits.pacer for limits in joined if limits.pacer is not None)
        self._is_paced = bool(self.windows or self._pacers)
        paced = [window.rate for pacer in self._pacers for window in pacer.windows]
        self.units = tuple({rate.unit: None for rate in (*self.windows, *paced)})
        self._most = {}
        for rate in (rate for limits in self._declared.values() for rate in limits.rates):
            self._most[_span(rate)] = min(rate.limit, self._most.get(_span(rate), math.inf))


def _fill(window: Window | Paced, history: Iterable[Spent], now_s: float) -> None:
    """Let a window start with what was spent before."""
    for responded_s, unit, cost in history:
        if unit == window.rate.unit and responded_s + held_s(window.rate) > now_s:
            window.spend(responded_s, cost)


def _span(rate: Rate) -> tuple[str, float]:
    return rate.unit, rate.per_s


def _spread_s(rate: Rate) -> float:
    """Return how far apart the starts of a burst are held, seconds.

    Forty requests at once only queue in our own process, and what queues counts as latency: it holds every permit of
    the window longer.  A few milliseconds between starts, a tenth of the window in all, let the first be answered
    while the last are sent (measured at 40 per 2 s: mean latency 56 ms, where the burst had 204).  What is allowed by
    the thousand an hour comes in no burst that matters, and must not slow what is allowed a second.
    """
    if rate.limit > BURST:
        return 0.0
    share_s = rate.per_s / rate.limit / 10
    return 0.0 if rate.unit != "requests" or share_s < TIMER_S else min(share_s, SPREAD_S)


def cost_in(unit: str, cost: Cost) -> float:
    """Return what a cost is in a unit: one request, and nothing else, unless it says so."""
    return cost.get(unit, 1.0 if unit == "requests" else 0.0)


def cut_words(asked_s: float) -> str:
    """Return what the service asked for, and what it gets, where that is less; "" where it is the same."""
    if asked_s <= MOST_COOL_S:
        return ""
    long = f"{asked_s / 3600:,.0f} h" if asked_s < 10 * MOST_COOL_S else f"{asked_s / 86_400:,.0f} d"
    return f" (asked for {long if asked_s < 1e9 else 'ever'}: asked again in {MOST_COOL_S / 3600:.0f} h)"
