"""Choice: which model each series gets, by what the models did on its past.

The models forecast the past from a few origins, none knowing what came after it.  A series alone has too few
periods to tell luck from skill, so its errors are shrunk towards those of all series of its demand class; and a model
that is far off in sum over the class is out, however small its errors: where zeros prevail, "nothing" errs least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipybatch.forecast.matrix import Matrix, Series
from ipybatch.forecast.metrics import CLASSES, demand_classes

Model = Callable[[Series, int], Matrix]
_PRIOR = 8.0  # how many values of its own a series needs to count as much as its class
_WORST_BIAS = 0.5
_SHORTEST = 4  # periods of history below which no model is tried


@dataclass(frozen=True, slots=True)
class Trial:
    """What every model said at one origin, and what came.

    Attributes:
        history: The values known at the origin.
        actual: The values after it.
        forecasts: By model, as ``actual``.
    """

    history: Matrix
    actual: Matrix
    forecasts: dict[str, Matrix]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model each series gets.

    Attributes:
        names: The models.
        best: Per series, the number of its model.
        classes: Per series, the number of its demand class.
        reasons: Per demand class, why.
    """

    names: tuple[str, ...]
    best: Any
    classes: Any
    reasons: tuple[str, ...]

    def pick(self, forecasts: Mapping[str, Matrix]) -> Matrix:
        """Return each series' forecast of the model that it got."""
        stacked = np.stack([forecasts[name] for name in self.names])
        picked: Matrix = stacked[self.best, np.arange(len(self.best))]
        return picked


def origins_of(length: int, horizon: int, count: int) -> list[int]:
    """Return after how many periods the models are tried, latest first, and none where the history is too short.

    Trials overlap neither one another nor, where it can be, more than half of the history.
    """
    span = trial_horizon(length, horizon)
    cuts = [length - span * number for number in range(1, count + 1)]
    return [cut for cut in cuts if cut >= max(_SHORTEST, length // 3)]


def trial_horizon(length: int, horizon: int) -> int:
    """Return how many periods a trial looks ahead: the horizon, or a quarter of a short history."""
    return max(1, min(horizon, length // 4))


def try_models(series: Series, models: Mapping[str, Model], horizon: int, origins: int) -> list[Trial]:
    """Return what the models would have said, one trial per origin."""
    length = series.values.shape[1]
    span = trial_horizon(length, horizon)
    trials = []
    for cut in origins_of(length, horizon, origins):
        past = series.until(cut)
        said = {name: model(past, span) for name, model in models.items()}
        trials.append(Trial(past.values, series.values[:, cut : cut + span], said))
    return trials


def choose(series: Series, trials: Sequence[Trial], names: Sequence[str], select: str) -> Choice:
    """Return the model of each series: the first one where the past is too short to tell."""
    classes = demand_classes(series.values)
    if not trials or len(names) == 1:
        why = "the only model" if len(names) == 1 else f"{series.values.shape[1]} periods are too few to choose by"
        return Choice(tuple(names), np.zeros(len(classes), dtype=int), classes, (why,) * len(CLASSES))
    errors = _errors(trials, names, select)
    scores = np.empty_like(errors)
    for number in range(len(CLASSES)):
        rows = np.flatnonzero(classes == number)
        if not len(rows):
            continue
        own = errors[:, rows]
        typical = own.mean(axis=1, keepdims=True)
        count = sum(trial.actual.shape[1] for trial in trials)
        scores[:, rows] = (count * own + _PRIOR * typical) / (count + _PRIOR)
        scores[np.ix_(_biased(trials, names, rows), rows)] = np.inf
    kind = "squared error" if select == "squared" else "pinball loss"
    tries = f"{len(trials)} origin" + "s" * (len(trials) > 1)
    reasons = tuple(f"least {kind} at {tries}, {name} demand" for name in CLASSES)
    return Choice(tuple(names), scores.argmin(axis=0), classes, reasons)


def _errors(trials: Sequence[Trial], names: Sequence[str], select: str) -> Any:
    """Return the mean error of each model and series, as a multiple of all models' mean for that series."""
    sums = []
    for name in names:
        off = [trial.forecasts[name] - trial.actual for trial in trials]
        each = [(error**2 if select == "squared" else np.abs(error) / 2).mean(axis=1) for error in off]
        sums.append(np.mean(each, axis=0))
    errors = np.array(sums)
    typical = errors.mean(axis=0)
    return np.where(typical > 0, errors / np.where(typical > 0, typical, 1.0), 1.0)


def _biased(trials: Sequence[Trial], names: Sequence[str], rows: Any) -> Any:
    """Return the numbers of the models that are far off in sum over these series; never of all models."""
    actual = sum(trial.actual[rows].sum() for trial in trials)
    off = [abs(sum(trial.forecasts[name][rows].sum() for trial in trials) - actual) for name in names]
    if not actual:
        return np.array([], dtype=int)
    return np.flatnonzero(np.array(off) > max(_WORST_BIAS * actual, min(off)))
