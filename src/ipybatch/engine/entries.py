"""Entries: what is written of each attempt, and how it becomes rows.

Rows of one table go in with one statement for up to `ROWS` of them: SQLite
then steps once, and Python lets its lock go once, instead of once a row.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from ipybatch.engine.events import Status
from ipybatch.engine.outcome import Outcome
from ipybatch.engine.plan import Task, key_value
from ipybatch.engine.schema import SEQ_BITS

ROWS = 32

_WIDTH = {"item": 11, "payload": 2, "attempt": 5, "window": 3}

Row = tuple[Any, ...]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What is written of one attempt.

    Attributes:
        attempts: How often the task had been started by then.
        status: "pending" for an attempt that another one follows.
        final: Whether a resume keeps it; False for what runs again.
        payload: The result as JSON; None for None.
        responded_s: Unix time.
        requests: How many it counts for in the windows that outlive a restart; 0 for work without rates.
    """

    task: Task
    attempts: int
    status: Status
    final: bool
    result: Any
    payload: bytes | None
    responded_s: float
    seconds: float
    error: str
    requests: int

    def outcome(self) -> Outcome:
        """Return what the user gets to see of it."""
        return Outcome(
            key=key_value(self.task.key),
            status=self.status,
            result=self.result,
            error=self.error,
            attempts=self.attempts,
            seconds=self.seconds,
        )


def rows_of(entries: Sequence[Entry], run: int, resource: str) -> dict[str, list[Row]]:
    """Return the rows that record ``entries``, by table."""
    base = run << SEQ_BITS
    items: list[Row] = []
    rows: dict[str, list[Row]] = {"item": items}
    for entry in entries:
        task = entry.task
        at = base + task.seq
        if entry.requests:
            rows.setdefault("window", []).append((resource, entry.responded_s, entry.requests))
        if entry.status == "pending":
            attempt = (at, entry.attempts, entry.responded_s, entry.seconds, entry.error)
            rows.setdefault("attempt", []).append(attempt)
            continue
        items.append(
            (
                at,
                task.key,
                task.digest,
                entry.status,
                entry.final,
                task.group,
                entry.attempts,
                entry.seconds,
                entry.responded_s,
                entry.error,
                entry.payload is not None,
            )
        )
        if entry.payload is not None:
            rows.setdefault("payload", []).append((at, entry.payload))
    return rows


def insert(database: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    """Write rows of one table, in place of those they share an id with."""
    for at in range(0, len(rows), ROWS):
        some = rows[at : at + ROWS]
        database.execute(_statement(table, len(some)), tuple(chain.from_iterable(some)))


@functools.cache
def _statement(table: str, rows: int) -> str:
    row = f"({', '.join('?' * _WIDTH[table])})"
    return f"INSERT OR REPLACE INTO {table} VALUES {', '.join([row] * rows)}"  # noqa: S608  # constants
