"""Forecast: demand tables split into partitions, each trained in a process of its own, and combined into one forecast.

settings            Settings, the same for every partition
data/               the user's table: its columns, its clean rows, its partitions
models/             from a partition's rows to its forecasts and intervals
forecast_files      the forecasts on disk
training            from a table to what its processes are given, for forecast() and evaluate()
worker              the process of a partition: from a file of rows to one of forecasts
output              the file that a user asked for
workbook            that file as a spreadsheet
training_facts      what the panel shows of a forecast that is made
session             forecast() and ForecastSession
analysis            analyze(): what a forecast would take, before it is made
evaluation          evaluate(): accuracy on the past
origins             a table as it was known on days of its past
scoring             how far a partition's forecast was from what came, in its process
charts              chart(): forecasts; and the figures of an evaluation
form                ForecastForm, for Jupyter
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ipybatch.errors import MissingExtra

if TYPE_CHECKING:
    from ipybatch.forecast.analysis import Analysis, analyze
    from ipybatch.forecast.charts import chart
    from ipybatch.forecast.evaluation import Evaluation, evaluate
    from ipybatch.forecast.form import ForecastForm
    from ipybatch.forecast.session import ForecastSession, forecast
    from ipybatch.forecast.settings import Settings

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

_HOMES = {
    "Analysis": "analysis",
    "Evaluation": "evaluation",
    "ForecastForm": "form",
    "ForecastSession": "session",
    "Settings": "settings",
    "analyze": "analysis",
    "chart": "charts",
    "evaluate": "evaluation",
    "forecast": "session",
}

if not TYPE_CHECKING:  # else any name would pass a type checker

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        try:
            member = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        except ImportError as error:
            if name == "ForecastForm":
                raise MissingExtra("jupyter") from error
            raise
        return member

    # A partition's process needs the models alone, and would import for 0.2 s what it never uses.
    if "IPYBATCH_ATTEMPT" not in os.environ:
        for _name in sorted(_HOMES.keys() - {"ForecastForm"}):  # which needs another extra
            __getattr__(_name)
