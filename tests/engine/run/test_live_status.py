import asyncio
import re

import pytest

from ipybatch import Breaker, Limits, Permanent, Rate, RateLimited, Retry
from ipybatch.engine.feed.session_view import LiveStatus
from ipybatch.engine.run.live_status import allowed_per_s
from ipybatch.errors import JournalError
from ipybatch.testing import MemoryLimits, Report

LATENCY_S = 0.5


async def work(item):
    await asyncio.sleep(LATENCY_S)
    return item


def at(clock, session, *times_s, to_its_end=True):
    """Run a session; return its gauges at these times."""
    seen = []

    async def look():
        for at_s in times_s:
            await asyncio.sleep(at_s - clock.now_s())
            seen.append(session.live_status)
        if not to_its_end:
            session._run.stop("cancelled", "", "cancelled")

    clock.run(session, look())
    return seen


def test_before_and_after_there_is_nothing_to_wait_for(plan, clock):
    """Only what the limits allow is known then."""
    session = plan(work, [1, 2], limits=Limits(spacing_s=2))
    assert session.live_status == LiveStatus(allowed_per_s=0.5)
    clock.run(session)
    assert session.live_status == LiveStatus(allowed_per_s=0.5)


@pytest.mark.parametrize(
    ("limits", "per_s"),
    [
        (Limits(), None),
        (Limits(spacing_s=2), 0.5),
        (Limits(rates=[Rate(200, per_s=300)]), 200 / 300),
        (Limits(spacing_s=2, rates=[Rate(200, per_s=300), Rate(1, per_s=1)]), 0.5),
        (Limits(rates=[Rate(1000, per_s=60, unit="tokens")]), None),
    ],
)
def test_what_the_limits_allow_is_the_strictest(limits, per_s):
    """Starts per second in the long run."""
    assert allowed_per_s(limits) == per_s


def test_windows_show_what_is_used(plan, clock):
    """Each rate: used, limit, length and unit, as the limiter counts."""
    session = plan(work, list(range(9)), limits=Limits(concurrency=2, rates=[Rate(4, per_s=10)]))
    (seen,) = at(clock, session, 0.3)
    assert seen.windows == [(2.0, 4, 10, "requests")]


def test_a_wait_for_the_limits_is_told(plan, clock):
    """The panel says why nothing starts, and for how long."""
    session = plan(work, list(range(9)), limits=Limits(rates=[Rate(4, per_s=10)]))
    (seen,) = at(clock, session, 2.0)
    assert seen.waiting == "the limits allow the next request in 9 s"


def test_a_pause_between_batches_is_told(plan, clock):
    """Not the limits, but the batch."""
    session = plan(work, list(range(4)), limits=Limits(batch_size=2, batch_pause_s=15))
    (seen,) = at(clock, session, 1.5)
    assert seen.waiting == "next batch in 14 s"


def test_a_break_and_its_probe_are_told(plan, clock):
    """First the time to the probe, then that one is asking."""

    async def failing(item):
        await asyncio.sleep(LATENCY_S)
        if clock.now_s() < 50:
            raise ConnectionError

    session = plan(failing, [1, 2, 3], limits=Limits(concurrency=2), breaker=Breaker(failures=1, break_s=60))
    seen = at(clock, session, 1.5, 60.7)
    assert [gauges.waiting for gauges in seen] == [
        "the service fails: next probe in 59 s (ConnectionError)",
        "one probe is asking whether the service is back",
    ]


def test_a_cool_down_is_told(plan, clock):
    """It is the service that asked."""
    asked = []

    async def busy(item):
        asked.append(item)
        await asyncio.sleep(LATENCY_S)
        if len(asked) == 1:
            raise RateLimited(retry_after_s=30)

    session = plan(busy, [1, 2], limits=Limits(concurrency=1))
    (seen,) = at(clock, session, 10.5)
    assert seen.waiting == "the service asked us to slow down: 20 s left"


def test_a_cool_down_that_nobody_asked_for_is_told_with_its_reason(plan, clock):
    """Such as what the limit store has lost."""
    store = MemoryLimits(clock.now_s)
    store.exchange(Report(resource="api", cool_s=30.0, why="it has lost what it counted"))
    session = plan(work, [1, 2], limits=Limits(rates=[Rate(4, per_s=10)], store=store), resource="api")
    (seen,) = at(clock, session, 10.5)
    assert seen.waiting == "it has lost what it counted: 20 s left"


def test_limits_that_cannot_be_kept_are_told(plan, clock):
    """Since when, as the store says it; and no more when it is back."""

    class Away(MemoryLimits):
        def exchange(self, report):
            if 0.5 < clock.now_s() < 5.0:
                msg = "redis://host has not answered since 14:03: Connection refused"
                raise JournalError(msg)
            return super().exchange(report)

    limits = Limits(rates=[Rate(4, per_s=10)], store=Away(clock.now_s))
    gone, back = at(clock, plan(work, list(range(9)), limits=limits, resource="api"), 3.5, 8.0)
    told = "nothing starts until limits can be kept: redis://host has not answered since 14:03: Connection refused"
    assert gone.waiting == told
    assert back.waiting == "the limits allow the next request in 3 s"


def test_a_retry_is_told(plan, clock):
    """When nothing else is left to do."""
    asked = []

    async def once(item):
        asked.append(item)
        if len(asked) == 1:
            raise ConnectionError

    session = plan(once, [1], retry=Retry(initial_s=1e6, max_s=1e6), breaker=None)
    (seen,) = at(clock, session, 0.01, to_its_end=False)
    assert re.fullmatch(r"next retry in \d+ s", seen.waiting)


def test_an_eta_needs_something_to_go_by(plan, clock):
    """Unknown until three items have ended; then it holds the true end between its bounds."""
    session = plan(work, list(range(40)), limits=Limits(concurrency=1, spacing_s=1))
    early, later = at(clock, session, 0.6, 20.2)
    assert early.eta_s is None
    best_s, worst_s = later.eta_s
    assert best_s <= 39.5 - 20.2 + 1 <= worst_s + 1


@pytest.mark.parametrize(("slow", "fast"), [(2.0, 0.5), (0.5, 2.0)])
def test_an_eta_lies_between_the_present_pace_and_that_of_all(plan, clock, slow, fast):
    """Whichever is faster is the best case, and the slower one, with a tenth on top, the worst."""

    async def changing(item):
        await asyncio.sleep(slow if item < 20 else fast)

    session = plan(changing, list(range(200)), limits=Limits(concurrency=1))
    now_s = 20 * slow + 80 * fast + fast / 2
    (seen,) = at(clock, session, now_s)
    overall_s, lately_s = 100 * now_s / 100, 100 * fast
    best_s, worst_s = seen.eta_s
    assert best_s == pytest.approx(min(overall_s, lately_s), rel=0.1)
    assert worst_s == pytest.approx(1.1 * max(overall_s, lately_s), rel=0.1)


def test_an_eta_is_no_better_than_the_limits_allow(plan, clock):
    """A burst that emptied a window says nothing of what is left."""
    session = plan(work, list(range(100)), limits=Limits(concurrency=10, rates=[Rate(20, per_s=20)]))
    (seen,) = at(clock, session, 3.0)
    best_s, worst_s = seen.eta_s
    assert best_s == pytest.approx(80.0)
    assert worst_s == pytest.approx(80.0 * 1.1)


def test_limits_that_allow_more_do_not_shorten_an_eta(plan, clock):
    """The service's own pace is what holds it up."""
    session = plan(work, list(range(100)), limits=Limits(concurrency=1, rates=[Rate(1000, per_s=1)]))
    (seen,) = at(clock, session, 10.25)
    assert seen.eta_s[0] == pytest.approx(80 * LATENCY_S, rel=0.1)


def test_an_eta_has_the_cool_down_in_it(plan, clock):
    """What the service asked for is waited for, whatever the pace was before."""
    asked = []

    async def busy(item):
        asked.append(item)
        await asyncio.sleep(LATENCY_S)
        if len(asked) == 20:
            raise RateLimited(retry_after_s=3600)

    (seen,) = at(clock, plan(busy, list(range(30)), limits=Limits(concurrency=1)), 15.0)
    assert 3500 < seen.eta_s[0] < 3700


def test_nobody_knows_when_a_service_that_fails_is_back(plan, clock):
    asked = []

    async def dying(item):
        asked.append(item)
        await asyncio.sleep(LATENCY_S)
        if 20 < len(asked) < 25:
            raise ConnectionError

    before, seen = at(clock, plan(dying, list(range(30)), limits=Limits(concurrency=1)), 9.0, 30.0)
    assert before.eta_s is not None
    assert seen.eta_s is None


def test_an_eta_of_a_generator_is_unknown(plan, clock):
    """Nobody knows how many are to come."""
    session = plan(work, iter(range(40)), limits=Limits(concurrency=1, spacing_s=1))
    (seen,) = at(clock, session, 20.2)
    assert seen.eta_s is None


def test_a_failed_item_needs_no_eta_of_its_own(plan, clock):
    """Items that failed have ended too."""

    async def gone(item):
        await asyncio.sleep(LATENCY_S)
        msg = "gone"
        raise Permanent(msg)

    session = plan(gone, list(range(20)), limits=Limits(concurrency=1))
    (seen,) = at(clock, session, 5.2)
    assert seen.eta_s[0] == pytest.approx(5.0, rel=0.2)
