"""Periods: how far apart dates lie, and which lie far from all others."""

import numpy as np
import pandas as pd
import pytest

from ipybatch import InputError
from ipybatch.forecast.data.periods import check_freq, far_days, infer_freq, told_gap


def test_an_unknown_frequency_is_refused():
    check_freq(None)
    check_freq("W")
    with pytest.raises(InputError, match=r"freq must be one of 'D' \(daily\), .* got 'h'"):
        check_freq("h")


@pytest.mark.parametrize(
    ("dates", "freq"),
    [
        (pd.date_range("2025-07-01", periods=60), "D"),
        (pd.date_range("2025-07-06", periods=9, freq="7D"), "W"),
        (pd.date_range("2025-01-01", periods=9, freq="MS"), "M"),
        (pd.date_range("2025-01-31", periods=9, freq="ME"), "M"),
        (pd.to_datetime(["2025-07-01"]), "D"),
        (pd.to_datetime(["2025-07-01", "2025-07-03", "2025-07-10"]), "D"),
    ],
)
def test_the_length_of_a_period_is_what_the_dates_allow(dates, freq):
    assert infer_freq(dates) == freq


YEARS = np.arange("2015-01", "2025-01", dtype="datetime64[M]").astype("datetime64[D]")
MONTHS = np.arange("2025-07-01", "2025-08-30", dtype="datetime64[D]").repeat(5)


@pytest.mark.parametrize(
    "wrong",
    [
        ["2052-08-01"],
        ["1900-08-01"],
        ["2015-07-03"],
        ["2026-07-20"],
        ["1900-01-02", "2052-08-01"],
        ["1900-01-01"] * 90,
        ["2052-08-01", "2052-08-02", "2052-08-02"],
    ],
)
def test_a_mistyped_year_lies_far_from_all_others(wrong):
    """One row, one in a hundred, or a day that stands for no date."""
    is_far = far_days(np.append(MONTHS, np.array(wrong, dtype="datetime64[D]")))
    assert is_far.tolist() == [False] * len(MONTHS) + [True] * len(wrong)


@pytest.mark.parametrize(
    "days",
    [
        MONTHS,
        np.append(MONTHS, MONTHS - np.timedelta64(4000, "D")),  # years without data, between data of many rows
        np.append(MONTHS, np.array(["2026-03-01"], dtype="datetime64[D]")),  # half a year later
        np.append(YEARS, np.datetime64("2028-01-01")),  # monthly, and three years later
        np.array(["2001-01-01", "2011-01-01", "2025-01-01"], dtype="datetime64[D]"),
        np.arange("2001", "2020", dtype="datetime64[Y]").astype("datetime64[D]"),
        MONTHS[:0],
        MONTHS[:1],
    ],
)
def test_a_gap_alone_is_no_mistake(days):
    assert not far_days(days).any()


def test_a_row_years_after_daily_data_is_a_mistake_however_long_these_are():
    """Ten years without a gap of a week, and then one row two years later."""
    days = np.append(np.arange("2013-01-01", "2023-01-01", dtype="datetime64[D]"), np.datetime64("2025-01-01"))
    assert far_days(days).tolist() == [False] * (len(days) - 1) + [True]


def test_a_span_that_is_mostly_empty_is_told():
    """Its zeros are part of every series."""
    assert told_gap(np.append(MONTHS, MONTHS - np.timedelta64(4000, "D")), "D") == (
        "no row lies between 2014-09-16 and 2025-07-01: all days between count as zero"
    )
    assert told_gap(MONTHS, "D") == ""
    assert "no row lies" not in told_gap(np.arange("2001", "2020", dtype="datetime64[Y]").astype("datetime64[D]"), "M")
    assert told_gap(MONTHS[:1], "D") == ""


@pytest.mark.parametrize("wrong", ["1900-07-01", "2052-07-01"])
def test_one_of_a_few_days_decades_away_is_a_mistake(wrong):
    days = np.array(["2025-05-01", "2025-06-01", "2025-07-01", wrong, wrong], dtype="datetime64[D]")
    assert far_days(days).tolist() == [False, False, False, True, True]


def test_a_few_days_of_which_one_is_years_old_are_no_mistake():
    days = np.array(["2019-05-01", "2025-06-01", "2025-07-01", "2025-08-01"], dtype="datetime64[D]")
    assert not far_days(days).any()
    assert not far_days(np.array(["1990-01-01", "2025-06-01", "2025-07-01"], dtype="datetime64[D]")).any()


@pytest.mark.parametrize(("freq", "step"), [("M", 3), ("D", 12)])
def test_dates_of_quarters_and_years_are_told(freq, step):
    """No such periods are forecast: the months between would be zeros without a word."""
    days = pd.date_range("2020-01-01", periods=8, freq=f"{step}MS")
    assert infer_freq(days) == freq
    assert "no two dates lie nearer" in told_gap(days, freq)
    assert told_gap(pd.date_range("2020-01-01", periods=8, freq="MS"), "M") == ""
