"""Choice: which model each series gets, by what the models did on its past.

The models forecast the past from a few origins, none knowing what came after it.  A series alone has too few periods
to tell luck from skill: choosing freely by shrunken errors had RMSSE 1.012 on weekly retail, IMAPA alone 0.967.  So one
model holds for all (`default_of`), and another comes in where it was better at every origin for a whole demand class;
within the class a series' own errors are drawn towards the class's.  A model that is far off in sum over the class
stays out, however small its errors: where zeros prevail, "nothing" errs least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ipybatch.forecast.features import scales
from ipybatch.forecast.matrix import Matrix, Series
from ipybatch.forecast.metrics import CLASSES, demand_classes

_PRIOR = 100.0  # how many values of its own a series needs to count as much as its class
_WORST_BIAS = 0.3
_MARGIN = 0.98  # of the default's error: what is as good as equal does not replace it
_DEFAULTS = ("gradient_boosting", "imapa")
_SHORTEST = 4  # periods of history below which no model is tried


class Model(Protocol):
    """What a forecast may use."""

    def fit(self, past: Series, horizon: int) -> None:
        """Learn from the past what may be learnt of all series together."""

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return what comes after this past, a row per series; nothing below zero."""
        ...


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
        why: Per series, the number of its reason.
        reasons: The reasons, as text.
    """

    names: tuple[str, ...]
    best: Any
    classes: Any
    why: Any
    reasons: tuple[str, ...]

    def pick(self, forecasts: Mapping[str, Matrix]) -> Matrix:
        """Return each series' forecast of the model that it got."""
        picked = np.empty(forecasts[self.names[0]].shape)
        for number in np.unique(self.best):
            rows = self.best == number
            picked[rows] = forecasts[self.names[number]][rows]
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
    """Return what the models would have said, one trial per origin, latest first.

    They are fitted once, on what was known at the earliest origin: no trial knows what came after it.
    """
    length = series.values.shape[1]
    span = trial_horizon(length, horizon)
    trials: list[Trial] = []
    cuts = origins_of(length, horizon, origins)
    if not cuts or len(models) == 0:
        return trials
    for model in models.values():
        model.fit(series.until(cuts[-1]), span)
    for cut in cuts:
        past = series.until(cut)
        said = {name: model.predict(past, span) for name, model in models.items()}
        trials.append(Trial(past.values, series.values[:, cut : cut + span], said))
    return trials


def choose(series: Series, trials: Sequence[Trial], names: Sequence[str], select: str) -> Choice:
    """Return the model of each series: `default_of` them where the past does not tell."""
    classes = demand_classes(series.values)
    default = default_of(names, names)
    best = np.full(len(classes), default)
    if not trials or len(names) == 1:
        why = "the only model" if len(names) == 1 else f"{series.values.shape[1]} periods are too few to choose by"
        return Choice(tuple(names), best, classes, np.zeros_like(best), (why,))
    actual, off = _off(trials, names, slice(None))
    fair = off <= max(_WORST_BIAS * actual, off.min())
    default = default_of([name for name, is_fair in zip(names, fair, strict=True) if is_fair], names)
    best = np.full(len(classes), default)
    errors = _errors(trials, names, select)
    for number in range(len(CLASSES)):
        rows = np.flatnonzero(classes == number)
        if len(rows):
            allowed = _allowed(trials, names, errors[:, :, rows], rows, default)
            best[rows] = allowed[_shrunk(errors[allowed][:, :, rows], trials).argmin(axis=0)]
    kind = "squared error" if select == "squared" else "pinball loss"
    tries = f"{len(trials)} origin" + "s" * (len(trials) > 1)
    reasons = [f"no other was clearly better at {tries}, {name} demand" for name in CLASSES]
    reasons += [f"least {kind} at {tries}, {name} demand" for name in CLASSES]
    return Choice(tuple(names), best, classes, classes + len(CLASSES) * (best != default), tuple(reasons))


def default_of(fair: Sequence[str], names: Sequence[str]) -> int:
    """Return the number among ``names`` of the fair model that holds where the past does not speak for another."""
    return list(names).index(next((name for name in _DEFAULTS if name in fair), fair[0]))


def _errors(trials: Sequence[Trial], names: Sequence[str], select: str) -> Any:
    """Return (models, trials, series): errors in steps of a series' history, so that large parts count like small."""
    found = np.empty((len(names), len(trials), len(trials[0].actual)))
    for at, trial in enumerate(trials):
        step = scales(trial.history, np.array([trial.history.shape[1]]))[0]
        for number, name in enumerate(names):
            found[number, at] = _typical(trial.forecasts[name] - trial.actual, select) / step
    return found


def _typical(off: Matrix, select: str) -> Any:
    if select == "squared":
        return np.sqrt(np.einsum("ij,ij->i", off, off) / off.shape[1])
    return np.abs(off).mean(axis=1) / 2


def _allowed(trials: Sequence[Trial], names: Sequence[str], errors: Any, rows: Any, default: int) -> Any:
    """Return the default's number, first, and those of the models that beat it at every origin and are not far off."""
    typical = errors.mean(axis=2)
    actual, off = _off(trials, names, rows)
    fair = off <= max(_WORST_BIAS * actual, off[default])
    better = (typical < _MARGIN * typical[default]).all(axis=1)
    found = np.flatnonzero(better & fair)
    return np.concatenate([[default], found[found != default]])


def _off(trials: Sequence[Trial], names: Sequence[str], rows: Any) -> tuple[float, Any]:
    """Return what these series sold after the origins, and how far each model was from that in sum."""
    actual = sum(float(trial.actual[rows].sum()) for trial in trials)
    said = [sum(float(trial.forecasts[name][rows].sum()) for trial in trials) for name in names]
    return actual, np.abs(np.array(said) - actual)


def _shrunk(errors: Any, trials: Sequence[Trial]) -> Any:
    """Return (models, series): each series' mean error, drawn towards that of its class."""
    own = errors.mean(axis=1)
    count = sum(trial.actual.shape[1] for trial in trials)
    return (count * own + _PRIOR * own.mean(axis=1, keepdims=True)) / (count + _PRIOR)
