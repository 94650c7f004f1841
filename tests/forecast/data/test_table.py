"""A demand table is cleaned, and everything wrong with it is told by column, row and value."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.forecast.data.table import Problem, read_table, refuse, tell
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


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("date", "31/13/2025", "Invalid date format '31/13/2025' in row 1"),
        ("date", None, "Missing date in row 1"),
        ("quantity", -3, "Negative quantity -3 in row 1"),
        ("quantity", float("nan"), "Missing quantity in row 1"),
        ("quantity", "", "Missing quantity in row 1"),
        ("quantity", "many", "Invalid quantity 'many' in row 1"),
        ("quantity", "1,5", "Invalid quantity '1,5' in row 1"),
        ("quantity", float("inf"), "Invalid quantity 'inf' in row 1"),
        ("quantity", -float("inf"), "Invalid quantity '-inf' in row 1"),
        ("site", None, "Missing site in row 1"),
        ("site", "  ", "Missing site in row 1"),
        ("part", float("nan"), "Missing part in row 1"),
    ],
)
def test_a_row_that_cannot_be_used_is_told(column, value, told):
    """By column, row and value; the others are used all the same."""
    frame = rows(GOOD, GOOD, ("Sofifi", "P2", "2025-07-31", 2)).astype(object)
    frame.loc[1, column] = value
    table = read_table(frame)
    assert [str(problem) for problem in table.problems] == [told]
    assert (table.problems[0].column, table.problems[0].row) == (column, 1)
    assert len(table.frame) == 2


def test_every_problem_of_a_row_is_told():
    table = read_table(rows(GOOD, ("Sofifi", None, "soon", -1)))
    assert [problem.column for problem in table.problems] == ["part", "date", "quantity"]
    assert {(problem.row, problem.site, problem.part) for problem in table.problems} == {(1, "Sofifi", None)}


def test_a_problem_names_the_users_column():
    frame = rows(GOOD, ("Sofifi", "P1", "2025-07-02", -1), columns=("Lokasi X", "SKU", "ds", "y"))
    assert read_table(frame, columns={"site": "Lokasi X"}).problems[0].column == "y"


def test_rows_of_a_file_are_those_a_spreadsheet_shows(tmp_path):
    """The titles are row 1; blank lines count and are no problem; blanks within quotes are not lines."""
    path = tmp_path / "demand.csv"
    path.write_text(
        'site,part,date,quantity\nSofifi,"P\n1",2025-07-01,1\n\nSofifi,P2,31/13/2025,1\n,,,\nSofifi,P3,2025-07-02,-2\n'
    )
    assert list(map(str, read_table(path).problems)) == [
        "Invalid date format '31/13/2025' in row 4",
        "Negative quantity -2 in row 6",
    ]


def test_rows_of_a_frame_are_positions():
    """What ``demand.iloc[row]`` takes, whatever its index is."""
    frame = rows(GOOD, ("Sofifi", "P1", "2025-07-02", -7)).set_index(pd.Index([40, 40]))
    problem = read_table(frame).problems[0]
    assert frame.iloc[problem.row]["quantity"] == -7


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_reads_as_its_frame(tmp_path, sep, encoding):
    path = tmp_path / "demand.csv"
    demand(200).to_csv(path, index=False, sep=sep, encoding=encoding)
    assert read_table(path).frame.equals(read_table(demand(200)).frame)
    assert read_table(io.BytesIO(path.read_bytes())).frame.equals(read_table(str(path)).frame)


def test_a_parquet_file_is_read(tmp_path):
    demand(200).to_parquet(tmp_path / "demand.parquet")
    assert read_table(tmp_path / "demand.parquet").frame.equals(read_table(demand(200)).frame)


def test_names_of_a_file_stay_as_they_are_written():
    """Namibia's NA is no gap, and part 007 is not part 7."""
    table = read_table(io.BytesIO(b"site,part,date,qty\nNA,007,2025-07-01,1\nNA,7,2025-07-01,1\n"))
    assert table.frame[["site", "part"]].to_numpy().tolist() == [["NA", "007"], ["NA", "7"]]
    assert table.problems == ()


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


@pytest.mark.parametrize("parts", [[22423, 7], [22423.0, 7.0], pd.array([22423, 7], dtype="Int64")])
def test_whole_numbers_stay_numbers(parts):
    """So that the forecast can be joined to the user's table."""
    frame = pd.DataFrame({"site": "a", "part": parts, "date": "2025-07-01", "quantity": 1})
    assert read_table(frame).frame["part"].tolist() == [7, 22423]


def test_numbers_beside_texts_are_texts():
    frame = pd.DataFrame({"site": "a", "part": [22423, "15056BL"], "date": "2025-07-01", "quantity": 1})
    assert read_table(frame).frame["part"].tolist() == ["15056BL", "22423"]


def test_the_users_frame_is_left_alone():
    frame = demand(100)
    before = frame.copy()
    table = read_table(frame).frame
    table.loc[0, "quantity"] = -1
    assert frame.equals(before)


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
            "got 2 of which none can: Invalid date format 'soon' in row 0",
        ),
        (5, "demand must be a DataFrame or the path of a .csv or .parquet file, got int"),
        ("no such file.csv", "got 'no such file.csv': No such file or directory"),
        (io.BytesIO(b""), "demand must be a table that can be read"),
        (io.BytesIO("site,part\nM\xfcnchen,1".encode("latin-1")), "in UTF-8"),
    ],
)
def test_what_is_no_table_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        read_table(given)


def test_refusing_tells_the_first_few():
    problems = [Problem("date", row, "x", "Invalid date format 'x'") for row in range(9)]
    refuse([])
    assert tell(problems[:2]) == "Invalid date format 'x' in row 0; Invalid date format 'x' in row 1"
    with pytest.raises(InputError, match="in row 4 and 4 more: correct or drop these rows"):
        refuse(problems)


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
