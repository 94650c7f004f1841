"""The testing kit: time that jumps, kill points, and a conformance check that can fail."""

import asyncio
import subprocess
import sys
import threading

import pytest

from ipybatch import BatchSession, Limits
from ipybatch.backends import Loop, Threads
from ipybatch.engine.store import journal as journals
from ipybatch.testing import START_UNIX_S, VirtualClock, check_backend, kill_points


def test_hours_pass_at_once(plan, clock):
    async def work(item):
        await asyncio.sleep(3600)

    clock.run(plan(work, list(range(5)), limits=Limits(concurrency=1)))
    assert clock.now_s() == 5 * 3600
    assert clock.unix_s() == START_UNIX_S + 5 * 3600


def test_time_stands_still_without_timers_and_goes_on_from_where_it_is(clock):
    async def sleep():
        await asyncio.sleep(5)
        return asyncio.get_running_loop().time()

    clock.advance(10)
    assert clock.now_s() == 10
    assert clock.run_coroutine(sleep()) == 15


def test_timers_fire_in_order_and_on_time(clock):
    fired = []

    async def main():
        loop = asyncio.get_running_loop()
        for at in (0.3, 0.1, 0.2, 0.1):
            loop.call_later(at, lambda at=at: fired.append((at, round(loop.time(), 6))))
        await asyncio.sleep(1)

    clock.run_coroutine(main())
    assert fired == [(0.1, 0.1), (0.1, 0.1), (0.2, 0.2), (0.3, 0.3)]


def test_a_thread_that_works_on_is_waited_for_in_real_time(clock):
    """Python 3.12 gives threads five minutes to end, which are nothing in virtual time."""
    begun, left, ended = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        left.wait(20)
        ended.append(True)

    async def leave():
        asyncio.get_running_loop().run_in_executor(None, work)
        begun.wait(20)
        threading.Timer(0.05, left.set).start()

    clock.run_coroutine(leave())
    assert ended
    assert clock.now_s() == 0.0


def test_coroutines_run_beside_a_session_and_end_with_it(plan, clock):
    seen = []

    async def watch():
        while True:
            await asyncio.sleep(1)
            seen.append(session.counts.completed)

    async def work(item):
        await asyncio.sleep(2)

    session = plan(work, [1, 2, 3], limits=Limits(concurrency=1))
    clock.run(session, watch())
    assert seen[:5] == [0, 0, 1, 1, 2] or seen[:5] == [0, 1, 1, 2, 2]


def test_the_same_seedless_session_takes_the_same_time_twice(tmp_path, patience):
    """Nothing of the machine's own time leaks in."""

    async def work(item):
        await asyncio.sleep(item % 7 / 10)

    times = []
    for name in ("one", "two"):
        clock = VirtualClock()
        limits = Limits(concurrency=4, spacing_s=0.05, batch_size=10, batch_pause_s=1)
        clock.run(BatchSession(name, work, list(range(100)), limits=limits, clock=clock, journal=tmp_path / "j.db"))
        times.append(clock.now_s())
    assert times[0] == times[1]


@pytest.mark.parametrize(("place", "seen"), [("before", 0), ("after", 1)])
def test_a_kill_point_ends_the_process_at_that_commit(tmp_path, patience, place, seen):
    """Before the commit its row is not there; after it, it is."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ipybatch.engine.store.journal import Journal\n"
        "from ipybatch.testing import kill_points\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "insert = \"INSERT INTO resource VALUES ('a', 1)\"\n"
        f"with kill_points({{{place!r}: 1}}):\n"
        "    journal.write(lambda database: database.execute(insert) and None)\n"
    )
    path = tmp_path / "journal.db"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    journal = journals.Journal(path)
    with journal.reader() as database:
        assert database.execute("SELECT count(*) FROM resource").fetchone() == (seen,)
    journal.close()


def test_kill_points_leave_nothing_behind():
    before = journals.on_commit
    with kill_points({"before": 10**9}):
        assert journals.on_commit is not before
    assert journals.on_commit is before


class Wrapping(Loop):
    async def run(self, work, arguments):
        return [await work(*arguments)]


class Swallowing(Loop):
    async def run(self, work, arguments):
        try:
            return await work(*arguments)
        except Exception as error:
            return error


class OneByOne(Threads):
    def __init__(self):
        super().__init__()
        self.lock = asyncio.Lock()

    async def run(self, work, arguments):
        async with self.lock:
            return await super().run(work, arguments)


class Deaf(Loop):
    async def run(self, work, arguments):
        try:
            return await work(*arguments)
        except asyncio.CancelledError:
            return None


@pytest.mark.parametrize(
    ("backend", "plain", "complaint"),
    [
        (Wrapping, False, "a result must come back as it is"),
        (Swallowing, False, "an error of the work must reach the engine"),
        (Deaf, False, "a cancelled attempt must not return"),
    ],
)
def test_the_conformance_check_fails_what_does_not_conform(patience, backend, plain, complaint):
    with pytest.raises(AssertionError, match=complaint):
        asyncio.run(check_backend(backend(), plain=plain))
