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


class Rounds:
    """Call a step again and again, beside whatever else goes on.

    Args:
        rest_s: Before the first step, seconds.
        step: Returns the seconds to the next one; None for no more. Where there are no threads all else waits for it.
        name: Of the thread.

    Attributes:
        thread: Its daemon; None where there are no threads.

    Raises:
        InputError: There are no threads, and no loop is running.
    """

    def __init__(self, rest_s: float, step: Callable[[], float | None], name: str) -> None:
        self._step = step
        self.thread: threading.Thread | None = None
        if HAS_THREADS:
            self.thread = threading.Thread(target=self._run, args=(rest_s,), name=name, daemon=True)
            self.thread.start()
        else:
            soon(rest_s, self._turn)

    def _run(self, rest_s: float | None) -> None:
        while rest_s is not None:
            time.sleep(rest_s)
            rest_s = self._step()

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
