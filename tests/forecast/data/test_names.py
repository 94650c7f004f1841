"""Names of sites and parts: one name where any reader sees one, and else they stay what they are."""

import io
from decimal import Decimal

import pandas as pd
import pytest

from ipybatch.forecast.data.names import clean, read_names
from ipybatch.forecast.data.table import read_table


def table(sites=("a",), parts=("P",), **given):
    """A table with a row for each of the names."""
    rows = max(len(sites), len(parts))
    frame = pd.DataFrame({"date": pd.date_range("2025-07-01", periods=rows), "quantity": 1})
    frame["site"] = pd.Series(sites if len(sites) == rows else [sites[0]] * rows)
    frame["part"] = pd.Series(parts if len(parts) == rows else [parts[0]] * rows)
    return read_table(frame, **given)


@pytest.mark.parametrize("parts", [[22423, 7], [22423.0, 7.0], pd.array([22423, 7], dtype="Int64")])
def test_whole_numbers_stay_numbers(parts):
    """So that the forecast can be joined to the user's table."""
    frame = pd.DataFrame({"site": "a", "part": parts, "date": "2025-07-01", "quantity": 1})
    assert read_table(frame).frame["part"].tolist() == [7, 22423]


def test_numbers_beside_texts_are_texts():
    frame = pd.DataFrame({"site": "a", "part": [22423, "15056BL"], "date": "2025-07-01", "quantity": 1})
    assert read_table(frame).frame["part"].tolist() == ["15056BL", "22423"]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("Kendari ", "blanks around them"),
        ("\tKendari", "blanks around them"),
        ("Kendari\u00a0", "blanks around them"),
        ("\u2009Kendari\u3000", "blanks around them"),
        ("\ufeffKendari", "invisible characters"),
        ("Ken\u200bdari", "invisible characters"),
        ("Ken\u00addari", "invisible characters"),
        ("\u202aKendari\u202c", "invisible characters"),
        ("Kendari\u200d", "invisible characters"),
        ("Kendari\x00", "invisible characters"),
    ],
)
def test_what_nobody_sees_makes_no_other_site(other, told):
    """It is put right, and that is told with how many rows it was."""
    read = table(sites=["Kendari", other, other])
    assert read.frame["site"].unique().tolist() == ["Kendari"]
    (note,) = [note for note in read.notes if "names had" in note]
    assert note.startswith(f"2 site names had {told}")


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("S\u00e3o Paulo", "Sa\u0303o Paulo", "accents apart"),
        ("H\u00e0 N\u1ed9i", "Ha\u0300 No\u0323\u0302i", "accents apart"),
        ("New York", "New\u00a0York", "unusual blanks"),
        ("New York", "New  York", "unusual blanks"),
        ("New York", "New\nYork", "unusual blanks"),
        ("1 234", "1\u202f234", "unusual blanks"),
    ],
)
def test_another_form_of_the_same_letters_makes_no_other_site(one, other, told):
    read = table(sites=[one, other])
    assert read.frame["site"].unique().tolist() == [one]
    assert f"1 site names had {told}" in "\n".join(read.notes)


@pytest.mark.parametrize(
    "name",
    [
        "x" * 300,
        "a/b\\c",
        "..",
        'He said "5\'"',
        "🔧",
        "👩\u200d🔧",
        "\u0645\u06cc\u200c\u062e\u0648",
        "क्\u200dष",
        "B and C",
        "None",
        "NA",
        "1E5",
        "00123",
        "12.50",
        "=1+1",
        "٣",
    ],
)
def test_a_name_stays_as_it_is(name):
    """Also what is unusual: a joiner that an emoji or a script needs, zeros in front, an E between digits."""
    quoted = name.replace('"', '""')
    read = read_table(io.BytesIO(f'site,part,date,quantity\nA,"{quoted}",2025-07-01,1\n'.encode()))
    assert read.frame["part"].tolist() == [name]
    assert not [note for note in read.notes if "names" in note]
    assert clean(name) == name


@pytest.mark.parametrize(
    ("parts", "read"),
    [
        (["123.0", "124.0"], ["123", "124"]),
        (["123.0", "AB-1"], ["123", "AB-1"]),
        (["123.0", "123"], ["123", "123"]),
        (["12.0", "12.5"], ["12.0", "12.5"]),
        ([123.0, "AB-1"], ["123", "AB-1"]),
        ([Decimal(123), Decimal("124.00")], [123, 124]),
        ([b"AB", b"CD"], ["AB", "CD"]),
        ([1e300, 5.0], ["1e+300", "5"]),
        ([True, False], ["False", "True"]),
        (["x\ud83d", "y"], ["x\ufffd", "y"]),
    ],
)
def test_numbers_that_became_text_on_the_way_are_numbers(parts, read):
    """A column of part numbers with a gap is one of floats: .0 is no part of a number, unless others have decimals."""
    keys = read_names(pd.Series(parts, dtype=object))
    assert sorted(keys.texts[code] for code in keys.codes) == read


@pytest.mark.parametrize("name", ["nan", "NaN", "<NA>", "NaT", "", "  ", "\u00a0", "\u200b"])
def test_what_is_no_name_is_a_missing_one(name):
    """Text that pandas makes of a gap is no site of its own."""
    assert [str(problem) for problem in table(sites=["A", name]).problems] == ["Missing site in row 1"]


def test_numbers_that_a_spreadsheet_shortened_are_told():
    """1.23E+12 may be many parts: nobody can tell any more."""
    assert "1 part names are numbers that a spreadsheet shortened" in "\n".join(table(parts=["1.23E+12", "5"]).notes)
    assert table(parts=["1E5", "5"]).notes == table(parts=["15", "5"]).notes


def test_a_piece_of_a_column_does_not_tell_what_only_the_whole_tells():
    """123.0 is 123, unless another number has decimals that count: it may stand in another file."""
    column = pd.Series(["123.0", "123.0 ", "A-1"][:2])
    assert list(read_names(column).names) == ["123"]
    assert list(read_names(column, is_piece=True).names) == ["123.0"]
