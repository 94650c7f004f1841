"""Grid: from the cells of a text file or a sheet to a table with titles.

    Sales report 2025                          above the titles: left out, and told
    site,part,date,quantity                    titles: the row that names most of the columns that are looked for
    Kendari,P1,2025-07-01,5                    rows
    Kendari,P1,2025-07-02,7,,                  trailing separators: the same row
    Kendari,P1,2025-07-03,1,234                a problem: 1 or 1,234 pieces?
                                               blank: no row
    Total,,,1234                               a total: left out, and told

Rows keep the numbers that a spreadsheet shows. A wide table, a column a week, becomes a long one: its titles are dates,
so that nothing has to be guessed, and whoever keeps demand like that can seldom turn it round by themselves. Its empty
cells are periods of which nothing is said; they are left out, as a row that is not there.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.columns import OURS, UnknownColumns, find_columns
from ipybatch.forecast.data.dates import looks_like_dates
from ipybatch.forecast.data.problems import Problem

_LOOKED_AT = 30  # rows in which the titles are looked for
_TOLD = 3
_FEWEST_DATES = 3  # among titles, that make a table wide
_MOST_LOOKED_AT = 10_000  # rows that may be totals
_GROUPED = 0.6  # share of filled cells under which names seem to hold for the rows below
_NARROW = 3  # with fewer columns a total looks like a row
TOTALS = {  # words that begin or end the name of a row that is a total
    "total", "totals", "totales", "totaal", "totale", "grand", "subtotal", "sum", "summe", "gesamt", "gesamtsumme",
    "insgesamt", "zwischensumme", "somme", "général", "suma", "jumlah", "keseluruhan", "tổng", "cộng", "итого", "всего",
    "合計", "合计", "总计", "小計", "小计",
}  # fmt: skip
_NUMBER = re.compile(r"[\s\d.,()+\-\u2212%'\u00a0\u202f$\u20ac\u00a3]*\d[\s\d.,()+\-%'\u00a0\u202f$\u20ac\u00a3]*")
_BARE = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])([0-3]\d)?|4\d{4}")  # dates that are one number: 202507, 45839
_YEARLESS = re.compile(r"\d{1,2}[-/. ]+([^\W\d]{3,9}|\d{1,2})\.?")  # 03/07, 3 Jul
_LONGEST = 40  # of a title that is a date


@dataclass(frozen=True, slots=True, eq=False)
class LaidOut:
    """A table with titles.

    Attributes:
        frame: Its rows; the index is the number of the record in the file, from 0 on.
        notes: What was left out.
        problems: Rows that are left out as they cannot be used; the first row of the file is 1.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]


def lay_out(cells: pd.DataFrame, name: str, named: Collection[Any] = (), *, is_text: bool) -> LaidOut:
    """Return the table that stands in a grid of cells.

    Args:
        cells: "" or missing where a cell is empty; numbered from 0, across and down.
        name: What the user calls the file, for messages.
        named: Columns that the user names.
        is_text: Whether cells were found by their separators, so that one too many shifts the others.

    Raises:
        InputError: There is no row, no row of titles, or most rows have more cells than it.
    """
    filled = np.column_stack([_is_filled(cells[at]) for at in cells.columns]) if cells.size else np.zeros((0, 0), bool)
    if not filled.any():
        msg = f"demand must have rows, got none in {name!r}: look whether the file is the right one"
        raise InputError(msg)
    grid = _Grid(cells, filled, filled.sum(axis=1), name)
    top = _title_row(grid, named)
    titles = [_title(value) for value in cells.iloc[top]]
    titles = titles[: max((at + 1 for at, title in enumerate(titles) if title), default=0)]
    is_row = grid.counts > 0
    is_row[: top + 1] = False
    notes = _above(grid, top)
    problems: list[Problem] = []
    if is_text:
        _refuse_no_titles(grid, titles, is_row, named)
        titles, longer = _longer(grid, is_row, titles)
        problems = [_shifted(cells, at, len(titles)) for at in longer]
        is_row[longer] = False
    left, told = _not_rows(grid, is_row, titles)
    is_row[left] = False
    rows = np.flatnonzero(is_row)
    is_all = len(rows) > 0 and len(rows) == len(cells) - rows[0]
    frame = cells.iloc[rows[0] :] if is_all else cells.iloc[rows]
    told += _told_groups(filled[rows], titles)
    return LaidOut(_titled(frame, filled[rows].any(axis=0), titles), (*notes, *told), tuple(problems))


def known_titles(titles: Sequence[Any], named: Collection[Any] = ()) -> int:
    """Return how many of the columns that are looked for are among titles, by their names or the user's."""
    by_user = sum(title in named for title in dict.fromkeys(titles))
    return sum(column is not None for column in _found(titles).values()) + by_user


def long(frame: pd.DataFrame, named: Mapping[str, Any] | None = None) -> tuple[pd.DataFrame, str]:
    """Return a wide table, whose titles are dates, as a long one with a date and a quantity, and a note that says so.

    Any other table is returned as it is, with no note.

    Raises:
        InputError: Its titles are days, weeks or months of no year.
    """
    if {"date", "quantity"} & set(named or {}):
        return frame, ""
    dates = [title for title in frame.columns if _is_date(title)]
    if len(dates) < _FEWEST_DATES:
        _refuse_yearless(frame.columns)
        return frame, ""
    rest = [title for title in frame.columns if title not in set(dates)]
    sums = [title for title in rest if _says_total(str(title))]
    rest = [title for title in rest if title not in sums]
    if not rest or _found(rest)["date"] is not None or "quantity" in map(str, rest):
        return frame, ""
    made = frame.melt(id_vars=rest, value_vars=dates, var_name="date", value_name="quantity", ignore_index=False)
    is_empty = ~_is_filled(made["quantity"])
    made["date"] = made["date"].map(_title)
    told = [
        f"{len(dates):,} columns whose titles are dates ({_title(dates[0])} to {_title(dates[-1])}) were read as rows"
    ]
    told += [f"{int(is_empty.sum()):,} empty cells left out"] if is_empty.any() else []
    told += [f"the column {str(title)!r} left out" for title in sums]
    return made[~is_empty].sort_index(kind="stable"), ", ".join(told)


def without_repeats(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose titles differ: a column that stands there twice is one, others are told apart by place."""
    titles = list(map(str, frame.columns))
    if len(set(titles)) == len(titles):
        return frame
    counts = Counter(titles)
    names: list[Any] = []
    first: dict[str, int] = {}
    differing = set()
    for at, title in enumerate(titles):
        if not frame.iloc[:, at].equals(frame.iloc[:, first.setdefault(title, at)]):
            differing.add(title)
    kept = []
    for at, (title, name) in enumerate(zip(titles, frame.columns, strict=True)):
        if title in differing:
            names.append(f"{title} (column {at + 1})")
        elif counts[title] > 1 and first[title] != at:
            continue
        else:
            names.append(name)
        kept.append(at)
    return frame.iloc[:, kept].set_axis(names, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """Cells, which of them are filled, how many of each row, and what the user calls the file."""

    cells: pd.DataFrame
    filled: Any
    counts: Any
    name: str

    def first(self, at: int) -> str:
        """Return what stands first in a row, cut."""
        return str(self.cells.iat[at, int(np.argmax(self.filled[at]))]).strip()[:40]


def _found(titles: Iterable[Any]) -> Mapping[str, Any]:
    try:
        return find_columns(list(dict.fromkeys(title for title in titles if title != "")))
    except UnknownColumns as error:
        return error.found


def _refuse_yearless(titles: Iterable[Any]) -> None:
    """Refuse a wide table whose year is not said, where the quantities cannot be anything else."""
    if (found := _found(titles))["date"] is not None:
        return
    lost = [str(title) for title in titles if title not in found.values() and _lacks_year(title)]
    if len(lost) >= _FEWEST_DATES:
        shown = ", ".join(map(repr, lost[:_TOLD]))
        msg = (
            f"demand must have dates with a year, got a table with columns {shown} and so on: put the year into their"
            f" titles, e.g. {f'{lost[0]} {dt.date.today().year}'!r}"
        )
        raise InputError(msg)


def _says_total(title: str) -> bool:
    parts = [part for part in re.split(r"[\W_]+", title.casefold()) if part]
    return bool(parts) and bool({parts[0], parts[-1]} & TOTALS)


def _is_filled(column: pd.Series[Any]) -> Any:
    """Return for each cell whether something stands in it."""
    if column.dtype == object:
        return column.map(lambda value: not pd.isna(value) and str(value).strip() != "").to_numpy(bool)
    if pd.api.types.is_string_dtype(column.dtype):
        return (column.notna() & (column.str.strip() != "")).to_numpy(bool)
    return column.notna().to_numpy()


def _title(value: Any) -> str:
    """Return a title as it is seen: in one line, a day without its midnight, a whole number without its point."""
    if pd.isna(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dt.datetime) and value.time() == dt.time():
        return value.date().isoformat()
    return re.sub(r"\s*[\r\n]+\s*", " ", str(value)).strip("\ufeff \t\u00a0")


def _title_row(grid: _Grid, named: Collection[Any]) -> int:
    """Return the number of the row that holds the titles."""
    rows: list[int] = np.flatnonzero(grid.counts)[:_LOOKED_AT].tolist()
    cells, counts = grid.cells, grid.counts
    known: dict[int, int] = {}
    for at in rows:
        if counts[at] > 1:
            known[at] = known_titles([_title(value) for value in cells.iloc[at]], named)
            if known[at] >= len(OURS):
                return at
    best = max(known, key=lambda at: (known[at], -at), default=rows[0])
    if known.get(best, 0) > 1:
        return best
    usual = int(np.median(counts[rows]))
    return next((at for at in rows if counts[at] >= max(2, 0.6 * usual)), rows[0])


def _above(grid: _Grid, top: int) -> list[str]:
    rows = np.flatnonzero(grid.counts[:top]).tolist()
    if not rows or grid.first(rows[0]).startswith("sep="):  # which a spreadsheet does not show
        return []
    return [f"the titles were found in row {top + 1}: what stands above them ({grid.first(rows[0])!r}) was left out"]


def _refuse_no_titles(grid: _Grid, titles: Sequence[str], is_row: Any, named: Collection[Any]) -> None:
    """Refuse a file whose first row is one like the next: numbers where that has numbers, and dates."""
    below = np.flatnonzero(is_row)
    dates = sum(map(_is_date, titles))
    if not len(below) or dates >= _FEWEST_DATES or known_titles(titles, named):
        return
    row = [_title(value) for value in grid.cells.iloc[below[0]]][: len(titles)]
    kinds = [[bool(_NUMBER.fullmatch(value)) + 2 * _is_date(value) for value in values] for values in (titles, row)]
    if any(kinds[0]) and kinds[0] == kinds[1]:
        shown = ", ".join(map(repr, titles[:6]))
        msg = (
            f"demand must have a row of titles, got {grid.name!r}, whose first row is one like the others ({shown}):"
            " put titles above it, such as site, part, date, quantity"
        )
        raise InputError(msg)


def _longer(grid: _Grid, is_row: Any, titles: list[str]) -> tuple[list[str], list[int]]:
    """Return the titles, with one for a column of row numbers that has none, and the rows that are longer than they."""
    width, rows = len(titles), int(is_row.sum())
    longer: list[int] = np.flatnonzero(grid.filled[:, width:].any(axis=1) & is_row).tolist()
    if len(longer) < max(1, 0.5 * rows):
        return titles, longer
    is_one = not grid.filled[is_row, width + 1 :].any()
    if is_one and len(longer) == rows and _counts_rows(grid.cells.iloc[np.flatnonzero(is_row), 0]):
        return ["", *titles], []
    shown = ", ".join(repr(value) for value in grid.cells.iloc[longer[0], : width + 1])
    msg = (
        f"demand must have as many cells in a row as it has titles ({width}), got more in {len(longer):,} rows of"
        f" {grid.name!r}, the first in row {longer[0] + 1} ({shown}): put in quotation marks what holds the separator,"
        " or complete the titles"
    )
    raise InputError(msg)


def _counts_rows(column: pd.Series[Any]) -> bool:
    """Whether a column holds nothing but the numbers of the rows, from 0 or 1 on."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return len(numbers) > 1 and numbers[0] in (0, 1) and bool((np.diff(numbers) == 1).all())


def _shifted(cells: pd.DataFrame, at: int, width: int) -> Problem:
    values = [str(value) for value in cells.iloc[at]]
    while not values[-1].strip():
        values.pop()
    shown = ", ".join(map(repr, values[: width + 1]))
    return Problem("", at + 1, ",".join(values), f"{len(values)} cells under {width} titles ({shown})")


def _not_rows(grid: _Grid, is_row: Any, titles: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the rows that are none, and what they are: repeated titles, totals, remarks below the table."""
    rows = np.flatnonzero(is_row)
    width = sum(map(bool, titles))
    if width < _NARROW:
        return [], []
    first = next(at for at, title in enumerate(titles) if title)
    alike = np.flatnonzero((grid.cells[first] == titles[first]).to_numpy(bool) & is_row).tolist()
    again = [at for at in alike if [_title(value) for value in grid.cells.iloc[at, : len(titles)]] == list(titles)]
    remarks = list(takewhile(lambda at: grid.counts[at] == 1, rows[::-1].tolist()))[::-1]
    maybe = rows[grid.counts[rows] <= width - 2]
    maybe = maybe if len(maybe) <= _MOST_LOOKED_AT else maybe[-_LOOKED_AT:]
    totals = [at for at in maybe.tolist() if _is_total(grid, at)]
    told = [
        *_told(grid, again, "it repeats the titles", "they repeat the titles"),
        *_told(grid, totals, "it is a total", "they are totals"),
        *_told(grid, remarks, "it is a remark below the table", "they are remarks below the table"),
    ]
    return [*again, *totals, *remarks], told


def _is_total(grid: _Grid, at: int) -> bool:
    """Whether a row sums others up: a word that says so, and otherwise numbers."""
    values = [str(value).strip() for value in grid.cells.iloc[at][grid.filled[at]]]
    words = [value for value in values if not _NUMBER.fullmatch(value)]
    return len(words) == 1 and len(values) > 1 and _says_total(words[0])


def _told(grid: _Grid, rows: Sequence[int], one: str, many: str) -> list[str]:
    if not rows:
        return []
    numbers = ", ".join(f"{at + 1:,}" for at in rows[:_TOLD])
    if len(rows) == 1:
        return [f"row {numbers} was left out: {one} ({grid.first(rows[0])!r})"]
    more = f" and {len(rows) - _TOLD:,} more" if len(rows) > _TOLD else ""
    return [f"rows {numbers}{more} were left out: {many} ({grid.first(rows[0])!r})"]


def _told_groups(filled: Any, titles: Sequence[str]) -> list[str]:
    """Tell of names that stand in the first row of a group alone, as in a pivot table: those rows lack them."""
    told = []
    for ours, name in _found(titles).items():
        own = filled[:, titles.index(name)] if name in titles else np.ones(1, dtype=bool)
        if ours != "quantity" and own[:1].any() and own.mean() < _GROUPED:
            told.append(
                f"{int((~own).sum()):,} of {len(own):,} cells of {name!r} are empty below one that is filled: if it"
                f" holds for them too, fill them first, e.g. demand[{name!r}].ffill()"
            )
    return told


def _titled(frame: pd.DataFrame, is_filled: Any, titles: Sequence[str]) -> pd.DataFrame:
    """Return rows under their titles; columns without one that hold nothing, or the rows' numbers, are left out."""
    named: dict[int, str] = {}
    for at in range(frame.shape[1]):
        title = titles[at] if at < len(titles) else ""
        if title or (is_filled[at] and not _counts_rows(frame[at])):
            named[at] = title or f"column {at + 1}"
    return frame[list(named)].set_axis(list(named.values()), axis=1)


def _is_date(title: Any) -> bool:
    """Whether a title is a date with a year."""
    if isinstance(title, dt.date | pd.Period):
        return True
    text = str(title).strip() if isinstance(title, str | int) else ""
    if text.isdecimal():
        return bool(_BARE.fullmatch(text))
    return not _YEARLESS.fullmatch(text) and bool(re.search(r"\d", text)) and _reads_as_date(text)


def _lacks_year(title: Any) -> bool:
    """Whether a title would be a date if it had a year: "W27", "July", "03/07"."""
    text = str(title).strip()
    return not text.isdecimal() and bool(_YEARLESS.fullmatch(text) or _reads_as_date(f"{text} 2025"))


def _reads_as_date(text: str) -> bool:
    if len(text) > _LONGEST:
        return False
    try:
        return looks_like_dates(pd.Series([text])) == 1
    except InputError:
        return True
