"""Items and keys: what is checked before the first call, and what as it is drawn."""

import asyncio
from dataclasses import dataclass

import pandas as pd
import pytest

from ipybatch import InputError, Limits


async def same(item):
    return item


async def name_of(item):
    return str(item)


FUNCTIONS = ("key", "cost", "skip", "rank", "priority", "on_progress")


def forbidden(item):
    raise AssertionError("refused before the first call")


@dataclass
class Game:
    id: int
    name: str


def test_duplicates_in_a_list_are_refused_before_the_first_call(plan, journal):
    """The message names the first two, and what to do; nothing is recorded."""
    with pytest.raises(InputError, match=r"items 1 and 3 share the key 7: keys must be unique; drop one, or pass key="):
        plan(forbidden, [5, 7, 9, 7, 5])
    assert not journal.exists()


def test_duplicates_are_a_value_error(plan):
    with pytest.raises(ValueError, match="items 0 and 1"):
        plan(forbidden, ["a", "a"])


def test_the_number_one_and_the_text_one_are_two_keys(plan, clock):
    session = plan(same, [1, "1"])
    clock.run(session)
    assert session.results()["key"].tolist() == [1, "1"]
    assert session.results()["result"].tolist() == [1, "1"]


@pytest.mark.parametrize(
    ("items", "keys"),
    [
        ([{"id": 4, "q": "x"}, {"id": 5, "q": "x"}], [4, 5]),
        ([{"key": "a", "q": "x"}, {"key": "b", "q": "x"}], ["a", "b"]),
        ([Game(4, "x"), Game(5, "x")], [4, 5]),
        ([["de", 1], ["fr", 1]], ['["de",1]', '["fr",1]']),
        ([{"b": 1, "a": 2}], ['{"a":2,"b":1}']),
    ],
    ids=["id field", "key field", "attribute", "list", "dict, sorted"],
)
def test_a_key_is_the_item_or_its_id_or_key_field(plan, clock, items, keys):
    session = plan(name_of, items)
    clock.run(session)
    assert session.results()["key"].tolist() == keys


def test_key_function_gives_the_key(plan, clock):
    session = plan(same, ["Portal", "Doom"], key=str.lower)
    clock.run(session)
    assert session.results()[["key", "result"]].to_numpy().tolist() == [["portal", "Portal"], ["doom", "Doom"]]


@pytest.mark.parametrize("item", [None, float("nan"), object()], ids=["None", "nan", "object"])
def test_an_item_without_a_stable_key_is_refused_by_number(plan, item):
    with pytest.raises(InputError, match=r"item 1 \(.*\) has no stable key"):
        plan(forbidden, [1, item])


@pytest.mark.parametrize("items", ["440", b"440", {440: "Team Fortress"}, 440, None], ids=type)
def test_what_is_no_list_of_items_is_refused(plan, items):
    with pytest.raises(InputError, match="items must be"):
        plan(forbidden, items)


@pytest.mark.parametrize(
    "items",
    [range(3), (0, 1, 2), pd.Series([0, 1, 2]), pd.Series([0, 1, 2]).to_numpy()],
    ids=lambda i: type(i).__name__,
)
def test_whatever_has_an_order_is_a_list(plan, clock, items):
    session = plan(same, items)
    assert session.counts.total == 3
    clock.run(session)
    assert session.results()["result"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("work", "complaint"),
    [
        ("fetch", "work must be a function"),
        (lambda: None, "work must take one item"),
        (None, "work must be a function"),
    ],
)
def test_work_that_cannot_be_called_with_one_item_is_refused(plan, work, complaint):
    with pytest.raises(InputError, match=complaint):
        plan(work, [1])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"timeout_s": 0}, "timeout_s must be > 0, got 0"),
        ({"timeout_s": "5"}, "timeout_s must be > 0, got '5'"),
        ({"on_failure": "ignore"}, "on_failure must be one of 'continue', 'stop', 'rollback', got 'ignore'"),
        ({"limits": 3}, r"limits must be Limits\(...\) or None, got 3"),
        ({"retry": 3}, r"retry must be Retry\(...\) or None, got 3"),
        ({"breaker": 3}, r"breaker must be Breaker\(...\) or None, got 3"),
        ({"backend": "loop"}, 'backend must be "threads" for a plain function'),
        ({"backend": "dusk"}, 'backend must be "loop", "threads" or a backend object'),
        ({"name": " "}, "name must be a text of 1 to 200 characters"),
        *(({field: 5}, f"{field} must be a function or None, got 5") for field in FUNCTIONS),
        ({"settings": object()}, "settings must be what JSON can hold"),
    ],
    ids=str,
)
def test_a_bad_argument_is_refused_by_field_and_value(plan, arguments, complaint):
    """Promise 13: field, value and allowed range, before the first call."""
    with pytest.raises(InputError, match=complaint):
        plan(forbidden, [1], **arguments)


def test_a_refused_argument_touches_nothing_recorded(plan, clock):
    first = plan(same, [1, 2])
    clock.run(first)
    with pytest.raises(InputError):
        plan(same, [1, 1])
    assert plan(same, [1, 2]).counts.completed == 2


def test_the_total_of_a_generator_is_unknown_until_it_is_exhausted(plan, clock):
    totals = []
    session = plan(same, (n for n in range(5)), limits=Limits(concurrency=1))
    session.on(lambda event: totals.append(session.counts.total))
    clock.run(session)
    assert totals[0] is None
    assert session.counts.total == 5
    assert set(totals) == {None, 5}


def test_a_generator_is_drawn_as_slots_come_free(plan, clock):
    """Items may be a generator of millions, each heavy: no more are drawn than what soon runs."""
    drawn, ended = [], []

    def items():
        for n in range(200):
            drawn.append(n)
            assert len(drawn) - len(ended) <= 16
            yield n

    async def work(n):
        await asyncio.sleep(1)
        ended.append(n)

    assert clock.run(plan(work, items(), limits=Limits(concurrency=3))).counts.completed == 200


def test_a_duplicate_in_a_generator_fails_that_item_alone(plan, clock):
    calls = []

    async def work(n):
        calls.append(n)
        return n

    session = plan(work, iter([1, 2, 1, 3]))
    assert str(clock.run(session)) == "wishlist completed: 3/4 successful, 1 failed, 0 skipped"
    assert calls == [1, 2, 3]
    frame = session.results()
    assert frame["status"].tolist() == ["completed", "completed", "failed", "completed"]
    assert frame["error"][2] == "duplicate key 1: an earlier item has it too"


def test_an_item_without_a_key_in_a_generator_fails_that_item_alone(plan, clock):
    session = plan(same, iter([1, None, 3]))
    assert clock.run(session).counts.failed == 1
    assert "has no stable key" in session.results()["error"][1]


def test_advice_about_keys_is_readable(plan, clock):
    session = plan(same, iter([object()]))
    clock.run(session)
    assert "pass key=, a function of the item" in session.results()["error"][0]


def test_a_generator_that_raises_stops_the_session_and_keeps_what_was_recorded(plan, clock):
    def items():
        yield 1
        yield 2
        raise OSError("the feed broke")

    session = plan(same, items())
    summary = clock.run(session)
    assert (summary.state, summary.counts.completed) == ("failed", 2)
    assert summary.reason == "the items could not be drawn: OSError: the feed broke"
    assert session.results()["result"].tolist() == [1, 2]


def test_items_in_flight_when_a_generator_raises_are_recorded(plan, clock):
    async def work(n):
        await asyncio.sleep(5)
        return n

    def items():
        yield 1
        raise OSError

    assert clock.run(plan(work, items())).counts.completed == 1
