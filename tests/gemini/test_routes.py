import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("google.genai")

from ipybatch.gemini.routes import BATCH_SHARE, SAFETY, assumed_latency_s, plan

PLANS = st.fixed_dictionaries(
    {
        "now_s": st.floats(0, 1e6),
        "deadline_s": st.floats(0.1, 2e5),
        "items": st.integers(0, 100_000),
        "latency_s": st.floats(0.01, 60),
        "is_measured": st.booleans(),
        "at_once": st.integers(1, 50),
    }
)


def online_s(given):
    """How long all of it takes online, without reserve."""
    return math.ceil(given["items"] / given["at_once"]) * given["latency_s"]


@given(given=PLANS)
def test_the_cheaper_lane_is_left_first(given):
    found = plan(**given)
    assert found.batch_until_s <= found.flex_until_s <= found.at_s
    assert found.at_s == given["now_s"] + given["deadline_s"]
    assert found.flex_until_s >= given["now_s"]


@given(given=PLANS)
def test_there_is_time_to_do_all_of_it_online(given):
    """When flex is left, all may still go online with half as much time again; or it is left at once."""
    found = plan(**given | {"is_measured": True})
    left_s = found.at_s - found.flex_until_s
    assert left_s >= 0.999 * SAFETY * online_s(given) - 1e-6 or found.flex_until_s == given["now_s"]


@given(given=PLANS)
def test_a_guess_never_costs_the_batch_its_chance(given):
    found = plan(**given | {"is_measured": False})
    assert found.batch_until_s - given["now_s"] >= 0.999 * BATCH_SHARE * given["deadline_s"] - 1e-6


@given(given=PLANS, sooner=st.floats(0.1, 1.0))
def test_a_nearer_deadline_never_waits_longer(given, sooner):
    later = plan(**given)
    nearer = plan(**given | {"deadline_s": given["deadline_s"] * sooner})
    assert nearer.flex_until_s <= later.flex_until_s + 1e-6
    assert nearer.batch_until_s <= later.batch_until_s + 1e-6


def test_two_hours_for_five_hundred_prompts():
    """50 at a time and 4 s each: online takes a minute, so the batch has nearly all of the two hours."""
    found = plan(0.0, 7200.0, 500, 4.0, is_measured=True, at_once=50)
    assert found.flex_until_s == 7200 - 1.5 * 12 * 4
    assert found.batch_until_s == 7200 - 2.5 * 1.5 * 12 * 4


def test_no_time_for_a_batch_is_told_by_a_time_that_is_over():
    found = plan(100.0, 30.0, 500, 4.0, is_measured=True, at_once=50)
    assert found.batch_until_s < 100.0
    assert found.flex_until_s == 100.0


def test_longer_answers_are_expected_to_take_longer():
    assert assumed_latency_s(2000) > assumed_latency_s(100) > 0
