"""A table is read from whatever holds it, and what is no table is refused in a sentence."""

import bz2
import datetime as dt
import gzip
import io
import lzma
import re
import zipfile
from contextlib import suppress

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import dataset, parquet

from ipybatch import InputError
from ipybatch.forecast.data import reading
from ipybatch.forecast.data.table import read_table
from ipybatch.simulators import demand
from tests.forecast.data.spreadsheet import xlsx

HEAD = "site,part,date,quantity\n"
ROWS = "Kendari,P1,2025-07-01,5\nSofifi,P2,2025-07-02,7\n"
CSV = (HEAD + ROWS).encode()


@pytest.fixture(scope="module")
def table():
    """The table that every carrier holds, and what is read of it."""
    frame = demand(200)
    frame["date"] = frame["date"].astype("datetime64[us]")
    return frame, read_table(frame).frame


def arrow_types(frame):
    """As ``read_parquet(dtype_backend="pyarrow")`` gives them, with days as date32."""
    days = pa.array([stamp.date() for stamp in frame["date"]], pa.date32())
    made = pa.table({**{name: pa.array(frame[name].tolist()) for name in ("site", "part", "quantity")}, "date": days})
    return made.to_pandas(types_mapper=pd.ArrowDtype)


def sheet_of(frame):
    return [list(frame.columns), *([*row[:-1], int(row[-1])] if row else [] for row in frame.itertuples(index=False))]


def csv_of(frame, **given):
    return frame.to_csv(index=False, **given).encode()


def parquet_of(frame):
    made = io.BytesIO()
    frame.to_parquet(made)
    return made.getvalue()


def zip_of(data):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("demand.csv", data)
    return made.getvalue()


FRAMES = {
    "pandas": lambda frame: frame,
    "object": lambda frame: frame.astype(object),
    "category": lambda frame: frame.astype("category"),
    "nullable": lambda frame: frame.convert_dtypes(),
    "Arrow": arrow_types,
    "days as objects": lambda frame: frame.assign(date=[stamp.date() for stamp in frame["date"]]),
    "named index": lambda frame: frame.set_index(["site", "part", "date"]),
    "series": lambda frame: frame.set_index(["site", "part", "date"])["quantity"],
    "polars": pl.from_pandas,
    "polars lazy": lambda frame: pl.from_pandas(frame).lazy(),
    "polars categorical": lambda frame: pl.from_pandas(frame).with_columns(pl.col("site").cast(pl.Categorical)),
    "pyarrow": pa.Table.from_pandas,
    "pyarrow batch": pa.RecordBatch.from_pandas,
    "pyarrow dataset": lambda frame: dataset.dataset(pa.Table.from_pandas(frame)),
    "pyarrow date32": lambda frame: pa.Table.from_pandas(arrow_types(frame)),
    "pyarrow dictionary": lambda frame: pa.Table.from_pandas(frame.astype({"site": "category"})),
}
FILES = {
    "demand.csv": csv_of,
    "demand.csv.gz": lambda frame: gzip.compress(csv_of(frame)),
    "demand.csv.bz2": lambda frame: bz2.compress(csv_of(frame)),
    "demand.csv.xz": lambda frame: lzma.compress(csv_of(frame)),
    "demand.csv.zip": lambda frame: zip_of(csv_of(frame)),
    "demand.tsv": lambda frame: csv_of(frame, sep="\t"),
    "demand.txt": lambda frame: csv_of(frame, sep="|"),
    "marked.csv": lambda frame: csv_of(frame).decode().encode("utf-8-sig"),
    "unicode text.txt": lambda frame: csv_of(frame, sep="\t").decode().encode("utf-16"),
    "demand.xlsx": lambda frame: xlsx({"Data": sheet_of(frame)}),
    "demand.parquet": parquet_of,
    "called wrongly.csv": lambda frame: xlsx({"Data": sheet_of(frame)}),
    "called wrongly.xls": lambda frame: csv_of(frame, sep="\t"),
    "no name at all": parquet_of,
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_of_any_package_is_read(table, kind):
    frame, right = table
    pd.testing.assert_frame_equal(read_table(FRAMES[kind](frame)).frame, right, check_dtype=False)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_by_what_is_in_it(table, tmp_path, name):
    """By its path, open, and its bytes; the open one stands where it stood, so that it can be read again."""
    frame, right = table
    path = tmp_path / name
    path.write_bytes(FILES[name](frame))
    with path.open("rb") as file:
        for carrier in (path, str(path), file, file, io.BytesIO(path.read_bytes()), path.read_bytes()):
            pd.testing.assert_frame_equal(read_table(carrier).frame, right, check_dtype=False)


def test_text_that_is_open_is_read(table, tmp_path):
    frame, right = table
    path = tmp_path / "demand.csv"
    path.write_bytes(csv_of(frame))
    with path.open(encoding="utf-8") as file:
        assert read_table(file).frame.equals(right)
        assert read_table(file).frame.equals(right), "a second time"
    assert read_table(io.StringIO(path.read_text("utf-8"))).frame.equals(right)
    assert read_table(parquet.ParquetFile(io.BytesIO(parquet_of(frame)))).frame.equals(right)


def halves(frame):
    return frame.iloc[:120], frame.iloc[120:]


@pytest.mark.parametrize("kind", ["csv", "parquet", "csv.gz", "xlsx"])
def test_files_of_one_kind_are_one_table(table, tmp_path, kind):
    """A folder, a pattern, a list."""
    frame, right = table
    (tmp_path / "2025").mkdir()
    for at, part in enumerate(halves(frame)):
        data = FILES[f"demand.{kind}"](part)
        (tmp_path / "2025" / f"part {at}.{kind}").write_bytes(data)
    (tmp_path / "2025" / "_SUCCESS").write_bytes(b"")
    paths = sorted(tmp_path.glob(f"2025/*.{kind}"))
    for carrier in (tmp_path, str(tmp_path / "*" / f"*.{kind}"), str(tmp_path / "**" / f"*.{kind}"), paths):
        pd.testing.assert_frame_equal(read_table(carrier).frame, right, check_dtype=False)


def test_a_partitioned_folder_of_parquet_keeps_the_folders_names(table, tmp_path):
    frame, right = table
    parquet.write_to_dataset(pa.Table.from_pandas(frame), tmp_path / "sales", partition_cols=["site"])
    made = read_table(tmp_path / "sales").frame
    pd.testing.assert_frame_equal(made[right.columns], right, check_dtype=False)


def test_a_row_of_several_files_is_counted_from_the_first(tmp_path):
    """And the notes say where each file begins."""
    (tmp_path / "a.csv").write_text(HEAD + ROWS)
    (tmp_path / "b.csv").write_text(HEAD + "Kendari,P1,soon,5\n" + ROWS)
    table = read_table(tmp_path)
    assert list(map(str, table.problems)) == ["Invalid date format 'soon' in row 5"]
    assert (
        "2 files were read, their rows counted one after another: a.csv after row 0, b.csv after row 3" in table.notes
    )


def test_a_url_is_read(table):
    fsspec = pytest.importorskip("fsspec")
    frame, right = table
    files = fsspec.filesystem("memory")
    for at, part in enumerate(halves(frame)):
        files.pipe_file(f"/sales/part {at}.csv", csv_of(part))
    files.pipe_file("/one.parquet", parquet_of(frame))
    try:
        for url in ("memory://sales/*.csv", "memory://sales", "memory://one.parquet"):
            pd.testing.assert_frame_equal(read_table(url).frame, right, check_dtype=False)
        pd.testing.assert_frame_equal(read_table(fsspec.open("memory://one.parquet")).frame, right, check_dtype=False)
        with pytest.raises(InputError, match=r"got 'memory://sales/\*.txt', which no file fits"):
            read_table("memory://sales/*.txt")
    finally:
        files.rm("/sales", recursive=True)
        files.rm("/one.parquet")


def test_a_file_in_a_zip_is_read(table):
    with zipfile.ZipFile(io.BytesIO(zip_of(csv_of(table[0])))) as file:
        assert read_table(zipfile.Path(file, "demand.csv")).frame.equals(table[1])
        with file.open("demand.csv") as opened:
            assert read_table(opened).frame.equals(table[1])


def test_a_local_url_is_a_path(tmp_path):
    (tmp_path / "demand.csv").write_bytes(CSV)
    assert len(read_table((tmp_path / "demand.csv").as_uri()).frame) == 2


def test_whole_numbers_with_gaps_stay_whole():
    """A part number of nineteen digits is no float."""
    made = pa.table(
        {"site": ["a", "b"], "part": [9_007_199_254_740_993, None], "date": ["2025-07-01"] * 2, "y": [1, 2]}
    )
    assert read_table(made).frame["part"].tolist() == [9_007_199_254_740_993]


def test_decimals_are_numbers():
    price = pa.array([1, 2], pa.decimal128(9, 2))
    made = pa.table({"site": ["a", "b"], "part": ["p", "p"], "date": ["2025-07-01"] * 2, "y": price})
    assert read_table(made).frame["quantity"].tolist() == [1.0, 2.0]


def test_cells_that_are_lists_are_read_as_they_are_shown():
    frame = pd.DataFrame({"site": [["a"], ["b"]], "part": "p", "date": "2025-07-01", "y": 1, "tags": [["x"], ["y"]]})
    assert read_table(frame).frame["site"].tolist() == ["['a']", "['b']"]


def test_titles_of_several_levels_are_joined():
    frame = pd.DataFrame([["a", "p", "2025-07-01", 3]])
    frame.columns = pd.MultiIndex.from_tuples([("site", ""), ("part", ""), ("date", ""), ("quantity", "sum")])
    assert read_table(frame).columns["quantity"] == "quantity sum"
    assert read_table(frame).frame["quantity"].tolist() == [3.0]


def test_rows_of_a_frame_are_positions():
    """What ``demand.iloc[row]`` takes, whatever its index is."""
    frame = demand(50).set_index(pd.Index([40] * 50))
    frame.iloc[1, list(frame.columns).index("quantity")] = -7
    problem = read_table(frame).problems[0]
    assert frame.iloc[problem.row]["quantity"] == -7


@pytest.mark.parametrize("kind", ["pandas", "category", "Arrow", "nullable", "named index"])
def test_the_users_frame_is_left_alone(table, kind):
    frame = FRAMES[kind](table[0])
    before = frame.copy()
    made = read_table(frame).frame
    made.loc[0, "quantity"] = -1
    pd.testing.assert_frame_equal(frame, before)


def protected():
    """The beginning of a spreadsheet that has a password: a container of another kind."""
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le") + bytes(99)


class Odd:
    """Something with a method of a file that gives no bytes."""

    def read(self):
        return 7


class Broken:
    """A frame of a package that fails."""

    def to_pandas(self):
        raise RuntimeError("no connection")


class Spark:
    """A frame of a package whose rows are collected as a list."""

    def collect(self):
        return [("a", "p", "2025-07-01", 1)]

    def toPandas(self):  # noqa: N802  # as it is called there
        return demand(50)


def test_a_frame_that_collects_rows_is_read():
    assert len(read_table(Spark()).frame) == 50


def test_text_that_was_opened_with_another_encoding_is_told(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV.replace(b"Kendari", "Köln".encode("cp1252")))
    with (
        (tmp_path / "a.csv").open(encoding="utf-8") as file,
        pytest.raises(InputError, match='open it as bytes, with "rb"'),
    ):
        read_table(file)
    with (tmp_path / "a.csv").open("rb") as file:
        assert "Köln" in read_table(file).frame["site"].tolist()


NO_TABLES = {
    "no path": ("", "got an empty path"),
    "number": (5, "demand must be a DataFrame of pandas, polars or pyarrow, the path.* got int"),
    "none": (None, "got NoneType"),
    "class": (pd.DataFrame, "got type"),
    "records": ([{"site": 1}], r"got list: pandas.DataFrame\(demand\) makes one"),
    "frames": ([pd.DataFrame()], r"got list: pandas.concat\(demand\) makes one"),
    "columns": ({"site": [1]}, r"got dict: pandas.DataFrame\(demand\) makes one"),
    "array": (np.zeros((2, 4)), r"got ndarray: pandas.DataFrame\(demand, columns="),
    "lost": ("no such file.csv", "got 'no such file.csv': No such file or directory"),
    "pattern": ("no such folder/*.csv", "which no file fits"),
    "text": (HEAD + ROWS, r"hand over io.StringIO\(text\)"),
    "empty": (io.BytesIO(b""), "which is empty"),
    "blank": (io.BytesIO(b"\n \n"), "which is empty"),
    "titles only": (io.BytesIO(HEAD.encode()), "demand must have rows, got none"),
    "prose": (io.BytesIO(b"a letter\nof two lines\n"), "comma, semicolon, tab or .* first line is 'a letter'"),
    "zeros": (io.BytesIO(b"a\0b,c\n1,2\n"), "bytes that no text has"),
    "web page": (io.BytesIO(b"\n<!DOCTYPE html><table>"), "a web page or XML: pandas.read_html"),
    "json": (io.BytesIO(b'[{"site": 1}]'), "JSON: pandas.read_json"),
    "pdf": (io.BytesIO(b"%PDF-1.7"), "a PDF"),
    "broken parquet": (io.BytesIO(b"PAR1 and so on"), "a table that can be read"),
    "broken gz": (io.BytesIO(gzip.compress(CSV)[:20]), "a table that can be read"),
    "broken xlsx": (io.BytesIO(xlsx({"a": [["site"]]})[:300]), "a table that can be read"),
    "password": (io.BytesIO(protected()), "a file without a password, got 'the file': save it without one"),
    "no xlsx": (io.BytesIO(protected()[:600]), "a spreadsheet that can be read"),
    "empty xlsx": (io.BytesIO(xlsx({"a": [], "b": []})), "demand must have rows, got none in the sheets"),
    "odd file": (Odd(), r"whose read\(\) returns int"),
    "broken frame": (Broken(), "Broken: RuntimeError: no connection"),
    "open quotation": (io.BytesIO(b'site,part,date,quantity\n"A,P,2025-07-01,1\n'), "opens in row 2 is not"),
    "scheme": ("nosuch://bucket/a.csv", "got 'nosuch://bucket/a.csv': "),
}


@pytest.mark.parametrize("case", NO_TABLES)
def test_what_is_no_table_is_refused_in_a_sentence(case):
    given, message = NO_TABLES[case]
    with pytest.raises(InputError, match=re.compile(message, re.S)) as refused:
        read_table(given)
    assert "\n" not in str(refused.value).strip()


def test_a_folder_without_tables_is_refused(tmp_path):
    (tmp_path / "notes.md").write_text("none")
    with pytest.raises(InputError, match="which has none"):
        read_table(tmp_path)


def test_a_folder_of_two_kinds_is_asked_about(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "b.tsv").write_bytes(CSV.replace(b",", b"\t"))
    with pytest.raises(InputError, match=r"got 1 .csv and 1 .tsv in .*: name them, e.g. .*/\*.csv"):
        read_table(tmp_path)


def test_files_of_other_columns_are_refused_by_name(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "b.csv").write_bytes(CSV.replace(b"part", b"item"))
    with pytest.raises(
        InputError, match=r"files of the same columns, got .*a.csv' and .*b.csv': item, part is not in both"
    ):
        read_table(tmp_path)


def test_a_file_at_its_end_is_told():
    file = io.BytesIO(CSV)
    file.read()
    with pytest.raises(InputError, match=r"at its end: call seek\(0\)"):
        read_table(file)


def test_a_password_of_a_url_is_not_told():
    with pytest.raises(InputError) as refused:
        read_table("nosuch://me:secret@host/a.csv")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("title", ["Orchard", "Arrow1", "BZhang", "%share", "sqlite"])
def test_a_title_is_not_taken_for_the_beginning_of_another_file(title):
    table = read_table(io.BytesIO((f"{title}," + HEAD + "x," + ROWS.replace("\n", "\nx,", 1)).encode()))
    assert table.frame[title].tolist() == ["x", "x"]


@pytest.mark.parametrize("words", [{"encoding": 8}, {"sheet": 1}, {"columns": "site"}])
def test_a_wrong_word_is_refused(words):
    with pytest.raises(InputError, match=r"must be text or None|must be a dict such as"):
        read_table(io.BytesIO(CSV), **words)


def test_a_sheet_is_found_by_its_titles_or_asked_for():
    day = dt.date(2025, 7, 1)
    rows = [["site", "part", "date", "quantity"], ["Kendari", 7.0, day, 5], ["Sofifi", 8.0, day, 6]]
    one = xlsx({"Read me": [["written by hand"]], "Data": [["Sales"], [], *rows, [], ["Total", None, None, 11]]})
    table = read_table(one)
    assert table.frame["quantity"].tolist() == [5.0, 6.0]
    assert table.frame["part"].tolist() == [7, 8]
    assert "the sheet 'Data' was read, of 2 that have rows: sheet= names another" in table.notes
    two = xlsx({"July": rows, "August": [rows[0], ["Ambon", 7.0, day, 1]]})
    with pytest.raises(InputError, match=r"may be 'July' \(sheet='July'\) or 'August' \(sheet='August'\): say which"):
        read_table(two)
    assert read_table(two, sheet="August").frame["site"].tolist() == ["Ambon"]
    with pytest.raises(InputError, match=r"sheet must be one of 'July', 'August' of 'the file', got 'May'"):
        read_table(two, sheet="May")


def test_merged_cells_hold_for_each_of_their_rows():
    """Those of a column; a title that is merged across columns stands once."""
    days = [dt.date(2025, 7, day) for day in (1, 2, 3)]
    rows = [
        ["Sales"],
        ["site", "part", "date", "quantity"],
        *(["Kendari" if at == 0 else None, "p", day, 5] for at, day in enumerate(days)),
    ]
    table = read_table(xlsx({"a": rows}, merged=["A1:D1", "A3:A5"]))
    assert (table.frame["site"].tolist(), table.problems) == (["Kendari"] * 3, ())
    assert len(read_table(xlsx({"a": rows})).problems) == 2


def test_a_sheet_that_is_named_and_empty_is_told():
    with pytest.raises(InputError, match="demand must have rows, got none in 'the file'"):
        read_table(xlsx({"a": [["site"]], "b": []}), sheet="b")


def test_a_row_of_a_sheet_is_the_one_that_is_shown():
    cells = [
        ["Sales"],
        [],
        ["site", "part", "date", "quantity"],
        [],
        ["a", "p", dt.date(2025, 7, 1), -4],
        ["a", "p", dt.date(2025, 7, 1), 4],
    ]
    assert read_table(xlsx({"a": cells})).problems[0].row == 5


def test_what_is_missing_to_read_it_is_named(monkeypatch, tmp_path):
    from ipybatch import MissingExtra

    monkeypatch.setitem(__import__("sys").modules, "python_calamine", None)
    with pytest.raises(MissingExtra, match="forecast"):
        read_table(xlsx({"a": [["site"]]}))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="forecast"):
        read_table(io.BytesIO(b"PAR1"))
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(InputError, match="hand over the open file, or pip install fsspec"):
        read_table("memory://a.csv")


def test_all_that_is_accepted_is_listed():
    for word in ("pandas", "polars", "pyarrow", "folder", "pattern", "URL", ".csv", ".xlsx", ".parquet", "open file"):
        assert word in reading.ACCEPTED


MARKS = (
    '"',
    "\n",
    ",",
    ";",
    "\t",
    "\0",
    "=",
    "\r",
    "|",
    " ",
    "\ufeff",
    '""',
    "1e999",
    "-",
    "%",
    "Total",
    "\u202f",
    "nan",
)


@given(
    st.integers(0, 3), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 9), st.sampled_from(MARKS)), max_size=8)
)
def test_whatever_is_in_a_file_it_is_read_or_refused(kind, changes):
    """A mark put in or cells taken out anywhere: never another library's error."""
    text = (HEAD + ROWS * 9).replace(",", ",;\t|"[kind])
    for at, width, mark in changes:
        text = text[:at] + mark + text[at + width :]
    with suppress(InputError):
        assert len(read_table(io.BytesIO(text.encode())).frame)


def test_names_of_folders_stay_text(tmp_path):
    """007 and 7 are two sites, in a folder's name as in a file."""
    for site in ("007", "7"):
        (tmp_path / f"site={site}").mkdir()
        pd.DataFrame({"part": ["P", "P"], "date": ["2025-07-01", "2025-07-02"], "quantity": [1, 2]}).to_parquet(
            tmp_path / f"site={site}" / "part-0.parquet"
        )
    assert set(reading.read(tmp_path).frame["site"]) == {"007", "7"}


def test_an_index_without_a_name_is_no_less_a_column():
    table = pd.DataFrame({"site": "B", "part": "P", "quantity": [1.0, 2.0]})
    days = pd.date_range("2025-07-01", periods=2)
    assert reading.read(table.set_index(days)).frame["date"].to_list() == days.to_list()
    assert "date" not in reading.read(table).frame.columns
    levels = table.assign(date=days).set_index(["site", "part", "date"]).rename_axis([None] * 3)
    named = {"site": "level 0", "part": "level 1", "date": "level 2"}
    assert set(named.values()) < set(reading.read(levels, columns=named).frame.columns)
