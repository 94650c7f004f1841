"""A session as its user sees it: the names of the contract, and what each does."""

import asyncio
import threading

import pytest

from ipybatch import BatchSession, Breaker, Limits, Rate, Retry, Summary
from ipybatch.engine.data import events

POLICY = {
    "limits": Limits(concurrency=3, spacing_s=1.5, batch_size=15, batch_pause_s=15, rates=[Rate(200, per_s=300)]),
    "retry": Retry(attempts=3),
    "breaker": Breaker(failures=3, break_s=60),
}


async def fetch(app_id):
    await asyncio.sleep(0.2)
    if app_id % 100 == 7:
        msg = f"no game {app_id}"
        raise LookupError(msg)
    return {"name": f"Game {app_id}", "price": app_id / 100}


async def double(n):
    return {"double": 2 * n}


def test_the_example_of_the_documentation_runs_as_written(journal, clock):
    """500 items under every limit at once: 497 succeed, 3 fail alone, and the line says so."""
    app_ids = list(range(1, 501))
    app_ids = [n for n in app_ids if n not in (307, 407)] + [501, 502]
    session = BatchSession("wishlist", fetch, app_ids, **POLICY, journal=journal, clock=clock)
    summary = clock.run(session)
    assert str(summary) == "wishlist completed: 497/500 successful, 3 failed, 0 skipped"
    frame = session.results()
    assert frame["key"].tolist() == app_ids
    assert frame.columns.tolist() == ["key", "status", "attempts", "seconds", "error", "name", "price"]


def test_a_planned_session_has_counted_its_items_and_started_none(plan):
    session = plan(double, [1, 2, 3])
    assert session.state == "planned"
    assert (session.counts.pending, session.counts.running, session.counts.total) == (3, 0, 3)
    assert repr(session) == "<BatchSession 'wishlist': planned, 0 of 3>"


def test_start_returns_at_once_and_await_gives_the_summary(live):
    """The cell is free while it runs: start() returns with the first item still in flight."""
    release = threading.Event()
    session = live(lambda item: release.wait(20) and item, [1])
    session.start()
    assert session.state == "running"
    release.set()
    summary = asyncio.run(wait(session))
    assert isinstance(summary, Summary)
    assert (summary.name, summary.state, summary.reason) == ("wishlist", "completed", "")
    assert session.results()["result"].tolist() == [1]


async def wait(session):
    return await session


def test_run_waits_without_await_and_starts_what_is_planned(live):
    session = live(double, [1, 2])
    assert str(session.run()) == "wishlist completed: 2/2 successful, 0 failed, 0 skipped"
    assert session.state == "completed"


def test_awaiting_starts_a_planned_session(live, wait_for):
    assert wait_for(live(double, [1, 2])).counts.completed == 2


@pytest.mark.parametrize("again", ["run", "await"])
def test_waiting_for_an_ended_session_runs_nothing(live, wait_for, again):
    """Re-running a finished cell costs nothing and gives the same summary."""
    calls = []
    session = live(calls.append, [1, 2])
    first = session.run()
    second = session.run() if again == "run" else wait_for(session)
    assert (first.counts, second.state, sorted(calls)) == (second.counts, "completed", [1, 2])


def test_start_twice_is_start_once(live):
    release = threading.Event()
    calls = []

    def work(n):
        calls.append(n)
        release.wait(20)

    session = live(work, [1, 2])
    session.start()
    session.start()
    release.set()
    session.run()
    assert sorted(calls) == [1, 2]


def test_failed_items_alone_still_end_in_completed(plan, clock):
    """Neither await nor run() raises for an item: some failed items are a completed session."""

    async def fail(n):
        raise ValueError(n)

    summary = clock.run(plan(fail, [1, 2]))
    assert (summary.state, summary.counts.failed, summary.reason) == ("completed", 2, "")


def test_an_empty_list_is_a_finished_session_with_no_items(plan, clock):
    session = plan(double, [])
    assert str(clock.run(session)) == "wishlist completed: 0/0 successful, 0 failed, 0 skipped"
    assert (session.counts.total, len(session.results())) == (0, 0)
    assert session.results().columns.tolist() == ["key", "status", "attempts", "seconds", "error"]


def test_counts_add_up_at_every_event(plan, clock):
    """Every item is in exactly one of the seven counts, at any moment."""
    sums, words = set(), ("pending", "running", "completed", "failed", "timeout", "cancelled", "skipped")

    async def work(n):
        await asyncio.sleep(n / 10)
        if n % 3 == 0:
            raise ConnectionError
        return n

    session = plan(work, list(range(20)), timeout_s=1.55, retry=Retry(attempts=2), breaker=None)
    session.on(lambda event: sums.add(sum(getattr(session.counts, word) for word in words)))
    clock.run(session)
    assert sums == {20}
    assert (session.counts.failed, session.counts.timeout, session.counts.completed) == (6, 4, 10)


def test_every_state_has_its_word(plan, clock):
    """planned, running, completed are seen in that order, each with its event."""
    session = plan(double, [1])
    states = [session.state]
    session.on(lambda event: states.append(event.state) if isinstance(event, events.StateChanged) else None)
    clock.run(session)
    assert states == ["planned", "running", "completed"]


def test_work_may_be_an_object_that_opens_its_client_itself(plan, clock):
    """Work that is an async context manager is entered once, in the loop that runs it, and left at the end."""

    class Source:
        def __init__(self):
            self.steps = []

        async def __aenter__(self):
            self.steps.append(("open", asyncio.get_running_loop()))
            return self

        async def __aexit__(self, *_):
            self.steps.append(("close", asyncio.get_running_loop()))

        async def __call__(self, n):
            self.steps.append(("work", asyncio.get_running_loop()))
            return n

    source = Source()
    assert clock.run(plan(source, [1, 2])).counts.completed == 2
    assert [step for step, _ in source.steps] == ["open", "work", "work", "close"]
    assert len({loop for _, loop in source.steps}) == 1


def test_work_that_cannot_be_opened_ends_the_session_with_the_reason(plan, clock):
    class Source:
        async def __aenter__(self):
            raise OSError("no such host")

        async def __aexit__(self, *_):
            pass

        async def __call__(self, n):
            return n

    summary = clock.run(plan(Source(), [1, 2]))
    assert (summary.state, summary.counts.skipped) == ("failed", 2)
    assert "no such host" in summary.reason


def test_plain_functions_run_beside_each_other_in_threads(live):
    """Three slots are three threads at the same time: each waits for the other two."""
    meet = threading.Barrier(3)
    session = live(lambda n: meet.wait(20) and n, [1, 2, 3], limits=Limits(concurrency=3))
    assert session.run().counts.completed == 3
