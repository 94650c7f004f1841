"""Limits as the server sees them: windows, spacing, batches, costs and further requests."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipybatch import Limits, Rate, Retry
from ipybatch.engine.store import resources
from ipybatch.simulators import Faults
from ipybatch.testing import VirtualClock
from tests.works import Starts, gaps, store, worst


def share_used(arrivals, limit, per_s, latency_s):
    """Return how much of limit / (per_s + latency) was used: the last arrival can come after so many windows."""
    windows = (len(arrivals) - 1) // limit
    return windows * (per_s + latency_s) / (arrivals[-1] - arrivals[0])


def test_concurrency_is_never_exceeded_and_always_used(plan, clock):
    work = Starts(1.0)
    clock.run(plan(work, list(range(40)), limits=Limits(concurrency=7)))
    assert work.most == 7
    assert clock.now_s() == pytest.approx(6.0)


def test_spacing_separates_starts(plan, clock):
    work = Starts(10.0)
    clock.run(plan(work, list(range(20)), limits=Limits(concurrency=20, spacing_s=1.5)))
    assert min(gaps(work.at)) >= 1.5 - 1e-9
    assert max(gaps(work.at)) == pytest.approx(1.5, abs=0.01)


def test_a_batch_ends_when_its_items_have_settled_and_then_comes_the_pause(plan, clock):
    """Retries belong to the batch: the pause begins after the last of them."""
    failed = set()

    async def work(item):
        starts.append((item, clock.now_s()))
        await asyncio.sleep(1)
        ends.append(clock.now_s())
        if item == 2 and item not in failed:
            failed.add(item)
            raise ConnectionError
        return item

    starts, ends = [], []
    session = plan(
        work, list(range(9)), limits=Limits(concurrency=9, batch_size=3, batch_pause_s=15), retry=Retry(initial_s=8)
    )
    clock.run(session)
    first_batch_ends = max(end for end, (item, _) in zip(ends, starts, strict=True) if item == 2)
    assert [item for item, _ in starts[:4]] == [0, 1, 2, 2]
    second = [at for item, at in starts if item in (3, 4, 5)]
    assert min(second) == pytest.approx(first_batch_ends + 15)
    groups = session.snapshot.groups
    assert [(group.name, group.items, group.done) for group in groups.values()] == [
        ("Batch 1", 3, 3),
        ("Batch 2", 3, 3),
        ("Batch 3", 3, 3),
    ]


def test_an_item_belongs_to_its_latest_group_and_counts_count_items(plan, clock):
    session = plan(Starts(), list(range(7)), limits=Limits(batch_size=3))
    clock.run(session)
    assert [group.items for group in session.snapshot.groups.values()] == [3, 3, 1]
    assert session.counts.total == 7


@pytest.mark.parametrize("jitter_s", [0.0, 0.02, 1.0, 3.0])
def test_300_ids_under_40_per_2_s_meet_no_429_at_97_percent_of_the_rate(plan, clock, jitter_s):
    """The server's own count: no window above its limit, whatever the jitter, and hardly a permit unused."""
    simulator, ask = store(limit=40, per_s=2.0, ban_after=1, faults=Faults(latency_s=0.005, jitter_s=jitter_s))
    limits = Limits(concurrency=200, rates=[Rate(40, per_s=2.0)])
    session = plan(ask, list(range(1, 301)), limits=limits)
    assert clock.run(session).counts.completed == 300
    stats = simulator.stats()
    assert stats["statuses"] == {"200": 300}
    assert (stats["bans"], stats["duplicates"], stats["worst"][0]["worst"] <= 40) == ([], [], True)
    if jitter_s <= 0.02:
        assert share_used(stats["arrivals"], 40, 2.0, latency_s=0.005 + jitter_s / 2) >= 0.97


@settings(suppress_health_check=list(HealthCheck))
@given(
    rates=st.lists(st.tuples(st.integers(1, 12), st.sampled_from([0.5, 1.0, 3.0, 10.0])), min_size=1, max_size=3),
    ways=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), min_size=1, max_size=12),
    concurrency=st.integers(1, 12),
)
def test_no_window_is_exceeded_as_an_adversary_delivers_them(tmp_path_factory, rates, ways, concurrency):
    """Promise 1, end to end: whatever the way in and the way out, no sliding window at the server is exceeded."""
    from ipybatch import BatchSession

    clock, arrivals = VirtualClock(), []

    async def work(item):
        way_in, way_out = ways[item % len(ways)]
        await asyncio.sleep(way_in)
        arrivals.append(clock.now_s())
        await asyncio.sleep(way_out)

    session = BatchSession(
        "adversary",
        work,
        list(range(40)),
        limits=Limits(concurrency=concurrency, rates=[Rate(limit, per_s=per_s) for limit, per_s in rates]),
        journal=tmp_path_factory.mktemp("adversary") / "journal.db",
        clock=clock,
    )
    assert clock.run(session).counts.completed == 40
    for limit, per_s in rates:
        assert worst(sorted(arrivals), per_s) <= limit


def test_windows_survive_a_restart_of_the_kernel(plan, clock):
    """A second process starts with the first one's requests in its windows."""
    limits = Limits(rates=[Rate(10, per_s=100)])
    first, second = Starts(0.5), Starts()
    clock.run(plan(first, list(range(10)), limits=limits, resource="store"))
    resources._resources.clear()  # all that a new process does not have
    clock.run(plan(second, [10], name="other", limits=limits, resource="store"))
    assert second.at[0] >= first.ends[0] + 100


def test_cost_reserves_tokens(plan, clock):
    """Ten items of 300 tokens under 1,000 a minute: three a minute."""
    work = Starts(1.0)
    limits = Limits(rates=[Rate(1000, per_s=60, unit="tokens")])
    clock.run(plan(work, list(range(10)), limits=limits, cost=lambda item: 300))
    assert worst(work.at, 60) == 3


def test_cost_of_a_dict_names_its_units(plan, clock):
    work = Starts(1.0)
    limits = Limits(rates=[Rate(1000, per_s=60, unit="tokens"), Rate(2, per_s=60)])
    clock.run(plan(work, list(range(4)), limits=limits, cost=lambda item: {"tokens": 10}))
    assert worst(work.at, 60) == 2


def test_what_an_attempt_really_cost_is_settled_after(plan, clock):
    """Reserved 500, used 100: ten fit into a window of 1,000, two at a time."""
    starts = []

    async def work(item, attempt):
        starts.append(clock.now_s())
        await asyncio.sleep(1)
        attempt.settle(tokens=100)

    limits = Limits(rates=[Rate(1000, per_s=60, unit="tokens")])
    clock.run(plan(work, list(range(10)), limits=limits, cost=lambda item: 500))
    assert worst(starts, 60) > 2


@pytest.mark.parametrize("amount", [2000, float("nan")])
def test_an_item_that_can_never_fit_fails_alone(plan, clock, amount):
    """The session does not wait for ever for one item: it fails, named with its cost and the rate."""
    limits = Limits(rates=[Rate(1000, per_s=60, unit="tokens")])
    session = plan(Starts(), [1, 2], limits=limits, cost=lambda item: amount if item == 1 else 10)
    assert str(clock.run(session)) == "wishlist completed: 1/2 successful, 1 failed, 0 skipped"
    assert "tokens" in session.results()["error"][0]


def test_a_cost_that_raises_fails_that_item_alone(plan, clock):
    limits = Limits(rates=[Rate(1000, per_s=60, unit="tokens")])
    session = plan(Starts(), [1, 2], limits=limits, cost=lambda item: {2: 10}[item])
    assert clock.run(session).counts.completed == 1


def test_every_further_request_of_an_attempt_takes_a_permit_of_its_own(plan, clock):
    """Three requests an item under 6 per 10 s: the server never sees a seventh."""
    sent = []

    async def work(item, attempt):
        sent.append(clock.now_s())
        await asyncio.sleep(0.1)
        for _ in range(2):
            async with attempt.permit():
                sent.append(clock.now_s())
                await asyncio.sleep(0.1)
        return attempt.requests

    session = plan(work, list(range(10)), limits=Limits(concurrency=5, rates=[Rate(6, per_s=10)]))
    assert clock.run(session).counts.completed == 10
    assert len(sent) == 30
    assert worst(sorted(sent), 10) <= 6
    assert session.results()["result"].tolist() == [3] * 10


def test_an_attempt_knows_its_key_and_its_number(plan, clock):
    seen = []

    async def work(item, attempt):
        seen.append((attempt.key, attempt.number))
        if attempt.number == 1:
            raise ConnectionError

    clock.run(plan(work, ["a"]))
    assert seen == [('"a"', 1), ('"a"', 2)]


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"concurrency": 0}, "concurrency must be a whole number >= 1, got 0"),
        ({"concurrency": 2.5}, "concurrency must be a whole number >= 1, got 2.5"),
        ({"spacing_s": -1}, "spacing_s must be >= 0 and <= 1e.09, got -1"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"batch_pause_s": 5}, "batch_pause_s needs batch_size"),
        ({"rates": [200]}, r"rates must hold Rate\(limit, per_s=...\), got 200"),
        ({"also": [3]}, "also must hold async context managers"),
        ({"shared": 3}, "shared must have an async try_acquire_async"),
    ],
    ids=str,
)
def test_limits_out_of_range_are_refused_by_field(limits, complaint):
    with pytest.raises(ValueError, match=complaint):
        Limits(**limits)
