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

_SPEEDS = np.array([0.05, 0.1, 0.2, 0.4])
_GROUP_SPEEDS = np.array([0.1, 0.3])
_WINDOWS = (1, 4, 8)
_BLOCK = 4_000  # series at a time: what a sweep touches stays in the processor's cache
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
    at = np.asarray(cuts)
    asked = np.arange(len(series.values))[rows]
    ratios = [_ratios(series, key, at) for key in ("site", "part")]
    seen, scale = [], []
    for begin in range(0, len(asked), _BLOCK):
        some = asked[begin : begin + _BLOCK]
        columns = np.ascontiguousarray(series.values[some].T)
        unit = _scales(columns, at)
        found = [*(level / unit for level in _levels(columns, at)), *_occurrence(columns, at)]
        found += [ratio for group, each in ratios for ratio in each[:, :, group[some]]]
        seen.append(np.stack(found, axis=-1))
        scale.append(unit)
    return np.concatenate(seen, axis=1), np.concatenate(scale, axis=1)


def scales(values: Matrix, at: Any) -> Any:
    """Return the root mean squared step up to each origin; where nothing moved, the mean, and 1 where nothing sold."""
    blocks = (values[begin : begin + _BLOCK].T for begin in range(0, len(values), _BLOCK))
    return np.concatenate([_scales(np.ascontiguousarray(columns), at) for columns in blocks], axis=1)


def _scales(columns: Any, at: Any) -> Any:
    squares = np.cumsum(np.diff(columns, axis=0, prepend=columns[:1]) ** 2, axis=0)
    step = np.sqrt(squares[at - 1] / np.maximum(at - 1, 1)[:, None])
    mean = np.cumsum(columns, axis=0)[at - 1] / at[:, None]
    return np.where(step > 0, step, np.where(mean > 0, mean, 1.0))


def _levels(columns: Any, at: Any) -> list[Any]:
    count = at[:, None]
    total = np.pad(np.cumsum(columns, axis=0), ((1, 0), (0, 0)))
    mean = total[at] / count
    squares = np.cumsum(columns**2, axis=0)[at - 1] / count
    found = [mean, np.maximum.accumulate(columns, axis=0)[at - 1], np.sqrt(np.maximum(squares - mean**2, 0.0))]
    for window in _WINDOWS:
        begin = np.maximum(at - window, 0)
        found.append((total[at] - total[begin]) / (at - begin)[:, None])
    return [*found, *_smoothed(columns, _SPEEDS, at)]


def _occurrence(columns: Any, at: Any) -> list[Any]:
    happened, ends = columns > 0, at[:, None]
    count = np.cumsum(happened, axis=0)[at - 1]
    numbers = np.where(happened, np.arange(len(columns))[:, None], -1)
    latest = np.maximum.accumulate(numbers, axis=0)[at - 1]
    first = np.where(happened.any(axis=0), happened.argmax(axis=0), len(columns))
    age = np.maximum(ends - first, 0)
    return [count, count / ends, ends - 1 - latest, age, count / np.maximum(age, 1)]


def _ratios(series: Series, key: str, at: Any) -> tuple[Any, Any]:
    """Return each series' group, and per speed, origin and group how much it sells now, as a ratio to its mean."""
    group = series.keys[key].factorize()[0]
    length, count = series.values.shape[1], int(group.max(initial=-1)) + 1
    rows, periods = np.nonzero(series.values)
    counts = np.bincount(periods * count + group[rows], minlength=length * count).reshape(length, count)
    mean = np.cumsum(counts, axis=0)[at - 1] / at[:, None] + _TINY
    return group, _smoothed(counts, _GROUP_SPEEDS, at) / mean


def _smoothed(columns: Any, speeds: Any, at: Any) -> Any:
    """Return the levels of exponential smoothing, (speeds, origins, series)."""
    wanted = {int(cut): number for number, cut in enumerate(at)}
    made = np.empty((len(speeds), len(at), columns.shape[1]))
    level, speed = np.repeat(columns[:1].astype(float), len(speeds), axis=0), speeds[:, None]
    for number, now in enumerate(columns, start=1):
        level += speed * (now - level)
        if number in wanted:
            made[:, wanted[number]] = level
    return made
