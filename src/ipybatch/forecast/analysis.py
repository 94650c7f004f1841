"""Analysis of a demand table: its contents, its partitions, their time on this machine, and whether batch mode pays.

Time. Two samples of the series, a small and a larger one, are trained in the processes that a run uses; the line
through both estimates every partition:

    seconds of a partition = fixed_s + per_series_s * its series

Partitions go to the workers in order, each to the first that is free; before the first of them the packages load.

An analysis shows itself as static HTML and as text. As for sessions (`ipybatch.jupyter.static_html`), it reads well
without its styles, and every text from outside is escaped and masked.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from ipybatch.backends.process.backend import Processes, processors
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.policy import check_count
from ipybatch.forecast.data.partitions import ADVICE, MAX_PARTITIONS, MAX_ROWS, SIZES, By, Partition, cut
from ipybatch.forecast.data.problems import frame_of, tell_bad_rows, tell_count, tell_help, tell_kinds
from ipybatch.forecast.data.repairs import Repair
from ipybatch.forecast.data.table import Problem, Table, read_table, settings_of
from ipybatch.forecast.models.model_registry import preload
from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.settings import Freq, Settings
from ipybatch.jupyter import static_html

_NOUNS = {"D": "days", "W": "weeks", "M": "months"}
PAYS_ABOVE_ROWS, PAYS_FROM_SITES, PAYS_FROM_PARTS = 5000, 5, 500
_SAMPLES = (50, 1000)  # series
_TIMEOUT_S = 30.0
_GOOD, _BAD = "#2da44e", "#e5484d"
_SHOWN = 20  # partitions
_FAILURES = (("a timeout", "timeout"), ("out of memory", "out_of_memory"), ("a row that cannot be used", "bad_row"))


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Training times measured on this machine.

    Attributes:
        start_s: Seconds until the first process has loaded its packages.
        fixed_s: Seconds of any partition, however small.
        per_series_s: Seconds of each series of a partition.
        samples: Number of series and seconds of each sample.
    """

    start_s: float
    fixed_s: float
    per_series_s: float
    samples: tuple[tuple[int, float], ...]

    def alone_s(self, series: int) -> float:
        """Return the seconds of one partition of that many series."""
        return self.fixed_s + self.per_series_s * series

    def all_s(self, series: Iterable[int], workers: int) -> float:
        """Return the seconds of all partitions, given the number of series of each in order."""
        free_s = [self.start_s] * workers
        for count in series:
            heapq.heappush(free_s, heapq.heappop(free_s) + self.alone_s(count))
        return max(free_s)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis:
    """Result of `analyze`; a notebook cell that ends in it displays a summary.

    Attributes:
        table: The clean table.
        by: How the table is cut, see `forecast`.
        horizon: Periods ahead.
        rows: Number of rows that can be used.
        sites: Number of sites.
        parts: Number of parts.
        series: Number of pairs of site and part.
        partitions: The largest first.
        series_of: Number of series of each partition.
        workers: Partitions trained at the same time.
        timing: Training times measured on this machine; None if they were not measured.
        notes: Notes for the user.
        problems: Problems of rows that cannot be used; a partition with such a row fails.
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
        """Estimated seconds of all partitions; None if nothing was measured."""
        return None if self.timing is None else self.timing.all_s(self.series_of, self.workers)

    @property
    def normal_s(self) -> float | None:
        """Estimated seconds of the same forecast as one job; None if nothing was measured."""
        return None if self.timing is None else self.timing.all_s([self.series], 1)

    @property
    def speed_up(self) -> float | None:
        """`normal_s` / `seconds`: below 1, partitions are slower than one job; None if nothing was measured."""
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
                one.bad_rows,
            )
            for one, series in zip(self.partitions, self.series_of, strict=True)
        ]
        columns = ["partition", "name", "sites", "parts", "series", "rows", "seconds", "problems"]
        return pd.DataFrame(rows, columns=columns)

    def bad_rows(self) -> pd.DataFrame:
        """Return all that is wrong with rows, one row per cell: row, column, value, reason, site, part.

        Rows are counted as the user does; those that a repair dropped are there too.
        """
        return frame_of((*self.problems, *self.table.dropped))

    def __repr__(self) -> str:
        lines = [f"{_work(self)}: {_verdict(self)[0].lower()}{_verdict(self)[1:]}, {self.why}"]
        lines += [f"  {line}" for line in (*_facts(self), *_problems(self), *_notes(self))]
        return mask("\n".join(lines))

    def _repr_html_(self) -> str:
        mark = f'<span style="color:{_GOOD}">✓</span>' if self.pays else "→"
        title = (
            f'<div style="font-size:15px"><b>{_work(self)}</b></div>'
            f'<div style="padding-top:2px">{mark} <b>{_verdict(self)}</b>: {static_html.said(self.why)}</div>'
        )
        title_line, *lines = _problems(self) or [""]
        problems = "".join(f"<div>{static_html.said(line)}</div>" for line in lines)
        if title_line:
            bad = f'<span style="color:{_BAD}">✕</span>'
            problems = f'<div style="padding-top:6px">{bad} <b>{static_html.said(title_line)}</b>{problems}</div>'
        facts = "".join(f"<div>{static_html.said(fact)}</div>" for fact in _facts(self))
        soft = 'style="padding-top:4px;opacity:0.7"'
        notes = "".join(f"<div {soft}>Note: {static_html.said(note)}</div>" for note in _notes(self))
        return (
            '<div style="max-width:920px;border:1px solid rgba(127,127,127,0.35);border-radius:8px;padding:12px 16px;'
            f'font-family:system-ui,sans-serif;font-size:13px;line-height:1.45">{title}{problems}'
            f'<div style="padding-top:6px">{facts}</div>{_partitions(self)}{notes}{_help()}</div>'
        )


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
    decimal: str | None = None,
    thousands: str | None = None,
    date_format: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    freq: Freq | None = None,
    repair: Repair | None = None,
    models: Iterable[Any] | None = None,
    workers: int | None = None,
    timed: bool = True,
) -> Analysis:
    """Analyze a demand table before it is forecast: its contents, its partitions, their time here, whether they pay.

    Args:
        demand: Site, part, date, quantity: a frame of pandas, polars or pyarrow; the path, folder, pattern or URL of
            text files, spreadsheets or .parquet files; or an open file.
        by: As for `forecast`.
        horizon: Periods ahead, >= 1.
        max_rows: Rows of a partition with ``by="size"``, >= 1.
        max_partitions: Largest number of partitions, >= 1; the smallest are merged.
        sites: With ``by=None``, the sites to forecast; default: all.
        parts: With ``by=None``, the parts to forecast; default: all.
        columns: The table's columns, e.g. ``{"site": "Lokasi"}``; the others are found by heading and cells.
        decimal: The decimal mark of the quantities, "." or ","; default: found.
        thousands: What separates their thousands: ",", ".", " " or "'", "" for nothing; default: found.
        date_format: How the dates are written, as for strftime, e.g. ``"%d/%m/%y"``; default: found.
        encoding: Of a text file, e.g. "latin-1"; default: found.
        sheet: Of a spreadsheet, its name; default: the one that has such a table.
        freq: "D", "W" or "M"; default: inferred from the dates.
        repair: As for `forecast`.
        models: As for `forecast`.
        workers: Partitions trained at the same time, >= 1; default: one per processor core.
        timed: Whether to train two samples on this machine, which takes a few seconds, to estimate the time of all.

    Raises:
        InputError: The table cannot be read, or an argument is invalid.
        MissingExtra: A package that reads the table is not installed.
    """
    workers = None if workers is None else check_count("workers", workers, low=1)
    table = read_table(
        demand,
        columns=columns,
        freq=freq,
        encoding=encoding,
        sheet=sheet,
        decimal=decimal,
        thousands=thousands,
        date_format=date_format,
        repair=repair,
    )
    settings = settings_of(table, horizon, models=models)
    made = cut(table, by, max_rows, max_partitions, sites=sites, parts=parts)
    frame = table.frame if by is not None else made.partitions[0].frame
    timing, untimed = _timed(frame, settings) if timed else (None, [])
    zeros = f"{_NOUNS[table.freq]} without a row count as zero from {table.start:%Y-%m-%d} on, the table's start"
    return Analysis(
        table=table,
        by=by,
        horizon=settings.horizon,
        rows=len(frame),
        sites=int(frame["site"].nunique()),
        parts=int(frame["part"].nunique()),
        series=int(frame.groupby(["site", "part"], sort=False, observed=True).ngroups),
        partitions=tuple(made.partitions),
        series_of=tuple(one.series for one in made.partitions),
        workers=min(workers or processors(), len(made.partitions)),
        timing=timing,
        notes=(*table.notes, f"{zeros}, for every series", *made.notes, *untimed),
        problems=table.problems,
    )


def time_it(frame: pd.DataFrame, settings: Settings) -> Timing:
    """Measure the training time on this machine, which takes a few seconds.

    Raises:
        Exception: Training failed, or took longer than half a minute.
    """
    samples = [sample(frame, series) for series in _SAMPLES]
    with ThreadPoolExecutor(1) as pool:  # a cell has a loop of its own already
        return pool.submit(lambda: asyncio.run(_tried(samples, settings))).result()


def sample(frame: pd.DataFrame, series: int) -> pd.DataFrame:
    """Return every n-th series of a sorted table, about ``series`` of them, or all if it has fewer."""
    numbers = frame.groupby(["site", "part"], sort=False, observed=True).ngroup().to_numpy()
    step = max(1, (int(numbers[-1]) + 1) // series)
    made: pd.DataFrame = frame.loc[numbers % step == 0].reset_index(drop=True)
    return made


def line(samples: Iterable[tuple[int, float]], start_s: float) -> Timing:
    """Return the line through the first and the last sample; its slope and offset are never negative."""
    tried = tuple(samples)
    (few, short_s), (many, long_s) = tried[0], tried[-1]
    per_series_s = max(0.0, (long_s - short_s) / (many - few)) if many > few else 0.0
    fixed_s = max(0.0, short_s - per_series_s * few)
    return Timing(start_s=max(0.0, start_s), fixed_s=fixed_s, per_series_s=per_series_s, samples=tried)


async def _tried(samples: list[pd.DataFrame], settings: Settings) -> Timing:
    backend = Processes(1, timeout_s=_TIMEOUT_S, preload=preload(settings.models))
    await backend.open(1)
    try:
        seconds = []
        for frame in (samples[0], *samples):  # the first time the packages load
            began_s = perf_counter()
            await backend.run(run_partition, (frame, settings))
            seconds.append(perf_counter() - began_s)
    finally:
        await backend.close()
    counts = [len(np.unique(frame.groupby(["site", "part"], sort=False, observed=True).ngroup())) for frame in samples]
    return line(zip(counts, seconds[1:], strict=True), seconds[0] - seconds[1])


def _timed(frame: pd.DataFrame, settings: Settings) -> tuple[Timing | None, list[str]]:
    try:
        return time_it(frame, settings), []
    except Exception as error:  # whatever a model raises: how long it takes is then not known, all else is
        return None, [f"how long it takes is not known: a sample could not be trained: {error}"]


def _work(analysis: Analysis) -> str:
    """Return what the table is made of."""
    counts = ((analysis.rows, "row"), (analysis.sites, "site"), (analysis.parts, "part"))
    return ", ".join(_counted(*count) for count in counts)


def _verdict(analysis: Analysis) -> str:
    """Return whether batch mode pays."""
    return "Batch mode pays" if analysis.pays else "One job will do (by=None)"


def _facts(analysis: Analysis) -> list[str]:
    """Return what is known of the forecast, a line each."""
    table = analysis.table
    many, largest = _counted(len(analysis.partitions), "partition"), f"{analysis.partitions[0].rows:,}"
    facts = [
        *table.understood.lines(),
        f"{_counted(analysis.series, 'series')}; {many}, the largest of {largest} rows; {analysis.workers:,} at a time",
    ]
    timing, speed_up = analysis.timing, analysis.speed_up
    if timing is None or speed_up is None or analysis.seconds is None or analysis.normal_s is None:
        return facts
    quicker = f"{speed_up:.1f} times as fast" if speed_up >= 1 else "no quicker here, but one that fails harms no other"
    beside = "" if analysis.by is None else f", as one job {static_html.span(analysis.normal_s)}: {quicker}"
    estimate = f"estimated {static_html.span(analysis.seconds)}{beside}"
    return [*facts, f"{estimate} (measured here with {timing.samples[-1][0]:,} series)"]


def _problems(analysis: Analysis) -> list[str]:
    """Return how many rows cannot be used, a line for each kind of problem, and what helps; nothing where all can."""
    found = analysis.problems
    return [tell_count(found), *tell_kinds(found), tell_help(found)] if found else []


def _notes(analysis: Analysis) -> list[str]:
    """Return the notes, without that which says of rows what `_problems` says."""
    told = tell_bad_rows(analysis.problems, is_dropping=False)
    return [note for note in analysis.notes if note not in told]


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 or word == 'series' else 's'}"


def _partitions(analysis: Analysis) -> str:
    timing = analysis.timing
    has_sites = any(len(one.sites) != 1 for one in analysis.partitions)  # else a column of ones
    titles = ["Partition", *(["Sites"] if has_sites else []), "Parts", "Rows", *(["Estimated"] if timing else []), ""]
    rows = []
    for one, series in list(zip(analysis.partitions, analysis.series_of, strict=True))[:_SHOWN]:
        seconds = [static_html.span(timing.alone_s(series))] if timing else []
        bad = f"{_counted(one.bad_rows, 'row')} cannot be used"
        problems = f'<span style="color:{_BAD}">✕</span> {bad}' if one.problems else ""
        name = static_html.said(f"{one.number} ({one.name})")
        sites = [f"{len(one.sites):,}"] if has_sites else []
        rows.append([name, *sites, f"{one.parts:,}", f"{one.rows:,}", *seconds, problems])
    columns = [(title, 0 < at < len(titles) - 1) for at, title in enumerate(titles)]
    sheet = static_html.table(static_html.Sheet(columns, rows).filled(), margin="8px 0 4px 0")
    more = len(analysis.partitions) - _SHOWN
    return f"{sheet}<div>and {more:,} smaller ones</div>" if more > 0 else sheet


def _help() -> str:
    """Return how many partitions a size makes, and what helps when one fails; folded away."""
    sizes = "; ".join(f"{rows:,} rows: {partitions}" for rows, partitions in SIZES)
    helps = "".join(f"<div>{failure}: {static_html.said(ADVICE[kind])}</div>" for failure, kind in _FAILURES)
    return (
        '<details><summary style="padding-top:6px">How many partitions, and what helps when one fails</summary>'
        f'<div>with by="size" and {MAX_ROWS:,} rows to a partition, {sizes} partitions</div>{helps}</details>'
    )
