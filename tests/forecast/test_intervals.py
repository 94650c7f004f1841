import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.forecast import metrics
from ipybatch.forecast.candidates import candidates
from ipybatch.forecast.choice import choose, try_models
from ipybatch.forecast.intervals import held, spread, widths_of
from ipybatch.forecast.matrix import series_of
from ipybatch.forecast.settings import Settings
from ipybatch.simulators.demand import demand
from tests.forecast.retail import matrix, series

levels = st.floats(0.05, 0.99)
counts = st.lists(st.integers(0, 20), min_size=1, max_size=200).map(np.array)


def tried(past, *, horizon=7, origins=2, models=("imapa",)):
    made = candidates(Settings(horizon=horizon, models=models))
    trials = try_models(past, made, horizon, origins)
    choice = choose(past, trials, tuple(made), "squared")
    return trials, choice, choice.pick({name: one.predict(past, horizon) for name, one in made.items()})


def intervals(values, *, level=0.8, **asked):
    trials, choice, forecast = tried(series(values), **asked)
    return widths_of(trials, choice, level), forecast


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_intervals_hold_about_the_share_they_say(level):
    """Of demand that goes on as it was: 300 series, the 7 days after; more only where more than that is zero."""
    values = matrix(300, 87)
    widths, forecast = intervals(values[:, :80], level=level)
    lo, hi = widths.around(forecast, values[:, :80])
    often = (values[:, :80] > 0).mean(axis=1) > 0.6
    assert metrics.coverage(values[often, 80:], lo[often], hi[often]) == pytest.approx(level, abs=0.06)
    assert metrics.coverage(values[:, 80:], lo, hi) >= level - 0.03
    assert widths.coverage >= level - 0.03


@pytest.mark.parametrize("model", ["tsb", "ses", "naive"])
def test_no_model_and_no_class_of_demand_is_held_far_less_than_the_level(model):
    """Out of origin, on parts that sell seldom: one width to both sides left out their zeros and held 0.3 of 0.8."""
    frame = demand()
    past = series_of(frame[frame["site"] == "Manado"], "D", start="2025-07-01", end="2025-08-31")
    known = past.until(47)
    trials, choice, forecast = tried(known, horizon=15, models=(model,))
    lo, hi = widths_of(trials, choice, 0.8).around(forecast, known.values)
    actual, sold = past.values[:, 47:], (known.values > 0).sum(axis=1)
    for rows in (sold == 1, sold > 1, sold > 4, metrics.demand_classes(known.values) == 3):
        assert metrics.coverage(actual[rows], lo[rows], hi[rows]) > 0.75


def test_zeros_are_held_where_mostly_nothing_sells():
    """Whatever is left out is left out at the top, for nothing lies below zero."""
    values = (np.random.default_rng(0).random((200, 60)) < 0.1) * 5.0
    widths, forecast = intervals(values)
    lo, _ = widths.around(forecast, values)
    assert not lo.any()


@given(seed=st.integers(0, 50), level=levels)
def test_a_forecast_lies_within_its_interval_and_no_end_is_below_zero(seed, level):
    values = matrix(10, 40, seed=seed)
    widths, forecast = intervals(values, level=level)
    lo, hi = widths.around(forecast, values)
    assert (lo >= 0).all()
    assert ((lo <= forecast) & (forecast <= hi)).all()


@given(seed=st.integers(0, 50), level=levels)
def test_of_what_they_were_made_from_intervals_hold_the_level(seed, level):
    past = series(matrix(30, 40, seed=seed))
    trials, choice, _ = tried(past)
    widths = widths_of(trials, choice, level)
    ends = [widths.around(choice.pick(trial.forecasts), trial.history) for trial in trials]
    inside = [
        (trial.actual >= lo - 1e-9) & (trial.actual <= hi + 1e-9) for trial, (lo, hi) in zip(trials, ends, strict=True)
    ]
    assert np.mean(inside) >= level


@given(seed=st.integers(0, 50), level=levels, more=levels)
def test_a_higher_level_holds_all_that_a_lower_does(seed, level, more):
    values = matrix(20, 60, seed=seed)
    trials, choice, forecast = tried(series(values))
    (lo, hi), (below, above) = (
        widths_of(trials, choice, one).around(forecast, values) for one in sorted((level, more))
    )
    assert ((below <= lo) & (hi <= above)).all()


@given(values=counts, level=levels)
def test_what_is_held_is_the_level_and_one_more(values, level):
    """Conformal: (n + 1) times the level, or all there are; what is equally far out stays or goes together."""
    lo, hi = held(values, level)
    inside = ((values >= lo) & (values <= hi)).sum()
    assert inside >= min(np.floor((len(values) + 1) * level - 1e-6), len(values))


def test_the_outermost_go_first():
    assert held(np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 9]), 0.8) == (0, 2)
    assert held(np.arange(19), 0.8) == (1, 17)
    assert np.isnan(held(np.array([]), 0.8)).all()


def test_one_origin_measures_no_coverage():
    assert np.isnan(intervals(matrix(20, 60), origins=1)[0].coverage)


def test_every_series_has_a_spread():
    assert (spread(np.array([[0.0, 0, 0], [5, 5, 5], [1, 2, 3]])) > 0).all()
    assert (spread(np.zeros((2, 3))) == 1).all()
