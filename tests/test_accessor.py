"""Accessor: a frame in, the same kind of frame out, with the results beside its columns."""

import datetime as dt
import subprocess
import sys

import pandas as pd
import polars as pl
import pytest

from ipybatch import BatchSession, InputError, Limits, Permanent, accessor
from tests.works import Recorder


async def price(row):
    if row["id"] == 2:
        raise Permanent("no such game")
    return {"usd": row["id"] * 1.5, "status": "on sale"}


@pytest.fixture(autouse=True)
def home(journal, monkeypatch):
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal))
    accessor.register()  # this module may have loaded them after the package


@pytest.fixture
def games():
    days = pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"])
    return pd.DataFrame({"id": [1, 2, 3], "out": days}, index=["a", "b", "c"])


def test_a_pandas_frame_comes_back_with_its_types_and_index(games):
    """What collides is prefixed; a row that failed says why, and a warning how many there are."""
    with pytest.warns(RuntimeWarning, match=r"price completed: 1 of 3 without a result \(.*no such game"):
        told = games.ipybatch.run(price, limits=Limits(concurrency=2))
    assert told.columns.tolist() == ["id", "out", "status", "error", "usd", "result_status"]
    assert told.index.tolist() == ["a", "b", "c"]
    assert told["out"].dtype == games["out"].dtype
    assert told["status"].tolist() == ["completed", "failed", "completed"]
    assert "no such game" in told["error"]["b"]
    assert told["usd"].fillna(0).tolist() == [1.5, 0, 4.5]
    assert games.columns.tolist() == ["id", "out"]


def test_running_it_again_asks_nothing_twice(games):
    """The same name continues; a changed row runs again."""
    work = Recorder()
    games.ipybatch.run(work, name="once")
    games.ipybatch.run(work, name="once")
    assert len(work.asked) == 3
    games.loc["b", "out"] = pd.Timestamp("2027-01-01")
    games.ipybatch.run(work, name="once")
    assert [row["id"] for row in work.asked] == [1, 2, 3, 2]


def test_a_polars_frame_comes_back_as_one():
    frame = pl.DataFrame({"id": [1, 3, 4], "out": [dt.date(2026, 1, day) for day in (1, 2, 3)]})
    told = frame.ipybatch.run(price)
    assert isinstance(told, pl.DataFrame)
    assert told.columns == ["id", "out", "status", "error", "usd", "result_status"]
    assert told["out"].dtype == pl.Date
    assert told["usd"].to_list() == [1.5, 4.5, 6.0]


def test_a_result_that_is_no_dict_stands_in_the_column_result(games):
    games["result"] = "mine"
    told = games.ipybatch.run(lambda row: row["id"] + 1, name="next")
    assert told["result"].tolist() == ["mine"] * 3
    assert told["result_result"].tolist() == [2, 3, 4]


def test_session_is_one_to_start_and_to_watch(games):
    session = games.ipybatch.session(price, name="watched")
    assert isinstance(session, BatchSession)
    assert session.state == "planned"
    assert session.counts.total == 3


def test_a_function_without_a_name_needs_one(games):
    with pytest.raises(InputError, match="name must be given"):
        games.ipybatch.run(lambda row: row)


def test_a_series_asks_each_distinct_value_once():
    asked = []

    def double(value):
        asked.append(value)
        return value * 2

    series = pd.Series([3, 1, None, 3, 1], index=list("abcde"), name="n", dtype="Int64")
    told = series.ipybatch.run(double)
    assert sorted(asked) == [1, 3]
    assert told.name == "n"
    assert told.index.tolist() == list("abcde")
    assert told.dropna().tolist() == [6, 2, 6, 2]
    assert told.isna().tolist() == [False, False, True, False, False]


def test_a_series_of_dicts_is_a_frame():
    told = pd.Series(["x", "yy", "x"]).ipybatch.run(lambda text: {"n": len(text), "text": text}, name="length")
    assert told.to_dict("list") == {"n": [1, 2, 1], "text": ["x", "yy", "x"]}


def test_a_series_of_which_nothing_completed_stays_missing():
    def broken(value):
        raise Permanent("never")

    with pytest.warns(RuntimeWarning, match="2 of 2 without a result"):
        told = pd.Series(["x", "y", "x"]).ipybatch.run(broken)
    assert told.isna().all()
    assert len(told) == 3


@pytest.mark.parametrize(
    ("lines", "has_one"),
    [
        ("import pandas; import ipybatch", True),
        ("import ipybatch; import pandas", False),
        ("import ipybatch.frames; import pandas", True),
        ("import ipybatch; import pandas; ipybatch.accessor.register()", True),
    ],
)
def test_it_is_registered_where_pandas_is_there_and_loads_nothing(lines, has_one):
    code = f"{lines}; import sys; print(hasattr(pandas.DataFrame, 'ipybatch'), 'polars' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(has_one), "False"]


def test_import_loads_no_frames():
    code = "import ipybatch, sys; print('pandas' in sys.modules, 'polars' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["False", "False"]


def test_columns_of_several_levels_stay_as_they_are():
    """A name of the first level is taken too: beside it the status would replace what is below."""
    columns = pd.MultiIndex.from_tuples([("status", "old"), ("status", "new"), ("id", "")])
    frame = pd.DataFrame([["a", "b", 1]], columns=columns)
    told = frame.ipybatch.run(lambda row: 5, name="levels")
    assert told.columns.tolist() == [*columns, ("result_status", ""), ("error", ""), ("result", "")]
    assert told["status"].to_numpy().tolist() == [["a", "b"]]


def test_an_index_that_says_something_twice_is_told_with_what_to_do():
    """As of frames that were put one below the other."""
    frame = pd.concat([pd.DataFrame({"id_of_shop": [1]}), pd.DataFrame({"id_of_shop": [2]})])
    with pytest.raises(InputError, match=r"items 0 and 1 share the key 0: .*reset_index\(drop=True\)"):
        frame.ipybatch.run(lambda row: 5, name="twice")
    told = frame.reset_index(drop=True).ipybatch.run(lambda row: 5, name="twice")
    assert told["result"].tolist() == [5, 5]


def test_a_lazy_frame_says_that_it_is_to_be_collected(journal):
    """It holds no rows yet, and what it would take to have them is not ours to decide."""
    lazy = pl.LazyFrame({"id": [1, 2]})
    for call in (lazy.ipybatch.run, lazy.ipybatch.session):
        with pytest.raises(InputError, match=r"lazy\.collect\(\)\.ipybatch\.run\(work\)"):
            call(len)
    with pytest.raises(InputError, match=r"got LazyFrame, which holds no rows yet: collect\(\) it"):
        BatchSession("lazy", len, lazy, journal=journal)
