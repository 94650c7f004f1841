"""RunStore: one run's rows in the journal, written under the lease that `taken` gives back whatever happens.

A run is found by its name or made, taken with a lease, and then written to in
batches of `Entry`s; see `lease` for who may.

One subject, hence its length: all that is read and written of one run.
"""

from __future__ import annotations

import math
import sqlite3
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec

from ipybatch.engine.data.events import Counts, State, Status
from ipybatch.engine.store import commands, outbox
from ipybatch.engine.store import lease as leases
from ipybatch.engine.store.journal import PATIENCE_S, Journal
from ipybatch.engine.store.lease import Lease, Silence
from ipybatch.engine.store.rows import Entry, insert, values_of
from ipybatch.engine.store.schema import RUN_TABLES, ids
from ipybatch.errors import JournalError

_LEFT_OUT = "attempts = 0 AND status = 'skipped'"  # items that the plan leaves out
_FAILED = "status IN ('failed', 'timeout')"
_ITEMS = "SELECT id FROM item"
_encode = msgspec.json.Encoder().encode
Tell = Callable[[sqlite3.Connection, Lease], None]
_decode_notes = msgspec.json.Decoder(list[str]).decode


class Found(msgspec.Struct, frozen=True):
    """The latest run of a name, as the journal tells it.

    Attributes:
        owner: Whoever holds its lease, alive or not; None for nobody.
        begun_s: When its latest start began; ``seconds`` are those of the starts that were ended before it.
        start_at_s: Before which nothing of it was to start, Unix; None for nothing of the kind.
        live: Facts of the moment, as JSON.
    """

    run: int
    state: State
    reason: str
    counts: Counts
    plan_hash: bytes | None
    code_hash: bytes | None
    listing: array[int] | None
    created_s: float
    started_s: float | None
    seconds: float
    group_word: str
    usd: float | None
    is_ordered: int
    workload: str
    about: str
    outdated: bytes | None
    settings: str | None
    owner: str | None
    epoch: int
    beat_s: float
    begun_s: float | None
    ended_s: float | None
    resource: str
    start_at_s: float | None
    notes: list[str]
    live: bytes | None


_RUN_COLUMNS = (
    "id, state, reason, total, completed, failed, timeout, cancelled, skipped, plan_hash, code_hash, listing,"
    " created_s, started_s, seconds, group_word, usd, is_ordered, workload, about, outdated, settings,"
    " owner, epoch, beat_s, begun_s, ended_s, resource, start_at_s, notes, live"
)
_WITHOUT = {"is_ordered": "0", "workload": "''", "about": "''"}  # in an older journal that is only read; others NULL


def find(database: sqlite3.Connection, name: str, run: int = 0) -> Found | None:
    """Return the latest run of ``name``, or the one of that number; None if there is none."""
    try:
        row = _row(database, _RUN_COLUMNS, name, run)
    except sqlite3.OperationalError as error:
        if "no such column" not in str(error):
            raise
        known = {column for _, column, *_ in database.execute("PRAGMA table_info(run)")}
        there = (name if name in known else _WITHOUT.get(name, "NULL") for name in _RUN_COLUMNS.split(", "))
        row = _row(database, ", ".join(there), name, run)
    if row is None:
        return None
    run, state, reason, total, completed, failed, timeout, cancelled, skipped, plan_hash, code_hash, listing = row[:12]
    ended = completed + failed + timeout + cancelled + skipped
    counts = Counts(
        total=total,
        completed=completed,
        failed=failed,
        timeout=timeout,
        cancelled=cancelled,
        skipped=skipped,
        pending=max(0, (total or 0) - ended),
    )
    order = array("q", listing) if listing is not None else None
    others = (*row[12:-2], _decode_notes(row[-2] or "[]"), row[-1])
    return Found(run, state, reason, counts, plan_hash, code_hash, order, *others)


def _row(database: sqlite3.Connection, columns: str, name: str, run: int) -> Any:
    sql = f"SELECT {columns} FROM run WHERE name = ? AND ? IN (0, id) ORDER BY id DESC LIMIT 1"  # noqa: S608  # constants
    return database.execute(sql, (name, run)).fetchone()


def create(
    database: sqlite3.Connection,
    name: str,
    *,
    resource: str,
    group_word: str,
    now_s: float,
    code_hash: bytes | None = None,
) -> int:
    """Make a new run of ``name`` and return its number."""
    made = database.execute(
        "INSERT INTO run (name, resource, group_word, state, created_s, code_hash) VALUES (?, ?, ?, 'planned', ?, ?)",
        (name, resource, group_word, now_s, code_hash),
    )
    assert made.lastrowid is not None
    return made.lastrowid


def count_items(database: sqlite3.Connection, run: int) -> Counter[Status]:
    """Return how many items of a run are recorded with which status."""
    rows = database.execute("SELECT status, count(*) FROM item WHERE id >= ? AND id < ? GROUP BY status", ids(run))
    return Counter(dict(rows.fetchall()))


class RecordedCounts(msgspec.Struct):
    """How many items are on record, by status, that the snapshot counts otherwise.

    Attributes:
        undrawn: Of an earlier start, not drawn from the generator yet; the snapshot counts them as they are recorded.
        stale: To run again: the snapshot counts them as pending until they are recorded anew.
        unlisted: Not given by the exhausted generator: the snapshot counts them no more; they leave the run at its
            close.
        outdated: What came again with another input, by seq, with its present digest, until it is recorded anew: what
            is on record of it answers another question, and counts nowhere. None for the digest of what a generator
            has not given yet: its settings changed, or an earlier start knew.
    """

    undrawn: Counter[Status] = msgspec.field(default_factory=Counter)
    stale: Counter[Status] = msgspec.field(default_factory=Counter)
    unlisted: Counter[Status] = msgspec.field(default_factory=Counter)
    outdated: dict[int, str | None] = msgspec.field(default_factory=dict)


class Standing(Protocol):
    """How a session stands, as its snapshot has it."""

    counts: Counts
    spent_usd: float | None
    notes: list[str]
    passing: set[str]


class NotBegun(msgspec.Struct):
    """How a session stands that has done nothing yet."""

    counts: Counts = msgspec.field(default_factory=Counts)
    spent_usd: float | None = None
    notes: list[str] = msgspec.field(default_factory=list)
    passing: set[str] = msgspec.field(default_factory=set)


class RunStore(msgspec.Struct):
    """A run that this process holds the lease of.

    Attributes:
        found: The run as it was before; None for one that was made with the lease.
        live: How the session stands as its snapshot has it: the run's row keeps no count of its own.
        recorded: What is on record beside what the snapshot counts.
    """

    journal: Journal
    lease: Lease
    resource: str
    found: Found | None = None
    live: Standing = msgspec.field(default_factory=NotBegun)
    recorded: RecordedCounts = msgspec.field(default_factory=RecordedCounts)
    _has_begun: bool = False
    _has_outdated: bool = False
    _is_over: bool = False
    _open: list[int] = msgspec.field(default_factory=list)  # seqs: see `leave_open`

    @property
    def run(self) -> int:
        """Its number."""
        return self.lease.run

    def begin(
        self,
        counts: Counts,
        *,
        now_s: float,
        workload: str = "",
        about: str = "",
        settings: str = "",
        place: tuple[str, str] = ("", ""),
        notify: str | None = None,
        start_at_s: float | None = None,
    ) -> None:
        """Mark the run as running.

        Args:
            counts: Where the session starts from.
            workload: Name of the workload that made the session; ``about``: what it records to open it again.
            settings: Hash of what is sent with every item.
            place: The kernel and the notebook of Jupyter that it runs in; "" where that is not known.
            notify: Who is told what of it, as JSON; None for nobody.
            start_at_s: Nothing of it starts before, Unix; None for at once.

        Raises:
            JournalError: It was not written.
        """

        def unit(database: sqlite3.Connection) -> None:
            database.execute(
                "UPDATE run SET state = 'running', reason = '', started_s = coalesce(started_s, ?), begun_s = ?,"
                " resource = ?, workload = ?, about = ?, settings = ?, notes = NULL, live = NULL, kernel = ?,"
                " notebook = ?, notify = ?, start_at_s = ? WHERE id = ?",
                (now_s, now_s, self.resource, workload, about, settings, *place, notify, start_at_s, self.run),
            )
            self._count(database, self._with_recorded(counts), now_s, self._outdated() or b"")

        self.journal.write(unit, patience_s=PATIENCE_S)
        self._has_begun = True

    def write(self, unit: Callable[[sqlite3.Connection], None], now_s: float) -> None:
        """Run ``unit`` under the lease and wait for its commit.

        Raises:
            JournalError: It was not written; `Fenced` if another process took over.
        """
        self.journal.write(self._guarded(unit, now_s))

    def submit(self, entries: list[Entry], now_s: float, done: Callable[[JournalError | None], None]) -> None:
        """Record entries in the next commit; ``done`` is called from the writer after it.

        The counts are those of the moment the commit is written, with these entries in.
        """
        counts = self._counts(entries)
        values = values_of(entries, self.lease.run)
        outdated = self._outdated()
        usd = self.live.spent_usd

        def unit(database: sqlite3.Connection) -> None:
            self._count(database, counts, now_s, outdated, usd)
            for table, some in values.items():
                insert(database, table, some)

        self.journal.submit(
            unit,
            lambda _, error: done(error),
            size=sum(len(entry.payload) for entry in entries if entry.payload is not None),
        )

    def _counts(self, entries: Sequence[Entry]) -> Counts:
        """Return what the items table holds once these entries are written."""
        counts, stale, outdated = msgspec.structs.replace(self.live.counts), self.recorded.stale, self.recorded.outdated
        completed, was_recorded = 0, bool(stale or outdated)
        for entry in entries:
            if entry.status == "completed":
                completed += 1
            elif entry.status != "pending":
                counts.add(entry.status)
            if was_recorded and entry.status != "pending":
                outdated.pop(entry.task.seq, None)
                if entry.task.recorded:
                    stale[entry.task.recorded] -= 1
                    entry.task.recorded = ""
        counts.completed += completed
        return self._with_recorded(counts)

    def _with_recorded(self, counts: Counts) -> Counts:
        """Return counts with what else is on record."""
        if self.recorded.stale or self.recorded.unlisted:
            counts = msgspec.structs.replace(counts)
            for status, items in (self.recorded.stale + self.recorded.unlisted).items():
                counts.add(status, items)
        return counts

    def forget_failed(self, now_s: float) -> None:
        """Erase what a rollback left on record: all of it runs again.

        Raises:
            JournalError: It was not written.
        """
        if self.found is not None and self.found.state == "rolled_back":
            self.write(lambda database: erase_items(database, self.run, kept=_LEFT_OUT), now_s)

    def mark(  # noqa: PLR0917  # what is told at one moment, each of another type
        self,
        state: State | None,
        taken: Sequence[tuple[int, str]],
        now_s: float,
        live: bytes | None = None,
        reason: str = "",
        start_at_s: float | None = None,
    ) -> None:
        """Record how the run stands now and what is noted, and which commands from elsewhere were taken, in one commit.

        It is not waited for.

        Args:
            state: "running" or "paused"; None for as before.
            taken: Ids of commands, each with what is said of it.
            live: Facts of the moment, as JSON; None for as before.
            reason: Why it waits, by the clock on the wall.
            start_at_s: Nothing of it starts before, Unix; None for at once.
        """
        notes = self._notes()

        def unit(database: sqlite3.Connection) -> None:
            values = (state, notes, live, reason, start_at_s, self.run)
            told = "state = coalesce(?, state), notes = ?, live = coalesce(?, live), reason = ?, start_at_s = ?"
            database.execute(f"UPDATE run SET {told} WHERE id = ?", values)  # noqa: S608  # a constant
            commands.acknowledge(database, taken, now_s)

        self.journal.submit(self._guarded(unit, now_s), lambda _, error: None, patience_s=math.inf)

    def tell(self, tell: Tell, now_s: float) -> None:
        """Put into the outbox what is told while it runs; it is not waited for."""
        unit = self._guarded(lambda database: tell(database, self.lease), now_s)
        self.journal.submit(unit, lambda _, error: self._told(error), patience_s=math.inf)

    def _told(self, error: JournalError | None) -> None:
        if error is None:
            outbox.announce(self.journal)

    def leave_open(self, seqs: Sequence[int], now_s: float) -> None:
        """Let items on record that failed for good run again if this process dies, and those of before no more.

        It is not waited for.

        Args:
            seqs: All of them; nothing is written while they are as many as before.
        """
        if len(seqs) == len(self._open):
            return
        closed, self._open = self._open, list(seqs)
        first = ids(self.run)[0]
        values = [(1, first + seq) for seq in closed] + [(0, first + seq) for seq in self._open]

        def unit(database: sqlite3.Connection) -> None:
            database.executemany("UPDATE item SET final = ? WHERE id = ? AND status = 'failed'", values)

        self.journal.submit(self._guarded(unit, now_s), lambda _, error: None, patience_s=math.inf)

    def has_succeeded(self) -> bool:
        """Say whether any item of this name has, with the same resource: so with the same credential."""
        with self.journal.reader() as database:
            runs = database.execute(
                "SELECT id, completed FROM run WHERE name = (SELECT name FROM run WHERE id = ?) AND resource = ?",
                (self.run, self.resource),
            ).fetchall()
            one = "SELECT 1 FROM item WHERE id >= ? AND id < ? AND status = 'completed' LIMIT 1"  # listed or not
            return any(completed or database.execute(one, ids(run)).fetchone() for run, completed in runs)

    def close(
        self,
        state: State,
        reason: str,
        counts: Counts,
        *,
        now_s: float,
        seconds: float,
        listing: array[int] | None,
        usd: float | None = None,
        is_anew: bool = False,
        keeps_failed: bool = False,
        doubted: tuple[Sequence[int], str] = ((), ""),
        live: bytes | None = None,
        tell: Tell | None = None,
        patience_s: float = PATIENCE_S,
        done: Callable[[JournalError | None], object],
    ) -> None:
        """Record how the run ended and let the lease go, which goes in any case.

        Args:
            seconds: How long it ran this time.
            listing: The order in which a generator gave its items, by seq; None for that of the seqs, and for lists.
            usd: What the run has cost so far; None for nothing new.
            is_anew: Forget everything it recorded as well, but what its plan leaves out: all or nothing.
            keeps_failed: With ``is_anew``, whether what failed stays on record, to be told, till the next start; in no
                group, of which the others are gone.
            doubted: Seqs of items that failed for good, though it was no fault of theirs, and their kind from now on.
            live: How it stood at the end, as JSON.
            tell: Puts into the outbox, in the same transaction, what is told of the end; None for nothing.
            patience_s: How long to wait while another process is writing.
            done: Called after the commit, on any thread.
        """
        outdated = b"" if is_anew else self._outdated()

        def unit(database: sqlite3.Connection) -> None:
            self._count(database, counts, now_s, outdated, usd)
            self.lease.check_seen(database)
            if is_anew:
                erase_items(database, self.run, kept=f"({_LEFT_OUT}) OR ({_FAILED})" if keeps_failed else _LEFT_OUT)
                failed = f"id >= ? AND id < ? AND {_FAILED}"
                again = f"UPDATE item SET final = 0, has_result = 0, grp = 0 WHERE {failed}"  # noqa: S608  # a constant
                database.execute(again, ids(self.run))
            database.execute(
                "UPDATE run SET state = ?, reason = ?, ended_s = ?, seconds = seconds + ?, total = ?, notes = ?,"
                " live = ? WHERE id = ?",
                (state, reason, now_s, seconds, counts.total, self._notes(), live, self.run),
            )
            seqs, kind = doubted
            database.executemany(
                "UPDATE item SET final = 0, kind = ? WHERE id = ? AND status = 'failed'",
                [(kind, ids(self.run)[0] + seq) for seq in seqs],
            )
            if listing is not None:
                database.execute("UPDATE run SET listing = ? WHERE id = ?", (listing.tobytes(), self.run))
            commands.refuse(database, self.run, now_s)
            if tell is not None:
                tell(database, self.lease)
            self.lease.let_go(database)

        def answer(_: object, error: JournalError | None) -> None:
            self.drop()
            if tell is not None:
                self._told(error)
            done(error)

        try:
            self.journal.check_there()
        except JournalError as error:
            answer(None, error)
        else:
            self.journal.submit(unit, answer, patience_s=patience_s)

    def abandon(self) -> None:
        """Let the lease go, without an end; a run that did not begin is as it was before, or gone if it was not there.

        It is not waited for: what interrupted the caller may do so again.
        """
        self._is_over = True

        def unit(database: sqlite3.Connection) -> None:
            if not self.lease.epoch:
                return
            self.lease.renew(database, self.lease.unix_s())
            if not self._has_begun:
                if self.found is None:
                    erase(database, self.run)
                else:
                    values = (self.found.state, self.found.reason, self.run)
                    database.execute("UPDATE run SET state = ?, reason = ? WHERE id = ?", values)
            self.lease.let_go(database)

        self.journal.submit(unit, lambda _, error: self.drop(), patience_s=PATIENCE_S)

    def drop(self) -> None:
        """Stop counting this run as one of this process."""
        leases.drop(self.lease)

    def _guarded(
        self, unit: Callable[[sqlite3.Connection], None], now_s: float
    ) -> Callable[[sqlite3.Connection], None]:
        def guarded(database: sqlite3.Connection) -> None:
            self.lease.renew(database, now_s)
            unit(database)

        return guarded

    def _notes(self) -> str:
        return _encode([note for note in self.live.notes if note not in self.live.passing]).decode()

    def _outdated(self) -> bytes | None:
        """Return which items are on record with another input, to be written with the counts; None for nothing new."""
        if not self.recorded.outdated and not self._has_outdated:
            return None
        self._has_outdated = True
        return array("q", self.recorded.outdated).tobytes()

    def _count(  # once a commit
        self,
        database: sqlite3.Connection,
        counts: Counts,
        now_s: float,
        outdated: bytes | None = None,
        usd: float | None = None,
    ) -> None:
        lease = self.lease
        renewed = database.execute(
            "UPDATE run SET beat_s = ?, completed = ?, failed = ?, timeout = ?, cancelled = ?, skipped = ?"  # noqa: S608
            f" WHERE {leases.IS_MINE}",
            (
                now_s,
                counts.completed,
                counts.failed,
                counts.timeout,
                counts.cancelled,
                counts.skipped,
                *lease.mine,
            ),
        )
        leases.check(renewed)
        if outdated is not None:
            database.execute("UPDATE run SET outdated = ? WHERE id = ?", (outdated, lease.run))
        if usd is not None:
            database.execute("UPDATE run SET usd = ? WHERE id = ?", (usd, lease.run))


def erase(database: sqlite3.Connection, run: int) -> None:
    """Delete a run and all that it recorded, at once."""
    erase_items(database, run)
    database.execute("DELETE FROM plan WHERE run = ?", (run,))
    database.execute("DELETE FROM command WHERE run = ?", (run,))
    database.execute("DELETE FROM outbox WHERE run = ? AND state <> 'waiting'", (run,))
    database.execute("DELETE FROM run WHERE id = ?", (run,))


def erase_items(database: sqlite3.Connection, run: int, *, kept: str = "false") -> None:
    """Delete what a run recorded of its items, not the run itself.

    Args:
        kept: What stays all the same, in SQL.
    """
    for table, column in RUN_TABLES:  # items come first
        stays = kept if table == "item" else "false" if table == "payload" else f"{column} IN ({_ITEMS})"
        rows = f"{column} >= ? AND {column} < ? AND NOT ({stays})"
        database.execute(f"DELETE FROM {table} WHERE {rows}", ids(run))  # noqa: S608  # constants


@contextmanager
def taken(
    journal: Journal,
    name: str,
    *,
    resource: str,
    group_word: str,
    now_s: float,
    fresh: bool = False,
    code_hash: bytes | None = None,
    unix_s: Callable[[], float] = time.time,
    live: Standing | None = None,
) -> Iterator[RunStore]:
    """Take the lease of a session's run, and leave the run as it was if anything raises before it begins.

    In one transaction: the latest run of the name, or a new one, unless a live owner holds any of that name.

    Args:
        fresh: Make a new run all the same.
        code_hash: Of the work function, recorded with a new run.
        unix_s: What tells the time of a beat.
        live: See `RunStore`.

    Raises:
        JournalError: The journal refuses; `JournalLocked` if another live session holds the name.
    """
    store = RunStore(journal, Lease(journal, unix_s), resource, live=live or NotBegun())

    def unit(database: sqlite3.Connection, silence: Silence) -> None:
        leases.drop(store.lease)  # of a transaction that was rolled back
        if store._is_over:
            return  # interrupted meanwhile
        owned = database.execute("SELECT id FROM run WHERE name = ? AND owner IS NOT NULL", (name,)).fetchall()
        leases.check_free(database, (run for (run,) in owned), silence)
        store.found = None if fresh else find(database, name)
        if store.found is None:
            run = create(database, name, resource=resource, group_word=group_word, now_s=now_s, code_hash=code_hash)
        else:
            run = store.found.run
        leases.take_lease(database, store.lease, run, now_s)
        leases.hold(store.lease)

    try:
        journal.check_there()
        leases.write_over(journal, unit, now_s)
        yield store
    except BaseException:
        store.abandon()
        raise
