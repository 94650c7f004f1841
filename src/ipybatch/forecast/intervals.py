"""Intervals: what came after forecasts like these on the past, as the ends of what is said of the future.

Conformal prediction over nested sets, of classes (Mondrian).  A value of the past, in units of its series' own spread,
stands beside those that came after forecasts of about the same size, for the same class of demand.  The interval is
what is left of these when the outermost go, so many that a share ``level`` stays, with the finite-sample correction:

    values   0 0 0 0 0 0 1 2 3 9      outermost: the least of the share at or below and the share at or above
    level 0.8 keeps 0 to 3            nothing lies below zero, so all that may be left out is at the top

So the two ends are not equally far from the forecast, and a part that mostly sells nothing has zero as its lower end.
More than ``level`` is held where more than that is zero.  Pooled, because one series has too few values; by class and
by size, because half a piece a week and fifty are not off by the same.  What sold less than twice is a class of its
own: its zeros would narrow others.

The coverage it reports is measured at the latest origin with intervals that know the earlier ones only; with a single
origin there is nothing to measure it by, and it is NaN.

Source: Gupta, Kuchibhotla, Ramdas, "Nested conformal prediction", Pattern Recognition 127 (2022); Vovk, "Conditional
validity of inductive conformal predictors", ACML (2012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipybatch.forecast.choice import Choice, Trial
from ipybatch.forecast.matrix import Matrix, by_block
from ipybatch.forecast.metrics import CLASSES, coverage, demand_classes

_FEWEST = 60  # values that came after forecasts of one size
_SIZES = 8  # of forecasts, at most, in a class
_MOST = 50_000  # values of a class; a sample above that, for speed


@dataclass(frozen=True, slots=True)
class Band:
    """What came after forecasts of each size, all in units of a series' own spread.

    Attributes:
        sizes: The largest forecast of each size but the last.
        lo: Per size, the lower end.
        hi: Per size, the upper end.
    """

    sizes: Any
    lo: Any
    hi: Any


@dataclass(frozen=True, slots=True)
class Widths:
    """Where the ends lie.

    Attributes:
        bands: Per class; ends are NaN where nothing is known.
        coverage: Share of actual values held at the latest origin; NaN where it could not be measured.
    """

    bands: tuple[Band, ...]
    coverage: float

    def around(self, forecast: Matrix, history: Matrix) -> tuple[Matrix, Matrix]:
        """Return the lower and upper ends; the forecast is between them and the lower is never below zero."""
        unit = spread(history)[:, None]
        lo, hi = _ends(self.bands, forecast / unit, _groups(history))
        lo *= unit
        hi *= unit
        return np.minimum(lo, forecast, out=lo), np.maximum(hi, forecast, out=hi)


@dataclass(frozen=True, slots=True)
class _Past:
    """One trial: what was said and what came, in units of each series' own spread, and each series' class."""

    said: Matrix
    came: Matrix
    group: Any


def widths_of(trials: Sequence[Trial], choice: Choice, level: float) -> Widths:
    """Return the intervals that hold a share ``level`` of what came after the trials' origins."""
    pasts = [_past(trial, choice) for trial in trials]
    share = math.nan
    if len(pasts) > 1:
        latest = pasts[0]
        lo, hi = _ends(_bands(pasts[1:], level), latest.said, latest.group)
        share = coverage(latest.came, np.minimum(lo, latest.said), np.maximum(hi, latest.said))
    return Widths(_bands(pasts, level), share)


def spread(history: Matrix) -> Any:
    """Return the standard deviation of each series; where it never varied, its mean, or the smallest there is."""
    deviation = by_block(lambda some: some.std(axis=1), history)
    deviation = np.where(deviation > 0, deviation, history.mean(axis=1))
    least = deviation[deviation > 0].min(initial=np.inf)
    return np.where(deviation > 0, deviation, least if least < np.inf else 1.0)


def held(values: Any, level: float) -> tuple[float, float]:
    """Return the least and the largest value that stay when the outermost go; NaN of no values."""
    count = len(values)
    if not count:
        return math.nan, math.nan
    ordered = np.sort(values)
    below = np.searchsorted(ordered, ordered, side="right")
    above = count - np.searchsorted(ordered, ordered, side="left")
    depth = np.minimum(below, above)
    gone = max(math.floor((count + 1) * (1 - level) + 1e-9) - 1, 0)
    inside = ordered[depth >= np.partition(depth, gone)[gone]]
    return float(inside[0]), float(inside[-1])


def _past(trial: Trial, choice: Choice) -> _Past:
    unit = spread(trial.history)[:, None]
    return _Past(choice.pick(trial.forecasts) / unit, trial.actual / unit, _groups(trial.history))


def _bands(pasts: Sequence[_Past], level: float) -> tuple[Band, ...]:
    found = []
    for number in range(len(CLASSES) + 1):
        rows = [past.group == number for past in pasts]
        known = sum(int(own.sum()) * past.came.shape[1] for own, past in zip(rows, pasts, strict=True))
        if known < _FEWEST:
            rows = [np.ones_like(own) for own in rows]
        said, came = (_sampled([getattr(past, name) for past in pasts], rows) for name in ("said", "came"))
        found.append(_band(said, came, level))
    return tuple(found)


def _ends(bands: Sequence[Band], said: Matrix, group: Any) -> tuple[Matrix, Matrix]:
    lo, hi = np.empty_like(said), np.empty_like(said)
    for number, band in enumerate(bands):
        rows = np.flatnonzero(group == number)
        if len(rows):
            size = np.searchsorted(band.sizes, said[rows])
            lo[rows], hi[rows] = band.lo[size], band.hi[size]
    return lo, hi


def _sampled(values: Sequence[Any], rows: Sequence[Any]) -> Any:
    own = np.concatenate([np.zeros(0), *(one[chosen].ravel() for one, chosen in zip(values, rows, strict=True))])
    return own[:: max(1, math.ceil(len(own) / _MOST))]


def _band(said: Any, came: Any, level: float) -> Band:
    count = min(max(len(said) // _FEWEST, 1), _SIZES)
    sizes = np.unique(np.quantile(said, np.arange(1, count) / count, method="lower")) if count > 1 else np.array([])
    sizes = sizes[sizes < said.max(initial=0.0)]  # so that no size is empty
    size = np.searchsorted(sizes, said)
    ends = [held(came[size == number], level) for number in range(len(sizes) + 1)]
    lo, hi = np.array(ends).T
    return Band(sizes, lo, hi)


def _groups(history: Matrix) -> Any:
    return np.where((history > 0).sum(axis=1) < 2, len(CLASSES), demand_classes(history))
