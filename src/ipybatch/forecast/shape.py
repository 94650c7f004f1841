"""Shape: how demand moves around its level: by the day of the week, and by what a user knows ahead.

The day of the week is a ratio per weekday over all series of a partition, shrunk towards 1 where there are few weeks.
Columns that are known ahead (a price, a holiday) are learnt by a Poisson boosting of what sold over the level then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.matrix import Dates, Matrix, Series

_PRIOR_WEEKS = 4.0
_LOW, _HIGH = 0.05, 20.0
_MOST_ROWS = 60_000


class Shape:
    """Factors per series and period, about 1 on average.

    Args:
        known: A frame: date, site or part where it differs by them, and numbers; None for none.
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
        """Return the factors of the periods to come, one row per series."""
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
    """Return how much of an average day each weekday sells, Monday first, as the parts that sold see it."""
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
        InputError: There is no date, or nothing beside the keys.
    """
    names = [name for name in known.columns if name not in ("site", "part", "date")]
    if "date" not in known.columns or not names:
        msg = f"known must have a date and at least one column of numbers, got columns {list(known.columns)}"
        raise InputError(msg)
    return names


def known_values(known: pd.DataFrame, keys: pd.DataFrame, dates: Dates, name: str) -> Matrix:
    """Return one known column as series x dates; NaN where it does not say."""
    by = [key for key in ("site", "part") if key in known.columns]
    table = known.assign(date=pd.to_datetime(known["date"])).pivot_table(index=by or None, columns="date", values=name)
    if not by:
        row = known.assign(date=pd.to_datetime(known["date"])).groupby("date")[name].mean().reindex(dates)
        return np.tile(row.to_numpy(float), (len(keys), 1))
    index = pd.MultiIndex.from_frame(keys[by]) if len(by) > 1 else pd.Index(keys[by[0]])
    found: Matrix = table.reindex(index=index, columns=dates).to_numpy(float)
    return found
