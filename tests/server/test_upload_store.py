"""Uploads on disk: what is found in a table, what is refused, and when they go."""

import datetime as dt
import gzip
import os
import time

import pytest

pytest.importorskip("pyarrow")
import pandas as pd

from ipybatch.engine.store import journal as journals
from ipybatch.errors import InputError, MissingExtra
from ipybatch.server import upload_store
from ipybatch.simulators.demand import demand
from tests.forecast.data.spreadsheet import xlsx


@pytest.fixture(autouse=True)
def beside(tmp_path, monkeypatch):
    monkeypatch.setenv(journals.PATH_VARIABLE, str(tmp_path / "data" / "journal.sqlite3"))
    return tmp_path / "data" / "uploads"


def draft_of(data):
    draft = upload_store.Draft()
    draft.write(data)
    draft.end()
    return draft


def keep(data, kind="csv"):
    draft = draft_of(data)
    return draft.keep(upload_store.describe(draft.path, kind))


def csv_of(frame):
    return frame.to_csv(index=False).encode()


def parquet_of(frame):
    return frame.to_parquet()


@pytest.mark.parametrize(("write", "kind"), [(csv_of, "csv"), (parquet_of, "parquet")])
def test_a_demand_table_is_kept_with_its_analysis(beside, write, kind):
    frame = demand(60, 3)
    kept = keep(write(frame), kind)
    assert (kept.rows, kept.columns, kept.note) == (60, ["site", "part", "date", "quantity"], "")
    assert (kept.analysis["sites"], len(kept.analysis["partitions"])) == (3, 3)
    assert upload_store.find(kept.id) == kept
    assert upload_store.path_of(kept.id) == beside / f"{kept.id}.{kind}"
    assert beside.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in beside.iterdir()} == {0o600}
    assert len(list(beside.iterdir())) == 2


def test_the_same_table_is_the_same_upload(beside):
    assert keep(csv_of(demand(20, 1))).id == keep(csv_of(demand(20, 1))).id != keep(csv_of(demand(21, 1))).id
    assert len(list(beside.iterdir())) == 4


@pytest.mark.parametrize(("write", "kind"), [(csv_of, "csv"), (parquet_of, "parquet")])
def test_another_table_says_why_it_is_no_demand_table(write, kind):
    kept = keep(write(pd.DataFrame({"colour": ["red", "blue"], "n": [1, 2]})), kind)
    assert (kept.rows, kept.columns, kept.analysis) == (2, ["colour", "n"], None)
    assert "'site' column" in kept.note


WRONG = [
    (b"", "csv", "empty"),
    (b"PAR1 and so on", "csv", "seems to be parquet"),
    (b"PK\x03\x04 and so on", "csv", "seems to be xlsx"),
    (b"site,part\n1,2\n", "parquet", "seems to be csv"),
    (b"PAR1 and so on", "parquet", "can be read"),
    (gzip.compress(b"a,b\n1,2\n")[:-9], "csv", "can be read"),
    (b"a\0b,c\n1,2\n", "csv", "no text has"),
    (b"a," * 5000 + b"b\n", "csv", "2,000 columns"),
    (b"a," * 1_000_000 + b"b\n", "csv", "2,000 columns"),
    (b"a,b\n1,2,3\n4,5,6,7,8\n", "csv", "as many cells in a row"),
]


@pytest.mark.parametrize(("data", "kind", "said"), WRONG)
def test_what_cannot_be_read_is_refused_and_dropped(beside, data, kind, said):
    draft = draft_of(data)
    with pytest.raises(InputError, match=said) as refused:
        upload_store.describe(draft.path, kind)
    assert str(beside) not in str(refused.value)
    draft.drop()
    assert list(beside.iterdir()) == []


SHEET = [["site", "part", "date", "quantity"], *(["Palu", "p", dt.date(2025, 1, day), day] for day in range(1, 6))]


def test_a_spreadsheet_says_what_it_needs(beside, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "python_calamine", None)
    draft = draft_of(xlsx({"a": SHEET}))
    with pytest.raises(MissingExtra, match="forecast"):
        upload_store.describe(draft.path, "xlsx")


def test_a_spreadsheet_is_kept_as_it_is(beside):
    kept = keep(xlsx({"Cover": [["by hand"]], "Data": SHEET}), "xlsx")
    assert (kept.rows, kept.analysis["start"], kept.analysis["sites"]) == (5, "2025-01-01", 1)
    assert upload_store.path_of(kept.id).suffix == ".xlsx"
    upload_store.discard(kept.id)
    assert list(beside.iterdir()) == []


def test_a_spreadsheet_of_two_tables_is_kept_and_asks(beside):
    kept = keep(xlsx({"May": SHEET, "June": SHEET}), "xlsx")
    assert (kept.rows, kept.columns, kept.analysis) == (0, [], None)
    assert "got 'the file', which may be 'May' (sheet='May') or 'June' (sheet='June')" in kept.note


@pytest.mark.parametrize(
    ("data", "kind"), [(xlsx({"a": SHEET}), "xlsx"), (gzip.compress(csv_of(demand(60, 2))), "csv")]
)
def test_what_a_file_unpacks_to_is_bounded(beside, monkeypatch, data, kind):
    monkeypatch.setattr(upload_store, "_UNPACKED_BYTES", 500)
    monkeypatch.setattr(upload_store, "_UNPACKED", 0)
    draft = draft_of(data)
    with pytest.raises(InputError, match="unpack to at most"):
        upload_store.describe(draft.path, kind)
    draft.drop()
    assert list(beside.iterdir()) == []


def test_text_of_an_unknown_encoding_is_kept_and_asks(beside):
    kept = keep("a,b\n1,Łódź\n".encode("cp1250"), "csv")
    assert (kept.rows, kept.columns) == (0, [])
    assert "'Łódź' (encoding='cp1250')" in kept.note


def test_packed_text_is_kept_unpacked(beside):
    kept = keep(gzip.compress(csv_of(demand(60, 2))), "csv")
    assert kept.rows == 60
    assert upload_store.path_of(kept.id).read_bytes() == csv_of(demand(60, 2))
    assert len(list(beside.iterdir())) == 2


def test_text_of_another_encoding_is_kept_in_utf_8(beside):
    draft = draft_of(csv_of(demand(60, 2).assign(site="Łódź")).decode().encode("cp1250"))
    kept = draft.keep(upload_store.describe(draft.path, "csv", "cp1250"))
    assert "Łódź".encode() in upload_store.path_of(kept.id).read_bytes()
    assert len(list(beside.iterdir())) == 2


def test_what_takes_too_much_ends_its_own_process_alone(monkeypatch):
    monkeypatch.setattr(upload_store, "APART_S", 0.2)
    monkeypatch.setattr(upload_store, "_PRELOAD", ())
    with pytest.raises(InputError, match="can be read here"):
        upload_store.run_apart(time.sleep, 60)


@pytest.mark.parametrize("name", ["../journal", "", "x", "0" * 31, "0" * 32, "\u0660" * 32, "0" * 32 + "\n"])
def test_an_id_is_no_path(beside, name):
    (beside.parent).mkdir(exist_ok=True)
    (beside.parent / "journal.json").write_text("{}")
    assert upload_store.find(name) is None
    assert upload_store.path_of(name) is None
    upload_store.discard(name)


def test_an_upload_goes_after_a_day_unless_it_is_needed():
    old, held, used, done = (keep(csv_of(demand(rows, 1))) for rows in (20, 21, 22, 23))
    draft = draft_of(b"given up")
    now_s = time.time()
    for path in upload_store.folder_of().iterdir():
        if done.id not in path.name:
            os.utime(path, (now_s - 86_401, now_s - 86_401))
    assert upload_store.path_of(used.id) is not None, "asked for: kept for another day"
    upload_store.sweep({held.id}, now_s=now_s)
    there = [upload_store.find(each.id) is not None for each in (old, held, used, done)]
    assert there == [False, True, True, True]
    upload_store.sweep({held.id}, {done.id, held.id}, now_s=now_s + 3000)
    assert upload_store.find(done.id) is not None
    upload_store.sweep({held.id}, {done.id, held.id}, now_s=now_s + 3700)
    assert upload_store.find(done.id) is None
    assert not draft.path.exists()
    upload_store.discard(used.id)
    assert upload_store.find(used.id) is None
    assert {path.stem for path in upload_store.folder_of().iterdir()} == {held.id}
