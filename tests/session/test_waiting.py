"""Waiting: in scripts, in cells, in loops that somebody patched, and when it is interrupted."""

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from ipybatch.engine.data import events

CHILD = """
import asyncio, sys, threading
import {nest} as nest
from ipybatch import BatchSession
nest.apply()
turned = threading.Event()

async def kernel():
    for _ in range(5):
        await asyncio.sleep(0.001)
    turned.set()

async def cell():
    beside = asyncio.ensure_future(kernel())
    session = BatchSession("nested", lambda item: turned.wait(10), [1, 2], journal=sys.argv[1])
    print(session.run())
    print(session.results()["result"].tolist())

asyncio.new_event_loop().run_until_complete(cell())
"""


async def hang(item):
    await asyncio.Event().wait()


def begun(session):
    """Return an event that is set when the first attempt starts."""
    heard = threading.Event()
    session.on(lambda event: heard.set() if isinstance(event, events.AttemptStarted) else None)
    return heard


@pytest.mark.parametrize("nest", ["nest_asyncio", "nest_asyncio2"])
def test_run_turns_a_patched_loop_so_that_the_kernels_tasks_go_on(tmp_path, patience, nest):
    """The user has patched the loop: run() waits through it, in a process of its own because the patch is for good."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD.format(nest=nest), str(tmp_path / "journal.db")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["nested completed: 2/2 successful, 0 failed, 0 skipped", "[True, True]"], (
        done.stderr
    )


def test_run_inside_a_running_loop_that_nobody_patched_waits_all_the_same(live):
    """The engine has a thread of its own: run() in a cell of a plain kernel blocks, and ends."""

    async def cell():
        return live(lambda item: item, [1, 2]).run()

    assert asyncio.run(cell()).counts.completed == 2


def interrupt(after):
    """Press Ctrl-C once the event is set and the main thread waits for the session."""
    main = threading.main_thread().ident

    def waits():
        frame = sys._current_frames()[main]
        while frame is not None and frame.f_code.co_name != "_block":
            frame = frame.f_back
        return frame is not None

    def press():
        assert after.wait(20)
        while not waits():
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()


def run_interrupted(session):
    """Run it, and fail the test, not the whole run of tests, when the interrupt comes out."""
    interrupt(begun(session))
    try:
        return session.run()
    except KeyboardInterrupt:
        pytest.fail("run() raised KeyboardInterrupt")


def test_the_first_interrupt_of_run_stops_gracefully(live):
    """Ctrl-C or the stop button: the session is cancelled, run() returns its summary, nothing is raised."""
    session = live(hang, [1, 2, 3])
    summary = run_interrupted(session)
    assert (summary.state, summary.counts.cancelled) == ("cancelled", 3)


def test_an_interrupted_run_can_go_on(live):
    hold = {"hang": True}

    async def work(item):
        if hold["hang"]:
            await asyncio.Event().wait()
        return item

    session = live(work, [1, 2, 3])
    run_interrupted(session)
    hold["hang"] = False
    session.resume()
    assert session.run().counts.completed == 3


async def run_cell_async(session):
    """Stand where the kernel's own coroutine stands, by name."""
    return await session


def test_a_cell_that_is_interrupted_while_it_awaits_stops_gracefully(live):
    """A signal makes the kernel cancel the cell's task: the session is cancelled, and the cell gets its summary."""
    session = live(hang, [1, 2])
    heard = begun(session)

    async def kernel():
        cell = asyncio.ensure_future(run_cell_async(session))
        signal.signal(signal.SIGINT, lambda number, frame: cell.cancel())  # as ipykernel does
        await asyncio.get_running_loop().run_in_executor(None, heard.wait, 20)
        os.kill(os.getpid(), signal.SIGINT)
        return await cell

    before = signal.getsignal(signal.SIGINT)
    try:
        assert asyncio.run(kernel()).state == "cancelled"
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_cell_that_waits_no_longer_leaves_the_session_running(live):
    """asyncio.timeout in a cell ends the waiting alone."""
    session = live(hang, [1, 2])
    heard = begun(session)

    async def kernel():
        cell = asyncio.ensure_future(run_cell_async(session))
        await asyncio.get_running_loop().run_in_executor(None, heard.wait, 20)
        cell.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cell

    asyncio.run(kernel())
    assert session.state == "running"


def test_a_task_of_the_users_own_that_is_cancelled_leaves_the_session_running(live):
    session = live(hang, [1, 2])
    heard = begun(session)

    async def program():
        async def waiter():
            await session

        waiting = asyncio.ensure_future(waiter())
        await asyncio.get_running_loop().run_in_executor(None, heard.wait, 20)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(program())
    assert session.state == "running"


def test_many_may_wait_for_the_same_session(live):
    session = live(lambda item: item, list(range(20)))

    async def wait():
        return await session

    async def cells():
        return await asyncio.gather(wait(), wait(), wait())

    assert {summary.counts.completed for summary in asyncio.run(cells())} == {20}
