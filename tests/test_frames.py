"""Frames and files: what the results look like, and that a file is whole or not there."""

import json

import pandas as pd
import pytest

from ipybatch import InputError, Limits, Permanent

RESULTS = {
    1: {"name": "Portal", "price": 9.99},
    2: {"name": "=HYPERLINK(1)", "price": 20.0},
    3: None,
}


async def look_up(item):
    if item == 4:
        raise ValueError("+bad")
    return RESULTS[item]


@pytest.fixture
def done(plan, clock):
    session = plan(look_up, [1, 2, 3, 4], limits=Limits(concurrency=1))
    clock.run(session)
    return session


def test_results_are_one_row_per_item_in_input_order(done):
    frame = done.results()
    assert frame.columns.tolist() == ["key", "status", "attempts", "seconds", "error", "name", "price"]
    assert frame["key"].tolist() == [1, 2, 3, 4]
    assert frame["status"].tolist() == ["completed", "completed", "completed", "failed"]
    assert frame["error"].tolist() == ["", "", "", "ValueError: +bad"]
    assert frame["price"][:2].tolist() == [9.99, 20.0]


def test_results_before_the_start_are_pending(plan):
    frame = plan(look_up, [1, 2]).results()
    assert frame[["key", "status"]].to_numpy().tolist() == [[1, "pending"], [2, "pending"]]


def test_a_column_that_collides_with_ours_is_prefixed(plan, clock):
    async def work(item):
        return {"key": "k", "status": "s", "attempts": 9, "seconds": 0.5, "error": "e", "name": "n"}

    session = plan(work, [1])
    clock.run(session)
    row = session.results().iloc[0]
    assert (row["key"], row["status"], row["error"]) == (1, "completed", "")
    assert (row["result_key"], row["result_status"], row["result_error"], row["name"]) == ("k", "s", "e", "n")


def test_two_columns_never_become_one(plan, clock):
    """A field that is already named as the prefix would name it loses nothing."""

    async def work(item):
        return {"key": 1, "result_key": 2}

    session = plan(work, [1])
    clock.run(session)
    row = session.results().iloc[0]
    assert sorted(int(row[name]) for name in row.index if name not in done_columns()) == [1, 2]


def done_columns():
    return ("key", "status", "attempts", "seconds", "error")


def test_plain_results_stand_in_the_column_result(plan, clock):
    async def work(item):
        return {"name": "x"} if item == 2 else item * 10

    session = plan(work, [1, 2, 3])
    clock.run(session)
    frame = session.results()
    assert frame["result"].tolist()[::2] == [10, 30]
    assert frame["name"].tolist()[1] == "x"


NESTED = {
    "fields of fields": ([{"a": {"b": 1, "c": {"d": 2}}, "e": 3}], {"a.b": 1, "a.c.d": 2, "e": 3}),
    "lists": ([{"a": {"b": [{"c": 1}]}}], {"a.b": [{"c": 1}]}),
    "nothing in it": ([{"a": {}}], {"a": {}}),
    "a name of ours": ([{"error": {"code": 4}, "key": {"status": 5}}], {"error.code": 4, "key.status": 5}),
    "ours": ([{"error": 4}], {"result_error": 4}),
    "a field of that name": ([{"a": {"b": 1}, "a.b": 2}], {"a.b": 1, "result_a.b": 2}),
    "a field of both names": (
        [{"a": {"b": 1}, "a.b": 2, "result_a.b": 3}],
        {"a.b": 1, "result_result_a.b": 2, "result_a.b": 3},
    ),
    "no dict": ([{"result": {"b": 1}}, 7], {"result.b": 1}),
    "a field once more": ([{"a": {"b": 1}}, {"a": 7}], {"a.b": 1}),
}


@pytest.mark.parametrize("nested", NESTED)
def test_flat_columns_hold_the_fields_of_fields(plan, clock, nested):
    """None of them shadows another, whatever they are called."""
    results, first = NESTED[nested]

    async def work(item):
        return results[item]

    session = plan(work, list(range(len(results))))
    clock.run(session)
    row = session.results(columns="flat").astype(object).iloc[0].drop(list(done_columns()))
    assert row.dropna().to_dict() == first
    assert "a.b" not in session.results() or "a.b" in results[0]


def test_a_field_shadows_no_column_of_the_items(plan, clock):
    """Of the item, of the result and of its fields each stands in its own column, in whatever order they come."""

    async def work(item):
        return {"a": {"b": 1}, "result_a.b": 2, "c": 3, "result_c": 4}

    session = plan(work, [{"id": 7, "a.b": 10, "result_a.b": 20, "c": 30, "result_c": 40}])
    clock.run(session)
    frame = session.results(with_items=True, columns="flat")
    assert sorted(frame.drop(columns=list(done_columns())).iloc[0]) == [1, 2, 3, 4, 7, 10, 20, 30, 40]
    assert (frame["a.b"][0], frame["c"][0], frame["result_c"][0]) == (10, 30, 40)


def test_there_are_no_other_columns_than_flat(done):
    with pytest.raises(InputError, match="columns must be 'flat' or None, got 'wide'"):
        done.results(columns="wide")


def test_lists_and_dicts_are_json_in_csv(plan, clock, tmp_path):
    """Python's own form would be no JSON: None, True, and texts in single quotes."""
    answer = {"tags": ["it's", None, True], "data": {"name": "Vega", "far": 25.0}, "text": "['plain']", "n": 1}

    async def work(item):
        return answer if item else {"n": None}

    session = plan(work, [0, 1])
    clock.run(session)
    frame = pd.read_csv(session.save(tmp_path / "out.csv"), dtype={"n": "Int64"})
    assert json.loads(frame["tags"][1]) == answer["tags"]
    assert json.loads(frame["data"][1]) == answer["data"]
    assert (frame["text"][1], frame["n"][1]) == ("['plain']", 1)
    assert frame.iloc[0][["tags", "data", "text", "n"]].isna().all()


def test_csv_is_written_with_formulas_escaped(done, tmp_path):
    """A spreadsheet must not run what a service sent: =, +, -, @, tab and return are escaped."""
    frame = pd.read_csv(done.save(tmp_path / "out.csv"), keep_default_na=False)
    assert frame["name"].tolist()[1] == "'=HYPERLINK(1)"
    assert frame["key"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "+1",
        "-1",
        "@SUM",
        "\tx",
        "\rx",
        "\nx",
        " =1",
        "\n\n=1",
        "\u200b\ufeff=1",
        "\u202e-1",
        "\uff1d1+1",
        "\u3000\uff0b1",
        "\uff0d1",
        "\uff20SUM",
    ],
)
def test_every_start_of_a_formula_is_escaped(plan, clock, tmp_path, text):
    async def work(item):
        return {text: text}

    session = plan(work, [text])
    clock.run(session)
    path = session.save(tmp_path / "out.csv")
    frame = pd.read_csv(path, dtype=str)
    assert frame["key"].tolist() == ["'" + text]
    assert frame.columns[-1] == "'" + text
    assert frame.iloc[0, -1] == "'" + text


def test_numbers_are_not_taken_for_formulas(plan, clock, tmp_path):
    async def work(item):
        return {"delta": -item}

    session = plan(work, [1, 2])
    clock.run(session)
    assert pd.read_csv(session.save(tmp_path / "out.csv"))["delta"].tolist() == [-1, -2]


def test_jsonl_keeps_every_result_as_it_was(done, tmp_path):
    lines = [json.loads(line) for line in done.save(tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [1, 2, 3, 4]
    assert (lines[1]["name"], lines[3]["error"]) == ("=HYPERLINK(1)", "ValueError: +bad")


def test_parquet_comes_back_as_the_frame(done, tmp_path):
    frame = pd.read_parquet(done.save(tmp_path / "out.parquet"))
    assert frame["key"].tolist() == [1, 2, 3, 4]
    assert frame["price"].tolist()[:2] == [9.99, 20.0]


def test_parquet_takes_columns_of_mixed_kinds(plan, clock, tmp_path):
    async def work(item):
        return {"value": [1, "two", {"three": [4]}][item]}

    session = plan(work, [0, 1, 2])
    clock.run(session)
    assert len(pd.read_parquet(session.save(tmp_path / "out.parquet"))) == 3


def test_parquet_keeps_what_is_missing_beside_what_is_there(plan, clock, tmp_path):
    """As in the results of a batch of which one item failed: whole numbers, texts, truths, dicts."""
    there = {"count": 2**60 + 1, "text": "said", "is_whole": True, "usd": 0.5, "data": {"a": [1]}}

    async def work(item):
        if item == "failed":
            raise Permanent("not there")
        return there

    session = plan(work, ["there", "failed"])
    clock.run(session)
    frame = pd.read_parquet(session.save(tmp_path / "out.parquet"))
    assert frame.loc[0, list(there)].to_dict() == there | {"data": '{"a":[1]}'}
    assert frame.loc[1, list(there)].isna().all()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_an_empty_session_can_be_saved(plan, clock, tmp_path, suffix):
    session = plan(look_up, [])
    clock.run(session)
    assert session.save(tmp_path / f"out{suffix}").exists()


def test_a_file_name_of_another_kind_is_refused(done, tmp_path):
    with pytest.raises(InputError, match=r"path must end in .csv, .parquet, .jsonl, got '.*out.xlsx'"):
        done.save(tmp_path / "out.xlsx")


def test_a_file_is_whole_or_not_there(done, tmp_path, monkeypatch):
    """When writing fails in the middle, the file of before stays and no draft is left."""
    path = tmp_path / "out.csv"
    path.write_text("of before")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="No space left"):
        done.save(path)
    assert path.read_text() == "of before"
    assert [found.name for found in tmp_path.glob("*out*")] == ["out.csv"]


def test_save_replaces_and_returns_the_path(done, tmp_path):
    """Who reads the old file meanwhile reads all of it: the new one takes its name, not its place."""
    path = tmp_path / "out.csv"
    path.write_text("of before")
    with path.open() as reader:
        assert done.save(str(path)) == path
        assert reader.read() == "of before"
    assert path.read_text().startswith("key,status")


def test_log_has_a_time_and_a_type_for_every_event(done):
    log = done.log()
    assert log.columns.tolist()[:2] == ["at", "event"]
    assert log["event"].tolist()[0] == "planned"
    assert log["event"].tolist()[-1] == "state_changed"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_whole_number_that_no_column_holds_is_kept_beside_missing_ones(plan, clock, tmp_path, suffix):
    session = plan(lambda item: {"n": 10**20 if item else None}, [0, 1])
    clock.run(session)
    assert session.results()["n"].tolist() == [None, 10**20]
    assert str(10**20).encode() in session.save(tmp_path / f"out{suffix}").read_bytes()
