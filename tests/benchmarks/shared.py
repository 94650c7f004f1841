"""Shared: several processes of one user that name the same resource, as the server sees all of them together.

eight        eight kernels, all the time
come and go  four run on, beside them four that start and end all the time
in turn      two living kernels, one session each in turn, without a pause between
stopped      eight, one of them stopped (SIGSTOP) for 30 s and then continued
killed       eight, one after the other killed (SIGKILL) and started anew
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .measure import Case, Figures, Runs, turns
from .rate_server import CONCURRENCY, LIMIT, PER_S, Fetch, judged, serving
from .table import Row

KERNELS = 8
STOPPED_S = 30.0
SECONDS = 20  # of steady state
GOAL_PERCENT = 95.0


class Kernel:
    """A process that runs sessions when it is told to."""

    def __init__(self, port: int, number: int) -> None:
        self.number = number
        command = [sys.executable, "-m", __spec__.name, str(port), str(number)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def run(self, items: int) -> None:
        """Let it run a session of so many items."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{items}\n")
        self.process.stdin.flush()

    def wait(self) -> dict[str, Any]:
        """Return what its session came to."""
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def kernels(port: int, count: int) -> Iterator[list[Kernel]]:
    """Start kernels and end them."""
    made: list[Kernel] = []
    try:
        made.extend(Kernel(port, number) for number in range(count))
        yield made
    finally:
        for kernel in made:
            kernel.close()


def live(port: int, number: int) -> None:
    """Run a session for every line of standard input: so many items."""
    from ipybatch import BatchSession, Limits, Rate

    print("ready", flush=True)
    for started, line in enumerate(sys.stdin):
        fetch, cpu_s = Fetch(port), time.process_time()
        limits = Limits(concurrency=CONCURRENCY, rates=[Rate(LIMIT, per_s=PER_S)])
        session = BatchSession(
            f"kernel {number}.{started}", fetch, range(int(line)), limits=limits, resource="api", fresh=True
        )
        done = session.run().counts.completed
        if session.reason:
            print(session.reason, file=sys.stderr)
        told = {"done": done, "latencies_s": fetch.latencies_s, "cpu_s": time.process_time() - cpu_s}
        print(json.dumps(told), flush=True)


def _figures(arrivals: list[float], told: list[dict[str, Any]]) -> Figures:
    latencies_s = [latency_s for one in told for latency_s in one["latencies_s"]]
    return judged(
        arrivals, latencies_s, sum(one["done"] for one in told), statistics.fmean(one["cpu_s"] for one in told)
    )


def together(n: int, beside: Callable[[list[Kernel], int], list[dict[str, Any]]]) -> Figures:
    """Let kernels run beside each other, and something happen beside them."""
    with serving() as server, kernels(server.port, KERNELS) as made:
        told = beside(made, n)
        return _figures(server.arrivals(), told)


def eight(made: list[Kernel], n: int) -> list[dict[str, Any]]:
    """Let all run at once."""
    for kernel in made:
        kernel.run(n // KERNELS)
    return [kernel.wait() for kernel in made]


def come_and_go(made: list[Kernel], n: int) -> list[dict[str, Any]]:
    """Let half of them run on, and the others start and end all the time."""
    told: list[dict[str, Any]] = []
    lasting, passing = made[: KERNELS // 2], made[KERNELS // 2 :]
    for kernel in lasting:
        kernel.run(n // KERNELS)
    ended = threading.Event()

    def again(kernel: Kernel) -> None:
        while not ended.is_set():
            kernel.run(7)
            told.append(kernel.wait())

    threads = [threading.Thread(target=again, args=(kernel,)) for kernel in passing]
    for thread in threads:
        thread.start()
    told += [kernel.wait() for kernel in lasting]
    ended.set()
    for thread in threads:
        thread.join()
    return told


def in_turn(made: list[Kernel], n: int) -> list[dict[str, Any]]:
    """Let two of them run a session each, in turn."""
    told = []
    for number in range(max(2, n // 250)):
        kernel = made[number % 2]
        kernel.run(250)
        told.append(kernel.wait())
    return told


def stopped(made: list[Kernel], n: int) -> list[dict[str, Any]]:
    """Stop one of them for a while."""
    for kernel in made:
        kernel.run(int(n + STOPPED_S * LIMIT) // KERNELS)
    time.sleep(5.0)
    os.kill(made[0].process.pid, signal.SIGSTOP)
    time.sleep(STOPPED_S)
    os.kill(made[0].process.pid, signal.SIGCONT)
    return [kernel.wait() for kernel in made]


def killed(made: list[Kernel], n: int) -> list[dict[str, Any]]:
    """Kill one after the other, but for the last."""
    for kernel in made:
        kernel.run(n // 2 if kernel is made[-1] else n)
    for kernel in made[:-1]:
        time.sleep(2.0)
        kernel.close()
    return [made[-1].wait()]


SCENES = {"eight": eight, "come and go": come_and_go, "in turn": in_turn, "stopped for 30 s": stopped, "killed": killed}
CASES: dict[str, Case] = {name: partial(together, beside=scene) for name, scene in SCENES.items()}
STEADY = ("eight", "come and go", "stopped for 30 s")


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run every scene."""
    n = max(1600, round(SECONDS * LIMIT * scale))
    return turns("shared", CASES, n=n, rounds=max(1, rounds // 2)), n


def check(runs: Runs, n: int) -> None:
    """No window is exceeded, as the server sees it, whoever starts, ends, stops or is killed."""
    for name, measured in runs.items():
        for figures in measured:
            assert figures["worst"] <= LIMIT, (name, figures)


def rows(runs: Runs, n: int) -> list[Row]:
    """Return the share of the allowed rate that all of them use together."""
    return [
        Row(
            what=f"% of {LIMIT}/({PER_S:g} s + latency), {KERNELS} processes",
            name=name,
            values=[figures["percent"] for figures in measured],
            goal=GOAL_PERCENT if name in STEADY else None,
            least=True,
            note=f"worst second {max(figures['worst'] for figures in measured):.0f}",
        )
        for name, measured in runs.items()
    ]


if __name__ == "__main__":
    live(int(sys.argv[1]), int(sys.argv[2]))
