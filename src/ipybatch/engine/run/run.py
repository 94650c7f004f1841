"""Run: one start of a session, from taking its run in the journal to releasing it.

open (caller's thread: errors reach the caller)
  -> run (engine loop: enter the work, join the resource, runner)
    -> close (what is left, the last state, the lease)

One subject, hence its length: what a start goes through.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.events import Counts, State, Status
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.items import ItemList
from ipybatch.engine.data.local_time import zone_of
from ipybatch.engine.data.masking import describe
from ipybatch.engine.data.notice import encode_notify
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import NOTHING_AGAIN, Again, Plan, Task, queued_by_priority
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.feed import event_text
from ipybatch.engine.feed.feed import Feed
from ipybatch.engine.feed.live_record import live_record
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.engine.rules.breaker import CircuitBreaker
from ipybatch.engine.rules.classify import culprit
from ipybatch.engine.rules.limit_groups import GroupLimiter, LimitGroup, LimitGroups, each_of
from ipybatch.engine.rules.limiter import Limiter
from ipybatch.engine.rules.opening import opening_of
from ipybatch.engine.rules.scheduler import Batch, Scheduler
from ipybatch.engine.run.engine_thread import SUPERVISED
from ipybatch.engine.run.live_status import Left, read_live_status
from ipybatch.engine.run.notices import Notices
from ipybatch.engine.run.runner import Runner
from ipybatch.engine.run.slots import AGAIN_S, CANCELS, TICKET
from ipybatch.engine.store import resume, rows, run_store
from ipybatch.engine.store.commands import Command, Inbox
from ipybatch.engine.store.commit_queue import written
from ipybatch.engine.store.drawing import CHUNK_S
from ipybatch.engine.store.journal import BUSY_S, PATIENCE_S, Journal
from ipybatch.engine.store.resources import Membership
from ipybatch.engine.store.resume import Items, Opened, Wanted
from ipybatch.errors import JournalError, Permanent, Withheld

Change = tuple[Wanted, int]  # which tasks, and the place of their new priority

_AHEAD = 100  # tasks that the scheduler takes at once
LIVE_S = 1.0  # how often the facts of the moment are recorded
FACTS_S = 0.15  # how long the work's own are taken for new
_LOOK_AHEAD = 1000  # items of a generator that may wait in limit groups
_UNFINISHED: frozenset[Status] = frozenset({"failed", "timeout", "cancelled", "skipped"})


class Run:
    """One start of a session.

    Attributes:
        runner: None until the engine's loop has begun it.
        obey: What acts on a command from elsewhere, on the engine's thread, and returns why it did not; None for none.
        left_s: What the work tells of the seconds left; None for work that tells nothing.
        tell_facts: What the work tells of itself, given whether it is over; None for work that tells nothing.
    """

    def __init__(  # noqa: PLR0917  # its collaborators, each of another type
        self,
        spec: Spec,
        declared: Limits,
        items: Items,
        journal: Journal,
        feed: Feed,
        on_outcomes: list[Callable[[list[Outcome]], None]],
    ) -> None:
        self.runner: Runner | None = None
        self._spec, self._declared = spec, declared
        self._items, self._journal, self._feed, self._on_outcomes = items, journal, feed, on_outcomes
        self._clock: Clock = feed.clock
        self._held = self._is_held_on_record = False
        self._noted, self._reason = list[str](), ""  # notes, and why it waits, on record
        self._live = b""  # facts of the moment on record
        self._live_s = -math.inf  # when they were looked at
        self.obey: Callable[[Command], str] | None = None
        self.left_s: Left | None = None
        self.tell_facts: Callable[[bool], list[Fact]] | None = None
        self._facts_of = (-math.inf, False)  # when they were made, and whether it was over
        self._inbox: Inbox | None = None
        self._notices: Notices | None = None
        self._stops: list[tuple[State, str, Status]] = []  # asked for before the loop has begun it
        self._opened: Opened | None = None
        self._store: run_store.RunStore | None = None
        self._membership: Membership | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._left: asyncio.Future[None] | None = None  # done when the work was left to itself
        self._is_inside = False  # the work: neither entering nor leaving it
        self._is_closed = False
        self._cancels = 0  # of entering or leaving it

    @property
    def is_over(self) -> bool:
        """Whether it has been told to end, or has ended."""
        return self.runner is not None and self.runner.state is not None

    def open(
        self,
        *,
        again: Again = NOTHING_AGAIN,
        priorities: list[Change] | None = None,
        on_taken: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the lease of the run, match the items with what is recorded, and begin.

        Whatever raises meanwhile, functions of the user's too, the run is left as it was.

        Args:
            again: What runs again though it has an outcome.
            priorities: Changes of priority that were asked for before this start, in their order; empty after it.
            on_taken: Called once the lease is taken: nobody else holds it.

        Raises:
            JournalError: The journal refuses, or another session is running this one.
            InputError: The items came from a generator, and cannot be had again.
        """
        spec, now_s = self._spec, self._clock.unix_s()
        with run_store.taken(
            self._journal,
            spec.name,
            fresh=spec.fresh,
            resource=spec.resource,
            group_word=spec.group_word,
            code_hash=spec.work.code_hash,
            now_s=now_s,
            unix_s=self._clock.unix_s,
            live=self._feed.snapshot,
        ) as store:
            on_taken()
            self._store = store
            store.forget_failed(now_s)
            self._opened = opened = self._items.open(
                store, spec, again=again, emit=self._feed.emit, clock_s=self._clock.unix_s
            )
            store.recorded = opened.recorded
            while priorities:  # one whose function raises does so at this start only
                wanted, priority = priorities.pop(0)
                self.prioritize(wanted.among(self._planned()), priority)
            groups = self._recorded_groups(store.run, now_s)
            store.begin(
                opened.counts,
                now_s=now_s,
                workload=spec.workload,
                about=spec.about,
                settings=spec.keying.settings_hash,
                place=(spec.kernel, spec.notebook),
                notify=encode_notify(spec.notify),
                start_at_s=spec.start_at_s,
            )
        self._feed.emit(events.Planned(now_s, spec.name, opened.counts))
        for group in groups:
            self._feed.emit(group)
        for note in opened.notes:
            self._feed.note(note)
        self._feed.emit(events.StateChanged(now_s, "running", ""))

    def abandon(self) -> None:
        """Let go of what was opened and cannot run; the next start goes on."""
        if self._membership is not None:
            self._membership.leave()
        if self._store is not None:
            self._store.abandon()
        self._feed.emit(events.StateChanged(self._clock.unix_s(), "failed", "it was ended from outside"))

    async def run(self) -> None:
        """Run what `open` found, to its end.

        In a loop of the user's, whoever cancels it ends the session; on the engine's thread only `stop` does, because
        work may cancel tasks that are not its own.
        """
        self._loop, self._left = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        inside = self._task = self._loop.create_task(self._run())
        is_cancelled = False
        while not inside.done() and not self._left.done():
            try:
                await asyncio.wait([inside, self._left], return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                if SUPERVISED.get() is not self:
                    is_cancelled = True
                    self.stop("cancelled", "", "cancelled")
        if inside.done():
            inside.result()
        if is_cancelled:
            raise asyncio.CancelledError

    async def _run(self) -> None:
        assert self._opened is not None
        assert self._store is not None
        self._membership = membership = Membership(self._journal, self._spec, self._clock, self._feed.emit)
        runner = self.runner = self._make_runner(self._opened, self._store, membership)
        self._listen_to_items(runner)
        self._listen_to_others(self._store)
        if self._spec.notify is not None:
            self._notices = Notices(self._spec.notify, self._spec, self._store, self._feed)
        runner.hold(self._held)
        for state, reason, left in self._stops:
            runner.stop(state, reason, left=left, kill=True)
        try:
            membership.join(self._spec.limits, self._declared)
            await self._run_inside_work(runner)
        except JournalError as error:
            runner.fail(str(error))
        except asyncio.CancelledError:
            if not self._stops:
                runner.fail("the work could not be opened or closed: something cancelled it from outside")
        except BaseException as error:  # of the work's __aenter__ or __aexit__, or the backend's
            runner.fail(f"the work could not be opened or closed: {describe(culprit(error))}")
        await self._close(runner, self._store)

    async def _run_inside_work(self, runner: Runner) -> None:
        """Run with the work entered. Cancel ends its entering and its leaving too."""
        try:
            async with AsyncExitStack() as stack:
                self._press()
                await self._enter_work(stack)
                self._is_inside = True
                await runner.run()
                self._is_inside = False
        finally:
            self._is_inside = True

    def _listen_to_items(self, runner: Runner) -> None:
        """Look for something to start whenever a generator has given items, in its own thread."""
        loop, clock = asyncio.get_running_loop(), self._clock
        timer: asyncio.TimerHandle | None = None

        def on_ask() -> None:
            nonlocal timer
            clock.hold(+1)
            timer = loop.call_later(CHUNK_S, runner.wake)  # for what there is by then: the next item may take long

        def look() -> None:
            clock.hold(-1)
            if timer is not None:
                timer.cancel()
            runner.wake()

        def on_read() -> None:
            try:
                loop.call_soon_threadsafe(look)
            except RuntimeError:  # the loop is closed; the next start finds what was read
                clock.hold(-1)

        self._items.listen(on_ask=on_ask, on_read=on_read)

    def _listen_to_others(self, store: run_store.RunStore) -> None:
        """Look again and again for what other processes ask of it; in real time only, which passes by itself."""
        if self.obey is not None and isinstance(self._clock, SystemClock):
            self._inbox = Inbox(self._journal, store.run, self.obey, self.record)
            self._inbox.watch(asyncio.get_running_loop())

    def record(self, taken: Sequence[tuple[int, str]] = ()) -> None:
        """Record whether it is paused, what is noted, how it stands and which commands were taken; not waited for.

        Args:
            taken: Ids of commands, each with what is said of it.
        """
        is_changed = self._held != self._is_held_on_record and not self.is_over
        snapshot, at_s = self._feed.snapshot, self._clock.unix_s()
        notes, reason = snapshot.notes, event_text.why_adjourned(snapshot, at_s)
        live = None if self.is_over else self._read_live()
        if self._store is None or not (is_changed or taken or (notes, reason) != (self._noted, self._reason) or live):
            return
        self._noted, self._reason = list(notes), reason
        state: State | None = None
        if is_changed:
            self._is_held_on_record = self._held
            state = "paused" if self._held else "running"
        self._store.mark(state, taken, at_s, live, reason, self._spec.start_at_s)

    def _read_live(self) -> bytes | None:
        """Return the facts of the moment, to be recorded; None when they are as on record, or were just looked at."""
        now_s = self._clock.now_s()
        if now_s < self._live_s + LIVE_S:
            return None
        self._live_s = now_s
        live = self._encode_live()
        if live == self._live:
            return None
        self._live = live
        return live

    def _encode_live(self, *, is_over: bool = False) -> bytes:
        snapshot, limits = self._feed.snapshot, self._spec.limits
        status = read_live_status(self.runner, limits, snapshot, self._clock, self.left_s)
        facts = self.read_facts(is_over=is_over)
        record = live_record(snapshot, status, self._spec, self._declared, self._clock.unix_s(), facts)
        return msgspec.json.encode(record)

    def read_facts(self, *, is_over: bool) -> list[Fact]:
        """Return what the work tells of itself; on the engine's thread while it runs.

        It is made anew for each update of a view, so that its figures move with the others, and once for all views.
        """
        now_s = self._clock.now_s()
        made_s, was_over = self._facts_of
        snapshot = self._feed.snapshot
        if self.tell_facts is None or (was_over is is_over and now_s < made_s + FACTS_S):
            return snapshot.facts
        self._facts_of = now_s, is_over
        try:
            snapshot.facts = self.tell_facts(is_over)
        except Exception as error:  # the run goes on without them
            snapshot.facts = []
            self._feed.note(f"the work could not tell how it stands: {describe(error)}")
        return snapshot.facts

    def _press(self) -> None:
        """Cancel the entering or leaving of the work, once it has been stopped, until it ends or is left to itself."""
        if self._is_inside or not self._stops or self._task is None:
            return
        assert self._loop is not None
        if self._cancels == CANCELS:
            self._loop.create_task(self._leave())
            return
        self._cancels += 1
        self._task.cancel()
        self._loop.call_later(AGAIN_S, self._press)

    async def _leave(self) -> None:
        """Close without the work, which ignores that it is cancelled while it is entered or left."""
        assert self.runner is not None
        assert self._store is not None
        assert self._left is not None
        self._feed.note("the work ignores Cancel in its __aenter__ or __aexit__: it was left to itself")
        await self._close(self.runner, self._store)
        self._left.set_result(None)

    def on_exit(self, error: BaseException, context: contextvars.Context) -> None:
        """Fail what raised SystemExit or KeyboardInterrupt beside its attempt: that attempt, else the session."""
        if self.runner is not None:
            self.runner.on_exit(error, context.get(TICKET))

    def on_stall(self, text: str) -> None:
        """Note what keeps the loop from turning; from any thread."""
        noted = self._feed.note_beside(text)
        if noted is not None and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._feed.publish, noted)

    def on_lost(self, reason: str) -> None:
        """End as failed without the loop, which is gone; the lease is left to run out."""
        if self._store is not None:
            self._store.drop()
        self._feed.emit(events.StateChanged(self._clock.unix_s(), "failed", reason))

    def stop(self, state: State, reason: str, left: Status) -> None:
        """Start nothing more, end what runs."""
        self._stops.append((state, reason, left))
        if self.runner is not None:
            self.runner.stop(state, reason, left=left, kill=True)
            self._press()

    def change(self, limits: Limits) -> None:
        """Let other limits hold from now on."""
        self._spec = msgspec.structs.replace(self._spec, limits=limits)
        if self.runner is not None and self._membership is not None and not self.is_over:
            self.runner.change(limits)
            self._membership.change(limits)

    def postpone(self, start_at_s: float | None) -> None:
        """Let nothing start before another moment, Unix; None for at once."""
        self._spec = msgspec.structs.replace(self._spec, start_at_s=start_at_s)
        if self.runner is not None and not self.is_over:
            self.runner.scheduler.opening.begin(start_at_s, zone_of(self._spec.limits.zone))
            self._feed.emit(events.Adjourned(self._clock.unix_s(), 0.0, "another start holds from now on"))
            self.runner.wake()

    def lift(self) -> None:
        """End the cool-down of its resource, for all who share it.

        Raises:
            JournalError: The limit store cannot be read or written.
        """
        if self._membership is not None:
            self._membership.lift()

    def _planned(self) -> Plan:
        assert self._items.plan is not None
        return self._items.plan

    def prioritize(self, meant: Iterable[Task], priority: int) -> int:
        """Give tasks another priority, on record first, then among those that wait; return how many had another."""
        assert self._opened is not None
        assert self._store is not None
        changed = resume.prioritize(self._planned(), self._store, meant, priority, self._clock.unix_s())
        if self.runner is None:  # opened, and not begun on the loop yet
            for task in changed:
                task.priority = priority
            _sort(self._opened)
        else:
            self.runner.prioritize(changed, priority)
        return len(changed)

    def add(self, given: ItemList) -> int:
        """Take further items into the run; return how many of them are to run.

        Raises:
            Permanent: The items come from a generator.
            InputError: An item has no key that JSON can hold; none is added.
            Withheld: The session has ended.
        """
        if self._items.plan is None:
            msg = "attempt.add() needs a session whose items are a list: a generator has no plan to add to"
            raise Permanent(msg)
        assert self._store is not None
        assert self.runner is not None
        if self._is_closed:
            msg = "the session has ended: no items can be added"
            raise Withheld(msg)
        at_s = self._clock.unix_s()
        tasks, skipped = resume.add(self._items.plan, self._store, self._spec, given, at_s)
        if tasks or skipped:
            self._feed.emit(events.ItemsAdded(at_s, len(tasks), skipped))
            self.runner.add(tasks)
        return len(tasks)

    def hold(self, *, held: bool) -> bool:
        """Pause or go on; return False when it is too late for that."""
        if self.is_over:
            return False
        self._held = held
        if self.runner is not None:
            self.runner.hold(held)
        return True

    def _recorded_groups(self, run: int, now_s: float) -> list[events.GroupRecalled]:
        """Return what an earlier process did; new groups are counted on from there."""
        if self._spec.limits.batch_size is None or self._feed.snapshot.groups:
            return []
        with self._journal.reader() as database:
            return list(rows.read_groups(database, run, self._spec.group_word, now_s, self._items.plan))

    def _limit_groups(self, membership: Membership) -> LimitGroups | None:
        per, each = self._spec.per, self._spec.limits.each
        if per is None or each is None:
            return None
        return LimitGroups(
            per=per,
            open=lambda name: membership.open_group(name, each_of(each, name)),
            nameless=LimitGroup("", GroupLimiter(membership.resource.limiter, Limiter())),
            policy=self._spec.breaker,
        )

    def _make_runner(self, opened: Opened, store: run_store.RunStore, membership: Membership) -> Runner:
        spec, is_list = self._spec, self._items.plan is not None
        scheduler = Scheduler(
            opened.source,
            spec.limits,
            membership.resource.limiter,
            limit_groups=self._limit_groups(membership),
            queued=opened.queued,
            ahead=_AHEAD,
            look_ahead=math.inf if is_list else _LOOK_AHEAD,
            opening=opening_of(spec.limits, spec.start_at_s, lambda now_s: self._clock.unix_s()),
            breaker=None if spec.breaker is None or spec.per is not None else CircuitBreaker(spec.breaker),
            cost=None if spec.cost is None else lambda task: spec.cost_of(task.item),
            on_batch=lambda number, items: self._feed.emit(
                events.GroupStarted(self._clock.unix_s(), number, f"{spec.group_word} {number}", items)
            ),
            batch=Batch(max(self._feed.snapshot.groups, default=0)),
        )
        runner = Runner(
            spec,
            scheduler,
            membership.resource,
            store,
            self._clock,
            self._feed.emit,
            places=self._declared.concurrency,
            called=self._called,
            add=self.add,
        )
        if not is_list:  # a generator gives its items once: those that may run again are kept
            runner.keep = _UNFINISHED | {"completed"} if spec.on_failure == "rollback" else _UNFINISHED
        runner.on_outcomes = self._on_outcomes
        return runner

    async def _enter_work(self, stack: AsyncExitStack) -> None:
        work: Any = self._spec.work.call
        enters = getattr(self._spec.backend, "enters", None)
        if enters is not None and enters(work):  # where it runs, as often as it runs in other places
            return
        if hasattr(work, "__aenter__"):
            await stack.enter_async_context(work)
        elif hasattr(work, "__enter__") and hasattr(work, "__exit__"):
            stack.enter_context(work)

    def _called(self, task: Task) -> str:
        """Return what a task is called: a partition has a name of its own."""
        group = self._feed.snapshot.groups.get(task.group)
        return group.name if group is not None and group.items == 1 else f"item {task.label}"

    async def _close(self, runner: Runner, store: run_store.RunStore) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._inbox is not None:
            self._inbox.close()
        state, reason, left = runner.state or "completed", runner.reason, runner.left
        if state == "failed" and self._spec.on_failure == "rollback":
            state = "rolled_back"
        at_s, snapshot = self._clock.unix_s(), self._feed.snapshot
        self._end_groups(at_s, left)
        if state == "rolled_back":
            store.recorded.stale.clear()  # nothing stays on record
        if state != "completed":
            self._count_left(at_s, left, store)
        if runner.lingering:
            one = runner.lingering == 1
            busy = "1 attempt that was given up is" if one else f"{runner.lingering} attempts that were given up are"
            self._feed.note(f"{busy} still busy: {'it ends by itself' if one else 'they end by themselves'}")
        self._items.put_back([*(entry.task for entry in runner.kept), *runner.scheduler.left()])
        assert self._membership is not None
        self._membership.leave()
        is_anew = state == "rolled_back"
        self.read_facts(is_over=True)
        counts = _nothing_done(snapshot) if is_anew else snapshot.counts
        close = partial(
            store.close,
            state,
            reason,
            counts,
            now_s=at_s,
            seconds=snapshot.this_start_s(at_s),
            listing=self._items.listing,
            usd=snapshot.spent_usd,
            is_anew=is_anew,
            keeps_failed=self._items.plan is not None,
            doubted=runner.doubted,
            live=None if is_anew else self._encode_live(is_over=True),
            tell=None if self._notices is None else self._notices.ending(state, reason, counts),
            patience_s=BUSY_S if runner.is_journal_locked else PATIENCE_S,
        )
        try:
            await written(self._clock, lambda done: close(done=done))
        except JournalError as error:
            state, told = "failed", str(error)
            reason = reason if told in reason else f"{reason}; {told}" if reason else told
        else:
            if is_anew:
                self._take_back(at_s)
        self._feed.emit(events.Tallied(at_s, event_text.tally(snapshot)))
        self._feed.emit(events.StateChanged(at_s, state, reason))

    def _end_groups(self, at_s: float, left: Status) -> None:
        for group in [group for group in self._feed.snapshot.groups.values() if not group.lasts]:
            if group.status == "running":
                self._feed.emit(events.GroupEnded(at_s, group.number, left))
            elif group.status == "pending":
                self._feed.emit(events.GroupChanged(at_s, group.number, left, {}))

    def _count_left(self, at_s: float, left: Status, store: run_store.RunStore) -> None:
        """Count what has not run: as it is recorded from an earlier start, else as ``left``."""
        pending = self._feed.snapshot.counts.pending
        for status, items in store.recorded.stale.items():
            if items:
                pending -= items
                self._feed.emit(events.ItemsLeft(at_s, items, status))
        if pending > 0:
            self._feed.emit(events.ItemsLeft(at_s, pending, left))

    def _take_back(self, at_s: float) -> None:
        """Count what was discarded as cancelled; what failed is still told."""
        for group in list(self._feed.snapshot.groups.values()):
            if group.status in ("completed", "skipped"):
                self._feed.emit(events.GroupChanged(at_s, group.number, "cancelled", {}))
        self._feed.emit(events.Planned(at_s, self._spec.name, _nothing_done(self._feed.snapshot)))


def _sort(opened: Opened) -> None:
    todo = sorted(filter(None, opened.source), key=lambda task: task.order)
    opened.source, opened.queued = iter(todo), queued_by_priority(todo)


def _nothing_done(snapshot: Snapshot) -> Counts:
    undone = msgspec.structs.replace(snapshot.counts, running=0)
    undone.cancelled += undone.completed + snapshot.left
    undone.skipped -= snapshot.left
    undone.completed = 0
    return undone
