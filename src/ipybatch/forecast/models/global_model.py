"""Global model: one regression over all series of a partition, which learns how each goes on from how all others did.

The target is the mean of the next periods in units of the series' scale: one row per series and origin, so that a year
of twenty thousand series trains in seconds. The loss is the pinball loss, at a quantile below the one that keeps the
total (`balance`): the least scaled error lies well below the mean, which a few large orders raise far. Half of the
level is SES, which errs the other way where demand is rare: together they about keep the total, and the few parts that
sell most, where SES is hard to beat, do not pay for the many that sell seldom.

    level    = geometric mean of gradient boosting and SES
    forecast = level x seasonality (days of the week, columns known ahead)

A user's own regressor stands alone, without SES.

Features have no scale: all levels are in units of the series' own root mean squared step, so that one model learns from
the part that sells ten a year and the part that sells ten thousand. No feature looks beyond its origin.

    own        levels at four smoothing factors, means of the latest periods, largest value, deviation; how often and
               how lately it sold
    site, part how often its site and its part sell now, relative to before: target encoding as a ratio
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from ipybatch.forecast.models.matrix import BLOCK, Matrix, Series, by_block, remembered
from ipybatch.forecast.models.series_models import Seasonality, ses, sold_once

_UNDER = 0.76  # of the quantile that keeps the total; see tests/benchmarks/accuracy.py for how it was chosen
SMALL = 2_000  # series; a partition of as many learns at least as well from its own rows
_LEAST = 1 / 16  # of the level of SES
_MOST_ROWS = 60_000  # a sample above that, for speed
_SHORTEST = 6  # periods before the first origin
_LARGEST = 8.0  # steps; one enormous order must not weigh more
_SPEEDS = np.array([0.05, 0.1, 0.2, 0.4])
_GROUP_SPEEDS = np.array([0.1, 0.3])
_WINDOWS = (1, 4, 8)
_OWN = 3 + len(_WINDOWS) + len(_SPEEDS) + 5  # features that a series has of itself
_TINY = 1e-9


class Prior(msgspec.Struct, frozen=True, eq=False):
    """What partitions borrow from the table, see `prior`.

    Attributes:
        regressors: The default regressor, fitted and pickled, for each number of periods that it saw. Pickled, because
            a session hands it on without scikit-learn, which takes a second to import.
        default: The model that a partition begins with; None where each finds it by itself.
    """

    regressors: Mapping[int, bytes]
    default: str | None = None


class GlobalModel:
    """A regressor over all series.

    Args:
        regressor: Any of scikit-learn; default: histogram gradient boosting.
        known: The columns that are known ahead, see `Settings.known`.
        seed: Of the sample and the boosting.
        prior: What the partition borrows from the table instead of learning from its own rows.
    """

    def __init__(self, regressor: Any = None, *, known: Any = None, seed: int = 0, prior: Prior | None = None) -> None:
        self._regressor = regressor
        self._seasonality = Seasonality(known)
        self._seed = seed
        self._prior = prior
        self.fitted: Any = None

    def fit(self, past: Series, horizon: int) -> None:
        """Learn from every origin of the past after which a horizon is known."""
        length = past.values.shape[1]
        self._seasonality.fit(past)
        if self._regressor is None and self._prior is not None and (lent := self._prior.regressors.get(length)):
            self.fitted = pickle.loads(lent)  # noqa: S301  # from our own child
            return
        span = max(1, min(horizon, length // 3))
        first, last = max(_SHORTEST, length // 4), length - span
        wanted = int(np.clip(2 * _MOST_ROWS // max(len(past.values), 1), 4, 24))
        cuts = sorted(set(np.linspace(first, last, wanted).astype(int).tolist())) if last >= first else []
        self.fitted = None
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
            self.fitted = self._make(balance(target)).fit(rows, target)

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return level times seasonality; the mean of the past where there was too little to learn from."""
        level = past.values.mean(axis=1)
        sold = np.flatnonzero(level)
        if self.fitted is not None and len(sold):
            seen, scale = features(past, [past.values.shape[1]], sold)
            # at most what a series ever sold: a tree cannot say more than it saw, but a user's linear model can
            learnt = np.clip(self.fitted.predict(seen[0]), 0.0, _LARGEST) * scale[0]
            learnt = np.minimum(learnt, by_block(lambda some: some.max(axis=1), past.values)[sold])
            level[sold] = learnt if self._regressor is not None else joined(learnt, ses(past.values, 1, 1)[sold, 0])
        made: Matrix = level[:, None] * self._seasonality.ahead(past, horizon)
        return made

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


def joined(learnt: Any, smoothed: Any) -> Any:
    """Return the geometric mean of both; what is learnt to sell next to nothing still sells a share of its level."""
    return np.sqrt(np.maximum(learnt, _LEAST * smoothed) * smoothed)


def features(series: Series, cuts: Sequence[int], rows: Any = slice(None)) -> tuple[Any, Any]:
    """Return features and scale at each origin.

    Args:
        series: What is known.
        cuts: After how many periods each origin is, ascending, >= 1.
        rows: The numbers of the series that are asked about; default: all.

    Returns:
        Features, (origins, series, features); scales, (origins, series), > 0.
    """
    at, values = np.asarray(cuts), series.values
    asked = np.arange(len(values))[rows]
    groups = [series.keys[key].factorize()[0] for key in ("site", "part")]
    events = np.nonzero(values)
    ratios = [_ratios(group, events, at, values.shape[1], group[asked]) for group in groups]
    own, scale = _own_of(values, asked, at)
    found = [ratio[:, group[asked]] for group, each in zip(groups, ratios, strict=True) for ratio in each]
    return np.concatenate([own, np.stack(found, axis=-1)], axis=-1), scale


def _own_of(values: Matrix, asked: Any, at: Any) -> tuple[Any, Any]:
    """Return what a series tells of itself at each origin, and its scale.

    All that sold once in the same period tell the same, but for their scale: see `series_models`.
    """
    once, periods, _ = remembered(sold_once, values)
    period_of = np.full(len(values), -1)
    period_of[once] = periods
    period = period_of[asked]
    if (period >= 0).sum() <= values.shape[1]:
        return _own(values, asked, at)
    is_once = period >= 0
    seen, scale = np.empty((len(at), len(asked), _OWN)), np.ones((len(at), len(asked)))
    pieces, units = _own(np.eye(values.shape[1]), np.arange(values.shape[1]), at)
    rest = np.flatnonzero(~is_once)
    seen[:, rest], scale[:, rest] = _own(values, asked[rest], at)
    looked_up = np.flatnonzero(is_once)
    period = period[looked_up]
    seen[:, looked_up] = pieces[:, period]
    unit = units[:, period] * values[asked[looked_up], period]
    scale[:, looked_up] = np.where(period < at[:, None], unit, 1.0)  # before it sold it has none
    return seen, scale


def _own(values: Matrix, rows: Any, at: Any) -> tuple[Any, Any]:
    seen, scale = np.empty((len(at), len(rows), _OWN)), np.empty((len(at), len(rows)))
    for begin in range(0, len(rows), BLOCK):
        columns = np.ascontiguousarray(values[rows[begin : begin + BLOCK]].T)
        some = slice(begin, begin + columns.shape[1])
        unit = scale[:, some] = _scales(columns, at)
        found = [*(level / unit for level in _levels(columns, at)), *_occurrence(columns, at)]
        for number, each in enumerate(found):
            seen[:, some, number] = each
    return seen, scale


def scales(values: Matrix, at: Any) -> Any:
    """Return the root mean squared step up to each origin; where nothing moved, the mean, and 1 where nothing sold."""
    return by_block(lambda some: _scales(np.ascontiguousarray(some.T), at).T, values).T


def _scales(columns: Any, at: Any) -> Any:
    steps = np.diff(columns, axis=0, prepend=columns[:1]) ** 2
    step = np.sqrt(_total(steps, at) / np.maximum(at - 1, 1)[:, None])
    mean = _total(columns, at) / at[:, None]
    return np.where(step > 0, step, np.where(mean > 0, mean, 1.0))


def _levels(columns: Any, at: Any) -> list[Any]:
    mean = _total(columns, at) / at[:, None]
    squares = _total(columns**2, at) / at[:, None]
    latest = [np.stack([columns[max(cut - last, 0) : cut].mean(axis=0) for cut in at]) for last in _WINDOWS]
    deviation = np.sqrt(np.maximum(squares - mean**2, 0.0))
    return [mean, _largest(columns, at), deviation, *latest, *smoothed(columns, _SPEEDS, at)]


def _occurrence(columns: Any, at: Any) -> list[Any]:
    happened, ends = columns > 0, at[:, None]
    count = _total(happened, at)
    latest = _largest(happened * np.arange(1.0, len(columns) + 1)[:, None], at)
    first = np.where(happened.any(axis=0), happened.argmax(axis=0), len(columns))
    age = np.maximum(ends - first, 0)
    return [count, count / ends, ends - latest, age, count / np.maximum(age, 1)]


def _ratios(group: Any, events: Any, at: Any, length: int, asked: Any) -> Any:
    """Return per speed, origin and group how much it sells now, as a ratio to its mean; some groups at a time.

    Args:
        group: Of each series.
        events: The series and periods in which something sold.
        at: The origins.
        length: How many periods there are.
        asked: The groups that are asked about; no others are filled in.
    """
    rows, periods = events
    count = int(group.max(initial=-1)) + 1
    made = np.zeros((len(_GROUP_SPEEDS), len(at), count))
    wanted = np.flatnonzero(np.bincount(asked, minlength=count))
    number = np.full(count, -1)
    number[wanted] = np.arange(len(wanted))
    of_event = number[group[rows]]
    if len(wanted) < count:
        periods, of_event = periods[of_event >= 0], of_event[of_event >= 0]
    if (np.diff(of_event) < 0).any():
        order = np.argsort(of_event, kind="stable")
        of_event, periods = of_event[order], periods[order]
    for begin in range(0, len(wanted), BLOCK):
        some = min(BLOCK, len(wanted) - begin)
        first, last = np.searchsorted(of_event, (begin, begin + some))
        cells = periods[first:last] * some + of_event[first:last] - begin
        counts = np.bincount(cells, minlength=length * some).reshape(length, some).astype(float)
        mean = _total(counts, at) / at[:, None] + _TINY
        made[:, :, wanted[begin : begin + some]] = smoothed(counts, _GROUP_SPEEDS, at) / mean
    return made


def _total(columns: Any, at: Any) -> Any:
    """Return the sums up to each origin."""
    return np.cumsum([part.sum(axis=0, dtype=float) for part in _between(columns, at)], axis=0)


def _largest(columns: Any, at: Any) -> Any:
    """Return the largest up to each origin."""
    return np.maximum.accumulate([part.max(axis=0) for part in _between(columns, at)], axis=0)


def _between(columns: Any, at: Any) -> list[Any]:
    """Return the periods from each origin to the next: to run through them once is faster than to accumulate."""
    return [columns[begin:end] for begin, end in pairwise([0, *at])]


def smoothed(columns: Any, speeds: Any, at: Any) -> Any:
    """Return the levels of exponential smoothing, (speeds, origins, series)."""
    wanted = {int(cut): number for number, cut in enumerate(at)}
    made = np.empty((len(speeds), len(at), columns.shape[1]))
    level, speed = np.repeat(columns[:1].astype(float), len(speeds), axis=0), speeds[:, None]
    step = np.empty_like(level)
    for number, now in enumerate(columns, start=1):
        np.subtract(now, level, out=step)
        step *= speed
        level += step
        if number in wanted:
            made[:, wanted[number]] = level
    return made
