"""Cells of a user's four columns as they were read: names, days and quantities, and which of them cannot be used.

    raw table --columns--> names, days, quantities --> for each row whether it can be used, and if not, why

A table in one piece is read as a whole. One that is read in several (`pieces`) has a few answers that only all of its
pieces give: they are found first, from some rows (`Style.orders`), or later, from what the pieces say of themselves:
which days lie far from all others, and which names are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.forecast.data.dates import Dates, read_dates
from ipybatch.forecast.data.names import Keys, read_names
from ipybatch.forecast.data.numbers import Numbers, look_around, read_numbers
from ipybatch.forecast.data.periods import far_days
from ipybatch.forecast.data.problems import LARGEST, shortened
from ipybatch.forecast.data.reading import Raw
from ipybatch.forecast.settings import Freq


@dataclass(frozen=True, slots=True)
class Cells:
    """The four columns as they were read, a value for every row of the user's.

    Attributes:
        raw: The user's table.
        names: What the user calls the columns.
        keys: Sites and parts.
        dated: The dates, NaT where there is none.
        numbers: The quantities, NaN where there is none.
        is_far: Whether the row's date lies far from all others.
        row_of: The rows as the user counts them.
        wrong: For each column whether its cell cannot be used.
        taken: What returns took off: the rows of the sales, those of the returns, and how much; None for nothing.
    """

    raw: pd.DataFrame
    names: dict[str, Any]
    keys: dict[str, Keys]
    dated: Dates
    numbers: Numbers
    is_far: Any
    row_of: Any
    wrong: dict[str, Any]
    taken: Any = None

    @property
    def is_wrong(self) -> Any:
        """Whether some cell of the row cannot be used."""
        return np.logical_or.reduce(list(self.wrong.values()))

    @property
    def dates(self) -> Any:
        """Their days, as an array."""
        return self.dated.days.to_numpy()

    @property
    def quantities(self) -> Any:
        """Their quantities, as an array."""
        return self.numbers.values

    def reason(self, ours: str, at: int, value: Any) -> str:
        """Return why a cell cannot be used; "" where nothing more is known than that."""
        if ours == "date" and self.is_far[at]:
            return told_far(self.dates[at], *self.body)
        if ours != "quantity":
            return ""
        if LARGEST < self.quantities[at] < np.inf:
            return f"Quantity {shortened(value)} out of all reason (above {LARGEST:g})"
        return self.numbers.reasons.get(value, "") if isinstance(value, str) else ""

    @property
    def body(self) -> tuple[Any, Any]:
        """The first and the last day, without those that lie far from them."""
        days = self.dates[~self.wrong["date"]].astype("datetime64[D]")
        return days.min(), days.max()

    @property
    def others(self) -> list[Any]:
        """The user's other columns."""
        return [name for name in self.raw.columns if name not in set(self.names.values())]


@dataclass(frozen=True, slots=True)
class Style:
    """How numbers and dates are written: what the user says, and what other pieces of the table told.

    Attributes:
        decimal: The decimal mark; None finds it.
        thousands: What separates thousands; None finds it.
        date_format: As for strftime; None finds it.
        freq: The table's period where the user says it, which tells weeks from months.
        orders: By how dates are written, the order of day, month and year.
    """

    decimal: str | None = None
    thousands: str | None = None
    date_format: str | None = None
    freq: Freq | None = None
    orders: Mapping[str, str] = field(default_factory=dict)


def cells_of(given: Raw, names: dict[str, Any], style: Style, *, is_piece: bool = False) -> Cells:
    """Return the cells of a table's four columns.

    Args:
        given: The table.
        names: For each of site, part, date and quantity its column.
        style: How numbers and dates are written.
        is_piece: Whether it is one of several pieces: then nothing is decided that only all of them tell.

    Raises:
        Undecided: Several readings of the quantities or the dates fit; an argument decides.
        InputError: ``style`` does not fit the table, or no date can be read.
        MissingExtra: A package that reads names of months is not installed.
    """
    raw = given.frame
    keys = {ours: read_names(raw[names[ours]], is_piece=is_piece) for ours in ("site", "part")}
    dated = read_dates(
        raw[names["date"]], str(names["date"]), date_format=style.date_format, freq=style.freq, orders=style.orders
    )
    evidence = look_around(raw, [name for name in raw.columns if name not in names.values()], given.sep)
    numbers = read_numbers(
        raw[names["quantity"]],
        str(names["quantity"]),
        decimal=style.decimal,
        thousands=style.thousands,
        evidence=evidence,
    )
    days = dated.days.to_numpy()
    is_far = np.zeros(len(days), dtype=bool)
    if not is_piece:
        is_far[~np.isnat(days)] = far_days(days[~np.isnat(days)])
    wrong = {
        "site": keys["site"].codes < 0,
        "part": keys["part"].codes < 0,
        "date": np.isnat(days) | is_far,
        "quantity": ~((numbers.values >= 0) & (numbers.values <= LARGEST)),
    }
    return Cells(raw, names, keys, dated, numbers, is_far, raw.index.to_numpy() + given.first, wrong)


def told_far(day: Any, first: Any, last: Any) -> str:
    """Return why a day that lies far from all others cannot be used."""
    return f"Date {np.datetime64(day, 'D')} far from all others ({first} to {last})"
