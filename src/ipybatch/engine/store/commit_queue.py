"""CommitQueue: hands entries to the journal and tells when they are on disk.

Rule: entries that come while a commit is under way go into the next one
together, and share one future: one for every item costs more than the work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.store.rows import Entry
from ipybatch.engine.store.run_store import RunStore
from ipybatch.errors import JournalError


class CommitQueue:
    """Collect entries while the writer is busy, and commit them together.

    Attributes:
        on_recorded: Told of entries after their commit, in order.
        on_error: Told when the journal refuses; nothing is recorded any more.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        *,
        on_recorded: Callable[[list[Entry]], None],
        on_error: Callable[[JournalError, list[Entry]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._hold = None if isinstance(clock, SystemClock) else clock.hold  # real time passes anyway
        self._loop = asyncio.get_running_loop()
        self._on_recorded = on_recorded
        self._on_error = on_error
        self._entries: list[Entry] = []
        self._committed: asyncio.Future[None] = self._loop.create_future()
        self._busy = False
        self._thread = threading.get_ident()

    def add(self, entry: Entry) -> asyncio.Future[None]:
        """Record ``entry``; the future is done after its commit."""
        self._entries.append(entry)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._flush)
        return self._committed

    def _flush(self) -> None:
        entries, committed = self._entries, self._committed
        self._entries, self._committed = [], self._loop.create_future()

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
            self._on_recorded(entries)
        else:
            self._on_error(error, entries)
        committed.set_result(None)
        self._busy = bool(self._entries)
        if self._busy:
            self._loop.call_soon(self._flush)
