"""A demand table as a matrix, and the error measures on it."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.errors import InputError
from ipybatch.forecast.data.periods import span
from ipybatch.forecast.models import matrix
from ipybatch.forecast.models.matrix import _REMEMBERED, CLASSES, mean_interval, remembered, series_of

HISTORY = np.array([[1.0, 3.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0]])  # steps of 2; and none
ACTUAL = np.array([[4.0, 2.0], [0.0, 2.0]])
FORECAST = np.array([[2.0, 2.0], [1.0, 1.0]])


def demand(*rows):
    frame = pd.DataFrame(rows, columns=["site", "part", "date", "quantity"])
    return frame.assign(date=pd.to_datetime(frame["date"]))


def test_zeros_are_filled_from_the_tables_first_date():
    series = series_of(demand(("a", "x", "2025-07-01", 5), ("b", "y", "2025-07-04", 2)), "D")
    assert series.keys.to_numpy().tolist() == [["a", "x"], ["b", "y"]]
    assert series.values.tolist() == [[5, 0, 0, 0], [0, 0, 0, 2]]


def test_a_part_of_a_table_has_the_periods_of_the_whole():
    part = series_of(demand(("a", "x", "2025-07-03", 5)), "D", start="2025-07-01", end="2025-07-05")
    assert part.values.tolist() == [[0, 0, 5, 0, 0]]
    assert part.ahead(2).tolist() == [pd.Timestamp("2025-07-06"), pd.Timestamp("2025-07-07")]


def test_a_week_is_the_seven_days_up_to_its_date():
    """16 days are two whole weeks; the first two days belong to none."""
    rows = [("a", "x", day, 1) for day in pd.date_range("2025-07-01", periods=16)]
    series = series_of(demand(*rows), "W")
    assert series.values.tolist() == [[7, 7]]
    assert series.dates[-1] == pd.Timestamp("2025-07-16")
    assert series.ahead(1)[0] == pd.Timestamp("2025-07-23")


def test_weekly_dates_stand_for_whole_weeks():
    rows = [("a", "x", day, 3) for day in pd.date_range("2025-07-06", periods=4, freq="7D")]
    assert series_of(demand(*rows), "W").values.tolist() == [[3, 3, 3, 3]]


def test_a_month_that_the_table_ends_within_is_left_out():
    daily = [("a", "x", day, 1) for day in pd.date_range("2025-06-01", "2025-08-10")]
    series = series_of(demand(*daily), "M")
    assert series.values.tolist() == [[30, 31]]
    assert series.ahead(1)[0] == pd.Timestamp("2025-08-01")
    monthly = [("a", "x", day, 2) for day in pd.date_range("2025-06-01", periods=3, freq="MS")]
    assert series_of(demand(*monthly), "M").values.tolist() == [[2, 2, 2]]


def test_less_than_a_period_is_refused():
    rows = [("a", "x", "2025-07-01", 1), ("a", "x", "2025-07-02", 1)]
    with pytest.raises(InputError, match="date must span at least one whole period of freq 'W'"):
        series_of(demand(*rows), "W")


@given(
    rows=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 90), st.integers(0, 99)), min_size=1
    ),
    freq=st.sampled_from("DWM"),
)
def test_every_row_within_a_period_counts_once(rows, freq):
    """Sums are kept, and a partition holds exactly the rows of the matrix of the whole table."""
    begin = pd.Timestamp("2025-06-15")
    frame = demand(*((site, part, begin + pd.Timedelta(days=day), many) for site, part, day, many in rows))
    start, end = (f"{day:%Y-%m-%d}" for day in span(frame["date"], freq))
    try:
        whole = series_of(frame, freq, start=start, end=end)
    except InputError:
        return
    if freq == "D":
        assert whole.values.sum() == frame["quantity"].sum()
    for site in frame["site"].unique():
        part = series_of(frame[frame["site"] == site], freq, start=start, end=end)
        assert np.array_equal(part.values, whole.values[(whole.keys["site"] == site).to_numpy()])


def test_the_mean_interval_counts_up_to_the_last_demand():
    assert mean_interval(np.array([[0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])).tolist() == [2, 1, 1]


def test_scaled_errors_are_in_steps_of_the_history():
    """By hand: errors 2 and 0, so sqrt(4 / 2 / 4) and 1 / 2; what never moved is left out."""
    assert matrix.rmsse(HISTORY, ACTUAL, FORECAST) == pytest.approx(math.sqrt(0.5))
    assert matrix.mase(HISTORY, ACTUAL, FORECAST) == pytest.approx(0.5)


def test_pooled_measures_are_over_everything():
    assert matrix.wape(ACTUAL, FORECAST) == pytest.approx(4 / 8)
    assert matrix.bias(ACTUAL, FORECAST) == pytest.approx(-2 / 8)
    assert matrix.pooled_rmse(ACTUAL, FORECAST) == pytest.approx(math.sqrt(6 / 4))
    assert matrix.coverage(ACTUAL, FORECAST - 1, FORECAST + 1) == pytest.approx(3 / 4)


def test_nothing_to_measure_by_is_nan():
    nothing = np.zeros((2, 3))
    assert math.isnan(matrix.rmsse(nothing, nothing, nothing))
    assert math.isnan(matrix.wape(nothing, nothing))
    assert math.isnan(matrix.bias(nothing, nothing))


def test_nothing_ever_has_a_bias_of_minus_one():
    """Why bias stands beside the rest: of lumpy demand, no other measure sees it."""
    assert matrix.bias(ACTUAL, np.zeros_like(ACTUAL)) == -1


def test_demand_is_classed_by_how_often_and_how_evenly_it_sells():
    smooth, intermittent = [5, 6, 5, 6, 5, 6, 5, 6], [5, 0, 0, 5, 0, 0, 0, 6]
    erratic, lumpy = [1, 40, 2, 1, 50, 1, 2, 1], [1, 0, 0, 60, 0, 0, 0, 1]
    numbers = matrix.demand_classes(np.array([smooth, intermittent, erratic, lumpy], dtype=float))
    assert [CLASSES[number] for number in numbers] == ["smooth", "intermittent", "erratic", "lumpy"]


def test_what_is_remembered_of_a_matrix_goes_with_it():
    """One model after another asks the same of a matrix; another one, were it in its place, is looked at anew."""
    asked = []

    def total(values):
        asked.append(values.shape)
        return values.sum()

    one, other = np.ones((2, 3)), np.ones((3, 3))
    assert [remembered(total, values) for values in (one, one, other, one)] == [6, 6, 9, 6]
    assert asked == [(2, 3), (3, 3)]
    assert remembered(total, one, "again") == 6
    before = len(_REMEMBERED)
    del one, other
    assert len(_REMEMBERED) == before - 2
