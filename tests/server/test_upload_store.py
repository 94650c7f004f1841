"""Uploads on disk: what is found in a table, what is refused, and when they go."""

import importlib.util
import os
import time
import zipfile

import pytest

pytest.importorskip("pyarrow")
import pandas as pd

from ipybatch.engine.store import journal as journals
from ipybatch.errors import InputError
from ipybatch.server import upload_store
from ipybatch.simulators.demand import demand


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
    (b"a,b\n1,2\n\xff\xfe\n", "csv", "UTF-8"),
    (b"a\0b\n", "csv", "no text has"),
    (b"a," * 5000 + b"b\n", "csv", "2,000 columns"),
    (b"a," * 1_000_000 + b"b\n", "csv", "2,000 columns"),
    (b"a,b\n1,2,3\n4,5,6,7,8\n", "csv", "can be read"),
]


@pytest.mark.parametrize(("data", "kind", "said"), WRONG)
def test_what_cannot_be_read_is_refused_and_dropped(beside, data, kind, said):
    draft = draft_of(data)
    with pytest.raises(InputError, match=said) as refused:
        upload_store.describe(draft.path, kind)
    assert str(beside) not in str(refused.value)
    draft.drop()
    assert list(beside.iterdir()) == []


def test_a_spreadsheet_says_what_it_needs(beside, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    draft = draft_of(b"PK\x03\x04 and so on")
    with pytest.raises(InputError, match="pip install openpyxl"):
        upload_store.describe(draft.path, "xlsx")


@pytest.mark.skipif(importlib.util.find_spec("openpyxl") is None, reason="openpyxl is not installed")
def test_a_spreadsheet_is_kept_as_csv(beside, tmp_path):
    demand(60, 2).to_excel(tmp_path / "demand.xlsx", index=False)
    kept = keep((tmp_path / "demand.xlsx").read_bytes(), "xlsx")
    assert (kept.rows, kept.analysis["sites"]) == (60, 2)
    assert upload_store.path_of(kept.id).suffix == ".csv"


class Sheet:
    """What openpyxl would give: the package is optional."""

    max_column = 4

    def iter_rows(self, *, values_only):
        yield "site", "part", "date", "quantity"
        for day in range(1, 6):
            yield "Palu", "p", pd.Timestamp(2025, 1, day).to_pydatetime(), day


def test_what_a_spreadsheet_unpacks_to_is_bounded(beside, tmp_path, monkeypatch):
    class Package:
        @staticmethod
        def load_workbook(path, **_):
            return type("Book", (), {"worksheets": [Sheet()]})

    monkeypatch.setitem(__import__("sys").modules, "openpyxl", Package)
    packed = tmp_path / "sheet.xlsx"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("xl/sheet1.xml", b"0" * 1000)
    kept = keep(packed.read_bytes(), "xlsx")
    assert (kept.rows, kept.analysis["start"], kept.bytes) == (5, "2025-01-01", packed.stat().st_size)
    assert sorted(path.suffix for path in beside.iterdir()) == [".csv", ".json"]
    monkeypatch.setattr(upload_store, "_UNPACKED_BYTES", 500)
    monkeypatch.setattr(upload_store, "_UNPACKED", 1)
    draft = draft_of(packed.read_bytes())
    with pytest.raises(InputError, match="unpack to at most"):
        upload_store.describe(draft.path, "xlsx")


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
