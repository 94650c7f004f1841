"""Analysis: what a demand table is made of, how it would be cut, how long that takes here, and whether it pays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ipybatch.backends.processes import processors
from ipybatch.engine.data.policy import check_count
from ipybatch.forecast.partitions import MAX_PARTITIONS, MAX_ROWS, By, Cut, Partition, cut
from ipybatch.forecast.settings import Freq, Settings
from ipybatch.forecast.tables import Problem, Table, read_table, settings_of
from ipybatch.forecast.timing import Timing, time_it

_PERIODS = {"D": "days", "W": "weeks", "M": "months"}
PAYS_ABOVE_ROWS, PAYS_FROM_SITES, PAYS_FROM_PARTS = 5000, 5, 500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis:
    """What `analyze` found; a cell that ends in it shows a card.

    Attributes:
        table: The clean table.
        by: What it is cut by.
        horizon: Periods ahead.
        rows: Rows that can be used.
        sites: How many.
        parts: How many.
        series: How many pairs of site and part.
        partitions: The largest first.
        series_of: How many series each partition has.
        workers: Partitions at the same time.
        timing: What was measured on this machine; None where it was not to be.
        notes: What the user should know.
        problems: Rows that cannot be used; a partition with such a row fails, unless it is corrected.
    """

    table: Table
    by: By
    horizon: int
    rows: int
    sites: int
    parts: int
    series: int
    partitions: tuple[Partition, ...]
    series_of: tuple[int, ...]
    workers: int
    timing: Timing | None
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def pays(self) -> bool:
        """Whether batch mode pays: > 5,000 rows, or 5 sites and more, or 500 parts and more."""
        return self.rows > PAYS_ABOVE_ROWS or self.sites >= PAYS_FROM_SITES or self.parts >= PAYS_FROM_PARTS

    @property
    def why(self) -> str:
        """Why batch mode pays, or why not, in a few words."""
        reasons = [
            word
            for holds, word in (
                (self.rows > PAYS_ABOVE_ROWS, f"{self.rows:,} rows are more than {PAYS_ABOVE_ROWS:,}"),
                (self.sites >= PAYS_FROM_SITES, f"{self.sites:,} sites are {PAYS_FROM_SITES} or more"),
                (self.parts >= PAYS_FROM_PARTS, f"{self.parts:,} parts are {PAYS_FROM_PARTS} or more"),
            )
            if holds
        ]
        few = f"at most {PAYS_ABOVE_ROWS:,} rows, under {PAYS_FROM_SITES} sites and under {PAYS_FROM_PARTS} parts"
        return ", ".join(reasons) or few

    @property
    def seconds(self) -> float | None:
        """How long the partitions take, estimated from what was measured here."""
        return None if self.timing is None else self.timing.all_s(self.series_of, self.workers)

    @property
    def normal_s(self) -> float | None:
        """How long the same takes as one job."""
        return None if self.timing is None else self.timing.all_s([self.series], 1)

    @property
    def speed_up(self) -> float | None:
        """How many times as fast the partitions are as one job; below 1, they are slower."""
        seconds, normal_s = self.seconds, self.normal_s
        return normal_s / seconds if seconds and normal_s else None

    def to_frame(self) -> pd.DataFrame:
        """Return one row per partition: partition, name, sites, parts, series, rows, seconds (estimated), problems."""
        rows = [
            (
                one.number,
                one.name,
                len(one.sites),
                one.parts,
                series,
                one.rows,
                None if self.timing is None else self.timing.alone_s(series),
                len(one.problems),
            )
            for one, series in zip(self.partitions, self.series_of, strict=True)
        ]
        columns = ["partition", "name", "sites", "parts", "series", "rows", "seconds", "problems"]
        return pd.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        from ipybatch.forecast import card

        return card.text(self)

    def _repr_html_(self) -> str:
        from ipybatch.forecast import card

        return card.html(self)


def analyze(
    demand: Any,
    *,
    by: By = "site",
    horizon: int = 30,
    max_rows: int = MAX_ROWS,
    max_partitions: int = MAX_PARTITIONS,
    sites: Collection[Any] | None = None,
    parts: Collection[Any] | None = None,
    columns: Mapping[str, Any] | None = None,
    freq: Freq | None = None,
    models: Iterable[Any] | None = None,
    workers: int | None = None,
    timed: bool = True,
) -> Analysis:
    """Say what a forecast of a demand table would be, without making it.

    Args:
        demand: A DataFrame, or the path of a .csv or .parquet file: site, part, date, quantity.
        by: How it is cut; see `ipybatch.forecast.forecast`.
        horizon: Periods ahead, >= 1.
        max_rows: Of a partition with ``by="size"``.
        max_partitions: Above it, the small ones are put together.
        sites: With ``by=None``: only these.
        parts: With ``by=None``: only these.
        columns: Which column is which, e.g. ``{"site": "Lokasi"}``; the others are found by name.
        freq: "D", "W" or "M"; default: inferred.
        models: As for `forecast`.
        workers: Partitions at the same time; default: one a processor core.
        timed: Whether a sample is trained on this machine, a few seconds, to estimate how long all will take.

    Raises:
        InputError: The table cannot be read, or an argument is not what it must be.
    """
    if workers is not None:
        check_count("workers", workers, low=1)
    table = read_table(demand, columns=columns, freq=freq)
    settings = settings_of(table, horizon, models=models)
    made = cut(table, by, max_rows, max_partitions, sites=sites, parts=parts)
    timing, untimed = _timed(made, settings) if timed else (None, [])
    series_of = tuple(_series(one.frame) for one in made.partitions)
    frames = pd.concat([one.frame[["site", "part"]] for one in made.partitions])
    return Analysis(
        table=table,
        by=by,
        horizon=horizon,
        rows=len(frames),
        sites=int(frames["site"].nunique()),
        parts=int(frames["part"].nunique()),
        series=_series(frames),
        partitions=tuple(made.partitions),
        series_of=series_of,
        workers=min(workers or processors(), len(made.partitions)),
        timing=timing,
        notes=(*table.notes, *_zeros(table), *made.notes, *untimed),
        problems=table.problems,
    )


def _timed(made: Cut, settings: Settings) -> tuple[Timing | None, list[str]]:
    frame = pd.concat([one.frame for one in made.partitions]).sort_values(["site", "part", "date"], ignore_index=True)
    try:
        return time_it(frame, settings), []
    except Exception as error:  # whatever a model raises: how long it takes is then not known, all else is
        return None, [f"how long it takes is not known: a sample could not be trained: {error}"]


def _series(frame: pd.DataFrame) -> int:
    return int(frame.groupby(["site", "part"], sort=False).ngroups)


def _zeros(table: Table) -> list[str]:
    since = f"{table.start:%Y-%m-%d} on, the table's start, for every series"
    return [f"{_PERIODS[table.freq]} without a row count as zero from {since}"]
