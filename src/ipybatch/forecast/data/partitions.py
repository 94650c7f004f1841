"""Partitions: sets of rows of a demand table, each trained separately.

    by="site"       one a site; above max_partitions the smallest share one
    by="size"       as many whole series as max_rows allow, site after site; a large site is split, which a note says
    by="region"     one for each value of a column; or for each label that a function of the frame returns
    by=None         one for all rows of the sites and parts that are named

The largest come first: they take longest.

Over 500 lines: what cuts a table, and what is told of the cut, with the parts that tables in storages share.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import pandas as pd

from ipybatch.engine.data.policy import as_count, check_count
from ipybatch.errors import InputError, Permanent
from ipybatch.forecast.data.blocks import Stored
from ipybatch.forecast.data.frame import distinct_of
from ipybatch.forecast.data.names import clean
from ipybatch.forecast.data.problems import Problem, bad_rows, refuse, tell
from ipybatch.forecast.data.table import Table

By = str | Callable[[pd.DataFrame], Any] | None
MAX_ROWS = 2000
MAX_PARTITIONS = 20
ADVICE = {  # what the user can do about a partition that failed, by kind of failure
    "timeout": 'fewer rows to a partition (by="size", a smaller max_rows), or more time (a larger timeout_s)',
    "out_of_memory": (
        'smaller partitions (by="size", a smaller max_rows), fewer at a time (workers=1), or a larger memory_mb'
    ),
    "bad_row": "correct it, or drop it with repair={'drop_bad_rows'}, and run the same call again",
    "killed": (
        "another program or the system ended the process, usually for lack of memory: smaller partitions, or fewer at a"
        " time (workers=1)"
    ),
    "worker_lost": (
        "the machine was lost, or its memory was used up: smaller partitions, or fewer at a time (workers=1)"
    ),
    "crashed": (
        "the native code of a model has crashed, its last output is in errors(): leave that model out of models=, or,"
        " where it asked for memory, a larger memory_mb"
    ),
    "exited": "the code of a model has ended its process, its last output is in errors(): leave it out of models=",
}
SIZES = ((5_000, "about 3"), (20_000, "10 to 15"), (50_000, "20"))  # rows, and how many partitions by="size" makes


class BadRow(Permanent):
    """A row of a partition cannot be used: its column, row and value are named."""

    kind = "bad_row"


class RowsOf(Protocol):
    """The rows of a partition, and where they are."""

    def frame(self) -> pd.DataFrame:
        """Return them, sorted."""

    def keys(self, sites: Collection[Any] | None = None) -> pd.DataFrame:
        """Return site and part of each series, of these sites if they are given."""


class _Taken(NamedTuple):
    """Rows of a table that the session holds."""

    table: pd.DataFrame
    at: Any

    def frame(self) -> pd.DataFrame:
        rows = self.table.iloc[self.at] if isinstance(self.at, slice) else self.table.take(self.at)
        return rows.reset_index(drop=True)

    def keys(self, sites: Collection[Any] | None = None) -> pd.DataFrame:
        rows = self.frame()
        wanted = rows if sites is None else rows[rows["site"].isin(list(sites))]
        return wanted[["site", "part"]].drop_duplicates()


class Partition(msgspec.Struct, frozen=True, dict=True):
    """A set of rows that is trained separately.

    The rows themselves, `frame`, are neither recorded nor held: they are rows of the table. `digest` stands for them.
    Where the table lies in a storage, `stored` is what a worker reads them by.

    Attributes:
        number: From 1 on, the largest first.
        name: Its site, or the label it was cut by; unique.
        sites: The sites in it.
        parts: How many parts.
        series: How many pairs of site and part.
        rows: How many rows.
        digest: A hash of its rows; when it changes, the partition is trained again.
        problems: What rows of it cannot be used, counted by kind and column, as one line; "" for none. It fails with
            that.
        bad_rows: How many they are.
    """

    number: int
    name: str
    sites: tuple[str | int, ...]
    parts: int
    series: int
    rows: int
    digest: str
    problems: str = ""
    bad_rows: int = 0

    @property
    def frame(self) -> pd.DataFrame:
        """Its rows: site, part, date, quantity, then the user's other columns; sorted. Taken from the table anew."""
        rows: RowsOf = self.__dict__["rows_of"]
        return rows.frame()

    @property
    def stored(self) -> Stored | None:
        """Where its rows lie; None where the session holds the table."""
        rows = self.__dict__["rows_of"]
        return rows if isinstance(rows, Stored) else None

    def with_rows(self, rows: RowsOf) -> Partition:
        """Return this partition with its rows."""
        self.__dict__["rows_of"] = rows
        return self

    def keys(self, sites: Collection[Any] | None = None) -> pd.DataFrame:
        """Return site and part of each of its series, of these sites if they are given."""
        rows: RowsOf = self.__dict__["rows_of"]
        return rows.keys(sites)

    @property
    def title(self) -> str:
        """Its name in the panel: ``Partition 3 (Sofifi)``."""
        return f"Partition {self.number} ({self.name})"

    @property
    def _ipybatch_sent_(self) -> dict[str, Any]:
        """Fields whose change makes it run again: not its number, which changes with the sizes of other partitions."""
        return {"digest": self.digest, "problems": (self.problems,) if self.problems else ()}


class Cut(NamedTuple):
    """A table cut into partitions.

    Attributes:
        partitions: The largest first.
        notes: Notes on the cut for the user.
        unplaced: Problems of rows that belong in no partition: `partition` refuses them.
    """

    partitions: list[Partition]
    notes: list[str]
    unplaced: list[Problem]


def partition(
    table: Table,
    *,
    by: By = "site",
    max_rows: int = MAX_ROWS,
    max_partitions: int = MAX_PARTITIONS,
    sites: Collection[Any] | None = None,
    parts: Collection[Any] | None = None,
    split_series: bool = False,
) -> Cut:
    """Cut a table into partitions.

    Args:
        table: What `read_table` returned.
        by: "site", "size", a column, a function that returns a label for each row of a frame, or None for one job.
        max_rows: With "size", rows to a partition, >= 1.
        max_partitions: Largest number of partitions, >= 1; the smallest are merged.
        sites: With ``by=None``, the sites to keep; default: all.
        parts: With ``by=None``, the parts to keep; default: all.
        split_series: With "size", whether a series longer than ``max_rows`` is split too; each piece is then forecast
            separately.

    Raises:
        InputError: An argument is out of range, there is no such column, nothing is left after sites= and parts=, or
            a row that cannot be used belongs in no partition.
    """
    made = cut(table, by, max_rows, max_partitions, sites=sites, parts=parts, split_series=split_series)
    refuse(made.unplaced)
    return made


def cut(
    table: Table,
    by: By,
    max_rows: int,
    max_partitions: int,
    *,
    sites: Collection[Any] | None = None,
    parts: Collection[Any] | None = None,
    split_series: bool = False,
) -> Cut:
    """Cut a table as `partition` does, but return problems of rows in no partition instead of refusing them.

    Raises:
        InputError: An argument is out of range, there is no such column, or no row is left after sites= and parts=.
    """
    max_rows = check_count("max_rows", max_rows, low=1)
    max_partitions = check_count("max_partitions", max_partitions, low=1)
    frame, notes = table.frame, []
    if by is None:
        frame = _filtered(frame, sites, parts)
        labels = pd.Series("all", index=frame.index, dtype=pd.CategoricalDtype(["all"]))
    else:
        notes += told_ignored(sites, parts)
        labels = _by_size(frame, max_rows, max_partitions, split_series) if by == "size" else _labels(frame, by)
    groups, merged = _merged(labels, max_partitions)
    columns = _Columns(frame)
    made = [columns.partition(at, name, number) for number, (name, at) in enumerate(groups, start=1)]
    notes += told_merged(merged, max_partitions)
    if by not in (None, "site"):
        notes += _told_cut(frame, made)
    if by == "size":
        notes += told_sizes(made, max_rows, max_partitions)
    made, unplaced = with_problems(
        made, table.problems if by is not None else problems_of(table.problems, sites, parts)
    )
    return Cut(made, notes, unplaced)


def told_ignored(sites: Any, parts: Any) -> list[str]:
    """Tell that sites and parts that are asked for are not filtered by."""
    given = [name for name, value in (("sites=", sites), ("parts=", parts)) if value is not None]
    return [f"{' and '.join(given)} ignored: batch mode takes all; use by=None to filter"] if given else []


def _filtered(frame: pd.DataFrame, sites: Any, parts: Any) -> pd.DataFrame:
    is_wanted = np.ones(len(frame), dtype=bool)
    for column, wanted in (("site", sites), ("part", parts)):
        if wanted is not None:
            names = as_names(wanted)
            known = frame[column].unique()
            unknown = sorted(set(names) - set(map(str, known)))
            if unknown:
                some = ", ".join(map(str, known[:8])) + (", ..." if len(known) > 8 else "")
                msg = f"{column}s must be {column}s that have demand ({some}), got {', '.join(unknown[:5])}"
                raise InputError(msg)
            is_wanted &= frame[column].astype(str).isin(names).to_numpy()
    if not is_wanted.any():
        msg = f"sites and parts must leave some rows, got none for sites={sites!r} and parts={parts!r}: ask for more"
        raise InputError(msg)
    return frame[is_wanted].reset_index(drop=True)


def as_names(wanted: Any) -> list[str]:
    """Return the names that a user asks for, one or several, as the table has them."""
    is_one = isinstance(wanted, str) or as_count(wanted) is not None
    return [clean(str(name)) for name in ([wanted] if is_one else wanted)]


def _labels(frame: pd.DataFrame, by: Any) -> pd.Series[Any]:
    """Return for each row the name of its partition."""
    if callable(by):
        labels = pd.Series(np.asarray(by(_plain(frame))))
        if len(labels) != len(frame):
            msg = f"by must return a label for each of {len(frame):,} rows, got {len(labels):,}"
            raise InputError(msg)
    elif by in frame.columns:
        labels = frame[by]
    else:
        known = ", ".join(repr(str(name)) for name in frame.columns)
        msg = f"by must be 'site', 'size', None, a function or a column ({known}), got {by!r}"
        raise InputError(msg)
    if labels.isna().any():
        at = int(np.flatnonzero(labels.isna())[0])
        msg = f"by must give every row a label, got none for site {frame['site'][at]!r}, part {frame['part'][at]!r}"
        raise InputError(msg)
    if isinstance(labels.dtype, pd.CategoricalDtype):  # without a text for every row
        texts = {name: str(name) for name in labels.cat.categories}
        return labels.cat.rename_categories(texts) if len({*texts.values()}) == len(texts) else labels.map(texts)
    return labels.astype(str)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose names are text or numbers, not categories, for a function of the user's."""
    return frame.astype({name: frame[name].cat.categories.dtype for name in ("site", "part")})


def _by_size(frame: pd.DataFrame, max_rows: int, most: int, split_series: bool) -> pd.Series[Any]:
    """Share whole series out evenly, those of a site together, large sites first."""
    series = (
        frame.groupby(["site", "part"], sort=False, observed=True).ngroup().to_numpy()
    )  # sorted: each is one run of rows
    if split_series:
        within = np.arange(len(series)) - np.flatnonzero(np.r_[True, series[1:] != series[:-1]])[series]
        series = pd.factorize(series * len(series) + within // max_rows)[0]
    lengths = np.bincount(series)
    site = pd.factorize(frame["site"])[0]
    of_row = bins_by_size(lengths, site[np.cumsum(lengths) - lengths], max_rows, most)[series]
    return pd.Series(_bin_names(frame["site"], of_row)[of_row])


def bins_by_size(lengths: Any, of_series: Any, max_rows: int, most: int) -> Any:
    """Return for each series the number of its bin, from 0 on.

    Args:
        lengths: The rows of each.
        of_series: The number of the site of each.
        max_rows: Rows of a bin.
        most: Largest number of bins.
    """
    rows = int(lengths.sum())
    order = np.lexsort((of_series, -np.bincount(of_series, weights=lengths)[of_series]))
    middles = np.empty(len(lengths))
    middles[order] = np.cumsum(lengths[order]) - lengths[order] / 2
    for bins in range(min(-(-rows // max_rows), most), most + 1):  # whole series: one more may be needed
        bin_of = (middles * bins / rows).astype(np.int64)
        if np.bincount(bin_of, weights=lengths).max() <= max(max_rows, lengths.max()):
            break
    numbers: Any = pd.factorize(bin_of, sort=True)[0]
    return numbers


def _bin_names(sites: pd.Series[Any], of_row: Any) -> Any:
    """Name each bin after its sites; those of one site are numbered."""
    counted = (sites[of_row == at].value_counts() for at in range(of_row.max() + 1))
    bins = [[str(site) for site, rows in each.items() if rows] for each in counted]
    return np.array(titles(bins, numbered=True), dtype=object)


def titles(bins: Sequence[Sequence[str]], *, numbered: bool = False) -> list[str]:
    """Return a name for each bin, of the names in it: no two alike, and none that another bin might be taken for.

    A site may be called "B and C", beside a bin of B and of C: that one is then called 'B' and 'C'. What is still
    alike, such as the bins of one large site, is numbered: "A 1", "A 2".

    Args:
        numbered: Whether several bins of the same names are numbered from 1 on, not from the second on.
    """
    single = {names[0] for names in bins if len(names) == 1}
    plain = [_joined(names) for names in bins]
    quoted = [
        _joined([f"'{name}'" for name in names]) if len(names) > 1 and title in single else title
        for names, title in zip(bins, plain, strict=True)
    ]
    counts = Counter(quoted)
    taken = {title for title, bins_of_it in counts.items() if bins_of_it == 1 or not numbered}
    made: list[str] = []
    for title in quoted:
        name = title
        if counts[title] > 1 and (numbered or title in made):
            numbers = (f"{title} {number}" for number in count(1 if numbered else 2))
            name = next(one for one in numbers if one not in taken)
            taken.add(name)
        made.append(name)
    return made


def _joined(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"


def _merged(labels: pd.Series[Any], most: int) -> tuple[list[tuple[str, Any]], int]:
    """Return name and rows of each partition, the largest first, and how many were put together."""
    labels = labels.astype("category")
    codes, names = labels.cat.codes.to_numpy(), labels.cat.categories
    counts = np.bincount(codes, minlength=len(names))
    bins, merged = merged_bins({name: rows for name, rows in zip(names, counts.tolist(), strict=True) if rows}, most)
    number = {name: at for at, (_, bin_) in enumerate(bins) for name in bin_}
    smallest = np.min_scalar_type(len(bins))  # quick to sort, and small beside the rows
    of_row = np.array([number.get(name, 0) for name in names], dtype=smallest)[codes]
    rows = np.split(np.argsort(of_row, kind="stable"), np.cumsum(np.bincount(of_row))[:-1])
    runs = [slice(at[0], at[-1] + 1) if at[-1] - at[0] == len(at) - 1 else at.copy() for at in rows]
    return list(zip((title for title, _ in bins), runs, strict=True)), merged


def merged_bins(rows: Mapping[Any, int], most: int) -> tuple[list[tuple[str, tuple[Any, ...]]], int]:
    """Put the smallest together until ``most`` are left; return title and names of each, the largest first.

    Args:
        rows: By name how many rows it has.
        most: How many may be left.

    Returns:
        The bins, and how many names were put together.
    """
    heap: list[tuple[int, tuple[Any, ...]]] = [(count, (name,)) for name, count in rows.items()]
    heapq.heapify(heap)
    while len(heap) > most:  # the two smallest: so that no partition grows much
        few, one = heapq.heappop(heap)
        heapq.heapreplace(heap, (few + heap[0][0], (*one, *heap[0][1])))
    bins = [bin_ for _, bin_ in sorted(heap, key=lambda pair: (-pair[0], pair[1]))]
    named = titles([sorted(bin_, key=lambda name: (-rows[name], name)) for bin_ in bins])
    return list(zip(named, bins, strict=True)), sum(len(bin_) for bin_ in bins if len(bin_) > 1)


class _Columns:
    """The columns of a table as arrays, from which those of its partitions are cut: pandas takes a millisecond each."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self._values: dict[str, Any] = {
            str(name): values.to_numpy()
            if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biufM"
            else values
            for name, values in frame.items()
        }
        self._names = {name: self._values.pop(name).cat for name in _NAMES}
        self._codes = {name: names.codes.to_numpy() for name, names in self._names.items()}

    def partition(self, at: Any, name: str, number: int) -> Partition:
        """Return the partition of some rows, sorted."""
        codes = {of: codes[at] for of, codes in self._codes.items()}
        present = {of: _present(codes[of], self._names[of].categories) for of in _NAMES}
        is_end = np.logical_or.reduce([code[1:] != code[:-1] for code in codes.values()])
        return Partition(
            number=number,
            name=name,
            sites=tuple(present["site"][1].tolist()),
            parts=len(present["part"][1]),
            series=1 + int(np.count_nonzero(is_end)),
            rows=len(codes["site"]),
            digest=self._digest(at, present),
        ).with_rows(_Taken(self._frame, at))

    def _digest(self, at: Any, present: Mapping[str, tuple[Any, Any]]) -> str:
        """Return a hash of rows: the same whatever table they are in, and however their names are held."""
        hashed = hashlib.blake2b(digest_size=16)
        for name in map(str, self._frame.columns):
            if name in present:
                values, names = present[name]
            elif isinstance(values := self._values[name][at], pd.Series):  # no numbers and no dates: numbered first
                values, names = distinct_of(values if values.dtype != object else values.astype(str))
            else:
                names = None
            hashed.update(f"{name} {len(values)}\n".encode())
            if names is not None:
                hashed.update("\n".join(map(str, np.asarray(names, dtype=object))).encode())
            hashed.update(np.ascontiguousarray(values).tobytes())
        return hashed.hexdigest()


_NAMES = ("site", "part")


def _present(codes: Any, names: pd.Index[Any]) -> tuple[Any, pd.Index[Any]]:
    """Return numbers of names as numbers of those that are there, and these."""
    is_there = np.bincount(codes, minlength=len(names)) > 0
    numbers = (np.cumsum(is_there) - 1).astype(np.int32)
    return numbers[codes], names[is_there]


def _told_cut(frame: pd.DataFrame, made: Sequence[Partition]) -> list[str]:
    """Tell which sites and series lie in several partitions."""
    return told_cut(made, sum(one.series for one in made) - _Columns(frame).partition(slice(None), "", 0).series)


def told_cut(made: Sequence[Partition], series: int) -> list[str]:
    """Tell which sites lie in several partitions, and how many series do so."""
    counts = Counter(site for one in made for site in one.sites)
    cut = [f"{site} ({count})" for site, count in counts.items() if count > 1]
    if not cut:
        return []
    more = f" and {len(cut) - 5:,} more" if len(cut) > 5 else ""
    sites = "1 site lies" if len(cut) == 1 else f"{len(cut):,} sites lie"
    told = [f"{sites} in several partitions, which learn nothing of each other: {', '.join(cut[:5])}{more}"]
    if series:
        told.append(f"{series:,} series are cut too: each piece is forecast by itself, so that dates come twice")
    return told


def told_merged(merged: int, max_partitions: int) -> list[str]:
    """Tell how many partitions were put together."""
    if not merged:
        return []
    return [f"{merged:,} small partitions were put together: max_partitions={max_partitions:,} allows no more"]


def told_sizes(made: Sequence[Partition], max_rows: int, max_partitions: int) -> list[str]:
    """Tell of partitions by size that are larger than they should be."""
    if made[0].rows <= max_rows:
        return []
    is_full = len(made) == max_partitions
    why = f"max_partitions={max_partitions:,} allows no more of them" if is_full else "a series is not cut"
    return [f"partitions have up to {made[0].rows:,} rows, more than max_rows={max_rows:,}: {why}"]


def problems_of(problems: Sequence[Problem], sites: Any, parts: Any) -> list[Problem]:
    """Return the problems of the sites and parts that are asked for."""
    found = list(problems)
    for field, wanted in (("site", sites), ("part", parts)):
        if wanted is not None:
            names = set(as_names(wanted))
            found = [problem for problem in found if str(getattr(problem, field)) in names]
    return found


def with_problems(made: Sequence[Partition], problems: Sequence[Problem]) -> tuple[list[Partition], list[Problem]]:
    """Give each partition the problems of its series, or of its site, and return those of none."""
    placed = list(made)
    if not problems:
        return placed, []
    of_series: dict[Any, int] = {}
    of_site: dict[Any, int] = {}
    troubled = {problem.site for problem in problems}
    for at, one in enumerate(made):
        of_site.update({site: of_site.get(site, at) for site in one.sites})
        keys = one.keys(troubled)
        of_series.update(dict.fromkeys(zip(keys["site"], keys["part"], strict=True), at))
    told: dict[int, list[Problem]] = {}
    unplaced = []
    for problem in problems:
        home = of_series.get((problem.site, problem.part), of_site.get(problem.site, 0 if len(made) == 1 else None))
        if home is None:
            unplaced.append(problem)
        else:
            told.setdefault(home, []).append(problem)
    for at, its in told.items():
        troubled_one = msgspec.structs.replace(made[at], problems=tell(its), bad_rows=bad_rows(its))
        placed[at] = troubled_one.with_rows(made[at].__dict__["rows_of"])
    return placed, unplaced
