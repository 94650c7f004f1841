"""Workbook: a forecast as a spreadsheet file, for people who go on with it there.

One sheet, and further ones where a sheet is full. Titles stay in sight and filter; dates are dates and numbers are
numbers; text is text, also where it begins like a formula. Rows are written one by one and not held: a million takes
about a minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from ipybatch.errors import MissingExtra

MOST_ROWS = 1_048_576  # of a sheet, by the format; the titles are one
_WIDTHS = {"site": 18, "part": 18, "date": 11, "forecast": 10, "lo": 10, "hi": 10, "model_used": 20, "reason": 60}
_OPTIONS = {
    "constant_memory": True,
    "strings_to_formulas": False,
    "strings_to_urls": False,
    "strings_to_numbers": False,
    "default_date_format": "yyyy-mm-dd",
}


def check_workbook() -> None:
    """Refuse to write a workbook where nothing is installed that does.

    Raises:
        MissingExtra: XlsxWriter is not installed.
    """
    if find_spec("xlsxwriter") is None:
        raise MissingExtra("forecast")


def write_workbook(frames: Iterable[pd.DataFrame], path: Path, *, most_rows: int = MOST_ROWS) -> None:
    """Write frames of the same columns below one another.

    Args:
        frames: At least one; of no rows for a sheet of titles.
        path: The file; it is replaced.
        most_rows: Rows of a sheet.

    Raises:
        MissingExtra: XlsxWriter is not installed.
    """
    check_workbook()
    from xlsxwriter import Workbook

    with Workbook(str(path), _OPTIONS) as book:
        sheets: list[_Sheet] = []
        for frame in frames:
            columns = [_cells(frame[name]) for name in frame.columns]
            for values in zip(*columns, strict=True):
                if not sheets or sheets[-1].rows == most_rows:
                    sheets.append(_Sheet(book, list(frame.columns), len(sheets) + 1))
                sheets[-1].append(values)
            if not sheets:
                sheets.append(_Sheet(book, list(frame.columns), 1))
        for sheet in sheets:
            sheet.close()


class _Sheet:
    """One sheet, with its titles."""

    def __init__(self, book: Any, titles: list[str], number: int) -> None:
        self._sheet = book.add_worksheet("forecast" if number == 1 else f"forecast {number}")
        bold, two = book.add_format({"bold": True}), book.add_format({"num_format": "0.00"})
        date = book.add_format({"num_format": _OPTIONS["default_date_format"]})
        self._formats = {"f": two, "M": date}
        self._titles = titles
        for at, title in enumerate(titles):
            self._sheet.set_column(at, at, _WIDTHS.get(title, 14))
            self._sheet.write_string(0, at, title, bold)
        self._sheet.freeze_panes(1, 0)
        self.rows = 1

    def append(self, values: Iterable[tuple[str, Any]]) -> None:
        """Write a row: each value with its kind."""
        for at, (kind, value) in enumerate(values):
            if value is None:
                continue
            if kind == "M":
                self._sheet.write_datetime(self.rows, at, value, self._formats["M"])
            elif kind in "fiu":
                self._sheet.write_number(self.rows, at, value, self._formats.get(kind))
            else:
                self._sheet.write_string(self.rows, at, value)
        self.rows += 1

    def close(self) -> None:
        """Let the titles filter all its rows."""
        self._sheet.autofilter(0, 0, self.rows - 1, len(self._titles) - 1)


def _cells(values: pd.Series[Any]) -> Iterable[tuple[str, Any]]:
    """Yield each value with the kind of its column; None for a missing one."""
    kind = values.dtype.kind if values.dtype.kind in "fiuM" else "O"
    plain = values.astype(object).where(values.notna(), None)
    if kind == "M":
        return ((kind, None if value is None else value.to_pydatetime()) for value in plain)
    return ((kind, str(value) if kind == "O" and value is not None else value) for value in plain)
