import math
import sqlite3
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.data.events import MARKS, Mark
from ipybatch.engine.store import rows, schema

RUN = 7
recorded_rows = st.lists(
    st.tuples(
        st.sampled_from(["completed", "failed", "timeout", "cancelled"]),
        st.integers(0, 4),  # attempts
        st.integers(0, 3),  # group
        st.floats(0.0, 90.0),  # seconds
        st.one_of(st.floats(100.0, 200.0), st.floats(100.0, 1e6)),  # ended
    ),
    max_size=60,
)


def journal_of(recorded_rows, run=RUN):
    database = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(database)
    for seq, (status, attempts, group, seconds, ended_s) in enumerate(recorded_rows):
        values = ((run << schema.SEQ_BITS) + seq, f'"{seq}"', status, group, attempts, seconds, ended_s, status)
        database.execute("INSERT INTO item VALUES (?, ?, '', ?, 1, ?, ?, ?, ?, ?, 0, '')", values)
    return database


@given(recorded_rows=recorded_rows, before_s=st.one_of(st.just(math.inf), st.floats(50.0, 300.0)))
def test_the_pace_adds_up_to_what_is_recorded(recorded_rows, before_s):
    """Attempts, items and failures of all that was tried before a time: no more, no less."""
    marks = rows.read_pace(journal_of(recorded_rows), RUN, before_s)
    tried = [row for row in recorded_rows if row[1] and row[4] < before_s]
    if not tried:
        assert marks == []
        return
    last = marks[-1]
    assert (last.started, last.ended, last.failed) == (
        sum(row[1] for row in tried),
        len(tried),
        sum(row[0] != "completed" for row in tried),
    )
    assert last.at_s == max(row[4] for row in tried)
    assert marks[0] == Mark(min(row[4] - row[3] for row in tried), 0, 0, 0)


@given(recorded_rows=recorded_rows)
def test_the_pace_grows_and_is_short(recorded_rows):
    """Times and counts never go back, and there are as many marks as a pace may have."""
    marks = rows.read_pace(journal_of(recorded_rows), RUN, math.inf)
    assert len(marks) <= MARKS + 1
    for before, after in pairwise(marks):
        assert before.at_s <= after.at_s
        assert (before.started, before.ended, before.failed) <= (after.started, after.ended, after.failed)


def test_other_runs_are_not_counted():
    """Ids tell whose an item is."""
    assert rows.read_pace(journal_of([("completed", 1, 0, 1.0, 100.0)], run=RUN + 1), RUN, math.inf) == []


def test_a_pause_is_flat():
    """Nothing ended for an hour: the line does not slope through it."""
    database = journal_of([("completed", 1, 0, 1.0, 100.0), ("completed", 1, 0, 1.0, 3700.0)])
    assert [(round(mark.at_s), mark.ended) for mark in rows.read_pace(database, RUN, math.inf)] == [
        (99, 0),
        (129, 1),
        (3675, 1),
        (3700, 2),
    ]


@given(recorded_rows=recorded_rows, limit=st.integers(1, 7))
def test_items_come_in_pages_those_that_failed_first(recorded_rows, limit):
    """Page by page every item of the group comes once."""
    database = journal_of(recorded_rows)
    for group in range(4):
        there = [str(seq) for seq, row in enumerate(recorded_rows) if row[2] == group]
        items, offset = [], 0
        while offset < len(there):
            total, page = rows.read_items(database, RUN, group, offset=offset, limit=limit)
            assert total == len(there)
            assert len(page) == min(limit, total - offset)
            items, offset = items + page, offset + limit
        assert sorted(item.key for item in items) == sorted(there)
        completed = [item.status == "completed" for item in items]
        assert completed == sorted(completed)


def test_an_item_is_told_with_its_attempts():
    """What failed and was tried again, in order."""
    database = journal_of([("failed", 3, 1, 1.5, 100.0)])
    for attempt in (2, 1):
        values = (RUN << schema.SEQ_BITS, attempt, 90.0 + attempt, 0.5, f"HTTP 50{attempt}")
        database.execute("INSERT INTO attempt VALUES (?, ?, ?, ?, ?)", values)
    _, (item,) = rows.read_items(database, RUN, 1, offset=0, limit=100)
    assert (item.key, item.status, item.attempts, item.seconds, item.error) == ("0", "failed", 3, 1.5, "failed")
    assert [(each.attempt, each.seconds, each.error) for each in item.tries] == [
        (1, 0.5, "HTTP 501"),
        (2, 0.5, "HTTP 502"),
    ]


def test_groups_are_told_as_they_ended():
    """Items, failures and times of each; items without a group are in none."""
    database = journal_of(
        [
            ("completed", 1, 1, 2.0, 105.0),
            ("failed", 2, 1, 1.0, 107.0),
            ("skipped", 0, 0, 0.0, 108.0),
            ("completed", 1, 2, 3.0, 120.0),
        ]
    )
    one, two = rows.read_groups(database, RUN, "Site", 200.0)
    assert (one.name, one.items, one.failed, one.started_s, one.ended_s) == ("Site 1", 2, 1, 103.0, 107.0)
    assert (two.group, two.items, two.failed, two.started_s) == (2, 1, 0, 117.0)


@pytest.mark.parametrize("count", [1, 3])
def test_a_session_s_own_journal_is_read(plan, clock, journal, count):
    """What the engine wrote is what is read: a real run, in virtual time."""

    async def work(item):
        if item % 3 == 1:
            raise ConnectionError("HTTP 503")

    session = plan(work, list(range(10)), breaker=None)
    clock.run(session)
    for _ in range(count - 1):
        clock.run(session)
    with session._journal.reader() as database:
        marks = rows.read_pace(database, 1, math.inf)
        total, items = rows.read_items(database, 1, 0, offset=0, limit=100)
    assert (marks[-1].started, marks[-1].ended, marks[-1].failed) == (sum(item.attempts for item in items), total, 3)


def test_the_pace_is_told_by_the_second():
    """Where that is fine enough: one mark a second, and one at the end."""
    recorded = [("completed", 1, 0, 0.5, ended_s) for ended_s in (100.5, 101.5, 102.5)]
    marks = rows.read_pace(journal_of(recorded), RUN, math.inf)
    assert [(mark.at_s, mark.ended) for mark in marks] == [(100.0, 0), (101.0, 1), (102.0, 2), (102.5, 3)]
