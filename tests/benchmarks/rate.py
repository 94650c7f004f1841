"""Rate: the share of the allowed rate that is used, and the worst sliding window as the server sees it.

A server in a process of its own counts arrivals over real HTTP on loopback.  A request takes 1 to 20 ms, a random
part of that on its way to the server: it is counted after the way in, as a server behind a network counts it.

    allowed in steady state: limit / (per_s + latency), latency as the client sees it
    used:                    from one whole window to a later one, so that a burst at the start counts for nobody
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from .measure import Case, Figures, Runs, turns
from .table import Row

if TYPE_CHECKING:
    from ipybatch import Limits

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]

REQUESTS = 1300
LIMIT, PER_S = 100, 1.0
CONCURRENCY = 20
WARM_UP = 300  # arrivals before steady state: a bucket's first burst takes that many
GOAL_PERCENT = 99.0
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Fetch:
    """Ask the server, over lines that stay open; costs so little that the limiter alone decides."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.latencies_s: list[float] = []
        self.lines: list[Line] = []

    async def __aenter__(self) -> Fetch:
        return self

    async def __aexit__(self, *_: object) -> None:
        for _, writer in self.lines:
            writer.close()
            await writer.wait_closed()

    async def __call__(self, item: int) -> str:
        started_s = time.monotonic()
        reader, writer = line = self.lines.pop() if self.lines else await self.connect()
        writer.write(b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % item)
        status = (await reader.readuntil(b"\r\n\r\n{}")).split(b" ", 2)[1]
        self.lines.append(line)
        self.latencies_s.append(time.monotonic() - started_s)
        return status.decode()

    async def connect(self) -> Line:
        """Open one more line, in the loop that uses it."""
        return await asyncio.open_connection("127.0.0.1", self.port)


def ours(limits: Callable[[], Limits], n: int) -> Figures:
    """Run a session against the server."""
    from ipybatch import BatchSession

    with serving() as (port, arrivals):
        fetch = Fetch(port)
        summary = BatchSession("bench", fetch, range(n), limits=limits()).run()
        return judged(arrivals(), fetch, summary.counts.completed)


def exact() -> Limits:
    """Return our own limit."""
    from ipybatch import Limits, Rate

    return Limits(concurrency=CONCURRENCY, rates=[Rate(LIMIT, per_s=PER_S)])


def plugged() -> Limits:
    """Return the peer's limiter as a plug, without a limit of ours."""
    from aiolimiter import AsyncLimiter

    from ipybatch import Limits

    return Limits(concurrency=CONCURRENCY, also=[AsyncLimiter(LIMIT, PER_S)])


def alone(n: int) -> Figures:
    """Run the peer's limiter with a pool of as many workers."""
    from aiolimiter import AsyncLimiter

    with serving() as (port, arrivals):
        fetch = Fetch(port)

        async def run() -> int:
            items, limiter, done = iter(range(n)), AsyncLimiter(LIMIT, PER_S), 0

            async def worker() -> None:
                nonlocal done
                for item in items:
                    async with limiter:
                        await fetch(item)
                    done += 1

            async with fetch, asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(worker())
            return done

        done = asyncio.run(run())
        return judged(arrivals(), fetch, done)


def judged(arrivals: list[float], fetch: Fetch, done: int) -> Figures:
    """Return what the server's record says."""
    last = WARM_UP + (len(arrivals) - 1 - WARM_UP) // LIMIT * LIMIT
    used_per_s = (last - WARM_UP) / (arrivals[last] - arrivals[WARM_UP])
    latency_s = statistics.fmean(fetch.latencies_s[WARM_UP:])
    windows = [i + 1 - bisect_right(arrivals, at_s - PER_S) for i, at_s in enumerate(arrivals)]
    return {
        "percent": 100 * used_per_s / (LIMIT / (PER_S + latency_s)),
        "per_s": used_per_s,
        "latency_ms": latency_s * 1e3,
        "worst": max(windows),
        "over": sum(seen > LIMIT for seen in windows),
        "done": done,
        "arrived": len(arrivals),
    }


@contextlib.contextmanager
def serving() -> Iterator[tuple[int, Callable[[], list[float]]]]:
    """Start the server; give its port and a function that ends it and returns the arrivals, sorted."""
    server = subprocess.Popen(
        [sys.executable, "-m", __spec__.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None

    def arrivals() -> list[float]:
        told, _ = server.communicate()
        return sorted(json.loads(told))

    try:
        yield int(server.stdout.readline()), arrivals
    finally:
        server.kill()
        server.wait()


class Counting(asyncio.Protocol):
    """Answer every request on a connection, one after the other; costs the machine next to nothing."""

    def __init__(self, arrivals: list[float], chance: random.Random) -> None:
        self.arrivals, self.chance = arrivals, chance
        self.transport: Any = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the line."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Let a request that is here as a whole spend its way in."""
        self.received += data
        if not self.received.endswith(b"\r\n\r\n"):
            return
        self.received = b""
        latency_s = self.chance.uniform(0.001, 0.020)
        way_in_s = latency_s * self.chance.random()
        asyncio.get_running_loop().call_later(way_in_s, self.arrive, latency_s - way_in_s)

    def arrive(self, way_out_s: float) -> None:
        """Count it, and let the answer spend its way out."""
        self.arrivals.append(time.monotonic())
        asyncio.get_running_loop().call_later(way_out_s, self.transport.write, REPLY)


async def serve() -> None:
    """Serve until the parent closes stdin, then print when each request arrived."""
    arrivals: list[float] = []
    chance = random.Random(7)
    server = await asyncio.get_running_loop().create_server(lambda: Counting(arrivals, chance), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps(arrivals))


EXACT, PLUG, ALONE = "ipybatch, Rate", "ipybatch, also=[AsyncLimiter]", "aiolimiter"
CASES: dict[str, Case] = {EXACT: partial(ours, exact), PLUG: partial(ours, plugged), ALONE: alone}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run all three; the number of requests is not scaled, a rate needs its windows."""
    return turns("rate", CASES, n=REQUESTS, rounds=rounds), REQUESTS


def check(runs: Runs, n: int) -> None:
    """Every request arrived once, and our limit held in every window."""
    for of_case in runs.values():
        assert {(figures["done"], figures["arrived"]) for figures in of_case} == {(n, n)}
    assert [figures["over"] for figures in runs[EXACT]] == [0] * len(runs[EXACT])


def rows(runs: Runs, n: int) -> list[Row]:
    """Return the share of the rate, and the worst windows."""
    share = f"% of {LIMIT} / ({PER_S:g} s + latency) used, HTTP, 1-20 ms"
    worst = f"requests in the worst {PER_S:g} s at the server, {LIMIT} allowed"
    percent = {case: [figures["percent"] for figures in of_case] for case, of_case in runs.items()}
    seen = {case: [figures["worst"] for figures in of_case] for case, of_case in runs.items()}
    goals = {EXACT: (GOAL_PERCENT, float(LIMIT))}
    none = (None, None)
    return [
        *(
            Row(what=share, name=case, values=percent[case], goal=goals.get(case, none)[0], least=True)
            for case in CASES
        ),
        *(Row(what=worst, name=case, values=seen[case], goal=goals.get(case, none)[1]) for case in CASES),
    ]


if __name__ == "__main__":
    asyncio.run(serve())
