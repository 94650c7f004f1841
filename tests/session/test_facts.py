"""What a workload tells of itself reaches its own panel, a follower, the server, and who opens it later."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from ipybatch import BatchSession
from ipybatch.engine.data.events import ENDED
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.feed import live_record
from ipybatch.engine.store import run_store
from ipybatch.engine.store.journal import open_journal
from ipybatch.jupyter import messages
from ipybatch.server.recorded_view import RecordedView
from ipybatch.session import follower
from ipybatch.session.workload import Workload
from tests.works import Elsewhere, Recorder


class Baking(Workload[BatchSession]):
    """Work that tells of itself, and counts how often it was asked."""

    name = "baking"
    session_class = BatchSession

    def __init__(self, *, fails=False, seconds=1.0, looks=True):
        self.fails, self.seconds, self.looks = fails, seconds, looks
        self.asked, self.seen = 0, []

    async def __call__(self, item):
        await asyncio.sleep(self.seconds)
        if self.looks:
            self.seen.append([fact.title for fact in messages.facts_of(self.session)])
        return item

    def facts(self, *, is_over):
        self.asked += 1
        if self.fails:
            raise LookupError("no oven")
        done = self.session.counts.completed
        busy = [] if is_over else [Fact("Ovens", "2", "of 2 busy", is_live=True)]
        return [*busy, Fact("Loaves", str(done), foot="sk-secret" if is_over else "", share=0.5)]


def on_record(journal):
    with open_journal(journal).reader() as database:
        found = run_store.find(database, "bread")
    return found.run, live_record.decode(found.live)


def bake(clock, journal, work, items=20):
    session = BatchSession("bread", work, list(range(items)), journal=journal, clock=clock)
    clock.run(session)
    return session


def test_they_are_in_the_head_while_it_runs_and_on_record_at_the_end(clock, journal):
    """Always as many while it runs; at the end what still holds."""
    work = Baking()
    session = bake(clock, journal, work)
    assert {tuple(titles) for titles in work.seen} == {("Ovens", "Loaves")}
    assert [(fact.title, fact.value) for fact in messages.head(session).facts] == [("Loaves", "20")]
    assert on_record(journal)[1].facts == session.facts


def test_they_are_made_once_a_second_and_not_for_items(clock, journal):
    """A thousand items in two seconds: a few times, and for several views that look at once, once."""
    work = Baking(seconds=0.02, looks=False)
    session = bake(clock, journal, work, items=1000)
    assert session.counts.completed == 1000
    assert work.asked <= 5
    before = work.asked
    for _ in range(10):
        messages.head(session)
    assert work.asked <= before + 1


def test_work_that_cannot_tell_them_goes_on_without(clock, journal):
    session = bake(clock, journal, Baking(fails=True))
    assert session.state == "completed"
    assert session.facts == []
    assert any("could not tell how it stands: LookupError: no oven" in note for note in session.snapshot.notes)


def told(**facts):
    return msgspec.json.encode(live_record.LiveRecord(running=1, total=10, **facts))


def test_a_follower_has_those_of_its_process_and_keeps_what_holds_when_that_is_gone(live, journal, monkeypatch):
    monkeypatch.setattr(follower, "_watch", lambda followed: None)
    live(Recorder(), list(range(10))).run()
    held = Elsewhere(journal, completed=4, total=10)
    session = BatchSession.open("wishlist", journal=journal)
    held.write(live=told(facts=[Fact("Ovens", "2", is_live=True), Fact("Loaves", "7")]))
    session._follower.look()
    assert [fact.title for fact in messages.head(session).facts] == ["Ovens", "Loaves"]
    held.write(owner=None, state="cancelled", ended_s=2.0)
    session._follower.look()
    assert session.state in ENDED
    assert [fact.title for fact in messages.head(session).facts] == ["Loaves"]


def test_the_tab_and_a_reopened_session_have_them_after_the_end(clock, journal):
    bake(clock, journal, Baking())
    view = RecordedView(journal, on_record(journal)[0])
    (fact,) = view.update(messages.Cursor()).head.facts
    assert (fact.title, fact.value, fact.share) == ("Loaves", "20", 0.5)
    reopened = BatchSession.open("bread", journal=journal)
    assert [fact.value for fact in messages.head(reopened).facts] == ["20"]


def test_a_reopened_session_has_its_average_rate_and_its_own_times(clock, journal):
    """As its own panel had at the end: what the line and the rate are drawn from is on record."""
    ended = bake(clock, journal, Baking())
    reopened = BatchSession.open("bread", journal=journal)
    own, read = messages.head(ended), messages.head(reopened)
    assert (read.started_s, read.elapsed_s) == pytest.approx((own.started_s, own.elapsed_s))
    assert read.rate_per_s == pytest.approx(own.rate_per_s)


def test_their_texts_are_masked(clock, journal):
    from ipybatch import secret

    secret("sk-secret")
    session = bake(clock, journal, Baking())
    assert "sk-secret" not in messages.head(session).facts[0].foot
