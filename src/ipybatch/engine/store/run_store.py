"""RunStore: one run's rows in the journal, and the lease that allows this process to write them.

Rule: every commit renews the lease with the epoch it was taken in.  A kernel
that wakes from sleep after another took its session over finds another epoch,
and its whole transaction is rolled back.

A run is found by its name, taken with a lease, and then written to in batches
of `Entry`s.  The lease ends when its owner releases it, when the owner's
process is gone (same machine), or when it was not renewed for `LEASE_S`.
"""

from __future__ import annotations

import math
import os
import socket
import sqlite3
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from ipybatch.engine.data.events import Counts, State, Status
from ipybatch.engine.data.plan import OrderedRow, Plan, Task, from_row, to_row
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.rows import Entry, insert, values_of
from ipybatch.engine.store.schema import GROUP, SEQ_BITS, ids
from ipybatch.errors import Fenced, JournalError, JournalLocked

LEASE_S = 15.0
BEAT_S = 3.0

_HOST = socket.gethostname()
_PROCESS = os.urandom(16).hex()


def me() -> str:
    """Return the name of this process as an owner."""
    return f"{_HOST}/{os.getpid()}/{_PROCESS}"


def take_lease(database: sqlite3.Connection, run: int, now_s: float, *, live_here: bool) -> int:
    """Take the lease of ``run`` and return its epoch.

    Args:
        live_here: Whether a session of this process is running it.

    Raises:
        JournalLocked: A live owner holds it.
    """
    check_lease(database, run, now_s, live_here=live_here)
    database.execute("UPDATE run SET owner = ?, beat_s = ?, epoch = epoch + 1 WHERE id = ?", (me(), now_s, run))
    (epoch,) = database.execute("SELECT epoch FROM run WHERE id = ?", (run,)).fetchone()
    return int(epoch)


def check_lease(database: sqlite3.Connection, run: int, now_s: float, *, live_here: bool) -> None:
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
    database.execute(  # of which limit group they were is not known
        f"INSERT INTO window SELECT lane.name, {in_flight}, resource lane {killed} AND {of_run}",
        (*values, len(GROUP), GROUP),
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


PART = 1000

_encode = msgspec.json.Encoder().encode
_decode_plan = msgspec.json.Decoder(list[OrderedRow]).decode
_decode_change = msgspec.json.Decoder(tuple[int, list[int]]).decode
_live: set[tuple[Path, int]] = set()  # the runs that sessions of this process are running


class Found(msgspec.Struct, frozen=True):
    """The latest run of a name, as the journal tells it."""

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


_RUN_COLUMNS = (
    "id, state, reason, total, completed, failed, timeout, cancelled, skipped, plan_hash, code_hash, listing,"
    " created_s, started_s, seconds, group_word, usd, is_ordered, workload, about"
)


def find(database: sqlite3.Connection, name: str) -> Found | None:
    """Return the latest run of ``name``; None if there is none."""
    row = database.execute(
        f"SELECT {_RUN_COLUMNS} FROM run WHERE name = ? ORDER BY id DESC LIMIT 1",  # noqa: S608  # a constant
        (name,),
    ).fetchone()
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
    return Found(run, state, reason, counts, plan_hash, code_hash, order, *row[12:])


def create(database: sqlite3.Connection, name: str, *, resource: str, group_word: str, now_s: float) -> int:
    """Make a new run of ``name`` and return its number."""
    made = database.execute(
        "INSERT INTO run (name, resource, group_word, state, created_s) VALUES (?, ?, ?, 'planned', ?)",
        (name, resource, group_word, now_s),
    )
    assert made.lastrowid is not None
    return made.lastrowid


def count_items(database: sqlite3.Connection, run: int) -> Counter[Status]:
    """Return how many items of a run are recorded with which status."""
    rows = database.execute("SELECT status, count(*) FROM item WHERE id >= ? AND id < ? GROUP BY status", ids(run))
    return Counter(dict(rows.fetchall()))


def read_plan(database: sqlite3.Connection, found: Found) -> Iterator[Task]:
    """Yield the recorded tasks in plan order."""
    changes: dict[int, int] = {}
    for (change,) in database.execute(
        "SELECT tasks FROM plan WHERE run = ? AND part < 0 ORDER BY part DESC", (found.run,)
    ):
        priority, seqs = _decode_change(change)
        changes.update(dict.fromkeys(seqs, priority))
    at = 0
    for (part,) in database.execute("SELECT tasks FROM plan WHERE run = ? AND part >= 0 ORDER BY part", (found.run,)):
        for row in _decode_plan(part):
            seq = row.seq if row.seq is not None else at if found.listing is None else found.listing[at]
            at += 1
            task = from_row(seq, row)
            if changes:
                task.priority = changes.get(seq, task.priority)
            yield task


def write_plan(database: sqlite3.Connection, run: int, tasks: Plan) -> None:
    """Record the tasks of a list, in place of what was there."""
    identity = all(task.seq == at for at, task in enumerate(tasks))
    listing = None if identity else array("q", [task.seq for task in tasks]).tobytes()
    database.execute("DELETE FROM plan WHERE run = ?", (run,))
    database.executemany(
        "INSERT INTO plan VALUES (?, ?, ?)",
        (
            (run, part, _encode([to_row(task) for task in tasks[at : at + PART]]))
            for part, at in enumerate(range(0, len(tasks), PART))
        ),
    )
    database.execute(
        "UPDATE run SET plan_hash = ?, listing = ?, total = ?, is_ordered = ? WHERE id = ?",
        (tasks.hash, listing, len(tasks), int(tasks.is_ordered), run),
    )


def extend_plan(database: sqlite3.Connection, run: int, new: Sequence[Task], total: int) -> None:
    """Record tasks that are added to the end of a list, with their numbers; what is there of the others stays.

    The hash is left empty: the user's own list has another one, and is matched by its keys from now on.
    """
    (part,) = database.execute(
        "SELECT coalesce(max(part), -1) + 1 FROM plan WHERE run = ? AND part >= 0", (run,)
    ).fetchone()
    rows = [to_row(task, seq=task.seq) for task in new]
    database.execute("INSERT INTO plan VALUES (?, ?, ?)", (run, part, _encode(rows)))
    database.execute("UPDATE run SET plan_hash = x'', total = ?, is_ordered = 1 WHERE id = ?", (total, run))


def change_priorities(database: sqlite3.Connection, run: int, priority: int, seqs: Sequence[int]) -> None:
    """Record another priority of some tasks; what is there of them stays, and is read with the change."""
    (part,) = database.execute(
        "SELECT coalesce(min(part), 0) - 1 FROM plan WHERE run = ? AND part < 0", (run,)
    ).fetchone()
    database.execute("INSERT INTO plan VALUES (?, ?, ?)", (run, part, _encode((priority, seqs))))
    database.execute("UPDATE run SET is_ordered = 1 WHERE id = ?", (run,))


def forget_plan(database: sqlite3.Connection, run: int) -> None:
    """Let a run have no list: a generator gives its items from now on, and numbers what the list had not begun."""
    database.execute("DELETE FROM plan WHERE run = ?", (run,))
    database.execute("UPDATE run SET plan_hash = NULL, listing = NULL, total = NULL WHERE id = ?", (run,))


def skip(database: sqlite3.Connection, run: int, reasons: Sequence[tuple[Task, str]], now_s: float) -> None:
    """Record tasks that the plan leaves out, each with its reason."""
    base = run << SEQ_BITS
    database.executemany(
        "INSERT OR REPLACE INTO item VALUES (?, ?, ?, 'skipped', 1, 0, 0, 0.0, ?, ?, 0, '', '')",
        ((base + task.seq, task.key, task.digest, now_s, reason) for task, reason in reasons),
    )


class RecordedCounts(msgspec.Struct):
    """How many items are on record, by status, that the snapshot counts otherwise.

    Attributes:
        undrawn: Of an earlier start, not drawn from the generator yet; the snapshot counts them as they are recorded.
        stale: To run again: the snapshot counts them as pending until they are recorded anew.
        unlisted: Not given by the exhausted generator: the snapshot counts them no more; they leave the run at its
            close.
    """

    undrawn: Counter[Status] = msgspec.field(default_factory=Counter)
    stale: Counter[Status] = msgspec.field(default_factory=Counter)
    unlisted: Counter[Status] = msgspec.field(default_factory=Counter)


class RunStore(msgspec.Struct):
    """A run that this process holds the lease of.

    Attributes:
        live: The session's counts as its snapshot has them: the run's row keeps no count of its own.
        recorded: What is on record beside what the snapshot counts.
    """

    journal: Journal
    run: int
    epoch: int
    resource: str
    live: Callable[[], Counts] = Counts
    recorded: RecordedCounts = msgspec.field(default_factory=RecordedCounts)

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
        values = values_of(entries, self.run, self.resource)

        def unit(database: sqlite3.Connection) -> None:
            self._count(database, counts, now_s)
            for table, some in values.items():
                insert(database, table, some)

        self.journal.submit(
            unit,
            lambda _, error: done(error),
            size=sum(len(entry.payload) for entry in entries if entry.payload is not None),
        )

    def _counts(self, entries: Sequence[Entry]) -> Counts:
        """Return what the items table holds once these entries are written."""
        counts, stale = msgspec.structs.replace(self.live()), self.recorded.stale
        completed = 0
        for entry in entries:
            if entry.status == "completed":
                completed += 1
            elif entry.status != "pending":
                counts.add(entry.status)
            if stale and entry.task.recorded and entry.status != "pending":
                stale[entry.task.recorded] -= 1
                entry.task.recorded = ""
        counts.completed += completed
        if stale or self.recorded.unlisted:
            for status, items in (stale + self.recorded.unlisted).items():
                counts.add(status, items)
        return counts

    def expect(self, requests: int, now_s: float, done: Callable[[JournalError | None], None]) -> None:
        """Record how many requests may be in flight at once, before they are."""

        def unit(database: sqlite3.Connection) -> None:
            database.execute("UPDATE run SET concurrency = max(concurrency, ?) WHERE id = ?", (requests, self.run))

        self.journal.submit(self._guarded(unit, now_s), lambda _, error: done(error))

    def beat(self, now_s: float, done: Callable[[JournalError | None], None]) -> None:
        """Renew the lease when there is nothing else to write."""
        self.journal.submit(self._guarded(lambda _: None, now_s), lambda _, error: done(error))

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
    ) -> None:
        """Record how the run ended and let the lease go.

        Args:
            seconds: How long it ran this time.
            listing: The order in which a generator gave its items, by seq; None for that of the seqs, and for lists.
            usd: What the run has cost so far; None for nothing new.
        """

        def unit(database: sqlite3.Connection) -> None:
            self._count(database, counts, now_s)
            database.execute(
                "UPDATE run SET state = ?, reason = ?, ended_s = ?, seconds = seconds + ?, total = ?,"
                " usd = coalesce(?, usd) WHERE id = ?",
                (state, reason, now_s, seconds, counts.total, usd, self.run),
            )
            if listing is not None:
                database.execute("UPDATE run SET listing = ? WHERE id = ?", (listing.tobytes(), self.run))
            release(database, self.run, self.epoch)

        try:
            self.journal.write(unit)
        finally:
            self.drop()

    def discard(self, now_s: float) -> None:
        """Forget everything this run recorded, but what its plan leaves out: all or nothing."""

        def unit(database: sqlite3.Connection) -> None:
            erase_items(database, self.run, kept="attempts = 0 AND status = 'skipped'")

        self.write(unit, now_s)

    def abandon(self) -> None:
        """Release the lease of a run that did not begin."""
        try:
            self.journal.write(lambda database: release(database, self.run, self.epoch))
        finally:
            self.drop()

    def drop(self) -> None:
        """Stop counting this run as one of this process."""
        _live.discard((self.journal.path, self.run))

    def _guarded(
        self, unit: Callable[[sqlite3.Connection], None], now_s: float
    ) -> Callable[[sqlite3.Connection], None]:
        def guarded(database: sqlite3.Connection) -> None:
            renew(database, self.run, self.epoch, now_s)
            unit(database)

        return guarded

    def _count(self, database: sqlite3.Connection, counts: Counts, now_s: float) -> None:
        renewed = database.execute(
            "UPDATE run SET beat_s = ?, completed = ?, failed = ?, timeout = ?, cancelled = ?, skipped = ?"
            " WHERE id = ? AND epoch = ?",
            (
                now_s,
                counts.completed,
                counts.failed,
                counts.timeout,
                counts.cancelled,
                counts.skipped,
                self.run,
                self.epoch,
            ),
        )
        check(renewed)


def erase_items(database: sqlite3.Connection, run: int, *, kept: str = "false") -> None:
    """Delete what a run recorded of its items, not the run itself.

    Args:
        kept: What stays all the same, in SQL.
    """
    first, after = ids(run)
    where = f"id >= ? AND id < ? AND NOT ({kept})"
    database.execute(f"DELETE FROM item WHERE {where}", (first, after))  # noqa: S608  # constants
    database.execute("DELETE FROM payload WHERE id >= ? AND id < ?", (first, after))
    database.execute("DELETE FROM attempt WHERE item >= ? AND item < ?", (first, after))


def check_free(journal: Journal, name: str, now_s: float) -> None:
    """Refuse to touch what a live session of that name is writing.

    Raises:
        JournalLocked: Says who holds it.
    """
    with journal.reader() as database:
        for (run,) in database.execute("SELECT id FROM run WHERE name = ? AND owner IS NOT NULL", (name,)).fetchall():
            check_lease(database, run, now_s, live_here=(journal.path, run) in _live)


def take(
    journal: Journal,
    run: int,
    *,
    resource: str,
    concurrency: int,
    now_s: float,
    workload: str = "",
    about: str = "",
    windows_since_s: float = -math.inf,
    live: Callable[[], Counts] = Counts,
    recorded: RecordedCounts | None = None,
) -> RunStore:
    """Take the lease of a run and mark it as running.

    Args:
        workload: Name of the workload that made the session; ``about``: what it records to open it again.
        windows_since_s: Responses before this time, Unix, are dropped from the resource's windows.
        live: See `RunStore`; ``recorded`` too.

    Raises:
        JournalLocked: Another live session holds it.
    """
    store = RunStore(journal, run, 0, resource, live, recorded or RecordedCounts())

    def unit(database: sqlite3.Connection) -> None:
        live_here = (journal.path, run) in _live
        keep_in_flight(database, run, now_s)
        store.epoch = take_lease(database, run, now_s, live_here=live_here)
        database.execute("DELETE FROM window WHERE resource = ? AND responded_s < ?", (resource, windows_since_s))
        database.execute(
            "UPDATE run SET state = 'running', reason = '', ended_s = NULL, concurrency = ?,"
            " started_s = coalesce(started_s, ?), resource = ?, workload = ?, about = ? WHERE id = ?",
            (concurrency, now_s, resource, workload, about, run),
        )
        store._count(database, store._counts(()), now_s)

    journal.write(unit)
    _live.add((journal.path, run))
    return store
