"""Priorities, the order of what waits, and items that the work brings."""

import asyncio
import threading

import pytest

from ipybatch import BatchSession, InputError, Limits, Rate, Retry
from ipybatch.engine.data import events
from ipybatch.engine.store.journal import open_journal
from tests.works import Gate, Recorder

ONE = Limits(concurrency=1)


def level(item):
    return {"a": "high", "b": "medium", "c": "low"}[item[0]]


def noting(seen):
    async def work(item):
        seen.append(item)
        await asyncio.sleep(0.01)
        return item

    return work


def test_high_goes_before_medium_and_medium_before_low(plan, clock):
    seen = []
    items = ["c1", "b1", "a1", "c2", "a2", "b2"]
    session = plan(noting(seen), items, priority=level, limits=ONE)
    clock.run(session)
    assert seen == ["a1", "a2", "b1", "b2", "c1", "c2"]
    assert session.results()["key"].tolist() == items


def test_rank_decides_within_a_priority(plan, clock):
    seen = []
    clock.run(plan(noting(seen), ["b1", "b2", "a1", "a2"], priority=level, rank=lambda item: -int(item[1]), limits=ONE))
    assert seen == ["a2", "a1", "b2", "b1"]


def test_a_key_alone_is_no_list_of_letters(plan, clock):
    seen = []
    session = plan(noting(seen), ["b0", "b1"], limits=ONE)
    assert session.prioritize("b1", "high") == 1
    clock.run(session)
    assert seen == ["b1", "b0"]


@pytest.mark.parametrize("wanted", [["b3", "b4"], lambda item: item in ("b3", "b4")], ids=["keys", "function"])
def test_what_waits_is_put_in_another_order_while_it_runs(plan, clock, wanted):
    seen = []

    async def work(item):
        seen.append(item)
        if item == "b0":
            assert session.prioritize(wanted, "high") == 2
            assert session.prioritize(["b1"], "low") == 1
        await asyncio.sleep(0.01)

    session = plan(work, [f"b{number}" for number in range(6)], limits=ONE)
    clock.run(session)
    assert seen == ["b0", "b3", "b4", "b2", "b5", "b1"]


def test_the_order_holds_in_lanes_too(plan, clock):
    seen = []
    limits = Limits(concurrency=1, each=Limits())
    clock.run(plan(noting(seen), ["c1", "b1", "a1"], priority=level, limits=limits, per=lambda item: item[1]))
    assert seen == ["a1", "b1", "c1"]


def test_another_order_survives_a_restart(plan, clock, journal):
    """It is on record before it takes effect; a session that is only opened again knows it."""
    first = plan(noting([]), ["b0", "b1", "b2", "b3"], limits=ONE)
    first.prioritize(["b3"], "high")
    first.prioritize(["b0"], "low")
    clock.run_coroutine(cancelled_after_one(first))
    seen = []
    clock.run(BatchSession.open("wishlist", noting(seen), journal=journal, clock=clock, limits=ONE))
    assert seen == ["b1", "b2", "b0"]


async def cancelled_after_one(session):
    first = asyncio.Event()
    session.on(lambda event: first.set() if isinstance(event, events.ItemEnded) else None)
    running = asyncio.create_task(session.drive())
    await first.wait()
    session.cancel()
    await running


def test_a_session_that_runs_elsewhere_is_put_in_order_from_here(live):
    gate = Gate()
    session = live(gate, ["b0", "b1", "b2"], limits=ONE)
    session.start()
    gate.wait_begun(1)
    assert session.prioritize(["b2"], "high") == 1
    gate.open()
    session.run()
    assert gate.started == ["b0", "b2", "b1"]


@pytest.mark.parametrize("wrong", ["urgent", 1, None, ["high"]])
def test_a_priority_that_does_not_exist_is_refused(plan, wrong):
    with pytest.raises(InputError, match="priority must be one of 'high', 'medium', 'low'"):
        plan(noting([]), ["b0"]).prioritize(["b0"], wrong)


def test_a_priority_function_that_errs_is_told_before_anything_runs(plan, clock):
    seen = []
    session = plan(noting(seen), ["b0"], priority=lambda item: "urgent")
    with pytest.raises(InputError, match="got 'urgent'"):
        clock.run(session)
    assert seen == []


def test_a_generator_has_its_own_order(plan):
    with pytest.raises(InputError, match="a generator's come in its own order"):
        plan(noting([]), iter(["b0"])).prioritize(["b0"], "high")


# Items that the work brings


def guild(members, seen):
    async def work(item, attempt):
        seen.append(item)
        await asyncio.sleep(0.01)
        if item in members:
            attempt.add(members[item])
        return item

    return work


def test_the_work_may_bring_further_items(plan, clock):
    """The members of a guild are items of the same session, each once."""
    seen = []
    session = plan(guild({"g1": ["m1", "m2"], "g2": ["m2", "m3"]}, seen), ["g1", "g2"])
    assert str(clock.run(session)) == "wishlist completed: 5/5 successful, 0 failed, 0 skipped"
    assert sorted(seen) == ["g1", "g2", "m1", "m2", "m3"]
    assert session.results()["key"].tolist() == ["g1", "g2", "m1", "m2", "m3"]


def test_the_last_item_may_bring_more(plan, clock):
    session = plan(guild({"g1": ["g2"], "g2": ["g3"], "g3": ["m1"]}, []), ["g1"], limits=ONE)
    assert clock.run(session).counts.completed == 4


def test_what_was_brought_is_still_there_after_a_restart(plan, clock, journal):
    """The guild is done and is not asked again; its members are in the plan all the same."""
    first = plan(guild({"g1": ["m1", "m2"]}, []), ["g1"], limits=ONE)
    clock.run_coroutine(cancelled_after_one(first))
    assert first.counts.total == 3
    seen = []
    again = plan(guild({}, seen), ["g1"], limits=ONE)
    assert clock.run(again).counts.completed == 3
    assert "g1" not in seen
    assert again.results()["key"].tolist() == ["g1", "m1", "m2"]


def test_a_session_that_is_only_opened_knows_what_was_brought(plan, clock, journal):
    """Also what was brought in several turns, to a list whose numbers are not those of its places any more."""
    clock.run(plan(guild({}, []), ["g2", "g1"], limits=ONE))
    members = {"g1": ["m1", "m2"], "g3": ["m3"]}
    first = plan(guild(members, []), ["g3", "g1"], limits=ONE)
    clock.run_coroutine(cancelled_after_one(first))
    opened = BatchSession.open("wishlist", journal=journal)
    assert opened.counts.total == 3
    seen = []
    clock.run(BatchSession.open("wishlist", guild(members, seen), journal=journal, clock=clock, limits=ONE))
    assert seen == ["m3"]
    assert sorted(opened.results()["key"]) == ["g1", "g3", "m3"]


def test_what_need_not_run_is_skipped_when_it_is_brought(plan, clock):
    seen = []
    skip = {"m1": "fresh"}
    session = plan(guild({"g1": ["m1", "m2"]}, seen), ["g1"], skip=lambda item: skip.get(item, ""))
    counts = clock.run(session).counts
    assert (counts.total, counts.completed, counts.skipped) == (3, 2, 1)
    assert seen == ["g1", "m2"]


def test_an_item_that_has_no_key_fails_the_one_that_brings_it(plan, clock):
    session = plan(guild({"g1": ["m1", object()]}, []), ["g1"], retry=Retry(attempts=1))
    clock.run(session)
    assert "has no stable key" in session.results()["error"][0]
    assert session.counts.total == 1


def test_a_generator_takes_no_more(plan, clock):
    session = plan(guild({"g1": ["m1"]}, []), iter(["g1"]))
    clock.run(session)
    assert session.results()["error"][0].startswith("attempt.add() needs a session whose items are a list")


def test_what_is_brought_keeps_to_the_limits(plan, clock):
    at = []

    async def work(item, attempt):
        at.append(clock.now_s())
        if item == "g1":
            attempt.add([f"m{number}" for number in range(10)])

    clock.run(plan(work, ["g1"], limits=Limits(rates=[Rate(2, per_s=10.0)])))
    assert [sum(since <= one < since + 10.0 for one in at) <= 2 for since in at] == [True] * 11


def test_what_is_brought_is_in_the_journal_before_it_runs(plan, clock, journal):
    """A kill right after it loses nothing of it."""

    async def work(item, attempt):
        if item == "g1":
            attempt.add(["m1"])
            with open_journal(journal).reader() as database:
                totals.append(database.execute("SELECT total FROM run").fetchone()[0])

    totals = []
    clock.run(plan(work, ["g1"]))
    assert totals == [2]


def test_a_priority_function_that_raises_changes_nothing(plan, clock):
    """It is refused at the call; the name can be run, here and by another object."""
    session = plan(Recorder(), [1, 2])
    with pytest.raises(TypeError):
        session.prioritize(lambda item: item["x"], "high")
    assert clock.run(session).counts.completed == 2


def test_an_error_while_a_run_is_opened_leaves_the_name_free(plan, clock):
    asked = []

    def second_time_raises(item):
        asked.append(item)
        if len(asked) > 2:
            raise ZeroDivisionError
        return True

    session = plan(Recorder(), [1, 2])
    session.prioritize(second_time_raises, "high")
    with pytest.raises(ZeroDivisionError):
        clock.run(session)
    assert clock.run(plan(Recorder(), [1, 2])).counts.completed == 2


def test_a_priority_right_after_the_start_holds(plan, clock):
    """The run is opened, and the loop has not begun it."""
    work = Recorder()
    session = plan(work, list(range(6)), limits=Limits(concurrency=1))

    async def run():
        session._open_run()
        assert session.prioritize([5], "high") == 1
        await session._drive()

    clock.run_coroutine(run())
    assert work.asked == [5, 0, 1, 2, 3, 4]


def test_forgotten_priorities_are_forgotten(plan, clock):
    work = Recorder()
    session = plan(work, [1, 2, 3], limits=Limits(concurrency=1))
    clock.run(session)
    session.prioritize([3], "high")
    session.forget()
    clock.run(session)
    assert work.asked == [1, 2, 3, 1, 2, 3]


def test_changes_of_many_kinds_survive_a_restart(plan, clock, journal):
    """Of what the list has and of what the work brought; the last one counts."""

    async def work(item, attempt):
        seen.append(item)
        if item == "b0":
            attempt.add(["m1", "m2", "m3"])
            session.prioritize(["b1", "m2"], "low")
            session.prioritize(["m3", "b1"], "high")
            session.prioritize(["b1"], "medium")
        await asyncio.sleep(0.01)

    seen = []
    session = plan(work, ["b0", "b1", "b2"], limits=ONE)
    clock.run_coroutine(cancelled_after_one(session))
    order = ["m3", "b1", "b2", "m1", "m2"]
    seen.clear()
    clock.run(BatchSession.open("wishlist", noting(seen), journal=journal, clock=clock, limits=ONE))
    assert seen == order
    assert session.prioritize(lambda item: item == "m2", "high") == 1, "it knows what was brought"


def test_a_function_is_asked_on_the_callers_thread(live):
    """The engine's is free meanwhile."""
    gate, asked = Gate(), set()

    def wanted(item):
        asked.add(threading.current_thread())
        return item == "b2"

    session = live(gate, ["b0", "b1", "b2"], limits=ONE)
    session.start()
    gate.wait_begun(1)
    assert session.prioritize(wanted, "high") == 1
    gate.open()
    session.run()
    assert gate.started == ["b0", "b2", "b1"]
    assert asked == {threading.main_thread()}


def test_what_is_brought_later_and_goes_first_does(plan, clock):
    """By priority, by rank, and behind what has both the same."""
    seen = []

    def rank(item):
        return int(item[1])

    async def work(item, attempt):
        seen.append(item)
        if item == "b1":
            attempt.add(["c0", "b7", "b3", "a9", "b5x"])
        await asyncio.sleep(0.01)

    session = plan(work, ["b1", "b3x", "b5", "c8"], priority=level, rank=rank, limits=ONE)
    clock.run(session)
    assert seen == ["b1", "a9", "b3x", "b3", "b5", "b5x", "b7", "c0", "c8"]
