"""One thread, or the loop of a Python without any, that updates all views of a process, at most five times a second.

Views poll their session instead of listening to its events, of which an engine at full speed has 60,000 a second.
Ten updates a second cost twice as much as five, in the kernel and on the page, and are not easier to read.

A view whose engine is busy keeps the others waiting for a second.  After each of these all views may tell their pages
that the kernel is there: several such views would have them think otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from typing import Protocol

from ipybatch.engine.data.background import HAS_THREADS, soon
from ipybatch.engine.data.fork import after_fork

LEAST_S = 0.05  # between two rounds, however many buttons are pressed
INTERVAL_S = 0.2
RESTING_S = 0.5  # while no session runs
SLOW_S = 0.5  # the round of one view


_log = logging.getLogger(__name__)


class Publishable(Protocol):
    """A view that can send its changes."""

    def publish(self) -> bool:
        """Send the changes; return whether more are expected soon."""

    def beat(self) -> None:
        """Send a sign of life, if that is due."""


class Publisher:
    """Call `publish` of each view in turn."""

    def __init__(self) -> None:
        self._views: weakref.WeakSet[Publishable] = weakref.WeakSet()
        self._failing: weakref.WeakSet[Publishable] = weakref.WeakSet()
        self._news = threading.Event()
        self._next: asyncio.TimerHandle | None = None  # round, without threads
        if HAS_THREADS:
            threading.Thread(target=self._run, name="ipybatch-views", daemon=True).start()

    def add(self, view: Publishable) -> None:
        """Update a view until it is garbage-collected."""
        self._views.add(view)
        self.hurry()

    def hurry(self) -> None:
        """Start the next round now, because a user did something."""
        if HAS_THREADS:
            self._news.set()
        else:
            self._turn_soon(0.0)

    def _publish(self, view: Publishable) -> bool:
        try:
            is_live = view.publish()
        except Exception:  # a state in the midst of a change, or a fault of ours: the next round may do
            if view not in self._failing:
                _log.exception("a view cannot be updated")
            self._failing.add(view)
            return False
        self._failing.discard(view)
        return is_live

    def _run(self) -> None:
        while True:
            rest_s = self._round()
            time.sleep(LEAST_S)
            self._news.wait(rest_s)
            self._news.clear()

    def _round(self) -> float | None:
        """Update all views; return how long to rest, None for until there is another."""
        is_live, views = False, tuple(self._views)
        for view in views:
            begun_s = time.monotonic()
            is_live |= self._publish(view)
            if time.monotonic() - begun_s > SLOW_S:
                for other in views:
                    other.beat()
        return INTERVAL_S if is_live else RESTING_S if self._views else None

    def _turn_soon(self, rest_s: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = soon(LEAST_S + rest_s, self._turn)

    def _turn(self) -> None:
        self._next = None
        if (rest_s := self._round()) is not None:
            self._turn_soon(rest_s)


_publisher: Publisher | None = None
_starting = threading.Lock()


def publisher() -> Publisher:
    """Return the process's Publisher; the first call starts it."""
    global _publisher
    with _starting:
        if _publisher is None:
            _publisher = Publisher()
        return _publisher


def _forget() -> None:
    global _publisher
    _publisher = None


after_fork(_forget)
