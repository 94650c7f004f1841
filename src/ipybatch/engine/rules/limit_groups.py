"""Limit groups: limits of their own for some of the items, beside those that hold for all.

    item --per--> group "eu" -- its own limits --+
                  group "us" -- its own limits --+-- the common limits --> start

A group that must wait delays no other; among those that need not wait, the
task that is first in the order starts.  Each group has a breaker of its own:
what is down in one region says nothing of another.  An item that ``per=`` names
no group for is in none, and fails alone without taking anything.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from numbers import Integral
from typing import Any

import msgspec

from ipybatch.engine.data.masking import describe, is_encodable, mask
from ipybatch.engine.data.plan import BY_ORDER, Task, canonical, label_of, short
from ipybatch.engine.data.policy import Breaker as BreakerPolicy
from ipybatch.engine.rules.breaker import CircuitBreaker
from ipybatch.engine.rules.limiter import NO_COST, Cost, Limiter, Permit
from ipybatch.engine.rules.rate_headers import Told
from ipybatch.errors import InputError


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

    def heed(self, now_s: float, told: Told) -> None:
        """Hold to what an answer says of the service's own count: where its window is known, else in the group."""
        common = [quota for quota in told.quotas if self.common.knows(quota) and not self.own.knows(quota)]
        if common:
            self.common.heed(now_s, Told(quotas=tuple(common)))
            told = Told(quotas=tuple(quota for quota in told.quotas if quota not in common))
        self.own.heed(now_s, told)

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
