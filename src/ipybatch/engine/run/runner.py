"""Runner: the one loop, a pool of workers over the scheduler.

Rule: this file starts attempts and reports how they ended.  Whether one may
start is the scheduler's, what an error means is `retry`'s, what is on disk is
the commit queue's.

One worker per slot, for the whole run: a task per item would cost more than
the items.  A worker that finds nothing to start waits in the worker queue;
whoever makes room wakes one, and each that starts something wakes the next.
A slot is taken from the start of an attempt to the commit of its entry.

One subject, hence its length: an attempt from its start to its commit, with
what its end tells the breaker and the limiter (`Feedback`).
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import State, Status
from ipybatch.engine.data.masking import OTHER_LOOP, OTHER_LOOP_HINT, describe, mask
from ipybatch.engine.data.outcome import Outcome, encode_result
from ipybatch.engine.data.plan import Task, label_of
from ipybatch.engine.data.policy import Limits, Retry
from ipybatch.engine.data.spec import Spec, StillRunning
from ipybatch.engine.rules import retry
from ipybatch.engine.rules.breaker import CircuitBreaker
from ipybatch.engine.rules.limiter import NO_COST, LimitGroup
from ipybatch.engine.rules.retry import Kind, Verdict
from ipybatch.engine.rules.scheduler import Scheduler, Ticket
from ipybatch.engine.run.permits import Permits
from ipybatch.engine.store.commit_queue import CommitQueue
from ipybatch.engine.store.resources import Resource
from ipybatch.engine.store.rows import Entry
from ipybatch.engine.store.run_store import BEAT_S, RunStore
from ipybatch.errors import ItemError, JournalError


class WorkerQueue:
    """Workers that found nothing to start.

    One is woken at a time: all of them look for the same thing, so where one finds nothing, the next would not either,
    and one that starts something wakes the next.
    """

    def __init__(self) -> None:
        self._parked: list[asyncio.Future[None]] = []
        self._is_waking = False  # one that was woken has not looked yet

    @property
    def wants_waking(self) -> bool:
        """Whether to wake one makes a difference."""
        return bool(self._parked) and not self._is_waking

    async def wait(self) -> None:
        """Wait until woken."""
        parked = asyncio.get_running_loop().create_future()
        self._parked.append(parked)
        await parked
        self._is_waking = False

    def wake_one(self) -> None:
        """Let one of them look, unless one is about to."""
        while self._parked and not self._is_waking:
            self._is_waking = _wake(self._parked.pop())

    def wake_all(self) -> None:
        """Let all of them look."""
        for parked in self._parked:
            _wake(parked)
        self._parked.clear()


def _wake(parked: asyncio.Future[None]) -> bool:
    if not parked.done():  # else its loop is being closed
        parked.set_result(None)
        return True
    return False


class Feedback(msgspec.Struct):
    """What the end of an attempt tells the breaker and the limiter.

    A 429 cools the resource down and is no failure; timeouts, lost connections and 5xx are failures of the service;
    cancellations and errors of the item itself prove nothing.
    """

    resource: Resource
    policy: Retry
    clock: Clock
    emit: Callable[[events.Event], None]
    on_cool_down: Callable[[float, str], None]
    _told: dict[str, int] = msgspec.field(default_factory=dict)  # moves of the breaker, by limit group
    _depleted_s: float = -math.inf

    def succeeded(self, now_s: float, ticket: Ticket) -> None:
        """Count an attempt that the service answered well."""
        if ticket.limiter.cool_downs:
            ticket.limiter.warm_up()
        breaker = ticket.breaker
        if breaker is not None and (breaker.failures or breaker.openings):
            breaker.succeed(now_s, ticket.epoch)
            self.tell(ticket)

    def failed(self, now_s: float, ticket: Ticket, verdict: Verdict | None) -> None:
        """Count an attempt that failed; without a verdict it was cancelled."""
        if ticket.breaker is not None:
            if verdict is not None and verdict.counts:
                ticket.breaker.fail(now_s, ticket.epoch)
            else:
                ticket.breaker.release(ticket.epoch)
            self.tell(ticket)
        if verdict is not None:
            self._cool_down(now_s, ticket, verdict)

    def wait(self, now_s: float, why: str) -> None:
        """Publish that the limits are used up, once a window."""
        if why == "limit":
            shortest_s = min((rate.per_s for rate in self.resource.limiter.windows), default=1.0)
            if now_s >= self._depleted_s + shortest_s:
                self._depleted_s = now_s
                self.emit(events.Depleted(self.clock.unix_s()))

    def tell(self, ticket: Ticket) -> None:
        """Publish the breaker of an attempt, if it moved."""
        breaker = ticket.breaker
        if breaker is None or breaker.moves == self._told.get(ticket.limit_group, 0):
            return
        self._told[ticket.limit_group] = breaker.moves
        at_s = self.clock.unix_s()
        probe_at_s = at_s + breaker.wait_s(self.clock.now_s()) if breaker.state == "open" else 0.0
        self.emit(
            events.BreakerMoved(
                at_s, breaker.state, breaker.failures, breaker.openings, probe_at_s, label_of(ticket.limit_group)
            )
        )

    def _cool_down(self, now_s: float, ticket: Ticket, verdict: Verdict) -> None:
        wait_s = verdict.retry_after_s
        if wait_s is None:
            if verdict.kind is not Kind.RATE_LIMITED:
                return
            wait_s = retry.cool_down_s(self.policy, ticket.limiter.cool_downs, self.clock.unix_s())
        if ticket.limiter.cool_down(now_s, ticket.permit.started_s, wait_s):
            until_s = self.clock.unix_s() + wait_s
            self.on_cool_down(until_s, ticket.limit_group)
            reason = "the service asked us to slow down"
            self.emit(events.CooledDown(self.clock.unix_s(), until_s, reason, label_of(ticket.limit_group)))


Emit = Callable[[events.Event], None]


class Slot:
    """A worker and what it is doing.

    Attributes:
        ticket: None between attempts: then it must not be cancelled.
        stopped_by: Why its attempt was cancelled by us: "", "timeout" or "cancel".
    """

    def __init__(self, worker: asyncio.Task[None]) -> None:
        self.worker = worker
        self.ticket: Ticket | None = None
        self.stopped_by = ""

    def stop(self, why: str) -> None:
        """Cancel the attempt, if one is running; what is paid for may go on until its timeout."""
        ticket = self.ticket
        if ticket is None or self.stopped_by:
            return
        if why == "timeout" or ticket.handed is None or not ticket.handed.is_billed:
            self.stopped_by = why
            self.worker.cancel()


class Runner:
    """Run a scheduler's tasks until they have all ended, or somebody says stop.

    Attributes:
        state: How it ended; None while it runs.
        left: What becomes of items that have not been tried when it ends early.
        lingering: Attempts that were given up but go on by themselves (threads).
        next_start_s: When something may start at the earliest, as far as is known; inf after a change only.
        kept: What ended with a status in ``keep``.
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
        add: Callable[[Iterable[Any]], int],
    ) -> None:
        self.spec, self.scheduler, self.resource, self.store = spec, scheduler, resource, store
        self.clock, self.emit = clock, emit
        self.state: State | None = None
        self.reason = ""
        self.left: Status = "skipped"
        self.lingering = 0
        self.next_start_s = math.inf
        self.keep: frozenset[Status] = frozenset()
        self.kept: list[Entry] = []
        self.on_outcomes: list[Callable[[list[Outcome]], None]] = []
        self._loop = asyncio.get_running_loop()
        self._commit_queue = CommitQueue(store, clock, on_recorded=self._recorded, on_error=self._lose)
        self._called, self._random = called, random.Random()
        self._permits = Permits(resource, store, clock, spec, places, add)
        self._feedback = Feedback(resource, spec.retry, clock, emit, on_cool_down=self._permits.keep_cool)
        if scheduler.limit_groups is not None:
            scheduler.limit_groups.held_back = self._permits.held_back
        self._places = places  # among which the limits may let all be used: one worker each, and most of them wait
        self._slots: list[Slot] = []
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._worker_queue = WorkerQueue()
        self._taken = 0  # slots
        self._latest: Ticket | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._heart: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Run until everything has ended; `state` and `reason` say how."""
        self.resource.wakers.append(self.wake)
        self._sweep()
        self._beat()
        try:
            await self.spec.backend.open(self._places)
            pool = [self._loop.create_task(self._work()) for _ in range(self._places)]
            await asyncio.gather(*pool)
            while self._taken:
                await self._worker_queue.wait()
        finally:
            for timer in (self._alarm, self._sweeper, self._heart):
                if timer is not None:
                    timer.cancel()
            self.resource.wakers.remove(self.wake)
            await self.spec.backend.close()
        if self.state is None:
            self.reason = _gave_up([] if self.scheduler.limit_groups is None else self.scheduler.limit_groups.all())
            self.state = "failed" if self.reason else "completed"

    def stop(self, state: State, reason: str, *, left: Status, kill: bool) -> None:
        """Start nothing more and end in ``state``; with ``kill``, end what runs as well."""
        if self.state is not None:
            return
        self.state, self.reason, self.left = state, reason, left
        self.scheduler.held = True
        self._stopped.set_result(None)
        self._permits.close(reason)
        if kill:
            for slot in self._slots:
                slot.stop("cancel")
        self._worker_queue.wake_all()

    def fail(self, reason: str) -> None:
        """End as failed, also what has run to its end: what comes after the last item belongs to it."""
        if self.state == "completed":
            self.state, self.reason = "failed", reason
        self.stop("failed", reason, left="skipped", kill=True)

    def hold(self, held: bool) -> None:
        """Pause or resume starting attempts."""
        if self.state is None:
            self.scheduler.held = self._permits.is_held = held
            self.wake()

    def change(self, limits: Limits) -> None:
        """Let other limits hold from now on, within the places there are."""
        self.spec = msgspec.structs.replace(self.spec, limits=limits)

    def reorder(self, more: Iterable[Task] = ()) -> None:
        """Let what waits stand in the order that its tasks have now, with ``more`` among it."""
        self.scheduler.reorder(more)
        self.wake()

    def wake(self) -> None:
        """Serve attempts that wait for a further permit, else let one parked worker look for something to start."""
        wait_s = self._permits.serve(self.clock.now_s())
        if wait_s > 0.0:
            self._set_alarm(wait_s)
        if not self._permits.holds_all:
            self._worker_queue.wake_one()

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        slot = Slot(worker)
        self._slots.append(slot)
        while self.state is None:
            ticket = self._take()
            if ticket is not None:
                await self._attempt(slot, ticket)
            elif self.scheduler.finished:
                break
            elif self.state is None:
                await self._worker_queue.wait()
        self._worker_queue.wake_all()

    def _take(self) -> Ticket | None:
        if self._taken >= self.spec.limits.concurrency:
            return None  # the next commit wakes somebody
        now_s = self.clock.now_s()
        # An attempt that is under way goes before one that is not, where both need the same.
        wait_s = self._permits.serve(now_s) if self._permits.waiting else math.inf
        if not self._permits.holds_all:
            try:
                ticket = self.scheduler.next(now_s)
            except Exception as error:  # the user's generator, or cost= function
                self.stop("failed", f"the items could not be drawn: {describe(error)}", left="skipped", kill=False)
                return None
            if ticket is not None:
                self._taken += 1
                if self._worker_queue.wants_waking:
                    self.wake()
                return ticket
            wait_s = min(wait_s or math.inf, self.scheduler.wait_s)
        self._feedback.wait(now_s, self.scheduler.why)
        self._set_alarm(wait_s)
        return None

    def _set_alarm(self, wait_s: float) -> None:
        self.next_start_s = self.clock.now_s() + wait_s
        if wait_s == math.inf:
            return
        when_s = self._loop.time() + wait_s
        if self._alarm is not None:
            if self._alarm.when() <= when_s:
                return
            self._alarm.cancel()
        self._alarm = self._loop.call_at(when_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.wake()

    async def _attempt(self, slot: Slot, ticket: Ticket) -> None:
        task = ticket.task
        self._latest = slot.ticket = ticket
        slot.stopped_by = ""
        self.emit(events.AttemptStarted(self.clock.unix_s(), task.label, task.group, task.attempts))
        breaker = ticket.breaker
        if breaker is not None and breaker.state != "closed":
            self._feedback.tell(ticket)  # this attempt is the probe
        lingering: asyncio.Future[Any] | None = None
        try:
            result = await self._permits.run(ticket)
            slot.ticket = None
            payload = None if result is None else encode_result(result)
        except BaseException as error:  # one bad item fails alone, whatever it raises
            slot.ticket = None
            if isinstance(error, asyncio.CancelledError) and slot.stopped_by:
                slot.worker.uncancel()
            lingering = error.ended if isinstance(error, StillRunning) else None
            recorded = self._failed(slot, ticket, error, lingering)
        else:
            now_s = self.clock.now_s()
            self._permits.end(now_s, ticket)
            if ticket.limiter.cool_downs or (breaker is not None and (breaker.failures or breaker.openings)):
                self._feedback.succeeded(now_s, ticket)
            recorded = self._record(ticket, now_s, "completed", "", True, result, payload)
        if self._latest is not ticket:
            await recorded  # attempts that ran side by side share a commit, and go on together
        if lingering is not None:
            await asyncio.wait([lingering, self._stopped], return_when=asyncio.FIRST_COMPLETED)

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
            self._feedback.failed(now_s, ticket, None)
            return self._record(ticket, now_s, "cancelled", "cancelled", False)
        verdict, text = self._judge(slot, error)
        kind, advice = _said_by(error, verdict.kind.value)
        self._feedback.failed(now_s, ticket, verdict)
        gave_up = ticket.breaker is not None and ticket.breaker.gave_up
        if verdict.kind is Kind.REFUSED or verdict.kind is Kind.WITHHELD:
            self.stop("failed", text, left="skipped", kill=verdict.kind is Kind.REFUSED)
        elif gave_up:
            self._give_up(now_s, ticket)
        if self.state is None and not gave_up and not retry.is_last(self.spec.retry, ticket.task.attempts, verdict):
            return self._retry(now_s, ticket, verdict, text)
        if verdict.kind is Kind.WITHHELD:
            return self._record(ticket, now_s, "skipped", text, False, kind=kind, advice=advice)
        final = verdict.kind is Kind.PERMANENT
        status: Status = "timeout" if verdict.kind is Kind.TIMEOUT else "failed"
        if self.spec.on_failure != "continue" and verdict.kind is not Kind.REFUSED:
            reason = f"{self._called(ticket.task)} {status}: {text}"
            self.stop("failed", reason, left="skipped", kill=self.spec.on_failure == "rollback")
        return self._record(ticket, now_s, status, text, final, kind=kind, advice=advice)

    def _give_up(self, now_s: float, ticket: Ticket) -> None:
        """Leave a service alone: that of one limit group, and the others go on, or that of all."""
        assert ticket.breaker is not None
        limit_groups = self.scheduler.limit_groups
        if limit_groups is None:
            self.stop("failed", _opened(ticket.breaker), left="skipped", kill=False)
        elif not (limit_group := limit_groups.by_name[ticket.limit_group]).gave_up:
            self.scheduler.give_up(now_s, ticket.limit_group)
            text = f"{_gave_up([limit_group])}; what is left of it is skipped, the others go on"
            self.emit(events.Noted(self.clock.unix_s(), text))

    def _judge(self, slot: Slot, error: BaseException) -> tuple[Verdict, str]:
        if slot.stopped_by == "timeout":
            return Verdict(Kind.TIMEOUT), f"Exceeded {self.spec.timeout_s:g} s"
        if isinstance(error, RuntimeError) and OTHER_LOOP.search(str(error)):
            return Verdict(Kind.REFUSED), OTHER_LOOP_HINT
        return retry.classify(error, self.spec.retry, self.clock.unix_s()), describe(error)

    def _retry(self, now_s: float, ticket: Ticket, verdict: Verdict, text: str) -> asyncio.Future[None]:
        task = ticket.task
        ready_s = now_s
        if verdict.counts and verdict.retry_after_s is None:
            ready_s += retry.back_off_s(self.spec.retry, ticket.task.attempts, self._random)
        self.scheduler.retry(ready_s, task)
        wait_s = max(ready_s, ticket.limiter.cool_until_s) - now_s
        self.emit(
            events.AttemptFailed(self.clock.unix_s(), task.label, task.group, task.attempts, text, max(0.0, wait_s))
        )
        return self._record(ticket, now_s, "pending", text, False)

    def _record(  # noqa: PLR0917  # once an item: keywords cost more
        self,
        ticket: Ticket,
        now_s: float,
        status: Status,
        error: str,
        final: bool,
        result: Any = None,
        payload: bytes | None = None,
        kind: str = "",
        advice: str = "",
    ) -> asyncio.Future[None]:
        task, seconds = ticket.task, now_s - ticket.permit.started_s
        spent = self._permits.spent(ticket) if ticket.limiter.units else NO_COST
        at_s = self.clock.unix_s()
        return self._commit_queue.add(
            Entry(
                task,
                task.attempts,
                status,
                final,
                result,
                payload,
                at_s,
                seconds,
                error,
                spent,
                ticket.limit_group,
                kind,
                advice,
            )
        )

    def _recorded(self, entries: list[Entry]) -> None:
        now_s, unix_s = self.clock.now_s(), self.clock.unix_s()
        ended = [entry for entry in entries if entry.status != "pending"]
        for entry in ended:
            self._settle(now_s, unix_s, entry)
        if self.on_outcomes:
            self._tell_outcomes([entry.outcome() for entry in ended])
        self._taken -= len(entries)
        self.wake()

    def _tell_outcomes(self, outcomes: list[Outcome]) -> None:
        for listener in tuple(self.on_outcomes):
            try:
                listener(outcomes)
            except Exception as error:  # a listener that raises must not stop the run
                self.on_outcomes.remove(listener)
                text = f"a listener was dropped: it raised {describe(error)}"
                self.emit(events.Noted(self.clock.unix_s(), text, "listener"))

    def _settle(self, now_s: float, unix_s: float, entry: Entry) -> None:
        task, status, batch = entry.task, entry.status, self.scheduler.batch
        if self.keep and status in self.keep and not task.refused:
            self.kept.append(entry)
        self.scheduler.settle(now_s, task, failed=status != "completed")
        self.emit(
            events.ItemEnded(
                unix_s, task.label, task.group, status, entry.attempts, entry.seconds, entry.error, entry.kind
            )
        )
        if task.group and not batch.unsettled and batch.number == task.group:
            self.emit(events.GroupEnded(unix_s, task.group, "failed" if batch.failed == batch.items else "completed"))

    def _lose(self, error: JournalError, entries: Sequence[Entry] = ()) -> None:
        """End the session; what could not be recorded counts as not done."""
        self.stop("failed", str(error), left="skipped", kill=True)
        for entry in entries:
            if entry.status != "pending":
                task = entry.task
                at_s = self.clock.unix_s()
                self.emit(events.AttemptFailed(at_s, task.label, task.group, entry.attempts, "not recorded", 0.0))
        self._taken -= len(entries)
        self.wake()

    def _linger_no_more(self, ticket: Ticket) -> None:
        self.lingering -= 1
        self._permits.end(self.clock.now_s(), ticket)

    def _sweep(self) -> None:
        """Cancel attempts that overran: one timer for all of them costs less than one each."""
        timeout_s = self.spec.timeout_s
        if timeout_s is None:
            return
        over_s = self.clock.now_s() - timeout_s
        for slot in self._slots:
            if slot.ticket is not None and slot.ticket.permit.started_s <= over_s:
                slot.stop("timeout")
        self._sweeper = self._loop.call_later(min(0.05, max(0.002, timeout_s / 20)), self._sweep)

    def _beat(self) -> None:
        """Renew the lease while nothing is recorded."""

        def answer(error: JournalError | None) -> None:
            if error is not None:
                self._loop.call_soon_threadsafe(self._lose, error)

        self.store.beat(self.clock.unix_s(), answer)
        self._heart = self._loop.call_later(BEAT_S, self._beat)


def _opened(breaker: CircuitBreaker) -> str:
    times = breaker.openings
    return f"the service failed: the breaker opened {times} times in a row" if times > 1 else "the breaker opened"


def _gave_up(limit_groups: Iterable[LimitGroup]) -> str:
    """Return which limit groups gave up, and why; "" when none has."""
    gone = [limit_group for limit_group in limit_groups if limit_group.gave_up]
    if not gone:
        return ""
    names = ", ".join([limit_group.label for limit_group in gone[:_NAMED]])
    more = f" and {len(gone) - _NAMED:,} more" if len(gone) > _NAMED else ""
    breaker = gone[0].breaker
    assert breaker is not None
    return f"limit group{'' if len(gone) == 1 else 's'} {names}{more}: {_opened(breaker)}"


_NAMED = 5  # limit groups in a reason


def _said_by(error: BaseException, otherwise: str) -> tuple[str, str]:
    """Return an error's own kind and advice, where it has any that are texts."""
    try:
        kind, advice = (error.kind, error.advice) if isinstance(error, ItemError) else (otherwise, "")
    except Exception:  # a property of the user's class
        return otherwise, ""
    return kind if isinstance(kind, str) else otherwise, mask(advice) if isinstance(advice, str) else ""
