"""Frames: what is recorded, as pandas DataFrames and as files."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import pandas as pd

from ipybatch import accessor
from ipybatch.engine.data import events
from ipybatch.engine.data.error_groups import grouped
from ipybatch.engine.data.events import State
from ipybatch.engine.data.outcome import decode
from ipybatch.engine.data.plan import key_value
from ipybatch.engine.data.result_columns import LEFT, OURS, column, json_of, safe_cell
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.store import history as recorded_history
from ipybatch.engine.store import run_store
from ipybatch.engine.store.atomic_write import draft_of
from ipybatch.engine.store.history import RecordedRun
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.resources import look_at_all, who
from ipybatch.engine.store.resume import Items
from ipybatch.engine.store.rows import TRACEBACK, read_kind
from ipybatch.engine.store.schema import ids
from ipybatch.errors import InputError, MissingExtra

__all__ = ["OURS", "SUFFIXES", "errors", "history", "history_everywhere", "log", "resources", "results", "save"]

SUFFIXES = (".csv", ".parquet", ".jsonl")

_ERRORS = ("message", "count", "status", "scope", "key", "traceback")
_RESOURCES = ("resource", "group", "window", "used", "limit", "owners", "cool_until", "why")
_FAILED = "(status IN ('failed', 'timeout') OR kind <> '')"
_RUN = tuple(field for field in RecordedRun.__struct_fields__ if field != "where")


def results(
    journal: Journal,
    spec: Spec,
    items: Items,
    state: State,
    *,
    with_items: bool = False,
    columns: Literal["flat"] | None = None,
) -> pd.DataFrame:
    """Return one row per item, in input order: `OURS`, then the columns of the results.

    A dict's fields become columns; one that has a name of ours is prefixed ``result_``.  Any other result stands in
    the column ``result``.  Items that were rows of a frame give it that frame's index.
    What is recorded of an item with another input is none of its results.

    Args:
        with_items: Put the items' own columns first: the fields of dicts, one that has a name of ours prefixed
            ``item_``; any other item in the column ``item``.  A result's field of the same name is prefixed
            ``result_``.
        columns: "flat": fields of dicts in results become columns too, ``a.b`` for field b of field a.

    Raises:
        JournalError: The journal cannot be read.
        InputError: ``with_items`` is given, and the items came from a generator; or there are no such ``columns``.
    """
    check_columns(columns)
    plan, rows, is_flat = items.plan, _rows(journal, spec, items, state), columns == "flat"
    if not with_items:
        frame = _frame(rows, is_flat=is_flat)
    elif plan is None:
        msg = "with_items needs a session whose items are a list or a DataFrame: nothing keeps those of a generator"
        raise InputError(msg)
    else:
        given = plan.given or ()
        frame = _frame(rows, [*given, *(task.item for task in plan[len(given) :])], is_flat=is_flat)
    if plan is not None and plan.index is not None:
        added = [key_value(task.key) for task in plan[len(plan.index) :]]  # by the work, while it ran
        frame.index = pd.Index([*plan.index, *added], tupleize_cols=False) if added else plan.index
    return frame


def check_columns(columns: Any) -> None:
    """Refuse columns that there are not.

    Raises:
        InputError: Says what they may be.
    """
    if columns not in (None, "flat"):
        msg = f"columns must be 'flat' or None, got {columns!r}"
        raise InputError(msg)


def errors(journal: Journal, spec: Spec, items: Items) -> pd.DataFrame:
    """Return one row per message, the most frequent first: message, count, status, scope, key, traceback.

    What the latest run has on record counts, failed and timed out, and what a refusal or a budget left out.  Messages
    that differ in nothing but the item's own key are one: it stands as ``<key>`` in them.  ``scope`` says whose it is,
    as far as is known ("item", "service", "rate", "account"); ``key`` and ``traceback``, the last frames of the
    user's own code, are those of the first such item in input order.

    Raises:
        JournalError: The journal cannot be read.
    """
    rows = _in_order(journal, spec, items, f"error, status, kind, {TRACEBACK}", _FAILED)
    failures = (
        (key, message, status, read_kind(status, kind)[1], traceback)
        for key, row in rows
        if row is not None
        for message, status, kind, traceback in [row]
    )
    groups = grouped(failures)
    frame = pd.DataFrame([[getattr(group, field) for field in _ERRORS] for group in groups], columns=list(_ERRORS))
    return frame.astype({"count": "int64", "key": object})


def save(journal: Journal, spec: Spec, items: Items, state: State, path: Path) -> Path:
    """Write the results to a file, whole or not at all.

    Raises:
        InputError: The name does not end in .csv, .parquet or .jsonl.
        MissingExtra: pyarrow is not installed, for .parquet.
        JournalError: The journal cannot be read.
    """
    if path.suffix not in SUFFIXES:
        msg = f"path must end in {', '.join(SUFFIXES)}, got {str(path)!r}"
        raise InputError(msg)
    with draft_of(path) as draft:
        _WRITERS[path.suffix](_rows(journal, spec, items, state), draft)
    return path


def log(happened: Iterable[events.Event]) -> pd.DataFrame:
    """Return one row per event: at (UTC), event, and the fields of its type."""
    rows = [msgspec.to_builtins(event) for event in tuple(happened)]
    frame = pd.DataFrame(rows, columns=None if rows else ["at_s", "type"])
    frame.insert(0, "at", pd.to_datetime(frame.pop("at_s"), unit="s", utc=True))
    return frame.rename(columns={"type": "event"})


def history(journal: Journal) -> pd.DataFrame:
    """Return one row per recorded run, oldest first.

    Columns: name, started (UTC), seconds, seconds_per_item, total, completed, failed, timeout, cancelled, skipped,
    state, reason, usd.  Of what runs, ``seconds`` goes up to its last sign of life; so it does of what is
    "interrupted", whose process ended without letting go.

    Raises:
        JournalError: The journal cannot be read.
    """
    with journal.reader() as database:
        return _runs(recorded_history.read_runs(database, journal))


def history_everywhere(journal: Path | None = None) -> pd.DataFrame:
    """Return one row per run in any journal that is registered, or is the default one, oldest first.

    Columns: as of `history`, and journal, the path that ``journal=`` takes.  A journal that cannot be read is left
    out; a line in the log says why.

    Args:
        journal: In place of the default one.

    Raises:
        JournalError: ``journal`` leads nowhere.
    """
    found = [(run, path) for path, runs in recorded_history.everywhere(journal).items() for run in runs]
    found.sort(key=lambda entry: entry[0].started_s)
    frame = _runs([run for run, _ in found])
    frame["journal"] = [str(path) for _, path in found]
    return frame


def resources(journal: Path | None, store: Path | str | None = None) -> pd.DataFrame:
    """Return one row per window of each resource that somebody uses, or that cools down.

    Columns: resource, group (of the limits), window ("100 per 1 s"; missing where there is none), used, limit (in its
    unit), owners (who uses it, by session and process, or machine), cool_until (UTC; missing when it does not cool
    down), why.

    Args:
        journal: Whose limits they are, beside what the sessions of this process use; None: the default one's.
        store: Where they are counted, instead: a limits file, or the address of a Redis.

    Raises:
        InputError: ``store`` is no address.
        JournalError: The limits cannot be read.
        MissingExtra: ``store`` is the address of a Redis, and the redis package is not installed.
    """
    rows: list[tuple[Any, ...]] = []
    now = pd.Timestamp.now(tz="UTC")
    for standing in look_at_all(journal, store):
        answer = standing.answer
        owners = ", ".join(map(who, answer.owners))
        cool_until = now + pd.Timedelta(seconds=round(answer.cool_s)) if answer.cool_s else pd.NaT
        windows: list[tuple[Any, ...]] = [(str(rate), used, rate.limit) for rate, used in answer.used.items()]
        said = owners, cool_until, answer.why
        rows += [(standing.name, standing.group, *window, *said) for window in windows or [(None, None, None)]]
    frame = pd.DataFrame(rows, columns=list(_RESOURCES))
    frame["cool_until"] = pd.to_datetime(frame["cool_until"], utc=True)
    return frame.astype({"used": float, "limit": float})


def _runs(runs: list[RecordedRun]) -> pd.DataFrame:
    frame = pd.DataFrame({field: [getattr(run, field) for run in runs] for field in _RUN})
    frame.insert(1, "started", pd.to_datetime(frame.pop("started_s").astype(float), unit="s", utc=True))
    ended = frame[["completed", "failed", "timeout"]].sum(axis=1)
    frame.insert(3, "seconds_per_item", frame["seconds"] / ended.where(ended > 0))
    return frame


def recorded(journal: Journal, name: str) -> list[tuple[Any, str, Any]]:
    """Return (key, kind of failure, result) of every item that the latest run recorded, in its plan or not."""
    with journal.reader() as database:
        found = run_store.find(database, name)
        rows = (
            []
            if found is None
            else database.execute(
                "SELECT key, kind, CASE WHEN status = 'completed' THEN payload.result END"
                " FROM item LEFT JOIN payload USING (id) WHERE item.id >= ? AND item.id < ?",
                ids(found.run),
            ).fetchall()
        )
    return [
        (key_value(key), read_kind("", kind)[0], None if payload is None else decode(payload))
        for key, kind, payload in rows
    ]


def _rows(journal: Journal, spec: Spec, items: Items, state: State) -> Iterator[tuple[Any, ...]]:
    """Yield (key, status, attempts, seconds, error, result) in input order."""
    missing = LEFT.get(state, "pending"), 0, 0.0, "", None
    columns = "status, attempts, seconds, error, CASE WHEN has_result THEN payload.result END"
    for key, row in _in_order(journal, spec, items, columns):
        *ours, payload = missing if row is None else row
        yield key_value(key), *ours, None if payload is None else decode(payload)


def _in_order(
    journal: Journal, spec: Spec, items: Items, columns: str, where: str = "true"
) -> Iterator[tuple[str, tuple[Any, ...] | None]]:
    """Yield the key of each item and its columns, in input order; None where nothing that counts is recorded."""
    with journal.reader() as database:
        found = None if spec.fresh else run_store.find(database, spec.name, items.run)
        rows = () if found is None else _select(database, found, columns, where)
        if items.plan is None:
            if found is not None:
                first, _ = ids(found.run)
                outdated = items.outdated if items.is_drawn else _outdated(found)
                for id_, key, digest, *values in _drawn(rows, found):
                    yield key, tuple(values) if outdated.get(id_ - first, digest) == digest else None
            return
        recorded = {row[1]: row for row in rows}
    for task in items.plan:
        row = recorded.get(task.key)
        yield task.key, None if row is None or row[2] != task.digest else row[3:]


def _outdated(found: run_store.Found) -> Mapping[int, str | None]:
    """Return a generator's items that are on record with another input, as an earlier process knew them."""
    return dict.fromkeys(array("q", found.outdated or b""))


def _drawn(rows: Iterable[tuple[Any, ...]], found: run_store.Found) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a generator's items in the order it gave them; what it no longer gives stays outside."""
    first, _ = ids(found.run)
    total = found.counts.total
    if found.listing is None:
        yield from (row for row in rows if total is None or row[0] - first < total)
        return
    recorded = {row[0] - first: row for row in rows}
    yield from (recorded.pop(seq) for seq in found.listing if seq in recorded)
    if total is None:  # the generator may still give the others
        yield from recorded.values()


def _select(database: sqlite3.Connection, found: run_store.Found, columns: str, where: str) -> Iterable[Any]:
    return database.execute(
        f"SELECT id, key, digest, {columns} FROM item LEFT JOIN payload USING (id)"  # noqa: S608  # constants
        f" WHERE item.id >= ? AND item.id < ? AND {where} ORDER BY item.id",
        ids(found.run),
    )


def _frame(rows: Iterable[tuple[Any, ...]], items: list[Any] | None = None, *, is_flat: bool = False) -> pd.DataFrame:
    columns = _columns(list(rows), items, is_flat=is_flat)
    return pd.DataFrame({name: _series(values) for name, values in columns.items()})


def _series(values: list[Any]) -> pd.Series[Any]:
    """Keep whole numbers whole where some are missing: pandas would make them floats."""
    kinds = {type(value) for value in values}
    if kinds == {bool, type(None)}:
        return pd.Series(values, dtype="boolean")
    whole = "Int64" if kinds == {int, type(None)} else None
    try:
        return pd.Series(values, dtype=whole if values else object)
    except (UnicodeEncodeError, OverflowError):  # half a character, or a number that pandas' own cannot hold
        return pd.Series(values, dtype=object)


def _columns(rows: list[tuple[Any, ...]], items: list[Any] | None, *, is_flat: bool) -> dict[str, list[Any]]:
    columns = {} if items is None else _spread(items, "item", OURS)
    taken = {*OURS, *columns}
    columns |= {name: [row[at] for row in rows] for at, name in enumerate(OURS)}
    return columns | _spread([row[-1] for row in rows], "result", taken, is_flat=is_flat)


def _spread(values: list[Any], word: str, taken: Collection[str], *, is_flat: bool = False) -> dict[str, list[Any]]:
    """Return the fields of those that are dicts as columns, and the others in a column of that word.

    Args:
        is_flat: Their dicts' fields too.
    """
    read = [dict(_fields(value, is_flat=is_flat)) if isinstance(value, dict) else {} for value in values]
    paths = {path: ".".join(path) for row in read for path in row}
    named, used, columns = set(paths.values()), set(taken), dict[str, list[Any]]()
    for path, field in paths.items():
        name = column(field, named, word, used)
        used.add(name)
        columns[name] = [row.get(path) for row in read]
    if any(value is not None and not isinstance(value, dict) for value in values):
        columns[word] = [None if isinstance(value, dict) else value for value in values]
    return columns


def _fields(
    value: dict[str, Any], above: tuple[str, ...] = (), *, is_flat: bool
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the fields of a dict, each with its path; an empty dict stays a value."""
    for field, inner in value.items():
        path = (*above, str(field))
        if is_flat and isinstance(inner, dict) and inner:
            yield from _fields(inner, path, is_flat=True)
        else:
            yield path, inner


def _write_csv(rows: Iterator[tuple[Any, ...]], path: Path) -> None:
    frame = _frame(rows)
    for name in frame.columns:
        cells = [safe_cell(json_of(value)) for value in frame[name]]
        frame[name] = pd.Series(cells, dtype=object)  # pandas 2 makes floats of whole numbers with gaps by `map`
    frame.columns = pd.Index([safe_cell(name) for name in frame.columns])
    frame.to_csv(path, index=False, lineterminator="\r\n")  # RFC 4180; and a cell's own "\r" is quoted


def _write_parquet(rows: Iterator[tuple[Any, ...]], path: Path) -> None:
    try:
        import pyarrow as pa  # noqa: F401  # pandas' own message names no extra of ours
    except ImportError:
        raise MissingExtra("forecast") from None
    frame = _frame(rows)
    for name in frame.columns:
        if not pd.api.types.is_object_dtype(frame[name]):
            continue  # of one kind, and what is missing is marked
        kinds = {type(value) for value in frame[name] if value is not None}
        others = kinds - {int, float}
        # One kind of number and nothing else is a column; whole ones are only here when it cannot hold them.
        if int in kinds or len(others) > 1 or (others and float in kinds) or kinds & {dict, list}:
            frame[name] = [None if value is None else msgspec.json.encode(value).decode() for value in frame[name]]
    frame.to_parquet(path, index=False)


def _write_jsonl(rows: Iterator[tuple[Any, ...]], path: Path) -> None:
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:
        for row in rows:
            line = dict(zip(OURS, row, strict=False))
            result = row[-1]
            if isinstance(result, dict):
                line.update((column(field, result), value) for field, value in result.items())
            elif result is not None:
                line["result"] = result
            file.write(encoder.encode(line) + b"\n")


_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_jsonl}

accessor.register()  # of pandas, which is here now
