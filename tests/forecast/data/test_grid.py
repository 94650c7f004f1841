"""Whatever stands around a table, its rows are found, and what is left out is told."""

import io

import pandas as pd
import pytest

from ipybatch import InputError
from ipybatch.forecast.data import grid
from ipybatch.forecast.data.columns import UnknownColumns
from ipybatch.forecast.data.table import read_table

HEAD = "site,part,date,quantity\n"
LINES = [f"{site},P{part},2025-07-{day:02d},{part + day}" for site in "AB" for part in (1, 2) for day in range(1, 9)]
ROWS = "\n".join(LINES) + "\n"
TOTAL = sum(part + day for part in (1, 2) for day in range(1, 9)) * 2.0


def read(text, **given):
    return read_table(io.BytesIO(text.encode()), **given)


SHAPES = {
    "as it is": (HEAD + ROWS, None),
    "a title": ("Sales of July\n\n" + HEAD + ROWS, "titles were found in row 3: what stands above .*'Sales of July'"),
    "a padded title": ("Sales,,,\nfrom,2025-07-01,to,2025-07-08\n" + HEAD + ROWS, "titles were found in row 3"),
    "a separator said": ("sep=;\n" + (HEAD + ROWS).replace(",", ";"), None),
    "blank lines": (HEAD + ROWS.replace("\n", "\n\n , ,,\n"), None),
    "a total": (HEAD + ROWS + "Total,,,272\n", "row 34 was left out: it is a total .'Total'"),
    "a total with a colon": (HEAD + ROWS + "Grand total:,,,272\n", "it is a total"),
    "a total in German": (HEAD + ROWS + "Summe,,,272\n", "it is a total"),
    "a total in Vietnamese": (HEAD + ROWS + "Tổng cộng,,,272\n", "it is a total"),
    "totals of the sites": (
        HEAD + "".join(f"{line}\n" + ("A Total,,,136\n" if at == 15 else "") for at, line in enumerate(LINES)),
        "row 18 was left out: it is a total .'A Total'",
    ),
    "a remark below": (
        HEAD + ROWS + "\nPrinted 2025-09-01\n",
        "row 35 was left out: it is a remark below the table .'Printed 2025-09-01'",
    ),
    "separators at the ends of rows": (HEAD + ROWS.replace("\n", ",,\n"), None),
    "separators at the end of the titles": (HEAD.replace("\n", ",,\n") + ROWS, None),
    "an index without a title": ("," + HEAD + "".join(f"{at},{line}\n" for at, line in enumerate(LINES)), None),
    "an index and a title too few": (HEAD + "".join(f"{at + 1},{line}\n" for at, line in enumerate(LINES)), None),
    "titles once more": (
        HEAD + ROWS.replace("B,P1,2025-07-01", HEAD + "B,P1,2025-07-01"),
        "row 18 was left out: it repeats",
    ),
    "a column twice": (
        HEAD.replace("\n", ",date\n") + "".join(f"{line},{line.split(',')[2]}\n" for line in LINES),
        None,
    ),
    "line feeds in quotation marks": (
        HEAD.replace("part", '"part\nnumber"') + ROWS.replace("P1", '"P\n1"'),
        "16 part names had unusual blanks",
    ),
    "rows that end with \\r": ((HEAD + ROWS).replace("\n", "\r"), None),
    "rows that end with \\r\\n": ((HEAD + ROWS).replace("\n", "\r\n"), None),
    "everything in quotation marks": (
        "".join('"' + line.replace(",", '","') + '"\n' for line in [HEAD.strip(), *LINES]),
        None,
    ),
    "blanks around titles": (HEAD.replace(",", " , ") + ROWS, None),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_is_found(shape):
    """Its rows are all there, none more, and what was left out is told and nothing else."""
    text, told = SHAPES[shape]
    table = read(text)
    assert (len(table.frame), table.frame["quantity"].sum(), table.problems) == (32, TOTAL, ())
    assert list(table.frame.columns[4:]) == []
    assert table.start == pd.Timestamp("2025-07-01")
    assert len(table.notes) == (told is not None)
    if told:
        assert pd.Series(table.notes).str.contains(told).all()


ASKED = {
    "more cells than titles": (
        HEAD + ROWS.replace("\n", ",5\n"),
        r"as many cells in a row .* row 2 \('A', 'P1', '2025-07-01', '2', '5'\)",
    ),
    "no titles": (ROWS, r"must have a row of titles, .* \('A', 'P1', '2025-07-01', '2'\): put titles above"),
    "two quantities": (
        HEAD.replace("\n", ",quantity\n") + ROWS.replace("\n", ",7\n"),
        r"quantity may be 'quantity \(column 4\)' or 'quantity \(column 5\)': say which with columns=",
    ),
    "other titles": (HEAD.replace("site", "colour") + ROWS, "must have a 'site' column"),
}


@pytest.mark.parametrize("case", ASKED)
def test_what_is_not_sure_is_asked(case):
    text, message = ASKED[case]
    with pytest.raises(InputError, match=message):
        read(text)


def test_a_column_that_stands_there_twice_can_be_chosen():
    text = HEAD.replace("\n", ",quantity\n") + ROWS.replace("\n", ",7\n")
    assert read(text, columns={"quantity": "quantity (column 5)"}).frame["quantity"].unique().tolist() == [7.0]
    frame = pd.read_csv(io.StringIO(HEAD + ROWS))
    twice = pd.concat([frame, frame["quantity"] + 1], axis=1)
    with pytest.raises(UnknownColumns, match=r"'quantity \(column 4\)'"):
        read_table(twice)
    assert len(read_table(pd.concat([frame, frame["quantity"]], axis=1)).frame) == 32


def test_a_row_with_a_cell_too_many_is_a_problem():
    """1,234 without quotation marks is not 1."""
    table = read(HEAD + ROWS + "A,P1,2025-07-20,1,234\n")
    assert list(map(str, table.problems)) == ["5 cells under 4 titles ('A', 'P1', '2025-07-20', '1', '234') in row 34"]
    assert (table.rows, len(table.frame), table.end) == (33, 32, pd.Timestamp("2025-07-08"))


def test_a_row_with_a_cell_too_few_is_a_problem():
    table = read(HEAD + "A,P1,2025-07-20\n" + ROWS)
    assert list(map(str, table.problems)) == ["Missing quantity in row 2"]


def test_a_row_much_longer_than_the_first_is_read_too():
    """Its width is met late: the titles are read with fewer cells at first."""
    lines = [f"A,P1,2025-07-{1 + at % 28:02d},1" for at in range(20_000)]
    table = read(HEAD + "\n".join(lines) + "\nA,P1,2025-07-01,1" + ",x" * 40 + "\n")
    assert [problem.row for problem in table.problems] == [20_002]


def test_problems_stay_in_the_order_of_the_rows():
    table = read(HEAD + "A,P1,2025-07-01,1,5\nA,P1,soon,1\nA,P1,2025-07-02,1,5\n" + ROWS)
    assert [problem.row for problem in table.problems] == [2, 3, 4]


def test_a_site_called_total_is_a_site():
    """A row is a total only where cells that rows have are empty."""
    table = read(HEAD + ROWS.replace("A,", "Total,"))
    assert table.frame["site"].unique().tolist() == ["B", "Total"]
    assert table.frame["quantity"].sum() == TOTAL


def wide(titles, cells=(("A", "P1", 1, "", 3), ("A", "P2", "", 2, ""))):
    return "\n".join([",".join(("site", "part", *titles)), *(",".join(map(str, row)) for row in cells)]) + "\n"


@pytest.mark.parametrize(
    ("titles", "freq", "start"),
    [
        (("2025-07-07", "2025-07-14", "2025-07-21"), "W", "2025-07-01"),
        (("07.07.2025", "14.07.2025", "21.07.2025"), "W", "2025-07-01"),
        (("2025-07-01", "2025-07-02", "2025-07-03"), "D", "2025-07-01"),
        (("Jan 2025", "Feb 2025", "Mar 2025"), "M", "2025-01-01"),
        (("2024-11", "2024-12", "2025-01"), "M", "2024-11-01"),
        (("Jan 25", "Feb 25", "Mar 25"), "M", "2025-01-01"),
        (("Juli 2025", "Agustus 2025", "September 2025"), "M", "2025-07-01"),
        (("202411", "202412", "202501"), "M", "2024-11-01"),
        (("45839", "45840", "45841"), "D", "2025-07-01"),
        (("2025-W27", "2025-W28", "2025-W29"), "W", "2025-06-24"),
        (("KW 27 2025", "KW 28 2025", "KW 29 2025"), "W", "2025-06-24"),
    ],
)
def test_a_wide_table_is_read_as_rows(titles, freq, start):
    """A column for each period; empty cells are no rows, and that is told."""
    table = read(wide(titles))
    assert table.frame["quantity"].tolist() == [1.0, 3.0, 2.0]
    assert (table.freq, str(table.start.date()), table.rows) == (freq, start, 3)
    note = f"3 columns whose titles are dates ({titles[0]} to {titles[-1]}) were read as rows, 3 empty cells left out"
    assert note in table.notes


def test_a_wide_table_of_weeks_or_months_is_asked_about():
    titles = [f"2025-{number:02}" for number in (1, 2, 3)]
    with pytest.raises(InputError, match=r"'2025-01', which may be 2025-01-01 .* or 2024-12-30"):
        read(wide(titles))
    assert read(wide(titles), freq="M").freq == "M"


@pytest.mark.parametrize(
    "titles", [("W27", "W28", "W29"), ("Jan", "Feb", "Mar"), ("01/07", "08/07", "15/07"), ("1 Jul", "8 Jul", "10 Jul")]
)
def test_a_wide_table_of_no_year_is_asked_about(titles):
    with pytest.raises(
        InputError, match=f"dates with a year, got a table with columns '{titles[0]}'.*e.g. '{titles[0]} 20"
    ):
        read(wide(titles))


def test_titles_with_numbers_are_no_dates():
    text = HEAD.replace("\n", ",Size 38,Size 39,Size 40,Sales 2023,Sales 2024,Sales 2025,1,2,3\n") + ROWS.replace(
        "\n", ",7,7,7,7,7,7,7,7,7\n"
    )
    assert read(text).frame["quantity"].sum() == TOTAL


def test_a_wide_frame_is_read_as_rows():
    days = pd.date_range("2025-07-07", periods=4, freq="7D")
    frame = pd.DataFrame([["A", "P", 1, 2, None, 4]], columns=["site", "part", *days])
    assert read_table(frame).frame["quantity"].tolist() == [1.0, 2.0, 4.0]
    assert read_table(frame).freq == "W"


def test_a_wrong_cell_of_a_wide_table_is_told_by_its_row():
    table = read(wide(("2025-07-07", "2025-07-14", "2025-07-21"), (("A", "P1", 1, "x", 3), ("A", "P2", -2, 2, 3))))
    assert list(map(str, table.problems)) == ["Invalid quantity 'x' in row 2", "Negative quantity -2 in row 3"]


def test_a_long_table_with_dates_among_its_titles_stays_long():
    text = HEAD.replace("\n", ",2023-01-01,2024-01-01,2025-01-01\n") + ROWS.replace("\n", ",1,2,3\n")
    assert read(text).frame["quantity"].sum() == TOTAL


def test_known_titles_are_those_that_are_looked_for():
    assert grid.known_titles(["Lokasi", "SKU", "Tanggal", "Jumlah", "note"]) == 4
    assert grid.known_titles(["colour", "price"], ["colour"]) == 1
    assert grid.known_titles([]) == 0


def test_names_that_stand_in_the_first_row_of_a_group_alone_are_told():
    """As in a pivot table; each row that lacks its name is a problem, and what helps is said."""
    lines = [line if at % 8 == 0 else line[1:] for at, line in enumerate(LINES)]
    table = read(HEAD + "\n".join(lines) + "\n")
    assert len(table.problems) == 28
    assert "28 of 32 cells of 'site' are empty below one that is filled" in "\n".join(table.notes)
    assert "demand['site'].ffill()" in "\n".join(table.notes)
