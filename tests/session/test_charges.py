"""Charges: what an item pays for, and what ends a session."""

import asyncio
import random
from itertools import pairwise

import httpx
import pytest

from ipybatch import Breaker, Limits, Permanent, Rate, RateLimited, Retry
from ipybatch.engine.data import events
from ipybatch.errors import ItemError
from tests.session.test_errors import http_error

HOUR_S = 3600.0


class Service:
    """A service in virtual time, with items that never succeed and hours in which nothing does."""

    def __init__(self, clock, *, bad=(), down=(0.0, 0.0), latency_s=0.1):
        self.clock, self.bad, self.down, self.latency_s = clock, frozenset(bad), down, latency_s
        self.calls, self.at, self.most, self._now = [], [], 0, 0

    async def __call__(self, item):
        self.calls.append(item)
        self.at.append(self.clock.now_s())
        self._now += 1
        self.most = max(self.most, self._now if self.is_down else 0)
        try:
            await asyncio.sleep(self.latency_s)
            if self.is_down or item in self.bad:
                raise http_error(500)
            return item
        finally:
            self._now -= 1

    @property
    def is_down(self):
        return self.down[0] <= self.clock.now_s() < self.down[1]


def places(good, bad):
    half = len(good) // 2
    return {
        "first": [*bad, *good],
        "last": [*good, *bad],
        "in the middle": [*good[:half], *bad, *good[half:]],
        "apart": [*bad[:1], *good[:half], *bad[1:2], *good[half:], *bad[2:]],
    }


@pytest.mark.parametrize("batch_size", [None, 15])
@pytest.mark.parametrize("place", ["first", "in the middle", "apart"])
def test_items_that_fail_alone_are_given_up_alone(plan, clock, place, batch_size):
    """Three that always answer 500 end no session while others succeed, wherever they stand."""
    service = Service(clock, bad=[101, 102, 103])
    session = plan(service, places(list(range(50)), [101, 102, 103])[place], limits=Limits(3, batch_size=batch_size))
    summary = clock.run(session)
    assert (summary.state, summary.counts.completed, summary.counts.failed) == ("completed", 50, 3)
    assert all(service.calls.count(item) == 1 for item in range(50))


def test_a_crowd_of_bad_items_first_is_jumped(plan, clock):
    """More than the openings that end a session: a probe asks an item that comes later."""
    service = Service(clock, bad=range(100, 130))
    session = plan(service, [*range(100, 130), *range(70)], limits=Limits(3))
    summary = clock.run(session)
    assert (summary.counts.completed, summary.counts.failed) == (70, 30)


def test_a_crowd_of_bad_items_in_one_limit_group_is_jumped(plan, clock):
    service = Service(clock, bad=range(100, 130))
    limits = Limits(3, each=Limits(2))
    session = plan(service, [*range(100, 130), *range(70)], limits=limits, per=lambda item: item % 2)
    summary = clock.run(session)
    assert (summary.counts.completed, summary.counts.failed) == (70, 30)


def test_a_lone_item_that_fails_last_costs_the_service_no_more_than_its_attempts(plan, clock):
    service = Service(clock, bad=[9])
    summary = clock.run(plan(service, list(range(10)), limits=Limits(1)))
    assert (summary.state, summary.counts.failed) == ("completed", 1)
    assert service.calls.count(9) == 3


@pytest.mark.parametrize("items", [10, 200])
@pytest.mark.parametrize("from_s", [0.0, 0.35])
def test_an_outage_of_8_h_with_the_defaults_ends_the_session_in_time(plan, clock, items, from_s):
    """As failed, the rest skipped, no item to blame; the next call completes all."""
    service = Service(clock, down=(from_s, 8 * HOUR_S))
    session = plan(service, list(range(items)), limits=Limits(2), name="night")
    summary = clock.run(session)
    assert (summary.state, summary.counts.failed) == ("failed", 0)
    assert summary.counts.completed + summary.counts.skipped == items
    assert clock.now_s() < HOUR_S
    assert summary.reason == "the service failed: the breaker opened 5 times in a row; last: HTTPStatusError: 500"
    clock.advance(9 * HOUR_S)
    assert clock.run(plan(service, list(range(items)), limits=Limits(2), name="night")).counts.completed == items


@pytest.mark.parametrize("items", [3, 10, 200])
def test_an_outage_of_8_h_is_survived_and_costs_no_item_an_attempt(plan, clock, items):
    """One probe at a time."""
    service = Service(clock, down=(0.0, 8 * HOUR_S))
    policy = Breaker(give_up_after=100)
    summary = clock.run(plan(service, list(range(items)), limits=Limits(5), breaker=policy))
    assert (summary.state, summary.counts.completed) == ("completed", items)
    while_down = [at for at in service.at if 1.0 < at < 8 * HOUR_S]
    assert len(while_down) < 60
    assert min(later - at for at, later in pairwise(while_down)) > 30


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("limits", [Limits(3), Limits(3, rates=[Rate(40, per_s=2)])])
def test_a_429_blames_no_item(plan, clock, share, limits):
    """At random, without a word: it waits and is asked again."""
    chance = random.Random(4)

    async def work(item):
        if chance.random() < share:
            raise http_error(429)

    assert clock.run(plan(work, list(range(200)), limits=limits)).counts.completed == 200


def test_a_stray_429_lets_only_its_own_request_wait(plan, clock):
    """The others go on; several of the last answers cool all."""
    strays, cooled = {5, 40, 75}, []

    async def work(item):
        await asyncio.sleep(0.05)
        if item in strays:
            strays.discard(item)
            raise RateLimited(back_off_s=7.0)

    session = plan(work, list(range(100)), limits=Limits(2, rates=[Rate(50, per_s=1)]))
    session.on(lambda event: cooled.append(event) if isinstance(event, events.CooledDown) else None)
    assert clock.run(session).counts.completed == 100
    assert not cooled
    assert 7.0 < clock.now_s() < 15.0


def test_many_429s_without_a_word_cool_the_resource(plan, clock):
    """Five of the last twenty: then nothing starts for a while."""
    until_s, calls = 20.0, []

    async def work(item):
        calls.append(clock.now_s())
        if clock.now_s() < until_s:
            raise http_error(429)

    session = plan(work, list(range(100)), limits=Limits(10, rates=[Rate(50, per_s=1)]), retry=Retry(initial_s=2))
    assert clock.run(session).counts.completed == 100
    assert len([at for at in calls if at < until_s]) < 80


def test_an_hour_of_429s_without_one_success_ends_the_session(plan, clock):
    async def work(item):
        raise http_error(429)

    summary = clock.run(plan(work, list(range(5)), limits=Limits(2)))
    assert (summary.state, summary.counts.skipped) == ("failed", 5)
    assert summary.reason.startswith("nothing was let through for 6")
    assert HOUR_S <= clock.now_s() < 1.2 * HOUR_S


def failing(error, good=frozenset()):
    calls = []

    async def work(item):
        calls.append(item)
        if item not in good:
            raise error(item)
        return item

    return work, calls


ALIKE = {
    "a status": lambda item: http_error(400),
    "a mistake in the work": lambda item: KeyError("price"),
    "with the item's key": lambda item: ValueError(f"model {item} is gone"),
}


@pytest.mark.parametrize("error", ALIKE.values(), ids=ALIKE)
def test_twenty_identical_errors_without_one_success_end_the_session(plan, clock, error):
    """It is no fault of the items: they run again at the next call."""
    work, calls = failing(error)
    session = plan(work, list(range(300)), limits=Limits(4), name="gone")
    summary = clock.run(session)
    assert summary.state == "failed"
    assert summary.reason.startswith("21 items failed alike, and none succeeded: ")
    assert len(calls) <= 20 + 3 + 1
    frame = session.errors()
    assert set(frame["scope"]) == {"account"}
    assert calls[20] != calls[19] + 1 or calls[-1] == max(calls), "the last one asked comes later"
    again, ran = failing(error, good=range(300))
    assert clock.run(plan(again, list(range(300)), name="gone")).counts.completed == 300
    assert len(ran) == 300


NOT_ALIKE = {
    "404": lambda item: http_error(404),
    "410": lambda item: http_error(410),
    "the user's own": lambda item: Permanent("no such thing"),
    "each another": lambda item: ValueError("abcdefghijklmnopqrstuvwxyz"[item % 26]),
}


@pytest.mark.parametrize("error", NOT_ALIKE.values(), ids=NOT_ALIKE)
def test_what_an_item_says_of_itself_ends_nothing(plan, clock, error):
    work, calls = failing(error)
    summary = clock.run(plan(work, list(range(60)), limits=Limits(4)))
    assert (summary.state, summary.counts.failed, len(calls)) == ("completed", 60, 60)


@pytest.mark.parametrize("good", [[0], [59], [30]])
def test_one_success_says_that_the_items_are_at_fault(plan, clock, good):
    """Before, or when one more is asked: the last of the list."""
    work, _ = failing(lambda item: http_error(400), good)
    summary = clock.run(plan(work, list(range(60)), limits=Limits(1)))
    expected = ("completed", 59) if good != [30] else ("failed", 21)
    assert (summary.state, summary.counts.failed) == expected


def test_fewer_than_twenty_end_as_they_did(plan, clock):
    work, _ = failing(lambda item: http_error(400))
    assert clock.run(plan(work, list(range(19)))).state == "completed"


def test_twenty_of_twenty_that_fail_alike_are_no_fault_of_theirs(plan, clock):
    """Nothing is left that could tell."""
    work, _ = failing(lambda item: http_error(400))
    assert clock.run(plan(work, list(range(20)))).state == "failed"


class Probed:
    """Work that can ask its service for something that once succeeded."""

    def __init__(self, clock, bad, down=(0.0, 0.0), nothing=False):
        self.service, self.probes, self.nothing = Service(clock, bad=bad, down=down), [], nothing

    async def __call__(self, item):
        return await self.service(item)

    async def probe(self):
        self.probes.append(self.service.clock.now_s())
        if self.nothing:
            return False
        await self.service(-1)
        return True


@pytest.mark.parametrize("place", ["first", "last", "in the middle", "apart"])
@pytest.mark.parametrize("batch_size", [None, 15])
def test_work_that_can_be_probed_is_never_ended_by_a_few_items(plan, clock, place, batch_size):
    """What once succeeded tells: also where only the bad ones are left."""
    work = Probed(clock, [101, 102, 103])
    session = plan(work, places(list(range(50)), [101, 102, 103])[place], limits=Limits(3, batch_size=batch_size))
    summary = clock.run(session)
    assert (summary.state, summary.counts.completed, summary.counts.failed) == ("completed", 50, 3)
    assert clock.now_s() < HOUR_S


def test_a_probe_asks_a_dead_service_in_place_of_an_item(plan, clock):
    """Its failure is the service's; the item pays nothing for it."""
    work = Probed(clock, [], down=(0.0, 300.0))
    summary = clock.run(plan(work, list(range(20)), limits=Limits(3)))
    assert (summary.state, summary.counts.completed) == ("completed", 20)
    assert work.service.calls.count(-1) == len(work.probes) >= 2


def test_a_probe_with_nothing_to_ask_for_leaves_it_to_the_item(plan, clock):
    work = Probed(clock, [], down=(0.0, 300.0), nothing=True)
    assert clock.run(plan(work, list(range(20)), limits=Limits(3))).counts.completed == 20
    assert -1 not in work.service.calls


def test_an_outcome_says_whose_fault_it_is(plan, clock):
    """The scope of the verdict, also where the error has a word of its own."""

    class Maintenance(RateLimited):
        kind = "maintenance"

    class Odd(ItemError):
        kind = "odd"

    seen = []

    async def work(item):
        raise {"a": http_error(404), "b": http_error(500), "c": Odd("x")}[item]

    session = plan(work, list("abc"), retry=Retry(attempts=1), breaker=None)
    session.on_outcomes(seen.extend) if hasattr(session, "on_outcomes") else None
    clock.run(session)
    assert session.errors().set_index("key")["scope"].to_dict() == {"a": "item", "b": "service", "c": "item"}


@pytest.mark.parametrize("before", ["in this start", "in an earlier run"])
def test_a_403_after_a_success_fails_that_item_alone(plan, clock, before):
    """The same credential has opened the door: what stays shut is that item's."""
    if before == "in an earlier run":
        clock.run(plan(failing(None, good=[0])[0], [0], name="shop"))
    work, _ = failing(lambda item: http_error(403), good=[0, *range(2, 30)])
    items = list(range(before != "in this start", 30))
    summary = clock.run(plan(work, items, name="shop", limits=Limits(1)))
    assert (summary.state, summary.counts.failed) == ("completed", 1)


def test_a_403_for_all_from_some_moment_on_ends_the_session(plan, clock):
    """A key that was withdrawn, an address that was banned: no item is failed for good because of it."""
    work, calls = failing(lambda item: http_error(403), good=range(50))
    summary = clock.run(plan(work, list(range(500)), name="shop", limits=Limits(2)))
    assert (summary.state, summary.counts.completed) == ("failed", 50)
    assert summary.reason.startswith("21 items failed alike, and none succeeded since: ")
    assert len(calls) <= 50 + 22
    again, _ = failing(None, good=range(500))
    assert clock.run(plan(again, list(range(500)), name="shop")).counts.completed == 500


def test_an_address_that_is_wrong_for_all_is_said_at_once_and_ends_soon(plan, clock):
    """One of many is that item's fault."""
    wrong = httpx.UnsupportedProtocol("Request URL is missing an 'http://' or 'https://' protocol.")
    for good, state, failed in ((range(1, 30), "completed", 1), (range(0), "failed", 4)):
        work, calls = failing(lambda item: wrong, good)
        session = plan(work, list(range(30)), limits=Limits(1), name=state)
        assert (clock.run(session).state, session.counts.failed) == (state, failed)
        assert any("missing an 'http://'" in note for note in session.snapshot.notes)
        assert set(session.errors()["scope"]) == {"us"}
    assert len(calls) == 4
