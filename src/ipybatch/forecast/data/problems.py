"""Problems of a table's rows: each names its column, its row and its value.

    Invalid date format '31/13/2025' in row 4102
    Negative quantity in 37 rows of site A: row 0 (-3), row 1 (-3), row 2 (-1) and 34 more

Rows are counted as the user sees them: in a CSV file as a spreadsheet does, where the titles are row 1; in a frame by
position from 0, what ``demand.iloc[row]`` takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.columns import OURS
from ipybatch.forecast.data.names import Keys

TOLD = 5  # kinds of problems, or names, in one message
_FIRST = 3  # rows of a kind
LARGEST = 1e15  # above it numbers are not whole any more, and sums of many overflow
_FAR, _FEW, _FEWEST = 1e6, 0.01, 10  # times the median, share of the rows, and rows for that to say something
_VALUE = re.compile(r"""\s(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+(]?[^\w\s]?\d\S*)""")


class Problem(msgspec.Struct, frozen=True):
    """A problem of one cell, as one line of text.

    Attributes:
        column: The user's name of the column.
        row: Its row, counted as the user does.
        value: The cell's text.
        reason: The problem, with the value.
        site: The row's site; None if it is missing.
        part: The row's part; None if it is missing.
        file: The file whose rows are counted; "" where all rows of the table are.
    """

    column: str
    row: int
    value: str
    reason: str
    site: str | int | None = None
    part: str | int | None = None
    file: str = ""

    def __str__(self) -> str:
        return f"{self.reason} in {self.place}"

    @property
    def place(self) -> str:
        """Its row, and the file where several are counted."""
        return f"row {self.row} of {self.file}" if self.file else f"row {self.row}"


class BadRows(InputError):
    """Rows of the table cannot be used: correct them, or drop them with ``repair={"drop_bad_rows"}``.

    Attributes:
        rows: All of them, as `frame_of` returns them.
    """

    def __init__(self, message: str, problems: Sequence[Problem]) -> None:
        super().__init__(message)
        self.rows = frame_of(problems)


def refuse(problems: Sequence[Problem]) -> None:
    """Refuse a table with problems.

    Raises:
        BadRows: There are problems; counts them all, and names the first few of each kind.
    """
    if problems:
        msg = f"demand must have no row that cannot be used, got {tell(problems)}: correct these rows, or {HOW_TO_DROP}"
        raise BadRows(msg, problems)


HOW_TO_DROP = "drop them with repair={'drop_bad_rows'}"


def tell(problems: Sequence[Problem]) -> str:
    """Return all problems as one line: counted by kind and column, with the first rows of each.

    Negative quantity in 37 rows of site A: row 0 (-3), row 1 (-3), row 2 (-1) and 34 more; Missing part in row 77
    """
    return "; ".join(tell_kinds(problems))


def tell_kinds(problems: Sequence[Problem]) -> list[str]:
    """Return all problems as a few lines, one for each kind and column."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((_kind(problem), problem.column), []).append(problem)
    told = [_tell_kind(kind, some) for (kind, _), some in list(kinds.items())[:TOLD]]
    rest = sum(len(some) for some in list(kinds.values())[TOLD:])
    return [*told, *([f"and {rest:,} more of other kinds"] if rest else [])]


def bad_rows(problems: Sequence[Problem]) -> int:
    """Return how many rows have problems: a row may have several."""
    return len({(problem.file, problem.row) for problem in problems})


def tell_bad_rows(problems: Sequence[Problem], *, is_dropping: bool) -> list[str]:
    """Return a line on the rows that cannot be used: what was done, or what can be."""
    if not problems:
        return []
    if is_dropping:
        return [f"{_rows(problems)} dropped: {tell(problems)}"]
    return [f"{tell_count(problems)}: {tell(problems)}: {tell_help(problems)}"]


def tell_count(problems: Sequence[Problem]) -> str:
    """Return how many rows cannot be used, as words."""
    return f"{_rows(problems)} cannot be used"


def tell_help(problems: Sequence[Problem]) -> str:
    """Return what can be done about rows that cannot be used."""
    is_one = bad_rows(problems) == 1
    has_returns = any(problem.reason.startswith("Negative") for problem in problems)
    net = ", or net returns with repair={'net_returns'}" if has_returns else ""
    drop = HOW_TO_DROP.replace("them", "it") if is_one else HOW_TO_DROP
    return f"correct {'it' if is_one else 'them'}, or {drop}{net}"


def _rows(problems: Sequence[Problem]) -> str:
    count = bad_rows(problems)
    return "1 row" if count == 1 else f"{count:,} rows"


def tell_far_quantities(quantities: Any, row_of: Any) -> list[str]:
    """Return a line on a few quantities that are a million times the others: a slip of a key, or another number.

    Args:
        quantities: Of the rows that can be used.
        row_of: These rows as the user counts them.
    """
    is_sold = quantities > 0
    sold, rows = quantities[is_sold], row_of[is_sold]
    if len(sold) < _FEWEST:
        return []
    median = float(np.median(sold))
    is_far = sold >= _FAR * median
    places = [(quantity, f"row {row}") for row, quantity in sorted(zip(rows[is_far], sold[is_far], strict=True))]
    return told_far_quantities(places, len(sold), median, sold[~is_far].max)


def told_far_quantities(
    largest: Sequence[tuple[float, str]], sold: int, median: float, usual: Callable[[], float]
) -> list[str]:
    """As `tell_far_quantities`, of what is known of the quantities.

    Args:
        largest: Those that are far, each with its place, in the order of the rows; others may be among them.
        sold: How many quantities are above zero.
        median: Of these.
        usual: Returns the largest that is not far.
    """
    far = [(quantity, place) for quantity, place in largest if quantity >= _FAR * median]
    if sold < _FEWEST or not far or len(far) > max(1, _FEW * sold):
        return []
    told = ", ".join(f"{quantity:,.10g} in {place}" for quantity, place in far[:TOLD])
    more = f" and {len(far) - TOLD:,} more" if len(far) > TOLD else ""
    return [f"a million times the usual quantity: {told}{more}, where no other is above {usual():,.10g}: is it right?"]


def frame_of(problems: Sequence[Problem]) -> pd.DataFrame:
    """Return one row per problem: row, column, value, reason, site, part, file if several; in the order of the rows."""
    fields = ["row", "column", "value", "reason", "site", "part"]
    fields += ["file"] if any(problem.file for problem in problems) else []
    return pd.DataFrame({field: [getattr(problem, field) for problem in problems] for field in fields})


def _tell_kind(kind: str, problems: Sequence[Problem]) -> str:
    if len(problems) == 1:
        return str(problems[0])
    sites = {problem.site for problem in problems}
    of = f" of site {problems[0].site}" if len(sites) == 1 and None not in sites else ""
    rows = [
        f"{problem.place}{f' ({shortened(problem.value)})' if problem.value.strip() else ''}"
        for problem in problems[:_FIRST]
    ]
    more = len(problems) - _FIRST
    last = f" and {more:,} more" if more > 0 else ""
    return f"{kind} in {len(problems):,} rows{of}: {', '.join(rows)}{last}"


def _kind(problem: Problem) -> str:
    """Return a reason without its value: what is the same in all problems of a kind."""
    return _VALUE.sub("", problem.reason, count=1)


def find_problems(
    raw: pd.DataFrame,
    columns: Mapping[str, Any],
    keys: Mapping[str, Keys],
    row_of: Any,
    wrong: Mapping[str, Any],
    *,
    reason: Callable[[str, int, Any], str],
) -> list[Problem]:
    """Return a problem for each cell that cannot be used, in the order of the rows.

    Args:
        raw: The user's table.
        columns: For each of `OURS` the user's name of the column.
        keys: Sites and parts.
        row_of: The rows as the user counts them.
        wrong: For each of `OURS` whether its cell cannot be used.
        reason: Returns for a column, a position and a cell why it cannot be used; "" where its text tells.
    """
    found: list[Problem] = []
    sites, parts = (keys[ours].texts for ours in ("site", "part"))
    site_of, part_of = (keys[ours].codes for ours in ("site", "part"))
    for ours in OURS:
        name = str(columns[ours])
        at = np.flatnonzero(wrong[ours])
        for row, value in zip(at.tolist(), raw[columns[ours]].iloc[at].tolist(), strict=True):
            shown = "" if _is_missing(value) else str(value)
            why = reason(ours, row, value) or _reason(ours, value, shown)
            found.append(Problem(name, int(row_of[row]), shown, why, sites[site_of[row]], parts[part_of[row]]))
    return sorted(found, key=lambda problem: problem.row)  # stable: within a row, in the order of the columns


def _reason(ours: str, value: Any, shown: str) -> str:
    if not shown.strip() or ours in ("site", "part"):
        return f"Missing {ours}"
    short = shortened(shown)
    if ours == "date":
        return f"Invalid date format {short!r}"
    number = _number(value)
    return f"Negative {ours} {short}" if number < 0 and np.isfinite(number) else f"Invalid {ours} {short!r}"


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def shortened(value: Any) -> str:
    """Return a cell's text, cut where it is long."""
    shown = str(value)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and np.isnan(value))
