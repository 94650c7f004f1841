"""History: what the journal tells of all sessions, and how it is cleared."""

import asyncio
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

import ipybatch
from ipybatch import InputError, Limits
from ipybatch.engine.store import journal as journals
from tests.works import Elsewhere, Recorder


async def work(item):
    await asyncio.sleep(2)
    if item == 3:
        raise ValueError("bad")
    return item


def test_history_lists_every_run_oldest_first(plan, clock, journal):
    clock.run(plan(work, [1, 2, 3], name="first", limits=Limits(concurrency=1)))
    clock.run(plan(work, [1], name="second"))
    frame = ipybatch.history(journal)
    assert frame["name"].tolist() == ["first", "second"]
    assert frame["state"].tolist() == ["completed", "completed"]
    first = frame.iloc[0]
    assert (first["total"], first["completed"], first["failed"]) == (3, 2, 1)
    assert (first["seconds"], first["seconds_per_item"]) == (6, 2)
    assert isinstance(frame["started"].dtype, pd.DatetimeTZDtype)


def test_history_of_an_empty_journal_has_its_columns(journal):
    frame = ipybatch.history(journal)
    assert len(frame) == 0
    assert {"name", "started", "seconds", "seconds_per_item", "state", "reason", "usd"} <= set(frame.columns)


def test_history_says_why_a_session_ended_early(plan, clock, journal):
    clock.run(plan(work, [3, 1], on_failure="stop", limits=Limits(concurrency=1)))
    assert ipybatch.history(journal)[["state", "reason"]].to_numpy().tolist() == [
        ["failed", "item 3 failed: ValueError: bad"]
    ]


def test_a_running_session_is_running_in_history(live, journal):
    hold = threading.Event()
    session = live(lambda item: hold.wait(20) and None, [1])
    session.start()
    assert ipybatch.history(journal)["state"].tolist() == ["running"]
    hold.set()
    session.run()
    assert ipybatch.history(journal)["state"].tolist() == ["completed"]


def test_seconds_add_up_over_resumes(plan, clock, journal):
    clock.run(plan(work, [1]))
    clock.run(plan(work, [1, 2]))
    assert ipybatch.history(journal)["seconds"].tolist() == [4]


def test_prune_deletes_what_ended_long_ago_and_says_how_many(plan, clock, journal):
    """The virtual clock's sessions ended in 2023."""
    clock.run(plan(work, [1], name="old"))
    clock.run(plan(work, [1], name="older", fresh=True))
    assert ipybatch.prune(older_than_s=100 * 365 * 86400, journal=journal) == 0
    assert ipybatch.prune(older_than_s=60, journal=journal) == 2
    assert len(ipybatch.history(journal)) == 0


def test_prune_keeps_what_is_young_or_running(live, journal):
    hold = threading.Event()
    live(lambda item: item, [1], name="young").run()
    running = live(lambda item: hold.wait(20) and None, [1], name="running")
    running.start()
    assert ipybatch.prune(older_than_s=3600, journal=journal) == 0
    assert ipybatch.prune(older_than_s=0, journal=journal) == 1
    assert ipybatch.history(journal)["name"].tolist() == ["running"]
    hold.set()
    assert running.run().state == "completed"


def test_the_journal_lies_where_the_environment_says(tmp_path, monkeypatch, patience):
    path = tmp_path / "elsewhere" / "journal.db"
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(path))
    assert len(ipybatch.history()) == 0
    assert path.exists()


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))


def test_history_everywhere_has_the_runs_of_all_journals(plan, clock, tmp_path, runtime):
    paths = [tmp_path / name for name in ("a.db", "b.db", "c.db")]
    for path in paths:
        clock.run(plan(work, [1], name=path.stem, journal=path))
    paths[1].unlink()
    frame = ipybatch.history(tmp_path / "none.db", everywhere=True)
    assert frame[["name", "state", "journal"]].to_numpy().tolist() == [
        ["a", "completed", str(paths[0])],
        ["c", "completed", str(paths[2])],
    ]
    assert list(frame)[:-1] == list(ipybatch.history(paths[0]))
    assert not (tmp_path / "none.db").exists()
    for path in paths:
        journals._open_journals.pop(path).close()


def test_history_everywhere_has_the_default_journal_too(plan, clock, journal, monkeypatch, runtime):
    clock.run(plan(work, [1]))
    monkeypatch.setattr("ipybatch.engine.store.registration.registered", lambda: iter(()))
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(journal))
    assert ipybatch.history(everywhere=True)["journal"].tolist() == [str(journal)]


def test_history_everywhere_of_nothing_has_its_columns(tmp_path, runtime):
    frame = ipybatch.history(tmp_path / "none.db", everywhere=True)
    assert len(frame) == 0
    assert {"name", "started", "seconds", "state", "journal"} <= set(frame.columns)


def test_what_runs_has_the_seconds_of_this_start_and_the_ones_before(live, journal):
    """The beat that a commit leaves is what is known of it."""
    hold = threading.Event()
    live(lambda item: item, [1]).run()
    before_s = ipybatch.history(journal)["seconds"][0]
    session = live(lambda item: item == 2 or (hold.wait(20) and None), [1, 2, 3], limits=Limits(concurrency=1))
    began_s = time.time()
    session.start()
    while session.counts.completed < 2:
        threading.Event().wait(0.01)
    seconds = ipybatch.history(journal)["seconds"][0] - before_s
    assert 0 <= seconds <= time.time() - began_s + 0.01
    assert ipybatch.history(journal)["state"].tolist() == ["running"]
    hold.set()
    session.run()


DIES = """
import os
from ipybatch import BatchSession, Limits
def work(item):
    if item == 3:
        os._exit(9)
    return item
BatchSession("night", work, [1, 2, 3], limits=Limits(concurrency=1), journal=sys.argv[1]).run()
"""


def test_a_session_whose_process_died_is_interrupted(journal, tmp_path):
    done = subprocess.run([sys.executable, "-c", f"import sys{DIES}", str(journal)], timeout=60, check=False)
    assert done.returncode == 9
    row = ipybatch.history(journal, everywhere=True).query("name == 'night'").iloc[-1]
    assert (row["state"], row["completed"]) == ("interrupted", 2)
    assert 0 <= row["seconds"] < 60
    assert ipybatch.history(journal)["state"].tolist() == ["interrupted"]


def test_seconds_of_a_start_that_a_crash_ended_are_counted_when_another_goes_on(live, journal):
    """Up to its last sign of life; the time until somebody goes on with it is none of it."""
    live(Recorder({2: ConnectionError()}), [1, 2], retry=ipybatch.Retry(attempts=1)).run()
    (before_s,) = ipybatch.history(journal)["seconds"]
    now_s = time.time()
    Elsewhere(journal).write(owner=None, begun_s=now_s - 100, beat_s=now_s - 60)
    assert ipybatch.history(journal)["seconds"][0] == pytest.approx(before_s + 40)
    session = live(Recorder(), [1, 2])
    assert "completed" in str(session.run())
    (seconds,) = ipybatch.history(journal)["seconds"]
    assert seconds == pytest.approx(before_s + 40 + session.summary.seconds, abs=0.5)


def test_a_start_that_did_not_begin_adds_no_seconds_to_a_crash(live, journal):
    live(Recorder({2: ConnectionError()}), [1, 2], retry=ipybatch.Retry(attempts=1)).run()
    now_s = time.time()
    Elsewhere(journal).write(owner=None, seconds=0.0, begun_s=now_s - 1000, beat_s=now_s - 960)
    with pytest.raises(InputError, match="ZeroDivisionError"):
        live(Recorder(), [1, 2, 3], skip=lambda item: 1 / 0).run()
    assert ipybatch.history(journal)["state"].tolist() == ["interrupted"]
    assert ipybatch.history(journal)["seconds"][0] == pytest.approx(40, abs=0.5)


def test_a_paused_session_is_paused_in_history(live, journal, gate):
    session = live(gate, [1, 2], limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    session.pause()
    while ipybatch.history(journal)["state"].tolist() != ["paused"]:  # its commit is not waited for
        threading.Event().wait(0.01)
    session.resume()
    while ipybatch.history(journal)["state"].tolist() != ["running"]:
        threading.Event().wait(0.01)
