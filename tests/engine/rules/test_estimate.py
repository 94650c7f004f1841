import asyncio
import tempfile
from itertools import count
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ipybatch import BatchSession, InputError, Limits, Rate, RateLimited
from ipybatch.engine.rules import estimate as estimates
from ipybatch.engine.rules.estimate import Estimate, estimate
from ipybatch.engine.store.shared_limiter import MERGE_S
from ipybatch.testing import VirtualClock
from tests.open_files import close_journal, forget_limits

limits = st.builds(
    lambda batch, pause_s, **others: Limits(batch_size=batch, batch_pause_s=pause_s if batch else 0, **others),
    batch=st.one_of(st.none(), st.integers(1, 20)),
    pause_s=st.sampled_from([0.0, 3.0, 15.0]),
    concurrency=st.integers(1, 12),
    spacing_s=st.sampled_from([0.0, 0.15, 1.5]),
    rates=st.lists(st.builds(Rate, st.integers(1, 30), st.sampled_from([1.0, 7.0, 60.0])), max_size=2),
)


def simulate(limits, items, latency_s, **arguments):
    return estimate(limits, items, latency_s, None, **arguments)


@given(limits=limits, count=st.integers(0, 60), latency_s=st.sampled_from([0.0, 0.05, 0.2, 2.0]))
def test_the_estimate_is_the_engine(limits, count, latency_s):
    """A run in virtual time with that latency takes what was estimated, in as many requests and batches.

    Answers that come within `MERGE_S` are counted as one, of the last moment: each window may end so much later.
    """
    clock, asked = VirtualClock(), []

    async def work(item):
        asked.append(item)
        await asyncio.sleep(latency_s)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        try:
            session = BatchSession("estimated", work, list(range(count)), limits=limits, journal=path, clock=clock)
            told = session.estimate(latency_s=latency_s)
            summary = clock.run(session)
        finally:
            close_journal(path)
    later_s = MERGE_S * max((told.seconds / rate.per_s for rate in limits.rates), default=0.0)
    assert told.seconds - 1e-3 <= summary.seconds <= told.seconds + later_s + 1e-3
    assert (told.requests, told.batches) == (len(asked), len(session.snapshot.groups))


@given(limits=limits, count=st.integers(1, 80), latency_s=st.floats(0.01, 3))
def test_low_and_high_lie_around_the_estimate(limits, count, latency_s):
    """Half the latency takes no longer; twice the latency and some retries no less."""
    assume(limits.batch_size is None)  # a retry may move an item over the end of a batch
    told = simulate(limits, count, latency_s)
    assert told.low_s <= told.seconds + 1e-9
    assert told.high_s >= told.seconds - 1e-9


def test_the_store_with_its_defaults_takes_what_can_be_reckoned():
    """500 items, 1.5 s apart, 15 a batch, 15 s between: 33 pauses, 466 gaps, 34 last answers."""
    limits = Limits(concurrency=3, spacing_s=1.5, batch_size=15, batch_pause_s=15)
    told = simulate(limits, 500, 0.2)
    assert told.seconds == pytest.approx(33 * 15 + 466 * 1.5 + 34 * 0.2)
    assert (told.requests, told.batches) == (500, 34)


def test_retries_are_in_the_high_estimate():
    """5 % of the requests are sent twice there."""
    told = simulate(Limits(concurrency=1), 100, 1.0)
    assert told.seconds == pytest.approx(100.0)
    assert told.low_s == pytest.approx(50.0)
    assert told.high_s == pytest.approx(2 * 105.0)


def test_a_million_items_are_extrapolated_and_it_says_so():
    """Up to 100,000 are simulated."""
    told = simulate(Limits(concurrency=100), 1_000_000, 0.1)
    assert told.extrapolated
    assert told.requests == 1_000_000
    assert told.seconds == pytest.approx(1000.0)
    assert str(told).startswith("about 16.7 min (")
    assert str(told).endswith("1,000,000 requests (first 100,000 items simulated, the rest extrapolated)")


def test_nothing_to_do_takes_no_time():
    """Zero items: zero seconds, zero requests."""
    assert simulate(Limits(batch_size=5, batch_pause_s=15), 0, 0.2) == Estimate(0.0, 0.0, 0.0, 0, 0)


def test_costs_are_counted(plan):
    """Tokens limit the estimate as they limit the run."""
    limits = Limits(concurrency=10, rates=[Rate(100, per_s=60, unit="tokens")])

    async def work(item):
        await asyncio.sleep(1)

    session = plan(work, [{"id": n, "tokens": 50} for n in range(6)], limits=limits, cost=lambda item: item["tokens"])
    told = session.estimate(latency_s=1.0)
    assert told.seconds == pytest.approx(2 * (60.03 + 1) + 1, rel=1e-3)


class AtMost:
    """A pacer that lets so many requests run at once."""

    windows = ()

    def __init__(self, most):
        self.most, self.running, self.started = most, 0, 0

    def wait_s(self, now_s, cost):
        return 0.0 if self.running < self.most else 10.0

    def start(self, now_s, cost):
        self.running += 1
        self.started += 1

    def end(self, now_s, started_s, cost, actual):
        self.running -= 1

    def anew(self):
        return AtMost(self.most)


def test_an_estimate_asks_a_pacer_of_its_own():
    """It keeps to what the session's pacer holds to, on a clock of its own: nothing it simulates counts as sent."""
    pacer = AtMost(2)
    told = simulate(Limits(concurrency=10, pacer=pacer), 6, 1.0)
    assert told.seconds == pytest.approx(3.0)
    assert pacer.started == 0


@pytest.mark.parametrize("bad", [5000, -1])
def test_an_item_that_never_fits_does_not_hang_the_estimate(plan, patience, bad):
    """It fails in the run; the estimate goes on without it."""
    limits = Limits(rates=[Rate(100, per_s=60, unit="tokens")])
    session = plan(lambda item: None, [10, bad, 20], limits=limits, cost=lambda item: item)
    assert session.estimate(latency_s=1.0).seconds < 60


def test_estimating_changes_nothing(plan, clock):
    """It can be asked before, between and after; items are not touched, and what is left is estimated."""

    async def work(item):
        await asyncio.sleep(1)
        if item == 3:
            msg = "gone"
            raise ConnectionError(msg)

    session = plan(work, [1, 2, 3], limits=Limits(concurrency=1), retry=None)
    before = session.estimate(latency_s=1.0)
    assert session.estimate(latency_s=1.0) == before
    assert (session.state, session.counts.pending, before.requests) == ("planned", 3, 3)
    clock.run(session)
    assert session.counts.completed == 2


def test_a_generator_is_not_drawn_from(plan):
    """It needs ``n``, and consumes nothing."""
    drawn = []
    items = (drawn.append(n) or n for n in range(10))
    session = plan(lambda item: None, items)
    with pytest.raises(InputError, match="n must be given: the items come from a generator"):
        session.estimate()
    assert session.estimate(n=50).requests == 50
    assert drawn == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60.0, "1.0 min"),
        (3000.0, "50.0 min"),
        (3600.0, "1.0 h"),
        (3_600_000.0, "1000.0 h"),
    ],
)
def test_it_reads_as_people_say_it(seconds, words):
    """Seconds, minutes or hours; requests with separators; batches and cost where there are any."""
    told = Estimate(seconds, seconds, seconds, 1200, 34, usd=1.5)
    assert str(told) == f"about {words} ({words} to {words}), 1,200 requests in 34 batches, $1.50"
    assert "batches" not in str(Estimate(1, 1, 1, 5, 0))


def test_the_bound_of_the_simulation_is_the_documented_one():
    """The docstring and the text name it."""
    assert estimates.SIMULATED_AT_MOST == 100_000


FORTY = Limits(concurrency=4, rates=[Rate(40, per_s=120)])


async def answer(item):
    await asyncio.sleep(0.2)


async def refuse(item):
    raise RateLimited(retry_after_s=600)


def cool_down(plan, clock, **arguments):
    """Let the service ask for ten minutes, of which one passes."""
    session = plan(refuse, ["eu"], name="first", **arguments)

    async def stop():
        await asyncio.sleep(60.0)
        session.cancel()

    clock.run(session, stop())


def fill(plan, clock, **arguments):
    clock.run(plan(answer, list(range(40)), name="first", **arguments))


GROUPS = {"per": lambda item: [("region", item), "all"], "limits": Limits(each=Limits(rates=[Rate(40, per_s=120)]))}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param((fill, {"limits": FORTY}, 60, "40 of 40 per 120 s are used"), id="40 of 40"),
        pytest.param((cool_down, {}, 60, "the service asked first to slow down"), id="cool-down"),
        pytest.param((cool_down, {"limits": FORTY}, 60, "the service asked first to slow down"), id="both"),
        pytest.param((cool_down, GROUPS, ["eu"] * 60, "the service asked first to slow down"), id="groups"),
    ],
)
@pytest.mark.parametrize("is_anew", [False, True])
def test_an_estimate_knows_what_is_in_force(plan, clock, case, is_anew):
    """Of this process, or of one that is gone; it says so, and is right within its own bounds."""
    begin, arguments, items, why = case
    begin(plan, clock, resource="store", **arguments)
    if is_anew:
        forget_limits()
    given = list(range(items)) if isinstance(items, int) else items
    numbers = count()
    session = plan(answer, given, name="second", resource="store", key=lambda item: next(numbers), **arguments)
    told = session.estimate(latency_s=0.2)
    assert told.begins_s > 60.0
    assert told.why.endswith(why)
    assert f"; nothing starts for {told.begins_s / 60:.1f} min: {told.why}" in str(told)
    began_s = clock.now_s()
    clock.run(session)
    assert session.state == "completed"
    assert told.low_s <= clock.now_s() - began_s <= told.high_s
    assert told.seconds == pytest.approx(clock.now_s() - began_s, abs=1.0)


def test_an_estimate_waits_for_nothing_where_nothing_is_in_force(plan, clock):
    """Half a window is used: that counts, and is no reason to wait. A private resource is another one."""
    clock.run(plan(answer, list(range(20)), name="first", resource="store", limits=FORTY))
    session = plan(answer, list(range(30)), name="second", resource="store", limits=FORTY)
    told = session.estimate(latency_s=0.2)
    assert (told.begins_s, told.why) == (pytest.approx(0.0, abs=0.1), "")
    assert 100 < told.seconds < 125
    assert plan(answer, list(range(30)), name="third", limits=FORTY).estimate(latency_s=0.2).seconds < 10


def test_an_estimate_holds_to_the_limits_of_those_who_share(plan, clock):
    """While they are there."""
    other = plan(
        answer, list(range(9)), name="first", resource="store", limits=Limits(concurrency=1, rates=[Rate(1, 60)])
    )
    session = plan(answer, list(range(4)), name="second", resource="store", limits=Limits(rates=[Rate(40, per_s=1)]))
    seen = []

    async def ask():
        await asyncio.sleep(1.0)
        seen.append(session.estimate(latency_s=0.2).seconds)
        other.cancel()

    clock.run(other, ask())
    seen.append(session.estimate(latency_s=0.2).seconds)
    assert seen[0] > 180.0
    assert seen[1] < 1.0


def test_what_is_extrapolated_waits_only_once():
    """A cool-down does not grow with the number of items."""
    in_force = estimates.InForce(cool_s=600.0, why="asked to")
    limits = Limits(concurrency=10, rates=[Rate(1000, per_s=1)])
    short, long = (estimate(limits, n, 0.1, None, look=lambda *_: in_force) for n in (100_000, 1_000_000))
    assert short.seconds == pytest.approx(600 + 1000, rel=0.05)
    assert long.seconds == pytest.approx(600 + 10_000, rel=0.05)
    assert "nothing starts for 10.0 min: asked to" in str(long)


def test_an_estimate_counts_what_others_have_in_flight(plan, clock):
    """It may be answered now, at the earliest, and then counts for a whole window."""

    async def long(item):
        await asyncio.sleep(50.0)

    limits, seen = Limits(concurrency=4, rates=[Rate(4, per_s=60)]), []
    other = plan(long, list(range(4)), name="first", resource="store", limits=limits)
    session = plan(answer, [1], name="second", resource="store", limits=limits)

    async def ask():
        await asyncio.sleep(5.0)
        seen.append(session.estimate(latency_s=0.2))

    clock.run(other, ask())
    assert seen[0].begins_s == pytest.approx(60.0, abs=0.1)
    assert seen[0].why == "4 of 4 per 60 s are used"


def test_an_estimate_takes_a_year_for_what_a_start_makes_of_it(plan, clock):
    async def never(item):
        raise RateLimited(retry_after_s=31_536_000)

    async def stop():
        await asyncio.sleep(1.0)
        session.cancel()

    session = plan(never, [1], name="first", resource="store")
    clock.run(session, stop())
    assert plan(answer, [1], name="second", resource="store").estimate().begins_s == pytest.approx(3600.0)
