"""Commands reach a session in whichever process it runs; what cannot work is refused with the reason."""

import asyncio
import datetime as dt
import os
import sqlite3
import time
from contextlib import closing

import pytest
from jupyter_client.blocking import BlockingKernelClient

from ipybatch import Limits
from ipybatch.engine.store import history, lease
from ipybatch.server import session_commands
from tests.server.conftest import DEAD, write_runs
from tests.server.test_catalogue import live_run, submit

HERE = f"process {os.getppid()} on {lease._HOST}"


def only(served):
    (item,) = served.get("/sessions").json()["items"]
    return item


def send(served, verb, *, wait="2", **given):
    id_ = only(served)["id"]
    return served.post(f"/sessions/{id_}/commands?wait={wait}", json={"verb": verb, **given})


def wait_until(test):
    """Wait for something that another thread or process does."""
    until_s = time.monotonic() + 20
    while not test():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def refused(answer, status, field="verb"):
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (status, field), answer.text
    return problem


@pytest.fixture
def running(served, live, gate):
    """A session of five items, two of them in flight."""
    session = live(gate, list(range(5)), limits=Limits(concurrency=2))
    session.start()
    gate.wait_begun(2)
    return session


def test_a_session_is_paused_resumed_adjusted_and_cancelled(served, running):
    for verb, given, state in (
        ("pause", {}, "paused"),
        ("resume", {}, "running"),
        ("adjust", {"concurrency": 1}, "running"),
        ("lift", {}, "running"),
        ("cancel", {}, "cancelled"),
    ):
        answer = send(served, verb, **given)
        told = answer.json()
        assert (answer.status_code, told["verb"], told["state"]) == (202, verb, "done")
        assert running.state == state
        assert served.get(answer.headers["Location"]).json() == told | {
            "detail": served.get(answer.headers["Location"]).json()["detail"]
        }
        if verb == "adjust":
            assert running.policy.limits.concurrency == 1
    assert told["detail"] == "the session is cancelled"
    assert only(served)["state"] == "cancelled"


def test_a_session_that_waits_for_its_start_says_so_and_is_started(served, live, gate):
    session = live(gate, [1, 2], start_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=2))
    session.start()
    wait_until(lambda: only(served)["reason"].startswith("it starts at "))
    item = only(served)
    assert (item["state"], item["waiting"]) == ("running", item["reason"])
    answer = send(served, "adjust", start_at="tonight")
    assert "start_at must be '22:00'" in answer.json()["detail"]
    refused(send(served, "pause", start_at="now"), 422, "start_at")
    assert send(served, "adjust", start_at="23:59").json()["state"] == "done"
    wait_until(lambda: only(served)["waiting"].startswith("it starts at 23:59"))
    assert "start_now" in only(served)["can"]
    head = f"/sessions/{item['id']}/panel"
    wait_until(lambda: served.get(head).json()["update"]["head"]["waiting"] == only(served)["waiting"])
    assert "start_now" in served.get(head).json()["update"]["head"]["can"]
    assert send(served, "start_now").json()["state"] == "done"
    gate.wait_begun(2)
    wait_until(lambda: "start_now" not in only(served)["can"])
    assert only(served)["reason"] == ""
    session.cancel()


def test_a_command_is_answered_at_once_unless_it_is_waited_for(served, running):
    answer = send(served, "pause", wait="0")
    assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
    wait_until(lambda: served.get(answer.headers["Location"]).json()["state"] == "done")
    assert only(served)["state"] == "paused"


def test_the_owner_says_why_it_did_not(served, running):
    answer = send(served, "adjust", concurrency=500)
    assert (answer.status_code, answer.json()["state"]) == (202, "done")
    assert "concurrency" in answer.json()["detail"]
    assert running.policy.limits.concurrency == 2


def test_a_verb_that_is_not_taken_within_a_second_is_told_with_what_can_be_done(served, tmp_path, monkeypatch):
    monkeypatch.setattr(session_commands, "TAKEN_S", 3600.0)
    write_runs(tmp_path / "journal.sqlite3", [live_run()])
    at_once = send(served, "cancel", wait="0").json()
    assert (at_once["state"], at_once["detail"]) == ("waiting", f"{HERE} has not taken it yet")
    monkeypatch.setattr(session_commands, "TAKEN_S", 0.05)
    told = send(served, "cancel", wait="0.1").json()
    assert told["state"] == "waiting"
    assert told["detail"].startswith(f"{HERE} has not taken it yet: it may be stopped, busy with code that holds")
    assert told["detail"].endswith(f"; end {HERE} if it has to stop")


def test_the_kernel_that_can_be_interrupted_is_named(served, tmp_path, monkeypatch):
    monkeypatch.setattr(session_commands, "TAKEN_S", 0.0)
    notebook = str(served.app.root_dir) + "/nights/A.ipynb"
    write_runs(tmp_path / "journal.sqlite3", [live_run(kernel="k-1", notebook=notebook)])
    assert (only(served)["kernel"], only(served)["notebook"]) == ("k-1", "nights/A.ipynb")
    told = send(served, "pause", wait="0.1").json()
    assert told["kernel"] == "k-1"
    assert told["detail"].endswith("interrupt the kernel of nights/A.ipynb, or shut it down")


def test_an_asker_writes_one_row_and_migrates_nothing(served, tmp_path):
    path = tmp_path / "journal.sqlite3"
    (number,) = write_runs(path, [live_run(epoch=7)], steps=8)
    assert send(served, "pause", wait="0").status_code == 202
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (8,)
        (row,) = database.execute("SELECT run, verb, arguments, asked_by, taken_s FROM command").fetchall()
    assert row == (number, "pause", "{}", "the Jupyter server", None)


def test_a_process_with_an_older_version_takes_no_commands(served, tmp_path):
    run = live_run()
    del run["begun_s"]
    write_runs(tmp_path / "journal.sqlite3", [run], steps=7)
    problem = refused(send(served, "cancel"), 409)
    assert "older ipybatch" in problem["detail"]
    assert "panel" in problem["next_step"]


def test_what_failed_is_not_tried_again_while_it_runs(served, running):
    assert "once it has ended" in refused(send(served, "retry_failed"), 409)["detail"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"state": "completed"}, "has ended: completed"),
        ({"state": "planned"}, "has not begun"),
        ({"state": "running", "owner": DEAD}, "was interrupted"),
    ],
)
def test_a_session_that_does_not_run_takes_nothing(served, tmp_path, run, said):
    write_runs(tmp_path / "journal.sqlite3", [run])
    for verb in ("pause", "cancel", "lift"):
        assert refused(send(served, verb), 409)["detail"] == f"the session {said}; there is nothing to {verb}"
    problem = refused(send(served, "resume"), 409)
    assert problem["detail"] == f"the session {said}, and its work is in the notebook or the script that made it"
    assert "BatchSession.open('night', work=...)" in problem["next_step"]


def test_a_submission_that_has_ended_goes_into_the_queue_again(served, tmp_path, monkeypatch):
    submitted = asyncio.Event()
    monkeypatch.setattr(served.services, "submitted", submitted)
    path = tmp_path / "journal.sqlite3"
    (number,) = write_runs(path, [{"state": "cancelled", "failed": 1, "cancelled": 1}])
    submit(path, number)
    refused(send(served, "retry_failed", keys=[1]), 422, "keys")
    answer = send(served, "retry_failed")
    assert (answer.status_code, answer.json()["state"], answer.json()["detail"]) == (
        202,
        "done",
        "it is in the queue again",
    )
    assert answer.headers["Location"] == "/ipybatch/api/v1/submissions/s1"
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT state, verb FROM submission").fetchall() == [("PENDING", "retry_failed")]
    assert submitted.is_set(), "the supervisor looks at once"
    assert only(served)["can"] == []
    assert "begins again by itself" in refused(send(served, "resume"), 409)["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"verb": "fly"}, "verb"),
        ({}, "body"),
        ({"verb": "adjust"}, "concurrency"),
        ({"verb": "adjust", "concurrency": 0}, "concurrency"),
        ({"verb": "adjust", "concurrency": "many"}, "concurrency"),
        ({"verb": "adjust", "rates": [-1]}, "rates"),
        ({"verb": "pause", "keys": [1]}, "keys"),
        ({"verb": "pause", "concurrency": 3}, "concurrency"),
        ({"verb": "pause", "force": True}, "body"),
    ],
)
def test_a_body_that_cannot_be_is_refused_by_its_field(served, running, body, field):
    id_ = only(served)["id"]
    refused(served.post(f"/sessions/{id_}/commands", json=body), 422, field)


@pytest.mark.parametrize("wait", ["3", "-1", "nan", "soon"])
def test_it_waits_two_seconds_at_most(served, running, wait):
    refused(send(served, "pause", wait=wait), 422, "wait")
    assert running.state == "running"


@pytest.mark.parametrize("number", ["1", "x", "-1", "99999999999999999999", "..%2f1"])
def test_a_command_that_was_never_asked_is_not_there(served, running, number):
    id_ = only(served)["id"]
    assert served.get(f"/sessions/{id_}/commands/{number}").status_code == 404


def test_a_command_belongs_to_its_session(served, running, tmp_path):
    asked = send(served, "pause").json()["id"]
    write_runs(tmp_path / "journal.db", [{"name": "other"}])
    (other,) = served.get("/sessions?name=other").json()["items"]
    assert served.get(f"/sessions/{other['id']}/commands/{asked}").status_code == 404


def test_what_nobody_runs_any_more_is_not_waited_for(served, tmp_path):
    path = tmp_path / "journal.sqlite3"
    write_runs(path, [live_run()])
    answer = send(served, "cancel", wait="0")
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE run SET owner = ?", (DEAD,))
        database.commit()
    told = served.get(answer.headers["Location"]).json()
    assert (told["state"], told["detail"]) == ("done", "nobody runs the session any more")


def test_a_journal_that_is_locked_is_told(served, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "WRITE_S", 0.05)
    path = tmp_path / "journal.sqlite3"
    write_runs(path, [live_run()])
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        answer = send(served, "cancel")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "locked" in answer.json()["detail"]
    assert str(tmp_path) not in answer.text


BUSY = """
import asyncio, time
from ipybatch import BatchSession, Limits

async def fetch(item):
    await asyncio.sleep(0.2)

session = BatchSession("night", fetch, list(range(4000)), limits=Limits(concurrency=4))
session.start()
time.sleep(60)
"""


def test_a_kernel_that_is_busy_with_a_foreign_cell_is_cancelled(served):
    """No client is connected to it when the command comes: the tab is closed."""
    model = {"path": "busy.ipynb", "type": "notebook", "name": "", "kernel": {"name": "python3"}}
    kernel = served.post("/api/sessions", json=model).json()["kernel"]["id"]
    manager = served.app.kernel_manager.get_kernel(kernel)
    client = BlockingKernelClient()
    client.load_connection_info(manager.get_connection_info())
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute(BUSY)
    wait_until(lambda: served.get("/sessions?state=running").json()["items"])
    client.stop_channels()
    wait_until(lambda: only(served)["notebook"] == "busy.ipynb")
    assert only(served)["kernel"] == kernel
    assert send(served, "pause").json()["state"] == "done"
    assert only(served)["state"] == "paused"
    told = send(served, "cancel").json()
    assert (told["state"], told["detail"]) == ("done", "the session is cancelled")
    assert only(served)["state"] == "cancelled"
    assert served.call(_execution_state(served, kernel)) == "busy"  # the cell is not interrupted
    assert served.delete(f"/api/kernels/{kernel}").status_code == 204


async def _execution_state(served, kernel):
    return served.app.kernel_manager.get_kernel(kernel).execution_state
