"""Whole numbers of numpy as arguments, everywhere in the package: a count is a count, whoever made it."""

import fractions

import numpy as np
import pandas as pd
import pytest

from ipybatch import BatchSession, Breaker, InputError, Limits, Rate, Retry
from ipybatch.backends import Processes
from ipybatch.engine.data.policy import check, check_count
from ipybatch.engine.store import commands
from ipybatch.engine.store.journal import open_journal
from ipybatch.forecast import Settings, analyze, evaluate, forecast
from ipybatch.forecast.data.partitions import cut
from ipybatch.forecast.data.table import read_table
from ipybatch.gemini import Auto, Batch, Flex, Model, Online, credits_of
from ipybatch.library.battlenet.source import BattleNetSettings
from ipybatch.library.steam import StoreSettings

DAYS = pd.date_range("2025-01-01", periods=60)
TABLE = pd.DataFrame({"site": np.repeat([1, 2], 60), "part": "p", "date": np.tile(DAYS, 2), "quantity": 3})

# What is made of a number, and what it keeps of it.
COUNTS = {
    "Limits.concurrency": lambda n: Limits(concurrency=n).concurrency,
    "Limits.batch_size": lambda n: Limits(batch_size=n).batch_size,
    "Rate.limit": lambda n: Rate(n, per_s=1).limit,
    "Rate.per_s": lambda n: Rate(1, per_s=n).per_s,
    "Limits.spacing_s": lambda n: Limits(spacing_s=n).spacing_s,
    "Retry.attempts": lambda n: Retry(attempts=n).attempts,
    "Retry.initial_s": lambda n: Retry(initial_s=n).initial_s,
    "Breaker.failures": lambda n: Breaker(failures=n).failures,
    "Breaker.give_up_after": lambda n: Breaker(give_up_after=n).give_up_after,
    "Processes.workers": lambda n: Processes(n).workers,
    "Processes.memory_mb": lambda n: Processes(memory_mb=n).memory_mb,
    "Processes.timeout_s": lambda n: Processes(timeout_s=n).timeout_s,
    "Settings.horizon": lambda n: Settings(horizon=n).horizon,
    "Settings.origins": lambda n: Settings(horizon=1, origins=n).origins,
    "Online.concurrency": lambda n: Online(concurrency=n).concurrency,
    "Flex.concurrency": lambda n: Flex(concurrency=n).concurrency,
    "Flex.tries": lambda n: Flex(tries=n).tries,
    "Batch.max_requests_per_job": lambda n: Batch(max_requests_per_job=n).max_requests_per_job,
    "Batch.max_active_jobs": lambda n: Batch(max_active_jobs=n).max_active_jobs,
    "Auto.deadline_s": lambda n: Auto(deadline_s=n).deadline_s,
    "Model.rpm": lambda n: Model("m", rpm=n).rpm,
    "Model.priority": lambda n: Model("m", priority=n).priority,
    "StoreSettings.batch_size": lambda n: StoreSettings(batch_size=n).batch_size,
    "BattleNetSettings.max_concurrent": lambda n: BattleNetSettings(max_concurrent=n).max_concurrent,
}
WHOLE = (np.int64(5), np.int32(5), np.uint8(5), np.array(5), np.arange(6)[-1])


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("number", WHOLE, ids=lambda number: f"{type(number).__name__} {number.dtype}")
def test_a_whole_number_of_numpy_is_pythons(name, number):
    """So that the journal, JSON and the panel can hold it."""
    kept = COUNTS[name](number)
    assert (kept, type(kept)) == (5, int)


@pytest.mark.parametrize(
    "number", [True, np.True_, 5.0, np.float64(5), "5", None, fractions.Fraction(5), 0, np.int64(0)]
)
def test_what_does_not_count_is_no_count(number):
    with pytest.raises(InputError, match="horizon must be a whole number >= 1, got"):
        check_count("horizon", number, low=1)


@pytest.mark.parametrize("number", [np.float32(2.5), np.float64(2.5), fractions.Fraction(5, 2), 2.5])
def test_a_real_number_is_pythons(number):
    kept = check("rate", number, low=1)
    assert (kept, type(kept)) == (2.5, float)
    for other in (True, np.True_, "2.5", None, np.float64("nan"), 2.5j):
        with pytest.raises(InputError, match="rate must be >= 1, got"):
            check("rate", other, low=1)


def test_a_session_runs_with_numbers_of_numpy():
    limits = Limits(concurrency=np.int64(2), rates=[Rate(np.int64(50), per_s=np.int32(1))], each=None)
    session = BatchSession(
        "numpy", lambda item: item, range(3), limits=limits, timeout_s=np.float32(9), rank=lambda item: np.int64(-item)
    )
    session.run()
    assert session.counts.completed == 3
    assert BatchSession.open("numpy").results()["result"].tolist() == [0, 1, 2]
    assert session.estimate(n=np.int64(7)).requests == 7


def test_limits_are_changed_with_numbers_of_numpy(tmp_path):
    """Here, and in the process that runs the session: what it is asked travels as JSON."""
    limits = Limits(concurrency=4, rates=[Rate(50, per_s=1)])
    session = BatchSession("numpy adjusted", lambda item: item, range(3), limits=limits)
    session.adjust(concurrency=np.int64(2), rates=np.array([5]))
    assert session.counts.total == 3
    wanted = {"concurrency": np.int64(2), "rates": [np.float64(5)]}
    assert commands.ask(open_journal(tmp_path / "j.sqlite"), 0, 0, "adjust", wanted, 0.0, "") == 0


def test_a_table_is_forecast_with_numbers_of_numpy():
    made = forecast(
        TABLE, horizon=np.int64(2), by="size", max_rows=np.int64(60), max_partitions=np.int32(4), name="numbers",
        models=["ses"], workers=np.int64(1), timeout_s=np.int64(60), memory_mb=np.float64(900), level=np.float64(0.8),
    )  # fmt: skip
    made.run()
    assert len(made.results()) == 4
    assert BatchSession.open("numbers", demand=TABLE).workload.about["unrecorded"] == []


def test_a_table_is_analyzed_and_evaluated_with_numbers_of_numpy():
    analysis = analyze(TABLE, horizon=np.int64(2), workers=np.int64(1), max_rows=np.int64(9), timed=False)
    assert (analysis.horizon, analysis.workers) == (2, 1)
    made = evaluate(TABLE, horizon=np.int64(2), origins=np.int64(1), models=["ses"])
    assert made.attrs["horizon"] == 2


def test_a_site_may_be_one_number_of_numpy():
    assert cut(read_table(TABLE), None, 9, 9, sites=np.int64(2)).partitions[0].sites == (2,)


def test_units_of_numpy_are_charged():
    assert credits_of("text-to-image", np.int64(2)) == 2 * credits_of("text-to-image")
