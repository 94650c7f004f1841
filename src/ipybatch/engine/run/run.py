"""Drive: one start of a session, from taking its run to letting it go.

open (caller's thread: errors reach the caller)
  -> run (engine loop: enter the work, join the resource, runner)
    -> close (what is left, the last state, the lease)
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.backend import Backend
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.error_text import describe
from ipybatch.engine.data.events import Counts, State, Status
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import Plan, Task, queued_by_priority
from ipybatch.engine.data.policy import Breaker as BreakerPolicy
from ipybatch.engine.data.policy import Limits, Retry
from ipybatch.engine.data.spec import Work
from ipybatch.engine.feed import event_names
from ipybatch.engine.feed.feed import Feed
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.engine.rules.breaker import Breaker
from ipybatch.engine.rules.limit_groups import Lanes
from ipybatch.engine.rules.limiter import Cost
from ipybatch.engine.rules.scheduler import Batch, Scheduler
from ipybatch.engine.run.runner import Job, Runner
from ipybatch.engine.store import plan_edits, resume, rows, run_store
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.resources import History, Joined, read_history
from ipybatch.engine.store.resume import Opened, Opening
from ipybatch.engine.store.rows import Entry
from ipybatch.errors import InputError, JournalError, Permanent

OnFailure = Literal["continue", "stop", "rollback"]
CostFunction = Any  # item -> float, or a mapping of units


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that says how a session runs."""

    work: Work
    backend: Backend
    limits: Limits
    retry: Retry
    breaker: BreakerPolicy | None
    timeout_s: float | None
    on_failure: OnFailure
    cost: CostFunction | None
    opening: Opening
    per: Callable[[Any], str] | None = None


class Drive(msgspec.Struct, eq=False):
    """Run an order against a journal, once for each start.

    Attributes:
        tasks: The checked list; None for a generator.
        runner: The runner of the latest start; None before.
        on_outcomes: Told of the outcomes of every commit.
    """

    order: Order
    journal: Journal
    feed: Feed
    clock: Clock
    tasks: Plan | None
    items: Iterable[Any] = ()
    runner: Runner | None = None
    on_outcomes: list[Callable[[list[Outcome]], None]] = msgspec.field(default_factory=list)
    _opened: Opened | None = None
    _ledger: run_store.Ledger | None = None
    _history: History | None = None
    _joined: Joined | None = None
    _drawing: Iterator[Task] | None = None
    _declared: Limits | None = None  # what it was made with, once that was changed
    _held: bool = False
    _wishes: list[tuple[Callable[[Task], bool], int]] = msgspec.field(default_factory=list)  # from before a start
    _owed: deque[Task] = msgspec.field(default_factory=deque)  # of a generator: drawn before, to run again
    _ended: list[Entry] = msgspec.field(default_factory=list)  # of a generator: what need not run again
    _wants_stop: list[tuple[State, str, Status]] = msgspec.field(default_factory=list)

    def open(self, *, again: frozenset[Status] = frozenset()) -> None:
        """Find or make the run, take its lease and load what is recorded.

        Raises:
            JournalError: The journal refuses, or another session is running this one.
        """
        order, now_s = self.order, self.clock.unix_s()
        resource = order.opening.resource
        run_store.check_free(self.journal, order.opening.name, now_s)
        self._history = read_history(self.journal, resource, order.limits, now_s)
        self._opened = opened = self._open(again)
        self._ledger = run_store.take(
            self.journal, opened.run, resource=resource, concurrency=order.limits.concurrency, now_s=now_s
        )
        self._ledger.counts = replace_running(opened.counts)
        self._grant_wishes(opened, self._ledger, now_s)
        self.order = msgspec.structs.replace(order, opening=msgspec.structs.replace(order.opening, fresh=False))
        self._wants_stop.clear()
        self.runner, self._held = None, False
        self.feed.emit(events.Planned(now_s, order.opening.name, opened.counts))
        self._recall_groups(opened.run, now_s)
        for note in opened.notes:
            self.feed.note(note)
        self.feed.emit(events.StateChanged(now_s, "running", ""))

    async def run(self) -> None:
        """Run what `open` found, to its end."""
        assert self._opened is not None
        assert self._ledger is not None
        assert self._history is not None
        resource = self.order.opening.resource
        self._joined = Joined(self.journal, resource, self.clock)
        self._joined.join(self.order.limits, self._declared, self._history)
        runner = self.runner = self._make_runner(self._opened, self._ledger, self._joined)
        runner.hold(self._held)
        for stop in self._wants_stop:
            runner.stop(stop[0], stop[1], left=stop[2], kill=True)
        try:
            async with AsyncExitStack() as stack:
                await self._enter_work(stack)
                await runner.run()
        except Exception as error:  # of the work's __aenter__ or __aexit__, or the backend's
            runner.fail(f"the work could not be opened or closed: {describe(error)}")
        self._close(runner, self._ledger)

    @property
    def left(self) -> int | None:
        """How many items are still to do, those that a plan will leave out not counted; None while unknown."""
        snapshot, skip = self.feed.snapshot, self.order.opening.skip
        if skip is not None and self.tasks is not None and snapshot.state == "planned" and not snapshot.counts.ended:
            return sum(not skip(task.item) for task in self.tasks)
        counts = snapshot.counts
        return None if counts.total is None else counts.pending + counts.running

    @property
    def drawn(self) -> bool:
        """Whether a generator was begun."""
        return self._drawing is not None

    def stop(self, state: State, reason: str, left: Status) -> None:
        """Start nothing more, end what runs."""
        self._wants_stop.append((state, reason, left))
        if self.runner is not None:
            self.runner.stop(state, reason, left=left, kill=True)

    def change(self, limits: Limits) -> None:
        """Let other limits hold from now on, and for what is left after a cancel."""
        self._declared = self._declared or self.order.limits
        self.order = msgspec.structs.replace(self.order, limits=limits)
        if self._joined is not None and self.runner is not None and self.runner.state is None:
            self._joined.change(limits)

    def prioritize(self, wanted: Callable[[Task], bool], priority: int) -> int:
        """Give tasks another priority, on record and among those that wait; return how many.

        Raises:
            InputError: The items come from a generator.
        """
        if self.tasks is None:
            msg = "prioritize() needs a session whose items are a list: a generator's come in its own order"
            raise InputError(msg)
        if self._ledger is None or self.runner is None or self.runner.state is not None:
            self._wishes.append((wanted, priority))
            return sum(map(wanted, self.tasks))
        changed = plan_edits.prioritize(self.tasks, self._ledger, wanted, priority, self.clock.unix_s())
        self.runner.reorder()
        return changed

    def add(self, items: Iterable[Any]) -> int:
        """Take further items into the run; return how many of them are to run.

        Raises:
            Permanent: The session's items come from a generator.
        """
        if self.tasks is None:
            msg = "attempt.add() needs a session whose items are a list: a generator has no plan to add to"
            raise Permanent(msg)
        assert self._ledger is not None
        assert self.runner is not None
        at_s = self.clock.unix_s()
        tasks, skipped = plan_edits.add(self.tasks, self._ledger, self.order.opening, items, at_s)
        if tasks or skipped:
            self.feed.emit(events.ItemsAdded(at_s, len(tasks), skipped))
            self.runner.reorder(tasks)
        return len(tasks)

    def hold(self, *, held: bool) -> bool:
        """Pause or go on; return False when it is too late for that."""
        if self.runner is None:
            self._held = held  # it has not begun yet
        elif self.runner.state is None:
            self.runner.hold(held)
        else:
            return False
        return True

    def _grant_wishes(self, opened: Opened, book: run_store.Ledger, now_s: float) -> None:
        wishes, self._wishes = self._wishes, []
        for wanted, priority in wishes:
            assert self.tasks is not None
            plan_edits.prioritize(self.tasks, book, wanted, priority, now_s)
        if wishes:
            todo = sorted(opened.source, key=lambda task: task.order)
            opened.source, opened.queued = iter(todo), queued_by_priority(todo)

    def _recall_groups(self, run: int, now_s: float) -> None:
        """Show what an earlier process did; new groups are counted on from there."""
        if self.order.limits.batch_size is None or self.feed.snapshot.groups:
            return
        with self.journal.reader() as database:
            for group in rows.read_groups(database, run, self.order.opening.group_word, now_s):
                self.feed.emit(group)

    def _open(self, again: frozenset[Status]) -> Opened:
        asked = msgspec.structs.replace(self.order.opening, again=again)
        if self.tasks is not None:
            for task in self.tasks:
                task.attempts = 0
            return resume.open_list(self.journal, asked, self.tasks, self.clock.unix_s())
        if self._drawing is None:
            opened = resume.open_drawn(self.journal, asked, self.items, self.feed.emit, self.clock.unix_s)
            self._drawing = opened.source
            return opened
        return self._reopen_drawn(again)

    def _reopen_drawn(self, again: frozenset[Status]) -> Opened:
        """Go on with a generator where it was left: a generator cannot be drawn twice."""
        assert self._opened is not None
        assert self._drawing is not None
        before = self.runner
        ended = self._ended + ([] if before is None else before.kept)
        is_anew = self.feed.snapshot.state == "rolled_back"
        self._ended = [entry for entry in ended if entry.final and entry.status not in again and not is_anew]
        todo = [entry.task for entry in ended if not entry.final or entry.status in again or is_anew]
        todo += [*self._owed, *([] if before is None else before.scheduler.left())]
        for task in todo:
            task.attempts = 0
        counts = replace_running(self.feed.snapshot.counts)
        counts.failed = sum(entry.status == "failed" for entry in self._ended)
        counts.timeout = counts.cancelled = counts.skipped = 0
        counts.pending = len(todo)
        self._owed = deque(todo)
        return Opened(self._opened.run, self._draw_on(), counts, listing=self._opened.listing)

    def _draw_on(self) -> Iterator[Task]:
        """Yield what is owed, then what the generator still gives."""
        while self._owed:
            yield self._owed.popleft()
        assert self._drawing is not None
        yield from self._drawing

    def _lanes(self, joined: Joined) -> Lanes | None:
        per, each = self.order.per, self.order.limits.each
        if per is None or each is None:
            return None
        return Lanes(per=lambda task: str(per(task.item)), open=lambda name: joined.open_lane(name, each))

    def _make_runner(self, opened: Opened, book: run_store.Ledger, joined: Joined) -> Runner:
        order, is_list = self.order, self.tasks is not None
        scheduler = Scheduler(
            opened.source,
            order.limits,
            joined.resource.limiter,
            lanes=self._lanes(joined),
            queued=opened.queued,
            ahead=_AHEAD if is_list else 1,
            look_ahead=math.inf if is_list else _LOOK_AHEAD,
            breaker=None if order.breaker is None else Breaker(order.breaker),
            cost=None if order.cost is None else self.cost,
            on_batch=self._tell_batch,
            batch=Batch(max(self.feed.snapshot.groups, default=0)),
        )
        job = Job(
            work=order.work.call,
            backend=order.backend,
            limits=order.limits,
            retry=order.retry,
            timeout_s=order.timeout_s,
            stop_on_failure=order.on_failure != "continue",
            takes_attempt=order.work.takes_attempt,
            discards=order.on_failure == "rollback",
            called=self._called,
            add=self.add,
        )
        runner = Runner(job, scheduler, joined.resource, book, self.clock, self.feed.emit)
        if self.tasks is None:  # a generator gives its items once: those that may run again are kept
            runner.keep = _UNFINISHED | {"completed"} if order.on_failure == "rollback" else _UNFINISHED
        runner.on_outcomes = self.on_outcomes
        return runner

    async def _enter_work(self, stack: AsyncExitStack) -> None:
        work: Any = self.order.work.call
        if hasattr(work, "__aenter__"):
            await stack.enter_async_context(work)
        elif hasattr(work, "__enter__") and hasattr(work, "__exit__"):
            stack.enter_context(work)

    def cost(self, task: Task) -> Cost:
        """Return what a task costs, by unit."""
        return cost_of(self.order.cost, self.order.limits, task.item)

    def _tell_batch(self, number: int, items: int) -> None:
        name = f"{self.order.opening.group_word} {number}"
        self.feed.emit(events.GroupStarted(self.clock.unix_s(), number, name, items))

    def _called(self, task: Task) -> str:
        """Return what a task is called: a partition has a name of its own."""
        group = self.feed.snapshot.groups.get(task.group)
        return group.name if group is not None and group.items == 1 else f"item {task.label}"

    def _take_back(self, at_s: float) -> None:
        """Count what was discarded as cancelled; what failed is still told."""
        for group in list(self.feed.snapshot.groups.values()):
            if group.status in ("completed", "skipped"):
                self.feed.emit(events.GroupChanged(at_s, group.number, "cancelled", {}))
        self.feed.emit(events.Planned(at_s, self.order.opening.name, _nothing_done(self.feed.snapshot)))

    def _close(self, runner: Runner, book: run_store.Ledger) -> None:
        state, reason, left = runner.state or "completed", runner.reason, runner.left
        if state == "failed" and self.order.on_failure == "rollback":
            state = "rolled_back"
        at_s, snapshot = self.clock.unix_s(), self.feed.snapshot
        for group in [group for group in snapshot.groups.values() if not group.lasts]:
            if group.status == "running":
                self.feed.emit(events.GroupEnded(at_s, group.number, left))
            elif group.status == "pending":
                self.feed.emit(events.GroupChanged(at_s, group.number, left, {}))
        if snapshot.counts.pending > 0 and state != "completed":
            self.feed.emit(events.ItemsLeft(at_s, snapshot.counts.pending, left))
        if runner.lingering:
            self.feed.note(f"{runner.lingering} threads are still busy with what was given up; they end by themselves")
        assert self._joined is not None
        self._joined.leave()
        try:
            if state == "rolled_back":
                book.discard(at_s)
                self._take_back(at_s)
            book.close(
                state,
                reason,
                snapshot.counts,
                now_s=at_s,
                seconds=snapshot.this_start_s(at_s),
                listing=self._opened.listing.order if self._opened and self._opened.listing else None,
                usd=snapshot.spent_usd,
            )
        except JournalError as error:
            state, reason = "failed", reason or str(error)
        self.feed.emit(events.Tallied(at_s, event_names.tally(snapshot)))
        self.feed.emit(events.StateChanged(at_s, state, reason))


_AHEAD = 100  # tasks of a list that the scheduler takes at once
_LOOK_AHEAD = 1000  # items of a generator that may wait in lanes
_UNFINISHED: frozenset[Status] = frozenset({"failed", "timeout", "cancelled"})


def _nothing_done(snapshot: Snapshot) -> Counts:
    undone = replace_running(snapshot.counts)
    undone.cancelled += undone.completed + snapshot.left
    undone.skipped -= snapshot.left
    undone.completed = 0
    return undone


def cost_of(cost: CostFunction, limits: Limits, item: Any) -> Cost:
    """Return what an item costs, by unit: a plain number is in the units beside requests, or in requests."""
    amount = cost(item)
    if isinstance(amount, dict):
        return amount
    units = {rate.unit for rate in limits.rates} - {"requests"} or {"requests"}
    return dict.fromkeys(units, float(amount))


def replace_running(counts: Counts) -> Counts:
    """Return a copy of ``counts`` with nothing running."""
    return msgspec.structs.replace(counts, running=0)
