"""Training: what the process of one partition does: from its rows to its forecasts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ipybatch.forecast.candidates import candidates
from ipybatch.forecast.choice import Choice, Model, choose, try_models
from ipybatch.forecast.intervals import widths_of
from ipybatch.forecast.matrix import Matrix, Series, series_of
from ipybatch.forecast.settings import Settings

PRELOAD = ("ipybatch.forecast.training", "sklearn.ensemble")  # by the supervisor of its processes, once
_NOTE = "periods without a row count as zero, from the table's first date on"


def run_partition(frame: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return the forecasts of a partition's series.

    Args:
        frame: Its rows: site, part, date and quantity, clean.
        settings: What the forecast is to be.

    Returns:
        One row per (site, part, date), sorted: forecast, lo, hi, model_used and reason; site, part, model_used and
        reason are categories. ``attrs`` has ``note``, and ``coverage``: the share of actual values that the intervals
        held on the past, or None.

    Raises:
        InputError: The rows do not span one whole period.
    """
    series = series_of(frame, settings.freq, start=settings.start, end=settings.end)
    models = candidates(settings)
    trials = try_models(series, models, settings.horizon, settings.origins)
    choice = choose(series, trials, tuple(models), settings.select)
    forecast = _forecast(series, models, choice, settings.horizon)
    widths = widths_of(trials, choice, settings.level)
    lo, hi = widths.around(forecast, series.values)
    if settings.integer:
        forecast, lo, hi = whole(forecast), np.floor(lo), np.ceil(hi)
        lo, hi = np.minimum(lo, forecast), np.maximum(hi, forecast)
    made = _frame(series, choice, forecast, lo, hi)
    made.attrs = {"note": _NOTE, "coverage": None if np.isnan(widths.coverage) else widths.coverage}
    return made


def whole(forecast: Matrix) -> Matrix:
    """Return whole pieces whose running total is each series' own, rounded: 0.3 a day is one piece in three days."""
    totals = np.floor(np.cumsum(forecast, axis=1) + 0.5)
    return np.diff(totals, axis=1, prepend=0.0)


def _forecast(series: Series, models: dict[str, Model], choice: Choice, horizon: int) -> Matrix:
    """Run only the models that a series got; none may say less than nothing."""
    made = np.zeros((len(series.keys), horizon))
    for number, name in enumerate(choice.names):
        rows = np.flatnonzero(choice.best == number)
        if len(rows):
            models[name].fit(series, horizon)
            made[rows] = models[name].predict(series, horizon)[rows]
    return np.maximum(made, 0.0)


def _frame(series: Series, choice: Choice, forecast: Matrix, lo: Matrix, hi: Matrix) -> pd.DataFrame:
    count, horizon = forecast.shape
    made: dict[str, Any] = {name: pd.Categorical(series.keys[name]).repeat(horizon) for name in ("site", "part")}
    made["date"] = np.tile(series.ahead(horizon).to_numpy(), count)
    made |= {"forecast": forecast.ravel(), "lo": lo.ravel(), "hi": hi.ravel()}
    made["model_used"] = pd.Categorical.from_codes(np.repeat(choice.best, horizon), pd.Index(choice.names))
    made["reason"] = pd.Categorical.from_codes(np.repeat(choice.why, horizon), pd.Index(choice.reasons))
    return pd.DataFrame(made, copy=False)  # a copy would hold a million rows twice
