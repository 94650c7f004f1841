"""LimitGroups: items that have limits of their own, beside those that all items share.

    item --per--> group "eu" -- its own limits --+
                  group "us" -- its own limits --+-- the common limits --> start

Rule: a group that must wait delays no other; among those that need not wait,
the task that is first in the order starts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import msgspec

from ipybatch.engine.data.plan import Task
from ipybatch.engine.rules.limiter import NO_COST, Cost, Limiter, Permit


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

    def acquire(self, now_s: float, cost: Cost = NO_COST, *, slot: bool = True) -> Permit:
        """Take a permit of both."""
        permit = self.common.acquire(now_s, cost, slot=slot)
        self._owns[id(permit)] = self.own.acquire(now_s, cost, slot=slot)
        return permit

    def respond(self, now_s: float, permit: Permit, actual: Cost = NO_COST) -> None:
        """Count the response in the windows of both."""
        self.common.respond(now_s, permit, actual)
        own = self._owns.pop(id(permit), None)
        if own is not None:
            self.own.respond(now_s, own, actual)

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
    """The tasks of one limit group that wait, in order."""

    name: str
    limiter: GroupLimiter
    tasks: deque[Task] = msgspec.field(default_factory=deque)


class LimitGroups(msgspec.Struct):
    """Every limit group that a task has been in so far.

    Attributes:
        per: Which limit group a task is in.
        open: Make a limit group of that name.
    """

    per: Callable[[Task], str]
    open: Callable[[str], LimitGroup]
    by_name: dict[str, LimitGroup] = msgspec.field(default_factory=dict)
    count: int = 0

    def put(self, task: Task, *, first: bool = False) -> None:
        """Let a task wait in its limit group, behind the others or before them."""
        limit_group = self.of(task)
        limit_group.tasks.appendleft(task) if first else limit_group.tasks.append(task)
        self.count += 1

    def of(self, task: Task) -> LimitGroup:
        """Return a task's limit group."""
        name = self.per(task)
        limit_group = self.by_name.get(name)
        if limit_group is None:
            limit_group = self.by_name[name] = self.open(name)
        return limit_group

    def choose(self, now_s: float, cost: Callable[[Task], Cost]) -> tuple[LimitGroup | None, float]:
        """Return the limit group whose first task is to start now; None, and the seconds until there may be one."""
        best: LimitGroup | None = None
        soonest_s = math.inf
        for limit_group in self.by_name.values():
            if not limit_group.tasks:
                continue
            wait_s = limit_group.limiter.own.wait_s(now_s, cost(limit_group.tasks[0]))
            if wait_s > 0:
                soonest_s = min(soonest_s, wait_s)
            elif best is None or limit_group.tasks[0].order < best.tasks[0].order:
                best = limit_group
        return best, soonest_s

    def take(self, limit_group: LimitGroup) -> Task:
        """Return the limit group's first task, which starts."""
        self.count -= 1
        return limit_group.tasks.popleft()

    def left(self) -> list[Task]:
        """Return all tasks that wait, in order."""
        return sorted(
            (task for limit_group in self.by_name.values() for task in limit_group.tasks), key=lambda task: task.order
        )

    def clear(self) -> list[Task]:
        """Take all tasks out, in order."""
        left = self.left()
        for limit_group in self.by_name.values():
            limit_group.tasks.clear()
        self.count = 0
        return left
