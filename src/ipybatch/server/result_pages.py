"""Result pages: the results of a session as a file, in bounded pieces.

    plan, a part at a time --rows of its items--> `rows` --> csv, jsonl, parquet --> pieces of the file

Rule: a piece is made of one short look at the journal, and of no more than
`PIECE_BYTES` of results: whatever the session's size, nothing of it is held,
and no transaction stays open.  Columns and order are those of
`BatchSession.save`.  What is not known before all rows were seen (which columns
there are) is found out in a first round; of a session that runs, what ends
after the file was begun counts as not ended.
"""

from __future__ import annotations

import csv
import functools
import io
import sqlite3
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ipybatch.engine.data.events import State
from ipybatch.engine.data.outcome import decode
from ipybatch.engine.data.plan import key_value
from ipybatch.engine.data.result_columns import LEFT, OURS, ResultColumns, column, json_of, safe_cell
from ipybatch.engine.store import history, plan_rows
from ipybatch.engine.store.network_copy import place_of
from ipybatch.engine.store.schema import ids
from ipybatch.errors import MissingExtra

PIECE_BYTES = 1 << 20
_ITEMS = 1000  # of a piece, at most

Line = tuple[Any, ...]  # key, status, attempts, seconds, error, result

_SELECT = (
    "SELECT id, key, digest, status, attempts, seconds, error, ended_s, CASE WHEN has_result THEN payload.result END"
    " FROM item LEFT JOIN payload USING (id)"
)


class Pages:
    """The rows of a session's results, a page at a time.

    Args:
        path: The journal, as it is asked for; ``run``: the number of the run.
        before_s: What ended later counts as not ended; None for what is not live.
    """

    def __init__(self, path: Path, run: int, state: State, before_s: float | None = None) -> None:
        self._path, self._run, self._before_s = path, run, before_s
        self._missing: Line = (LEFT.get(state, "pending"), 0, 0.0, "", None)

    def __iter__(self) -> Iterator[list[Line]]:
        """Yield pages, in input order.

        Raises:
            JournalError: The journal cannot be read any more.
        """
        place: Any = None
        while True:
            page, place = history.look(self._path, functools.partial(self._page, place=place))
            yield page
            if place is None:
                return

    def _page(self, database: sqlite3.Connection, _: Path, place: Any) -> tuple[list[Line], Any]:
        known = {name for _, name, *_ in database.execute("PRAGMA table_info(run)")}
        outdated = "outdated" if "outdated" in known else "NULL"
        row = database.execute(
            f"SELECT plan_hash, listing, total, {outdated} FROM run WHERE id = ? AND name <> ''",  # noqa: S608  # constants
            (self._run,),
        ).fetchone()
        if row is None:
            return [], None  # it was deleted meanwhile
        plan_hash, listing, total, left_out = row
        order = None if listing is None else array("q", listing)
        if plan_hash is not None:
            return self._of_plan(database, order, place or (0, 0))
        return self._drawn(database, order, total, set(array("q", left_out or b"")), place or ("", 0))

    def _of_plan(
        self, database: sqlite3.Connection, order: array[int] | None, place: tuple[int, int]
    ) -> tuple[list[Line], Any]:
        part, begin = place
        asked = "SELECT part, tasks FROM plan WHERE run = ? AND part >= ? ORDER BY part LIMIT 1"
        found = database.execute(asked, (self._run, max(0, part))).fetchone()
        if found is None:
            return [], None
        at, page, size = found[0] * plan_rows.PART, list[Line](), 0
        tasks = plan_rows.decode_plan(found[1])
        seqs = [
            task.seq if task.seq is not None else number if order is None else order[number]
            for number, task in enumerate(tasks, at)
        ]
        rows = self._rows(database, seqs[begin:])
        for number in range(begin, len(tasks)):
            task, row = tasks[number], next(rows)
            is_recorded = row is not None and (row[1], row[2]) == (task.key, task.digest)
            line, bytes_ = self._told(row) if row is not None and is_recorded else (self._missing, 0)
            page.append((key_value(task.key), *line))
            size += bytes_
            if size > PIECE_BYTES:
                return page, (found[0], number + 1)
        return page, (found[0] + 1, 0)

    def _drawn(
        self,
        database: sqlite3.Connection,
        order: array[int] | None,
        total: int | None,
        left_out: set[int],
        place: tuple[str, int],
    ) -> tuple[list[Line], Any]:
        """Return some of the rows of a generator's items: those it gave, in its order, then what it may still give."""
        first, _ = ids(self._run)
        page, size, (part, begin) = list[Line](), 0, place
        listed = order if order is not None and not part else ()
        for at in range(begin, len(listed)):
            row = self._row(database, listed[at])
            if row is not None:
                line, bytes_ = self._told(row, is_left_out=listed[at] in left_out)
                page.append((key_value(row[1]), *line))
                size += bytes_
            if size > PIECE_BYTES or len(page) == _ITEMS:
                return page, ("", at + 1)
        if order is not None and not part:
            return page, ("rest", -1) if total is None else None
        skipped = set() if order is None else set(order)
        end = first + (1 << 40 if total is None else total)
        after = begin if part else -1
        sql = f"{_SELECT} WHERE item.id > ? AND item.id < ? ORDER BY item.id"
        for row in database.execute(sql, (first + after, end)):
            if (seq := row[0] - first) in skipped:
                continue
            line, bytes_ = self._told(row, is_left_out=seq in left_out)
            page.append((key_value(row[1]), *line))
            size += bytes_
            if size > PIECE_BYTES or len(page) == _ITEMS:
                return page, ("rest", seq)
        return page, None

    def _rows(self, database: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[Sequence[Any] | None]:
        """Yield the row of each item, None where there is none: one look for all where they follow on each other."""
        if not seqs or list(seqs) != list(range(seqs[0], seqs[0] + len(seqs))):
            yield from (self._row(database, seq) for seq in seqs)
            return
        first = ids(self._run)[0] + seqs[0]
        sql = f"{_SELECT} WHERE item.id >= ? AND item.id < ? ORDER BY item.id"
        found = database.execute(sql, (first, first + len(seqs)))
        row = found.fetchone()
        for id_ in range(first, first + len(seqs)):
            if row is not None and row[0] == id_:
                yield row
                row = found.fetchone()
            else:
                yield None

    def _row(self, database: sqlite3.Connection, seq: int) -> Sequence[Any] | None:
        sql = f"{_SELECT} WHERE item.id = ?"
        row: Sequence[Any] | None = database.execute(sql, (ids(self._run)[0] + seq,)).fetchone()
        return row

    def _told(self, row: Sequence[Any], *, is_left_out: bool = False) -> tuple[Line, int]:
        *_, status, attempts, seconds, error, ended_s, payload = row
        if is_left_out or (self._before_s is not None and ended_s > self._before_s):
            return self._missing, 0
        if payload is None:
            return (status, attempts, seconds, error, None), 0
        return (status, attempts, seconds, error, decode(payload)), len(payload)


def pieces(path: Path, run: int, state: State, suffix: str, *, is_live: bool) -> Iterator[bytes]:
    """Yield the results as a file, in pieces, some of them empty: the reader may do something else after each.

    Args:
        suffix: "csv", "jsonl" or "parquet".

    Raises:
        JournalError: The journal cannot be read any more.
        MissingExtra: pyarrow is not installed, for parquet.
    """
    pages = Pages(path, run, state, time.time() if is_live else None)
    if suffix == "jsonl":
        for page in pages:
            yield b"".join(_json_line(row) for row in page)
        return
    columns = ResultColumns()
    for page in pages:
        for row in page:
            columns.see(row)
        yield b""
    yield from (_csv if suffix == "csv" else _parquet)(pages, columns)


def _json_line(row: Line) -> bytes:
    line, result = dict(zip(OURS, row, strict=False)), row[-1]
    if isinstance(result, dict):
        line.update((column(field, result), value) for field, value in result.items())
    elif result is not None:
        line["result"] = result
    return msgspec.json.encode(line) + b"\n"


def _csv(pages: Pages, columns: ResultColumns) -> Iterator[bytes]:
    """Yield CSV as pandas writes it of a frame: a column of numbers of both kinds is one of floats."""
    kinds = columns.kinds
    floats = [at for at, found in enumerate(kinds.values()) if found == {int, float}]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([safe_cell(name) for name in kinds])
    for page in pages:
        for row in page:
            cells = columns.cells(row)
            for at in floats:
                cells[at] = _float(cells[at])
            writer.writerow([safe_cell(json_of(cell)) for cell in cells])
        yield text.getvalue().encode(errors="replace")
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode(errors="replace")


def _parquet(pages: Pages, columns: ResultColumns) -> Iterator[bytes]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("forecast") from None
    types = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    fields, as_json = [], []
    for at, (name, kinds) in enumerate(columns.kinds.items()):
        if kinds == {int, float}:
            kind = pa.float64()
        elif len(kinds) > 1 or kinds - set(types):
            kind = pa.string()
            as_json.append(at)
        else:
            kind = types[next(iter(kinds))] if kinds else pa.null()
        fields.append(pa.field(name, kind))
    schema, sink = pa.schema(fields), _Sink()
    with parquet.ParquetWriter(sink, schema) as writer:
        for page in pages:
            rows = [columns.cells(row) for row in page]
            for at in as_json:
                for row in rows:
                    row[at] = None if row[at] is None else msgspec.json.encode(row[at]).decode()
            values = zip(*rows, strict=True) if rows else ((),) * len(fields)
            arrays = [
                pa.array(
                    [float(cell) if cell is not None and field.type == pa.float64() else cell for cell in cells],
                    field.type,
                )
                for cells, field in zip(values, fields, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            yield sink.taken()
    yield sink.taken()


def _float(cell: float | None) -> float | None:
    return None if cell is None else float(cell)


class _Sink(io.RawIOBase):
    """A file that is taken away as it is written."""

    def __init__(self) -> None:
        super().__init__()
        self._written, self._size = bytearray(), 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        view = bytes(data)
        self._written += view
        self._size += len(view)
        return len(view)

    def taken(self) -> bytes:
        """Return what was written since it was last called."""
        taken = bytes(self._written)
        self._written.clear()
        return taken


def forecast_pieces(  # noqa: PLR0917  # of the row
    path: Path, run: int, name: str, about: str, state: State, suffix: str
) -> Iterator[bytes]:
    """Yield a forecast as one file, a partition at a time; all of it or nothing where that was asked for.

    Raises:
        JournalError: The journal cannot be read any more.
        MissingExtra: pyarrow is not installed.
    """
    from ipybatch.forecast.forecast_files import ForecastFiles, safe

    made: list[str] = []
    is_whole = True
    for page in Pages(path, run, state):
        for _, status, *_, result in page:
            is_whole &= status == "completed"
            if status == "completed" and isinstance(result, dict):
                made.append(str(result["file"]))
        yield b""
    is_all_or_nothing = (msgspec.json.decode(about) if about else {}).get("on_failure") == "rollback"
    if is_all_or_nothing and (state == "rolled_back" or not is_whole):
        made = []
    files = ForecastFiles(place_of(path), name)
    if suffix == "parquet":
        yield from _forecast_parquet(files, made)
        return
    for number, file in enumerate(made or [""]):
        frame = files.read([file] if file else ())
        if suffix == "csv":
            yield safe(frame).to_csv(index=False, header=number == 0, lineterminator="\r\n").encode()
        elif len(frame):
            yield frame.to_json(orient="records", lines=True, date_format="iso").encode()


def _forecast_parquet(files: Any, made: Sequence[str]) -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow import parquet

    sink, writer = _Sink(), None
    for file in made or [""]:
        table = pa.Table.from_pandas(files.read([file] if file else ()), preserve_index=False)
        plain = [
            pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
            for field in table.schema
        ]
        table = table.cast(pa.schema(plain)).replace_schema_metadata(None)
        if writer is None:
            writer = parquet.ParquetWriter(sink, table.schema)
        writer.write_table(table.cast(writer.schema))
        yield sink.taken()
    assert writer is not None
    writer.close()
    yield sink.taken()
