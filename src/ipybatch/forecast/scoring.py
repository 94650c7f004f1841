"""Scoring: what is forecast of a partition at an origin, and how far it is from what came; in a process.

    rows until the origin --`Tried`--> the delivered forecast, and that of each model by itself
    rows after it ---------------------> errors per series --> sums per model and class

What leaves the process is small: the delivered forecast, and sums, of which every measure over any set of partitions is
made by `measures`. Series with fewer than two sales before the origin are not scored: their scale does not mean much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from ipybatch.forecast.models.life import KINDS, life_of
from ipybatch.forecast.models.matrix import CLASSES, Matrix, demand_classes, series_of
from ipybatch.forecast.models.model_selection import Tried
from ipybatch.forecast.models.thread_limit import one_thread
from ipybatch.forecast.settings import Settings

CHOSEN = "chosen"
MEASURES = ("mase", "rmsse", "wape", "bias", "pooled_rmse", "coverage", "coverage_nonzero")
_FEWEST = 2  # sales
_KEYS = ["site", "part"]
SUMS = (
    "series",
    "mase",
    "scaled",  # series that have a step, and so a MASE and an RMSSE
    "rmsse",
    "absolute",
    "error",
    "actual",
    "square",
    "values",
    "held",
    "asked",  # values that have an interval
    "held_nonzero",
    "asked_nonzero",
)


class Later(msgspec.Struct, frozen=True, eq=False):
    """What came after an origin.

    Attributes:
        rows: site, part, date and quantity of the periods that are forecast.
        end: Their last day, ISO.
        unscored: site and part of the series that lie in several partitions, and are not scored; None for none.
    """

    rows: pd.DataFrame
    end: str
    unscored: pd.DataFrame | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """How one partition was forecast at one origin.

    Attributes:
        sums: One row per model and class: a demand class, new or dead, `CHOSEN` first.
        series: One row per scored series: site, part, class, and the errors of what is delivered.
        forecast: What is delivered: site, part, date, actual, forecast, lo, hi and model_used.
    """

    sums: pd.DataFrame
    series: pd.DataFrame
    forecast: pd.DataFrame


def score(frame: pd.DataFrame, later: Later, settings: Settings, beside: Sequence[str]) -> Score:
    """Return the score of what a forecast delivers, and those of each of its models and of those beside it.

    Args:
        frame: The partition's rows until the origin.
        later: What came after it.
        settings: Of the forecast at the origin.
        beside: Names of models that it does not choose from.

    Raises:
        InputError: The rows do not span one whole period.
    """
    with one_thread(settings.models):
        past = _Past.of(frame, later, settings)
        tried = Tried(frame, settings, beside)
        made = tried.forecast()
        errors = past.errors(made)
        sums = [_summed(errors, CHOSEN)]
        alone = [*tried.names, *(name for name in beside if name not in tried.names)]
        sums += [_summed(past.errors(tried.forecast([name])), name) for name in alone]
    made = made[["site", "part", "date", "forecast", "lo", "hi", "model_used"]]
    made.insert(3, "actual", past.actual.ravel())
    return Score(pd.concat(sums, ignore_index=True), errors, made)


def score_alone(frame: pd.DataFrame, later: Later, settings: Settings, labels: Mapping[str, str]) -> pd.DataFrame:
    """Return the sums of each model of ``settings`` by itself, called by the labels of their names.

    Raises:
        InputError: The rows do not span one whole period.
    """
    with one_thread(settings.models):
        past, tried = _Past.of(frame, later, settings), Tried(frame, settings)
        sums = [_summed(past.errors(tried.forecast([name])), label) for name, label in labels.items()]
    return pd.concat(sums, ignore_index=True)


def measures(sums: pd.DataFrame) -> pd.DataFrame:
    """Return the error measures of rows of sums, one row each; NaN where nothing could be measured."""
    found = {
        "mase": sums["mase"] / sums["scaled"],
        "rmsse": sums["rmsse"] / sums["scaled"],
        "wape": sums["absolute"] / sums["actual"],
        "bias": sums["error"] / sums["actual"],
        "pooled_rmse": (sums["square"] / sums["values"]) ** 0.5,
        "coverage": sums["held"] / sums["asked"],
        "coverage_nonzero": sums["held_nonzero"] / sums["asked_nonzero"],
    }
    return pd.DataFrame(found).where(np.isfinite(pd.DataFrame(found)))


@dataclass(frozen=True, slots=True)
class _Past:
    """The series of a partition: what they sold before and after the origin, one row per series, sorted."""

    keys: pd.DataFrame
    history: Matrix
    actual: Matrix
    is_scored: Any

    @classmethod
    def of(cls, frame: pd.DataFrame, later: Later, settings: Settings) -> _Past:
        columns = [*_KEYS, "date", "quantity"]
        known = pd.MultiIndex.from_frame(frame[_KEYS].drop_duplicates())
        rows = later.rows[pd.MultiIndex.from_frame(later.rows[_KEYS]).isin(known)]
        both = pd.concat([frame[columns], rows[columns]], ignore_index=True)
        series = series_of(both, settings.freq, start=settings.start, end=later.end)
        history, actual = np.split(series.values, [series.values.shape[1] - settings.horizon], axis=1)
        is_scored = (history > 0).sum(axis=1) >= _FEWEST
        if later.unscored is not None:
            is_scored &= ~pd.MultiIndex.from_frame(series.keys).isin(pd.MultiIndex.from_frame(later.unscored))
        return cls(series.keys, history, actual, is_scored)

    def errors(self, made: pd.DataFrame) -> pd.DataFrame:
        """Return one row per scored series: its class, its errors, and how many of its values an interval held."""
        shape = self.actual.shape
        forecast, lo, hi = (
            made[name].to_numpy(float).reshape(shape)[self.is_scored] for name in ("forecast", "lo", "hi")
        )
        history, actual = self.history[self.is_scored], self.actual[self.is_scored]
        off, steps = forecast - actual, np.abs(np.diff(history, axis=1))
        step, square = (_mean(steps**power) for power in (1, 2))
        is_asked, is_sold = np.isfinite(lo) & np.isfinite(hi), actual > 0
        is_held = is_asked & (actual >= lo) & (actual <= hi)
        found: pd.DataFrame = self.keys[self.is_scored].reset_index(drop=True)
        found["class"] = _classes(history)
        found["model_used"] = made["model_used"].to_numpy(object)[:: shape[1]][self.is_scored]
        with np.errstate(divide="ignore", invalid="ignore"):
            mase, rmsse = _mean(np.abs(off)) / step, np.sqrt(_mean(off**2) / square)
        sums: dict[str, Any] = {
            "series": 1,
            "mase": np.where(step > 0, mase, np.nan),
            "scaled": (step > 0).astype(int),
            "rmsse": np.where(square > 0, rmsse, np.nan),
            "absolute": np.abs(off).sum(axis=1),
            "error": off.sum(axis=1),
            "actual": actual.sum(axis=1),
            "square": (off**2).sum(axis=1),
            "values": shape[1],
            "held": is_held.sum(axis=1),
            "asked": is_asked.sum(axis=1),
            "held_nonzero": (is_held & is_sold).sum(axis=1),
            "asked_nonzero": (is_asked & is_sold).sum(axis=1),
        }
        return found.assign(**sums)


def _classes(history: Matrix) -> Any:
    """Return each series' class: new and dead ones apart, which have forecasts or intervals of their own."""
    kinds = life_of(history).kinds
    numbers = np.where(kinds == 0, demand_classes(history), len(CLASSES) + kinds - 1)
    return pd.Categorical.from_codes(numbers, pd.Index([*CLASSES, *KINDS[1:]]))


def _mean(values: Matrix) -> Any:
    return values.mean(axis=1) if values.shape[1] else np.zeros(len(values))


def _summed(errors: pd.DataFrame, name: str) -> pd.DataFrame:
    sums = errors.groupby("class", observed=True)[list(SUMS)].sum().reset_index()
    sums.insert(0, "model", name)
    return sums
