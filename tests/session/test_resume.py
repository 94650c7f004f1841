"""The same name continues: what stays as recorded, and what runs again."""

import asyncio
import threading

import numpy as np
import pytest

import ipybatch
from ipybatch import InputError, Limits, Retry, Transient
from ipybatch.engine.data.plan import Again
from tests.works import Recorder

ONCE = Retry(attempts=1)


def test_running_a_finished_notebook_again_asks_for_nothing(plan, clock):
    clock.run(plan(Recorder(), [1, 2, 3]))
    again = Recorder()
    session = plan(again, [1, 2, 3])
    assert str(clock.run(session)) == "wishlist completed: 3/3 successful, 0 failed, 0 skipped"
    assert again.asked == []
    assert session.results()["result"].tolist() == ["ok"] * 3


def test_a_new_session_of_the_name_shows_what_is_recorded_before_it_starts(plan, clock):
    clock.run(plan(Recorder({2: ValueError()}), [1, 2, 3]))
    session = plan(Recorder(), [1, 2, 3, 4])
    assert session.state == "planned"
    assert (session.counts.completed, session.counts.failed, session.counts.pending) == (2, 1, 1)


def test_permanent_failures_stay_and_transient_ones_run_again(plan, clock):
    first = Recorder({1: ValueError("no such game"), 2: ConnectionError(), 3: TimeoutError(), 4: Transient()})
    assert clock.run(plan(first, [1, 2, 3, 4, 5], retry=ONCE, breaker=None)).counts.completed == 1
    again = Recorder()
    session = plan(again, [1, 2, 3, 4, 5])
    clock.run(session)
    assert again.asked == [2, 3, 4]
    assert session.results()["status"].tolist() == ["failed"] + ["completed"] * 4


def test_retry_failed_runs_permanent_failures_too(live):
    work = Recorder({2: ValueError(), 3: ConnectionError()})
    session = live(work, [1, 2, 3], retry=ONCE)
    session.run()
    work.answers.clear()
    session.retry_failed()
    assert str(session.run()) == "wishlist completed: 3/3 successful, 0 failed, 0 skipped"
    assert work.asked == [1, 2, 3, 2, 3]


def test_retry_failed_of_a_generator_runs_what_failed(live):
    work = Recorder({2: ValueError()})
    session = live(work, iter([1, 2, 3]))
    session.run()
    work.answers.clear()
    session.retry_failed()
    assert session.run().counts.completed == 3
    assert work.asked == [1, 2, 3, 2]


def test_retry_failed_asks_nothing_again_that_completed(live):
    work = Recorder()
    session = live(work, [1, 2])
    session.run()
    session.retry_failed()
    session.run()
    assert work.asked == [1, 2]


def test_new_keys_are_added_and_the_order_is_that_of_the_new_list(plan, clock):
    clock.run(plan(Recorder(), [1, 2]))
    again = Recorder()
    session = plan(again, [3, 2, 4, 1])
    clock.run(session)
    assert again.asked == [3, 4]
    assert session.results()["key"].tolist() == [3, 2, 4, 1]


def test_an_item_whose_input_changed_runs_again(plan, clock):
    clock.run(plan(Recorder(), [{"id": 1, "q": "old"}, {"id": 2, "q": "same"}]))
    again = Recorder({1: "new answer"})
    session = plan(again, [{"id": 1, "q": "new"}, {"id": 2, "q": "same"}])
    clock.run(session)
    assert [item["id"] for item in again.asked] == [1]
    assert session.results()["result"].tolist() == ["new answer", "ok"]


def test_a_new_result_of_none_replaces_the_old_one(plan, clock):
    clock.run(plan(Recorder({1: {"name": "Portal"}}), [{"id": 1, "q": "old"}]))
    session = plan(lambda item: None, [{"id": 1, "q": "new"}])
    clock.run(session)
    assert session.results().get("name", default=[None])[0] is None


def test_what_is_sent_with_every_item_belongs_to_its_input(plan, clock):
    """Another model, another system instruction: every item runs again; the same one: none."""
    clock.run(plan(Recorder(), [1, 2], settings={"model": "a", "temperature": 0}))
    same, other = Recorder(), Recorder()
    clock.run(plan(same, [1, 2], settings={"temperature": 0, "model": "a"}))
    clock.run(plan(other, [1, 2], settings={"model": "b", "temperature": 0}))
    assert (same.asked, other.asked) == ([], [1, 2])


def test_items_no_longer_listed_stay_in_the_journal_outside_results_and_counts(plan, clock):
    clock.run(plan(Recorder(), [1, 2, 3]))
    shorter = plan(Recorder(), [3, 4])
    clock.run(shorter)
    assert shorter.results()["key"].tolist() == [3, 4]
    assert (shorter.counts.total, shorter.counts.completed) == (2, 2)
    again = Recorder()
    clock.run(plan(again, [1, 2, 3]))
    assert again.asked == []


def test_items_no_longer_listed_are_not_counted_before_the_start(plan, clock):
    clock.run(plan(Recorder(), [1, 2, 3]))
    counts = plan(Recorder(), [3, 4]).counts
    assert (counts.completed, counts.pending, counts.total) == (1, 1, 2)


def test_a_changed_work_function_keeps_what_is_recorded_and_says_so(plan, clock):
    async def before(item):
        return item

    async def after(item):
        return item + 1

    clock.run(plan(before, [1, 2]))
    session = plan(after, [1, 2, 3])
    clock.run(session)
    assert session.results()["result"].tolist() == [1, 2, 4]
    assert session.snapshot.notes == [
        "the work function changed since this session began: what is recorded stays as it is"
    ]


def test_the_same_work_function_defined_again_is_no_change(plan, clock):
    """A cell that runs again defines its function anew: nobody is warned."""

    def cell():
        async def work(item):
            return [n for n in range(item)]  # noqa: C416  # a comprehension has code of its own

        return work

    clock.run(plan(cell(), [1]))
    session = plan(cell(), [1, 2])
    clock.run(session)
    assert session.snapshot.notes == []


def test_fresh_begins_a_new_run_under_the_same_name(plan, clock, journal):
    clock.run(plan(Recorder(), [1, 2]))
    again = Recorder({1: "newer"})
    session = plan(again, [1, 2], fresh=True)
    clock.run(session)
    assert again.asked == [1, 2]
    assert session.results()["result"].tolist() == ["newer", "ok"]
    assert ipybatch.history(journal)["name"].tolist() == ["wishlist", "wishlist"]


def test_a_fresh_session_that_is_started_again_goes_on(live):
    """fresh= is for its first start: resuming it must not begin once more."""
    work = Recorder()
    live(work, [1, 2]).run()
    session = live(work, [1, 2], fresh=True)
    session.run()
    session.start()
    session.run()
    assert work.asked == [1, 2, 1, 2]


def test_a_fresh_session_shows_nothing_of_the_old_run(plan, clock):
    clock.run(plan(Recorder(), [1]))
    assert plan(Recorder(), [1], fresh=True).results()["status"].tolist() == ["pending"]


def test_another_name_is_another_session(plan, clock):
    clock.run(plan(Recorder(), [1]))
    other = Recorder()
    clock.run(plan(other, [1], name="other"))
    assert other.asked == [1]


def test_a_generator_is_matched_as_it_is_drawn(plan, clock):
    clock.run(plan(Recorder({2: ConnectionError()}), iter([1, 2, 3]), retry=ONCE))
    again = Recorder()
    session = plan(again, iter([1, 2, 3, 4]))
    assert str(clock.run(session)) == "wishlist completed: 4/4 successful, 0 failed, 0 skipped"
    assert again.asked == [2, 4]
    assert session.results()["key"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("later", [[4, 2], [0, 1, 2, 3, 4]], ids=["fewer", "one before"])
def test_results_of_a_generator_are_what_it_gave_this_time(plan, clock, later):
    clock.run(plan(Recorder(), iter([1, 2, 3, 4])))
    session = plan(Recorder(), iter(later))
    clock.run(session)
    assert session.counts.total == len(later)
    assert session.results()["key"].tolist() == later


def test_a_cancelled_generator_goes_on_where_it_was_left(live):
    """A generator cannot be drawn twice: what was drawn and not done runs again, then the rest."""
    started = asyncio.Event()
    hold = {"hold": True}

    async def work(item):
        if item == 3 and hold["hold"]:
            started.set()
            await asyncio.Event().wait()
        return item

    session = live(work, iter(range(10)), limits=Limits(concurrency=2))

    async def cell():
        async for outcome in session.stream():
            if outcome.key == 9:
                break

    asyncio.run(cell())
    session.cancel()
    hold["hold"] = False
    session.resume()
    assert session.run().counts.completed == 10
    assert session.results()["key"].tolist() == list(range(10))


def test_retry_failed_reaches_what_an_earlier_process_recorded_of_a_generator(plan, clock):
    """Drawn again, found failed for good, and then asked for: it runs, and is counted once."""
    clock.run(plan(Recorder({2: ValueError("gone")}), iter([1, 2, 3])))
    work = Recorder()
    session = plan(work, iter([1, 2, 3]))
    assert clock.run(session).counts.failed == 1

    async def again():
        session._open_run(Again(frozenset({"failed"})))
        await session._drive()

    clock.run_coroutine(again())
    assert (work.asked, session.counts.completed, session.counts.failed) == ([2], 3, 0)
    assert session.results()["status"].tolist() == ["completed"] * 3


def test_what_is_added_takes_no_record_of_an_item_that_is_not_listed_today(plan, clock):
    clock.run(plan(Recorder(), [1, 2]))

    async def bring(item, attempt):
        attempt.add([9])

    clock.run(plan(bring, [4]))
    again = Recorder()
    assert clock.run(plan(again, [1, 2])).counts.completed == 3
    assert again.asked == []


FAILING = {5: ConnectionError(), 7: TimeoutError(), 11: ValueError(), 12: ValueError()}  # 5 and 7 for now
SHOWN = ["completed", "failed", "timeout", "failed", "failed"]  # of 3 and these


def given(kind):
    return [3, *FAILING] if kind == "list" else (item for item in [3, *FAILING])


KINDS = pytest.mark.parametrize("kind", ["list", "generator"])
AGES = pytest.mark.parametrize("anew", [False, True], ids=["the same session", "one made anew"])


@KINDS
@AGES
def test_retry_failed_of_some_keys_runs_those_alone(live, kind, anew):
    """The others stay as they are recorded, those too that any other start would run again."""
    work = Recorder(dict(FAILING))
    session = live(work, given(kind), retry=ONCE, breaker=None)
    session.run()
    work.asked.clear()
    work.answers.clear()
    if anew:
        session = live(work, given(kind), retry=ONCE, breaker=None)
    session.retry_failed(keys=[7, 12])
    session.run()
    assert work.asked == [7, 12]
    assert session.results()["status"].tolist() == ["completed", "failed", "completed", "failed", "completed"]
    assert (session.counts.completed, session.counts.failed, session.counts.timeout) == (3, 2, 0)
    assert (session.counts.total, session.counts.pending) == (5, 0)
    told = ipybatch.history(session.journal).iloc[-1]
    assert (told["completed"], told["failed"], told["timeout"]) == (3, 2, 0)
    session.retry_failed()
    assert session.run().counts.completed == 5
    assert work.asked == [7, 12, 5, 11]


@KINDS
@AGES
def test_what_was_spared_runs_again_as_it_would_have(live, kind, anew):
    """At the next start of its own: what failed for now does, what failed for good does not."""
    work = Recorder(dict(FAILING))
    session = live(work, given(kind), retry=ONCE, breaker=None)
    session.run()
    if anew:
        session = live(work, given(kind), retry=ONCE, breaker=None)
    session.retry_failed(keys=[11])
    session.run()
    assert session.results()["status"].tolist() == SHOWN
    work.asked.clear()
    work.answers.clear()
    session.start()
    session.run()
    assert work.asked == [5, 7]


@KINDS
def test_retry_failed_names_keys_that_are_none_before_anything_starts(live, kind):
    work = Recorder(dict(FAILING))
    session = live(work, given(kind), retry=ONCE, breaker=None)
    session.run()
    work.asked.clear()
    with pytest.raises(InputError, match=r"keys must be those of items of 'wishlist', got 'x', '7'$"):
        session.retry_failed(keys=["x", 7, "7"])
    with pytest.raises(InputError, match=r"got 20, 21, 22, 23, 24 and 5 more$"):
        session.retry_failed(keys=range(20, 30))
    with pytest.raises(InputError, match="keys must be a list of items' keys, got '7'"):
        session.retry_failed(keys="7")
    with pytest.raises(InputError, match="keys must be a list of items' keys, got 7"):
        session.retry_failed(keys=7)
    assert (work.asked, session.state) == ([], "completed")


def test_retry_failed_takes_keys_as_the_user_gave_them_and_as_results_show_them(live):
    keys = [["de", 1], ["fr", 2], "a b", 4]
    work = Recorder()

    async def fail(item):
        work.asked.append(item["id"])
        raise ValueError

    session = live(fail, [{"id": key} for key in keys], breaker=None)
    session.run()
    work.asked.clear()
    shown = session.errors()["key"].tolist() + session.results()["key"].tolist()
    session.retry_failed(keys=[["de", 1], shown[2], np.int64(4)])
    session.run()
    assert work.asked == [["de", 1], ["fr", 2], 4]
    work.asked.clear()
    session.retry_failed(keys=[])
    session.run()
    assert work.asked == []


def stopping(session_of, after, asked):
    """Work that stops its session while it runs an item, the first time."""

    async def work(item):
        asked.append(item)
        if len(asked) == after:
            session_of[-1]._run.stop("cancelled", "", "cancelled")
            await asyncio.sleep(9)
        return item * 10

    return work


@pytest.mark.parametrize("as_generator", [False, True])
@pytest.mark.parametrize("order", [range(10), reversed(range(10)), [0, 1, 2, 3, 100, 101, 102]])
def test_what_another_object_did_meanwhile_is_found_by_the_first_one(plan, clock, as_generator, order):
    """Nothing is asked twice, and no row of the other's is written over."""
    sessions, asked, order = [], [], list(order)
    work = stopping(sessions, 4, asked)
    sessions.append(plan(work, iter(range(10)) if as_generator else range(10), limits=Limits(1)))
    clock.run(sessions[0])
    assert asked == [0, 1, 2, 3]
    clock.run(plan(work, iter(order) if as_generator else order, limits=Limits(1)))
    clock.run(sessions[0])
    assert sorted(asked) == sorted([3, *set(range(10)).union(order)])
    assert sessions[0].counts.completed == sessions[0].counts.total == 10
    clock.run(plan(work, iter(order) if as_generator else order))
    assert len(asked) == 1 + len(set(range(10)).union(order))
    results = sessions[0].results() if not as_generator else plan(work, range(10)).results()
    assert results["result"].tolist() == [item * 10 for item in range(10)]


def test_a_list_has_the_numbers_of_the_run_it_meets(plan, clock):
    """Another object began the run anew with the same list: those of the run before hold no more."""
    sessions, asked = [], []
    clock.run(plan(Recorder(), [5, 4, 3, 2, 1]))
    first = plan(Recorder(), range(1, 9))
    clock.run(first)
    sessions.append(plan(stopping(sessions, 4, asked), range(1, 9), fresh=True, limits=Limits(1)))
    clock.run(sessions[0])
    clock.run(first)
    results = first.results()
    assert results["status"].tolist() == ["completed"] * 8
    assert results["result"].tolist() == [10, 20, 30] + ["ok"] * 5
    assert first.counts.completed == 8


def test_forgotten_items_are_those_that_the_user_gave(live):
    async def work(item, attempt):
        if item == 1:
            attempt.add([10, 11])
        return item

    session = live(work, [1, 2], limits=Limits(1))
    assert session.run().counts.total == 4
    session.forget()
    assert (session.counts.total, session.results()["key"].tolist()) == (2, [1, 2])
    assert session.run().counts.completed == 4


@pytest.mark.parametrize("then", ["resume", "retry_failed"])
def test_failures_that_a_generator_has_not_given_again_count_as_they_are(live, then):
    """A new object of the name was cancelled before it drew them."""
    is_bad = True

    async def work(item):
        if is_bad and item in (3, 6):
            raise Transient
        return item

    live(work, iter(range(8)), retry=ONCE, breaker=None).run()
    arrived = threading.Event()

    def items():
        yield 0
        assert arrived.wait(20)
        yield from range(1, 8)

    session = live(work, items(), retry=ONCE, breaker=None)
    session.start()
    session.cancel()
    arrived.set()
    assert (session.counts.completed, session.counts.failed) == (6, 2)
    is_bad = False
    getattr(session, then)()
    assert (session.run().counts.completed, session.counts.failed) == (8, 0)
    assert session.results()["status"].tolist() == ["completed"] * 8
