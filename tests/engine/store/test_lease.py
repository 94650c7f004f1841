import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from ipybatch.engine.store import lease as leases
from ipybatch.engine.store import removal, run_store
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.lease import Lease
from ipybatch.errors import Fenced, JournalLocked
from tests.engine.store import stores
from tests.engine.store.stores import NOW_S, rows


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


def claim(db, lease, run, silence):
    leases.check_free(db, [run], silence)
    leases.take_lease(db, lease, run, silence.now_s)


def lease_of(book, run, now_s=NOW_S, *, live_here=False):
    lease = Lease(book, lambda: now_s)
    if live_here:
        leases.hold(Lease(book, lambda: now_s, run))
    try:
        leases.write_over(book, lambda db, silence: claim(db, lease, run, silence), now_s)
    finally:
        leases._held.clear()
    return lease


def take(book, run, now_s=NOW_S, *, live_here=False):
    return lease_of(book, run, now_s, live_here=live_here).epoch


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
    owned_by(book, run, f"{leases._HOST}/{os.getppid()}/other", NOW_S - leases.LEASE_S + 0.1)
    with pytest.raises(JournalLocked, match=f"in process {os.getppid()} on"):
        take(book, run)


def test_a_dead_process_holds_no_lease(book, run, dead_pid):
    """After ``kill -9`` on this machine nobody waits for the lease to run out."""
    owned_by(book, run, f"{leases._HOST}/{dead_pid}/other", NOW_S)
    assert take(book, run) == 4


def test_a_lease_runs_out(book, run, unwatched):
    """A process that lives but has not renewed it (asleep, or its number was given anew) loses it after `LEASE_S`."""
    owned_by(book, run, f"{leases._HOST}/{os.getppid()}/other", NOW_S - leases.LEASE_S)
    assert take(book, run) == 4


def test_another_machine_is_judged_by_its_beat_alone(book, run, dead_pid, unwatched):
    """Its process numbers mean nothing here."""
    owned_by(book, run, f"elsewhere/{dead_pid}/other", NOW_S - 1)
    with pytest.raises(JournalLocked, match="on elsewhere"):
        take(book, run)
    owned_by(book, run, f"elsewhere/{os.getpid()}/other", NOW_S - leases.LEASE_S)
    assert take(book, run) == 4


class Looks:
    """The time between looks, without waiting for it; something may happen in each."""

    def __init__(self, patch, *happen):
        self.now_s, self.happen, self.slept = 0.0, list(happen), 0
        patch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: self.now_s, sleep=self.sleep))

    def sleep(self, seconds):
        self.slept += 1
        self.now_s += seconds
        if self.happen:
            self.happen.pop(0)()


@pytest.mark.parametrize("host", [leases._HOST, "elsewhere"])
@pytest.mark.parametrize("act", ["take", "forget", "prune"])
def test_an_owner_that_could_not_write_has_time_to_renew(book, run, monkeypatch, host, act):
    """Another program held the lock for longer than a lease: an old beat proves nothing when it lets go."""
    owner = f"{host}/{os.getppid()}/other"
    owned_by(book, run, owner, NOW_S - 22)
    looks = Looks(monkeypatch, lambda: None, lambda: owned_by(book, run, owner, NOW_S))
    if act == "prune":
        assert removal.prune(book, NOW_S + 1, NOW_S) == 0
    else:
        with pytest.raises(JournalLocked, match=f"in process {os.getppid()} on {host}"):
            take(book, run) if act == "take" else removal.forget(book, "wishlist", NOW_S)
    assert looks.slept == 2
    assert rows(book, "SELECT name, owner, epoch FROM run") == [("wishlist", owner, 3)]


def test_time_in_which_nobody_could_write_does_not_count(book, run, monkeypatch):
    """A lock between two looks is one look long, however long it is; many runs are watched at the same time."""
    owned_by(book, run, f"elsewhere/{os.getppid()}/other", NOW_S - 22)
    looks = Looks(monkeypatch)
    looks.happen = [lambda: setattr(looks, "now_s", looks.now_s + 1000)]
    assert take(book, run) == 4
    assert looks.slept == leases.SILENCE_S / leases.LOOK_S
    owned_by(book, run, f"elsewhere/{os.getppid()}/other", NOW_S - 50)
    leases.drop(stores.take(book, "other").lease)
    book.write(lambda db: db.execute("UPDATE run SET owner = 'elsewhere/1/x', beat_s = ?", (NOW_S - 50,)).rowcount)
    looks.slept = 0
    assert removal.prune(book, NOW_S + 1, NOW_S) == 2
    assert looks.slept == leases.SILENCE_S / leases.LOOK_S


def test_a_lease_that_was_let_go_is_free(book, run):
    """The next session need not wait."""
    lease = lease_of(book, run)
    book.write(lease.let_go)
    assert take(book, run, live_here=True) == 2


def test_an_old_epoch_is_fenced(book, run):
    """A kernel that wakes after another took over can neither renew nor release."""
    old = lease_of(book, run)
    new = lease_of(book, run)
    with pytest.raises(Fenced, match="another process took this session over; nothing more is written here"):
        book.write(lambda db: old.renew(db, NOW_S))
    book.write(old.let_go)
    book.write(lambda db: new.renew(db, NOW_S))


def test_renewing_keeps_it(book, run):
    """The beat moves with every commit."""
    lease = lease_of(book, run)
    book.write(lambda db: lease.renew(db, NOW_S + 100))
    assert rows(book, "SELECT beat_s, owner FROM run") == [(NOW_S + 100, leases.me())]


def test_beats_come_while_the_caller_is_busy(book, monkeypatch):
    """They are another thread's: nothing that this one does keeps them from coming."""
    monkeypatch.setattr(leases, "BEAT_S", 0.01)
    beaten = threading.Event()
    times = iter(range(1_000_000))

    def unix_s():
        time_s = next(times)
        if time_s == 5:
            beaten.set()
        return NOW_S + time_s

    store = stores.take(book, unix_s=unix_s)
    assert beaten.wait(20)
    assert rows(book, "SELECT beat_s FROM run")[0][0] > NOW_S
    store.abandon()


def test_a_lease_that_is_lost_is_told_by_a_beat(book):
    """Another process took over: whoever runs it is told without having recorded anything."""
    told = []
    store = stores.take(book)
    store.lease.on_lost = told.append
    store.lease.beat()
    book.write(lambda db: db.execute("UPDATE run SET owner = 'elsewhere/1/x', epoch = epoch + 1").rowcount)
    store.lease.beat()
    book.write(lambda _: None)
    assert [type(error) for error in told] == [Fenced]
    store.drop()
    store.lease.beat()
    book.write(lambda _: None)
    assert len(told) == 1, "it is given back: nobody is told any more"


def test_a_journal_that_is_gone_is_told_by_a_beat(book):
    told = []
    store = stores.take(book)
    store.lease.on_lost = told.append
    book.path.unlink()
    store.lease.beat()
    assert [str(error) for error in told] == [
        f"journal {book.path} was deleted while it was in use: put it back, or make the session anew"
    ]
    store.drop()


def test_a_beat_that_finds_the_journal_locked_loses_nothing(book):
    """It waits with the others; one at a time does."""
    told = []
    store = stores.take(book)
    store.lease.on_lost = told.append
    other = sqlite3.connect(book.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(3):
        store.lease.beat()
    other.execute("ROLLBACK")
    other.close()
    book.write(lambda _: None)
    assert told == []
    store.abandon()


@pytest.mark.parametrize(
    ("owner", "beat_s", "live"),
    [
        (None, 9e9, False),
        (f"{leases._HOST}/{os.getppid()}/other", 9e9, True),
        (f"{leases._HOST}/{os.getppid()}/other", 0.0, False),
        ("elsewhere/1/other", 9e9, True),
        (leases.me(), 9e9, False),
    ],
)
def test_history_can_tell_who_is_still_there(book, owner, beat_s, live):
    """A run whose owner is gone shows as interrupted; one that this process let go without an end too."""
    assert leases.is_live(book, 1, owner, beat_s) is live


def test_a_forked_child_does_not_take_its_parents_session(tmp_path):
    """A fork (multiprocessing) shares the parent's memory, not its lease; and it renews its own."""
    script = """
import os, sys, time
from pathlib import Path
from ipybatch.engine.store import lease
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import JournalLocked
from tests.engine.store.stores import take
lease.BEAT_S = 0.01
parents = take(open_journal(Path(sys.argv[1])), "x", now_s=time.time(), unix_s=time.time)
assert lease._beater.is_alive()
pid = os.fork()
if not pid:
    journal = open_journal(Path(sys.argv[1]))
    try:
        take(journal, "x", now_s=time.time())
    except JournalLocked as error:
        print(error, flush=True)
    mine = take(journal, "y", now_s=0.0, unix_s=time.time)
    while True:
        with journal.reader() as database:
            (beat_s,) = database.execute("SELECT beat_s FROM run WHERE name = 'y'").fetchone()
        if beat_s:
            print("beats", flush=True)
            os._exit(0)
os.waitpid(pid, 0)
print("parent", os.getpid())
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "j")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[3],
    )
    refused, beats, parent = ran.stdout.splitlines()
    assert f"already running in process {parent.split()[1]} on" in refused
    assert beats == "beats"


@pytest.mark.parametrize(("raised", "exists"), [(None, True), (ProcessLookupError(), False), (PermissionError(), True)])
def test_a_process_is_asked_with_a_signal_that_does_nothing(monkeypatch, raised, exists):
    """One of another user is there too."""
    sent = []

    def kill(pid, number):
        sent.append((pid, number))
        if raised is not None:
            raise raised

    with monkeypatch.context() as patch:
        patch.setattr(leases.os, "kill", kill)
        assert leases._process_exists(4711) is exists
    assert sent == [(4711, 0)]


def test_a_process_that_nobody_has_asked_for_its_exit_code_is_gone(monkeypatch):
    """It is there for as long as its parent likes: in a container without an init, for ever."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        os.kill(process.pid, 0)
        assert leases._process_exists(process.pid) is False
    assert leases._process_exists(os.getpid()) is True
    assert leases._process_exists(os.getppid()) is True


def test_on_windows_no_process_is_asked(monkeypatch):
    """There, the signal would end it; the lease runs out instead."""
    with monkeypatch.context() as patch:
        patch.setattr(leases.os, "name", "nt")
        patch.setattr(leases.os, "kill", lambda pid, number: pytest.fail("it was ended"))
        assert leases._process_exists(4711) is True


def test_a_number_that_another_process_had_tells_of_this_one_only():
    """In a container the kernel that follows has mostly the number of the one before."""
    host, pid, _ = leases.me().split("/")
    assert leases.find_process(leases.me()) is True
    assert leases.find_process(f"{leases.me()}/2") is True
    assert leases.find_process(f"{host}/{pid}/another") is False
    assert leases.find_process(f"elsewhere/{pid}/another") is None
    assert leases.find_process("somebody") is None


@pytest.mark.parametrize(
    ("numbers", "name"),
    [("pid:[4026531836]", "vm"), ("pid:[4026532201]", "vm pid:[4026532201]"), (None, "vm")],
)
def test_a_container_is_a_host_of_its_own(monkeypatch, numbers, name):
    """It may have the machine's name and its files, but another process has each of its numbers."""

    def readlink(path):
        assert str(path) == "/proc/self/ns/pid"
        if numbers is None:
            raise FileNotFoundError
        return Path(numbers)

    monkeypatch.setattr(Path, "readlink", readlink)
    monkeypatch.setattr(leases.socket, "gethostname", lambda: "vm")
    assert leases._host() == name
