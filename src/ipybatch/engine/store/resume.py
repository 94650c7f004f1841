"""Drawing: the items of a generator, matched with what is recorded as they come.

@@ Opening: a plan meets what the journal has of it.

Rule: the same name continues.  What is final stays as recorded; timeouts,
transient failures, cancelled, skipped and unrecorded items run again, new
keys are added, and a key whose input changed runs again.

A list that has not changed is recognised by its hash and needs one walk over
the recorded items.  A changed list, or a generator, is matched by key.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.events import Counts, Status
from ipybatch.engine.data.plan import MEDIUM, Drawn, Keying, Plan, Task, queued_by_priority
from ipybatch.engine.store import run_store
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.schema import SEQ, ids
from ipybatch.errors import InputError

_STRIDE = 500

Emit = Callable[[events.Event], None]
Recorded = tuple[int, str, Status, str]  # seq, key, status ("pending" for what runs again), digest


class Listing:
    """The seqs of what a generator gave, in its order; nothing while that is 0, 1, 2, ...

    Attributes:
        order: None while each item has the seq of its place.
    """

    def __init__(self) -> None:
        self.order: array[int] | None = None

    def add(self, place: int, seq: int) -> None:
        """Note the seq of the next item."""
        if self.order is None and seq != place:
            self.order = array("q", range(place))
        if self.order is not None:
            self.order.append(seq)


class Walk:
    """Look recorded items up as they are drawn: one ordered walk, single look-ups where it does not fit.

    Attributes:
        first_free: No recorded item has this seq, or a higher one.
        in_step: Whether every item so far was drawn at the place it is recorded at.
    """

    def __init__(self, database: sqlite3.Connection, run: int, again: frozenset[Status]) -> None:
        self._database, self._run = database, run
        rerun = ", ".join(f"'{status}'" for status in sorted(again))
        self._columns = (
            f"id & {SEQ}, item.key, CASE WHEN final AND status NOT IN ({rerun}) THEN status ELSE 'pending' END, digest"
        )
        self._rows: Iterator[Recorded] = iter(())
        self._row: Recorded | None = None  # the next one of the walk
        self._next_id, self._after = ids(run)
        self._unmatched, last = database.execute(
            "SELECT count(*), max(id) FROM item WHERE id >= ? AND id < ?", ids(run)
        ).fetchone()
        self.first_free = 0 if last is None else (last & SEQ) + 1
        self.in_step = True
        self._indexed = False

    def find(self, place: int, key: str) -> Recorded | None:
        """Return what is recorded of ``key``; None when nothing is."""
        if not self._unmatched:
            return None
        row = self._row or self._read()
        if row is not None and row[1] == key:
            self._row = next(self._rows, None)
        else:
            if row is not None and row[0] <= place:
                self.in_step = False  # another item is recorded in this place
            row = self._look_up(key)
            if row is None:
                return None
        self._unmatched -= 1
        if row[0] != place:
            self.in_step = False
        return row

    def _read(self) -> Recorded | None:
        rows = self._database.execute(
            f"SELECT {self._columns} FROM item WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",  # noqa: S608  # constants
            (self._next_id, self._after, _STRIDE),
        ).fetchall()
        if rows:
            self._next_id = ids(self._run)[0] + rows[-1][0] + 1
        self._rows = iter(rows)
        self._row = next(self._rows, None)
        return self._row

    def _look_up(self, key: str) -> Recorded | None:
        if not self._indexed:
            self._index()
        row: Recorded | None = self._database.execute(
            f"SELECT {self._columns} FROM by_key JOIN item USING (id) WHERE by_key.key = ?",  # noqa: S608  # constants
            (key,),
        ).fetchone()
        return row

    def _index(self) -> None:
        """Index the run's keys, on disk and for this walk alone: an index for all would cost every item 4 us."""
        self._database.execute("CREATE TEMP TABLE by_key (key TEXT PRIMARY KEY, id INTEGER) WITHOUT ROWID")
        self._database.execute("INSERT INTO by_key SELECT key, id FROM item WHERE id >= ? AND id < ?", ids(self._run))
        self._indexed = True


def draw(
    items: Iterator[Any],
    keying: Keying,
    walk: Walk | None,
    *,
    listing: Listing,
    emit: Emit,
    clock_s: Callable[[], float],
) -> Iterator[Task]:
    """Yield the tasks of a generator that are still to do, as they are asked for; tell of all."""
    seen = Drawn()
    passed: Counter[Status] = Counter()  # drawn, recorded and not told of yet
    free = 0 if walk is None else walk.first_free
    drawn = 0
    for item in items:
        task = _task_of(keying, drawn, item)
        if not seen.add(task.key):
            task.refused = f"duplicate key {task.key}: an earlier item has it too"
            task.key = f"{task.key} (duplicate, item {drawn})"
        found = None if walk is None else walk.find(drawn, task.key)
        status: Status = "pending"
        if found is not None:
            task.seq = found[0]
            if found[3] == task.digest:
                status = found[2]
        elif walk is not None and not walk.in_step:
            task.seq, free = max(free, drawn), max(free, drawn) + 1
        if task.seq != drawn or listing.order is not None:
            listing.add(drawn, task.seq)
        drawn += 1
        if status == "pending":
            if passed:
                _tell(passed, emit, clock_s)
            emit(events.Drawn(clock_s(), "pending"))
            yield task
        else:
            passed[status] += 1
            if drawn % _STRIDE == 0:
                _tell(passed, emit, clock_s)
    _tell(passed, emit, clock_s)
    emit(events.Exhausted(clock_s(), drawn))


def _tell(passed: Counter[Status], emit: Emit, clock_s: Callable[[], float]) -> None:
    for status, items in passed.items():
        emit(events.Drawn(clock_s(), status, items))
    passed.clear()


def _task_of(keying: Keying, drawn: int, item: Any) -> Task:
    try:
        return keying.task(drawn, item)
    except InputError as error:
        return Task(drawn, f"item {drawn}", item, refused=str(error))


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What a session wants to open.

    Attributes:
        skip: Why an item need not run ("" if it must); decided once, kept in the plan.
        rank: What runs first; decided once, kept in the plan.
        priority: What runs before all ranks: a place in `plan.PRIORITIES`; decided once, kept in the plan.
        again: Final statuses that run again all the same: what `retry_failed` asks for.
    """

    name: str
    resource: str
    group_word: str
    keying: Keying
    code_hash: bytes | None
    fresh: bool
    skip: Callable[[Any], str] | None = None
    rank: Callable[[Any], int] | None = None
    priority: Callable[[Any], int] | None = None
    again: frozenset[Status] = frozenset()


class Opened(msgspec.Struct):
    """A run, and what of it is still to do.

    Attributes:
        source: The tasks to run, in the order they should.
        counts: Where the session starts from.
        listing: Of a generator.
        queued: How many tasks of each priority there are; None where all have the same.
    """

    run: int
    source: Iterator[Task]
    counts: Counts
    notes: list[str] = msgspec.field(default_factory=list)
    listing: Listing | None = None
    queued: list[int] | None = None


def open_list(journal: Journal, opening: Opening, tasks: Plan, now_s: float) -> Opened:
    """Find or make the run of a list whose keys were checked."""
    found = _find(journal, opening)
    has_order = opening.rank is not None or opening.priority is not None
    tasks.is_ordered = has_order or (found is not None and bool(found.is_ordered))
    if found is None:
        run, notes = _plan_anew(journal, opening, tasks, now_s), []
    else:
        run, notes = found.run, _note_changes(found, opening)
        _match(journal, found, opening, tasks, now_s)
    recorded = _recorded(journal, run, opening.again)
    kept: Counter[str] = Counter()
    todo = []
    for task in tasks:
        status, digest = recorded.get(task.seq, _UNRECORDED)
        if status == "pending" or digest != task.digest:
            todo.append(task)
        else:
            kept[status] += 1
    counts = Counts(total=len(tasks), pending=len(todo), **kept)
    if tasks.is_ordered:
        todo.sort(key=lambda task: (task.priority, task.rank))
    return Opened(run, iter(todo), counts, notes, queued=queued_by_priority(todo) if tasks.is_ordered else None)


def open_drawn(
    journal: Journal, opening: Opening, items: Iterable[Any], emit: Emit, clock_s: Callable[[], float]
) -> Opened:
    """Find or make the run of a generator, whose items are matched as they are drawn."""
    found = _find(journal, opening)
    notes = [] if found is None else _note_changes(found, opening)
    if found is None:
        run = journal.write(lambda db: _create(db, opening, clock_s()))
    else:
        run = found.run
        journal.write(lambda db: run_store.forget_plan(db, run))
    walk = None if found is None else Walk(journal.connect(), run, opening.again)
    listing = Listing()
    source = draw(iter(items), opening.keying, walk, listing=listing, emit=emit, clock_s=clock_s)
    return Opened(run, source, Counts(total=None), notes, listing)


_UNRECORDED: tuple[Status, str] = ("pending", "")


def _find(journal: Journal, opening: Opening) -> run_store.Found | None:
    if opening.fresh:
        return None
    with journal.reader() as database:
        return run_store.find(database, opening.name)


def _create(database: sqlite3.Connection, opening: Opening, now_s: float) -> int:
    run = run_store.create(
        database, opening.name, resource=opening.resource, group_word=opening.group_word, now_s=now_s
    )
    database.execute("UPDATE run SET code_hash = ? WHERE id = ?", (opening.code_hash, run))
    return run


def _plan_anew(journal: Journal, opening: Opening, tasks: Plan, now_s: float) -> int:
    reasons = decide(opening, tasks)

    def unit(database: sqlite3.Connection) -> int:
        run = _create(database, opening, now_s)
        run_store.write_plan(database, run, tasks)
        run_store.skip(database, run, reasons, now_s)
        return run

    run: int = journal.write(unit)
    return run


def decide(opening: Opening, tasks: Sequence[Task]) -> list[tuple[Task, str]]:
    """Give new tasks their rank and priority, and return those that need not run, each with the reason."""
    for task in tasks if opening.rank is not None or opening.priority is not None else ():
        task.rank = opening.rank(task.item) if opening.rank is not None else 0
        task.priority = opening.priority(task.item) if opening.priority is not None else MEDIUM
    if opening.skip is None:
        return []
    return [(task, reason) for task in tasks if (reason := opening.skip(task.item))]


def preview(database: sqlite3.Connection, found: run_store.Found, tasks: Plan) -> Counts:
    """Return where a session would start from, before it does; at most one look at the recorded items."""
    counts = Counts()
    final = f"FROM item WHERE id >= {ids(found.run)[0]} AND id < {ids(found.run)[1]} AND final"
    if found.plan_hash == tasks.hash:
        for status, items in database.execute(f"SELECT status, count(*) {final} GROUP BY status"):  # numbers
            counts.add(status, items)
    else:
        listed = {task.key: task.digest for task in tasks}
        for key, status, digest in database.execute(f"SELECT key, status, digest {final}"):  # numbers
            if listed.get(key) == digest:
                counts.add(status)
    counts.total, counts.pending = len(tasks), len(tasks) - counts.ended
    return counts


def _note_changes(found: run_store.Found, opening: Opening) -> list[str]:
    if found.code_hash is None or opening.code_hash is None or found.code_hash == opening.code_hash:
        return []
    return ["the work function changed since this session began: what is recorded stays as it is"]


def _match(journal: Journal, found: run_store.Found, opening: Opening, tasks: Plan, now_s: float) -> None:
    """Give every task the seq it is recorded under, and record the plan if it changed."""
    if found.plan_hash == tasks.hash:
        if found.listing is not None:
            for task, seq in zip(tasks, found.listing, strict=True):
                task.seq = seq
        if found.is_ordered:
            with journal.reader() as database:
                for task, planned in zip(tasks, run_store.read_plan(database, found), strict=True):
                    task.rank, task.priority, task.added = planned.rank, planned.priority, planned.added
        return
    known, first_free = _known(journal, found)
    listed = {task.key for task in tasks}
    new: list[Task] = []
    for task in tasks:
        before = known.get(task.key)
        if before is None:
            task.seq, first_free = first_free, first_free + 1
            new.append(task)
        else:
            task.seq, task.rank, task.priority, task.added = before.seq, before.rank, before.priority, before.added
    tasks.extend(task for task in known.values() if task.added and task.item is not None and task.key not in listed)
    tasks.forget_hash()
    reasons = decide(opening, new)

    def unit(database: sqlite3.Connection) -> None:
        run_store.write_plan(database, found.run, tasks)
        run_store.skip(database, found.run, reasons, now_s)

    journal.write(unit)


def _known(journal: Journal, found: run_store.Found) -> tuple[dict[str, Task], int]:
    with journal.reader() as database:
        first, after = ids(found.run)
        known = {
            key: Task(id_ & SEQ, key, None)
            for id_, key in database.execute("SELECT id, key FROM item WHERE id >= ? AND id < ?", (first, after))
        }
        known.update((task.key, task) for task in run_store.read_plan(database, found))
    return known, max((task.seq for task in known.values()), default=-1) + 1


def _recorded(journal: Journal, run: int, again: frozenset[Status]) -> dict[int, tuple[Status, str]]:
    first, after = ids(run)
    with journal.reader() as database:
        rows = database.execute(
            "SELECT id, status, digest FROM item WHERE id >= ? AND id < ? AND final", (first, after)
        )
        return {id_ & SEQ: (status, digest) for id_, status, digest in rows if status not in again}
