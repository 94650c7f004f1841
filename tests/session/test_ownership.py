"""Who may write and delete a session: one owner at a time, whatever kernels, objects and user code do."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

import ipybatch
from ipybatch import BatchSession, InputError, JournalError, Limits
from ipybatch.engine.run import run as runs
from ipybatch.engine.run import runner
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store.resume import Wanted
from ipybatch.errors import JournalLocked

ROOT = Path(__file__).parents[2]


def on_disk(journal, question):
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
        return database.execute(question).fetchall()


def test_another_object_cannot_forget_what_runs(live, gate):
    """A cell that is run again makes a second object of the name: the first one's run is not its to delete."""
    first = live(gate, [1, 2, 3], limits=Limits(concurrency=2))
    first.start()
    gate.wait_begun(2)
    second = live(gate, [1, 2, 3])
    with pytest.raises(JournalLocked, match="'wishlist' is already running in this kernel"):
        second.forget()
    gate.open()
    assert first.run().counts.completed == 3
    assert second.results()["status"].tolist() == ["completed"] * 3
    second.forget()
    assert second.results()["status"].tolist() == ["pending"] * 3
    assert sorted(gate.started) == [1, 2, 3]


def elsewhere(journal, act):
    """Do something in another process, and return what it says."""
    code = f"import sys, ipybatch; from ipybatch import BatchSession; journal = sys.argv[1]\n{act}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(journal)], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    return done.stdout.strip()


def test_another_kernel_can_neither_forget_nor_prune_what_runs(live, gate, journal):
    session = live(gate, [1, 2], limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    forget = (
        "try: BatchSession('wishlist', print, [1], journal=journal).forget()\n"
        "except ipybatch.JournalLocked as error: print(error)"
    )
    assert f"'wishlist' is already running in process {os.getpid()} on" in elsewhere(journal, forget)
    assert elsewhere(journal, "print(ipybatch.prune(-3600, journal=journal))") == "0"
    gate.open()
    assert session.run().counts.completed == 2
    assert elsewhere(journal, forget) == ""
    assert len(ipybatch.history(journal)) == 0


def raising(item):
    msg = "no such field"
    raise KeyError(msg)


def interrupted(item):
    raise KeyboardInterrupt


@pytest.mark.parametrize("function", [raising, interrupted])
@pytest.mark.parametrize("argument", ["rank", "skip", "priority", "prioritize"])
def test_what_raises_at_a_start_locks_no_name(live, journal, argument, function):
    """A function of the user's raises, or Ctrl-C comes while it runs: nothing is left of the start."""

    def start(session):
        if argument == "prioritize":
            session._priorities.append((Wanted(function), 0))
        with pytest.raises((InputError, KeyError, KeyboardInterrupt)):
            session.start()

    arguments = {} if argument == "prioritize" else {argument: function}
    session = live(lambda item: item, [1, 2], **arguments)
    start(session)
    assert session.state == "planned"
    assert len(ipybatch.history(journal)) == 0
    assert live(lambda item: item, [1, 2]).run().counts.completed == 2
    start(live(lambda item: item, [1, 2, 3], **arguments))
    assert ipybatch.history(journal)["state"].tolist() == ["completed"]
    if argument == "prioritize" and function is raising:
        assert session.run().counts.completed == 2


def test_a_start_that_cannot_reach_the_engine_gives_the_name_back(live, monkeypatch):
    session = live(lambda item: item, [1])

    class NoEngine:
        def spawn(self, coroutine, run):
            coroutine.close()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ipybatch.session.control.engine_thread", NoEngine)
        with pytest.raises(KeyboardInterrupt):
            session.start()
    assert session.state == "failed"
    assert live(lambda item: item, [1]).run().state == "completed"


def test_a_session_whose_driver_is_cancelled_ends_as_cancelled(plan, clock):
    """`drive` in a loop of the user's own: what runs is cancelled, not failed, and the name is free."""

    async def work(item):
        await asyncio.sleep(item)

    session = plan(work, [1, 100, 200], limits=Limits(concurrency=2))

    async def drive():
        async with asyncio.timeout(5):
            await session.drive()

    with pytest.raises(TimeoutError):
        clock.run_coroutine(drive())
    assert session.state == "cancelled"
    assert session.results()["status"].tolist() == ["completed", "cancelled", "cancelled"]
    assert clock.run(plan(work, [1, 100, 200])).counts.completed == 3


def delete(journal):
    for path in journal.parent.glob(f"{journal.name}*"):
        path.unlink()


def replace(journal):
    other = journal.with_name("other.db")
    journals.Journal(other).close()
    other.replace(journal)


def beside(journal, part):
    return journal.with_name(f"{journal.name}-{part}")


def delete_log(journal):
    beside(journal, "wal").unlink()


def delete_index(journal):
    beside(journal, "shm").unlink()


def empty(journal):
    os.truncate(journal, 0)


def empty_log(journal):
    os.truncate(beside(journal, "wal"), 0)


def cut_log(journal):
    os.truncate(beside(journal, "wal"), 5000)


def copy_over(journal):
    """Restore an older journal in place: the file is the same one."""
    other = journal.with_name("other.db")
    journals.Journal(other).close()
    shutil.copyfile(other, journal)
    empty_log(journal)


@pytest.mark.parametrize(
    ("do", "told"),
    [
        (delete, "deleted"),
        (replace, "replaced"),
        (delete_log, "replaced"),
        (delete_index, "replaced"),
        (empty, "overwritten"),
        (empty_log, "overwritten"),
        (cut_log, "overwritten"),
        (copy_over, "overwritten"),
    ],
)
def test_a_journal_that_vanishes_ends_the_session(plan, clock, journal, do, told):
    """It says so, also when every item had ended by then; nobody makes an empty file in its place."""

    async def work(item):
        await asyncio.sleep(1)
        if item == 3:
            do(journal)
        return item

    session = plan(work, [1, 2, 3])
    summary = clock.run(session)
    restore = "restore it from a copy, or move it away, and restart the kernel"
    mend = restore if told == "overwritten" else "put it back, or make the session anew"
    reason = f"journal {journal} was {told} while it was in use: {mend}"
    assert (summary.state, summary.reason) == ("failed", reason)
    history = [lambda: ipybatch.history(journal)] if told == "overwritten" else []
    for read in (session.results, lambda: session.save(journal.with_name("out.csv")), session.resume, *history):
        with pytest.raises(JournalError, match=f"was {told} while it was in use"):
            read()
    session.recall()  # as the panel does: it goes on, and shows the reason
    assert not journal.with_name("out.csv").exists()
    assert journal.exists() is (do is not delete)


@pytest.mark.parametrize(("do", "told"), [(delete, "deleted"), (delete_index, "replaced"), (empty_log, "overwritten")])
def test_a_journal_that_vanishes_is_noticed_while_it_runs(live, gate, monkeypatch, do, told):
    """By the next beat: no further item is asked for in vain."""
    monkeypatch.setattr("ipybatch.engine.store.lease.BEAT_S", 0.01)
    session = live(gate, [1, 2, 3], limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    do(session.journal)
    assert session.run().state == "failed"
    assert f"was {told} while it was in use" in session.reason
    assert gate.started == [1]


def test_two_spellings_of_a_journal_lock_each_other(live, gate, journal):
    link = journal.with_name("link.db")
    session = live(gate, [1])
    session.start()
    gate.wait_begun(1)
    link.symlink_to(journal)
    other = BatchSession("wishlist", gate, [1], journal=link)
    assert BatchSession.open("wishlist", journal=link) is session
    with pytest.raises(JournalLocked):
        other.start()
    gate.open()
    assert session.run().counts.completed == 1


@pytest.fixture
def impatient(monkeypatch):
    """Wait a twentieth of a second where it is seconds."""
    monkeypatch.setattr(journals, "BUSY_S", 0.05)
    monkeypatch.setattr(journals, "_ROUND_S", 0.05)
    for module in (runner, runs):
        monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    monkeypatch.setattr(runs, "BUSY_S", 0.1)


@pytest.fixture
def browser(live, journal):
    """Another program that can lock the journal."""
    live(lambda item: item, [0], name="made").run()
    connection = sqlite3.connect(journal, isolation_level=None, check_same_thread=False)
    yield connection
    connection.close()


LOCKED = "the journal is locked by another program: nothing new starts until it can be written again"


def test_a_locked_journal_holds_the_session_and_loses_nothing(live, browser, impatient):
    """Nothing new starts meanwhile; it is said once, and what had ended is recorded once the lock is free."""
    asked, noted = [], threading.Event()

    async def work(item):
        if item == 3:
            browser.execute("BEGIN IMMEDIATE")
        asked.append(item)
        return item

    session = live(work, list(range(40)), limits=Limits(concurrency=2))
    session.on(lambda event: noted.set() if LOCKED in session.snapshot.notes else None)
    session.start()
    assert noted.wait(20)
    before = len(asked)
    session.pause()
    session.resume()
    assert (len(asked), session.counts.running) == (before, 2), "resume does not start what the journal cannot hold"
    browser.execute("ROLLBACK")
    assert session.run().counts.completed == 40
    assert asked == list(range(40))
    assert session.snapshot.notes.count(LOCKED) == 1
    assert session.results()["result"].tolist() == asked


def test_a_session_that_waits_for_a_locked_journal_can_be_cancelled(live, browser, impatient):
    """It gives up in the end, says why, and what it could not record runs again."""
    noted = threading.Event()

    async def work(item):
        if item == 3:
            browser.execute("BEGIN IMMEDIATE")
        return item

    session = live(work, list(range(8)), limits=Limits(concurrency=2))
    session.on(lambda event: noted.set() if LOCKED in session.snapshot.notes else None)
    session.start()
    assert noted.wait(20)
    session.cancel()
    assert session.run().state == "failed"
    assert "is locked by another program: close it, then run the session again" in session.reason
    browser.execute("ROLLBACK")
    again = live(lambda item: item, list(range(8)))
    assert again.counts.completed == session.counts.completed
    assert again.run().counts.completed == 8


def test_a_session_that_ends_while_the_journal_is_locked_waits_for_it(live, browser, impatient, monkeypatch):
    """Its end is recorded as well: nobody else finds it interrupted."""
    monkeypatch.setattr(runs, "PATIENCE_S", 20)
    ended = threading.Event()
    session = live(lambda item: item, [1])

    def lock(outcomes):
        browser.execute("BEGIN IMMEDIATE")
        ended.set()

    session.on_outcomes(lock)
    session.start()
    assert ended.wait(20)
    assert session.state == "running"
    browser.execute("ROLLBACK")
    assert session.run().state == "completed"
    assert ipybatch.history(session.journal)["state"].tolist() == ["completed"] * 2


def test_a_run_number_is_never_given_twice(live, journal):
    """Whoever still wrote into a forgotten run could not meet another."""
    for _ in range(2):
        session = live(lambda item: item, [1])
        session.run()
        session.forget()
    session.run()
    assert on_disk(journal, "SELECT id FROM run") == [(3,)]


@pytest.mark.parametrize("done", [0, 1])
def test_a_generator_s_session_that_was_forgotten_elsewhere_wants_its_items_anew(live, journal, done):
    """What it drew and ran to its end is not to be had again; where it holds all that it drew, it goes on with that."""
    is_stopped = True

    async def work(item):
        if is_stopped and item == done:
            session.cancel()
            await asyncio.sleep(20)
        return item

    session = live(work, iter(range(5)), limits=Limits(concurrency=1))
    session.run()
    assert (session.state, session.counts.completed) == ("cancelled", done)
    is_stopped = False
    live(work, [1]).forget()
    if done:
        with pytest.raises(
            InputError, match="was forgotten or begun anew elsewhere: its items were drawn from a generator"
        ):
            session.resume()
        assert len(ipybatch.history(journal)) == 0
    else:
        session.resume()
        assert session.run().counts.completed == 5


@pytest.mark.parametrize("acts", [("start", "run", "run"), ("run", "start", "start")])
def test_threads_that_start_one_session_join_one_start(live, gate, acts):
    """One of them starts it; the others wait for that, or return when it runs."""
    session = live(gate, [1, 2, 3])
    told, begin = [], threading.Barrier(len(acts))

    def act(name):
        begin.wait(20)
        try:
            told.append(str(getattr(session, name)()))
        except JournalError as error:
            told.append(error)

    threads = [threading.Thread(target=act, args=(name,)) for name in acts]
    for thread in threads:
        thread.start()
    gate.wait_begun(3)
    for thread, name in zip(threads, acts, strict=True):
        if name == "start":
            thread.join(20)  # one that came after the end would start it once more
    gate.open()
    for thread in threads:
        thread.join(20)
    summary = "wishlist completed: 3/3 successful, 0 failed, 0 skipped"
    assert sorted(map(str, told)) == sorted({"run": summary, "start": "None"}[a] for a in acts)
    assert sorted(gate.started) == [1, 2, 3]


def test_a_fork_s_copy_of_a_session_says_whose_it_is(journal):
    """Nothing hangs, and nothing is done in silence; it can be read, and made anew."""
    code = """
import os, sys, threading
from ipybatch import BatchSession, JournalError
begun, end = threading.Event(), threading.Event()
def work(item):
    begun.set()
    end.wait(20)
    return item
session = BatchSession("x", work, [1], journal=sys.argv[1])
planned = BatchSession("y", work, [1], journal=sys.argv[1])
session.start()
begun.wait(20)
pid = os.fork()
if not pid:
    for its in (session, planned):
        for act in (its.start, its.run, its.cancel, its.pause, its.resume, its.forget):
            try:
                print(act())
            except JournalError as error:
                print(error, flush=True)
    print(len(session.results()), session.state, flush=True)
    try:
        BatchSession("x", work, [1], journal=sys.argv[1]).start()
    except JournalError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
end.set()
print(session.run())
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(journal)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        cwd=ROOT,
    )
    *acts, read, anew, parent = ran.stdout.splitlines()
    assert len(acts) == 12
    assert [line for line in acts if "forked" not in line and "is running: wait" not in line] == []
    assert read == "1 running"
    assert "'x' is already running in process" in anew
    assert parent == "x completed: 1/1 successful, 0 failed, 0 skipped"


def test_opening_to_read_what_runs_elsewhere_says_so(journal):
    """Its process is alive: that it "ended without letting go" would be wrong."""
    code = (
        "import sys; from ipybatch import BatchSession\n"
        "def work(item): print('begun', flush=True); sys.stdin.read()\n"
        "BatchSession('x', work, [1], journal=sys.argv[1]).run()"
    )
    command = [sys.executable, "-c", code, str(journal)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout.readline() == "begun\n"
        notes = " ".join(BatchSession.open("x", journal=journal).snapshot.notes)
        other.stdin.close()
    assert f"it is running in process {other.pid} on" in notes
    assert "without letting go" not in notes
    assert ipybatch.history(journal)["state"].tolist() == ["completed"]


@pytest.mark.parametrize("path", ["~nobody-of-that-name/j.db", "loop", "a\0b"])
def test_a_path_that_leads_nowhere_is_refused(tmp_path, path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(JournalError):
        BatchSession("x", print, [1], journal=path if path[0] == "~" else tmp_path / path)
