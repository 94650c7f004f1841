"""SqliteLimits: a file that processes share, and what befalls it."""

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import Rate
from ipybatch.engine.rules.limiter import held_s
from ipybatch.engine.store import sqlite_limits
from ipybatch.engine.store.sqlite_limits import HOLD_S, KEPT_S, SqliteLimits
from ipybatch.errors import JournalError
from ipybatch.testing import Bounds, Report, StoreBusy

RATE = Rate(3, per_s=10)
BOUNDS = Bounds(rates=(RATE,))


class Clocks:
    """The time since the machine started, and the Unix time."""

    def __init__(self):
        self.boot_s, self.unix_s = 5000.0, 1_700_000_000.0

    def pass_s(self, seconds):
        self.boot_s += seconds
        self.unix_s += seconds

    def restart(self, after_s, up_s):
        """Be ``up_s`` after a start of the machine that came ``after_s`` from now."""
        self.unix_s += after_s + up_s
        self.boot_s = up_s


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "limits.sqlite3"


@pytest.fixture
def opened(path, clocks):
    made = []

    def make():
        made.append(SqliteLimits(path, lambda: clocks.boot_s, lambda: clocks.unix_s))
        return made[-1]

    yield make
    for store in made:
        store.close()


def ask(store, owner="a", **more):
    return store.exchange(Report(resource="api", owner=owner, bounds=BOUNDS, wanted={}, **more))


def spend(store, requests=1.0, ago_s=0.0, owner="a", **more):
    return store.exchange(
        Report(resource="api", owner=owner, bounds=BOUNDS, spent=[(ago_s, "requests", requests)], **more)
    )


def used(store):
    return sum(store.exchange(Report(resource="api", owner="look", bounds=BOUNDS)).used.values())


def test_only_its_user_can_read_it(opened, path):
    """What is rationed, and by whom, is nobody else's."""
    before = os.umask(0)
    try:
        spend(opened())
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("limits*")} == {0o600}


def test_a_later_version_is_left_as_it_is(opened, path):
    spend(opened())
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(JournalError, match="written by a later ipybatch: upgrade, or choose another journal="):
        spend(opened())


def test_a_folder_that_cannot_be_written_is_told(clocks, tmp_path):
    store = SqliteLimits(tmp_path / "nowhere" / "limits.sqlite3", lambda: clocks.boot_s)
    with pytest.raises(JournalError, match="limits file"):
        ask(store)
    (tmp_path / "nowhere").mkdir()
    assert ask(store).wait_s == 0.0
    store.close()


def test_who_meets_a_lock_does_not_wait(opened, path):
    """It is told at once, and loses nothing."""
    store = opened()
    spend(store)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    for act in (lambda: ask(store), lambda: store.history("api", 60.0), store.names):
        with pytest.raises(StoreBusy):
            act()
    with store._opened() as database:
        assert database.execute("PRAGMA busy_timeout").fetchone() == (0,)
    holder.execute("ROLLBACK")
    holder.close()
    assert ask(store).used == {RATE: 2.0}


def test_threads_take_turns(opened):
    """One connection, sessions on the loops of several threads: who comes meanwhile is told to come again."""
    store = opened()
    granted = []

    def take():
        for _ in range(20):
            while True:
                try:
                    spend(store)
                except StoreBusy:
                    continue
                break
        granted.append(threading.get_ident())

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(granted) == 3
    assert used(store) == 60.0


_OTHER = """
import sys
from pathlib import Path
from ipybatch import Rate
from ipybatch.engine.store.lease import me
from ipybatch.engine.store.sqlite_limits import SqliteLimits
from ipybatch.testing import Bounds, Report
bounds = Bounds(rates=(Rate(3, per_s=10),))
store = SqliteLimits(Path(sys.argv[1]))
for _ in range(2):
    report = Report(resource="api", owner=me() + "/1", bounds=bounds, wanted={}, in_flight={"requests": float(_)})
    print(store.exchange(report).wait_s, flush=True)
sys.stdin.read()
"""


def test_two_processes_share_a_window(path):
    """What the other has in flight counts while it is there; and when it was killed, as sent."""
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert [other.stdout.readline() for _ in range(2)] == ["0.0\n"] * 2
        store = SqliteLimits(path)
        assert ask(store).wait_s == 0.0
        full = ask(store, in_flight={"requests": 1.0})
        assert full.wait_s == float("inf")
        assert [owner.name.split("/")[1] for owner in full.owners] == [str(other.pid)]
        other.kill()
        other.wait(20)
    store.close()
    store = SqliteLimits(path)  # which looks at once who is gone
    answer = ask(store, in_flight={"requests": 1.0})
    assert 9.0 < answer.wait_s < held_s(RATE) + 0.001
    assert answer.owners == ()
    assert [cost for _, _, cost in store.history("api", 60.0)] == [2.0]
    store.close()


def test_who_is_there_and_silent_is_waited_for_longer(opened, clocks, monkeypatch):
    """It was stopped, or something holds its loop: it may yet send what it has in flight."""
    monkeypatch.setattr(sqlite_limits, "find_process", lambda owner: True if owner == "stopped" else None)
    store = opened()
    ask(store, "stopped")
    clocks.pass_s(15.0 + HOLD_S - 1.0)
    assert [owner.name for owner in ask(store, "b").owners] == ["stopped"]
    clocks.pass_s(1.5)
    answer = ask(store, "b", in_flight={"requests": 1.0})
    assert answer.owners == ()
    assert answer.used == {RATE: 3.0}


def test_who_is_gone_is_counted_at_the_next_look(opened, clocks, monkeypatch):
    gone = []
    monkeypatch.setattr(sqlite_limits, "find_process", lambda owner: owner not in gone)
    store = opened()
    ask(store, "killed")
    ask(store, "b")
    gone.append("killed")
    clocks.pass_s(1.0)
    assert ask(store, "b", in_flight={"requests": 1.0}).owners == ()
    assert [cost for _, _, cost in store.history("api", 60.0)] == [1.0]


@pytest.mark.parametrize(
    ("after_s", "up_s", "left"),
    [
        (0.0, 1.0, 3.0),
        (2.0, 7.5, 3.0),
        (3.0, 8.0, 0.0),
        (0.0, 4000.0, 0.0),
        (0.0, 5004.0, 3.0),  # its clock is past what was recorded: that it began anew cannot be seen
        (0.0, 9000.0, 0.0),
    ],
)
def test_a_machine_that_starts_anew_keeps_the_windows(opened, clocks, after_s, up_s, left):
    """Its clock begins at 0; what is recorded is as long ago as the Unix clock says, and no longer."""
    spend(opened(), 3.0)
    clocks.restart(after_s, up_s)
    store = opened()
    assert used(store) == left
    clocks.pass_s(10.1)
    assert used(store) == 0.0
    spend(store, 2.0)
    assert used(store) == 2.0


def test_a_unix_clock_that_was_set_back_makes_nothing_faster(opened, clocks):
    """No time has passed, as far as anybody can tell: what counted still counts."""
    store = opened()
    spend(store, 3.0)
    store.exchange(Report(resource="api", cool_s=100.0))
    clocks.restart(-7200.0, 20.0)
    assert used(opened()) == 3.0
    assert 99.0 < ask(opened()).cool_s <= 100.0


@pytest.mark.parametrize("how", ["deleted", "damaged"])
def test_a_file_that_is_lost_in_use_lets_nothing_start_at_once(opened, clocks, path, how):
    """What it counted is not known: one lease of grace, and the reason is told; then all goes on."""
    store, other = opened(), opened()
    ask(store)
    ask(other, "b")
    if how == "deleted":
        for file in path.parent.glob("limits*"):
            file.unlink()
    else:
        store.close()
        other.close()
        path.write_bytes(b"SQLite format 3\0" + b"damage" * 2000)
        with pytest.raises(StoreBusy):
            ask(store)
    answer = ask(store)
    assert 14.0 < answer.wait_s <= 15.0
    assert "deleted or damaged while it was in use" in answer.why
    assert ask(other, "b").wait_s > 14.0
    clocks.pass_s(15.1)
    assert ask(store).wait_s == 0.0
    assert (path.with_name("limits-damaged.sqlite3").exists()) is (how == "damaged")


_UNITS = st.sampled_from(["requests", "tokens"])


@given(
    answers=st.lists(st.tuples(st.floats(0.0, 40.0), _UNITS, st.sampled_from([1.0, 2.5, 1000.0])), max_size=60),
    thin_after=st.integers(1, 7),
)
def test_thinning_never_forgets_too_early(answers, thin_after):
    """What is dropped counts a little longer, never shorter, in every window that somebody has."""
    rates = (Rate(5, per_s=1), Rate(9, per_s=60), Rate(9, per_s=500), Rate(99, per_s=60, unit="tokens"))
    bounds, clocks = Bounds(rates=rates), Clocks()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_limits, "THIN_AFTER", thin_after)
        store = SqliteLimits(Path(folder) / "limits.sqlite3", lambda: clocks.boot_s, lambda: clocks.unix_s)
        told = []
        for pause_s, unit, cost in answers:
            clocks.pass_s(pause_s)
            told.append((clocks.boot_s, unit, cost))
            answer = store.exchange(Report(resource="api", owner="a", bounds=bounds, spent=[(0.0, unit, cost)]))
            for rate in rates:
                for later_s, is_least in ((0.0, True), (3600.0 / 1000 + 0.001, False)):
                    since_s = clocks.boot_s - held_s(rate) - later_s
                    exact = sum(cost for at_s, unit, cost in told if unit == rate.unit and at_s > since_s)
                    assert answer.used[rate] >= exact - 1e-6 if is_least else answer.used[rate] <= exact + 1e-6
        store.close()


def test_what_nobody_has_used_for_long_is_forgotten(path, opened, clocks):
    """Each session without a resource of its own leaves one behind."""
    store = opened()
    spend = Report(resource="old", owner="a", bounds=BOUNDS, spent=[(0.0, "requests", 1.0)])
    store.exchange(spend)
    clocks.pass_s(KEPT_S / 2)
    opened().exchange(Report(resource="new", owner="a", bounds=BOUNDS))
    assert opened().names() == ["new", "old"]
    clocks.pass_s(KEPT_S / 2 + 1)
    assert opened().names() == ["new"]
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM spent").fetchone() == (0,)
    assert opened().exchange(spend).wait_s == 0.0


def test_a_window_of_a_month_outlives_sessions_that_do_not_know_it(opened, clocks, monkeypatch):
    """What is old is told apart by the hour, and kept."""
    monkeypatch.setattr(sqlite_limits, "THIN_AFTER", 20)
    store, month = opened(), Bounds(rates=(Rate(100, per_s=30 * 86_400),))
    for _ in range(60):
        store.exchange(Report(resource="api", owner="a", bounds=BOUNDS, spent=[(0.0, "requests", 1.0)]))
        clocks.pass_s(86_400 / 3)
    (used,) = store.exchange(Report(resource="api", owner="a", bounds=month)).used.values()
    assert used == 60


def test_short_processes_leave_no_more_than_a_long_one(opened, path, clocks):
    """3,000 answers within an hour, 20 a process: what no window tells apart is not kept."""
    for start in range(150):
        store = opened()
        for _ in range(20):
            spend(store, owner=f"process {start}")
            clocks.pass_s(1.0)
        store.exchange(Report(resource="api", owner=f"process {start}"))
        store.close()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM spent").fetchone()[0] < 2000
    database.close()
    assert sum(cost for _, _, cost in opened().history("api", 86_400.0)) == 3000


def test_a_window_longer_than_all_before_counts_what_is_known(opened, clocks, monkeypatch):
    """Not what is no longer known when each of it was answered: that may be years ago."""
    monkeypatch.setattr(sqlite_limits, "KEPT_S", 86_400.0)
    monkeypatch.setattr(sqlite_limits, "THIN_AFTER", 100)
    store = opened()
    for _ in range(5):
        for _ in range(110):
            spend(store)
            clocks.pass_s(1.0)
        clocks.pass_s(86_400.0)
    long = Bounds(rates=(Rate(500, per_s=7 * 86_400.0),))
    answer = store.exchange(Report(resource="api", owner="a", bounds=long, wanted={}))
    assert answer.wait_s == 0.0
    assert list(answer.used.values()) == [110.0 + 1.0]
    assert sum(cost for _, _, cost in store.history("api", 9 * 86_400.0)) == 110.0


def test_nothing_starts_in_a_file_that_a_new_process_made_anew(opened, clocks, path):
    """Whoever used the one that was deleted says so in the new one, once."""
    before, new = opened(), opened()
    ask(before)
    for file in path.parent.glob("limits*"):
        file.unlink()
    spend(new, owner="b")
    spend(before)
    answer = ask(new, "b")
    assert 14.0 < answer.wait_s <= 15.0
    assert "deleted or damaged while it was in use" in answer.why
    clocks.pass_s(15.1)
    ask(before)
    assert ask(new, "b").wait_s == 0.0


def test_who_was_taken_for_gone_leaves_nothing_in_flight(opened, clocks, monkeypatch):
    """It goes on at once, under another number; what it had under the old one does not stay for ever."""
    gone = ["a"]
    monkeypatch.setattr(sqlite_limits, "find_process", lambda owner: owner not in gone)
    store, other = opened(), opened()
    ask(store, "a")
    ask(other, "b")
    clocks.pass_s(0.6)
    assert ask(other, "b", in_flight={"requests": 1.0}).owners == ()
    ask(store, "a", in_flight={"requests": 1.0})
    gone.clear()
    clocks.pass_s(2.0)
    for store_, owner in ((store, "a"), (other, "b")):
        store_.exchange(Report(resource="api", owner=owner, bounds=BOUNDS))
    clocks.pass_s(12.0)
    assert other.exchange(Report(resource="api", owner="b", bounds=BOUNDS)).used == {RATE: 0.0}
