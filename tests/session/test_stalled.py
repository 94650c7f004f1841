"""A loop that does not turn: what runs out meanwhile is no fault of the service."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest
import requests

from ipybatch import Breaker, Limits, Retry
from ipybatch.engine.data import events
from ipybatch.engine.run import runner, watchdog


@pytest.fixture(autouse=True)
def _is_impatient(monkeypatch):
    monkeypatch.setattr(watchdog, "STALLED_S", 0.1)
    monkeypatch.setattr(watchdog, "LOOK_S", 0.01)
    monkeypatch.setattr(runner, "STALLED_S", 0.1)


ONCE = {"retry": Retry(attempts=1), "breaker": Breaker(failures=1, give_up_after=1), "limits": Limits(concurrency=3)}


def blocking(other):
    """Work whose first item blocks the loop once, while each of the others does something that takes time."""
    calls = []

    async def work(item):
        calls.append(item)
        if item == 0 and calls.count(0) == 1:
            await asyncio.sleep(0.05)
            time.sleep(0.4)  # noqa: ASYNC251  # what must not be done
        else:
            await other()

    return work


@pytest.mark.parametrize("timeout_s", [None, 0.25])
def test_what_runs_out_while_work_blocks_the_loop_is_no_outage(live, timeout_s):
    """Neither a timeout of the work's own nor ours: the line that blocks is named, and no item pays."""
    failures = []

    async def wait():
        async with asyncio.timeout(None if timeout_s else 0.25):
            await asyncio.sleep(0.1)

    session = live(blocking(wait), [0, 1, 2], timeout_s=timeout_s, **ONCE)
    session.on(lambda event: failures.append(event.failures) if isinstance(event, events.BreakerMoved) else None)
    assert session.run().counts.completed == 3
    assert not any(failures)
    assert any("test_stalled.py" in note for note in session.snapshot.notes)


IN_THE_WORDS_OF = {
    "httpx": httpx.ReadTimeout,
    "requests": requests.exceptions.ReadTimeout,
    "the work": LookupError,
}


@pytest.mark.parametrize("raised", IN_THE_WORDS_OF.values(), ids=IN_THE_WORDS_OF)
def test_a_timeout_is_one_whatever_its_client_calls_it(live, raised):

    async def wait():
        try:
            async with asyncio.timeout(0.25):
                await asyncio.sleep(0.1)
        except TimeoutError as error:
            msg = "no answer in time"
            raise raised(msg) from error

    assert live(blocking(wait), [0, 1, 2], **ONCE).run().counts.completed == 3


STOPPED = """
import asyncio, sys
from ipybatch import BatchSession, Breaker, Limits, Retry
from ipybatch.engine.run import watchdog

watchdog.STOPPED_S = 0.5


async def work(item):
    if not item:
        print("started", flush=True)
    async with asyncio.timeout(1.2):
        await asyncio.sleep(0.3)


policy = {"retry": Retry(attempts=1), "breaker": Breaker(failures=1, give_up_after=1), "limits": Limits(3)}
summary = BatchSession("stopped", work, range(3), journal=sys.argv[1], **policy).run()
print(summary.counts.completed)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no process")
def test_a_process_that_was_stopped_for_a_while_has_seen_no_outage(tmp_path):
    """What ran out meanwhile is nobody's fault, though the loop turns again before anybody can look."""
    command = [sys.executable, "-c", STOPPED, str(tmp_path / "journal.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(1.4)
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.read().strip().endswith("3")
