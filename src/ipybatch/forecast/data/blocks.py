"""Blocks of a table that no machine holds as a whole: the clean rows of some series, of all pieces, in one file.

    pieces' row files --sites, parts--> rows --> one name for one name, no far days, returns netted, summed --> block

A worker makes each. A block's rows are those of a clean table (`Table.frame`), sorted by site, part and date; blocks
follow one another in the same order. So a partition is a few ranges of rows (`Stored`), which its worker reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from ipybatch.forecast.data.cells import told_far
from ipybatch.forecast.data.frame import arrow
from ipybatch.forecast.data.pieces import BATCH, ROWS, Names, write
from ipybatch.forecast.data.problems import Problem
from ipybatch.forecast.data.repairs import net_returns
from ipybatch.forecast.storage import Storage

SERIES = ".series.arrow"
_MIX = tuple(np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Renaming(msgspec.Struct, frozen=True):
    """What the names of a column are in the whole table.

    Attributes:
        is_text: Whether numbers are text, as other pieces have names that are none.
        changed: Names that are another one.
    """

    is_text: bool = False
    changed: dict[str, str] = {}

    def of_one(self, name: Any) -> Any:
        """Return a name of a piece as it is in the table."""
        text = str(name) if self.is_text and name is not None else name
        return self.changed.get(text, text) if isinstance(text, str) else text

    def of(self, names: Any) -> Any:
        """Return names of a piece, an array of Arrow's, as they are in the table."""
        import pyarrow as pa

        if self.is_text and not pa.types.is_string(names.type):
            names = names.cast(pa.string())
        if not self.changed or not pa.types.is_string(names.type):
            return names
        return pa.array([self.changed.get(name, name) for name in names.to_pylist()], names.type)


class Far(msgspec.Struct, frozen=True):
    """Days that lie far from all others.

    Attributes:
        column: The user's name of the column.
        days: They, as numbers since 1970.
        first, last: What the others span.
    """

    column: str
    days: tuple[int, ...]
    first: str
    last: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of all pieces make a block, and how.

    Attributes:
        pieces: Names of the pieces' files, each with what the user calls it.
        sites: Its sites: each with its first and its last part, or None for all.
        site_names, part_names: What names are in the whole table.
        without: Parts of which no row is used, as they sum others up.
        far: Days of which no row is used; None for none.
        is_netting: Whether returns are netted.
    """

    pieces: tuple[tuple[str, str], ...]
    sites: tuple[tuple[Any, tuple[Any, Any] | None], ...]
    site_names: Renaming
    part_names: Renaming
    without: tuple[str, ...] = ()
    far: Far | None = None
    is_netting: bool = False


class Held(msgspec.Struct, frozen=True, array_like=True):
    """What a block holds of a site.

    Attributes:
        site: The site.
        begin: The row of the block at which it begins.
        rows: How many rows it has.
        first: The series of the block with which it begins.
        series: How many series it has.
        digest: A hash of its rows: the sum of those of its series.
    """

    site: str | int
    begin: int
    rows: int
    first: int
    series: int
    digest: int


class BlockFacts(msgspec.Struct, kw_only=True):
    """What a block says of itself.

    Attributes:
        held: What it holds of each site, in order.
        read: How many rows of the pieces it was made of.
        problems: Of rows that were not used as their days lie far from all others.
        lost: How many returns found no earlier sale, in whole or in part.
        lost_pieces: How much these are.
    """

    held: list[Held]
    read: int = 0
    problems: list[Problem] = []
    lost: int = 0
    lost_pieces: float = 0.0


class Range(NamedTuple):
    """Some rows of a block, and the series that they are of.

    Attributes:
        block: Name of the block.
        begin: The first row.
        end: The row after the last.
        first: The first series.
        last: The series after the last.
    """

    block: str
    begin: int
    end: int
    first: int
    last: int


class Stored(msgspec.Struct, frozen=True):
    """Rows of a partition that lie in a storage, where its worker reads them.

    Attributes:
        storage: Where the blocks are.
        ranges: In the order of the rows.
    """

    storage: Any
    ranges: tuple[Range, ...]

    def frame(self) -> pd.DataFrame:
        """Return the rows: site, part (categories), date and quantity; sorted.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        arrow()
        return _frame(*_joined([_range(self.storage, one) for one in self.ranges]))

    def keys(self, sites: Collection[Any] | None = None) -> pd.DataFrame:
        """Return site and part of each series of these sites; of all if None."""
        found = []
        for one in self.ranges:
            table = series_of(self.storage, one.block).slice(one.first, one.last - one.first).select(["site", "part"])
            rows = table.to_pandas()
            found.append(rows if sites is None else rows[rows["site"].isin(list(sites))])
        keys: pd.DataFrame = pd.concat([rows.astype(object) for rows in found], ignore_index=True)
        return keys


def gather(plan: Plan, storage: Storage, name: str) -> None:
    """Write a block: its rows, and a line per series of site, part, rows and digest."""
    import pyarrow as pa

    arrow()
    read, problems = [], []
    for piece, shown in plan.pieces:
        rows, row_of = _rows_in(storage, piece, plan)
        is_far = np.isin(rows.days, plan.far.days) if plan.far else np.zeros(len(rows.days), dtype=bool)
        if plan.far and is_far.any():
            problems += _far(rows.of(is_far), row_of[is_far], plan.far, shown)
            rows = rows.of(~is_far)
        read.append(rows)
    site, part, days, quantities = _joined(read)
    facts = BlockFacts(held=[], read=len(days), problems=problems)
    if plan.is_netting and len(days):
        series = site.codes.astype(np.int64) * len(part.names) + part.codes
        netted = net_returns(series, days.astype(np.int64), quantities)
        quantities = netted.quantities
        facts.lost, facts.lost_pieces = int((netted.left > 0).sum()), float(netted.left.sum())
    order = np.lexsort((days, part.codes, site.codes))
    sites, parts, days = site.codes[order], part.codes[order], days[order]
    starts = _starts(sites, parts, days)
    quantities = np.add.reduceat(quantities[order], starts) if len(starts) else quantities
    sites, parts, days = sites[starts], parts[starts], days[starts]
    begins = _starts(sites, parts)
    lengths = np.diff(begins, append=len(days)).astype(np.int32)
    digests = _digests(part.names, parts[begins], begins, days, quantities)
    of_series = {"site": Names(sites[begins], site.names).arrow(), "part": Names(parts[begins], part.names).arrow()}
    write(pa.table({**of_series, "rows": lengths, "digest": digests}), {}, storage, name + SERIES)
    facts.held = _held(site.names, sites[begins], lengths, digests)
    columns = {"site": Names(sites, site.names).arrow(), "part": Names(parts, part.names).arrow()}
    table = pa.table({**columns, "date": days, "quantity": quantities})
    write(table, {"facts": msgspec.json.encode(facts)}, storage, name + ROWS)


def block_facts(storage: Storage, name: str) -> BlockFacts:
    """Return what a block says of itself."""
    import pyarrow as pa

    with storage.reading(name + ROWS) as file:
        metadata = pa.ipc.open_file(file).schema.metadata
    return msgspec.json.decode(metadata[b"facts"], type=BlockFacts)


def series_of(storage: Storage, name: str) -> Any:
    """Return an Arrow table of a block's series, in order: site, part, rows, digest."""
    import pyarrow as pa

    with storage.reading(name + SERIES) as file:
        return pa.ipc.open_file(file).read_all()


class _Rows(NamedTuple):
    """Rows, with names as numbers."""

    site: Names
    part: Names
    days: Any
    quantities: Any

    def of(self, kept: Any) -> _Rows:
        """Return some of them."""
        site, part = (column._replace(codes=column.codes[kept]) for column in (self.site, self.part))
        return _Rows(site, part, self.days[kept], self.quantities[kept])


_NO_ROWS = _Rows(
    Names(np.zeros(0, dtype=np.int64), []), Names(np.zeros(0, dtype=np.int64), []), np.zeros(0, np.int32), np.zeros(0)
)


def _starts(*columns: Any) -> Any:
    """Return where, in sorted columns, each combination of their values begins."""
    is_new = np.zeros(len(columns[0]), dtype=bool)
    is_new[:1] = True
    for column in columns:
        is_new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(is_new)


def _rows_in(storage: Storage, name: str, plan: Plan) -> tuple[_Rows, Any]:
    """Return the rows of a piece that a block takes, by the names of the whole table, and the user's number of each."""
    import pyarrow as pa

    with storage.reading(name + ROWS) as file:
        reader = pa.ipc.open_file(file)
        if not reader.num_record_batches:
            return _NO_ROWS, _NO_ROWS.days
        index = msgspec.json.decode(reader.schema.metadata[b"index"])
        head = reader.get_batch(0)
        sites = plan.site_names.of(head.column("site").dictionary)
        parts = plan.part_names.of(head.column("part").dictionary)
        wanted, taken = dict(plan.sites), []
        for code, site in enumerate(sites.to_pylist()):
            if site in wanted:
                taken += _of_site(reader, index, code, _wanted(parts, wanted[site], plan.without))
    if not taken:
        return _NO_ROWS, _NO_ROWS.days
    site_codes, part_codes, days, quantities, row_of = (np.concatenate(each) for each in zip(*taken, strict=True))
    return _Rows(_there(site_codes, sites), _there(part_codes, parts), days, quantities), row_of


def _wanted(parts: Any, ends: tuple[Any, Any] | None, without: Sequence[str]) -> Any:
    """Return for each part of a piece whether it is wanted; None if all are."""
    import pyarrow as pa
    from pyarrow import compute

    if ends is None and not without:
        return None
    wanted = np.ones(len(parts), dtype=bool)
    if without:
        wanted &= ~compute.is_in(parts, pa.array(without, parts.type)).to_numpy(zero_copy_only=False)
    if ends is not None:
        low, high = (pa.scalar(end, parts.type) for end in ends)
        both = compute.and_(compute.greater_equal(parts, low), compute.less_equal(parts, high))
        wanted &= both.to_numpy(zero_copy_only=False)
    return wanted


def _of_site(reader: Any, index: Mapping[str, Any], code: int, is_part: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a site, of those parts, from the batches that may hold them."""
    begin, end = index["sites"][code : code + 2]
    if is_part is not None:
        asked = np.flatnonzero(is_part)
        if not len(asked):
            return []
        heads = range(-(-(begin + 1) // BATCH), -(-end // BATCH))  # batches that begin within the site
        before = [at for at in heads if index["parts"][at] < asked[0]]
        after = [at for at in heads if index["parts"][at] > asked[-1]]
        begin, end = (before[-1] * BATCH if before else begin), (after[0] * BATCH if after else end)
    taken = []
    for batch, rows in _batches(reader, begin, end):
        codes = [batch.column(name).indices.to_numpy()[rows] for name in ("site", "part")]
        values = [batch.column(name).to_numpy()[rows] for name in ("date", "quantity", "row")]
        each = (*codes, *values)
        taken.append(each if is_part is None else tuple(column[is_part[codes[1]]] for column in each))
    return taken


def _batches(reader: Any, begin: int, end: int) -> Iterable[tuple[Any, slice]]:
    """Yield the batches that hold these rows, each with where they are in it."""
    for at in range(begin // BATCH, -(-end // BATCH)):
        yield reader.get_batch(at), slice(max(0, begin - at * BATCH), min(BATCH, end - at * BATCH))


def _range(storage: Storage, one: Range) -> _Rows:
    import pyarrow as pa

    with storage.reading(one.block + ROWS) as file:
        taken, columns = [], []
        for batch, rows in _batches(pa.ipc.open_file(file), one.begin, one.end):
            columns = [batch.column(name) for name in ("site", "part")]
            codes = [column.indices.to_numpy()[rows] for column in columns]
            taken.append((*codes, *(batch.column(name).to_numpy()[rows] for name in ("date", "quantity"))))
    if not taken:
        return _NO_ROWS
    site, part, days, quantities = (np.concatenate(each) for each in zip(*taken, strict=True))
    names = [column.dictionary for column in columns]
    return _Rows(_there(site, names[0]), _there(part, names[1]), days, quantities)


def _there(codes: Any, names: Any) -> Names:
    """Return numbers of the names that are there, and these as Python's own."""
    import pyarrow as pa

    is_there = np.zeros(len(names), dtype=bool)
    is_there[codes] = True
    return Names((np.cumsum(is_there) - 1)[codes], names.filter(pa.array(is_there)).to_pylist())


def _joined(read: Sequence[_Rows]) -> tuple[Names, Names, Any, Any]:
    """Return rows one below the other, each column of names with one number for each name, in their order."""
    read = [one for one in read if len(one.days)] or [_NO_ROWS]
    columns = []
    for ours in ("site", "part"):
        each = [getattr(one, ours) for one in read]
        names = pd.Index(sorted({name for column in each for name in column.names}), dtype=None)
        codes = [names.get_indexer(pd.Index(column.names))[column.codes] for column in each if len(column.codes)]
        columns.append(Names(np.concatenate(codes) if codes else _NO_ROWS.site.codes, names))
    days, quantities = (np.concatenate([getattr(one, what) for one in read]) for what in ("days", "quantities"))
    return columns[0], columns[1], days, quantities


def _frame(site: Names, part: Names, days: Any, quantities: Any) -> pd.DataFrame:
    """Return rows that are sorted and differ, as `Table.frame` has them."""
    names = {"site": site, "part": part}
    columns = {ours: pd.Categorical.from_codes(column.codes, column.names) for ours, column in names.items()}
    frame = pd.DataFrame(columns, copy=False)
    frame["date"] = days.astype("datetime64[D]").astype("datetime64[us]")
    frame["quantity"] = quantities
    return frame


def _far(rows: _Rows, row_of: Any, far: Far, shown: str) -> list[Problem]:
    problems = []
    columns = (rows.site.codes, rows.part.codes, rows.days, row_of)
    for site, part, number, row in zip(*(column.tolist() for column in columns), strict=True):
        day = np.datetime64(number, "D")
        why = told_far(day, far.first, far.last)
        problems.append(Problem(far.column, row, str(day), why, rows.site.names[site], rows.part.names[part], shown))
    return problems


def _digests(names: Any, parts: Any, begins: Any, days: Any, quantities: Any) -> Any:
    """Return for each series a hash of its part, its days and its quantities."""
    mixed = _mixed(days.astype(np.int64).view(np.uint64) * _MIX[0] ^ (quantities + 0.0).view(np.uint64))  # -0.0 is 0.0
    of_rows = np.add.reduceat(mixed, begins) if len(begins) else mixed
    of_names = pd.util.hash_array(np.array(list(map(str, names)), dtype=object), categorize=False)
    return _mixed(of_rows ^ _mixed(of_names[parts] if len(parts) else of_rows))


def _mixed(values: Any) -> Any:
    """Return 64 bits mixed, each of which depends on all others (the last steps of splitmix64)."""
    for shift, factor in ((30, _MIX[1]), (27, _MIX[2])):
        values = (values ^ (values >> np.uint64(shift))) * factor
    return values ^ (values >> np.uint64(31))


def _held(names: Any, sites: Any, lengths: Any, digests: Any) -> list[Held]:
    ends = np.cumsum(lengths)
    held = []
    for begin, end in zip((starts := _starts(sites)).tolist(), [*starts[1:].tolist(), len(sites)], strict=True):
        first = int(ends[begin] - lengths[begin])
        digest = int(np.add.reduce(digests[begin:end]))
        name = names[sites[begin]]
        site = name if isinstance(name, str) else int(name)
        held.append(Held(site, first, int(ends[end - 1]) - first, begin, end - begin, digest))
    return held
