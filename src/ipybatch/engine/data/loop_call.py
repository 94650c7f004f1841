"""Loop call: a quick function, handed from any thread to the thread of an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
from collections.abc import Callable
from typing import TypeVar

from ipybatch.errors import EngineBusy

T = TypeVar("T")


def post(loop: asyncio.AbstractEventLoop, function: Callable[[], T]) -> concurrent.futures.Future[T]:
    """Run a quick function on a loop's thread soon; the future has its result.

    Raises:
        EngineBusy: The loop is closed.
    """
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # handed to the caller, whatever it is
            done.set_exception(error)

    try:
        loop.call_soon_threadsafe(run, context=contextvars.Context())
    except RuntimeError:
        msg = "the engine's thread ended"
        raise EngineBusy(msg) from None
    return done
