"""What is wrong with a row is told by column, row and value."""

import pandas as pd
import pytest

from ipybatch.forecast.data.problems import BadRows, Problem, refuse, tell
from ipybatch.forecast.data.table import read_table


def rows(*cells, columns=("site", "part", "date", "quantity")):
    """A frame of rows; "2025-07-01" stands for a day."""
    return pd.DataFrame(cells, columns=list(columns))


GOOD = ("Sofifi", "P1", "2025-07-01", 1)


def test_refusing_tells_the_first_few():
    problems = [Problem("date", row, "x", "Invalid date format 'x'") for row in range(9)]
    refuse([])
    assert tell(problems[:1]) == "Invalid date format 'x' in row 0"
    with pytest.raises(BadRows, match=r"in 9 rows: row 0 .x., row 1 .x., row 2 .x. and 6 more: correct these") as told:
        refuse(problems)
    assert told.value.rows["row"].tolist() == list(range(9))


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("date", "31/13/2025", "Invalid date format '31/13/2025' in row 1"),
        ("date", None, "Missing date in row 1"),
        ("quantity", -3, "Negative quantity -3 in row 1"),
        ("quantity", float("nan"), "Missing quantity in row 1"),
        ("quantity", "", "Missing quantity in row 1"),
        ("quantity", "many", "Invalid quantity 'many' in row 1"),
        ("quantity", "1,5,5", "Invalid quantity '1,5,5' in row 1"),
        ("quantity", "(1,5)", "Negative quantity (1,5) in row 1"),
        ("quantity", "N/A", "Missing quantity 'N/A' in row 1"),
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
