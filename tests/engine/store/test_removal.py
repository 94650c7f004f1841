import itertools
import sqlite3

import pytest

from ipybatch.engine.data.plan import Keying, Task, make_plan
from ipybatch.engine.store import plan_rows, removal, run_store
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.lease import LEASE_S
from ipybatch.engine.store.rows import Entry
from ipybatch.errors import Fenced, JournalLocked
from tests.engine.store.stores import NOW_S, close, rows, take

TABLES = ("item", "payload", "attempt", "plan", "run", "command")
ASKED = "INSERT INTO command (run, verb, asked_s, asked_by) VALUES (?, 'pause', ?, 'elsewhere/1/x')"

pytestmark = pytest.mark.usefixtures("unwatched")


@pytest.fixture
def book(tmp_path, patience):
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


def entry(seq, status="completed"):
    return Entry(Task(seq, str(seq), seq), str(seq), 1, status, True, 1, b"1", NOW_S, 0.5, "")


def recorded(book, name="wishlist", items=3):
    """Take a run that has something in every table."""
    store = take(book, name)
    tasks = make_plan(list(range(items)), Keying())
    store.write(lambda db: plan_rows.write_plan(db, store.run, tasks), NOW_S)
    store.write(lambda db: db.execute(ASKED, (store.run, NOW_S)).rowcount, NOW_S)
    store.submit([entry(seq) for seq in range(items)], NOW_S, lambda error: None)
    store.submit([entry(seq, "pending") for seq in range(items)], NOW_S, lambda error: None)
    return store


def left(book):
    return [rows(book, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES]


def elsewhere(book, store, beat_s, owner="elsewhere/1/x"):
    store.drop()
    sql = "UPDATE run SET owner = ?, beat_s = ?, epoch = epoch + 1 WHERE id = ?"
    book.write(lambda db: db.execute(sql, (owner, beat_s, store.run)).rowcount)


def test_all_runs_of_a_name_are_forgotten_and_nobody_elses(book):
    for _ in range(2):
        close(recorded(book))
        book.write(lambda db: run_store.create(db, "wishlist", resource="r", group_word="Batch", now_s=NOW_S))
    other = recorded(book, "other")
    removal.forget(book, "wishlist", NOW_S)
    assert left(book) == [3, 3, 3, 1, 1, 1]
    close(other)


def test_a_run_that_lives_is_not_forgotten(book):
    """In this kernel or another: nothing is deleted, of its other runs neither, and it goes on."""
    close(recorded(book))
    live = recorded(book)
    before = left(book)
    with pytest.raises(JournalLocked, match="already running in this kernel"):
        removal.forget(book, "wishlist", NOW_S)
    assert close(live) == [None]
    elsewhere(book, live, NOW_S)
    with pytest.raises(JournalLocked, match="on elsewhere: cancel it there first"):
        removal.forget(book, "wishlist", NOW_S + LEASE_S - 1)
    assert left(book) == before


def test_who_was_forgotten_writes_nothing_more(book):
    """A kernel that slept while its session was taken for dead: it is told, and its run stays away."""
    asleep = recorded(book)
    elsewhere(book, asleep, NOW_S)
    (asleep.lease.owner, asleep.lease.epoch) = rows(book, "SELECT owner, epoch FROM run")[0]
    removal.forget(book, "wishlist", NOW_S + LEASE_S)
    told = []
    asleep.submit([entry(7)], NOW_S, told.append)
    told += close(asleep)
    assert [type(error) for error in told] == [Fenced, Fenced]
    again = take(book)
    assert again.run > asleep.run, "a number is never given twice"
    assert left(book) == [0, 0, 0, 0, 1, 0]
    close(again)


def test_what_a_crash_left_is_pruned_and_what_lives_is_not(book):
    close(recorded(book, "ended"))
    for name, beat_s in (("crashed", NOW_S), ("asleep", NOW_S + 50)):
        elsewhere(book, recorded(book, name), beat_s)
    live = recorded(book, "live")
    assert removal.prune(book, NOW_S + 1, NOW_S + 60) == 2
    assert rows(book, "SELECT name FROM run ORDER BY id") == [("asleep",), ("live",)]
    assert removal.prune(book, NOW_S + 99, NOW_S + 60) == 0, "the beat of one is young, the other is of this process"
    close(live)


def test_others_write_in_between(book, monkeypatch):
    """What is deleted goes in short transactions, each of which leaves the lock to who waits for it."""
    close(recorded(book, items=1000))
    monkeypatch.setattr(removal, "CHUNK_S", 0.0)
    other = sqlite3.connect(book.path, isolation_level=None)
    seen = []

    def pause(seconds):
        other.execute("INSERT OR REPLACE INTO resource VALUES ('other', 0.0)")
        seen.append((rows(book, "SELECT count(*) FROM run WHERE name <> ''")[0][0], sum(left(book))))

    monkeypatch.setattr(removal.time, "sleep", pause)
    removal.forget(book, "wishlist", NOW_S)
    other.close()
    assert len(seen) > 10
    assert {named for named, _ in seen} == {0}, "nobody finds it from the first transaction on"
    amounts = [amount for _, amount in seen]
    assert all(before - after <= removal._ROWS for before, after in itertools.pairwise(amounts))
    assert left(book) == [0] * len(TABLES)


class Killed(BaseException):
    pass


def test_what_a_kill_leaves_is_deleted_by_the_next_one(book, monkeypatch):
    close(recorded(book, items=1000))
    monkeypatch.setattr(removal, "CHUNK_S", 0.0)

    def kill(seconds):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(removal.time, "sleep", kill)
        with pytest.raises(Killed):
            removal.forget(book, "wishlist", NOW_S)
    assert sum(left(book)) > 0
    with book.reader() as database:
        assert run_store.find(database, "wishlist") is None
    assert removal.prune(book, 0.0, NOW_S) == 0
    assert left(book) == [0] * len(TABLES)
