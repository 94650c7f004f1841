"""Two windows at once, a short and a long one, as Battle.net has them: here 20 in any second, 300 in any 30 s."""

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipybatch import BatchSession, Limits, Rate
from ipybatch.engine.store import resources
from ipybatch.simulators.service import Traffic
from ipybatch.testing import VirtualClock

SHORT, LONG = (20, 1.0), (300, 30.0)


class Server:
    """Work that asks a server: a random part of 1 to 20 ms on the way in, the rest on the way out."""

    def __init__(self, clock, *windows):
        self.clock, self.traffic = clock, Traffic(windows)
        self.chance, self.statuses = random.Random(7), []

    async def __call__(self, item):
        latency_s = self.chance.uniform(0.001, 0.020)
        way_in_s = latency_s * self.chance.random()
        await asyncio.sleep(way_in_s)
        self.traffic.arrive(self.clock.now_s())
        self.statuses.append(self.traffic.judge(self.clock.now_s()))
        await asyncio.sleep(latency_s - way_in_s)

    def worst(self):
        return [self.traffic.worst(per_s) for _, per_s in self.traffic.windows]


def limits(*windows, concurrency=20):
    return Limits(concurrency=concurrency, rates=[Rate(limit, per_s=per_s) for limit, per_s in windows])


def test_both_windows_hold_and_hardly_a_permit_of_either_is_unused(plan, clock):
    """900 requests: three long windows, in the time that both rules leave, and half a second more."""
    server = Server(clock, SHORT, LONG)
    assert clock.run(plan(server, list(range(900)), limits=limits(SHORT, LONG))).counts.completed == 900
    assert server.statuses == [200] * 900
    assert server.worst() == [20, 300]
    # The 900th cannot come before two long windows have passed, and the third one's 300 at 20 a second.
    soonest_s = 2 * 30.0 + (300 / 20 - 1) * 1.0
    assert server.traffic.arrivals[-1] - server.traffic.arrivals[0] <= soonest_s / 0.99


def test_a_full_long_window_lets_nothing_through_until_its_first_requests_leave_it(plan, clock):
    """Not a trickle at the long window's average: all at once as before, and then nothing."""
    server = Server(clock, SHORT, LONG)
    clock.run(plan(server, list(range(301)), limits=limits(SHORT, LONG)))
    *before, last = server.traffic.arrivals
    assert before[-1] - before[0] < 15.0
    assert 30.0 <= last - before[0] <= 30.1


def test_two_sessions_of_one_resource_share_both_windows(plan, clock):
    server = Server(clock, SHORT, LONG)
    first, second = (
        plan(server, list(range(300)), name=name, limits=limits(SHORT, LONG), resource="client")
        for name in ("guilds", "characters")
    )

    async def both():
        await asyncio.gather(first.drive(), second.drive())

    clock.run_coroutine(both())
    assert (first.counts.completed, second.counts.completed) == (300, 300)
    assert server.statuses == [200] * 600
    assert server.worst() == [20, 300]


def test_a_restart_of_the_kernel_forgets_neither_window(plan, clock):
    """The long window is full and the short one is not, or no longer: what was asked before counts in both."""
    server = Server(clock, SHORT, LONG)
    clock.run(plan(server, list(range(290)), limits=limits(SHORT, LONG), resource="client"))
    resources._resources.clear()  # all that a new process does not have
    clock.run(plan(server, list(range(290, 330)), name="other", limits=limits(SHORT, LONG), resource="client"))
    assert server.statuses == [200] * 330
    assert server.worst() == [20, 300]


@pytest.mark.parametrize("order", [(SHORT, LONG), (LONG, SHORT)], ids=["short first", "long first"])
def test_the_estimate_knows_both_windows(plan, clock, order):
    session = plan(Server(clock), list(range(900)), limits=limits(*order))
    assert session.estimate(latency_s=0.01).seconds == pytest.approx(74.2, rel=0.01)


@settings(suppress_health_check=list(HealthCheck))
@given(
    short=st.integers(1, 20),
    more=st.integers(1, 60),
    per_s=st.sampled_from([5.0, 30.0, 3600.0]),
    concurrency=st.integers(1, 40),
)
def test_no_pair_of_windows_is_exceeded(tmp_path_factory, short, more, per_s, concurrency):
    """Whatever the two allow, the server refuses nothing."""
    clock = VirtualClock()
    windows = (short, 1.0), (short + more, per_s)
    server = Server(clock, *windows)
    session = BatchSession(
        "pair",
        server,
        list(range(3 * (short + more))),
        limits=limits(*windows, concurrency=concurrency),
        journal=tmp_path_factory.mktemp("pair") / "journal.db",
        clock=clock,
    )
    assert clock.run(session).counts.completed == 3 * (short + more)
    assert set(server.statuses) == {200}
