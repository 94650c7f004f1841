from __future__ import annotations

from dataclasses import dataclass

import pytest

from ipybatch import InputError
from ipybatch.library.source import read_environment


@dataclass(frozen=True)
class Pace:
    per_minute: float = 10
    gap_s: float = 1

    def __post_init__(self) -> None:
        if self.gap_s < 0:
            msg = "a gap cannot be negative"
            raise InputError(msg)


def test_what_is_given_wins_over_the_environment_and_that_over_the_default() -> None:
    environment = {"X_PER_MINUTE": "20", "X_GAP_S": "3"}
    assert read_environment(Pace, "X_", {}, {}) == Pace()
    assert read_environment(Pace, "X_", environment, {"gap_s": 5}) == Pace(per_minute=20, gap_s=5)


def test_the_variable_at_fault_is_named_whatever_the_words_of_the_complaint() -> None:
    """The variable is known from where the value was read, not from the error's text."""
    with pytest.raises(InputError, match=r"^X_GAP_S a gap cannot be negative: correct it in the environment"):
        read_environment(Pace, "X_", {"X_PER_MINUTE": "20", "X_GAP_S": "-3"}, {})
