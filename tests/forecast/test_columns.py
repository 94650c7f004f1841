"""Which column is which: found by name, or given."""

import pytest

from ipybatch import InputError
from ipybatch.forecast.columns import OURS, UnknownColumns, find_columns


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
