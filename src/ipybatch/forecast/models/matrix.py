"""Matrix of a demand table: one row per series, one column per period; and the error measures on such matrices.

Zeros are filled from the table's first period, not from a series' first sale: a part that sold for the first time in
August did sell nothing in July, and a forecast that ignores these zeros is far too high.

    D   a period is a day
    W   the seven days up to and with its date: the last week is always whole, days before the first whole week are left
    M   a calendar month, labelled by its first day; a month within which the table ends is left out

Error measures:

    MASE         mean over series of: mean |error| / mean |step| of the history
    RMSSE        mean over series of: root of mean error^2 / mean step^2 of the history
    WAPE         sum |error| / sum actual, over everything
    bias         sum error / sum actual: +0.1 is a tenth too much forecast
    pooled RMSE  root of mean error^2, over everything
    coverage     share of actual values within their interval

A step is the change from one period to the next; a series that never moved has none and is left out of MASE and RMSSE.
Where most values are zero, forecasting nothing wins MASE, WAPE and RMSSE: read them beside bias and pooled RMSE.

Source: Makridakis, Spiliotis, Assimakopoulos, "The M5 accuracy competition", IJF 38 (2022); Syntetos, Boylan, Croston,
"On the categorization of demand patterns" (2005).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.periods import span
from ipybatch.forecast.settings import Freq

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Dates = pd.DatetimeIndex
T = TypeVar("T")
BLOCK = 4_000  # series that are looked at together: what a sweep touches stays in the processor's cache
CLASSES = ("smooth", "intermittent", "erratic", "lumpy")
_INTERVAL, _VARIATION = 1.32, 0.49  # of the four classes


@dataclass(frozen=True, slots=True)
class Series:
    """Every series of a partition.

    Attributes:
        keys: site and part, one row per series, sorted.
        values: Quantities, float, one row per series and one column per period.
        dates: The periods' dates, ascending.
        freq: The length of a period.
    """

    keys: pd.DataFrame
    values: Matrix
    dates: Dates
    freq: Freq

    def until(self, count: int) -> Series:
        """Return the series as known after the first ``count`` periods."""
        return Series(self.keys, self.values[:, :count], self.dates[:count], self.freq)

    def of(self, rows: Any) -> Series:
        """Return some of the series."""
        return Series(self.keys.iloc[rows], self.values[rows], self.dates, self.freq)

    def ahead(self, horizon: int) -> Dates:
        """Return the dates of the ``horizon`` periods after the last."""
        last = self.dates[-1]
        if self.freq == "M":
            return pd.DatetimeIndex(pd.date_range(last + pd.offsets.MonthBegin(1), periods=horizon, freq="MS"))
        days = 7 if self.freq == "W" else 1
        return pd.DatetimeIndex(pd.date_range(last, periods=horizon + 1, freq=f"{days}D")[1:])


def series_of(frame: pd.DataFrame, freq: Freq, *, start: str | None = None, end: str | None = None) -> Series:
    """Return the series of a clean table.

    Args:
        frame: site, part, date and quantity.
        freq: "D", "W" or "M".
        start: The first day of the whole table, as `span` returns it, where ``frame`` is a part of the table.
        end: Its last day.

    Raises:
        InputError: The rows do not span one whole period.
    """
    dates = pd.to_datetime(frame["date"]).dt.normalize()
    whole = span(dates, freq)
    first = pd.Timestamp(start).normalize() if start else whole[0]
    last = pd.Timestamp(end).normalize() if end else whole[1]
    periods = periods_of(first, last, freq)
    if not len(periods):
        msg = f"date must span at least one whole period of freq {freq!r}, got {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        raise InputError(msg)
    at = _numbers(dates, periods, last, freq)
    numbers, keys = _numbered(frame)
    inside = (at >= 0) & (at < len(periods))
    cells, quantities = numbers[inside] * len(periods) + at[inside], frame["quantity"].to_numpy(float)[inside]
    values: Any = np.bincount(cells, weights=quantities, minlength=len(keys) * len(periods)).astype(float, copy=False)
    return Series(keys, values.reshape(len(keys), len(periods)), periods, freq)


def _numbered(frame: pd.DataFrame) -> tuple[Any, pd.DataFrame]:
    """Return the number of each row's series, and the series' keys, sorted."""
    names = {name: frame[name].astype("category").cat for name in ("site", "part")}
    site, part = (name.codes.to_numpy().astype(np.int64) for name in names.values())
    both = site * len(names["part"].categories) + part
    if (both[1:] >= both[:-1]).all():  # as a partition's rows are
        numbers = np.zeros(len(both), dtype=np.int64)
        numbers[1:] = np.cumsum(both[1:] != both[:-1])
        found = both[np.flatnonzero(np.diff(numbers, prepend=-1))]
    else:
        found, numbers = np.unique(both, return_inverse=True)
    codes = dict(zip(names, np.divmod(found, len(names["part"].categories)), strict=True))
    return numbers, pd.DataFrame({name: each.categories.take(codes[name]) for name, each in names.items()})


def by_block(found: Callable[[Any], Any], values: Any) -> Any:
    """Return ``found`` of all series, computed a block at a time: faster in cache, and with little memory."""
    return np.concatenate([found(values[begin : begin + BLOCK]) for begin in range(0, max(len(values), 1), BLOCK)])


def remembered(found: Callable[[Matrix], T], values: Matrix, what: Any = None) -> T:
    """Return ``found`` of a matrix, computed once while the matrix is there.

    One model after another asks the same of it. A matrix of series is never written to.

    Args:
        what: What it is known by; default: ``found`` itself.
    """
    key, name = id(values), found if what is None else what
    if key not in _REMEMBERED:
        _REMEMBERED[key] = weakref.ref(values, lambda _: _REMEMBERED.pop(key, None)), {}
    known = _REMEMBERED[key][1]
    if name not in known:
        known[name] = found(values)
    made: T = known[name]
    return made


_REMEMBERED: dict[int, tuple[Any, dict[Any, Any]]] = {}


def mean_interval(values: Matrix) -> Any:
    """Return the mean number of periods between sales, per series; 1 for a series that never sold."""
    happened = values > 0
    count = happened.sum(axis=1)
    last = values.shape[1] - np.argmax(happened[:, ::-1], axis=1)
    return np.where(count > 0, last / np.maximum(count, 1), 1.0)


def demand_classes(values: Matrix) -> Any:
    """Return each series' number within `CLASSES`: by how often it sells, and by how much its sales vary."""
    return remembered(partial(by_block, _classes), values, _classes)


def rmsse(history: Matrix, actual: Matrix, forecast: Matrix) -> float:
    """Return the mean over series of the root mean squared scaled error; NaN where none ever moved."""
    squared = ((forecast - actual) ** 2).mean(axis=1)
    scale = _mean_step(history, 2)
    return _mean(np.sqrt(squared[scale > 0] / scale[scale > 0]))


def mase(history: Matrix, actual: Matrix, forecast: Matrix) -> float:
    """Return the mean over series of the mean absolute scaled error; NaN where none ever moved."""
    error = np.abs(forecast - actual).mean(axis=1)
    scale = _mean_step(history, 1)
    return _mean(error[scale > 0] / scale[scale > 0])


def wape(actual: Matrix, forecast: Matrix) -> float:
    """Return the sum of absolute errors over the sum of actual values; NaN where nothing was sold."""
    total = float(actual.sum())
    return float(np.abs(forecast - actual).sum()) / total if total else math.nan


def bias(actual: Matrix, forecast: Matrix) -> float:
    """Return the sum of errors over the sum of actual values; NaN where nothing was sold."""
    total = float(actual.sum())
    return float((forecast - actual).sum()) / total if total else math.nan


def pooled_rmse(actual: Matrix, forecast: Matrix) -> float:
    """Return the root of the mean squared error over everything."""
    return math.sqrt(_mean((forecast - actual) ** 2))


def coverage(actual: Matrix, lo: Matrix, hi: Matrix) -> float:
    """Return the share of actual values within their interval."""
    return _mean((actual >= lo) & (actual <= hi))


def periods_of(first: pd.Timestamp, last: pd.Timestamp, freq: Freq) -> Dates:
    """Return the whole periods of a table from its first to its last day."""
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


def _classes(values: Matrix) -> Any:
    count = np.maximum(np.count_nonzero(values, axis=1), 1)
    mean = values.sum(axis=1) / count
    variance = np.einsum("ij,ij->i", values, values) / count - mean**2  # of what sold; zeros add nothing
    varies = variance >= _VARIATION * np.maximum(mean, 1e-12) ** 2
    return (mean_interval(values) >= _INTERVAL) + 2 * varies


def _mean_step(history: Matrix, power: int) -> Any:
    """Return the mean over time of |change to the next period| ** power, per series."""
    if history.shape[1] < 2:
        return np.zeros(len(history))
    return (np.abs(np.diff(history, axis=1)) ** power).mean(axis=1)


def _mean(values: Any) -> float:
    return float(np.mean(values)) if np.size(values) else math.nan
