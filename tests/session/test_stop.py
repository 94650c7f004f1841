"""Stop means stop: pause, cancel, and waiting that ends before the session."""

import asyncio
import threading
import time

import pytest

from ipybatch import Limits, Rate, Retry, Withheld
from ipybatch.engine.data import events
from ipybatch.errors import EngineBusy
from tests.works import hear


def started_after(session, state):
    """Count attempts that started after the session entered a state."""
    happened = [event for event in session._feed.log if isinstance(event, events.StateChanged | events.AttemptStarted)]
    at = max(n for n, event in enumerate(happened) if isinstance(event, events.StateChanged) and event.state == state)
    return sum(isinstance(event, events.AttemptStarted) for event in happened[at:])


def test_pause_lets_what_runs_finish_and_starts_nothing(live, gate):
    session = live(gate, list(range(10)), limits=Limits(concurrency=3))
    session.start()
    gate.wait_begun(3)
    session.pause()
    assert session.state == "paused"
    settled = threading.Event()
    session.on(lambda event: settled.set() if session.counts.completed == 3 else None)
    gate.open()
    assert settled.wait(20)
    assert (session.state, session.counts.completed, session.counts.running) == ("paused", 3, 0)
    assert started_after(session, "paused") == 0
    session.resume()
    assert session.run().counts.completed == 10


def test_waiting_goes_on_while_it_is_paused(live, gate, wait_for):
    """An await does not end at a pause: it gives the summary of the end."""
    session = live(gate, [1, 2, 3], limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    session.pause()
    gate.open()
    with pytest.raises(TimeoutError):
        wait_for(session, within_s=0.3)
    assert session.state == "paused"
    session.resume()
    assert wait_for(session).state == "completed"


def test_cancel_ends_coroutines_at_once_and_starts_nothing(live, gate):
    session = live(gate, list(range(10)), limits=Limits(concurrency=3))
    session.start()
    gate.wait_begun(3)
    session.cancel()
    assert session.state == "cancelled"
    assert sorted(gate.cancelled) == [0, 1, 2]
    assert gate.ended == []
    assert len(gate.started) == 3
    assert str(session.summary) == "wishlist cancelled: 0/10 successful, 0 failed, 0 skipped, 10 cancelled"
    assert session.results()["status"].tolist() == ["cancelled"] * 10


def test_cancel_while_paused_ends_the_session(live, gate):
    session = live(gate, [1, 2, 3], limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    session.pause()
    session.cancel()
    assert session.state == "cancelled"


def test_what_was_cancelled_runs_again_on_resume(live, gate):
    session = live(gate, [1, 2, 3], limits=Limits(concurrency=2))
    session.start()
    gate.wait_begun(2)
    session.cancel()
    gate.open()
    session.resume()
    assert session.run().counts.completed == 3


def test_what_was_cancelled_runs_again_in_a_new_session(live, gate):
    session = live(gate, [1, 2], limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    session.cancel()
    gate.open()
    assert live(gate, [1, 2]).run().counts.completed == 2


def test_cancel_does_not_wait_for_a_thread_that_hangs(live, threads):
    """A thread cannot be ended: the session is, and the panel says that the thread is still busy."""
    session = live(threads, [1, 2, 3], limits=Limits(concurrency=2))
    session.start()
    threads.wait_begun(2)
    session.cancel()
    assert session.state == "cancelled"
    assert threads.ended == []
    assert "2 threads are still busy" in session.snapshot.notes[0]


def test_cancel_does_not_wait_for_a_thread_that_overran(live, threads):
    session = live(threads, [1], timeout_s=0.05, retry=Retry(attempts=1))
    timed_out = hear(session, events.ItemEnded)
    session.start()
    assert timed_out.wait(20)
    session.cancel()
    assert session.state == "cancelled"


def test_the_late_end_of_a_cancelled_thread_is_not_recorded(live, threads):
    session = live(threads, [1], limits=Limits(concurrency=1))
    session.start()
    threads.wait_begun(1)
    session.cancel()
    threads.open()
    assert session.results()["status"].tolist() == ["cancelled"]
    assert session.counts.completed == 0


async def fine(item):
    return item


def test_asyncio_timeout_around_await_leaves_the_session_running(live, gate, wait_for):
    """Only the waiting ends: the cell gave up, not the session."""
    session = live(gate, [1])
    session.start()
    gate.wait_begun(1)

    async def cell():
        async with asyncio.timeout(0.05):
            await session

    with pytest.raises(TimeoutError):
        asyncio.run(cell())
    assert (session.state, gate.cancelled) == ("running", [])
    gate.open()
    assert wait_for(session).counts.completed == 1


def test_cancel_of_an_ended_session_changes_nothing(live):
    session = live(fine, [1])
    session.run()
    session.cancel()
    session.pause()
    assert session.state == "completed"


def test_commands_are_events(live, gate):
    session = live(gate, [1, 2], limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    session.pause()
    session.resume()
    session.cancel()
    log = session.log()
    assert log.loc[log["event"] == "commanded", "command"].tolist() == ["pause", "resume", "cancel"]


def test_a_command_from_a_listener_is_carried_out(live):
    """A listener runs on the engine's thread: a command from there must not wait for itself."""
    session = live(fine, list(range(50)), limits=Limits(concurrency=1))
    session.on(lambda event: session.cancel() if session.counts.completed == 5 else None)
    assert session.run().state == "cancelled"
    assert session.counts.completed < 50


def test_pause_stops_work_from_a_generator(live, gate):
    drawn = []

    def items():
        for n in range(100):
            drawn.append(n)
            yield n

    session = live(gate, items(), limits=Limits(concurrency=2))
    session.start()
    gate.wait_begun(2)
    session.pause()
    gate.open()
    settled = threading.Event()
    session.on(lambda event: settled.set() if not session.counts.running else None)
    session.resume()
    assert session.run().counts.completed == 100
    assert settled.is_set()


def test_retry_failed_while_it_runs_is_refused_with_a_note(live, gate):
    session = live(gate, [1])
    session.start()
    gate.wait_begun(1)
    session.retry_failed()
    assert "wait until the session has ended" in session.snapshot.notes[0]
    gate.open()
    assert session.run().counts.completed == 1


def test_two_sessions_run_beside_each_other(live, gate):
    one, two = live(gate, [1], name="one"), live(gate, [2], name="two")
    one.start()
    two.start()
    gate.wait_begun(2)
    one.cancel()
    gate.open()
    assert (one.state, two.run().state) == ("cancelled", "completed")


def test_what_is_paid_for_finishes_when_the_session_is_cancelled(live, gate):
    """Cancel lets billed calls finish, so that what was paid is recorded."""

    async def work(item, attempt):
        attempt.is_billed = True
        return await gate(item)

    session = live(work, list(range(5)), limits=Limits(concurrency=2))
    session.start()
    gate.wait_begun(2)
    opener = threading.Timer(0.2, gate.open)
    opener.start()
    session.cancel()
    summary = session.run()
    assert (summary.state, summary.counts.completed, summary.counts.cancelled) == ("cancelled", 2, 3)


def test_what_is_paid_for_ends_at_its_timeout_after_a_cancel(live, gate):
    async def work(item, attempt):
        attempt.is_billed = True
        return await gate(item)

    session = live(work, [1], timeout_s=0.3)
    session.start()
    gate.wait_begun(1)
    session.cancel()
    assert session.run().counts.timeout == 1


def test_withheld_ends_the_session_when_what_runs_has_finished(plan, clock):
    """An item that is not sent counts as skipped, as does what is left; a resume goes on with both."""
    withholds = True

    async def work(item):
        await asyncio.sleep(1 if item < 2 else 0.5)
        if item == 2 and withholds:
            raise Withheld("the budget of $1.00 is spent")
        return item

    session = plan(work, list(range(6)), limits=Limits(concurrency=3))
    summary = clock.run(session)
    assert (summary.state, summary.reason) == ("failed", "the budget of $1.00 is spent")
    assert (summary.counts.completed, summary.counts.skipped, summary.counts.failed) == (2, 4, 0)
    withholds = False
    assert clock.run(session).counts.completed == 6


async def starts_later(item, attempt):
    async with attempt.permit():
        await asyncio.sleep(1)
    return item


def test_an_attempt_that_has_sent_nothing_sends_nothing_while_paused(plan, clock):
    """It started without a request (its cost was none): its first one is a start, and waits."""
    session = plan(
        starts_later,
        [1, 2, 3],
        cost=lambda item: {"requests": 0.0},
        limits=Limits(concurrency=3, rates=[Rate(1, per_s=2)]),
    )
    ended = []

    async def pause():
        await asyncio.sleep(0.5)
        session.pause()
        await asyncio.sleep(20)
        ended.append(session.counts.completed)
        session.resume()

    assert clock.run(session, pause()).counts.completed == 3
    assert ended == [1]


def test_an_attempt_that_has_sent_nothing_is_turned_away_when_the_session_ends(plan, clock):
    async def work(item, attempt):
        if item == 0:
            await asyncio.sleep(1)
            raise Withheld("the budget is spent")
        return await starts_later(item, attempt)

    limits = Limits(concurrency=3, rates=[Rate(1, per_s=60)])
    session = plan(work, [0, 1, 2], cost=lambda item: {"requests": 0.0}, limits=limits)
    summary = clock.run(session)
    assert (summary.state, summary.counts.completed, summary.counts.skipped) == ("failed", 1, 2)
    assert clock.now_s() < 10


def blocking(started, seconds):
    """Return async work that keeps the engine's loop from turning, as user code does that sleeps or computes."""

    async def work(item):
        started.set()
        time.sleep(seconds)  # noqa: ASYNC251  # that is the point
        return item

    return work


@pytest.mark.parametrize("command", ["pause", "cancel"])
def test_a_command_to_a_busy_engine_is_asked_for_and_then_done(live, wait_for, command):
    """Never "paused" before it is; the command takes effect when the loop turns again."""
    started = threading.Event()
    session = live(blocking(started, 1.6), range(3), limits=Limits(concurrency=1))
    session.start()
    assert started.wait(10)
    assert getattr(session, command)() == "asked"
    deadline_s = time.monotonic() + 10
    while session.state == "running" and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert session.state == {"pause": "paused", "cancel": "cancelled"}[command]


def test_a_command_that_was_carried_out_says_done(live, gate):
    session = live(gate, range(3), limits=Limits(concurrency=1))
    session.start()
    gate.wait_begun(1)
    assert (session.pause(), session.state) == ("done", "paused")
    assert (session.resume(), session.state) == ("done", "running")
    assert session.adjust(concurrency=1) == "done"
    assert (session.cancel(), session.state) == ("done", "cancelled")


def test_a_question_is_refused_rather_than_answered_wrongly(live):
    """None and 0 are answers; a question's own TimeoutError is its own."""
    started = threading.Event()
    session = live(blocking(started, 2.6), range(3), limits=Limits(concurrency=1), name="busy")
    session.start()
    assert started.wait(10)
    with pytest.raises(EngineBusy, match="within 1 s"):
        session.ask(lambda: None)
    with pytest.raises(EngineBusy):
        session.prioritize([2], "high")


def test_a_question_may_answer_none_or_raise(live, gate):
    session = live(gate, range(3))
    session.start()
    gate.wait_begun(1)
    assert session.ask(lambda: None) is None

    def fail():
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        session.ask(fail)
