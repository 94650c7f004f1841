from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ipybatch.engine.data.policy import Limits
from ipybatch.engine.rules.estimate import estimate
from ipybatch.gemini.durations import Pace, batch_s, flex_s, online_s, parallel_from, sequential_s

paces = st.builds(
    Pace,
    latency_s=st.sampled_from([0.2, 5.0, 50.0]),
    rpm=st.sampled_from([None, 2, 60, 1000]),
    concurrency=st.sampled_from([None, 1, 3, 5, 6, 10, 40]),
)


@given(pace=paces, requests=st.integers(0, 300))
def test_online_is_what_the_engine_would_take(pace, requests):
    """The formula and a dry run of the scheduler agree, within one answer for each 10 requests that are retried."""
    assume(pace.rpm is None or pace.at_once * pace.gap_s >= 2 * pace.latency_s)  # else the two limits mix
    told = estimate(Limits(concurrency=pace.at_once, spacing_s=pace.gap_s), requests, pace.latency_s, None)
    low_s, high_s = online_s(pace, requests)
    assert low_s == pytest.approx(told.low_s)
    assert high_s == pytest.approx(told.high_s, abs=2 * (2 * pace.latency_s + pace.gap_s))


@given(pace=paces, groups=st.integers(0, 40), rest=st.integers(0, 4))
def test_sequential_is_what_the_engine_would_take(pace, groups, rest):
    """Batches of five, one after the other."""
    requests = 5 * groups + rest
    limits = Limits(concurrency=5, spacing_s=pace.gap_s, batch_size=5)
    told = estimate(limits, requests, pace.latency_s / 2, None)
    assert sequential_s(pace, requests)[0] == pytest.approx(told.seconds)


@given(pace=paces, requests=st.integers(0, 500), more=st.integers(0, 50))
def test_ranges_are_ranges_and_grow(pace, requests, more):
    """Low is at most high, and more requests never take less."""
    for lane in (online_s, sequential_s, flex_s):
        low_s, high_s = lane(pace, requests)
        assert 0 <= low_s <= high_s
        assert lane(pace, requests + more) >= (low_s, high_s)


@pytest.mark.parametrize(
    ("pace", "first"),
    [
        (Pace(5.0), 6),  # 10 at once answer 6 in one go
        (Pace(5.0, concurrency=3), None),
        (Pace(5.0, concurrency=5), None),
        (Pace(5.0, rpm=60), 6),  # the sixth need not wait for the first five
        (Pace(5.0, rpm=6, concurrency=10), None),  # a start each 10 s: the rate alone decides
    ],
)
def test_from_how_many_prompts_on_the_parallel_mode_pays(pace, first):
    """Against five at a time, by the formulas."""
    assert parallel_from(pace) == first


@pytest.mark.parametrize(("rpm", "latency_s", "at_once"), [(2, 50, 3), (10, 50, 5), (30, 50, 10), (30, 5, 3)])
def test_the_concurrency_is_the_lanes_own(rpm, latency_s, at_once):
    assert Pace(latency_s, rpm).at_once == at_once


def test_batch_takes_minutes_to_a_day():
    assert batch_s(1) == batch_s(10_000) == (300.0, 86_400.0)
    assert batch_s(0) == (0.0, 0.0)
