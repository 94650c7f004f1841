"""Pieces of a table that no machine holds as a whole: a file each, or some row groups of one, made ready by a worker.

    piece --columns, cells--> rows, sorted by site, part and date --> one file in the storage
                              what they are, names with their rows --> another: its summary

A row file holds names as numbers, in batches; its head says where each site and each batch begins, so that the rows of
some series are read without the others (`blocks`).

Rule: nothing is decided here that takes the whole table. Names stay as they stand in the piece; which of them are
numbers or one name, and which days lie far from all others, all summaries together say (`summaries`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ipybatch.errors import InputError
from ipybatch.forecast.data.cells import Cells, Style, cells_of
from ipybatch.forecast.data.frame import arrow, of_arrow, plain
from ipybatch.forecast.data.problems import LARGEST, Problem, find_problems
from ipybatch.forecast.data.reading import Raw, check_alike, is_url, read
from ipybatch.forecast.data.totals import maybe_totals
from ipybatch.forecast.storage import Storage

ROWS, SUMMARY = ".rows.arrow", ".summary.arrow"
BATCH = 32_768  # rows
_MOST_PROBLEMS = 1_000  # of a piece that are told by row
_LARGEST_TOLD = 20  # quantities
_QUANTILES = 101


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a table, or some row groups of a parquet file.

    Attributes:
        path: Its path, or its address.
        name: What the user calls it.
        version: What changes when its content does: its size and time, or the tag of its store.
        begin: The row of the file at which it begins.
        groups: The first row group, and the one after the last; None for a file that is no parquet.
        fixed: Columns that the names of its folders give, with their value: ``site=Kendari/part-0.parquet``.
    """

    path: str
    name: str
    version: str
    begin: int = 0
    groups: tuple[int, int] | None = None
    fixed: dict[str, str] = {}


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """How every piece is read: what the user said, and what some rows of the table told.

    Attributes:
        columns: For each of site, part, date and quantity its column.
        titles: All columns of the first file, sorted, which every other file must have too.
        decimal, thousands, date_format, freq, orders: As of `Style`.
        encoding: Of text; None finds it.
        keeps_returns: Whether negative quantities are kept, to be netted where a partition is read.
    """

    columns: dict[str, Any]
    titles: tuple[Any, ...] = ()
    decimal: str | None = None
    thousands: str | None = None
    date_format: str | None = None
    freq: Any = None
    orders: dict[str, str] = {}
    encoding: str | None = None
    keeps_returns: bool = False


class Facts(msgspec.Struct, kw_only=True):
    """What a piece says of itself, beside a line per series.

    Attributes:
        rows: How many rows it has.
        days: Its days, ascending, as numbers since 1970.
        rows_on: For each day how many rows can be read that far; far days are found by these.
        used_on: For each day how many rows can be used.
        bad: How many rows cannot be used.
        problems: The first of these.
        decimal: The decimal mark of its quantities; "" where none mattered.
        thousands: What separates their thousands.
        orders: By how its dates are written the order that was taken.
        period: "W" or "M" where all its dates are weeks or months.
        encoding: Of its text.
        sep: What separates the columns of its text.
        notes: What the user should know of how it was read.
        changes: For site and part what was put right in how many rows.
        shortened: For site and part how many names a spreadsheet shortened.
        sold: How many quantities are above zero.
        spread: These at `_QUANTILES` quantiles.
        largest: The largest of them, with their rows.
        returns: How many quantities are negative, and kept.
        returned: Their sum.
        are_numbers: For site and part whether its names are whole numbers.
        totals: For site and part, where a name says that it sums others up: by name, the sum of each day; "" for all
            other names together.
    """

    rows: int
    days: list[int]
    rows_on: list[int]
    used_on: list[int]
    bad: int = 0
    problems: list[Problem] = []
    decimal: str = ""
    thousands: str = ""
    orders: dict[str, str] = {}
    period: str | None = None
    encoding: str = ""
    sep: str = ""
    notes: list[str] = []
    changes: dict[str, list[tuple[str, int]]] = {}
    shortened: dict[str, int] = {}
    sold: int = 0
    spread: list[float] = []
    largest: list[tuple[float, int]] = []
    returns: int = 0
    returned: float = 0.0
    are_numbers: dict[str, bool] = {}
    totals: dict[str, dict[str, list[tuple[int, float]]]] = {}


def split(piece: Piece, answers: Answers, storage: Storage, name: str) -> str:
    """Read a piece, and write its rows and its summary to the storage; return why it cannot be read, "" if it can."""
    try:
        given = _read(piece, answers)
        if piece.groups is None:  # else only the columns that count were read
            check_alike("the first of them", answers.titles, piece.name, given.frame.columns)
        style = Style(answers.decimal, answers.thousands, answers.date_format, answers.freq, answers.orders)
        cells = cells_of(given, answers.columns, style, is_piece=True)
    except InputError as error:  # of which some cannot be sent
        return str(error) if piece.name in str(error) else f"{piece.name}: {error}"
    is_return = answers.keeps_returns & (cells.quantities < 0) & (cells.quantities >= -LARGEST)
    cells.wrong["quantity"] &= ~is_return
    used = np.flatnonzero(~cells.is_wrong)
    site, part = (_compact(cells.keys[ours], used) for ours in ("site", "part"))
    days = cells.dates[used].astype("datetime64[D]").astype(np.int32)
    order = np.lexsort((days, part.codes, site.codes))
    rows = _Rows(
        site._replace(codes=site.codes[order]),
        part._replace(codes=part.codes[order]),
        days[order],
        cells.quantities[used][order],
        cells.row_of[used][order].astype(np.int64),
    )
    _write_rows(rows, storage, name + ROWS)
    _write_summary(cells, _facts(piece, given, cells, used, is_return), storage, name + SUMMARY)
    return ""


def read_facts(storage: Storage, name: str) -> tuple[Facts, Any]:
    """Return what a piece says of itself, and its names as an Arrow table.

    Its columns: column (0 for site, 1 for part), name (text), and in how many rows that stands, usable or not.
    """
    import pyarrow as pa

    with storage.reading(name + SUMMARY) as file:
        reader = pa.ipc.open_file(file)
        return msgspec.json.decode(reader.schema.metadata[b"facts"], type=Facts), reader.read_all()


class Names(NamedTuple):
    """A column of names as numbers; the names, sorted, are those that are there."""

    codes: Any
    names: Any

    def arrow(self) -> Any:
        """Return it as Arrow holds it."""
        import pyarrow as pa

        is_number = len(self.names) > 0 and not isinstance(self.names[0], str)
        names = pa.array(self.names.tolist(), pa.int64() if is_number else pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(self.codes.astype(np.int32)), names)


class _Rows(NamedTuple):
    """The rows of a piece that can be used, sorted by site, part and day."""

    site: Names
    part: Names
    days: Any
    quantities: Any
    row_of: Any


def _read(piece: Piece, answers: Answers) -> Raw:
    if piece.groups is not None:
        return _read_groups(piece, list(answers.columns.values()))
    if is_url(piece.path):
        import fsspec  # type: ignore[import-untyped, unused-ignore]  # it has no types

        with fsspec.open(piece.path, "rb") as file:
            data = io.BytesIO(file.read())
        data.name = piece.name
        return read(data, encoding=answers.encoding, columns=answers.columns)
    return read([piece.path], encoding=answers.encoding, columns=answers.columns)


def _read_groups(piece: Piece, columns: list[Any]) -> Raw:
    pa = arrow()
    from pyarrow import parquet

    assert piece.groups is not None
    wanted = [name for name in columns if name not in piece.fixed]
    try:
        with opened(piece.path) as file:
            table = parquet.ParquetFile(file).read_row_groups(range(*piece.groups), columns=wanted, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        msg = f"demand must be files that can be read, got {piece.name!r}: {error}"
        raise InputError(msg) from None
    frame = plain(of_arrow(table))
    for name, value in piece.fixed.items():
        if name in columns:
            frame[name] = value
    return Raw(frame, first=piece.begin)


def opened(path: str) -> Any:
    """Return a file of this machine, or of an address that fsspec opens, to be read within a ``with``."""
    if not is_url(path):
        return open(path, "rb")  # noqa: PTH123  # the caller closes it
    import fsspec

    return fsspec.open(path, "rb")


def _compact(keys: Any, used: Any) -> Names:
    codes = keys.codes[used]
    is_there = np.bincount(codes, minlength=len(keys.names)) > 0
    return Names((np.cumsum(is_there) - 1).astype(np.int32)[codes], keys.names[is_there])


def _facts(piece: Piece, given: Raw, cells: Cells, used: Any, is_return: Any) -> Facts:
    dates = cells.dates.astype("datetime64[D]")
    known = ~np.isnat(dates)
    days, at = np.unique(dates[known].astype(np.int64), return_inverse=True)
    is_used = np.zeros(len(dates), dtype=bool)
    is_used[used] = True
    bad = np.flatnonzero(~is_used)
    first = bad[:_MOST_PROBLEMS]
    raw = given.frame.iloc[first]
    shown = msgspec.structs.replace
    problems = find_problems(
        raw,
        cells.names,
        {ours: _part_of(keys, first) for ours, keys in cells.keys.items()},
        cells.row_of[first],
        {ours: is_wrong[first] for ours, is_wrong in cells.wrong.items()},
        reason=lambda ours, row, value: cells.reason(ours, int(first[row]), value),
    )
    quantities = cells.quantities[used]
    sold = quantities[quantities > 0]
    most = np.sort(np.argsort(quantities)[-_LARGEST_TOLD:])
    day_of = dates[used].astype(np.int64)
    return Facts(
        rows=len(given.frame) + len(given.problems),
        days=days.tolist(),
        rows_on=np.bincount(at, minlength=len(days)).tolist(),
        used_on=np.bincount(at[is_used[known]], minlength=len(days)).tolist(),
        bad=len(bad) + len(given.problems),
        problems=[shown(problem, file=piece.name) for problem in (*given.problems, *problems)],
        decimal=cells.numbers.decimal,
        thousands=cells.numbers.thousands,
        orders=dict(cells.dated.orders),
        period=cells.dated.period,
        encoding=given.encoding,
        sep=given.sep,
        notes=[*given.notes, *cells.dated.notes, *cells.numbers.notes],
        changes={ours: list(keys.changes) for ours, keys in cells.keys.items()},
        shortened={ours: keys.shortened for ours, keys in cells.keys.items()},
        sold=len(sold),
        spread=np.quantile(sold, np.linspace(0, 1, _QUANTILES)).tolist() if len(sold) else [],
        largest=[(float(quantities[row]), int(cells.row_of[used[row]])) for row in most if quantities[row] > 0],
        returns=int(is_return[used].sum()),
        returned=float(-quantities[is_return[used]].sum()),
        totals={ours: _totals(keys, used, day_of, quantities) for ours, keys in cells.keys.items()},
        are_numbers={ours: not any(isinstance(name, str) for name in keys.names) for ours, keys in cells.keys.items()},
    )


class _Keys(NamedTuple):
    codes: Any
    texts: Any


def _part_of(keys: Any, rows: Any) -> Any:
    """Return the names of some rows, as `find_problems` takes them."""
    return _Keys(keys.codes[rows], keys.texts)


def _totals(keys: Any, used: Any, days: Any, quantities: Any) -> dict[str, list[tuple[int, float]]]:
    """Return, by name that says that it sums others up, the sum of each day; "" for all other names together."""
    names = maybe_totals(keys.names)
    codes = keys.codes[used]
    at = {name: int(keys.names.get_loc(name)) for name in names}
    others = {"": ~np.isin(codes, list(at.values()))} if names else {}
    found = {}
    for name, is_one in ({name: codes == code for name, code in at.items()} | others).items():
        its, number = np.unique(days[is_one], return_inverse=True)
        sums = np.bincount(number, weights=quantities[is_one], minlength=len(its))
        found[name] = list(zip(its.tolist(), sums.tolist(), strict=True))
    return found


def _write_rows(rows: _Rows, storage: Storage, name: str) -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "site": rows.site.arrow(),
            "part": rows.part.arrow(),
            "date": rows.days,
            "quantity": rows.quantities,
            "row": rows.row_of,
        }
    )
    starts = np.searchsorted(rows.site.codes, np.arange(len(rows.site.names) + 1))
    index = {"sites": starts.tolist(), "parts": rows.part.codes[::BATCH].tolist()}
    write(table, {"index": msgspec.json.encode(index)}, storage, name)


def _write_summary(cells: Cells, facts: Facts, storage: Storage, name: str) -> None:
    import pyarrow as pa

    columns = []
    for number, ours in enumerate(("site", "part")):
        keys = cells.keys[ours]
        names = pa.array(list(map(str, keys.names)), pa.string())
        each = {"column": np.full(len(names), number, dtype=np.int8), "name": names, "rows": keys.counts}
        columns.append(pa.table(each))
    write(pa.concat_tables(columns), {"facts": msgspec.json.encode(facts)}, storage, name)


def write(table: Any, metadata: Mapping[str, bytes], storage: Storage, name: str) -> None:
    """Write an Arrow table in batches, with what its head says.

    Raises:
        OSError: The storage cannot be written.
    """
    import pyarrow as pa

    table = table.replace_schema_metadata(metadata)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with storage.writing(name) as file, pa.ipc.new_file(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=BATCH)
