"""Forecast: demand tables split into partitions, each trained in a process of its own, and put together again."""

from __future__ import annotations

from ipybatch.forecast.analysis import Analysis, analyze
from ipybatch.forecast.evaluate import Evaluation, evaluate
from ipybatch.forecast.forecasting import ForecastSession, forecast
from ipybatch.forecast.settings import Settings

__all__ = ["Analysis", "Evaluation", "ForecastSession", "Settings", "analyze", "evaluate", "forecast"]
