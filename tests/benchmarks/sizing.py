"""Sizing: what one driver paces, what several of them pace over one Redis, and what the way to it costs.

start     work that does nothing, under a limit that never holds: what is left is the cost of a start
network   requests over HTTP under 100 and 1,000 a second, with Redis so far away
worker    coroutines on the workers of a Dask cluster: such that do nothing, and such that take a processor for 5 ms

For docs/cluster.md; ``python -m tests.benchmarks --only sizing``.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.delay_proxy import delay_proxy
from tests.fleet import fleet
from tests.redis_server import PROGRAM, RedisServer

from .fleet import CONCURRENCY, cpu_s
from .measure import Case, Figures, Runs, turns
from .rate_server import PER_S, seen_in, serving
from .table import Row

if TYPE_CHECKING:
    from ipybatch.backends import Dask

NO_LIMIT = 10_000_000  # a second: it is counted and never holds
STARTS = 4000  # of each driver
SECONDS = 10  # of requests
DRIVERS = (1, 2, 4, 8, 16)
AWAY_MS = (0, 1, 10, 50)
RATES = (100, 1000)
CARRIED = 2000  # items, by workers
WORKERS = (0, 1, 2, 4)  # 0: on the driver itself
WORKS_MS = (0, 5)
FILE, REDIS = "the file beside the journal", "Redis"


def start(n: int, drivers: int, store: str) -> Figures:
    """Let drivers start work that does nothing, ``n`` times each."""
    folder = Path(os.environ["BENCH_FOLDER"])
    with RedisServer(folder / "redis") as redis:
        url = redis.url if store == REDIS else str(folder / "limits.sqlite3")
        with fleet(
            folder / "fleet",
            None,
            url,
            n * drivers,
            members=drivers,
            limit=NO_LIMIT,
            concurrency=CONCURRENCY * drivers,
            apart_s=0.0,
        ) as made:
            before_s = cpu_s(redis)
            made.begin()
            told = made.wait()
            redis_s = cpu_s(redis) - before_s
    starts_s = [at_s for one in told for at_s in one["starts_s"]]  # Redis waits before the first, not to be counted
    done, took_s = sum(one["done"] for one in told), max(starts_s) - min(starts_s)
    assert done == n * drivers
    return {
        "per_s": done / took_s,
        "driver_ms": 1e3 * sum(one["cpu_s"] for one in told) / done,
        "redis_ms": 1e3 * redis_s / done,
    }


@contextlib.contextmanager
def reached(redis: RedisServer, away_ms: int) -> Iterator[str]:
    """Give the address of a Redis that is so far away."""
    if away_ms == 0:
        yield redis.url
        return
    with delay_proxy(redis.port, round_trip_s=away_ms / 1e3) as port:
        yield redis.url.replace(str(redis.port), str(port))


def network(n: int, drivers: int, limit: int, away_ms: int) -> Figures:
    """Let drivers send requests under a limit for ``n`` seconds, as far from Redis."""
    folder = Path(os.environ["BENCH_FOLDER"])
    items = limit * n
    with (
        RedisServer(folder / "redis") as redis,
        serving(limit) as server,
        reached(redis, away_ms) as url,
        fleet(
            folder / "fleet",
            server.port,
            url,
            items,
            members=drivers,
            limit=limit,
            concurrency=CONCURRENCY,
            apart_s=0.0,
        ) as made,
    ):
        made.begin()
        told = made.wait()
        arrivals = server.arrivals()
    latency_s = statistics.fmean(latency_s for one in told for latency_s in one["latencies_s"])
    per_s = (len(arrivals) - 1 - limit) / (arrivals[-1] - arrivals[limit])  # the first window is a burst
    seen = seen_in(arrivals)
    return {
        "per_s": per_s,
        "percent": 100 * per_s * (PER_S + latency_s) / limit,
        "worst": max(seen),
        "over": sum(one > limit for one in seen),
        "driver_ms": 1e3 * sum(one["cpu_s"] for one in told) / items,
        "arrived": len(arrivals),
    }


async def work(busy_s: float, item: int) -> None:
    """Take a processor for so long."""
    ends_s = time.thread_time() + busy_s
    while time.thread_time() < ends_s:
        pass


@contextlib.contextmanager
def on_workers(workers: int) -> Iterator[Dask | None]:
    """Give a backend with so many workers, each a process of one thread; None for none."""
    if not workers:
        yield None
        return
    from distributed import Client, LocalCluster

    from ipybatch.backends import Dask

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        yield Dask(client)


def worker(n: int, workers: int, busy_ms: int) -> Figures:
    """Let workers run ``n`` coroutines."""
    from ipybatch import BatchSession, Limits

    limits, mine = Limits(concurrency=CONCURRENCY), partial(work, busy_ms / 1e3)
    with on_workers(workers) as backend:
        options: dict[str, Any] = {} if backend is None else {"backend": backend}
        BatchSession("warm", mine, range(CONCURRENCY), limits=limits, **options).run()
        session = BatchSession("sizing", mine, range(n), limits=limits, **options)
        cpu_before_s, started_s = time.process_time(), time.perf_counter()
        done = session.run().counts.completed
        took_s, cpu_used_s = time.perf_counter() - started_s, time.process_time() - cpu_before_s
    assert done == n
    return {"per_s": n / took_s, "driver_ms": 1e3 * cpu_used_s / n}


def named(drivers: int) -> str:
    """Return so many drivers in words."""
    return "1 driver" if drivers == 1 else f"{drivers} drivers"


STARTED: dict[str, Case] = {
    f"{named(drivers)}, {FILE}": partial(start, drivers=drivers, store=FILE) for drivers in (1, 8)
}
STARTED |= {f"{named(drivers)}, {REDIS}": partial(start, drivers=drivers, store=REDIS) for drivers in DRIVERS}
NETWORK: dict[str, Case] = {
    f"{named(drivers)}, {limit:,} a second, {away_ms} ms": partial(
        network, drivers=drivers, limit=limit, away_ms=away_ms
    )
    for limit in RATES
    for drivers in (1, 8)
    for away_ms in AWAY_MS
}
CARRY: dict[str, Case] = {
    f"{f'{workers} workers' if workers else 'the driver itself'}, {busy_ms} ms": partial(
        worker, workers=workers, busy_ms=busy_ms
    )
    for busy_ms in WORKS_MS
    for workers in WORKERS
}
CASES = STARTED | NETWORK | CARRY


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run all of them; the network once, or twice."""
    if PROGRAM is None:
        print("  sizing: left out: there is no redis-server", file=sys.stderr, flush=True)
        return {}, 0
    runs = turns("sizing", STARTED, n=max(500, round(STARTS * scale)), rounds=rounds)
    runs |= turns("sizing", CARRY, n=max(200, round(CARRIED * scale)), rounds=rounds)
    seconds = max(4, round(SECONDS * scale))
    return runs | turns("sizing", NETWORK, n=seconds, rounds=max(1, rounds // 2)), seconds


def check(runs: Runs, n: int) -> None:
    """No window is exceeded, however far Redis is."""
    for name in NETWORK:
        for figures in runs.get(name, ()):
            assert figures["over"] == 0, (name, figures)


def rows(runs: Runs, n: int) -> list[Row]:
    """Return what is started in a second and what it costs; then how much of a rate is used over a network."""
    what = [
        ("starts a second, work that does nothing", "per_s", STARTED),
        ("CPU ms of the driver a start", "driver_ms", STARTED),
        ("CPU ms of Redis a start", "redis_ms", STARTED),
        ("items a second, by what each takes a processor", "per_s", CARRY),
        ("CPU ms of the driver an item", "driver_ms", CARRY),
        ("% of limit / (1 s + latency), by round trip to Redis", "percent", NETWORK),
        ("CPU ms of the driver a request", "driver_ms", NETWORK),
    ]
    return [
        Row(what=words, name=name, values=[one[figure] for one in runs[name]])
        for words, figure, cases in what
        for name in cases
        if name in runs
    ]
