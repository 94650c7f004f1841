"""Intervals hold the share they say of demand that grows, has seasons, or moves as a whole."""

import numpy as np
import pytest

from ipybatch.forecast.models.intervals import movement, spread
from ipybatch.forecast.models.matrix import CLASSES, demand_classes
from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.settings import Settings
from tests.forecast.retail import series, table

WEEK = np.array([0.6, 0.8, 1, 1.1, 1.3, 1.6, 0.6])
HORIZON = 14


def demand(seed, *, growth=0.0, is_weekly=True, days=200, count=120):
    """Parts that sell most days, growing by a share over the whole past, with a week of its own shape."""
    rng = np.random.default_rng(seed)
    time = np.arange(days + HORIZON)
    base = np.exp(rng.normal(np.log(8), 0.8, count))[:, None]
    shape = WEEK[time % 7] if is_weekly else np.ones(len(time))
    return rng.poisson(base * (1 + growth * time / days) * shape).astype(float)


def held(values, level=0.8):
    known, came = values[:, :-HORIZON], values[:, -HORIZON:]
    made = run_partition(table(known), Settings(horizon=HORIZON, level=level))
    lo, hi = (made[name].to_numpy().reshape(came.shape) for name in ("lo", "hi"))
    return (came >= lo) & (came <= hi)


@pytest.mark.parametrize(("growth", "is_weekly"), [(1.5, True), (3.0, False), (0.0, True)])
def test_intervals_hold_the_level_with_trend_and_season(growth, is_weekly):
    inside = np.concatenate([held(demand(seed, growth=growth, is_weekly=is_weekly)) for seed in range(2)])
    assert inside.mean() == pytest.approx(0.8, abs=0.05)
    for half in (inside[:, : HORIZON // 2], inside[:, HORIZON // 2 :]):
        assert half.mean() == pytest.approx(0.8, abs=0.07)


def test_each_class_holds_the_level_where_zeros_are_fewer():
    """Where they are more, it holds more."""
    rng = np.random.default_rng(0)
    rate = np.repeat([6.0, 1.0, 6.0, 1.0], 150)[:, None]
    burst = np.where((np.arange(600) >= 300)[:, None], rng.gamma(0.6, 1 / 0.6, (600, 200 + HORIZON)), 1.0)
    values = rng.poisson(rate * burst).astype(float)
    values = values[values[:, :200].any(axis=1)]
    inside, classes = held(values), demand_classes(values[:, :200])
    for number, name in enumerate(CLASSES):
        rows = classes == number
        assert rows.sum() > 20, name
        zeros = (values[rows, 200:] == 0).mean()
        assert 0.75 < inside[rows].mean() < max(0.85, zeros + 0.12), name


@pytest.mark.parametrize("seed", range(2))
def test_a_season_longer_than_the_trials_is_held_too(seed):
    """Two origins see a year at two of its moments: without the earlier ones 0.55 of the values were held."""
    rng = np.random.default_rng(seed)
    weeks = np.arange(130 + 8 * 3)
    base = np.exp(rng.normal(np.log(8), 0.8, 150))[:, None]
    values = rng.poisson(base * (1 + 0.5 * np.sin(2 * np.pi * weeks / 52))).astype(float)
    shares = []
    for end in (130, 138, 146):
        made = run_partition(table(values[:, :end], freq_days=7), Settings(horizon=8, freq="W"))
        lo, hi = (made[name].to_numpy().reshape(150, 8) for name in ("lo", "hi"))
        came = values[:, end : end + 8]
        shares.append(((came >= lo) & (came <= hi)).mean())
    assert np.mean(shares) > 0.7


def test_what_moves_together_is_measured_and_chance_is_not():
    rng = np.random.default_rng(0)
    base = np.full((100, 300), 20.0)
    season = 1 + 0.4 * np.sin(2 * np.pi * np.arange(300) / 90)
    moved = movement(series(rng.poisson(base * season).astype(float)), [272, 244], 28)
    still = movement(series(rng.poisson(base).astype(float)), [272, 244], 28)
    assert moved > 0.5
    assert still < 0.1


@pytest.mark.parametrize("count", [0, 3])
def test_few_series_tell_nothing_of_all(count):
    values = np.random.default_rng(0).poisson(9, (count, 100)).astype(float)
    assert movement(series(values), [86, 72], 14) == 0
    assert movement(series(values), [], 14) == 0


def test_a_spread_does_not_grow_with_a_trend():
    rng = np.random.default_rng(0)
    flat = rng.normal(100, 5, (50, 200))
    assert spread(flat + np.linspace(0, 300, 200)).mean() == pytest.approx(spread(flat).mean(), rel=0.1)
