"""Scheduler: which attempt starts next, and when, as a pure state machine.

Rule: every reason why an item waits lives behind `next`: batches, retries,
breaker, limiter, pause.  No clock, no I/O: the runner and `estimate()` drive
the same object.

    source --draw--> batch --next--> attempt --> settle      (has an outcome)
                       ^                |
                       +--- waiting <---+ retry              (ready again at)

A batch ends when all its items have settled, retries included; then comes the
pause, then the next batch.

One subject, hence its length: the order of all that waits, whatever it waits for.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import attrgetter
from typing import Any, Literal

import msgspec

from ipybatch.engine.data.masking import describe
from ipybatch.engine.data.plan import PRIORITIES, Task
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.rules.breaker import CircuitBreaker
from ipybatch.engine.rules.limit_groups import GroupLimiter, LimitGroup, LimitGroups
from ipybatch.engine.rules.limiter import NO_COST, REFUSED, Cost, Limiter, Permit
from ipybatch.engine.rules.line import FEW, Line, in_order
from ipybatch.engine.rules.opening import Opening
from ipybatch.errors import InputError

Source = Literal["fresh", "waiting"]
AnyLimiter = Limiter | GroupLimiter
Priced = tuple[Task, Cost, str]  # what it costs, and why it is refused


class Ticket(msgspec.Struct):
    """Leave to run one attempt.

    Attributes:
        epoch: Of the breaker.
        further: Costs of the requests it sent, or is about to, after its first.
        limiter: Whose permits its requests take.
        limit_group: Name of the limit group that it is in; "" for none.
        breaker: The one that its end is told; None for none.
        refused: Why it fails without being tried; "" for none.
        handed: The `Attempt` that the work was handed, if it wants one.
        label: The item's key as people read it.
        waited_s: How long its clock stood, seconds.
        gave_up: Whether the work stopped waiting for a permit by itself, by a timeout of its own.
        is_asked: Whether it is the one item that may start, to tell whether any can succeed.
        is_probing: Whether the work's probe runs in place of its item.
        open: Permits of further requests that have not been given back.
    """

    task: Task
    permit: Permit
    epoch: int
    limiter: AnyLimiter
    limit_group: str = ""
    breaker: CircuitBreaker | None = None
    refused: str = ""
    further: tuple[Cost, ...] = ()
    handed: Any = None
    label: str = ""
    waited_s: float = 0.0
    gave_up: bool = False
    is_asked: bool = False
    is_probing: bool = False
    open: tuple[Permit, ...] = ()
    _waits: int = 0
    _in_flight: int = 0
    _stood_since_s: float | None = None

    @property
    def is_probe(self) -> bool:
        """Whether its breaker waits for how it ends."""
        breaker = self.breaker
        return breaker is not None and breaker.state == "half_open" and self.epoch == breaker.epoch

    def count(self, now_s: float, *, waits: int = 0, in_flight: int = 0) -> None:
        """Count requests that wait for our own limits, or that were sent.

        The attempt's clock stands while some wait and none is on its way: our limits are no fault of the service.
        """
        if self._stood_since_s is not None:
            self.waited_s += now_s - self._stood_since_s
        self._waits += waits
        self._in_flight += in_flight
        self._stood_since_s = now_s if self._waits and not self._in_flight else None

    def ran_s(self, now_s: float) -> float:
        """Return how long the attempt has run by its own clock, seconds."""
        until_s = now_s if self._stood_since_s is None else self._stood_since_s
        return until_s - self.permit.started_s - self.waited_s


class Batch(msgspec.Struct):
    """The group of items that is open now."""

    number: int = 0
    items: int = 0
    unsettled: int = 0
    failed: int = 0


class Scheduler(msgspec.Struct):
    """Decide which attempt starts next.

    Attributes:
        source: Tasks in the order they should run; None while the next one is not there yet.
        ahead: How many of them are taken at once.
        queued: How many tasks of each priority have yet to start; None where all have the same.
        look_ahead: How many may wait in limit groups before no more are drawn for limit groups that are free.
        cost: What a task costs, by unit.
        opening: When something may start by the clock on the wall.
        held: True while paused or stopping: nothing starts.
        lets_one: Whether one item, of those that come later, may start all the same.
        breaker: Of all tasks; limit groups have their own.
        on_batch: Told of each new batch: number and items.
        limit_groups: Where drawn tasks wait, if they have limits of their own.
        aside: Tasks of limit groups that gave up: they do not start any more.
        wait_s: After `next` gave None: seconds until asking again makes sense; inf: after the next change.
        why: What it waits for, one word: "", "slot", "limit", "breaker", "batch", "pause", "retry", "probe", "items",
            "hours".
    """

    source: Iterator[Task | None]
    limits: Limits
    limiter: Limiter
    breaker: CircuitBreaker | None = None
    cost: Callable[[Task], Cost] | None = None
    on_batch: Callable[[int, int], None] | None = None
    limit_groups: LimitGroups | None = None
    ahead: int = 1
    queued: list[int] | None = None
    look_ahead: float = math.inf
    opening: Opening = msgspec.field(default_factory=Opening)
    held: bool = False
    lets_one: bool = False
    exhausted: bool = False
    wait_s: float = math.inf
    why: str = ""
    unsettled: int = 0
    batch: Batch = msgspec.field(default_factory=Batch)
    aside: list[Task] = msgspec.field(default_factory=list)
    _fresh: deque[Task] = msgspec.field(default_factory=deque)
    _gathered: list[Task] = msgspec.field(default_factory=list)  # of the next batch
    _awaits_items: bool = False
    _raised: BaseException | None = None  # by the source
    _waiting: list[tuple[float, int, Task]] = msgspec.field(default_factory=list)  # heap by time of readiness
    _retries: int = 0
    _batch_free_s: float = -math.inf
    _priced: Priced | None = None
    _later: Task | None = None  # was put first

    @property
    def finished(self) -> bool:
        """Whether every task of the source has settled."""
        return (
            self.exhausted
            and not self.unsettled
            and not self._fresh
            and not (self.limit_groups and self.limit_groups.count)
        )

    def next(self, now_s: float) -> Ticket | None:
        """Return the attempt to start now; None when nothing may, see `wait_s`."""
        if (self.held or self.opening.is_limited) and self._is_shut(now_s):
            return None
        if self.limit_groups is not None:
            return self._next_of(self.limit_groups, now_s)
        breaker = self.breaker
        if self.lets_one or (breaker is not None and breaker.state != "closed"):
            wait_s = 0.0 if breaker is None else breaker.wait_s(now_s)
            if breaker is not None and wait_s > 0:
                self._wait(wait_s, "probe" if breaker.state == "half_open" else "breaker")
                return None
            self._put_later_first(now_s)
        fresh = self._fresh
        source = "fresh" if fresh and not self._waiting else self._source(now_s)
        if source is None:
            return None
        first = fresh[0] if source == "fresh" else self._waiting[0][2]
        cost, refused = NO_COST, first.refused
        if refused or self.cost is not None:
            if self._priced is None or self._priced[0] is not first:
                self._priced = self._price(first, self.limiter)
            _, cost, refused = self._priced
        permit = self.limiter.start(now_s, cost)
        if permit is None:
            self._wait_for(self.limiter, now_s, cost)
            return None
        if source == "fresh":
            fresh.popleft()
        else:
            heapq.heappop(self._waiting)
        return self._start(now_s, first, permit, self.limiter, breaker, refused)

    def _is_shut(self, now_s: float) -> bool:
        """Say whether nothing may start, whatever it is."""
        if self.held and not self.lets_one:
            self._wait(math.inf, "pause")
            return True
        closed_s = self.opening.wait_s(now_s)
        if closed_s > 0.0:
            self._look_ahead()
            self._wait(*((closed_s, "hours") if self._has_more else (math.inf, "")))
        return closed_s > 0.0

    @property
    def _has_more(self) -> bool:
        """Whether anything waits, or may come."""
        in_groups = self.limit_groups is not None and self.limit_groups.count
        return bool(self._fresh or self._gathered or self._waiting or in_groups or not self.exhausted)

    def _look_ahead(self) -> None:
        """Draw something without starting it: where nothing is left, nobody need wait."""
        if self._has_more and not (self._fresh or self._gathered or self._waiting or self.batch.unsettled):
            size = self.limits.batch_size
            tasks = self._fresh if size is None else self._gathered
            self._draw_into(tasks, self.ahead if size is None else size)
            self.exhausted = not tasks and not self._awaits_items

    def _wait_for(self, limiter: AnyLimiter, now_s: float, cost: Cost) -> None:
        wait_s = limiter.wait_s(now_s, cost)
        self._wait(wait_s, "slot" if wait_s == math.inf else "limit")

    def _put_later_first(self, now_s: float) -> None:
        """Let an item go next that comes later: the ones that are due may all be of a kind that fails.

        Where a batch has none left that was not tried, the next one lends one.
        """
        fresh = self._fresh
        if not fresh and not self.exhausted:
            self._refill(now_s)
            if not fresh and self.limits.batch_size is not None and self.batch.unsettled:
                self._borrow(self.limits.batch_size)
        if len(fresh) > 1 and fresh[0] is not self._later:
            self._later = fresh.pop()
            fresh.appendleft(self._later)

    def _borrow(self, size: int) -> None:
        """Let the last item of the next batch run by itself, beside the batch that is open."""
        if not self._gathered:
            self._draw_into(self._gathered, size)
        if self._gathered:
            self._fresh.append(self._gathered.pop())

    def _next_of(self, limit_groups: LimitGroups, now_s: float) -> Ticket | None:
        """Return the next attempt of any limit group that need not wait."""
        self._fill(limit_groups, now_s)
        draws_in_s = 0.0
        while True:
            limit_group, wait_s, why = limit_groups.choose(now_s, self._cost)
            if limit_group is None:
                if not self.exhausted and limit_groups.count < self.look_ahead and draws_in_s == 0.0:
                    draws_in_s = self._draw(limit_groups, now_s)
                    continue
                self._wait_for_groups(now_s, wait_s, why, draws_in_s)
                return None
            cost = self._cost(limit_group)
            permit = limit_group.limiter.start(now_s, cost)
            if permit is not None:
                break
            if limit_group.limiter.own.wait_s(now_s, cost) == 0.0:  # all wait for what they have in common
                self._wait_for(limit_group.limiter, now_s, cost)
                return None
            # Another process has used what this one may: the other limit groups need not wait for that.
        task, refused = limit_groups.take(limit_group), "" if limit_group.priced is None else limit_group.priced[2]
        return self._start(now_s, task, permit, limit_group.limiter, limit_group.breaker, refused, limit_group.name)

    def _start(  # noqa: PLR0917  # once an item: keywords cost more
        self,
        now_s: float,
        task: Task,
        permit: Permit,
        limiter: AnyLimiter,
        breaker: CircuitBreaker | None,
        refused: str,
        limit_group: str = "",
    ) -> Ticket:
        if not task.attempts:
            self.unsettled += 1
            if self.queued is not None:
                self.queued[task.priority] -= 1
        task.attempts += 1
        epoch = 0 if breaker is None else breaker.epoch if breaker.state == "closed" else breaker.start(now_s)
        return Ticket(task, permit, epoch, limiter, limit_group, breaker, refused)

    def _fill(self, limit_groups: LimitGroups, now_s: float) -> None:
        """Let retries that are ready wait in their limit groups: first, but last while the service fails or denies."""
        while self._waiting and self._waiting[0][0] <= now_s:
            task = heapq.heappop(self._waiting)[2]
            limit_group = limit_groups.of(task)
            limit_groups.put(limit_group, task, first=not (limit_group.is_failing or limit_group.limiter.cool_downs))

    def _draw(self, limit_groups: LimitGroups, now_s: float) -> float:
        """Draw tasks into their limit groups; return seconds until there may be more, 0.0 when some came."""
        pause_s = self._refill(now_s)
        if not self._fresh:
            return pause_s
        while self._fresh:
            task = self._fresh.popleft()
            limit_group = limit_groups.of(task)
            if limit_group.gave_up:
                self._put_aside(now_s, task)
            else:
                limit_groups.put(limit_group, task)
        return 0.0

    def _wait_for_groups(self, now_s: float, wait_s: float, why: str, draws_in_s: float) -> None:
        ready_in_s = self._waiting[0][0] - now_s if self._waiting else math.inf
        soonest_s = min(ready_in_s, wait_s, draws_in_s or math.inf)
        if soonest_s == math.inf:
            self._wait(math.inf, why if self.limit_groups is not None and self.limit_groups.count else "")
        else:
            self._wait(soonest_s, "retry" if soonest_s == ready_in_s else why if soonest_s == wait_s else "batch")

    def give_up(self, now_s: float, name: str) -> None:
        """Start nothing more of a limit group: its tasks are put aside, those too that are still to be drawn.

        Of several groups together, the one at fault does, and all that is in it.
        """
        assert self.limit_groups is not None
        limit_group = self.limit_groups.by_name[name]
        if limit_group.gave_up:
            return
        gone = self.limit_groups.give_up(limit_group)
        names = {one.name for one in gone}
        retries = [task for _, _, task in sorted(self._waiting) if task.limit_group in names]
        self._waiting = [waiting for waiting in self._waiting if waiting[2].limit_group not in names]
        heapq.heapify(self._waiting)
        self.limit_groups.count -= sum(len(one.tasks) for one in gone)
        for task in [*retries, *(task for one in gone for task in one.tasks)]:
            self._put_aside(now_s, task)
        for one in gone:
            one.tasks.clear()

    def _put_aside(self, now_s: float, task: Task) -> None:
        self.aside.append(task)
        if task.attempts:
            self.unsettled -= 1
        elif self.queued is not None:
            self.queued[task.priority] -= 1
        self._settle_in_batch(now_s, task, failed=True)

    def settle(self, now_s: float, task: Task, *, failed: bool = False) -> None:
        """Count a task that has its outcome."""
        self.unsettled -= 1
        if task.group:
            self._settle_in_batch(now_s, task, failed=failed)

    def _settle_in_batch(self, now_s: float, task: Task, *, failed: bool) -> None:
        if task.group and task.group == self.batch.number:
            self.batch.unsettled -= 1
            self.batch.failed += failed
            if not self.batch.unsettled:
                self._batch_free_s = now_s + self.limits.batch_pause_s

    def retry(self, ready_s: float, task: Task) -> None:
        """Let a task be tried again, at ``ready_s`` at the earliest; not if its limit group gave up."""
        if self.limit_groups is not None:
            limit_group = self.limit_groups.by_name.get(task.limit_group)
            if limit_group is not None and limit_group.gave_up:
                self._put_aside(ready_s, task)
                return
        self._retries += 1
        heapq.heappush(self._waiting, (ready_s, self._retries, task))

    def _cost(self, limit_group: LimitGroup) -> Cost:
        """Return what the first task of a limit group costs."""
        if self.lets_one or (limit_group.breaker is not None and limit_group.breaker.state != "closed"):
            limit_group.put_later_first()
        task, priced = limit_group.tasks[0], limit_group.priced
        if priced is None or priced[0] is not task:
            priced = limit_group.priced = self._price(task, limit_group.limiter)
        return priced[1]

    def _price(self, task: Task, limiter: AnyLimiter) -> Priced:
        """Return what a task costs; one that never fits is refused, and takes nothing."""
        refused, cost = task.refused, NO_COST
        if self.limit_groups is not None:
            refused = self.limit_groups.refused.pop(task.seq, refused)
        if not refused and self.cost is not None:
            try:
                cost = self.cost(task)
                refused = limiter.refuse(cost)
            except InputError as error:
                refused = str(error)
            except BaseException as error:  # the user's function; it fails this item alone
                refused = f"cost= raised {describe(error)}"
        return task, REFUSED if refused else cost, refused

    def has_others(self, ticket: Ticket) -> bool:
        """Say whether another item may still be tried first: it can tell whose fault a failure is."""
        if self.limit_groups is None:
            return bool(self._fresh) or not self.exhausted
        waiting = self.limit_groups.by_name[ticket.limit_group].tasks
        return not self.exhausted or any(not task.attempts for task in waiting)

    def left(self) -> list[Task]:
        """Return the tasks that were drawn and are neither running nor settled: a generator gives them only once."""
        in_groups = [] if self.limit_groups is None else self.limit_groups.left()
        return [task for _, _, task in sorted(self._waiting)] + [*self.aside, *in_groups, *self._fresh, *self._gathered]

    def add(self, more: Sequence[Task]) -> None:
        """Let further tasks wait, each where its order says; an open batch is left as it is."""
        if more:
            line = self._in_line()
            self._count(more)
            self._place(line, in_order(more))

    def prioritize(self, tasks: Sequence[Task], priority: int) -> None:
        """Give tasks another priority, and those that wait another place; an open batch keeps its items."""
        line, limit_groups = self._in_line(), self.limit_groups
        waiting = [task for task in tasks if not task.attempts]
        moved, kept = line.take_out(waiting), []
        if len(moved) < len(waiting):
            seqs = {task.seq for task in waiting}
            kept = [task for task in self._fresh if task.seq in seqs]
            if kept:
                self._fresh = deque([task for task in self._fresh if task.seq not in seqs])
            if limit_groups is not None and limit_groups.count:
                kept += limit_groups.take_out(seqs)
        self._count([*moved, *kept], priority)
        for task in tasks:
            task.priority = priority
        if self.limits.batch_size is None:
            moved, kept = [*moved, *kept], []
        self._place(line, in_order(moved))
        if kept and limit_groups is None:
            self._fresh = deque(in_order([*self._fresh, *kept]))
        elif limit_groups is not None:
            self._place_in_groups(limit_groups, kept)

    def _in_line(self) -> Line:
        """Return the source as one that can be changed."""
        line = self.source if isinstance(self.source, Line) else Line(filter(None, self.source))
        self.source = line
        line.put_back(self._gathered)
        self._gathered = []
        return line

    def _place(self, line: Line, tasks: Sequence[Task]) -> None:
        """Let tasks that are in order wait where they belong, those that were drawn before among them."""
        limit_groups = self.limit_groups
        if not tasks or self.limits.batch_size is not None:
            line.put(tasks)
        elif limit_groups is None:
            if self._fresh and tasks[0].order < self._fresh[-1].order:
                line.put_back(self._fresh)
                self._fresh.clear()
            line.put(tasks)
        elif len(tasks) > FEW:
            line.put(in_order([*tasks, *limit_groups.clear()]))
        else:  # what goes before all that is to be drawn must not wait for a group that has nothing drawn
            drawn = [task for task in tasks if line.first is None or task.order < line.first.order]
            line.put(tasks[len(drawn) :])
            self._place_in_groups(limit_groups, drawn)
        self.exhausted = self.exhausted and line.first is None

    def _place_in_groups(self, limit_groups: LimitGroups, tasks: Iterable[Task]) -> None:
        for task in tasks:
            limit_group = limit_groups.of(task)
            if limit_group.gave_up:
                self._put_aside(-math.inf, task)
            else:
                limit_groups.insert(limit_group, task)

    def _count(self, tasks: Sequence[Task], priority: int | None = None) -> None:
        """Count tasks that come to wait by priority; with one, tasks that were taken out to have it."""
        source, before = self._in_line(), Counter(map(attrgetter("priority"), tasks))
        if self.queued is None:
            in_groups = () if self.limit_groups is None else (group.tasks for group in self.limit_groups.all())
            drawn = [task for task in chain(self._fresh, *in_groups) if not task.attempts]
            one = source.first or next(iter(drawn), None)
            had = Counter({one.priority: len(source) + len(drawn)} if one is not None else {})
            self.queued = [had[place] + before[place] * (priority is not None) for place in range(len(PRIORITIES))]
        for place, items in before.items():
            if priority is not None:
                self.queued[place] -= items
            self.queued[place if priority is None else priority] += items
        if sum(map(bool, self.queued)) < 2:
            self.queued = None

    def _source(self, now_s: float) -> Source | None:
        """Say where the next task comes from: retries that are ready, then fresh tasks; None while there is none.

        While the service fails, fresh ones go first: every probe then costs another item one of its attempts,
        and an outage exhausts none. So they do after a cool-down, until one succeeds: a 429 may be one item's.
        """
        waiting = self._waiting
        ready = bool(waiting) and waiting[0][0] <= now_s
        if ready and not (self.limiter.cool_downs or (self.breaker is not None and self.breaker.failures)):
            return "waiting"
        if self._fresh:
            return "fresh"
        pause_s = math.inf if self.exhausted else self._refill(now_s)
        if self._fresh:
            return "fresh"
        if ready:
            return "waiting"
        ready_in_s = waiting[0][0] - now_s if waiting else math.inf
        if ready_in_s < pause_s:
            self._wait(ready_in_s, "retry")
        else:
            self._wait(pause_s, "batch" if pause_s < math.inf else "items" if self._awaits_items else "")
        return None

    def _wait(self, wait_s: float, why: str) -> None:
        self.wait_s, self.why = wait_s, why

    def _refill(self, now_s: float) -> float:
        """Draw fresh tasks; return seconds until the next batch, inf when that takes more than time."""
        size = self.limits.batch_size
        if size is not None:
            return self._refill_batch(now_s, size)
        if not self._draw_into(self._fresh, self.ahead) and not self._fresh:
            self.exhausted = not self._awaits_items
        return math.inf

    def _refill_batch(self, now_s: float, size: int) -> float:
        if self.batch.unsettled:
            return math.inf
        # Whether another batch follows must be known before the pause: the last one ends the run.
        is_whole = self._draw_into(self._gathered, size)
        if not self._gathered:
            self.exhausted = not self._awaits_items
            return math.inf
        if now_s < self._batch_free_s:
            return self._batch_free_s - now_s
        if self._awaits_items:
            return math.inf
        self._fresh.extend(self._gathered)
        self._gathered = []
        self.exhausted = not is_whole and self._raised is None
        self._open_batch(len(self._fresh))
        return 0.0

    def _draw_into(self, tasks: deque[Task] | list[Task], size: int) -> bool:
        """Draw until there are ``size`` tasks; return whether there are: else some are awaited, or none are left.

        What a generator gave before it raised runs: its error is raised when there is nothing else.
        """
        self._awaits_items = False
        if self._raised is None:
            try:
                for task in islice(self.source, min(size - len(tasks), sys.maxsize)):
                    if task is None:
                        self._awaits_items = True
                        return False
                    tasks.append(task)
            except BaseException as error:  # the user's
                self._raised = error
        if self._raised is not None and not tasks:
            raise self._raised
        return len(tasks) >= size

    def _open_batch(self, items: int) -> None:
        self.batch = Batch(self.batch.number + 1, items, unsettled=items)
        for task in self._fresh:
            task.group = self.batch.number
        if self.on_batch is not None:
            self.on_batch(self.batch.number, items)
