from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.library.staleness import STALENESS, age_in_words, staleness

DAY_S = 86_400.0
NOW_S = 1_763_000_000.0


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (0.0, "fresh"),
        (1 * DAY_S, "fresh"),
        (1 * DAY_S + 1, "low"),
        (3 * DAY_S, "low"),
        (3 * DAY_S + 1, "medium"),
        (7 * DAY_S, "medium"),
        (7 * DAY_S + 1, "high"),
    ],
)
def test_age_decides(age_s: float, expected: str) -> None:
    """The words begin beyond 1, 3 and 7 days."""
    assert staleness(NOW_S - age_s, NOW_S) == expected


def test_what_is_missing_is_the_stalest() -> None:
    assert staleness(None, NOW_S) == "high"
    assert STALENESS[0] == "high"


def test_a_time_in_the_future_proves_nothing() -> None:
    """A clock that ran ahead must not keep a record from being fetched for years."""
    assert staleness(NOW_S + 365 * DAY_S, NOW_S) == "high"
    assert staleness(NOW_S + 5, NOW_S) == "fresh"  # two machines' clocks


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_older_is_never_fresher(age_s: float, more_s: float) -> None:
    younger, older = staleness(NOW_S - age_s, NOW_S), staleness(NOW_S - age_s - more_s, NOW_S)
    assert STALENESS.index(older) <= STALENESS.index(younger)


@pytest.mark.parametrize(
    ("age_s", "words"), [(-3.0, "0 s"), (42.0, "42 s"), (120, "2 min"), (7300, "2 h"), (2e5, "2 d")]
)
def test_ages_read_as_people_say_them(age_s: float, words: str) -> None:
    assert age_in_words(age_s) == words
