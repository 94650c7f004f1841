"""The statement and the budget of sessions, also of killed ones: what was billed is known, and never above the budget.

`make chaos` kills more often.
"""

import contextlib
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipybatch.engine.store import journal as journals
from ipybatch.gemini.batch import results
from ipybatch.testing import VirtualClock
from tests.gemini.killed import PRICES, Killed
from tests.gemini.nights import SOON, night, waited
from tests.gemini.nights import night_service as gemini


def billed(service):
    """What the service billed: number of answers, and USD at the prices of the session."""
    rows = [row for row in service.simulator.ledger() if row["billed"]]
    usd = sum(
        (row["tokens_in"] + 10 * (row["tokens_out"] + row["tokens_thoughts"]))
        / 1e6
        * (1 if row["lane"] == "online" else 0.5)
        for row in rows
    )
    return len(rows), usd


def check_statement(told, service, *, is_exact):
    """What is billed there is kept here; calls that were cut may be billed, and are told as unknown."""
    count, usd = billed(service)
    known = sum(row["billed"] for row in told["statement"])
    unknown = sum(row["unknown"] for row in told["statement"])
    assert known == sum(row["kept"] for row in told["statement"])
    assert known <= count <= known + unknown
    assert told["usd"] >= usd - 1e-9
    if is_exact:
        assert (unknown, known) == (0, count)
        assert told["usd"] == pytest.approx(usd)
    assert service.truth()["submitted_twice"] == []


def test_the_statement_of_a_killed_batch_is_the_ledger_of_the_service(journal):
    with gemini(batch_delay_s=0.2, job_faults={"late": 0.2, "cut": 0.2, "shuffled": 0.2}, job_looks=1) as service:
        check_killed_batch(service, journal, times=6, seed=1)


def check_killed_batch(service, journal, times, seed):
    options = {"prompts": 40, "lane": "batch", "max_requests_per_job": 5, "poll_s": 0.05, "max_active_jobs": 3}
    with Killed(service.url, journal, config={"max_output_tokens": 300}, budget_usd=1.0, **options) as night:
        night.kill_often(times, seed)
        told = night.run()
    check_statement(told, service, is_exact=told["summary"].startswith("night completed: 40/40"))
    assert service.truth()["billed_twice"] == []
    assert billed(service)[1] <= 1.0
    return told


@pytest.mark.parametrize("lane", ["online", "flex"])
def test_what_killed_calls_may_have_cost_is_told_and_counts(journal, lane):
    with gemini(latency_s=0.1) as service:
        check_killed_calls(service, journal, lane, times=4, seed=2)


def check_killed_calls(service, journal, lane, times, seed):
    budget_usd = 0.02 if lane == "online" else 0.01
    options = {"prompts": 60, "lane": lane, "concurrency": 4, "config": {"max_output_tokens": 50}}
    with Killed(service.url, journal, budget_usd=budget_usd, **options) as night:
        night.kill_often(times, seed)
        told = night.run()
    check_statement(told, service, is_exact=False)
    assert billed(service)[1] <= budget_usd
    return told


@pytest.mark.parametrize("lane", ["online", "batch"])
def test_what_is_answered_while_another_program_holds_the_journal_is_on_record(journal, monkeypatch, lane):
    """However long it does: outcomes wait for it, and what they cost waits with them."""
    monkeypatch.setattr(journals, "BUSY_S", 0.05)
    monkeypatch.setattr(journals, "_ROUND_S", 0.05)
    with gemini(batch_delay_s=0.1, latency_s=0.1) as service:
        session = night(service, journal, 3, lane=lane, poll_s=0.05, prices=PRICES)
        with contextlib.closing(sqlite3.connect(journal, isolation_level=None, check_same_thread=False)) as other:

            def hold(*_):
                if not other.in_transaction:
                    other.execute("BEGIN IMMEDIATE")

            if lane == "online":
                session.start()
                waited(lambda: billed(service)[0] == 3)
                hold()
                time.sleep(0.5)
            else:
                monkeypatch.setattr(results.Output, "blocks", held_blocks(results.Output.blocks, hold))
                session.start()
                waited(lambda: other.in_transaction)
                time.sleep(0.5)
            other.execute("ROLLBACK")
        waited(lambda: session.state == "completed")
        count, usd = billed(service)
        (row,) = session.statement().to_dict("records")
        assert (row["kept"], row["unknown"]) == (count, 0) == (3, 0)
        assert session.usage().usd.sum() == pytest.approx(usd)


def held_blocks(blocks, hold):
    async def held(self, *, is_last):
        hold()
        async for block in blocks(self, is_last=is_last):
            yield block

    return held


FAULTS = [None, "late", "cut", "shuffled", "keyless", "expire", "expire+billed", "expire+partial", "fail+billed"]
FAULTS += ["fail+partial", "cancel+partial", "cancel+billed", "late+keyless", "torn"]
MARKS = ["", " [[no_usage]]", " [[cut]]", " [[blocked]]", " [[total_only]]", " [[extras]]"]


@settings(max_examples=settings().max_examples // 3)
@example(["expire+billed"] * 4, [""] * 9, 0.001, 30, "batch")
@example(["fail+billed", "cut"] * 2, [" [[no_usage]]"] * 9, 0.001, 30, "flex")
@given(
    st.lists(st.sampled_from(FAULTS), max_size=4),
    st.lists(st.sampled_from(MARKS), min_size=1, max_size=9),
    st.floats(0.001, 0.01),
    st.sampled_from([30, 120]),
    st.sampled_from(["batch", "flex"]),
)
def test_no_job_that_goes_wrong_costs_more_than_the_budget(faults, marks, budget_usd, longest, lane):
    """Whatever becomes of the jobs, and though the same call goes on and asks for what was held.

    An answer that is cut at its longest costs its bound, so that nothing is left over for what was not counted.
    """
    prompts = [f"Name star {number}{mark}" for number, mark in enumerate(marks)]
    given = {"max_requests_per_job": 3, "prices": PRICES, "config": {"max_output_tokens": longest}}
    given |= {"flex_fallback": "batch", "flex_tries": 1} if lane == "flex" else {}
    options = {"batch_delay_s": SOON, "job_faults": faults, "job_looks": 2, "flex_shed_rate": 0.5}
    with gemini(**options) as service, tempfile.TemporaryDirectory() as folder:
        for _ in range(3):
            clock = VirtualClock()
            where = {"lane": lane, "clock": clock, "budget_usd": budget_usd, **given}
            session = night(service, Path(folder) / "j.db", prompts, **where)
            clock.run(session)
            count, usd = billed(service)
            assert usd <= budget_usd
            statement = session.statement()
            known = statement.kept.sum() + statement.waiting.sum() + statement.lost.sum()
            assert known <= count <= known + statement.unknown.sum()
            session.resend()
