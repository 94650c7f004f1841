"""The server delivers what other processes left, in whichever journal."""

import asyncio
import contextlib
import sqlite3
import threading
import time

import pytest

from ipybatch import BatchSession
from ipybatch.engine.store import outbox as rows
from ipybatch.notify import delivery as notify_delivery
from ipybatch.server.delivery import Delivery
from ipybatch.server.journal_files import JournalFiles
from tests.notify.conftest import config, hook
from tests.server.conftest import DEAD

__all__ = ["config", "hook"]

LOOP = Delivery._loop  # before the server of other tests is told to deliver nothing


@pytest.fixture(autouse=True)
def mute(hook, monkeypatch):
    """The sessions' own process sends nothing."""
    monkeypatch.setattr(notify_delivery.Deliverer, "wake", lambda self, path: None)


def run_session(journal, name="night"):
    BatchSession(name, str, [1], journal=journal, notify="hook").run()


def sql(journal, command, *values):
    with contextlib.closing(sqlite3.connect(journal)) as database, database:
        return database.execute(command, values).fetchall()


def test_what_is_due_in_any_journal_is_sent_once(journal, hook):
    run_session(journal)
    run_session(journal.with_name("other.db"), "day")
    looks = Delivery(JournalFiles())
    assert looks.look() == 2
    assert looks.look() == 0
    assert sorted(request.told["session"]["name"] for request in hook.requests) == ["day", "night"]
    run_session(journal, "another night")
    assert looks.look() == 1


def test_a_journal_that_nobody_wrote_to_is_not_opened_again(journal, monkeypatch):
    """Looking at all of a user's journals every five seconds must cost nothing."""
    run_session(journal)
    looks, opened = Delivery(JournalFiles()), []
    looks.look()
    looks.look()  # its own commit is seen once
    monkeypatch.setattr(notify_delivery.Round, "run", lambda self: opened.append(self._path) or self)
    looks.look()
    assert opened == []


def test_what_failed_is_tried_again_when_it_is_due(journal, hook):
    run_session(journal)
    hook.answers = [(500, {})]
    looks = Delivery(JournalFiles())
    assert looks.look() == 0
    sql(journal, "UPDATE outbox SET due_s = ?", time.time() - 1)
    assert looks.look() == 1


def test_a_session_whose_process_dies_is_told_though_nobody_writes(journal, hook):
    """Only time tells it: nothing changes in the journal of a process that was killed."""
    run_session(journal)
    sql(journal, "DELETE FROM outbox")
    sql(journal, "UPDATE run SET state = 'running', owner = ?, beat_s = ?", "away/1/other", time.time())
    looks = Delivery(JournalFiles())
    assert looks.look() == 0
    sql(journal, "UPDATE run SET owner = ?", DEAD)
    assert looks.look() == 1
    assert hook.requests[0].told["session"]["state"] == "interrupted"
    assert looks.look() == 0


def test_a_broken_journal_keeps_no_other_waiting(journal, hook):
    run_session(journal.with_name("broken.db"), "broken")
    run_session(journal)
    sql(journal.with_name("broken.db"), "UPDATE outbox SET notice = x'00'")
    run_session(journal.with_name("odd.db"), "odd")
    sql(journal.with_name("odd.db"), "UPDATE run SET notify = 'x', state = 'running', owner = ?, beat_s = 'soon'", DEAD)
    assert Delivery(JournalFiles()).look() >= 1
    assert "night" in [request.told["session"]["name"] for request in hook.requests]
    assert sql(journal.with_name("broken.db"), "SELECT state, error FROM outbox") == [("given up", "it cannot be read")]


def test_it_looks_as_long_as_the_server_runs(journal, hook, monkeypatch):
    """In a thread of its own, which ends with the server."""
    run_session(journal)
    arrived, settle = threading.Event(), rows.settle

    def settled(*given, **more):
        try:
            return settle(*given, **more)
        finally:
            arrived.set()

    monkeypatch.setattr(rows, "settle", settled)
    monkeypatch.setattr(Delivery, "_loop", LOOP)
    before = {thread for thread in threading.enumerate() if thread.name == "ipybatch-delivery"}  # another server's

    async def serve():
        running = asyncio.ensure_future(Delivery(JournalFiles(), rest_s=lambda: 0.01).run())
        assert await asyncio.to_thread(arrived.wait, 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(serve())
    for thread in threading.enumerate():
        if thread.name == "ipybatch-delivery" and thread not in before:
            thread.join(20)
            assert not thread.is_alive()
    assert len(hook.requests) == 1


def test_a_jupyter_server_delivers(served):
    """Whoever installs the extension needs no cron."""
    assert served.delivers.wait(20)
