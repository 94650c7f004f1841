"""Metrics: how good forecasts were, and what kind of demand they were for.

    MASE         mean over series of: mean |error| / mean |step| of the history
    RMSSE        mean over series of: root of mean error^2 / mean step^2 of the history
    WAPE         sum |error| / sum actual, over everything
    bias         sum error / sum actual: +0.1 is a tenth too much forecast
    pooled RMSE  root of mean error^2, over everything
    coverage     share of actual values within their interval

A step is the change from one period to the next, zeros filled from the table's start; a series that never moved has
none and is left out of MASE and RMSSE.  Where most values are zero, "nothing, ever" wins MASE, WAPE and RMSSE: read
them beside bias and pooled RMSE, never alone.

Source: Makridakis, Spiliotis, Assimakopoulos, "The M5 accuracy competition", IJF 38 (2022).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ipybatch.forecast.matrix import Matrix, by_block
from ipybatch.forecast.models import mean_interval

CLASSES = ("smooth", "intermittent", "erratic", "lumpy")
_INTERVAL, _VARIATION = 1.32, 0.49  # Syntetos, Boylan, Croston, "On the categorization of demand patterns" (2005)


def demand_classes(values: Matrix) -> Any:
    """Return the number within `CLASSES` of each series: how often it sells, and how much its sales vary."""
    return by_block(_classes, values)


def squared_step(values: Matrix) -> Any:
    """Return the mean squared change from one period to the next, per series."""
    return (np.diff(values, axis=1) ** 2).mean(axis=1) if values.shape[1] > 1 else np.zeros(len(values))


def absolute_step(values: Matrix) -> Any:
    """Return the mean absolute change from one period to the next, per series."""
    return np.abs(np.diff(values, axis=1)).mean(axis=1) if values.shape[1] > 1 else np.zeros(len(values))


def rmsse(history: Matrix, actual: Matrix, forecast: Matrix) -> float:
    """Return the mean over series of the root mean squared scaled error; NaN where none ever moved."""
    squared = ((forecast - actual) ** 2).mean(axis=1)
    scale = squared_step(history)
    return _mean(np.sqrt(squared[scale > 0] / scale[scale > 0]))


def mase(history: Matrix, actual: Matrix, forecast: Matrix) -> float:
    """Return the mean over series of the mean absolute scaled error; NaN where none ever moved."""
    error = np.abs(forecast - actual).mean(axis=1)
    scale = absolute_step(history)
    return _mean(error[scale > 0] / scale[scale > 0])


def wape(actual: Matrix, forecast: Matrix) -> float:
    """Return the sum of absolute errors over the sum of actual values; NaN where that is nothing."""
    total = float(actual.sum())
    return float(np.abs(forecast - actual).sum()) / total if total else math.nan


def bias(actual: Matrix, forecast: Matrix) -> float:
    """Return by which share the forecasts were too high, in all; NaN where nothing was sold."""
    total = float(actual.sum())
    return float((forecast - actual).sum()) / total if total else math.nan


def pooled_rmse(actual: Matrix, forecast: Matrix) -> float:
    """Return the root of the mean squared error over everything."""
    return math.sqrt(_mean((forecast - actual) ** 2))


def coverage(actual: Matrix, lo: Matrix, hi: Matrix) -> float:
    """Return the share of actual values within their interval."""
    return _mean((actual >= lo) & (actual <= hi))


def _classes(values: Matrix) -> Any:
    happened = values > 0
    count = np.maximum(happened.sum(axis=1), 1)
    mean = values.sum(axis=1) / count
    squares = np.where(happened, (values - mean[:, None]) ** 2, 0.0).sum(axis=1) / count
    varies = squares / np.maximum(mean, 1e-12) ** 2 >= _VARIATION
    return (mean_interval(values) >= _INTERVAL) + 2 * varies


def _mean(values: Any) -> float:
    return float(np.mean(values)) if np.size(values) else math.nan
