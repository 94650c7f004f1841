"""Waiting: in scripts, in cells, in loops that somebody patched, and when it is interrupted."""

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from ipybatch import BatchSession
from ipybatch.engine.data import events
from ipybatch.engine.data.outcome import Outcome
from ipybatch.session import waiting

CHILD = """
import asyncio, sys, threading
import {nest} as nest
from ipybatch import BatchSession
turned = threading.Event()

async def kernel():
    for _ in range(5):
        await asyncio.sleep(0.001)
    turned.set()

async def cell():
    nest.apply()  # in a loop that runs: nest_asyncio2 patches no other from Python 3.12 on
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
    return uninterrupted(session.run)


def uninterrupted(call):
    try:
        return call()
    except KeyboardInterrupt:
        pytest.fail("KeyboardInterrupt came out")


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


def press(*_):
    """Press Ctrl-C: the main thread hears it at its next bytecode."""
    signal.raise_signal(signal.SIGINT)
    return 0


def press_at(session, kind, state=""):
    def listen(event):
        if isinstance(event, kind) and getattr(event, "state", state) == state:
            press()

    session.on(listen)
    return session


OPENING = {
    "while the items are looked at": lambda make, work: make(
        work, [1, 2, 3], rank=lambda item: press() if item == 1 else 0
    ),
    "before the lease": lambda make, work: press_at(make(work, [1, 2, 3]), events.Planned),
    "after the lease": lambda make, work: press_at(make(work, [1, 2, 3]), events.StateChanged, "running"),
    "before the lease of a generator": lambda make, work: press_at(make(work, iter([1, 2, 3])), events.Planned),
}


def counting():
    calls = []

    async def work(item):
        calls.append(item)

    return calls, work


@pytest.mark.parametrize("when", OPENING)
def test_an_interrupt_while_run_still_opens_sends_nothing(live, when):
    """Ctrl-C before the first call: none is made, the session is cancelled, and it is not begun a second time."""
    calls, work = counting()
    session = OPENING[when](live, work)
    summary = uninterrupted(session.run)
    assert (summary.state, calls) == ("cancelled", [])


@pytest.mark.parametrize("when", OPENING)
def test_an_interrupt_while_an_await_still_opens_sends_nothing(live, when):
    """As asyncio.run hands it on: it cancels the task that awaits the session."""
    calls, work = counting()
    session = OPENING[when](live, work)
    assert uninterrupted(lambda: asyncio.run(run_cell_async(session))).state == "cancelled"
    assert calls == []


def test_an_interrupt_while_start_opens_reaches_its_caller_and_sends_nothing(live):
    calls, work = counting()
    session = OPENING["after the lease"](live, work)
    with pytest.raises(KeyboardInterrupt):
        session.start()
    assert uninterrupted(session.run).state == "cancelled"
    assert calls == []


def test_work_that_raises_an_interrupt_while_it_opens_leaves_the_session_planned(live):
    """No signal: a function of the user's, asked for the rank of an item, raises it."""
    calls, work = counting()

    def rank(item):
        raise KeyboardInterrupt

    assert uninterrupted(live(work, [1, 2], rank=rank).run).state == "planned"
    assert calls == []


def test_a_second_interrupt_is_not_held_back(live):
    """A function of the user's that hangs while the session opens can be left."""
    presses = []

    def rank(item):
        presses.append(item)
        return press()

    calls, work = counting()
    assert uninterrupted(live(work, [1, 2, 3, 4], rank=rank).run).state == "planned"
    assert (len(presses), calls) == (2, [])


def test_what_was_cancelled_before_it_awaits_begins_nothing(live):
    calls, work = counting()
    session = live(work, [1, 2, 3])

    async def cell():
        asyncio.current_task().cancel()
        await session

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cell())
    assert (session.state, calls) == ("planned", [])


class Lines:
    """Press Ctrl-C at the ``at``-th line that runs of ours in the main thread; count them all."""

    def __init__(self, at):
        self.at, self.lines = at, 0

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_):
        sys.settrace(self._before)

    def _trace(self, frame, event, argument):
        if "ipybatch" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                press()
        return self._trace


STEPS = 24


@pytest.fixture(scope="module")
def all_lines(tmp_path_factory):
    """How many lines run in the main thread until a session has begun."""
    _, work = counting()
    session = BatchSession("lines", work, [1, 2], journal=tmp_path_factory.mktemp("lines") / "journal.db")
    with Lines(-1) as counted:
        session.start()
    session.run()
    return counted.lines


@pytest.mark.parametrize("step", range(STEPS))
def test_wherever_an_interrupt_comes_nothing_is_begun_twice_and_the_name_stays_free(live, all_lines, step):
    """Before, while, and just after the session opens: it is planned or cancelled, and a later run does it all."""
    session = live(hang, [1, 2])
    try:
        with Lines(1 + step * all_lines // (STEPS - 2)):
            session.run()
    except KeyboardInterrupt:
        assert session.state == "planned"
    assert session.state in ("planned", "cancelled")
    calls, work = counting()
    assert uninterrupted(live(work, [1, 2]).run).counts.completed == 2
    assert sorted(calls) == [1, 2]


def test_stream_gives_what_is_recorded_between_two_questions(patience):
    """The engine's thread records the last outcome, and ends, after the stream has seen that none waits."""
    last, heard = Outcome(key="1", status="completed"), []

    def on_outcomes(listener):
        heard.append(listener)
        return heard.clear

    def is_live():
        if heard and heard[0] is not None:
            heard[0]([last])
            heard[0] = None
        return False

    async def cell():
        return [outcome async for outcome in waiting.stream(on_outcomes, lambda: None, is_live)]

    assert asyncio.run(cell()) == [last]


LEFT = """
import asyncio, os, sys, threading
from ipybatch import BatchSession, Limits
first = threading.Event()

async def work(item):
    if item:
        await asyncio.Event().wait()

session = BatchSession("left", work, {items}, limits=Limits(concurrency=2), journal=sys.argv[1])
session.on("done", lambda event: first.set())
session.start()
first.wait(20)
{then}
"""


def script(journal, items="range(5)", then=""):
    code = LEFT.format(items=items, then=then)
    command = [sys.executable, "-c", code, str(journal)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(("items", "left"), [("range(5)", "4 are left"), ("(n for n in range(5))", "the rest is left")])
def test_a_script_that_ends_before_its_session_says_what_is_left(journal, items, left):
    """It exits as it would have, and does not wait."""
    done = script(journal, items)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        f"ipybatch: session 'left' did not end: 1 items are recorded, {left}; the same name goes on."
        " session.run() waits for the end\n"
    )


@pytest.mark.parametrize(
    "then",
    [
        "session.cancel()",
        "sys.stderr = None",
        "sys.stderr.close()",
        "pid = os.fork()\nif not pid: sys.exit()\nos.waitpid(pid, 0); session.cancel()",
        "import ipykernel.zmqshell as shell; shell.ZMQInteractiveShell.instance()",
    ],
    ids=["ended", "no standard error", "a closed one", "a fork", "a notebook"],
)
def test_nothing_is_said_where_nothing_is_left_or_nobody_reads(journal, then):
    done = script(journal, then=then)
    assert "did not end" not in done.stderr
    assert done.returncode == 0
