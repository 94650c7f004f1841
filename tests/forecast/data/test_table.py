"""A demand table is cleaned, and everything wrong with it is told by column, row and value."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.forecast.data.table import read_table
from ipybatch.simulators import demand


def rows(*cells, columns=("site", "part", "date", "quantity")):
    """A frame of rows; "2025-07-01" stands for a day."""
    return pd.DataFrame(cells, columns=list(columns))


GOOD = ("Sofifi", "P1", "2025-07-01", 1)
GOOD_COLUMNS = ["site", "part", "date", "quantity"]


def test_a_sound_table_is_as_it_was():
    table = read_table(demand())
    frame = demand().sort_values(["site", "part", "date"], ignore_index=True)
    assert table.frame[["site", "part", "date"]].astype(str).equals(frame[["site", "part", "date"]].astype(str))
    assert (table.frame["quantity"] == frame["quantity"]).all()
    assert (table.problems, table.notes, table.freq, table.rows) == ((), (), "D", 11_919)
    assert (str(table.start.date()), str(table.end.date())) == ("2025-07-01", "2025-08-31")


def test_a_table_is_read_once():
    table = read_table(demand(50))
    assert read_table(table) is table


def test_rows_that_repeat_a_day_are_summed_and_said():
    table = read_table(rows(GOOD, GOOD, ("Sofifi", "P1", "2025-07-02", 5), (" Sofifi", "P1", "2025-07-01 08:00", 3)))
    assert table.frame["quantity"].tolist() == [5.0, 5.0]
    assert "2 of 4 rows repeat a site, part and date: their quantities were summed" in table.notes
    assert "1 site names had blanks around them: these were taken away" in table.notes


def test_a_site_with_one_row_is_told():
    table = read_table(rows(GOOD, ("Ambon", "P1", "2025-07-02", 5), ("Sofifi", "P2", "2025-07-02", 5)))
    assert table.notes == ("1 site has one row only, and forecasts that rest on little: Ambon (row 1)",)


def test_other_columns_stay_with_their_rows():
    frame = rows(("b", 2, "2025-07-01", 1, "B"), ("a", 1, "2025-07-01", 2, "A"), columns=[*GOOD_COLUMNS, "region"])
    assert read_table(frame).frame["region"].tolist() == ["A", "B"]


def test_a_column_in_the_way_is_left_out_and_said():
    frame = rows(("a", 1, "2025-07-01", 2, 99), columns=["site", "part", "ds", "y", "quantity"])
    table = read_table(frame, columns={"quantity": "y", "date": "ds"})
    assert table.frame["quantity"].tolist() == [2.0]
    assert "the column 'quantity' was left out: columns= names another one" in table.notes


def test_the_frequency_is_given_or_inferred():
    weekly = rows(*(("a", 1, day, 1) for day in ("2025-07-07", "2025-07-14", "2025-07-28")))
    assert read_table(weekly).freq == "W"
    assert read_table(weekly, freq="D").freq == "D"
    with pytest.raises(InputError, match="freq must be one of"):
        read_table(weekly, freq="Q")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (rows(), "demand must have rows, got none"),
        (
            rows(("a", 1, "soon", 1), ("a", 1, "later", 1)),
            "must have dates that can be read in 'date', got 'soon'",
        ),
    ],
)
def test_a_table_without_usable_rows_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        read_table(given)


cells = st.one_of(st.none(), st.floats(), st.integers(-5, 5), st.text(max_size=4), st.sampled_from(["2025-07-01", "x"]))


@given(st.lists(st.tuples(cells, cells, cells, cells), min_size=1, max_size=12))
def test_every_row_is_used_or_told(made):
    """Whatever stands in a cell: nothing is lost without a word, and nothing unsound is let through."""
    frame = rows(GOOD, *made).astype(object)
    table = read_table(frame)
    told = {problem.row for problem in table.problems}
    used = pd.to_numeric(frame["quantity"].drop(index=sorted(told)))
    assert table.frame["quantity"].sum() == pytest.approx(float(used.sum()))
    assert np.isfinite(table.frame["quantity"]).all()
    assert table.frame.notna().all(axis=None)
    assert not table.frame.duplicated(["site", "part", "date"]).any()


def test_rows_are_sorted_also_where_their_numbers_would_be_too_large(monkeypatch):
    """Site, part and day are sorted as one number; millions of sites with millions of parts do not fit in one."""
    shuffled = demand(300).sample(frac=1, random_state=2)
    expected = read_table(shuffled).frame
    assert not expected.duplicated(["site", "part", "date"]).any()
    assert expected.equals(expected.sort_values(["site", "part", "date"], ignore_index=True))
    monkeypatch.setattr("ipybatch.forecast.data.table._LARGEST_NUMBER", 1000)
    assert read_table(shuffled).frame.equals(expected)
