"""Repairs: what is asked for is done, counted and told, and nothing else is."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.forecast.data.problems import BadRows
from ipybatch.forecast.data.repairs import REPAIRS, check_repair, net_returns
from ipybatch.forecast.data.table import read_table


def sales(*quantities, site="A", part="P1"):
    """A row a day."""
    days = pd.date_range("2025-07-01", periods=len(quantities))
    return pd.DataFrame({"site": site, "part": part, "date": days, "quantity": quantities})


@pytest.mark.parametrize(
    ("asked", "read"), [(None, set()), ((), set()), ("net_returns", {"net_returns"}), (REPAIRS, {*REPAIRS})]
)
def test_repairs_are_a_set_of_names(asked, read):
    assert check_repair(asked) == read


@pytest.mark.parametrize("asked", ["drop", {"drop_bad_rows", "clean"}, 5, [None]])
def test_an_unknown_repair_is_refused_with_the_list(asked):
    with pytest.raises(
        InputError, match="repair must be a set of some of 'drop_bad_rows', 'merge_near_duplicates', 'net"
    ):
        read_table(sales(1), repair=asked)


@pytest.mark.parametrize(
    ("sold", "netted", "left"),
    [
        ((5, -2), (3, 0), 0),
        ((5, 4, -2), (5, 2, 0), 0),
        ((5, 4, -6), (3, 0, 0), 0),
        ((5, 4, -6, 7, -1), (3, 0, 0, 6, 0), 0),
        ((-2, 5), (0, 5), 2),
        ((1, -3, 5), (0, 0, 5), 2),
        ((1, 0, -1), (0, 0, 0), 0),
        ((0.5, -0.25), (0.25, 0), 0),
    ],
)
def test_a_return_takes_back_what_was_sold_last(sold, netted, left):
    """Not what is sold later, and never more than was sold: what is left over is told."""
    table = read_table(sales(*sold), repair={"net_returns"})
    assert table.frame["quantity"].tolist() == list(netted)
    assert table.problems == ()
    assert f"{sum(one < 0 for one in sold)} return" in "\n".join(table.notes)
    assert (f"more than was sold before: {left:g} in all" in "\n".join(table.notes)) is (left > 0)


def test_a_return_of_the_same_day_is_taken_off_that_day():
    table = pd.concat([sales(9, 4), sales(-3).assign(date=pd.Timestamp("2025-07-02"))])
    assert read_table(table, repair={"net_returns"}).frame["quantity"].tolist() == [9, 1]


def test_a_return_is_no_other_series_s():
    table = pd.concat([sales(9, 9, part="P1"), sales(9, -4, part="P2"), sales(9, 9, site="B", part="P2")])
    read = read_table(table, repair={"net_returns"}).frame
    assert read["quantity"].tolist() == [9, 9, 5, 0, 9, 9]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(-9, 9)), max_size=30))
def test_netting_keeps_every_piece(rows):
    """Nothing is negative, no sale grows, and the sales lose what the returns were, but for what is left of them."""
    series, days, quantities = (np.array([row[at] for row in rows], dtype=int) for at in range(3))
    quantities = quantities.astype(float)
    netted, left, _ = net_returns(series, days, quantities)
    assert (netted >= 0).all()
    assert (netted <= np.maximum(quantities, 0)).all()
    assert netted.sum() - left.sum() == quantities.sum()


def spoilt():
    """60 rows, of which 5 cannot be used."""
    frame = pd.concat([sales(*[1.0] * 30), sales(*[2.0] * 30, site="B")], ignore_index=True).astype({"date": str})
    frame.loc[:2, "quantity"] = -3
    frame.loc[40, "date"] = "31/13/2025"
    frame.loc[50, "site"] = None
    return frame


def test_all_bad_rows_are_told_by_kind_and_column_with_the_first_of_each():
    (note,) = [note for note in read_table(spoilt()).notes if "cannot be used" in note]
    assert note == (
        "5 rows cannot be used: Negative quantity in 3 rows of site A: row 0 (-3.0), row 1 (-3.0), row 2 (-3.0);"
        " Invalid date format '31/13/2025' in row 40; Missing site in row 50: correct them, or drop them with"
        " repair={'drop_bad_rows'}, or net returns with repair={'net_returns'}"
    )


@pytest.mark.parametrize(
    ("repair", "dropped", "total"),
    [({"drop_bad_rows"}, 5, 83.0), ({"drop_bad_rows", "net_returns"}, 2, 83.0)],
)
def test_bad_rows_are_dropped_and_that_is_told(repair, dropped, total):
    """What is netted before is no bad row any more."""
    table = read_table(spoilt(), repair=repair)
    assert table.problems == ()
    assert {problem.row for problem in table.dropped} == ({0, 1, 2, 40, 50} if dropped == 5 else {40, 50})
    assert f"{dropped} rows dropped: " in "\n".join(table.notes)
    assert table.frame["quantity"].sum() == total


def test_a_table_of_bad_rows_alone_is_refused_with_all_of_them():
    with pytest.raises(BadRows, match="of which none can: Negative quantity in 2 rows") as told:
        read_table(sales(-1, -2), repair={"drop_bad_rows"})
    assert told.value.rows.to_dict("list") == {
        "row": [0, 1],
        "column": ["quantity"] * 2,
        "value": ["-1", "-2"],
        "reason": ["Negative quantity -1", "Negative quantity -2"],
        "site": ["A", "A"],
        "part": ["P1", "P1"],
    }


@pytest.mark.parametrize("quantity", [1e200, 1e16, 1.7e308])
def test_a_quantity_out_of_all_reason_is_no_quantity(quantity):
    """Sums of such overflow: it is told before anything is trained."""
    (problem,) = read_table(sales(1.0, quantity, 2.0)).problems
    assert str(problem) == f"Quantity {quantity} out of all reason (above 1e+15) in row 1"


def test_one_quantity_a_million_times_the_others_is_told():
    """It may be right: it is used."""
    table = read_table(sales(*[3.0] * 20, 5_000_000.0, *[2.0] * 20))
    (note,) = [note for note in table.notes if "a million times" in note]
    assert "5,000,000 in row 20, where no other is above 3" in note
    assert table.frame["quantity"].max() == 5e6
    assert not [note for note in read_table(sales(*[1.0, 2e6] * 20)).notes if "a million times" in note]
