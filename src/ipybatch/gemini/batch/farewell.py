"""Farewell: what a cancelled session has left to tell the service after its end.

    cancelled --> its jobs are marked, on record --> the service is told --NOTICE_S--> the session has ended
                                                              `--> its answers come later; the connection stays open

A service that answers slowly keeps no session from ending.  Whoever starts it again waits for the farewell: by then the
jobs that the service was just creating are known, and cancelled.  So does a program that ends.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from ipybatch.engine.data.fork import after_fork
from ipybatch.engine.run.engine_thread import outlives_sessions

NOTICE_S = 0.4  # longest time that a session waits for the service once it was cancelled
EXIT_S = 12.0  # longest time that a program waits at its end: more than two answers to a cancellation take

Place = tuple[Path, str]  # a journal, and the name of a session in it
_under_way: dict[Place, tuple[asyncio.Task[None], concurrent.futures.Future[None]]] = {}


class Farewell:
    """What one start of a session has left to tell; to be used on one event loop.

    Args:
        place: Where the session is on record; None: nobody else starts it.
    """

    def __init__(self, place: Place | None = None) -> None:
        self._place = place
        self._task: asyncio.Task[None] | None = None
        self._until_s = 0.0

    async def wait_for_last(self) -> None:
        """Wait for what an earlier start of the session has left to tell."""
        task, _ = _under_way.get(self._place, (None, None)) if self._place is not None else (None, None)
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task])

    def announce(self) -> None:
        """Note that the session was cancelled: from now on it waits no longer than `NOTICE_S`."""
        self._until_s = asyncio.get_running_loop().time() + NOTICE_S

    async def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Tell the service, and wait a moment for its answers; all the time they take, on a loop that ends then."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(coroutine)
        left_s = max(0.0, self._until_s - loop.time()) if outlives_sessions() else None
        await asyncio.wait([self._task], timeout=left_s)

    async def close(self, connection: AsyncExitStack) -> None:
        """Close the connection, once all is told: nobody waits for that."""
        if self._task is None or self._task.done():
            await connection.aclose()
            return
        closing = asyncio.get_running_loop().create_task(_close_after(self._task, connection))
        told: concurrent.futures.Future[None] = concurrent.futures.Future()
        place = self._place or (Path(), str(id(self)))
        _under_way[place] = closing, told

        def forget(_: asyncio.Task[None]) -> None:
            told.set_result(None)
            if _under_way.get(place) == (closing, told):
                del _under_way[place]

        closing.add_done_callback(forget)


async def _close_after(task: asyncio.Task[None], connection: AsyncExitStack) -> None:
    try:
        await asyncio.wait([task])
    finally:
        await connection.aclose()


@atexit.register
def _finish() -> None:
    """Let it be told before the process ends, where another thread's loop does that."""
    left = [told for closing, told in tuple(_under_way.values()) if closing.get_loop().is_running()]
    concurrent.futures.wait(left, timeout=EXIT_S)


after_fork(_under_way.clear)  # it is told by the parent
