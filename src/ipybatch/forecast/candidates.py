"""Candidates: the models that a forecast may use, by name, all called alike."""

from __future__ import annotations

import numpy as np

from ipybatch.forecast.choice import Model
from ipybatch.forecast.matrix import Matrix, Series
from ipybatch.forecast.models import MODELS
from ipybatch.forecast.settings import Settings


def candidates(settings: Settings) -> dict[str, Model]:
    """Return the models that ``settings`` names, in its order."""
    return {name: _matrix_model(name, settings.season) for name in settings.models if name in MODELS}


def _matrix_model(name: str, season: int) -> Model:
    def forecast(series: Series, horizon: int) -> Matrix:
        return np.maximum(MODELS[name](series.values, horizon, season), 0.0)

    return forecast
