"""Journal file: which file a path names now, and whether what lies there is still what was written.

A file may be deleted, replaced or overwritten while it is open; SQLite notices none of that.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path

import msgspec

Inode = tuple[int, int]
_IN_A_CIRCLE = 1921  # Windows' number for it
_AGAIN_S = 0.01  # between two tries to switch a file that others are switching


def real_path(path: Path) -> Path:
    """Return a path without ``..`` and symbolic links; `Path.resolve` says nothing of a circle from Python 3.13 on.

    Raises:
        OSError: Its links lead in a circle.
        ValueError: It is no path: there is a NUL in it.
    """
    found = Path(os.path.realpath(path))
    try:
        found.stat()
    except OSError as error:  # else opening the file says what is wrong
        if error.errno == errno.ELOOP or getattr(error, "winerror", 0) == _IN_A_CIRCLE:
            raise
    return found


def identity(path: Path) -> tuple[Inode | None, ...]:
    """Return which file it is, and which others belong to it: SQLite lets none of them go while it is open."""
    return inode(path), *(inode(path.with_name(f"{path.name}-{part}")) for part in ("wal", "shm"))


class Log(msgspec.Struct):
    """The write-ahead log: its size, and the salts that change whenever it begins anew."""

    size: int = 0
    salts: bytes = b""
    is_whole: bool = True


_LOG_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


def read_log(path: Path) -> Log | None:
    """Return the log as it is; None where it is empty, or begins anew just now. SQLite has no locks on it."""
    try:
        with path.with_name(f"{path.name}-wal").open("rb", buffering=0) as file:
            start = file.read(32)
            size = os.fstat(file.fileno()).st_size
            file.seek(0)
            if not start or file.read(32) != start:
                return None
    except OSError:
        return None
    return Log(size, start[16:24], start[:4] in _LOG_MAGIC)


def inode(path: Path) -> Inode | None:
    """Return which file a path names now; None for none."""
    try:
        found = os.stat(path)  # noqa: PTH116  # once a permit: a third of the time
    except OSError:
        return None
    return found.st_dev, found.st_ino


def write_ahead(database: sqlite3.Connection, busy_s: float) -> None:
    """Switch a file to SQLite's write-ahead log.

    Of several processes that do so to a new file at once, SQLite refuses some without waiting, whatever its timeout is.

    Args:
        busy_s: How long to try again while others hold the file, seconds.

    Raises:
        sqlite3.Error: It cannot be switched, or is held for longer.
    """
    until_s = time.monotonic() + busy_s
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() >= until_s:
                raise
            time.sleep(_AGAIN_S)
        else:
            return
