"""A server on loopback that counts: which request reached it when, and which it answered."""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_right
from collections import Counter

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


class CountingServer:
    """Answers ``GET /<key>`` with the key as JSON, from a thread of its own.

    Args:
        latency_s: From a request to its answer.
        gate: Nothing is answered until so many requests are there at a time.

    Attributes:
        arrivals: When each request arrived, ``time.monotonic()``.
        asked: How often each key was asked for; ``answered``: how often an answer went out.
        most: Requests at a time, at most.
    """

    def __init__(self, latency_s: float = 0.0, gate: int = 0) -> None:
        self.latency_s, self.gate = latency_s, gate
        self.arrivals: list[float] = []
        self.asked, self.answered = Counter[str](), Counter[str]()
        self.most = self._present = 0
        self._loop = asyncio.new_event_loop()
        self._opened: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> CountingServer:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _listen(self) -> asyncio.Server:
        self._opened = asyncio.Event()
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._opened is not None
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.arrivals.append(time.monotonic())
                key = head.split(b" ", 2)[1][1:].decode()
                self.asked[key] += 1
                self._present += 1
                self.most = max(self.most, self._present)
                if self._present >= self.gate:
                    self._opened.set()
                await self._opened.wait()
                await asyncio.sleep(self.latency_s)
                self._present -= 1
                writer.write(HEAD % (len(key) + 2, b'"%s"' % key.encode()))
                await writer.drain()
                self.answered[key] += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def worst(self, per_s: float) -> int:
        """Return how many requests arrived in the fullest window of so many seconds."""
        arrivals = sorted(self.arrivals)
        return max(place + 1 - bisect_right(arrivals, at_s - per_s) for place, at_s in enumerate(arrivals))


class Fetch:
    """Work that asks such a server over one aiohttp session for all attempts of a worker.

    Attributes:
        url: The server's address.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    async def __aenter__(self) -> Fetch:
        import aiohttp

        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def __call__(self, item: object) -> object:
        async with self._session.get(f"{self.url}/{item}") as response:
            response.raise_for_status()
            return await response.json()
