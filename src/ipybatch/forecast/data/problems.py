"""Problems of a table's rows: each names its column, its row and its value.

    Invalid date format '31/13/2025' in row 4102

Rows are counted as the user sees them: in a CSV file as a spreadsheet does, where the titles are row 1; in a frame by
position from 0, what ``demand.iloc[row]`` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.columns import OURS
from ipybatch.forecast.data.names import Keys

TOLD = 5  # problems in one message


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
    rest = f" and {len(problems) - TOLD:,} more" if len(problems) > TOLD else ""
    return "; ".join(map(str, problems[:TOLD])) + rest


def find_problems(
    raw: pd.DataFrame,
    columns: Mapping[str, Any],
    keys: Mapping[str, Keys],
    row_of: Any,
    wrong: Mapping[str, Any],
    *,
    reason: Callable[[str, int], str],
) -> list[Problem]:
    """Return a problem for each cell that cannot be used, in the order of the rows.

    Args:
        raw: The user's table.
        columns: For each of `OURS` the user's name of the column.
        keys: Sites and parts.
        row_of: The rows as the user counts them.
        wrong: For each of `OURS` whether its cell cannot be used.
        reason: Returns for a column and a position why its cell cannot be used; "" where its text tells.
    """
    found = []
    for at in np.flatnonzero(np.logical_or.reduce(list(wrong.values()))).tolist():
        site, part = (keys[ours].at(at) for ours in ("site", "part"))
        for ours in OURS:
            if wrong[ours][at]:
                value = raw[columns[ours]].iloc[at]
                shown = "" if _is_missing(value) else str(value)
                why = reason(ours, at) or _reason(ours, value, shown)
                found.append(Problem(str(columns[ours]), int(row_of[at]), shown, why, site, part))
    return found


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
