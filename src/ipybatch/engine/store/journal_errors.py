"""Journal errors: what SQLite and the system say of a file, as ours, which say what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipybatch.errors import JournalCorrupt, JournalError, JournalFull, JournalLocked, JournalReadOnly


@contextmanager
def translated(
    path: Path, what: str = "journal", place: str = "IPYBATCH_JOURNAL or journal=", again: str = "run the session again"
) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ours, which say what to do.

    Args:
        path: The file.
        what: What the file is called.
        place: What to set for another place.
        again: What to do once the cause is away.

    Raises:
        JournalError: SQLite or the system raised; the type says what to do.
    """
    try:
        yield
    except JournalError:
        raise
    except sqlite3.Error as error:
        raise _explained(error, f"{what} {path}", place, again) from error
    except OSError as error:
        msg = f"{what} {path} cannot be written: {error.strerror}; set {place} to a writable place"
        raise JournalReadOnly(msg) from error


def _explained(error: sqlite3.Error, file: str, place: str, again: str) -> JournalError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return JournalFull(f"{file} cannot grow ({error}): free some disk space, then {again}")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return JournalLocked(f"{file} is locked by another program: close it, then {again}")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return JournalReadOnly(f"{file} is read-only: set {place} to a writable place")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return JournalCorrupt(f"{file} is damaged ({error}): move it away, or restore it from a copy")
    return JournalError(f"{file}: {error}")


def refusal_of(error: BaseException, path: Path) -> JournalError:
    """Return what is told of an error: `translated`, which would cost every commit as much as an item."""
    try:
        with translated(path):
            raise error
    except JournalError as refusal:
        return refusal
    except BaseException:  # of a unit
        other = JournalError(f"journal {path}: {type(error).__name__}: {error}")
        other.__cause__ = error
        return other


def is_busy(error: JournalError) -> bool:
    """Say whether it is only that another process is writing: a moment later it may be done."""
    return isinstance(error, JournalLocked) and isinstance(error.__cause__, sqlite3.Error)
