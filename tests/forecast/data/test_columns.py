"""Which column is which: found by name, or given. Dates: read in one way for the whole column, never guessed."""

import datetime as dt

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.forecast.data.columns import OURS, UnknownColumns, check_freq, find_columns, infer_freq, read_dates

DAY = pd.Timestamp("2025-07-31")


@pytest.mark.parametrize(
    "names",
    [
        ["site", "part", "date", "quantity"],
        ["Site", "Part No.", "Order Date", "QTY"],
        ["qty", "DS", "SKU", "Warehouse", "price"],
        ["lokasi", "kode_barang", "tanggal", "jumlah"],
    ],
)
def test_columns_are_found_by_their_usual_names(names):
    """Whatever their case, blanks and dots, and in whatever order."""
    found = find_columns(names)
    assert list(found) == list(OURS)
    assert set(found.values()) <= set(names)
    assert len(set(found.values())) == 4


def test_the_commonest_name_wins():
    assert find_columns(["country", "site", "part", "date", "quantity"])["site"] == "site"


def test_a_given_column_wins_over_a_found_one():
    names = ["site", "region", "part", "date", "quantity"]
    assert find_columns(names, {"site": "region"})["site"] == "region"


def test_a_column_is_not_taken_twice():
    """One that is given as the part is no longer found as the site."""
    found = find_columns(["store", "site", "date", "qty"], {"part": "site"})
    assert (found["site"], found["part"]) == ("store", "site")


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (
            ["part", "date", "qty"],
            None,
            r"must have a 'site' column, got 'part', 'date', 'qty': .*\{\"site\": \.\.\.\}",
        ),
        (["a"], {"site": "b"}, r"columns\['site'\] must be a column of demand, one of 'a', got 'b'"),
        (["a"], {"where": "a"}, "columns must name 'site', 'part', 'date', 'quantity', got 'where'"),
        (["a"], {"site": "a", "part": "a"}, "columns must name a column once"),
        (["site", "part", "date", "qty", "qty"], None, "one column 'qty', got 2"),
        ([], None, "got none"),
    ],
)
def test_what_is_missing_is_told(names, given, message):
    with pytest.raises(InputError, match=message):
        find_columns(names, given)


def test_a_wide_table_is_not_listed_whole():
    with pytest.raises(InputError, match="and 188 more"):
        find_columns([f"c{number}" for number in range(200)])


def test_what_was_not_found_can_be_asked_for():
    """The error has what a form needs: all columns, and those that were found."""
    with pytest.raises(UnknownColumns) as told:
        find_columns(["wo", "sku", "date", "n"])
    assert told.value.names == ["wo", "sku", "date", "n"]
    assert told.value.found == {"site": None, "part": "sku", "date": "date", "quantity": None}


@pytest.mark.parametrize(
    "written",
    [
        "2025-07-31", "2025-07-31T23:59:59", "2025/07/31", "2025.07.31", "31/07/2025", "07/31/2025", "31-07-2025",
        "31.07.2025", "7/31/2025 8:26", "31 Jul 2025", "Jul 31, 2025", "July 31, 2025", "31/7/25", " 2025-07-31 ",
        "2025-07-31 23:59:59+09:00", "20250731", 20250731, 20250731.0, dt.date(2025, 7, 31),
        dt.datetime(2025, 7, 31, 12), pd.Timestamp("2025-07-31 18:00"), pd.Period("2025-07-31", "D"),
    ],
)  # fmt: skip
def test_a_day_is_read_however_it_is_written(written):
    """With a time or without, as text, number, or an object of datetime."""
    assert read_dates(pd.Series([written]), "date").tolist() == [DAY]


def test_a_zone_does_not_move_the_day():
    dates = pd.Series(pd.to_datetime(["2025-07-31 23:30"])).dt.tz_localize("Asia/Jayapura")
    assert read_dates(dates, "date").tolist() == [DAY]


@pytest.mark.parametrize("wrong", ["31/13/2025", "", None, "soon", "2025-02-30", "0025-07-01", "2999-01-01", 45870])
def test_what_is_no_day_is_missing(wrong):
    """The others of the column are read all the same."""
    dates = pd.Series(["2025-07-30", wrong, "2025-07-31"], dtype=object)
    assert read_dates(dates, "date").isna().tolist() == [False, True, False]


def test_one_day_above_twelve_tells_day_from_month():
    assert read_dates(pd.Series(["03/04/2025", "31/07/2025"]), "d").tolist() == [pd.Timestamp("2025-04-03"), DAY]
    assert read_dates(pd.Series(["03/04/2025", "07/31/2025"]), "d").tolist() == [pd.Timestamp("2025-03-04"), DAY]


def test_day_and_month_are_not_guessed():
    """Where both fit, a whole year of demand could lie in the wrong months: the user is asked."""
    with pytest.raises(InputError, match=r"ordered must say which is the day .* '03/04/2025'.*dayfirst=True"):
        read_dates(pd.Series(["01/01/2025", "03/04/2025"]), "ordered")


def test_what_reads_alike_either_way_is_no_question():
    assert read_dates(pd.Series(["01/01/2025", "02/02/2025"]), "d").notna().all()


@given(st.lists(st.dates(dt.date(1900, 1, 1), dt.date(2199, 12, 31)), max_size=20))
def test_dates_come_back_as_they_were(days):
    """Any list of days, as text, is read as these days."""
    written = pd.Series([day.isoformat() for day in days], dtype=object)
    assert [day.date() for day in read_dates(written, "date")] == days


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
