"""What a failed item received all the same: it stands in its row, like a result."""

import asyncio

import pandas as pd
import pytest

from ipybatch import Limits, Permanent, Retry, Transient
from ipybatch.backends import Processes

PAID = {"text": "half an ans", "usd": 0.25}


def cut(item):
    error = (Transient if item == "passing" else Permanent)("cut off")
    error.result = PAID
    raise error


async def work(item):
    if item == "well":
        return {"text": "whole", "usd": 0.5}
    if item != "odd":
        return cut(item)
    error = Permanent("with a set")
    error.result = {1, 2}
    raise error


def row(session, key):
    return session.results().set_index("key").loc[key]


@pytest.mark.parametrize("item", ["lasting", "passing"])
def test_what_was_received_is_kept_beside_the_error(live, item):
    """In results, in the stream, and after a restart; not for an attempt that another one follows."""
    session = live(work, [item, "well"], name="paid", retry=Retry(attempts=2, initial_s=0), limits=Limits(1))

    async def hear():
        return {outcome.key: outcome.result async for outcome in session.stream()}

    heard = asyncio.run(hear())
    for one in (session, live(work, [item, "well"], name="paid")):
        kept = row(one, item)
        assert (kept["status"], kept["error"], kept["text"], kept["usd"]) == ("failed", "cut off", *PAID.values())
        assert one.results()["usd"].sum() == 0.75
    assert heard[item] == PAID


def test_what_json_cannot_hold_is_left_out(plan, clock):
    """The error is told all the same."""
    session = plan(work, ["odd", "well"])
    clock.run(session)
    assert row(session, "odd")["error"] == "with a set"
    assert pd.isna(row(session, "odd")["text"])


def test_a_later_success_takes_its_place(plan, clock):
    clock.run(plan(work, ["passing"], name="paid", retry=Retry(attempts=1)))
    again = plan(lambda item: None, ["passing"], name="paid")
    clock.run(again)
    assert row(again, "passing")["status"] == "completed"
    assert "text" not in again.results().columns


def test_it_comes_out_of_a_process_too(live):
    session = live(cut, ["lasting"], backend=Processes(1))
    session.run()
    assert row(session, "lasting")["text"] == PAID["text"]
