"""Flex: half the price while there is room, another way when there is none.  Its pauses pass in virtual time."""

import pytest

pytest.importorskip("google.genai")

from ipybatch import Breaker, Retry

from .conftest import MODEL, names

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
