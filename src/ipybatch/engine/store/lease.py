"""Lease: what allows this process, and nobody else meanwhile, to write and to delete a run.

Rule: every write and every delete of a run checks its lease in the same
transaction.

    `run_store.taken` one transaction: nobody alive holds a run of that name; a new epoch begins
      -> a write      renews the lease of this owner and epoch; it meets no row: `Fenced`, all is rolled back
      -> a beat       does the same every `BEAT_S`, whatever the engine's loop is doing
    -> let go, or lost

A lease ends when its owner lets go, when the owner's process is gone (same
machine), or when it was not renewed for `LEASE_S`.  A kernel that wakes from
sleep after another took its session over finds another owner or epoch.

Time in which nobody could write does not count: another program may have held
the journal's lock all the while.  So an owner whose beat is old, and who may
be alive, has `SILENCE_S` more to renew it, seen as they pass.

Beats come from a thread of their own, one a process: work that holds the
engine's loop loses no lease (without threads it may, to nobody: no other process reads a browser's files).
"""

from __future__ import annotations

import math
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from ipybatch.engine.data.background import Turns, every
from ipybatch.engine.data.fork import after_fork
from ipybatch.engine.store import commands
from ipybatch.engine.store.journal import PATIENCE_S, Journal
from ipybatch.engine.store.journal_errors import is_busy
from ipybatch.errors import Fenced, JournalError, JournalLocked

LEASE_S = 15.0
BEAT_S = 3.0
SILENCE_S = 2 * BEAT_S  # how long an owner with an old beat is watched while the journal can be written
LOOK_S = 0.5  # between two looks; a longer time between them was a lock, and counts as this

IS_MINE = "id = ? AND epoch = ? AND owner = ?"  # the fence of every write

T = TypeVar("T")


def _host() -> str:
    """Return what process numbers are unique in: the machine, or the container on it, which may have its name."""
    try:
        numbers = Path("/proc/self/ns/pid").readlink().name
    except OSError:  # no such thing, or none that can be seen
        numbers = _NO_CONTAINER
    name = socket.gethostname().replace("/", "_")
    return name if numbers == _NO_CONTAINER else f"{name} {numbers}"


_NO_CONTAINER = "pid:[4026531836]"  # a constant of Linux
_HOST = _host()
_PROCESS = os.urandom(16).hex()


def me() -> str:
    """Return the name of this process as an owner."""
    return f"{_HOST}/{os.getpid()}/{_PROCESS}"


class Lease(msgspec.Struct, eq=False):
    """The right to write one run.

    Attributes:
        epoch: How often the run had been taken by then; 0 before it is.
        unix_s: What tells the time of a beat.
        on_lost: Told, on any thread, that nothing more can be written: another process took over, or the file is gone.
    """

    journal: Journal
    unix_s: Callable[[], float]
    run: int = 0
    owner: str = ""
    epoch: int = 0
    on_lost: Callable[[JournalError], object] = lambda error: None
    _is_asked: bool = False  # a beat is under way

    @property
    def mine(self) -> tuple[int, int, str]:
        """The values of `IS_MINE`."""
        return self.run, self.epoch, self.owner

    def renew(self, database: sqlite3.Connection, now_s: float) -> None:
        """Renew it, as part of a transaction.

        Raises:
            Fenced: It is not ours any more.
        """
        check(database.execute(f"UPDATE run SET beat_s = ? WHERE {IS_MINE}", (now_s, *self.mine)))  # noqa: S608

    def check_seen(self, database: sqlite3.Connection) -> None:
        """Refuse to go on when nobody else finds it, as part of a transaction that has renewed it.

        Raises:
            JournalError: The journal was overwritten, deleted or replaced.
        """
        self.journal.check_seen(database, f"SELECT 1 FROM run WHERE {IS_MINE}", self.mine)  # noqa: S608  # a constant

    def let_go(self, database: sqlite3.Connection) -> None:
        """Let others take the run, as part of a transaction; nothing happens where it is not ours."""
        database.execute(f"UPDATE run SET owner = NULL WHERE {IS_MINE}", self.mine)  # noqa: S608  # a constant

    def beat(self) -> None:
        """Renew it in a transaction of its own, without waiting for that."""
        if self._is_asked:
            return
        self._is_asked = True
        try:
            self.journal.check_there()
        except JournalError as error:
            self._answer(None, error)
        else:
            self.journal.submit(self._renew_seen, self._answer)

    def _renew_seen(self, database: sqlite3.Connection) -> None:
        self.renew(database, self.unix_s())
        self.check_seen(database)

    def _answer(self, _: object, error: JournalError | None) -> None:
        self._is_asked = False
        if error is not None and not is_busy(error) and is_held(self):
            with suppress(RuntimeError):  # its loop is closed
                self.on_lost(error)


def check(renewed: sqlite3.Cursor) -> None:
    """Refuse to go on when an update under the lease met no row.

    Raises:
        Fenced: The lease is not ours any more.
    """
    if renewed.rowcount != 1:
        msg = "another process took this session over; nothing more is written here"
        raise Fenced(msg)


def take_lease(database: sqlite3.Connection, lease: Lease, run: int, now_s: float) -> None:
    """Make a run ours that is free, as part of a transaction."""
    commands.refuse(database, run, now_s)
    lease.run, lease.owner = run, me()
    (lease.epoch,) = database.execute("SELECT epoch + 1 FROM run WHERE id = ?", (run,)).fetchone()
    # The seconds of a start that was not ended: up to its last sign of life, which is overwritten here.
    latest = "coalesce(begun_s, CASE WHEN seconds = 0 THEN started_s END)"
    database.execute(
        f"UPDATE run SET seconds = seconds + max(0, beat_s - {latest}) WHERE id = ? AND {latest} IS NOT NULL"  # noqa: S608
        " AND state IN ('running', 'paused')",
        (run,),
    )
    values = (lease.owner, now_s, now_s, lease.epoch, run)
    database.execute("UPDATE run SET owner = ?, beat_s = ?, begun_s = ?, epoch = ? WHERE id = ?", values)


class Silence(msgspec.Struct):
    """Owners with an old beat who may be alive, as somebody sees them who wants their runs.

    Attributes:
        journal: Where the runs are.
        now_s: Of the beats, when they are judged.
    """

    journal: Journal
    now_s: float
    _seen_s: dict[tuple[int, str, float], float] = msgspec.field(default_factory=dict)  # since when, in `_passed_s`
    _passed_s: float = 0.0
    _looked_s: float = -math.inf

    def look(self) -> None:
        """Count the time since the look before this one, in a transaction: the journal can be written."""
        now_s = time.monotonic()
        self._passed_s += min(now_s - self._looked_s, LOOK_S)
        self._looked_s = now_s

    def is_over(self, run: int, owner: str, beat_s: float) -> bool:
        """Say whether an owner has been silent for long enough."""
        return self._passed_s - self._seen_s.setdefault((run, owner, beat_s), self._passed_s) >= SILENCE_S


class _TooSoon(JournalLocked):
    """An owner may be alive, and unable to write until now."""


def write_over(journal: Journal, unit: Callable[[sqlite3.Connection, Silence], T], now_s: float) -> T:
    """Run a unit that takes or deletes runs of others, and wait for its commit.

    Args:
        unit: Is tried again, all of it rolled back, while `held` does not know yet.

    Raises:
        JournalError: It was not written; says why.
    """
    silence = Silence(journal, now_s)

    def look(database: sqlite3.Connection) -> T:
        silence.look()
        return unit(database, silence)

    while True:
        try:
            written: T = journal.write(look, patience_s=PATIENCE_S)
        except _TooSoon:
            time.sleep(LOOK_S)
        else:
            return written


def held(database: sqlite3.Connection, runs: Iterable[int], silence: Silence) -> dict[int, JournalLocked]:
    """Return which runs a live owner holds, with what to say of it.

    Raises:
        JournalLocked: It is too soon to tell; for `write_over`.
    """
    found, is_short = {}, False
    for run in runs:
        name, owner, beat_s = database.execute("SELECT name, owner, beat_s FROM run WHERE id = ?", (run,)).fetchone()
        if owner is None:
            continue
        if _is_alive(owner, beat_s, silence.now_s, (silence.journal, run) in _held):
            told = f"session {name!r} is already running {where(owner)}"
            found[run] = JournalLocked(f"{told}: cancel it there first, or give this one another name")
        elif may_live(owner) and not silence.is_over(run, owner, beat_s):
            is_short = True
    if is_short:
        raise _TooSoon
    return found


def check_free(database: sqlite3.Connection, runs: Iterable[int], silence: Silence) -> None:
    """Refuse runs that a live owner holds.

    Raises:
        JournalLocked: Says who holds one of them; or it is too soon to tell.
    """
    for refusal in held(database, runs, silence).values():
        raise refusal


def is_live(journal: Journal | None, run: int, owner: str | None, beat_s: float) -> bool:
    """Say whether a run's owner is still there, as far as this process can tell.

    Args:
        journal: None where this process has not opened the file.
    """
    return owner is not None and _is_alive(owner, beat_s, time.time(), (journal, run) in _held)


def where_live(database: sqlite3.Connection, journal: Journal, run: int) -> str:
    """Say where a run's owner is, as far as this process can tell; "" when none is there."""
    owner, beat_s = database.execute("SELECT owner, beat_s FROM run WHERE id = ?", (run,)).fetchone()
    return where_held(journal, run, owner, beat_s)


def where_held(journal: Journal | None, run: int, owner: str | None, beat_s: float) -> str:
    """Say where a run's owner is, as `is_live` tells it; "" when none is there."""
    return where(owner) if owner is not None and is_live(journal, run, owner, beat_s) else ""


def machine_of(owner: str) -> str:
    """Return the name of the machine that an owner is on."""
    return owner.partition("/")[0].partition(" ")[0]


def process_of(owner: str) -> str:
    """Return an owner in words, such as "process 42 on host"; another text as it is."""
    host, _, rest = owner.partition("/")
    pid = rest.partition("/")[0]
    return f"process {pid} on {host}" if pid.isdecimal() else owner


def where(owner: str) -> str:
    """Say where an owner is, in words."""
    return "in this kernel" if owner == me() else f"in {process_of(owner)}"


def _is_alive(owner: str, beat_s: float, now_s: float, live_here: bool) -> bool:
    if owner == me():
        return live_here
    return may_live(owner) and now_s - beat_s < LEASE_S


def may_live(owner: str) -> bool:
    """Say whether an owner may be alive, whatever its beat."""
    return owner != me() and find_process(owner) is not False


def find_process(owner: str) -> bool | None:
    """Say whether an owner's process is there; None when it is of another machine, or no owner of ours."""
    host, pid, process, *_ = (*owner.split("/"), "", "")
    if host != _HOST or not pid.isdigit():
        return None
    if int(pid) == os.getpid():  # containers give the same number again and again
        return process == _PROCESS
    return _process_exists(int(pid))


def _process_exists(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill(pid, 0) would end it there; the lease runs out instead
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not _has_ended(pid)


def _has_ended(pid: int) -> bool:
    """Say whether nothing but the exit code of a process is left: without an init, containers keep that for ever."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (OSError, ValueError):  # not Linux, or gone just now
        return False
    return state in (b"Z", b"X") and int(fields[16]) <= 1  # threads: one that lost its first may go on


_held: dict[tuple[Journal, int], Lease] = {}  # of this process
_changing = threading.Lock()
_beater: threading.Thread | Turns | None = None


def hold(lease: Lease) -> None:
    """Count a lease as one of this process, and renew it from now on."""
    global _beater
    with _changing:
        _held[lease.journal, lease.run] = lease
        if _beater is None:
            _beater = every(BEAT_S, _renew_all, "ipybatch-beat")


def drop(lease: Lease) -> None:
    """Count it no more."""
    with _changing:
        if not is_held(lease):
            return
        del _held[lease.journal, lease.run]
        is_at_rest = all(journal is not lease.journal for journal, _ in _held)
    if is_at_rest:
        lease.journal.rest()


def is_held(lease: Lease) -> bool:
    """Say whether this process has it, and not only had it."""
    return _held.get((lease.journal, lease.run)) is lease


def _renew_all() -> float | None:
    global _beater
    with _changing:
        if not _held:
            _beater = None  # the next one that is held starts another
            return None
        leases = tuple(_held.values())
    for lease in leases:
        lease.beat()
    return BEAT_S


def _forget() -> None:
    """Hold nothing after a fork: the leases are the parent's, and so is the thread."""
    global _beater, _changing
    _held.clear()
    _beater, _changing = None, threading.Lock()


after_fork(_forget)
