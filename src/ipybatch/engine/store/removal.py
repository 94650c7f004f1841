"""Removal: runs that are forgotten, whole, and without keeping other writers waiting.

Rule: one transaction checks that nobody alive holds a run and takes its name
away; from then on nobody finds it, and its last owner is fenced.  What it
recorded goes in short transactions after that.

    forget, prune --> no name --> items, plan, ... `CHUNK_S` at a time --> the run's own row

What a kill leaves without a name is deleted by whoever removes something next.
A run's number is never given again, so nobody can write into what is left.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

from ipybatch.engine.store import lease, outbox
from ipybatch.engine.store.journal import PATIENCE_S, Journal
from ipybatch.engine.store.lease import Silence
from ipybatch.engine.store.schema import RUN_TABLES, ids

CHUNK_S = 0.05  # the longest that others wait for one of these transactions, but for the disk
PAUSE_S = 0.02  # between two of them: others look for a free moment every 0.01 s
_ROWS = 200


def forget(journal: Journal, name: str, now_s: float) -> None:
    """Delete every run of a name.

    Raises:
        JournalLocked: A live session holds one of them; nothing is deleted.
        JournalError: The journal refuses.
    """

    def unit(database: sqlite3.Connection, silence: Silence) -> None:
        runs = [run for (run,) in database.execute("SELECT id FROM run WHERE name = ?", (name,))]
        lease.check_free(database, runs, silence)
        _hide(database, runs)

    journal.check_there()
    lease.write_over(journal, unit, now_s)
    _delete_hidden(journal)


def prune(journal: Journal, ended_before_s: float, now_s: float) -> int:
    """Delete the runs that ended, or were left by a crash, before a time; return how many.

    Raises:
        JournalError: The journal refuses.
    """

    def unit(database: sqlite3.Connection, silence: Silence) -> int:
        ended = "name <> '' AND max(created_s, coalesce(ended_s, 0.0), beat_s) < ?"
        old = database.execute(f"SELECT id FROM run WHERE {ended}", (ended_before_s,))  # noqa: S608  # constants
        runs = [run for (run,) in old.fetchall()]
        held = lease.held(database, runs, silence)
        _hide(database, (run for run in runs if run not in held))
        return len(runs) - len(held)

    journal.check_there()
    removed = lease.write_over(journal, unit, now_s)
    _delete_hidden(journal)
    return removed


def hide_run(database: sqlite3.Connection, run: int, now_s: float) -> str:
    """Let one run be gone, as part of a transaction of a process that may not have opened the journal.

    Returns:
        Where it is running, and so it is not gone; "" when it is.
    """
    found = database.execute("SELECT owner, beat_s FROM run WHERE id = ?", (run,)).fetchone()
    if found is None:
        return ""
    owner, beat_s = found
    if owner is not None and lease.may_live(owner):
        # Nobody watches its silence here, so that it has to be longer; a process that is seen is not silent.
        if lease.find_process(owner) or now_s - beat_s < lease.LEASE_S + lease.SILENCE_S:
            return lease.where(owner)
    elif owner == lease.me() and now_s - beat_s < lease.LEASE_S:
        return lease.where(owner)
    _hide(database, [run])
    return ""


def _hide(database: sqlite3.Connection, runs: Iterable[int]) -> None:
    for run in runs:
        database.execute("UPDATE run SET name = '', owner = NULL, epoch = epoch + 1 WHERE id = ?", (run,))


def _delete_hidden(journal: Journal) -> None:
    while not journal.write(delete_some, patience_s=PATIENCE_S):
        time.sleep(PAUSE_S)


def delete_some(database: sqlite3.Connection) -> bool:
    """Delete of what is hidden for `CHUNK_S`; return whether that was all."""
    until_s = time.monotonic() + CHUNK_S
    for (run,) in database.execute("SELECT id FROM run WHERE name = '' ORDER BY id").fetchall():
        for table, column in RUN_TABLES:
            some = f"SELECT rowid FROM {table} WHERE {column} >= ? AND {column} < ? LIMIT {_ROWS}"  # noqa: S608  # constants
            sql = f"DELETE FROM {table} WHERE rowid IN ({some})"  # noqa: S608  # constants
            while database.execute(sql, ids(run)).rowcount:
                if time.monotonic() > until_s:
                    return False
        part = "SELECT rowid FROM plan WHERE run = ? LIMIT 1"
        while database.execute(f"DELETE FROM plan WHERE rowid IN ({part})", (run,)).rowcount:  # noqa: S608  # constants
            if time.monotonic() > until_s:
                return False
        database.execute("DELETE FROM command WHERE run = ?", (run,))
        if outbox.has_table(database):  # what waits is told all the same
            database.execute("DELETE FROM outbox WHERE run = ? AND (state <> 'waiting' OR kind = 'expiring')", (run,))
        database.execute("DELETE FROM run WHERE id = ?", (run,))
    return True
