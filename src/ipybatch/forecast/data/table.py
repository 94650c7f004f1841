"""Table of a user's demand: its clean rows, and the problems of the others.

    reading --> columns --> names, dates, numbers --> problems --> repairs --> Table

A row that cannot be used is left out of the frame and stands among the problems, by column, row and value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.cells import Cells, Style, cells_of
from ipybatch.forecast.data.columns import OURS, choose_columns
from ipybatch.forecast.data.duplicates import merge, near_duplicates, tell_duplicates
from ipybatch.forecast.data.periods import check_freq, infer_freq, span, told_gap, told_period
from ipybatch.forecast.data.problems import (
    LARGEST,
    TOLD,
    BadRows,
    Problem,
    find_problems,
    refuse,
    tell,
    tell_bad_rows,
    tell_far_quantities,
)
from ipybatch.forecast.data.reading import read
from ipybatch.forecast.data.repairs import (
    DROP_BAD_ROWS,
    MERGE,
    NET_RETURNS,
    Repair,
    Returned,
    check_repair,
    net_returns,
    tell_returns,
)
from ipybatch.forecast.data.totals import find_totals
from ipybatch.forecast.data.understanding import Understanding
from ipybatch.forecast.settings import AUTO, Freq, Settings, as_models

__all__ = ["READING", "Problem", "Table", "read_table", "refuse", "settings_of", "tell"]

# Arguments of `read_table` by which a user's table is read: whatever takes a table has them.
READING = ("columns", "freq", "encoding", "sheet", "decimal", "thousands", "date_format", "repair")
_LARGEST_NUMBER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A clean demand table.

    Attributes:
        frame: site, part (categories), date, quantity, then the user's other columns; one row per (site, part, date),
            sorted.
        problems: The problems of the rows that are left out, in the order of the rows.
        dropped: Those of the rows that the user let drop.
        notes: The changes made to the rows that are kept.
        freq: "D", "W" or "M": how far apart the dates lie.
        columns: For each of site, part, date and quantity the user's name of the column.
        rows: How many rows the user's table has.
        start: The first day that the dates cover; zeros are filled from here for every series.
        end: The last day that they cover; the forecast of every series begins after it.
        understood: How it was read.
        returned: What repairs took off its rows, and when it came back; None for nothing.
    """

    frame: pd.DataFrame
    problems: tuple[Problem, ...]
    dropped: tuple[Problem, ...]
    notes: tuple[str, ...]
    freq: Freq
    columns: dict[str, Any]
    rows: int
    start: pd.Timestamp
    end: pd.Timestamp
    understood: Understanding
    returned: Returned | None = None


def read_table(
    demand: Any,
    *,
    columns: Mapping[str, Any] | None = None,
    freq: Freq | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
    date_format: str | None = None,
    repair: Repair | None = None,
) -> Table:
    """Return a user's demand as a clean table.

    Args:
        demand: Whatever `ipybatch.forecast.data.reading.read` reads, or a `Table`.
        columns: The table's columns, e.g. ``{"site": "Lokasi"}``; the others are found by name.
        freq: "D", "W" or "M"; None infers it.
        encoding: Of a text file; None finds it.
        sheet: Of a spreadsheet; None finds it.
        decimal: The decimal mark of the quantities, "." or ","; None finds it.
        thousands: What separates their thousands, "" for nothing; None finds it.
        date_format: How the dates are written, as for strftime; None finds it.
        repair: Which of `REPAIRS` to make; default: none.

    Raises:
        Undecided: Several readings of the quantities or the dates fit; an argument decides.
        BadRows: No row can be used.
        InputError: The table cannot be read, a column is missing or may be several, or there is no such repair.
        MissingExtra: A package that reads the table is not installed.
    """
    check_freq(freq)
    asked = check_repair(repair)
    if isinstance(demand, Table):
        return demand
    given = read(demand, encoding=encoding, sheet=sheet, columns=columns)
    raw = given.frame
    chosen = choose_columns(raw, columns)
    cells = cells_of(given, chosen.names, Style(decimal, thousands, date_format, freq))
    cells, repaired = _repaired(cells, asked)
    problems = find_problems(raw, cells.names, cells.keys, cells.row_of, cells.wrong, reason=cells.reason)
    problems = sorted([*given.problems, *problems], key=lambda problem: problem.row)
    used = np.flatnonzero(~cells.is_wrong)
    if not len(raw):
        msg = "demand must have rows, got none: look whether the file is the right one"
        raise InputError(msg)
    if not len(used):
        msg = f"demand must have rows that can be used, got {len(raw):,} of which none can: {tell(problems)}"
        raise BadRows(msg, problems)
    used, starts = _sorted(cells, used)
    frame = _frame(cells, used, starts)
    is_total, totals = find_totals(frame)
    if totals:
        used, starts = _without(used, starts, is_total)
        frame = _frame(cells, used, starts)
        for ours in ("site", "part"):
            frame[ours] = frame[ours].cat.remove_unused_categories()
    is_dropping = DROP_BAD_ROWS in asked
    period = freq or cells.dated.period or infer_freq(frame["date"])
    start, end = span(frame["date"], period)
    understood = Understanding(
        columns=cells.names,
        freq=period,
        is_inferred=freq is None,
        first=start,
        last=end,
        decimal=cells.numbers.decimal,
        thousands=cells.numbers.thousands,
        dates=cells.dated.style,
        encoding=given.encoding,
        sep=given.sep,
        notes=(
            *chosen.notes,
            *cells.dated.notes,
            *cells.numbers.notes,
            *_told_span(cells, frame["date"], period, is_inferred=freq is None),
        ),
    )
    return Table(
        frame=frame,
        problems=() if is_dropping else tuple(problems),
        dropped=tuple(problems) if is_dropping else (),
        notes=(
            *given.notes,
            *understood.notes,
            *_notes(cells, len(used) - len(starts)),
            *totals,
            *repaired,
            *tell_bad_rows(problems, is_dropping=is_dropping),
            *tell_far_quantities(cells.quantities[used], cells.row_of[used]),
            *_lonely(cells, used[starts]),
        ),
        freq=period,
        columns=cells.names,
        rows=len(raw) + len(given.problems),
        start=start,
        end=end,
        understood=understood,
        returned=_returned(cells, used, starts),
    )


def settings_of(table: Table, horizon: int, *, models: Iterable[Any] | None = None, **others: Any) -> Settings:
    """Return the settings that forecast a whole table; ``others`` are fields of `Settings`.

    Raises:
        InputError: A setting is invalid.
    """
    return Settings(
        horizon=horizon,
        freq=table.freq,
        start=table.start.date().isoformat(),
        end=table.end.date().isoformat(),
        models=AUTO if models is None else as_models(models),
        **others,
    )


def _repaired(cells: Cells, asked: frozenset[str]) -> tuple[Cells, list[str]]:
    """Return the cells with names merged and returns netted, where that is asked for, and what was or may be done."""
    told, merged = [], {}
    for ours, keys in cells.keys.items():
        groups = near_duplicates(keys)
        merged[ours] = merge(keys, groups) if MERGE in asked else keys
        told += tell_duplicates(keys, groups, ours, is_merged=MERGE in asked)
    cells = replace(cells, keys=merged)
    if NET_RETURNS not in asked:
        return cells, told
    is_known = ~np.logical_or.reduce([cells.wrong[ours] for ours in ("site", "part", "date")])
    is_return = is_known & (cells.quantities < 0) & (cells.quantities >= -LARGEST)
    rows = np.flatnonzero(is_known & (is_return | ~cells.wrong["quantity"]))
    series = cells.keys["site"].codes * len(cells.keys["part"].names) + cells.keys["part"].codes
    days = cells.dates[rows].astype("datetime64[D]").astype(np.int64)
    netted = net_returns(series[rows], days, cells.quantities[rows])
    told += tell_returns(is_return[rows], cells.quantities[rows], netted, cells.row_of[rows])
    quantities = cells.quantities.copy()
    quantities[rows] = netted.quantities
    wrong = {**cells.wrong, "quantity": cells.wrong["quantity"] & ~is_return}
    off, back, pieces = netted.taken.T
    taken = rows[off.astype(int)], rows[back.astype(int)], pieces
    return replace(cells, numbers=replace(cells.numbers, values=quantities), wrong=wrong, taken=taken), told


def _returned(cells: Cells, used: Any, starts: Any) -> Returned | None:
    """Return what was taken off the frame's rows, of which each is the sum of some of the user's."""
    if cells.taken is None or not len(cells.taken[0]):
        return None
    off, back, pieces = cells.taken
    of_row = np.full(len(cells.raw), -1)
    of_row[used] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(used)))
    return Returned(of_row[off], cells.dates[back].astype("datetime64[D]"), pieces)


def _sorted(cells: Cells, used: Any) -> tuple[Any, Any]:
    """Return the rows by site, part and date, and where in them each (site, part, date) begins."""
    days = cells.dates[used].astype("datetime64[D]").astype(np.int64)
    days -= days.min()
    parts = len(cells.keys["part"].names)
    number = cells.keys["site"].codes[used] * parts  # one number for all three: sorted in a third of the time and room
    number += cells.keys["part"].codes[used]
    if len(cells.keys["site"].names) * parts * (int(days.max()) + 1) > _LARGEST_NUMBER:
        number = np.unique(number, return_inverse=True)[1]
    number *= days.max() + 1
    number += days
    del days
    order = np.argsort(number, kind="stable")
    is_new = np.ones(len(used), dtype=bool)
    is_new[1:] = np.diff(number[order]) != 0
    return used[order], np.flatnonzero(is_new)


def _without(used: Any, starts: Any, is_lost: Any) -> tuple[Any, Any]:
    """Return rows and where each (site, part, date) begins, as `_sorted` does, without some of these."""
    counts = np.diff(np.append(starts, len(used)))
    return used[~np.repeat(is_lost, counts)], np.r_[0, np.cumsum(counts[~is_lost])[:-1]]


def _frame(cells: Cells, used: Any, starts: Any) -> pd.DataFrame:
    kept = used[starts]
    names = {ours: pd.Categorical.from_codes(keys.codes[kept], keys.names) for ours, keys in cells.keys.items()}
    frame = pd.DataFrame(names, copy=False)
    frame["date"] = cells.dates[kept]
    frame["quantity"] = np.add.reduceat(cells.numbers.values[used], starts)
    for name in cells.others:
        if name not in OURS:
            frame[name] = cells.raw[name].array[kept]
    return frame


def _notes(cells: Cells, summed: int) -> list[str]:
    repeats = f"{summed:,} of {len(cells.raw):,} rows repeat a site, part and date: their quantities were summed"
    notes = [repeats] if summed else []
    for ours, keys in cells.keys.items():
        notes += keys.notes(ours)
    lost = [name for name in cells.others if name in OURS]
    return [*notes, *(f"the column {name!r} was left out: columns= names another one" for name in lost)]


def _told_span(cells: Cells, days: pd.Series[Any], freq: Freq, *, is_inferred: bool) -> list[str]:
    """Tell of a period that is not certain, of a long gap, of dates far from all others, and of those to come."""
    told = [doubt] if is_inferred and (doubt := told_period(days, freq)) else []
    if cells.is_far.any():
        at = np.flatnonzero(cells.is_far)
        first, last = cells.body
        some = ", ".join(f"{cells.dates[one].astype('datetime64[D]')} (row {cells.row_of[one]})" for one in at[:TOLD])
        more = f" and {len(at) - TOLD:,} more" if len(at) > TOLD else ""
        rows = "1 date lies" if len(at) == 1 else f"{len(at):,} dates lie"
        told.append(f"{rows} far from all others, {first} to {last}: {some}{more}; correct or drop these rows")
    told += [gap] if (gap := told_gap(days, freq)) else []
    today = pd.Timestamp.today().normalize()
    if ahead := int((days > today).sum()):
        rows = "1 row lies" if ahead == 1 else f"{ahead:,} rows lie"
        told.append(f"{rows} ahead of today, {today:%Y-%m-%d}, up to {days.max():%Y-%m-%d}: forecasts begin after that")
    return told


def _lonely(cells: Cells, kept: Any) -> list[str]:
    """Name the sites that have one row: the first of them, by name."""
    sites = cells.keys["site"]
    codes = sites.codes[kept]
    lonely = np.flatnonzero(np.bincount(codes, minlength=len(sites.names)) == 1).tolist()
    rows = [cells.row_of[kept[np.flatnonzero(codes == site)[0]]] for site in lonely[:TOLD]]
    told = [f"{sites.names[site]} (row {row})" for site, row in zip(lonely, rows, strict=False)]
    if not told:
        return []
    more = f" and {len(lonely) - TOLD:,} more" if len(lonely) > TOLD else ""
    one = "site has" if len(lonely) == 1 else "sites have"
    return [f"{len(lonely):,} {one} one row only, and forecasts that rest on little: {', '.join(told)}{more}"]
