"""Forecast: demand tables split into partitions, each trained in a process of its own, and combined into one forecast.

settings            Settings, the same for every partition
data/               the user's table: its columns, its clean rows, its partitions
models/             from a partition's rows to its forecasts and intervals
forecast_files      the forecasts on disk
training            from a table to what its processes are given, for forecast() and evaluate()
worker              the process of a partition: from a file of rows to one of forecasts
output              the file that a user asked for
training_facts      what the panel shows of a forecast that is made
session             forecast() and ForecastSession
analysis            analyze(): what a forecast would take, before it is made
evaluation          evaluate(): accuracy on the past; chart()
form                ForecastForm, for Jupyter
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipybatch.errors import MissingExtra
from ipybatch.forecast.analysis import Analysis, analyze
from ipybatch.forecast.evaluation import Evaluation, chart, evaluate
from ipybatch.forecast.session import ForecastSession, forecast
from ipybatch.forecast.settings import Settings

if TYPE_CHECKING:
    from ipybatch.forecast.form import ForecastForm

__all__ = [
    "Analysis",
    "Evaluation",
    "ForecastForm",
    "ForecastSession",
    "Settings",
    "analyze",
    "chart",
    "evaluate",
    "forecast",
]


def __getattr__(name: str) -> Any:
    if name != "ForecastForm":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        from ipybatch.forecast.form import ForecastForm
    except ImportError as error:
        raise MissingExtra("jupyter") from error
    return ForecastForm
