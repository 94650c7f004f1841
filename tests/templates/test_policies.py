"""Limits, retry and breaker as tables, and back."""

import aiolimiter
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import Breaker, Limits, Rate, Retry
from ipybatch.templates.policies import as_table, read_policies, read_policy
from ipybatch.templates.template import WrongField

counts, seconds = st.integers(1, 1000), st.floats(0, 1000)
rates = st.builds(Rate, st.floats(1, 1e6), st.floats(0.001, 1e6), st.sampled_from(["requests", "tokens"]))
plain = st.builds(Limits, concurrency=counts, spacing_s=seconds, rates=st.lists(rates, max_size=3))
limits = st.builds(
    Limits,
    concurrency=counts,
    spacing_s=seconds,
    batch_size=counts,
    batch_pause_s=seconds,
    rates=st.lists(rates, max_size=3),
    each=st.none() | plain | st.dictionaries(st.sampled_from(["user", "app"]), plain, min_size=1),
    store=st.none() | st.just("limits.sqlite3"),
)
retries = st.builds(Retry, attempts=counts, initial_s=seconds, max_s=st.floats(1000, 2000))
breakers = st.builds(Breaker, failures=counts, break_s=seconds, max_break_s=st.floats(1000, 2000))


@given(limits | retries | breakers)
def test_round_trip(policy):
    assert read_policy(type(policy), as_table(policy), "params.x") == policy


def test_a_table_says_what_is_not_the_default():
    assert as_table(Limits()) == {"concurrency": 10}
    made = Limits(concurrency=3, rates=[Rate(200, per_s=300)], each=Limits(spacing_s=1))
    assert as_table(made) == {
        "concurrency": 3,
        "rates": [{"limit": 200, "per_s": 300}],
        "each": {"concurrency": 10, "spacing_s": 1},
    }


def test_hours_are_text():
    made = Limits(hours=["22:00-06:00", "Sat-Sun"], zone="Europe/Berlin")
    assert as_table(made)["zone"] == "Europe/Berlin"
    assert read_policy(Limits, as_table(made), "params.limits") == made
    with pytest.raises(WrongField) as refused:
        read_policies({"limits": {"hours": "22-06"}})
    assert refused.value.field == "params.limits.hours"


@pytest.mark.parametrize(
    "policy", [Limits(also=[aiolimiter.AsyncLimiter(1)]), Retry(on=KeyError), Limits(each={("user", 1): Limits()})]
)
def test_what_is_no_data_as_a_whole(policy):
    """Without that part it would be another policy: faster than was asked for."""
    with pytest.raises(TypeError, match="is no data"):
        as_table(policy)


WRONG = [
    ("limits", {"concurency": 3}, "params.limits.concurency", "did you mean 'concurrency'?"),
    ("limits", {"concurrency": 0}, "params.limits.concurrency", "must be a whole number >= 1, got 0"),
    ("limits", {"concurrency": "3"}, "params.limits.concurrency", "got '3'"),
    ("limits", {"rates": [{"limit": 3}]}, "params.limits.rates[0]", "per_s"),
    ("limits", {"rates": [{"limit": 3, "per_s": 1}, {"limit": 0, "per_s": 1}]}, "params.limits.rates[1].limit", ">= 1"),
    ("limits", {"rates": 5}, "params.limits.rates[0]", "must be a table of limit, per_s, unit"),
    ("limits", {"each": {"user": {"batch_size": 3}}}, "params.limits.each", "each must have only"),
    ("limits", {"each": {"user": {"spacing": 3}}}, "params.limits.each.user.spacing", "did you mean 'spacing_s'?"),
    ("limits", {"also": []}, "params.limits.also", "pass limits="),
    ("limits", [], "params.limits", "must be a table of concurrency"),
    ("retry", {"attempts": 0}, "params.retry.attempts", "got 0"),
    ("retry", {"strategy": "hope"}, "params.retry.strategy", "'next_second'"),
    ("retry", {"on": "KeyError"}, "params.retry.on", "pass retry="),
    ("breaker", False, "params.breaker", "for none, null"),
    ("breaker", {"failures": 0.5}, "params.breaker.failures", "got 0.5"),
]


@pytest.mark.parametrize(("name", "table", "field", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_named(name, table, field, said):
    with pytest.raises(WrongField) as refused:
        read_policies({name: table, "lane": "batch"})
    assert refused.value.field == field
    assert said in str(refused.value)


def test_other_parameters_stay():
    params = {"lane": "batch", "breaker": None, "limits": None, "retry": {"attempts": 2}}
    assert read_policies(params) == {**params, "retry": Retry(attempts=2)}
