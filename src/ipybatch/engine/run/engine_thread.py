"""Engine thread: a daemon with its own event loop, shared by all sessions of a process.

A cell and the kernel stay free while sessions run.  HTTP clients opened in
the loop belong to the loop that uses them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ipybatch.errors import EngineBusy

T = TypeVar("T")

COMMAND_S = 1.0


class EngineThread:
    """A thread that runs an event loop as long as the process lives."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="ipybatch-engine", daemon=True)
        self.thread.start()

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the engine thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, function: Callable[[], T]) -> T:
        """Run a quick function on the engine thread and return its result.

        Raises:
            EngineBusy: It did not run within `COMMAND_S`; it runs as soon as the loop turns again.
        """
        if threading.current_thread() is self.thread:
            return function()
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:  # handed to the caller, whatever it is
                done.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        concurrent.futures.wait([done], timeout=COMMAND_S)
        if not done.done():
            msg = f"the engine did not answer within {COMMAND_S:g} s: work keeps its loop from turning"
            raise EngineBusy(msg)
        return done.result()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


_engine: EngineThread | None = None
_starting = threading.Lock()


def engine_thread() -> EngineThread:
    """Return the process's one engine thread, starting it when it is first needed."""
    global _engine
    with _starting:
        if _engine is None:
            _engine = EngineThread()
        return _engine


def _forget() -> None:
    global _engine
    _engine = None


os.register_at_fork(after_in_child=_forget)
