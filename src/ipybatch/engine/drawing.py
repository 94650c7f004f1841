"""Drawing: the items of a generator, matched with what is recorded as they come."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterator
from typing import Any

from ipybatch.engine import events, ledger
from ipybatch.engine.events import Status
from ipybatch.engine.plan import Drawn, Keying, Task
from ipybatch.engine.schema import SEQ
from ipybatch.errors import InputError

_STRIDE = 500

Emit = Callable[[events.Event], None]


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
        self._database, self._run, self._again = database, run, again
        self._rows: list[tuple[int, str, Status, str, int]] = []
        self._at = 0
        self._next_id, self._after = ledger.ids(run)
        self._unmatched, last = database.execute(
            "SELECT count(*), max(id) FROM item WHERE id >= ? AND id < ?", ledger.ids(run)
        ).fetchone()
        self.first_free = 0 if last is None else (last & SEQ) + 1
        self.in_step = True
        self._indexed = False

    def find(self, place: int, key: str) -> tuple[int, Status, str] | None:
        """Return seq, status and digest of ``key``; None when it is not recorded."""
        if not self._unmatched:
            return None
        if self._at >= len(self._rows):
            self._read()
        row = self._rows[self._at] if self._at < len(self._rows) else None
        if row is not None and row[1] == key:
            self._at += 1
        elif row is not None and row[0] & SEQ <= place:
            self.in_step = False  # another item is recorded in this place
            row = self._look_up(key)
        else:
            row = self._look_up(key)
        if row is None:
            return None
        id_, _, status, digest, final = row
        self._unmatched -= 1
        self.in_step = self.in_step and id_ & SEQ == place
        return id_ & SEQ, status if final and status not in self._again else "pending", digest

    def _read(self) -> None:
        self._rows = self._database.execute(
            "SELECT id, key, status, digest, final FROM item WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (self._next_id, self._after, _STRIDE),
        ).fetchall()
        self._at = 0
        if self._rows:
            self._next_id = self._rows[-1][0] + 1

    def _look_up(self, key: str) -> tuple[int, str, Status, str, int] | None:
        if not self._indexed:
            self._index()
        row: tuple[int, str, Status, str, int] | None = self._database.execute(
            "SELECT item.id, item.key, status, digest, final FROM by_key JOIN item USING (id) WHERE by_key.key = ?",
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
            status = found[1] if found[2] == task.digest else "pending"
        elif walk is not None and not walk.in_step:
            task.seq, free = max(free, drawn), max(free, drawn) + 1
        listing.add(drawn, task.seq)
        drawn += 1
        emit(events.Drawn(clock_s(), status))
        if status == "pending":
            yield task
    emit(events.Exhausted(clock_s(), drawn))


def _task_of(keying: Keying, drawn: int, item: Any) -> Task:
    try:
        return keying.task(drawn, item)
    except InputError as error:
        return Task(drawn, f"item {drawn}", item, refused=str(error))
