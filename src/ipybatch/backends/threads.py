"""Threads: plain functions, each slot with a thread of its own.

A thread cannot be ended from outside.  One that is cancelled goes on, holds
its slot until it returns, and a new one takes its place for the next attempt.
The threads are daemons, unlike those of `concurrent.futures`: a function that
never returns must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
from collections.abc import Callable
from typing import Any

from ipybatch.engine.data.backend import StillRunning

_Call = tuple[Callable[[], Any], asyncio.Future[Any]]


class Threads:
    """Run plain functions in daemon threads."""

    def __init__(self) -> None:
        self._idle: list[queue.SimpleQueue[_Call | None]] = []

    async def open(self, slots: int) -> None:
        """Do nothing yet: threads start when they are needed."""

    async def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call ``work`` in a thread; what it returns is awaited when it is awaitable.

        Raises:
            StillRunning: It was cancelled; the thread goes on.
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
        """Let the idle threads end."""
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
            ended.exception()  # seen, so that asyncio does not warn: the attempt was given up already


def _serve(calls: queue.SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        function, ended = call
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:  # handed to the attempt, whatever it is
            error = raised
        del function, call
        try:
            ended.get_loop().call_soon_threadsafe(_answer, ended, result, error)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more


def _answer(ended: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if ended.cancelled():
        return
    if error is None:
        ended.set_result(result)
    elif isinstance(error, StopIteration | GeneratorExit):  # these mean something else to a coroutine
        ended.set_exception(RuntimeError(f"the work raised {type(error).__name__}: {error}"))
    else:
        ended.set_exception(error)
