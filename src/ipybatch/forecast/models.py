"""Models: forecasts of all series at once, each a few sweeps over a series x time matrix.

    naive           the last value again
    seasonal_naive  what was a season ago
    moving_average  the mean of the last season
    ses             simple exponential smoothing, its speed per series by squared error
    tsb             Teunter-Syntetos-Babai: smooths size and probability of demand, so that what dies fades
    sba             Syntetos-Boylan: Croston's size over interval, less its bias
    imapa           the mean of SES over 1, 2, ... periods put together, up to the mean interval between demands

Prior art: statsforecast's models of the same names. Speeds come from a short grid here, not from an optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ipybatch.forecast.matrix import Matrix

_ALPHAS = np.linspace(0.1, 0.3, 5)
_BLOCK = 4_000  # series at a time: what a sweep touches stays in the processor's cache
_TSB_ALPHA = 0.1
_SBA_ALPHA = 0.1


def naive(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return the last value, again and again."""
    return _flat(values[:, -1], horizon)


def seasonal_naive(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return what was a season ago; without a whole season, the last value."""
    if values.shape[1] < season:
        return naive(values, horizon, season)
    at = values.shape[1] - season + np.arange(horizon) % season
    return np.ascontiguousarray(values[:, at])


def moving_average(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return the mean of the last season, of at most thirteen periods where a season is a year of weeks."""
    return _flat(values[:, -min(season, 13) :].mean(axis=1), horizon)


def ses(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return the level of simple exponential smoothing, of the speed with the least squared error."""
    return _flat(_smoothed(values.T), horizon)


def tsb(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return size times probability of demand, both smoothed; no demand lowers the probability."""
    happened = values > 0
    chance = happened[:, 0].astype(float)
    size = np.where(happened[:, 0], values[:, 0], 0.0)
    seen = happened[:, 0].copy()
    for now, is_demand in zip(values.T[1:], happened.T[1:], strict=True):
        chance += _TSB_ALPHA * (is_demand - chance)
        size = np.where(is_demand, np.where(seen, size + _TSB_ALPHA * (now - size), now), size)
        seen |= is_demand
    return _flat(chance * size, horizon)


def sba(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return smoothed size over smoothed interval, times 1 - alpha / 2."""
    size = np.zeros(len(values))
    interval = np.ones(len(values))
    since = np.zeros(len(values))
    seen = np.zeros(len(values), dtype=bool)
    for now in values.T:
        since += 1
        is_demand = now > 0
        size = np.where(is_demand, np.where(seen, size + _SBA_ALPHA * (now - size), now), size)
        interval = np.where(is_demand, np.where(seen, interval + _SBA_ALPHA * (since - interval), since), interval)
        since = np.where(is_demand, 0.0, since)
        seen |= is_demand
    return _flat((1 - _SBA_ALPHA / 2) * size / interval, horizon)


def imapa(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return the mean of SES over all aggregations up to the mean interval between demands."""
    length = values.shape[1]
    deepest = np.clip(np.rint(mean_interval(values)), 1, length).astype(int)
    order = np.argsort(-deepest, kind="stable")  # so that the series of each aggregation are the first few
    totals = np.pad(np.cumsum(values[order].T, axis=0), ((1, 0), (0, 0)))
    level = np.zeros(len(values))
    for periods in range(1, deepest.max(initial=1) + 1):
        count = int((deepest >= periods).sum())
        level[:count] += _smoothed(np.diff(totals[length % periods :: periods, :count], axis=0)) / periods
    made = np.empty(len(values))
    made[order] = level / deepest[order]
    return _flat(np.maximum(made, 0.0), horizon)


MODELS: dict[str, Callable[[Matrix, int, int], Matrix]] = {
    made.__name__: made for made in (naive, seasonal_naive, moving_average, ses, tsb, sba, imapa)
}


def mean_interval(values: Matrix) -> Any:
    """Return periods between demands, on average, per series; 1 where there is none."""
    happened = values > 0
    count = happened.sum(axis=1)
    last = values.shape[1] - np.argmax(happened[:, ::-1], axis=1)
    return np.where(count > 0, last / np.maximum(count, 1), 1.0)


def _smoothed(columns: Any) -> Any:
    """Return the last level of SES per series; ``columns`` has a row per period, so that a sweep is contiguous."""
    found = np.empty(columns.shape[1])
    for begin in range(0, len(found), _BLOCK):
        found[begin : begin + _BLOCK] = _sweep(np.ascontiguousarray(columns[:, begin : begin + _BLOCK]))
    return found


def _sweep(columns: Any) -> Any:
    level = np.repeat(columns[:1], len(_ALPHAS), axis=0)
    squares, error = np.zeros_like(level), np.empty_like(level)
    speed, scratch = _ALPHAS[:, None], np.empty_like(level)
    for now in columns[1:]:
        np.subtract(now, level, out=error)
        np.multiply(error, error, out=scratch)
        squares += scratch
        error *= speed
        level += error
    best = squares.argmin(axis=0)
    return level[best, np.arange(level.shape[1])]


def _flat(level: Any, horizon: int) -> Matrix:
    return np.repeat(level[:, None], horizon, axis=1)
