"""Isolation: what work may do to its process, and what must come of it; and how supervisor and kernel end.

Longer than most: one table of all that work may do.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import pytest

from ipybatch import Limits, Permanent, Retry
from ipybatch.backends import Killed, Overrun, Processes
from tests.backends.process.attempts import attempt, came_of, is_there, marked

pytestmark = [
    pytest.mark.usefixtures("patience"),
    pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is Linux's"),
]
cloudpickle.register_pickle_by_value(sys.modules[__name__])
MB = 2**20


def wait_gone(*pids, within_s=15):
    until_s = time.monotonic() + within_s
    while any(map(is_there, pids)):
        assert time.monotonic() < until_s, f"still there: {[pid for pid in pids if is_there(pid)]}"
        time.sleep(0.02)


# Copies of the process: only the one that was started answers


def fork_returns():
    """As code does that forgets that fork() returns twice."""
    if os.fork() == 0:
        return "the copy's"
    os.wait()
    return "its own"


def fork_raises():
    if os.fork() == 0:
        raise ValueError("the copy's")
    return os.waitstatus_to_exitcode(os.wait()[1])


def fork_exits():
    if os.fork() == 0:
        sys.exit(3)
    return os.waitstatus_to_exitcode(os.wait()[1])


def fork_returns_late():
    """The copy outlives the answer."""
    if os.fork() == 0:
        time.sleep(0.3)
        return "the copy's"
    return "its own"


async def fork_in_coroutine():
    if os.fork() == 0:
        return "the copy's"
    await asyncio.sleep(0.1)
    return "its own"


def fork_in_thread():
    thread = threading.Thread(target=os.fork)
    thread.start()
    thread.join()
    return "its own"


def fork_twice_in_two_sessions():
    """As daemons do: and what was started has ended, the copy has no say."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    return "the daemon's"


# Its descriptors


def close_all():
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    return "its own"


def close_all_and_open_others():
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    kept = [os.open(os.devnull, os.O_WRONLY) for _ in range(700)]
    return "its own" if kept else ""


def open_descriptors():
    return [int(one.name) for one in Path("/proc/self/fd").iterdir() if int(one.name) > 2]


def write_to_all():
    for one in open_descriptors():
        with contextlib.suppress(OSError):
            os.write(one, b"RD a log line\n" * 50)
    return "its own"


def write_to_all_within_the_answer():
    lines = open_descriptors()
    if os.fork() == 0:
        while True:
            for one in lines:
                with contextlib.suppress(OSError):
                    os.write(one, b"a log line\n")
    return b"x" * 60_000_000


def leave_lines_with_a_helper():
    subprocess.Popen(["sleep", "3600"], close_fds=False, start_new_session=True)
    return "its own"


def print_megabytes():
    for _ in range(100):
        os.write(1, b"out\n" * 20_000)
        os.write(2, b"err\n" * 20_000)
    return "its own"


# Its end


def exit_without_an_answer():
    os._exit(0)


def exit_as_we_once_did_for_lack_of_memory():
    os._exit(86)


def end_its_group():
    os.killpg(0, signal.SIGTERM)
    time.sleep(3600)


def become_another_program():
    os.execv("/bin/true", ["true"])


def crash_after_printing():
    print("out of memory: std::bad_alloc, MemoryError, Cannot allocate memory", flush=True)
    os.abort()


def be_killed_after_printing():
    print("out of memory", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def exit_after_printing():
    print("OpenBLAS error: Memory allocation still failed", flush=True)
    os._exit(1)


def end(code):
    return f"Ended without an answer, exit code {code}"


WELL = "its own"
GARBLED = "The answer cannot be read: the work, or a process that it started, wrote into its line"
TABLE = {
    fork_returns: WELL,
    fork_raises: 1,
    fork_exits: 3,
    fork_returns_late: WELL,
    fork_in_coroutine: WELL,
    fork_in_thread: WELL,
    fork_twice_in_two_sessions: (Killed, end(0)),
    close_all: WELL,
    close_all_and_open_others: WELL,
    write_to_all: WELL,
    write_to_all_within_the_answer: (Killed, GARBLED),
    leave_lines_with_a_helper: WELL,
    print_megabytes: WELL,
    exit_without_an_answer: (Killed, end(0)),
    exit_as_we_once_did_for_lack_of_memory: (Killed, end(86)),
    end_its_group: (Killed, "Killed by SIGTERM"),
    become_another_program: (Killed, end(0)),
    crash_after_printing: (Killed, "Killed by SIGABRT"),
    be_killed_after_printing: (Killed, "Killed by SIGKILL"),
    exit_after_printing: (Killed, end(1)),
}


def test_only_the_process_that_was_started_answers_for_its_work():
    """All side by side: what one does is nothing to the others."""
    told = attempt(lambda work: work(), *TABLE, timeout_s=20, memory_mb=2000)
    assert {work.__name__: came_of(one) for work, one in zip(TABLE, told, strict=True)} == {
        work.__name__: expected for work, expected in TABLE.items()
    }


def test_an_error_that_has_no_text_is_an_answer_too():
    class Mute(Exception):
        def __str__(self):
            raise LookupError

    def work(item):
        raise Mute

    (error,) = attempt(work, 1)
    assert came_of(error) == (RuntimeError, "the work raised Mute, whose text cannot be read: LookupError")


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (crash_after_printing, "crashed"),
        (be_killed_after_printing, "killed"),
        (exit_after_printing, "exited"),
        (write_to_all_within_the_answer, "killed"),
    ],
)
def test_how_a_process_ended_is_its_kind_of_failure(work, kind):
    """Advice depends on it: of memory there is no sign where code has crashed."""
    (error,) = attempt(lambda work: work(), work)
    assert error.kind == kind


# Its time


class SlowToRead:
    def __init__(self, where=None):
        self.where = where

    def __setstate__(self, state):
        if state["where"] != os.getpid():
            time.sleep(3600)


def hang_after_a_copy_returned():
    if os.fork():
        time.sleep(3600)
    return "the copy's"


def hang_after_writing_to_all():
    write_to_all()
    time.sleep(3600)


def hang_after_closing_all():
    close_all()
    time.sleep(3600)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def return_what_is_slow_to_read():
    return SlowToRead()


def fail_with_what_is_slow_to_read():
    error = ValueError("x")
    error.slow = SlowToRead()
    raise error


OVERRUNS = [
    hang_after_a_copy_returned,
    hang_after_writing_to_all,
    hang_after_closing_all,
    stop,
    return_what_is_slow_to_read,
    fail_with_what_is_slow_to_read,
]


def test_the_time_of_an_attempt_counts_until_its_process_is_gone():
    told = attempt(lambda work: work(), *OVERRUNS, timeout_s=1)
    assert {work.__name__: came_of(one) for work, one in zip(OVERRUNS, told, strict=True)} == {
        work.__name__: (Overrun, "Exceeded 1s") for work in OVERRUNS
    }


def test_a_result_that_is_slow_here_alone_is_given_up(monkeypatch):
    monkeypatch.setattr("ipybatch.backends.process.backend._READ_S", 0.2)
    slow, well = attempt(lambda slow: SlowToRead(os.getpid()) if slow else "well", True, False, timeout_s=0.2)
    assert isinstance(slow, Permanent)
    assert str(slow).startswith("the result cannot be read in this process within 0 s")
    assert well == "well"


class Wide:
    """As any result that is no plain data."""

    def __init__(self, data):
        self.data = data


class Laborious:
    """To read it takes a processor, and holds the lock of the interpreter, so that no thread of the kernel goes on."""

    def __reduce__(self):
        return sum, (range(30_000_000),)


@pytest.mark.parametrize("timeout_s", [None, 60])
def test_a_result_that_would_hold_the_kernel_up_is_refused_where_it_was_made(timeout_s):
    def work(item):
        from ipybatch.backends.process import worker_main

        worker_main._READ_S = 0.1
        if item == "fails":
            error = ValueError("x")
            error.more = Laborious()
            raise error
        return Laborious() if item == "slow" else Wide(b"w" * 1_000_000)

    slow, error, well = attempt(work, "slow", "fails", "well", timeout_s=timeout_s)
    assert isinstance(slow, Permanent)
    assert str(slow).startswith("the result takes ")
    assert "x" in str(error)
    assert not hasattr(error, "more")
    assert isinstance(well, Wide)


def test_without_a_limit_on_time_a_result_that_is_slow_here_alone_is_given_up_too(monkeypatch):
    monkeypatch.setattr("ipybatch.backends.process.backend._READ_S", 0.2)
    monkeypatch.setattr("ipybatch.backends.process.backend._READ_UNTIMED_S", 0.2)
    (slow,) = attempt(lambda _: SlowToRead(os.getpid()), 1)
    assert str(slow).startswith("the result cannot be read in this process within 0 s")


def test_a_supervisor_that_is_stopped_goes_on():
    """Else no deadline would hold."""
    (error,) = attempt(lambda item: os.kill(os.getppid(), signal.SIGSTOP) or time.sleep(3600), 1, timeout_s=0.5)
    assert came_of(error) == (Overrun, "Exceeded 0.5s")


def stop_supervisor_and_keeper():
    supervisor = os.getppid()
    keeper = Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1]
    for pid in (int(keeper), supervisor):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3600)


def test_a_supervisor_and_its_keeper_that_are_stopped_go_on():
    (error,) = attempt(lambda _: stop_supervisor_and_keeper(), 1, timeout_s=0.5)
    assert came_of(error) == (Overrun, "Exceeded 0.5s")


# The end of others


def leave_helpers(folder):
    """Leave programs and a copy in sessions of their own, one without our environment; note who is who."""
    program = subprocess.Popen(["sleep", "3600"], start_new_session=True, env={})
    copy = os.fork()
    if copy == 0:
        os.setsid()
        time.sleep(3600)
    part = Path(folder, "part")
    supervisor = os.getppid()
    keeper = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
    part.write_text(f"{supervisor} {keeper} {os.getpid()} {program.pid} {copy}")
    part.rename(Path(folder, f"pids-{os.getpid()}"))
    time.sleep(3600)


def noted(folder, within_s=20):
    until_s = time.monotonic() + within_s
    while not (found := list(Path(folder).glob("pids-*"))):
        assert time.monotonic() < until_s
        time.sleep(0.02)
    return [int(pid) for pid in found[0].read_text().split()]


@pytest.mark.parametrize("who", [slice(0, 1), slice(1, 2), slice(0, 2)], ids=["supervisor", "keeper", "both"])
def test_what_a_killed_supervisor_leaves_ends_before_that_is_told(who, tmp_path):
    """All but a program without our environment, where both are killed."""

    async def run():
        backend = Processes(1)
        await backend.open(1)
        running = asyncio.ensure_future(backend.run(leave_helpers, (tmp_path,)))
        pids = await asyncio.to_thread(noted, tmp_path)
        for pid in pids[who]:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(Killed, match="The supervisor of the processes has ended: killed by SIGKILL"):
            await running
        bare = pids.pop(3)
        await asyncio.to_thread(wait_gone, *pids, within_s=1)  # what init has to reap included
        if len(pids[who]) == 1:
            await asyncio.to_thread(wait_gone, bare, within_s=1)
        elif is_there(bare):
            os.kill(bare, signal.SIGKILL)
        assert await backend.run(os.getppid, ()) != pids[0]
        await backend.close()

    asyncio.run(run())


def test_what_a_killed_supervisor_ran_runs_again_and_is_not_counted(live, wait_for, tmp_path):
    """Even where one of them kills each that it gets: it fails alone."""

    def work(item):
        if item == "guilty":
            while not (tmp_path / "innocent").exists():
                time.sleep(0.01)
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(3600)
        begun = tmp_path / item
        if not begun.exists():
            begun.touch()
            time.sleep(3600)
        return item

    backend = Processes(2, timeout_s=60)
    session = live(work, ["innocent", "guilty"], backend=backend, retry=Retry(attempts=1), limits=Limits(concurrency=2))
    session.start()
    wait_for(session)
    told = session.results().set_index("key")
    assert told.status.to_dict() == {"innocent": "completed", "guilty": "failed"}
    assert told.error["guilty"].startswith("The supervisor of the processes has ended again, with this alone in it")
    (note,) = session.log().query("event == 'noted'").text
    assert note.startswith("The supervisor of the processes has ended: killed by SIGKILL: what it ran starts again")


def test_however_many_kill_their_supervisors_nothing_else_fails(live, wait_for, tmp_path):
    def work(item):
        if item.startswith("guilty"):
            until_s = time.monotonic() + 0.2  # alone, it has nothing beside it
            while not (tmp_path / f"beside {item}").exists() and time.monotonic() < until_s:
                time.sleep(0.01)
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(3600)
        begun = tmp_path / item
        if not begun.exists():
            begun.touch()
            time.sleep(0.3)
        return item

    items = [item for number in range(7) for item in (f"guilty {number}", f"beside guilty {number}")]
    limits = Limits(concurrency=2)
    session = live(work, items, backend=Processes(2, timeout_s=60), retry=Retry(attempts=1), limits=limits)
    session.start()
    wait_for(session)
    told = session.results().set_index("key")
    assert set(told.status[[item for item in items if item.startswith("beside")]]) == {"completed"}
    assert set(told.status[[item for item in items if item.startswith("guilty")]]) == {"failed"}


def test_a_process_that_cannot_be_ended_gives_up_its_slot(tmp_path):
    """Alone: those after it have the slot, and it is told."""

    def work(item):
        if item == "hangs":
            (tmp_path / "pid").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        if item == "leaves":
            helper = subprocess.Popen(["sleep", "3600"])
            (tmp_path / "helper").write_text(str(helper.pid))
            os.kill(helper.pid, signal.SIGSTOP)
            os.waitpid(helper.pid, os.WUNTRACED)  # until it is
            os._exit(3)
        return item

    async def run():
        backend = Processes(1, timeout_s=0.5, preload=("tests.backends.process.unkillable",))
        await backend.open(1)
        runs = [backend.run(work, (item,)) for item in ("hangs", "well", "leaves", "well too")]
        told = await asyncio.gather(*runs, return_exceptions=True)
        left = [int((tmp_path / name).read_text()) for name in ("pid", "helper")]
        assert all(map(is_there, left))
        await backend.close()  # the keeper is another process, and can
        wait_gone(*left)
        return told

    left = "1 of its processes cannot be ended, and were left"
    assert list(map(came_of, asyncio.run(run()))) == [
        (Overrun, f"Exceeded 0.5s; {left}"),
        "well",
        (Killed, f"Ended without an answer, exit code 3; {left}"),
        "well too",
    ]


DRIVER = """
import asyncio, os, sys, time
from pathlib import Path
from ipybatch.backends import Processes
sys.path.insert(0, {root!r})
from tests.backends.process.test_isolation import leave_helpers

async def main():
    backend = Processes(2, timeout_s=600)
    await backend.open(2)
    if os.fork() == 0:  # as a user's cell may: the copy has all that we have open
        Path({folder!r}, "fork").write_text(str(os.getpid()))
        time.sleep(3600)
    running = asyncio.ensure_future(backend.run(leave_helpers, ({folder!r},)))
    await running

asyncio.run(main())
"""


def test_nothing_outlives_a_kernel_that_is_killed(tmp_path):
    """Not even where a fork of it holds open all that it had."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(root=str(Path(__file__).parents[3]), folder=str(tmp_path)))
    driver = subprocess.Popen([sys.executable, script])
    try:
        pids = noted(tmp_path)
        assert all(map(is_there, pids))
        driver.kill()
        driver.wait()
        wait_gone(*pids)
    finally:
        driver.kill()
        os.kill(int((tmp_path / "fork").read_text()), signal.SIGKILL)


STOPPED = """
import asyncio, os, sys, time
from pathlib import Path
from ipybatch.backends import Processes

def work(item):
    Path(item).touch()
    if item.endswith("late"):
        time.sleep(3600)
    return b"x" * 30_000_000

async def main():
    sys.path.insert(0, {folder!r})
    backend = Processes(2, timeout_s=1, preload=("hurried",))
    await backend.open(2)
    runs = [backend.run(work, (os.path.join({folder!r}, item),)) for item in ("well", "late")]
    well, late = await asyncio.gather(*runs, return_exceptions=True)
    print(len(well), late, flush=True)
    await backend.close()

asyncio.run(main())
"""


def test_a_kernel_that_is_stopped_and_goes_on_loses_nothing(tmp_path):
    """What is done waits for it, though it takes longer than its time; what is late ends meanwhile."""
    hurried = "from ipybatch.backends.process import attempt_process\nattempt_process._CARRY_S = 0.5\n"
    (tmp_path / "hurried.py").write_text(hurried)
    program = [sys.executable, "-c", STOPPED.format(folder=str(tmp_path))]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as driver:
        while not ((tmp_path / "well").exists() and (tmp_path / "late").exists()):
            time.sleep(0.001)
        driver.send_signal(signal.SIGSTOP)
        time.sleep(2)
        driver.send_signal(signal.SIGCONT)
        assert driver.stdout.read() == "30000000 Exceeded 1s\n"
    assert not marked(str(tmp_path))
