"""Numbers: one decimal and one thousands mark for a column, as its cells prove; where none does, asked."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.forecast.data.numbers import Evidence, look_around, read_numbers
from ipybatch.forecast.data.understanding import Undecided

NONE = None


def read(*cells, **given):
    """The numbers of a column, None for none."""
    made = read_numbers(pd.Series(cells, dtype=object), "jumlah", **given)
    return [None if np.isnan(number) else number for number in made.values]


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["5,5", "1.234"], [5.5, 1234]),
        (["5.5", "1,234"], [5.5, 1234]),
        (["1.234,50"], [1234.5]),
        (["1,234.50"], [1234.5]),
        (["1.234.567", "1.234"], [1234567, 1234]),
        (["1,23,456", "12,34,567"], [123456, 1234567]),
        (["0.125", "1.234"], [0.125, 1.234]),
        (["1234.567", "1,234"], [1234.567, 1234]),
        (["1 234", "1\u202f234,5", "1\xa0234"], [1234, 1234.5, 1234]),
        (["1'234", "1\u2019234.5"], [1234, 1234.5]),
        (["(5)", "5-", "-5", "\u22125", "+5"], [-5, -5, -5, -5, 5]),
        (["$5.00", "6 \u20ac", "Rp 7", "8 USD"], [5, 6, 7, 8]),
        (["12 pcs", "3 pcs.", "4pc", "5 Stück"], [12, 3, 4, 5]),
        (["1E5", "1e200", "2.5e-1"], [1e5, 1e200, 0.25]),
        (["\u0663", "\uff11\uff12", "\u0661\u066c\u0662\u0663\u0664", "\u0661\u066b\u0665"], [3, 12, 1234, 1.5]),
        (["-", "N/A", "", "  ", "nan", "\u2014", NONE, float("nan")], [NONE] * 8),
        (["2 dozen", "5%", "3k", "2 rb", "1.2.3", "1,2,3", "12 3", "many", "inf", "(5", "--5"], [NONE] * 11),
        ([True, "true", np.True_], [NONE] * 3),
        ([1, 2.5, Decimal("3.5"), np.int64(4), "5"], [1, 2.5, 3.5, 4, 5]),
        ([".5", "5."], [0.5, 5]),
        (["5,5", "5.5"], [5.5, 5.5]),
    ],
)
def test_a_number_is_read_however_it_is_written(cells, numbers):
    assert read(*cells) == numbers


@pytest.mark.parametrize(
    ("cells", "point", "comma"),
    [
        (["1.234", "12.590"], [1.234, 12.59], [1234, 12590]),
        (["1,234", "7"], [1234, 7], [1.234, 7]),
        (["5,5", "5.5", "1.234"], [NONE, 5.5, 1.234], [5.5, NONE, 1234]),
        ([*(f"1.{number}" for number in range(100, 300)), "7.5"], [1.1, 1.101], [1100, 1101]),
    ],
)
def test_what_two_styles_fit_is_asked(cells, point, comma):
    """By column, cell and both readings, each with the argument that decides; and either does."""
    with pytest.raises(Undecided, match="demand must have one style of numbers in 'jumlah', got '") as asked:
        read(*cells)
    assert [answer.argument for answer in asked.value.answers] == ["decimal", "thousands"]
    assert asked.value.example in cells
    assert read(*cells, decimal=".")[: len(point)] == point
    assert read(*cells, decimal=",")[: len(comma)] == comma
    mark = "." if "." in asked.value.example else ","
    assert read(*cells, thousands=mark)[:1] == (comma if mark == "." else point)[:1]


@pytest.mark.parametrize(
    ("cells", "evidence", "numbers", "why"),
    [
        (["7.431", "12.590"], Evidence(";"), [7431, 12590], "a file separated by ';' has a decimal comma"),
        (["7,431", "12,590"], Evidence(","), [7431, 12590], "a file separated by ',' has a decimal point"),
        (["7.431"], Evidence("\t", ",", "harga"), [7431], "as harga has a decimal comma"),
        (["7.431"], Evidence(",", ".", "price"), [7.431], "as price has a decimal point"),
        (
            [*map(str, range(40, 50)), *(f"1.{number}" for number in range(100, 110))],
            Evidence(),
            [*range(40, 50), *range(1100, 1110)],
            "as only numbers above 999 have the mark",
        ),
    ],
)
def test_what_the_rest_of_the_table_tells_is_read_and_said(cells, evidence, numbers, why):
    made = read_numbers(pd.Series(cells), "jumlah", evidence=evidence)
    assert made.values.tolist() == numbers
    assert why in made.notes[0]
    assert "reads it as" in made.notes[0]


@pytest.mark.parametrize(
    ("cells", "evidence"),
    [
        (["1.234"], Evidence(",")),  # a fraction would fit the file, pieces would not
        (["1,234"], Evidence(";")),
        (["1.234"], Evidence("\t")),
        (["1.234"], Evidence(";", ".", "price")),  # they contradict each other
        (["1.234", "1,234"], Evidence(";")),
    ],
)
def test_evidence_that_is_lacking_or_contradicts_itself_decides_nothing(cells, evidence):
    with pytest.raises(Undecided):
        read(*cells, evidence=evidence)


def test_other_columns_are_evidence_if_they_agree():
    frame = pd.DataFrame(
        {"a": ["5,5", "1.234"], "day": ["31.07.2025", "1.8.2025"], "n": [1.5, 2.5], "b": ["2,25", "-"]}
    )
    assert look_around(frame, list(frame), ";") == Evidence(";", ",", "a")
    assert look_around(frame.assign(c=["5.5", "7"]), [*frame, "c"], ";") == Evidence(";")
    assert look_around(frame, ["day"], "") == Evidence("")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"decimal": ";"}, r"decimal must be '\.' or ','"),
        ({"thousands": "_"}, "thousands must be ','"),
        ({"decimal": ",", "thousands": ","}, "thousands must differ from decimal"),
    ],
)
def test_a_mark_has_to_be_one(given, message):
    with pytest.raises(InputError, match=message):
        read("5", **given)


def test_given_marks_are_kept_to():
    assert read("1,234", "1 234", thousands=" ", decimal=",") == [1.234, 1234]
    assert read("1.234", "1,234", thousands="") == [1.234, 1.234]
    assert read("1.234,5", "7", decimal=".") == [None, 7]


def test_a_great_many_fractions_are_read_alike():
    """All at once where that is quicker: with the same numbers, proofs and questions."""
    cells = [f"{number}.{number % 89 + 10}" for number in range(12_000)]
    assert read(*cells, "1,234", "7 pcs") == [*map(float, cells), 1234, 7]
    assert read(*cells, "1,5")[-1] == 1.5
    with pytest.raises(Undecided, match=r"got '1\.234'"):
        read(*cells, "1,5", "1.234")
    assert read(*cells, decimal=",")[20:30] == [NONE] * 10


def test_units_and_currency_that_are_left_out_are_said():
    made = read_numbers(pd.Series(["12 pcs", "3 pcs", "1 box"]), "qty")
    assert made.notes == ("the units in qty were left out: 'pcs' (2 rows), 'box' (1 row)",)
    assert "currency in qty was left out: '$5'" in read_numbers(pd.Series(["$5"]), "qty").notes[0]


DECIMALS = pd.ArrowDtype(pa.decimal128(9, 2))


@pytest.mark.parametrize("dtype", ["int8", "float32", "Int64", "Float64", pd.ArrowDtype(pa.int32()), DECIMALS])
def test_a_column_of_numbers_is_taken_as_it_is(dtype):
    made = read_numbers(pd.Series([1, 2], dtype=dtype), "qty")
    assert made.values.tolist() == [1.0, 2.0]
    assert made.notes == ()


def test_thousands_that_were_read_as_fractions_before_are_told():
    """7, 950, 1.234 and 12.59: whole numbers stop where fractions of three digits begin."""
    assert "if the file meant 1,234" in read_numbers(pd.Series([7, 950, 1.234, 12.59, 3.456]), "qty").notes[0]
    for weights in ([0.35, 1.234, 7], [1.5, 2.25, 7], [1.234, 2.345, 1500]):
        assert read_numbers(pd.Series(weights), "qty").notes == ()


def test_reasons_name_what_is_missing_or_negative():
    made = read_numbers(pd.Series(["(5)", "-", "many", "7"]), "qty")
    assert made.reasons == {"(5)": "Negative quantity (5)", "-": "Missing quantity '-'"}


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=9), st.sampled_from([".", ",", " ", "'"]))
def test_whole_numbers_come_back_as_they_were(numbers, mark):
    """With whatever mark thousands are written, given that it is said."""
    cells = [f"{number:,}".replace(",", mark) for number in numbers]
    assert read(*cells, thousands=mark) == numbers


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=9), st.sampled_from([".,", ",.", ", ", ".'"]))
def test_fractions_come_back_as_they_were(cents, marks):
    decimal, thousands = marks
    cells = [f"{cent / 100:,.2f}".replace(",", "t").replace(".", decimal).replace("t", thousands) for cent in cents]
    assert read(*cells) == [cent / 100 for cent in cents]


@pytest.mark.parametrize(("text", "mark"), [("1.234.567", ","), ("1.234,5", ","), ("1,234,567", "."), ("1,234.5", ".")])
def test_a_spreadsheet_that_cut_thousands_is_refused(text, mark):
    """It read 1.234 as a fraction, and left as text what it could not read so."""
    cells = pd.Series([7, 950, 1.234, 12.59, text], dtype=object)
    with pytest.raises(InputError, match="original file") as refused:
        read_numbers(cells, "qty")
    assert f"decimal={mark!r}" in str(refused.value)
    assert read_numbers(cells, "qty", decimal=mark).values[2] == 1.234


@pytest.mark.parametrize("text", ["1.234.567", "12,5", "3 pcs"])
def test_numbers_beside_text_are_what_they_are(text):
    assert read_numbers(pd.Series([7, 950.5, 0.25, text], dtype=object), "qty").values[1] == 950.5


@pytest.mark.parametrize("many", [1, 4000])
@pytest.mark.parametrize("digits", [1, 2])
def test_two_styles_put_together_are_asked_about(many, digits):
    """1.920 of one file is no fraction as 77.0 of another is one."""
    thousands = [f"1.{number}" for number in range(900, 920)]
    fractions = [f"{number}.{number % 9:0{digits}}" for number in range(20 * many)]
    with pytest.raises(Undecided):
        read_numbers(pd.Series(thousands + fractions), "qty")
    three = ["1.5", "1.25", "0.125", "1.125", "2.5", "2.25", "2.375", "3.875", "4.625", "5.125", "6.375"]
    assert read_numbers(pd.Series(three * many), "qty").values[3] == 1.125


@pytest.mark.parametrize("many", [60, 2000, 30_000])
def test_fractions_of_three_digits_without_their_last_zeros_are_fractions(many):
    values = [number / 1000 for number in range(1001, 1001 + 37 * many, 37)]
    assert np.allclose(read_numbers(pd.Series([f"{value:g}" for value in values]), "kg").values, values, rtol=1e-4)
