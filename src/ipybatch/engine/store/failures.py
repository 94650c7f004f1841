"""Failures: the items of a run that failed, by their message, a page at a time.

    items on record --`look`--> the messages, and the rows of all failed items in their order --`page`--> some of them

Rule: however many there are, SQLite steps rarely.  Python lets its lock go and takes it back at each step, and
waits for that as long as an engine at full speed lets it: so thousands of rows come with one step, as JSON.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.error_groups import FailureList, folded, members
from ipybatch.engine.data.masking import mask, mask_registered, registered
from ipybatch.engine.data.outcome import RecordedItem, Try
from ipybatch.engine.data.plan import Plan, canonical, label_of
from ipybatch.engine.store.plan_rows import decode_plan
from ipybatch.engine.store.rows import TRACEBACK, read_kind
from ipybatch.engine.store.schema import has, ids

_FAILED = ("failed", "timeout")
FAILED = "status IN ('failed', 'timeout')"  # as the counts have it
_AT_ONCE = 10_000  # rows of a step
_LOOKED_AT = 1000  # characters of an error: where two differ further on, they are told as one
_BEYOND = 200  # of a secret that begins among these
_KEPT = 8  # looks

Row = TypeVar("Row", bound=tuple[Any, ...])
_Row = tuple[int, str, str | None, str, str, str]  # id, key, digest, error, status, kind
_decode_rows = msgspec.json.Decoder(list[_Row]).decode
_decode_keys = msgspec.json.Decoder(list[str]).decode
_decode_tries = msgspec.json.Decoder(list[tuple[int, int, float, str]]).decode


class Looks:
    """Looks at the failures of runs, each kept until something is recorded; a page of an older one can be had still.

    A secret that is registered makes them anew, too.
    """

    def __init__(self) -> None:
        self._looks: OrderedDict[tuple[Path, int, str], tuple[tuple[object, ...], FailureList]] = OrderedDict()
        self._versions: OrderedDict[tuple[Path, int, str, int], FailureList] = OrderedDict()  # by their numbers, too
        self._lock = threading.Lock()

    def at(  # noqa: PLR0917  # where it lies, and what is looked for
        self,
        path: Path,
        database: sqlite3.Connection,
        run: int,
        search: str = "",
        version: int = 0,
        plan: Plan | None = None,
    ) -> FailureList:
        """Return a look at what a run has on record.

        Args:
            path: Of the journal.
            search: Part of a key or of a message, in any case; "" for all.
            version: The one that is wanted, if it is still there; 0 for how it stands now.
            plan: What the items are now; those with another input are left out.
        """
        stamp = (*_stamp(database, run), None if plan is None else (id(plan), len(plan)), registered())
        key = path, run, search
        with self._lock:
            if version and (known := self._versions.get((*key, version))) is not None:
                return known
            before, kept = self._looks.get(key, (None, None))
            if kept is not None and before == stamp:
                self._looks.move_to_end(key)
                return kept
        found = look(database, run, search, plan)
        with self._lock:
            self._looks[key] = stamp, found
            self._versions[(*key, found.version)] = found
            for kept_ones in (self._looks, self._versions):
                while len(kept_ones) > _KEPT:
                    kept_ones.popitem(last=False)
        return found


def look(database: sqlite3.Connection, run: int, search: str = "", plan: Plan | None = None) -> FailureList:
    """Return what failed in a run and matches a search; a walk over all its items.

    Messages are masked before anything looks at them: a search for a part of a secret that was registered since finds
    nothing, and errors that differ in secrets alone are one.

    Args:
        plan: What the items are now; those with another input are left out.
    """
    rows = present(database, run, [row for some in _chunks(database, run) for row in some], plan)
    wanted = search.casefold()
    matching = [row for row in rows if _matches(row[1], row[3], wanted)] if wanted else rows
    return _list(
        ((id_, key, error, status, read_kind(status, kind)[1], "") for id_, key, _, error, status, kind in matching),
        len(rows),
        time.time_ns() // 1000,
    )


def remembered(
    ended: Iterable[events.ItemEnded], ended_s: float, search: str = ""
) -> tuple[FailureList, list[RecordedItem]]:
    """Return what failed and matches of a generator that was rolled back: nothing is on record, some is remembered."""
    failed = [item for item in ended if item.status in _FAILED]
    keys, wanted = [canonical(item.key) for item in failed], search.casefold()
    matching = [(at, key, item) for at, (key, item) in enumerate(zip(keys, failed, strict=True))]
    matching = [told for told in matching if not wanted or _matches(told[1], mask_registered(told[2].error), wanted)]
    found = _list(
        (
            (at, key, mask_registered(item.error), item.status, read_kind(item.status, item.kind)[1], "")
            for at, key, item in matching
        ),
        len(failed),
        max(1, int(ended_s * 1e6)),
    )
    items = [
        RecordedItem(
            key=item.key,
            status=item.status,
            attempts=item.attempts,
            seconds=item.seconds,
            error=mask(item.error),
            tries=[],
            traceback="",
        )
        for item in map(failed.__getitem__, found.ids)
    ]
    return found, items


def _list(failures: Iterable[tuple[int, str, str, str, str, str]], of: int, version: int) -> FailureList:
    found = members(failures)
    order = array("q")
    for _, some in found:
        order.extend(some)
    return FailureList(version, [group for group, _ in found], order, of)


def page(database: sqlite3.Connection, rows: Sequence[int]) -> list[RecordedItem]:
    """Return items by their rows, each with its attempts; one that is there no more is "pending", without a key."""
    if not rows:
        return []
    marks = ", ".join("?" * len(rows))
    frames = TRACEBACK if has(database, "traceback", "frames") else "''"
    sql = f"SELECT id, key, status, attempts, seconds, error, {frames} FROM item WHERE id IN ({marks})"  # noqa: S608
    told = {row[0]: row for row in database.execute(sql, [*rows]).fetchall()}
    tries = _tries(database, [id_ for id_, row in told.items() if row[3] > 1])
    nothing: tuple[Any, ...] = ("", "pending", 0, 0.0, "", "")
    found = []
    for id_ in rows:
        key, status, attempts, seconds, error, traceback = told[id_][1:] if id_ in told else nothing
        found.append(
            RecordedItem(
                key=label_of(key) if key else "",
                status=status,
                attempts=attempts,
                seconds=seconds,
                error=mask(error),
                tries=tries.get(id_, []),
                traceback=mask(traceback),
            )
        )
    return found


def keys_of(database: sqlite3.Connection, rows: Sequence[int]) -> list[str]:
    """Return the keys of items by their rows, as the journal has them."""
    found: list[str] = []
    for at in range(0, len(rows), _AT_ONCE):
        some = msgspec.json.encode(list(rows[at : at + _AT_ONCE])).decode()
        sql = "SELECT json_group_array(key) FROM item WHERE id IN (SELECT value FROM json_each(?))"
        found += _decode_keys(database.execute(sql, (some,)).fetchone()[0])
    return found


def _stamp(database: sqlite3.Connection, run: int) -> tuple[object, ...]:
    """Return what changes with each outcome of a run."""
    sql = "SELECT epoch, state, total, completed, failed, timeout, cancelled, skipped FROM run WHERE id = ?"
    return tuple(database.execute(sql, (run,)).fetchone() or ())


def _chunks(database: sqlite3.Connection, run: int) -> Iterator[list[_Row]]:
    after, end = ids(run)
    after -= 1
    kind = "kind" if has(database, "item", "kind") else "''"
    some = f"SELECT id, key, digest, substr(error, 1, :most) error, status, {kind} kind FROM item"  # noqa: S608
    sql = (
        "SELECT json_group_array(json_array(id, key, digest, error, status, kind))"  # noqa: S608  # constants
        f" FROM ({some} WHERE id > :after AND id < :end AND {FAILED} ORDER BY id LIMIT {_AT_ONCE})"
    )
    while True:
        values = {"after": after, "end": end, "most": _LOOKED_AT + _BEYOND}
        rows = _decode_rows(database.execute(sql, values).fetchone()[0])
        yield [(*row[:3], mask_registered(row[3])[:_LOOKED_AT], *row[4:]) for row in rows]
        if len(rows) < _AT_ONCE:
            return
        after = rows[-1][0]


def present(database: sqlite3.Connection, run: int, rows: list[Row], plan: Plan | None = None) -> list[Row]:
    """Return the rows of items that are there now, with the input that they have now: those that the counts have.

    Args:
        rows: Of failed items: id, key, digest, error, status, and what else is asked of them.
    """
    if not rows:
        return rows
    if plan is not None:
        digests = {task.key: task.digest for task in plan.find({row[1] for row in rows})}
        return [row for row in rows if digests.get(row[1]) == row[2]]
    outdated = "outdated" if has(database, "run", "outdated") else "NULL"
    sql = f"SELECT failed + timeout, plan_hash, listing, total, {outdated} FROM run WHERE id = ?"  # noqa: S608
    failed, plan_hash, listing, total, left_out = database.execute(sql, (run,)).fetchone() or (0, None, None, 0, None)
    if sum(row[4] in _FAILED for row in rows) == failed:
        return rows
    if plan_hash is not None:
        digests = _planned(database, run, {row[1] for row in rows})
        return [row for row in rows if digests.get(row[1]) == row[2]]
    first, outside = ids(run)[0], set(array("q", left_out or b""))
    rows = [row for row in rows if row[0] - first not in outside]
    if total is None:  # a generator that may still give the others
        return rows
    listed = range(total) if listing is None else set(array("q", listing))
    return [row for row in rows if row[0] - first in listed]


def _planned(database: sqlite3.Connection, run: int, keys: set[str]) -> dict[str, str]:
    """Return the digests of some items, by key, as the plan on record has them."""
    parts = database.execute("SELECT tasks FROM plan WHERE run = ? AND part >= 0", (run,))
    return {row.key: row.digest for (part,) in parts for row in decode_plan(part) if row.key in keys}


def _matches(key: str, message: str, wanted: str) -> bool:
    label = label_of(key)
    if wanted in message.casefold() or wanted in label.casefold():
        return True
    return "<key>" in wanted and wanted in folded(message, label).casefold()


def _tries(database: sqlite3.Connection, rows: Sequence[int]) -> dict[int, list[Try]]:
    found: dict[int, list[Try]] = {}
    some = msgspec.json.encode(list(rows)).decode()
    sql = (
        "SELECT json_group_array(json_array(item, attempt, seconds, error)) FROM"
        " (SELECT * FROM attempt WHERE item IN (SELECT value FROM json_each(?)) ORDER BY item, attempt)"
    )
    for item, attempt, seconds, error in _decode_tries(database.execute(sql, (some,)).fetchone()[0]):
        found.setdefault(item, []).append(Try(attempt=attempt, seconds=seconds, error=mask(error)))
    return found
