"""SqliteLimits: the limit store of the processes of one user, a file beside the journal.

An exchange is one transaction of some 50 us.  It never waits: who meets the
lock of another process tries again in a moment.  The disk is never waited for
either (``synchronous = OFF``): all of it survives the end of the processes, and
a power cut takes windows that are over by then.

All processes of a machine read one clock, which stands in no sleep.  When it
began anew, with the machine, all that is recorded moves along.

One subject, hence its length: one transaction, and the file that it is made in.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from ipybatch.engine.data.clock import boot_s
from ipybatch.engine.data.policy import Rate
from ipybatch.engine.rules.limiter import Cost, Counted, Spent, cost_in, held_s
from ipybatch.engine.store.journal_errors import translated
from ipybatch.engine.store.journal_file import inode
from ipybatch.engine.store.lease import find_process
from ipybatch.engine.store.limit_schema import (
    BEFORE,
    CLAIMS,
    LAST,
    REACHED,
    RESOURCE,
    RUNNING,
    VERSION,
    Row,
    make,
    version,
)
from ipybatch.engine.store.limit_store import (
    LEASE_S,
    Answer,
    Bounds,
    Claim,
    Owner,
    Report,
    StoreBusy,
    apart_s,
    claim,
    found_at_s,
    further,
    give_way_s,
    last_start_s,
    strictest,
)
from ipybatch.errors import JournalError

HOLD_S = 45.0  # how much longer than its lease a process counts that is there and silent: it was stopped, or held
FRESH_S = 1.0  # a lease this young is not written again
KEPT_S = 40 * 86_400.0  # what was answered is kept for a monthly window, or for a longer one of whoever is there
LOOK_S = 0.5  # between two looks at whose lease has ended
THIN_AFTER = 1000  # answers
SPANS_S = (60.0, 3600.0, 86_400.0)  # windows that somebody may yet have
STEPS = 1000  # moments in a window that are told apart at least
_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Bounds).decode


def cooling(path: Path, now_s: Callable[[], float] = boot_s) -> dict[str, tuple[float, str]] | None:
    """Return what cools down just now, by name: seconds left, and why; None where the file cannot be read.

    Looking makes no file, and holds up nobody who uses it.
    """
    at_s = now_s()
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)) as database:
        rows = database.execute("SELECT name, cool_until_s, why FROM resource WHERE cool_until_s > ?", (at_s,))
        return {name: (until_s - at_s, why) for name, until_s, why in rows}
    return None


class _Known(msgspec.Struct):
    """The owners of a resource, as they were read when ``changed`` was what it is."""

    changed: int
    owners: dict[int, tuple[str, str, Bounds, float]]  # name, label, bounds, until
    bounds: Bounds


class SqliteLimits:
    """A limit store in a file.

    Args:
        path: Of the file; it is made where there is none.
        now_s: The clock that all who open it share.
        unix_s: Tells how much time passed while that clock began anew.
    """

    def __init__(
        self, path: Path, now_s: Callable[[], float] = boot_s, unix_s: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self._now_s, self._unix_s = now_s, unix_s
        self._database: sqlite3.Connection | None = None
        self._entered: set[tuple[str, str]] = set()  # resources, and who of this process uses them
        self._is_lost = False  # the file that was open, while it was used
        self._untold: set[tuple[str, str]] = set()  # who of them does not know of that
        self._turn = threading.Lock()
        self._file: tuple[int, int] | None = None
        self._owners: dict[tuple[int, str], tuple[int, Bounds, str, float]] = {}  # id, bounds, label, renewed at
        self._units: dict[tuple[int, int], set[str]] = {}  # in which an owner of ours had something in flight
        self._known: dict[int, _Known] = {}
        self._looked_s: dict[int, float] = {}

    def exchange(self, report: Report) -> Answer:
        """Count what an owner reports, and decide on what it wants, at once.

        Raises:
            StoreBusy: Another process writes just now.
            JournalError: The file cannot be read or written; says why.
        """
        is_look = not report.owner and report.cool_s is None
        if is_look and self._database is None and not self.path.exists():
            return Answer()  # nothing was counted yet, and looking makes no file
        with self._transaction() as database:
            return self._exchange(database, report)

    def history(self, resource: str, since_s: float) -> list[Spent]:
        """Return what was answered within the last ``since_s`` seconds: seconds ago, unit, cost; the oldest first.

        Raises:
            StoreBusy: Another process writes just now.
            JournalError: The file cannot be read or written; says why.
        """
        with self._transaction() as database:
            row = self._resource(database, resource)
            found, before = [], dict[str, float]()
            for at_s, unit, total in database.execute(
                "SELECT at_s, unit, total FROM spent WHERE resource = ? ORDER BY at_s, total", (row.id,)
            ):
                if at_s > row.last_s - since_s:
                    found.append((row.last_s - at_s, unit, total - before.get(unit, 0.0)))
                before[unit] = total
            return found

    def names(self) -> list[str]:
        """Return the names of all resources.

        Raises:
            StoreBusy: Another process writes just now.
            JournalError: The file cannot be read or written; says why.
        """
        with self._transaction() as database:
            return [name for (name,) in database.execute("SELECT name FROM resource ORDER BY name")]

    def close(self) -> None:
        """Let the file go."""
        if self._database is not None:
            self._database.close()
        self._database = None

    def _exchange(self, database: sqlite3.Connection, report: Report) -> Answer:
        row = self._resource(database, report.resource)
        now_s = row.last_s
        self._lapse(database, row, now_s, besides=report.owner)
        is_stranger = row.spender not in ("", report.owner)
        for ago_s, unit, cost in report.spent:
            self._spend(database, row, now_s - ago_s, unit, cost)
            row.spender = report.owner
        me = self._enter(database, row, report, now_s)
        known = self._owners_of(database, row)
        _cool(row, report, is_alone=not known.owners.keys() - {me})
        flight, owners = self._others(database, row, known, me)
        for one in report.counted:
            self._fill(database, row, one, report, flight)
        used = dict.fromkeys(known.bounds.rates, 0.0)
        wanted, wait_s, of_slot = report.wanted if me else None, 0.0, False
        running = flight.get(RUNNING, 0.0) + report.running
        if wanted is not None:
            if report.slot and known.bounds.concurrency is not None and running >= known.bounds.concurrency:
                wait_s, of_slot = math.inf, True
            wait_s = max(wait_s, row.started_s + apart_s(known.bounds, wanted) - now_s, row.cool_until_s - now_s)
        for rate in used:
            in_flight = flight.get(rate.unit, 0.0) + report.in_flight.get(rate.unit, 0.0)
            used[rate], fits_in_s = self._window(database, row, rate, in_flight, wanted)
            wait_s = max(wait_s, fits_in_s)
        others: list[Claim] = []
        if wanted is not None and owners:
            wait_s, others = self._take_turns(database, row, me, report, max(0.0, wait_s), of_slot=of_slot)
        granted = 0
        if wanted is not None and wait_s == 0.0:
            row.started_s = last_start_s(now_s, row.started_s, known.bounds, wanted)
            granted = 1
            _add(used, wanted, 1)
            if report.more:
                more = further(now_s, others, report, known.bounds, used, running + report.slot)
                granted += more
                _add(used, wanted, more)
        if me:
            self._fly(database, row.id, me, report, granted)
        database.execute(
            "UPDATE resource SET last_s = ?, unix_s = ?, started_s = ?, cool_until_s = ?, why = ?, spender = ?,"
            " answered = ? WHERE id = ?",
            (now_s, self._unix_s(), row.started_s, row.cool_until_s, row.why, row.spender, row.answered, row.id),
        )
        cool_s = max(0.0, row.cool_until_s - now_s)
        is_anew = (report.resource, report.owner) in self._untold
        self._untold.discard((report.resource, report.owner))
        return Answer(
            wait_s=max(0.0, wait_s),
            more=max(0, granted - 1),
            used=used,
            owners=owners,
            cool_s=cool_s,
            why=row.why if cool_s else "",
            is_stranger=is_stranger,
            is_anew=is_anew,
        )

    def _take_turns(
        self, database: sqlite3.Connection, row: Row, me: int, report: Report, wait_s: float, *, of_slot: bool
    ) -> tuple[float, list[Claim]]:
        """Return how long an owner is to wait that must wait so long already, or could start but for others' turn.

        And what those others are owed.
        """
        now_s = row.last_s
        claims = {owner: Claim(*told) for owner, *told in database.execute(CLAIMS, (row.id,))}
        mine = claims.pop(me, None)
        if wait_s == 0.0:
            wait_s, of_slot = give_way_s(now_s, claims.values(), mine, report.running, slot=report.slot)
        if wait_s > 0.0:
            new = msgspec.structs.astuple(claim(now_s, mine, wait_s, report, of_slot=of_slot))
            database.execute("INSERT OR REPLACE INTO claim VALUES (?, ?, ?, ?, ?, ?)", (row.id, me, *new[:4]))
        elif mine is not None:
            database.execute("DELETE FROM claim WHERE resource = ? AND owner = ?", (row.id, me))
        return wait_s, list(claims.values())

    def _resource(self, database: sqlite3.Connection, name: str) -> Row:
        """Return a resource at this moment, which is later than all that is recorded of it."""
        now_s = self._now_s()
        found = database.execute(RESOURCE, (name,)).fetchone()
        if found is None:
            (grace_s,) = database.execute("SELECT max(until_s) FROM grace").fetchone()
            cool_until_s, why = (-math.inf, "") if grace_s is None or grace_s < now_s else (grace_s, _DELETED)
            database.execute(
                "INSERT INTO resource (name, last_s, unix_s, started_s, cool_until_s, why) VALUES (?, ?, ?, ?, ?, ?)",
                (name, now_s, self._unix_s(), -math.inf, cool_until_s, why),
            )
            found = database.execute(RESOURCE, (name,)).fetchone()
        row = Row(*found)
        if now_s < row.last_s - 1.0:
            self._move(database, row, now_s)
        row.last_s = max(now_s, row.last_s)
        return row

    def _move(self, database: sqlite3.Connection, row: Row, now_s: float) -> None:
        """Let the clock have begun anew: what is recorded is as long ago as the other clock says."""
        by_s = now_s - max(0.0, self._unix_s() - row.unix_s) - row.last_s
        database.execute("UPDATE spent SET at_s = at_s + ? WHERE resource = ?", (by_s, row.id))
        database.execute("UPDATE owner SET until_s = until_s + ? WHERE resource = ?", (by_s, row.id))
        database.execute("DELETE FROM claim WHERE resource = ?", (row.id,))
        self._change(database, row)
        row.last_s, row.started_s, row.cool_until_s = now_s, row.started_s + by_s, row.cool_until_s + by_s
        self._looked_s.pop(row.id, None)

    def _spend(self, database: sqlite3.Connection, row: Row, at_s: float, unit: str, cost: float) -> None:
        last_s, total = database.execute(LAST, (row.id, unit)).fetchone() or (-math.inf, 0.0)
        at_s = max(last_s, min(at_s, row.last_s))
        database.execute("INSERT OR IGNORE INTO spent VALUES (?, ?, ?, ?)", (row.id, unit, at_s, total + cost))
        row.answered += 1
        if row.answered >= THIN_AFTER:
            row.answered = 0
            self._thin(database, row)

    def _fill(self, database: sqlite3.Connection, row: Row, counted: Counted, report: Report, flight: Cost) -> None:
        """Let at least as much of a rate be taken as the service says."""
        unit = counted.rate.unit
        in_flight = flight.get(unit, 0.0) + report.in_flight.get(unit, 0.0)
        more = counted.used - self._window(database, row, counted.rate, in_flight, None)[0]
        if more <= 0.0:
            return
        at_s = found_at_s(row.last_s, counted)
        (before,) = database.execute(BEFORE, (row.id, unit, at_s)).fetchone() or (0.0,)
        # What was answered later makes a greater total; in two steps, since no two may be the same meanwhile.
        later = "WHERE resource = ? AND unit = ? AND at_s > ?"
        database.execute(f"UPDATE spent SET total = -1.0 - total - ? {later}", (more, row.id, unit, at_s))  # noqa: S608
        database.execute(f"UPDATE spent SET total = -1.0 - total {later}", (row.id, unit, at_s))  # noqa: S608
        database.execute("INSERT OR IGNORE INTO spent VALUES (?, ?, ?, ?)", (row.id, unit, at_s, before + more))
        row.spender = report.owner

    def _thin(self, database: sqlite3.Connection, row: Row) -> None:
        """Forget moments that no window tells apart: a cost counts a little longer then, never shorter."""
        rates = self._owners_of(database, row).bounds.rates
        for (unit,) in database.execute("SELECT DISTINCT unit FROM spent WHERE resource = ?", (row.id,)).fetchall():
            spans = sorted({held_s(rate) for rate in rates if rate.unit == unit} | {*SPANS_S, KEPT_S})
            for newer_s, older_s in zip([0.0, *spans[:-1]], spans, strict=True):
                if newer_s:
                    since_s, until_s = row.last_s - older_s, row.last_s - newer_s
                    span = (row.id, unit, since_s, until_s)
                    database.execute(
                        "DELETE FROM spent WHERE resource = ? AND unit = ? AND at_s > ? AND at_s <= ? AND total NOT IN"
                        " (SELECT max(total) FROM spent WHERE resource = ? AND unit = ? AND at_s > ? AND at_s <= ?"
                        " GROUP BY CAST(at_s / ? AS INTEGER))",
                        (*span, *span, older_s / STEPS),
                    )
            before = database.execute(BEFORE, (row.id, unit, row.last_s - spans[-1])).fetchone()
            if before is not None:  # what it held counts in no window, not in one either that is longer than all so far
                known = row.id, unit, *before
                database.execute("DELETE FROM spent WHERE resource = ? AND unit = ? AND total < ?", known)
                database.execute(
                    "UPDATE OR REPLACE spent SET at_s = ? WHERE resource = ? AND unit = ? AND total = ?",
                    (-math.inf, *known),
                )

    def _lapse(self, database: sqlite3.Connection, row: Row, now_s: float, *, besides: str) -> None:
        """Count as answered what those have in flight who are gone, or silent for too long."""
        if now_s < self._looked_s.get(row.id, -math.inf) + LOOK_S:
            return
        self._looked_s[row.id] = now_s
        gone = [
            (owner, name)
            for owner, (name, _, _, until_s) in self._read_owners(database, row.id).items()
            if name != besides and _is_gone(name, now_s - until_s)
        ]
        for owner, name in gone:
            for unit, cost in database.execute(
                "SELECT unit, cost FROM flight WHERE resource = ? AND owner = ? AND unit <> ''", (row.id, owner)
            ).fetchall():
                if cost:
                    self._spend(database, row, now_s, unit, cost)
                    row.spender = name
            self._remove(database, row, owner)

    def _enter(self, database: sqlite3.Connection, row: Row, report: Report, now_s: float) -> int:
        """Count an owner as one of the resource's, renew its lease, or let it leave; return its number, 0 for none."""
        if not report.owner:
            return 0
        key = row.id, report.owner
        name = report.resource, report.owner
        owner, bounds, label, renewed_s = self._owners.get(key, (0, None, "", -math.inf))
        if report.bounds is None:
            found = database.execute("SELECT id FROM owner WHERE resource = ? AND name = ?", key).fetchone()
            if found is not None:
                self._remove(database, row, found[0])
            self._owners.pop(key, None)
            self._entered.discard(name)
            return 0
        self._entered.add(name)
        is_same = bounds == report.bounds and label == report.label
        if is_same and now_s < renewed_s + FRESH_S:
            return owner
        until_s = now_s + report.lease_s
        if (
            not is_same
            or not database.execute(
                "UPDATE owner SET until_s = ? WHERE id = ? AND name = ?", (until_s, owner, report.owner)
            ).rowcount
        ):
            database.execute(
                "INSERT INTO owner (resource, name, label, bounds, until_s) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO"
                " UPDATE SET label = excluded.label, bounds = excluded.bounds, until_s = excluded.until_s",
                (*key, report.label, _encode(report.bounds), until_s),
            )
            (owner,) = database.execute("SELECT id FROM owner WHERE resource = ? AND name = ?", key).fetchone()
            # Who was taken for gone, and was not, may have reported since.
            database.execute(
                "DELETE FROM flight WHERE resource = ? AND owner NOT IN (SELECT id FROM owner WHERE resource = ?)",
                (row.id, row.id),
            )
            self._change(database, row)
        self._owners[key] = owner, report.bounds, report.label, now_s
        return owner

    def _remove(self, database: sqlite3.Connection, row: Row, owner: int) -> None:
        database.execute("DELETE FROM flight WHERE resource = ? AND owner = ?", (row.id, owner))
        database.execute("DELETE FROM claim WHERE resource = ? AND owner = ?", (row.id, owner))
        database.execute("DELETE FROM owner WHERE id = ?", (owner,))
        self._change(database, row)

    def _change(self, database: sqlite3.Connection, row: Row) -> None:
        row.changed += 1
        database.execute("UPDATE resource SET changed = ? WHERE id = ?", (row.changed, row.id))

    def _owners_of(self, database: sqlite3.Connection, row: Row) -> _Known:
        known = self._known.get(row.id)
        if known is None or known.changed != row.changed:
            owners = self._read_owners(database, row.id)
            known = _Known(row.changed, owners, strictest(bounds for _, _, bounds, _ in owners.values()))
            self._known[row.id] = known
        return known

    def _read_owners(self, database: sqlite3.Connection, resource: int) -> dict[int, tuple[str, str, Bounds, float]]:
        rows = database.execute(
            "SELECT id, name, label, bounds, until_s FROM owner WHERE resource = ? ORDER BY id", (resource,)
        )
        return {owner: (name, label, _decode(bounds), until_s) for owner, name, label, bounds, until_s in rows}

    def _others(self, database: sqlite3.Connection, row: Row, known: _Known, me: int) -> tuple[Cost, tuple[Owner, ...]]:
        """Return what the others have in flight in all, by unit, and who they are."""
        if me in known.owners and len(known.owners) == 1:
            return {}, ()
        flight: dict[str, float] = {}
        running: dict[int, float] = {}
        for owner, unit, cost in database.execute(
            "SELECT owner, unit, cost FROM flight WHERE resource = ? AND owner <> ?", (row.id, me)
        ):
            flight[unit] = flight.get(unit, 0.0) + cost
            if unit == RUNNING:
                running[owner] = cost
        return flight, tuple(
            Owner(name, label, int(running.get(owner, 0)))
            for owner, (name, label, _, _) in known.owners.items()
            if owner != me
        )

    def _fly(self, database: sqlite3.Connection, resource: int, me: int, report: Report, granted: int) -> None:
        """Record what an owner has in flight, with what was granted."""
        units = self._units.get((resource, me))
        if units is None:
            database.execute("DELETE FROM flight WHERE resource = ? AND owner = ?", (resource, me))
            units = self._units[resource, me] = set()
        flight: dict[str, float] = {**dict.fromkeys(units, 0.0), RUNNING: report.running, **report.in_flight}
        if granted and report.wanted is not None:
            flight[RUNNING] += granted * report.slot
            for unit in {"requests", *report.wanted}:
                flight[unit] = flight.get(unit, 0.0) + granted * cost_in(unit, report.wanted)
        database.executemany(
            "INSERT OR REPLACE INTO flight VALUES (?, ?, ?, ?)",
            [(resource, me, unit, cost) for unit, cost in flight.items()],
        )
        units.update(flight)

    def _window(
        self, database: sqlite3.Connection, row: Row, rate: Rate, in_flight: float, wanted: Cost | None
    ) -> tuple[float, float]:
        """Return how much of a rate is taken, and seconds until what is wanted fits as well."""
        since_s = row.last_s - held_s(rate)
        _, total = database.execute(LAST, (row.id, rate.unit)).fetchone() or (0.0, 0.0)
        (before,) = database.execute(BEFORE, (row.id, rate.unit, since_s)).fetchone() or (0.0,)
        used: float = in_flight + total - before
        if wanted is None:
            return used, 0.0
        cost = cost_in(rate.unit, wanted)
        over = used + cost - rate.limit
        if cost > rate.limit:  # the limit was lowered meanwhile: it starts when nothing else is there
            over = used
        if over <= 1e-9:
            return used, 0.0
        found = database.execute(REACHED, (row.id, rate.unit, since_s, before + over - 1e-9)).fetchone()
        return used, math.inf if found is None else found[0] + held_s(rate) - row.last_s

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if not self._turn.acquire(blocking=False):  # sessions may run on the loops of several threads
            raise StoreBusy
        try:
            with translated(self.path, "limits file", "IPYBATCH_JOURNAL or journal="):
                database = self._opened()
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                    database.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        database.execute("ROLLBACK")
                    raise
        except BaseException as error:
            self._forget()
            cause = error.__cause__ if isinstance(error, JournalError) else None
            name = cause.sqlite_errorname if isinstance(cause, sqlite3.Error) else ""
            if name.startswith(_DAMAGED):
                self._put_aside()
            if name.startswith((*_BUSY, *_DAMAGED)):
                raise StoreBusy(str(cause)) from error
            raise
        finally:
            self._turn.release()

    def _forget(self) -> None:
        """Forget what was read: it may not be so."""
        self._owners.clear()
        self._units.clear()
        self._known.clear()
        self._looked_s.clear()

    def _opened(self) -> sqlite3.Connection:
        """Return the connection to the file that is there now."""
        if self._database is not None:
            if self._file == inode(self.path):
                return self._database
            self.close()
            self._is_lost = bool(self._entered)
            self._untold |= self._entered
            self._forget()
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._file = inode(self.path)
        database = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        self._database, self._is_lost = database, False
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Make the tables where there are none.

        Whoever used a file that is gone knows that others have yet to come back, and that what was answered is not
        known: then nothing starts for a while, whoever made the new one.

        Raises:
            JournalError: A later version has made them.
        """
        database.execute("PRAGMA page_size = 1024")  # commits copy whole pages: 4096 cost a tenth more
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA journal_mode = WAL")
        if version(database) > VERSION:
            msg = f"limits file {self.path} was written by a later ipybatch: upgrade, or choose another journal="
            raise JournalError(msg)
        if version(database) == VERSION and not self._is_lost:
            self._clear(database)
            return
        database.execute("BEGIN IMMEDIATE")
        make(database)
        if self._is_lost and not any(database.execute("SELECT 1 FROM grace LIMIT 1")):
            until_s = self._now_s() + LEASE_S
            database.execute("INSERT INTO grace VALUES (?)", (until_s,))
            database.execute(
                "UPDATE resource SET cool_until_s = ?, why = ? WHERE cool_until_s < ?", (until_s, _DELETED, until_s)
            )
        database.execute("COMMIT")

    def _clear(self, database: sqlite3.Connection) -> None:
        """Forget resources that nobody has used for so long that no window holds anything of it."""
        old = "SELECT id FROM resource WHERE unix_s < ?"
        values = (self._unix_s() - KEPT_S,)
        if database.execute(f"{old} LIMIT 1", values).fetchone() is None:
            return
        database.execute("BEGIN IMMEDIATE")
        for table in ("spent", "flight", "claim", "owner"):
            database.execute(f"DELETE FROM {table} WHERE resource IN ({old})", values)  # noqa: S608  # constants
        database.execute("DELETE FROM resource WHERE unix_s < ?", values)
        database.execute("COMMIT")

    def _put_aside(self) -> None:
        """Move a damaged file away, unless somebody has done so."""
        is_same = self._file == inode(self.path)
        self.close()
        self._is_lost = True
        self._untold |= self._entered
        if is_same:
            for end in ("-wal", "-shm", ""):
                part = self.path.with_name(self.path.name + end)
                with suppress(FileNotFoundError):
                    part.replace(part.with_name(f"{self.path.stem}-damaged{self.path.suffix}{end}"))


_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_DELETED = "limits.sqlite3 was deleted or damaged while it was in use: what it counted is unknown"


def _cool(row: Row, report: Report, *, is_alone: bool) -> None:
    """Heed what a report says of a cool-down."""
    if report.cool_s is not None:
        row.cool_until_s = max(row.cool_until_s, row.last_s + report.cool_s) if report.cool_s else -math.inf
        row.why = report.why
    if report.cool_most_s is not None and is_alone:
        row.cool_until_s = min(row.cool_until_s, row.last_s + report.cool_most_s)


def _add(used: dict[Rate, float], granted: Cost, times: int) -> None:
    for rate in used:
        used[rate] += times * cost_in(rate.unit, granted)


def _is_gone(owner: str, silent_s: float) -> bool:
    """Say whether an owner has ended, or been silent for too long.

    A process that is there and silent was stopped, or something holds its engine: it may yet send what it has in
    flight, and its requests are counted for longer.
    """
    is_there = find_process(owner)
    if is_there is None:
        return silent_s >= 0.0
    return silent_s >= HOLD_S if is_there else True
