"""Candidates: the models that a forecast may use, by name, all called alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ipybatch.forecast.adapters import adapted, one_thread
from ipybatch.forecast.choice import Model
from ipybatch.forecast.matrix import Matrix, Series
from ipybatch.forecast.models import MODELS
from ipybatch.forecast.pooled import Pooled
from ipybatch.forecast.settings import Settings


def candidates(settings: Settings) -> dict[str, Model]:
    """Return the models that ``settings`` asks for, in its order; two of a kind are numbered."""
    made: dict[str, Model] = {}
    for model in settings.models:
        for name, one in _called(model, settings).items():
            is_taken = not isinstance(model, str) and name in made
            made[f"{name}_{len(made) + 1}" if is_taken else name] = one
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
        return self._sweep(past.values, horizon, self._season)


def _called(model: Any, settings: Settings) -> Mapping[str, Model]:
    if not isinstance(model, str):
        regressor = {type(model).__name__: Pooled(one_thread(model), known=settings.known, seed=settings.seed)}
        return adapted(model, settings.freq) or regressor
    if model in MODELS:
        return {model: Swept(MODELS[model], settings.season)}
    return {model: Pooled(known=settings.known, seed=settings.seed)}
