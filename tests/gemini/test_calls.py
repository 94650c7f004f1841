from decimal import Decimal

import pytest

pytest.importorskip("google.genai")

from ipybatch.engine.store.journal import open_journal
from ipybatch.gemini import Tokens, calls
from ipybatch.gemini.calls import Call, latency_s, spent_usd, usage

from .conftest import MODEL

USED = Tokens(in_=10, out=20, thoughts=5, cached=4)


@pytest.fixture
def book(journal):
    """Record calls, by their differences from a usual one."""
    opened = open_journal(journal)

    def record(*differences):
        usual = {
            "at_s": 1000.0,
            "session": "stars",
            "lane": "online",
            "model": MODEL,
            "operation": "text",
            "project": "",
            "status": "ok",
            "tokens": USED,
            "usd": Decimal("0.001"),
            "ms": 200.0,
        }
        calls.record(opened, *(Call(**usual | one) for one in differences))
        opened.write(lambda database: None)  # the writer has come this far
        return opened

    return record


def rows(journal, **arguments):
    return usage(journal=journal, **arguments).to_dict("records")


def test_calls_add_up_by_operation_model_and_lane(book, journal):
    book({}, {}, {"operation": "food"}, {"model": "gemini-2.5-pro"}, {"lane": "flex"})
    frame = usage(journal=journal)
    assert frame[["operation", "model", "lane", "requests"]].values.tolist() == [
        ["food", MODEL, "online", 1],
        ["text", MODEL, "flex", 1],
        ["text", MODEL, "online", 2],
        ["text", "gemini-2.5-pro", "online", 1],
    ]
    row = frame.iloc[2]
    assert row[["tokens_in", "tokens_out", "tokens_thoughts", "tokens_cached"]].tolist() == [20, 40, 10, 8]
    assert (row["usd"], row["ms"], row["failed"]) == (pytest.approx(0.002), 200.0, 0)


def test_what_is_not_ok_has_failed(book, journal):
    book({}, {"status": "blocked"}, {"status": "429", "tokens": Tokens(), "usd": None})
    (row,) = rows(journal)
    assert (row["requests"], row["failed"]) == (3, 2)
    assert row["usd"] == pytest.approx(0.002)


def test_only_the_last_so_many_seconds_count(book, journal):
    book({"at_s": 100.0}, {"at_s": 3000.0}, {"at_s": 3600.0})
    (row,) = rows(journal, last_s=3600, now_s=6600.0)
    assert row["requests"] == 2
    assert rows(journal, last_s=3600, now_s=8000.0) == []


def test_only_a_sessions_own_calls_count_when_it_is_named(book, journal):
    book({}, {"session": "planets"}, {"session": "planets"})
    assert [row["requests"] for row in rows(journal, session="planets")] == [2]
    assert [row["requests"] for row in rows(journal)] == [3]


def test_without_calls_the_columns_are_there(book, journal):
    book()
    frame = usage(journal=journal)
    assert frame.empty
    assert frame.columns.tolist() == list(calls.USED)


def test_a_price_that_nobody_knows_is_none_and_no_zero(book, journal):
    book({"usd": None, "model": "my-own"})
    (row,) = rows(journal)
    assert row["usd"] is None or row["usd"] != row["usd"]


def test_credits_add_up_exactly(book, journal):
    """2.5 a pose is no float, nor is its tenth."""
    book(*[{"credits": Decimal("0.1")}] * 3, {"credits": Decimal("2.5")})
    (row,) = rows(journal)
    assert row["credits"] == Decimal("2.8")


def test_the_mean_time_leaves_out_what_was_not_answered_one_by_one(book, journal):
    book({"lane": "batch", "ms": 0.0}, {"lane": "batch", "ms": 300.0})
    (row,) = rows(journal)
    assert row["ms"] == 300.0


def test_what_a_run_has_spent_is_what_came_since_its_start(book):
    opened = book({"at_s": 10.0}, {"at_s": 20.0}, {"at_s": 30.0, "session": "planets"}, {"at_s": 30.0, "usd": None})
    assert spent_usd(opened, "stars", 15.0) == Decimal("0.001")
    assert spent_usd(opened, "stars", 0.0) == Decimal("0.002")
    assert spent_usd(opened, "nobody", 0.0) == 0


def test_latency_is_that_of_whole_answers_online(book):
    opened = book({"ms": 100.0}, {"ms": 300.0}, {"ms": 9000.0, "lane": "flex"}, {"ms": 1.0, "status": "429"})
    assert latency_s(opened, MODEL, 0.0) == pytest.approx(0.2)
    assert latency_s(opened, MODEL, 2000.0) is None
