"""Candidates: the models that a forecast may use, by name, all called alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.forecast.choice import Model
from ipybatch.forecast.matrix import Matrix, Series
from ipybatch.forecast.models import MODELS
from ipybatch.forecast.pooled import Pooled
from ipybatch.forecast.settings import Settings


def candidates(settings: Settings) -> dict[str, Model]:
    """Return the models that ``settings`` asks for, in its order; two of a kind are numbered."""
    made: dict[str, Model] = {}
    for model in settings.models:
        name = model if isinstance(model, str) else _name(model)
        if not isinstance(model, str) and name in made:
            name = f"{name}_{len(made) + 1}"
        made[name] = _candidate(model, settings)
    return made


class Swept:
    """A matrix model: there is nothing to fit."""

    def __init__(self, sweep: Callable[[Matrix, int, int], Matrix], season: int) -> None:
        self._sweep = sweep
        self._season = season

    def fit(self, past: Series, horizon: int) -> None:
        """Do nothing."""

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return its forecasts."""
        return np.maximum(self._sweep(past.values, horizon, self._season), 0.0)


class OneByOne:
    """A model of statsforecast: ``forecast(y, h)`` of one series, with the mean in what it returns."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def fit(self, past: Series, horizon: int) -> None:
        """Do nothing: it fits as it forecasts."""

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return its forecasts, series after series."""
        rows = [np.asarray(self._model.forecast(y=row, h=horizon)["mean"], dtype=float) for row in past.values]
        return np.nan_to_num(np.maximum(rows, 0.0))


class Long:
    """An MLForecast: fits a frame of unique_id, ds and y."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def fit(self, past: Series, horizon: int) -> None:
        """Do nothing: it forecasts from the end of what it was fitted on, so it is fitted at each origin."""

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return its forecasts; those of its first model, where it has several."""
        count, length = past.values.shape
        numbers = np.repeat(np.arange(count), length)
        frame = pd.DataFrame({"unique_id": numbers, "ds": np.tile(past.dates, count), "y": past.values.ravel()})
        self._model.fit(frame)
        said = self._model.predict(horizon).sort_values(["unique_id", "ds"])
        column = next(name for name in said.columns if name not in ("unique_id", "ds"))
        made: Matrix = np.maximum(said[column].to_numpy(float).reshape(count, horizon), 0.0)
        return made


def _candidate(model: Any, settings: Settings) -> Model:
    if isinstance(model, str):
        if model in MODELS:
            return Swept(MODELS[model], settings.season)
        return Pooled(known=settings.known, seed=settings.seed)
    if hasattr(model, "forecast"):
        return OneByOne(model)
    if hasattr(model, "preprocess"):
        return Long(model)
    return Pooled(model, known=settings.known, seed=settings.seed)


def _name(model: Any) -> str:
    return str(getattr(model, "alias", None) or type(model).__name__)
