"""A table as it was known on days of its past."""

import numpy as np
import pandas as pd
import pytest

from ipybatch.errors import InputError
from ipybatch.forecast.data.table import read_table
from ipybatch.forecast.origins import at_origin, names_there, numbered, origins_of, until
from ipybatch.forecast.training import prepare


def demand(dates, sites=("a", "b")):
    return pd.DataFrame(
        [(site, "p", day, 1) for site in sites for day in dates], columns=["site", "part", "date", "qty"]
    )


def text(days):
    return [tuple(f"{day:%Y-%m-%d}" for day in pair) for pair in days]


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (pd.date_range("2025-07-01", periods=20), [("2025-07-14", "2025-07-17"), ("2025-07-17", "2025-07-20")]),
        (
            pd.date_range("2025-01-05", periods=20, freq="7D"),
            [("2025-04-06", "2025-04-27"), ("2025-04-27", "2025-05-18")],
        ),
        (
            pd.date_range("2024-01-01", periods=20, freq="MS"),
            [("2025-02-28", "2025-05-31"), ("2025-05-31", "2025-08-31")],
        ),
        (
            pd.date_range("2024-01-31", periods=20, freq="ME"),
            [("2025-02-28", "2025-05-31"), ("2025-05-31", "2025-08-31")],
        ),
    ],
)
def test_each_is_known_up_to_a_last_day_and_forecast_up_to_the_next(dates, expected):
    """Months are known up to their ends, however they are written."""
    assert text(origins_of(read_table(demand(dates)), 3, 2)) == expected


def test_too_few_periods_are_refused():
    with pytest.raises(InputError, match="must be at most 8 of the table's 10 periods, got 3 x 3"):
        origins_of(read_table(demand(pd.date_range("2025-07-01", periods=10))), 3, 3)


def test_partitions_at_an_origin_have_its_past_and_what_came_after():
    table = read_table(demand(pd.date_range("2025-07-01", periods=10)))
    cut = {"by": "site", "max_rows": 9, "max_partitions": 9, "split_series": False, "sites": None, "parts": None}
    items = []
    for day, end in origins_of(table, 2, 2):
        prepared = prepare(until(table, day), horizon=2, models=["ses"], **cut)
        items += at_origin(prepared, table, day, end)
    items = numbered(items)
    assert [one.number for one in items] == [1, 2, 3, 4]
    assert [(one.name, one.partition, one.rows) for one in items][:2] == [
        ("a, 2025-07-08", "a", 8),
        ("b, 2025-07-08", "b", 8),
    ]
    last = items[0]
    assert f"{last.frame['date'].max():%Y-%m-%d}" == last.settings.end == "2025-07-08"
    assert [f"{day:%Y-%m-%d}" for day in last.later.rows["date"]] == ["2025-07-09", "2025-07-10"]
    assert set(last.later.rows["site"]) == {"a"}
    assert (last.later.end, last.later.unscored) == ("2025-07-10", None)


def test_names_that_come_later_are_not_asked_for_at_an_origin():
    days = pd.date_range("2025-07-01", periods=9)
    known = until(read_table(pd.concat([demand(days), demand(days[7:], ["later"])])), days[4])
    assert names_there("site", known, ["b", "later"]) == ["b"]
    assert names_there("site", known, ["a\u00a0", " b"]) == ["a", "b"]  # as a forecast reads them
    assert names_there("site", known, "a") == ["a"]
    assert names_there("part", known, None) is None
    with pytest.raises(InputError, match=r"sites must have demand by each origin, got later, .* by 2025-07-05: ask"):
        names_there("site", known, ["later"])


@pytest.mark.parametrize("seed", range(5))
def test_what_is_returned_after_an_origin_is_not_known_there(seed):
    rng = np.random.default_rng(seed)
    days = pd.date_range("2025-07-01", periods=30)
    columns = {"site": "a", "part": rng.choice(["p", "q"], 200), "date": rng.choice(days, 200)}
    frame = pd.DataFrame({**columns, "qty": rng.integers(-4, 7, 200)})
    frame = pd.concat([demand([days[0]]).query("site == 'a'"), frame], ignore_index=True)
    whole = read_table(frame, repair={"net_returns"})
    for day in days[4::5]:
        known = until(whole, day).frame
        expected = read_table(frame[frame["date"] <= day], repair={"net_returns"}).frame
        pd.testing.assert_frame_equal(known.astype({"part": str}), expected.astype({"part": str}))
    pd.testing.assert_frame_equal(until(whole, days[-1]).frame, whole.frame)
