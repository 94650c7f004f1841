"""Stop means stop: pause, cancel, and waiting that ends before the session."""

import asyncio
import contextlib
import threading
import time

import pytest

from ipybatch import Held, Limits, Rate, Retry, Withheld
from ipybatch.engine.data import events
from ipybatch.engine.run import run, slots
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


def test_started_paused_nothing_starts_before_it_is_resumed(live, gate):
    session = live(gate, [1, 2, 3])
    gate.open()
    session.start(paused=True)
    assert session.state == "paused"
    session.adjust(concurrency=2)  # the engine has begun it by then
    assert gate.started == []
    session.resume()
    assert session.run().state == "completed"


def test_a_start_in_the_moment_of_the_end_is_not_lost(live, gate):
    """The end is told before the name is given back: whoever hears of it and resumes at once is served."""
    session = live(gate, list(range(10)), limits=Limits(concurrency=3))
    ended = threading.Event()

    def hold_the_end(event):
        if isinstance(event, events.StateChanged) and event.state == "cancelled" and not ended.is_set():
            ended.set()
            time.sleep(0.2)

    session.on(hold_the_end)
    session.start()
    gate.wait_begun(3)
    threading.Thread(target=session.cancel).start()
    assert ended.wait(20)
    gate.open()
    session.resume()
    assert session.run().state == "completed"


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
    assert "2 attempts that were given up are still busy" in session.snapshot.notes[0]


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


def test_an_item_that_is_held_is_skipped_and_the_others_go_on(plan, clock):
    """It says nothing of the service, is not tried again by this start, and is by the next."""
    starts, holds = [], True

    async def work(item):
        starts.append(item)
        if item < 2 and holds:
            raise Held("its job lacks an answer")
        return item

    session = plan(work, list(range(6)), retry=Retry(attempts=3))
    summary = clock.run(session)
    assert (summary.state, summary.counts.completed, summary.counts.skipped) == ("completed", 4, 2)
    assert sorted(starts) == list(range(6))
    assert session.results().error.tolist()[:2] == ["its job lacks an answer"] * 2
    holds = False
    assert clock.run(session).counts.completed == 6
    assert sorted(starts[6:]) == [0, 1]


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


class Stubborn:
    """Work that catches what ends it, as a bare ``except`` does, and goes on so many times."""

    def __init__(self, times):
        self.times, self.caught = times, []

    async def __call__(self, item):
        for _ in range(self.times):
            try:
                await asyncio.sleep(3600)
            except BaseException as error:
                self.caught.append((item, type(error)))


@pytest.mark.parametrize("times", [1, 3])
def test_a_cancel_that_the_work_swallows_is_recorded_as_cancelled(plan, clock, times):
    """It is cancelled until it ends, and what it returns then is no result; a resume runs it again."""
    work = Stubborn(times)
    session = plan(work, range(4), limits=Limits(concurrency=2))

    async def cancel():
        await asyncio.sleep(1)
        session.cancel()

    summary = clock.run(session, cancel())
    assert (summary.state, summary.counts.completed, summary.counts.cancelled) == ("cancelled", 0, 4)
    assert sorted(item for item, _ in work.caught) == sorted([0, 1] * times)
    assert clock.run(plan(fine, range(4))).counts.completed == 4
    assert session.results()["result"].tolist() == list(range(4))


@pytest.mark.parametrize("times", [1, 3])
def test_a_timeout_that_the_work_swallows_is_recorded_as_timeout(plan, clock, times):
    work = Stubborn(times)
    session = plan(work, range(3), limits=Limits(concurrency=1), timeout_s=1.0, retry=Retry(attempts=1), breaker=None)
    summary = clock.run(session)
    assert (summary.state, summary.counts.completed, summary.counts.timeout) == ("completed", 0, 3)
    assert clock.run(plan(fine, range(3))).counts.completed == 3


def test_cleaning_up_after_a_cancel_is_not_interrupted_at_once(plan, clock):
    cleaned = []

    async def work(item):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.2)
            cleaned.append(item)

    session = plan(work, [1, 2], limits=Limits(concurrency=2))

    async def cancel():
        await asyncio.sleep(1)
        session.cancel()

    assert clock.run(session, cancel()).state == "cancelled"
    assert sorted(cleaned) == [1, 2]


def test_work_that_never_ends_is_left_to_itself(live, monkeypatch):
    """Like a thread: the session ends, and says that something is still busy."""
    monkeypatch.setattr(slots, "AGAIN_S", 0.01)
    begun, released = threading.Event(), threading.Event()

    async def work(item):
        begun.set()
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)

    session = live(work, [1, 2], limits=Limits(concurrency=1))
    session.start()
    assert begun.wait(20)
    session.cancel()
    summary = session.run()
    assert (summary.state, summary.counts.cancelled) == ("cancelled", 2)
    assert "1 attempt that was given up is still busy" in session.snapshot.notes[0]
    released.set()


def test_work_that_ignores_its_timeout_keeps_its_slot_until_it_ends(plan, clock):
    """The others run on, in the slots that are left."""

    async def work(item):
        if item == 0:
            return await Stubborn(40)(item)
        await asyncio.sleep(1)
        return item

    session = plan(work, range(6), limits=Limits(concurrency=2), timeout_s=2.0, retry=Retry(attempts=1), breaker=None)
    summary = clock.run(session)
    assert (summary.state, summary.counts.timeout, summary.counts.completed) == ("completed", 1, 5)


def test_a_cancel_leaves_the_next_attempt_of_its_worker_alone(plan, clock):
    """A timeout that was swallowed is no cancel of what the same worker runs next."""

    async def work(item):
        if item == 0:
            return await Stubborn(1)(item)
        async with asyncio.timeout(3600):
            await asyncio.sleep(0.5)
        return item

    session = plan(work, range(3), limits=Limits(concurrency=1), timeout_s=1.0, retry=Retry(attempts=1))
    summary = clock.run(session)
    assert (summary.counts.timeout, summary.counts.completed) == (1, 2)


def test_a_paid_answer_is_kept_though_its_timeout_came_first(plan, clock):
    async def work(item, attempt):
        attempt.is_billed = True
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return {"paid": item}

    assert clock.run(plan(work, [1], timeout_s=1.0)).counts.completed == 1


class Slow:
    """Work that takes an hour to open or to close."""

    def __init__(self, where, *, swallows=False):
        self.where, self.swallows, self.items = where, swallows, []

    async def __aenter__(self):
        await self._wait("enter")

    async def __aexit__(self, *_):
        await self._wait("leave")

    async def _wait(self, where):
        if self.where != where:
            return
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if not self.swallows:
                raise

    async def __call__(self, item):
        self.items.append(item)
        return item


@pytest.mark.parametrize("swallows", [False, True])
def test_cancel_ends_the_opening_of_the_work(plan, clock, swallows):
    work = Slow("enter", swallows=swallows)
    session = plan(work, [1, 2])

    async def cancel():
        await asyncio.sleep(1)
        session.cancel()

    summary = clock.run(session, cancel())
    assert (summary.state, summary.counts.cancelled, work.items) == ("cancelled", 2, [])
    assert clock.now_s() < 60
    assert clock.run(plan(fine, [1, 2])).counts.completed == 2


def test_cancel_ends_the_closing_of_the_work_and_keeps_what_is_recorded(plan, clock):
    session = plan(Slow("leave"), [1, 2])

    async def cancel():
        await asyncio.sleep(1)
        session.cancel()

    summary = clock.run(session, cancel())
    assert (summary.state, summary.counts.completed) == ("completed", 2)
    assert clock.now_s() < 60


def test_cancelling_the_task_that_runs_a_session_records_what_ran(plan, clock):
    """Somebody's own loop is shut down: the session is cancelled, and its name is free."""

    async def work(item):
        await asyncio.sleep(3600)

    session = plan(work, [1, 2, 3], limits=Limits(concurrency=2))

    async def shut_down():
        running = asyncio.create_task(session.drive())
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    clock.run_coroutine(shut_down())
    assert (session.state, session.counts.cancelled) == ("cancelled", 3)
    assert clock.run(plan(fine, [1, 2, 3])).counts.completed == 3


def cancels_itself(item):
    asyncio.current_task().cancel()
    return item


def cancels_itself_later(item):
    asyncio.get_running_loop().call_later(0.01, asyncio.current_task().cancel)
    return item


def cancels_all(item):
    if item % 7 == 3:
        for task in asyncio.all_tasks():
            task.cancel()
    return item


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("cancels", [cancels_itself, cancels_itself_later, cancels_all])
def test_work_that_cancels_tasks_of_ours_stops_no_session(live, wait_for, cancels, concurrency):
    """Its own task is a worker; all of the loop's are everybody's. Every item has its outcome, in every session."""

    async def work(item):
        await asyncio.sleep(0.001 * (item % 3))
        return cancels(item)

    async def rests(item):
        await asyncio.sleep(0.001)
        return item

    neighbour = live(rests, range(100), name="neighbour", limits=Limits(concurrency=2))
    neighbour.start()
    session = live(work, range(30), limits=Limits(concurrency=concurrency), retry=Retry(attempts=20))
    for each, items in ((session, 30), (neighbour, 100)):
        summary = each.run()
        assert (summary.state, summary.counts.completed) == ("completed", items)


def test_slots_that_are_all_stuck_are_no_end(live, monkeypatch):
    """What has not been tried waits for a slot, as it does for threads; Cancel ends the session."""
    monkeypatch.setattr(slots, "AGAIN_S", 0.001)
    released, stuck = threading.Event(), []

    async def work(item):
        if len(stuck) < 2:
            stuck.append(item)
            while not released.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)
        return item

    session = live(work, range(6), limits=Limits(concurrency=2), timeout_s=0.01, retry=Retry(attempts=1), breaker=None)
    ended = threading.Event()
    session.on(lambda event: ended.set() if session.counts.timeout == 2 else None)
    session.start()
    assert ended.wait(20)
    assert (session.state, session.counts.pending) == ("running", 4)
    assert "holds every slot" in session.snapshot.notes[0]
    released.set()
    assert session.run().counts.completed == 4


def test_a_session_ends_without_what_is_stuck_when_nothing_else_is_left(live, monkeypatch):
    monkeypatch.setattr(slots, "AGAIN_S", 0.001)
    released = threading.Event()

    async def work(item):
        while item == 1 and not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return item

    session = live(work, range(4), limits=Limits(concurrency=2), timeout_s=0.05, retry=Retry(attempts=1), breaker=None)
    summary = session.run()
    assert (summary.state, summary.counts.completed, summary.counts.timeout) == ("completed", 3, 1)
    assert "still busy" in session.snapshot.notes[0]
    released.set()


def test_cancel_leaves_work_to_itself_that_never_opens(live, monkeypatch):
    monkeypatch.setattr(run, "AGAIN_S", 0.001)
    begun, released = threading.Event(), threading.Event()

    class Door:
        async def __aenter__(self):
            begun.set()
            while not released.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)

        async def __aexit__(self, *_):
            pass

        async def __call__(self, item):
            return item

    session = live(Door(), [1, 2])
    session.start()
    assert begun.wait(20)
    session.cancel()
    assert session.run().state == "cancelled"
    assert "left to itself" in session.snapshot.notes[0]
    assert live(fine, [1, 2]).run().counts.completed == 2
    released.set()


def test_a_listener_that_leaves_and_raises_ends_nothing(live):
    def leave(outcomes):
        stop()
        raise ValueError("enough")

    session = live(fine, range(5))
    stop = session.on_outcomes(leave)
    assert session.run().counts.completed == 5


@pytest.mark.parametrize("is_plain", [False, True])
def test_work_is_refused_to_wait_for_its_own_session(live, is_plain):
    async def awaits(item):
        return str(await session)

    session = live((lambda item: str(session.run())) if is_plain else awaits, [1], retry=Retry(attempts=1))
    assert session.run().counts.failed == 1
    assert "wait for itself" in session.results()["error"][0]
