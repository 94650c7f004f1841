"""Whoever is killed when: the kernel's end leaves no process behind, and no neighbour is harmed."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipybatch.backends import Killed, OutOfMemory, Processes
from ipybatch.backends.process import process_tree

pytestmark = [
    pytest.mark.usefixtures("patience"),
    pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is Linux's"),
]
ROOT = Path(__file__).parents[2]


def marked(mark):
    """Return the processes, those that wait to be reaped not counted, that carry a mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def run_kernel(tmp_path, mark, *, before=""):
    """Start a kernel with two partitions that have grandchildren of all kinds; return it once all of them run."""
    script = tmp_path / "kernel.py"
    script.write_text(
        "import os, subprocess, time\n"
        "from ipybatch import BatchSession, Limits\n"
        "from ipybatch.backends import Processes\n"
        f"folder = {str(tmp_path)!r}\n"
        f"{before}\n"
        "def work(item):\n"
        "    subprocess.Popen(['sleep', '3600'])\n"
        "    subprocess.Popen(['sleep', '3600'], start_new_session=True)\n"
        "    subprocess.run(['sh', '-c', 'setsid sleep 3600 & exit 0'])\n"
        "    with open(f'{folder}/begun', 'w') as line:\n"
        "        line.write('x')\n"
        "    while True:\n"
        "        pass\n"
        "session = BatchSession('victim', work, [1, 2], backend=Processes(2), journal=f'{folder}/journal.db')\n"
        "session.run()\n"
    )
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    kernel = subprocess.Popen([sys.executable, script], env={**os.environ, "VICTIM_MARK": mark}, cwd=ROOT)
    words = ""
    while len(words) < 2:
        words += begun.read_text()
    return kernel


def wait_until_gone(mark, *, beside=()):
    """Return when nothing carries the mark; the test's patience is the limit."""
    while set(marked(mark)) - set(beside):
        os.sched_yield()


def test_a_killed_kernel_leaves_no_process_behind(tmp_path):
    """Two partitions, and for each a grandchild, one in a session of its own, and a daemon."""
    mark = f"victim-{os.getpid()}-kernel"
    kernel = run_kernel(tmp_path, mark)
    while len(marked(mark)) < 2 + 2 + 2 * 3:  # one that is just being started carries no mark yet
        os.sched_yield()
    kernel.kill()
    assert kernel.wait() == -9
    wait_until_gone(mark)


def test_a_process_forked_from_the_kernel_keeps_nothing_alive(tmp_path):
    """It inherits the line to the supervisor, which so does not end with the kernel."""
    mark = f"victim-{os.getpid()}-forked"
    before = (
        "import threading\n"
        "def fork():\n"
        "    while not os.path.exists(f'{folder}/journal.db'): time.sleep(0.01)\n"
        "    time.sleep(0.5)\n"
        "    if os.fork() == 0:\n"
        "        open(f'{folder}/forked', 'w').write(str(os.getpid()))\n"
        "        time.sleep(3600)\n"
        "threading.Thread(target=fork, daemon=True).start()\n"
    )
    kernel = run_kernel(tmp_path, mark, before=before)
    forked = tmp_path / "forked"
    while not forked.exists() or not forked.read_text():
        os.sched_yield()
    pid = int(forked.read_text())
    try:
        kernel.kill()
        kernel.wait()
        wait_until_gone(mark, beside=[pid])
        assert pid in marked(mark)
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_only_who_is_hit_fails(seed):
    """Sixty attempts, every now and then one is killed at some point of its life; the others answer."""
    chance = random.Random(seed)
    hit = set()

    def work(item):
        return sum(range(item))

    async def kill(supervisor):
        while True:
            await asyncio.sleep(chance.random() * 0.1)
            attempts = process_tree.children(supervisor)
            if attempts:
                hit.add(pid := chance.choice(attempts))
                os.kill(pid, signal.SIGKILL)

    async def run():
        backend = Processes(4)
        await backend.open(4)
        killing = asyncio.ensure_future(kill(await backend.run(os.getppid, ())))
        ends = await asyncio.gather(*[backend.run(work, (item,)) for item in items], return_exceptions=True)
        killing.cancel()
        await backend.close()
        return ends

    items = [300_000 + item for item in range(60)]
    ends = asyncio.run(run())
    killed = [end for end in ends if isinstance(end, Killed) and str(end) == "Killed by SIGKILL"]
    assert 0 < len(killed) <= len(hit)
    assert [end for end in ends if end not in killed] == [
        sum(range(item)) for item, end in zip(items, ends, strict=True) if end not in killed
    ]


@pytest.mark.chaos
def test_a_forest_that_grows_out_of_memory_is_told(tmp_path):
    def work(item):
        import numpy as np
        from sklearn.ensemble import RandomForestRegressor

        chance = np.random.default_rng(0)
        RandomForestRegressor(n_estimators=1000, max_features=1).fit(chance.random((50_000, 3)), chance.random(50_000))

    async def run():
        backend = Processes(1, memory_mb=100, preload=("sklearn.ensemble",))
        await backend.open(1)
        try:
            with pytest.raises(OutOfMemory, match=r"^Out of memory$"):
                await backend.run(work, (1,))
        finally:
            await backend.close()

    asyncio.run(run())
