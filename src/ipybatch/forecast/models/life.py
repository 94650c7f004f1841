"""Life of a series: whether it has begun of late and goes on, or has ended, told by evidence.

Zeros are filled from the table's first period, which is right for a part that sells seldom: its first sale in August
says little of July. It is wrong for a part that was listed in August and has sold every day since. Two permutation
tests tell them apart. Were ``n`` sales spread over all ``length`` periods by chance,

    all of them would lie within the last ``age`` periods      with probability  C(age, n) / C(length, n)
    none would lie within the last ``since`` of ``age``        with probability  C(age - since, n) / C(age, n)

    new     the first is below `_DOUBT`, at least `_FEWEST` sales, and the second says that it goes on
    dead    the second is below `_DOUBT`

A new part is forecast by its mean since it began, of four weeks, a quarter or a year at most, without its first period,
which sold by definition; times the seasonality. Its interval is a class of its own: the range of what it sold since,
without the outermost, in units of that mean. Values that go on as they were are exchangeable, so that it holds the
level; where they are too few for the level none is left out, and their deviation is added to both ends.

Prior art: the likelihood ratio of a change point, with the sales' number given: Gombay, Horvath, "Change-point analysis
of Bernoulli sequences" (1996).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipybatch.forecast.models.matrix import Matrix, by_block, remembered

KINDS = ("established", "new", "dead")
NEW, DEAD = 1, 2
MEAN_SINCE_START = "mean_since_start"
_DOUBT = 1e-4  # probability of such a run of zeros by chance; docs/forecasting-models.md
_FEWEST = 3  # sales
_OFTEN = 0.5  # of the periods since the first; below that a part sells seldom, which our models know well
_WIDEST = {7: 28, 52: 13, 12: 12}  # periods of a new part's mean, by season


@dataclass(frozen=True, slots=True)
class Life:
    """How each series has lived.

    Attributes:
        kinds: Per series, the number of its kind within `KINDS`.
        starts: Per series, the number of the period of its first sale; the length where there is none.
        ends: Per series, the number of the period of its last sale; -1 where there is none.
    """

    kinds: Any
    starts: Any
    ends: Any


def life_of(values: Matrix) -> Life:
    """Return how each series has lived."""
    made: Life = remembered(_life, values)
    return made


def mean_since_start(values: Matrix, starts: Any, season: int) -> Any:
    """Return each series' mean since it began, of some periods, without its first where there are others."""
    length, widest = values.shape[1], _WIDEST.get(season, 4 * season)
    found = [row[_begin(start, length, widest) :].mean() for row, start in zip(values, starts, strict=True)]
    return np.array(found)


def ends_since_start(values: Matrix, starts: Any, season: int, level: float) -> tuple[Any, Any]:
    """Return the ends of each new series' interval, as ratios to `mean_since_start`."""
    length, widest = values.shape[1], _WIDEST.get(season, 4 * season)
    found = []
    for row, start in zip(values, starts, strict=True):
        since = row[_begin(start, length, widest) :]
        mean = float(since.mean()) or 1.0
        is_few = (len(since) + 1) * (1 - level) < 1
        wide = max(float(since.std()), math.sqrt(mean)) if is_few else 0.0  # none may be left out, and more may come
        least, most = held(since, level)
        found.append(((least - wide) / mean, (most + wide) / mean))
    lo, hi = np.array(found).reshape(-1, 2).T
    return np.maximum(lo, 0.0), hi


def held(values: Any, level: float) -> tuple[float, float]:
    """Return the least and the largest value that stay when the outermost are removed; NaN of no values."""
    count = len(values)
    if not count:
        return math.nan, math.nan
    ordered = np.sort(values)
    below = np.searchsorted(ordered, ordered, side="right")
    above = count - np.searchsorted(ordered, ordered, side="left")
    depth = np.minimum(below, above)
    spare = math.floor((count + 1) * (1 - level) + 1e-9)
    for ends in (1, 2):  # another value lies beyond each of them as often as between two neighbours
        gone = max(spare - ends, 0)
        inside = ordered[depth >= np.partition(depth, gone)[gone]]
        if inside[0] <= 0:  # nothing lies below
            break
    return float(inside[0]), float(inside[-1])


def _begin(start: int, length: int, widest: int) -> int:
    """Return the first period of the mean."""
    return max(min(start + 1, length - 1), length - widest)


def _life(values: Matrix) -> Life:
    length = values.shape[1]
    found = by_block(_looked_at, values)
    count, starts, ends = found[:, 0], found[:, 1], found[:, 2]
    age, since = length - starts, length - 1 - ends
    has_sold = count > 0
    has_ended = has_sold & (_chance(count - 1, age - 1, age - 1 - since) < math.log(_DOUBT))
    keeps = count >= np.maximum(_FEWEST, _OFTEN * age)
    is_new = keeps & (_chance(count, length, age) < math.log(_DOUBT)) & ~has_ended
    return Life(np.where(is_new, NEW, np.where(has_ended, DEAD, 0)), starts, ends)


def _looked_at(values: Matrix) -> Any:
    happened = values > 0
    count = happened.sum(axis=1)
    length = values.shape[1]
    starts = np.where(count > 0, happened.argmax(axis=1), length)
    ends = np.where(count > 0, length - 1 - happened[:, ::-1].argmax(axis=1), -1)
    return np.stack([count, starts, ends], axis=1)


def _chance(count: Any, of: Any, within: Any) -> Any:
    """Return the logarithm of C(within, count) / C(of, count); 0 of nothing."""
    count = np.clip(count, 0, np.maximum(within, 0))
    table = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, np.max(of, initial=1) + 2)))])  # log factorials
    of, within = np.maximum(of, 0), np.maximum(within, 0)
    return table[within] - table[within - count] - table[of] + table[of - count]
