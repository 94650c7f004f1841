"""Table of a user's demand: its clean rows, and the problems of the others.

A row that cannot be used is left out of the frame and stands among the problems, by column, row and value:

    Invalid date format '31/13/2025' in row 4102

Rows are counted as the user sees them: in a CSV file as a spreadsheet does, where the titles are row 1; in a frame by
position from 0, what ``demand.iloc[row]`` takes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from ipybatch.errors import InputError, MissingExtra
from ipybatch.forecast.data.columns import OURS, check_freq, find_columns, infer_freq, read_dates, span
from ipybatch.forecast.settings import AUTO, Freq, Settings

_TOLD = 5  # problems in one message


class Problem(msgspec.Struct, frozen=True):
    """A problem of one cell, as one line of text.

    Attributes:
        column: The user's name of the column.
        row: Its row, counted as the user does.
        value: The cell's text.
        reason: The problem, with the value.
        site: The row's site; None if it is missing.
        part: The row's part; None if it is missing.
    """

    column: str
    row: int
    value: str
    reason: str
    site: str | int | None = None
    part: str | int | None = None

    def __str__(self) -> str:
        return f"{self.reason} in row {self.row}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A clean demand table.

    Attributes:
        frame: site, part, date, quantity, then the user's other columns; one row per (site, part, date), sorted.
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


def read_table(demand: Any, *, columns: Mapping[str, Any] | None = None, freq: Freq | None = None) -> Table:
    """Return a user's demand as a clean table.

    Args:
        demand: A DataFrame, the path of a .csv or .parquet file, an open binary file with CSV in it, or a `Table`.
        columns: The table's columns, e.g. ``{"site": "Lokasi"}``; the others are found by name.
        freq: "D", "W" or "M"; None infers it.

    Raises:
        InputError: The table cannot be read, a column is missing, or no row can be used.
        MissingExtra: The package that reads .parquet files is not installed.
    """
    check_freq(freq)
    if isinstance(demand, Table):
        return demand
    raw, first = _raw(demand)
    cells = _cells(raw, find_columns(list(raw.columns), columns), first)
    problems = _problems(cells)
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
        notes=(*_notes(cells, len(used) - len(starts)), *_lonely(cells, used[starts])),
        freq=freq,
        columns=cells.names,
        rows=len(raw),
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


def refuse(problems: Sequence[Problem]) -> None:
    """Refuse a table with problems.

    Raises:
        InputError: There are problems; names the first few, each with its row.
    """
    if problems:
        msg = f"demand must have no row that cannot be used, got {tell(problems)}: correct or drop these rows"
        raise InputError(msg)


def tell(problems: Sequence[Problem | str]) -> str:
    """Return the first problems as one line."""
    rest = f" and {len(problems) - _TOLD:,} more" if len(problems) > _TOLD else ""
    return "; ".join(map(str, problems[:_TOLD])) + rest


@dataclass(frozen=True, slots=True)
class _Keys:
    """A column of names as numbers: in the order of the names, -1 for missing."""

    codes: Any
    names: pd.Index[Any]
    stripped: int


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
    keys: dict[str, _Keys]
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


def _cells(raw: pd.DataFrame, names: dict[str, Any], first: int) -> _Cells:
    keys = {ours: _keys(raw[names[ours]]) for ours in ("site", "part")}
    dates = read_dates(raw[names["date"]], str(names["date"])).to_numpy()
    quantities = pd.to_numeric(raw[names["quantity"]], errors="coerce").astype("float64").to_numpy()
    wrong = {
        "site": keys["site"].codes < 0,
        "part": keys["part"].codes < 0,
        "date": np.isnat(dates),
        "quantity": ~(np.isfinite(quantities) & (quantities >= 0)),
    }
    return _Cells(raw, names, keys, dates, quantities, raw.index.to_numpy() + first, wrong)


def _keys(values: pd.Series[Any]) -> _Keys:
    """Number the names of a column, without the blanks around them; whole numbers stay numbers."""
    codes, found = pd.factorize(values)
    distinct = np.asarray(found, dtype=object)  # Arrow's texts are slow to go through one by one
    plain = [_plain(value) for value in distinct]
    kinds = {type(name) for name in plain if name != ""}
    names = plain if kinds == {int} else [str(name) for name in plain]
    known = sorted({name for name in names if name != ""})
    rank = {name: at for at, name in enumerate(known)}
    to_rank = np.array([*(rank.get(name, -1) for name in names), -1], dtype=np.int64)
    is_stripped = np.array([*(isinstance(old, str) and old != old.strip() != "" for old in distinct), False])
    return _Keys(to_rank[codes], pd.Index(known), int(is_stripped[codes].sum()))


def _plain(value: Any) -> str | int:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)  # whole numbers of a column that had gaps
    return str(value)


def _raw(demand: Any) -> tuple[pd.DataFrame, int]:
    """Return the table as it is, numbered from 0, and what to add for the user's row."""
    if isinstance(demand, pd.DataFrame):
        return demand.reset_index(drop=True), 0
    if isinstance(demand, str | os.PathLike) and Path(demand).suffix.lower() == ".parquet":
        try:
            return pd.read_parquet(demand).reset_index(drop=True), 0
        except ImportError:
            raise MissingExtra("forecast") from None
        except (OSError, ValueError) as error:
            raise _unread(str(demand), error) from None
    if isinstance(demand, str | os.PathLike) or hasattr(demand, "read"):
        return _read_csv(demand), 2
    msg = f"demand must be a DataFrame or the path of a .csv or .parquet file, got {type(demand).__name__}"
    raise InputError(msg)


def _read_csv(source: Any) -> pd.DataFrame:
    """Return the file's cells as text, without the rows that are blank; their numbers stay."""
    name = str(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "the file")
    try:
        data = Path(source).read_bytes() if isinstance(source, str | os.PathLike) else source.read()
        head = data.split(b"\n", 1)[0]
        sep = max(",;\t|", key=lambda mark: head.count(mark.encode()))
        cells = pd.read_csv(
            io.BytesIO(data), sep=sep, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig"
        )
    except (OSError, UnicodeDecodeError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise _unread(name, error) from None
    return cells[(cells != "").any(axis=1)] if len(cells) else cells


def _unread(name: str, error: Exception) -> InputError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
    return InputError(f"demand must be a table that can be read (.csv in UTF-8, or .parquet), got {name!r}: {why}")


def _problems(cells: _Cells) -> list[Problem]:
    found = []
    for at in np.flatnonzero(cells.is_wrong).tolist():
        site, part = (_key_at(cells.keys[ours], at) for ours in ("site", "part"))
        for ours in OURS:
            if cells.wrong[ours][at]:
                value = cells.raw[cells.names[ours]].iloc[at]
                shown = "" if _is_missing(value) else str(value)
                name, row = str(cells.names[ours]), int(cells.row_of[at])
                found.append(Problem(name, row, shown, _reason(ours, value, shown), site, part))
    return found


def _key_at(keys: _Keys, at: int) -> str | int | None:
    """Return a name as Python's own number or text, which JSON can hold."""
    if keys.codes[at] < 0:
        return None
    name = keys.names[keys.codes[at]]
    return name.item() if isinstance(name, np.generic) else name  # type: ignore[no-any-return]  # numpy's


def _reason(ours: str, value: Any, shown: str) -> str:
    if not shown.strip():
        return f"Missing {ours}"
    short = shown if len(shown) <= 40 else f"{shown[:39]}…"
    if ours == "date":
        return f"Invalid date format {short!r}"
    number = pd.to_numeric(pd.Series([value]), errors="coerce").iloc[0]
    return f"Negative {ours} {short}" if number < 0 and np.isfinite(number) else f"Invalid {ours} {short!r}"


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and np.isnan(value))


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
    frame = pd.DataFrame({ours: keys.names.take(keys.codes[kept]) for ours, keys in cells.keys.items()})
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
    rows = [cells.row_of[kept[np.flatnonzero(codes == site)[0]]] for site in lonely[:_TOLD]]
    told = [f"{sites.names[site]} (row {row})" for site, row in zip(lonely, rows, strict=False)]
    if not told:
        return []
    more = f" and {len(lonely) - _TOLD:,} more" if len(lonely) > _TOLD else ""
    one = "site has" if len(lonely) == 1 else "sites have"
    return [f"{len(lonely):,} {one} one row only, and forecasts that rest on little: {', '.join(told)}{more}"]
