"""Lease: which process may write for a run.

Rule: every commit renews the lease with the epoch it was taken in.  A kernel
that wakes from sleep after another took its session over finds another epoch,
and its whole transaction is rolled back.

A lease ends when its owner lets go, when its process is gone (same machine),
or when it was not renewed for `LEASE_S`.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time

from ipybatch.engine.schema import LANE
from ipybatch.errors import Fenced, JournalLocked

LEASE_S = 15.0
BEAT_S = 3.0

_HOST = socket.gethostname()
_PROCESS = os.urandom(16).hex()


def me() -> str:
    """Return the name of this process as an owner."""
    return f"{_HOST}/{os.getpid()}/{_PROCESS}"


def take(database: sqlite3.Connection, run: int, now_s: float, *, live_here: bool) -> int:
    """Take the lease of ``run`` and return its epoch.

    Args:
        live_here: Whether a session of this process is running it.

    Raises:
        JournalLocked: A live owner holds it.
    """
    check_free(database, run, now_s, live_here=live_here)
    database.execute("UPDATE run SET owner = ?, beat_s = ?, epoch = epoch + 1 WHERE id = ?", (me(), now_s, run))
    (epoch,) = database.execute("SELECT epoch FROM run WHERE id = ?", (run,)).fetchone()
    return int(epoch)


def check_free(database: sqlite3.Connection, run: int, now_s: float, *, live_here: bool) -> None:
    """Refuse a lease that a live owner holds.

    Raises:
        JournalLocked: Says who holds it.
    """
    name, owner, beat_s = database.execute("SELECT name, owner, beat_s FROM run WHERE id = ?", (run,)).fetchone()
    if owner is not None and _is_alive(owner, beat_s, now_s, live_here):
        host, pid, _ = owner.split("/")
        where = "in this kernel" if owner == me() else f"in process {pid} on {host}"
        msg = f"session {name!r} is already running {where}: cancel it there first, or give this one another name"
        raise JournalLocked(msg)


def keep_in_flight(database: sqlite3.Connection, run: int, now_s: float) -> None:
    """Keep in the windows what the owner before may have had under way when it was killed.

    `resource.read_history` tells this process so; the lease tells the next one nothing of it.
    """
    in_flight = "min(?, beat_s + ?), 'requests', concurrency FROM run"
    killed = "WHERE run.id = ? AND owner <> ? AND concurrency > 0"
    values = (now_s, LEASE_S, run, me())
    database.execute(f"INSERT INTO window SELECT run.resource, {in_flight} {killed}", values)  # constants
    of_run = "substr(lane.name, 1, length(run.resource) + ?) = run.resource || ?"
    database.execute(  # of which lane they were is not known
        f"INSERT INTO window SELECT lane.name, {in_flight}, resource lane {killed} AND {of_run}",
        (*values, len(LANE), LANE),
    )


def renew(database: sqlite3.Connection, run: int, epoch: int, now_s: float) -> None:
    """Renew the lease, as part of a commit.

    Raises:
        Fenced: It is not ours any more.
    """
    check(database.execute("UPDATE run SET beat_s = ? WHERE id = ? AND epoch = ?", (now_s, run, epoch)))


def check(renewed: sqlite3.Cursor) -> None:
    """Refuse to go on when an update under the lease met no row.

    Raises:
        Fenced: The lease is not ours any more.
    """
    if renewed.rowcount != 1:
        msg = "another process took this session over; nothing more is written here"
        raise Fenced(msg)


def release(database: sqlite3.Connection, run: int, epoch: int) -> None:
    """Let the lease go."""
    database.execute("UPDATE run SET owner = NULL WHERE id = ? AND epoch = ?", (run, epoch))


def is_live(owner: str | None, beat_s: float) -> bool:
    """Say whether a run's owner is still there, as far as this process can tell."""
    return owner is not None and _is_alive(owner, beat_s, time.time(), live_here=True)


def _is_alive(owner: str, beat_s: float, now_s: float, live_here: bool) -> bool:
    host, pid, _ = owner.split("/")
    if owner == me():
        return live_here
    if host == _HOST and not _process_exists(int(pid)):
        return False
    return now_s - beat_s < LEASE_S


def _process_exists(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill(pid, 0) would end it there; the lease runs out instead
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
