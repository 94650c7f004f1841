import asyncio
import gc
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import ipybatch
from ipybatch import BatchSession, Limits, Retry
from ipybatch.engine.data import plan as plans
from ipybatch.engine.data.items import ItemList
from ipybatch.engine.data.plan import NOTHING_AGAIN, Again, Keying, make_plan
from ipybatch.engine.data.spec import Spec, Work
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import plan_rows, run_store
from ipybatch.engine.store.drawing import Walk
from ipybatch.engine.store.resume import Items, Wanted, add, open_list, prioritize
from ipybatch.engine.store.schema import ids
from ipybatch.errors import Fenced, InputError
from ipybatch.testing import VirtualClock
from tests.engine.store.stores import rows, take, taking

LATENCY_S = 0.5


def drawn(source):
    """Yield what a generator's thread gives, as soon as it does."""
    return (task for task in source if task is not None)


class Desk:
    """One name, session after session, each in a process of its own as far as the journal can tell.

    Items 3 and 8 always fail for good, 4 and 9 always fail for now, all others succeed.

    Attributes:
        final: What must never run again: the input each key is recorded with.
    """

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "journal-0.db"
        self.copies = 0
        self.final = {}
        self.results = {}

    def close(self):
        for path in [path for path in journals._open_journals if path.is_relative_to(self.folder)]:
            journals._open_journals.pop(path).close()

    async def work(self, item):
        key, version = item["id"], item["v"]
        assert self.final.get(key) != version, f"{item} is recorded and runs again"
        await asyncio.sleep(LATENCY_S)
        if key % 5 == 3:
            msg = f"no game {key}"
            raise KeyError(msg)
        if key % 5 == 4:
            raise ConnectionError
        return {"v": version}

    def record(self, outcomes, items):
        for outcome in outcomes:
            version = next(item["v"] for item in items if item["id"] == outcome.key)
            if outcome.status == "completed" or (outcome.status == "failed" and outcome.key % 5 == 3):
                self.final[outcome.key] = version
            else:
                self.final.pop(outcome.key, None)

    def run(self, items, *, as_generator=False, end="done", after_s=0.0, limits=None):
        """Run a session to its end, to a cancel, or to a kill: what is on disk then is all that goes on."""
        clock = VirtualClock()
        session = BatchSession(
            "wishlist",
            self.work,
            (item for item in items) if as_generator else items,
            limits=limits or Limits(concurrency=2),
            retry=Retry(attempts=1),
            breaker=None,
            journal=self.path,
            clock=clock,
        )
        killed = False

        def listen(outcomes):
            if not killed:
                self.record(outcomes, items)

        session.on_outcomes(listen)

        async def stop():
            nonlocal killed
            await asyncio.sleep(after_s)
            if end == "kill":
                killed = True
                self.take_what_is_on_disk()
                self.check_counts()
            session._run.stop("cancelled", "", "cancelled")

        clock.run(session, *([] if end == "done" else [stop()]))
        self.check_counts()
        return session

    def check_counts(self):
        """One count of a session: what it says when it is opened, what history says, and the rows it has."""
        opened = BatchSession.open("wishlist", journal=self.path)
        rows = opened.results()["status"].value_counts().to_dict()
        counted = {status: getattr(opened.counts, status) for status in ("completed", "failed", "timeout")}
        assert counted == {status: rows.get(status, 0) for status in counted}, (
            opened.state,
            opened.counts,
            opened.results().to_dict("records"),
        )
        told = ipybatch.history(self.path).iloc[-1]
        assert counted == {status: told[status] for status in counted}

    def take_what_is_on_disk(self):
        self.copies += 1
        copy = self.folder / f"journal-{self.copies}.db"
        for end in ("", "-wal"):
            shutil.copy(self.path.with_name(self.path.name + end), copy.with_name(copy.name + end))
        self.path = copy


@pytest.fixture
def desk(tmp_path, patience):
    desk = Desk(tmp_path)
    yield desk
    desk.close()


items = st.lists(
    st.builds(lambda key, version: {"id": key, "v": version}, st.integers(0, 9), st.integers(0, 1)),
    unique_by=lambda item: item["id"],
    max_size=8,
)
steps = st.lists(
    st.fixed_dictionaries(
        {
            "items": items,
            "as_generator": st.booleans(),
            "end": st.sampled_from(["done", "cancel", "kill"]),
            "after_s": st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.2, 2.0]),
            "limits": st.sampled_from([Limits(concurrency=1), Limits(concurrency=3), Limits(2, batch_size=2)]),
        }
    ),
    min_size=1,
    max_size=5,
)


@given(steps=steps, last=items, as_generator=st.booleans())
def test_nothing_recorded_is_run_again_or_lost(steps, last, as_generator):
    """Stopped or killed anywhere, resumed with items added, removed, moved or changed, from a list or a generator.

    What is final stays, all else runs, and the results are those of the present items, in their order.
    """
    assume(last or not as_generator)  # a generator that gives nothing is told as exhausted
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        try:
            for step in steps:
                desk.run(**step)
            session = desk.run(last, as_generator=as_generator)
            assert session.state == "completed", session.reason
            frame = session.results()
            assert frame["key"].tolist() == [item["id"] for item in last]
            for item, row in zip(last, frame.to_dict("records"), strict=True):
                assert row["status"] == ("failed" if item["id"] % 5 in (3, 4) else "completed")
                if row["status"] == "completed":
                    assert row["v"] == item["v"]
            counts = session.counts
            assert (counts.ended, counts.total) == (len(last), len(last))
            assert counts.completed == sum(item["id"] % 5 not in (3, 4) for item in last)
        finally:
            desk.close()


def numbered(*keys, v=0):
    return [{"id": key, "v": v} for key in keys]


def ran(desk, items, **arguments):
    """Run a session and return which keys it asked for."""
    asked = []
    work = desk.work

    async def note(item):
        asked.append(item["id"])
        return await work(item)

    desk.work = note
    session = desk.run(items, **arguments)
    desk.work = work
    return asked, session


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_a_new_first_item_takes_nobodys_place(desk, first, second):
    """An item put before the others is recorded beside them, not over them."""
    desk.run(numbered(1, 2), as_generator=first)
    assert ran(desk, numbered(0, 1, 2), as_generator=second)[0] == [0]
    asked, session = ran(desk, numbered(2, 0, 1), as_generator=second)
    assert asked == []
    assert session.results()["key"].tolist() == [2, 0, 1]


def test_a_list_after_a_generator_after_a_list(desk):
    """Items of a list that never ran are not taken for what a generator put in their place."""
    desk.run(numbered(0, 1, 2, 5), end="cancel", after_s=0.7, limits=Limits(concurrency=1))
    desk.run(numbered(0, 6, 7), as_generator=True)
    asked, session = ran(desk, numbered(0, 1, 2, 5))
    assert asked == [1, 2, 5]
    assert session.results()["status"].tolist() == ["completed"] * 4


def test_what_is_no_longer_listed_stays_outside(desk):
    """Not in the results, not in the counts; and still recorded when it comes back."""
    desk.run(numbered(0, 1, 2))
    _, session = ran(desk, numbered(1))
    assert (session.counts.total, session.results()["key"].tolist()) == (1, [1])
    assert ran(desk, numbered(0, 1, 2))[0] == []


@pytest.mark.parametrize("as_generator", [False, True])
def test_a_changed_input_runs_again(desk, as_generator):
    """The key is the same, the question is not."""
    desk.run(numbered(0, 1, 2))
    changed = [*numbered(0, 1), *numbered(2, v=1)]
    asked, session = ran(desk, changed, as_generator=as_generator)
    assert asked == [2]
    assert session.results()["v"].tolist() == [0, 0, 1]


def test_an_answer_to_another_question_is_not_shown(desk):
    """A changed item that was not reached before a cancel has no result yet."""
    desk.run(numbered(0, 1))
    session = desk.run(numbered(0, 1, v=1), end="cancel", after_s=0.7, limits=Limits(concurrency=1))
    assert session.results()["status"].tolist() == ["completed", "cancelled"]
    assert session.results()["v"].tolist()[0] == 1
    assert session.results()["v"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    "limits",
    [Limits(2, batch_size=5), Limits(1, spacing_s=2, batch_size=2, batch_pause_s=30), Limits(4, spacing_s=0.3)],
)
def test_a_generator_that_is_stopped_and_resumed_loses_nothing(journal, clock, limits):
    """What was drawn ahead, or waits for a retry, runs after the resume in the same process: it is given only once."""
    asked = []

    async def work(item):
        asked.append(item)
        await asyncio.sleep(LATENCY_S)
        if item == 1 and asked.count(1) == 1:
            raise ConnectionError
        return item

    session = BatchSession("drawn", work, iter(range(12)), limits=limits, journal=journal, clock=clock)

    async def stop():
        await asyncio.sleep(0.4)
        session._run.stop("cancelled", "", "cancelled")

    clock.run(session, stop())
    clock.run(session)
    assert set(asked) == set(range(12))
    assert (session.counts.completed, session.counts.total) == (12, 12)


def test_a_generator_that_is_stopped_twice_loses_nothing(journal, clock):
    """The second stop comes before the first resume has begun what the first stop left."""
    done = []

    async def work(item):
        await asyncio.sleep(2)
        done.append(item)

    async def stop(after_s):
        await asyncio.sleep(after_s)
        session._run.stop("cancelled", "", "cancelled")

    limits = Limits(concurrency=4, spacing_s=0.3)
    session = BatchSession("drawn", work, iter(range(9)), limits=limits, journal=journal, clock=clock)
    clock.run(session, stop(1.0))
    clock.run(session, stop(0.25))
    clock.run(session)
    assert sorted(done) == list(range(9))


def test_a_generator_that_is_stopped_twice_counts_what_it_owes(journal, clock):
    """No count is ever below zero, and pending is what is still to run of the items that were drawn."""
    pending = []

    async def work(item):
        await asyncio.sleep(2)

    async def stop(after_s):
        await asyncio.sleep(after_s)
        session._run.stop("cancelled", "", "cancelled")

    limits = Limits(concurrency=4, spacing_s=0.3)
    session = BatchSession("drawn", work, iter(range(9)), limits=limits, journal=journal, clock=clock)
    session.on(lambda event: pending.append(session.counts.pending))
    clock.run(session, stop(1.0))
    drawn = session.counts.ended
    clock.run(session, stop(0.25))
    assert drawn <= session.counts.ended < 9  # some more may have been read ahead
    clock.run(session)
    assert min(pending) == 0
    assert session.counts.ended == session.counts.total == 9


def test_a_generator_that_was_rolled_back_starts_with_all_its_items(journal, clock):
    """All or nothing: what the rollback discarded runs again, in the same process too."""
    asked = []

    async def work(item):
        asked.append(item)
        if item == 2 and asked.count(2) == 1:
            msg = "out of memory"
            raise ValueError(msg)
        return item

    limits = Limits(concurrency=1)
    session = BatchSession(
        "drawn", work, iter(range(4)), limits=limits, on_failure="rollback", journal=journal, clock=clock
    )
    clock.run(session)
    assert (session.state, asked) == ("rolled_back", [0, 1, 2])
    clock.run(session)
    assert sorted(asked[3:]) == [0, 1, 2, 3]
    assert (session.state, session.counts.completed, session.counts.total) == ("completed", 4, 4)


def test_an_earlier_result_does_not_outlive_its_question(journal, clock):
    """A changed item that returns nothing now has no result, whatever it returned before."""

    def run(version, result):
        async def work(item):
            return result

        session = BatchSession("changing", work, [{"id": 1, "v": version}], journal=journal, clock=clock)
        clock.run(session)
        return session.results()

    assert run(1, {"price": 5})["price"].tolist() == [5]
    assert run(2, None).columns.tolist() == ["key", "status", "attempts", "seconds", "error"]


def spec(*, code_hash=None, **arguments):
    return Spec(
        **{
            "name": "x",
            "work": Work(None, True, False, code_hash),
            "backend": None,
            "limits": Limits(),
            "retry": Retry(),
            "breaker": None,
            "timeout_s": None,
            "on_failure": "continue",
            "resource": "r",
            "keying": Keying(),
        }
        | arguments
    )


@pytest.fixture
def book(tmp_path, patience):
    journal = journals.Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


def open_items(book, items, **arguments):
    wanted = spec(**arguments)
    return under_lease(
        book, wanted, lambda store: open_list(store, wanted, make_plan(items, wanted.keying), NOTHING_AGAIN, 0.0)
    )


def under_lease(book, wanted, match):
    """Match items as a start does, and let go."""
    with taking(book, wanted.name, fresh=wanted.fresh, code_hash=wanted.work.code_hash) as store:
        opened = match(store)
        store.begin(opened.counts, now_s=0.0)
    store.abandon()
    return opened


def test_what_is_skipped_is_decided_once(book):
    """A resume does not ask again; only items that are new are looked at."""
    asked = []

    def skip(item):
        asked.append(item)
        return "fresh" if item % 2 else ""

    first = open_items(book, [0, 1, 2, 3], skip=skip)
    assert ([task.item for task in first.source], first.counts.skipped, first.counts.pending) == ([0, 2], 2, 2)
    again = open_items(book, [0, 1, 2, 3], skip=skip)
    assert [task.item for task in again.source] == [0, 2]
    more = open_items(book, [0, 1, 2, 3, 4, 5], skip=skip)
    assert [task.item for task in more.source] == [0, 2, 4]
    assert asked == [0, 1, 2, 3, 4, 5]


def test_what_runs_first_is_decided_once(book):
    """Lower ranks first, in the list's order within a rank; a resume keeps the order even if the ranks have changed."""
    first = open_items(book, [5, 2, 7, 4], rank=lambda item: item % 2)
    assert [task.item for task in first.source] == [2, 4, 5, 7]
    again = open_items(book, [5, 2, 7, 4], rank=lambda item: -item)
    assert [task.item for task in again.source] == [2, 4, 5, 7]


def test_new_items_are_numbered_on(book):
    """Behind the highest number that is recorded or planned, without a gap; the first is 0."""
    seqs = [[task.seq for task in open_items(book, items).source] for items in ([], [7], [7, 8], [9, 8, 7])]
    assert seqs == [[], [0], [0, 1], [2, 1, 0]]


def test_how_many_of_each_priority_wait_is_known_where_there_is_an_order(book):
    assert open_items(book, [1, 2]).queued is None
    assert open_items(book, [1, 2, 3], name="y", priority=lambda item: 0 if item == 3 else 2).queued == [1, 0, 2]


def test_a_fresh_run_starts_from_nothing(book):
    """The earlier run stays in the journal under its own number."""
    first = open_items(book, [1, 2], skip=lambda item: "done")
    fresh = open_items(book, [1, 2], fresh=True)
    assert rows(book, "SELECT id, name FROM run") == [(1, "x"), (2, "x")]
    assert (first.counts.skipped, fresh.counts.pending) == (2, 2)


@pytest.mark.parametrize(
    ("before", "now", "noted"), [(b"a", b"a", 0), (b"a", b"b", 1), (b"a", None, 0), (None, b"b", 0)]
)
def test_changed_code_is_told(book, before, now, noted):
    """What is recorded stays as it is, and the panel says so; code that cannot be seen says nothing."""
    open_items(book, [1], code_hash=before)
    notes = open_items(book, [1], code_hash=now).notes
    assert len(notes) == noted
    assert not notes or notes[0].startswith("the work function changed since this session began")


def open_items_of(book, generator, emit=lambda event: None, **arguments):
    wanted = spec(**arguments)

    def match(store):
        return Items(generator, None).open(store, wanted, again=NOTHING_AGAIN, emit=emit, clock_s=lambda: 5.0)

    return under_lease(book, wanted, match)


def test_what_a_generator_need_not_run_again_is_kept_for_a_later_start(book):
    """Its failures that are final: `retry_failed` may ask for them; results are not, nor what runs now."""
    run = recorded_run(book, 4)
    first, _ = ids(run)
    book.write(lambda db: db.execute("UPDATE item SET status = 'failed' WHERE id > ?", (first,)).rowcount)
    book.write(lambda db: db.execute("UPDATE item SET final = 0 WHERE id = ?", (first + 3,)).rowcount)
    opened = open_items_of(book, iter(range(5)))
    assert [(task.item, task.recorded) for task in drawn(opened.source)] == [(3, "failed"), (4, "")]
    assert [task.item for task in opened.drawing.held] == [1, 2]


def test_changed_code_is_told_of_a_generator_too(book):
    open_items(book, [1], code_hash=b"a")
    run_again = open_items_of(book, iter([1]), code_hash=b"b")
    assert run_again.notes == ["the work function changed since this session began: what is recorded stays as it is"]


def test_a_generator_is_told_as_it_is_drawn(book):
    """They are counted as they are drawn, a chunk at a time, the total when the last one was."""
    told = []
    opened = open_items_of(book, iter(["a", "b", "a"]), told.append)
    assert (opened.counts.total, told) == (None, [])
    first = next(drawn(opened.source))
    assert (first.item, [type(event).__name__ for event in told]) == ("a", ["Drawn"])
    rest = list(drawn(opened.source))
    assert [task.refused for task in rest] == ["", 'duplicate key "a": an earlier item has it too']
    assert len({task.key for task in [first, *rest]}) == 3
    assert {type(event).__name__ for event in told[:-1]} == {"Drawn"}
    assert sum(event.items for event in told[:-1]) == 3
    assert told[-1].total == 3


def test_an_item_without_a_key_fails_alone_in_a_generator(book):
    """The others are drawn; it is told why."""
    opened = open_items_of(book, iter(["a", None, object(), "b"]), lambda event: None)
    refused = [bool(task.refused) for task in drawn(opened.source)]
    assert refused == [False, True, True, False]


def recorded_run(book, count):
    """Make a run in which so many items are recorded, with their numbers as keys."""
    run = book.write(lambda db: run_store.create(db, "x", resource="r", group_word="Batch", now_s=0.0))
    first, _ = ids(run)
    rows = [(first + seq, str(seq)) for seq in range(count)]
    sql = "INSERT INTO item VALUES (?, ?, '', 'completed', 1, 0, 1, 0.0, 0.0, '', 0, '')"
    book.write(lambda db: db.executemany(sql, rows).rowcount)
    return run


def test_items_that_are_drawn_as_recorded_are_found_in_one_walk(book):
    """No index is made for them, also beyond what is read at once; after the last one nothing is looked up."""
    run = recorded_run(book, 1203)
    with book.reader() as database:
        walk = Walk(database, run, NOTHING_AGAIN)
        assert walk.first_free == 1203
        found = [walk.find(place, str(place)) for place in range(1203)]
        assert [row[0] for row in found] == list(range(1203))
        assert {row[1:] for row in found} == {(str(seq), "completed", 1, "") for seq in range(1203)}
        assert walk.in_step
        assert walk.find(1203, "new") is None
        assert not walk._indexed


def test_items_that_are_drawn_elsewhere_are_looked_up(book):
    """By key, and the walk knows that it is out of step; a new item at the end takes nobody's place."""
    run = recorded_run(book, 4)
    with book.reader() as database:
        walk = Walk(database, run, NOTHING_AGAIN)
        assert walk.find(0, "0")[0] == 0
        assert walk.find(1, "2")[0] == 2
        assert not walk.in_step
        assert [walk.find(2, "1")[0], walk.find(3, "3")[0]] == [1, 3]
        assert walk.find(4, "0") is None, "all are matched"
    with book.reader() as database:
        walk = Walk(database, run, NOTHING_AGAIN)
        assert walk.find(0, "new") is None
        assert not walk.in_step
        assert walk.find(1, "0")[2:4] == ("completed", 1)


def start(items, book, again=()):
    def match(store):
        return items.open(store, spec(), again=Again(frozenset(again)), emit=lambda event: None, clock_s=lambda: 0.0)

    opened = under_lease(book, spec(), match)
    return opened.counts, drawn(opened.source)


def record(book, *rows):
    sql = "INSERT INTO item VALUES (?, ?, '', ?, ?, 0, 1, 0.0, 0.0, '', 0, '')"
    base, _ = ids(1)
    rows = [(base + seq, key, status, final) for seq, key, status, final in rows]
    book.write(lambda db: db.executemany(sql, rows).rowcount)


def test_a_generator_goes_on_with_what_may_run_again(book):
    """First what failed for now, then what waited, then what is still to come; each begins at its first attempt."""
    items = Items(iter("abcdef"), None)
    _, source = start(items, book)
    gone, lost, waiting = (next(source) for _ in range(3))
    for task in (gone, lost, waiting):
        task.attempts = 2
    record(book, (0, '"a"', "failed", 1), (1, '"b"', "failed", 0))
    items.put_back([gone, lost, waiting])
    counts, second = start(items, book)
    assert (counts.failed, counts.pending, counts.running, counts.cancelled) == (1, 2, 0, 0)
    tasks = [next(second), next(second)]
    assert [(task.item, task.attempts, task.recorded) for task in tasks] == [("b", 0, "failed"), ("c", 0, "")]
    book.write(lambda db: db.execute("UPDATE item SET status = 'completed', final = 1 WHERE key = '\"b\"'").rowcount)
    items.put_back([tasks[1]])
    counts, third = start(items, book, again={"failed"})
    assert (counts.completed, counts.failed, counts.pending) == (1, 0, 2)
    assert [task.item for task in third] == ["a", "c", "d", "e", "f"]


def test_a_start_that_is_over_takes_nothing_with_it(book):
    """What the generator has not given yet is still to come, also after a start that drew from it was let go."""
    items = Items(iter("abcd"), None)
    _, source = start(items, book)
    task = next(source)
    items.put_back([task])
    _, source = start(items, book)
    _, source = start(items, book)
    gc.collect()
    assert [task.item for task in source] == ["a", "b", "c", "d"]


def test_a_generator_s_items_that_got_lost_are_told(book):
    """A start that nobody ended has taken one with it: the session is never completed without it."""
    items = Items(iter("abcd"), None)
    _, source = start(items, book)
    assert next(source).item == "a"
    with pytest.raises(InputError, match="make the session anew"):
        start(items, book)


def test_what_is_added_has_numbers_of_its_own(book):
    """One after the other, behind the highest; what is there already is left out, and the order is on record."""
    wanted = spec()
    tasks = make_plan([], wanted.keying)
    taken = take(book, "x")
    open_list(taken, wanted, tasks, NOTHING_AGAIN, 0.0)
    try:
        first, _ = add(tasks, taken, wanted, ItemList(["a", "b"]), 0.0)
        second, _ = add(tasks, taken, wanted, ItemList(["b", "c", "c", "d"]), 0.0)
    finally:
        taken.drop()
    assert [(task.seq, task.item, task.added) for task in [*first, *second]] == [
        (0, "a", True),
        (1, "b", True),
        (2, "c", True),
        (3, "d", True),
    ]
    assert tasks.is_ordered
    with book.reader() as database:
        found = run_store.find(database, "x")
        assert found.is_ordered
        assert [task.key for task in plan_rows.read_plan(database, found)] == ['"a"', '"b"', '"c"', '"d"']


def listed(book, items):
    """Open a list and take its lease; return its tasks, what writes them, and what it was opened for."""
    wanted = spec()
    tasks = make_plan(items, wanted.keying)
    taken = take(book, "x")
    open_list(taken, wanted, tasks, NOTHING_AGAIN, 0.0)
    return tasks, taken, wanted


def recorded_plan(book):
    with book.reader() as database:
        return list(plan_rows.read_plan(database, run_store.find(database, "x")))


def parts(book):
    with book.reader() as database:
        return dict(database.execute("SELECT part, tasks FROM plan").fetchall())


def test_a_change_writes_what_changed_and_no_more(book):
    """A part for what was added, one for what has another priority; the others stay as they are, and all is read."""
    tasks, taken, wanted = listed(book, list(range(5000)))
    before = parts(book)
    add(tasks, taken, wanted, ItemList(["new"]), 0.0)
    for priority, keys in ((0, [4321, 7, "new"]), (2, [7, 8]), (1, [8])):
        for task in prioritize(tasks, taken, Wanted(keys).among(tasks), priority, 0.0):
            task.priority = priority
    taken.drop()
    after = parts(book)
    assert {part: after[part] for part in before} == before
    assert sorted(set(after) - set(before)) == [-3, -2, -1, 5]
    assert max(len(after[part]) for part in set(after) - set(before)) < 100
    read = recorded_plan(book)
    assert [(task.seq, task.key, task.priority, task.added) for task in read] == [
        (task.seq, task.key, task.priority, task.added) for task in tasks
    ]
    assert {task.key: task.priority for task in read if task.priority != 1} == {"4321": 0, "7": 2, '"new"': 0}


def test_an_unchanged_list_has_its_changed_priorities_again(book):
    """It is recognised by its hash, and not recorded anew."""
    tasks, taken, _ = listed(book, ["a", "b", "c"])
    prioritize(tasks, taken, Wanted(["c"]).among(tasks), 0, 0.0)
    taken.drop()
    before = parts(book)
    again = open_items(book, ["a", "b", "c"])
    assert [task.item for task in again.source] == ["c", "a", "b"]
    assert parts(book) == before
    longer = open_items(book, ["a", "b", "c", "d"])
    assert [task.item for task in longer.source] == ["c", "a", "b", "d"]
    assert sorted(parts(book)) == [0], "the list is recorded anew, with its priorities"


def test_what_is_added_does_not_take_the_number_of_what_is_listed_no_more(book):
    """The first two of three that are recorded are listed again; what comes then is numbered behind all three."""
    recorded_run(book, 3)
    tasks, taken, wanted = listed(book, [0, 1])
    new, _ = add(tasks, taken, wanted, ItemList(["new"]), 0.0)
    taken.drop()
    assert [task.seq for task in new] == [3]
    assert [(task.seq, task.key) for task in recorded_plan(book)] == [(0, "0"), (1, "1"), (3, '"new"')]


def test_a_change_that_is_not_recorded_has_no_effect(book):
    """Another process has taken the session over: the plan is what it was, here and on record."""
    tasks, taken, wanted = listed(book, ["a", "b"])
    book.write(lambda db: db.execute("UPDATE run SET epoch = epoch + 1").rowcount)
    with pytest.raises(Fenced):
        add(tasks, taken, wanted, ItemList(["c"]), 0.0)
    with pytest.raises(Fenced):
        prioritize(tasks, taken, Wanted(["b"]).among(tasks), 0, 0.0)
    taken.drop()
    assert [(task.key, task.priority) for task in tasks] == [('"a"', 1), ('"b"', 1)]
    assert [(task.key, task.priority) for task in recorded_plan(book)] == [('"a"', 1), ('"b"', 1)]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_keys_are_found_wherever_the_index_stands(monkeypatch, at_once):
    """It grows by a part a call, also over what is added meanwhile."""
    monkeypatch.setattr(plans, "_INDEXED_AT_ONCE", at_once)
    tasks = make_plan(list("abcdefgh"), Keying())
    for _ in range(4):
        assert [task.item for task in tasks.find(['"h"', '"a"', '"z"'])] in (["a", "h"], ["h", "a"])
    new = make_plan(["z"], Keying())
    tasks.add(new)
    assert {task.item for task in tasks.find(['"h"', '"z"'])} == {"h", "z"}
    assert tasks.next_seq == 9


@pytest.mark.parametrize("wrong", [[object()], 5.5, None])
def test_keys_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match="wanted must be a function of an item, or the keys of some"):
        Wanted(wrong)
