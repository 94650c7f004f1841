import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import Retry
from ipybatch.engine.rules.classify import Kind, Verdict
from ipybatch.engine.rules.retry import back_off_s, cool_down_s, is_last

NOW_S = 1_700_000_000.0


@given(seed=st.integers(0, 2**32), attempt=st.integers(1, 2000), initial_s=st.floats(0, 10), max_s=st.floats(10, 90))
def test_full_jitter_stays_under_the_doubling_back_off(seed, attempt, initial_s, max_s):
    """Between 0 and min(max_s, initial_s * 2**(attempt - 1)), for any number of attempts."""
    retry = Retry(initial_s=initial_s, max_s=max_s)
    bound_s = min(max_s, initial_s * 2 ** min(attempt - 1, 100))
    assert 0.0 <= back_off_s(retry, attempt, random.Random(seed)) <= bound_s


def test_jitter_is_spread_over_the_whole_range():
    """Failing items do not march in step: a thousand waits fill the range evenly."""
    chance = random.Random(7)
    waits = [back_off_s(Retry(initial_s=1, max_s=60), 4, chance) for _ in range(1000)]
    assert min(waits) < 0.1
    assert max(waits) > 7.9
    assert sum(waits) / 1000 == pytest.approx(4.0, abs=0.3)


def test_cool_downs_in_a_row_grow():
    """A 429 that names no time: initial_s, twice that, and so on up to max_s."""
    retry = Retry(initial_s=2, max_s=15)
    assert [cool_down_s(retry, n, NOW_S) for n in range(5)] == [2, 4, 8, 15, 15]
    assert cool_down_s(retry, 5000, NOW_S) == 15


@given(now_s=st.floats(1.6e9, 1.8e9))
def test_next_second_waits_for_the_next_full_second(now_s):
    """Battle.net counts by the full second: 50 ms after the next one."""
    wait_s = cool_down_s(Retry(strategy="next_second"), 0, now_s)
    assert 0.05 - 1e-6 < wait_s <= 1.05
    assert (now_s + wait_s) % 1.0 == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "strategy", "attempt", "last"),
    [
        (Kind.TRANSIENT, "exponential", 2, False),
        (Kind.TRANSIENT, "exponential", 3, True),
        (Kind.TIMEOUT, "exponential", 2, False),
        (Kind.RATE_LIMITED, "exponential", 2, False),
        (Kind.PERMANENT, "exponential", 1, True),
        (Kind.REFUSED, "exponential", 1, True),
        (Kind.TRANSIENT, "next_second", 2, False),
    ],
)
def test_an_item_is_given_up_after_its_attempts(kind, strategy, attempt, last):
    """Three tries in all that count; permanent errors get one."""
    assert is_last(Retry(attempts=3, strategy=strategy), attempt, Verdict(kind)) is last


def test_one_attempt_means_no_retry():
    """A 429 costs none: then there is one left."""
    assert not is_last(Retry(attempts=1), 0, Verdict(Kind.RATE_LIMITED))
    assert is_last(Retry(attempts=1), 1, Verdict(Kind.TRANSIENT))
