"""CommitQueue: hands entries to the journal and tells when they are on disk.

Rule: entries that come within a few turns of the loop, or while a commit is
under way, go into the next one together, and share one future: one for every
item costs more than the work.  But not all of ten thousand that end together:
whoever waits for a commit goes on in one turn of the loop, which has more to do.

While another program holds the journal's lock, entries wait with their slots,
and are written when it is free.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ipybatch.engine.data.after_turns import AfterTurns
from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.store.journal_errors import is_busy
from ipybatch.engine.store.rows import Entry
from ipybatch.engine.store.run_store import RunStore
from ipybatch.errors import JournalError

TURNS = 4  # of the loop, from an entry to its commit
MOST = 1000  # entries of a commit


class Committed(asyncio.Future[None]):
    """Done after a commit; several wait for it, so that the cancel of one is none of the others."""

    def cancel(self, msg: Any = None) -> bool:
        """Stay as it is; return that it does."""
        return False


class CommitQueue:
    """Collect entries while the writer is busy, and commit them together.

    Attributes:
        on_recorded: Told of entries after their commit, in order.
        on_error: Told when the journal refuses; nothing is recorded any more.
        on_busy: Told that another program holds the journal's lock, and when it does no more.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        *,
        on_recorded: Callable[[list[Entry]], None],
        on_error: Callable[[JournalError, list[Entry]], None],
        on_busy: Callable[[bool], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._hold = None if isinstance(clock, SystemClock) else clock.hold  # real time passes anyway
        self._loop = asyncio.get_running_loop()
        self._on_recorded = on_recorded
        self._on_error = on_error
        self._on_busy = on_busy
        self._is_locked = False
        self._until_s = math.inf  # how long a lock is waited for
        self._entries: list[Entry] = []
        self._committed = Committed(loop=self._loop)
        self._full: deque[tuple[list[Entry], Committed]] = deque()  # before these, each of `MOST`
        self._busy = False
        self._soon = AfterTurns(self._loop, TURNS, self._flush)
        self._thread = threading.get_ident()

    def add(self, entry: Entry) -> asyncio.Future[None]:
        """Record ``entry``; the future is done after its commit."""
        if len(self._entries) == MOST:
            self._full.append(self._begin())
        self._entries.append(entry)
        if not self._busy:
            self._busy = True
            self._soon.ask()
        return self._committed

    def bound(self, patience_s: float) -> None:
        """Wait no longer than that from now on, while another program holds the journal's lock."""
        self._until_s = min(self._until_s, time.monotonic() + patience_s)

    def commit_now(self, slots: int) -> bool:
        """Commit without any turn of the loop if that is all there is to wait for; return whether it is done.

        Args:
            slots: How many wait for their commit, or run.
        """
        if not self._soon.is_due or self._full or len(self._entries) != slots:
            return False
        self._soon.cancel()
        self._flush()
        return not self._busy

    def _flush(self) -> None:
        self._submit(*(self._full.popleft() if self._full else self._begin()))

    def _begin(self) -> tuple[list[Entry], Committed]:
        """Begin another commit; return what the one before has come to."""
        gathered = self._entries, self._committed
        self._entries, self._committed = [], Committed(loop=self._loop)
        return gathered

    def _submit(self, entries: list[Entry], committed: asyncio.Future[None]) -> None:
        def tell(error: JournalError | None) -> None:
            if threading.get_ident() == self._thread:
                self._answer(entries, committed, error)
            else:
                self._loop.call_soon_threadsafe(self._answer, entries, committed, error)

        if self._hold is not None:
            self._hold(+1)
        self._store.submit(entries, self._clock.unix_s(), tell)

    def _answer(self, entries: list[Entry], committed: asyncio.Future[None], error: JournalError | None) -> None:
        if self._hold is not None:
            self._hold(-1)
        if error is None:
            if self._is_locked:
                self._is_locked = False
                self._on_busy(False)
            self._on_recorded(entries)
        elif is_busy(error) and time.monotonic() < self._until_s:
            self._is_locked = True
            self._on_busy(True)
            self._submit(entries, committed)
            return
        else:
            self._on_error(error, entries)
        committed.set_result(None)
        self._busy = bool(self._entries or self._full)
        if self._busy:
            self._soon.ask()


async def written(clock: Clock, write: Callable[[Callable[[JournalError | None], object]], None]) -> None:
    """Wait for a write on the loop, which goes on meanwhile; whoever waits is not cancelled before it is written.

    Args:
        write: Is handed what to call after the commit, on any thread.

    Raises:
        JournalError: It was not written.
    """
    loop = asyncio.get_running_loop()
    committed: asyncio.Future[None] = loop.create_future()

    def answer(error: JournalError | None) -> None:
        clock.hold(-1)
        if not committed.done():
            committed.set_exception(error) if error else committed.set_result(None)

    clock.hold(+1)
    write(lambda error: loop.call_soon_threadsafe(answer, error))
    while not committed.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([committed])
    committed.result()
