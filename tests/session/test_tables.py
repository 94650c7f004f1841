"""DataFrames as items: a row is an item, its key survives the process, and its columns come back with the results."""

import datetime as dt
import json
import subprocess
import sys

import msgspec
import numpy as np
import pandas as pd
import pytest

from ipybatch import BatchSession, InputError

TOWNS = pd.DataFrame({"town": ["Sofifi", "Manado", "Ambon"], "stock": [3, 5, 8]})


async def seen(item):
    return {"seen": f"{item['town']} {item['stock']}"}


async def same(item):
    return item


@pytest.mark.parametrize(
    ("frame", "keys"),
    [
        (TOWNS.assign(id=["a", "b", "c"], key=[1, 2, 3]), ["a", "b", "c"]),
        (TOWNS.assign(key=[11, 12, 13]), [11, 12, 13]),
        (TOWNS.set_axis(["x", "y", "z"]), ["x", "y", "z"]),
        (TOWNS, [0, 1, 2]),
        (TOWNS.set_axis(pd.date_range("2026-11-29", periods=3)), [f"2026-11-{day}T00:00:00" for day in (29, 30)]),
        (TOWNS.set_axis(pd.MultiIndex.from_tuples([("de", 1), ("de", 2), ("fr", 1)])), ['["de",1]', '["de",2]']),
        (TOWNS.iloc[[2, 0, 1]], [2, 0, 1]),
    ],
    ids=["id before key", "key", "text index", "numbers", "dates", "two levels", "reordered"],
)
def test_a_row_is_an_item_with_its_id_key_or_index_as_key(plan, clock, frame, keys):
    session = plan(seen, frame)
    clock.run(session)
    results = session.results()
    assert results["key"].tolist()[: len(keys)] == keys
    assert results["seen"].tolist() == [f"{row.town} {row.stock}" for row in frame.itertuples()]
    assert results.index.equals(frame.index)


def test_key_wins_over_columns_and_index(plan):
    session = plan(seen, TOWNS.assign(id=[1, 2, 3]), key=lambda row: row["town"])
    assert session.results()["key"].tolist() == ["Sofifi", "Manado", "Ambon"]


CELLS = {
    "whole": (np.array([1, 2], "int64"), 1),
    "small": (np.array([1, 2], "uint8"), 1),
    "real": ([1.5, 2.5], 1.5),
    "missing": ([np.nan, 1.0], None),
    "flag": ([True, False], True),
    "maybe": (pd.array([None, 1], "Int64"), None),
    "maybe flag": (pd.array([True, None], "boolean"), True),
    "text": (["a", None], "a"),
    "string": (pd.array([None, "a"], "string"), None),
    "moment": ([pd.Timestamp("2026-11-29 12:00"), pd.NaT], "2026-11-29T12:00:00"),
    "zone": (pd.to_datetime(["2026-11-29T12:00Z"] * 2), "2026-11-29T12:00:00+00:00"),
    "no moment": ([pd.NaT, pd.Timestamp("2026-11-29")], None),
    "day": ([dt.date(2026, 11, 29)] * 2, "2026-11-29"),
    "month": (pd.period_range("2026-11", periods=2, freq="M"), "2026-11"),
    "kind": (pd.Categorical(["x", "y"]), "x"),
    "scalars": (pd.Series([np.int64(7), np.float64("nan")], dtype=object), 7),
    "list": ([[np.int64(1), np.nan], []], [1, None]),
    "array": (pd.Series([np.array([1, 2]), None], dtype=object), [1, 2]),
}


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_becomes_what_json_can_hold(plan, clock, cell):
    """Numpy's scalars are Python's, what is missing is None, and times are ISO texts."""
    given, value = CELLS[cell]
    got = []

    async def work(item):
        got.append(item)

    session = plan(work, pd.DataFrame({cell: given}))
    clock.run(session)
    (first, _) = got
    assert first == {cell: value}
    assert type(first[cell]) is type(value)
    assert msgspec.json.decode(msgspec.json.encode(got)) == got


def test_two_rows_with_one_key_are_refused_by_number(plan):
    with pytest.raises(InputError, match=r"items 0 and 2 share the key \"a\""):
        plan(seen, TOWNS.assign(id=["a", "b", "a"]))
    with pytest.raises(InputError, match="items 0 and 1 share the key 5"):
        plan(seen, TOWNS.set_axis([5, 5, 6]))


def test_a_row_without_a_key_is_refused_by_number(plan):
    with pytest.raises(InputError, match=r"item 1 .* has no stable key"):
        plan(seen, TOWNS.assign(id=["a", None, "c"]))


def test_two_columns_of_one_name_are_refused(plan):
    with pytest.raises(InputError, match="got two named 'town'"):
        plan(seen, pd.concat([TOWNS, TOWNS], axis=1))


def test_a_frame_without_rows_is_done(plan, clock):
    assert clock.run(plan(seen, TOWNS.iloc[:0])).state == "completed"
    assert clock.run(plan(seen, pd.DataFrame(), name="none")).counts.total == 0


def test_a_series_is_the_list_of_its_values(plan, clock):
    session = plan(same, pd.Series(pd.to_datetime(["2026-11-29", "2026-11-30"]), index=["x", "y"]))
    clock.run(session)
    assert session.results()["result"].tolist() == ["2026-11-29T00:00:00", "2026-11-30T00:00:00"]
    with pytest.raises(InputError, match=r"item 1 .* has no stable key"):
        plan(same, pd.Series([1.0, np.nan]), name="other")


class Table:
    """What polars' frames have of ours."""

    columns = ("id", "day")

    def to_dicts(self):
        return [{"id": 7, "day": dt.date(2026, 11, 29)}, {"id": 8, "day": None}]


def test_what_gives_its_rows_as_dicts_is_a_table(plan, clock):
    session = plan(same, Table())
    clock.run(session)
    frame = session.results(with_items=True)
    assert frame[["id", "key"]].to_numpy().tolist() == [[7, 7], [8, 8]]
    assert frame["day"][0] == "2026-11-29"
    assert pd.isna(frame["day"][1])


@pytest.mark.parametrize("scalar", [np.int64(1), np.int8(1), np.uint16(1)])
def test_a_number_of_numpys_is_the_key_that_pythons_is(plan, clock, scalar):
    """In a list, in a field, and where key= returns it: what is recorded under one is found under the other."""
    clock.run(plan(same, [{"id": 1}, {"id": 2}]))
    again = plan(same, [{"id": scalar}, {"id": 2}])
    assert again.results()["key"].tolist() == [1, 2]
    assert again.counts.completed == 2
    assert plan(same, [{"id": 1}, {"id": 2}], key=lambda item: scalar * item["id"], name="k").results()[
        "key"
    ].tolist() == [1, 2]


def test_a_frame_is_found_again_by_the_frame_and_by_its_rows(plan, clock):
    """Keys and digests are those of the plain values, so that a resume runs nothing again."""
    frame = TOWNS.assign(id=np.array([1, 2, 3]), at=pd.Timestamp("2026-11-29"))
    clock.run(plan(seen, frame))
    assert plan(seen, frame.copy()).counts.completed == 3
    rows = [{"town": t, "stock": s, "id": i, "at": "2026-11-29T00:00:00"} for t, s, i in frame.iloc[:, :3].to_numpy()]
    assert plan(seen, rows).counts.completed == 3
    assert plan(seen, frame.assign(stock=0)).counts.completed == 0


CHILD = """
import sys, pandas as pd
from ipybatch import BatchSession
columns = {"town": ["Sofifi", "Ambon"], "at": pd.Timestamp("2026-11-29"), "share": [0.1, None]}
frame = pd.DataFrame(columns, index=["s", "a"])
print(BatchSession("towns", lambda row: row["town"], frame, journal=sys.argv[1]).run())
"""


def test_a_frame_survives_its_process(journal):
    """Another process finds what is recorded of each row, and the rows themselves."""
    for _ in range(2):
        told = subprocess.run([sys.executable, "-c", CHILD, str(journal)], capture_output=True, text=True, check=True)
        assert told.stdout == "towns completed: 2/2 successful, 0 failed, 0 skipped\n"
    reopened = BatchSession.open("towns", journal=journal)
    frame = reopened.results(with_items=True)
    assert frame["attempts"].tolist() == [1, 1]
    assert json.loads(frame.iloc[:, :5].to_json(orient="records")) == [
        {"town": "Sofifi", "at": "2026-11-29T00:00:00", "share": 0.1, "key": "s", "status": "completed"},
        {"town": "Ambon", "at": "2026-11-29T00:00:00", "share": None, "key": "a", "status": "completed"},
    ]


NO_PANDAS = """
import sys
from ipybatch import BatchSession
BatchSession("plain", str, [1, {"id": 2}], journal=sys.argv[1])
print("pandas" in sys.modules)
"""


def test_items_that_are_no_frame_do_not_load_pandas(journal):
    told = subprocess.run([sys.executable, "-c", NO_PANDAS, str(journal)], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_items_come_before_the_results(plan, clock):
    """A field of the item that has a name of ours is prefixed, and so is a result's that has a name of the item's."""

    async def work(item):
        return {"town": item["town"].upper(), "error": "none", "note": 1}

    session = plan(work, TOWNS.assign(key=[11, 12, 13]))
    clock.run(session)
    columns = session.results(with_items=True).columns.tolist()
    assert columns[:3] == ["town", "stock", "item_key"]
    assert columns[3:8] == ["key", "status", "attempts", "seconds", "error"]
    assert columns[8:] == ["result_town", "result_error", "note"]
    assert session.results().columns.tolist()[5:] == ["town", "result_error", "note"]


def test_items_that_are_no_dicts_stand_in_a_column_of_their_own(plan, clock):
    session = plan(same, ["a", 2, {"id": 3, "item": 4}])
    clock.run(session)
    frame = session.results(with_items=True)
    assert frame["item"].tolist() == ["a", 2, None]
    assert frame["item_item"].dropna().tolist() == [4]


def test_items_of_a_generator_are_kept_by_nobody(plan, clock):
    session = plan(same, iter([1, 2]))
    clock.run(session)
    with pytest.raises(InputError, match="with_items needs a session whose items are a list or a DataFrame"):
        session.results(with_items=True)


def test_rows_that_the_work_added_follow_the_frame(plan, clock):
    async def work(item, attempt):
        if item["id"] == "a":
            attempt.add([{"id": "more"}])

    session = plan(work, pd.DataFrame({"id": ["a", "b"]}, index=[10, 20]))
    clock.run(session)
    assert session.results().index.tolist() == [10, 20, "more"]
