"""Lanes: flex is half the price while there is room, deadlines, and groups of prompts; pauses pass in virtual time."""

import math
from types import SimpleNamespace

import pytest

pytest.importorskip("google.genai")

from hypothesis import given
from hypothesis import strategies as st

from ipybatch import Breaker, Retry
from ipybatch.engine.data.events import GroupEnded, GroupStarted
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.run.attempt import Attempt
from ipybatch.gemini.lanes import BATCH_SHARE, GROUP, SAFETY, PromptGroups, assumed_latency_s, plan
from tests.gemini.conftest import MODEL, names

FULL = 1e9


@pytest.fixture
def flex(desk, clock):
    """Make a session by flex, and run it in virtual time."""

    def run(prompts, **arguments):
        session = desk.session(prompts, **{"lane": "flex", "clock": clock, **arguments})
        clock.run(session)
        return session

    return run


def lanes(desk):
    return {lane: billed["generations"] for lane, billed in desk.truth["billed"].items() if billed["generations"]}


def test_flex_is_asked_for_and_costs_half(desk, flex):
    session = flex(names(10), name="flex")
    assert lanes(desk) == {"flex": 10}
    online = flex(names(10), name="online", lane="online")
    assert (session.usage()["lane"][0], session.counts.completed) == ("flex", 10)
    assert session.usage()["usd"][0] == pytest.approx(online.usage()["usd"][0] / 2)


def test_a_shed_request_is_tried_again(desk, flex):
    desk.open(flex_shed_rate=0.4, seed=5)
    session = flex(names(20), flex_tries=30)
    assert session.counts.completed == 20
    assert lanes(desk) == {"flex": 20}
    assert desk.sent > 20
    assert session.results()["attempts"].max() == 1


def test_without_room_for_long_it_goes_online(desk, flex):
    desk.open(flex_outages=[(0, FULL)])
    session = flex(names(6), flex_tries=3)
    assert session.counts.completed == 6
    assert set(desk.asked.values()) == {4}
    assert lanes(desk) == {"online": 6}
    usage = session.usage().set_index("lane")
    assert usage.loc["flex", ["requests", "failed", "usd"]].fillna(0).tolist() == [18, 18, 0]
    assert usage.loc["online", ["requests", "failed"]].tolist() == [6, 0]


def test_without_another_way_it_fails_and_runs_again(desk, flex):
    desk.open(flex_outages=[(0, FULL)])
    session = flex(names(3), flex_tries=2, flex_fallback=None, retry=Retry(attempts=1))
    assert (session.state, session.counts.failed) == ("completed", 3)
    assert "overloaded" in session.results()["error"][0]
    assert set(desk.asked.values()) == {2}
    desk.open()
    assert flex(names(3), flex_fallback=None).counts.completed == 3
    assert lanes(desk) == {"flex": 3}


def test_without_another_way_no_model_is_asked_online(desk, flex):
    """Also when the day of one model ends on the last try: the next model is asked by flex, at half the price."""
    desk.open(models={MODEL: {"rpd": 2}, "gemini-2.5-flash-lite": {}})
    session = flex(names(6), models=[MODEL, "gemini-2.5-flash-lite"], flex_tries=1, flex_fallback=None, concurrency=1)
    assert session.counts.completed == 6
    assert lanes(desk) == {"flex": 6}


def test_without_room_it_goes_into_a_batch_job(desk, flex):
    desk.open(flex_outages=[(0, FULL)], batch_delay_s=0.05)
    session = flex(names(6), flex_tries=2, flex_fallback="batch", poll_s=1)
    assert session.counts.completed == 6
    assert lanes(desk) == {"batch": 6}
    assert desk.truth["submitted_twice"] == []


@pytest.mark.parametrize("fallback", ["online", None])
def test_sheds_do_not_open_the_breaker(desk, flex, fallback):
    """A full flex lane says nothing of the service as a whole."""
    desk.open(flex_outages=[(0, FULL)])
    session = flex(names(12), flex_tries=2, flex_fallback=fallback, breaker=Breaker(failures=1))
    assert "breaker_moved" not in set(session.log()["event"])
    assert session.state == "completed"


def test_other_trouble_by_flex_is_trouble(desk, flex):
    """A 500 is no shed: it is tried again as any other attempt, and counts for the breaker."""
    desk.open(rate_500=0.3, seed=3)
    session = flex(names(20), flex_tries=2, breaker=Breaker(failures=1, break_s=1))
    assert session.counts.completed == 20
    assert lanes(desk) == {"flex": 20}
    assert session.results()["attempts"].max() > 1
    assert "breaker_moved" in set(session.log()["event"])


def test_a_day_that_is_over_moves_flex_on_too(desk, flex):
    desk.open(models={MODEL: {"rpd": 3}, "gemini-2.5-flash-lite": {}})
    session = flex(names(12), models=[MODEL, "gemini-2.5-flash-lite"])
    assert session.counts.completed == 12
    assert lanes(desk) == {"flex": 12}


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


class Row:
    """Groups over some items, the events they tell, and the group that each item joined."""

    def __init__(self, items, clock, before=0):
        self.told, self.joined = [], {}
        self.groups = PromptGroups(items, before, self.told.append, clock)

    def start(self, key):
        engine = SimpleNamespace(join=lambda group: self.joined.__setitem__(key, group))
        attempt = Attempt(f'"{key}"', 1, engine)
        self.groups.join(attempt)

    def end(self, *keys, status="completed"):
        self.groups.recorded(
            [Outcome(key=key, status=status, result=None, error="", attempts=1, seconds=0.1) for key in keys]
        )

    @property
    def started(self):
        return [(event.group, event.items) for event in self.told if isinstance(event, GroupStarted)]

    @property
    def ended(self):
        return [(event.group, event.status) for event in self.told if isinstance(event, GroupEnded)]


def test_fifty_to_a_group_in_the_order_of_their_starts(clock):
    row = Row(120, clock)
    for key in range(120):
        row.start(f"p{key}")
    assert row.started == [(1, 50), (2, 50), (3, 20)]
    assert [list(row.joined.values()).count(number) for number in (1, 2, 3)] == [50, 50, 20]


def test_an_item_that_is_tried_again_stays_in_its_group(clock):
    row = Row(GROUP + 1, clock)
    for key in [*range(GROUP), 0, 1, GROUP]:
        row.start(f"p{key}")
    assert row.started == [(1, GROUP), (2, 1)]
    assert row.joined["p0"] == 1


def test_a_group_ends_with_its_last_item(clock):
    row = Row(2, clock)
    row.start("a")
    row.start("b")
    row.end("a")
    assert row.ended == []
    row.end("b", "somebody elses")
    assert row.ended == [(1, "completed")]


@pytest.mark.parametrize("items", [2, GROUP])
def test_a_group_has_failed_when_all_of_it_has(clock, items):
    """Also one of fewer than fifty."""
    keys = [f"p{number}" for number in range(items)]
    row = Row(items, clock)
    for key in keys:
        row.start(key)
    row.end(*keys, status="failed")
    assert row.ended == [(1, "failed")]


def test_a_group_with_one_answer_has_not_failed(clock):
    row = Row(2, clock)
    row.start("a")
    row.start("b")
    row.end("a", status="failed")
    row.end("b")
    assert row.ended == [(1, "completed")]


def test_numbers_go_on_where_the_start_before_ended(clock):
    row = Row(3, clock, before=2)
    row.start("a")
    assert row.started == [(3, 3)]


def test_a_session_that_goes_on_counts_on(desk):
    """What was left runs in a group of its own, of the size of what was left."""
    session = desk.run(names(70), output_tokens=60, budget_usd=0.004)
    left = session.counts.skipped
    assert 0 < left < 70
    more = desk.run(names(70), output_tokens=60, budget_usd=1)
    assert more.counts.completed == 70
    assert sum(group.items for group in more.snapshot.groups.values()) == left
