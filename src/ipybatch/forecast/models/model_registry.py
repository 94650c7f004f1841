"""Model registry: every model that a forecast may use, by name, behind one Protocol.

    series model    a function of `series_models`
    global model    gradient boosting, or a scikit-learn regressor of the user's
    statsforecast   a model, or a StatsForecast: each of its models, series after series
    mlforecast      an MLForecast: each of its models, on one long frame of all series

A model of the last two forecasts what its package returns when called directly on the same series, zeros filled in, but
nothing below zero. Where a history is too short for it, as may happen where models are tried on the past, it forecasts
the mean of the history. Columns that are known ahead are not passed to it.

Neither package is imported here: an object is recognised by its attributes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ipybatch.errors import Permanent
from ipybatch.forecast.models.global_model import GlobalModel
from ipybatch.forecast.models.matrix import Matrix, Series
from ipybatch.forecast.models.series_models import MODELS
from ipybatch.forecast.settings import OFFSETS, Freq, Settings

_PACKAGES = ("statsforecast", "mlforecast", "lightgbm", "xgboost", "catboost")  # each takes seconds to import
_TOO_SHORT = ("tiny datasets", "not enough data")  # as statsforecast words it
_DEEPEST = 8  # levels of nested settings


class Model(Protocol):
    """A model that a forecast may use."""

    def fit(self, past: Series, horizon: int) -> None:
        """Learn from all series together."""

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return the forecasts after this past, one row per series; none below zero."""


class SeriesModel:
    """A function of `series_models`: there is nothing to fit."""

    def __init__(self, function: Callable[[Matrix, int, int], Matrix], season: int) -> None:
        self._function = function
        self._season = season

    def fit(self, past: Series, horizon: int) -> None:
        """Do nothing."""

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return its forecasts."""
        return self._function(past.values, horizon, self._season)


class StatsforecastModel:
    """A model of statsforecast: ``forecast(y, h)`` of one series, with the mean in what it returns.

    Args:
        model: The model.
        fallback: The model for a series that it fails on; None: the failure is raised.
    """

    def __init__(self, model: Any, fallback: Any = None) -> None:
        self._model, self._fallback = model, fallback

    def fit(self, past: Series, horizon: int) -> None:
        """Do nothing: `predict` fits."""

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return its forecasts, series after series.

        Raises:
            Permanent: The model fails on a series.
        """
        said = np.full((len(past.values), horizon), np.nan)
        for number, row in enumerate(past.values):
            try:
                said[number] = self._one(row, horizon)
            except Exception as error:
                if not any(words in str(error) for words in _TOO_SHORT):
                    site, part = past.keys[["site", "part"]].iloc[number]
                    msg = f"{_name(self._model)} on part {part} of {site}: {type(error).__name__}: {error}"
                    raise Permanent(msg) from error
        return _whole(said, past)

    def _one(self, row: Any, horizon: int) -> Any:
        try:
            return self._model.forecast(y=row, h=horizon)["mean"]
        except Exception:
            if self._fallback is None:
                raise
            return self._fallback.forecast(y=row, h=horizon)["mean"]


class MLForecastModel:
    """One model of an MLForecast: fits a frame of unique_id, ds and y.

    Args:
        model: The MLForecast; it is copied.
        name: The model's name in it.
        freq: The length of a period.
    """

    def __init__(self, model: Any, name: str, freq: Freq) -> None:
        self._model = copy.deepcopy(model)
        self._model.models = {name: one_thread(model.models[name])}
        self._model.ts.freq = OFFSETS[freq]

    def fit(self, past: Series, horizon: int) -> None:
        """Do nothing: an MLForecast forecasts from the end of its training data, so `predict` fits at each origin."""

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return its forecasts."""
        count, length = past.values.shape
        numbers = np.repeat(np.arange(count), length)
        frame = pd.DataFrame({"unique_id": numbers, "ds": np.tile(past.dates, count), "y": past.values.ravel()})
        try:
            self._model.fit(frame)
        except ValueError:
            if len(self._model.preprocess(frame)):
                raise
            return _whole(np.full((count, horizon), np.nan), past)  # no period has all the lags
        said = self._model.predict(horizon).sort_values(["unique_id", "ds"])
        (name,) = self._model.models
        return _whole(said[name].to_numpy(float).reshape(count, horizon), past)


def candidates(settings: Settings) -> dict[str, Model]:
    """Return the models named by ``settings``, in its order; two of the same name are numbered."""
    made: dict[str, Model] = {}
    for model in settings.models:
        for name, one in _called(model, settings).items():
            is_taken = not isinstance(model, str) and name in made
            made[f"{name}_{len(made) + 1}" if is_taken else name] = one
    return made


def one_thread(model: Any) -> Any:
    """Return a copy of a regressor that uses one thread, unless it was told how many.

    LightGBM asks the machine, not the environment: two partitions on two busy cores took fourteen times as long.
    """
    made = copy.deepcopy(model)
    if hasattr(made, "get_params") and made.get_params().get("n_jobs", 1) is None:
        made.set_params(n_jobs=1)
    return made


def preload(models: Iterable[Any]) -> tuple[str, ...]:
    """Return the modules that the supervisor of the processes imports once, for all of them: what these models need."""
    used = tuple(models)
    is_learnt = any(one == "gradient_boosting" if isinstance(one, str) else _is_regressor(one) for one in used)
    warm = ("ipybatch.forecast.models.warm_up",) if is_learnt else ()  # scikit-learn takes a second
    return ("ipybatch.forecast.worker", *warm, *packages(used))


def packages(models: Iterable[Any]) -> tuple[str, ...]:
    """Return the modules that these models need and that take long to import."""
    found = set()
    for model in models:
        held = getattr(model, "models", ())
        for one in (model, *(held.values() if isinstance(held, Mapping) else held)):
            found.add(type(one).__module__)
    return tuple(sorted(name for name in found if name.partition(".")[0] in _PACKAGES))


def described(value: Any, depth: int = 0) -> Any:
    """Return a model's settings as JSON data, without anything that it has learnt.

    A model's own representation may not name them: ``AutoETS(season_length=7)`` shows as AutoETS.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): described(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [described(one, depth + 1) for one in value]
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    held = value.get_params(deep=False) if hasattr(value, "get_params") else getattr(value, "__dict__", {})
    held = {name: one for name, one in held.items() if not name.endswith("_")}
    if held and depth < _DEEPEST:
        return {kind: described(held, depth + 1)}
    return f"{kind} {re.sub(' at 0x[0-9a-f]+', '', repr(value))}"


def _called(model: Any, settings: Settings) -> Mapping[str, Model]:
    if not isinstance(model, str):
        regressor = {type(model).__name__: GlobalModel(one_thread(model), known=settings.known, seed=settings.seed)}
        return _adapted(model, settings.freq) or regressor
    if model in MODELS:
        return {model: SeriesModel(MODELS[model], settings.season)}
    return {model: GlobalModel(known=settings.known, seed=settings.seed, prior=settings.prior)}


def _is_regressor(model: Any) -> bool:
    return not hasattr(model, "forecast") and not hasattr(model, "preprocess")


def _adapted(model: Any, freq: Freq) -> dict[str, Model]:
    """Return the models of an object of statsforecast or mlforecast, by name; {} for any other object."""
    if hasattr(model, "preprocess") and hasattr(model, "ts"):
        return {str(name): MLForecastModel(model, name, freq) for name in model.models}
    if not hasattr(model, "forecast"):
        return {}
    fallback = getattr(model, "fallback_model", None)
    return {_name(one): StatsforecastModel(one, fallback) for one in getattr(model, "models", [model])}


def _name(model: Any) -> str:
    return str(getattr(model, "alias", None) or type(model).__name__)


def _whole(said: Any, past: Series) -> Matrix:
    """Return forecasts without gaps, none below zero."""
    mean = past.values.mean(axis=1)[:, None]
    made: Matrix = np.maximum(np.where(np.isfinite(said), said, mean), 0.0)
    return made
