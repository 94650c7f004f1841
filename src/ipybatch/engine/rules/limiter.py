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
share it, and the strictest of their limits hold.  Limit groups are items with
limits of their own beside the common ones:

    item --per--> group "eu" -- its own limits --+
                  group "us" -- its own limits --+-- the common limits --> start

A group that must wait delays no other; among those that need not wait, the
task that is first in the order starts.  Each group has a breaker of its own:
what is down in one region says nothing of another.  An item that ``per=`` names
no group for is in none, and fails alone without taking anything.

One subject, hence its length: all limits of a resource, those of its groups too.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from numbers import Integral
from typing import Any

import msgspec

from ipybatch.engine.data.masking import describe, is_encodable, mask
from ipybatch.engine.data.plan import BY_ORDER, Task, canonical, label_of, short
from ipybatch.engine.data.policy import Breaker as BreakerPolicy
from ipybatch.engine.data.policy import Limits, Paced, Pacer, Rate
from ipybatch.engine.rules.breaker import CircuitBreaker
from ipybatch.errors import InputError

# Two clocks slewed by NTP may drift apart by 500 ppm, so a window is held that much longer.
CLOCK_DRIFT = 1.0005

SPREAD_S = 0.005
BURST = 200  # requests that are sent apart
LATE_S = 0.01  # what an event loop that has something to do may be late
TIMER_S = 0.002  # what an event loop can time well enough

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

    def spent(self) -> list[tuple[float, float]]:
        """Return what was answered, as far as it counts: when, and the cost."""
        return [(free_at_s - held_s(self.rate), cost) for free_at_s, cost in self._spent]

    def spend(self, responded_s: float, cost: float) -> None:
        """Hold ``cost`` until ``per_s`` after the response; responses come in order of time."""
        self.used(responded_s)  # a window that nobody asks any more must not grow
        self._spent.append((responded_s + held_s(self.rate), cost))
        self._spent_sum += cost


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
        free_s = self._last_start_s + self._spacing_s
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
        if cost is REFUSED:
            return Permit(now_s, cost)
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
        """Let nothing start for ``wait_s``; say whether that is news.

        Requests that were under way when the last cool-down began say nothing new: they only make it longer.
        """
        until_s = now_s + wait_s
        news = until_s > self.cool_until_s
        self.cool_until_s = max(self.cool_until_s, until_s)
        if started_s >= self._cooled_at_s:
            self._cooled_at_s = now_s
            self.cool_downs += 1
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


class GroupLimiter:
    """A limit group's limiter and the common one, asked as one."""

    def __init__(self, common: Limiter, own: Limiter) -> None:
        self.common, self.own = common, own
        self._owns: dict[int, Permit] = {}  # by id of the common permit

    @property
    def units(self) -> tuple[str, ...]:
        """What the windows of either count."""
        return tuple({**dict.fromkeys(self.common.units), **dict.fromkeys(self.own.units)})

    @property
    def cool_until_s(self) -> float:
        """When neither cools down any more."""
        return max(self.common.cool_until_s, self.own.cool_until_s)

    @property
    def cool_downs(self) -> int:
        """How often the limit group cooled down in a row."""
        return self.own.cool_downs

    def wait_s(self, now_s: float, cost: Cost = NO_COST, *, slot: bool = True) -> float:
        """Return seconds until both allow a start."""
        return max(self.common.wait_s(now_s, cost, slot=slot), self.own.wait_s(now_s, cost, slot=slot))

    def start(self, now_s: float, cost: Cost, *, slot: bool = True) -> Permit | None:
        """Take a permit of both for a request that may start now; None when it may not."""
        if self.wait_s(now_s, cost, slot=slot) > 0.0:
            return None
        permit = self.common.start(now_s, cost, slot=slot)
        if permit is None:
            return None
        own = self.own.start(now_s, cost, slot=slot)
        if own is None:  # another process was quicker
            self.common.give_back(permit, slot=slot)
            return None
        self._owns[id(permit)] = own
        return permit

    def respond(self, now_s: float, permit: Permit, actual: Cost = NO_COST, *, slot: bool = False) -> None:
        """Count the response in the windows of both."""
        self.common.respond(now_s, permit, actual, slot=slot)
        own = self._owns.pop(id(permit), None)
        if own is not None:
            self.own.respond(now_s, own, actual, slot=slot)
        elif slot:
            self.own.free()

    def free(self) -> None:
        """Give both places back."""
        self.common.free()
        self.own.free()

    def refuse(self, cost: Cost) -> str:
        """Say why a request can never start; "" when it can."""
        return self.common.refuse(cost) or self.own.refuse(cost)

    def cool_down(self, now_s: float, started_s: float, wait_s: float) -> bool:
        """Cool the limit group down, and no other: the service rations each by itself."""
        return self.own.cool_down(now_s, started_s, wait_s)

    def warm_up(self) -> None:
        """Forget how often the limit group cooled down in a row."""
        self.own.warm_up()


class LimitGroup(msgspec.Struct, eq=False):
    """The tasks of one limit group that wait, in order.

    Attributes:
        name: See `group_name`; "" for the tasks that are in none.
        breaker: Its own; None for none.
        gave_up: Whether its breaker gave up: none of its tasks starts any more.
        priced: What its first task costs, and why it is refused, once that was asked for.
    """

    name: str
    limiter: GroupLimiter
    tasks: deque[Task] = msgspec.field(default_factory=deque)
    breaker: CircuitBreaker | None = None
    gave_up: bool = False
    priced: tuple[Task, Cost, str] | None = None

    def insert(self, task: Task) -> None:
        """Let a task wait where its order says; behind what is tried again."""
        waiting = list(self.tasks)
        tried = next((at for at, one in enumerate(waiting) if not one.attempts), len(waiting))
        self.tasks.insert(bisect_right(waiting, task.order, lo=tried, key=BY_ORDER), task)

    @property
    def label(self) -> str:
        """The name as people read it."""
        return group_label(self.name)

    @property
    def is_failing(self) -> bool:
        """Whether its service failed, and has not succeeded since."""
        return self.breaker is not None and self.breaker.failures > 0


def group_label(name: str) -> str:
    """Return a limit group's name as people read it."""
    return mask(label_of(name))


def group_name(value: Any) -> str:
    """Return what a limit group is known by: canonical JSON, so that 1 and "1" are two.

    Raises:
        InputError: ``per=`` returned no name.
    """
    if isinstance(value, str) and value.strip() and is_encodable(value):
        return canonical(str.__str__(value))
    if isinstance(value, Integral) and not isinstance(value, bool):
        return canonical(int(value))
    msg = f"per= must return the name of a limit group, a text or a whole number, got {short(value)}"
    raise InputError(msg)


class LimitGroups(msgspec.Struct):
    """Every limit group that a task has been in so far.

    Attributes:
        per: Which limit group an item is in: the user's function.
        open: Make a limit group of that name.
        policy: Of the breaker that each has for itself; None for none.
        nameless: The tasks that ``per`` names no group for, and why; they fail as soon as they are started.
        held_back: Names of those where a request of an attempt under way waits: it goes before what has not started.
        count: How many tasks wait.
    """

    per: Callable[[Any], Any]
    open: Callable[[str], LimitGroup]
    nameless: LimitGroup
    policy: BreakerPolicy | None = None
    refused: dict[int, str] = msgspec.field(default_factory=dict)  # by seq
    held_back: AbstractSet[str] = frozenset()
    by_name: dict[str, LimitGroup] = msgspec.field(default_factory=dict)
    count: int = 0

    def put(self, limit_group: LimitGroup, task: Task, *, first: bool = False) -> None:
        """Let a task wait in its limit group, behind the others or before them."""
        limit_group.tasks.appendleft(task) if first else limit_group.tasks.append(task)
        self.count += 1

    def insert(self, limit_group: LimitGroup, task: Task) -> None:
        """Let a task wait in its limit group where its order says."""
        limit_group.insert(task)
        self.count += 1

    def take_out(self, tasks: set[int]) -> list[Task]:
        """Return the tasks with these seqs that wait for their first start, and let them wait no more."""
        out: list[Task] = []
        for limit_group in self.all():
            found = [task for task in limit_group.tasks if task.seq in tasks and not task.attempts]
            if found:
                gone = {task.seq for task in found}
                limit_group.tasks = deque([task for task in limit_group.tasks if task.seq not in gone])
                out += found
        self.count -= len(out)
        return out

    def of(self, task: Task) -> LimitGroup:
        """Return a task's limit group; the user's function is asked once a task."""
        if not task.limit_group:
            why = task.refused or self._name(task)
            if why:
                self.refused[task.seq] = why
                return self.nameless
        limit_group = self.by_name.get(task.limit_group)
        if limit_group is None:
            limit_group = self.by_name[task.limit_group] = self.open(task.limit_group)
            limit_group.breaker = None if self.policy is None else CircuitBreaker(self.policy)
        return limit_group

    def _name(self, task: Task) -> str:
        """Give a task the name of its limit group; say why it has none."""
        try:
            value = self.per(task.item)
        except BaseException as error:  # the user's function; it fails this item alone
            return f"per= raised {describe(error)}"
        try:
            task.limit_group = group_name(value)
        except InputError as error:
            return str(error)
        return ""

    def choose(self, now_s: float, cost: Callable[[LimitGroup], Cost]) -> tuple[LimitGroup | None, float, str]:
        """Return the limit group whose first task is to start now; None, the seconds until there may be one, and why.

        The breakers and each group's own limits are asked; the common limits are not.
        """
        if self.nameless.tasks:
            return self.nameless, 0.0, ""
        best: LimitGroup | None = None
        soonest_s, why = math.inf, "slot"
        for limit_group in self.by_name.values():
            if not limit_group.tasks or limit_group.name in self.held_back:
                continue
            breaker = limit_group.breaker
            if breaker is not None and breaker.state != "closed" and (wait_s := breaker.wait_s(now_s)) > 0:
                if wait_s < soonest_s or why == "slot":
                    soonest_s, why = min(soonest_s, wait_s), "probe" if wait_s == math.inf else "breaker"
                continue
            wait_s = limit_group.limiter.own.wait_s(now_s, cost(limit_group))
            if wait_s > 0:
                if wait_s < soonest_s:
                    soonest_s, why = wait_s, "limit"
            elif best is None or limit_group.tasks[0].order < best.tasks[0].order:
                best = limit_group
        return best, soonest_s, why

    def take(self, limit_group: LimitGroup) -> Task:
        """Return the limit group's first task, which starts."""
        self.count -= 1
        return limit_group.tasks.popleft()

    def all(self) -> list[LimitGroup]:
        """Return the limit groups, with that of the tasks which are in none."""
        return [self.nameless, *self.by_name.values()]

    def left(self) -> list[Task]:
        """Return all tasks that wait, in order."""
        return sorted((task for limit_group in self.all() for task in limit_group.tasks), key=BY_ORDER)

    def clear(self) -> list[Task]:
        """Take all tasks out, in order."""
        left = self.left()
        for limit_group in self.all():
            limit_group.tasks.clear()
        self.count = 0
        return left
