"""The server that counts: when each request reached it over real HTTP on loopback, in a process of its own.

A request takes 1 to 20 ms, a random part of that on its way to the server: it is counted after the way in, as a
server behind a network counts it.  What it answers costs the machine next to nothing, and so does `Fetch`, which asks
it: the limiter alone decides.  Where it is told a limit, it answers 429 to what is above that in any second.

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
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from .measure import Figures

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]

LIMIT, PER_S = 100, 1.0
CONCURRENCY = 20
WARM_UP = 300  # arrivals before steady state: a bucket's first burst takes that many
REPLY = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
GOOD, REFUSED = REPLY % (200, b"OK"), REPLY % (429, b"Too Many Requests")


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


def judged(
    arrivals: Sequence[float],
    latencies_s: Sequence[float],
    done: int,
    cpu_s: float,
    *,
    limit: int = LIMIT,
    warm_up: int = WARM_UP,
) -> Figures:
    """Return what the server's record says, and what it cost the client."""
    last = warm_up + (len(arrivals) - 1 - warm_up) // limit * limit
    used_per_s = (last - warm_up) / (arrivals[last] - arrivals[warm_up])
    latency_s = statistics.fmean(latencies_s[warm_up:])
    windows = seen_in(arrivals)
    return {
        "percent": 100 * used_per_s / (limit / (PER_S + latency_s)),
        "per_s": used_per_s,
        "latency_ms": latency_s * 1e3,
        "worst": max(windows),
        "over": sum(seen > limit for seen in windows),
        "cpu_s": cpu_s,
        "done": done,
        "arrived": len(arrivals),
    }


def seen_in(arrivals: Sequence[float], per_s: float = PER_S) -> list[int]:
    """Return of each arrival how many came in the window that ends with it."""
    return [i + 1 - bisect_right(arrivals, at_s - per_s) for i, at_s in enumerate(arrivals)]


class Served:
    """The server, as who started it sees it.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, limit: int | None = None) -> None:
        command = [sys.executable, "-m", __spec__.name, *([] if limit is None else [str(limit)])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port: int = self._answer()

    def count(self) -> int:
        """Return how many requests have arrived so far."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        count: int = self._answer()
        return count

    def arrivals(self) -> list[float]:
        """End it, and return when each request arrived, sorted."""
        return sorted(at_s for at_s, _ in self.record())

    def record(self) -> list[tuple[float, int]]:
        """End it, and return when each request arrived and which item it was for."""
        told, _ = self.process.communicate()
        return [(at_s, item) for at_s, item in json.loads(told)]

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@contextlib.contextmanager
def serving(limit: int | None = None) -> Iterator[Served]:
    """Start the server, and end it.

    Args:
        limit: It answers 429 to more than so many in any second; None: it never does.
    """
    server = Served(limit)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


class Book:
    """What arrived, and how it is answered.

    Args:
        limit: How many a second are let through; None for any number.

    Attributes:
        arrivals: When each request arrived, and which item it was for.
    """

    def __init__(self, limit: int | None) -> None:
        self.arrivals: list[tuple[float, int]] = []
        self._latest: deque[float] = deque(maxlen=limit)

    def enter(self, item: int) -> bytes:
        """Count a request, and return its answer."""
        now_s, latest = time.monotonic(), self._latest
        is_over = len(latest) == latest.maxlen and latest[0] > now_s - PER_S
        self.arrivals.append((now_s, item))
        if latest.maxlen is not None:
            latest.append(now_s)
        return REFUSED if is_over else GOOD


class Counting(asyncio.Protocol):
    """Answer every request on a connection, one after the other; costs the machine next to nothing."""

    def __init__(self, book: Book, chance: random.Random) -> None:
        self.book, self.chance = book, chance
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
        item = int(self.received.split(b" ", 2)[1][1:])
        self.received = b""
        latency_s = self.chance.uniform(0.001, 0.020)
        way_in_s = latency_s * self.chance.random()
        asyncio.get_running_loop().call_later(way_in_s, self.arrive, item, latency_s - way_in_s)

    def arrive(self, item: int, way_out_s: float) -> None:
        """Count it, and let the answer spend its way out."""
        asyncio.get_running_loop().call_later(way_out_s, self.transport.write, self.book.enter(item))


async def serve(limit: int | None) -> None:
    """Tell the port; then how many have arrived, for every line of stdin; and when each did, once stdin is closed."""
    book = Book(limit)
    chance = random.Random(7)
    server = await asyncio.get_running_loop().create_server(lambda: Counting(book, chance), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(len(book.arrivals), flush=True)
    print(json.dumps(book.arrivals))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else None))
