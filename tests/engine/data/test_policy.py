import contextlib
import math

import pytest

from ipybatch import Breaker, InputError, Limits, Rate, Retry


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rate(0, per_s=1), "limit must be >= 1, got 0"),
        (lambda: Rate(math.nan, per_s=1), "limit must be >= 1, got nan"),
        (lambda: Rate("5", per_s=1), "limit must be >= 1, got '5'"),
        (lambda: Rate(True, per_s=1), "limit must be >= 1, got True"),
        (lambda: Rate(5, per_s=0), "per_s must be > 0 and <= 1e+09, got 0"),
        (lambda: Rate(5, per_s=math.inf), "per_s must be > 0 and <= 1e+09, got inf"),
        (lambda: Rate(5, per_s=1, unit=""), "unit must be a word such as 'requests' or 'tokens', got ''"),
        (lambda: Limits(concurrency=0), "concurrency must be a whole number >= 1, got 0"),
        (lambda: Limits(concurrency=2.5), "concurrency must be a whole number >= 1, got 2.5"),
        (lambda: Limits(spacing_s=-1), "spacing_s must be >= 0 and <= 1e+09, got -1"),
        (lambda: Limits(spacing_s=math.nan), "spacing_s must be >= 0 and <= 1e+09, got nan"),
        (lambda: Limits(batch_size=0), "batch_size must be a whole number >= 1, got 0"),
        (lambda: Limits(batch_size=5, batch_pause_s=-1), "batch_pause_s must be >= 0 and <= 1e+09, got -1"),
        (lambda: Limits(batch_pause_s=5), "batch_pause_s needs batch_size, got batch_pause_s=5 and batch_size=None"),
        (lambda: Limits(rates=[(5, 1)]), "rates must hold Rate(limit, per_s=...), got (5, 1)"),
        (lambda: Limits(rates=5), "rates must be a list, got 5: pass [5]"),
        (lambda: Limits(also="ab"), "also must be a list, got 'ab': pass ['ab']"),
        (lambda: Limits(also=5), "also must be a list, got 5: pass [5]"),
        (lambda: Limits(also=[5]), "also must hold async context managers such as aiolimiter.AsyncLimiter, got 5"),
        (lambda: Limits(shared=5), "shared must have an async try_acquire_async(name, weight), got 5"),
        (lambda: Retry(attempts=0), "attempts must be a whole number >= 1, got 0"),
        (lambda: Retry(initial_s=-1), "initial_s must be >= 0, got -1"),
        (lambda: Retry(initial_s=5, max_s=2), "max_s must be >= 5, got 2"),
        (lambda: Retry(strategy="linear"), "strategy must be 'exponential' or 'next_second', got 'linear'"),
        (lambda: Breaker(failures=0), "failures must be a whole number >= 1, got 0"),
        (lambda: Breaker(break_s=-1), "break_s must be >= 0, got -1"),
        (lambda: Breaker(break_s=60, max_break_s=10), "max_break_s must be >= 60, got 10"),
        (lambda: Breaker(give_up_after=0), "give_up_after must be a whole number >= 1, got 0"),
    ],
)
def test_a_bad_policy_names_field_range_and_value(make, message):
    """What is out of range is refused when it is made, as an InputError that is a ValueError too."""
    with pytest.raises(InputError) as refused:
        make()
    assert str(refused.value) == message
    assert isinstance(refused.value, ValueError)


def test_the_defaults_are_those_of_the_contract():
    """The documented defaults hold, and make a valid policy."""
    assert Limits() == Limits(concurrency=10, spacing_s=0, batch_size=None, batch_pause_s=0, rates=[], also=[])
    assert Retry() == Retry(attempts=3, initial_s=1, max_s=60, strategy="exponential")
    assert Breaker() == Breaker(failures=3, break_s=60, max_break_s=600, give_up_after=5)


@pytest.mark.parametrize(
    "make", [lambda: Breaker(break_s=0, max_break_s=0), lambda: Retry(initial_s=0, max_s=0), lambda: Rate(1, 1e-9)]
)
def test_the_ends_of_a_range_belong_to_it(make):
    """A bound that a message names is itself allowed."""
    assert make() == make()


def test_one_rate_may_stand_without_a_list():
    """``rates=Rate(...)`` means ``rates=[Rate(...)]``."""
    assert Limits(rates=Rate(5, per_s=1)).rates == (Rate(5, per_s=1),)


def test_a_policy_does_not_follow_the_list_it_was_made_from():
    """Limits are frozen: what the user appends later changes nothing."""
    rates = [Rate(5, per_s=1)]
    limits = Limits(rates=rates)
    rates.append(Rate(1, per_s=60))
    assert limits.rates == (Rate(5, per_s=1),)


@pytest.mark.parametrize(
    ("rate", "words"),
    [(Rate(200, per_s=300), "200 per 300 s"), (Rate(1e6, per_s=60, unit="tokens"), "1e+06 tokens per 60 s")],
)
def test_a_rate_reads_as_people_say_it(rate, words):
    """The panel and the notes show it so."""
    assert str(rate) == words


@pytest.mark.parametrize(
    ("on", "error", "transient"),
    [
        (None, KeyError(), False),
        (KeyError, KeyError(), True),
        (LookupError, KeyError(), True),
        ((OSError, KeyError), ValueError(), False),
        (lambda error: "again" in str(error), ValueError("try again"), True),
        (lambda error: "again" in str(error), ValueError("no"), False),
        (lambda error: 1, ValueError("no"), True),
    ],
)
def test_the_user_says_what_else_is_transient(on, error, transient):
    """``Retry(on=...)`` takes a type, several, or a function of the error."""
    assert Retry(on=on).also_transient(error) is transient


def test_also_takes_any_async_context_manager():
    """A limiter of the user's own is only asked to be an async context manager."""
    plug = contextlib.nullcontext()
    assert Limits(also=[plug]).also == (plug,)
