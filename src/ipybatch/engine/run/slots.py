"""Slots: the workers of a run, and how the attempt that one runs is stopped.

Rule: what was stopped is never recorded as completed, unless it is paid for.
Work that catches that it is cancelled, on purpose or by a bare ``except``, is
cancelled again and again, and in the end left to itself, like a thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Callable, Coroutine
from typing import Any

from ipybatch.engine.rules.scheduler import Ticket
from ipybatch.errors import Permanent

AGAIN_S = 0.25  # from one cancel to the next: work may need some time to clean up
AT_ONCE = 100  # attempts cancelled in one turn of the loop, which has more to do: the others hear of it in the next
MANY = 1000  # slots
MANY_S = 5.0  # longest time without a collection
CANCELS = 20  # then it is left to itself

TICKET: contextvars.ContextVar[Ticket | None] = contextvars.ContextVar("ticket", default=None)


class Slot:
    """A worker and what it is doing.

    Attributes:
        ticket: None between attempts: then it must not be cancelled.
        stopped_by: Why its attempt was cancelled by us: "", "timeout" or "cancel".
        cancels: How often it was.
        exited: What a task or a callback of its attempt raised beside it; "" for nothing.
        given_up: Set while the work goes on though its attempt has its outcome: it ignores that it is cancelled.
    """

    worker: asyncio.Task[None]

    def __init__(self) -> None:
        self.ticket: Ticket | None = None
        self.stopped_by = ""
        self.cancels = 0
        self.exited = ""
        self.given_up: asyncio.Future[None] | None = None
        self._cancelled_s = 0.0

    def stop(self, why: str) -> None:
        """Cancel the attempt, if one is running; what is paid for may go on until its timeout."""
        ticket = self.ticket
        if ticket is None or self.stopped_by:
            return
        if why == "timeout" or ticket.handed is None or not ticket.handed.is_billed:
            self.stopped_by = why
            self.cancels = 1
            self.worker.cancel()

    def stop_again(self, now_s: float) -> None:
        """Cancel work that goes on though it was cancelled: it caught that, on purpose or by a bare ``except``."""
        if self.cancels == 1 and not self._cancelled_s:
            self._cancelled_s = now_s  # it may be cleaning up
        elif now_s >= self._cancelled_s + AGAIN_S:
            self._cancelled_s = now_s
            self.cancels += 1
            self.worker.cancel()

    def end(self, ticket: Ticket) -> None:
        """Forget the attempt, and that it was cancelled; it asks for nothing more."""
        self.ticket, self.exited = None, ""
        while self.cancels:
            self.worker.uncancel()
            self.cancels -= 1
        self._cancelled_s = 0.0
        if ticket.handed is not None:
            ticket.handed._close()


def refuse_stopped(slot: Slot, ticket: Ticket, result: Any) -> None:
    """Refuse a result of work that was stopped: what it returns then is not what it would have returned.

    What is paid for is kept.

    Raises:
        CancelledError: The work caught that it was cancelled.
        Permanent: A task or a callback that it started raised SystemExit or KeyboardInterrupt.
    """
    is_paid = result is not None and ticket.handed is not None and ticket.handed.is_billed
    if slot.given_up is not None or (slot.stopped_by and not is_paid):
        raise asyncio.CancelledError
    if slot.exited:
        raise Permanent(slot.exited)


class WorkerQueue:
    """Workers that found nothing to start.

    One is woken at a time: where one finds nothing, the next would not; one that starts something wakes the next.

    Attributes:
        parked: What they wait for.
        is_waking: Whether one that was woken has not looked yet.
    """

    def __init__(self) -> None:
        self.parked: list[asyncio.Future[None]] = []
        self.is_waking = False

    async def wait(self) -> None:
        """Wait until woken."""
        parked = asyncio.get_running_loop().create_future()
        self.parked.append(parked)
        try:
            await parked
        finally:
            self.is_waking = False

    def wake_one(self) -> None:
        """Let one of them look, unless one is about to."""
        while self.parked and not self.is_waking:
            self.is_waking = _wake(self.parked.pop())

    def wake_all(self) -> None:
        """Let all of them look."""
        for parked in self.parked:
            _wake(parked)
        self.parked.clear()


def _wake(parked: asyncio.Future[None]) -> bool:
    if not parked.done():  # else its loop is being closed
        parked.set_result(None)
        return True
    return False


def _let_age() -> None:
    """Count all objects as old ones: thousands of attempts that wait live long.

    Else Python looks at all that lives again and again while they come, a quarter of a second each time.
    """
    if gc.isenabled() and not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()


class Pool:
    """The workers of a run, made as they are needed, up to the places there are.

    Attributes:
        slots: Of all workers.
        places: The most workers there may be.
        workers: How many have not ended; ``stuck`` of them run work that ignores that it is cancelled.
        idle: Done when all others have ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, places: int, work: Callable[[Slot], Coroutine[Any, Any, None]]):
        self.slots: list[Slot] = []
        self.places = places
        self.workers = self.stuck = 0
        self.idle: asyncio.Future[None] = loop.create_future()
        self._loop, self._work = loop, work

    def hire(self) -> None:
        """Start a worker."""
        slot = Slot()
        self.slots.append(slot)
        self.workers += 1
        if self.workers % AT_ONCE == 0:
            _let_age()
        slot.worker = self._loop.create_task(self._work(slot))
        slot.worker.add_done_callback(self._on_end)

    def cancel(self, begin: int = 0) -> None:
        """Cancel what runs, from the ``begin``-th slot on.

        Python collects no garbage until many have ended: it would look at all of them again and again, which takes as
        long as to cancel them.
        """
        if begin == 0 and len(self.slots) > MANY and gc.isenabled() and not self.idle.done():
            gc.disable()
            self.idle.add_done_callback(lambda _: gc.enable())
            self._loop.call_later(MANY_S, gc.enable)  # billed calls may go on for long
        for slot in self.slots[begin : begin + AT_ONCE]:
            slot.stop("cancel")
        if begin + AT_ONCE < len(self.slots):
            self._loop.call_soon(self.cancel, begin + AT_ONCE)

    def set_aside(self, slot: Slot) -> None:
        """Go on without a worker, until its work has ended."""
        slot.given_up = self._loop.create_future()
        self.stuck += 1

    def take_back(self, slot: Slot) -> None:
        """Count on a worker again: its work has ended at last."""
        assert slot.given_up is not None
        if not self._loop.is_closed():
            self.stuck -= 1
            slot.given_up.set_result(None)
        slot.given_up, slot.stopped_by = None, ""

    def end_without_stuck(self) -> None:
        """End when nobody is left but the stuck."""
        if self.workers == self.stuck and not self.idle.done():
            self.idle.set_result(None)

    def _on_end(self, worker: asyncio.Task[None]) -> None:
        self.workers -= 1
        error = None if worker.cancelled() else worker.exception()
        if error is not None and not self.idle.done():
            self.idle.set_exception(error)
        self.end_without_stuck()
