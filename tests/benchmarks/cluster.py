"""Cluster: ordinary work by the workers of Dask beside the same work in this process, under one driver.

no-op   coroutines that return at once: what a driver paces, and what an item costs it
HTTP    requests by aiohttp that take 20 ms, of a server in a process of its own: what of that a worker takes over

Scheduler and workers are processes of their own, as on machines of their own; here they share the processors with the
driver and the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ipybatch import BatchSession, Limits
from tests.backends.dask.counting_server import CountingServer, Fetch

from .measure import Case, Figures, Runs, turns
from .table import Row

WORKERS, ITEMS, CONCURRENCY = 4, 10_000, 200
LATENCY_S = 0.02
HERE, THERE = "this process", f"{WORKERS} workers of Dask"


async def no_op(item: int) -> int:
    """Return at once."""
    return item


@contextlib.contextmanager
def workers() -> Iterator[Any]:
    """Start a scheduler and workers, each in a process of its own; give a client."""
    from distributed import Client

    where = str(Path(os.environ["BENCH_FOLDER"], "scheduler.json"))
    common = ["--scheduler-file", where, "--no-dashboard", "--host", "127.0.0.1"]
    commands = [["scheduler", *common, "--port", "0"]]
    commands += [["worker", *common, "--nthreads", "1", "--no-nanny"]] * WORKERS
    with contextlib.ExitStack() as stack:
        for kind, *arguments in commands:
            command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
            started = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(started.terminate)
        client = stack.enter_context(Client(scheduler_file=where, set_as_default=False, timeout=60))
        client.wait_for_workers(WORKERS)
        yield client


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Start the server in a process of its own; give its address."""
    command = [sys.executable, "-m", __spec__.name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


def run(n: int, *, is_http: bool, is_there: bool) -> Figures:
    """Run one session; the workers have imported what they need before its time begins."""
    from ipybatch.backends import Dask

    with contextlib.ExitStack() as stack:
        work = Fetch(stack.enter_context(serving())) if is_http else no_op
        backend = Dask(stack.enter_context(workers())) if is_there else None
        limits = Limits(concurrency=CONCURRENCY)
        BatchSession("warm", work, range(CONCURRENCY), limits=limits, backend=backend).run()
        session = BatchSession("measured", work, range(n), limits=limits, backend=backend)
        started_s, cpu_s = time.perf_counter(), time.process_time()
        summary = session.run()
        took_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    return {"per_s": n / took_s, "cpu_us": 1e6 * cpu_s / n, "done": summary.counts.completed}


CASES: dict[str, Case] = {
    f"{kind}, {where}": partial(run, is_http=kind == "HTTP", is_there=where == THERE)
    for kind in ("no-op", "HTTP")
    for where in (HERE, THERE)
}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run all of them."""
    n = max(500, round(ITEMS * scale))
    return turns("cluster", CASES, n=n, rounds=rounds), n


def check(runs: Runs, n: int) -> None:
    """Every item is done."""
    assert all(figures["done"] == n for of_case in runs.values() for figures in of_case)


def rows(runs: Runs, n: int) -> list[Row]:
    """Return items a second, and what one costs the driver."""
    asked = [(f"items a second, {CONCURRENCY} at a time", "per_s"), ("CPU us of the driver an item", "cpu_us")]
    return [
        Row(what=words, name=name, values=[one[figure] for one in runs[name]])
        for words, figure in asked
        for name in CASES
    ]


async def serve() -> None:
    """Serve until the parent ends this."""
    with CountingServer(latency_s=LATENCY_S) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
