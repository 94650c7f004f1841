"""Watchdog: says which line keeps the engine's loop from turning.

All sessions share one loop, so user code that blocks (``time.sleep`` in async
work, a slow listener, a ``cost=`` function that asks a server) delays all of
them, their timeouts and their buttons.  A thread beside the loop asks it to
answer; when it does not for `STALLED_S`, the stack of the engine's thread
tells where it is:

    ping --> loop answers                          nothing to tell
         `-> no answer for 1 s --> stack --> the innermost frame of the user's own code
"""

from __future__ import annotations

import asyncio
import contextvars
import linecache
import logging
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from ipybatch.engine.data.masking import mask

STALLED_S = 1.0
LOOK_S = 0.25

_OURS = str(Path(__file__).parents[2])
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})

_log = logging.getLogger("ipybatch")

OnStall = Callable[[str, contextvars.Context | None], None]


class Watchdog:
    """Watch a loop while something runs on it.

    Attributes:
        on_stall: Called with a sentence and the context of the code that runs, from the watchdog's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread, on_stall: OnStall) -> None:
        self.on_stall = on_stall
        self._loop, self._watched = loop, thread
        self._has_work = threading.Event()
        self._answered = threading.Event()
        threading.Thread(target=self._run, name="ipybatch-watchdog", daemon=True).start()

    def watch(self, running: int) -> None:
        """Watch while anything runs."""
        if running:
            self._has_work.set()
        else:
            self._has_work.clear()

    def _run(self) -> None:
        while self._watched.is_alive():
            self._has_work.wait()
            self._answered.clear()
            try:
                self._loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:
                return  # the loop is closed
            if not self._answered.wait(STALLED_S):
                self._tell()
                while not self._answered.wait(STALLED_S) and self._watched.is_alive():
                    pass
            time.sleep(LOOK_S)

    def _tell(self) -> None:
        frame = sys._current_frames().get(self._watched.ident or 0)
        if frame is None:
            return
        text = mask(
            f"{_place(frame)} has kept all sessions of this process waiting for more than {STALLED_S:g} s:"
            " use await there, or a plain function, which runs in a thread"
        )
        _log.warning("%s", text)
        self.on_stall(text, _context(frame))


def _place(frame: FrameType) -> str:
    """Return file, line, function and source of the innermost frame that is the user's own."""
    own = next((at for at in _stack(frame) if is_users(at.f_code.co_filename)), frame)
    code, line = own.f_code, own.f_lineno
    file = "a notebook cell" if "ipykernel_" in code.co_filename else Path(code.co_filename).name
    source = linecache.getline(code.co_filename, line).strip()
    return f"{file}, line {line}, in {code.co_name}" + (f" ({source[:80]})" if source else "")


def _context(frame: FrameType) -> contextvars.Context | None:
    """Return the context of the callback that runs."""
    for at in _stack(frame):
        handle = at.f_locals.get("self") if at.f_code.co_name == "_run" else None
        if isinstance(handle, asyncio.Handle):
            context: contextvars.Context = handle._context  # type: ignore[attr-defined]  # of every Handle, undocumented
            return context
    return None


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_users(file: str) -> bool:
    """Say whether code of a file is the user's own: neither ours, nor installed, nor frozen into Python."""
    return not file.startswith((_OURS, *_INSTALLED, "<frozen"))
