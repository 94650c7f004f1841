"""Summaries of a table's pieces, put together: what only the whole table tells, and how its rows make blocks.

    summaries --> names, far days, marks --> plans of the blocks --workers--> `SplitTable`

The session holds names and figures here, no rows: as many as there are sites, parts and days.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.blocks import SERIES, BlockFacts, Far, Held, Plan, Range, Renaming, Stored
from ipybatch.forecast.data.duplicates import near_duplicates, targets, tell_duplicates
from ipybatch.forecast.data.names import ZEROS, Keys, whole_names
from ipybatch.forecast.data.periods import far_of_distinct, infer_freq, span, told_gap, told_period
from ipybatch.forecast.data.pieces import ROWS, SUMMARY, Facts, Piece, read_facts
from ipybatch.forecast.data.problems import TOLD, BadRows, Problem, tell, tell_bad_rows, told_far_quantities
from ipybatch.forecast.data.repairs import DROP_BAD_ROWS, MERGE, NET_RETURNS
from ipybatch.forecast.data.sources import Looked
from ipybatch.forecast.data.table import Table
from ipybatch.forecast.data.totals import FEWEST, is_sum, told_total
from ipybatch.forecast.data.understanding import Understanding
from ipybatch.forecast.settings import Freq
from ipybatch.forecast.storage import Storage

_BLOCK = 1_500_000  # rows of a block, if its sites and parts allow
_NOTES = 10  # of pieces, that are told


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitTable(Table):
    """A clean demand table whose rows lie in blocks, which workers read; `frame` has its first series, and no rows.

    Attributes:
        storage: Where the blocks are.
        held: For each block its name, and what it holds of each site; in the order of the rows.
        files: Names of all files of it, also of those by which pieces are not read again.
    """

    storage: Storage
    held: tuple[tuple[str, tuple[Held, ...]], ...]
    files: frozenset[str]

    def clear_up(self) -> None:
        """Delete what else lies in the storage, which was of an earlier table.

        Raises:
            InputError: Its own files are gone.
        """
        there = set(self.storage.names())
        if gone := len(self.files - there):
            msg = (
                f"storage must keep what workers read of demand, got {gone:,} of {len(self.files):,} files gone from"
                f" {str(self.storage)!r}, as after a run with another demand: make the forecast() call again"
            )
            raise InputError(msg)
        self.storage.delete(there - self.files)

    def ranges(self, sites: Collection[Any] | None = None) -> tuple[Range, ...]:
        """Return the rows of these sites, of all if None, in order."""
        return tuple(
            Range(block, one.begin, one.begin + one.rows, one.first, one.first + one.series)
            for block, held in self.held
            for one in held
            if sites is None or one.site in sites
        )

    def keys(self) -> pd.DataFrame:
        """Return site and part of every series."""
        return Stored(self.storage, self.ranges()).keys()


class _Column(NamedTuple):
    """The names of a column in the whole table: sorted, each with its rows; and what pieces' names are in it."""

    names: pd.Index[Any]
    counts: Any
    renaming: Renaming
    told: list[str]


class Summaries:
    """What all pieces of a table say.

    Args:
        storage: Where they are.
        files: Names of the pieces' files, in order.
        pieces: The pieces.
        looked: How they were read.
        asked: Which repairs to make.

    Raises:
        InputError: Pieces are written in different ways, or have rows that cannot be used and are too many to tell.
        BadRows: No row can be used.
    """

    def __init__(
        self, storage: Storage, files: Sequence[str], pieces: Sequence[Piece], looked: Looked, asked: frozenset[str]
    ) -> None:
        self._files, self._pieces, self._looked, self._asked = files, pieces, looked, asked
        self._facts: list[Facts] = []
        names = (_Counted(), _Counted())
        for file in files:
            facts, table = read_facts(storage, file)
            self._facts.append(facts)
            for number, each in enumerate(names):
                ours = ("site", "part")[number]
                each.add(table, number, is_number=facts.are_numbers.get(ours, False))
        self._refuse()
        self._site, self._part = (
            each.column(ours, is_merging=MERGE in asked) for ours, each in zip(("site", "part"), names, strict=True)
        )
        self._totals = {ours: self._found_totals(ours) for ours in ("site", "part")}
        self._days, self._rows_on, self._used_on = self._spread()
        is_far = far_of_distinct(self._days, self._rows_on)
        body = self._days[~is_far]
        self.far = (
            Far(str(self._columns["date"]), tuple(self._days[is_far].astype(int).tolist()), str(body[0]), str(body[-1]))
            if is_far.any()
            else None
        )
        self._is_body = ~is_far & (self._used_on > 0)
        if not self._is_body.any():
            problems = [problem for facts in self._facts for problem in facts.problems]
            msg = f"demand must have rows that can be used, got {self._count:,} of which none can: {tell(problems)}"
            raise BadRows(msg, problems)

    @property
    def _columns(self) -> dict[str, Any]:
        return self._looked.answers.columns

    @property
    def _count(self) -> int:
        return sum(facts.rows for facts in self._facts)

    def plans(self) -> list[Plan]:
        """Return how the rows make blocks: some sites each, or some parts of a large one."""
        found: list[list[tuple[Any, tuple[Any, Any] | None]]] = [[]]
        room = _BLOCK
        for site, rows in zip(self._site.names.tolist(), self._site.counts.tolist(), strict=True):
            if site in self._totals["site"]:
                continue
            if rows > _BLOCK:
                found += [[(site, ends)] for ends in self._cuts(-(-rows // _BLOCK))]
                room = 0
            elif rows > room:
                found.append([(site, None)])
                room = _BLOCK - rows
            else:
                found[-1].append((site, None))
                room -= rows
        pieces = tuple(zip(self._files, (piece.name for piece in self._pieces), strict=True))
        return [
            Plan(
                pieces=pieces,
                sites=tuple(sites),
                site_names=self._site.renaming,
                part_names=self._part.renaming,
                without=tuple(self._totals["part"]),
                far=self.far,
                is_netting=NET_RETURNS in self._asked,
            )
            for sites in found
            if sites
        ]

    def _cuts(self, count: int) -> list[tuple[Any, Any]]:
        """Return runs of parts with about as many rows in the whole table: the first and the last part of each."""
        at = np.minimum(np.cumsum(self._part.counts) * count // max(1, int(self._part.counts.sum())), count - 1)
        firsts = np.flatnonzero(np.diff(at, prepend=-1))
        lasts = np.r_[firsts[1:], len(at)] - 1
        names = self._part.names
        return list(zip(names[firsts].tolist(), names[lasts].tolist(), strict=True))

    def table(self, storage: Storage, blocks: Sequence[tuple[str, BlockFacts]], freq: Freq | None) -> SplitTable:
        """Return the table.

        Args:
            storage: Where its blocks are.
            blocks: The name of each, and what it says of itself.
            freq: Its period; None infers it.
        """
        days = pd.Series(self._days[self._is_body].astype("datetime64[us]"))
        said = {facts.period for facts in self._facts if facts.days}
        period: Any = freq or (said.pop() if len(said) == 1 else None) or infer_freq(days)
        start, end = span(days, period)
        problems = [self._renamed(problem) for facts in self._facts for problem in facts.problems]
        problems += [problem for _, facts in blocks for problem in facts.problems]
        order = {piece.name: at for at, piece in enumerate(self._pieces)}
        problems.sort(key=lambda problem: (order[problem.file], problem.row))
        held = tuple((name, tuple(facts.held)) for name, facts in blocks if facts.held)
        first = held[0][1][0]
        told_span = self._told_span(days, problems, period, is_inferred=freq is None)
        understood = Understanding(
            columns=self._columns,
            freq=period,
            is_inferred=freq is None,
            first=start,
            last=end,
            decimal=next((facts.decimal for facts in self._facts if facts.decimal), ""),
            thousands=next((facts.thousands for facts in self._facts if facts.thousands), ""),
            dates=self._looked.style,
            encoding=_only(facts.encoding for facts in self._facts),
            sep=self._looked.sep,
            notes=(*self._looked.notes, *told_span),
        )
        names = {
            "site": pd.Categorical([first.site], self._site.names),
            "part": pd.Categorical.from_codes([0], self._part.names),
        }
        is_dropping = DROP_BAD_ROWS in self._asked
        return SplitTable(
            frame=pd.DataFrame(names).assign(date=days.head(1).to_numpy(), quantity=0.0),
            problems=() if is_dropping else tuple(problems),
            dropped=tuple(problems) if is_dropping else (),
            notes=(
                f"{_files(self._pieces)} read by workers, in {len(self._pieces):,} pieces; each counts its own rows",
                *understood.notes,
                *self._told_pieces(),
                *self._told_names(blocks),
                *self._told_totals(),
                *self._site.told,
                *self._part.told,
                *self._told_returns(blocks),
                *tell_bad_rows(problems, is_dropping=is_dropping),
                *self._told_unlisted(problems),
                *self._told_far_quantities(),
                *_told_lonely(held),
            ),
            freq=period,
            columns=self._columns,
            rows=self._count,
            start=start,
            end=end,
            understood=understood,
            storage=storage,
            held=held,
            files=frozenset(
                [file + end for file in self._files for end in (ROWS, SUMMARY)]
                + [name + end for name, _ in blocks for end in (ROWS, SERIES)]
            ),
        )

    def _found_totals(self, ours: str) -> list[str]:
        """Return the names whose sum on each of their days is that of all others."""
        of_name: dict[str, Counter[int]] = {}
        for facts in self._facts:
            for name, sums in facts.totals.get(ours, {}).items():
                of_name.setdefault(name, Counter()).update(dict(sums))
        others = of_name.pop("", Counter())
        column = self._site if ours == "site" else self._part
        if len(column.names) < len(of_name) + 2:
            return []
        return [
            name
            for name, sums in of_name.items()
            if len(sums) >= FEWEST and is_sum([*sums.values()], [others.get(day, 0.0) for day in sums])
        ]

    def _told_totals(self) -> list[str]:
        columns = {"site": self._site, "part": self._part}
        return [
            told_total(ours, name, int(columns[ours].counts[columns[ours].names.get_loc(name)]))
            for ours, names in self._totals.items()
            for name in names
        ]

    def _renamed(self, problem: Problem) -> Problem:
        """Return a piece's problem with the names of the whole table."""
        site, part = self._site.renaming.of_one(problem.site), self._part.renaming.of_one(problem.part)
        return msgspec.structs.replace(problem, site=site, part=part)

    def _refuse(self) -> None:
        """Refuse pieces that are written in different ways, and rows that are too many to be told one by one."""
        self._refuse_differing(
            {facts.decimal: piece.name for facts, piece in self._pairs()}, "decimal mark", "decimal="
        )
        for kind in {kind for facts in self._facts for kind in facts.orders}:
            orders = {facts.orders.get(kind, ""): piece.name for facts, piece in self._pairs()}
            self._refuse_differing(orders, "order of day, month and year", "date_format=")
        for facts, piece in self._pairs():
            if facts.bad > len(facts.problems) and DROP_BAD_ROWS not in self._asked:
                msg = (
                    f"demand must have no row that cannot be used, got {facts.bad:,} in {piece.name!r}, of the first"
                    f" {len(facts.problems):,}: {tell(facts.problems)}: correct these rows, or drop them with"
                    f" repair={{'drop_bad_rows'}}"
                )
                raise BadRows(msg, facts.problems)

    def _pairs(self) -> Iterable[tuple[Facts, Piece]]:
        return zip(self._facts, self._pieces, strict=True)

    @staticmethod
    def _refuse_differing(found: Mapping[str, str], what: str, argument: str) -> None:
        told = [(value, name) for value, name in found.items() if value]
        if len(told) > 1:
            (one, name), (other, its) = told[:2]
            msg = (
                f"demand must be files of one {what}, got {one!r} in {name!r} and {other!r} in {its!r}: say {argument}"
            )
            raise InputError(msg)

    def _spread(self) -> tuple[Any, Any, Any]:
        """Return all days, ascending, and for each how many rows can be read that far, and how many can be used."""
        days = np.unique(np.concatenate([np.array(facts.days, dtype=np.int64) for facts in self._facts]))
        counts = np.zeros((2, len(days)), dtype=np.int64)
        for facts in self._facts:
            at = np.searchsorted(days, np.array(facts.days, dtype=np.int64))
            counts[:, at] += np.array([facts.rows_on, facts.used_on], dtype=np.int64)
        return days.astype("datetime64[D]"), counts[0], counts[1]

    def _told_span(
        self, days: pd.Series[Any], problems: Sequence[Problem], freq: Freq, *, is_inferred: bool
    ) -> list[str]:
        told = [doubt] if is_inferred and (doubt := told_period(days, freq)) else []
        if self.far is not None:
            far = [problem for problem in problems if "far from all others" in problem.reason]
            some = ", ".join(f"{problem.value} ({problem.place})" for problem in far[:TOLD])
            more = f" and {len(far) - TOLD:,} more" if len(far) > TOLD else ""
            rows = "1 date lies" if len(far) == 1 else f"{len(far):,} dates lie"
            body = f"{self.far.first} to {self.far.last}"
            told.append(f"{rows} far from all others, {body}: {some}{more}; correct or drop these rows")
        told += [gap] if (gap := told_gap(days, freq)) else []
        today = pd.Timestamp.today().normalize()
        ahead = int(self._used_on[self._is_body][(days > today).to_numpy()].sum())
        if ahead:
            rows = "1 row lies" if ahead == 1 else f"{ahead:,} rows lie"
            told.append(
                f"{rows} ahead of today, {today:%Y-%m-%d}, up to {days.max():%Y-%m-%d}: forecasts begin after that"
            )
        return told

    def _told_pieces(self) -> list[str]:
        """Return the notes of single pieces, once each."""
        notes: dict[str, list[str]] = {}
        for facts, piece in self._pairs():
            for note in facts.notes:
                notes.setdefault(note, []).append(piece.name)
        told = [
            note if len(files) == len(self._pieces) else f"{files[0]}: {note}{_more(len(files) - 1, 'file')}"
            for note, files in notes.items()
        ]
        return told[:_NOTES] + ([f"and {len(told) - _NOTES:,} more notes on files"] if len(told) > _NOTES else [])

    def _told_names(self, blocks: Sequence[tuple[str, BlockFacts]]) -> list[str]:
        read = sum(facts.read for _, facts in blocks)
        summed = read - sum(one.rows for _, facts in blocks for one in facts.held)
        told = (
            [f"{summed:,} of {self._count:,} rows repeat a site, part and date: their quantities were summed"]
            if summed
            else []
        )
        for ours in ("site", "part"):
            changes: Counter[str] = Counter()
            for facts in self._facts:
                changes.update(dict(facts.changes.get(ours, ())))
            shortened = sum(facts.shortened.get(ours, 0) for facts in self._facts)
            told += Keys(np.zeros(0, dtype=int), pd.Index([]), tuple(changes.items()), shortened).notes(ours)
        return told

    def _told_returns(self, blocks: Sequence[tuple[str, BlockFacts]]) -> list[str]:
        count = sum(facts.returns for facts in self._facts)
        if not count or NET_RETURNS not in self._asked:
            return []
        lost = sum(facts.lost for _, facts in blocks)
        left = sum(facts.lost_pieces for _, facts in blocks)
        pieces = sum(facts.returned for facts in self._facts) - left
        told = [f"{_returns(count)} netted against earlier sales of the same site and part: {pieces:,.10g} in all"]
        if lost:
            told.append(
                f"{_returns(lost)} left out, in whole or in part, because they are more than was sold before:"
                f" {left:,.10g} in all"
            )
        return told

    def _told_unlisted(self, problems: Sequence[Problem]) -> list[str]:
        lost = sum(facts.bad for facts in self._facts) - sum(len(facts.problems) for facts in self._facts)
        return (
            [f"{lost:,} rows more that cannot be used were dropped: of a file the first are told"] if lost > 0 else []
        )

    def _told_far_quantities(self) -> list[str]:
        """As `tell_far_quantities`, by the spread of each piece's quantities and the largest of them."""
        spread = [facts for facts in self._facts if facts.sold]
        if not spread:
            return []
        values = np.concatenate([facts.spread for facts in spread])
        weights = np.concatenate([np.full(len(facts.spread), facts.sold / len(facts.spread)) for facts in spread])
        order = np.argsort(values)
        median = float(values[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)])
        largest = [
            (quantity, f"row {row} of {piece.name}")
            for facts, piece in self._pairs()
            for quantity, row in facts.largest
        ]
        sold = sum(facts.sold for facts in spread)
        return told_far_quantities(largest, sold, median, lambda: _usual(largest, values, median))


def _usual(largest: Sequence[tuple[float, str]], values: Any, median: float) -> float:
    known = np.array([*(quantity for quantity, _ in largest), *values])
    return float(known[known < 1e6 * median].max())


def _only(values: Iterable[str]) -> str:
    found = set(values)
    return found.pop() if len(found) == 1 else ""


def _files(pieces: Sequence[Piece]) -> str:
    count = len({piece.path for piece in pieces})
    return "1 file was" if count == 1 else f"{count:,} files were"


def _more(count: int, what: str) -> str:
    return "" if not count else f" (so in 1 more {what})" if count == 1 else f" (so in {count:,} more {what}s)"


def _returns(count: int) -> str:
    return "1 return was" if count == 1 else f"{count:,} returns were"


def _told_lonely(held: Iterable[tuple[str, Iterable[Held]]]) -> list[str]:
    rows: Counter[Any] = Counter()
    for _, sites in held:
        for one in sites:
            rows[one.site] += one.rows
    lonely = [str(site) for site, count in rows.items() if count == 1]
    if not lonely:
        return []
    more = f" and {len(lonely) - TOLD:,} more" if len(lonely) > TOLD else ""
    have = "site has" if len(lonely) == 1 else "sites have"
    return [f"{len(lonely):,} {have} one row only, and forecasts that rest on little: {', '.join(lonely[:TOLD])}{more}"]


class _Counted:
    """The names of a column, each with its rows, put together piece by piece."""

    def __init__(self) -> None:
        self._tables: list[Any] = []
        self._are_numbers = True
        self._has_numbers = False

    def add(self, table: Any, number: int, *, is_number: bool) -> None:
        """Take in a piece's names: some of them are of this column."""
        from pyarrow import compute

        its = table.filter(compute.equal(table.column("column"), number)).select(["name", "rows"])
        if not len(its):
            return
        self._are_numbers &= is_number
        self._has_numbers |= is_number
        self._tables.append(its)
        if sum(map(len, self._tables[1:])) > len(self._tables[0]):
            self._tables = [self._summed()]

    def _summed(self) -> Any:
        import pyarrow as pa

        found = pa.concat_tables(self._tables).group_by("name", use_threads=False).aggregate([("rows", "sum")])
        return found.select(["name", "rows_sum"]).rename_columns(["name", "rows"])

    def column(self, ours: str, *, is_merging: bool) -> _Column:
        """Return all names as they are in the whole table, and what pieces' names are there."""
        if not self._tables:
            return _Column(pd.Index([]), np.zeros(0, dtype=np.int64), Renaming(), [])
        table = self._summed()
        rows: dict[str, int] = dict(
            zip(table.column("name").to_pylist(), table.column("rows").to_pylist(), strict=True)
        )
        if self._are_numbers:
            numbers = sorted((int(name), count) for name, count in rows.items())
            names = pd.Index([name for name, _ in numbers], dtype="int64")
            return _Column(names, np.array([count for _, count in numbers]), Renaming(), [])
        told: list[str] = []
        changed = whole_names(rows)
        if changed:
            count = sum(rows[name] for name in changed)
            told += Keys(np.zeros(0, dtype=int), pd.Index([]), ((ZEROS, count),)).notes(ours)
        of_name: Counter[str] = Counter()
        for name, count in rows.items():
            of_name[changed.get(name, name)] += count
        known = sorted(of_name)
        counted = _Sorted(pd.Index(known), np.array([of_name[name] for name in known], dtype=np.int64))
        groups = near_duplicates(counted)
        told += tell_duplicates(counted, groups, ours, is_merged=is_merging)
        if is_merging and groups:
            target = targets(len(known), groups)
            moved = {known[at]: known[to] for at, to in enumerate(target.tolist()) if at != to}
            changed = {name: moved.get(to, to) for name, to in {**{name: name for name in moved}, **changed}.items()}
            kept = np.unique(target)
            counts = np.bincount(target, weights=counted.counts, minlength=len(known)).astype(np.int64)
            counted = _Sorted(pd.Index([known[at] for at in kept.tolist()]), counts[kept])
        return _Column(counted.names, counted.counts, Renaming(self._has_numbers, changed), told)


class _Sorted(NamedTuple):
    names: Any
    counts: Any
