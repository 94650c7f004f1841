"""A receiver that asks to be left alone is: by every message, journal and process of the user."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time

import msgspec
import pytest

from ipybatch import BatchSession, notify
from ipybatch.notify import delivery, rests
from tests.notify.receivers import SECRET

AWAY = (503, {"Retry-After": "900"})


def work(item):
    return item


def finish():
    delivery.deliverer.finish(20.0)


def end(**arguments):
    BatchSession(work=work, items=[1], **arguments).run(verbose=False)
    finish()


def lasts_s(channel="hook"):
    return rests.in_force()[channel] - time.time()


def make_due(journal):
    with contextlib.closing(sqlite3.connect(journal)) as database, database:
        database.execute("UPDATE outbox SET due_s = 0")


@pytest.fixture
def resting(journal, hook):
    """A journal with a message that was answered 503 with a Retry-After."""
    hook.answers = [AWAY]
    end(name="first", notify="hook", journal=journal)
    assert len(hook.requests) == 1
    make_due(journal)
    return journal


def test_all_messages_of_its_channel_wait(resting, hook):
    """Also those that come later, and nobody else's."""
    hook.add("other")
    end(name="second", notify=["hook", "other"], journal=resting)
    assert notify.deliver(resting) == 0
    assert [request.told["session"]["name"] for request in hook.requests] == ["first", "second"]
    frame = notify.outbox(resting).set_index("channel")
    assert frame.loc["other", "state"] == "sent"
    assert set(frame.loc["hook", "attempts"]) == {1, 0}
    waits = (frame.loc["hook", "due"].astype("datetime64[ns, UTC]").astype("int64") / 1e9) - time.time()
    assert waits.between(880, 901).all()


def test_other_journals_wait_too(resting, hook, tmp_path):
    end(name="elsewhere", notify="hook", journal=tmp_path / "other.sqlite3")
    assert len(hook.requests) == 1
    assert delivery.Round(tmp_path / "other.sqlite3").run().next_s == pytest.approx(time.time() + 900, abs=20)


def test_other_processes_wait_too(resting, hook):
    deliver = [sys.executable, "-m", "ipybatch", "notify", "deliver", "--journal", str(resting)]
    assert subprocess.run(deliver, capture_output=True, text=True, check=True).stdout == ""
    rests.end("hook")
    assert subprocess.run(deliver, capture_output=True, text=True, check=True).stdout == "1 message sent\n"


def test_a_test_that_arrives_ends_it(resting, hook):
    """Somebody tries it: it is sent at once, and what waits goes on."""
    notify.test_channel("hook")
    assert rests.in_force() == {}
    assert notify.deliver(resting) == 1


def test_a_test_that_is_answered_so_begins_it(hook):
    hook.answers = [AWAY]
    with pytest.raises(notify.NotSent, match="it answered 503"):
        notify.test_channel("hook")
    assert 880 < lasts_s() <= 900


def test_a_channel_made_anew_has_none(resting, hook):
    notify.add_channel("hook", hook.url, secret=SECRET, replace=True)
    assert notify.deliver(resting) == 1


def test_a_channel_that_was_removed_has_none(resting):
    notify.remove_channel("hook")
    assert rests.in_force() == {}


def test_a_shorter_one_does_not_end_a_longer_one():
    rests.begin("hook", 900)
    rests.begin("hook", 5)
    rests.begin("other", 5)
    assert 880 < lasts_s() <= 900
    assert 0 < lasts_s("other") <= 5


@pytest.mark.parametrize(
    ("given", "wait_s"), [("120", 120), ("999999", rests.LONGEST_S), ("soon", 0), ("", 0), ("-5", 0), ("²", 0)]
)
def test_how_long_it_lasts(hook, given, wait_s):
    hook.answers = [(429, {"Retry-After": given.encode("utf-8").decode("latin-1")})]
    with pytest.raises(notify.NotSent):
        notify.test_channel("hook")
    assert (lasts_s() if wait_s else len(rests.in_force())) == pytest.approx(wait_s, abs=20 if wait_s else 0)


def test_a_date_lasts_until_then(hook):
    """One without a zone is UTC, as in all of HTTP."""
    hook.answers = [(429, {"Retry-After": time.strftime("%a, %d %b %Y %H:%M:%S", time.gmtime(time.time() + 600))})]
    with pytest.raises(notify.NotSent):
        notify.test_channel("hook")
    assert lasts_s() == pytest.approx(600, abs=20)


def test_a_clock_that_was_set_back_ends_it(config):
    config.mkdir()
    told = {"hook": time.time() + 2 * rests.LONGEST_S, "other": time.time() + 60}
    rests.path().write_bytes(msgspec.json.encode(told))
    assert list(rests.in_force()) == ["other"]


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"hook": "soon"}', b"\xff"])
def test_a_damaged_file_holds_nobody_up(config, content):
    config.mkdir()
    rests.path().write_bytes(content)
    assert rests.in_force() == {}
    rests.begin("hook", 60)
    assert list(rests.in_force()) == ["hook"]


def test_where_it_cannot_be_written_this_process_knows(monkeypatch):
    def refuse(path, text):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(rests, "write_private", refuse)
    monkeypatch.setattr(rests, "_unwritten", {})
    rests.begin("hook", 60)
    assert 40 < lasts_s() <= 60
    rests.end("hook")
    assert rests.in_force() == {}
