"""Dates: what a column of dates says, in one way of reading for the whole column.

Rule: nothing is guessed.  The way of reading that fits most values is that of the column, and what does not fit it is
told, row by row.  Where day first and month first fit alike, the user is asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError

PERIODS = {"D": "daily", "W": "weekly", "M": "monthly"}
_FIRST, _LAST = pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01")
_TIME = r"(?<=\d)[ T]+\d{1,2}:\d{2}.*$"
_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%Y-%m",
    "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y", "%d/%m/%y", "%m/%d/%y",
    "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%b %Y",
)  # fmt: skip
_ALIKE = (("%d/%m/%Y", "%m/%d/%Y"), ("%d-%m-%Y", "%m-%d-%Y"), ("%d/%m/%y", "%m/%d/%y"))


def read_dates(values: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Return the days of a column, without time and zone; what is no day between 1900 and 2199 is missing.

    Args:
        values: The column.
        name: What the user calls it.

    Raises:
        InputError: Day first and month first fit alike.
    """
    if isinstance(values.dtype, pd.PeriodDtype):
        values = values.dt.to_timestamp()
    if not pd.api.types.is_datetime64_any_dtype(values):
        codes, distinct = pd.factorize(values)  # a table has far fewer days than rows
        days = _read_distinct(distinct, name)
        values = pd.Series(days.append(pd.DatetimeIndex([pd.NaT])).take(codes))  # the code -1, missing, takes the last
    if values.dt.tz is not None:
        values = values.dt.tz_localize(None)
    values = values.dt.normalize().astype("datetime64[us]").reset_index(drop=True)
    return values.where((values >= _FIRST) & (values < _LAST))


def check_freq(freq: Any) -> None:
    """Refuse a frequency that is none of ours.

    Raises:
        InputError: Names them.
    """
    if freq is not None and freq not in PERIODS:
        known = ", ".join(f"{key!r} ({word})" for key, word in PERIODS.items())
        msg = f"freq must be one of {known} or None to infer it, got {freq!r}"
        raise InputError(msg)


def _read_distinct(distinct: Any, name: str) -> pd.DatetimeIndex:
    words = pd.Series([_word(value) for value in distinct], dtype=object)
    words = words.astype(str).str.strip().str.replace(_TIME, "", regex=True)
    read = {form: pd.to_datetime(words, format=form, errors="coerce") for form in _FORMATS}
    best = max(read, key=lambda form: int(read[form].notna().sum()))
    for one, other in _ALIKE:
        if best == one and _fit_alike(read[one], read[other]):
            at = np.flatnonzero((read[one] != read[other]) & read[one].notna())[0]
            msg = (
                f"{name} must say which is the day and which is the month, got {words[at]!r}, and all fit either way:"
                f" hand over dates, e.g. pd.to_datetime(demand[{name!r}], dayfirst=True)"
            )
            raise InputError(msg)
    return pd.DatetimeIndex(read[best])


def _fit_alike(one: pd.Series[Any], other: pd.Series[Any]) -> bool:
    is_read = one.notna()
    same_many = int(is_read.sum()) == int(other.notna().sum()) > 0
    return same_many and not one[is_read].equals(other[is_read])


def _word(value: Any) -> str:
    """Return a date as text; 20250701 may be a number, and an object of datetime is its ISO form."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
