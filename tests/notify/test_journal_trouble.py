"""What goes wrong with a journal while its messages are sent: none is sent twice for it, and it is told."""

import contextlib
import os
import sqlite3
import threading
import time

import pytest

from ipybatch import notify
from ipybatch.engine.store import history, lease
from ipybatch.engine.store import outbox as rows
from ipybatch.errors import JournalError
from ipybatch.notify import delivery


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    """No session's own process sends anything."""
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)


def work(item):
    return item


def sql(journal, command, *values):
    with contextlib.closing(sqlite3.connect(journal)) as database, database:
        database.execute(command, values)


def test_what_was_sent_is_recorded_as_soon_as_the_journal_can_be_written(live, hook, journal, monkeypatch):
    """Another program holds it for longer than a small write waits: that is no reason to send it once more."""
    monkeypatch.setattr(history, "WRITE_S", 0.01)
    monkeypatch.setattr(delivery, "SETTLE_S", 0.01)
    live(work, [1], notify="hook").run()
    send, jot, tries = delivery.webhook.send, history.jot, []
    looking, free = threading.get_ident(), threading.Lock()

    with contextlib.closing(sqlite3.connect(journal, isolation_level=None, check_same_thread=False)) as other:

        def send_and_hold(channel, parcel):
            send(channel, parcel)
            free.acquire()
            other.execute("BEGIN IMMEDIATE")

        def jot_or_try(path, unit):
            if threading.get_ident() == looking:  # for more messages: that is another question
                with free:
                    return jot(path, unit)
            tries.append(path)
            if len(tries) == 4:
                other.execute("ROLLBACK")
                free.release()
            return jot(path, unit)

        monkeypatch.setattr(delivery.webhook, "send", send_and_hold)
        monkeypatch.setattr(history, "jot", jot_or_try)
        assert delivery.Round(journal).run().sent == 1
    assert len(tries) == 4
    assert len(hook.requests) == 1
    assert notify.outbox(journal)[["state", "attempts"]].values.tolist() == [["sent", 1]]


def test_what_was_sent_and_could_not_be_recorded_is_not_sent_again_by_its_process(live, hook, journal, monkeypatch):
    """Such as while the disk is full."""
    live(work, [1], notify="hook").run()
    with monkeypatch.context() as patch:

        def refuse(*given, **more):
            raise sqlite3.OperationalError("database or disk is full")

        patch.setattr(rows, "settle", refuse)
        patch.setattr(delivery, "SETTLE_S", rows.LEASE_S)
        with pytest.raises(JournalError, match="disk is full"):
            notify.deliver(journal)
    sql(journal, "UPDATE outbox SET beat_s = 0")
    assert notify.deliver(journal) == 1
    assert len(hook.requests) == 1
    assert delivery._unrecorded == set()


def test_what_another_process_is_sending_is_looked_at_again_in_seconds(live, hook, journal):
    """And not ten times a second: each look is a transaction of that journal."""
    live(work, [1], notify="hook").run()
    owner = f"{lease._HOST}/{os.getppid()}/other"
    sql(journal, "UPDATE outbox SET state = 'waiting', owner = ?, beat_s = ?", owner, time.time())
    assert delivery.Round(journal).run().next_s > time.time() + delivery.AGAIN_S / 2


def test_a_journal_that_cannot_be_written_is_told_where_all_are_looked_at(live, hook, journal, monkeypatch, caplog):
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal))
    live(work, [1], notify="hook").run()

    def refuse(*given):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(rows, "claim", refuse)
    assert notify.deliver() == 0
    assert "attempt to write a readonly database" in caplog.text
