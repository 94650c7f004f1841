"""Sheets of a spreadsheet (.xlsx, .xlsm, .xlsb, .xls, .ods), one of which is the table.

The sheet that the user names; else the only one with rows; else the only one whose titles name a site, a part, a date
and a quantity, which is told. Otherwise the user is asked: sheets for the months of a year look all alike.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError, MissingExtra
from ipybatch.forecast.data.columns import OURS
from ipybatch.forecast.data.grid import known_titles
from ipybatch.forecast.data.understanding import Answer, Undecided

_CONTAINER = b"\xd0\xcf\x11\xe0"  # of old spreadsheets, and of new ones that have a password
_LOOKED_AT = 30  # rows of a sheet in which its titles are looked for


def read_sheet(
    data: bytes, name: str, sheet: str | None = None, named: Collection[Any] = ()
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the cells of a spreadsheet's table, from its first row and column on, and what the user must know.

    Args:
        data: The file.
        name: What the user calls it, for messages.
        sheet: The sheet's name; None finds it.
        named: Columns that the user names.

    Raises:
        Undecided: Several sheets could be the table.
        InputError: It is broken or locked, or has no such sheet, or no rows.
        MissingExtra: python-calamine is not installed.
    """
    try:
        from python_calamine import CalamineWorkbook, PasswordError
    except ImportError:
        raise MissingExtra("forecast") from None
    locked = f"demand must be a file without a password, got {name!r}: save it without one, or as CSV"
    if data.startswith(_CONTAINER) and "EncryptedPackage".encode("utf-16-le") in data:
        raise InputError(locked)
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        if sheet is not None and sheet not in book.sheet_names:
            msg = f"sheet must be one of {_listed(book.sheet_names)} of {name!r}, got {sheet!r}"
            raise InputError(msg)
        sheets = {title: book.get_sheet_by_name(title) for title in (book.sheet_names if sheet is None else [sheet])}
        heads = {title: one.to_python(False, _LOOKED_AT) for title, one in sheets.items() if one.height}
        filled = {title: rows for title, rows in heads.items() if any(value != "" for row in rows for value in row)}
        chosen = sheet if sheet is not None else _chosen(filled, name, named)
        cells = _cells(sheets[chosen].to_python(False), sheets[chosen].merged_cell_ranges or [])
    except InputError:
        raise
    except PasswordError:
        raise InputError(locked) from None
    except Exception as error:  # whatever the reader says of a file that is none: it has many errors of its own
        msg = f"demand must be a spreadsheet that can be read, got {name!r}: {error}"
        raise InputError(msg) from None
    notes = (f"the sheet {chosen!r} was read, of {len(filled)} that have rows: sheet= names another",)
    return cells, notes if len(filled) > 1 else ()


def _chosen(filled: dict[str, list[list[Any]]], name: str, named: Collection[Any]) -> str:
    if not filled:
        msg = f"demand must have rows, got none in the sheets of {name!r}: look whether the file is the right one"
        raise InputError(msg)
    whole = [title for title in filled if _known(filled[title], named) >= len(OURS)]
    if len(filled) == 1 or len(whole) == 1:
        return (whole or [*filled])[0]
    answers = [Answer("sheet", title, repr(title)) for title in whole or filled]
    raise Undecided("", name, answers, what="one sheet that is the table")


def _known(cells: list[list[Any]], named: Collection[Any]) -> int:
    return max(known_titles([str(value).strip() for value in row], named) for row in cells)


def _cells(rows: list[list[Any]], merged: Iterable[Any]) -> pd.DataFrame:
    """Return cells; what stands in cells of a column that were merged stands in each of them."""
    width = max(map(len, rows), default=0)
    cells = np.full((len(rows), width), "", dtype=object)
    for at, row in enumerate(rows):
        cells[at, : len(row)] = row
    for (top, left), (bottom, right) in merged:
        if left == right < width and top < len(rows):  # across columns: a title above them
            cells[top : bottom + 1, left] = cells[top, left]
    return pd.DataFrame(cells)


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names))
