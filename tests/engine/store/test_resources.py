"""Resources: what a restart, a kill and a fork leave of what was used."""

import asyncio
import os
import threading

import pytest

from ipybatch import BatchSession, Limits, Rate, RateLimited, events
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import resources
from ipybatch.engine.store.limit_store import GROUP, LEASE_S, MemoryLimits, Report
from ipybatch.engine.store.resources import LIMITS_FILE, Resource
from ipybatch.errors import JournalError
from ipybatch.testing import VirtualClock
from tests.engine.seen import busiest
from tests.open_files import forget_limits
from tests.works import Mortal, Starts, run_until_killed

LIMITS = Limits(concurrency=3, rates=[Rate(10, per_s=60)])


def test_whoever_waits_is_woken(clock):
    """Each member looks again when something came free, even if one of them leaves meanwhile."""
    resource, woken = Resource(MemoryLimits(), "store", clock, is_private=True), []

    def leave():
        woken.append("a")
        resource.wakers.remove(leave)

    resource.wakers += [leave, lambda: woken.append("b")]
    resource.changed()
    resource.changed()
    assert woken == ["a", "b", "b"]


async def work(item):
    """Do nothing."""


class Far(MemoryLimits):
    """A store that is a network away.

    Attributes:
        refused: So many exchanges of limit groups fail.
        met: Wait for one another as they leave.
    """

    is_remote = True

    def __init__(self, clock, *, refused=0, leave=1):
        super().__init__(clock.now_s)
        self.refused, self.met = refused, threading.Barrier(leave)

    def exchange(self, report):
        if GROUP in report.resource and self.refused:
            self.refused -= 1
            msg = "it does not answer"
            raise JournalError(msg)
        if report.owner and report.bounds is None:
            self.met.wait(10.0)
        return super().exchange(report)


def test_limit_groups_that_are_met_while_the_store_is_away_wait(plan, clock):
    """The session goes on when it is back; the resource alone tells of it."""
    arrivals, noted = [], []

    async def work(item):
        arrivals.append((clock.now_s(), 1))
        await asyncio.sleep(0.01)

    limits = Limits(each=Limits(rates=[Rate(2, per_s=10)]), store=Far(clock, refused=12))
    session = plan(work, range(12), per=lambda item: f"game {item % 4}", limits=limits, resource="api")
    session.on(lambda event: noted.append(event) if isinstance(event, events.Noted) else None)
    summary = clock.run(session)
    assert (summary.state, summary.reason) == ("completed", "")
    assert busiest(arrivals, 10.0) == 8
    assert noted == []


def test_limit_groups_leave_together(plan, clock):
    """Not one after the other: each would wait for a store that is far away."""
    store = Far(clock, leave=4)
    limits = Limits(each=Limits(rates=[Rate(2, per_s=10)]), store=store)
    assert clock.run(plan(work, range(3), per=str, limits=limits, resource="api")).state == "completed"
    assert not store.met.broken
    assert store.exchange(Report(resource="api")).owners == ()


@pytest.mark.parametrize("resource", [None, "store"])
@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize("rate", [Rate(10, per_s=60), Rate(1000, per_s=60, unit="tokens")])
def test_a_restarted_kernel_keeps_the_window(plan, clock, restarts, rate, resource):
    """10 items per 60 s over several processes, whatever the rate counts: the server never sees an eleventh."""
    limits, cost = Limits(concurrency=3, rates=[rate]), {rate.unit: rate.limit / 10}
    arrivals = []

    async def work(item):
        arrivals.append((clock.now_s(), 1))
        await asyncio.sleep(0.5)

    async def stop(session):
        await asyncio.sleep(1.2)
        session._run.stop("cancelled", "", "cancelled")

    for start in range(restarts + 1):
        forget_limits()
        session = plan(work, list(range(40)), limits=limits, cost=lambda item: cost, resource=resource)
        clock.run(session, *([stop(session)] if start < restarts else []))
    assert session.counts.completed == 40
    assert busiest(arrivals, 60.0) <= 10
    assert clock.now_s() < 5 * 60


@pytest.mark.parametrize("restarts", [1, 2])
def test_requests_in_flight_at_a_kill_are_taken_for_answered(plan, clock, restarts):
    """As late as they could be answered, and at the second restart too: the server has not forgotten."""
    store, arrivals = Mortal(MemoryLimits(clock.now_s)), []
    limits = Limits(concurrency=3, rates=[Rate(10, per_s=60)], store=store)

    async def hang(item):
        arrivals.append((clock.now_s(), 1))
        await asyncio.sleep(3600)

    for _ in range(restarts):
        session = plan(hang, list(range(20)), limits=limits)
        run_until_killed(clock, session, store, after_s=10.0)
    assert len(arrivals) == 3 * restarts
    work = Starts()
    clock.run(plan(work, list(range(20)), limits=limits))
    assert len(work.at) == 20
    assert sum(at < LEASE_S * restarts + 10.0 * restarts + 1 for at in work.at) == 10 - 3 * restarts
    assert busiest([*arrivals, *((at, 1) for at in work.at)], 60.0) <= 10


def test_a_cool_down_outlives_the_kernel(plan, clock):
    """What the service asked for holds for the next process too, and for nobody else."""

    async def refused(item):
        raise RateLimited(retry_after_s=100)

    async def stop():
        await asyncio.sleep(1)
        session._run.stop("cancelled", "", "cancelled")

    session = plan(refused, [1], name="first", resource="store")
    clock.run(session, stop())
    forget_limits()
    other, same = Starts(), Starts()
    clock.run(plan(other, [1], name="other", resource="elsewhere"))
    clock.run(plan(same, [1], name="second", resource="store"))
    assert other.at[0] < 2
    assert 100 <= same.at[0] < 102


def test_what_is_forgotten_of_a_session_leaves_its_windows(plan, clock):
    """Its requests have reached the server: forgetting them would let too many follow."""
    clock.run(plan(Starts(), list(range(10)), limits=LIMITS))
    plan(Starts(), []).forget()
    forget_limits()
    work = Starts()
    clock.run(plan(work, [1], limits=LIMITS))
    assert work.at[0] >= 60


def test_a_window_opened_later_knows_what_was_used_before(plan, clock):
    """A rate an hour that a session is given now holds for what went before it in the same resource."""
    clock.run(plan(Starts(), list(range(10)), limits=LIMITS, resource="store"))
    forget_limits()
    work, hourly = Starts(), Limits(rates=[Rate(15, per_s=3600)])
    clock.run(plan(work, list(range(10)), name="later", limits=hourly, resource="store"))
    assert sum(at < 3600 for at in work.at) == 5


def test_journals_of_one_folder_share_what_has_a_name_and_nothing_else(tmp_path, patience):
    """The limits file is the folder's; a session without ``resource=`` is alone in it."""
    for resource, shared in (("store", True), (None, False)):
        clock, at = VirtualClock(), []

        async def work(item, clock=clock, at=at):
            at.append(clock.now_s())

        for name in ("a.db", "b.db"):
            path = tmp_path / name
            session = BatchSession(
                "wishlist",
                work,
                list(range(10)),
                limits=LIMITS,
                journal=path,
                clock=clock,
                resource=resource,
                fresh=True,
            )
            clock.run(session)
            forget_limits()
            journals._open_journals.pop(path).close()
        assert (at[-1] >= 60) is shared
    assert (tmp_path / LIMITS_FILE).exists()


def test_who_leaves_is_counted_no_more(plan, clock):
    """The strictest limits are those of who is there."""
    clock.run(plan(Starts(), [1], limits=Limits(spacing_s=10.0), resource="store"))
    forget_limits()
    work = Starts()
    clock.run(plan(work, list(range(3)), name="later", limits=Limits(spacing_s=1.0), resource="store"))
    assert work.at[-1] - work.at[0] == pytest.approx(2.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_no_limiter_of_its_parents(plan, clock):
    """It would start within an allowance that was set apart for its parent, and write by its parent's connection."""
    clock.run(plan(Starts(), [1], limits=LIMITS, resource="store"))
    assert resources._resources
    assert resources._stores
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, f"{len(resources._resources)} {len(resources._stores)}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert os.read(read, 99) == b"0 0"
    os.close(read)
