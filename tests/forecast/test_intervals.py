import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.forecast import metrics
from ipybatch.forecast.candidates import candidates
from ipybatch.forecast.choice import choose, try_models
from ipybatch.forecast.intervals import spread, widths_of
from ipybatch.forecast.settings import Settings
from tests.forecast.retail import matrix, series


def intervals(values, *, level=0.8, horizon=7, origins=2, models=("imapa",)):
    past = series(values)
    made = candidates(Settings(horizon=horizon, models=models))
    trials = try_models(past, made, horizon, origins)
    choice = choose(past, trials, tuple(made), "squared")
    return widths_of(trials, choice, level), choice.pick(
        {name: one.predict(past, horizon) for name, one in made.items()}
    )


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_intervals_hold_about_the_share_they_say(level):
    """Of demand that goes on as it was: 300 series, the 7 days after."""
    values = matrix(300, 87)
    widths, forecast = intervals(values[:, :80], level=level)
    lo, hi = widths.around(forecast, values[:, :80])
    assert metrics.coverage(values[:, 80:], lo, hi) == pytest.approx(level, abs=0.06)
    assert widths.coverage == pytest.approx(level, abs=0.06)


@given(seed=st.integers(0, 50), level=st.floats(0.1, 0.9))
def test_a_forecast_lies_within_its_interval_and_no_end_is_below_zero(seed, level):
    values = matrix(10, 40, seed=seed)
    widths, forecast = intervals(values, level=level)
    lo, hi = widths.around(forecast, values)
    assert (lo >= 0).all()
    assert ((lo <= forecast) & (forecast <= hi)).all()


def test_a_higher_level_is_never_narrower():
    values = matrix(40, 60)
    narrow, wide = (intervals(values, level=level)[0].by_class for level in (0.5, 0.9))
    assert (narrow <= wide).all()


def test_one_origin_measures_no_coverage():
    assert np.isnan(intervals(matrix(20, 60), origins=1)[0].coverage)


def test_every_series_has_a_spread():
    assert (spread(np.array([[0.0, 0, 0], [5, 5, 5], [1, 2, 3]])) > 0).all()
    assert (spread(np.zeros((2, 3))) == 1).all()
