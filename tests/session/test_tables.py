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


INDEXES = {
    "zone": (pd.date_range("2026-11-29", periods=3, tz="Asia/Jakarta"), "2026-11-29T00:00:00+07:00"),
    "months": (pd.period_range("2026-11", periods=3, freq="M"), "2026-11"),
    "durations": (pd.timedelta_range("1h", periods=3), "P0DT1H0M0S"),
    "intervals": (pd.interval_range(0, 3), "(0, 1]"),
    "categories": (pd.CategoricalIndex(["x", "y", "z"]), "x"),
    "fractions": ([0.5, 1.0, 2.5], 0.5),
    "nullable": (pd.Index([7, 8, 9], dtype="Int64"), 7),
    "levels with a gap": (pd.MultiIndex.from_tuples([("de", "a"), ("de", None), ("fr", "a")]), '["de","a"]'),
    "levels with dates": (
        pd.MultiIndex.from_product([["de"], pd.date_range("2026-11-29", periods=3)]),
        '["de","2026-11-29T00:00:00"]',
    ),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_any_index_gives_keys_and_comes_back(plan, clock, kind):
    """A second session finds each row again by it."""
    index, first = INDEXES[kind]
    frame = TOWNS.set_axis(index)
    session = plan(seen, frame)
    clock.run(session)
    assert session.results()["key"][frame.index[0]] == first
    assert session.results().index.equals(frame.index)
    assert plan(seen, frame).counts.completed == 3


IDS = {
    "nullable": (pd.array([1, 2, 3], "Int64"), 1),
    "text": (pd.array(["a", "b", "c"], "string"), "a"),
    "categories": (pd.Categorical([7, 8, 9]), 7),
    "dates": (pd.date_range("2026-11-29", periods=3), "2026-11-29T00:00:00"),
    "pairs": ([("a", 1), ("b", 2), ("c", 3)], '["a",1]'),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_kind_are_keys(plan, clock, kind):
    ids, first = IDS[kind]
    session = plan(seen, TOWNS.assign(id=ids))
    clock.run(session)
    assert session.results()["key"].tolist()[0] == first
    assert plan(seen, TOWNS.assign(id=ids)).counts.completed == 3


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (TOWNS.assign(id=[1.0, np.nan, 3.0]), "item 1 .* has no stable key: its key is None"),
        (TOWNS.assign(id=pd.array([1, None, 3], "Int64")), "item 1 .* has no stable key: its key is None"),
        (TOWNS.assign(id=pd.to_datetime(["2026-11-29", None, "2026-11-30"])), "item 1 .* its key is None"),
        (TOWNS.assign(id=[1.0, np.inf, 3.0]), "item 1 .* its key is inf"),
        (TOWNS.assign(id=pd.Series(["a", "\ud800", "c"], dtype=object)), "item 1 .* has no stable key"),
        (TOWNS.assign(id=[object(), object(), object()]), "item 0 .*JSON cannot hold a object"),
        (TOWNS.assign(id=[True, False, True]), "items 0 and 2 share the key true"),
        (TOWNS.set_axis([1.0, np.nan, 3.0]), "item 1 .* its key is None"),
        (TOWNS.set_axis(pd.to_datetime(["2026-11-29"] * 3)), "items 0 and 1 share the key"),
        (TOWNS.set_axis(pd.MultiIndex.from_tuples([("de", 1), ("de", 1), ("fr", 1)])), "items 0 and 1 share the key"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "got two named '1': rename one"),
        (pd.DataFrame([[1, 2]], columns=[None, np.nan]), "got two named"),
        (np.array(5), r"items must be a list or a generator, got array\(5\)"),
        (bytearray(b"abc"), "items must be a list or a generator of items, got bytearray"),
    ],
)
def test_a_table_that_gives_no_keys_is_refused_by_row_or_column(plan, journal, frame, words):
    with pytest.raises(InputError, match=words):
        plan(seen, frame)
    assert not journal.exists()


def test_columns_named_like_ours_come_back_beside_them(plan, clock):
    ours = {"status": "s", "attempts": 9, "seconds": 9.0, "error": "e", "result": "r", "item": "i"}
    session = plan(same, TOWNS.assign(key=[11, 12, 13], **ours))
    clock.run(session)
    frame = session.results(with_items=True)
    assert frame["status"].tolist() == ["completed"] * 3
    assert frame[["item_key", "item_status", "item_attempts", "item_error"]].to_numpy().tolist()[0] == [11, "s", 9, "e"]
    assert frame["key"].tolist() == [11, 12, 13]
    assert len(set(frame.columns)) == len(frame.columns)


def test_columns_of_several_levels_have_one_name_each(plan, clock):
    """As `reset_index` leaves them: the level that is empty is no part of the name."""
    columns = pd.MultiIndex.from_tuples([("id", ""), ("stock", "max")])
    session = plan(same, pd.DataFrame([[7, 2], [8, 4]], columns=columns))
    clock.run(session)
    assert session.results()["key"].tolist() == [7, 8]
    assert session.results()["stock max"].tolist() == [2, 4]


def test_a_cell_of_half_a_character_is_an_item_like_others(plan, clock):
    """What os.fsdecode gives for odd file names: the row runs, and is shown."""
    session = plan(seen, TOWNS.assign(file=pd.Series(["a", "bad\udce9name", "c"], dtype=object)))
    clock.run(session)
    assert session.counts.failed == 0
    assert session.results(with_items=True)["file"].tolist() == ["a", "bad\udce9name", "c"]


@pytest.mark.parametrize("empty", [TOWNS.iloc[:0], TOWNS.assign(id=1).iloc[:0], pd.DataFrame()], ids=len)
def test_an_empty_table_adds_nothing(plan, clock, empty):
    async def work(item, attempt):
        return attempt.add(empty)

    session = plan(work, ["a"])
    assert clock.run(session).counts.total == 1
    assert session.results()["result"].tolist() == [0]


MORE = {
    "id": (pd.DataFrame({"id": [7, 8], "name": ["x", "y"]}), [7, 8]),
    "index": (pd.DataFrame({"name": ["x", "y"]}, index=["p", "q"]), ["p", "q"]),
    "levels": (
        pd.DataFrame({"name": ["x", "y"]}, index=pd.MultiIndex.from_tuples([("d", 1), ("d", 2)])),
        ['["d",1]', '["d",2]'],
    ),
    "series": (pd.Series([7, 8]), [7, 8]),
    "array": (np.array([7, 8]), [7, 8]),
    "range": (range(7, 9), [7, 8]),
    "generator": (None, [7, 8]),
}


@pytest.mark.parametrize("kind", MORE)
def test_what_the_work_adds_is_read_as_the_session_s_items_are(plan, clock, kind):
    """Rows of a frame with their keys, and numpy's values as Python's; a resume knows them under these."""
    more, keys = MORE[kind]
    ran = []

    async def work(item, attempt):
        if item == "first":
            return attempt.add((number for number in (7, 8)) if more is None else more)
        return ran.append(item)

    session = plan(work, ["first"])
    clock.run(session)
    assert session.results()["key"].tolist() == ["first", *keys]
    assert session.results()["result"][0] == 2
    assert all(type(item) in (dict, int) for item in ran)
    if isinstance(more, pd.DataFrame):
        assert [item["name"] for item in ran] == ["x", "y"]
    again = plan(work, ["first"])
    assert clock.run(again).counts.completed == 3
    assert len(ran) == 2


def test_what_the_work_adds_has_the_keys_that_key_gives(plan, clock):
    async def work(item, attempt):
        if item["name"] == "first":
            attempt.add(pd.DataFrame({"id": [7], "name": ["x"]}))

    session = plan(work, [{"name": "first"}], key=lambda item: item["name"])
    clock.run(session)
    assert session.results()["key"].tolist() == ["first", "x"]


@pytest.mark.parametrize(
    "wrong", ["abc", b"abc", bytearray(b"a"), {"x": 1}, 5, None, pd.concat([TOWNS, TOWNS], axis=1)], ids=type
)
def test_what_is_no_list_is_refused_alike_wherever_it_is_given(plan, clock, wrong):
    """By the same words in the constructor and by `attempt.add`; nothing is added."""
    with pytest.raises(InputError, match="items must be") as refused:
        plan(same, wrong)

    async def work(item, attempt):
        attempt.add(wrong)

    session = plan(work, [1])
    assert clock.run(session).counts.total == 1
    assert str(refused.value) in session.results()["error"][0]


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
