"""Prediction intervals: conformal, from backtest errors, over nested sets, per demand class (Mondrian).

Each past value, in units of its series' own spread, is grouped with those that followed forecasts of about the same
size in the same class. Where a group mostly sells, its errors count: what came less what was said. Where zeros are many
the values themselves do. The interval keeps the share ``level`` of a group, the outermost values removed, with the
finite-sample correction:

    values   0 0 0 0 0 0 1 2 3 9      outermost: the least of the share at or below and the share at or above
    level 0.8 keeps 0 to 3            nothing lies below zero, so all that may be removed is at the top

So the two ends are not equally far from the forecast, and a part that mostly sells nothing has zero as its lower end;
where more than ``level`` of the values are zero, the interval holds more than ``level``. Values are pooled because one
series has too few, by class and by size because half a piece a week and fifty have different errors. Series that sold
less than twice are a class of their own: their zeros would narrow the others.

Two origins see a table that moves as a whole, as with a season, at two of its moments. `movement` measures how far it
moved after earlier ones, by a level that costs next to nothing, and widens what is made of errors by it.

The reported coverage is measured at the latest origin with intervals made from the earlier ones; NaN with one origin.

Source: Gupta, Kuchibhotla, Ramdas, "Nested conformal prediction", Pattern Recognition 127 (2022); Vovk, "Conditional
validity of inductive conformal predictors", ACML (2012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from ipybatch.forecast.models.global_model import smoothed
from ipybatch.forecast.models.life import held
from ipybatch.forecast.models.matrix import CLASSES, Matrix, Series, by_block, coverage, demand_classes, remembered
from ipybatch.forecast.models.series_models import weekday_factors

_FEWEST = 60  # values that came after forecasts of one size
_SIZES = 8  # of forecasts, at most, in a class
_MOST = 50_000  # values of a class; a sample above that, for speed
_ZEROS = 0.1  # share of zeros up to which errors count
_LATELY = 4  # the part of the history by which a spread is of late: a quarter
_SHORTEST = 14  # periods of that
_ORIGINS = 8  # at which movement is measured, at most
_ALPHA = 0.2  # of its level
_BEYOND = 0.8  # of it: some is in the errors of the trials already
_FEW = 10  # series that move together


@dataclass(frozen=True, slots=True)
class Band:
    """Interval ends by size of forecast, in units of a series' own spread.

    Attributes:
        sizes: The largest forecast of each size but the last.
        lo: Per size, the lower end.
        hi: Per size, the upper end.
        of_errors: Per size, whether the ends are added to the forecast.
    """

    sizes: Any
    lo: Any
    hi: Any
    of_errors: Any


@dataclass(frozen=True, slots=True)
class Widths:
    """Prediction intervals of all demand classes.

    Attributes:
        bands: One per class; ends are NaN where no past value is known.
        coverage: Share of actual values held at the latest origin; NaN where it could not be measured.
        moved: How far all series may move together, in units of their spread.
    """

    bands: tuple[Band, ...]
    coverage: float
    moved: float

    def around(self, forecast: Matrix, history: Matrix) -> tuple[Matrix, Matrix]:
        """Return the lower and upper ends; the forecast is between them and the lower is never below zero."""
        unit = spread(history)[:, None]
        lo, hi = _ends(self.bands, forecast / unit, _groups(history), self.moved)
        lo *= unit
        hi *= unit
        return np.minimum(lo, forecast, out=lo), np.maximum(hi, forecast, out=hi)


@dataclass(frozen=True, slots=True)
class Past:
    """One trial: what was said and what came, in units of each series' own spread, and each series' class."""

    said: Matrix
    came: Matrix
    group: Any


def spread(history: Matrix) -> Any:
    """Return each series' standard deviation; its mean where it never varied, the smallest of all where that is 0."""
    return remembered(_spread, history)


def past_of(history: Matrix, said: Matrix, came: Matrix) -> Past:
    """Return one trial in units of each series' own spread."""
    unit = spread(history)[:, None]
    return Past(said / unit, came / unit, _groups(history))


def widths(pasts: Sequence[Past], level: float, moved: float = 0.0) -> Widths:
    """Return the intervals that hold a share ``level`` of what came after the trials, latest first."""
    far = _BEYOND * NormalDist().inv_cdf((1 + level) / 2) * moved
    share = math.nan
    if len(pasts) > 1:
        latest = pasts[0]
        lo, hi = _ends(_bands(pasts[1:], level), latest.said, latest.group, far)
        share = coverage(latest.came, np.minimum(lo, latest.said), np.maximum(hi, latest.said))
    return Widths(_bands(pasts, level), share, far)


def movement(series: Series, cuts: Sequence[int], span: int) -> float:
    """Return how far the series that mostly sell moved together after earlier origins, in units of their spread.

    Args:
        series: All of the past.
        cuts: The origins of the trials, latest first.
        span: The periods of a trial.
    """
    if not cuts:
        return 0.0
    least = max(series.values.shape[1] // _LATELY, _SHORTEST)
    ats = list(range(cuts[0], least - 1, -span))[:_ORIGINS][::-1]
    often = np.flatnonzero((series.values[:, :least] == 0).mean(axis=1) <= _ZEROS) if ats else np.zeros(0)
    if len(ats) < 3 or len(often) < _FEW:
        return 0.0
    some = series.of(often[:: max(1, len(often) // 500)])
    levels = smoothed(np.ascontiguousarray(some.values.T), np.array([_ALPHA]), np.array(ats))[0]
    means, chance = [], []
    for at, level in zip(ats, levels, strict=True):
        past = some.until(at)
        factors = weekday_factors(past)[past.ahead(span).day_of_week] if some.freq == "D" else np.ones(span)
        error = (some.values[:, at : at + span] - level[:, None] * factors).mean(axis=1) / _spread(past.values)
        means.append(error.mean())
        chance.append(error.var() / len(error))
    return math.sqrt(max(0.0, float(np.var(means, ddof=1) - np.mean(chance))))


def _spread(history: Matrix) -> Any:
    """Return the deviation by the steps of all of the history and of late: it neither grows with a trend nor lags."""
    if history.shape[1] < 2 * _SHORTEST:
        deviation = by_block(lambda some: some.std(axis=1), history)
    else:
        late = max(history.shape[1] // _LATELY, _SHORTEST)
        deviation = np.sqrt(by_block(lambda some: _steps(some) + _steps(some[:, -late:]), history) / 4)
    deviation = np.where(deviation > 0, deviation, history.mean(axis=1))
    least = deviation[deviation > 0].min(initial=np.inf)
    return np.where(deviation > 0, deviation, least if least < np.inf else 1.0)


def _steps(values: Matrix) -> Any:
    steps = np.diff(values, axis=1)
    return np.einsum("ij,ij->i", steps, steps) / steps.shape[1]


def _bands(pasts: Sequence[Past], level: float) -> tuple[Band, ...]:
    found = []
    for number in range(len(CLASSES) + 1):
        rows = [past.group == number for past in pasts]
        known = sum(int(own.sum()) * past.came.shape[1] for own, past in zip(rows, pasts, strict=True))
        if known < _FEWEST:
            rows = [np.ones_like(own) for own in rows]
        said, came = (_sampled([getattr(past, name) for past in pasts], rows) for name in ("said", "came"))
        found.append(_band(said, came, level))
    return tuple(found)


def _ends(bands: Sequence[Band], said: Matrix, group: Any, far: float) -> tuple[Matrix, Matrix]:
    lo, hi = np.empty_like(said), np.empty_like(said)
    for number, band in enumerate(bands):
        rows = np.flatnonzero(group == number)
        if len(rows):
            size = np.searchsorted(band.sizes, said[rows])
            base = np.where(band.of_errors[size], said[rows], 0.0)
            reach = np.where(band.of_errors, far, 0.0)
            lo[rows] = np.maximum(base - _outward(-band.lo, reach)[size], 0.0)
            hi[rows] = base + _outward(band.hi, reach)[size]
    return lo, hi


def _outward(end: Any, reach: Any) -> Any:
    """Return an end further out: variances add up beyond the forecast."""
    return np.where(end > 0, np.hypot(end, reach), end + reach)


def _sampled(values: Sequence[Any], rows: Sequence[Any]) -> Any:
    own = np.concatenate([np.zeros(0), *(one[chosen].ravel() for one, chosen in zip(values, rows, strict=True))])
    return own[:: max(1, math.ceil(len(own) / _MOST))]


def _band(said: Any, came: Any, level: float) -> Band:
    count = min(max(len(said) // _FEWEST, 1), _SIZES)
    sizes = np.unique(np.quantile(said, np.arange(1, count) / count, method="lower")) if count > 1 else np.array([])
    sizes = sizes[sizes < said.max(initial=0.0)]  # so that no size is empty
    size = np.searchsorted(sizes, said)
    groups = [size == number for number in range(len(sizes) + 1)]
    of_errors = np.array([bool(own.any()) and (came[own] <= 0).mean() <= _ZEROS for own in groups])
    ends = [held(came[own] - said[own] * is_error, level) for own, is_error in zip(groups, of_errors, strict=True)]
    lo, hi = np.array(ends).T
    return Band(sizes, lo, hi, of_errors)


def _groups(history: Matrix) -> Any:
    return np.where((history > 0).sum(axis=1) < 2, len(CLASSES), demand_classes(history))
