"""Events by the names that users of Bottleneck know."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipybatch import InputError, Limits, Permanent, Rate, Retry
from ipybatch.engine.data import events
from ipybatch.engine.feed.event_text import NAMES
from ipybatch.testing import VirtualClock


def heard(session):
    """Return a list to which the name of each event is added as it is heard."""
    names = []
    for name in NAMES:
        session.on(name, lambda event, name=name: names.append(name))
    return names


def tallied(session):
    (event,) = [event for event in session._feed.log if isinstance(event, events.Tallied)]
    return event.times


async def shaky(item):
    await asyncio.sleep(0.1)
    if item == "gone":
        raise Permanent("gone")
    if item == "late" and not tried:
        tried.append(item)
        raise ConnectionError("reset")
    return item


tried = []


@pytest.fixture(autouse=True)
def fresh():
    tried.clear()


def test_each_name_is_heard_when_it_happens(plan, clock):
    session = plan(shaky, ["fine", "late", "gone"], limits=Limits(concurrency=1), retry=Retry(initial_s=1.0))
    names = heard(session)
    clock.run(session)
    assert names[:2] == ["received", "queued"]
    assert [names.count(name) for name in ("executing", "done", "failed", "retry")] == [4, 2, 2, 1]
    assert names[-2:] == ["done", "idle"]
    assert "empty" in names


def test_the_log_ends_with_how_often_each_happened(plan, clock):
    """The panel shows them as a line of its log."""
    session = plan(shaky, ["fine", "late", "gone"], limits=Limits(concurrency=1, rates=[Rate(2, per_s=5.0)]))
    clock.run(session)
    times = tallied(session)
    assert times["depleted"] >= 1
    assert {name: times[name] for name in ("received", "queued", "executing", "done", "failed", "retry")} == {
        "received": 3,
        "queued": 4,
        "executing": 4,
        "done": 2,
        "failed": 2,
        "retry": 1,
    }
    assert session.log()["event"].iloc[-2] == "tallied"


def test_limits_that_are_used_up_are_told_once_a_window(plan, clock):
    session = plan(shaky, [str(n) for n in range(20)], limits=Limits(concurrency=20, rates=[Rate(5, per_s=10.0)]))
    names = heard(session)
    clock.run(session)
    assert 3 <= names.count("depleted") <= 4


def test_a_listener_that_raises_is_an_error(plan, clock):
    session = plan(shaky, ["fine"])
    names = heard(session)
    session.on("done", lambda event: 1 / 0)
    clock.run(session)
    assert names.count("error") == 1
    assert tallied(session)["error"] == 1


def test_a_listener_may_leave(plan, clock):
    session = plan(shaky, ["fine"])
    names = []
    leave = session.on("done", names.append)
    leave()
    clock.run(session)
    assert names == []


@pytest.mark.parametrize("wrong", ["finished", "", None, 5])
def test_a_name_that_does_not_exist_is_refused(plan, wrong):
    with pytest.raises(InputError, match="the event must be one of 'received', 'queued'"):
        plan(shaky, ["fine"]).on(wrong, print)


def test_a_listener_that_is_none_is_refused(plan):
    with pytest.raises(InputError, match="listener must be a function of an event"):
        plan(shaky, ["fine"]).on("done")


@given(
    st.lists(st.sampled_from(["fine", "flaky", "gone"]), max_size=30),
    st.integers(1, 8),
    st.randoms(use_true_random=True),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_heard_and_what_is_counted_agree(tmp_path_factory, kinds, concurrency, chance):
    from ipybatch import BatchSession

    async def work(item):
        await asyncio.sleep(0.1)
        if item[0] == "gone":
            raise Permanent("gone")
        if item[0] == "flaky" and chance.random() < 0.5:
            raise ConnectionError("reset")

    clock = VirtualClock()
    items = [(kind, number) for number, kind in enumerate(kinds)]
    session = BatchSession(
        "names",
        work,
        items,
        limits=Limits(concurrency=concurrency),
        breaker=None,
        journal=tmp_path_factory.mktemp("names") / "journal.db",
        clock=clock,
    )
    names = heard(session)
    clock.run(session)
    times = tallied(session)
    for name in ("executing", "scheduled", "done", "failed", "retry", "idle", "empty", "error", "depleted"):
        assert names.count(name) == times[name], name
    assert times["received"] == len(items)
