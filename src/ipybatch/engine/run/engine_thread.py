"""Engine thread: a daemon with its own event loop, shared by all sessions of a process.

A cell and the kernel stay free while sessions run.  HTTP clients opened in
the loop belong to the loop that uses them.

Rule: no code of a user's ends the loop.  A task or a callback that raises
SystemExit or KeyboardInterrupt makes asyncio leave the loop; here it turns
again at once, and whatever was `SUPERVISED` in that context is told.  A thread
that ends all the same is noticed: its sessions fail, and the next one gets
another thread.

A Python without threads has the one loop of its kernel: `KernelLoop`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, TypeVar

from ipybatch.engine.data.background import HAS_THREADS, running_loop
from ipybatch.engine.data.fork import after_fork
from ipybatch.engine.data.loop_call import post
from ipybatch.engine.data.masking import describe
from ipybatch.engine.run.watchdog import Watchdog
from ipybatch.errors import EngineBusy, InputError

T = TypeVar("T")

COMMAND_S = 1.0
_FAILURES = 20  # of the loop itself, one after the other, before it is given up

_log = logging.getLogger(__name__)


class Supervised(Protocol):
    """What runs on the engine thread, as its supervision sees it."""

    def on_exit(self, error: BaseException, context: contextvars.Context) -> None:
        """Fail for an exit that left the loop; on the engine's thread, while the loop does not run."""

    def on_stall(self, text: str) -> None:
        """Publish what keeps the loop from turning; from any thread, while it does."""

    def on_lost(self, reason: str) -> None:
        """Give up: the thread has ended."""


SUPERVISED: contextvars.ContextVar[Supervised | None] = contextvars.ContextVar("supervised", default=None)


class EngineThread:
    """A thread that runs an event loop as long as the process lives."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._running: dict[concurrent.futures.Future[Any], Supervised | None] = {}
        self.thread = threading.Thread(target=self._run, name="ipybatch-engine", daemon=True)
        self.thread.start()
        self._watch = Watchdog(self.loop, self.thread, self._tell_stall).watch

    @property
    def is_current(self) -> bool:
        """Whether the caller is on it."""
        return threading.current_thread() is self.thread

    @property
    def is_alive(self) -> bool:
        """Whether its loop turns."""
        return self.thread.is_alive()

    def spawn(
        self, coroutine: Coroutine[Any, Any, T], supervised: Supervised | None = None
    ) -> concurrent.futures.Future[T]:
        """Run a coroutine on the engine thread.

        Args:
            supervised: Whom to tell of what it, or anything that it starts, does to the loop.
        """

        async def run() -> T:
            SUPERVISED.set(supervised)
            return await coroutine

        self._watch(1)  # before it begins: this thread may not come to run again for a while
        running = asyncio.run_coroutine_threadsafe(run(), self.loop)
        self._running[running] = supervised
        running.add_done_callback(self._forget)
        return running

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine thread and wait for its result; an interrupt cancels it.

        Raises:
            InputError: The caller is on the engine thread, and would wait for itself.
        """
        try:
            self.refuse_to_wait("this call")
        except InputError:
            coroutine.close()
            raise
        running = self.spawn(coroutine)
        try:
            while not running.done():  # an interrupt is handled between two waits
                concurrent.futures.wait([running], timeout=0.2)
        except KeyboardInterrupt:
            running.cancel()
            raise
        return running.result()

    def refuse_to_wait(self, what: str) -> None:
        """Refuse a call that would block the engine thread.

        Raises:
            InputError: The caller is on it.
        """
        if self.is_current:
            msg = f"{what} would block the thread that all sessions run on: await it there, or call it elsewhere"
            raise InputError(msg)

    def call(self, function: Callable[[], T]) -> T:
        """Run a quick function on the engine thread and return its result.

        Raises:
            EngineBusy: It did not run within `COMMAND_S`; it runs as soon as the loop turns again.
        """
        if self.is_current:
            return function()
        done = post(self.loop, function)
        concurrent.futures.wait([done], timeout=COMMAND_S)
        if not done.done():
            msg = f"the engine did not answer within {COMMAND_S:g} s: work keeps its loop from turning"
            raise EngineBusy(msg)
        return done.result()

    def _forget(self, running: concurrent.futures.Future[Any]) -> None:
        self._running.pop(running, None)
        self._watch(-1)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        failures, failed_s = 0, 0.0
        while not self.loop.is_closed():
            try:
                self.loop.run_forever()
            except BaseException as error:  # whatever it is, the other sessions run on
                if self._blame(error):
                    continue
                now_s = time.monotonic()
                failures = failures + 1 if now_s < failed_s + 1.0 else 1
                failed_s = now_s
                _log.exception("the engine's loop failed")
                if failures >= _FAILURES:
                    break
                time.sleep(0.01)
        self._give_up()

    def _blame(self, error: BaseException) -> bool:
        """Tell whoever raised an error that left the loop; return False where it was the loop itself."""
        handle = _handle_of(error.__traceback__)
        if handle is None:
            return False
        context: contextvars.Context = handle._context
        supervised = context.get(SUPERVISED)
        _log.error("code on the engine's thread raised %s", describe(error))
        if supervised is not None:  # at once: what it belongs to may end in the next callback
            supervised.on_exit(error, context)
        return True

    def _tell_stall(self, text: str, context: contextvars.Context) -> None:
        """Tell whose code keeps the loop from turning; all of them where that is not known."""
        supervised = context.get(SUPERVISED)
        for told in [supervised] if supervised is not None else list(self._running.values()):
            if told is not None:
                told.on_stall(text)

    def _give_up(self) -> None:
        reason = "the engine's thread ended: something closed its loop or its files"
        for running, supervised in list(self._running.items()):
            if supervised is not None:
                supervised.on_lost(reason)
            if running.done():
                continue
            if supervised is None:
                running.set_exception(EngineBusy(reason))
            else:  # it has told its reason
                running.set_result(None)


class KernelLoop(EngineThread):
    """The loop that the kernel's cells run in, where no other can be had: sessions take turns with them.

    Nothing may wait for it but by ``await``.  Nobody watches it: what keeps it from turning keeps the page waiting too.

    Raises:
        InputError: No loop is running.
    """

    def __init__(self) -> None:
        self.loop = running_loop()
        self._running = {}
        self._watch = lambda more: None

    @property
    def is_current(self) -> bool:
        """Whether the caller is on it: everything is."""
        return True

    @property
    def is_alive(self) -> bool:
        """Whether it is the one that runs: a script may have several, one after the other."""
        return self.loop is running_loop()

    def refuse_to_wait(self, what: str) -> None:
        """Refuse a call that would wait for the loop that it keeps from turning.

        Raises:
            InputError: Always.
        """
        instead = "use what can be awaited, such as `await session`"
        msg = f"{what} cannot wait here, because Python in a browser has no threads: {instead}"
        raise InputError(msg)


def outlives_sessions() -> bool:
    """Say whether the running loop goes on after the session that this is called for; a loop of the user's may not."""
    return SUPERVISED.get() is not None


def refuse_to_wait_for(supervised: Supervised | None) -> None:
    """Refuse to wait for what the caller is a part of, such as work that waits for its own session.

    Raises:
        InputError: It would wait for itself.
    """
    if supervised is not None and SUPERVISED.get() is supervised:
        msg = "work cannot wait for its own session: it would wait for itself"
        raise InputError(msg)


def _handle_of(traceback: TracebackType | None) -> Any:
    """Return the asyncio Handle whose callback raised; None when it was no callback."""
    while traceback is not None:
        handle = traceback.tb_frame.f_locals.get("self")
        if isinstance(handle, asyncio.Handle):
            return handle
        traceback = traceback.tb_next
    return None


_engine: EngineThread | None = None
_starting = threading.Lock()


def engine_thread() -> EngineThread:
    """Return the process's one engine thread, starting it when it is first needed, or anew when it ended.

    Raises:
        InputError: There are no threads, and no loop is running.
    """
    global _engine
    with _starting:
        if _engine is None or not _engine.is_alive:
            _engine = EngineThread() if HAS_THREADS else KernelLoop()
        return _engine


def _forget() -> None:
    global _engine
    _engine = None


after_fork(_forget)
