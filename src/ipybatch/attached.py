"""Attached: which sessions live in this process, and what the journal knows of the others."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipybatch.engine import events, ledger
from ipybatch.engine.feed import Feed
from ipybatch.engine.journal import Journal
from ipybatch.engine.ledger import Found
from ipybatch.engine.opening import Opening
from ipybatch.engine.plan import Recorded, Task
from ipybatch.engine.snapshot import Group
from ipybatch.errors import InputError

if TYPE_CHECKING:
    from ipybatch.session import BatchSession

_live: dict[tuple[Path, str], BatchSession] = {}
_lock = threading.Lock()


def enter(session: BatchSession) -> None:
    """Count a session as running in this process."""
    with _lock:
        _live[session.journal, session.name] = session


def leave(session: BatchSession) -> None:
    """Count it no more."""
    with _lock:
        _live.pop((session.journal, session.name), None)


def live(journal: Path, name: str) -> BatchSession | None:
    """Return the session of that name that runs in this process; None if none does."""
    return _live.get((journal, name))


async def reading_only(item: Any) -> None:
    """Stand in for the work of a session that was opened to be read."""
    msg = f"this session was opened for reading: pass work= to run {item!r}"
    raise InputError(msg)


def recorded_items(journal: Journal, name: str, *, to_run: bool) -> Recorded:
    """Return the recorded plan of a session.

    Raises:
        InputError: Nothing of that name is recorded, or it cannot go on from the journal alone.
    """
    with journal.reader() as database:
        found = ledger.find(database, name)
        if found is None:
            msg = f"name must be that of a recorded session, got {name!r}; ipybatch.history() lists them"
            raise InputError(msg)
        tasks = Recorded(ledger.read_plan(database, found))
    if to_run and (found.plan_hash is None or any(task.refused for task in tasks)):
        msg = f"session {name!r} cannot go on from the journal alone: create it again with its items"
        raise InputError(msg)
    return tasks


def show_recorded(feed: Feed, journal: Journal, opening: Opening, tasks: Sequence[Task] | None) -> None:
    """Let a new session show what is recorded of it, before it starts."""
    with journal.reader() as database:
        found = None if opening.fresh else ledger.find(database, opening.name)
        total = None if tasks is None else len(tasks)
        counts = events.Counts(total=total, pending=total or 0)
        if found is not None:
            counts = _going_on(found, total)
        feed.emit(events.Planned(feed.clock.unix_s(), opening.name, counts))
        if found is not None and isinstance(tasks, Recorded):
            _show_as_it_ended(feed, database, found)


def forget(journal: Journal, name: str) -> None:
    """Delete every run of ``name``."""
    journal.write(lambda database: _erase(database, "name = ?", name))


def prune(journal: Journal, created_before_s: float) -> int:
    """Delete runs that were made before a time and are not running; return how many."""
    removed: int = journal.write(
        lambda database: _erase(database, "owner IS NULL AND coalesce(ended_s, created_s) < ?", created_before_s)
    )
    return removed


def _going_on(found: Found, total: int | None) -> events.Counts:
    recorded = found.counts
    known = recorded.completed + recorded.skipped + recorded.failed
    return events.Counts(
        completed=recorded.completed,
        skipped=recorded.skipped,
        failed=recorded.failed,
        total=total,
        pending=max(0, (total or 0) - known),
    )


def _show_as_it_ended(feed: Feed, database: sqlite3.Connection, found: Found) -> None:
    at_s = feed.clock.unix_s()
    feed.emit(events.Planned(at_s, feed.snapshot.name, found.counts))
    for group in _groups(database, found):
        feed.snapshot.groups[group.number] = group
    if found.state in events.ENDED:
        feed.snapshot.started_s = at_s - found.seconds
        feed.emit(events.StateChanged(at_s, found.state, found.reason))
    elif found.started_s is not None:
        feed.note("its last process ended without letting go: start() goes on with what is not recorded")


def _groups(database: sqlite3.Connection, found: Found) -> list[Group]:
    first, after = ledger.ids(found.run)
    rows = database.execute(
        "SELECT grp, count(*), sum(status <> 'completed'), min(ended_s - seconds), max(ended_s), max(error)"
        " FROM item WHERE id >= ? AND id < ? AND grp > 0 GROUP BY grp ORDER BY grp",
        (first, after),
    )
    return [
        Group(
            number=number,
            name=f"{found.group_word} {number}",
            status="failed" if failed == items else "completed",
            items=items,
            done=items,
            failed=failed,
            started_s=started_s,
            ended_s=ended_s,
            error=error,
        )
        for number, items, failed, started_s, ended_s, error in rows
    ]


def _erase(database: sqlite3.Connection, where: str, value: Any) -> int:
    runs = [run for (run,) in database.execute(f"SELECT id FROM run WHERE {where}", (value,))]  # noqa: S608  # constants
    for run in runs:
        ledger.erase_items(database, run)
        database.execute("DELETE FROM plan WHERE run = ?", (run,))
        database.execute("DELETE FROM run WHERE id = ?", (run,))
    return len(runs)
