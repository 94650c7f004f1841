"""Schedule run: what is due, submitted and run in this process: cron does what a Jupyter server would.

    `run_due` --> what is due becomes submissions --> those of schedules that nobody runs, one after the other --> again

Rule: it may be started every minute: what another process submits or runs is left to that one.  A run whose process
died goes on here, as it would in a server: `submission_store.STARTS` times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from ipybatch.notify import delivery
from ipybatch.server import schedule_rows
from ipybatch.server.run import work
from ipybatch.server.schedule_store import Schedules
from ipybatch.server.submission_rows import Conflict, Row


def run_due(store: Schedules) -> Iterator[Row]:
    """Submit what is due and run it here, and yield each as it ended, until nothing is left.

    Raises:
        JournalError: The journal cannot be read or written.
    """
    tried: set[str] = set()
    while True:
        store.submit_due()
        store.submissions.claim(0)  # nothing is taken: what died too often ends
        delivery.deliverer.wake(store.path)  # nobody else may be there to send what is to be told
        row = _next(store, tried)
        if row is None:
            return
        tried.add(row.id)
        try:
            yield work(row.id, journal=store.path)
        except Conflict:  # somebody else was quicker, or has cancelled it
            continue


def _next(store: Schedules, tried: set[str]) -> Row | None:
    """Return the next one that nobody runs."""
    waiting: list[Row] = store.read(lambda database: list(schedule_rows.open_runs(database, time.time())), [])
    found = [row for row in waiting if row.id not in tried and store.submissions.is_live(row) is False]
    return min(found, key=lambda row: (row.priority, row.number), default=None)
