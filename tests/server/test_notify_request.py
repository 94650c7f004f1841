"""Submissions say by names who is told, and are told of though they never had a session."""

import contextlib
import sqlite3

import msgspec
import pytest

from ipybatch import notify
from ipybatch.engine.data.notice import Notify
from ipybatch.errors import InputError
from ipybatch.notify import delivery
from ipybatch.server.notify_request import to_notify
from ipybatch.server.run import work
from ipybatch.server.submission_store import STARTS, Submissions
from ipybatch.server.wire import SubmissionRequest
from ipybatch.simulators import serve
from tests.notify.conftest import config, hook
from tests.server.submitting import DEAD, order, set_row

__all__ = ["config", "hook"]


def request(**given):
    return msgspec.convert({"template": "text", "requests": ["Name a star"], **given}, SubmissionRequest)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("hook", Notify("hook")),
        (["a", "b"], Notify(["a", "b"])),
        ({"channels": "hook"}, Notify("hook")),
        (
            {"channels": ["hook"], "on": ["failed"], "breaker_min": 5, "attach_mb": 0},
            Notify("hook", on="failed", breaker_min=5, attach_mb=0),
        ),
    ],
)
def test_what_a_request_says_is_what_its_session_takes(given, expected):
    assert to_notify(request(notify=given)) == expected


@pytest.mark.parametrize("given", [[], {"channels": []}, {"channels": "hook", "breaker_min": -1}])
def test_what_names_nobody_is_refused(given):
    with pytest.raises(InputError):
        to_notify(request(notify=given))


@pytest.fixture
def store(journal, monkeypatch):
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)
    return Submissions(journal)


def create(store, **given):
    body = msgspec.json.encode(request(notify="hook"))
    return store.create(order(template="text", request=body, name="night", **given))


def test_one_that_cannot_begin_is_told_as_failed(store, hook, monkeypatch):
    """Its key is missing: no session is there that could tell."""
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    row = create(store)
    assert work(row.id, journal=store.path).state == "FAILED"
    assert notify.deliver(store.path) == 1
    told = hook.requests[0].told
    assert (told["kind"], told["session"]) == ("failed", None)
    assert told["text"].startswith("night failed: 0/4 successful")
    assert "GEMINI_API_KEY" in told["text"]


def test_its_session_tells_how_it_ended(store, hook, monkeypatch):
    """In the process that runs it, by the channel that the request named."""
    monkeypatch.setenv("GEMINI_API_KEY", "SIMULATED")
    with serve("gemini") as url:
        asked = request(params={"base_url": url}, notify={"channels": "hook", "on": ["finished"]})
        row = store.create(order(template="text", request=msgspec.json.encode(asked), name="night", requests=1))
        assert work(row.id, journal=store.path).state == "COMPLETED"
    assert notify.deliver(store.path) == 1
    told = hook.requests[0].told
    assert told["text"] == "night completed: 1/1 successful, 0 failed, 0 skipped"
    assert told["session"]["submission"] == row.id
    assert told["session"]["workload"] == "gemini"


def test_one_whose_kernels_died_is_told_once(store, hook):
    row = create(store)
    for _ in range(STARTS):
        claimed = store.claim(2)
        set_row(store, claimed, owner=DEAD)
    assert store.claim(2) is None
    assert store.find(row.id).state == "FAILED"
    assert notify.deliver(store.path) == 1
    assert "started 3 times" in hook.requests[0].told["text"]
    assert notify.deliver(store.path) == 0


def test_one_whose_session_ended_is_told_by_that(store, hook):
    row = create(store)
    held = store.take(row.id)
    with contextlib.closing(sqlite3.connect(store.path)) as database, database:
        database.execute(
            "INSERT INTO run (id, name, resource, group_word, state, created_s, begun_s)"
            " VALUES (7, 'night', '', 'Batch', 'failed', 0, ?)",
            (held.queued_s + 1,),
        )
        database.execute("UPDATE submission SET run = 7")
    store.end(store.find(row.id), "FAILED", "its session said so")
    assert notify.deliver(store.path) == 0


def test_a_route_takes_names_and_refuses_those_there_are_not(served, hook, config, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "SIMULATED")
    body = {"template": "text", "requests": ["Name a star"], "params": {"base_url": "http://127.0.0.1:9"}}
    answer = served.post("/submissions", json={**body, "notify": "hook"})
    assert answer.status_code == 202
    told = served.post("/submissions", json={**body, "notify": ["hok"]}).json()
    assert (told["status"], told["field"], told["allowed"]) == (422, "notify", ["hook"])
    assert "did you mean 'hook'" in told["detail"]
    assert served.post("/submissions", json={**body, "notify": {"mail": "ana@example.org"}}).status_code == 422
