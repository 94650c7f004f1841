"""What a session tells of the moment reaches those who look at it from elsewhere."""

from __future__ import annotations

import time

import msgspec
import pytest

from ipybatch import BatchSession, Breaker, Limits, Rate
from ipybatch.engine.data import events
from ipybatch.engine.feed import live_record
from ipybatch.engine.feed.session_view import LiveStatus
from ipybatch.engine.feed.snapshot import BreakerSnapshot, Group
from ipybatch.engine.store import run_store
from ipybatch.engine.store.journal import open_journal
from ipybatch.jupyter import messages
from ipybatch.session import follower
from tests.works import Elsewhere, Recorder


def recorded(journal, name="wishlist"):
    with open_journal(journal).reader() as database:
        return live_record.decode(run_store.find(database, name).live)


def wait_for(journal, wanted):
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        record = recorded(journal)
        if record is not None and wanted(record):
            return record
        time.sleep(0.02)
    raise AssertionError("it was not recorded")


def test_a_running_session_records_how_it_stands(live, gate, journal):
    """Attempts in flight, limits and breaker, within about a second; how it ended stays."""
    limits = Limits(concurrency=2, rates=[Rate(50, per_s=10)])
    session = live(gate, [1, 2, 3], limits=limits, breaker=Breaker(failures=4))
    session.start()
    gate.wait_begun(2)
    record = wait_for(journal, lambda record: record.running == 2)
    assert (record.concurrency, record.rates, record.breaker_policy) == (2, [(50, 50, 10, "requests")], (4, 5))
    assert record.status.windows[0][:2] == (2, 50)
    gate.open()
    session.run()
    record = recorded(journal)
    assert (record.running, record.total) == (0, 3)


@pytest.fixture
def followed(live, journal, monkeypatch):
    monkeypatch.setattr(follower, "_watch", lambda followed: None)
    live(Recorder(), list(range(10))).run()
    held = Elsewhere(journal, completed=4, total=10)
    return held, BatchSession.open("wishlist", journal=journal)


def told(**changes):
    record = live_record.LiveRecord(
        running=3,
        total=10,
        status=LiveStatus(waiting="next retry in 4 s", windows=[(7, 50, 10, "requests")], eta_s=(5.0, 9.0)),
        breaker=BreakerSnapshot(state="open", failures=3, openings=1, probe_at_s=time.time() + 30),
        breaker_policy=(3, 5),
        concurrency=4,
        most_concurrency=8,
        rates=[(50, 100, 10, "requests")],
        groups=[Group(number=1, name="Sofifi", status="running", items=1, started_s=5.0, extra={"Rows": 40})],
    )
    return msgspec.json.encode(msgspec.structs.replace(record, **changes))


def test_a_follower_shows_what_its_process_told(followed):
    held, session = followed
    held.write(live=told())
    session._follower.look()
    head = messages.head(session)
    assert (head.counts.completed, head.counts.running, head.counts.pending) == (4, 3, 3)
    assert (head.waiting, head.eta_low_s, head.eta_high_s) == ("next retry in 4 s", 5.0, 9.0)
    assert (head.breaker.state, head.breaker.threshold, head.breaker.failures) == ("open", 3, 3)
    assert (head.concurrency, head.most_concurrency, head.untold) == (4, 8, False)
    assert [(fact.used, fact.limit, fact.most) for fact in head.windows] == [(7, 50, 100)]
    assert "adjust" in head.can
    (group,) = session.snapshot.groups.values()
    assert (group.name, group.status, group.extra) == ("Sofifi", "running", {"Rows": 40})
    moves = session.snapshot.moves
    session._follower.look()
    assert session.snapshot.moves == moves, "nothing moved since"


def test_what_is_in_flight_is_bounded_by_what_is_left(followed):
    """The record may be older than the counts beside it."""
    held, session = followed
    held.write(live=told(), completed=9)
    session._follower.look()
    assert (session.counts.running, session.counts.pending) == (1, 0)


def test_nothing_of_a_process_that_died_runs(followed):
    held, session = followed
    held.write(live=told(), owner=None)
    session._follower.look()
    assert (session.state, session.counts.running) == ("interrupted", 0)
    (group,) = session.snapshot.groups.values()
    assert (group.name, group.status) == ("Sofifi", "pending")
    assert messages.head(session).untold


@pytest.mark.parametrize("live", [b"", b"[]", b'{"running": "many"}', b"\xff"])
def test_what_a_later_version_tells_is_left_aside(live):
    assert live_record.decode(live) is None


def test_a_group_is_as_its_process_told_it_and_as_the_items_tell_it():
    """Its name and columns are the process's; the counts are the larger ones."""
    item = events.GroupRecalled(9.0, 1, "Partition 1", 1, 0, 2.0, 8.0, "")
    record = live_record.decode(told())
    (live,) = live_record.recalled([item], record, 9.0, is_live=True)
    (dead,) = live_record.recalled([item], record, 9.0, is_live=False)
    assert (live.name, live.status, live.done) == ("Sofifi", "running", 1)
    assert (dead.name, dead.status, dead.ended_s, dead.extra) == ("Sofifi", "completed", 8.0, {"Rows": 40})
