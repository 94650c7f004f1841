"""Courier: threads that wait for a store which is a network away, so that the engine's loop does not.

Some for each store, made when they are needed: a limiter asks one thing at a
time.  They end with the last limiter that used them; what hangs in a call then
ends with the call, or with the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from ipybatch.engine.data.fork import after_fork

T = TypeVar("T")

MOST = 32  # threads for each store: so many limit groups are asked for at once
NAME = "ipybatch limits"


class Courier:
    """The threads of one store.

    Args:
        store: Theirs.
    """

    def __init__(self, store: object) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._users: set[object] = set()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._threads = self._asked = 0  # asked: what has no answer yet

    def call(self, user: object, ask: Callable[[], T]) -> Future[T]:
        """Call a function in a thread; the future has what it returns or raises.

        Args:
            user: For whom: the threads stay until it leaves.
        """
        done: Future[T] = Future()
        with self._lock:
            self._users.add(user)
            self._jobs.put((ask, done))
            self._asked += 1
            if self._threads < min(self._asked, MOST):
                self._threads += 1
                threading.Thread(target=self._work, args=(self._jobs,), name=NAME, daemon=True).start()
        return done

    def wait(self, found: Future[Any], most_s: float) -> None:
        """Wait for what a function returns or raises, on this thread."""
        wait([found], most_s)

    def leave(self, user: object) -> None:
        """Need the threads no more: they end when nobody does."""
        with self._lock:
            self._users.discard(user)
            if not self._users:
                if _couriers.get(id(self.store)) is self:
                    del _couriers[id(self.store)]
                for _ in range(self._threads):
                    self._jobs.put(None)
                self._jobs, self._threads, self._asked = SimpleQueue(), 0, 0

    def _work(self, jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]) -> None:
        while (job := jobs.get()) is not None:
            ask, done = job
            try:
                found = ask()
            except BaseException as error:  # handed to who asked, whatever it is
                done.set_exception(error)
            else:
                done.set_result(found)
            with self._lock:
                if jobs is self._jobs:
                    self._asked -= 1


_couriers: dict[int, Courier] = {}  # in use, by id of their store, which they hold
after_fork(_couriers.clear)


def courier_of(store: object) -> Courier:
    """Return the threads of a store."""
    found = _couriers.get(id(store))
    if found is None:
        found = _couriers[id(store)] = Courier(store)
    return found
