"""Journal: one SQLite file, one writer thread, group commit.

Rule: nothing is acknowledged before its COMMIT.  The writer takes all that
waits in its queue, runs it in one transaction, commits, and only then tells
the submitters; so a busy engine pays one commit for many rows.

    submit --> queue --> [BEGIN, unit, unit, ..., COMMIT] --> acknowledge

WAL with synchronous=NORMAL survives ``kill -9`` of the process; a power cut may
take the last commits.  Readers open connections of their own and never wait.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from ipybatch.engine import schema
from ipybatch.errors import Fenced, JournalCorrupt, JournalError, JournalFull, JournalLocked, JournalReadOnly

PATH_VARIABLE = "IPYBATCH_JOURNAL"
BUSY_S = 5.0
_MAGIC = b"SQLite format 3\0"
# WAL needs shared memory, which these do not give: https://sqlite.org/wal.html (2026-11-22)
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "lustre", "fuse.sshfs", "fuse.s3fs"})

Unit = Callable[[sqlite3.Connection], Any]
Done = Callable[[Any, JournalError | None], None]


def default_path() -> Path:
    """Return where the journal lies: ``IPYBATCH_JOURNAL``, else the user's data folder."""
    moved = os.environ.get(PATH_VARIABLE)
    return Path(moved) if moved else platformdirs.user_data_path("ipybatch", appauthor=False) / "journal.sqlite3"


@dataclass(slots=True)
class _Submitted:
    unit: Unit
    done: Done


class Journal:
    """A journal file, opened for reading and writing.

    Attributes:
        path: Where it really is.
        moved_from: Where it was asked to be, if that is a network file system; else None.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.moved_from = _local(path.expanduser().absolute())
        self._queue: queue.SimpleQueue[_Submitted | None] = queue.SimpleQueue()
        with translated(self.path):
            _create(self.path)
            self._database = _connect(self.path)
            _prepare(self._database, self.path)
        self._thread = threading.Thread(target=self._write, name="ipybatch-journal", daemon=True)
        self._thread.start()

    def submit(self, unit: Unit, done: Done) -> None:
        """Run ``unit`` in the next transaction; call ``done(result, error)`` from the writer after its commit."""
        self._queue.put(_Submitted(unit, done))

    def write(self, unit: Unit) -> Any:
        """Run ``unit`` in the next transaction and wait for its commit.

        Raises:
            JournalError: It was not written; says why.
        """
        written: queue.SimpleQueue[tuple[Any, JournalError | None]] = queue.SimpleQueue()
        self.submit(unit, lambda result, error: written.put((result, error)))
        result, error = written.get()
        if error is not None:
            raise error
        return result

    def connect(self) -> sqlite3.Connection:
        """Return a connection for reading, the caller's to close."""
        with translated(self.path):
            return _connect(self.path)

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that sees everything committed so far."""
        with translated(self.path):
            database = _connect(self.path)
            try:
                yield database
            finally:
                database.close()

    def close(self) -> None:
        """Write what waits, then let the file go."""
        self._queue.put(None)
        self._thread.join()
        self._database.close()

    def _write(self) -> None:
        while (first := self._queue.get()) is not None:
            group: list[_Submitted] = [first]
            with suppress(queue.Empty):
                while (more := self._queue.get_nowait()) is not None:
                    group.append(more)
                self._queue.put(None)  # asked to close: write this group first
            self._commit(group)

    def _commit(self, group: list[_Submitted]) -> None:
        database = self._database
        try:
            with translated(self.path):
                database.execute("BEGIN IMMEDIATE")
                results = [submitted.unit(database) for submitted in group]
                database.execute("COMMIT")
        except JournalError as error:
            with suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            if len(group) == 1:
                group[0].done(None, error)
            else:  # one unit must not spoil its neighbours
                for submitted in group:
                    self._commit([submitted])
            return
        for submitted, result in zip(group, results, strict=True):
            submitted.done(result, None)


_open_journals: dict[Path, Journal] = {}
_opening = threading.Lock()


def open_journal(path: str | Path | None = None) -> Journal:
    """Return the process's one Journal for this file, opening it when it is the first.

    Raises:
        JournalError: The file is corrupt, read-only, or not a journal; it is left as it was.
    """
    wanted = Path(path).expanduser().absolute() if path is not None else default_path().expanduser().absolute()
    with _opening:
        journal = _open_journals.get(wanted)
        if journal is None or not wanted_is_there(journal):
            journal = _open_journals[wanted] = Journal(wanted)
        return journal


def wanted_is_there(journal: Journal) -> bool:
    """Say whether the journal's file still exists: tests and users delete it."""
    return journal.path.exists()


def forget_open_journals() -> None:
    """Drop the parent's journals after a fork: their connections and threads are not ours."""
    _open_journals.clear()


os.register_at_fork(after_in_child=forget_open_journals)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ours, which say what to do."""
    try:
        yield
    except JournalError:
        raise
    except sqlite3.Error as error:
        raise _explain(error, path) from error
    except OSError as error:
        msg = f"journal {path} cannot be written: {error.strerror}; set {PATH_VARIABLE} or journal= to a writable place"
        raise JournalReadOnly(msg) from error


def _explain(error: sqlite3.Error, path: Path) -> JournalError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return JournalFull(f"journal {path} cannot grow ({error}): free some disk space, then run the session again")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return JournalLocked(f"journal {path} is locked by another program: close it, then run the session again")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return JournalReadOnly(f"journal {path} is read-only: set {PATH_VARIABLE} or journal= to a writable place")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return JournalCorrupt(f"journal {path} is damaged ({error}): move it away, or restore it from a copy")
    return JournalError(f"journal {path}: {error}")


def _create(path: Path) -> None:
    if path.exists():
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
        if start and start != _MAGIC:
            msg = f"journal {path} is not a journal of ours: move it away, or choose another journal="
            raise JournalCorrupt(msg)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "permission denied", str(path))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    database.execute("PRAGMA synchronous = NORMAL")
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    if schema.version(database) > len(schema.STEPS):
        msg = f"journal {path} was written by a later ipybatch: upgrade, or choose another journal="
        raise JournalError(msg)
    database.execute("PRAGMA journal_mode = WAL")
    schema.migrate(database)
    database.execute("SELECT count(*) FROM run").fetchone()


def _local(path: Path) -> tuple[Path, Path | None]:
    """Return a path that WAL is safe on, and the one asked for when that is another."""
    if _file_system(path) not in _NETWORK:
        return path, None
    return platformdirs.user_state_path("ipybatch", appauthor=False) / path.name, path


def _file_system(path: Path) -> str:
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    kinds = {Path(fields[1]): fields[2] for line in mounts if len(fields := line.split()) > 2}
    return next((kinds[folder] for folder in (path, *path.parents) if folder in kinds), "")


__all__ = ["PATH_VARIABLE", "Fenced", "Journal", "default_path", "open_journal"]
