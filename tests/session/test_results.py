"""Results that can be kept, and errors that fail their own item alone."""

import asyncio
import datetime as dt
import threading

import pandas as pd
import pytest

from ipybatch import Limits


@pytest.mark.parametrize(
    "result",
    [None, True, 3, -2.5, "é\n", [1, [None]], {"a": {"b": [1]}}, {}],
    ids=lambda result: f"{type(result).__name__} {result}",
)
def test_what_json_can_hold_comes_back_as_it_was(plan, clock, result):
    seen = []

    async def work(item):
        return {"value": result}

    session = plan(work, [1])
    session.on_outcomes(seen.extend)
    clock.run(session)
    assert seen[0].result == {"value": result}
    assert session.results()["value"].tolist() == [result]


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        (float("nan"), "result is nan; results must be finite"),
        ({"price": float("inf")}, "result['price'] is inf"),
        (b"raw", "result is a builtins.bytes"),
        ({"when": dt.datetime(2026, 11, 22, tzinfo=dt.UTC)}, "result['when'] is a datetime.datetime"),
        ({"table": pd.DataFrame()}, "result['table'] is a pandas"),
        ({"rows": [1, (2, 3)]}, "result['rows'][1] is a builtins.tuple"),
        ({1: "x"}, "result has the key 1 (int); keys must be str"),
        ("\ud800", "result has text that is not valid Unicode"),
    ],
    ids=["nan", "inf", "bytes", "datetime", "frame", "tuple", "key", "surrogate"],
)
def test_a_result_json_cannot_hold_fails_that_item_and_names_the_field(plan, clock, result, complaint):
    async def work(item):
        return result if item == 1 else item

    session = plan(work, [1, 2])
    assert (clock.run(session).counts.failed, session.counts.completed) == (1, 1)
    assert complaint in session.results()["error"][0]


def test_a_result_that_contains_itself_fails_that_item_alone(plan, clock):
    async def work(item):
        result = []
        result.append(result)
        return result

    session = plan(work, [1])
    clock.run(session)
    assert "nested too deeply, or contains itself" in session.results()["error"][0]


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), StopIteration(), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_whatever_an_item_raises_fails_that_item_alone(plan, clock, error):
    """Promise 3: even what would end the interpreter."""

    async def work(item):
        if item == 2:
            raise error
        return item

    session = plan(work, [1, 2, 3])
    assert str(clock.run(session)) == "wishlist completed: 2/3 successful, 1 failed, 0 skipped"
    assert "fail" in session.results()["status"][1]


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration(),
        GeneratorExit(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_thread_raises_fails_that_item_alone(plan, clock, error):
    def work(item):
        if item == 2:
            raise error
        return item

    session = plan(work, [1, 2, 3])
    assert str(clock.run(session)) == "wishlist completed: 2/3 successful, 1 failed, 0 skipped"


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("no words")


def test_an_error_that_cannot_be_printed_fails_that_item_alone(plan, clock):
    async def work(item):
        if item == 2:
            raise Unprintable
        return item

    session = plan(work, [1, 2, 3])
    assert str(clock.run(session)) == "wishlist completed: 2/3 successful, 1 failed, 0 skipped"
    assert "Unprintable" in session.results()["error"][1]


def test_a_thread_that_dies_leaves_its_neighbours_alone(live):
    """The neighbour that was waiting beside it ends as if nothing had been."""
    died = threading.Event()

    def work(item):
        if item == 1:
            died.set()
            raise SystemExit
        died.wait(20)
        return item

    session = live(work, [1, 2], limits=Limits(concurrency=2))
    assert session.run().counts.completed == 1


def test_results_are_those_of_the_run_that_the_object_had(plan, clock):
    """Another object began the name anew, and is not at its end yet."""

    async def work(item):
        return item

    first = plan(work, [1, 2, 3])
    clock.run(first)
    second = plan(work, [1, 2, 3], fresh=True)
    second._open_run()
    assert first.results()["status"].tolist() == ["completed"] * 3
    assert second.results()["status"].tolist() == ["pending"] * 3
    clock.run_coroutine(second._drive())


def test_what_was_forgotten_elsewhere_is_told(live):
    """The summary is of what ran; nothing of it is on record any more."""
    session = live(lambda item: item, [1, 2])
    session.run()
    live(print, [1]).forget()
    for _ in range(2):
        session.run()
    assert [note for note in session.snapshot.notes if "was deleted elsewhere" in note] == session.snapshot.notes[-1:]
    assert session.results()["status"].tolist() == ["pending"] * 2


def test_groups_are_those_of_the_items_that_are_listed(plan, clock):
    async def work(item):
        return item

    clock.run(plan(work, range(10), limits=Limits(batch_size=10)))
    session = plan(work, range(4), limits=Limits(batch_size=10))
    clock.run(session)
    assert [(group.items, group.done) for group in session.snapshot.groups.values()] == [(4, 4)]
    assert session.items_of(1)[0] == 4
