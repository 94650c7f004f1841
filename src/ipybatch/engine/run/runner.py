"""Runner: the one loop, a pool of workers over the scheduler.

Rule: this file starts attempts and reports how they ended.  Whether one may
start is the scheduler's, what an error means is the judgement's, what is on disk is
the commit queue's.

One worker per slot, for the whole run: a task per item would cost more than
the items.  A worker that finds nothing to start waits in the worker queue;
whoever makes room wakes one, and each that starts something wakes the next.
A slot is taken from the start of an attempt to the commit of its entry.

One subject, hence its length: an attempt from its start to its commit.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import State, Status
from ipybatch.engine.data.items import ItemList
from ipybatch.engine.data.masking import clipped, describe, whole
from ipybatch.engine.data.outcome import Outcome, encode_result
from ipybatch.engine.data.plan import Task
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.data.spec import Spec, StillRunning
from ipybatch.engine.data.user_frames import user_frames
from ipybatch.engine.rules.charges import NO_ITEM
from ipybatch.engine.rules.classify import Kind, culprit
from ipybatch.engine.rules.scheduler import Scheduler, Ticket
from ipybatch.engine.run.feedback import Feedback, why_gave_up, why_opened
from ipybatch.engine.run.judgement import Judgement, judge
from ipybatch.engine.run.permits import CLOSED_S, Permits
from ipybatch.engine.run.slots import CANCELS, TICKET, Pool, Slot, WorkerQueue, refuse_stopped
from ipybatch.engine.run.watchdog import STALLED_S
from ipybatch.engine.store.commit_queue import CommitQueue
from ipybatch.engine.store.journal import PATIENCE_S
from ipybatch.engine.store.resources import Resource
from ipybatch.engine.store.rows import Entry
from ipybatch.engine.store.run_store import RunStore
from ipybatch.errors import JournalError

FOREIGN_CANCEL = "something cancelled all tasks of the event loop: sessions go on, what was tried then is tried again"
ALL_STUCK = "work that ignores its timeout holds every slot: nothing starts until it ends by itself, or you cancel"
SWEPT_PER_S = 50_000  # slots at most, while the session ends
UNTURNED, UNTURNED_S = 16, 0.005  # commits without a turn of the loop, at most, and for how long
Emit = Callable[[events.Event], None]


class Runner:
    """Run a scheduler's tasks until they have all ended, or somebody says stop.

    Attributes:
        state: How it ended; None while it runs.
        left: What becomes of items that have not been tried when it ends early.
        lingering: Attempts that were given up but go on by themselves (threads).
        next_start_s: When something may start at the earliest, as far as is known; inf after a change only.
        kept: What ended with a status in ``keep``.
        is_journal_locked: Whether another program keeps outcomes from being recorded.
    """

    def __init__(  # noqa: PLR0917  # its six collaborators, each of another type
        self,
        spec: Spec,
        scheduler: Scheduler,
        resource: Resource,
        store: RunStore,
        clock: Clock,
        emit: Emit,
        *,
        places: int,
        called: Callable[[Task], str],
        add: Callable[[ItemList], int],
    ) -> None:
        self.spec, self.scheduler, self.resource, self.store = spec, scheduler, resource, store
        self.clock, self.emit = clock, emit
        self._now_s, self._unix_s = clock.now_s, clock.unix_s  # looked up once: four times an item
        self.state: State | None = None
        self.reason = ""
        self.left: Status = "skipped"
        self.lingering, self.next_start_s = 0, math.inf
        self.keep: frozenset[Status] = frozenset()
        self.kept: list[Entry] = []
        self.is_journal_locked = self._is_paused = False
        self.on_outcomes: list[Callable[[list[Outcome]], None]] = []
        self._loop = asyncio.get_running_loop()
        self._commit_queue = CommitQueue(
            store, clock, on_recorded=self._recorded, on_error=self._lose, on_busy=self._wait_for_journal
        )
        self._called = called
        self._permits = Permits(resource, clock, spec, add, opening=scheduler.opening)
        self._feedback = Feedback(resource, spec.retry, clock, emit, store.has_succeeded, scheduler.has_others)
        self._feedback.opening = scheduler.opening
        if scheduler.limit_groups is not None:
            scheduler.limit_groups.held_back = self._permits.held_back
        self._at_once = spec.limits.concurrency
        self._pool = Pool(self._loop, places, self._work)
        self._cancels_again = spec.work.is_coroutine and getattr(spec.backend, "runs_on_loop", False)
        is_limited = bool(spec.limits.also) or spec.limits.asked is not None or spec.work.takes_attempt
        self._probe = self._feedback.probe = spec.work.probe if self._cancels_again else None  # in place of an item
        # Where nothing stands between an attempt and its work, two calls an item are spared.
        self._direct = spec.work.call if self._cancels_again and not is_limited else None
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._worker_queue = WorkerQueue()
        self._taken = 0  # slots
        self._unturned, self._turned_s = 0, -math.inf  # commits since the loop turned, and when it did
        self._latest: Ticket | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._alarm_s, self._sweep_s = -math.inf, math.inf  # by the loop's clock; the latest one
        store.lease.on_lost = lambda error: self._loop.call_soon_threadsafe(self._lose, error)

    @property
    def doubted(self) -> tuple[list[int], str]:
        """The items that failed for good though it was no fault of theirs, by seq, and their kind from now on."""
        return self._feedback.doubt.on_record

    async def run(self) -> None:
        """Run until everything has ended; `state` and `reason` say how."""
        self.resource.wakers.append(self.wake)
        self.resource.tellers.append(self.emit)
        self._sweep()
        try:
            await self.spec.backend.open(self._pool.places)
            self._pool.hire()
            await self._wait_for_workers()
        finally:
            for timer in (self._alarm, self._sweeper):
                if timer is not None:
                    timer.cancel()
            self.resource.wakers.remove(self.wake)
            self.resource.tellers.remove(self.emit)
            await self.spec.backend.close()
        if self.state is None:
            limit_groups = self.scheduler.limit_groups
            self._feedback.doubt.conclude()
            self.reason = self._feedback.doubt.reason or why_gave_up(
                () if limit_groups is None else limit_groups.groups(), self._feedback.last_error
            )
            self.state = "failed" if self.reason else "completed"

    async def _wait_for_workers(self) -> None:
        """Wait for the end of all workers, and of what they recorded. Only `stop` ends that early.

        Work may cancel tasks that are not its own, such as all of the loop.
        """
        idle = self._pool.idle
        while not idle.done() or (self._taken and idle.exception() is None):
            try:
                await (self._worker_queue.wait() if idle.done() else asyncio.wait([idle]))
            except asyncio.CancelledError:
                self._ignore_cancel(asyncio.current_task())
        idle.result()

    def _ignore_cancel(self, task: asyncio.Task[Any] | None) -> None:
        """Go on though somebody cancelled a task of ours, and say so."""
        while task is not None and task.cancelling():
            task.uncancel()
        if self.state is None:
            self._feedback.note("cancel", FOREIGN_CANCEL)

    def stop(self, state: State, reason: str, *, left: Status, kill: bool) -> None:
        """Start nothing more and end in ``state``; with ``kill``, end what runs as well."""
        if self.state is not None:
            return
        self.state, self.reason, self.left = state, reason, left
        self._hold()
        self._stopped.set_result(None)
        self._commit_queue.bound(PATIENCE_S)
        self._permits.close(reason)
        if kill:
            self._pool.cancel()
            if self._cancels_again and self._sweeper is None:
                self._sweep()
        self._worker_queue.wake_all()
        self._pool.end_without_stuck()

    def fail(self, reason: str) -> None:
        """End as failed, also what has run to its end: what comes after the last item belongs to it."""
        if self.state == "completed":
            self.state, self.reason = "failed", reason
        self.stop("failed", reason, left="skipped", kill=True)

    def on_exit(self, error: BaseException, ticket: Ticket | None) -> None:
        """Fail what raised SystemExit or KeyboardInterrupt beside its attempt: that attempt, else the session."""
        text = f"a task or callback of the work raised {describe(error)}"
        for slot in self._pool.slots:
            if ticket is not None and slot.ticket is ticket:
                slot.exited = text
                return
        self.fail(text)

    def hold(self, held: bool) -> None:
        """Pause or resume starting attempts."""
        if self.state is None:
            self._is_paused = self._permits.is_held = held
            self._feedback.resume()
            self._hold()
            self.wake()

    def _hold(self) -> None:
        """Let nothing start that must not; one item may that is to tell whether any can succeed."""
        is_held = self.state is not None or self._is_paused or self.is_journal_locked
        self.scheduler.held = is_held or self._feedback.doubt.state == "asking"
        self.scheduler.lets_one = not is_held and self._feedback.doubt.wants_one

    def _wait_for_journal(self, is_locked: bool) -> None:
        """Start nothing more while another program keeps the journal locked; what has ended is recorded after that."""
        if is_locked and not self.is_journal_locked:
            text = "the journal is locked by another program: nothing new starts until it can be written again"
            self.emit(events.Noted(self.clock.unix_s(), text))
        self.is_journal_locked = is_locked
        self._hold()

    def change(self, limits: Limits) -> None:
        """Let other limits hold from now on, within the places there are."""
        self.spec = msgspec.structs.replace(self.spec, limits=limits)
        self._at_once = limits.concurrency

    def add(self, more: Sequence[Task]) -> None:
        """Let further tasks wait."""
        self.scheduler.add(more)
        self.wake()

    def prioritize(self, tasks: Sequence[Task], priority: int) -> None:
        """Give tasks another priority, and those of them that wait another place."""
        self.scheduler.prioritize(tasks, priority)
        self.wake()

    def wake(self) -> None:
        """Serve attempts that wait for a further permit, else let one parked worker look for something to start."""
        wait_s = self._permits.serve(now_s := self.clock.now_s())
        if wait_s > 0.0:
            self._set_alarm(wait_s)
            self._feedback.adjourn(now_s)
        if not self._permits.holds_all:
            self._worker_queue.wake_one()

    async def _work(self, slot: Slot) -> None:  # noqa: C901, PLR0912  # once an item: coroutines and calls cost more
        """Run one attempt after the other, while there are any."""
        worker, feedback, emit = slot.worker, self._feedback, self.emit
        while self.state is None:
            ticket = self._take()
            if ticket is None:
                if self.scheduler.finished:
                    break
                if self.state is None:
                    await self._rest(worker, None)
                continue
            task = ticket.task
            self._latest = slot.ticket = ticket
            TICKET.set(ticket)
            label = ticket.label = task.label
            emit(events.AttemptStarted(self._unix_s(), label, task.group, task.attempts))
            try:
                if feedback.has_failed and self._is_probe(ticket) and self._probe is not None and not ticket.refused:
                    result = await self._run_after_probe(ticket)
                elif self._direct is None or ticket.refused:
                    result = await self._permits.run(ticket)
                else:
                    result = await self._direct(task.item)
                if slot.stopped_by or slot.exited:
                    refuse_stopped(slot, ticket, result)
                payload = None if result is None else encode_result(result)
            except BaseException as error:  # one bad item fails alone, whatever it raises
                if slot.given_up is not None:
                    self._pool.take_back(slot)
                else:
                    await self._end_failed(slot, ticket, error)
                continue
            slot.ticket = None
            if slot.cancels or ticket.handed is not None:
                slot.end(ticket)
                slot.stopped_by = ""
            now_s = self._now_s()
            self._permits.end(now_s, ticket)
            feedback.has_succeeded = True
            if feedback.has_failed:
                self._succeeded(now_s, ticket, task.seq)
            recorded = self._record(ticket, now_s, "completed", True, "", result, payload)
            if self._latest is not ticket or worker.cancelling():
                await self._rest(worker, recorded)  # attempts that ran side by side share a commit, and go on together
        self._worker_queue.wake_all()

    def _is_probe(self, ticket: Ticket) -> bool:
        """Say whether an attempt is to tell how the service is."""
        self._feedback.tell(ticket)
        if self.scheduler.lets_one:
            ticket.is_asked = True
            self._feedback.doubt.ask()
            self._hold()
            return True
        return ticket.is_probe

    async def _run_after_probe(self, ticket: Ticket) -> Any:
        """Ask the service for something that once succeeded, then run the attempt: its own error is then its own."""
        assert self._probe is not None
        ticket.is_probing, told = True, None
        try:
            told = await self._probe() is not False
        except (Exception, SystemExit) as error:
            judged = judge(error, ticket, self.spec, self.clock, self._feedback.has_ever_succeeded(), False)
            if self.state is not None or not judged.is_of_item:
                raise
            text = f"probe() of the work tells nothing, so an item is asked in its place: {judged.text}"
            self._feedback.note("probe", text)
        ticket.is_probing = False
        if told is False:  # there is nothing to ask for
            return await self._permits.run(ticket)
        if told:
            self._feedback.has_succeeded = True
            self._succeeded(self._now_s(), ticket, NO_ITEM)
            ticket.epoch = 0 if ticket.breaker is None else ticket.breaker.epoch
            self.wake()
        permit = await self._permits.acquire(ticket, ticket.permit.cost)
        try:
            return await self._permits.run(ticket)
        finally:
            self._permits.release(ticket, permit)

    def _succeeded(self, now_s: float, ticket: Ticket, item: int) -> None:
        """Tell of an attempt that the service answered well, after some that failed."""
        self._feedback.succeeded(now_s, ticket, item)
        if self.scheduler.held:
            self._hold()

    async def _rest(self, worker: asyncio.Task[None], recorded: asyncio.Future[None] | None) -> None:
        """Wait for a commit, or until there may be something to start.

        Work may have cancelled the worker, as its own task, or all tasks: that is over with the attempt.
        """
        with suppress(asyncio.CancelledError):
            await (self._worker_queue.wait() if recorded is None else recorded)
        if worker.cancelling():
            self._ignore_cancel(worker)

    async def _end_failed(self, slot: Slot, ticket: Ticket, error: BaseException) -> None:
        """End an attempt that raised, and wait for its commit; of a thread that goes on, for its end too."""
        slot.end(ticket)
        lingering = error.ended if isinstance(error, StillRunning) else None
        recorded = self._failed(slot, ticket, error, lingering)
        slot.stopped_by = ""
        if self.state is None and (self._latest is not ticket or slot.worker.cancelling()):
            await self._rest(slot.worker, recorded)  # at the end of a run only the runner waits for what is recorded
        while lingering is not None and not lingering.done() and not self._stopped.done():
            try:
                await asyncio.wait([lingering, self._stopped], return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                self._ignore_cancel(slot.worker)

    def _take(self) -> Ticket | None:
        if self._taken >= self._at_once and not self._commit_now():
            return None  # the next commit wakes somebody
        now_s, permits, wait_s = self._now_s(), self._permits, math.inf
        if permits.waiting:  # an attempt that is under way goes before one that is not, where both need the same
            wait_s = permits.serve(now_s) or math.inf
        if not permits.holds_all:
            try:
                ticket = self.scheduler.next(now_s)
            except BaseException as error:  # the user's generator
                self.stop("failed", f"the items could not be drawn: {describe(error)}", left="skipped", kill=False)
                return None
            if ticket is not None:
                self._taken += 1
                if not self._worker_queue.parked:
                    if self._pool.workers < self._pool.places:
                        self._pool.hire()
                elif not self._worker_queue.is_waking:
                    self.wake()
                return ticket
            wait_s = min(wait_s, self.scheduler.wait_s)
        self._feedback.wait(now_s, self.scheduler.why)
        self._set_alarm(wait_s)
        return None

    def _commit_now(self) -> bool:
        """Commit what waits, when no attempt runs: a turn of the loop costs as much as an item; return whether it is.

        But not for long, because the loop has more to do.
        """
        now_s = self.clock.now_s()
        if self._unturned >= UNTURNED or now_s > self._turned_s + UNTURNED_S:
            self._unturned, self._turned_s = 0, now_s
            return False
        self._unturned += 1
        return self._commit_queue.commit_now(self._taken)

    def _set_alarm(self, wait_s: float) -> None:
        self.next_start_s = self.clock.now_s() + wait_s
        if wait_s == math.inf:
            return
        wait_s = max(0.0, min(wait_s, CLOSED_S) if self.scheduler.opening.is_limited else wait_s)
        if self._alarm is not None:
            if self._alarm_s <= self._loop.time() + wait_s:
                return
            self._alarm.cancel()
        self._alarm, self._alarm_s = self._loop.call_later(wait_s, self._ring), self._loop.time() + wait_s

    def _ring(self) -> None:
        self._alarm = None
        self.wake()

    def _abandon(self, slot: Slot, ticket: Ticket) -> None:
        """Record an attempt whose work ignores that it is cancelled; like a thread, it keeps its slot until it ends."""
        self._pool.set_aside(slot)
        slot.end(ticket)
        self._failed(slot, ticket, asyncio.CancelledError(), slot.given_up)
        if self.state is not None:
            self._pool.end_without_stuck()
        elif self._pool.stuck == self._pool.places:
            self.emit(events.Noted(self.clock.unix_s(), ALL_STUCK))

    def _failed(
        self, slot: Slot, ticket: Ticket, error: BaseException, lingering: asyncio.Future[Any] | None
    ) -> asyncio.Future[None]:
        now_s = self.clock.now_s()
        if lingering is None:
            self._permits.end(now_s, ticket)
        else:  # its request may still be on its way: the permit stays taken
            self.lingering += 1
            lingering.add_done_callback(lambda _: self._linger_no_more(ticket))
        if slot.stopped_by == "cancel":
            self._feedback.cancelled(ticket)
            self._hold()
            return self._record(ticket, now_s, "cancelled", False, "cancelled")
        has_succeeded, is_overrun = self._feedback.has_ever_succeeded(), slot.stopped_by == "timeout"
        judged = judge(error, ticket, self.spec, self.clock, has_succeeded, is_overrun)
        verdict, text = judged.verdict, judged.text
        error = culprit(error)
        following = self._feedback.failed(now_s, ticket, error, judged)
        is_last = following.is_last
        self._hold()
        if following.over:
            kill = verdict.kind is not Kind.WITHHELD and verdict.ends_session
            self.stop("failed", following.over, left="skipped", kill=kill)
        elif ticket.breaker is not None and ticket.breaker.gave_up:
            is_last = self._give_up(now_s, ticket, text) or is_last
        if not is_last and (self.state is None or self.left == "skipped"):
            return self._retry(now_s, ticket, following.wait_s, text)
        received, is_final = (judged.result, judged.payload), verdict.kind is Kind.PERMANENT
        if verdict.kind in (Kind.WITHHELD, Kind.HELD):
            return self._record(ticket, now_s, "skipped", False, text, *received, judged)
        status: Status = "timeout" if verdict.kind is Kind.TIMEOUT else "failed"
        if self.spec.on_failure != "continue" and not verdict.ends_session:
            reason = f"{self._called(ticket.task)} {status}: {text}"
            self.stop("failed", reason, left="skipped", kill=self.spec.on_failure == "rollback")
        return self._record(ticket, now_s, status, is_final, whole(text, error), *received, judged, user_frames(error))

    def _give_up(self, now_s: float, ticket: Ticket, text: str) -> bool:
        """Leave a service alone: that of one limit group, and the others go on, or that of all.

        Returns:
            Whether it is rather the item's fault: so few have failed that nothing else was left to try.
        """
        breaker, limit_groups = ticket.breaker, self.scheduler.limit_groups
        assert breaker is not None
        if self._feedback.has_succeeded and not self._feedback.charges.is_outage(breaker):
            return True
        if limit_groups is None:
            self.stop("failed", why_opened(breaker, text), left="skipped", kill=False)
        elif not (limit_group := limit_groups.by_name[ticket.limit_group]).gave_up:
            self.scheduler.give_up(now_s, ticket.limit_group)
            told = f"{why_gave_up(limit_group.gone, text)}; what is left of it is skipped, the others go on"
            self.emit(events.Noted(self.clock.unix_s(), told))
        return False

    def _retry(self, now_s: float, ticket: Ticket, wait_s: float, text: str) -> asyncio.Future[None]:
        task = ticket.task
        self.scheduler.retry(now_s + wait_s, task)
        at_s, wait_s = self.clock.unix_s(), max(0.0, wait_s, ticket.limiter.cool_until_s - now_s)
        self.emit(events.AttemptFailed(at_s, task.label, task.group, task.attempts, text, wait_s))
        return self._record(ticket, now_s, "pending", False, text)

    def _record(  # noqa: PLR0917  # once an item: keywords cost more
        self,
        ticket: Ticket,
        now_s: float,
        status: Status,
        final: bool,
        error: str,
        result: Any = None,
        payload: bytes | None = None,
        judged: Judgement | None = None,
        traceback: str = "",
    ) -> asyncio.Future[None]:
        task = ticket.task
        return self._commit_queue.add(
            Entry(
                task,
                ticket.label,
                task.attempts,
                status,
                final,
                result,
                payload,
                self._unix_s(),
                now_s - ticket.permit.started_s - ticket.waited_s,
                error,
                "" if judged is None else judged.kind,
                "" if judged is None else judged.advice,
                traceback,
                "" if judged is None else judged.verdict.scope,
            )
        )

    def _recorded(self, entries: list[Entry]) -> None:
        now_s, unix_s = self.clock.now_s(), self.clock.unix_s()
        scheduler, keep, emit = self.scheduler, self.keep, self.emit
        charges = self._feedback.charges if self._feedback.has_failed else None
        if charges is not None:
            self.store.leave_open(self._feedback.doubt.in_question, unix_s)
        for entry in entries:
            status, task = entry.status, entry.task
            if status == "pending":
                continue
            if charges is not None:
                charges.settle(task.seq, has_succeeded=status == "completed")
            if keep and status in keep and not task.refused:
                self.kept.append(entry)
            if task.group:
                scheduler.settle(now_s, task, failed=status != "completed")
            else:
                scheduler.unsettled -= 1
            error, kind, seconds = clipped(entry.error), entry.kind, entry.seconds
            emit(events.ItemEnded(unix_s, entry.label, task.group, status, entry.attempts, seconds, error, kind))
            if task.group:
                self._end_group(unix_s, task)
        if self.on_outcomes:
            self._tell_outcomes([entry.outcome() for entry in entries if entry.status != "pending"])
        self._taken -= len(entries)
        self.wake()
        if self._pool.stuck and self.scheduler.finished:
            self._pool.end_without_stuck()

    def _end_group(self, unix_s: float, task: Task) -> None:
        batch = self.scheduler.batch
        if not batch.unsettled and batch.number == task.group:
            self.emit(events.GroupEnded(unix_s, task.group, "failed" if batch.failed == batch.items else "completed"))

    def _tell_outcomes(self, outcomes: list[Outcome]) -> None:
        for listener in tuple(self.on_outcomes):
            try:
                listener(outcomes)
            except BaseException as error:  # a listener that raises, or exits, must not stop the run
                with suppress(ValueError):  # it has gone by itself
                    self.on_outcomes.remove(listener)
                text = f"a listener was dropped: it raised {describe(error)}"
                self.emit(events.Noted(self.clock.unix_s(), text, "listener"))

    def _lose(self, error: JournalError, entries: Sequence[Entry] = ()) -> None:
        """End the session; what could not be recorded counts as not done."""
        if entries and self.state is not None:  # it was ending anyway: not well, as it turns out
            self.state, self.reason = "failed", str(error)
        self.stop("failed", str(error), left="skipped", kill=True)
        for entry in entries:
            if entry.status != "pending":
                task = entry.task
                self.kept += [entry] if self.keep else []
                at_s = self.clock.unix_s()
                self.emit(events.AttemptFailed(at_s, task.label, task.group, entry.attempts, "not recorded", 0.0))
        self._taken -= len(entries)
        self.wake()

    def _linger_no_more(self, ticket: Ticket) -> None:
        self.lingering -= 1
        self._permits.end(self.clock.now_s(), ticket)
        self.wake()

    def _sweep(self) -> None:
        """Cancel attempts that overran, and those that go on though they were cancelled.

        One timer for all of them costs less than one each.
        """
        timeout_s, now_s = self.spec.timeout_s, self.clock.now_s()
        late_s, self._sweep_s = now_s - self._sweep_s, now_s
        for slot in self._pool.slots:
            ticket = slot.ticket
            if ticket is None:
                continue
            if late_s > STALLED_S:  # the loop did not turn: that is no time of the attempt's
                ticket.waited_s += min(late_s, ticket.ran_s(now_s))
            if slot.stopped_by:
                if self._cancels_again:
                    slot.stop_again(now_s)
                    if slot.cancels > CANCELS:
                        self._abandon(slot, ticket)
            elif timeout_s is not None and ticket.ran_s(now_s) >= timeout_s:
                slot.stop("timeout")
        if timeout_s is not None:
            self._sweeper = self._loop.call_later(min(0.05, max(0.002, timeout_s / 20)), self._sweep)
        elif self.state is not None:
            self._sweeper = self._loop.call_later(max(0.05, len(self._pool.slots) / SWEPT_PER_S), self._sweep)
