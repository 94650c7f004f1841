"""Features: what the pooled model sees of a series at an origin, without its scale.

All levels are in units of the series' own root mean squared step, so that one model learns from the part that
sells ten a year and the part that sells ten thousand.  Nothing here looks beyond its origin.

    own        levels at four speeds, means of the latest periods, largest value, deviation; how often and how
               lately it sold
    site, part how often its site and its part sell now, beside what they did so far: target encoding as a ratio
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ipybatch.forecast.matrix import Matrix, Series

_SPEEDS = (0.05, 0.1, 0.2, 0.4)
_WINDOWS = (1, 4, 8)
_TINY = 1e-9


def features(series: Series, cuts: Sequence[int], rows: Any = slice(None)) -> tuple[Any, Any]:
    """Return features and scale at each origin.

    Args:
        series: What is known.
        cuts: After how many periods each origin is, ascending, >= 1.
        rows: The numbers of the series that are asked about; default: all.

    Returns:
        Features, (origins, series, features); scales, (origins, series), > 0.
    """
    values = series.values[rows]
    at = np.asarray(cuts)
    scale = scales(values, at)
    levels = [level / scale for level in _levels(values, at)]
    columns = levels + _occurrence(values, at)
    for key in ("site", "part"):
        group = series.keys[key].factorize()[0]
        columns += [ratio[:, group[rows]] for ratio in _group(series.values > 0, group, at)]
    return np.stack(columns, axis=-1), scale


def scales(values: Matrix, at: Any) -> Any:
    """Return the root mean squared step up to each origin; where nothing moved, the mean, and 1 where nothing sold."""
    squares = np.cumsum(np.diff(values, axis=1, prepend=values[:, :1]) ** 2, axis=1)
    step = np.sqrt(squares[:, at - 1] / np.maximum(at - 1, 1)).T
    mean = (np.cumsum(values, axis=1)[:, at - 1] / at).T
    return np.where(step > 0, step, np.where(mean > 0, mean, 1.0))


def _levels(values: Matrix, at: Any) -> list[Any]:
    total = np.cumsum(values, axis=1)
    squares = np.cumsum(values**2, axis=1)
    mean = total[:, at - 1] / at
    found = [mean, np.maximum.accumulate(values, axis=1)[:, at - 1]]
    found.append(np.sqrt(np.maximum(squares[:, at - 1] / at - mean**2, 0.0)))
    padded = np.pad(total, ((0, 0), (1, 0)))
    for window in _WINDOWS:
        begin = np.maximum(at - window, 0)
        found.append((padded[:, at] - padded[:, begin]) / (at - begin))
    return [level.T for level in found] + [_smoothed(values, speed, at) for speed in _SPEEDS]


def _occurrence(values: Matrix, at: Any) -> list[Any]:
    happened = values > 0
    count = np.cumsum(happened, axis=1)[:, at - 1]
    numbers = np.arange(values.shape[1])
    latest = np.maximum.accumulate(np.where(happened, numbers, -1), axis=1)[:, at - 1]
    first = np.where(happened.any(axis=1), happened.argmax(axis=1), values.shape[1])[:, None]
    age = np.maximum(at - first, 0)
    return [count.T, (count / at).T, (at - 1 - latest).T, age.T, (count / np.maximum(age, 1)).T]


def _group(happened: Any, group: Any, at: Any) -> list[Any]:
    """Return per origin and group how much it sells now, as a ratio to its mean."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max(initial=0) + 1))
    counts = np.add.reduceat(happened[order], starts, axis=0, dtype=float)
    mean = (np.cumsum(counts, axis=1)[:, at - 1] / at).T + _TINY
    return [_smoothed(counts, speed, at) / mean for speed in (0.1, 0.3)]


def _smoothed(values: Matrix, speed: float, at: Any) -> Any:
    """Return the level of exponential smoothing at each origin, (origins, series)."""
    wanted = {int(cut): number for number, cut in enumerate(at)}
    made = np.empty((len(at), len(values)))
    level = values[:, 0].copy()
    for number, now in enumerate(np.ascontiguousarray(values.T), start=1):
        level += speed * (now - level)
        if number in wanted:
            made[wanted[number]] = level
    return made
