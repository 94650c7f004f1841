"""Record: what one session has on record, a page at a time.

    database, row of the run --`items`, `groups`, `errors`, `log`--> a page of `wire`

Rule: a page is one short look at the journal, and holds a bounded part of it:
no more than a hundred entries, and of results no more than `PAGE_BYTES`.
"""

from __future__ import annotations

import sqlite3
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import msgspec

from ipybatch.engine.data.error_groups import grouped
from ipybatch.engine.data.events import Status
from ipybatch.engine.data.masking import isolated, mask, printable
from ipybatch.engine.data.plan import key_value, label_of
from ipybatch.engine.feed import live_record
from ipybatch.engine.feed.session_item import Breaker, Window, group_item, iso
from ipybatch.engine.store import rows
from ipybatch.engine.store.failures import present
from ipybatch.engine.store.lease import process_of
from ipybatch.engine.store.rows import TRACEBACK, read_kind
from ipybatch.engine.store.schema import SEQ, SEQ_BITS, has, ids
from ipybatch.server.cursor import Place, from_cursor, to_cursor
from ipybatch.server.run_rows import Row
from ipybatch.server.wire import ErrorItem, ErrorPage, GroupPage, Item, ItemPage, LogItem, LogPage

PAGE_BYTES = 4 << 20
STATUSES: tuple[Status, ...] = ("completed", "failed", "timeout", "cancelled", "skipped")
FAILED = "(status IN ('failed', 'timeout') OR kind <> '')"  # as `BatchSession.errors` counts them

_AT_ONCE = 500  # items of a list in another order that are looked for at once
_Level = Literal["info", "good", "warn", "bad"]
_LEVELS: dict[str, _Level] = {"completed": "good", "failed": "bad", "timeout": "bad"}


def items(
    database: sqlite3.Connection, row: Row, *, status: str, group: int | None, limit: int, cursor: str
) -> ItemPage:
    """Return some of the items that have an outcome, in plan order.

    Args:
        status: Only those that ended so; "" for all. ``group``: only those of that one.

    Raises:
        Refusal: The cursor is not one of ours.
    """
    after: int = max(-1, min(from_cursor(cursor, Place), SEQ)) if cursor else -1  # what is before is another session's
    where, values = "true", list[Any]()
    if status:
        where, values = "status = ?", [status]
    if group is not None:
        where, values = f"{where} AND grp = ?", [*values, group]
    found, size, place = list[Item](), 0, after
    for at, (id_, key, *told, ended_s, error, kind, length, payload, frames) in _in_order(
        database, row.id, after, where, values
    ):
        if len(found) == limit or (found and size + length > PAGE_BYTES):
            return ItemPage(items=found, next=to_cursor(place))
        how, grp, attempts, seconds = told
        tries = rows.read_tries(database, [id_])[id_] if attempts > 1 else []
        found.append(
            Item(
                key=key_value(key),
                status=how,
                group=grp,
                attempts=attempts,
                seconds=seconds,
                ended=iso(ended_s),
                error=mask(error),
                scope=read_kind(how, kind)[1] if error else "",
                result=None if payload is None else msgspec.Raw(payload),
                tries=[msgspec.structs.replace(each, error=mask(each.error)) for each in tries],
                traceback=mask(frames),
            )
        )
        size, place = size + length, at
    return ItemPage(items=found, next=None)


_ITEM = (
    "item.id, key, status, grp, attempts, seconds, ended_s, error, {kind}, coalesce(length(payload.result), 0),"
    " payload.result, {frames}"
)


def _in_order(
    database: sqlite3.Connection, run: int, after: int, where: str, values: Sequence[Any]
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield items in plan order, each with its place in it, from the one after a place on."""
    first, end = ids(run)
    kind = "kind" if has(database, "item", "kind") else "''"
    frames = TRACEBACK if has(database, "traceback", "frames") else "''"
    columns = f"item.id, {_ITEM.format(kind=kind, frames=frames)}"
    of_items = "FROM item LEFT JOIN payload ON payload.id = item.id AND has_result"
    (listing,) = database.execute("SELECT listing FROM run WHERE id = ?", (run,)).fetchone() or (None,)
    if listing is None:
        sql = f"SELECT {columns} {of_items} WHERE item.id > ? AND item.id < ? AND {where} ORDER BY item.id"
        for id_, *told in database.execute(sql, (first + after, end, *values)):
            yield id_ - first, tuple(told)
        return
    seqs = array("q", listing)
    for begin in range(after + 1, len(seqs), _AT_ONCE):
        some = [first + seq for seq in seqs[begin : begin + _AT_ONCE]]
        sql = f"SELECT {columns} {of_items} WHERE item.id IN ({', '.join('?' * len(some))}) AND {where}"
        found = {id_: tuple(told) for id_, *told in database.execute(sql, (*some, *values))}
        for at, id_ in enumerate(some, begin):
            if id_ in found:
                yield at, found[id_]


def groups(database: sqlite3.Connection, row: Row, *, is_live: bool, limit: int, cursor: str) -> GroupPage:
    """Return some of the groups, in order, each as its own process last told it.

    Raises:
        Refusal: The cursor is not one of ours.
    """
    after: int = from_cursor(cursor, Place) if cursor else 0
    now_s = time.time()
    on_record = [] if _no_groups(database, row) else rows.read_groups(database, row.id, row.group_word, now_s)
    told = live_record.recalled(on_record, live_record.decode(row.live), now_s, is_live=is_live)
    wanted = sorted((event for event in told if event.group > after), key=lambda event: event.group)
    found = [group_item(event) for event in wanted[:limit]]
    return GroupPage(items=found, next=to_cursor(found[-1].number) if len(wanted) > limit else None)


def _no_groups(database: sqlite3.Connection, row: Row) -> bool:
    """Say whether there is none: a look at all items may take long, and most sessions have no groups."""
    return row.live is None and not rows.has_groups(database, row.id)


def errors(database: sqlite3.Connection, row: Row, *, limit: int, cursor: str) -> ErrorPage:
    """Return some of the messages that items failed with, the most frequent first.

    Raises:
        Refusal: The cursor is not one of ours.
    """
    after: int = max(0, from_cursor(cursor, Place)) if cursor else 0
    has_kind, has_frames = has(database, "item", "kind"), has(database, "traceback", "frames")
    kind, frames = "kind" if has_kind else "''", TRACEBACK if has_frames else "''"
    where = FAILED if has_kind else "status IN ('failed', 'timeout')"
    columns = f"id, key, digest, error, status, {kind}, {frames}"
    sql = f"SELECT {columns} FROM item WHERE id >= ? AND id < ? AND {where} ORDER BY id"  # noqa: S608
    found = grouped(
        (key, message, status, read_kind(status, kind)[1], frames)
        for _, key, _, message, status, kind, frames in present(
            database, row.id, database.execute(sql, ids(row.id)).fetchall()
        )
    )
    some = [
        ErrorItem(
            message=mask(group.message),
            count=group.count,
            status=cast("Status", group.status),
            scope=group.scope,
            key=group.key,
        )
        for group in found[after : after + limit]
    ]
    return ErrorPage(items=some, next=to_cursor(after + limit) if len(found) > after + limit else None)


def log(database: sqlite3.Connection, row: Row, *, limit: int, cursor: str) -> LogPage:
    """Return some of what happened, the latest first: attempts that failed, outcomes, commands from elsewhere.

    Raises:
        Refusal: The cursor is not one of ours.
    """
    before = from_cursor(cursor, tuple[float, Place, Place]) if cursor else (float(1 << 62), 0, 0)
    first, end = ids(row.id)
    base = row.id << SEQ_BITS
    sql = (
        "SELECT ended_s at_s, id, 1 << 40 attempt, key, status, attempts, seconds, error FROM item"
        " WHERE id >= :first AND id < :end AND (ended_s, id, 1 << 40) < (:at_s, :place, :part)"
        " UNION ALL SELECT attempt.ended_s, item, attempt, key, 'pending', attempt, attempt.seconds, attempt.error"
        " FROM attempt LEFT JOIN item ON item.id = attempt.item"
        " WHERE item >= :first AND item < :end AND (attempt.ended_s, item, attempt) < (:at_s, :place, :part)"
    )
    if row.takes_commands:
        sql += (
            " UNION ALL SELECT asked_s, -id, taken_s IS NULL, asked_by, 'command', 0, 0, verb FROM command"
            " WHERE run = :run AND (asked_s, -id, taken_s IS NULL) < (:at_s, :place, :part)"
        )
    at_s, place, part = before
    values = {"first": first, "end": end, "at_s": at_s, "place": place, "part": part, "run": row.id}
    sql += f" ORDER BY 1 DESC, 2 DESC, 3 DESC LIMIT {limit + 1}"
    found = database.execute(sql, values).fetchall()
    lines = [_line(base, *told) for told in found[:limit]]
    return LogPage(items=lines, next=to_cursor(found[limit - 1][:3]) if len(found) > limit else None)


def _line(  # noqa: PLR0917  # the row
    base: int, at_s: float, id_: int, attempt: int, key: str | None, how: str, attempts: int, seconds: float, error: str
) -> LogItem:
    if how == "command":
        late = ", not taken yet" if attempt else ""
        return LogItem(at=iso(at_s), level="info", text=f"{printable(error)}, asked by {process_of(key or '')}{late}")
    label = f"item {id_ - base + 1:,}" if key is None else isolated(label_of(key))
    why = f": {isolated(mask(printable(error)))}" if error else ""
    if how == "pending":
        return LogItem(at=iso(at_s), level="warn", text=f"{label}: attempt {attempts} failed{why}; it is tried again")
    took = f" in {seconds:.1f} s" if attempts else ""
    tries = f", {attempts} attempts" if attempts > 1 else ""
    return LogItem(at=iso(at_s), level=_LEVELS.get(how, "info"), text=f"{label} {how}{took}{tries}{why}")


def moment(row: Row) -> tuple[Breaker | None, list[Window]]:
    """Return the breaker and the windows of a session as its process last told them."""
    record = live_record.decode(row.live)
    if record is None:
        return None, []
    told = record.breaker
    breaker = Breaker(
        state=told.state, failures=told.failures, openings=told.openings, limit_group=printable(told.limit_group)
    )
    windows = [
        Window(used=used, limit=limit, per_s=per_s, unit=unit) for used, limit, per_s, unit in record.status.windows
    ]
    return None if record.breaker_policy is None else breaker, windows


def notes(database: sqlite3.Connection, row: Row) -> list[str]:
    """Return what a session has told its user."""
    if not has(database, "run", "notes"):
        return []
    (told,) = database.execute("SELECT notes FROM run WHERE id = ?", (row.id,)).fetchone() or (None,)
    return [mask(printable(note)) for note in msgspec.json.decode(told or "[]", type=list[str])]
