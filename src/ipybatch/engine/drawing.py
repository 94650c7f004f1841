"""Drawing: the items of a generator, matched with what is recorded as they come."""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from ipybatch.engine import events, ledger
from ipybatch.engine.events import Status
from ipybatch.engine.plan import Drawn, Keying, Task
from ipybatch.engine.schema import SEQ
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
        self._next_id, self._after = ledger.ids(run)
        self._unmatched, last = database.execute(
            "SELECT count(*), max(id) FROM item WHERE id >= ? AND id < ?", ledger.ids(run)
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
            self._next_id = ledger.ids(self._run)[0] + rows[-1][0] + 1
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
        self._database.execute(
            "INSERT INTO by_key SELECT key, id FROM item WHERE id >= ? AND id < ?", ledger.ids(self._run)
        )
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
