"""Forecast: demand tables split into partitions, each trained in a process of its own, and put together again."""

from __future__ import annotations

from ipybatch.forecast.forecasting import ForecastSession, forecast
from ipybatch.forecast.settings import Settings

__all__ = ["ForecastSession", "Settings", "forecast"]
