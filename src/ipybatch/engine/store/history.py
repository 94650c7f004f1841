"""History: the runs that journals have on record, those of other processes and other paths too.

Rule: a journal is read as it is.  Nothing is created, migrated or locked, and
every schema there was is understood: what an older one does not have is told
as far as the rest of the row tells it.  What is written (`jot`) is a row or two
that some process asks of another one's run.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from ipybatch.engine.data.events import State
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import lease, registration, schema
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.network_copy import place_of
from ipybatch.errors import BatchError, JournalCorrupt, JournalError, JournalLocked

WRITE_S = 2.0  # how long something small waits for whoever is writing
BUSY_S = 0.5  # how long a look waits for whoever keeps readers out: there are others to be looked at
_LOOKS = 3

_log = logging.getLogger(__name__)
_damaged: set[tuple[Path, str]] = set()  # what was told of

T = TypeVar("T")


class RecordedRun(msgspec.Struct, frozen=True):
    """A run as its journal tells it.

    Attributes:
        started_s: When it first began, else when it was made, Unix.
        seconds: How long it has run, over all its starts: up to its last sign of life where none ended it.
        state: "interrupted" when its process ended without letting go.
        where: Where it is running, such as "in process 7 on host"; "" where nobody runs it.
        usd: What it cost; None where nothing is known of that.
    """

    name: str
    started_s: float
    seconds: float
    total: int | None
    completed: int
    failed: int
    timeout: int
    cancelled: int
    skipped: int
    state: State
    reason: str
    usd: float | None
    where: str = ""


_TOLD = tuple(field for field in RecordedRun.__struct_fields__ if field not in ("started_s", "where"))
UNENDED: tuple[State, ...] = ("running", "paused")


def read_runs(database: sqlite3.Connection, journal: Journal | None, name: str = "") -> list[RecordedRun]:
    """Return the recorded runs, oldest first; one that is damaged is left out, and a line in the log says so.

    Args:
        journal: What this process has opened for the file; None for nothing.
        name: Only the runs of this name; "" for all.
    """
    known = {column for _, column, *_ in database.execute("PRAGMA table_info(run)")}
    if not known:
        return []  # nothing was ever written to it
    latest = latest_start(known)
    rows = database.execute(
        f"SELECT id, owner, beat_s, {latest}, coalesce(started_s, created_s), {', '.join(_TOLD)} FROM run"  # noqa: S608
        " WHERE name <> '' AND ? IN ('', name) ORDER BY id",
        (name,),
    )
    runs = []
    for run, owner, beat_s, begun_s, started_s, *values in rows:
        told = dict(zip(_TOLD, values, strict=True))
        try:
            state, seconds, where = stands(journal, run, owner, beat_s, begun_s, told["state"], told["seconds"])
            told.update(state=state, seconds=seconds, started_s=started_s, where=where)
            runs.append(msgspec.convert(told, RecordedRun))
        except (msgspec.ValidationError, TypeError, ValueError, AttributeError) as error:
            (_, _, path), *_ = database.execute("PRAGMA database_list")
            _log.warning("%s", damaged_run(path, run, type(error).__name__))
    return runs


def damaged_run(journal: str, run: int, kind: str) -> str:
    """Return what is said of a run of which the row has what ipybatch did not write.

    Args:
        journal: What it is called.
        kind: Of the error.
    """
    return f"journal {journal} is damaged ({kind} in run {run}): restore it from a copy, or delete that run"


def id_of(path: Path, run: int) -> str:
    """Return the opaque id of a run: what the REST API and webhooks name it by.

    Args:
        path: Its journal, as it is asked for.
    """
    return f"{key_of(path)}-{run}"


def key_of(path: Path) -> str:
    """Return the part of such ids that stands for the journal."""
    return hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()


def latest_start(known: Collection[str]) -> str:
    """Return when a run's latest start was, in SQL.

    An older schema does not tell, unless it was the only one.

    Args:
        known: The columns that there are.
    """
    begun = "begun_s" if "begun_s" in known else "NULL"
    return f"coalesce({begun}, CASE WHEN seconds = 0 THEN started_s END)"


def stands(  # noqa: PLR0917  # of the row
    journal: Journal | None,
    run: int,
    owner: str | None,
    beat_s: float,
    begun_s: float | None,
    state: State,
    seconds: float,
) -> tuple[State, float, str]:
    """Return how a run stands, how long it has run, and where it is running, from its row.

    Args:
        journal: What this process has opened for the file; None for nothing.
        begun_s: When its latest start was; None where an older schema does not tell.
    """
    if state not in UNENDED:
        return state, seconds, ""
    where = lease.where_held(journal, run, owner, beat_s)
    seconds += 0.0 if begun_s is None else max(0.0, beat_s - begun_s)
    return state if where else "interrupted", seconds, where


def everywhere(default: Path | None = None, name: str = "") -> dict[Path, list[RecordedRun]]:
    """Return the runs of every journal that is registered, and of the default one if it is there, by its path.

    One that cannot be read is left out; a line in the log says why.

    Args:
        default: In place of the default one.
        name: Only the runs of this name; "" for all.

    Raises:
        JournalError: ``default`` leads nowhere.
    """
    asked = journals.resolved(default or journals.default_path())
    found: dict[Path, list[RecordedRun]] = {}
    seen = set()

    def read(database: sqlite3.Connection, path: Path) -> tuple[Path, list[RecordedRun]]:
        return path, [] if path in seen else read_runs(database, journals.opened(path), name)

    for one in dict.fromkeys([*(registered.asked for registered in registration.registered()), asked]):
        try:
            path, runs = look(one, read)
        except JournalError as error:
            if one != asked or not isinstance(error, Gone):
                _log.warning("%s", error)
            continue
        if path not in seen:
            seen.add(path)
            found[one] = runs
    return found


def look_for_runs(path: Path, name: str = "") -> list[RecordedRun]:
    """Return the runs that one journal has on record, oldest first.

    Args:
        name: Only the runs of this name; "" for all.

    Raises:
        JournalError: It is not there, damaged, locked, of a later version, or not ours; says so in one sentence.
    """
    return look(path, lambda database, at: read_runs(database, journals.opened(at), name))


class Gone(JournalError):
    """It is not there."""


def look(path: Path, question: Callable[[sqlite3.Connection, Path], T]) -> T:
    """Ask something of a journal that may be another's: nothing is created, migrated or locked.

    Args:
        path: What it is asked for by.
        question: Of a connection that reads, and of where the file really is; asked again if that changed meanwhile.

    Raises:
        JournalError: It is not there, damaged, locked, of a later version, or not ours; says so in one sentence.
    """
    with _told(path) as at, understood(path):
        return _ask(at, question)


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turn what a reader trips over into a sentence: SQLite keeps whatever was written, of any type.

    Raises:
        JournalCorrupt: Something in the journal is not as ipybatch writes it.
    """
    try:
        yield
    except BatchError:
        raise
    except (msgspec.MsgspecError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        kind = type(error).__name__
        if (path, kind) not in _damaged:  # once: it is looked at every second
            _damaged.add((path, kind))
            _log.warning("journal %s has what ipybatch did not write", path, exc_info=True)
        msg = f"journal {path} is damaged ({kind}): move it away, or restore it from a copy"
        raise JournalCorrupt(msg) from error


def jot(path: Path, unit: Callable[[sqlite3.Connection], T]) -> T:
    """Write something small into a journal that may be another's: nothing is created or migrated, no run is taken.

    Args:
        path: What it is asked for by.
        unit: Of a transaction.

    Raises:
        JournalError: It is not there, damaged, locked, of a later version, not ours, or cannot be written; says so in
            one sentence.
    """
    with _told(path) as at:
        if not at.exists():
            raise FileNotFoundError
        with contextlib.closing(journals.connect(at, busy_s=WRITE_S)) as database:
            database.execute("PRAGMA wal_autocheckpoint = 0")  # that is its engines' to do
            schema.check_ours(database, at)
            database.execute("BEGIN IMMEDIATE")
            written = unit(database)
            database.execute("COMMIT")
            return written


@contextlib.contextmanager
def _told(path: Path) -> Iterator[Path]:
    """Give where a journal really is, and turn what is wrong with it into a sentence.

    Raises:
        JournalError: It is not there, damaged, locked, of a later version, or not ours.
    """
    asked = journals.resolved(path)
    try:
        at = place_of(asked)
        schema.check_file(at, path)
        yield at
    except FileNotFoundError:
        msg = f"there is no journal {path}"
        raise Gone(msg) from None
    except OSError as error:
        msg = f"journal {path} cannot be read: {error.strerror}"
        raise JournalError(msg) from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            msg = f"journal {path} is damaged ({error}): move it away, or restore it from a copy"
            raise JournalCorrupt(msg) from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            msg = f"journal {path} is locked by another program: close it, then look again"
            raise JournalLocked(msg) from error
        what = "written" if name.startswith(("SQLITE_READONLY", "SQLITE_FULL", "SQLITE_IOERR_WRITE")) else "read"
        msg = f"journal {path} cannot be {what}: {error}"
        raise JournalError(msg) from error


def read_mode(at: Path) -> str:
    """Return how SQLite is to open a journal that is only read.

    Without a log nobody writes, and SQLite would make one to read beside, and leave it there.
    """
    return "ro" if at.with_name(f"{at.name}-wal").exists() else "ro&immutable=1"


def _ask(at: Path, question: Callable[[sqlite3.Connection, Path], T]) -> T:
    for _ in range(_LOOKS):
        before = _stamp(at)
        mode = read_mode(at)
        try:
            with contextlib.closing(journals.connect(at, mode, busy_s=BUSY_S)) as database:
                schema.check_ours(database, at)
                answer = question(database, at)
        except sqlite3.DatabaseError:
            if mode == "ro" or _stamp(at) == before:
                raise
        else:
            if mode == "ro" or _stamp(at) == before:
                return answer
    msg = f"journal {at} is written all the time: look again"
    raise JournalLocked(msg)


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
