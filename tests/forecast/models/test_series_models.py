import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.forecast.models.series_models import (
    MODELS,
    imapa,
    moving_average,
    naive,
    sba,
    seasonal_naive,
    ses,
    tsb,
)


def draw(seed, count, length, share, size):
    rng = np.random.default_rng(seed)
    return np.where(rng.random((count, length)) < share, rng.exponential(size, (count, length)), 0.0)


matrices = st.builds(
    draw, st.integers(0, 999), st.integers(1, 6), st.integers(1, 40), st.floats(0, 1), st.sampled_from([0.01, 1, 1e6])
)


def one(*values):
    return np.array([values], dtype=float)


def ses_by_hand(values, speed):
    level = values[0]
    for value in values[1:]:
        level = speed * value + (1 - speed) * level
    return level


def optimized_by_hand(values):
    def squares(speed):
        return sum((values[at] - ses_by_hand(values[:at], speed)) ** 2 for at in range(1, len(values)))

    return ses_by_hand(values, min(np.linspace(0.1, 0.3, 3), key=squares))


@pytest.mark.parametrize("name", MODELS)
@given(values=matrices, horizon=st.integers(1, 9))
def test_a_forecast_is_finite_never_negative_and_within_what_was(name, values, horizon):
    made = MODELS[name](values, horizon, 7)
    assert made.shape == (len(values), horizon)
    assert (made >= 0).all()
    assert (made <= values.max(axis=1, keepdims=True) * (1 + 1e-6) + 1e-6).all()


@pytest.mark.parametrize("name", MODELS)
@given(values=matrices)
def test_a_series_is_forecast_alike_in_any_company(name, values):
    """Partitions may be cut anywhere: no series of a matrix model depends on its neighbours."""
    together = MODELS[name](values, 3, 7)
    alone = np.vstack([MODELS[name](row[None], 3, 7) for row in values])
    assert np.allclose(together, alone, atol=1e-6 * (1 + values.max()))


@pytest.mark.parametrize("name", MODELS)
def test_a_series_that_never_sold_is_forecast_to_sell_nothing(name):
    assert not MODELS[name](np.zeros((2, 20)), 4, 7).any()


def test_naive_repeats_the_last_value_and_seasonal_naive_the_last_season():
    values = one(9, 1, 2, 3, 4, 5, 6, 7)
    assert naive(values, 2, 7).tolist() == [[7, 7]]
    assert seasonal_naive(values, 9, 7).tolist() == [[1, 2, 3, 4, 5, 6, 7, 1, 2]]


def test_moving_average_takes_the_last_season():
    assert moving_average(one(100, 1, 2, 3), 1, 3).tolist() == [[2]]


def test_ses_takes_the_speed_with_the_least_squared_error():
    values = np.random.default_rng(3).poisson(4, 30).astype(float)
    assert ses(values[None], 1, 7)[0, 0] == pytest.approx(optimized_by_hand(values))


def test_tsb_smooths_size_and_probability_apart():
    """By hand at speed 0.1: sizes 10, then 10 + 0.1 (20 - 10) = 11; chances 1, 0.9, 0.91."""
    assert tsb(one(10, 0, 20), 1, 7)[0, 0] == pytest.approx(11 * 0.91)


def test_tsb_fades_where_demand_has_died():
    alive, dead = tsb(np.array([[5.0] * 20 + [0] * 20, [5.0] * 40]), 1, 7)[:, 0][::-1]
    assert dead < 0.2 * alive


def test_sba_is_size_over_interval_less_its_bias():
    """By hand: sizes 10, then 11; intervals 2, then 2 + 0.1 (3 - 2) = 2.1; times 1 - 0.05."""
    assert sba(one(0, 10, 0, 0, 20), 1, 7)[0, 0] == pytest.approx(0.95 * 11 / 2.1)


def test_imapa_is_the_mean_of_ses_over_all_aggregations():
    """As statsforecast has it: buckets are counted back from the end, each level is divided by its periods."""
    values = np.array([0, 4, 0, 0, 6, 0, 0, 5, 0, 0, 0, 9], dtype=float)
    deepest = round(12 / 4)
    levels = []
    for periods in range(1, deepest + 1):
        whole = values[len(values) % periods :].reshape(-1, periods).sum(axis=1)
        levels.append(optimized_by_hand(whole) / periods)
    assert imapa(values[None], 2, 7)[0] == pytest.approx([np.mean(levels)] * 2)


@pytest.mark.parametrize("name", MODELS)
def test_series_that_sold_once_are_forecast_as_each_alone(name):
    """There are more of them than periods, so that they are looked up; nothing else may come of it."""
    values = np.zeros((60, 20))
    values[np.arange(60), np.arange(60) % 20] = np.arange(1, 61)
    values = np.vstack([values, draw(3, 30, 20, 0.4, 5.0), np.zeros((2, 20))])
    together = MODELS[name](values, 3, 7)
    alone = np.vstack([MODELS[name](row[None], 3, 7) for row in values])
    np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-12)
