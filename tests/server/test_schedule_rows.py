"""Schedule rows: the stamp, by which watchers see that something is told otherwise."""

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


def test_the_stamp_is_of_the_latest_run_too(schedules):
    schedules.put(
        "night", ScheduleRequest(every="1d", submission=SubmissionRequest(template="words", requests=["one"]))
    )
    stamps = [schedules.read(schedule_rows.stamp, [])]

    def end():
        with closing(sqlite3.connect(schedules.path, isolation_level=None)) as database:
            database.execute("UPDATE submission SET state = 'FAILED'")

    for change in (lambda: schedules.command("night", "run_now"), end, lambda: None):
        change()
        stamps.append(schedules.read(schedule_rows.stamp, []))
    assert [before == after for before, after in itertools.pairwise(stamps)] == [False, False, True]
