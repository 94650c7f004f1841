"""Publisher: one thread that feeds all views of a process, five times a second at most.

Views look at their session instead of hearing its events: an engine at full
speed has 60,000 of them a second.  Ten updates a second cost twice as much as
five, in the kernel and on the page, and nobody reads faster.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol

LEAST_S = 0.05  # even for who presses buttons all the time
INTERVAL_S = 0.15
RESTING_S = 0.5  # while no session runs


class View(Protocol):
    """Something that shows a session."""

    def publish(self) -> bool:
        """Send what is new; return whether more is to be expected soon."""
        ...


class Publisher:
    """Give each view its turn."""

    def __init__(self) -> None:
        self._views: weakref.WeakSet[View] = weakref.WeakSet()
        self._news = threading.Event()
        threading.Thread(target=self._run, name="ipybatch-views", daemon=True).start()

    def add(self, view: View) -> None:
        """Look after a view for as long as it lives."""
        self._views.add(view)
        self.hurry()

    def hurry(self) -> None:
        """Do not wait for the next turn: somebody did something."""
        self._news.set()

    def _run(self) -> None:
        while True:
            is_live = False
            for view in tuple(self._views):
                is_live |= view.publish()
            time.sleep(LEAST_S)
            rest_s = INTERVAL_S if is_live else RESTING_S if self._views else None
            self._news.wait(rest_s)
            self._news.clear()


_publisher: Publisher | None = None
_starting = threading.Lock()


def publisher() -> Publisher:
    """Return the process's one Publisher, starting it when it is first needed."""
    global _publisher
    with _starting:
        if _publisher is None:
            _publisher = Publisher()
        return _publisher


def _forget() -> None:
    global _publisher
    _publisher = None


os.register_at_fork(after_in_child=_forget)
