"""Adapters: models of other packages, called as ours are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ipybatch.forecast.matrix import Matrix, Series


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
