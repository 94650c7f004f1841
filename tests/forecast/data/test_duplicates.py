"""Near duplicates are told with their rows, and merged only when that is asked for."""

import pandas as pd
import pytest

from ipybatch.forecast.data.duplicates import near_duplicates
from ipybatch.forecast.data.names import read_names
from ipybatch.forecast.data.table import read_table


def sales(**rows_of):
    """A table with so many rows, a day apart, for each site."""
    rows = [
        (site, "P1", day, 1) for site, count in rows_of.items() for day in pd.date_range("2025-01-01", periods=count)
    ]
    return pd.DataFrame(rows, columns=["site", "part", "date", "quantity"])


def groups(counts):
    """The groups among names, each in so many rows."""
    keys = read_names(pd.Series([name for name, count in counts.items() for _ in range(count)]))
    return [[keys.names[at] for at in group] for group in near_duplicates(keys)]


@pytest.mark.parametrize(
    "names",
    [
        ["Kendari", "KENDARI"],
        ["Kendari", "kendari", "KENDARI"],
        ["Hà Nội", "Ha Noi"],
        ["Đà Nẵng", "Da Nang"],
        ["Bogotá", "BOGOTA"],
        ["San José", "San-Jose"],
        ["St. Louis", "St Louis"],
        ["Straße 5", "STRASSE 5"],
        ["P-100", "P100"],
        ["P 100", "P_100"],
        ["00123", "123"],
        ["\uff2b\uff45\uff4e", "Ken"],
    ],
)
def test_case_accents_and_marks_make_near_duplicates(names):
    """However many rows each has, the most frequent first."""
    counts = {name: 9 - at for at, name in enumerate(names)}
    assert groups(counts) == [names]


@pytest.mark.parametrize(
    "names",
    [
        ["Store 1", "Store 2"],
        ["Store 1", "Store 11"],
        ["1-11", "11-1", "111"],
        ["P1.5", "P15"],
        ["A", "A+", "A-"],
        ["C", "C#"],
        ["Lamp L", "Lamp R"],
        ["B/C", "BC"],
        ["Palu", "Pale"],
        ["🔧", "🔨"],
        ["12345", "12346"],
    ],
)
def test_other_names_are_others(names):
    """Digits, short words and marks that mean something."""
    assert groups(dict(zip(names, [1, 99, 99], strict=False))) == []


def test_a_typing_error_is_rare_beside_what_it_stands_for():
    assert groups({"Kendari": 100, "Kendarl": 3}) == [["Kendari", "Kendarl"]]
    assert groups({"Brake pad front": 100, "Brake pad frnot": 3}) == [["Brake pad front", "Brake pad frnot"]]
    assert groups({"Bandung": 100, "Badung": 90}) == []


def test_letters_that_are_a_code_are_no_typing_errors():
    """Where many names lie a letter apart, none is told."""
    assert groups({f"PART{one}{other}": 1 if one < "N" else 99 for one in "ABCDXYZ" for other in "KLMNOPQ"}) == []


def test_numbers_have_no_near_duplicates():
    assert groups({12345: 100, 12346: 1}) == []


def test_near_duplicates_are_told_with_their_rows_and_stay_apart():
    table = read_table(sales(Kendari=200, KENDARI=12, Palu=9))
    assert sorted(table.frame["site"].unique()) == ["KENDARI", "Kendari", "Palu"]
    told = "'Kendari' (200 rows) and 'KENDARI' (12 rows) may be one site: repair={'merge_near_duplicates'}"
    assert told in "\n".join(table.notes)


def test_they_are_merged_when_that_is_asked_for():
    """Under the most frequent name; what falls on one day is summed."""
    table = read_table(sales(Kendari=200, KENDARI=12, Palu=9), repair={"merge_near_duplicates"})
    assert table.frame.groupby("site", observed=True)["quantity"].sum().to_dict() == {"Kendari": 212, "Palu": 9}
    told = "were merged, each under its most frequent name: 'Kendari' (200 rows) with 'KENDARI' (12 rows)"
    assert told in "\n".join(table.notes)
    assert "may be one" not in "\n".join(table.notes)


def test_many_groups_are_counted():
    towns = ["Ambon", "Bitung", "Kendari", "Kupang", "Luwuk", "Manado", "Palu", "Sofifi", "Tobelo"]
    table = read_table(sales(**dict.fromkeys([*towns, *map(str.upper, towns)], 2)))
    (note,) = [note for note in table.notes if "may each be one site" in note]
    assert "and 4 more may each be one site" in note
