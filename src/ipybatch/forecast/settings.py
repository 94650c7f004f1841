"""Settings of a forecast, the same for every partition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import msgspec
import pandas as pd

from ipybatch.engine.data.policy import check, check_count, keep
from ipybatch.errors import InputError

Freq = Literal["D", "W", "M"]
OFFSETS = {"D": "D", "W": "7D", "M": "MS"}  # of pandas; a week ends where the table does
AUTO = ("naive", "seasonal_naive", "moving_average", "ses", "tsb", "sba", "imapa", "gradient_boosting")


class Settings(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Settings of every partition's forecast, sent to its process with its rows.

    Attributes:
        horizon: Periods ahead, >= 1.
        freq: The length of a period: "D", "W" (seven days up to and with its date) or "M" (a calendar month).
        start: The first day of the whole table, ISO; zeros are filled from there. None: the first day of the rows.
        end: The last day of the whole table, ISO; forecasts begin after it. None: the last day of the rows.
        models: Names of series models or "gradient_boosting" (default: all), scikit-learn regressors, or models of
            statsforecast or mlforecast.
        level: Share of actual values that the intervals should hold, 0.01 to 0.999.
        integer: Whether forecasts are whole pieces; the rounding keeps each series' total.
        known: A frame of columns that are known ahead, such as prices or holidays: date (the period's), also site and
            part if the values differ by them, and one column of numbers for each.
        select: The loss that selects a model: "squared" error or the "pinball" loss at the median.
        origins: Number of times that the models are tried on the past, >= 1.
        seed: Random seed of the gradient boosting.
        prior: What small partitions borrow from the whole table, a `Prior`; None for nothing.

    Raises:
        InputError: A value is outside its range, or there is no such model; the message names the field.
    """

    horizon: int
    freq: Freq = "D"
    start: str | None = None
    end: str | None = None
    models: tuple[Any, ...] = AUTO
    level: float = 0.8
    integer: bool = False
    known: Any = None
    select: Literal["squared", "pinball"] = "squared"
    origins: int = 2
    seed: int = 0
    prior: Any = None

    def __post_init__(self) -> None:
        keep(self, horizon=check_count("horizon", self.horizon, low=1))
        keep(self, origins=check_count("origins", self.origins, low=1))
        keep(self, level=check("level", self.level, low=0.01, high=0.999))
        _check_choice("freq", self.freq, get_args(Freq))
        _check_choice("select", self.select, ("squared", "pinball"))
        if not self.models:
            msg = f"models must name at least one, got none: choose from {', '.join(AUTO)}"
            raise InputError(msg)
        for model in self.models:
            if isinstance(model, str):
                _check_choice("models", model, AUTO)
            else:
                _check_model(model, self.freq)

    @property
    def season(self) -> int:
        """Periods of one season: a week of days, a year of weeks or months."""
        return {"D": 7, "W": 52, "M": 12}[self.freq]


def as_models(asked: Any) -> tuple[Any, ...]:
    """Return models that a user asks for, one or several: names, or objects."""
    is_one = isinstance(asked, str | type) or hasattr(asked, "fit") or not isinstance(asked, Iterable)
    return (asked,) if is_one else tuple(asked)


def _check_choice(field: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        msg = f"{field} must be one of {', '.join(map(repr, allowed))}, got {value!r}"
        raise InputError(msg)


def _check_model(model: Any, freq: Freq) -> None:
    """Refuse an object that is no model, and a model whose period is not the table's."""
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
            f" say freq={OFFSETS[freq]!r} there, or another freq= here"
        )
        raise InputError(msg)


def _period(said: Any) -> str:
    try:
        offset = pd.tseries.frequencies.to_offset(said)
    except ValueError:
        return str(said)
    if offset.name == "D" and offset.n == 7:
        return "W"
    return str(offset.name[0] if offset.n == 1 else offset.freqstr)
