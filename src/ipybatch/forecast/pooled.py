"""Pooled: one model for all series of a partition, which learns how a series goes on from how all others did.

What it learns is the mean of the next periods, in units of the series (`features`): one row per series and origin,
so that a year of twenty thousand series trains in seconds.  Its loss is the pinball, at a quantile below the one that
keeps the total (`balance`): scaled errors are least well below the mean, which a few large orders draw far up.  Half of
the level is SES, which errs the other way where demand is rare; between them the total is about kept, and the few parts
that sell most, where SES is hard to beat, do not pay for the many that sell seldom.

    forecast = level (the mean of gradient boosting and SES) x shape (days of the week, columns that are known ahead)

A regressor of a user's own stands alone: what it learns is its own affair.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ipybatch.forecast.features import features
from ipybatch.forecast.matrix import Matrix, Series
from ipybatch.forecast.models import ses
from ipybatch.forecast.shape import Shape

_UNDER = 0.8  # of the quantile that keeps the total; see tests/benchmarks/accuracy.py for how it was chosen
_MOST_ROWS = 60_000  # a sample above that, for speed
_SHORTEST = 6  # periods before the first origin
_LARGEST = 8.0  # steps; one enormous order is no lesson


class Pooled:
    """A regressor over all series.

    Args:
        regressor: Any of scikit-learn; default: histogram gradient boosting.
        known: What is known ahead, see `Settings.known`.
        seed: Of the sample and the boosting.
    """

    def __init__(self, regressor: Any = None, *, known: Any = None, seed: int = 0) -> None:
        self._regressor = regressor
        self._shape = Shape(known)
        self._seed = seed
        self._fitted: Any = None

    def fit(self, past: Series, horizon: int) -> None:
        """Learn from every origin of the past after which a horizon is known."""
        length = past.values.shape[1]
        span = max(1, min(horizon, length // 3))
        cuts = self._cuts(past, span)
        self._fitted = None
        self._shape.fit(past)
        if not cuts:
            return
        rng = np.random.default_rng(self._seed)
        count, most = len(past.values), 2 * _MOST_ROWS // len(cuts)
        asked = rng.choice(count, most, replace=False) if count > most else np.arange(count)
        seen, scale = features(past, cuts, asked)
        values = past.values[asked]
        total = np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0)))
        came = np.stack([(total[:, cut + span] - total[:, cut]) / span for cut in cuts]) / scale
        sold = np.stack([values[:, :cut].any(axis=1) for cut in cuts])
        rows, target = seen[sold], np.minimum(came[sold], _LARGEST)
        if len(rows) > _MOST_ROWS:
            chosen = rng.choice(len(rows), _MOST_ROWS, replace=False)
            rows, target = rows[chosen], target[chosen]
        if len(rows) > 1:
            self._fitted = self._make(balance(target)).fit(rows, target)

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return level times shape; the mean of the past where there was too little to learn from."""
        level = past.values.mean(axis=1)
        sold = np.flatnonzero(level)
        if self._fitted is not None and len(sold):
            level[sold] = self._learnt(past, sold)
        made: Matrix = level[:, None] * self._shape.ahead(past, horizon)
        return made

    def _learnt(self, past: Series, sold: Any) -> Any:
        """Return the level of the series that ever sold; no series is said to sell more than it ever did."""
        seen, scale = features(past, [past.values.shape[1]], sold)
        values = past.values[sold]
        # a tree cannot say more than it saw, but a user's linear model can
        learnt = np.minimum(np.clip(self._fitted.predict(seen[0]), 0.0, _LARGEST) * scale[0], values.max(axis=1))
        return learnt if self._regressor is not None else (learnt + ses(values, 1, 1)[:, 0]) / 2

    def _cuts(self, past: Series, span: int) -> list[int]:
        count, length = past.values.shape
        first, last = max(_SHORTEST, length // 4), length - span
        wanted = int(np.clip(2 * _MOST_ROWS // max(count, 1), 4, 24))
        return sorted(set(np.linspace(first, last, wanted).astype(int).tolist())) if last >= first else []

    def _make(self, quantile: float) -> Any:
        if self._regressor is not None:
            from sklearn.base import clone

            return clone(self._regressor)
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(
            loss="quantile",
            quantile=quantile,
            max_iter=30,
            learning_rate=0.15,
            max_leaf_nodes=10,
            min_samples_leaf=100,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=self._seed,
        )


def balance(target: Any) -> float:
    """Return the quantile to learn: under the share of what came that is at most its mean."""
    return float(np.clip(_UNDER * (target <= target.mean()).mean(), 0.5, 0.95))
