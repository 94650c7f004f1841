"""Server-sent events, as curl reads them."""

import contextlib
import json
import time

import httpx2
import pytest

from ipybatch.server import event_stream
from tests.server.conftest import BASE, TOKEN, write_runs


@contextlib.contextmanager
def stream(served, **headers):
    """The answer of a stream, whose lines come as they are sent."""
    sent = {"Authorization": f"token {TOKEN}", **headers}
    with (
        httpx2.Client(base_url=served.url, headers=sent, timeout=20) as client,
        client.stream("GET", f"{BASE}/events") as answer,
    ):
        yield answer


def events(answer):
    """What comes, a dict for each block of lines."""
    block = {}
    for line in answer.iter_lines():
        if line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(": ")
            block[name] = value
        elif block:
            yield block
            block = {}


def look(served):
    async def look():
        served.services.watcher._latest_s = 0.0
        await served.services.watcher.look(time.monotonic())

    served.call(look())


def idle(served):
    """Wait until the server knows that the streams of a test have ended."""
    ends_s = time.monotonic() + 20
    while served.services.watcher.streams and time.monotonic() < ends_s:
        time.sleep(0.005)
    assert served.services.watcher.streams == 0


@pytest.fixture(autouse=True)
def streams_end(jupyter):
    yield
    idle(jupyter)


def test_a_change_comes_with_its_cursor(served, tmp_path):
    look(served)
    with stream(served) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["Cache-Control"] == "no-store"
        coming = events(answer)
        first = next(coming)
        assert int(first["retry"]) > 0
        write_runs(tmp_path / "journal.sqlite3", [{"name": "night"}])
        look(served)
        change = next(event for event in coming if event.get("event") == "change")
        data = json.loads(change["data"])
        assert int(change["id"]) == data["cursor"] == int(first["id"]) + 1
        assert [item["name"] for item in data["items"]] == ["night"]


def test_whoever_comes_back_gets_what_came_meanwhile(served, tmp_path):
    look(served)
    with stream(served) as answer:
        left = next(events(answer))["id"]
    write_runs(tmp_path / "journal.sqlite3", [{"name": "meanwhile"}])
    look(served)
    with stream(served, **{"Last-Event-ID": left}) as answer:
        coming = events(answer)
        assert next(coming)["id"] == left
        change = next(coming)
        assert (change["event"], int(change["id"])) == ("change", int(left) + 1)


@pytest.mark.parametrize("cursor", ["1", "99999999999999999"])
def test_whoever_missed_too_much_is_told_to_list_anew(served, cursor):
    with stream(served, **{"Last-Event-ID": cursor}) as answer:
        coming = events(answer)
        next(coming)
        told = next(coming)
        assert told["event"] == "resync"
        assert json.loads(told["data"])["cursor"] == int(told["id"]) == served.services.watcher.cursor


@pytest.mark.parametrize("cursor", ["x", "-1", "1" * 30, "1.5"])
def test_what_is_no_cursor_is_refused(served, cursor):
    answer = served.get("/events", headers={"Last-Event-ID": cursor})
    assert (answer.status_code, answer.json()["field"]) == (422, "Last-Event-ID")


def test_heartbeat(served, monkeypatch):
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.01)
    with stream(served) as answer:
        coming = events(answer)
        next(coming)
        assert next(coming) == next(coming) == {"comment": "alive"}


def test_ninth_stream_is_refused(served, monkeypatch):
    monkeypatch.setattr(type(served.services.options), "max_streams", 2)
    with stream(served) as first, stream(served) as second:
        assert first.status_code == second.status_code == 200
        answer = served.get("/events")
        assert answer.status_code == 429
        assert answer.json()["allowed"] == {"max_streams": 2}
        assert "max_streams" in answer.json()["detail"]
        assert int(answer.headers["Retry-After"]) > 0
    idle(served)
    with stream(served) as third:
        assert third.status_code == 200


def test_head_ends(served):
    answer = served.request("HEAD", "/events")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")


def test_streams_end_with_the_server(served, monkeypatch):
    watcher = served.services.watcher
    with stream(served) as answer:
        coming = events(answer)
        next(coming)

        async def close():
            watcher.is_closed = True
            watcher._wake()

        try:
            served.call(close())
            assert list(coming) == []
        finally:
            watcher.is_closed = False
