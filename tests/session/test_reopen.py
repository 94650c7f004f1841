"""A recorded session is opened again, read, gone on with, or forgotten."""

import asyncio

import pytest

import ipybatch
from ipybatch import BatchSession, InputError, Retry
from tests.works import Recorder

ONCE = Retry(attempts=1)


def test_open_reads_a_recorded_session(live, journal):
    live(Recorder({2: ValueError("gone")}), [1, 2]).run()
    session = BatchSession.open("wishlist", journal=journal)
    assert (session.state, str(session.summary)) == (
        "completed",
        "wishlist completed: 1/2 successful, 1 failed, 0 skipped",
    )
    assert session.results()["status"].tolist() == ["completed", "failed"]


def test_open_without_work_cannot_run(live, journal):
    live(Recorder({1: ConnectionError()}), [1], retry=ONCE).run()
    with pytest.raises(InputError, match="opened for reading: pass work= to go on"):
        BatchSession.open("wishlist", journal=journal).start()


def test_open_with_work_goes_on_with_the_recorded_items(live, journal):
    items = [{"id": 1, "q": "a"}, {"id": 2, "q": "b"}]
    live(Recorder({2: ConnectionError()}), items, retry=ONCE).run()
    again = Recorder()
    session = BatchSession.open("wishlist", again, journal=journal)
    session.start()
    assert session.run().counts.completed == 2
    assert again.asked == [items[1]]


def test_run_of_a_reopened_session_goes_on(live, journal):
    live(Recorder({2: ConnectionError()}), [1, 2], retry=ONCE).run()
    assert BatchSession.open("wishlist", Recorder(), journal=journal).run().counts.completed == 2


def test_open_reads_the_results_of_a_generator(live, journal):
    live(Recorder(), iter([1, 2])).run()
    assert BatchSession.open("wishlist", journal=journal).results()["key"].tolist() == [1, 2]


def test_a_generators_session_cannot_go_on_from_the_journal_alone(live, journal):
    live(Recorder(), iter([1, 2])).run()
    with pytest.raises(InputError, match="create it again with its items"):
        BatchSession.open("wishlist", Recorder(), journal=journal)


def test_open_gives_the_running_session_itself(live, journal):
    """A cell that opens what runs in this kernel gets the live one, not a copy from disk."""
    hold = asyncio.Event()

    async def work(item):
        await hold.wait()

    session = live(work, [1])
    session.start()
    assert BatchSession.open("wishlist", journal=journal) is session
    session.cancel()


def test_open_of_an_unknown_name_says_where_to_look(journal):
    with pytest.raises(InputError, match=r"got 'nothing'; ipybatch.history\(\) lists them"):
        BatchSession.open("nothing", journal=journal)


def test_forget_deletes_what_the_journal_has_under_the_name(live, journal):
    work = Recorder()
    session = live(work, [1, 2])
    session.run()
    live(Recorder(), [1], name="other").run()
    session.forget()
    assert ipybatch.history(journal)["name"].tolist() == ["other"]
    assert (session.state, session.counts.pending) == ("planned", 2)
    session.run()
    assert work.asked == [1, 2, 1, 2]


def test_forget_refuses_while_it_runs(live):
    hold = asyncio.Event()

    async def work(item):
        await hold.wait()

    session = live(work, [1])
    session.start()
    with pytest.raises(InputError, match="cancel it before you forget it"):
        session.forget()
