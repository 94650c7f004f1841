"""Made demand: seeded tables of kinds that the models were not tuned on, to see how they do there.

intermittent   parts that sell seldom, a few pieces at a time
trend          growth and decline by part
week, trend    a weekly shape, alone and with growth
launches       low counts with launches, gaps and drifting levels, as in a chain of stores
new, ended     parts that began in the last sixty days, or ended
promotions     weeks in which a part sells four times as much
year           a yearly season in weeks, with growth
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

_WEEK = np.array([0.6, 0.8, 1.0, 1.1, 1.3, 1.6, 0.6])
_START = pd.Timestamp("2024-01-01")


def _counts(rng: Any, mean: Any, dispersion: float = 3.0) -> Any:
    return rng.poisson(mean * rng.gamma(dispersion, 1 / dispersion, np.shape(mean)))


def _base(rng: Any, count: int, middle: float = 3.3, spread: float = 1.2) -> Any:
    return np.exp(rng.normal(np.log(middle), spread, count))[:, None]


def intermittent(rng: Any) -> Any:
    """Return parts that sell seldom."""
    chance, size = rng.beta(0.6, 3, 600)[:, None], 1 + rng.gamma(0.7, 4, 600)[:, None]
    return (rng.random((600, 200)) < chance) * (1 + rng.poisson(np.tile(size - 1, 200)))


def trend(rng: Any) -> Any:
    """Return parts that grow and parts that decline."""
    slope = rng.normal(0.5, 1.0, 400)[:, None]
    return _counts(rng, _base(rng, 400) * np.maximum(0.05, 1 + slope * np.arange(300) / 300))


def week(rng: Any) -> Any:
    """Return a weekly shape."""
    return rng.poisson(_base(rng, 300, 8, 0.8) * _WEEK[np.arange(150) % 7])


def week_and_trend(rng: Any) -> Any:
    """Return a weekly shape of parts that grow."""
    time = np.arange(200)
    return rng.poisson(_base(rng, 300, 8, 0.8) * _WEEK[time % 7] * (1 + 1.5 * time / 200))


def launches(rng: Any) -> Any:
    """Return low counts with launches, gaps and drifting levels."""
    time = np.arange(365)
    level = _base(rng, 800, 0.75) * np.exp(np.cumsum(rng.normal(0, 0.02, (800, 365)), axis=1)) * _WEEK[time % 7]
    values = _counts(rng, level, 1.5)
    began = np.where(rng.random(800) < 0.3, rng.integers(0, 335, 800), 0)
    values[time < began[:, None]] = 0
    for row in values:
        for begin in rng.integers(0, 365, rng.poisson(1.0)):
            row[begin : begin + rng.integers(3, 21)] = 0
    return values


def new_and_ended(rng: Any) -> Any:
    """Return parts of which two in five are new and one in seven has ended."""
    time = np.arange(300)
    values = rng.poisson(np.tile(_base(rng, 300, 2, 1.0), 300))
    began = np.where(rng.random(300) < 0.4, rng.integers(240, 294, 300), 0)
    ended = np.where(rng.random(300) < 0.15, rng.integers(100, 240, 300), 300)
    return values * (time >= began[:, None]) * (time <= ended[:, None])


def promotions(rng: Any) -> Any:
    """Return parts with weeks of promotion that nobody knows ahead."""
    lift = 1 + 3 * np.repeat(rng.random((400, 29)) < 0.1, 7, axis=1)[:, :200]
    return _counts(rng, _base(rng, 400, 1.6, 1.0) * lift)


def year(rng: Any) -> Any:
    """Return a yearly season in weeks of parts that grow."""
    weeks = np.arange(130)
    return rng.poisson(_base(rng, 200, 10, 0.8) * (1 + 0.5 * weeks / 130) * (1 + 0.5 * np.sin(2 * np.pi * weeks / 52)))


KINDS: dict[str, tuple[Callable[[Any], Any], int, int]] = {  # days of a period, horizon
    "intermittent": (intermittent, 1, 14),
    "trend": (trend, 1, 14),
    "week": (week, 1, 14),
    "week and trend": (week_and_trend, 1, 14),
    "launches": (launches, 1, 28),
    "new and ended": (new_and_ended, 1, 14),
    "promotions": (promotions, 1, 14),
    "year": (year, 7, 8),
}


def made(kind: str, seed: int) -> tuple[pd.DataFrame, int]:
    """Return a table of a kind, of six sites of different size, and its horizon."""
    function, days, horizon = KINDS[kind]
    rng = np.random.default_rng(seed)
    values = function(rng)
    sites = rng.choice(6, len(values), p=rng.dirichlet(np.full(6, 0.7)))
    rows, periods = np.nonzero(values)
    frame = {
        "site": [f"s{number}" for number in sites[rows]],
        "part": [f"p{number:04}" for number in rows],
        "date": _START + pd.to_timedelta(periods * days, unit="D"),
        "quantity": values[rows, periods],
    }
    return pd.DataFrame(frame), horizon
