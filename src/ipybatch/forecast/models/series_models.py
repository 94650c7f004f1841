"""Models of single series, each a few sweeps over the matrix of all series; and the seasonality around their level.

    naive           the last value again
    seasonal_naive  the values of a season ago
    moving_average  the mean of the last season
    ses             simple exponential smoothing, its smoothing factor per series by least squared error
    tsb             Teunter-Syntetos-Babai: smooths size and probability of demand, so that the forecast of a part that
                    no longer sells fades
    sba             Syntetos-Boylan: Croston's size over interval, less its bias
    imapa           the mean of SES over sums of 1, 2, ... periods, up to the mean interval between sales

Seasonality is a factor per series and period. The day of the week is a ratio per weekday over all series of a
partition, shrunk towards 1 where there are few weeks. Columns that are known ahead (a price, a holiday) are learnt by a
Poisson boosting of sales over level.

Prior art: statsforecast's models of the same names. Smoothing factors come from a short grid here, not from an
optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.models.matrix import BLOCK, Dates, Matrix, Series, by_block, mean_interval, remembered

_ALPHAS = np.linspace(0.1, 0.3, 3)
_TSB_ALPHA = 0.1
_SBA_ALPHA = 0.1
_PRIOR_WEEKS = 4.0
_LOW, _HIGH = 0.05, 20.0  # of a factor
_MOST_ROWS = 60_000


def naive(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return the last value, again and again."""
    return _flat(values[:, -1], horizon)


def seasonal_naive(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return the values of a season ago; without a whole season, the last value."""
    if values.shape[1] < season:
        return naive(values, horizon, season)
    at = values.shape[1] - season + np.arange(horizon) % season
    return np.ascontiguousarray(values[:, at])


def moving_average(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return the mean of the last season, of at most thirteen periods where a season is a year of weeks."""
    return _flat(values[:, -min(season, 13) :].mean(axis=1), horizon)


def ses(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return the level of simple exponential smoothing, of the smoothing factor with the least squared error."""
    return _flat(_level(_smoothed, values), horizon)


def tsb(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return size times probability of demand, both smoothed; no demand lowers the probability."""
    return _flat(_level(_faded, values), horizon)


def sba(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return smoothed size over smoothed interval, times 1 - alpha / 2."""
    return _flat(_level(_spaced, values), horizon)


def imapa(values: Matrix, horizon: int, season: int) -> Matrix:
    """Return the mean of SES over all aggregations up to the mean interval between demands."""
    return _flat(_by_piece(_deepest_first, values), horizon)


MODELS: dict[str, Callable[[Matrix, int, int], Matrix]] = {
    made.__name__: made for made in (naive, seasonal_naive, moving_average, ses, tsb, sba, imapa)
}


class Seasonality:
    """Factors per series and period, about 1 on average.

    Args:
        known: The columns that are known ahead, see `Settings.known`; None for none.
    """

    def __init__(self, known: Any = None) -> None:
        self._known = known
        self._weekdays = np.ones(7)
        self._fitted: Any = None

    def fit(self, past: Series) -> None:
        """Learn the factors of the past."""
        self._weekdays = weekday_factors(past) if past.freq == "D" else np.ones(7)
        self._fitted = None
        if self._known is None:
            return
        from sklearn.ensemble import HistGradientBoostingRegressor

        level = past.values.mean(axis=1)[:, None] * self._by_weekday(past, past.dates)
        rows = self._rows(past, past.dates).reshape(level.size, -1)
        used = np.flatnonzero(level.ravel() > 0)
        if len(used) > _MOST_ROWS:
            used = np.random.default_rng(0).choice(used, _MOST_ROWS, replace=False)
        if len(used) < 2:
            return
        ratio = past.values.ravel()[used] / level.ravel()[used]
        boosting = HistGradientBoostingRegressor(loss="poisson", max_iter=50, max_leaf_nodes=8, early_stopping=False)
        self._fitted = boosting.fit(rows[used], np.minimum(ratio, _HIGH)) if ratio.any() else None

    def ahead(self, past: Series, horizon: int) -> Matrix:
        """Return the factors of the ``horizon`` periods after the past, one row per series."""
        dates = past.ahead(horizon)
        made = self._by_weekday(past, dates)
        if self._fitted is not None:
            rows = self._rows(past, dates).reshape(made.size, -1)
            made = made * np.clip(self._fitted.predict(rows), _LOW, _HIGH).reshape(made.shape)
        return made

    def _by_weekday(self, past: Series, dates: Dates) -> Matrix:
        factors: Matrix = np.tile(self._weekdays[dates.day_of_week], (len(past.keys), 1))
        return factors

    def _rows(self, past: Series, dates: Dates) -> Any:
        return np.stack([known_values(self._known, past.keys, dates, name) for name in known_columns(self._known)], -1)


def weekday_factors(past: Series) -> Any:
    """Return the sales of each weekday, Monday first, as a ratio to an average day: by the share of parts that sold."""
    sold = (past.values > 0).mean(axis=0)
    days = past.dates.day_of_week.to_numpy()
    count = np.bincount(days, minlength=7)
    total = sold.mean()
    if not total:
        return np.ones(7)
    ratio = np.bincount(days, weights=sold, minlength=7) / total
    return (ratio + _PRIOR_WEEKS) / (count + _PRIOR_WEEKS)


def known_columns(known: pd.DataFrame) -> list[str]:
    """Return the names of the columns that are known ahead.

    Raises:
        InputError: There is no date column, or no column of numbers.
    """
    names = [name for name in known.columns if name not in ("site", "part", "date")]
    if "date" not in known.columns or not names:
        msg = f"known must have a date and at least one column of numbers, got columns {list(known.columns)}"
        raise InputError(msg)
    return names


def known_values(known: pd.DataFrame, keys: pd.DataFrame, dates: Dates, name: str) -> Matrix:
    """Return one known column as series x dates; NaN where it has no value."""
    by = [key for key in ("site", "part") if key in known.columns]
    table = known.assign(date=pd.to_datetime(known["date"])).pivot_table(index=by or None, columns="date", values=name)
    if not by:
        row = known.assign(date=pd.to_datetime(known["date"])).groupby("date")[name].mean().reindex(dates)
        return np.tile(row.to_numpy(float), (len(keys), 1))
    index = pd.MultiIndex.from_frame(keys[by]) if len(by) > 1 else pd.Index(keys[by[0]])
    found: Matrix = table.reindex(index=index, columns=dates).to_numpy(float)
    return found


def _level(level_of: Callable[[Any], Any], values: Matrix) -> Any:
    """Return a level per series; ``level_of`` is given a row per period, so that a sweep is contiguous."""

    def levels_of(values: Matrix, rows: Any) -> Any:
        blocks = [rows[begin : begin + BLOCK] for begin in range(0, len(rows), BLOCK)]
        return np.concatenate([np.zeros(0), *(level_of(np.ascontiguousarray(values[some].T)) for some in blocks)])

    return remembered(partial(_by_piece, levels_of), values, level_of)


def _by_piece(levels_of: Callable[[Matrix, Any], Any], values: Matrix) -> Any:
    """Return a level per series; of one that sold once, its quantity times the level of one piece in that period.

    In a large table most series sold once, and there are no more periods in which they can have.
    """
    once, periods, others = remembered(sold_once, values)
    if len(once) <= values.shape[1]:
        return levels_of(values, np.arange(len(values)))
    pieces = np.eye(values.shape[1])
    made = np.empty(len(values))
    made[once] = values[once, periods] * levels_of(pieces, np.arange(len(pieces)))[periods]
    made[others] = levels_of(values, others)
    return made


def sold_once(values: Matrix) -> tuple[Any, Any, Any]:
    """Return the rows of the series that sold once, the periods in which they did, and all other rows."""
    count = by_block(lambda some: np.count_nonzero(some, axis=1), values)
    once = np.flatnonzero(count == 1)
    return once, by_block(lambda rows: values[rows].argmax(axis=1), once), np.flatnonzero(count != 1)


def _smoothed(columns: Any) -> Any:
    """Return the last level of SES: each error is what is left of the one before, and the step since."""
    left = (1 - _ALPHAS)[:, None]
    error = np.zeros((len(_ALPHAS), columns.shape[1]))
    squares, scratch, step = np.zeros_like(error), np.empty_like(error), np.empty_like(columns[0])
    for before, now in pairwise(columns):
        np.subtract(now, before, out=step)
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
        _renew(size, now, is_demand, seen, _TSB_ALPHA)
        seen |= is_demand
    return chance * size


def _spaced(columns: Any) -> Any:
    count = columns.shape[1]
    size, interval, since = np.zeros(count), np.ones(count), np.zeros(count)
    seen = np.zeros(count, dtype=bool)
    for now in columns:
        since += 1
        is_demand = now > 0
        _renew(size, now, is_demand, seen, _SBA_ALPHA)
        _renew(interval, since, is_demand, seen, _SBA_ALPHA)
        since[is_demand] = 0.0
        seen |= is_demand
    return (1 - _SBA_ALPHA / 2) * size / interval


def _renew(level: Any, now: Any, rows: Any, seen: Any, alpha: float) -> None:
    """Smooth the levels of these series; the first value of one is its level."""
    at = np.flatnonzero(rows)
    level[at] = np.where(seen[at], level[at] + alpha * (now[at] - level[at]), now[at])


def _deepest_first(values: Matrix, rows: Any) -> Any:
    """Return `_aggregated` of these rows, those with about as many aggregations together."""
    deepest = np.clip(np.rint(by_block(lambda some: mean_interval(values[some]), rows)), 1, values.shape[1]).astype(int)
    order = np.argsort(-deepest, kind="stable")
    made = np.empty(len(rows))
    for begin in range(0, len(order), BLOCK):
        at = order[begin : begin + BLOCK]
        made[at] = _aggregated(np.ascontiguousarray(values[rows[at]].T), deepest[at])
    return made


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
