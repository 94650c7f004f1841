"""The server that counts: when each request reached it over real HTTP on loopback, in a process of its own.

A request takes 1 to 20 ms, a random part of that on its way to the server: it is counted after the way in, as a
server behind a network counts it.  What it answers costs the machine next to nothing, and so does `Fetch`, which asks
it: the limiter alone decides.

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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .measure import Figures

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]

LIMIT, PER_S = 100, 1.0
CONCURRENCY = 20
WARM_UP = 300  # arrivals before steady state: a bucket's first burst takes that many
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


def judged(arrivals: Sequence[float], latencies_s: Sequence[float], done: int, cpu_s: float) -> Figures:
    """Return what the server's record says, and what it cost the client."""
    last = WARM_UP + (len(arrivals) - 1 - WARM_UP) // LIMIT * LIMIT
    used_per_s = (last - WARM_UP) / (arrivals[last] - arrivals[WARM_UP])
    latency_s = statistics.fmean(latencies_s[WARM_UP:])
    windows = [i + 1 - bisect_right(arrivals, at_s - PER_S) for i, at_s in enumerate(arrivals)]
    return {
        "percent": 100 * used_per_s / (LIMIT / (PER_S + latency_s)),
        "per_s": used_per_s,
        "latency_ms": latency_s * 1e3,
        "worst": max(windows),
        "over": sum(seen > LIMIT for seen in windows),
        "cpu_s": cpu_s,
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


if __name__ == "__main__":
    asyncio.run(serve())
