"""What a refresh tells of itself: fresh, stale and not there, and what they add up to."""

from __future__ import annotations

from typing import Any

import pytest

from ipybatch import BatchSession, Limits
from ipybatch.engine.data import events
from ipybatch.engine.data.fact import NONE
from ipybatch.engine.data.plan import Again
from ipybatch.jupyter import messages
from ipybatch.simulators import Faults

from .conftest import Shop


def told(session: BatchSession) -> dict[str, Any]:
    return {fact.title: fact for fact in messages.facts_of(session)}  # type: ignore[arg-type]


def values(session: BatchSession) -> dict[str, str]:
    return {title: fact.value for title, fact in told(session).items()}


def test_what_was_fresh_and_what_was_fetched_is_fresh(shop: Shop) -> None:
    for app_id, days in ((1, 0), (2, 0.5), (3, 10)):
        shop.own(app_id, days=days)
    session = shop.run([1, 2, 3, 4])
    assert values(session) == {"Fresh": "4", "Stale": "0", "Not there": "0"}
    assert (told(session)["Fresh"].aside, told(session)["Fresh"].foot) == ("of 4", "2 before this run")
    assert told(session)["Stale"].foot == "none is left"


def test_they_are_as_many_all_the_time_and_add_up(shop: Shop) -> None:
    """At each item of the run: fresh, stale and not there are all that there is."""
    seen = []
    session = shop.session(list(range(1, 9)), limits=Limits(concurrency=1, spacing_s=1))

    def look(event: events.Event) -> None:
        if isinstance(event, events.ItemEnded | events.AttemptStarted):
            seen.append(values(session))

    session.on(look)
    shop.clock.run(session)
    assert {tuple(each) for each in seen} == {("Fresh", "Stale", "Not there")}
    assert {sum(map(int, each.values())) for each in seen if NONE not in each.values()} == {8}
    assert values(session) == {"Fresh": "8", "Stale": "0", "Not there": "0"}


def test_what_is_not_there_is_neither_fresh_nor_stale(shop: Shop) -> None:
    """Nor is it when it is not asked for again."""
    shop.open(missing_rate=1.0)
    assert values(shop.run([1, 2, 3])) == {"Fresh": "0", "Stale": "0", "Not there": "3"}
    again = shop.run([1, 2, 3])
    assert again.counts.skipped == 3
    assert values(again) == {"Fresh": "0", "Stale": "0", "Not there": "3"}
    assert told(again)["Not there"].foot == "again in 1 to 30 days"


def test_what_could_not_be_fetched_stays_stale(shop: Shop) -> None:
    shop.open(faults=Faults(rate_500=1.0))
    session = shop.run([1, 2], breaker=None)
    assert values(session) == {"Fresh": "0", "Stale": "2", "Not there": "0"}
    assert (told(session)["Stale"].foot, told(session)["Stale"].tone) == ("2 could not be fetched", "warn")


def test_nothing_is_claimed_before_it_is_judged(shop: Shop) -> None:
    assert values(shop.session([1, 2])) == {}


@pytest.mark.parametrize("items", [[1, 2, 3]])
def test_who_opens_it_later_is_told_the_same(shop: Shop, items: list[int]) -> None:
    shop.own(1, days=0)
    session = shop.run(items)
    assert values(BatchSession.open(session.name)) == values(session)


def test_what_is_not_there_stays_so_while_others_are_asked_again(shop: Shop) -> None:
    """One of those that failed is run again: the others are not "could not be fetched"."""
    shop.open(missing={2, 4, 6})
    shop.run([1, 2, 3, 4, 5, 6])
    shop.open(missing={4, 6})
    session = shop.session([1, 2, 3, 4, 5, 6])

    async def retry() -> None:
        session._open_run(Again(frozenset({"failed"}), frozenset({"2"})))
        await session._drive()

    shop.clock.run_coroutine(retry())
    assert session.counts.failed == 2
    assert values(session) == {"Fresh": "4", "Stale": "0", "Not there": "2"}
    assert values(BatchSession.open(session.name)) == values(session)
