"""Session JSON: the session of a message as the REST API tells it, from its journal alone.

What the notice says (state, counts, reason, cost) is as it was when that
became true: a message that comes again is the same.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from ipybatch.engine.data.masking import mask, printable
from ipybatch.engine.feed import live_record
from ipybatch.engine.feed.session_item import Breaker, GroupItem, Session, group_item, iso
from ipybatch.engine.feed.snapshot import BreakerSnapshot
from ipybatch.engine.store import history, rows
from ipybatch.engine.store.outbox import Message

GROUPS = 100  # as in the REST API's first page
BASE = "/ipybatch/api/v1/sessions"
PARTS = ("items", "groups", "errors", "log", "results.csv", "results.jsonl")

_COLUMNS = "created_s, started_s, group_word, workload, kernel, live"


def session_of(database: sqlite3.Connection, path: Path, message: Message) -> Session | None:
    """Return the session of a message; None where it is on record no more.

    Args:
        path: The journal, as it is asked for.
    """
    row = database.execute(f"SELECT {_COLUMNS} FROM run WHERE id = ? AND name <> ''", (message.run,)).fetchone()  # noqa: S608
    if row is None:
        return None
    created_s, started_s, group_word, workload, kernel, live = row
    notice, id_ = message.notice, history.id_of(path, message.run)
    record = live_record.decode(live)
    breaker = None if record is None or record.breaker_policy is None else record.breaker
    return Session(
        id=id_,
        name=printable(notice.name),
        state=notice.state,
        counts=notice.counts,
        started=iso(created_s if started_s is None else started_s),
        seconds=round(notice.seconds, 3),
        eta_s=None,
        usd=notice.usd,
        reason=mask(notice.reason),
        workload=workload,
        kernel=kernel or None,
        notebook=None,  # below which server's root is not known here
        breaker=None if breaker is None else breaker.state,
        waiting="",
        outside_hours=False,
        where="",
        can=[],  # what is possible now, its server says
        untaken=[],
        submission=_submission(database, message.run),
        group_word=printable(group_word),
        groups=_groups(database, message, group_word, record),
        breaker_detail=None if breaker is None else _breaker(breaker),
        windows=[],
        notes=_notes(database, message.run),
        links={"self": f"{BASE}/{id_}", **{part: f"{BASE}/{id_}/{part}" for part in PARTS}},
    )


def _submission(database: sqlite3.Connection, run: int) -> str | None:
    found = database.execute("SELECT id FROM submission WHERE run = ? ORDER BY number DESC LIMIT 1", (run,)).fetchone()
    return None if found is None else str(found[0])


def _groups(
    database: sqlite3.Connection, message: Message, group_word: str, record: live_record.LiveRecord | None
) -> list[GroupItem]:
    on_record = rows.read_groups(database, message.run, group_word, message.notice.at_s)
    told = live_record.recalled(on_record, record, message.notice.at_s, is_live=False)
    return [group_item(event) for event in sorted(told, key=lambda event: event.group)[:GROUPS]]


def _breaker(told: BreakerSnapshot) -> Breaker:
    return Breaker(
        state=told.state, failures=told.failures, openings=told.openings, limit_group=printable(told.limit_group)
    )


def _notes(database: sqlite3.Connection, run: int) -> list[str]:
    (told,) = database.execute("SELECT notes FROM run WHERE id = ?", (run,)).fetchone()
    return [mask(printable(note)) for note in msgspec.json.decode(told or "[]", type=list[str])]
