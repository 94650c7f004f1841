"""Understanding of a table: how its columns, numbers and dates were read; and what the user is asked.

What the data decides is shown; what it decides only by evidence, or against another column, is told in a note; what it
does not decide is asked, by column, cell and both readings: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from ipybatch.errors import InputError

PERIODS = {"D": "daily", "W": "weekly", "M": "monthly"}


class Answer(NamedTuple):
    """An answer to a question about a table.

    Attributes:
        argument: Of `ipybatch.forecast.forecast`, `analyze` and `evaluate`.
        value: What it has to be.
        reading: What the cell that was asked about is then.
    """

    argument: str
    value: str
    reading: str

    def __str__(self) -> str:
        return f"{self.reading} ({self.argument}={self.value!r})"


class Undecided(InputError):
    """Two readings fit a column, and nothing tells which is meant: an argument of the call does.

    Attributes:
        column: The user's name of the column; "" where it is the file that is asked about.
        example: A cell that differs by it, or the file's name.
        answers: Each argument that would decide.
    """

    def __init__(self, column: str, example: str, answers: Iterable[Answer], *, what: str) -> None:
        self.column, self.example, self.answers = column, example, tuple(answers)
        each = " or ".join(map(str, self.answers))
        where = f" in {column!r}" if column else ""
        super().__init__(f"demand must have {what}{where}, got {example!r}, which may be {each}: say which")


@dataclass(frozen=True, slots=True, kw_only=True)
class Understanding:
    """How a table was read.

    Attributes:
        columns: For each of site, part, date and quantity the user's name of the column.
        decimal: The decimal mark of the quantities; "" where none matters.
        thousands: What separates their thousands; "" where nothing does.
        dates: How the dates are written, by an example and in words; "" for dates that need no reading.
        encoding: Of the text file; "" for none.
        sep: What separates the columns of the text file; "" for none.
        freq: "D", "W" or "M".
        is_inferred: Whether the period was inferred from the dates.
        first: The first day.
        last: The last day.
        notes: What was decided by evidence, or beside another column that it could have been.
    """

    columns: Mapping[str, Any]
    freq: str
    first: pd.Timestamp
    last: pd.Timestamp
    decimal: str = ""
    thousands: str = ""
    dates: str = ""
    encoding: str = ""
    sep: str = ""
    is_inferred: bool = True
    notes: tuple[str, ...] = field(default=())

    def lines(self) -> tuple[str, ...]:
        """Return a sentence for each thing that was understood: columns, numbers, dates, span, file."""
        return tuple(line for line in (self._columns(), self._numbers(), self._dates(), self._file()) if line)

    def _columns(self) -> str:
        named = (f"{ours} from {str(name)!r}" for ours, name in self.columns.items())
        return f"read {', '.join(named)}"

    def _numbers(self) -> str:
        marks = {".": "point", ",": "comma", " ": "blank", "'": "apostrophe"}
        told = [f"a decimal {marks[self.decimal]}"] if self.decimal else []
        told += [f"thousands separated by a {marks[self.thousands]}"] if self.thousands else []
        return f"numbers have {' and '.join(told)}".replace("a apostrophe", "an apostrophe") if told else ""

    def _dates(self) -> str:
        how = f"dates are written {self.dates}; " if self.dates else ""
        period = f"{PERIODS[self.freq]}{', as the dates lie' if self.is_inferred else ''}"
        return f"{how}{period}, {self.first:%Y-%m-%d} to {self.last:%Y-%m-%d}"

    def _file(self) -> str:
        seps = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
        told = [f"its text is {self.encoding}"] if self.encoding else []
        told += [f"its columns are separated by {seps.get(self.sep, repr(self.sep))}"] if self.sep else []
        return ", ".join(told)
