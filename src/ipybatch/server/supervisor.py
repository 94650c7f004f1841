"""Supervisor: which submission runs next, and in which kernel.

Rule: it keeps nothing that the journal does not tell; a server that starts
anew, or another one, goes on from there.

    `claim` --> start a kernel --> one constant line in the foreground --> its reply --> shut it down
       beat every second, until the kernel has taken the row ... then look whether it stands

Several servers look at one journal; `Submissions.claim` lets one of them have
each start.  The kernel is busy as long as it runs, so no culler takes it, and
is listed under Running like any other.  What happens to it:

    it is killed, or restarted        the row is free, and claimed again: `submission_store.STARTS` times
    it has no ipybatch, or another    FAILED at once: another start would find the same
    this server ends                  the kernel goes with it, and the start is not counted
    this server is killed             others find that by its process; so does the next one
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ipybatch.engine.data.masking import describe, mask
from ipybatch.errors import BatchError, JournalError
from ipybatch.server.submission_rows import NoSuchSubmission, Row
from ipybatch.server.ticks import until_tick

if TYPE_CHECKING:
    from ipybatch.server.submission_store import Submissions

LOOK_S = 1.0  # between two looks at what is to run, and at what runs
BEGIN_S = 180.0  # how long a kernel may take to begin: its disk may be a slow one
STOP_S = 15.0  # how long it may take to end, before nobody waits for that any more
LAST_S = 30.0  # how long its last line may take once it has ended: it waits for messages that are being sent
LINE = 'from ipybatch.server.run import main; main("{}")'

_log = logging.getLogger(__name__)

Blocking = Callable[..., Awaitable[Any]]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """How a line that a kernel executed came out.

    Attributes:
        error: The name of what it raised; "" for nothing. ``said``: what that says.
        died: Whether the kernel did, before it had replied.
    """

    error: str = ""
    said: str = ""
    died: bool = False


class Kernels(Protocol):
    """Where kernels come from."""

    async def start(self, row: Row) -> str:
        """Start one for a submission, and return its id."""

    async def execute(self, kernel: str, line: str) -> Reply:
        """Execute a line in the foreground, and wait for its reply."""

    async def stop(self, kernel: str) -> None:
        """Shut it down; one that is gone is no error."""


class Supervisor:
    """Starts submissions, and watches those that it has started.

    Args:
        submissions: Returns those of the default journal, in a thread; None where there is nothing to do.
        blocking: Runs a function that blocks in a thread: its arguments follow it.
        most: How many may run at the same time, over all servers of the journal.
        news: Set when something was submitted: then it looks at once.
        idle_s: Returns the seconds until it looks for what others have submitted, while there is nothing to do.
    """

    def __init__(
        self,
        submissions: Callable[[], Submissions | None],
        kernels: Kernels,
        blocking: Blocking,
        *,
        most: int,
        news: asyncio.Event | None = None,
        look_s: float = LOOK_S,
        idle_s: Callable[[], float] = until_tick,
    ) -> None:
        self._submissions, self._kernels, self._blocking = submissions, kernels, blocking
        self._most, self._look_s, self._idle_s = most, look_s, idle_s
        self._is_idle = False
        self._news = news or asyncio.Event()
        self._watching: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Start what is to run, until it is cancelled."""
        try:
            while True:
                await self._start_all()
                await self._until_news(self._idle_s() if self._is_idle else self._look_s)
                self._news.clear()
        finally:
            for task in self._watching:
                task.cancel()
            await asyncio.gather(*self._watching, return_exceptions=True)

    async def _until_news(self, timeout_s: float) -> None:
        """Wait for it; not by `asyncio.wait_for`, which in Python 3.11 may forget that it is cancelled."""
        waiting = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({waiting}, timeout=timeout_s)
        finally:
            waiting.cancel()

    async def _start_all(self) -> None:
        while True:
            try:
                claimed = await self._claimed()
            except JournalError as error:  # the next look may do
                _log.debug("submissions cannot be looked at: %s", error)
                return
            except Exception:
                _log.exception("submissions cannot be looked at")
                return
            if claimed is None:
                return
            task = asyncio.ensure_future(self._watch(*claimed))
            self._watching.add(task)
            task.add_done_callback(self._over)

    async def _claimed(self) -> tuple[Submissions, Row] | None:
        claiming = asyncio.ensure_future(self._blocking(self._claim))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:  # its thread goes on, and nobody would start what it claims
            with contextlib.suppress(JournalError):
                if (claimed := await claiming) is not None:
                    await self._blocking(_release, *claimed, "its server has ended", False)
            raise

    def _claim(self) -> tuple[Submissions, Row] | None:
        store = self._submissions()
        self._is_idle = store is None
        row = None if store is None else store.claim(self._most)
        return None if store is None or row is None else (store, row)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._watching.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a submission could not be watched", exc_info=error)
        self._news.set()

    async def _watch(self, store: Submissions, row: Row) -> None:
        """Run one in a kernel, and see to it that its row tells how that came out."""
        starting = asyncio.ensure_future(self._kernels.start(row))
        driving = asyncio.ensure_future(self._drive(store, row, starting))
        try:
            try:
                why = await self._until_over(store, row, driving)
            finally:
                await self._end(starting, driving)
            if why is not None:
                await self._blocking(_conclude, store, row, why)
        except asyncio.CancelledError:
            await self._blocking(_release, store, row, "its server has ended", False)
            raise

    async def _drive(self, store: Submissions, row: Row, starting: asyncio.Future[str]) -> Reply:
        kernel = await asyncio.shield(starting)
        await self._blocking(store.started, row, kernel)
        return await self._kernels.execute(kernel, LINE.format(row.id))

    async def _until_over(self, store: Submissions, row: Row, driving: asyncio.Future[Reply]) -> Reply | None:
        """Wait for the kernel's reply, or for what makes it needless; None where the row tells how it came out."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        while not driving.done():
            await asyncio.wait({driving}, timeout=self._look_s)
            try:
                stands = await self._blocking(_look_at, store, row)
            except JournalError as error:
                _log.debug("submission %s cannot be looked at: %s", row.id, error)
                continue
            if stands == "gone":
                return Reply(died=True)
            if stands in ("ended", "over"):
                await asyncio.wait({driving}, timeout=LAST_S if stands == "ended" else 1.0)
                return None
            if stands == "ours" and not driving.done() and loop.time() - begun_s > BEGIN_S:
                return Reply(died=True, said=f"its kernel did not begin within {BEGIN_S:g} s")
        try:
            return driving.result()
        except Exception as error:  # there is no such kernel, or no memory for it
            said = str(error) if isinstance(error, BatchError) else describe(error)
            return Reply(error="start", said=f"no kernel could be started: {said}")

    async def _end(self, starting: asyncio.Future[str], driving: asyncio.Future[Reply]) -> None:
        """Shut its kernel down, whoever cancels this: for one that is left halfway, Jupyter waits for ever."""
        ending = asyncio.ensure_future(self._stop(starting, driving))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        try:
            await asyncio.wait({ending}, timeout=STOP_S)
        except asyncio.CancelledError:
            await asyncio.wait({ending}, timeout=STOP_S)
            raise

    async def _stop(self, starting: asyncio.Future[str], driving: asyncio.Future[Reply]) -> None:
        driving.cancel()
        await asyncio.gather(starting, driving, return_exceptions=True)
        if starting.cancelled() or starting.exception() is not None:
            return
        kernel = starting.result()
        try:
            await self._kernels.stop(kernel)
        except Exception as error:  # it is Jupyter's, and may be gone
            _log.warning("kernel %s could not be shut down: %s", kernel, mask(str(error)))


def _look_at(store: Submissions, row: Row) -> str:
    try:
        stands = store.stands(row)
    except NoSuchSubmission:  # its journal was deleted
        return "over"
    if stands == "ours":
        store.beat(row)
    return stands


def _conclude(store: Submissions, row: Row, reply: Reply) -> None:
    """Record how a start came out, if nobody has."""
    if reply.died:
        _release(store, row, reply.said or "its kernel died")
    elif reply.error and _is_final(reply):
        store.end(row, "FAILED", _sentence(reply))
    else:
        _release(store, row, _sentence(reply) if reply.error else "its kernel ended early")


def _release(store: Submissions, row: Row, reason: str, counted: bool = True) -> None:
    store.release(row, reason, counted=counted)


_OTHERS = ("ImportError", "AttributeError", "TypeError", "SyntaxError")  # what an ipybatch without our `main` raises


def _is_final(reply: Reply) -> bool:
    """Say whether another start would come to the same."""
    return reply.error in ("ModuleNotFoundError", *_OTHERS) or "later ipybatch" in reply.said


def _sentence(reply: Reply) -> str:
    if reply.error == "ModuleNotFoundError" and "'ipybatch'" in reply.said:
        where = "install it there, or name another kernel by c.IpyBatch.kernel_name"
        return f"the kernel that it was started in has no ipybatch: {where}"
    if (reply.error == "ModuleNotFoundError" and "'ipybatch." in reply.said) or reply.error in _OTHERS:
        return f"the kernel that it was started in has another version of ipybatch than this server: {mask(reply.said)}"
    return mask(reply.said) if reply.error == "start" else f"{reply.error}: {mask(reply.said)}"
