"""LimitGroups: limits of their own for the items of a region, under those that all share."""

import asyncio
import math

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipybatch import Breaker, InputError, Limits, Rate, RateLimited, Retry
from ipybatch.engine.data.events import BreakerMoved
from ipybatch.engine.feed import event_text
from ipybatch.engine.rules.limiter import CLOCK_DRIFT
from ipybatch.engine.store import resources
from ipybatch.engine.store.limit_store import MemoryLimits
from ipybatch.testing import VirtualClock
from tests.works import Mortal, run_until_killed, worst


class Regions:
    """Work that notes when each region was asked, and answers after ``seconds``."""

    def __init__(self, clock, seconds=0.1):
        self.clock, self.seconds = clock, seconds
        self.at = {}
        self.running = {}
        self.most = {}

    async def __call__(self, item):
        region = region_of(item)
        self.at.setdefault(region, []).append(self.clock.now_s())
        self.running[region] = self.running.get(region, 0) + 1
        self.most[region] = max(self.most.get(region, 0), self.running[region])
        await asyncio.sleep(self.seconds)
        self.running[region] -= 1
        return item


def region_of(item):
    return item.split("-")[0]


def items(**counts):
    return [f"{region}-{number}" for region, count in counts.items() for number in range(count)]


def all_at(work):
    return sorted(at for region in work.at.values() for at in region)


def test_each_lane_keeps_its_own_window_and_all_keep_the_common_one(plan, clock):
    work = Regions(clock)
    limits = Limits(concurrency=50, rates=[Rate(15, per_s=1.0)], each=Limits(concurrency=50, rates=[Rate(10, 1.0)]))
    assert clock.run(plan(work, items(eu=60, us=60), limits=limits, per=region_of)).counts.completed == 120
    assert max(worst(at, 1.0) for at in work.at.values()) == 10
    assert worst(all_at(work), 1.0) == 15


def test_a_lane_that_must_wait_holds_up_no_other(plan, clock):
    """All of "eu" come first in the list, and fill their hour; "us" is done at once all the same."""
    work = Regions(clock)
    limits = Limits(concurrency=5, each=Limits(concurrency=5, rates=[Rate(10, per_s=3600.0)]))
    clock.run(plan(work, items(eu=25, us=8), limits=limits, per=region_of))
    assert max(work.at["us"]) < 2
    assert max(work.at["eu"]) > 7200


def test_a_lane_has_a_concurrency_and_a_spacing_of_its_own(plan, clock):
    work = Regions(clock, seconds=10.0)
    limits = Limits(concurrency=9, each=Limits(concurrency=2, spacing_s=3.0))
    clock.run(plan(work, items(eu=6, us=6), limits=limits, per=region_of))
    assert work.most == {"eu": 2, "us": 2}
    assert min(later - sooner for sooner, later in zip(work.at["eu"], work.at["eu"][1:], strict=False)) >= 3.0


def test_a_429_cools_down_its_own_group_only(plan, clock):
    refused = []

    async def work(item):
        at.setdefault(region_of(item), []).append(clock.now_s())
        if item == "eu-0" and not refused:
            refused.append(item)
            raise RateLimited("too many", retry_after_s=600)
        await asyncio.sleep(1)

    at = {}
    limits = Limits(concurrency=2, each=Limits(concurrency=1))
    session = plan(work, items(eu=3, us=3), limits=limits, per=region_of, retry=Retry(attempts=3))
    assert clock.run(session).counts.completed == 6
    assert max(at["us"]) < 10
    assert sorted(at["eu"])[1] >= 600
    assert [entry.limit_group for entry in session._feed.log if hasattr(entry, "limit_group")] == ["eu"]


def test_further_requests_take_permits_of_their_lane(plan, clock):
    """And one that waits for its limit group does not hold up those of another."""
    asked = {}

    async def work(item, attempt):
        region = region_of(item)
        asked.setdefault(region, []).append(clock.now_s())
        async with attempt.permit():
            asked[region].append(clock.now_s())

    limits = Limits(concurrency=20, each=Limits(concurrency=20, rates=[Rate(4, per_s=60.0)]))
    clock.run(plan(work, items(eu=8, us=1), limits=limits, per=region_of))
    assert worst(asked["eu"], 60.0) == 4
    assert max(asked["us"]) < 1


def test_a_restart_keeps_the_windows_of_lanes(plan, clock):
    limits = Limits(each=Limits(rates=[Rate(5, per_s=3600.0)]))
    clock.run(plan(Regions(clock), items(eu=5), limits=limits, per=region_of))
    resources._resources.clear()  # what a new process knows: nothing
    work = Regions(clock)
    clock.run(plan(work, [*items(eu=5, us=1), "eu-again"], limits=limits, per=region_of))
    assert work.at["us"][0] < 10
    assert work.at["eu"][0] >= 3600


def test_what_was_in_flight_at_a_crash_counts_in_its_lane(plan, clock):
    """The server may have seen it: each limit group's window holds what was under way in it."""
    store = Mortal(MemoryLimits(clock.now_s))
    limits = Limits(concurrency=9, store=store, each=Limits(rates=[Rate(5, per_s=3600.0)]))
    session = plan(Regions(clock, seconds=60.0), items(eu=3, us=1), limits=limits, per=region_of)
    run_until_killed(clock, session, store, after_s=5.0)
    restarted_s, work = clock.now_s(), Regions(clock)
    clock.run(plan(work, items(eu=5, us=5), limits=limits, per=region_of))
    assert sum(at < restarted_s + 3600 for at in work.at["eu"]) == 5 - 3
    assert sum(at < restarted_s + 3600 for at in work.at["us"]) == 5 - 1


class Filled(MemoryLimits):
    """A store in which another process fills a lane, in the moment in which it is asked for a permit there."""

    def exchange(self, report):
        if (
            report.resource.endswith('"eu"')
            and report.wanted is not None
            and not self.history(report.resource, math.inf)
        ):
            super().exchange(msgspec.structs.replace(report, wanted=None, spent=[(0.0, "requests", 4.0)]))
        return super().exchange(report)


def test_a_lane_that_another_process_filled_holds_up_no_other(plan, clock):
    work = Regions(clock)
    each = Limits(concurrency=20, rates=[Rate(4, per_s=60.0)])
    limits = Limits(concurrency=20, each=each, store=Filled(clock.now_s))
    clock.run(plan(work, items(eu=2, us=4), limits=limits, per=region_of, resource="api"))
    assert max(work.at["us"]) < 1
    assert min(work.at["eu"]) >= 60


def test_sessions_of_one_resource_share_its_lanes(plan, clock):
    work = Regions(clock)
    limits = Limits(concurrency=5, each=Limits(rates=[Rate(5, per_s=1.0)]))
    one, other = (
        plan(work, [f"eu-{name}{at}" for at in range(20)], name=name, limits=limits, per=region_of, resource="api")
        for name in ("one", "other")
    )

    async def together():
        await asyncio.gather(one.drive(), other.drive())

    clock.run_coroutine(together())
    assert one.counts.completed == other.counts.completed == 20
    assert worst(work.at["eu"], 1.0) == 5


def test_lanes_and_batches_go_together(plan, clock):
    work = Regions(clock)
    limits = Limits(batch_size=4, batch_pause_s=10, each=Limits(rates=[Rate(1, per_s=2.0)]))
    session = plan(work, items(eu=4, us=4), limits=limits, per=region_of)
    assert clock.run(session).counts.completed == 8
    assert [group.items for group in session.snapshot.groups.values()] == [4, 4]


def test_a_generator_is_drawn_ahead_for_lanes_that_are_free_but_not_without_end(plan, clock):
    """A thousand items of a limit group that waits are enough: the rest stays where it is."""
    drawn = []

    def endless():
        for number in range(2500):
            drawn.append(number)
            yield f"eu-{number}"
        yield "us-0"

    limits = Limits(concurrency=2, each=Limits(rates=[Rate(2, per_s=1.0)]))

    async def work(item):
        if item == "eu-0":
            held.append(len(drawn))
        await asyncio.sleep(0.1)
        held.append(len(drawn))

    held = []
    session = plan(work, endless(), limits=limits, per=region_of)
    assert clock.run(session).counts.completed == 2501
    assert held[0] < 10
    assert 900 < held[2] < 1800  # and what is read ahead


def test_an_estimate_reckons_with_lanes(plan):
    limits = Limits(concurrency=100, each=Limits(concurrency=100, rates=[Rate(10, per_s=1.0)]))
    one = plan(Regions(None), items(eu=100), limits=limits, per=region_of).estimate(latency_s=0.1)
    two = plan(Regions(None), items(eu=50, us=50), limits=limits, per=region_of, name="two").estimate(latency_s=0.1)
    assert two.seconds == pytest.approx(one.seconds / 2, rel=0.15)


regions = st.lists(st.sampled_from(["eu", "us", "kr"]), min_size=1, max_size=40)


@given(regions, st.integers(1, 6), st.integers(1, 6), st.floats(0.0, 2.0))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_window_is_ever_exceeded(tmp_path_factory, wanted, common, own, latency_s):
    """Whatever the mix of limit groups: the server of each, and the one that all share, count as they should."""
    from ipybatch import BatchSession

    clock = VirtualClock()
    work = Regions(clock, latency_s)
    limits = Limits(
        concurrency=8, rates=[Rate(common, per_s=1.0)], each=Limits(concurrency=8, rates=[Rate(own, per_s=1.0)])
    )
    journal = tmp_path_factory.mktemp("limit groups") / "journal.db"
    listed = [f"{region}-{number}" for number, region in enumerate(wanted)]
    session = BatchSession("limit groups", work, listed, limits=limits, per=region_of, journal=journal, clock=clock)
    assert clock.run(session).counts.completed == len(listed)
    assert worst(all_at(work), 1.0) <= common
    assert max(worst(at, 1.0) for at in work.at.values()) <= own
    assert clock.now_s() < math.ceil(len(listed) / min(common, own)) * (1.0 * CLOCK_DRIFT + latency_s) + 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"per": region_of}, "per and Limits"),
        ({"limits": Limits(each=Limits())}, "add per="),
        ({"per": "region", "limits": Limits(each=Limits())}, "per must be a function of an item"),
    ],
)
def test_lanes_need_limits_and_limits_lanes(plan, arguments, words):
    with pytest.raises(InputError, match=words):
        plan(Regions(None), ["eu-1"], **arguments)


@pytest.mark.parametrize("wrong", [Limits(batch_size=2), Limits(each=Limits()), 5])
def test_what_a_lane_cannot_hold_to_is_refused(wrong):
    with pytest.raises(InputError, match="each must"):
        Limits(each=wrong)


class Regional:
    """Work of which some regions are down, for a time or for good, and which notes when each was asked."""

    def __init__(self, clock, down, until_s=math.inf):
        self.clock, self.down, self.until_s = clock, down, until_s
        self.at = {}

    async def __call__(self, item):
        region = region_of(item)
        self.at.setdefault(region, []).append(self.clock.now_s())
        await asyncio.sleep(0.1)
        if region in self.down and self.clock.now_s() < self.until_s:
            raise ConnectionError
        return item


APART = Limits(concurrency=4, each=Limits(concurrency=2))


def moves(session):
    return [(event.limit_group, event.state) for event in session.snapshot.breaker_moves]


def test_each_group_has_a_breaker_of_its_own(plan, clock):
    """A dead region is left alone while the others go on, and their successes do not close it."""
    work = Regional(clock, {"eu"}, until_s=200.0)
    session = plan(work, items(eu=6, us=600), limits=APART, per=region_of, breaker=Breaker(failures=3, break_s=60))
    assert clock.run(session).counts.completed == 606
    assert max(work.at["us"]) < 40, "us went on as if nothing were"
    early = [at for at in work.at["eu"] if at < 59]
    assert len(early) <= 4, "three failures, and one that was under way"
    assert moves(session)[0] == ("eu", "open")
    assert {group for group, _ in moves(session)} == {"eu"}
    assert moves(session)[-1] == ("eu", "closed")
    assert session.snapshot.breaker.state == "closed"
    assert worst(work.at["eu"][len(early) : -6], 30.0) == 1, "one probe a break"


def test_the_worst_breaker_is_shown_by_its_groups_name(plan, clock):
    """In the panel's head, in the log and in a terminal."""
    seen = []
    work = Regional(clock, {"eu", "kr"}, until_s=50.0)
    limits = Limits(concurrency=9, each=Limits(concurrency=2))
    session = plan(
        work,
        items(us=40, eu=4, kr=1),
        limits=limits,
        per=region_of,
        retry=Retry(attempts=2),
        breaker=Breaker(failures=3, break_s=60),
    )
    session.on(lambda event: seen.append((session.snapshot.breaker.limit_group, session.snapshot.breaker.state)))
    told = []
    session.on(lambda event: told.append(event) if isinstance(event, BreakerMoved) else None)
    clock.run(session)
    assert ("eu", "open") in seen
    assert ("kr", "open") not in seen
    (opened,) = [event for event in told if event.state == "open"]
    assert event_text.line_of(opened) == "breaker of eu open after 3 failures in a row"
    ((_, words),) = [(line.level, line.text) for line in event_text.lines([(1, opened)], {})]
    assert words == "Breaker of eu open after 3 failures in a row; opening 1"
    assert seen[-1] == ("kr", "closed"), "two failures, and no success since"


@pytest.mark.parametrize("as_generator", [False, True], ids=["list", "generator"])
def test_a_group_that_gives_up_is_left_and_the_others_go_on(plan, clock, as_generator):
    """What is left of it is skipped, with the reason that names it; the next call does it."""
    work = Regional(clock, {"eu"})
    given = [*items(eu=40), *items(us=400)]
    session = plan(
        work,
        iter(given) if as_generator else given,
        limits=APART,
        per=region_of,
        breaker=Breaker(failures=2, break_s=1, give_up_after=2),
    )
    summary = clock.run(session)
    assert summary.state == "failed"
    assert session.reason == (
        "limit group eu: the service failed: the breaker opened 2 times in a row; last: ConnectionError"
    )
    assert session.counts.completed == 400
    assert session.counts.failed + session.counts.skipped == 40
    assert session.counts.skipped >= 35
    assert len(work.at["eu"]) <= 5
    notes = [note for note in session.snapshot.notes if "eu" in note]
    assert notes == [f"{session.reason}; what is left of it is skipped, the others go on"]
    work.down = ()
    session._open_run()
    clock.run_coroutine(session._drive())
    assert (session.state, session.counts.completed) == ("completed", 440)
    assert sorted(session.results()["key"]) == sorted(given)


def test_when_all_groups_gave_up_the_session_has_failed(plan, clock):
    """At once, not when the list has been gone through."""
    work = Regional(clock, set("abcdefg"))
    given = [f"{region}-{number}" for number in range(50) for region in "abcdefg"]
    policy = Breaker(failures=1, break_s=1, give_up_after=1)
    session = plan(work, given, limits=Limits(concurrency=9, each=Limits(concurrency=1)), per=region_of, breaker=policy)
    clock.run(session)
    assert session.state == "failed"
    assert session.reason == (
        "limit groups a, b, c, d, e and 2 more: the service failed, the breaker opened; last: ConnectionError"
    )
    assert session.counts.skipped == 350  # those that met the outage too: it is no fault of theirs


def test_batches_go_on_without_the_group_that_gave_up(plan, clock):
    """Its items end no batch, and hold none up."""
    work = Regional(clock, {"eu"})
    limits = Limits(concurrency=4, batch_size=4, batch_pause_s=10, each=Limits(concurrency=1))
    given = [f"{region}-{number}" for number in range(20) for region in ("eu", "us")]
    policy = Breaker(failures=2, break_s=1, give_up_after=1)
    session = plan(work, given, limits=limits, per=region_of, breaker=policy)
    clock.run(session)
    assert (session.state, session.counts.completed) == ("failed", 20)
    assert len(work.at["us"]) == 20


def test_a_group_that_gives_up_takes_what_waits_for_a_retry_along(plan, clock):
    """The session does not wait for it: it ends when the others have."""
    work = Regional(clock, {"eu"})
    limits = Limits(concurrency=9, each=Limits(concurrency=9))
    session = plan(
        work,
        items(eu=3, us=3),
        limits=limits,
        per=region_of,
        retry=Retry(attempts=9, initial_s=500, max_s=500),
        breaker=Breaker(failures=3, break_s=1, give_up_after=1),
    )
    clock.run(session)
    assert session.state == "failed"
    assert clock.now_s() < 5


class Further:
    """Work of which one item asks for further permits, and which notes when each request was sent."""

    def __init__(self, clock, asks="eu-0", times=1):
        self.clock, self.asks, self.times = clock, asks, times
        self.at, self.further_s = {}, []

    async def __call__(self, item, attempt):
        self.at.setdefault(region_of(item), []).append(self.clock.now_s())
        await asyncio.sleep(0.1)
        for _ in range(self.times if item == self.asks else 0):
            async with attempt.permit():
                self.further_s.append(self.clock.now_s())
                await asyncio.sleep(0.1)


def test_a_further_permit_of_a_full_group_stops_that_group_alone(plan, clock):
    """It goes before what has not started there; the others have nothing of it, and start on."""
    work = Further(clock, times=4)
    limits = Limits(concurrency=3, each=Limits(concurrency=3, rates=[Rate(4, per_s=30.0)]))
    others = [f"{region}-{number}" for region in "abcdefghij" for number in range(4)]
    clock.run(plan(work, [*items(eu=6), *others], limits=limits, per=region_of))
    assert max(at for region in "abcdefghij" for at in work.at[region]) < 5
    later = [at for at in work.at["eu"] if at > 1]
    assert max(work.further_s) <= min(later), "the one under way goes first"
    assert worst([*work.at["eu"], *work.further_s], 30.0) == 4


def test_a_further_permit_that_waits_for_the_common_window_goes_before_all(plan, clock):
    """With groups as without them."""
    for name, arguments in (("alone", {}), ("groups", {"per": region_of})):
        work = Further(clock, asks="eu-0")
        limits = Limits(concurrency=2, rates=[Rate(4, per_s=30.0)], each=Limits(concurrency=2) if arguments else None)
        began_s = clock.now_s()
        clock.run(plan(work, items(eu=6, us=3), name=name, limits=limits, **arguments))
        sent = sorted(at for region in work.at.values() for at in region)
        assert worst([*sent, *work.further_s], 30.0) == 4
        assert work.further_s[0] - began_s < 1, name


def test_a_first_request_that_a_pause_keeps_back_holds_up_no_further_one(plan, clock):
    """What runs finishes while the session is paused; the first request goes when it goes on."""
    sent, entered = [], []

    async def work(item, attempt):
        entered.append(item)
        if item == "first":
            await asyncio.sleep(1.0)  # the pause comes
        else:
            async with attempt.permit():
                await asyncio.sleep(2.0)
        async with attempt.permit():
            sent.append((item, clock.now_s()))

    async def pause():
        await asyncio.sleep(0.5)
        session.pause()
        await asyncio.sleep(9.5)
        session.resume()

    limits = Limits(concurrency=2, rates=[Rate(100, per_s=1.0)])
    session = plan(work, ["first", "other"], limits=limits, cost=lambda item: {"requests": 0 if item == "first" else 1})
    clock.run(session, pause())
    assert [item for item, _ in sent] == ["other", "first"]
    assert sent[0][1] < 3
    assert sent[1][1] >= 10


outages = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 20.0), st.floats(0.1, 60.0)), max_size=5)


@given(outages, st.integers(1, 3), st.integers(0, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_groups_outage_never_delays_another(tmp_path_factory, down, at_once, give_up_after):
    """Whatever is down when: what is never down is done as if it were alone, and its breaker never moves."""
    from ipybatch import BatchSession

    clock = VirtualClock()

    async def work(item):
        began_s = clock.now_s()
        at.setdefault(region_of(item), []).append(began_s)
        await asyncio.sleep(0.5)
        if any(item[0] == region and since <= began_s < since + length for region, since, length in down):
            raise ConnectionError

    at = {}
    session = BatchSession(
        "limit groups",
        work,
        [f"{region}-{number}" for number in range(10) for region in "abcw"],
        limits=Limits(concurrency=4 * at_once, each=Limits(concurrency=at_once)),
        per=region_of,
        breaker=Breaker(failures=2, break_s=5, give_up_after=give_up_after + 1),
        journal=tmp_path_factory.mktemp("limit groups") / "journal.db",
        clock=clock,
    )
    clock.run(session)
    assert len(at["w"]) == 10
    assert max(at["w"]) <= 0.5 * math.ceil(10 / at_once)
    assert {group for group, _ in moves(session)} <= {region for region, *_ in down}
    assert session.counts.completed + session.counts.failed + session.counts.skipped == 40
    assert session.state == "completed" or "limit group" in session.reason


names = st.one_of(
    st.text(max_size=5), st.integers(-2, 2), st.none(), st.booleans(), st.floats(), st.just(KeyError("region"))
)


@given(st.lists(names, min_size=1, max_size=8), st.integers(1, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_common_window_holds_whatever_per_returns(tmp_path_factory, named, common):
    """And each item is sent once, or fails alone, told why by the name of the argument."""
    from ipybatch import BatchSession

    def per(item):
        name = named[item % len(named)]
        if isinstance(name, Exception):
            raise name
        return name

    clock = VirtualClock()
    at = []

    async def work(item):
        at.append(clock.now_s())

    limits = Limits(concurrency=9, rates=[Rate(common, per_s=1.0)], each=Limits(rates=[Rate(50, per_s=1.0)]))
    journal = tmp_path_factory.mktemp("limit groups") / "journal.db"
    session = BatchSession("limit groups", work, list(range(30)), limits=limits, per=per, journal=journal, clock=clock)
    counts = clock.run(session).counts
    right = sum(
        isinstance(named[item % len(named)], str | int)
        and not isinstance(named[item % len(named)], bool)
        and str(named[item % len(named)]).strip() != ""
        for item in range(30)
    )
    assert (counts.completed, counts.failed) == (right, 30 - right)
    assert len(at) == right
    assert not at or worst(at, 1.0) <= common
    errors = session.results().query("status == 'failed'")["error"]
    assert errors.str.startswith("per= ").all()
