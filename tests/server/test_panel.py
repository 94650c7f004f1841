"""The panel of a session's tab is what its own process would draw, as far as the journal tells it."""

import contextlib
import sqlite3
import time

import msgspec
import pytest

from ipybatch import BatchSession, Limits, Permanent, Rate
from ipybatch.engine.store import schema
from ipybatch.engine.store.journal import default_path
from ipybatch.engine.store.schema import ids
from ipybatch.server import recorded_view
from tests.server.conftest import DEAD, LATEST, write_runs
from tests.works import Gate, Recorder


def panel(served, id_, cursor=None):
    answer = served.get(f"/sessions/{id_}/panel", params={"cursor": cursor} if cursor else {})
    assert answer.status_code == 200, answer.text
    return answer.json()["update"], answer.json()["cursor"]


@pytest.fixture
def run(served):
    """Run a session in the test's journal, here; its server looks at the journal as at another process's."""

    def begin(work, items, **given):
        return BatchSession("night", work, items, **given)

    return begin


def shown(served):
    services = served.services
    (path,) = services.catalogue.files().paths.values()
    return services.catalogue.id_of(path, 1)


def test_a_session_that_ended_is_drawn_as_it_ended(served, run):
    """Counts, failures, batches, the curve, and why it can do nothing more here."""
    session = run(Recorder({3: Permanent("gone")}), list(range(7)), limits=Limits(batch_size=3))
    session.run()
    update, _ = panel(served, shown(served))
    head = update["head"]
    assert (head["name"], head["state"], head["can"]) == ("night", "completed", [])
    assert (head["counts"]["completed"], head["counts"]["failed"], head["counts"]["total"]) == (6, 1, 7)
    assert [(group["name"], group["status"], group["done"]) for group in update["groups"]] == [
        ("Batch 1", "completed", 3),
        ("Batch 2", "completed", 3),
        ("Batch 3", "completed", 1),
    ]
    assert [(item["key"], item["error"]) for item in update["failures"]] == [("3", "gone")]
    assert (update["whole"], update["pace"][-1]["ended"]) == (True, 7)
    assert not head["untold"]


def test_a_running_session_is_followed_and_told_in_changes(served, run):
    """The second question gets what is new; the same question again, 304."""
    gate = Gate()
    session = run(gate, [1, 2, 3, 4], limits=Limits(concurrency=2, rates=[Rate(50, per_s=10)]))
    session.start()
    gate.wait_begun(2)
    until_s = time.monotonic() + 10
    update, cursor = panel(served, shown(served))
    while not update["head"]["counts"]["running"] and time.monotonic() < until_s:
        time.sleep(0.05)
        update, cursor = panel(served, shown(served), cursor)
    head = update["head"]
    assert (head["state"], head["counts"]["running"], head["concurrency"]) == ("running", 2, 2)
    assert head["windows"][0]["limit"] == 50
    assert {"pause", "cancel"} <= set(head["can"])
    gate.open()
    session.run()
    update, cursor = panel(served, shown(served), cursor)
    assert (update["whole"], update["head"]["state"], update["head"]["counts"]["completed"]) == (False, "completed", 4)
    assert update["log"][-1]["level"] == "good"


def test_nothing_new_is_answered_in_a_line(served):
    write_runs(served.services.catalogue.files().paths.popitem()[1], [{"completed": 4, "total": 4, "ended_s": 200.0}])
    first = served.get(f"/sessions/{shown(served)}/panel")
    again = served.get(f"/sessions/{shown(served)}/panel", headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def test_a_session_that_begins_again_is_followed_on(served, run):
    run(Recorder({1: ConnectionError("down")}), [1, 2], breaker=None).run()
    id_ = shown(served)
    _, cursor = panel(served, id_)
    run(Recorder(), [1, 2]).run()
    update, _ = panel(served, id_, cursor)
    assert (update["head"]["state"], update["head"]["counts"]["completed"]) == ("completed", 2)


def test_a_cursor_of_another_server_gets_everything(served, run):
    run(Recorder(), [1]).run()
    _, cursor = panel(served, shown(served))
    served.services.views.__init__()
    update, _ = panel(served, shown(served), cursor)
    assert update["whole"]


@pytest.mark.parametrize(
    ("id_", "cursor", "status"), [("0" * 16 + "-1", "", 404), ("", "x", 422), ("..%2f..", "", 404)]
)
def test_what_is_not_there_is_told(served, run, id_, cursor, status):
    run(Recorder(), [1]).run()
    answer = served.get(f"/sessions/{id_ or shown(served)}/panel", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["status"]) == (status, status)


def test_the_least_used_view_goes(tmp_path):
    path = tmp_path / "j.sqlite3"
    write_runs(path, [{"name": f"n{at}"} for at in range(recorded_view.VIEWS + 3)])
    views = recorded_view.Views()
    for run in range(1, recorded_view.VIEWS + 4):
        views.update(path, run, None)
    assert len(views._views) == recorded_view.VIEWS
    assert (path, 1) not in views._views


def test_it_is_json_that_the_panel_reads(served, run):
    from ipybatch.jupyter.messages import Update

    run(Recorder(), [1]).run()
    update, _ = panel(served, shown(served))
    assert msgspec.convert(update, Update).head.recorded == 1


@pytest.mark.parametrize("state", ["completed", "running"])
@pytest.mark.parametrize("steps", [1, 3, 4, 7, LATEST - 1, LATEST])
def test_a_journal_of_an_older_version_has_a_panel_and_its_errors(served, steps, state):
    """It is read as it is: nobody but its own process changes it."""
    path = default_path()
    told = {"name": "old", "state": state, "total": 3, "completed": 1, "failed": 2}
    held = {"owner": DEAD, "beat_s": 1.0} if state == "running" else {}
    (run,) = write_runs(path, [told | held], steps=steps)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        kind = [""] if schema.has(database, "item", "kind") else []
        for number, error in enumerate(["HTTP 404: no 0", "", "HTTP 404: no 2"]):
            row = [
                ids(run)[0] + number,
                str(number),
                "",
                "failed" if error else "completed",
                1,
                1,
                1,
                0.1,
                1.0,
                error,
                0,
            ]
            database.execute(f"INSERT INTO item VALUES ({', '.join('?' * len(row + kind))})", row + kind)
    update, _ = panel(served, shown(served))
    assert update["head"]["state"] == ("completed" if state == "completed" else "interrupted")
    assert sorted(item["key"] for item in update["failures"]) == ["0", "2"]
    failures = served.get(f"/sessions/{shown(served)}/failures").json()
    assert [(group["message"], group["count"]) for group in failures["groups"]] == [("HTTP 404: no <key>", 2)]
    assert [item["key"] for item in failures["items"]] == ["0", "2"]


def test_what_its_items_are_no_more_is_in_no_list_of_errors(served, run):
    """The list became shorter: as its header counts it."""
    run(Recorder(dict.fromkeys(range(6), Permanent("gone"))), list(range(6)), breaker=None).run()
    run(Recorder(dict.fromkeys(range(6), Permanent("gone"))), list(range(2)), breaker=None).run()
    assert panel(served, shown(served))[0]["head"]["counts"]["failed"] == 2
    for part, groups in (("failures", "groups"), ("errors", "items")):
        told = served.get(f"/sessions/{shown(served)}/{part}").json()[groups]
        assert [(group["message"], group["count"]) for group in told] == [("gone", 2)]
