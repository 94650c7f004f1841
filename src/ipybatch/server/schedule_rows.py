"""Schedule rows: what the journal tells of schedules, and what is written of them within a transaction.

`schedule_store` says who may do what, and when.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ipybatch.engine.data.masking import is_encodable
from ipybatch.engine.store import history
from ipybatch.engine.store.network_copy import home_of
from ipybatch.server import submission_rows
from ipybatch.server.wire import SubmissionRequest

T = TypeVar("T")
_KEY = "schedule "  # the beginning of the idempotency keys of what schedules submit
BACK_S = 60.0  # a clock that is as much behind what it has shown was set back: those of several machines differ by less


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule on record.

    Attributes:
        id: Of it alone: another one of the same name has another.
        request: A submission's body, as JSON.
        timing: When, as JSON: `wire.ScheduleTiming`, as it was given; the zone by name.
        account: Of the server that took it, as ``max_requests``: whoever submits keeps to these.
        anchor_s: What spans are counted from; ``start_s``, ``until_s``: nothing comes before and after these; Unix.
        next_s: When it is due; None for never more.
        moved_s: When that was worked out.
        question_s: The last time that was missed, while it waits for an answer; ``question_from_s``: the first of them,
            ``missed``: how many.
        last_s: The latest time that was submitted; ``submission``: the id of what it became.
        note: What became of the latest time, where that is not plain.
        version: Counts the writes.
    """

    number: int
    id: str
    name: str
    request: bytes
    timing: bytes
    account: str
    max_requests: int
    created_s: float
    anchor_s: float
    start_s: float | None
    until_s: float | None
    next_s: float | None
    moved_s: float
    is_paused: int = 0
    question_s: float | None = None
    question_from_s: float | None = None
    missed: int = 0
    last_s: float | None = None
    submission: str = ""
    note: str = ""
    version: int = 1


_FIELDS = Row.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)
_DUE = "is_paused = 0 AND ((question_s IS NULL AND next_s <= :now_s) OR moved_s > :now_s + :back_s)"


def ask(path: Path, question: Callable[[sqlite3.Connection], T], nothing: T) -> T:
    """Return the answer to a question; ``nothing`` where there is no journal, or one before there were schedules.

    Raises:
        JournalError: It cannot be read.
    """
    if not path.exists() and not home_of(path).exists():
        return nothing
    return history.look(path, lambda database, _: question(database) if has_table(database) else nothing)


def has_table(database: sqlite3.Connection) -> bool:
    """Say whether a journal has schedules as this version knows them."""
    columns = {column for _, column, *_ in database.execute("PRAGMA table_info(schedule)")}
    return columns.issuperset(_FIELDS)


def is_any_due(path: Path, now_s: float) -> bool:
    """Say whether a journal has schedules to look at: nothing is loaded and nothing made for that.

    Raises:
        JournalError: It cannot be read.
    """
    return ask(path, lambda database: next(due(database, now_s), None) is not None, False)


def stamp(database: sqlite3.Connection) -> list[tuple[int, int, submission_rows.RowState | None]]:
    """Return what is another one whenever a schedule was made, changed or removed, or its latest run goes on."""
    state = "(SELECT state FROM submission WHERE submission.id = schedule.submission)"
    asked = f"SELECT number, version, {state} FROM schedule ORDER BY number"  # noqa: S608  # constants
    return database.execute(asked).fetchall()


class Ran(msgspec.Struct, frozen=True):
    """What the latest time of a schedule became.

    Attributes:
        failed: Items that failed or timed out, where it has completed; else 0.
    """

    submission: submission_rows.Row
    failed: int = 0


def last_of(database: sqlite3.Connection, row: Row) -> Ran | None:
    """Return what the latest time of a schedule became; None for nothing yet, and where that was deleted."""
    submission = submission_rows.find(database, row.submission)
    if submission is None or submission.run is None or submission.state != "COMPLETED":
        return None if submission is None else Ran(submission)
    counted = database.execute("SELECT failed + timeout FROM run WHERE id = ?", (submission.run,)).fetchone()
    return Ran(submission, counted[0] if counted else 0)


def due(database: sqlite3.Connection, now_s: float) -> Iterator[Row]:
    """Yield those that are due, and those to be worked out anew as the clock was set back."""
    asked = f"SELECT {_COLUMNS} FROM schedule WHERE {_DUE} ORDER BY next_s, number"  # noqa: S608  # constants
    return _read(database.execute(asked, {"now_s": now_s, "back_s": BACK_S}))


def find(database: sqlite3.Connection, name: str) -> Row | None:
    """Return a schedule by its name; None for what no schedule can have as its name, too."""
    if not isinstance(name, str) or not is_encodable(name):
        return None
    return next(_read(database.execute(f"SELECT {_COLUMNS} FROM schedule WHERE name = ?", (name,))), None)  # noqa: S608


def page(database: sqlite3.Connection, limit: int, after: str = "") -> list[Row]:
    """Return some by name, those after a name."""
    asked = f"SELECT {_COLUMNS} FROM schedule WHERE name > ? ORDER BY name LIMIT ?"  # noqa: S608  # constants
    return list(_read(database.execute(asked, (after, limit))))


def uploads(database: sqlite3.Connection) -> set[str]:
    """Return the uploads that schedules need."""
    requests = database.execute("SELECT request FROM schedule").fetchall()
    found = {msgspec.json.decode(request, type=SubmissionRequest).upload for (request,) in requests}
    return {upload for upload in found if upload}


def insert(database: sqlite3.Connection, row: Row) -> None:
    """Write a new one; its number is given to it."""
    fields = [field for field in _FIELDS if field != "number"]
    into = f"INSERT INTO schedule ({', '.join(fields)}) VALUES ({', '.join('?' * len(fields))})"  # noqa: S608
    database.execute(into, [getattr(row, field) for field in fields])


def update(database: sqlite3.Connection, row: Row, **changes: Any) -> None:
    """Write some of its columns, and count that."""
    fields = ", ".join(f"{name} = ?" for name in changes)
    told = f"UPDATE schedule SET {fields}, version = version + 1 WHERE number = ?"  # noqa: S608  # names of ours
    database.execute(told, (*changes.values(), row.number))


def delete(database: sqlite3.Connection, row: Row) -> None:
    """Remove one; what it has submitted stays."""
    database.execute("DELETE FROM schedule WHERE number = ?", (row.number,))


def is_taken(database: sqlite3.Connection, name: str) -> bool:
    """Say whether there is, or was, a session of that name."""
    asked = "SELECT 1 FROM submission WHERE name = ? UNION ALL SELECT 1 FROM run WHERE name = ?"
    return database.execute(asked, (name, name)).fetchone() is not None


def key_of(row: Row, at: str) -> str:
    """Return the idempotency key of what a time of a schedule becomes."""
    return f"{_KEY}{row.id} @ {at}"


def open_run(database: sqlite3.Connection, row: Row) -> str | None:
    """Return the name of a run of a schedule that has not ended; None for none."""
    asked = (
        "SELECT name FROM submission WHERE state IN ('PENDING', 'RUNNING', 'CANCELLING')"
        " AND idempotency GLOB ? ORDER BY number DESC LIMIT 1"
    )
    found = database.execute(asked, (f"{_KEY}{row.id} @ *",)).fetchone()
    return None if found is None else str(found[0])


def open_runs(database: sqlite3.Connection, now_s: float) -> Iterator[submission_rows.Row]:
    """Yield the submissions of schedules that have not ended, and may run now."""
    asked = (
        f"SELECT {submission_rows.COLUMNS} FROM submission WHERE state IN ('PENDING', 'RUNNING', 'CANCELLING')"  # noqa: S608
        " AND idempotency GLOB ? AND coalesce(start_at_s, 0) <= ?"
    )
    return submission_rows.read(database.execute(asked, (f"{_KEY}*", now_s)))


def _read(cursor: sqlite3.Cursor) -> Iterator[Row]:
    for values in cursor:
        yield Row(**dict(zip(_FIELDS, values, strict=True)))
