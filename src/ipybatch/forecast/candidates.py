"""Candidates: the models that a forecast may use, by name, all called alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ipybatch.forecast.adapters import Long, OneByOne
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
