"""A table is read from whatever holds it."""

import io

import pandas as pd
import pytest

from ipybatch import InputError
from ipybatch.forecast.data.table import read_table
from ipybatch.simulators import demand


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
    frame = demand(50).set_index(pd.Index([40] * 50))
    frame.iloc[1, list(frame.columns).index("quantity")] = -7
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


def test_the_users_frame_is_left_alone():
    frame = demand(100)
    before = frame.copy()
    table = read_table(frame).frame
    table.loc[0, "quantity"] = -1
    assert frame.equals(before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "demand must be a DataFrame or the path of a .csv or .parquet file, got int"),
        ("no such file.csv", "got 'no such file.csv': No such file or directory"),
        (io.BytesIO(b""), "demand must be a table that can be read"),
        (io.BytesIO("site,part\nM\xfcnchen,1".encode("latin-1")), "in UTF-8"),
    ],
)
def test_what_is_no_table_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        read_table(given)
