"""The benchmarks, as tests of what they must get right; how fast is in the table, and no test asserts it.

``BENCH_ROUNDS`` (5) and ``BENCH_SCALE`` (1, the share of the items) make a quick run; ``BENCH_DATA``, ``BENCH_PEERS``
and ``BENCH_LARGE=0`` are what ``python -m tests.benchmarks.forecasting`` takes.
"""

import os

import pytest

from tests.benchmarks.questions import QUESTIONS, answer, keep

pytestmark = pytest.mark.bench

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SCALE = float(os.environ.get("BENCH_SCALE", "1"))


@pytest.fixture(scope="module")
def measured():
    """Collect rows, and print them as one table at the end."""
    rows, load = [], []
    yield rows, load
    if rows:
        print(f"\n\n{keep(rows, rounds=ROUNDS, scale=SCALE, load=load)}\n")


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_run_does_the_whole_work_and_breaks_no_limit(question, measured):
    """Counts are complete, nothing recorded runs again, no window is exceeded, nothing heavy is imported."""
    rows, load = measured
    load.append(os.getloadavg()[0])
    rows += answer(question, ROUNDS, SCALE)
    assert keep(rows, rounds=ROUNDS, scale=SCALE, load=load)
