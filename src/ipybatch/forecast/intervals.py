"""Intervals: how far off the chosen models were on the past, as the width of what is said of the future.

Split conformal prediction: the score of a past value is its distance from the forecast, in units of its series' own
spread; the quantile of all scores of a demand class, at the level asked for and with the finite-sample correction, is
the half width.  Pooled, because one series has too few values for a quantile, and by class, because the scores of lumpy
demand are not those of smooth demand.  What sold less than twice is a class of its own: its zeros would narrow others.

The coverage it reports is measured at the latest origin with widths that know the earlier ones only; with a single
origin there is nothing to measure it by, and it is NaN.

Source: Lei et al., "Distribution-free predictive inference for regression", JASA 113 (2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipybatch.forecast.choice import Choice, Trial
from ipybatch.forecast.matrix import Matrix
from ipybatch.forecast.metrics import CLASSES, coverage, demand_classes

_FEWEST = 20  # scores of a class below which it takes those of all classes


@dataclass(frozen=True, slots=True)
class Widths:
    """Half widths in units of a series' own spread.

    Attributes:
        by_class: Per demand class; NaN where nothing is known.
        coverage: Share of actual values held at the latest origin; NaN where it could not be measured.
    """

    by_class: Any
    coverage: float

    def around(self, forecast: Matrix, history: Matrix) -> tuple[Matrix, Matrix]:
        """Return the lower and upper ends; the lower is never below zero."""
        half = (self.by_class[_groups(history)] * spread(history))[:, None]
        return np.maximum(forecast - half, 0.0), forecast + half


def widths_of(trials: Sequence[Trial], choice: Choice, level: float) -> Widths:
    """Return the widths that hold a share ``level`` of what came after the trials' origins."""
    by_class = _quantiles(trials, choice, level)
    held = math.nan
    if len(trials) > 1:
        latest = trials[0]
        earlier = Widths(_quantiles(trials[1:], choice, level), math.nan)
        lo, hi = earlier.around(choice.pick(latest.forecasts), latest.history)
        held = coverage(latest.actual, lo, hi)
    return Widths(by_class, held)


def spread(history: Matrix) -> Any:
    """Return the standard deviation of each series; where it never varied, its mean, or the smallest there is."""
    deviation = history.std(axis=1)
    deviation = np.where(deviation > 0, deviation, history.mean(axis=1))
    least = deviation[deviation > 0].min(initial=np.inf)
    return np.where(deviation > 0, deviation, least if least < np.inf else 1.0)


def _quantiles(trials: Sequence[Trial], choice: Choice, level: float) -> Any:
    scores = [np.abs(choice.pick(trial.forecasts) - trial.actual) / spread(trial.history)[:, None] for trial in trials]
    everything = _quantile(scores, level)
    groups = [_groups(trial.history) for trial in trials]
    found = []
    for number in range(len(CLASSES) + 1):
        own = [score[group == number] for score, group in zip(scores, groups, strict=True)]
        found.append(_quantile(own, level) if sum(score.size for score in own) >= _FEWEST else everything)
    return np.array(found)


def _groups(history: Matrix) -> Any:
    return np.where((history > 0).sum(axis=1) < 2, len(CLASSES), demand_classes(history))


def _quantile(scores: Sequence[Any], level: float) -> float:
    pooled = np.concatenate([score.ravel() for score in scores]) if scores else np.array([])
    if not pooled.size:
        return math.nan
    rank = min(math.ceil((pooled.size + 1) * level), pooled.size)
    return float(np.partition(pooled, rank - 1)[rank - 1])
