"""What is on record of failures: errors() counts them by message, and each keeps where in the user's code it was."""

import asyncio
import sqlite3

import pandas as pd
import pytest

from ipybatch import BatchSession, Limits, Refused, Retry, Transient
from ipybatch.backends import Processes

COLUMNS = ["message", "count", "status", "scope", "key", "traceback"]


async def fail(item):
    raise ValueError(item)


def told(session):
    """The rows of errors(), without the tracebacks."""
    return session.errors()[COLUMNS[:5]].to_numpy().tolist()


def test_errors_are_one_row_a_message_the_most_frequent_first(plan, clock):
    async def work(item):
        if item % 10 == 0:
            raise ValueError("no price")
        if item == 7:
            raise KeyError("name")
        return item

    session = plan(work, range(1, 41))
    clock.run(session)
    assert list(session.errors().columns) == COLUMNS
    assert told(session) == [
        ["ValueError: no price", 4, "failed", "item", 10],
        ["KeyError: 'name'", 1, "failed", "item", 7],
    ]


@pytest.mark.parametrize(
    ("keys", "message", "row"),
    [
        ([17, 18], "item {} not found", "item <key> not found"),
        (["a b", "c/d"], "404 for https://host/{quoted}?page=1", "404 for https://host/<key>?page=1"),
        (["Sofifi", "Ambon"], "no {!r}, {}?", "no '<key>', <key>?"),
        ([17], "item {} not found", "item 17 not found"),
        ([1, 2], "HTTP 40{}", None),
        (["Sofifi", "Ambon"], "{}s", None),
        ([1, 2], "of {{1, 2}}, in 0.{} s", None),
        ([0, 500], "HTTP {}00", None),
        (["ab", "x"], "{}{}", None),
    ],
)
def test_messages_that_differ_in_the_items_own_key_are_one(plan, clock, keys, message, row):
    """As a word of its own: other numbers, a status for one, tell messages apart. One alone stays as it was."""

    async def work(item):
        raise ValueError(message.format(item, item, quoted=str(item).replace(" ", "%20").replace("/", "%2F")))

    session = plan(work, keys)
    clock.run(session)
    rows = told(session)
    if row is None:
        assert [text for text, *_ in rows] == [f"ValueError: {message.format(key, key)}" for key in keys]
    else:
        assert rows == [[f"ValueError: {row}", len(keys), "failed", "item", keys[0]]]


@pytest.mark.parametrize(
    ("keys", "message"),
    [(range(400, 410), "HTTP 404 for the page"), (range(5), "HTTP 500 on attempt 1"), (["a", "b"], "no a or b")],
)
def test_no_two_rows_have_the_same_text(plan, clock, keys, message):
    """Short keys stand in many a message by chance; the first item in input order is told."""

    async def work(item):
        raise ValueError(message)

    session = plan(work, keys)
    clock.run(session)
    assert told(session) == [[f"ValueError: {message}", len(keys), "failed", "item", keys[0]]]


@pytest.mark.parametrize(
    ("error", "status", "scope"),
    [
        (Transient("busy"), "failed", "service"),
        (ConnectionError("reset"), "failed", "service"),
        (TimeoutError("slow"), "timeout", "service"),
        (Refused("no such key"), "failed", "account"),
        (ValueError("bad"), "failed", "item"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_scope_says_whose_it_is(plan, clock, error, status, scope):
    async def work(item):
        raise error

    session = plan(work, [1], retry=Retry(attempts=1))
    clock.run(session)
    assert [row[2:4] for row in told(session)] == [[status, scope]]


def connect(user, **options):
    raise ValueError("no route")


async def with_secrets(item):
    return connect("bob", auth=("bob", "s3cr3tpass99"), headers={"X-Auth-Token": "abcdefabcd", "Accept": "json"})


def test_secrets_in_the_lines_of_source_are_kept_nowhere(plan, clock, journal, tmp_path):
    """Neither in errors() nor in the page nor on disk."""
    session = plan(with_secrets, [1])
    clock.run(session)
    line = session.errors()["traceback"][0].splitlines()[-2]
    assert line.endswith('auth=("***", "***"), headers={"X-Auth-Token": "***", "Accept": "json"})')
    page = session.export_html(tmp_path / "page.html").read_text()
    kept = page + "".join(path.read_text("latin-1") for path in tmp_path.glob("journal.db*"))
    assert [secret for secret in ("s3cr3tpass99", "abcdefabcd") if secret in kept] == []


def test_errors_come_from_the_journal(plan, clock, journal):
    """A session opened again tells them, in another process too; what is cancelled or completed is none."""
    session = plan(fail, ["a", "b"])
    clock.run(session)
    pd.testing.assert_frame_equal(BatchSession.open("wishlist", journal=journal).errors(), session.errors())
    assert session.errors()["traceback"][0].endswith("in fail: raise ValueError(item)")


def test_errors_of_a_generator_are_those_it_still_gives(plan, clock):
    clock.run(plan(fail, iter([1, 2, 3])))
    session = plan(fail, iter([3, 1]))
    clock.run(session)
    assert told(session) == [["ValueError: <key>", 2, "failed", "item", 3]]


def test_errors_that_answer_another_input_are_none(plan, clock):
    """Settings changed and the session was cancelled half-way: what is on record of the others is of yesterday."""
    clock.run(plan(fail, [1, 2, 3], settings="old"))

    async def work(item):
        if item == 2:
            session._run.stop("cancelled", "", "cancelled")
        raise KeyError(item)

    session = plan(work, [1, 2, 3], settings="new", limits=Limits(concurrency=1))
    clock.run(session)
    assert told(session) == [["KeyError: 1", 1, "failed", "item", 1]]


@pytest.mark.parametrize("when", ["before", "fresh", "done"])
def test_no_errors_are_a_frame_of_the_same_columns(plan, clock, when):
    if when == "fresh":
        clock.run(plan(fail, [1, 2]))
    session = plan(lambda item: item, [1, 2], fresh=when == "fresh")
    if when == "done":
        clock.run(session)
    frame = session.errors()
    assert (len(frame), list(frame.columns), str(frame["count"].dtype)) == (0, COLUMNS, "int64")


def inner(text):
    return int(text)


def fetch(item):
    return inner(item["price"])


async def fetch_on_loop(item):
    await asyncio.sleep(0)
    return fetch(item)


LINES = ["test_failures_on_record.py", 'in fetch: return inner(item["price"])', "in inner: return int(text)"]


@pytest.mark.parametrize(
    ("work", "backend"), [(fetch_on_loop, None), (fetch, None), (fetch, "processes")], ids=["loop", "thread", "process"]
)
def test_a_failed_item_keeps_where_in_the_users_code_it_failed(live, work, backend):
    """In its outcome, with its group's items, in errors() and in the journal; not the engine's own frames."""
    outcomes = []
    backend = Processes() if backend else backend
    session = live(work, [{"id": 1, "price": "ten"}, {"id": 2, "price": "10"}], backend=backend)
    session.on_outcomes(outcomes.extend)
    session.run()
    by_key = {outcome.key: outcome for outcome in outcomes}
    assert by_key[2].traceback == ""
    lines = by_key[1].traceback.splitlines()
    assert [line for line in lines if LINES[0] not in line] == []
    assert [line.split(" ", 1)[1] for line in lines[-2:]] == LINES[1:]
    assert len(lines) <= 3
    (failed, completed) = session.items_of(0)[1]
    assert (failed.traceback, completed.traceback) == (by_key[1].traceback, "")
    assert session.errors()["traceback"].tolist() == [by_key[1].traceback]


def test_a_timeout_tells_where_it_was(plan, clock):
    async def work(item):
        await asyncio.sleep(100)

    session = plan(work, [1], timeout_s=1, retry=Retry(attempts=1))
    clock.run(session)
    where = session.errors()["traceback"][0].splitlines()
    assert where[0].endswith("in work: await asyncio.sleep(100)")
    assert where[1:] == ["then 1 frame of asyncio"]


def test_a_secret_in_the_users_code_is_not_kept(plan, clock, journal):
    async def work(item):
        ask(key="sk-live-9f8e7d6c5b4a39281706")

    def ask(key):
        raise ValueError

    session = plan(work, [1])
    clock.run(session)
    assert 'in work: ask(key="***")' in session.errors()["traceback"][0]
    (kept,) = sqlite3.connect(journal).execute("SELECT frames FROM traceback").fetchone()
    assert "9f8e7d6c5b4a39281706" not in kept


def test_what_succeeds_at_last_keeps_no_traceback(plan, clock, journal):
    calls = []

    async def work(item):
        calls.append(item)
        if len(calls) == 1:
            raise ConnectionError

    session = plan(work, [1], limits=Limits(concurrency=1))
    clock.run(session)
    assert sqlite3.connect(journal).execute("SELECT * FROM traceback").fetchall() == []


@pytest.mark.parametrize("then", [{}, {"skip": lambda item: "known"}], ids=["succeeds", "skipped"])
def test_a_traceback_is_that_of_the_latest_start(plan, clock, then):
    """An item that failed in the user's code, and ends otherwise at the next start, has that place no more."""
    asked = []

    async def work(item):
        asked.append(item)
        if len(asked) == 1:
            raise ConnectionError

    for arguments, is_kept in (({}, True), (then, False)):
        session = plan(work, [1], retry=Retry(attempts=1), breaker=None, **arguments)
        clock.run(session)
        assert [bool(item.traceback) for item in session.items_of(0)[1]] == [is_kept]


def test_the_exported_page_tells_where_an_item_failed(plan, clock, tmp_path):
    session = plan(fail, ["a"])
    clock.run(session)
    assert "in fail: raise ValueError(item)" in session.export_html(tmp_path / "page.html").read_text("utf-8")
