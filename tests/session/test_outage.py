"""An outage: what reaches the dead service, probes, giving up, and going on."""

import asyncio
from itertools import pairwise

import httpx2
import pytest

from ipybatch import Breaker, Limits, Retry
from ipybatch.engine.data import events
from ipybatch.simulators import Faults, SimTransport, SteamSimulator
from ipybatch.testing import START_UNIX_S
from tests.works import Failing

ONE = Limits(concurrency=1)


OUTAGE = Breaker(failures=3, break_s=1, max_break_s=60)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_an_outage_of_10_s_is_left_alone_and_then_everything_completes(plan, clock, concurrency):
    """At most failures + concurrency requests reach the dead service, then one probe at a time, in growing breaks."""
    from_s = 20.0
    simulator = SteamSimulator(limit=None, faults=Faults(latency_s=0.2, outages=((from_s, from_s + 10.0),)))
    client = httpx2.AsyncClient(transport=SimTransport(simulator), base_url="http://steam.invalid")
    moves = []

    async def ask(app_id):
        (await client.get("/api/appdetails", params={"appids": app_id})).raise_for_status()

    session = plan(ask, list(range(1, 301)), limits=Limits(concurrency=concurrency, spacing_s=0.1), breaker=OUTAGE)
    session.on(lambda event: moves.append(event) if isinstance(event, events.BreakerMoved) else None)
    assert str(clock.run(session)) == "wishlist completed: 300/300 successful, 0 failed, 0 skipped"
    opened = [move.at_s - START_UNIX_S for move in moves if move.state == "open"]
    dead = [at for at in simulator.stats()["arrivals"] if from_s <= at < from_s + 10]
    in_flight_until_s = opened[0] + 0.2  # what started before the break may still arrive
    assert len([at for at in dead if at <= in_flight_until_s]) <= OUTAGE.failures + concurrency
    probes = [at for at in dead if at > in_flight_until_s]
    breaks = [later - at for at, later in pairwise(opened)]
    assert len(probes) == len(opened) - 1 >= 2
    assert breaks == sorted(breaks)
    assert breaks[0] >= OUTAGE.break_s


def test_probes_are_one_at_a_time(plan, clock):
    under_way, most = 0, []

    async def work(item):
        nonlocal under_way
        under_way += 1
        most.append((clock.now_s(), under_way))
        await asyncio.sleep(0.5)
        under_way -= 1
        raise ConnectionError

    session = plan(work, list(range(50)), limits=Limits(concurrency=10), breaker=Breaker(break_s=5, give_up_after=4))
    clock.run(session)
    assert [running for at, running in most if at > 1] == [1, 1, 1]


def test_a_service_that_never_comes_back_ends_the_session_and_a_later_run_goes_on(plan, clock):
    """It stops after give_up_after openings and says so; what is left is skipped, nothing is lost."""
    work = Failing(clock, *[None] * 5, *[ConnectionError("dead")] * 1000)
    session = plan(work, list(range(100)), limits=ONE, breaker=Breaker(failures=3, break_s=60, give_up_after=4))
    summary = clock.run(session)
    reason = "the service failed: the breaker opened 4 times in a row; last: ConnectionError: dead"
    assert (summary.state, summary.reason) == ("failed", reason)
    assert (summary.counts.completed, summary.counts.ended) == (5, 100)
    assert len(work.calls) == 5 + 3 + 3
    assert clock.now_s() == pytest.approx(60 + 120 + 240, abs=15)
    again = Failing(clock)
    assert clock.run(plan(again, list(range(100)))).counts.completed == 100
    assert len(again.calls) == 95


def test_an_outage_exhausts_no_item(plan, clock):
    """Every probe costs another item one of its tries, so that none runs out of them."""
    work = Failing(clock, *[ConnectionError("down")] * 5)
    session = plan(work, list(range(20)), limits=ONE, retry=Retry(attempts=2), breaker=Breaker(failures=2, break_s=10))
    assert clock.run(session).counts.completed == 20


def test_without_a_breaker_every_item_is_tried(plan, clock):
    work = Failing(clock, *[ConnectionError()] * 100)
    session = plan(work, list(range(10)), retry=Retry(attempts=2), breaker=None)
    assert clock.run(session).counts.failed == 10


def test_cancelled_attempts_and_permanent_errors_prove_nothing(plan, clock):
    """Two failures, a permanent error between: a third failure opens all the same, because none was a success."""
    work = Failing(clock, ConnectionError(), ValueError(), ConnectionError(), ValueError(), ConnectionError())
    session = plan(work, list(range(10)), limits=ONE, breaker=Breaker(failures=3, break_s=100))
    states = []
    session.on(lambda event: states.append(event.state) if isinstance(event, events.BreakerMoved) else None)
    clock.run(session)
    assert "open" in states
