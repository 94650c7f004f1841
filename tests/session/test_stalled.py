"""A loop that does not turn: what runs out meanwhile is no fault of the service."""

import asyncio
import time

import pytest

from ipybatch import Breaker, Limits, Retry
from ipybatch.engine.data import events
from ipybatch.engine.run import runner, watchdog


@pytest.fixture(autouse=True)
def _is_impatient(monkeypatch):
    monkeypatch.setattr(watchdog, "STALLED_S", 0.1)
    monkeypatch.setattr(watchdog, "LOOK_S", 0.01)
    monkeypatch.setattr(runner, "STALLED_S", 0.1)


ONCE = {"retry": Retry(attempts=1), "breaker": Breaker(failures=1, give_up_after=1), "limits": Limits(concurrency=3)}


@pytest.mark.parametrize("timeout_s", [None, 0.25])
def test_what_runs_out_while_work_blocks_the_loop_is_no_outage(live, timeout_s):
    """Neither a timeout of the work's own nor ours: the line that blocks is named, and no item pays."""
    failures, calls = [], []

    async def work(item):
        calls.append(item)
        if item == 0 and calls.count(0) == 1:
            await asyncio.sleep(0.05)
            time.sleep(0.4)  # noqa: ASYNC251  # what must not be done
        else:
            async with asyncio.timeout(None if timeout_s else 0.25):
                await asyncio.sleep(0.1)

    session = live(work, [0, 1, 2], timeout_s=timeout_s, **ONCE)
    session.on(lambda event: failures.append(event.failures) if isinstance(event, events.BreakerMoved) else None)
    assert session.run().counts.completed == 3
    assert not any(failures)
    assert any("test_stalled.py" in note for note in session.snapshot.notes)
