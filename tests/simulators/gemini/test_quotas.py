import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.simulators.gemini.quotas import DAY_S, Bucket, Meter, Quota, Sliding, as_exhausted

GAPS = st.lists(st.integers(0, 40).map(lambda tick: tick / 8), max_size=60)  # eighths are exact in binary


def meter(reset_s=1000.0, **quota):
    return Meter(Quota(**quota), reset_s)


def admitted(meter, times_s, tokens=1):
    return [not meter.take(now_s, tokens) for now_s in times_s]


def details(reply):
    entries = json.loads(reply.body)["error"].get("details", [])
    return {entry["@type"].rpartition(".")[2]: entry for entry in entries}


@given(GAPS, st.integers(1, 5))
def test_no_window_ever_lets_more_than_its_limit_through(gaps, limit):
    gate, now_s, taken = Sliding(limit, 4.0), 0.0, []
    for gap_s in gaps:
        now_s += gap_s
        if not gate.wait_s(now_s, 1):
            gate.take(now_s, 1)
            taken.append(now_s)
    assert all(sum(end_s - 4.0 < at_s <= end_s for at_s in taken) <= limit for end_s in taken)


@given(GAPS, st.integers(1, 5))
def test_a_bucket_lets_through_its_size_and_what_it_gains(gaps, size):
    """In any span of t seconds at most size + rate * t pass."""
    gate, now_s, taken = Bucket(size, 0.5), 0.0, []
    for gap_s in gaps:
        now_s += gap_s
        if not gate.wait_s(now_s, 1):
            gate.take(now_s, 1)
            taken.append(now_s)
    for first, from_s in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= size + 0.5 * (taken[last] - from_s) + 1e-9


@given(GAPS, st.sampled_from([{"rpm": 60, "burst": 3}, {"rpm": 4}, {"windows": [(3, 2.0), (5, 9.0)]}, {"tpm": 7}]))
def test_whoever_waits_as_told_is_let_through(gaps, quota):
    """Neither too long nor too short: at the time told it fits, and just before it does not."""
    gate, now_s = meter(**quota), 0.0
    for gap_s in gaps:
        now_s += gap_s
        broken = gate.take(now_s, 2)
        if broken:
            wait_s = max(violation.wait_s for violation in broken)
            assert gate.take(now_s + wait_s - 0.01, 2) or wait_s <= 0.01
            now_s += wait_s
            assert not gate.take(now_s, 2)


def test_rpm_alone_is_a_window_of_a_minute():
    assert admitted(meter(rpm=2), [0, 1, 2, 59.9, 60, 60.5, 61]) == [True, True, False, False, True, False, True]


def test_rpm_with_a_burst_is_strict_in_every_second():
    """3,000 a minute with a burst of 50: the 51st at once is refused, and fits 20 ms later."""
    gate = meter(rpm=3000, burst=50)
    assert admitted(gate, [0.0] * 51) == [True] * 50 + [False]
    assert gate.take(0.0, 1)[0].wait_s == pytest.approx(0.02)
    assert admitted(gate, [0.02, 0.02]) == [True, False]


def test_a_refused_request_takes_nothing():
    """Hammering does not keep the window full."""
    assert admitted(meter(windows=[(1, 10.0)]), [0, 6, 9, 10]) == [True, False, False, True]


def test_tokens_of_a_minute_are_counted_apart_from_requests():
    gate = meter(tpm=100, rpm=10)
    assert not gate.take(0.0, 90)
    (violation,) = gate.take(1.0, 20)
    assert (violation.quota_id, violation.value) == ("GenerateContentInputTokensPerModelPerMinute-FreeTier", 100)
    assert violation.wait_s == 59.0
    assert not gate.take(1.0, 10)


def test_the_day_ends_when_it_is_told_and_then_every_day():
    gate = meter(reset_s=100.0, rpd=1)
    times_s = [0, 99, 100, 101, 100 + DAY_S - 1, 100 + DAY_S]
    assert admitted(gate, times_s) == [True, False, True, False, False, True]


def test_one_refusal_may_violate_the_day_and_the_minute():
    gate = meter(rpd=1, rpm=1)
    gate.take(0.0, 1)
    kinds = [violation.quota_id.partition("PerProject")[0] for violation in gate.take(1.0, 1)]
    assert kinds == ["GenerateRequestsPerMinute", "GenerateRequestsPerDay"]


def test_shape_a_tells_quota_limit_and_delay():
    gate = meter(rpm=10, burst=1)
    gate.take(0.0, 1)
    reply = as_exhausted("a", gate.take(1.0, 1), "gemini-2.5-flash")
    told = details(reply)
    assert reply.status == 429
    assert told["RetryInfo"]["retryDelay"] == "5.000000000s"
    assert told["QuotaFailure"]["violations"] == [
        {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
            "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
            "quotaValue": "10",
        }
    ]
    assert "Help" in told


def test_shape_b_tells_only_where_to_read_on():
    assert list(details(as_exhausted("b"))) == ["Help"]


def test_shape_c_tells_nothing():
    reply = as_exhausted("c")
    assert json.loads(reply.body)["error"] == {
        "code": 429,
        "message": "Resource has been exhausted (e.g. check quota).",
        "status": "RESOURCE_EXHAUSTED",
    }


@pytest.mark.parametrize("shape", ["a", "b", "c"])
def test_no_shape_has_a_retry_after(shape):
    assert "retry-after" not in {name.lower() for name in as_exhausted(shape).headers}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rpm": 0}, "rpm must be >= 1 or None, got 0"),
        ({"burst": 5}, "burst must come with rpm, got burst=5 alone"),
        ({"windows": [(0, 1.0)]}, r"windows must be pairs \(limit >= 1, per_s > 0\), got \(0, 1.0\)"),
        ({"tpm": -1}, "tpm must be >= 1 or None, got -1"),
        ({"rpd": 0}, "rpd must be >= 1 or None, got 0"),
    ],
)
def test_a_bad_quota_names_field_value_and_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Quota(**fields)
