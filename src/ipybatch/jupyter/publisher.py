"""Publisher: one thread that feeds all views of a process, ten times a second at most.

A view that has nothing new costs nothing; however fast the engine runs, a
view gets what changed since its last turn in one message.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

INTERVAL_S = 0.1


class View(Protocol):
    """Something that shows a session."""

    def publish(self) -> bool:
        """Send what is new; return whether there is more to send later."""
        ...


class Publisher:
    """Give each view its turn when it has something new."""

    def __init__(self) -> None:
        self._waiting: set[View] = set()
        self._lock = threading.Lock()
        self._news = threading.Event()
        threading.Thread(target=self._run, name="ipybatch-views", daemon=True).start()

    def call(self, view: View) -> None:
        """Give ``view`` a turn soon."""
        if view not in self._waiting:
            with self._lock:
                self._waiting.add(view)
            self._news.set()

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            with self._lock:
                views, self._waiting = self._waiting, set()
            for view in views:
                if view.publish():
                    self.call(view)
            time.sleep(INTERVAL_S)


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
