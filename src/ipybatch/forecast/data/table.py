"""Table of a user's demand: its clean rows, and the problems of the others.

    reading --> columns --> names, dates, numbers --> problems --> Table

A row that cannot be used is left out of the frame and stands among the problems, by column, row and value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.columns import OURS, check_freq, find_columns, infer_freq, read_dates, span
from ipybatch.forecast.data.names import Keys, read_names
from ipybatch.forecast.data.problems import TOLD, Problem, find_problems, refuse, tell
from ipybatch.forecast.data.reading import Raw, read
from ipybatch.forecast.settings import AUTO, Freq, Settings

__all__ = ["Problem", "Table", "read_table", "refuse", "settings_of", "tell"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A clean demand table.

    Attributes:
        frame: site, part (categories), date, quantity, then the user's other columns; one row per (site, part, date),
            sorted.
        problems: The problems of the rows that are left out, in the order of the rows.
        notes: The changes made to the rows that are kept.
        freq: "D", "W" or "M": how far apart the dates lie.
        columns: For each of site, part, date and quantity the user's name of the column.
        rows: How many rows the user's table has.
        start: The first day that the dates cover; zeros are filled from here for every series.
        end: The last day that they cover; the forecast of every series begins after it.
    """

    frame: pd.DataFrame
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    freq: Freq
    columns: dict[str, Any]
    rows: int
    start: pd.Timestamp
    end: pd.Timestamp


def read_table(
    demand: Any,
    *,
    columns: Mapping[str, Any] | None = None,
    freq: Freq | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Table:
    """Return a user's demand as a clean table.

    Args:
        demand: Whatever `ipybatch.forecast.data.reading.read` reads, or a `Table`.
        columns: The table's columns, e.g. ``{"site": "Lokasi"}``; the others are found by name.
        freq: "D", "W" or "M"; None infers it.
        encoding: Of a text file; None finds it.
        sheet: Of a spreadsheet; None finds it.

    Raises:
        InputError: The table cannot be read, a column is missing, or no row can be used.
        MissingExtra: The package that reads the file is not installed.
    """
    check_freq(freq)
    if isinstance(demand, Table):
        return demand
    given = read(demand, encoding=encoding, sheet=sheet, columns=columns)
    raw = given.frame
    cells = _cells(given, find_columns(list(raw.columns), columns))
    problems = find_problems(raw, cells.names, cells.keys, cells.row_of, cells.wrong)
    problems = sorted([*given.problems, *problems], key=lambda problem: problem.row)
    used = np.flatnonzero(~cells.is_wrong)
    if not len(raw):
        msg = "demand must have rows, got none: look whether the file is the right one"
        raise InputError(msg)
    if not len(used):
        msg = f"demand must have rows that can be used, got {len(raw):,} of which none can: {tell(problems)}"
        raise InputError(msg)
    used, starts = _sorted(cells, used)
    frame = _frame(cells, used, starts)
    freq = freq or infer_freq(frame["date"])
    start, end = span(frame["date"], freq)
    return Table(
        frame=frame,
        problems=tuple(problems),
        notes=(*given.notes, *_notes(cells, len(used) - len(starts)), *_lonely(cells, used[starts])),
        freq=freq,
        columns=cells.names,
        rows=len(raw) + len(given.problems),
        start=start,
        end=end,
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
        models=AUTO if models is None else tuple(models),
        **others,
    )


@dataclass(frozen=True, slots=True)
class _Cells:
    """The four columns as they were read, a value for every row of the user's.

    Attributes:
        raw: The user's table.
        names: What the user calls the columns.
        keys: Sites and parts.
        dates: Missing where there is none.
        quantities: NaN where there is none.
        row_of: The rows as the user counts them.
        wrong: For each column whether its cell cannot be used.
    """

    raw: pd.DataFrame
    names: dict[str, Any]
    keys: dict[str, Keys]
    dates: Any
    quantities: Any
    row_of: Any
    wrong: dict[str, Any]

    @property
    def is_wrong(self) -> Any:
        """Whether some cell of the row cannot be used."""
        return np.logical_or.reduce(list(self.wrong.values()))

    @property
    def others(self) -> list[Any]:
        """The user's other columns."""
        return [name for name in self.raw.columns if name not in set(self.names.values())]


def _cells(given: Raw, names: dict[str, Any]) -> _Cells:
    raw = given.frame
    keys = {ours: read_names(raw[names[ours]]) for ours in ("site", "part")}
    dates = read_dates(raw[names["date"]], str(names["date"])).to_numpy()
    quantities = pd.to_numeric(raw[names["quantity"]], errors="coerce").astype("float64").to_numpy()
    wrong = {
        "site": keys["site"].codes < 0,
        "part": keys["part"].codes < 0,
        "date": np.isnat(dates),
        "quantity": ~(np.isfinite(quantities) & (quantities >= 0)),
    }
    return _Cells(raw, names, keys, dates, quantities, raw.index.to_numpy() + given.first, wrong)


def _sorted(cells: _Cells, used: Any) -> tuple[Any, Any]:
    """Return the rows by site, part and date, and where in them each (site, part, date) begins."""
    days = cells.dates.astype("datetime64[D]").astype(np.int64)
    columns = [cells.keys["site"].codes, cells.keys["part"].codes, days]
    used = used[np.lexsort([column[used] for column in reversed(columns)])]
    is_new = np.ones(len(used), dtype=bool)
    is_new[1:] = np.logical_or.reduce([column[used[1:]] != column[used[:-1]] for column in columns])
    return used, np.flatnonzero(is_new)


def _frame(cells: _Cells, used: Any, starts: Any) -> pd.DataFrame:
    kept = used[starts]
    names = {ours: pd.Categorical.from_codes(keys.codes[kept], keys.names) for ours, keys in cells.keys.items()}
    frame = pd.DataFrame(names, copy=False)
    frame["date"] = cells.dates[kept]
    frame["quantity"] = np.add.reduceat(cells.quantities[used], starts)
    for name in cells.others:
        if name not in OURS:
            frame[name] = cells.raw[name].array[kept]
    return frame


def _notes(cells: _Cells, summed: int) -> list[str]:
    repeats = f"{summed:,} of {len(cells.raw):,} rows repeat a site, part and date: their quantities were summed"
    notes = [repeats] if summed else []
    for ours, keys in cells.keys.items():
        if keys.stripped:
            notes.append(f"{keys.stripped:,} {ours} names had blanks around them: these were taken away")
    lost = [name for name in cells.others if name in OURS]
    return [*notes, *(f"the column {name!r} was left out: columns= names another one" for name in lost)]


def _lonely(cells: _Cells, kept: Any) -> list[str]:
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
