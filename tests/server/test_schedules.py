"""Routes of schedules: made, changed, listed, commanded; what is refused; and the server's own look at what is due."""

import asyncio
import os
import re
import shutil
import subprocess

import pytest

from ipybatch.server import schedules, upload_store, uploads
from ipybatch.server.schedule_store import Schedules
from tests.kernels import ROOT
from tests.server.conftest import TOKEN
from tests.server.submitting import add_words, set_row

NIGHTLY = {"submission": {"template": "words", "requests": ["one"]}, "cron": "0 22 * * 1-5", "zone": "Europe/Berlin"}


@pytest.fixture
def server(served, monkeypatch):
    """The server, with a template of its own; nothing runs."""
    monkeypatch.setattr("ipybatch.server.templates.TEMPLATES", {})
    add_words()
    return served


def put(server, name="night", told=NIGHTLY, query="", **headers):
    return server.request("PUT", f"/schedules/{name}{query}", json=told, headers=headers)


def refused(response, status, field=""):
    """Return what is said of a request that was refused, as a problem."""
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert (response.status_code, told["status"], told.get("field", "")) == (status, status, field), told
    return told


def overdue(server):
    """Let a schedule be due since long ago."""
    store = server.services.schedules()
    store._change(store.find("night"), next_s=1_000_000_000.0)


class TestMaking:
    def test_made_read_and_listed(self, server):
        made = put(server)
        assert (made.status_code, made.headers["Location"]) == (201, "/ipybatch/api/v1/schedules/night")
        told = made.json()
        assert (told["state"], told["misfire"], told["grace"], len(told["next"])) == ("waiting", "run", "15m", 5)
        assert told["submission"]["requests"] == ["one"]
        assert server.get("/schedules/night").json() == told
        assert server.get("/schedules").json() == {"items": [told], "next": None}
        assert server.get("/").json()["links"]["schedules"] == "/ipybatch/api/v1/schedules"

    def test_dry_run_makes_nothing(self, server):
        told = put(server, query="?dry_run=1")
        assert (told.status_code, len(told.json()["next"])) == (200, 5)
        assert server.get("/schedules").json()["items"] == []

    def test_a_name_of_any_letters(self, server):
        assert put(server, "Nacht%20%2F%20%C3%BC").json()["name"] == "Nacht / ü"
        (link,) = {told["links"]["self"] for told in server.get("/schedules").json()["items"]}
        assert server.get(link).json()["name"] == "Nacht / ü"

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({"cron": "0 22 * *"}, "cron"),
            ({"every": "1d"}, "every"),
            ({"zone": "Mars"}, "zone"),
            ({"misfire": "maybe"}, "misfire"),
            ({"submission": {"template": "horoscope"}}, "submission.template"),
            ({"submission": {"template": "words", "requests": []}}, "submission.requests"),
            ({"submission": {"template": "words", "requests": ["a"], "name": "x"}}, "submission.name"),
            ({"colour": "red"}, "body"),
        ],
    )
    def test_what_is_wrong_is_named(self, server, given, field):
        for query in ("", "?dry_run=1"):
            refused(put(server, told={**NIGHTLY, **given}, query=query), 422, field)
        assert server.get("/schedules").json()["items"] == []

    def test_a_rule_with_a_star_is_no_path(self, server):
        """The message shows the rule as it was given."""
        told = refused(put(server, told={**NIGHTLY, "every": None, "at": None, "cron": "*/0 * * * *"}), 422, "cron")
        assert "got '*/0 * * * *'" in told["detail"]

    def test_a_note_names_files_without_their_folders(self, server):
        put(server)
        store = server.services.schedules()
        store._change(store.find("night"), note="/home/ana/templates/night.toml: it is none")
        assert server.get("/schedules/night").json()["note"] == "night.toml: it is none"

    def test_pages(self, server):
        for name in "abc":
            put(server, name)
        first = server.get("/schedules?limit=2")
        assert [told["name"] for told in first.json()["items"]] == ["a", "b"]
        assert 'rel="next"' in first.headers["Link"]
        second = server.get(f"/schedules?cursor={first.json()['next']}").json()
        assert ([told["name"] for told in second["items"]], second["next"]) == (["c"], None)
        refused(server.get("/schedules?cursor=c"), 422, "cursor")


class TestChanging:
    def test_a_change_needs_what_was_read(self, server):
        tag = put(server).headers["ETag"]
        assert server.get("/schedules/night").headers["ETag"] == tag
        paused = {**NIGHTLY, "paused": True}
        refused(put(server, told=paused), 428, "If-Match")
        refused(put(server, told=paused, **{"If-Match": '"other"'}), 412, "If-Match")
        refused(put(server, told=paused, **{"If-None-Match": "*"}), 412, "If-None-Match")
        changed = put(server, told=paused, **{"If-Match": tag})
        assert (changed.status_code, changed.json()["state"]) == (200, "paused")
        refused(put(server, told=NIGHTLY, **{"If-Match": tag}), 412, "If-Match")
        assert put(server, told=NIGHTLY, **{"If-Match": "*"}).json()["state"] == "waiting"

    @pytest.mark.parametrize("timing", [{"every": "1d"}, {"every": "1d", "at": "22:00"}, {"cron": "0 * * * *"}])
    def test_one_that_begins_at_the_end_of_the_calendar(self, server, timing):
        told = {"submission": NIGHTLY["submission"], "start_at": "9999-12-31T23:00:00Z", **timing}
        refused(put(server, told=told), 422, "start_at")

    def test_one_that_is_not_there_is_not_changed(self, server):
        refused(put(server, **{"If-Match": '"x"'}), 412, "If-Match")
        assert put(server, **{"If-None-Match": "*"}).status_code == 201

    def test_not_modified(self, server):
        put(server)
        tag = server.get("/schedules/night").headers["ETag"]
        assert server.get("/schedules/night", headers={"If-None-Match": tag}).status_code == 304

    def test_removed(self, server):
        put(server)
        tag = server.get("/schedules/night").headers["ETag"]
        refused(server.delete("/schedules/night"), 428, "If-Match")
        refused(server.delete("/schedules/night", headers={"If-Match": '"other"'}), 412, "If-Match")
        assert server.delete("/schedules/night", headers={"If-Match": tag}).status_code == 204
        refused(server.delete("/schedules/night", headers={"If-Match": "*"}), 404)
        refused(server.get("/schedules/night"), 404)


class TestCommands:
    def test_paused_and_resumed(self, server):
        put(server)
        for verb, state in (("pause", "paused"), ("resume", "waiting")):
            told = server.post("/schedules/night/commands", json={"verb": verb})
            assert (told.status_code, told.json()["state"]) == (200, state)

    def test_run_now(self, server):
        put(server)
        told = server.post("/schedules/night/commands", json={"verb": "run_now"}).json()
        assert told["last"]["state"] == "PENDING"
        made = server.get(told["links"]["last"]).json()
        assert (made["id"], made["name"]) == (told["last"]["submission"], told["last"]["name"])
        assert made["name"].startswith("night 20")
        refused(server.post("/schedules/night/commands", json={"verb": "run_now"}), 409, "verb")

    def test_answered(self, server):
        put(server, told={**NIGHTLY, "misfire": "ask"})
        overdue(server)
        server.services.schedules().submit_due()
        told = server.get("/schedules/night").json()
        assert told["state"] == "asking"
        assert told["question"].endswith("were missed: run once now, or skip?")
        refused(server.post("/schedules/night/commands", json={"verb": "answer"}), 422, "answer")
        told = server.post("/schedules/night/commands", json={"verb": "answer", "answer": "skip"}).json()
        assert (told["state"], told["question"], told["last"]) == ("waiting", "", None)
        refused(server.post("/schedules/night/commands", json={"verb": "answer", "answer": "skip"}), 422, "verb")

    def test_one_that_is_not_there(self, server):
        refused(server.post("/schedules/night/commands", json={"verb": "pause"}), 404)
        refused(server.post("/schedules/night/commands", json={"verb": "stop"}), 422, "verb")


@pytest.fixture
def look(server, monkeypatch):
    """Let the server look at what is due, all the time, until something was submitted."""
    services = server.services

    async def until_submitted():
        services.submitted.clear()
        looking = asyncio.ensure_future(schedules.scheduling(services, pause_s=lambda: 0.01))
        try:
            await asyncio.wait_for(services.submitted.wait(), 20)
        finally:
            looking.cancel()

    def look():
        monkeypatch.setattr(server, "submits_what_is_due", True)
        server.call(until_submitted())

    return look


class TestLooking:
    def test_what_is_due_is_submitted_and_told(self, server, look):
        """By the server itself, and to the supervisor at once."""
        put(server)
        overdue(server)
        look()
        told = server.get("/schedules/night").json()
        assert told["last"]["state"] == "PENDING"
        assert "missed: submitted once" in told["note"]

    def test_what_goes_wrong_is_tried_again(self, server, look, monkeypatch, caplog):
        put(server)
        overdue(server)
        submit_due = Schedules.submit_due

        def fail_once(store):
            monkeypatch.setattr(Schedules, "submit_due", submit_due)
            raise RuntimeError("once")

        monkeypatch.setattr(Schedules, "submit_due", fail_once)
        look()
        assert "schedules cannot be looked at" in caplog.text

    def test_whoever_watches_is_told(self, server):
        """GET /events and the side bar: `schedules` says that they changed."""
        watcher, told = server.services.watcher, []
        put(server, "first")  # a journal
        server.call(watcher.look(1e9))
        watcher._emit, emit = told.append, watcher._emit
        try:
            put(server)
            server.call(watcher.look(2e9))
            server.call(watcher.look(3e9))
        finally:
            watcher._emit = emit
        assert [change["schedules"] for change in told] == [True]


def test_a_table_is_kept_as_long_as_its_schedule(server, tmp_path, monkeypatch):
    """However often it was submitted."""
    swept = []
    monkeypatch.setattr(upload_store, "sweep", lambda held, done: swept.append((held, done)))
    upload_store.folder_of().mkdir(parents=True)
    told = {**NIGHTLY, "submission": {"template": "words", "requests": ["one"], "upload": "a1"}}
    put(server, told=told)
    server.post("/schedules/night/commands", json={"verb": "run_now"})
    store = server.services.submissions()
    (row,) = store.page(1)
    set_row(store, row, state="COMPLETED", template="forecast")
    uploads.sweep()
    server.delete("/schedules/night", headers={"If-Match": "*"})
    uploads.sweep()
    assert swept == [({"a1"}, set()), (set(), {"a1"})]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_every_call_on_the_page_is_answered(served, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "library.sqlite3"))
    page = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    calls = re.findall(r"^```sh\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    script = "set -euo pipefail\n" + "\n".join(calls)
    environment = {**os.environ, "URL": served.url, "TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
    said = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.count('"state":"waiting"') == 4
    assert '"state":"PENDING"' in said.stdout
    assert served.get("/schedules").json()["items"] == []
