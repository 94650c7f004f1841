"""One regression over all series, its features, and the seasonality around it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from ipybatch.errors import InputError
from ipybatch.forecast.models import global_model
from ipybatch.forecast.models.global_model import GlobalModel, features
from ipybatch.forecast.models.matrix import Series, bias, rmsse
from ipybatch.forecast.models.series_models import naive, weekday_factors
from tests.forecast.retail import START, matrix, series


def forecast(model, values, horizon=7):
    past = series(values)
    model.fit(past, horizon)
    return model.predict(past, horizon)


def test_it_errs_less_than_naive_on_demand_that_comes_and_goes():
    values = matrix(200, 80)
    past, actual = values[:, :73], values[:, 73:]
    made = forecast(GlobalModel(), past)
    assert rmsse(past, actual, made) < 0.9 * rmsse(past, actual, naive(past, 7, 7))
    assert abs(bias(actual, made)) < 0.4


def test_same_seed_same_forecast():
    values = matrix(20, 40)
    assert np.array_equal(forecast(GlobalModel(seed=1), values), forecast(GlobalModel(seed=1), values))


@pytest.mark.parametrize("days", [1, 2, 5, 9])
def test_a_past_too_short_to_learn_from_gives_its_mean(days):
    values = matrix(5, days, seed=2) + 1
    made = forecast(GlobalModel(), values)
    assert np.isfinite(made).all()
    assert (made >= 0).all()


def test_what_never_sold_is_forecast_to_sell_nothing():
    values = matrix(40)
    values[3] = 0
    assert not forecast(GlobalModel(), values)[3].any()


def test_any_regressor_of_scikit_learn_takes_its_place():
    own = Ridge()
    made = forecast(GlobalModel(own), matrix())
    assert np.isfinite(made).all()
    assert (made >= 0).all()
    assert not hasattr(own, "coef_"), "the user's own object is not trained"


def test_days_of_the_week_shape_the_forecast():
    """Nothing sells on Sundays; eight weeks say so, less a pull towards an average day."""
    values = np.tile([4.0, 4, 4, 4, 4, 4, 0], (30, 8))
    factors = weekday_factors(series(values))
    assert factors[6] < 0.5
    assert factors[0] > 1
    made = forecast(GlobalModel(), values)
    assert (made[:, 6] < 0.5 * made[:, 0]).all()


def test_what_is_known_ahead_moves_the_forecast():
    """Promotions triple what sells; the first day ahead has one, the second has none."""
    rng = np.random.default_rng(0)
    dates = pd.date_range(START, periods=72)
    promoted = np.append(rng.random(70) < 0.3, [True, False]).astype(float)
    values = rng.poisson(4, (80, 70)) * (1 + 2 * promoted[:70])
    known = pd.DataFrame({"date": dates, "promotion": promoted})
    made = forecast(GlobalModel(known=known), values, 2)
    assert made[:, 0].mean() > 2 * made[:, 1].mean()


def test_what_is_known_may_differ_by_part():
    rng = np.random.default_rng(0)
    values = matrix(6, 60) + 2
    known = pd.DataFrame(
        [
            {"part": f"p{part:04}", "date": day, "price": rng.random()}
            for part in range(6)
            for day in pd.date_range(START, periods=64)
        ]
    )
    assert np.isfinite(forecast(GlobalModel(known=known), values, 4)).all()


def test_known_without_a_date_is_refused():
    with pytest.raises(InputError, match="known must have a date"):
        forecast(GlobalModel(known=pd.DataFrame({"price": [1]})), matrix(4, 20))


@given(seed=st.integers(0, 99), factor=st.sampled_from([0.001, 3.0, 1e5]))
def test_features_have_no_scale(seed, factor):
    """The part that sells ten and the part that sells ten thousand look alike."""
    values = matrix(8, 30, seed=seed)
    values = values[values.any(axis=1)]
    small, scale = features(series(values), [10, 20])
    large, larger = features(series(values * factor), [10, 20])
    moved = np.array([np.diff(values[:, :cut], axis=1).any(axis=1) for cut in (10, 20)])
    assert np.allclose(small[moved], large[moved])
    assert np.allclose(scale[moved] * factor, larger[moved])


@given(seed=st.integers(0, 99), cut=st.integers(1, 29))
def test_features_know_nothing_beyond_their_origin(seed, cut):
    values = matrix(8, 30, seed=seed)
    changed = values.copy()
    changed[:, cut:] = 1e6
    before, after = features(series(values), [cut]), features(series(changed), [cut])
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])


def test_features_and_scales_are_finite_where_nothing_sold():
    seen, scale = features(series(np.zeros((3, 10))), [1, 5, 10])
    assert np.isfinite(seen).all()
    assert (scale == 1).all()


@pytest.mark.parametrize("block", [1, 3, 4_000])
def test_features_are_the_same_however_many_series_are_looked_at_together(monkeypatch, block):
    """Also of groups that lie across the rows: two sites that share their parts."""
    rng = np.random.default_rng(5)
    values = rng.poisson(0.4, (10, 30)).astype(float)
    keys = pd.DataFrame({"site": ["a", "b"] * 5, "part": [*"vwxyz", *"vwxyz"]})
    series = Series(keys, values, pd.date_range("2025-01-01", periods=30), "D")
    expected = features(series, [10, 20, 30])
    monkeypatch.setattr(global_model, "BLOCK", block)
    for found, wanted in zip(features(series, [10, 20, 30]), expected, strict=True):
        np.testing.assert_allclose(found, wanted)
    happened = values > 0  # the first speed's ratio of site a, by hand
    level = count = happened[0::2, 0].sum()
    for now in happened[0::2, 1:10].sum(axis=0):
        level, count = level + 0.1 * (now - level), count + now
    assert expected[0][0, 0, -4] == pytest.approx(level / (count / 10))


def test_features_of_series_that_sold_once_are_as_of_each_alone():
    """There are more of them than periods, so that they are looked up, also at origins before they sold."""
    values = np.zeros((70, 20))
    values[np.arange(60), np.arange(60) % 20] = np.arange(1, 61)
    values[60:] = np.random.default_rng(3).poisson(1.0, (10, 20))
    past = series(values)
    cuts, asked = [5, 12, 20], np.arange(3, 70)
    seen, scale = features(past, cuts, asked)
    wanted, unit = features(past, cuts, asked[:15]), features(past, cuts, asked[15:30])  # too few to be looked up
    np.testing.assert_allclose(seen[:, :30], np.concatenate([wanted[0], unit[0]], axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scale[:, :30], np.concatenate([wanted[1], unit[1]], axis=1))
