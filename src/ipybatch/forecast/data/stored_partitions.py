"""Partitions of a table that lies in blocks: ranges of rows, found by what blocks say of their sites and series.

The same partitions, by the same names, as of a table that the session holds (`partitions`), but for ``by=`` a column or
a function: blocks have no other columns, and nobody holds the frame that a function would be given.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from ipybatch.engine.data.policy import check_count
from ipybatch.errors import InputError
from ipybatch.forecast.data.blocks import Range, Stored, series_of
from ipybatch.forecast.data.partitions import (
    Cut,
    Partition,
    as_names,
    bins_by_size,
    merged_bins,
    problems_of,
    titles,
    told_cut,
    told_ignored,
    told_merged,
    told_sizes,
    with_problems,
)
from ipybatch.forecast.data.problems import refuse
from ipybatch.forecast.data.summaries import SplitTable


def check_by(by: Any) -> None:
    """Refuse a cut that takes a table which the session holds.

    Raises:
        InputError: It is by a column or a function.
    """
    if by not in ("site", "size", None):
        msg = (
            f"by must be 'site', 'size' or None where workers read the files of a table, got {by!r}: without storage="
            " the session reads them, and can cut by a column or a function"
        )
        raise InputError(msg)


def partition_stored(
    table: SplitTable,
    *,
    by: Any,
    max_rows: int,
    max_partitions: int,
    sites: Collection[Any] | None,
    parts: Collection[Any] | None,
    split_series: bool,
) -> Cut:
    """Cut a table that lies in blocks; the arguments are those of `partition`.

    Raises:
        InputError: An argument is out of range, nothing is left after sites= and parts=, or a row that cannot be used
            belongs in no partition.
    """
    check_by(by)
    check_count("max_rows", max_rows, low=1)
    check_count("max_partitions", max_partitions, low=1)
    notes: list[str] = []
    problems: Any = table.problems
    if by is None:
        made = [_whole(table, sites, parts)]
        problems = problems_of(problems, sites, parts)
    else:
        notes += told_ignored(sites, parts)
        bins = _Bins(table, max_rows, max_partitions, split_series) if by == "size" else None
        rows = bins.rows if bins else _rows_of_sites(table)
        merged, count = merged_bins({str(name): rows for name, rows in rows.items()}, max_partitions)
        named = {str(site): site for site in rows}
        notes += told_merged(count, max_partitions)
        made = []
        for number, (title, names) in enumerate(merged, start=1):
            ranges = bins.ranges(names) if bins else _of_sites(table, [named[name] for name in names])
            made.append(_partition(table, ranges, title, number))
        if bins:
            notes += told_cut(made, bins.cut)
            notes += told_sizes(made, max_rows, max_partitions)
    made, unplaced = with_problems(made, problems)
    refuse(unplaced)
    return Cut(made, notes, unplaced)


class _Some(NamedTuple):
    """Rows of one site in one block, and a hash of them."""

    site: Any
    rows: Range
    digest: int


def _rows_of_sites(table: SplitTable) -> Counter[Any]:
    rows: Counter[Any] = Counter()
    for _, held in table.held:
        for one in held:
            rows[one.site] += one.rows
    return rows


def _of_sites(table: SplitTable, sites: Iterable[Any] | None = None) -> list[_Some]:
    wanted = None if sites is None else set(sites)
    return [
        _Some(one.site, Range(block, one.begin, one.begin + one.rows, one.first, one.first + one.series), one.digest)
        for block, held in table.held
        for one in held
        if wanted is None or one.site in wanted
    ]


def _partition(table: SplitTable, some: Sequence[_Some], name: str, number: int) -> Partition:
    sites = tuple(dict.fromkeys(one.site for one in some))
    stored = Stored(table.storage, _joined(one.rows for one in some))
    series = sum(_series(one.rows) for one in some)
    parts = stored.keys()["part"].nunique() if len(sites) > 1 else series
    hashed = hashlib.blake2b(digest_size=16)
    for site, each in groupby(some, key=lambda one: one.site):
        its = list(each)
        counts = sum(one.rows.end - one.rows.begin for one in its), sum(_series(one.rows) for one in its)
        hashed.update(f"{site}\n{counts} {sum(one.digest for one in its) % 2**64}\n".encode())
    return Partition(
        number=number,
        name=name,
        sites=sites,
        parts=parts,
        series=series,
        rows=sum(one.rows.end - one.rows.begin for one in some),
        digest=hashed.hexdigest(),
    ).with_rows(stored)


def _series(rows: Range) -> int:
    return rows.last - rows.first


def _joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Return ranges of which no two follow one another in a block."""
    found: list[Range] = []
    for one in ranges:
        if found and (found[-1].block, found[-1].end) == (one.block, one.begin):
            found[-1] = found[-1]._replace(end=one.end, last=one.last)
        else:
            found.append(one)
    return tuple(found)


def _whole(table: SplitTable, sites: Any, parts: Any) -> Partition:
    """Return one partition of the sites and parts that are asked for."""
    known = {str(site): site for site in _rows_of_sites(table)}
    wanted = None if sites is None else as_names(sites)
    _refuse_unknown("site", wanted, known)
    some = _of_sites(table, None if wanted is None else [known[name] for name in wanted])
    if parts is None:
        return _partition(table, some, "all", 1)
    keys = Stored(table.storage, _joined(one.rows for one in some)).keys()
    names, asked = {str(part): part for part in keys["part"].unique()}, as_names(parts)
    _refuse_unknown("part", asked, names)
    kept = [names[name] for name in asked]
    chosen = _Lengths(table, some).runs(keys["part"].isin(kept).to_numpy())
    if not chosen:
        msg = f"sites and parts must leave some rows, got none for sites={sites!r} and parts={parts!r}: ask for more"
        raise InputError(msg)
    return _partition(table, chosen, "all", 1)


def _refuse_unknown(ours: str, asked: Sequence[str] | None, known: Iterable[str]) -> None:
    names = list(known)
    if unknown := sorted(set(asked or ()) - set(names)):
        some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        msg = f"{ours}s must be {ours}s that have demand ({some}), got {', '.join(unknown[:5])}"
        raise InputError(msg)
    if asked is not None and not asked:
        msg = f"{ours}s must leave some rows, got none for {ours}s={list(asked)!r}: ask for more"
        raise InputError(msg)


class _Lengths:
    """The series of some rows: how many rows each has, and where it is.

    Attributes:
        rows: For each series.
        digests: A hash of each.
        site: The number of its site, in order.
        block, begin, series: Its block, its first row there, and its number there.
    """

    def __init__(self, table: SplitTable, some: Sequence[_Some]) -> None:
        self.sites = list(dict.fromkeys(one.site for one in some))
        number = {site: at for at, site in enumerate(self.sites)}
        self.blocks = list(dict.fromkeys(one.rows.block for one in some))
        at = {block: number for number, block in enumerate(self.blocks)}
        columns: list[tuple[Any, ...]] = []
        for block, each in groupby(some, key=lambda one: one.rows.block):
            series = series_of(table.storage, block)
            lengths, digests = (series.column(name).to_numpy() for name in ("rows", "digest"))
            for one in each:
                its = slice(one.rows.first, one.rows.last)
                count = _series(one.rows)
                begins = one.rows.begin + np.cumsum(lengths[its], dtype=np.int64) - lengths[its]
                columns.append(
                    (
                        lengths[its].astype(np.int64),
                        digests[its],
                        np.full(count, number[one.site], dtype=np.int32),
                        np.full(count, at[block], dtype=np.int32),
                        begins,
                        np.arange(one.rows.first, one.rows.last),
                    )
                )
        joined = (np.concatenate(each) for each in zip(*columns, strict=True))
        self.rows, self.digests, self.site, self.block, self.begin, self.series = joined

    def split(self, max_rows: int) -> None:
        """Cut every series that is longer."""
        pieces = -(-self.rows // max_rows)
        within = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        rows = np.repeat(self.rows, pieces)
        self.begin = np.repeat(self.begin, pieces) + within * max_rows
        self.rows = np.minimum(rows - within * max_rows, max_rows)
        self.digests = np.repeat(self.digests, pieces) + within.astype(np.uint64)
        self.site, self.block, self.series = (np.repeat(each, pieces) for each in (self.site, self.block, self.series))

    def runs(self, is_wanted: Any) -> list[_Some]:
        """Return the rows of some series, those of a site in a block that follow one another together."""
        at = np.flatnonzero(is_wanted)
        ends = self.begin[at] + self.rows[at]
        is_new = np.ones(len(at), dtype=bool)
        is_new[1:] = (np.diff(self.block[at]) != 0) | (np.diff(self.site[at]) != 0) | (self.begin[at][1:] != ends[:-1])
        firsts = np.flatnonzero(is_new)
        lasts = np.r_[firsts[1:], len(at)] - 1
        digests: Any = np.add.reduceat(self.digests[at], firsts) if len(firsts) else []
        return [
            _Some(
                self.sites[self.site[at[first]]],
                Range(
                    self.blocks[self.block[at[first]]],
                    int(self.begin[at[first]]),
                    int(ends[last]),
                    int(self.series[at[first]]),
                    int(self.series[at[last]]) + 1,
                ),
                int(digest),
            )
            for first, last, digest in zip(firsts.tolist(), lasts.tolist(), digests, strict=True)
        ]


class _Bins:
    """Bins of about as many rows.

    Attributes:
        rows: By name how many rows each has.
        cut: How many pieces of series there are beyond the first of each.
    """

    def __init__(self, table: SplitTable, max_rows: int, most: int, split_series: bool) -> None:
        self._lengths = _Lengths(table, _of_sites(table))
        whole = len(self._lengths.rows)
        if split_series:
            self._lengths.split(max_rows)
        lengths = self._lengths
        self._bin = bins_by_size(lengths.rows, lengths.site, max_rows, most)
        named = []
        for at in range(int(self._bin.max()) + 1):
            is_in = self._bin == at
            rows = np.bincount(lengths.site[is_in], weights=lengths.rows[is_in], minlength=len(lengths.sites))
            order = np.argsort(-rows, kind="stable")
            named.append([str(lengths.sites[site]) for site in order.tolist() if rows[site]])
        names = titles(named, numbered=True)
        counts = np.bincount(self._bin, weights=lengths.rows).astype(np.int64).tolist()
        self.rows = dict(zip(names, counts, strict=True))
        self._number = {name: at for at, name in enumerate(names)}
        self.cut = 0
        if len(lengths.rows) > whole:
            of_series = np.cumsum(np.r_[True, (np.diff(lengths.series) != 0) | (np.diff(lengths.block) != 0)])
            pairs = np.unique(np.stack([of_series, self._bin]), axis=1)
            self.cut = pairs.shape[1] - whole

    def ranges(self, names: Iterable[str]) -> list[_Some]:
        """Return the rows of some bins, in order."""
        return self._lengths.runs(np.isin(self._bin, [self._number[name] for name in names]))
