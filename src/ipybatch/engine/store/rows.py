"""Rows: what is written of each attempt, and what the journal tells of a run's items to those who look at it.

Rows of one table go in with one statement for up to `ROWS` of them: SQLite
then steps once, and Python lets its lock go once, instead of once a row.
Values are int, float and str wherever they can be: sqlite3 looks for an
adapter of everything else (bool and bytes too), at half a microsecond each.

What is read back here are numbers and short texts; results are read by `frames`.
"""

from __future__ import annotations

import functools
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.events import MARKS, Mark, Status
from ipybatch.engine.data.outcome import Outcome, RecordedItem, Try
from ipybatch.engine.data.plan import Plan, Task, key_value, label_of
from ipybatch.engine.rules.classify import scope_of
from ipybatch.engine.store.schema import SEQ_BITS, ids

ROWS = 32

_ITEM = "(id, key, digest, status, final, grp, attempts, seconds, ended_s, error, has_result, kind)"
_WIDTH = {"item": 12, "completed": 8, "payload": 2, "attempt": 5}
# What is the same in all rows of items that succeed stands in the statement: binding it costs a quarter of the row.
_COMPLETED = "(?, ?, ?, 'completed', 1, ?, ?, ?, ?, '', ?, '')"

# Of an item that succeeded later, one is left: nothing looks for it at each success.
TRACEBACK = "coalesce((SELECT frames FROM traceback WHERE traceback.id = item.id AND item.status <> 'completed'), '')"

Values = list[Any]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What is written of one attempt.

    Attributes:
        label: The key as people read it.
        attempts: How often the task had been started by then.
        status: "pending" for an attempt that another one follows.
        final: Whether a resume keeps it; False for what runs again.
        payload: The result as JSON; None for None.
        responded_s: Unix time.
        kind: One word for how it failed; "" for none. ``advice``: what the user can do about it.
        traceback: The last frames of the user's own code; "" for none. ``scope``: whose fault it is.
    """

    task: Task
    label: str
    attempts: int
    status: Status
    final: bool
    result: Any
    payload: bytes | None
    responded_s: float
    seconds: float
    error: str
    kind: str = ""
    advice: str = ""
    traceback: str = ""
    scope: str = ""

    def outcome(self) -> Outcome:
        """Return what the user gets to see of it."""
        return Outcome(
            key=key_value(self.task.key),
            status=self.status,
            result=self.result,
            error=self.error,
            attempts=self.attempts,
            seconds=self.seconds,
            kind=self.kind,
            advice=self.advice,
            traceback=self.traceback,
            scope=self.scope,
        )


def values_of(entries: Sequence[Entry], run: int) -> dict[str, Values]:
    """Return the values of the rows that record ``entries``, one row after the other, by table."""
    base = run << SEQ_BITS
    completed: Values = []
    values: dict[str, Values] = {"completed": completed}
    for entry in entries:
        task, payload = entry.task, entry.payload
        at = base + task.seq
        if payload is not None:
            values.setdefault("payload", []).extend((at, payload))
        if entry.status == "completed":
            has_result = 0 if payload is None else 1
            completed += (
                at,
                task.key,
                task.digest,
                task.group,
                entry.attempts,
                entry.seconds,
                entry.responded_s,
                has_result,
            )
        elif entry.status == "pending":
            attempt = (at, entry.attempts, entry.responded_s, entry.seconds, entry.error)
            values.setdefault("attempt", []).extend(attempt)
        else:
            values.setdefault("item", []).extend(
                (
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
                    0 if payload is None else 1,
                    kind_on_record(entry.kind, entry.scope),
                )
            )
            values.setdefault("traceback", []).append((at, entry.traceback))
    return values


def kind_on_record(kind: str, scope: str) -> str:
    """Return a kind as it is written: with its scope, where the word does not say it."""
    return kind if not scope or scope_of(kind) == scope else f"{kind}@{scope}"


def read_kind(status: str, written: str) -> tuple[str, str]:
    """Return the kind and the scope of what failed, as they are on record."""
    kind, _, scope = written.rpartition("@") if "@" in written else (written, "", "")
    return kind, scope or scope_of(kind or status)


def keys_of_kind(database: sqlite3.Connection, run: int, kind: str) -> list[str]:
    """Return the keys of the items of a run that failed in one way."""
    sql = "SELECT key FROM item WHERE id >= ? AND id < ? AND status = 'failed' AND (kind = ? OR kind LIKE ? || '@%')"
    return [key for (key,) in database.execute(sql, (*ids(run), kind, kind)).fetchall()]


def insert(database: sqlite3.Connection, table: str, values: Values) -> None:
    """Write rows of one table, in place of those they share an id with; without a traceback, the one before goes."""
    if table == "traceback":
        kept = [row for row in values if row[1]]
        database.executemany("INSERT OR REPLACE INTO traceback VALUES (?, ?)", kept)
        database.executemany("DELETE FROM traceback WHERE id = ?", [row[:1] for row in values if not row[1]])
        return
    width = _WIDTH[table]
    for at in range(0, len(values), ROWS * width):
        some = values[at : at + ROWS * width]
        database.execute(_statement(table, len(some) // width), some)


@functools.cache
def _statement(table: str, rows: int) -> str:
    row = _COMPLETED if table == "completed" else f"({', '.join('?' * _WIDTH[table])})"
    into = f"item {_ITEM}" if table in ("item", "completed") else table
    return f"INSERT OR REPLACE INTO {into} VALUES {', '.join([row] * rows)}"  # noqa: S608  # constants


def present(database: sqlite3.Connection, plan: Plan | None) -> str:
    """Return the condition that an item on record has the input it has in a plan: else it answers another question.

    What the plan does not list does not count either; all of a generator's do.
    """
    if plan is None:
        return "true"
    digests = {task.key: task.digest for task in plan}
    database.create_function("is_present", 2, lambda key, digest: digests.get(key) == digest)
    return "is_present(key, digest)"


def read_groups(
    database: sqlite3.Connection, run: int, group_word: str, at_s: float, plan: Plan | None = None
) -> Iterator[events.GroupRecalled]:
    """Yield the recorded groups, in order: an item belongs to its latest one.

    Args:
        plan: What the items are now; those with another input are left out.
    """
    where = f"id >= ? AND id < ? AND grp > 0 AND {present(database, plan)}"
    rows = database.execute(
        "SELECT grp, count(*), sum(status <> 'completed'), min(ended_s - seconds), max(ended_s),"  # noqa: S608
        f" max(substr(error, 1, 500)) FROM item WHERE {where} GROUP BY grp ORDER BY grp",
        ids(run),
    )
    for number, items, failed, started_s, ended_s, error in rows:
        yield events.GroupRecalled(at_s, number, f"{group_word} {number}", items, failed, started_s, ended_s, error)


def has_groups(database: sqlite3.Connection, run: int) -> bool:
    """Say whether a run's items are in groups, as far as the last of them tell: a look at all may take long."""
    last = "SELECT grp FROM item WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 100"
    return any(group for (group,) in database.execute(last, ids(run)))


def read_items(
    database: sqlite3.Connection, run: int, group: int, *, offset: int, limit: int, plan: Plan | None = None
) -> tuple[int, list[RecordedItem]]:
    """Return how many items of a group are recorded, and some of them, those that did not complete first.

    Args:
        plan: What the items are now; those with another input are left out.
    """
    where, values = f"id >= ? AND id < ? AND grp = ? AND {present(database, plan)}", (*ids(run), group)
    (total,) = database.execute(f"SELECT count(*) FROM item WHERE {where}", values).fetchone()  # noqa: S608  # a constant
    rows = database.execute(
        f"SELECT id, key, status, attempts, seconds, error, {TRACEBACK} FROM item WHERE {where}"  # noqa: S608  # a constant
        " ORDER BY status = 'completed', id LIMIT ? OFFSET ?",
        (*values, limit, offset),
    ).fetchall()
    tries = read_tries(database, [row[0] for row in rows])
    return total, [
        RecordedItem(
            key=label_of(key),
            status=status,
            attempts=attempts,
            seconds=seconds,
            error=error,
            tries=tries[id_],
            traceback=traceback,
        )
        for id_, key, status, attempts, seconds, error, traceback in rows
    ]


def read_keys(database: sqlite3.Connection, run: int) -> set[str]:
    """Return the keys of the items that a run has on record."""
    return {key for (key,) in database.execute("SELECT key FROM item WHERE id >= ? AND id < ?", ids(run))}


def read_pace(database: sqlite3.Connection, run: int, before_s: float) -> list[Mark]:
    """Return how the items of a run that ended before a time did so; attempts count when their item ends."""
    where, values = "id >= ? AND id < ? AND attempts > 0 AND ended_s < ?", (*ids(run), before_s)
    first_s, last_s = database.execute(
        f"SELECT min(ended_s - seconds), max(ended_s) FROM item WHERE {where}",  # noqa: S608  # a constant
        values,
    ).fetchone()
    if first_s is None:
        return []
    step_s = max(1.0, (last_s - first_s) * 1.01 / (MARKS // 2))
    sums = "sum(attempts), count(*), sum(status <> 'completed')"
    rows = database.execute(
        f"SELECT cast((ended_s - ?) / ? AS INTEGER) step, {sums} FROM item WHERE {where} GROUP BY step ORDER BY step",  # noqa: S608
        (first_s, step_s, *values),
    )
    marks = [Mark(first_s, 0, 0, 0)]
    for step, started, ended, failed in rows:
        begun_s, before = first_s + step * step_s, marks[-1]
        if begun_s > before.at_s:  # nothing ended for a while
            marks.append(Mark(begun_s, before.started, before.ended, before.failed))
        until_s = min(begun_s + step_s, last_s)
        marks.append(Mark(until_s, before.started + started, before.ended + ended, before.failed + failed))
    return marks


def read_tries(database: sqlite3.Connection, items: Iterable[int]) -> defaultdict[int, list[Try]]:
    """Return the attempts of items that failed and were followed by another, by the item's id."""
    tries: defaultdict[int, list[Try]] = defaultdict(list)
    for item in items:
        rows = database.execute("SELECT attempt, seconds, error FROM attempt WHERE item = ? ORDER BY attempt", (item,))
        tries[item] = [Try(attempt=attempt, seconds=seconds, error=error) for attempt, seconds, error in rows]
    return tries
