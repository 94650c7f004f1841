"""Schedule rows: the stamp, by which watchers see that something is told otherwise; what the latest run came to."""

import itertools
import sqlite3
from contextlib import closing

import pytest

from ipybatch.server import schedule_rows
from ipybatch.server.schedule_store import Schedules
from ipybatch.server.wire import ScheduleRequest, SubmissionRequest
from tests.server.submitting import Time, add_words


@pytest.fixture
def schedules(journal, monkeypatch):
    monkeypatch.setattr("ipybatch.server.templates.TEMPLATES", {})
    monkeypatch.setenv("IPYBATCH_CONFIG", str(journal.parent / "config"))
    add_words()
    return Schedules(journal, unix_s=Time(1_764_586_800.0))


@pytest.fixture
def night(schedules):
    request = ScheduleRequest(every="1d", submission=SubmissionRequest(template="words", requests=["one"]))
    return schedules.put("night", request)


@pytest.mark.usefixtures("night")
def test_the_stamp_is_of_the_latest_run_too(schedules):
    stamps = [schedules.read(schedule_rows.stamp, [])]

    def end():
        with closing(sqlite3.connect(schedules.path, isolation_level=None)) as database:
            database.execute("UPDATE submission SET state = 'FAILED'")

    for change in (lambda: schedules.command("night", "run_now"), end, lambda: None):
        change()
        stamps.append(schedules.read(schedule_rows.stamp, []))
    assert [before == after for before, after in itertools.pairwise(stamps)] == [False, False, True]


def test_what_failed_is_told_once_the_latest_run_has_completed(schedules, night):
    def told(state):
        with closing(sqlite3.connect(schedules.path, isolation_level=None)) as database:
            database.execute("UPDATE submission SET state = ?, run = 1", (state,))
        last = schedules.last(schedules.find("night"))
        assert schedules.page(1)[0][1] == last
        return last.submission.state, last.failed

    assert schedules.last(night) is None
    schedules.command("night", "run_now")
    assert told("COMPLETED") == ("COMPLETED", 0)  # its session was deleted
    with closing(sqlite3.connect(schedules.path, isolation_level=None)) as database:
        columns = "id, name, resource, group_word, state, created_s, failed, timeout"
        database.execute(f"INSERT INTO run ({columns}) VALUES (1, 'n', '', '', 'completed', 0, 2, 1)")
    assert [told(state) for state in ("RUNNING", "COMPLETED")] == [("RUNNING", 0), ("COMPLETED", 3)]
