"""Model selection: which model each series gets by its errors on the past, its prediction interval, and its forecast.

Selection. The models forecast the past from a few origins, each knowing only what came before. A series alone has too
few periods to tell luck from skill: choosing freely by shrunken errors had RMSSE 1.012 on weekly retail, IMAPA alone
0.967. So one model is the default of all series (`default_of`), and another replaces it for a demand class where it was
better at every origin; within the class, a series' own errors are shrunk towards those of the class. A model whose sum
over the class is far off stays out, however small its errors: where zeros prevail, forecasting nothing errs least.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from ipybatch.forecast.models.global_model import Prior, scales
from ipybatch.forecast.models.intervals import Widths, movement, past_of, widths
from ipybatch.forecast.models.life import (
    DEAD,
    KINDS,
    MEAN_SINCE_START,
    NEW,
    Life,
    ends_since_start,
    life_of,
    mean_since_start,
)
from ipybatch.forecast.models.matrix import (
    CLASSES,
    Matrix,
    Series,
    demand_classes,
    series_of,
)
from ipybatch.forecast.models.model_registry import Model, SeriesModel, candidates
from ipybatch.forecast.models.series_models import Seasonality
from ipybatch.forecast.models.thread_limit import one_thread
from ipybatch.forecast.settings import Settings

_PRIOR = 100.0  # how many values of its own a series needs to count as much as its class
_WORST_BIAS = 0.5
_CHANCE = 2.0  # standard errors of a total by which a model may miss it
_SURE = 1.0  # standard errors of its gain that a model needs to replace the default
_MARGIN = 0.98  # of the default's error: what is as good as equal does not replace it
DEFAULTS = ("gradient_boosting", "imapa")
_SHORTEST = 4  # periods of history below which no model is tried
_SELDOM = (1, 3)  # of the classes: intermittent and lumpy
_NOTE = "periods without a row count as zero, from the table's first date on; of new parts from their first sale on"


def run_partition(frame: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return the forecasts of a partition's series.

    Args:
        frame: The partition's clean rows: site, part, date and quantity.
        settings: Of the forecast.

    Returns:
        One row per (site, part, date), sorted: forecast, lo, hi, model_used and reason; site, part, model_used and
        reason are categories. ``attrs`` has ``note``, ``coverage``: the share of past values that the intervals held,
        or None, and how many series are ``new``, ``dead`` and ``intermittent``.

    Raises:
        InputError: The rows do not span one whole period.
    """
    with one_thread(settings.models):
        return Tried(frame, settings).forecast()


class Tried:
    """A partition whose models were tried on its past.

    `run_partition` makes one forecast of it, by the choice among all its models. An evaluation also makes those of each
    model by itself, of the same trials and fits.

    Args:
        frame: The partition's clean rows.
        settings: Of the forecast.
        beside: Names of models that are tried too, and that the forecast does not choose from.

    Raises:
        InputError: The rows do not span one whole period.
    """

    def __init__(self, frame: pd.DataFrame, settings: Settings, beside: Sequence[str] = ()) -> None:
        self._settings = settings
        self._series = series_of(frame, settings.freq, start=settings.start, end=settings.end)
        models = candidates(settings)
        self.names = tuple(models)
        others = tuple(name for name in beside if name not in models)
        self._models = models | (candidates(msgspec.structs.replace(settings, models=others)) if others else {})
        self._trials = try_models(self._series, self._models, settings.horizon, settings.origins)
        self._said: dict[str, Matrix] = {}

    def forecast(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the forecast that `run_partition` describes, by the choice among the models named; None for all."""
        series, settings = self._series, self._settings
        wanted = self.names if names is None else tuple(names)
        choice = choose(series, self._trials, wanted, settings.select, settings.prior)
        forecast = np.zeros((len(series.keys), settings.horizon))
        for number, name in enumerate(choice.names):
            rows = np.flatnonzero(choice.best == number)
            if len(rows):  # only models that a series got are run
                forecast[rows] = self._ahead(name, rows)
        forecast = np.maximum(forecast, 0.0)
        cuts = origins_of(series.values.shape[1], settings.horizon, settings.origins)
        moved = movement(series, cuts, trial_horizon(series.values.shape[1], settings.horizon))
        band = widths_of(self._trials, choice, settings.level, moved)
        lo, hi = band.around(forecast, series.values)
        if len(wanted) > 1:
            choice = self._by_life(choice, forecast, lo, hi)
        if settings.integer:
            forecast, lo, hi = whole(forecast), np.floor(lo), np.ceil(hi)
            lo, hi = np.minimum(lo, forecast), np.maximum(hi, forecast)
        made = _frame(series, choice, forecast, lo, hi)
        kinds = life_of(series.values).kinds
        made.attrs = {"note": _NOTE, "coverage": None if np.isnan(band.coverage) else band.coverage}
        made.attrs |= {name: int((kinds == number).sum()) for number, name in enumerate(KINDS) if number}
        made.attrs["intermittent"] = int((np.isin(choice.classes, _SELDOM) & (kinds == 0)).sum())
        return made

    def _by_life(self, choice: Choice, forecast: Matrix, lo: Matrix, hi: Matrix) -> Choice:
        """Forecast the new parts by what they sold since they began, and say which are new, and which dead."""
        series, settings, life = self._series, self._settings, life_of(self._series.values)
        new = np.flatnonzero(life.kinds == NEW)
        if len(new):
            seasonality = Seasonality(settings.known)
            seasonality.fit(series)
            values, starts = series.values[new], life.starts[new]
            level = mean_since_start(values, starts, settings.season)
            forecast[new] = level[:, None] * seasonality.ahead(series.of(new), settings.horizon)
            below, above = ends_since_start(values, starts, settings.season, settings.level)
            lo[new] = np.minimum(below[:, None] * forecast[new], forecast[new])
            hi[new] = np.maximum(above[:, None] * forecast[new], forecast[new])
        return choice.told(life, series.dates)

    def _ahead(self, name: str, rows: Any) -> Matrix:
        """Return a model's forecasts of some series, fitted on the whole past, once."""
        model, series, horizon = self._models[name], self._series, self._settings.horizon
        if name not in self._said:
            if isinstance(model, SeriesModel) and len(rows) < len(series.keys) // 2:  # each series by itself
                return model.predict(series.of(rows), horizon)
            model.fit(series, horizon)
            self._said[name] = model.predict(series, horizon)
        said: Matrix = self._said[name][rows]
        return said


def whole(forecast: Matrix) -> Matrix:
    """Round a forecast to whole pieces so that each series keeps its running total: 0.3 a day is one in three days."""
    totals = np.floor(np.cumsum(forecast, axis=1) + 0.5)
    return np.diff(totals, axis=1, prepend=0.0)


@dataclass(frozen=True, slots=True)
class Trial:
    """The forecasts of every model at one origin, and the actual values.

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

    def told(self, life: Life, dates: Any) -> Choice:
        """Return the choice as it is told: which series are new, forecast by their mean since then, and which dead."""
        best, why, reasons = self.best.copy(), self.why.copy(), list(self.reasons)
        best[life.kinds == NEW] = len(self.names)
        for kind, at, text in ((NEW, life.starts, "new: first sold"), (DEAD, life.ends, "dead: last sold")):
            rows = np.flatnonzero(life.kinds == kind)
            periods, numbers = np.unique(at[rows], return_inverse=True)
            why[rows] = len(reasons) + numbers
            reasons += [f"{text} {dates[period]:%Y-%m-%d}" for period in periods]
        return Choice((*self.names, MEAN_SINCE_START), best, self.classes, why, tuple(reasons))

    def pick(self, forecasts: Mapping[str, Matrix]) -> Matrix:
        """Return each series' forecast by its model."""
        picked = np.empty(forecasts[self.names[0]].shape)
        for number in np.unique(self.best):
            rows = self.best == number
            picked[rows] = forecasts[self.names[number]][rows]
        return picked


def origins_of(length: int, horizon: int, count: int) -> list[int]:
    """Return the origins of the trials as numbers of periods, latest first; none where the history is too short.

    Trials overlap neither one another nor, where it can be, more than half of the history.
    """
    span = trial_horizon(length, horizon)
    cuts = [length - span * number for number in range(1, count + 1)]
    return [cut for cut in cuts if cut >= max(_SHORTEST, length // 3)]


def trial_horizon(length: int, horizon: int) -> int:
    """Return the periods that a trial forecasts: the horizon, or a quarter of a short history."""
    return max(1, min(horizon, length // 4))


def try_models(series: Series, models: Mapping[str, Model], horizon: int, origins: int) -> list[Trial]:
    """Return the models' forecasts of the past, one trial per origin, latest first.

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


def choose(
    series: Series, trials: Sequence[Trial], names: Sequence[str], select: str, prior: Prior | None = None
) -> Choice:
    """Return the model of each series: the default where the past does not favour another."""
    classes = demand_classes(series.values)
    default = default_of(np.ones(len(names), dtype=bool), np.arange(len(names)), names)
    best = np.full(len(classes), default)
    if not trials or len(names) == 1:
        periods = series.values.shape[1]
        few = f"{periods} period{' is' if periods == 1 else 's are'} too few to choose by"
        why = "the only model" if len(names) == 1 else few
        return Choice(tuple(names), best, classes, np.zeros_like(best), (why,))
    errors, totals = _errors(trials, names, select), _totals(trials, names)
    borrowed = prior.default if prior is not None else None
    if borrowed is not None and borrowed in names:
        default = list(names).index(borrowed)
    else:
        default = default_of(_fair(totals), errors.mean(axis=(1, 2)), names)
    best = np.full(len(classes), default)
    for number in range(len(CLASSES)):
        rows = np.flatnonzero(classes == number)
        if len(rows):
            allowed = _allowed(totals, errors[:, :, rows], rows, default)
            best[rows] = allowed[_shrunk(errors[allowed][:, :, rows], trials).argmin(axis=0)]
    kind = "squared error" if select == "squared" else "pinball loss"
    tries = f"{len(trials)} origin" + "s" * (len(trials) > 1)
    reasons = [f"no other was clearly better at {tries}, {name} demand" for name in CLASSES]
    reasons += [f"least {kind} at {tries}, {name} demand" for name in CLASSES]
    return Choice(tuple(names), best, classes, classes + len(CLASSES) * (best != default), tuple(reasons))


def common_default(trials: Sequence[Trial], names: Sequence[str], select: str) -> str | None:
    """Return the model that many small partitions begin with; None where none of these about keeps the total."""
    if not trials:
        return None
    fair = _fair(_totals(trials, names), least=0.0)
    return names[default_of(fair, _errors(trials, names, select).mean(axis=(1, 2)), names)] if fair.any() else None


def default_of(fair: Any, errors: Any, names: Sequence[str]) -> int:
    """Return the default's number: the first of `DEFAULTS` that is fair, or the fair model with the least error."""
    for name in DEFAULTS:
        if name in names and fair[list(names).index(name)]:
            return list(names).index(name)
    return int(np.where(fair, errors, np.inf).argmin())


def widths_of(trials: Sequence[Trial], choice: Choice, level: float, movement: float = 0.0) -> Widths:
    """Return the intervals that hold a share ``level`` of the values after the trials' origins, see `intervals`."""
    pasts = [past_of(trial.history, choice.pick(trial.forecasts), trial.actual) for trial in trials]
    return widths(pasts, level, movement)


def _frame(series: Series, choice: Choice, forecast: Matrix, lo: Matrix, hi: Matrix) -> pd.DataFrame:
    count, horizon = forecast.shape
    made: dict[str, Any] = {name: pd.Categorical(series.keys[name]).repeat(horizon) for name in ("site", "part")}
    made["date"] = np.tile(series.ahead(horizon).to_numpy(), count)
    made |= {"forecast": forecast.ravel(), "lo": lo.ravel(), "hi": hi.ravel()}
    made["model_used"] = pd.Categorical.from_codes(np.repeat(choice.best, horizon), pd.Index(choice.names))
    made["reason"] = pd.Categorical.from_codes(np.repeat(choice.why, horizon), pd.Index(choice.reasons))
    return pd.DataFrame(made, copy=False)  # a copy would hold a million rows twice


class _Totals(NamedTuple):
    """What each series sold in all trials, and per model and series how far the forecasts of that were off."""

    actual: Any
    off: Any


def _totals(trials: Sequence[Trial], names: Sequence[str]) -> _Totals:
    actual = sum(trial.actual.sum(axis=1) for trial in trials)
    return _Totals(
        actual, np.stack([sum(trial.forecasts[name].sum(axis=1) for trial in trials) for name in names]) - actual
    )


def _errors(trials: Sequence[Trial], names: Sequence[str], select: str) -> Any:
    """Return (models, trials, series): errors in steps of a series' history, so that large parts count like small."""
    found = np.empty((len(names), len(trials), len(trials[0].actual)))
    for at, trial in enumerate(trials):
        step = scales(trial.history, np.array([trial.history.shape[1]]))[0]
        for number, name in enumerate(names):
            off = trial.forecasts[name] - trial.actual
            if select == "squared":
                found[number, at] = np.sqrt(np.einsum("ij,ij->i", off, off) / off.shape[1]) / step
            else:
                found[number, at] = np.abs(off).mean(axis=1) / 2 / step
    return found


def _allowed(totals: _Totals, errors: Any, rows: Any, default: int) -> Any:
    """Return the default's number, first, and those of the models that beat it at every origin and are not far off."""
    typical = errors.mean(axis=2)
    gain = errors[default].mean(axis=0) - errors.mean(axis=1)
    sure = gain.mean(axis=1) > _SURE * gain.std(axis=1) / math.sqrt(len(rows))
    better = (typical < _MARGIN * typical[default]).all(axis=1)
    found = np.flatnonzero(better & sure & _fair(totals, rows))
    return np.concatenate([[default], found[found != default]])


def _fair(totals: _Totals, rows: Any = slice(None), least: float | None = None) -> Any:
    """Return whether each model about keeps the total of these series.

    Args:
        least: How far off any may be; default: as far as the one that is least so, which a table that grows or shrinks
            as a whole decides for all of them.
    """
    actual, own = totals.actual[rows].sum(), totals.off[:, rows]
    off, chance = np.abs(own.sum(axis=1)), np.sqrt((own**2).sum(axis=1))
    least = off.min() if least is None else least
    return off <= np.maximum(least + _WORST_BIAS * actual, _CHANCE * chance)


def _shrunk(errors: Any, trials: Sequence[Trial]) -> Any:
    """Return (models, series): each series' mean error, drawn towards that of its class."""
    own = errors.mean(axis=1)
    count = sum(trial.actual.shape[1] for trial in trials)
    return (count * own + _PRIOR * own.mean(axis=1, keepdims=True)) / (count + _PRIOR)
