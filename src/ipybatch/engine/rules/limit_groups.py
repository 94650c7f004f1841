"""Limit groups: limits of their own for some of the items, beside those that hold for all.

    item --per--> group "eu" -- its own limits --+
                  group "us" -- its own limits --+-- the common limits --> start

A group that must wait delays no other; among those that need not wait, the
task that is first in the order starts.  Each group has a breaker of its own:
what is down in one region says nothing of another.  An item that ``per=`` names
no group for is in none, and fails alone without taking anything.

An item may be in several groups at once, of a user and of an app: a start needs
all of them, and waits while the breaker of any is open; what became of it is told
to all.  Items of the same groups wait in one queue, a `LimitGroup` with parts:

    "user 7" ----+-- queue "app and user 7" --> start
    "app"    --+-+
    "user 8" --+---- queue "app and user 8" --> start

What an item that is first in the order waits for alone is kept for it: those that
come later and take less cannot starve it.

One subject, hence its length: what an item's groups allow, hold back and are called.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from numbers import Integral
from typing import Any

import msgspec

from ipybatch.engine.data.masking import describe, is_encodable, mask
from ipybatch.engine.data.outcome import decode
from ipybatch.engine.data.plan import BY_ORDER, Task, canonical, label_of, short
from ipybatch.engine.data.policy import Breaker as BreakerPolicy
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.rules.breaker import CircuitBreaker
from ipybatch.engine.rules.limiter import NO_COST, Cost, Limiter, Permit
from ipybatch.engine.rules.rate_headers import Quota, Told
from ipybatch.errors import InputError

TOGETHER = "\x1f"  # between the names of several groups: JSON writes it otherwise


class GroupLimiter:
    """A limit group's limiter and the common one, asked as one."""

    def __init__(self, common: Limiter | JointLimiter, own: Limiter | JointLimiter) -> None:
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

    def give_back(self, permit: Permit, *, slot: bool) -> None:
        """Take the permit of both back for which nothing was sent."""
        self.common.give_back(permit, slot=slot)
        own = self._owns.pop(id(permit), None)
        if own is not None:
            self.own.give_back(own, slot=slot)

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


class JointLimiter(GroupLimiter):
    """The limiters of two limit groups that an item is in, asked as one; of more than two, one within the other."""

    @property
    def parts(self) -> tuple[Limiter, ...]:
        """The limiters that are asked."""
        return (*self.common.parts, *self.own.parts)

    @property
    def cool_downs(self) -> int:
        """How often one of them cooled down in a row."""
        return max(part.cool_downs for part in self.parts)

    def cool_down(self, now_s: float, started_s: float, wait_s: float) -> bool:
        """Cool all of them down: the service does not say which of them is meant."""
        news = [part.cool_down(now_s, started_s, wait_s) for part in self.parts]
        return any(news)

    def knows(self, quota: Quota) -> bool:
        """Say whether a window of the service is one of theirs."""
        return any(part.knows(quota) for part in self.parts)

    def heed(self, now_s: float, told: Told) -> None:
        """Hold to what an answer says of the service's own count: where its window is known, else in all of them."""
        for quota in told.quotas:
            known = [part for part in self.parts if part.knows(quota)]
            for part in known or self.parts:
                part.heed(now_s, Told(quotas=(quota,)))

    def warm_up(self) -> None:
        """Forget how often they cooled down in a row."""
        for part in self.parts:
            part.warm_up()


class JointBreaker:
    """The breakers of the limit groups that an item is in, asked as one: it waits while any of them does.

    Attributes:
        parts: By the name of their group.
    """

    def __init__(self, parts: Mapping[str, CircuitBreaker]) -> None:
        self.parts = parts

    def __getattr__(self, name: str) -> Any:
        """Return what the worst of them has: its state, its failures and openings, what it holds to."""
        return getattr(max(self.parts.values(), key=_badness), name)

    @property
    def gave_up(self) -> bool:
        """Whether one of the services has failed so often that its items must stop."""
        return any(breaker.gave_up for breaker in self.parts.values())

    @property
    def failures(self) -> int:
        """Failures in a row of the one that has most."""
        return max(breaker.failures for breaker in self.parts.values())

    @property
    def openings(self) -> int:
        """Openings in a row of the one that has most."""
        return max(breaker.openings for breaker in self.parts.values())

    @property
    def epoch(self) -> tuple[int, ...]:
        """Those of all of them."""
        return tuple(breaker.epoch for breaker in self.parts.values())

    def wait_s(self, now_s: float) -> float:
        """Return seconds until all of them let an attempt start."""
        return max(breaker.wait_s(now_s) for breaker in self.parts.values())

    def start(self, now_s: float) -> tuple[int, ...]:
        """Admit one attempt: the probe of all that are not closed."""
        return tuple(breaker.start(now_s) for breaker in self.parts.values())

    def succeed(self, now_s: float, epoch: tuple[int, ...]) -> None:
        """Tell all of them of an attempt that the service answered well."""
        for breaker, own in zip(self.parts.values(), epoch, strict=True):
            breaker.succeed(now_s, own)

    def fail(self, now_s: float, epoch: tuple[int, ...], *item: Any) -> None:
        """Tell all of them of an attempt that failed transiently."""
        for breaker, own in zip(self.parts.values(), epoch, strict=True):
            breaker.fail(now_s, own, *item)

    def release(self, epoch: tuple[int, ...]) -> None:
        """Tell all of them of an attempt that proves nothing."""
        for breaker, own in zip(self.parts.values(), epoch, strict=True):
            breaker.release(own)


def _badness(breaker: CircuitBreaker) -> tuple[int, int, int]:
    return _WORSE.index(breaker.state), breaker.openings, breaker.failures


_WORSE = ("closed", "half_open", "open")


def named_breakers(name: str, breaker: CircuitBreaker) -> list[tuple[str, CircuitBreaker]]:
    """Return the breaker of a limit group with its name; of several groups, each with its own."""
    return list(breaker.parts.items()) if isinstance(breaker, JointBreaker) else [(name, breaker)]


class LimitGroup(msgspec.Struct, eq=False):
    """The tasks of one limit group that wait, in order; or those of the same several groups.

    Attributes:
        name: See `group_name`; "" for the tasks that are in none; of several, all their names.
        breaker: Its own; None for none.
        gave_up: Whether its breaker gave up: none of its tasks starts any more.
        priced: What its first task costs, and why it is refused, once that was asked for.
        parts: The several groups; () for one.
    """

    name: str
    limiter: GroupLimiter
    tasks: deque[Task] = msgspec.field(default_factory=deque)
    breaker: CircuitBreaker | None = None
    gave_up: bool = False
    priced: tuple[Task, Cost, str] | None = None
    parts: tuple[LimitGroup, ...] = ()
    _later: Task | None = None  # was put first

    def put_later_first(self) -> None:
        """Let the last item that was not tried go next: those that are due may all be of a kind that fails."""
        tasks = self.tasks
        if not tasks or tasks[0] is self._later:
            return
        later = next((task for task in reversed(tasks) if not task.attempts), None)
        if later is not None and later is not tasks[0]:
            tasks.remove(later)
            tasks.appendleft(later)
            self._later = later

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

    @property
    def gone(self) -> list[LimitGroup]:
        """Which limit groups gave up: itself, or some of its parts."""
        return [part for part in self.parts or (self,) if part.gave_up]


def group_label(name: str) -> str:
    """Return a limit group's name as people read it; of several, all of them."""
    return mask(" and ".join([" ".join(map(label_of, _words(one))) for one in name.split(TOGETHER)]))


def _words(name: str) -> list[str]:
    return [canonical(word) for word in decode(name)] if name.startswith("[") else [name]


def group_name(value: Any) -> str:
    """Return what a limit group is known by: canonical JSON, so that 1 and "1" are two.

    Raises:
        InputError: ``per=`` returned no name.
    """
    if _is_word(value):
        return canonical(_plain(value))
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and all(map(_is_word, value)):
        return canonical([_plain(word) for word in value])
    msg = (
        "per= must return the name of a limit group, a text or a whole number, or a list of such names and of"
        f' ("kind", name) pairs, got {short(value)}'
    )
    raise InputError(msg)


def group_names(value: Any) -> str:
    """Return what the limit groups of an item are known by together: those that ``per=`` returned.

    Raises:
        InputError: It returned no name.
    """
    if isinstance(value, list | tuple) and value:
        return TOGETHER.join(sorted({group_name(one) for one in value}))
    return group_name(value)


def _is_word(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip()) and is_encodable(value)
    return isinstance(value, Integral) and not isinstance(value, bool)


def _plain(word: Any) -> str | int:
    return str.__str__(word) if isinstance(word, str) else int(word)


def each_of(each: Limits | Mapping[Any, Limits], name: str) -> Limits:
    """Return the limits of one limit group: those of its name, else those of its kind.

    Raises:
        InputError: There are none.
    """
    if isinstance(each, Limits):
        return each
    known = {group_name(key): limits for key, limits in each.items()}
    kind = _words(name)[0]
    found = known.get(name) or known.get(kind)
    if found is None:
        names = ", ".join(map(group_label, known))
        hint = "" if name.startswith("[") else f'; [("kind", {label_of(name)!r})] is one group of a kind'
        msg = f"Limits(each=) must have limits for limit group {group_label(name)}, got those of {names}{hint}"
        raise InputError(msg)
    return found


class LimitGroups(msgspec.Struct):
    """Every limit group that a task has been in so far.

    Attributes:
        per: Which limit group an item is in, or which several: the user's function.
        open: Make a limit group of that name; raises InputError where it has no limits.
        policy: Of the breaker that each has for itself; None for none.
        nameless: The tasks that ``per`` names no group for, and why; they fail as soon as they are started.
        held_back: Limiters of those where a request of an attempt under way waits: it goes before what has not started.
        count: How many tasks wait.
        is_joint: Whether some are of several groups.
    """

    per: Callable[[Any], Any]
    open: Callable[[str], LimitGroup]
    nameless: LimitGroup
    policy: BreakerPolicy | None = None
    refused: dict[int, str] = msgspec.field(default_factory=dict)  # by seq
    held_back: AbstractSet[Limiter] = frozenset()
    by_name: dict[str, LimitGroup] = msgspec.field(default_factory=dict)
    count: int = 0
    is_joint: bool = False

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
        return self.by_name.get(task.limit_group) or self._opened(task.limit_group)

    def _name(self, task: Task) -> str:
        """Give a task the name of its limit group; say why it has none."""
        try:
            value = self.per(task.item)
        except BaseException as error:  # the user's function; it fails this item alone
            return f"per= raised {describe(error)}"
        try:
            name = group_names(value)
            if name not in self.by_name:
                self._opened(name)
        except InputError as error:
            return str(error)
        task.limit_group = name
        return ""

    def _opened(self, name: str) -> LimitGroup:
        """Return the limit group of a name, or of several names together."""
        limit_group = self.by_name.get(name)
        if limit_group is None:
            limit_group = self.by_name[name] = self._join(name) if TOGETHER in name else self.open(name)
            if self.policy is not None and limit_group.breaker is None:
                limit_group.breaker = CircuitBreaker(self.policy)
        return limit_group

    def _join(self, name: str) -> LimitGroup:
        parts = tuple(self._opened(one) for one in name.split(TOGETHER))
        own = functools.reduce(JointLimiter, [part.limiter.own for part in parts])
        breaker: Any = None  # asked and told as one
        if self.policy is not None:
            breaker = JointBreaker({part.name: part.breaker for part in parts if part.breaker is not None})
        self.is_joint = True
        limiter = GroupLimiter(parts[0].limiter.common, own)
        gave_up = any(part.gave_up for part in parts)
        return LimitGroup(name, limiter, breaker=breaker, gave_up=gave_up, parts=parts)

    def give_up(self, limit_group: LimitGroup) -> list[LimitGroup]:
        """Let a limit group give up; return all whose tasks start no more with that.

        Of several together it is the one that failed most; of those that failed alike, the one that most are in: what
        is down for one user's items of an app need not be down for all that the user has.
        """
        guilty = max(limit_group.parts or (limit_group,), key=self._guilt)
        guilty.gave_up = True
        gone = [guilty] + [one for one in self.by_name.values() if guilty in one.parts and not one.gave_up]
        for one in gone:
            one.gave_up = True
        return gone

    def _guilt(self, limit_group: LimitGroup) -> tuple[int, int]:
        openings = 0 if limit_group.breaker is None else limit_group.breaker.openings
        return openings, sum(limit_group in one.parts for one in self.by_name.values())

    def groups(self) -> list[LimitGroup]:
        """Return the limit groups themselves, without those of several."""
        return [limit_group for limit_group in self.by_name.values() if not limit_group.parts]

    def choose(self, now_s: float, cost: Callable[[LimitGroup], Cost]) -> tuple[LimitGroup | None, float, str]:
        """Return the limit group whose first task is to start now; None, the seconds until there may be one, and why.

        The breakers and each group's own limits are asked; the common limits are not.
        """
        if self.nameless.tasks:
            return self.nameless, 0.0, ""
        if self.is_joint:
            return self._choose_joint(now_s, cost)
        best: LimitGroup | None = None
        soonest_s, why = math.inf, "slot"
        for limit_group in self.by_name.values():
            if not limit_group.tasks or (self.held_back and limit_group.limiter.own in self.held_back):
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

    def _choose_joint(self, now_s: float, cost: Callable[[LimitGroup], Cost]) -> tuple[LimitGroup | None, float, str]:
        """Choose among limit groups that have parts: in order, keeping for each what it alone waits for."""
        soonest_s, why, kept = math.inf, "slot", set(self.held_back)
        waiting = [limit_group for limit_group in self.by_name.values() if limit_group.tasks]
        for limit_group in sorted(waiting, key=lambda one: one.tasks[0].order):
            own, breaker = limit_group.limiter.own, limit_group.breaker
            if not kept.isdisjoint(own.parts):
                continue
            if breaker is not None and breaker.state != "closed" and (wait_s := breaker.wait_s(now_s)) > 0:
                if wait_s < soonest_s or why == "slot":
                    soonest_s, why = min(soonest_s, wait_s), "probe" if wait_s == math.inf else "breaker"
                continue
            priced = cost(limit_group)
            wait_s = own.wait_s(now_s, priced)
            if wait_s == 0.0:
                return limit_group, soonest_s, why
            if wait_s < soonest_s:
                soonest_s, why = wait_s, "limit"
            short = [part for part in own.parts if part.wait_s(now_s, priced) > 0.0]
            if len(short) == 1:
                kept.add(short[0])
        return None, soonest_s, why

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
