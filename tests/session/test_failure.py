"""What overruns and what fails: timeouts of coroutines and threads, stop and rollback."""

import asyncio
import threading

import pytest

import ipybatch
from ipybatch import Limits, Retry
from ipybatch.engine.data import events
from ipybatch.engine.store.journal import open_journal
from tests.works import hear


def test_a_coroutine_that_overruns_is_a_timeout_and_is_tried_again(plan, clock):
    tries = []

    async def work(item):
        tries.append(item)
        await asyncio.sleep(30 if len(tries) < 3 else 1)
        return item

    session = plan(work, [1], timeout_s=5, retry=Retry(attempts=3), breaker=None)
    assert clock.run(session).counts.completed == 1
    assert session.results()["attempts"].tolist() == [3]


def test_an_item_that_overruns_every_time_ends_as_a_timeout(plan, clock):
    async def work(item):
        await asyncio.sleep(30)

    session = plan(work, [1], timeout_s=5, retry=Retry(attempts=2))
    summary = clock.run(session)
    assert (summary.counts.timeout, summary.counts.failed) == (1, 0)
    assert str(summary) == "wishlist completed: 0/1 successful, 1 failed, 0 skipped"
    assert session.results()["error"].tolist() == ["Exceeded 5 s"]
    assert session.results()["seconds"][0] == pytest.approx(5, abs=0.1)


def test_a_coroutine_that_swallows_its_cancellation_does_not_hold_the_session(plan, clock):
    async def work(item):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "late"

    session = plan(work, [1, 2], timeout_s=5, retry=Retry(attempts=1), limits=Limits(concurrency=1))
    assert clock.run(session).counts.ended == 2
    assert clock.now_s() < 12


def test_an_overrunning_thread_holds_its_slot_until_it_returns(live):
    """Two slots, two threads: while one overruns, never more than two calls are under way."""
    release, lock = threading.Event(), threading.Lock()
    under_way, most = [], []

    def work(item):
        with lock:
            under_way.append(item)
            most.append(len(under_way))
        if item == 0:
            release.wait(20)
        with lock:
            under_way.remove(item)
        return item

    session = live(work, list(range(30)), timeout_s=0.1, retry=Retry(attempts=1), limits=Limits(concurrency=2))
    others = threading.Event()
    session.on(lambda event: others.set() if session.counts.ended == 30 else None)
    session.start()
    assert others.wait(20)
    assert (session.counts.timeout, session.counts.completed) == (1, 29)
    assert session.state == "running"
    release.set()
    assert session.run().state == "completed"
    assert max(most) == 2


def test_a_given_up_thread_keeps_its_permit_until_it_returns(live, journal):
    """Concurrency 1: its retry waits for the thread, because the service may still be working on it."""
    release, calls, lock = threading.Event(), [], threading.Lock()

    def work(item):
        with lock:
            calls.append(item)
        if len(calls) == 1:
            release.wait(20)
        return item

    session = live(work, [1], timeout_s=0.5, retry=Retry(attempts=2, initial_s=0), limits=Limits(concurrency=1))
    failed = hear(session, events.AttemptFailed)
    session.start()
    assert failed.wait(20)
    assert calls == [1]
    release.set()
    assert session.run().counts.completed == 1
    assert calls == [1, 1]


async def fail_at_two(item):
    await asyncio.sleep(item)
    if item == 2:
        raise ValueError("bad")
    return item


async def fine(item):
    return item


def test_on_failure_stop_ends_at_the_first_failed_item(plan, clock):
    """What runs finishes and is kept, what is left is skipped, and the reason is one line."""
    session = plan(fail_at_two, [1, 2, 3, 4], on_failure="stop", limits=Limits(concurrency=2))
    summary = clock.run(session)
    assert (summary.state, summary.reason) == ("failed", "item 2 failed: ValueError: bad")
    assert session.results()["status"].tolist() == ["completed", "failed", "completed", "skipped"]
    assert str(summary) == ("wishlist failed: 2/4 successful, 1 failed, 1 skipped (item 2 failed: ValueError: bad)")


def test_after_a_stop_a_rerun_does_the_rest(plan, clock):
    clock.run(plan(fail_at_two, [1, 2, 3, 4], on_failure="stop", limits=Limits(concurrency=2)))
    calls = []

    async def work(item):
        calls.append(item)
        return item

    clock.run(plan(work, [1, 2, 3, 4], on_failure="stop"))
    assert calls == [4]


def test_stop_waits_for_the_last_try_of_an_item(plan, clock):
    """A transient failure that is tried again is no failed item yet."""
    tries = []

    async def work(item):
        tries.append(item)
        if tries.count(item) < 2:
            raise ConnectionError
        return item

    assert clock.run(plan(work, [1, 2], on_failure="stop", breaker=None)).state == "completed"


def test_rollback_discards_everything_and_says_why(plan, clock, journal):
    """Either every result is there, or none."""
    session = plan(fail_at_two, [1, 2, 3, 4], on_failure="rollback", limits=Limits(concurrency=2))
    summary = clock.run(session)
    assert (summary.state, summary.reason) == ("rolled_back", "item 2 failed: ValueError: bad")
    assert "completed" not in session.results()["status"].tolist()
    assert ipybatch.history(journal)["state"].tolist() == ["rolled_back"]


def test_what_failed_before_a_rollback_is_on_record_till_the_next_start(plan, clock, journal):
    """Whoever opens the session later is told which item it was, and why."""
    clock.run(plan(fail_at_two, [1, 2, 3, 4], on_failure="rollback", limits=Limits(concurrency=2)))
    rows = plan(fail_at_two, [1, 2, 3, 4], on_failure="rollback").results()
    assert rows["error"].tolist() == ["", "ValueError: bad", "", ""]
    assert "result" not in rows
    with open_journal(journal).reader() as database:
        assert database.execute("SELECT key, status, final, grp FROM item").fetchall() == [("2", "failed", 0, 0)]
        assert database.execute("SELECT count(*) FROM payload").fetchone() == (0,)

    async def work(item):
        if item == 3:
            msg = "worse"
            raise ValueError(msg)
        return item

    session = plan(work, [1, 2, 3, 4], on_failure="rollback", limits=Limits(concurrency=1))
    clock.run(session)
    assert session.results()["error"].tolist() == ["", "", "ValueError: worse", ""]


def test_after_a_rollback_a_rerun_starts_everything(plan, clock):
    clock.run(plan(fail_at_two, [1, 2, 3, 4], on_failure="rollback", limits=Limits(concurrency=2)))
    calls = []

    async def work(item):
        calls.append(item)
        return item

    assert clock.run(plan(work, [1, 2, 3, 4], on_failure="rollback")).counts.completed == 4
    assert calls == [1, 2, 3, 4]


def test_what_was_rolled_back_is_not_counted_as_completed(plan, clock, journal):
    session = plan(fail_at_two, [1, 2, 3, 4], on_failure="rollback", limits=Limits(concurrency=2))
    clock.run(session)
    assert session.counts.completed == 0
    assert ipybatch.history(journal)["completed"].tolist() == [0]
    assert plan(fine, [1, 2, 3, 4]).counts.pending == 4


def test_a_rollback_without_a_failure_keeps_every_result(plan, clock):
    session = plan(fine, [1, 2], on_failure="rollback")
    assert clock.run(session).state == "completed"
    assert session.results()["result"].tolist() == [1, 2]


def test_a_failure_ends_what_runs_when_all_is_discarded(plan, clock):
    """With rollback nobody waits for results that nobody gets."""

    async def work(item):
        await asyncio.sleep(1 if item == 2 else 3600)
        raise ValueError("bad")

    session = plan(work, [1, 2, 3], on_failure="rollback", limits=Limits(concurrency=3))
    assert clock.run(session).state == "rolled_back"
    assert clock.now_s() < 5


def test_the_reason_calls_a_partition_by_its_name(plan, clock):
    async def work(item, attempt):
        session.tell(events.GroupStarted(0.0, item, f"Partition {item} (Sofifi)", 1))
        attempt.join(item)
        raise ValueError("out of rows")

    session = plan(work, [3], on_failure="stop")
    assert clock.run(session).reason == "Partition 3 (Sofifi) failed: ValueError: out of rows"


def test_a_work_object_that_cannot_be_closed_fails_its_session(plan, clock):
    """What it does at the end (combining results, for instance) is part of the work."""

    class Combining:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *error):
            raise OSError("no space left")

        async def __call__(self, item):
            return item

    session = plan(Combining(), [1, 2])
    summary = clock.run(session)
    assert (summary.state, summary.counts.completed) == ("failed", 2)
    assert summary.reason == "the work could not be opened or closed: OSError: no space left"
    rolled = plan(Combining(), [1, 2], name="rolled", on_failure="rollback")
    assert clock.run(rolled).state == "rolled_back"
