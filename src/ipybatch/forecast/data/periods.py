"""Periods of a table: how far apart its dates lie, what they span, and which lie far from all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.understanding import PERIODS
from ipybatch.forecast.settings import Freq

_FEWEST = 8  # distinct dates, for some to be far from the others
_FAR_DAYS = 300
_WIDE = {"D": 28, "W": 14, "M": 59}  # days between all dates, that make a table's period longer than it is read
_FEWEST_OF_FEW, _TEN_YEARS = 4, 3650
_MUCH_LONGER = 50  # times the longest gap
_EMPTY = np.array(["1900-01-01", "1900-01-02", "1970-01-01"], dtype="datetime64[D]")  # how no date is stored in places


def check_freq(freq: Any) -> None:
    """Refuse an unknown frequency.

    Raises:
        InputError: It is not "D", "W", "M" or None.
    """
    if freq is not None and freq not in PERIODS:
        known = ", ".join(f"{key!r} ({word})" for key, word in PERIODS.items())
        msg = f"freq must be one of {known} or None to infer it, got {freq!r}"
        raise InputError(msg)


def infer_freq(dates: Any) -> Freq:
    """Return the longest period that fits the table's dates: "M", "W" or "D"."""
    days = pd.DatetimeIndex(pd.to_datetime(dates)).unique().sort_values()
    if len(days) < 2:
        return "D"
    if _is_monthly(days):
        return "M"
    gaps = np.diff(days.to_numpy()) / np.timedelta64(1, "D")
    return "W" if (gaps % 7 == 0).all() else "D"


def span(dates: Any, freq: Freq) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the first and the last day that a table's dates cover.

    In a weekly or monthly table, one date covers its whole period.
    """
    days = pd.DatetimeIndex(pd.to_datetime(dates)).normalize().unique()
    first, last = days.min(), days.max()
    if freq == "W" and ((last - days).days % 7 == 0).all():
        first -= pd.Timedelta(days=6)
    if freq == "M" and _is_monthly(days):
        last += pd.offsets.MonthEnd(0)
    return first, last


def told_period(dates: Any, freq: Freq) -> str:
    """Return what speaks for a longer period than that of a table: nearly all its days lie so; "" where nothing does.

    Args:
        dates: The table's dates.
        freq: Its period, inferred from them.
    """
    days = pd.DatetimeIndex(pd.to_datetime(dates)).unique().normalize().unique()
    if freq != "D" or len(days) < 2 * _FEWEST:
        return ""
    for longer, places, word in (
        ("W", days.day_of_week, "on one day of the week"),
        ("M", days.day, "on one of the month"),
    ):
        share = pd.Series(places).value_counts(normalize=True).iloc[0]
        if 0.9 <= share < 1:
            others = len(days) - round(share * len(days))
            return (
                f"the table is read as daily, though all days but {others:,} lie {word}: freq={longer!r} if it is not"
            )
    return ""


def told_gap(dates: Any, freq: Freq) -> str:
    """Return where no row lies for most of a table's span, and for most of a year at least; "" where rows lie all over.

    Args:
        dates: The table's dates.
        freq: Its period.
    """
    days = pd.DatetimeIndex(pd.to_datetime(dates)).unique().sort_values()
    gaps = np.diff(days.to_numpy()) / np.timedelta64(1, "D")
    word = {"D": "days", "W": "weeks", "M": "months"}[freq]
    if len(gaps) > 1 and gaps.min() >= _WIDE[freq]:
        return f"no two dates lie nearer than {gaps.min():.0f} days: all {word} between count as zero"
    if not len(gaps) or gaps.max() <= max(_FAR_DAYS, gaps.sum() / 2):
        return ""
    at = int(gaps.argmax())
    return f"no row lies between {days[at]:%Y-%m-%d} and {days[at + 1]:%Y-%m-%d}: all {word} between count as zero"


def far_days(days: Any) -> Any:
    """Return for each row whether its day lies far from those of nearly all rows, as a mistyped year does.

    Days fall into groups where no gap is longer than 300 days. A group of a few rows (3, or 1 % of all, or 50) is far
    if its distance to the others is longer than these span, or than 50 times the longest gap between them: daily data
    of ten years has no row that comes two years later. A gap of years in data of many rows is none of it.

    Args:
        days: An array of days.
    """
    numbers = days.astype("datetime64[D]").astype(np.int64)
    first_number = int(numbers.min()) if len(numbers) else 0
    numbers -= first_number
    rows_on = np.bincount(numbers)  # a table has far fewer days than rows, so that nothing is sorted
    places = np.flatnonzero(rows_on)
    is_far = np.zeros(len(rows_on), dtype=bool)
    is_far[places] = far_of_distinct((places + first_number).astype("datetime64[D]"), rows_on[places])
    return is_far[numbers]


def far_of_distinct(unique: Any, counts: Any) -> Any:
    """Return for each distinct day whether it lies far from those of nearly all rows, as `far_days` says.

    Args:
        unique: The days, ascending.
        counts: How many rows each has.
    """
    is_far = np.zeros(len(unique), dtype=bool)
    if len(unique) < _FEWEST:
        return _far_of_few(unique)
    count = int(counts.sum())
    starts = np.flatnonzero(np.r_[True, np.diff(unique).astype(np.int64) > _FAR_DAYS])
    ends = np.r_[starts[1:], len(unique)]
    rows = np.add.reduceat(counts, starts)
    is_empty = np.isin(unique[starts], _EMPTY) & (ends - starts == 1) & (rows < count / 2)
    is_few = (rows <= max(1, min(3, count // 10), min(50, count // 100))) | is_empty
    if is_few.all():
        return is_far
    body = unique[~np.repeat(is_few, ends - starts)]
    first, last = body[0], body[-1]
    longest = min(last - first, _MUCH_LONGER * np.diff(body).max()) if len(body) > 1 else last - first
    for group in np.flatnonzero(is_few).tolist():
        start, end = starts[group], ends[group]
        is_far[start:end] = max(first - unique[end - 1], unique[start] - last) > longest
    return is_far


def _far_of_few(days: Any) -> Any:
    """Return for each of a few distinct days whether it lies ten years and more from all others, which lie together."""
    is_far = np.zeros(len(days), dtype=bool)
    if len(days) < _FEWEST_OF_FEW:
        return is_far
    for at, others in ((0, days[1:]), (-1, days[:-1])):
        gap = np.abs(others[[0, -1]] - days[at]).min().astype(np.int64)
        is_far[at] = gap > _TEN_YEARS and gap > 10 * (others[-1] - others[0]).astype(np.int64)
    return is_far


def _is_monthly(days: pd.DatetimeIndex) -> bool:
    one_day = len(days.day.unique()) == 1 or bool(days.is_month_end.all())
    return one_day and len(days.to_period("M").unique()) == len(days) and bool((days.month != days.month[0]).any())
