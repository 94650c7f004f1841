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

from ipybatch.forecast.matrix import BLOCK, Matrix, by_block

_ALPHAS = np.linspace(0.1, 0.3, 5)
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
    return _flat(_level(_smoothed, values), horizon)


def tsb(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return size times probability of demand, both smoothed; no demand lowers the probability."""
    return _flat(_level(_faded, values), horizon)


def sba(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return smoothed size over smoothed interval, times 1 - alpha / 2."""
    return _flat(_level(_spaced, values), horizon)


def imapa(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return the mean of SES over all aggregations up to the mean interval between demands."""
    deepest = _deepest(values)
    order = np.argsort(-deepest, kind="stable")  # so that the series of a block have about as many
    made = np.empty(len(values))
    for begin in range(0, len(order), BLOCK):
        rows = order[begin : begin + BLOCK]
        made[rows] = _aggregated(np.ascontiguousarray(values[rows].T), deepest[rows])
    return _flat(made, horizon)


MODELS: dict[str, Callable[[Matrix, int, int], Matrix]] = {
    made.__name__: made for made in (naive, seasonal_naive, moving_average, ses, tsb, sba, imapa)
}


def mean_interval(values: Matrix) -> Any:
    """Return periods between demands, on average, per series; 1 where there is none."""
    happened = values > 0
    count = happened.sum(axis=1)
    last = values.shape[1] - np.argmax(happened[:, ::-1], axis=1)
    return np.where(count > 0, last / np.maximum(count, 1), 1.0)


def _level(level_of: Callable[[Any], Any], values: Matrix) -> Any:
    """Return a level per series; ``level_of`` is given a row per period, so that a sweep is contiguous."""
    return by_block(lambda some: level_of(np.ascontiguousarray(some.T)), values)


def _smoothed(columns: Any) -> Any:
    """Return the last level of SES: each error is what is left of the one before, and the step since."""
    left = (1 - _ALPHAS)[:, None]
    error = np.zeros((len(_ALPHAS), columns.shape[1]))
    squares, scratch = np.zeros_like(error), np.empty_like(error)
    for step in np.diff(columns, axis=0):
        error *= left
        error += step
        np.multiply(error, error, out=scratch)
        squares += scratch
    best, each = squares.argmin(axis=0), np.arange(columns.shape[1])
    return np.maximum(columns[-1] - (1 - _ALPHAS)[best] * error[best, each], 0.0)


def _faded(columns: Any) -> Any:
    size, chance = columns[0].copy(), (columns[0] > 0).astype(float)
    seen = columns[0] > 0
    for now in columns[1:]:
        is_demand = now > 0
        chance += _TSB_ALPHA * (is_demand - chance)
        size = np.where(is_demand, np.where(seen, size + _TSB_ALPHA * (now - size), now), size)
        seen |= is_demand
    return chance * size


def _spaced(columns: Any) -> Any:
    count = columns.shape[1]
    size, interval, since = np.zeros(count), np.ones(count), np.zeros(count)
    seen = np.zeros(count, dtype=bool)
    for now in columns:
        since += 1
        is_demand = now > 0
        size = np.where(is_demand, np.where(seen, size + _SBA_ALPHA * (now - size), now), size)
        interval = np.where(is_demand, np.where(seen, interval + _SBA_ALPHA * (since - interval), since), interval)
        since[is_demand] = 0.0
        seen |= is_demand
    return (1 - _SBA_ALPHA / 2) * size / interval


def _deepest(values: Matrix) -> Any:
    return np.clip(np.rint(mean_interval(values)), 1, values.shape[1]).astype(int)


def _aggregated(columns: Any, deepest: Any) -> Any:
    """Return the mean of SES over 1, 2, ... periods put together; the series that go deepest stand first."""
    totals = np.pad(np.cumsum(columns, axis=0), ((1, 0), (0, 0)))
    level = np.zeros(len(deepest))
    for periods in range(1, deepest.max(initial=1) + 1):
        count = int((deepest >= periods).sum())
        level[:count] += _smoothed(np.diff(totals[len(columns) % periods :: periods, :count], axis=0)) / periods
    return level / deepest


def _flat(level: Any, horizon: int) -> Matrix:
    """Return the level for every period ahead, as a view: no memory is taken, and nothing can be written."""
    return np.broadcast_to(level[:, None], (len(level), horizon))
