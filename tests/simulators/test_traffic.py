import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.simulators.traffic import Traffic

TIMES = st.lists(st.integers(0, 400).map(lambda tick: tick / 8), max_size=60)  # eighths are exact in binary


def arrive(traffic, *times_s):
    verdicts = []
    for now_s in times_s:
        traffic.arrive(now_s)
        verdicts.append(traffic.judge(now_s))
    return verdicts


@given(TIMES, st.sampled_from([0.5, 2.0, 10.0]))
def test_worst_is_the_fullest_of_all_windows(times_s, per_s):
    """Counting each half-open window that ends at an arrival, the slow way, finds the same."""
    traffic = Traffic()
    for at_s in times_s:
        traffic.arrive(at_s)
    slow = max((sum(end_s - per_s < at_s <= end_s for at_s in times_s) for end_s in times_s), default=0)
    assert traffic.worst(per_s) == slow


@given(TIMES, st.integers(1, 5))
def test_a_429_and_a_window_above_its_limit_are_the_same_statement(times_s, limit):
    """Whoever sees no 429 has kept the limit, and the other way round."""
    traffic = Traffic([(limit, 2.0)])
    refused = 429 in arrive(traffic, *sorted(times_s))
    assert refused == (traffic.worst(2.0) > limit)


def test_the_limit_itself_is_allowed_and_one_more_is_not():
    assert arrive(Traffic([(3, 10.0)]), 0, 1, 2, 3) == [200, 200, 200, 429]


def test_requests_exactly_per_s_apart_are_never_in_one_window():
    """A client that waits exactly per_s keeps the limit, rounding of floats included."""
    times_s = [0.1 + number * 0.3 for number in range(200)]
    assert set(arrive(Traffic([(1, 0.3)]), *times_s)) == {200}


def test_a_hair_less_than_per_s_is_too_fast():
    assert arrive(Traffic([(1, 0.3)]), 0.0, 0.2999) == [200, 429]


def test_a_refused_request_counts_too():
    """Hammering keeps the window full: only waiting empties it."""
    assert arrive(Traffic([(1, 10.0)]), 0, 6, 12, 22) == [200, 429, 429, 200]


def test_every_window_must_be_kept():
    assert arrive(Traffic([(2, 1.0), (3, 100.0)]), 0, 0.5, 5, 10, 200) == [200, 200, 200, 429, 200]


def test_going_on_too_fast_is_banned_for_a_while():
    """The third 429 within a window starts the ban; after it the client is served again."""
    traffic = Traffic([(1, 10.0)], ban_after=3, ban_s=60.0)
    assert arrive(traffic, 0, 1, 2, 3, 4, 62.9, 80) == [200, 429, 429, 429, 403, 403, 200]
    assert traffic.bans == [(3, 63)]


def test_refusals_far_apart_are_not_a_habit():
    """429s of different windows do not add up to a ban."""
    traffic = Traffic([(1, 10.0)], ban_after=2)
    assert arrive(traffic, 0, 1, 30, 31, 60, 61) == [200, 429] * 3
    assert traffic.bans == []


def test_without_windows_nobody_is_too_fast():
    assert set(arrive(Traffic(), *[0.0] * 1000)) == {200}


def test_arrivals_told_out_of_order_are_counted_where_they_belong():
    traffic = Traffic()
    arrive(traffic, 5, 1, 5.5, 1.5, 1.7)
    assert traffic.worst(1.0) == 3
    assert traffic.between(1, 1.7) == 2


@pytest.mark.parametrize(
    ("windows", "options", "message"),
    [
        ([(0, 1.0)], {}, "limit must be >= 1, got 0"),
        ([(1, 0.0)], {}, "per_s must be > 0 and finite, got 0.0"),
        ([], {"ban_after": 0}, "ban_after must be >= 1 or None, got 0"),
        ([], {"ban_s": 0}, "ban_s must be > 0, got 0"),
    ],
)
def test_bad_rules_name_field_value_and_range(windows, options, message):
    with pytest.raises(ValueError, match=message):
        Traffic(windows, **options)
