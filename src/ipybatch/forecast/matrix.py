"""Matrix: a demand table in long form as one matrix, a row per series and a column per period.

Zeros are filled from the table's first period, not from a series' first event: a part that sold for the first time in
August did sell nothing in July, and a forecast that forgets it is far too high.

    D   a period is a day
    W   the seven days up to and with its date: the last week is always whole, days before the first whole week are left
    M   a calendar month, called by its first day; a month that the table ends within is left out
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError

if TYPE_CHECKING:
    from ipybatch.forecast.settings import Freq

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Dates = pd.DatetimeIndex
BLOCK = 4_000  # series that are looked at together: what a sweep touches stays in the processor's cache


@dataclass(frozen=True, slots=True)
class Series:
    """Every series of a partition.

    Attributes:
        keys: site and part, one row per series, sorted.
        values: Quantities, float, one row per series and one column per period.
        dates: What the periods are called, ascending.
        freq: The length of a period.
    """

    keys: pd.DataFrame
    values: Matrix
    dates: Dates
    freq: Freq

    def until(self, count: int) -> Series:
        """Return what was known after the first ``count`` periods."""
        return Series(self.keys, self.values[:, :count], self.dates[:count], self.freq)

    def ahead(self, horizon: int) -> Dates:
        """Return what the periods after the last are called."""
        return step(self.dates[-1], self.freq, horizon)


def series_of(frame: pd.DataFrame, freq: Freq, *, start: str | None = None, end: str | None = None) -> Series:
    """Return the series of a clean table.

    Args:
        frame: site, part, date and quantity.
        freq: "D", "W" or "M".
        start: The first day of the whole table, where ``frame`` is a part of it: what `span` says.
        end: Its last day.

    Raises:
        InputError: Not one whole period.
    """
    dates = pd.to_datetime(frame["date"]).dt.normalize()
    whole = span(dates, freq)
    first = pd.Timestamp(start).normalize() if start else whole[0]
    last = pd.Timestamp(end).normalize() if end else whole[1]
    periods = _periods(first, last, freq)
    if not len(periods):
        msg = f"date must span at least one whole period of freq {freq!r}, got {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        raise InputError(msg)
    at = _numbers(dates, periods, last, freq)
    groups = frame.groupby(["site", "part"], sort=True, observed=True)
    numbers = groups.ngroup().to_numpy()
    keys = groups.size().index.to_frame(index=False)
    values = np.zeros((len(keys), len(periods)))
    inside = (at >= 0) & (at < len(periods))
    np.add.at(values, (numbers[inside], at[inside]), frame["quantity"].to_numpy(float)[inside])
    return Series(keys, values, periods, freq)


def infer_freq(dates: Any) -> Freq:
    """Return the longest period that the table's dates allow: "M", "W" or "D"."""
    days = pd.DatetimeIndex(pd.to_datetime(dates)).unique().sort_values()
    if len(days) < 2:
        return "D"
    if _is_monthly(days):
        return "M"
    gaps = np.diff(days.to_numpy()) / np.timedelta64(1, "D")
    return "W" if (gaps % 7 == 0).all() else "D"


def span(dates: Any, freq: Freq) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the first and the last day that a table's dates stand for.

    A table of one date a week or a month has it stand for the whole of it.
    """
    days = pd.DatetimeIndex(pd.to_datetime(dates)).normalize().unique()
    first, last = days.min(), days.max()
    if freq == "W" and ((last - days).days % 7 == 0).all():
        first -= pd.Timedelta(days=6)
    if freq == "M" and _is_monthly(days):
        last += pd.offsets.MonthEnd(0)
    return first, last


def step(last: pd.Timestamp, freq: Freq, count: int) -> Dates:
    """Return what the ``count`` periods after ``last`` are called."""
    if freq == "M":
        return pd.DatetimeIndex(pd.date_range(last + pd.offsets.MonthBegin(1), periods=count, freq="MS"))
    days = 7 if freq == "W" else 1
    return pd.DatetimeIndex(pd.date_range(last, periods=count + 1, freq=f"{days}D")[1:])


def by_block(found: Callable[[Matrix], Any], values: Matrix) -> Any:
    """Return what ``found`` says of each series, a block of them at a time: faster in cache, and little memory."""
    return np.concatenate([found(values[begin : begin + BLOCK]) for begin in range(0, max(len(values), 1), BLOCK)])


def _periods(first: pd.Timestamp, last: pd.Timestamp, freq: Freq) -> Dates:
    if freq == "D":
        return pd.DatetimeIndex(pd.date_range(first, last, freq="D"))
    if freq == "W":
        return pd.DatetimeIndex(pd.date_range(end=last, periods=((last - first).days + 1) // 7, freq="7D"))
    months = pd.DatetimeIndex(pd.date_range(first.replace(day=1), last, freq="MS"))
    return months if last.is_month_end else months[:-1]


def _numbers(dates: Any, periods: Dates, last: pd.Timestamp, freq: Freq) -> Any:
    if freq == "M":
        months = dates.dt.year * 12 + dates.dt.month
        return (months - (periods[0].year * 12 + periods[0].month)).to_numpy()
    days = 7 if freq == "W" else 1
    return (len(periods) - 1 - (last - dates).dt.days // days).to_numpy()


def _is_monthly(days: Dates) -> bool:
    one_day = len(days.day.unique()) == 1 or bool(days.is_month_end.all())
    return one_day and len(days.to_period("M").unique()) == len(days) and bool((days.month != days.month[0]).any())
