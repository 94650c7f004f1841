"""Records of games, guilds and characters in one SQLite file, and how stale they are.

    record (kind, key, place) -> fetched_at_s, data

Rule: a record is committed before the outcome of its item is recorded, so a kill between the two leaves a record whose
item runs once more, never a completed item without its record.

Writes are short and commit at once, from any thread; WAL lets readers in other processes continue meanwhile.

Staleness::

    age      0 ........ 1 day ........ 3 days ........ 7 days ........
             |  fresh     |    low       |    medium     |    high
    missing  high

A refresh fetches what will not be fresh for another hour: one at the same hour every day finds all of yesterday's due.

What the service does not have is remembered as an `Absence`, and asked for again after 1, 7 and then every 30 days.  A
record that was there before stays; a later fetch clears the absence.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec
import platformdirs

from ipybatch.engine.data.policy import check
from ipybatch.engine.store import browser_memory
from ipybatch.engine.store.journal_errors import translated
from ipybatch.engine.store.journal_file import inode, write_ahead
from ipybatch.errors import InputError, JournalCorrupt, JournalError
from ipybatch.library.source import Identity

if TYPE_CHECKING:
    import pandas as pd

Staleness = Literal["high", "medium", "low", "fresh"]

DAY_S = 86_400.0
HIGH_S, MEDIUM_S, LOW_S = 7 * DAY_S, 3 * DAY_S, 1 * DAY_S
SKEW_S = 60.0

AGAIN_S = (1 * DAY_S, 7 * DAY_S, 30 * DAY_S)  # after the first, the second and every later time it was not there
EARLY_S = 3600.0  # so much before its time a refresh counts what it skips as due: a day later it comes a little earlier

STALENESS: tuple[Staleness, ...] = get_args(Staleness)  # the stalest first

PATH_VARIABLE = "IPYBATCH_LIBRARY"
BUSY_S = 2.0

_MAGIC = b"SQLite format 3\0"
_OURS = 0x69706C62  # "iplb", so that no other program's file is taken for a library
_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
  kind TEXT NOT NULL, key TEXT NOT NULL, place TEXT NOT NULL, fetched_at_s REAL NOT NULL, data TEXT NOT NULL,
  PRIMARY KEY (kind, key, place)
);
CREATE TABLE IF NOT EXISTS absence (
  kind TEXT NOT NULL, key TEXT NOT NULL, place TEXT NOT NULL,
  since_s REAL NOT NULL, asked_at_s REAL NOT NULL, times INTEGER NOT NULL,
  PRIMARY KEY (kind, key, place)
);
CREATE TRIGGER IF NOT EXISTS record_is_there AFTER INSERT ON record BEGIN
  DELETE FROM absence WHERE kind = new.kind AND key = new.key AND place = new.place AND asked_at_s <= new.fetched_at_s;
END;
"""
_ABSENCE = "SELECT * FROM absence WHERE kind = ? AND key = ? AND place = ?"
_TABLES = 3  # and triggers
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode


def staleness(fetched_at_s: float | None, now_s: float) -> Staleness:
    """Return how stale a record is.

    Args:
        fetched_at_s: Unix time of its fetch; None for a missing record. A time more than `SKEW_S` after ``now_s`` comes
            from a wrong clock: the record counts as missing.
        now_s: Unix time.
    """
    if fetched_at_s is None or fetched_at_s > now_s + SKEW_S:
        return "high"
    age_s = now_s - fetched_at_s
    if age_s > HIGH_S:
        return "high"
    if age_s > MEDIUM_S:
        return "medium"
    return "low" if age_s > LOW_S else "fresh"


def is_due(fetched_at_s: float | None, now_s: float) -> bool:
    """Return whether a refresh fetches a record: it is missing or stale, or will be within the hour."""
    return staleness(fetched_at_s, now_s) != "fresh" or (fetched_at_s or 0.0) < now_s - (LOW_S - EARLY_S)


def age_in_words(age_s: float) -> str:
    """Return an age in its largest whole unit: "3 h"."""
    for unit, seconds in (("d", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if age_s >= seconds:
            return f"{age_s / seconds:.0f} {unit}"
    return f"{max(0.0, age_s):.0f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The answer of a service about one game, guild or character.

    Attributes:
        kind: "game", "guild" or "character".
        key: Key from `Identity`, such as the id of a game.
        place: Country or region of the answer; "" where the service has none.
        fetched_at_s: Unix time of the fetch.
        data: The answer, as JSON holds it.
    """

    kind: str
    key: Any
    place: str
    fetched_at_s: float
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """What a service does not have, or shows no more.

    Attributes:
        kind: "game", "guild" or "character"; ``key`` and ``place`` as in `Record`.
        since_s: Unix time when it was first not there; ``asked_at_s`` when it was asked for last.
        times: How often it was asked for when it was due, and was not there; >= 1.
    """

    kind: str
    key: Any
    place: str
    since_s: float
    asked_at_s: float
    times: int

    @property
    def again_at_s(self) -> float:
        """Unix time when it is asked for again: 1 day after the first time, 7 after the second, then 30."""
        return self.asked_at_s + AGAIN_S[min(self.times, len(AGAIN_S)) - 1]

    def is_due(self, now_s: float) -> bool:
        """Return whether it is to be asked for again; also where a wrong clock wrote it."""
        return now_s > self.again_at_s - EARLY_S or now_s < self.asked_at_s - SKEW_S


def default_path() -> Path:
    """Return the default path of the library: ``IPYBATCH_LIBRARY``, else a file in the user's data folder."""
    moved = os.environ.get(PATH_VARIABLE)
    return Path(moved) if moved else platformdirs.user_data_path("ipybatch", appauthor=False) / "library.sqlite3"


class Library:
    """A SQLite file of records, safe to use from several threads and processes.

    Args:
        path: Path of the file, which is created readable by its owner only. Default: ``IPYBATCH_LIBRARY``, else a file
            in the user's data folder.

    Attributes:
        path: Absolute path of the file.

    Raises:
        JournalError: The file is damaged, is not a library, or cannot be written; it is left as it was.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path if path is not None else default_path()).expanduser().absolute()
        browser_memory.check(self.path, "library", "Leave out its path and IPYBATCH_LIBRARY")
        self._lock = threading.Lock()
        with _translated(self.path):
            _create(self.path)
            self._database = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._finish = weakref.finalize(self, self._database.close)
            # In this order: another process may be making them.
            (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master WHERE sql NOT NULL").fetchone()
            (found,) = self._database.execute("PRAGMA application_id").fetchone()
            if found != _OURS and (found or tables):
                raise _not_ours(self.path)
            write_ahead(self._database, BUSY_S)
            self._database.execute("PRAGMA synchronous = NORMAL")
            if found != _OURS:
                self._database.execute(f"PRAGMA application_id = {_OURS}")
            if tables < _TABLES:
                self._database.executescript(_SCHEMA)
            self._database.execute("SELECT count(*) FROM record").fetchone()
            self._file = inode(self.path)

    def __repr__(self) -> str:
        return f"Library({str(self.path)!r})"

    def __len__(self) -> int:
        return int(self._ask("SELECT count(*) FROM record")[0][0])

    def close(self) -> None:
        """Close the file; an unused library is closed when it is garbage-collected."""
        with self._lock:
            self._finish()

    def put(self, record: Record) -> None:
        """Write a record, replacing an earlier one with the same kind, key and place.

        Raises:
            JournalError: The record was not written.
            InputError: JSON cannot hold the key or the data.
        """
        try:
            key, data = _encode(record.key).decode(), _encode(record.data).decode()
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            msg = f"data must be what JSON can hold, got that of {record.kind} {record.key!r}: {error}"
            raise InputError(msg) from None
        self._check_file()
        self._ask(
            "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?)",
            (record.kind, key, record.place, record.fetched_at_s, data),
        )

    def get(self, kind: str, key: Any, place: str | None = None) -> Record | None:
        """Return a record, None if it is missing; without ``place`` the latest of all places.

        Raises:
            JournalError: The file cannot be read.
        """
        rows = self._ask(
            "SELECT kind, key, place, fetched_at_s, data FROM record"
            " WHERE kind = ? AND key = ? AND place = coalesce(?, place) ORDER BY fetched_at_s DESC LIMIT 1",
            (kind, _encode(key).decode(), place),
        )
        return _record(rows[0]) if rows else None

    def fetched_at_s(self, kind: str, key: Any, place: str | None = None) -> float | None:
        """Return the Unix time at which a record was fetched; None if it is missing.

        Raises:
            JournalError: The file cannot be read.
        """
        rows = self._ask(
            "SELECT max(fetched_at_s) FROM record WHERE kind = ? AND key = ? AND place = coalesce(?, place)",
            (kind, _encode(key).decode(), place),
        )
        found: float | None = rows[0][0]
        return found

    def staleness(self, kind: str, key: Any, place: str | None = None, *, now_s: float | None = None) -> Staleness:
        """Return how stale a record is: "high" (also when missing), "medium", "low" or "fresh".

        Raises:
            JournalError: The file cannot be read.
        """
        return staleness(self.fetched_at_s(kind, key, place), _now(now_s))

    def outdated(
        self,
        *,
        older_than_s: float = LOW_S,
        kind: str | None = None,
        place: str | None = None,
        now_s: float | None = None,
    ) -> list[Any]:
        """Return the keys of records older than a number of seconds, the oldest first: items for `refresh`.

        Args:
            older_than_s: Seconds, >= 0; default: one day, after which a record is no longer fresh.

        Raises:
            InputError: ``older_than_s`` is negative.
            JournalError: The file cannot be read.
        """
        older_than_s = check("older_than_s", older_than_s, low=0)
        rows = self._ask(
            "SELECT key FROM record WHERE kind = coalesce(?, kind) AND place = coalesce(?, place) AND fetched_at_s < ?"
            " ORDER BY fetched_at_s, key",
            (kind, place, _now(now_s) - older_than_s),
        )
        return [_decode(key) for key in dict.fromkeys(key for (key,) in rows)]

    def mark_absent(self, found: Iterable[tuple[Identity, float]]) -> None:
        """Remember what a service does not have; records that are held stay, marked.

        Args:
            found: Each with the Unix time when it was asked for.

        Raises:
            JournalError: Nothing was written.
        """
        self._check_file()
        with self._lock, _translated(self.path), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            for one, asked_at_s in found:
                where = one.kind, _encode(one.key).decode(), one.place
                row = self._database.execute(_ABSENCE, where).fetchone()
                before = None if row is None else _absence(row)
                if before is None:
                    since_s, times = asked_at_s, 1
                else:  # asked for before it was due (force=True), it proves nothing more
                    since_s, times = before.since_s, before.times + before.is_due(asked_at_s)
                self._database.execute(
                    "INSERT OR REPLACE INTO absence VALUES (?, ?, ?, ?, ?, ?)", (*where, since_s, asked_at_s, times)
                )

    def absence(self, kind: str, key: Any, place: str) -> Absence | None:
        """Return what is remembered of something that a service does not have; None for nothing.

        Raises:
            JournalError: The file cannot be read.
        """
        rows = self._ask(_ABSENCE, (kind, _encode(key).decode(), place))
        return _absence(rows[0]) if rows else None

    def absent(self, kind: str | None = None) -> pd.DataFrame:
        """Return one row per thing that a service does not have, sorted by when it is asked for again.

        Its columns: kind, key, place, name (None without a record), since, asked_at, times, again_at; times in UTC.

        Raises:
            JournalError: The file cannot be read.
        """
        import pandas as pd

        rows = self._ask(
            "SELECT absence.*, data FROM absence LEFT JOIN record USING (kind, key, place)"
            " WHERE kind = coalesce(?, kind)",
            (kind,),
        )
        found = [(_absence(row[:-1]), None if row[-1] is None else _decode(row[-1]).get("name")) for row in rows]
        found.sort(key=lambda one: one[0].again_at_s)
        columns = {
            "kind": [one.kind for one, _ in found],
            "key": [one.key for one, _ in found],
            "place": [one.place for one, _ in found],
            "name": [name for _, name in found],
            "since": pd.to_datetime([one.since_s for one, _ in found], unit="s", utc=True),
            "asked_at": pd.to_datetime([one.asked_at_s for one, _ in found], unit="s", utc=True),
            "times": [one.times for one, _ in found],
            "again_at": pd.to_datetime([one.again_at_s for one, _ in found], unit="s", utc=True),
        }
        return pd.DataFrame(columns)

    def latest(self, kind: str, place: str, *, n: int = 1) -> list[Any]:
        """Return the keys of the ``n`` records that were fetched last and are still there, the latest first.

        Raises:
            JournalError: The file cannot be read.
        """
        rows = self._ask(
            "SELECT key FROM record WHERE kind = ? AND place = ?"
            " AND (kind, key, place) NOT IN (SELECT kind, key, place FROM absence)"
            " ORDER BY fetched_at_s DESC, key LIMIT ?",
            (kind, place, n),
        )
        return [_decode(key) for (key,) in rows]

    def keys(self, kind: str) -> list[Any]:
        """Return the keys of all records of a kind, the oldest first.

        Raises:
            JournalError: The file cannot be read.
        """
        rows = self._ask("SELECT key FROM record WHERE kind = ? ORDER BY fetched_at_s, key", (kind,))
        return [_decode(key) for key in dict.fromkeys(key for (key,) in rows)]

    def to_frame(self, kind: str | None = None, *, now_s: float | None = None) -> pd.DataFrame:
        """Return one row per record, the oldest first.

        Its columns: kind, key, place, name, fetched_at (UTC), staleness, absent_since (UTC, NaT for what is there),
        data.

        Raises:
            JournalError: The file cannot be read.
        """
        import pandas as pd

        rows = self._ask(
            "SELECT kind, key, place, fetched_at_s, data, since_s FROM record"
            " LEFT JOIN absence USING (kind, key, place) WHERE kind = coalesce(?, kind)"
            " ORDER BY fetched_at_s, kind, key, place",
            (kind,),
        )
        records, at_s = [_record(row[:-1]) for row in rows], _now(now_s)
        columns = {
            "kind": [record.kind for record in records],
            "key": [record.key for record in records],
            "place": [record.place for record in records],
            "name": [record.data.get("name") for record in records],
            "fetched_at": pd.to_datetime([record.fetched_at_s for record in records], unit="s", utc=True),
            "staleness": [staleness(record.fetched_at_s, at_s) for record in records],
            "absent_since": pd.to_datetime([row[-1] for row in rows], unit="s", utc=True),
            "data": [record.data for record in records],
        }
        return pd.DataFrame(columns)

    def by_staleness(self, *, now_s: float | None = None) -> dict[Staleness, int]:
        """Return the number of records by staleness, the stalest first.

        Raises:
            JournalError: The file cannot be read.
        """
        at_s = _now(now_s)
        counts: dict[Staleness, int] = dict.fromkeys(STALENESS, 0)
        for (fetched_at_s,) in self._ask("SELECT fetched_at_s FROM record"):
            counts[staleness(fetched_at_s, at_s)] += 1
        return counts

    def size_bytes(self) -> int:
        """Return the size on disk, the write-ahead log included."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def forget(self, kind: str | None = None, key: Any = None) -> int:
        """Delete one record, all records of a kind, or all records, and what is remembered as not there.

        Returns:
            How many were deleted; a record that is marked as not there counts once.

        Raises:
            InputError: ``key`` is given without ``kind``.
            JournalError: The file cannot be written.
        """
        if key is not None and kind is None:
            msg = f"kind must be given with key={key!r}: say which kind of record it is, such as 'game'"
            raise InputError(msg)
        wanted = None if key is None else _encode(key).decode()
        where = "WHERE kind = coalesce(?, kind) AND key = coalesce(?, key) RETURNING kind, key, place"
        deleted = [self._ask(f"DELETE FROM {table} {where}", (kind, wanted)) for table in ("record", "absence")]  # noqa: S608
        return len({row for rows in deleted for row in rows})

    def _check_file(self) -> None:
        """Write nothing to a file that nobody will find again.

        Raises:
            JournalError: The file was moved, deleted or replaced since it was opened.
        """
        if inode(self.path) != self._file:
            msg = f"library {self.path} was moved, deleted or replaced since it was opened: open it again"
            raise JournalError(msg)

    def _ask(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock, _translated(self.path):
            return self._database.execute(sql, values).fetchall()


def _record(row: tuple[str, str, str, float, str]) -> Record:
    kind, key, place, fetched_at_s, data = row
    return Record(kind=kind, key=_decode(key), place=place, fetched_at_s=fetched_at_s, data=_decode(data))


def _absence(row: tuple[str, str, str, float, float, int]) -> Absence:
    kind, key, place, since_s, asked_at_s, times = row
    return Absence(kind=kind, key=_decode(key), place=place, since_s=since_s, asked_at_s=asked_at_s, times=times)


def _now(now_s: float | None) -> float:
    return time.time() if now_s is None else now_s


def _create(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        return
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start and start != _MAGIC:
        raise _not_ours(path)
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "permission denied", str(path))


def _not_ours(path: Path) -> JournalError:
    return JournalCorrupt(f"library {path} is not an ipybatch library: move it away, or choose another path")


def _translated(path: Path) -> AbstractContextManager[None]:
    return translated(path, "library", f"{PATH_VARIABLE} or its path", "run it again")
