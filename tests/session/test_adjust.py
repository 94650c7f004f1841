"""Limits are changed while a session runs: slower at once, faster up to what it was made with."""

import asyncio
import random
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import BatchSession, InputError, Limits, Rate, Retry
from ipybatch.engine.data import events
from ipybatch.testing import VirtualClock
from tests.open_files import close_journal


class Service:
    """Work that notes when its requests start, arrive and are answered, by the loop's time."""

    def __init__(self, seconds=(0.4,), seed=0):
        self.seconds, self.chance = seconds, random.Random(seed)
        self.starts, self.arrivals, self.now, self.most = [], [], 0, 0

    async def __call__(self, item):
        now_s = asyncio.get_running_loop().time
        self.starts.append(now_s())
        self.now += 1
        self.most = max(self.most, self.now)
        latency_s = self.chance.choice(self.seconds)
        share = self.chance.random()
        await asyncio.sleep(latency_s * share)
        self.arrivals.append((self.starts[-1] if not latency_s else now_s(), now_s()))
        await asyncio.sleep(latency_s * (1 - share))
        self.now -= 1
        return item

    def counted(self, until_s, per_s):
        """How many arrived in the window that ends then."""
        return sum(until_s - per_s < at_s <= until_s for at_s, _ in self.arrivals)


def per_second(service, first_s, last_s):
    return sum(first_s <= at_s < last_s for at_s in service.starts) / (last_s - first_s)


changes = st.lists(
    st.tuples(st.sampled_from([0.1, 0.9, 2.5, 6.0]), st.integers(1, 6), st.integers(1, 8), st.integers(1, 12)),
    max_size=5,
)


@given(asked=changes, seconds=st.sampled_from([(0.0,), (0.4,), (0.1, 3.0)]), seed=st.integers(0, 99))
def test_no_window_is_exceeded_whatever_is_changed(asked, seconds, seed):
    """As the server counts: what arrives is never beside more than the limit that held when it was sent.

    The first limits hold throughout, since no change goes beyond them; and concurrency never does.
    """
    clock, service = VirtualClock(), Service(seconds, seed)
    limits = Limits(concurrency=6, rates=[Rate(8, per_s=2), Rate(12, per_s=5)])
    held = [(0.0, 6, 8, 12)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        try:
            session = BatchSession("wishlist", service, list(range(60)), limits=limits, journal=path, clock=clock)

            async def change():
                for after_s, concurrency, first, second in asked:
                    await asyncio.sleep(after_s)
                    session.adjust(concurrency=concurrency, rates=[first, second])
                    held.append((clock.now_s(), concurrency, first, second))

            assert clock.run(session, change()).counts.completed == 60
        finally:
            close_journal(path)
    assert service.most <= 6
    for at_s, _ in service.arrivals:
        assert service.counted(at_s, 2) <= 8
        assert service.counted(at_s, 5) <= 12
    for (begun_s, _, first, second), (ended_s, *_) in zip(held, [*held[1:], (1e9, 0, 0, 0)], strict=True):
        sent = [at_s for at_s in service.starts if begun_s < at_s < ended_s]
        for at_s in sent:  # those that were sent under this limit: no more of them in a window
            assert sum(at_s - 2 < other <= at_s for other in sent) <= first
            assert sum(at_s - 5 < other <= at_s for other in sent) <= second


def test_slower_holds_at_once(plan, clock):
    """What was sent before counts under the new limit: the next start waits until that much has left the window."""
    service = Service()
    session = plan(service, list(range(60)), limits=Limits(concurrency=20, rates=[Rate(20, per_s=2)]))

    async def change():
        await asyncio.sleep(1.0)
        session.adjust(rates=[2])

    clock.run(session, change())
    assert per_second(service, 0.0, 1.0) == 20
    assert per_second(service, 1.0, 2.4) == 0
    assert 0.5 < per_second(service, 2.4, 30.0) < 1.0


def test_faster_again_up_to_what_it_was_made_with(plan, clock):
    """A limit that was lowered may be raised; what waits starts then, without an end of anything to wake it."""
    service = Service()
    session = plan(service, list(range(200)), limits=Limits(concurrency=20, rates=[Rate(20, per_s=2)]))

    async def change():
        session.adjust(rates=[1])
        await asyncio.sleep(20.0)
        session.adjust(rates=[20])

    clock.run(session, change())
    assert per_second(service, 1.0, 20.0) < 0.6
    assert per_second(service, 20.0, 22.0) >= 9


def test_concurrency_is_changed_too(plan, clock):
    """Fewer at once as soon as some have ended; what runs goes on."""
    service = Service((1.0,))
    session = plan(service, list(range(40)), limits=Limits(concurrency=8))
    seen = []

    async def change():
        await asyncio.sleep(1.5)
        session.adjust(concurrency=2)
        seen.append(service.now)
        for _ in range(5):
            await asyncio.sleep(1.0)
            seen.append(service.now)
        session.adjust(concurrency=8)
        await asyncio.sleep(0.2)
        seen.append(service.now)

    clock.run(session, change())
    assert seen == [8, 2, 2, 2, 2, 2, 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"concurrency": 9}, "concurrency must be <= 8, which the session was made with, got 9"),
        ({"concurrency": 0}, "concurrency must be a whole number >= 1, got 0"),
        ({"rates": [21, 90]}, "limit must be <= 20, which the session was made with, got 21"),
        ({"rates": [20, 91]}, "limit must be <= 90, which the session was made with, got 91"),
        ({"rates": [0, 90]}, "limit must be >= 1, got 0"),
        ({"rates": [5]}, "rates must be 2 limits, one for each rate, got 1"),
        ({"rates": 5}, "rates must be a list of limits, one for each rate, got 5: pass [5]"),
        ({"rates": "50"}, "rates must be a list of limits, one for each rate, got '50': pass ['50']"),
        ({"rates": [None, 90]}, "limit must be >= 1, got None"),
        ({"concurrency": "3"}, "concurrency must be a whole number >= 1, got '3'"),
        ({"rates": []}, "rates must be 2 limits, one for each rate, got 0"),
    ],
)
def test_more_than_it_was_made_with_is_refused(plan, clock, change, message):
    """The message says what it may be; nothing is changed, not even the other half of the call."""
    session = plan(Service(), [1, 2], limits=Limits(concurrency=8, rates=[Rate(20, per_s=2), Rate(90, per_s=60)]))
    session.adjust(concurrency=4, rates=[10, 45])
    before = session.policy
    with pytest.raises(InputError) as caught:
        session.adjust(**{"concurrency": 3, **change})
    assert str(caught.value) == message
    assert session.policy == before
    assert clock.run(session).counts.completed == 2


def test_a_change_is_told(plan):
    """In the log, and to the views: the limits that hold, and those it was made with."""
    session = plan(Service(), [1], limits=Limits(concurrency=8, rates=[Rate(20, per_s=2)]))
    heard = []
    session.on(heard.append)
    session.adjust(concurrency=2)
    session.adjust(rates=[5])
    assert [event.command for event in heard if isinstance(event, events.Commanded)] == [
        "limits: 2 at a time, 20 per 2 s",
        "limits: 2 at a time, 5 per 2 s",
    ]
    assert (session.policy.limits.concurrency, session.declared.concurrency) == (2, 8)


def test_a_change_before_the_start_holds(plan, clock):
    service = Service((1.0,))
    session = plan(service, list(range(12)), limits=Limits(concurrency=8, rates=[Rate(20, per_s=2)]))
    session.adjust(concurrency=3, rates=[4])
    clock.run(session)
    assert service.most == 3
    assert per_second(service, 0.0, 2.0) <= 2


@pytest.mark.parametrize("first", [1, 2, 7])
@pytest.mark.parametrize("is_resumed", [False, True], ids=["start", "resume"])
def test_concurrency_goes_up_to_what_was_declared_after_a_lower_start(plan, clock, first, is_resumed):
    """Whatever it was when this start began, of a new run or of one that goes on; and down and up once more."""
    service = Service((1.0,))
    session = plan(service, list(range(100)), limits=Limits(concurrency=8))
    seen = []

    async def change():
        for concurrency in (8, 1, 8):
            await asyncio.sleep(2.3)
            seen.append(service.now)
            session.adjust(concurrency=concurrency)
        await asyncio.sleep(0.2)
        seen.append(service.now)

    async def cancel():
        await asyncio.sleep(0.5)
        session.cancel()

    if is_resumed:
        clock.run(session, cancel())
        service.now = 0
    session.adjust(concurrency=first)
    assert clock.run(session, change()).counts.completed == 100
    assert seen == [first, 8, 1, 8]


def test_threads_go_up_after_a_lower_start(live, threads):
    session = live(threads, list(range(4)), limits=Limits(concurrency=3))
    session.adjust(concurrency=1)
    session.start()
    threads.wait_begun(1)
    session.adjust(concurrency=3)
    threads.wait_begun(2)  # all three at once: none has ended
    assert threads.ended == []


def test_a_change_while_paused_holds_after_it(plan, clock):
    """Nothing starts because of it."""
    service = Service((1.0,))
    session = plan(service, list(range(30)), limits=Limits(concurrency=8))

    async def change():
        await asyncio.sleep(0.5)
        session.pause()
        await asyncio.sleep(5.0)
        session.adjust(concurrency=2)
        await asyncio.sleep(5.0)
        assert len(service.starts) == 8
        service.most = 0
        session.resume()

    clock.run(session, change())
    assert service.most == 2


def test_a_change_outlives_cancel_and_resume(plan, clock):
    """What is left runs as it was changed, also when that was done in between."""
    service = Service((1.0,))
    session = plan(service, list(range(30)), limits=Limits(concurrency=8))

    async def change():
        await asyncio.sleep(0.5)
        session.adjust(concurrency=4)
        session.cancel()

    clock.run(session, change())
    assert session.state == "cancelled"
    service.most = service.now = 0
    session.adjust(concurrency=3)
    assert clock.run(session).counts.completed == 30
    assert service.most == 3


def test_a_change_from_another_thread_holds(live):
    """The engine's thread makes it; a cell that calls it has not to wait for the run."""
    asked = []

    async def work(item):
        asked.append(item)
        if item == 0:
            session.adjust(concurrency=1)  # on the engine's thread
        await asyncio.sleep(0)
        return item

    session = live(work, list(range(20)), limits=Limits(concurrency=5, rates=[Rate(1000, per_s=1)]))
    session.start()
    session.adjust(concurrency=2, rates=[500])
    assert session.run().counts.completed == 20
    assert session.policy.limits.rates[0].limit == 500


def test_a_reopened_session_has_its_own_limits(plan, clock, journal):
    """A change is of this process: policies are not recorded."""
    session = plan(Service(), [1, 2], limits=Limits(concurrency=8), retry=Retry(attempts=1))
    session.adjust(concurrency=2)
    clock.run(session)
    again = BatchSession.open("wishlist", Service(), journal=journal, limits=Limits(concurrency=6), clock=clock)
    assert again.policy.limits.concurrency == 6
    again.adjust(concurrency=6)


@pytest.mark.parametrize("begun_s", [0.0, 10.0])
def test_what_costs_more_than_a_lowered_limit_goes_alone(plan, clock, begun_s):
    """It was allowed when the session was made: a change does not fail it for good, before the start or after it."""
    service = Service()
    limits = Limits(rates=[Rate(1000, per_s=60, unit="tokens")])
    session = plan(service, [1, 2, 3, 4, 5, 6], limits=limits, cost=lambda item: 400)
    if not begun_s:
        session.adjust(rates=[100])

    async def change():
        await asyncio.sleep(begun_s)
        session.adjust(rates=[100])

    assert clock.run(session, change()).counts.completed == 6
    alone = service.starts[2:] if begun_s else service.starts
    assert all(later - at > 60 for at, later in pairwise(alone))
    assert len([at for at in service.starts if at < 10]) == (2 if begun_s else 1)


def test_what_costs_more_than_was_declared_is_refused(plan, clock):
    """Also after a change, with the limit it was made with in the message."""
    session = plan(Service(), [1], limits=Limits(rates=[Rate(1000, 60, "tokens")]), cost=lambda item: 1001)
    session.adjust(rates=[100])
    clock.run(session)
    (failed,) = session.snapshot.failures.values()
    assert "cost must be >= 0 and <= 1000 tokens, got 1001" in failed.error


def test_a_reopened_session_shows_the_pace_of_its_past(plan, clock, journal):
    """What the journal knows is put before what runs now, once, however often and whenever it is asked for."""
    session = plan(Service((1.0,)), list(range(30)), limits=Limits(concurrency=4))

    async def stop():
        await asyncio.sleep(3.5)
        session.cancel()

    clock.run(session, stop())
    done = session.counts.completed
    clock.advance(60.0)
    again = BatchSession.open("wishlist", Service((1.0,)), journal=journal, limits=Limits(concurrency=4), clock=clock)
    again.recall()
    again.recall()
    past = again.snapshot.pace.marks[-1]
    assert (past.ended, past.failed) == (16, 16 - done)
    clock.run(again)
    again.recall()
    assert again.snapshot.pace.marks[-1].ended - past.ended == again.snapshot.ended_here == 30 - done
    assert again.counts.completed == 30


def test_the_past_is_put_before_once(plan, clock, journal):
    """A panel and a page may ask in the same moment: what one has put there the other does not add again."""
    clock.run(plan(Service(), [1, 2, 3]))
    again = BatchSession.open("wishlist", Service(), journal=journal, clock=clock)
    ask, other = again.ask, again.recall

    def interrupted(question):
        again.ask = ask
        other()
        return ask(question)

    again.ask = interrupted
    again.recall()
    assert again.snapshot.pace.marks[-1].ended == 3


def test_a_fresh_session_has_no_past(plan, clock):
    """What ran under its name before is another run: neither its pace nor its items are shown."""
    clock.run(plan(Service(), [1, 2, 3]))
    clock.advance(10.0)
    fresh = plan(Service(), [1, 2], fresh=True)
    fresh.recall()
    assert fresh.snapshot.pace.marks == []
    assert fresh.items_of(0) == (0, [])
    clock.run(fresh)
    assert fresh.snapshot.pace.marks[-1].ended == 2
    assert fresh.items_of(0)[0] == 2
