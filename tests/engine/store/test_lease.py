import os
import subprocess
import sys

import pytest

from ipybatch.engine.store import run_store
from ipybatch.engine.store.journal import Journal
from ipybatch.errors import Fenced, JournalLocked

NOW_S = 1_700_000_000.0


@pytest.fixture
def book(tmp_path, patience):
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


@pytest.fixture
def run(book):
    return book.write(lambda db: run_store.create(db, "wishlist", resource="store", group_word="Batch", now_s=NOW_S))


def owned_by(book, run, owner, beat_s, epoch=3):
    book.write(
        lambda db: (
            db.execute("UPDATE run SET owner = ?, beat_s = ?, epoch = ? WHERE id = ?", (owner, beat_s, epoch, run)),
            None,
        )[1]
    )


def take(book, run, now_s=NOW_S, *, live_here=False):
    return book.write(lambda db: run_store.take_lease(db, run, now_s, live_here=live_here))


@pytest.fixture
def dead_pid():
    """The id of a process that is gone."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_each_taking_is_a_new_epoch(book, run):
    """The epoch tells the owners of a run apart, this process's own included."""
    assert [take(book, run), take(book, run), take(book, run)] == [1, 2, 3]


def test_a_session_that_runs_in_this_kernel_is_not_taken(book, run):
    """The message says where it runs, and what to do."""
    take(book, run)
    with pytest.raises(JournalLocked) as refused:
        take(book, run, live_here=True)
    assert str(refused.value) == (
        "session 'wishlist' is already running in this kernel: cancel it there first, or give this one another name"
    )


def test_a_session_that_runs_in_another_process_is_not_taken(book, run):
    """Its process is there and renewed the lease not long ago."""
    owned_by(book, run, f"{run_store._HOST}/{os.getppid()}/other", NOW_S - run_store.LEASE_S + 0.1)
    with pytest.raises(JournalLocked, match=f"in process {os.getppid()} on"):
        take(book, run)


def test_a_dead_process_holds_no_lease(book, run, dead_pid):
    """After ``kill -9`` on this machine nobody waits for the lease to run out."""
    owned_by(book, run, f"{run_store._HOST}/{dead_pid}/other", NOW_S)
    assert take(book, run) == 4


def test_a_lease_runs_out(book, run):
    """A process that lives but has not renewed it (asleep, or its number was given anew) loses it after `LEASE_S`."""
    owned_by(book, run, f"{run_store._HOST}/{os.getppid()}/other", NOW_S - run_store.LEASE_S)
    assert take(book, run) == 4


def test_another_machine_is_judged_by_its_beat_alone(book, run, dead_pid):
    """Its process numbers mean nothing here."""
    owned_by(book, run, f"elsewhere/{dead_pid}/other", NOW_S - 1)
    with pytest.raises(JournalLocked, match="on elsewhere"):
        take(book, run)
    owned_by(book, run, f"elsewhere/{os.getpid()}/other", NOW_S - run_store.LEASE_S)
    assert take(book, run) == 4


def test_a_lease_that_was_let_go_is_free(book, run):
    """The next session need not wait."""
    epoch = take(book, run)
    book.write(lambda db: run_store.release(db, run, epoch))
    assert take(book, run, live_here=True) == 2


def test_an_old_epoch_is_fenced(book, run):
    """A kernel that wakes after another took over can neither renew nor release."""
    old = take(book, run)
    new = take(book, run)
    with pytest.raises(Fenced, match="another process took this session over; nothing more is written here"):
        book.write(lambda db: run_store.renew(db, run, old, NOW_S))
    book.write(lambda db: run_store.release(db, run, old))
    book.write(lambda db: run_store.renew(db, run, new, NOW_S))


def test_renewing_keeps_it(book, run):
    """The beat moves with every commit."""
    epoch = take(book, run)
    book.write(lambda db: run_store.renew(db, run, epoch, NOW_S + 100))
    with book.reader() as database:
        assert database.execute("SELECT beat_s, owner FROM run").fetchone() == (NOW_S + 100, run_store.me())


@pytest.mark.parametrize(
    ("owner", "beat_s", "live"),
    [
        (None, 9e9, False),
        (f"{run_store._HOST}/{os.getppid()}/other", 9e9, True),
        (f"{run_store._HOST}/{os.getppid()}/other", 0.0, False),
        ("elsewhere/1/other", 9e9, True),
        (run_store.me(), 0.0, True),
    ],
)
def test_history_can_tell_who_is_still_there(owner, beat_s, live):
    """A run whose owner is gone shows as interrupted."""
    assert run_store.is_live(owner, beat_s) is live


def test_a_forked_child_does_not_take_its_parents_session(tmp_path):
    """A fork (multiprocessing) shares the parent's memory, not its lease."""
    script = """
import os, sys, time
from pathlib import Path
from ipybatch.engine.store import run_store as ledger
from ipybatch.engine.store.journal import Journal, open_journal
from ipybatch.errors import JournalLocked
def make():
    book = open_journal(Path(sys.argv[1]))
    run = book.write(lambda db: ledger.create(db, "x", resource="r", group_word="B", now_s=0.0))
    return book, run
book, run = make()
start, started = os.pipe()
pid = os.fork()
if not pid:
    os.read(start, 1)  # the parent takes its lease after the fork
    try:
        ledger.take(open_journal(Path(sys.argv[1])), run, resource="r", concurrency=1, now_s=time.time())
    except JournalLocked as error:
        print(error, flush=True)
    os._exit(0)
ledger.take(book, run, resource="r", concurrency=1, now_s=time.time())
os.write(started, b"x")
os.waitpid(pid, 0)
print("parent", os.getpid())
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "j")], capture_output=True, text=True, check=True
    )
    refused, parent = ran.stdout.splitlines()
    assert f"already running in process {parent.split()[1]} on" in refused


@pytest.mark.parametrize(("raised", "exists"), [(None, True), (ProcessLookupError(), False), (PermissionError(), True)])
def test_a_process_is_asked_with_a_signal_that_does_nothing(monkeypatch, raised, exists):
    """One of another user is there too."""
    sent = []

    def kill(pid, number):
        sent.append((pid, number))
        if raised is not None:
            raise raised

    with monkeypatch.context() as patch:
        patch.setattr(run_store.os, "kill", kill)
        assert run_store._process_exists(4711) is exists
    assert sent == [(4711, 0)]


def test_on_windows_no_process_is_asked(monkeypatch):
    """There, the signal would end it; the lease runs out instead."""
    with monkeypatch.context() as patch:
        patch.setattr(run_store.os, "name", "nt")
        patch.setattr(run_store.os, "kill", lambda pid, number: pytest.fail("it was ended"))
        assert run_store._process_exists(4711) is True
