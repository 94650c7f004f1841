"""A resource that sessions share, limiters of the user's own, and what an estimate says of it all."""

import asyncio

import aiolimiter
import pytest

from ipybatch import Breaker, Limits, Rate, RateLimited
from ipybatch.testing import MemoryLimits
from tests.works import Starts, gaps, worst


def test_a_limiter_of_the_users_own_is_entered_around_every_attempt(plan, clock):
    """An aiolimiter of 5 per 10 s beside ours: both hold."""

    async def run():
        work = Starts()
        limiter = aiolimiter.AsyncLimiter(5, 10)
        await plan(work, list(range(15)), limits=Limits(also=[limiter])).drive()
        return work.at

    times = clock.run_coroutine(run())
    assert len(times) == 15
    assert times[-1] - times[0] >= 19.9


class Shared:
    """A limiter that other machines use too, as pyrate-limiter's."""

    def __init__(self):
        self.asked = []

    async def try_acquire_async(self, name, weight):
        self.asked.append((name, weight))
        return True


def test_a_limiter_shared_with_other_machines_is_asked_before_every_request(plan, clock):
    async def work(item, attempt):
        async with attempt.permit():
            pass

    shared = Shared()
    with pytest.warns(DeprecationWarning, match="shared="):
        limits = Limits(shared=shared)
    clock.run(plan(work, [1, 2], limits=limits, resource="store"))
    assert shared.asked == [("store", 1)] * 4


def test_a_limiter_of_another_library_may_be_the_store(plan, clock):
    """Which takes the place of `shared`: it is asked beside our own file."""

    async def work(item):
        pass

    asked = Shared()
    clock.run(plan(work, [1, 2], limits=Limits(store=asked), resource="store"))
    assert asked.asked == [("store", 1)] * 2


def test_journals_that_lie_apart_share_a_file_that_both_name(plan, clock, tmp_path):
    work, sessions = Starts(0.1), []
    limits = Limits(rates=[Rate(10, per_s=10)], store=tmp_path / "limits.sqlite3")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        journal = tmp_path / name / "journal.db"
        sessions.append(plan(work, list(range(15)), name=name, limits=limits, resource="store", journal=journal))
    run_both(clock, *sessions)
    assert worst(sorted(work.at), 10) == 10
    assert not (tmp_path / "one" / "limits.sqlite3").exists()


def run_both(clock, *sessions):
    async def both():
        await asyncio.gather(*(session.drive() for session in sessions))

    clock.run_coroutine(both())


def test_sessions_that_name_the_same_resource_share_its_windows(plan, clock):
    work = Starts(0.1)
    limits = Limits(rates=[Rate(10, per_s=10)])
    sessions = [plan(work, list(range(15)), name=name, limits=limits, resource="store") for name in ("one", "two")]
    run_both(clock, *sessions)
    assert len(work.at) == 30
    assert worst(sorted(work.at), 10) <= 10


def test_a_session_counts_what_others_sent_while_it_was_opened(plan, clock):
    """Between the start of a session and its first turn on the engine's loop, a window may fill."""
    work, rate = Starts(), [Rate(8, per_s=60)]

    async def run():
        waiting = plan(work, list(range(10)), name="second", resource="store", limits=Limits(rates=rate))
        waiting._open_run()
        await plan(
            work, list(range(6)), name="first", resource="store", limits=Limits(rates=[Rate(7, per_s=60)])
        ).drive()
        await waiting._drive()

    clock.run_coroutine(run())
    assert len(work.at) == 16
    assert worst(work.at, 60) <= 8


def test_the_strictest_limits_of_those_who_share_hold(plan, clock):
    work = Starts(1.0)
    one = plan(work, list(range(10)), name="one", limits=Limits(concurrency=8, spacing_s=0.5), resource="store")
    two = plan(work, list(range(10)), name="two", limits=Limits(concurrency=2), resource="store")
    run_both(clock, one, two)
    assert work.most == 2
    assert min(gaps(sorted(work.at))) >= 0.5 - 1e-9


def test_a_cool_down_holds_for_all_who_share_the_resource(plan, clock):
    starts = {"one": [], "two": []}

    async def refused(item):
        starts["one"].append(clock.now_s())
        await asyncio.sleep(1)
        if len(starts["one"]) == 1:
            raise RateLimited(retry_after_s=100)

    async def neighbour(item):
        starts["two"].append(clock.now_s())
        await asyncio.sleep(0.4)

    one = plan(refused, [1], name="one", resource="store")
    two = plan(neighbour, list(range(10)), name="two", limits=Limits(concurrency=1), resource="store")
    run_both(clock, one, two)
    assert not [at for at in starts["one"] + starts["two"] if 1 < at < 101]


def test_nothing_is_shared_without_a_name(plan, clock):
    work = Starts(0.1)
    limits = Limits(rates=[Rate(10, per_s=10)])
    run_both(clock, *(plan(work, list(range(10)), name=name, limits=limits) for name in ("one", "two")))
    assert clock.now_s() < 1


def test_a_session_that_ends_takes_its_limits_away(plan, clock):
    """The neighbour goes on at its own pace as soon as the stricter one has left."""
    quick, slow = Starts(1.0), Starts(1.0)
    one = plan(slow, [1], name="one", limits=Limits(concurrency=1), resource="store")
    two = plan(quick, list(range(20)), name="two", limits=Limits(concurrency=10), resource="store")
    run_both(clock, one, two)
    assert quick.most == 10


def test_estimate_says_what_the_engine_then_does(plan, clock):
    """Promise 12: the same scheduler under the same limits gives the same time."""
    limits = Limits(concurrency=3, spacing_s=1.5, batch_size=15, batch_pause_s=15, rates=[Rate(200, per_s=300)])
    session = plan(Starts(0.2), list(range(500)), limits=limits)
    said = session.estimate(latency_s=0.2)
    clock.run(session)
    assert said.seconds == pytest.approx(clock.now_s(), rel=0.01)
    assert (said.requests, said.batches, said.usd) == (500, 34, None)
    assert said.low_s <= said.seconds <= said.high_s


def test_an_estimate_counts_what_is_left(plan, clock):
    clock.run(plan(Starts(), list(range(6)), limits=Limits(spacing_s=1)))
    assert plan(Starts(), list(range(10)), limits=Limits(spacing_s=1)).estimate().requests == 4


def test_an_estimate_of_a_generator_needs_n_and_consumes_nothing(plan, clock):
    session = plan(Starts(), iter(range(5)), breaker=Breaker())
    with pytest.raises(ValueError, match="n must be given"):
        session.estimate()
    assert session.estimate(n=1000).requests == 1000
    assert clock.run(session).counts.completed == 5


def test_an_estimate_beyond_100_000_items_extrapolates_and_says_so(plan):
    said = plan(Starts(), iter(()), limits=Limits(concurrency=100)).estimate(n=1_000_000, latency_s=0.1)
    assert (said.extrapolated, said.requests) == (True, 1_000_000)
    assert said.seconds == pytest.approx(1000, rel=0.01)
    assert "the rest extrapolated" in str(said)


class Away(MemoryLimits):
    """A store of the user's own that cannot be reached for a while, or says nothing of use."""

    def __init__(self, now_s, failure):
        super().__init__(now_s)
        self.failure, self.asked = failure, 0

    def exchange(self, report):
        self.asked += 1
        if self.asked in range(12, 16):
            return self.failure()
        return super().exchange(report)


def refuse():
    msg = "nobody answers"
    raise OSError(msg)


@pytest.mark.parametrize("failure", [refuse, lambda: None])
def test_a_store_of_the_users_own_that_fails_is_waited_for(plan, clock, failure):
    """Whatever it raises: nothing starts meanwhile, the user is told, and then it goes on."""
    store = Away(clock.now_s, failure)
    limits = Limits(rates=[Rate(5, per_s=1)], store=store)
    session = plan(Starts(), list(range(30)), limits=limits, resource="store")
    notes = []
    session.on(notes.append)
    summary = clock.run(session)
    assert summary.counts.completed == 30
    assert any("nothing starts until limits can be kept: the limit store" in str(note) for note in notes)
