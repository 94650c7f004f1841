import threading

import msgspec
import pytest

from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.plan import Keying, Task, make_plan
from ipybatch.engine.store import plan_rows, run_store
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.rows import Entry
from ipybatch.engine.store.schema import ids
from ipybatch.errors import Fenced, JournalLocked
from tests.engine.store.stores import NOW_S, close, rows, take, taking


@pytest.fixture
def book(tmp_path, patience):
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


@pytest.fixture
def run(book):
    return book.write(lambda db: run_store.create(db, "wishlist", resource="store", group_word="Batch", now_s=NOW_S))


@pytest.fixture
def taken(book, run):
    made = take(book)
    yield made
    made.drop()


def entry(task, status="completed", *, payload=b"1", error="", final=True):
    return Entry(task, task.label, 1, status, final, 1, payload, NOW_S + 5, 0.5, error)


def submit(book, entries, now_s=NOW_S):
    told = []
    book.submit(entries, now_s, told.append)
    book.journal.write(lambda _: None)  # whatever was queued before has been told
    return told


def find(book, name="wishlist"):
    with book.reader() as database:
        return run_store.find(database, name)


def test_nothing_is_found_of_a_name_nobody_used(book):
    """A new session starts from nothing."""
    assert find(book) is None


def test_the_latest_run_of_a_name_is_found(book):
    """``fresh`` makes another run; the name means that one from then on."""
    first = book.write(lambda db: run_store.create(db, "x", resource="r", group_word="Batch", now_s=1.0))
    book.write(lambda db: run_store.create(db, "y", resource="r", group_word="Batch", now_s=2.0))
    assert find(book, "x").run == first
    second = book.write(lambda db: run_store.create(db, "x", resource="r", group_word="Batch", now_s=3.0))
    assert find(book, "x").run == second > first


def test_a_plan_comes_back_as_it_was_recorded(book, run):
    """2,500 items in rows of 1,000: every key, item, digest and rank, in order."""
    items = [{"id": n, "x": [n, None, "ü"]} for n in range(2500)]
    tasks = make_plan(items, Keying(settings=b"{}"))
    for task in tasks:
        task.rank = task.seq % 3
    book.write(lambda db: plan_rows.write_plan(db, run, tasks))
    with book.reader() as database:
        found = run_store.find(database, "wishlist")
        assert list(plan_rows.read_plan(database, found)) == tasks
    assert found.listing is None, "each item has the number of its place"
    assert rows(book, "SELECT count(*) FROM plan") == [(3,)]


def test_a_plan_whose_items_moved_keeps_their_numbers(book, run):
    """An item keeps the seq it is recorded under, wherever it is listed now."""
    tasks = make_plan(["c", "a", "d"], Keying())
    for task, seq in zip(tasks, (2, 0, 9), strict=True):
        task.seq = seq
    book.write(lambda db: plan_rows.write_plan(db, run, tasks))
    with book.reader() as database:
        read = list(plan_rows.read_plan(database, run_store.find(database, "wishlist")))
    assert [(task.seq, task.item) for task in read] == [(2, "c"), (0, "a"), (9, "d")]


def test_a_plan_is_replaced_whole(book, run):
    """A shorter list leaves nothing of the longer one."""
    for count in (2500, 10):
        tasks = make_plan(list(range(count)), Keying())
        book.write(lambda db, tasks=tasks: plan_rows.write_plan(db, run, tasks))
    with book.reader() as database:
        assert len(list(plan_rows.read_plan(database, run_store.find(database, "wishlist")))) == 10
    assert find(book).counts.total == 10


def test_an_entry_is_written_with_its_counts_and_its_lease(book, taken):
    """One commit: the item, its result, the counts, and the beat."""
    submit(taken, [entry(Task(0, '"a"', "a")), entry(Task(1, '"b"', "b"), "failed", payload=None)], NOW_S + 7)
    assert rows(book, "SELECT key, status FROM item ORDER BY id") == [('"a"', "completed"), ('"b"', "failed")]
    assert rows(book, "SELECT result FROM payload") == [(b"1",)]
    assert rows(book, "SELECT completed, failed, beat_s FROM run") == [(1, 1, NOW_S + 7)]


def test_an_attempt_that_another_follows_is_no_outcome(book, taken):
    """It is written down; the item has no outcome yet."""
    assert submit(taken, [entry(Task(0, '"a"', "a"), "pending", payload=None, error="HTTP 500")]) == [None]
    assert rows(book, "SELECT * FROM item") == []
    assert rows(book, "SELECT attempt, error FROM attempt") == [(1, "HTTP 500")]
    assert find(book).counts == Counts(total=None)


def test_the_run_holds_the_counts_of_the_snapshot(book, taken):
    """What the session counts, with the entries of this commit, and what is recorded of earlier starts."""
    taken.live = run_store.NotBegun(Counts(completed=10, failed=2, pending=8, total=20))
    taken.recorded.stale.update(timeout=2, failed=1)
    again = Task(3, "3", 3)
    again.recorded = "timeout"
    submit(taken, [entry(Task(n, str(n), n)) for n in range(3)])
    assert rows(book, "SELECT completed, failed, timeout FROM run") == [(13, 3, 2)]
    submit(taken, [entry(again)])
    assert rows(book, "SELECT completed, failed, timeout FROM run") == [(11, 3, 1)]


def test_many_entries_go_in_one_commit(book, taken):
    """More than one statement's worth of rows, every one of them."""
    submit(taken, [entry(Task(n, str(n), n)) for n in range(101)])
    assert rows(book, "SELECT count(*), count(DISTINCT key) FROM item") == [(101, 101)]


def test_a_fenced_owner_writes_nothing(book, taken):
    """A kernel that wakes from sleep after another took over: its whole commit is refused, and it is told so."""
    taken.drop()
    newer = take(book)
    told = submit(taken, [entry(Task(0, '"late"', "late"))])
    told += close(taken, counts=Counts(completed=9), is_anew=True)
    assert [type(error) for error in told] == [Fenced] * 2
    with pytest.raises(Fenced):
        taken.begin(Counts(), now_s=NOW_S + 99)
    with pytest.raises(Fenced):
        taken.write(lambda db: db.execute("DELETE FROM run"), NOW_S)
    taken.abandon()
    assert rows(book, "SELECT count(*) FROM item") == [(0,)]
    assert rows(book, "SELECT state, beat_s, epoch FROM run") == [("running", NOW_S, newer.lease.epoch)]
    newer.drop()


def test_another_owner_of_the_same_epoch_is_fenced(book, taken):
    """Runs of an older version all began with the first epoch: the owner tells them apart as well."""
    book.write(lambda db: db.execute("UPDATE run SET owner = 'elsewhere/1/x'").rowcount)
    assert [type(error) for error in submit(taken, [entry(Task(0, "0", 0))])] == [Fenced]
    assert [type(error) for error in close(taken)] == [Fenced]
    assert rows(book, "SELECT owner FROM run") == [("elsewhere/1/x",)]


def test_a_session_cannot_run_twice_in_one_process(book, taken):
    """The second start of the same name is told, and changes nothing."""
    with pytest.raises(JournalLocked, match="is already running in this kernel"):
        take(book, resource="other")
    assert rows(book, "SELECT resource FROM run") == [("store",)]


@pytest.mark.parametrize("fresh", [False, True])
def test_no_run_of_a_name_is_taken_while_an_earlier_one_lives(book, taken, fresh):
    """A name has one session at a time, whichever of its runs that runs."""
    book.write(lambda db: run_store.create(db, "wishlist", resource="store", group_word="Batch", now_s=NOW_S))
    with pytest.raises(JournalLocked), taking(book, fresh=fresh):
        pass
    assert rows(book, "SELECT count(*) FROM run") == [(2,)]


def test_who_comes_second_to_a_new_name_is_refused(book):
    """It is looked up, made and taken in one transaction: two that begin at once do not get a run each."""
    journals = [Journal(book.path), Journal(book.path)]
    begin = threading.Barrier(2)
    told = []

    def begin_session(journal):
        begin.wait(20)
        try:
            take(journal, "new")
        except JournalLocked:
            told.append("refused")
        else:
            told.append("taken")

    both = [threading.Thread(target=begin_session, args=(journal,)) for journal in journals]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    # To the second one the owner is this very process, in another journal of its own.
    assert rows(book, "SELECT count(*) FROM run WHERE name = 'new'") == [(1,)]
    for journal in journals:
        journal.close()


def test_closing_records_how_it_ended_and_lets_go(book, taken):
    """State, reason, seconds and counts; the next session takes it at once."""
    counts = Counts(completed=2, failed=1, total=3)
    assert close(taken, "failed", "budget", counts, now_s=NOW_S + 60, seconds=12.5) == [None]
    found = find(book)
    assert (found.state, found.reason, found.seconds, found.counts) == ("failed", "budget", 12.5, counts)
    again = take(book, now_s=NOW_S + 61)
    assert find(book).state == "running"
    close(again, counts=counts, now_s=NOW_S + 70, seconds=2.5)
    assert find(book).seconds == 15.0
    assert rows(book, "SELECT started_s, begun_s, owner FROM run") == [(NOW_S, NOW_S + 61, None)]


def test_what_is_left_of_a_run_is_pending(book, taken):
    """The total without all that has ended, however it did."""
    counts = Counts(completed=1, failed=2, timeout=3, cancelled=4, skipped=5, total=21)
    close(taken, "cancelled", counts=counts)
    assert find(book).counts == Counts(completed=1, failed=2, timeout=3, cancelled=4, skipped=5, total=21, pending=6)


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_what_raises_before_a_run_begins_leaves_it_as_it_was(book, taken, raised):
    """An error, or Ctrl-C: the name is free, and a run that was not there before is not there."""

    def begin_badly(name):
        with taking(book, name) as store:
            store.write(lambda db: plan_rows.write_plan(db, store.run, make_plan([1], Keying())), NOW_S)
            raise raised

    close(taken, "failed", "budget", Counts(failed=1, total=1))
    for name in ("wishlist", "new"):
        with pytest.raises(raised):
            begin_badly(name)
    book.write(lambda _: None)  # what was queued before is written
    assert rows(book, "SELECT name, state, reason, owner FROM run") == [("wishlist", "failed", "budget", None)]
    assert rows(book, "SELECT run FROM plan") == [(taken.run,)]
    take(book).drop()


def test_a_run_that_has_begun_keeps_what_it_recorded(book, taken):
    """Let go without an end, it shows as interrupted."""
    submit(taken, [entry(Task(0, "0", 0))])
    taken.abandon()
    assert rows(book, "SELECT state, owner, (SELECT count(*) FROM item) FROM run") == [("running", None, 1)]


def test_a_run_that_is_made_and_has_begun_stays(book):
    """What it recorded in its first start is not taken back with it."""
    made = take(book, "new")
    submit(made, [entry(Task(0, "0", 0))])
    made.abandon()
    assert rows(book, "SELECT count(*) FROM item") == [(1,)]


def test_ending_anew_leaves_nothing_of_the_items(book, taken):
    """All or nothing: items, results and attempts go; other runs stay."""
    beside = take(book, "other")
    for owner in (taken, beside):
        submit(owner, [entry(Task(0, '"a"', "a")), entry(Task(1, '"b"', "b"), "pending", payload=None)])
    assert close(taken, "rolled_back", is_anew=True) == [None]
    first, after = ids(beside.run)
    assert rows(book, "SELECT id FROM item") == rows(book, "SELECT id FROM payload") == [(first,)]
    assert rows(book, "SELECT item FROM attempt") == [(first + 1,)]
    assert first + 1 < after
    beside.drop()


def test_skipped_items_are_final_with_their_reason(book, run):
    """Decided once: a resume does not ask again."""
    task = Task(4, '"fresh"', "fresh")
    book.write(lambda db: plan_rows.skip(db, run, [(task, "younger than a day")], NOW_S))
    assert rows(book, "SELECT key, status, final, error FROM item") == [('"fresh"', "skipped", 1, "younger than a day")]


def test_an_open_plan_has_no_total(book, run, taken):
    """A generator's total is not known until it is exhausted."""
    assert find(book).counts == msgspec.structs.replace(Counts(), total=None)
