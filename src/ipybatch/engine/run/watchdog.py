"""Watchdog: says which line keeps the engine's loop from turning.

All sessions share one loop, so user code that blocks (``time.sleep`` in async
work, a slow listener, a ``cost=`` function that asks a server) delays all of
them, their timeouts and their buttons.  A thread beside the loop asks it to
answer; when it does not for `STALLED_S`, the stack of the engine's thread
tells where it is:

The thread's own beat tells when the whole process stood still (SIGSTOP, a
frozen container): then neither it nor the loop can be blamed.

    ping --> loop answers                          nothing to tell
         `-> no answer for 1 s --> stack --> the innermost frame of the user's own code
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ipybatch.engine.data.user_frames import user_place

STALLED_S = 1.0
LOOK_S = 0.25
STOPPED_S = 2.0  # between two beats, the longest of which is a little over STALLED_S
STOPPED = "this process stood still for a while: it was stopped, or the machine was"

_log = logging.getLogger("ipybatch")

OnStall = Callable[[str, contextvars.Context], None]


class Stall:
    """The latest time that the loop did not turn: what runs out then is no fault of the service.

    Attributes:
        at_s: When it was last seen not to, by `time.monotonic`; -inf for never.
        text: What kept it.
        beat_s: When the watchdog last ran, by the same clock; None while it has nothing to watch.
    """

    at_s = -math.inf
    text = ""
    beat_s: float | None = None

    def beat(self) -> None:
        """Note that the watchdog runs."""
        now_s = time.monotonic()
        if self.beat_s is not None and now_s - self.beat_s > STOPPED_S:
            self.at_s, self.text = now_s, STOPPED
        self.beat_s = now_s

    def since(self, started_s: float) -> str:
        """Return what kept the loop from turning since then; "" when nothing did."""
        beat_s, now_s = self.beat_s, time.monotonic()
        if beat_s is not None and now_s - max(beat_s, started_s) > STOPPED_S:  # it has not run since, either
            self.at_s, self.text = now_s, STOPPED
        return self.text if started_s <= self.at_s else ""


LATEST = Stall()


class Watchdog:
    """Watch a loop while something runs on it.

    Attributes:
        on_stall: Called with a sentence and the context of the code that runs, from the watchdog's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread, on_stall: OnStall) -> None:
        self.on_stall = on_stall
        self._loop, self._watched = loop, thread
        self._has_work = threading.Event()
        self._running = 0
        self._turning = threading.Lock()  # between having work and having none, with the beats that belong to it
        self._answered = threading.Event()
        self._told: set[str] = set()
        threading.Thread(target=self._run, name="ipybatch-watchdog", daemon=True).start()

    def watch(self, more: int) -> None:
        """Watch while anything runs; from now on, `more` does (negative: less). Any thread may tell."""
        with self._turning:
            self._running += more
            if not self._running:
                self._has_work.clear()
            elif not self._has_work.is_set():
                self._has_work.set()
                if LATEST.beat_s is None:  # from now on, not from when its thread wakes
                    LATEST.beat()

    def _run(self) -> None:
        while self._watched.is_alive():
            with self._turning:
                is_idle = not self._has_work.is_set()
                if is_idle:
                    LATEST.beat_s = None
            if is_idle:
                self._has_work.wait()
            LATEST.beat()
            self._answered.clear()
            try:
                self._loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:
                return  # the loop is closed
            has_answered = self._answered.wait(STALLED_S)
            LATEST.beat()
            if not has_answered:
                LATEST.at_s = time.monotonic()
                self._tell()
                while not self._answered.wait(STALLED_S / 10) and self._watched.is_alive():
                    LATEST.beat()
                    LATEST.at_s = time.monotonic()
            time.sleep(LOOK_S)

    def _tell(self) -> None:
        frame = sys._current_frames().get(self._watched.ident or 0)
        context = None if frame is None else _context(frame)
        if frame is None or context is None:
            LATEST.text = STOPPED
            return  # it waits for events: the whole process was stopped for a while
        text = (
            f"all sessions of this process have waited for more than {STALLED_S:g} s for {user_place(frame)}"
            " (use await there, or a plain function, which runs in a thread)"
        )
        LATEST.text = text
        if text not in self._told:
            self._told.add(text)
            _log.warning("%s", text)
        self.on_stall(text, context)


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
