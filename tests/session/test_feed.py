"""Who listens: events, progress, streams, and what a listener that raises costs."""

import asyncio
import threading

import pandas as pd

from ipybatch import Limits, Outcome
from ipybatch.engine.data import events


async def double(n):
    return {"double": 2 * n}


async def wait(session):
    return await session


def test_listeners_hear_every_event_and_log_is_the_same_as_a_frame(plan, clock):
    heard = []
    session = plan(double, [1, 2])
    session.on(heard.append)
    clock.run(session)
    log = session.log()
    names = [type(event).__struct_config__.tag for event in heard]
    assert log["event"].tolist()[-len(names) :] == names
    assert isinstance(log["at"].dtype, pd.DatetimeTZDtype)
    assert log.loc[log["event"] == "item_ended", "key"].tolist() == ["1", "2"]


def test_a_listener_can_be_taken_away(plan, clock):
    heard = []
    session = plan(double, [1])
    session.on(heard.append)()
    clock.run(session)
    assert heard == []


def test_a_listener_that_raises_is_dropped_and_noted_once(plan, clock):
    """The run goes on, the others go on hearing, and the panel says what was dropped."""
    heard, calls = [], []

    def broken(event):
        calls.append(event)
        raise RuntimeError("a view broke")

    session = plan(double, [1, 2, 3])
    session.on(broken)
    session.on(heard.append)
    assert clock.run(session).counts.completed == 3
    assert len(calls) == 1
    assert session.snapshot.notes == ["a listener was dropped: it raised RuntimeError: a view broke"]
    assert sum(isinstance(event, events.ItemEnded) for event in heard) == 3


def test_on_progress_is_told_done_and_total(plan, clock):
    told = []
    clock.run(plan(double, [1, 2, 3], limits=Limits(concurrency=1), on_progress=lambda *now: told.append(now)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_on_progress_that_raises_does_not_stop_the_run(plan, clock):
    def broken(done, total):
        raise ZeroDivisionError

    assert clock.run(plan(double, [1, 2], on_progress=broken)).counts.completed == 2


def test_stream_yields_every_outcome_after_it_was_recorded(live):
    """An outcome that was yielded is on disk: its row is in results() at that moment."""
    session = live(double, [1, 2, 3])

    async def cell():
        seen = []
        async for outcome in session.stream():
            row = session.results().set_index("key").loc[outcome.key]
            seen.append((outcome, row["status"]))
        return seen

    seen = asyncio.run(cell())
    assert all(isinstance(outcome, Outcome) for outcome, _ in seen)
    assert sorted((outcome.key, outcome.result["double"], status) for outcome, status in seen) == [
        (1, 2, "completed"),
        (2, 4, "completed"),
        (3, 6, "completed"),
    ]


def test_stream_keeps_commit_order_and_results_keep_input_order(live):
    """The second item ends first, so it is streamed first; the frame lists it second."""
    gates = {"slow": threading.Event(), "quick": threading.Event()}
    gates["quick"].set()
    session = live(lambda name: gates[name].wait(20), ["slow", "quick"])

    async def cell():
        keys = []
        async for outcome in session.stream():
            keys.append(outcome.key)
            gates["slow"].set()
        return keys

    assert asyncio.run(cell()) == ["quick", "slow"]
    assert session.results()["key"].tolist() == ["slow", "quick"]


def test_leaving_a_stream_early_leaves_the_session_running(live):
    session = live(double, list(range(50)), limits=Limits(concurrency=1))

    async def cell():
        async for outcome in session.stream():
            assert outcome.key == 0
            break

    asyncio.run(cell())
    assert session.run().counts.completed == 50


def test_an_outcome_listener_that_raises_does_not_stop_the_run(live, wait_for):
    """Promise 3: whoever listens to outcomes is dropped when he raises, and the run goes on."""
    session = live(double, [1, 2, 3], limits=Limits(concurrency=1))
    calls = []

    def broken(outcomes):
        calls.append(outcomes)
        raise RuntimeError("a view broke")

    session.on_outcomes(broken)
    assert wait_for(session, within_s=5).counts.completed == 3
    assert len(calls) == 1
