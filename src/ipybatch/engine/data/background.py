"""Background: what goes on beside the caller: in threads, or in turns of the one loop where a Python has none.

Python in a browser (Pyodide, JupyterLite) cannot start a thread.  `HAS_THREADS` says so, here and nowhere else: who
needs one asks it, and has another way, or refuses in a sentence.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ipybatch.errors import InputError


def _has_threads() -> bool:
    if sys.platform == "wasi":
        return False
    build: Any = getattr(sys, "_emscripten_info", None)  # Python's own tests ask it the same way
    return build is None or bool(build.pthreads)


HAS_THREADS = _has_threads()


def refuse_without_threads(what: str, instead: str) -> None:
    """Refuse what needs a thread or a process of its own where there are none.

    Args:
        what: That, as the subject of a sentence.
        instead: What to do, as an order.

    Raises:
        InputError: This Python cannot start threads.
    """
    if not HAS_THREADS:
        msg = f"{what} cannot run here, because Python in a browser has no threads and no processes: {instead}"
        raise InputError(msg)


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that all goes on in where there are no threads.

    Raises:
        InputError: None is running.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        msg = "this Python has no threads, so sessions run in the event loop of a notebook, and none is running"
        raise InputError(msg) from None


Step = Callable[[], "float | None"]  # returns the seconds to the next one; None for no more


def every(rest_s: float, step: Step, name: str) -> threading.Thread | Turns:
    """Call a step again and again, beside whatever else goes on: in a daemon thread, where there are any.

    Args:
        rest_s: Before the first step, seconds.
        step: Where there are no threads, all else waits for it.
        name: Of the thread.

    Raises:
        InputError: There are no threads, and no loop is running.
    """
    if not HAS_THREADS:
        return Turns(rest_s, step)
    thread = threading.Thread(target=_repeat, args=(rest_s, step), name=name, daemon=True)
    thread.start()
    return thread


def _repeat(rest_s: float | None, step: Step) -> None:
    while rest_s is not None:
        time.sleep(rest_s)
        rest_s = step()


class Turns:
    """Steps that take turns with all else on the running loop."""

    def __init__(self, rest_s: float, step: Step) -> None:
        self._step = step
        soon(rest_s, self._turn)

    def _turn(self) -> None:
        rest_s = self._step()
        if rest_s is not None:
            soon(rest_s, self._turn)


def soon(rest_s: float, function: Callable[[], object]) -> asyncio.TimerHandle:
    """Call a function in a while, in the running loop, as nobody's part.

    Raises:
        InputError: No loop is running.
    """
    return running_loop().call_later(rest_s, function, context=contextvars.Context())
