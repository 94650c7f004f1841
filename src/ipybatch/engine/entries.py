"""Entries: what is written of each attempt, and how it becomes rows.

Rows of one table go in with one statement for up to `ROWS` of them: SQLite
then steps once, and Python lets its lock go once, instead of once a row.
Values are int, float and str wherever they can be: sqlite3 looks for an
adapter of everything else (bool and bytes too), at half a microsecond each.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from ipybatch.engine.events import Status
from ipybatch.engine.limiter import Cost
from ipybatch.engine.outcome import Outcome
from ipybatch.engine.plan import Task, key_value
from ipybatch.engine.schema import SEQ_BITS, lane_of

ROWS = 32

_WIDTH = {"item": 11, "payload": 2, "attempt": 5, "window": 4}

Values = list[Any]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What is written of one attempt.

    Attributes:
        attempts: How often the task had been started by then.
        status: "pending" for an attempt that another one follows.
        final: Whether a resume keeps it; False for what runs again.
        payload: The result as JSON; None for None.
        responded_s: Unix time.
        spent: What it cost in the windows that outlive a restart, by unit; empty without rates.
        lane: Whose windows these are too; "" without lanes.
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
    spent: Cost
    lane: str = ""

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


def values_of(entries: Sequence[Entry], run: int, resource: str) -> dict[str, Values]:
    """Return the values of the rows that record ``entries``, one row after the other, by table."""
    base = run << SEQ_BITS
    items: Values = []
    values: dict[str, Values] = {"item": items}
    for entry in entries:
        task = entry.task
        at = base + task.seq
        for unit, cost in entry.spent.items() if entry.spent else ():
            values.setdefault("window", []).extend((resource, entry.responded_s, unit, cost))
            if entry.lane:
                values["window"].extend((lane_of(resource, entry.lane), entry.responded_s, unit, cost))
        if entry.status == "pending":
            attempt = (at, entry.attempts, entry.responded_s, entry.seconds, entry.error)
            values.setdefault("attempt", []).extend(attempt)
            continue
        items += (
            at,
            task.key,
            task.digest,
            entry.status,
            1 if entry.final else 0,
            task.group,
            entry.attempts,
            entry.seconds,
            entry.responded_s,
            entry.error,
            0 if entry.payload is None else 1,
        )
        if entry.payload is not None:
            values.setdefault("payload", []).extend((at, entry.payload))
    return values


def insert(database: sqlite3.Connection, table: str, values: Values) -> None:
    """Write rows of one table, in place of those they share an id with."""
    width = _WIDTH[table]
    for at in range(0, len(values), ROWS * width):
        some = values[at : at + ROWS * width]
        database.execute(_statement(table, len(some) // width), some)


@functools.cache
def _statement(table: str, rows: int) -> str:
    row = f"({', '.join('?' * _WIDTH[table])})"
    return f"INSERT OR REPLACE INTO {table} VALUES {', '.join([row] * rows)}"  # noqa: S608  # constants
