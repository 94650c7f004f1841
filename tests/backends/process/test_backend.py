"""Processes: an attempt that can be ended at any time, harms nobody, and leaves nothing behind."""

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest

from ipybatch import InputError, Limits, Retry
from ipybatch.backends import Killed, OutOfMemory, Overrun, Processes
from ipybatch.backends.process import backend as process_backend
from ipybatch.engine.data import events
from ipybatch.testing import check_backend
from tests.backends.process.attempts import attempt, came_of, is_there, marked
from tests.works import hear

pytestmark = pytest.mark.usefixtures("patience")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as a notebook's; no attempt need import all this
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is Linux's")
methods = pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])


@methods
def test_it_does_what_the_engine_relies_on(method):
    asyncio.run(check_backend(Processes(2, method=method), plain=True))


@methods
def test_each_attempt_has_a_process_of_its_own(method):
    pids = attempt(lambda item: os.getpid(), 1, 2, method=method)
    assert len({*pids, os.getpid()}) == 3


def test_functions_and_classes_of_a_notebook_cell_go_there_and_back(tmp_path):
    """What __main__ defines cannot be imported elsewhere, so it goes by value."""
    script = tmp_path / "cell.py"
    script.write_text(
        "import asyncio\n"
        "from ipybatch.backends import Processes\n"
        "FACTOR = 3\n"
        "class Box:\n"
        "    def __init__(self, size):\n"
        "        self.size = size\n"
        "def work(item):\n"
        "    return Box(item.size * FACTOR)\n"
        "async def cell():\n"
        "    backend = Processes(1)\n"
        "    await backend.open(1)\n"
        "    print((await backend.run(work, (Box(14),))).size)\n"
        "    await backend.close()\n"
        "asyncio.run(cell())\n"
    )
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=100)
    assert (said.stdout, said.stderr) == ("42\n", "")


def test_a_coroutine_function_runs_there_too():
    async def work(item):
        await asyncio.sleep(0)
        return item + 1

    assert attempt(work, 1) == [2]


@methods
def test_a_hundred_megabytes_come_back_whole(method):
    (array,) = attempt(np.arange, 12_500_000, method=method)
    assert array.nbytes == 100_000_000
    assert array[-1] == 12_499_999
    array[0] = 7  # ours to change


@methods
def test_what_the_work_prints_neither_blocks_it_nor_disturbs_the_answer(method):
    def work(item):
        print("x" * 2_000_000)
        sys.stderr.write("y" * 2_000_000)
        os.write(1, b"z" * 2_000_000)
        return item

    assert attempt(work, 5, method=method) == [5]


@methods
def test_one_thread_for_each_library_is_set_before_they_load(method):
    """Two attempts with a thread per processor each take many times as long as with one."""
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"]
    assert attempt(lambda item: [os.environ[name] for name in names], 1, method=method) == [["1"] * 4]


def test_preloaded_modules_are_there_and_one_that_is_missing_harms_nobody():
    (loaded,) = attempt(lambda item: item in sys.modules, "colorsys", preload=("no_such_module", "colorsys"))
    assert loaded


def test_attempts_do_not_draw_the_same_random_numbers():
    """Forked from one process they would have one state."""
    one, other = attempt(lambda item: np.random.random(), 1, 2, preload=("numpy.random",))
    assert one != other


# How it may end


def loop_deaf_to_sigterm(item):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


def decompose(item):
    np.linalg.svd(np.random.default_rng(0).random((4000, 4000)))


def match_without_end(item):
    re.match(r"(a+)+$", "a" * 60 + "b")  # holds the interpreter's lock for years


def wait_for_a_grandchild(item):
    subprocess.run(["sleep", item], check=False)


def leave_a_grandchild_in_a_session_of_its_own(item):
    subprocess.Popen(["sleep", item], start_new_session=True)
    time.sleep(3600)


def leave_a_daemon(item):
    """A process whose parent has ended, in a session of its own: nothing but adoption ties it to us."""
    subprocess.run(["sh", "-c", f"setsid sleep {item} & exit 0"], check=False)
    time.sleep(3600)


ENDLESS = [
    loop_deaf_to_sigterm,
    decompose,
    match_without_end,
    wait_for_a_grandchild,
    leave_a_grandchild_in_a_session_of_its_own,
]


@pytest.mark.parametrize(
    ("works", "method"),
    [
        pytest.param([*ENDLESS, leave_a_daemon], "fork", marks=needs_fork),
        ([loop_deaf_to_sigterm, leave_a_grandchild_in_a_session_of_its_own], "spawn"),
        pytest.param(ENDLESS[1:-1], "spawn", marks=pytest.mark.chaos),
    ],
)
def test_an_attempt_that_overruns_is_gone_with_all_it_started(works, method):
    marks = [f"{3_000_000 + os.getpid()}.{number}" for number in range(len(works))]

    def work(number):
        return works[number](marks[number])

    for error in attempt(work, *range(len(works)), timeout_s=0.5, method=method):
        assert isinstance(error, Overrun)
        assert isinstance(error, TimeoutError)
        assert str(error) == "Exceeded 0.5s"
    assert not [mark for mark in marks if marked(mark)]


def test_a_process_that_takes_time_to_end_has_ended_too(tmp_path):
    """The system needs a while to free the memory of one that is killed."""
    note = tmp_path / "pid"
    program = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); b'x' * 800_000_000"

    def start_large_process(item):
        subprocess.run([sys.executable, "-c", program, item], check=False)

    (error,) = attempt(start_large_process, note, memory_mb=300, method="spawn")
    assert isinstance(error, OutOfMemory)
    assert not is_there(int(note.read_text()))


@needs_fork
@pytest.mark.parametrize("work", [leave_a_grandchild_in_a_session_of_its_own, leave_a_daemon])
def test_what_an_attempt_leaves_running_ends_with_it(work):
    """Also when the attempt itself ends well, or by its own hand."""
    mark = f"{4_000_000 + os.getpid()}"

    def end(item):
        wait = time.sleep
        time.sleep = lambda seconds: None
        work(item)
        while not (found := marked(item)):  # its command line is there a moment after it has started
            wait(0.01)
        return len(found)

    assert attempt(end, mark, timeout_s=30) == [1]
    assert not marked(mark)


def fill_lists(item):
    kept = []
    while True:
        kept.append([0] * 100_000)


def ask_numpy(item):
    np.ones(10**10)


def ask_blas(item):
    np.zeros((60_000, 2)) @ np.zeros((2, 60_000))


def touch_in_a_grandchild(item):
    subprocess.run([sys.executable, "-c", "import time; kept = b'x' * 150_000_000; time.sleep(3600)"], check=False)


@needs_fork
def test_out_of_memory_is_told_as_such():
    works = [fill_lists, ask_numpy, ask_blas, touch_in_a_grandchild]
    told = attempt(lambda number: works[number](1), *range(len(works)), memory_mb=100)
    assert [(type(error), str(error)) for error in told] == [(OutOfMemory, "Out of memory")] * len(works)


def hold_memory(item):
    held = bytearray(b"x" * 60 * 2**20)
    time.sleep(1.0)  # until it has been measured, which is done 20 times a second on a quiet machine
    return len(held)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_memory_of_the_largest_attempt_is_measured(method):
    """What a fork shares with the others is not its own."""

    async def measure():
        backend = Processes(1, memory_mb=1000, method=method)
        assert backend.most_mb is None
        await backend.open(1)
        try:
            for _ in range(5):  # a busy machine may not look at one in time
                await backend.run(hold_memory, (1,))
                if (backend.most_mb or 0) >= 55:
                    break
        finally:
            await backend.close()
        return backend.most_mb

    assert 55 <= asyncio.run(measure()) <= 150


def test_memory_is_watched_where_it_cannot_be_limited():
    (error,) = attempt(fill_lists, 1, memory_mb=100, method="spawn")
    assert isinstance(error, OutOfMemory)


def test_an_allocation_refused_is_out_of_memory_without_a_limit_too():
    (error,) = attempt(lambda item: np.ones(10**15), 1)
    assert isinstance(error, OutOfMemory)
    assert "Unable to allocate" in error.__notes__[0]


@methods
def test_an_attempt_that_ends_without_an_answer_says_how_and_harms_no_neighbour(method):
    def work(end):
        match end:
            case signal.Signals():
                os.kill(os.getpid(), end)
            case int():
                os._exit(end)
        return end

    *errors, well = attempt(work, signal.SIGKILL, signal.SIGSEGV, 3, "well", method=method)
    assert well == "well"
    assert [type(error) for error in errors] == [Killed] * 3
    assert list(map(str, errors)) == ["Killed by SIGKILL", "Killed by SIGSEGV", "Ended without an answer, exit code 3"]


def test_the_last_words_of_an_attempt_are_kept_with_its_end():
    def work(item):
        print("on the edge")
        os._exit(3)

    (error,) = attempt(work, 1)
    assert error.__notes__ == ["Last output:\non the edge"]


def test_work_that_wants_its_attempt_is_told_that_it_stays_in_the_kernel(live, wait_for):
    def work(item, attempt):
        return attempt.number

    session = live(work, [1], backend=Processes(1))
    session.start()
    wait_for(session)
    assert "must take the item alone" in session.results().error[0]


def test_an_interpreter_that_cannot_be_ended_gives_up_its_slot(tmp_path, monkeypatch):
    """Nobody waits for a process that hangs in the system, where attempts are new interpreters too."""
    monkeypatch.setattr(process_backend, "_HANGS_S", 0.3)
    monkeypatch.setattr(psutil.Process, "kill", lambda self: None)
    monkeypatch.setattr(os, "killpg", lambda *_: None)

    def work(item):
        if item == "hangs":
            (tmp_path / "pid").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return item

    hangs, well = attempt(work, "hangs", "well", timeout_s=1.0, method="spawn")
    pid = int((tmp_path / "pid").read_text())
    assert is_there(pid)
    os.kill(pid, signal.SIGKILL)
    assert came_of(hangs) == (Overrun, "Exceeded 1s; 1 of its processes cannot be ended, and were left")
    assert well == "well"


def test_a_backend_that_could_not_open_can_be_closed():
    """The engine closes what it tried to open."""
    asyncio.run(Processes(1).close())


# Cancelling, and the end of others


@methods
def test_a_cancelled_attempt_is_gone_when_the_cancel_returns(tmp_path, method):
    mark = tmp_path / "begun"
    os.mkfifo(mark)

    def work(item):
        with Path(item).open("w") as line:
            line.write(str(os.getpid()))
        loop_deaf_to_sigterm(item)

    async def run():
        backend = Processes(1, method=method)
        await backend.open(1)
        running = asyncio.ensure_future(backend.run(work, (mark,)))
        pid = int(await asyncio.to_thread(mark.read_text))
        assert is_there(pid)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not is_there(pid)
        assert await backend.run(abs, (-1,)) == 1
        await backend.close()

    asyncio.run(run())


@methods
def test_a_hundred_attempts_leave_no_descriptor_and_no_process(method):
    attempts = 100 if method == "fork" else 3

    async def run():
        backend = Processes(2, method=method)
        await backend.open(2)
        await asyncio.gather(*[backend.run(abs, (-item,)) for item in range(2)])
        before = descriptors()
        both = await asyncio.gather(*[backend.run(abs, (-item,)) for item in range(attempts)])
        assert both == list(range(attempts))
        assert descriptors() == before
        await backend.close()

    def descriptors():
        gc.collect()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in [str(os.getpid()), *children]}

    asyncio.run(run())


def test_two_sessions_may_share_one(live, wait_for):
    backend = Processes(2)
    one, other = (live(abs, [-1, -2], name=name, backend=backend) for name in ("one", "other"))
    one.start()
    other.start()
    assert wait_for(one).counts.completed == wait_for(other).counts.completed == 2


def test_a_session_tells_each_end_in_one_line(live, wait_for):
    ends = {"late": loop_deaf_to_sigterm, "large": ask_numpy, "gone": lambda item: os.kill(os.getpid(), 9), "well": len}

    def work(item):
        return ends[item](item)

    backend = Processes(2, timeout_s=0.3, memory_mb=200)
    session = live(work, list(ends), backend=backend, retry=Retry(attempts=1), limits=Limits(concurrency=4))
    kinds = {}
    session.on_outcomes(lambda outcomes: kinds.update((one.key, one.kind) for one in outcomes))
    session.start()
    wait_for(session)
    told = session.results().set_index("key")[["status", "error"]]
    assert told.loc["late"].tolist() == ["timeout", "Exceeded 0.3s"]
    assert told.loc["large"].tolist() == ["failed", "Out of memory"]
    assert told.loc["gone"].tolist() == ["failed", "Killed by SIGKILL"]
    assert told.loc["well", "status"] == "completed"
    assert kinds == {"late": "timeout", "large": "out_of_memory", "gone": "killed", "well": ""}


def children():
    """Return the processes that this one has started, ended ones that nobody asked for included."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_cancelled_session_leaves_no_process(live, wait_for):
    before = children()
    session = live(loop_deaf_to_sigterm, [1, 2], backend=Processes(2))
    begun = hear(session, events.AttemptStarted)
    session.start()
    assert begun.wait(20)
    session.cancel()
    assert wait_for(session).counts.cancelled == 2
    assert children() <= before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"workers": 0}, "workers must be a whole number >= 1, got 0"),
        ({"memory_mb": 0}, "memory_mb must be > 0, got 0"),
        ({"timeout_s": -1}, "timeout_s must be > 0, got -1"),
        ({"method": "thread"}, 'method must be "spawn", or "fork" on Linux, got \'thread\''),
    ],
)
def test_bad_input_is_refused_before_anything_starts(options, complaint):
    with pytest.raises(InputError, match=re.escape(complaint)):
        Processes(**options)
