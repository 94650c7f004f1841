"""Run rows: what a journal's row of a run tells of it, whatever the journal's schema.

    `look` --> rows, the latest first --`can`, `untaken`--> what a session's item says

Rule: a row is what somebody wrote.  Whether its owner is still there is judged
by whoever has it (`history.stands`), each time.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Collection, Sequence
from typing import Any, get_args

import msgspec

from ipybatch.engine.data.events import Counts, State
from ipybatch.engine.feed.live_record import LiveRecord
from ipybatch.engine.feed.session_item import Verb, iso
from ipybatch.engine.store import history, lease

_QUEUED = ("PENDING", "RUNNING", "CANCELLING")  # states of submissions
TAKEN_S = 1.0  # a command that was not taken by then is told


class Row(msgspec.Struct, array_like=True):
    """A run as its row tells it; what an older schema does not have is as it is where nothing is known.

    Attributes:
        latest_s: When its latest start was, Unix; None where an older schema does not tell.
        takes_commands: Whether its schema has commands from elsewhere.
        submission: The id of its submission; "" for none.
        is_queued: Whether a submission of its name has not ended: it is begun by itself.
        asked: Verbs of commands that were not taken, each with when it was asked.
    """

    id: int
    name: str
    state: State
    reason: str
    created_s: float
    started_s: float | None
    latest_s: float | None
    seconds: float
    total: int | None
    completed: int
    failed: int
    timeout: int
    cancelled: int
    skipped: int
    usd: float | None
    group_word: str
    epoch: int
    owner: str | None
    beat_s: float
    resource: str
    workload: str
    kernel: str
    notebook: str
    live: bytes | None
    takes_commands: bool = False
    submission: str = ""
    is_queued: bool = False
    asked: list[tuple[str, float]] = []

    @property
    def counts(self) -> Counts:
        """How many items stand where, none of them running."""
        ended = self.completed + self.failed + self.timeout + self.cancelled + self.skipped
        return Counts(
            pending=max(0, (self.total or 0) - ended),
            completed=self.completed,
            failed=self.failed,
            timeout=self.timeout,
            cancelled=self.cancelled,
            skipped=self.skipped,
            total=self.total,
        )


class Damaged(msgspec.Struct, array_like=True):
    """A run whose row has what ipybatch did not write."""

    id: int
    kind: str


_COLUMNS = tuple(
    field for field in Row.__struct_fields__ if field not in ("takes_commands", "submission", "is_queued", "asked")
)
_LATER = {"workload": "''", "kernel": "''", "notebook": "''", "live": "NULL"}  # columns that an older schema lacks


def on_record(states: Collection[str]) -> tuple[str, ...]:
    """Return the states that rows have which stand in one of these."""
    wanted = {state for state in states if state != "interrupted"}
    return tuple(sorted(wanted | (set(history.UNENDED) if "interrupted" in states else set())))


def look(  # noqa: PLR0917  # what a page is made of
    database: sqlite3.Connection,
    states: Sequence[str],
    name: str,
    below: int | None,
    limit: int,
    heard_s: float | None = None,
) -> list[Row | Damaged]:
    """Return the latest rows that a page is made of.

    Args:
        states: On record; none for all. One after the other is looked for, so that an index gives each in order.
        name: Part of it, in any case.
        below: Only runs before this one.
        heard_s: Of those that are said to run, only whose process gave a sign of life since then; None for all.
    """
    where, values = "name <> '' AND id < ?", [1 << 62 if below is None else below]
    if name:
        condition, value = _holds(database, name)
        # The names alone are in an index, which is a tenth of the table.
        named = f"id IN (SELECT id FROM run WHERE {condition})"  # noqa: S608  # a constant
        where, values = f"{where} AND {named}", [*values, value]
    tables = _Tables.of(database)
    if not states:
        return read_rows(database, where, values, limit, tables)
    found: list[Row | Damaged] = []
    for state in states:
        of_state, given = f"{where} AND state = ?", [*values, state]
        if heard_s is not None and state in history.UNENDED:
            of_state, given = (
                f"{of_state} AND owner IS NOT NULL AND (beat_s >= ? OR owner = ?)",
                [*given, heard_s, lease.me()],
            )
        found += read_rows(database, of_state, given, limit, tables)
    return sorted(found, key=lambda row: -row.id)[:limit]


def _holds(database: sqlite3.Connection, name: str) -> tuple[str, Any]:
    """Return the condition that a name has this in it, in any case, and its value."""
    if name.isascii():
        spelt = re.sub(r"([\\%_])", r"\\\1", name)
        return r"name LIKE ? ESCAPE '\'", f"%{spelt}%"
    database.create_function("holds", 2, lambda text, part: part in text.casefold(), deterministic=True)
    return "holds(name, ?)", name.casefold()


class _Tables(msgspec.Struct):
    """What a journal's schema has: its tables, and the columns of `run`."""

    names: set[str]
    columns: set[str]

    @classmethod
    def of(cls, database: sqlite3.Connection) -> _Tables:
        """Return those of a journal."""
        return cls(
            {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")},
            {column for _, column, *_ in database.execute("PRAGMA table_info(run)")},
        )


def read_rows(
    database: sqlite3.Connection, where: str, values: Sequence[Any], limit: int, tables: _Tables | None = None
) -> list[Row | Damaged]:
    """Return the latest rows that meet a condition, with their submissions, and the commands that they did not take."""
    tables = tables or _Tables.of(database)
    known = tables.columns
    if not known:
        return []  # nothing was ever written to it
    of_schema = {"latest_s": history.latest_start(known)}
    of_schema |= {column: text for column, text in _LATER.items() if column not in known}
    columns = ", ".join(of_schema.get(column, column) for column in _COLUMNS)
    asked = f"SELECT {columns} FROM run WHERE {where} ORDER BY id DESC LIMIT ?"  # noqa: S608  # constants
    found = [_row(each) for each in database.execute(asked, (*values, limit))]
    rows = [row for row in found if isinstance(row, Row)]
    for row in rows:
        row.takes_commands = "command" in tables.names
        if row.takes_commands and row.state in history.UNENDED:
            asked = "SELECT verb, asked_s FROM command WHERE run = ? AND taken_s IS NULL ORDER BY id"
            row.asked = database.execute(asked, (row.id,)).fetchall()
    if rows and "submission" in tables.names and database.execute("SELECT 1 FROM submission LIMIT 1").fetchone():
        for row in rows:
            submitted = "SELECT id, run, state FROM submission WHERE name = ? ORDER BY number"
            for id_, run, state in database.execute(submitted, (row.name,)):
                row.is_queued |= state in _QUEUED
                row.submission = id_ if run == row.id else row.submission
    return found


def _row(values: tuple[Any, ...]) -> Row | Damaged:
    """Return a row; SQLite keeps whatever was written, of any type."""
    try:
        return msgspec.convert(values, Row)
    except msgspec.ValidationError as error:
        return Damaged(values[0], type(error).__name__)


def can(row: Row, state: State, where: str, told: LiveRecord | None = None) -> list[Verb]:
    """Return the commands that are possible: of what runs, those that reach it; of what ended, what can begin again."""
    if where:
        if not row.takes_commands:
            return []
        verbs: list[Verb] = ["resume" if state == "paused" else "pause", "cancel", "adjust"]
        if told is not None and told.is_cooling:
            verbs.append("lift")
        if told is not None and told.status.starts_s:
            verbs.append("start_now")
        return verbs
    if not row.submission or row.is_queued:
        return []  # its work is in the notebook or the script that made it; or it is begun by itself
    has_failed = row.failed + row.timeout + row.cancelled > 0
    has_more = state in ("interrupted", "cancelled", "failed", "rolled_back") or row.skipped > 0
    again: list[Verb] = ["resume"] if has_more else []
    return [*again, "retry_failed"] if has_failed else again


def untaken(row: Row, where: str) -> list[Verb]:
    """Return the verbs that were asked of a live session more than `TAKEN_S` ago, and that it has not taken."""
    if not where:
        return []
    late = time.time() - TAKEN_S
    asked = {verb for verb, asked_s in row.asked if asked_s < late}
    return [verb for verb in _VERBS if verb in asked]


_VERBS: tuple[Verb, ...] = get_args(Verb)


def why_interrupted(row: Row) -> str:
    """Return why a session is interrupted."""
    if row.owner is None:
        return "its process ended without letting go"
    process = lease.process_of(row.owner)
    if lease.may_live(row.owner):
        return f"{process} was last heard of at {iso(row.beat_s)}"
    return f"{process} ended without letting go"
