import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import Outcome
from ipybatch.engine.data.plan import Task
from ipybatch.engine.store import schema
from ipybatch.engine.store.rows import ROWS, Entry, has_groups, insert, values_of
from ipybatch.engine.store.schema import ids


def entry(seq, status="completed", *, payload=b"1", attempts=1, key=None):
    task = Task(seq, key or str(seq), seq, group=2)
    return Entry(task, task.label, attempts, status, status == "completed", 1, payload, 5.0, 0.5, "")


@pytest.fixture
def database():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(connection)
    yield connection
    connection.close()


def write(database, entries, run=1):
    for table, rows in values_of(entries, run).items():
        insert(database, table, rows)


def test_the_last_items_tell_whether_a_run_has_groups(database):
    """Of a million items in none, a hundred are looked at."""
    assert not has_groups(database, 1)
    write(database, [entry(0)])
    assert has_groups(database, 1)
    assert not has_groups(database, 2)
    database.execute("UPDATE item SET grp = 0")
    assert not has_groups(database, 1)


@given(statuses=st.lists(st.sampled_from(["completed", "failed", "pending", "cancelled"]), max_size=3 * ROWS))
def test_every_entry_becomes_its_rows(statuses):
    """One item row for each outcome, one attempt row for each failure that is followed by another."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(connection)
    write(connection, [entry(seq, status) for seq, status in enumerate(statuses)], run=7)
    first, _ = ids(7)
    ended = [first + seq for seq, status in enumerate(statuses) if status != "pending"]
    assert [row for (row,) in connection.execute("SELECT id FROM item ORDER BY id")] == ended
    retried = [first + seq for seq, status in enumerate(statuses) if status == "pending"]
    assert [row for (row,) in connection.execute("SELECT item FROM attempt ORDER BY item")] == retried
    connection.close()


def test_a_later_outcome_takes_the_place_of_the_earlier(database):
    """An item has one row: the latest."""
    write(database, [entry(0, "failed", payload=None)])
    write(database, [entry(0, "completed", payload=b'"new"', attempts=2)])
    assert database.execute("SELECT status, attempts, result FROM item JOIN payload USING (id)").fetchall() == [
        ("completed", 2, b'"new"')
    ]


def test_runs_do_not_share_rows(database):
    """The same seq in two runs is two items."""
    write(database, [entry(0)], run=1)
    write(database, [entry(0)], run=2)
    assert database.execute("SELECT count(*) FROM item").fetchone() == (2,)


def test_an_outcome_tells_what_the_user_sees():
    """The key as the user gave it, the result, how it went, and what helps."""
    task = Task(3, '"Portal"', None)
    failed = Entry(
        task, task.label, 2, "failed", True, None, None, 5.0, 0.25, "gone", kind="item", advice="leave it out"
    )
    assert failed.outcome() == Outcome(
        key="Portal",
        status="failed",
        result=None,
        error="gone",
        attempts=2,
        seconds=0.25,
        kind="item",
        advice="leave it out",
    )
    assert entry(3, key='"Portal"').outcome().result == 1
