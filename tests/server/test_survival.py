"""What survives what: the table of docs/survives.md, a test for each of its cells.

`PROVEN` names them.  Those that no other module has are here: a kernel is a
process of its own, the server is the one that all tests share.
"""

import ast
import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import pytest

from ipybatch.server.catalogue import Catalogue
from ipybatch.server.submission_store import Submissions
from tests.kernels import ROOT, Kernel
from tests.server.conftest import LATEST
from tests.server.submitting import Threads, add_words, order, supervise

HERE = "tests/server/test_survival.py"
PAGE = "tests/browser/test_survives.py"
QUEUE = "tests/server/test_supervisor.py"
STORE = "tests/server/test_submission_store.py"
CULLED = "tests/server/test_activity.py"
NO_PAGE = f"{QUEUE}::TestRunning::test_from_the_queue_to_its_end"
DIES = f"{QUEUE}::TestDying"
# By the table's row: what proves it of a session that was started in a notebook, and of a submission.
PROVEN = {
    "the tab is closed": ([f"{PAGE}::test_two_tabs_show_the_same_and_one_may_close"], [NO_PAGE]),
    "the page is reloaded": ([f"{PAGE}::test_a_reloaded_page_shows_the_present_and_goes_on"], [NO_PAGE]),
    "the browser is killed": ([f"{PAGE}::test_a_browser_that_is_killed_ends_nothing"], [NO_PAGE]),
    "the kernel is restarted": (
        [f"{PAGE}::test_after_a_kernel_restart_open_shows_what_is_recorded"],
        [f"{DIES}::test_a_kernel_that_dies_is_replaced"],
    ),
    "the kernel is killed": (
        [f"{HERE}::test_of_a_killed_kernel_all_is_there_that_was_recorded"],
        [f"{DIES}::test_a_kernel_that_dies_is_replaced", f"{DIES}::test_the_third_that_dies_is_the_last"],
    ),
    "the server is restarted": (
        [f"{HERE}::test_another_server_shows_the_same_session"],
        [f"{DIES}::test_a_server_that_ends_leaves_the_start_uncounted"],
    ),
    "the idle culler is on": (
        [
            f"{CULLED}::test_a_kernel_with_a_live_session_is_not_culled",
            f"{CULLED}::test_after_so_many_hours_it_is_culled",
        ],
        [
            f"{CULLED}::test_a_kernel_with_a_live_session_is_not_culled",
            f"{CULLED}::test_servers_own_last_activity_is_that_of_its_sessions",
        ],
    ),
    "five servers look at one journal": (
        [f"{HERE}::test_another_server_shows_the_same_session"],
        [f"{QUEUE}::test_five_servers_run_each_submission_once"],
    ),
    "the laptop sleeps": (
        [
            f"{HERE}::test_a_machine_that_slept_goes_on",
            "tests/session/test_stalled.py::test_a_process_that_was_stopped_for_a_while_has_seen_no_outage",
        ],
        [f"{STORE}::TestDying::test_who_is_silent_is_watched_first"],
    ),
    "the disk is full": (
        ["tests/chaos/test_journal.py::test_a_full_disk_ends_the_session_and_a_later_run_goes_on"],
        [f"{HERE}::test_a_submission_without_room_goes_on_once_there_is_some"],
    ),
    "the package is upgraded under a running kernel": (
        [
            f"{HERE}::test_a_session_goes_on_in_a_journal_that_a_later_version_took_over",
            "tests/server/test_sessions.py::test_what_an_older_version_recorded_is_read",
        ],
        [f"{DIES}::test_what_another_start_would_find_again_fails_at_once"],
    ),
}


def rows_told():
    text = (ROOT / "docs" / "survives.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_page_says_what_is_proven_and_nothing_else():
    assert rows_told() == list(PROVEN)


@pytest.mark.parametrize("place", sorted({place for cells in PROVEN.values() for cell in cells for place in cell}))
def test_what_proves_it_is_there(place):
    path, *names = place.split("::")
    found = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    for name in names:
        (node,) = (each for each in found if getattr(each, "name", None) == name)
        found = node.body
    assert names[-1].startswith("test_")
    assert not any("chaos" in ast.unparse(decorator) for decorator in node.decorator_list)


# A session of which the items above 2 wait for a file; each says in another file that it began.
CELL = """
import asyncio
from pathlib import Path
from ipybatch import BatchSession, Limits
from ipybatch.engine.store import lease

folder = Path(FOLDER)

async def work(item):
    with (folder / "began").open("a") as file:
        file.write(f"{item} ")
    while item > 2 and not (folder / "gate").exists():
        await asyncio.sleep(0.01)
    return item

session = BatchSession("night", work, range(1, 9), limits=Limits(concurrency=2), journal=folder / "journal.sqlite3")
"""


@pytest.fixture
def kernel():
    """A notebook's kernel."""
    made = Kernel()
    yield made
    made.kill()


def begin(kernel, folder, more=""):
    """Start the session, and wait until two of its items are on record and two have begun."""
    kernel.run(CELL.replace("FOLDER", repr(str(folder))) + more + "\nsession.start()")
    wait_until(lambda: began(folder)[2:] == ["3", "4"])


def began(folder):
    path = folder / "began"
    return sorted(path.read_text().split()) if path.exists() else []


def wait_until(is_so, within_s=100):
    until_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.02)  # the other process needs the core


def night(served):
    (item,) = served.get("/sessions?name=night").json()["items"]
    return item


def test_of_a_killed_kernel_all_is_there_that_was_recorded(served, kernel, tmp_path):
    """The server knows at once; the same call in another kernel goes on, and asks again for what was in flight only."""
    begin(kernel, tmp_path)
    wait_until(lambda: night(served)["counts"]["completed"] == 2)
    assert (night(served)["state"], night(served)["where"].split()[:3]) == (
        "running",
        ["in", "process", str(kernel.pid)],
    )
    kernel.kill()
    left = night(served)
    assert (left["state"], left["counts"]["completed"]) == ("interrupted", 2)
    (tmp_path / "gate").touch()
    another = Kernel()
    said = another.run(CELL.replace("FOLDER", repr(str(tmp_path))) + "\nsaid = str(session.run(verbose=False))")
    another.kill()
    assert said == "night completed: 8/8 successful, 0 failed, 0 skipped"
    assert began(tmp_path) == sorted([*"12345678", *"34"])
    assert (night(served)["id"], night(served)["state"]) == (left["id"], "completed")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no process")
def test_a_machine_that_slept_goes_on(served, kernel, tmp_path):
    """For longer than a lease is good for: nobody took it over meanwhile, nothing is lost or asked for again."""
    begin(kernel, tmp_path, "lease.BEAT_S, lease.LEASE_S = 0.05, 0.2")
    os.kill(kernel.pid, signal.SIGSTOP)
    time.sleep(0.4)
    (tmp_path / "gate").touch()
    os.kill(kernel.pid, signal.SIGCONT)
    assert kernel.run("said = str(session.run(verbose=False))").startswith("night completed: 8/8")
    assert began(tmp_path) == [*"12345678"]
    assert night(served)["state"] == "completed"


def test_another_server_shows_the_same_session(served, live, gate):
    """By the same id: one that was started anew, and any of five that run; the session needs none of them."""
    session = live(gate, [1, 2, 3], name="night")
    session.start()
    gate.wait_begun(3)
    known = night(served)
    others = [Catalogue(served.app) for _ in range(5)]
    assert [(each.item(known["id"]).state, each.page().items[0].id) for each in others] == [
        ("running", known["id"])
    ] * 5
    gate.open()
    session.run()
    assert {each.item(known["id"]).state for each in others} == {"completed"}


def test_a_session_goes_on_in_a_journal_that_a_later_version_took_over(served, live, gate, journal, tmp_path):
    """A kernel keeps the package that it has loaded; what reads the journal with that one says what to do."""
    session = live(gate, [1, 2, 3], name="night", journal=tmp_path / "journal.sqlite3")
    session.start()
    gate.wait_begun(3)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)) as database:
        database.executescript("ALTER TABLE run ADD COLUMN later TEXT; CREATE TABLE later (id INTEGER PRIMARY KEY)")
        database.execute(f"PRAGMA user_version = {LATEST + 1}")
    page = served.get("/sessions").json()
    assert page["items"] == []
    (sentence,) = page["unread"]
    assert "later ipybatch" in sentence
    assert "upgrade" in sentence
    gate.open()
    assert str(session.run()) == "night completed: 3/3 successful, 0 failed, 0 skipped"


WITHOUT_ROOM = """
import resource, signal, sys
from pathlib import Path
from ipybatch.server.run import work
from tests.server.submitting import add_words

add_words()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Path(sys.argv[2])
room = max(path.stat().st_size for path in journal.parent.glob("journal.db*")) + 400_000
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
work(sys.argv[1], journal=journal)
"""


def test_a_submission_without_room_goes_on_once_there_is_some(journal, tmp_path, monkeypatch):
    """Where its row could not say that it failed, by itself, else by "resume"; nothing recorded is done again."""
    monkeypatch.setattr("ipybatch.server.templates.TEMPLATES", {})
    add_words()
    store = Submissions(journal)
    (tmp_path / "gate").touch()
    params = {"gate": str(tmp_path / "gate"), "log": str(tmp_path / "log")}
    words = [f"{number:x<1000}" for number in range(100, 180)]
    request = json.dumps({"template": "words", "requests": words, "params": params}).encode()
    made = store.create(order(request=request, requests=len(words)))
    command = [sys.executable, "-c", WITHOUT_ROOM, made.id, str(journal)]
    ended = subprocess.run(command, cwd=ROOT, check=False, timeout=100, capture_output=True, text=True)
    assert "free some disk space" in ended.stderr
    assert store.find(made.id).state == "RUNNING"
    with closing(sqlite3.connect(journal)) as database:
        recorded = [json.loads(key) for (key,) in database.execute("SELECT key FROM item WHERE status = 'completed'")]
    assert len(recorded) < len(words)

    def run():
        asyncio.run(supervise(store, Threads(), lambda: store.find(made.id).ended_s is not None))
        return store.find(made.id)

    row = run()
    if row.state == "FAILED":  # what little was left has taken the session's last word
        assert "free some disk space" in row.reason
        assert store.requeue(row.run, "resume")
        row = run()
    assert row.state == "COMPLETED"
    asked = Counter(line.split()[0] for line in (tmp_path / "log").read_text().splitlines())
    assert set(asked) == set(words)
    assert {asked[word] for word in recorded} <= {1}
