"""Features: what the pooled model sees of a series at an origin, without its scale.

All levels are in units of the series' own root mean squared step, so that one model learns from the part that
sells ten a year and the part that sells ten thousand.  Nothing here looks beyond its origin.

    own        levels at four speeds, means of the latest periods, largest value, deviation; how often and how
               lately it sold
    site, part how often its site and its part sell now, beside what they did so far: target encoding as a ratio
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ipybatch.forecast.matrix import BLOCK, Matrix, Series, by_block

_SPEEDS = np.array([0.05, 0.1, 0.2, 0.4])
_GROUP_SPEEDS = np.array([0.1, 0.3])
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
    at = np.asarray(cuts)
    asked = np.arange(len(series.values))[rows]
    happened = series.values > 0
    groups = [series.keys[key].factorize()[0] for key in ("site", "part")]
    ratios = [_ratios(group, happened, at) for group in groups]
    seen, scale = [], []
    for begin in range(0, len(asked), BLOCK):
        some = asked[begin : begin + BLOCK]
        columns = np.ascontiguousarray(series.values[some].T)
        unit = _scales(columns, at)
        found = [*(level / unit for level in _levels(columns, at)), *_occurrence(columns, at)]
        found += [ratio for group, each in zip(groups, ratios, strict=True) for ratio in each[:, :, group[some]]]
        seen.append(np.stack(found, axis=-1))
        scale.append(unit)
    return np.concatenate(seen, axis=1), np.concatenate(scale, axis=1)


def scales(values: Matrix, at: Any) -> Any:
    """Return the root mean squared step up to each origin; where nothing moved, the mean, and 1 where nothing sold."""
    return by_block(lambda some: _scales(np.ascontiguousarray(some.T), at).T, values).T


def _scales(columns: Any, at: Any) -> Any:
    steps = np.diff(columns, axis=0, prepend=columns[:1]) ** 2
    step = np.sqrt(_total(steps, at) / np.maximum(at - 1, 1)[:, None])
    mean = _total(columns, at) / at[:, None]
    return np.where(step > 0, step, np.where(mean > 0, mean, 1.0))


def _levels(columns: Any, at: Any) -> list[Any]:
    mean = _total(columns, at) / at[:, None]
    squares = _total(columns**2, at) / at[:, None]
    latest = [np.stack([columns[max(cut - last, 0) : cut].mean(axis=0) for cut in at]) for last in _WINDOWS]
    deviation = np.sqrt(np.maximum(squares - mean**2, 0.0))
    return [mean, _largest(columns, at), deviation, *latest, *_smoothed(columns, _SPEEDS, at)]


def _occurrence(columns: Any, at: Any) -> list[Any]:
    happened, ends = columns > 0, at[:, None]
    count = _total(happened, at)
    latest = _largest(happened * np.arange(1.0, len(columns) + 1)[:, None], at)
    first = np.where(happened.any(axis=0), happened.argmax(axis=0), len(columns))
    age = np.maximum(ends - first, 0)
    return [count, count / ends, ends - latest, age, count / np.maximum(age, 1)]


def _ratios(group: Any, happened: Any, at: Any) -> Any:
    """Return per speed, origin and group how much it sells now, as a ratio to its mean."""
    length, count = happened.shape[1], int(group.max(initial=-1)) + 1
    rows, periods = np.divmod(np.flatnonzero(happened), length)
    counts = np.bincount(periods * count + group[rows], minlength=length * count).reshape(length, count)
    mean = _total(counts, at) / at[:, None] + _TINY
    return _smoothed(counts, _GROUP_SPEEDS, at) / mean


def _total(columns: Any, at: Any) -> Any:
    """Return the sums up to each origin."""
    return np.cumsum([part.sum(axis=0, dtype=float) for part in _between(columns, at)], axis=0)


def _largest(columns: Any, at: Any) -> Any:
    """Return the largest up to each origin."""
    return np.maximum.accumulate([part.max(axis=0) for part in _between(columns, at)], axis=0)


def _between(columns: Any, at: Any) -> list[Any]:
    """Return the periods from each origin to the next: to run through them once is faster than to accumulate."""
    return [columns[begin:end] for begin, end in pairwise([0, *at])]


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
