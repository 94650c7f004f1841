"""The simulated demand table: the described one, seeded, and larger."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.simulators.demand import DAYS, SITE_ROWS, demand, site_name


def test_the_default_is_the_described_table():
    """11,919 rows, 13 sites (3,336, 2,291, 1,295, 1,163, ...), 2,070 parts, in July and August."""
    table = demand()
    assert list(table.columns) == ["site", "part", "date", "quantity"]
    assert len(table) == 11_919
    assert table["part"].nunique() == 2_070
    assert tuple(table["site"].value_counts()) == SITE_ROWS
    assert (str(table["date"].min().date()), str(table["date"].max().date())) == ("2025-07-01", "2025-08-31")
    assert table["site"].value_counts().index[2] == "Sofifi"


def test_it_is_heavy_tailed():
    """Most days ask for one or two, a few for hundreds; the median series has one row, the busiest every other day."""
    table = demand()
    lengths = table.groupby(["site", "part"]).size()
    assert lengths.median() == 1
    assert lengths.max() > 30
    assert table["quantity"].median() == 1
    assert table["quantity"].max() > 100


def test_same_seed_same_table():
    assert demand(500, seed=7).equals(demand(500, seed=7))
    assert not demand(500, seed=7).equals(demand(500, seed=8))


@given(rows=st.integers(20, 3000), sites=st.integers(1, 20), days=st.integers(20, 90), seed=st.integers(0, 2**32))
def test_any_size_keeps_what_such_a_table_is(rows, sites, days, seed):
    """As many rows, sites and parts as asked for; a day of a series comes once, and is wanted at least once."""
    parts = max(1, rows // 4)
    table = demand(rows, sites, parts=parts, days=days, seed=seed)
    assert len(table) == rows
    assert set(table["site"]) == {site_name(number) for number in range(sites)}
    assert table["part"].nunique() == parts
    assert not table.duplicated(["site", "part", "date"]).any()
    assert (table["quantity"] >= 1).all()
    assert (table["date"] - table["date"].min()).dt.days.max() < days
    assert table.equals(table.sort_values(["site", "part", "date"], key=_as_numbers, kind="stable"))


def _as_numbers(column):
    numbers = {site_name(number): number for number in range(20)}
    return column.map(numbers) if column.name == "site" else column


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": 3}, r"rows must be >= sites \(13\), got 3"),
        ({"sites": 0}, "sites must be >= 1, got 0"),
        ({"parts": 0}, r"parts must be in \[1, rows \(11919\)\], got 0"),
        ({"days": 0}, "days must be >= 1, got 0"),
        ({"parts": 10}, "rows must be <= 1107 for 10 parts, got 11919"),
    ],
)
def test_a_table_that_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        demand(**given)


def test_the_last_day_is_within_the_days():
    assert len(demand(2000)["date"].unique()) <= DAYS
