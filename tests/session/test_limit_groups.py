"""LimitGroups: limits of their own for the items of a region, under those that all share."""

import asyncio
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipybatch import InputError, Limits, Rate, RateLimited, Retry
from ipybatch.engine.rules.limiter import CLOCK_DRIFT
from ipybatch.engine.store import resources
from ipybatch.testing import VirtualClock
from tests.works import worst


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


def test_a_restart_keeps_the_windows_of_lanes(plan, clock, journal):
    limits = Limits(each=Limits(rates=[Rate(5, per_s=3600.0)]))
    clock.run(plan(Regions(clock), items(eu=5), limits=limits, per=region_of))
    resources._resources.clear()  # what a new process knows: nothing
    work = Regions(clock)
    clock.run(plan(work, [*items(eu=5, us=1), "eu-again"], limits=limits, per=region_of, resource="session wishlist"))
    assert work.at["us"][0] < 10
    assert work.at["eu"][0] >= 3600


def test_what_was_in_flight_at_a_crash_counts_in_every_lane(plan, clock, journal):
    """Which limit group it was in is not known: it may have been any."""
    from ipybatch.engine.store.journal import open_journal

    limits = Limits(concurrency=5, each=Limits(rates=[Rate(5, per_s=3600.0)]))
    session = plan(Regions(clock), items(eu=1, us=1), limits=limits, per=region_of)
    clock.run(session)
    killed_at_s = clock.unix_s()
    open_journal(journal).write(
        lambda database: database.execute(
            "UPDATE run SET owner = 'elsewhere/1/x', beat_s = ?, concurrency = 5", (killed_at_s,)
        )
    )
    resources._resources.clear()
    clock.run_coroutine(asyncio.sleep(100.0))
    work = Regions(clock)
    clock.run(plan(work, [*items(eu=1, us=1), "eu-new", "us-new"], limits=limits, per=region_of))
    assert min(all_at(work)) >= 3600


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
        for number in range(1500):
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
    assert clock.run(session).counts.completed == 1501
    assert held[0] < 10
    assert 900 < held[2] <= 1002


def test_an_estimate_reckons_with_lanes(plan):
    limits = Limits(concurrency=100, each=Limits(concurrency=100, rates=[Rate(10, per_s=1.0)]))
    one = plan(Regions(None), items(eu=100), limits=limits, per=region_of).estimate(latency_s=0.1)
    two = plan(Regions(None), items(eu=50, us=50), limits=limits, per=region_of, name="two").estimate(latency_s=0.1)
    assert two.seconds == pytest.approx(one.seconds / 2, rel=0.15)


regions = st.lists(st.sampled_from(["eu", "us", "kr"]), min_size=1, max_size=40)


@given(regions, st.integers(1, 6), st.integers(1, 6), st.floats(0.0, 2.0))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
