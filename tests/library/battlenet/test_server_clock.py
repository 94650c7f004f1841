from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.library.battlenet.tokens import GRACE_S, ServerClock, read_date

AHEAD_S = st.floats(-1e6, 1e6)  # of the server's clock over ours
WAYS_S = st.tuples(st.floats(0.0, 0.5), st.floats(0.0, 0.5))  # there and back


def answer(seconds: ServerClock, sent_s: float, way_s: tuple[float, float], ahead_s: float) -> tuple[float, float]:
    """Let one answer be learnt from; return its stamp and when it was received."""
    stamped_s = math.floor(sent_s + way_s[0] + ahead_s)
    received_s = sent_s + sum(way_s)
    seconds.learn(stamped_s, sent_s, received_s)
    return stamped_s, received_s


@given(AHEAD_S, st.lists(st.tuples(st.floats(0.0, 100.0), WAYS_S), min_size=1, max_size=20))
def test_it_is_never_early(ahead_s: float, asked: list[tuple[float, tuple[float, float]]]) -> None:
    """Whatever the lines do and the clocks say: when the wait is over, the server's next second has begun."""
    seconds = ServerClock()
    for sent_s, way_s in sorted(asked):
        stamped_s, received_s = answer(seconds, sent_s, way_s, ahead_s)
        over_s = received_s + seconds.until_next_s(stamped_s, received_s)
        assert over_s + ahead_s >= stamped_s + 1.0 + GRACE_S - 1e-6


@given(st.floats(-1e6, 1e6))
def test_a_second_of_answers_leaves_little_doubt(ahead_s: float) -> None:
    """A hundred answers a second, 10 ms each way: the wait ends at most 30 ms after the earliest moment."""
    seconds = ServerClock()
    for nth in range(150):
        stamped_s, received_s = answer(seconds, nth / 100, (0.01, 0.01), ahead_s)
    over_s = received_s + seconds.until_next_s(stamped_s, received_s)
    assert over_s + ahead_s <= max(stamped_s + 1.0 + GRACE_S, received_s + ahead_s) + 0.03 + 1e-6


@pytest.mark.parametrize("jump_s", [-100.0, 100.0])
def test_a_clock_that_was_set_is_learnt_anew(jump_s: float) -> None:
    seconds = ServerClock()
    answer(seconds, 0.0, (0.0, 0.0), 0.5)
    stamped_s, received_s = answer(seconds, 10.0, (0.0, 0.0), 0.5 + jump_s)
    assert 0.5 < seconds.until_next_s(stamped_s, received_s) <= 1.0 + GRACE_S + 1e-6


def test_a_date_header_is_read() -> None:
    assert read_date(formatdate(1_700_000_000, usegmt=True)) == 1_700_000_000
    assert [read_date(text) for text in (None, "", "soon")] == [None, None, None]
