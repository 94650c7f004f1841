"""`Loop` runs coroutine functions on the engine's event loop, `Threads` plain functions in threads.

A thread cannot be ended from outside.  One that is cancelled runs on, keeps
its slot until it returns, and a new thread takes its place for the next attempt.
The threads are daemons, unlike those of `concurrent.futures`: a function that
never returns must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from ipybatch.engine.data.background import refuse_without_threads
from ipybatch.engine.data.spec import StillRunning

_Call = tuple[Callable[[], Any], asyncio.Future[Any]]


class Loop:
    """Run coroutine functions; cancelling an attempt cancels its coroutine.

    Attributes:
        runs_on_loop: The work may catch that it is cancelled, and is cancelled again.
    """

    runs_on_loop = True

    async def open(self, slots: int) -> None:
        """Do nothing: the loop runs already."""

    def run(self, work: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]) -> Awaitable[Any]:
        """Return the coroutine of one attempt."""
        return work(*arguments)

    async def close(self) -> None:
        """Do nothing: the loop runs on."""


class Threads:
    """Run plain functions in daemon threads.

    Raises:
        InputError: This Python cannot start threads.
    """

    def __init__(self) -> None:
        refuse_without_threads("work that is a plain function", "make it an async function")
        self._idle: list[queue.SimpleQueue[_Call | None]] = []

    async def open(self, slots: int) -> None:
        """Do nothing: threads start when they are needed."""

    async def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call ``work`` in a thread and return its result; a coroutine is awaited on the loop.

        Raises:
            StillRunning: The attempt was cancelled; its thread runs on.
        """
        calls = self._idle.pop() if self._idle else self._start()
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        context = contextvars.copy_context()
        calls.put((lambda: context.run(work, *arguments), ended))
        try:
            result = await asyncio.shield(ended)
        except asyncio.CancelledError:
            if ended.done():
                self._idle.append(calls)
                raise
            ended.add_done_callback(lambda _: self._end(calls, ended))
            raise StillRunning(ended) from None
        except BaseException:
            self._idle.append(calls)
            raise
        self._idle.append(calls)
        return await result if inspect.isawaitable(result) else result

    async def close(self) -> None:
        """End the idle threads."""
        for calls in self._idle:
            calls.put(None)
        self._idle.clear()

    def _start(self) -> queue.SimpleQueue[_Call | None]:
        calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        threading.Thread(target=_serve, args=(calls,), name="ipybatch-work", daemon=True).start()
        return calls

    @staticmethod
    def _end(calls: queue.SimpleQueue[_Call | None], ended: asyncio.Future[Any]) -> None:
        calls.put(None)
        if not ended.cancelled():
            ended.exception()  # read, so that asyncio does not warn: the attempt has ended already


def _serve(calls: queue.SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        function, ended = call
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:  # the attempt's error, whatever it is
            error = raised
        del function, call
        try:
            ended.get_loop().call_soon_threadsafe(_answer, ended, result, error)
        except RuntimeError:
            return  # the loop is closed, and no attempt waits


def _answer(ended: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if ended.cancelled():
        return
    if error is None:
        ended.set_result(result)
    elif isinstance(error, StopIteration | GeneratorExit):  # these mean something else to a coroutine
        ended.set_exception(RuntimeError(f"the work raised {type(error).__name__}: {error}"))
    else:
        ended.set_exception(error)
