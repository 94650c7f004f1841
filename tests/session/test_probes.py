"""Probes and denials: what the work's own probe tells, and when an hour of 429s has passed."""

import asyncio
import os
import subprocess
import sys

import pytest

from ipybatch import Breaker, Limits, Permanent, Rate, Retry
from tests.session.test_charges import HOUR_S, Probed, Service
from tests.session.test_errors import http_error


@pytest.mark.parametrize("attempts", [3, 4])
def test_an_outage_that_a_probe_meets_costs_a_lone_item_nothing(plan, clock, attempts):
    """What once succeeded fails, so it is the service."""
    work = Probed(clock, [], down=(0.0, 8 * HOUR_S))
    summary = clock.run(plan(work, [1], retry=Retry(attempts=attempts), breaker=Breaker(give_up_after=100)))
    assert (summary.state, summary.counts.completed) == ("completed", 1)
    assert work.service.calls.count(1) == 4


def test_a_lone_item_that_fails_though_the_probe_does_not_is_given_up(plan, clock):
    """One attempt more than those that count: by then the probe has told."""
    work = Probed(clock, [1])
    summary = clock.run(plan(work, [1]))
    assert (summary.state, summary.counts.failed, work.service.calls.count(1)) == ("completed", 1, 4)


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("give_up_after", [5, 100])
@pytest.mark.parametrize("from_s", [0.0, 0.35, 1.05])
def test_an_outage_costs_no_item_of_a_batch_that_is_nearly_over(plan, clock, batch_size, give_up_after, from_s):
    """It alone has opened the breaker: those of the next batch tell that it is not its fault."""
    service = Service(clock, down=(from_s, from_s + 8 * HOUR_S))
    policy = Breaker(give_up_after=give_up_after)
    summary = clock.run(plan(service, list(range(30)), limits=Limits(3, batch_size=batch_size), breaker=policy))
    assert summary.counts.failed == 0
    assert summary.state == ("failed" if give_up_after == 5 else "completed")


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_an_item_that_opens_the_breaker_alone_is_given_up_when_another_succeeds(plan, clock, batch_size):
    service = Service(clock, bad=[0])
    summary = clock.run(plan(service, list(range(6)), limits=Limits(1, batch_size=batch_size)))
    assert (summary.state, summary.counts.completed, summary.counts.failed) == ("completed", 5, 1)
    assert service.calls.count(0) == (4 if batch_size == 1 else 3)


def test_a_service_that_its_probe_meets_dead_ends_the_session(plan, clock):
    """Also where fewer items failed than tell of an outage, and others have succeeded."""
    work = Probed(clock, [], down=(0.15, 8 * HOUR_S))
    summary = clock.run(plan(work, [1, 2], retry=Retry(attempts=4), limits=Limits(1)))
    assert (summary.state, summary.counts.completed, summary.counts.skipped) == ("failed", 1, 1)


TELLS_NOTHING = {
    "a mistake of its own": TypeError("no such field"),
    "what it asks for is gone": http_error(404),
    "said for good": Permanent("gone"),
    "its end": SystemExit(1),
}


@pytest.mark.parametrize("error", TELLS_NOTHING.values(), ids=TELLS_NOTHING)
def test_a_probe_that_fails_by_itself_fails_no_item(plan, clock, error):
    """An item is asked in its place, and the session says so."""

    class Odd(Probed):
        async def probe(self):
            raise error

    work = Odd(clock, [], down=(0.0, 300.0))
    session = plan(work, list(range(20)), limits=Limits(3))
    assert clock.run(session).counts.completed == 20
    assert [note.split(":")[0] for note in session.snapshot.notes] == [
        "probe() of the work tells nothing, so an item is asked in its place"
    ]


def test_a_probe_that_cancels_itself_is_not_asked_for_ever(plan, clock):
    class Odd(Probed):
        async def probe(self):
            self.probes.append(clock.now_s())
            raise asyncio.CancelledError

    work = Odd(clock, [], down=(0.0, 300.0))
    clock.run(plan(work, list(range(20)), limits=Limits(3)))
    assert len(work.probes) <= 20 * 3


def test_an_item_that_is_refused_sends_no_probe(plan, clock):
    """It has no permit that the probe could use: the server would see more than the windows allow."""
    work = Probed(clock, [], down=(0.0, 300.0))
    limits = Limits(1, rates=[Rate(1, per_s=40), Rate(9, per_s=1, unit="tokens")])
    session = plan(work, list(range(12)), limits=limits, cost=lambda item: {"tokens": 10 if item > 7 else 1})
    assert clock.run(session).counts.completed == 8
    assert min(later - at for at, later in zip(work.service.at, work.service.at[1:], strict=False)) >= 40.0


class Denying(Service):
    """A service that answers 429 in these spans of time, with these headers."""

    def __init__(self, clock, *spans, headers=None, **more):
        super().__init__(clock, **more)
        self.spans, self.headers = spans, headers or {}

    async def __call__(self, item):
        if any(begin <= self.clock.now_s() < end for begin, end in self.spans):
            self.calls.append(item)
            await asyncio.sleep(self.latency_s)
            raise http_error(429, **self.headers)
        return await super().__call__(item)


def test_an_outage_after_a_429_is_not_an_hour_of_429s(plan, clock):
    service = Denying(clock, (0.0, 0.1), (8 * HOUR_S, 8 * HOUR_S + 60), down=(0.1, 8 * HOUR_S))
    summary = clock.run(plan(service, list(range(20)), limits=Limits(3), breaker=Breaker(give_up_after=100)))
    assert (summary.state, summary.counts.completed) == ("completed", 20)


def test_an_item_that_fails_by_itself_an_hour_after_a_429_ends_nothing(plan, clock):
    """Work that takes hours, a 429 at first, then a mistake in the work: the reason of neither."""

    async def work(item):
        tried.append(item)
        if tried.count(item) == 1:
            raise http_error(429)
        await asyncio.sleep(2 * HOUR_S + item)
        return item["price"] if item < 3 else item

    tried = []
    summary = clock.run(plan(work, list(range(6)), limits=Limits(6)))
    assert (summary.state, summary.counts.completed, summary.counts.failed) == ("completed", 3, 3)


def test_a_pause_is_no_time_of_429s(plan, clock):
    service = Denying(clock, (0.0, 600.0), (2 * HOUR_S, 2 * HOUR_S + 60))
    session = plan(service, list(range(20)), limits=Limits(3))

    async def pause():
        await asyncio.sleep(300.0)
        session.pause()
        await asyncio.sleep(2 * HOUR_S - 290)
        session.resume()

    summary = clock.run(session, pause())
    assert (summary.state, summary.counts.completed) == ("completed", 20)


def test_a_window_of_an_hour_that_is_told_a_little_short_ends_nothing(plan, clock):
    """The service names an hour, and refuses once more when it is over."""
    service = Denying(clock, (0.0, 1.0), (HOUR_S, HOUR_S + 5), headers={"retry-after": "3600"})
    summary = clock.run(plan(service, list(range(20)), limits=Limits(3)))
    assert (summary.state, summary.counts.completed) == ("completed", 20)


def test_doubt_that_is_answered_begins_anew(plan, clock):
    """What fails otherwise tells that not every item meets the same: the others do not wait for one another."""

    async def work(item):
        await asyncio.sleep(1.0)
        if item < 20:
            raise KeyError("price")
        raise http_error(404)

    summary = clock.run(plan(work, list(range(220)), limits=Limits(20)))
    assert (summary.state, summary.counts.failed) == ("completed", 220)
    assert clock.now_s() < 20


@pytest.mark.parametrize("limits", [Limits(1), Limits(3), Limits(2, each=Limits(1))])
@pytest.mark.parametrize("headers", [{}, {"retry-after": "5"}])
def test_an_item_that_always_gets_a_429_keeps_no_other_waiting(plan, clock, limits, headers):
    """After a cool-down the others go first; it is tried again until an hour has passed without a success."""

    async def work(item):
        if item == 0:
            raise http_error(429, **headers)
        return item

    grouped = {"per": lambda item: item % 2} if limits.each else {}
    summary = clock.run(plan(work, list(range(20)), limits=limits, **grouped))
    assert (summary.state, summary.counts.completed, summary.counts.skipped) == ("failed", 19, 1)
    assert summary.reason.startswith("nothing was let through for 6")


@pytest.mark.parametrize("error", [http_error(404), KeyError("price"), Permanent("no such thing"), http_error(500)])
def test_one_that_fails_otherwise_after_twenty_403s_answers_the_doubt(plan, clock, error):
    """The key is not withdrawn: the session goes on."""

    async def work(item):
        if item < 10:
            return item
        raise error if item >= 50 else http_error(403)

    summary = clock.run(plan(work, list(range(60)), limits=Limits(2), retry=Retry(attempts=1)))
    assert summary.counts.completed == 10
    assert summary.counts.failed + summary.counts.skipped == 50


@pytest.mark.parametrize("good", [[59], [58, 59]])
def test_the_one_that_is_asked_in_a_limit_group_comes_later(plan, clock, good):
    """The next ones in order may all be of a kind that fails."""
    tried = []

    async def work(item):
        tried.append(item)
        if item in good:
            return item
        raise http_error(400)

    session = plan(work, list(range(60)), limits=Limits(1, each=Limits(1)), per=lambda item: "one")
    assert clock.run(session).counts.completed == len(good)
    assert 20 <= tried.index(59) <= 21


def test_a_session_that_is_cancelled_while_it_asks_blames_no_item(plan, clock):
    """Nobody has told whose fault it was: they run again."""

    async def work(item):
        await asyncio.sleep(1.0 if item < 20 else 600.0)
        raise http_error(400)

    async def cancel():
        await asyncio.sleep(100.0)
        session.cancel()

    session = plan(work, list(range(60)), limits=Limits(20))
    assert clock.run(session, cancel()).state == "cancelled"
    assert set(session.errors()["scope"]) == {"account"}
    assert clock.run(plan(lambda item: item, list(range(60)))).counts.completed == 60


DIES = """
import asyncio, os, sys
from ipybatch import BatchSession, Limits
from tests.session.test_errors import http_error


async def work(item):
    if item == 59:
        if sys.argv[2] == "dies":
            await asyncio.sleep(0.2)
            os.kill(os.getpid(), 9)
        return item
    raise http_error(400)


BatchSession("wishlist", work, list(range(60)), journal=sys.argv[1], limits=Limits(5)).run()
"""


@pytest.mark.parametrize(("end", "again"), [("dies", 60), ("succeeds", 0)])
def test_a_process_that_dies_while_it_asks_blames_no_item(plan, clock, journal, end, again):
    """They run again; and not where the one that was asked has told that they are at fault."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", DIES, str(journal), end], check=False, env=environment, timeout=100)
    calls = []

    async def work(item):
        calls.append(item)
        return item

    clock.run(plan(work, list(range(60))))
    assert len(calls) == again
