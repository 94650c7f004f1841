"""What is known ahead is checked before anything is trained: names, dates, numbers, every date of the horizon."""

import re

import numpy as np
import pandas as pd
import pytest

from ipybatch import InputError
from ipybatch.forecast import evaluate, forecast

DAYS = pd.date_range("2025-07-01", periods=60)
AHEAD = pd.date_range("2025-07-01", periods=70)


def demand(sites=("1", "2"), dates=DAYS):
    """One part that sells each period at each site."""
    rows = [(site, "P", day, 1 + at % 5) for site in sites for at, day in enumerate(dates)]
    return pd.DataFrame(rows, columns=["site", "part", "date", "quantity"])


def prices(sites=("1", "2"), dates=AHEAD):
    values = np.arange(len(sites) * len(dates)) % 7 + 0.5
    return pd.DataFrame({"site": np.repeat(sites, len(dates)), "date": [*dates] * len(sites), "price": values})


def checked(known, table=None, horizon=5, **given):
    """What the models take of it, and the notes of the session."""
    session = forecast(
        demand() if table is None else table, horizon=horizon, known=known, name="known", fresh=True, **given
    )
    return session.workload._settings.known, session.snapshot.notes


SAME = {
    "as it is": lambda frame: frame,
    "sites as numbers": lambda frame: frame.assign(site=frame["site"].astype(int)),
    "sites as floats": lambda frame: frame.assign(site=frame["site"].astype(float)),
    "blanks around sites": lambda frame: frame.assign(site=" " + frame["site"] + " "),
    "sites as categories": lambda frame: frame.astype({"site": "category"}),
    "days first": lambda frame: frame.assign(date=frame["date"].dt.strftime("%d/%m/%Y")),
    "days as ISO text": lambda frame: frame.assign(date=frame["date"].dt.strftime("%Y-%m-%d")),
    "days with a time": lambda frame: frame.assign(date=frame["date"] + pd.Timedelta(hours=8)),
    "prices as text": lambda frame: frame.astype({"price": str}),
    "other titles": lambda frame: frame.rename(columns={"site": "Store", "date": "Date"}),
    "a named index": lambda frame: frame.set_index(["site", "date"]),
    "another site": lambda frame: pd.concat([frame, frame.assign(site="elsewhere")]),
    "another order": lambda frame: frame.iloc[::-1],
}


@pytest.mark.parametrize("way", SAME)
def test_it_is_read_as_the_table_is(way):
    right = checked(prices())[0].sort_values(["site", "date"], ignore_index=True)
    made, notes = checked(SAME[way](prices()))
    made = made.sort_values(["site", "date"], ignore_index=True)
    pd.testing.assert_frame_equal(made, right, check_dtype=False)
    assert not any("known" in note for note in notes)


def test_a_file_is_read_as_a_table_is(tmp_path):
    prices().to_csv(tmp_path / "prices.csv", index=False, sep=";")
    assert len(checked(tmp_path / "prices.csv")[0]) == 140


def test_numbers_of_sites_are_joined_to_numbers():
    made, _ = checked(prices(), demand().astype({"site": int}))
    assert set(made["site"]) == {1, 2}


REFUSED = {
    "no date": (lambda frame: frame.drop(columns="date"), "must have a 'date' column .* got 'site', 'price'"),
    "no numbers": (lambda frame: frame.assign(price="x"), r"at least one column of numbers .* got 'price' \('x'\)"),
    "nothing beside": (lambda frame: frame[["site", "date"]], "at least one of numbers"),
    "no rows": (lambda frame: frame[:0], "known must have rows, got none"),
    "a word among numbers": (
        lambda frame: frame.astype({"price": object}).replace({"price": {1.5: "many"}}),
        r"a number in every row of 'price', got 'many' in row 1, and \d+ more",
    ),
    "a wrong date": (
        lambda frame: frame.assign(date=[*frame["date"].astype(str)[:-1], "soon"]),
        "a date that can be read in every row of 'date', got 'soon' in row 139",
    ),
    "no site": (
        lambda frame: frame.assign(site=[None, *frame["site"][1:]]),
        "a site in every row of 'site', got nothing in row 0",
    ),
    "other sites": (lambda frame: frame.assign(site="Oslo"), "the demand's sites, such as '1', '2', got 'Oslo'"),
    "the past only": (
        lambda frame: frame[frame["date"] <= DAYS[-1]],
        "known lacks 5 of 5 dates for site 1, from 2025-08-30 on, and some for 1 more",
    ),
    "the future only": (
        lambda frame: frame[frame["date"] > DAYS[-1]],
        "must have dates of the past too, 2025-07-01 to 2025-08-29, got none",
    ),
    "one site alone": (
        lambda frame: frame[frame["site"] == "1"],
        "known lacks 5 of 5 dates for site 2, from 2025-08-30 on: add them",
    ),
    "the last days": (
        lambda frame: frame[(frame["site"] == "1") | (frame["date"] < "2025-09-01")],
        "known lacks 3 of 5 dates for site 2, from 2025-09-01 on: add them",
    ),
    "a day between": (
        lambda frame: frame[frame["date"] != "2025-09-01"],
        "known lacks 1 of 5 dates for site 1, from 2025-09-01, and some for 1 more: add them",
    ),
    "a price ahead": (
        lambda frame: frame.assign(price=frame["price"].where(frame["date"] != "2025-09-01")),
        "known lacks 1 of 5 dates for site 1, from 2025-09-01",
    ),
    "a row twice": (
        lambda frame: pd.concat([frame, frame[3:5]]),
        r"one row for site 1, 2025-07-04, got another in row 140 \(2 such rows\)",
    ),
    "no frame": (lambda frame: 5, "known must be a DataFrame"),
    "no file": (lambda frame: "prices.nowhere", "known must be a table that can be read, got 'prices.nowhere'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_forecast_needs_must_be_there(case):
    """The function itself says so: nothing was trained."""
    change, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as refused:
        checked(change(prices()))
    assert re.match("known must (?!.*known must)", str(refused.value))


def test_only_the_series_that_are_forecast_need_it():
    known = prices(sites=("1",))
    made, _ = checked(known, by=None, sites=["1"])
    assert len(made) == 70


def test_what_holds_for_all_needs_no_site():
    known = prices(sites=("1",)).drop(columns="site")
    assert list(checked(known)[0].columns) == ["date", "price"]
    with pytest.raises(InputError, match="known lacks 5 of 5 dates, from 2025-08-30 on: add them"):
        checked(known[:60])


def test_gaps_in_the_past_are_told():
    known = prices()
    _, notes = checked(known[(known["site"] == "1") | (known["date"] >= "2025-08-01")])
    assert "known lacks up to 31 of 60 past dates for 1 of 2 sites: less is learnt from it" in notes


def test_a_column_of_words_is_left_out_and_told():
    made, notes = checked(prices().assign(event="none"))
    assert list(made.columns) == ["site", "date", "price"]
    assert "the column 'event' of known was left out: it has no numbers ('none')" in notes


@pytest.mark.parametrize(("freq", "step"), [("W", "7D"), ("M", "MS")])
def test_days_are_put_into_the_tables_periods(freq, step):
    """A day of a week or a month stands for it; several are averaged, and that is told."""
    dates = pd.date_range("2025-01-01", periods=20, freq=step)
    daily = pd.date_range("2024-12-26", dates[-1] + pd.Timedelta(days=130))
    table = demand(dates=dates)
    made, notes = checked(prices(dates=daily), table, horizon=3)
    assert f"known has several rows in a {'week' if freq == 'W' else 'month'}: their mean is taken" in notes
    one = made[made["site"] == "1"].sort_values("date")
    gaps = one["date"].diff().dropna().dt.days
    assert set(gaps) <= ({7} if freq == "W" else {28, 29, 30, 31})
    assert dates[-1] in set(one["date"])
    ends = (one["date"] + pd.offsets.MonthEnd(0)).tolist() if freq == "M" else one["date"].tolist()
    labelled = pd.DataFrame({"site": ["1"] * len(ends) + ["2"] * len(ends), "date": ends * 2, "price": 1.0})
    assert sorted(checked(labelled, table, horizon=3)[0]["date"].unique()) == sorted(one["date"])


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y"])
def test_months_that_may_be_days_are_those_that_are_needed(form):
    """01/07/2025 is the first of July where July is forecast; that is told."""
    months = pd.date_range("2024-01-01", periods=17, freq="MS")
    ahead = pd.date_range("2024-01-01", periods=20, freq="MS")
    known = prices(dates=ahead).assign(date=lambda made: made["date"].dt.strftime(form))
    made, notes = checked(known, demand(dates=months), horizon=3)
    assert sorted(made["date"].unique()) == sorted(ahead)
    assert any(f"known: dates were read as '{form}'" in note for note in notes)


def test_evaluate_checks_it_too():
    """What is forecast there lies in the past."""
    with pytest.raises(InputError, match="known lacks 3 of 5 dates for site 1, from 2025-08-22 on"):
        evaluate(demand(), horizon=5, origins=2, known=prices(dates=AHEAD[:52]), models=["naive"])


@pytest.mark.parametrize(
    ("column", "values", "either"),
    [
        ("price", ["1.234", "2.345"], "1.234 or 1,234"),
        ("date", ["03/04/2025", "05/06/2025"], "2025-04-03 or 2025-03-04"),
    ],
)
def test_a_question_about_it_is_not_answered_by_what_reads_the_demand(column, values, either):
    known = prices().astype({"date": str}).assign(**{column: [values[at % 2] for at in range(140)]})
    with pytest.raises(InputError, match=f"known must .*{either}: hand over a frame") as asked:
        checked(known, decimal=".", date_format=None)
    assert "decimal=" not in str(asked.value)
