"""Adapters: models of other packages, called as ours are.

    statsforecast   a model, or a StatsForecast: each of its models, series after series
    mlforecast      an MLForecast: each of its models, on one long frame of all series

What they forecast is what their package says when it is called directly on the same series, zeros filled in, but
nothing below zero.  Where a history is too short for a model, which it may be where models are tried on the past, the
mean of the history stands in.  What is known ahead is not handed to them.

Neither package is imported here: an object is known by what it has.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError, Permanent
from ipybatch.forecast.matrix import Matrix, Series

if TYPE_CHECKING:
    from ipybatch.forecast.settings import Freq

_PACKAGES = ("statsforecast", "mlforecast", "lightgbm", "xgboost", "catboost")  # seconds to import, each
_OFFSETS = {"D": "D", "W": "7D", "M": "MS"}  # of pandas; a week ends where the table does
_TOO_SHORT = ("tiny datasets", "not enough data")  # as statsforecast says it
_DEEPEST = 8  # settings within settings


class OneByOne:
    """A model of statsforecast: ``forecast(y, h)`` of one series, with the mean in what it returns.

    Args:
        model: It.
        fallback: What stands in for a series that it fails on; None: the failure is raised.
    """

    def __init__(self, model: Any, fallback: Any = None) -> None:
        self._model, self._fallback = model, fallback

    def fit(self, past: Series, horizon: int) -> None:
        """Do nothing: it fits as it forecasts."""

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return its forecasts, series after series.

        Raises:
            Permanent: It fails on a series.
        """
        said = np.full((len(past.values), horizon), np.nan)
        for number, row in enumerate(past.values):
            try:
                said[number] = self._one(row, horizon)
            except Exception as error:
                if not any(words in str(error) for words in _TOO_SHORT):
                    raise _failed(self._model, past, number, error) from error
        return _whole(said, past)

    def _one(self, row: Any, horizon: int) -> Any:
        try:
            return self._model.forecast(y=row, h=horizon)["mean"]
        except Exception:
            if self._fallback is None:
                raise
            return self._fallback.forecast(y=row, h=horizon)["mean"]


class Long:
    """One model of an MLForecast: fits a frame of unique_id, ds and y.

    Args:
        model: The MLForecast; it stays as it is.
        name: The model's name in it.
        freq: The length of a period.
    """

    def __init__(self, model: Any, name: str, freq: Freq) -> None:
        self._model = copy.deepcopy(model)
        self._model.models = {name: one_thread(model.models[name])}
        self._model.ts.freq = _OFFSETS[freq]

    def fit(self, past: Series, horizon: int) -> None:
        """Do nothing: it forecasts from the end of what it was fitted on, so it is fitted at each origin."""

    def predict(self, past: Series, horizon: int) -> Matrix:
        """Return its forecasts."""
        count, length = past.values.shape
        numbers = np.repeat(np.arange(count), length)
        frame = pd.DataFrame({"unique_id": numbers, "ds": np.tile(past.dates, count), "y": past.values.ravel()})
        try:
            self._model.fit(frame)
        except ValueError:
            if len(self._model.preprocess(frame)):
                raise
            return _whole(np.full((count, horizon), np.nan), past)  # no period has all the lags
        said = self._model.predict(horizon).sort_values(["unique_id", "ds"])
        (name,) = self._model.models
        return _whole(said[name].to_numpy(float).reshape(count, horizon), past)


def adapted(model: Any, freq: Freq) -> dict[str, OneByOne | Long]:
    """Return what an object of statsforecast or mlforecast holds, by name; {} for any other object."""
    if hasattr(model, "preprocess") and hasattr(model, "ts"):
        return {str(name): Long(model, name, freq) for name in model.models}
    if not hasattr(model, "forecast"):
        return {}
    fallback = getattr(model, "fallback_model", None)
    return {_name(one): OneByOne(one, fallback) for one in getattr(model, "models", [model])}


def one_thread(model: Any) -> Any:
    """Return a copy of a regressor that uses one thread, unless it was told how many.

    LightGBM asks the machine, not the environment: two partitions on two busy cores took fourteen times as long.
    """
    made = copy.deepcopy(model)
    if hasattr(made, "get_params") and made.get_params().get("n_jobs", 1) is None:
        made.set_params(n_jobs=1)
    return made


def check_model(model: Any, freq: Freq) -> None:
    """Refuse what is no model, or is one of other periods than the table's.

    Raises:
        InputError: It is.
    """
    if isinstance(model, type):
        msg = f"models must be objects, got the class {model.__name__}: write {model.__name__}(...)"
        raise InputError(msg)
    if not hasattr(model, "fit"):
        msg = f"models must be names or have fit and predict, got {model!r}"
        raise InputError(msg)
    said = getattr(model, "freq", None)
    if isinstance(said, str | pd.offsets.BaseOffset) and _period(said) != freq:
        msg = (
            f"models must have the table's periods, {freq!r}, got {type(model).__name__} of freq {said!r}:"
            f" say freq={_OFFSETS[freq]!r} there, or another freq= here"
        )
        raise InputError(msg)


def packages(models: Iterable[Any]) -> tuple[str, ...]:
    """Return the modules that take long to import and that all partitions need for these models."""
    found = set()
    for model in models:
        held = getattr(model, "models", ())
        for one in (model, *(held.values() if isinstance(held, Mapping) else held)):
            found.add(type(one).__module__)
    return tuple(sorted(name for name in found if name.partition(".")[0] in _PACKAGES))


def described(value: Any, depth: int = 0) -> Any:
    """Return what a model is made of, as JSON holds it: its settings, and nothing that it has learnt.

    Their own representations name no settings: ``AutoETS(season_length=7)`` shows as AutoETS.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): described(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [described(one, depth + 1) for one in value]
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    held = value.get_params(deep=False) if hasattr(value, "get_params") else getattr(value, "__dict__", {})
    held = {name: one for name, one in held.items() if not name.endswith("_")}
    if held and depth < _DEEPEST:
        return {kind: described(held, depth + 1)}
    return f"{kind} {re.sub(' at 0x[0-9a-f]+', '', repr(value))}"


def _name(model: Any) -> str:
    return str(getattr(model, "alias", None) or type(model).__name__)


def _whole(said: Any, past: Series) -> Matrix:
    """Return forecasts without gaps, none below zero."""
    mean = past.values.mean(axis=1)[:, None]
    made: Matrix = np.maximum(np.where(np.isfinite(said), said, mean), 0.0)
    return made


def _failed(model: Any, past: Series, number: int, error: Exception) -> Permanent:
    site, part = past.keys[["site", "part"]].iloc[number]
    return Permanent(f"{_name(model)} on part {part} of {site}: {type(error).__name__}: {error}")


def _period(said: Any) -> str:
    try:
        offset = pd.tseries.frequencies.to_offset(said)
    except ValueError:
        return str(said)
    if offset.name == "D" and offset.n == 7:
        return "W"
    return str(offset.name[0] if offset.n == 1 else offset.freqstr)
