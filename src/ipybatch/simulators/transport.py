"""A simulated service in process, behind httpx2 or httpx: for tests and dry runs under any clock.

    request --latency in--> arrival (recorded, decided) --delay, latency out--> reply

The latencies in and out are a seeded split of one latency, so a request arrives anywhere between sending and reply,
which a client's rate limiter must allow for.  A request that its caller abandons before it arrives still arrives, as
on a real connection.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .service import Service


class SimTransport(httpx2.AsyncBaseTransport):
    """Answer an `httpx2.AsyncClient` or an `httpx.AsyncClient` from a simulator, without a socket.

    Responses and errors are of the library that the request comes from.

    Example:
        >>> from ipybatch.simulators import SimTransport, SteamSimulator
        >>> client = httpx2.AsyncClient(transport=SimTransport(SteamSimulator()), base_url="http://steam.invalid")
    """

    def __init__(
        self,
        simulator: Service,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], float] | None = None,
    ) -> None:
        """Connect a client to the service.

        Args:
            simulator: The service; several transports may share it if they share a clock.
            sleep: Waits for a number of seconds.  Give it with ``now``, from the same virtual clock.
            now: Reads that clock, seconds; the service starts at 0.  Default: the running loop's time, and the
                service starts at its first request.
        """
        self._simulator = simulator
        self._sleep = sleep
        self._now = now

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request through the simulator.

        Raises:
            httpx2.ReadTimeout: The reply takes longer than the request's read timeout.
            httpx2.RemoteProtocolError: The connection was closed without a reply.
            httpx2.ReadError: The connection was reset.
        """
        await request.aread()
        in_s, out_s = self._simulator.way_s(request)
        patience_s = request.extensions.get("timeout", {}).get("read")
        arrives_s = self._now_s() + in_s
        try:
            await self._wait(in_s, patience_s, request)
        except BaseException:  # a cancelled attempt, above all
            self._simulator.handle(request, arrives_s)
            raise
        reply = self._simulator.handle(request, self._now_s())
        left_s = None if patience_s is None else patience_s - in_s
        await self._wait(reply.delay_s + out_s, left_s, request)
        if reply.drop == "close":
            msg = "Server disconnected without sending a response."
            raise _library(request).RemoteProtocolError(msg, request=request)
        if reply.drop == "reset":
            msg = "Connection reset by peer"
            raise _library(request).ReadError(msg, request=request)
        if reply.sent:
            reply.sent()
        respond: type[httpx2.Response] = _library(request).Response
        return respond(reply.status, headers=dict(reply.headers), content=reply.body, request=request)

    def _now_s(self) -> float:
        reading_s = self._now() if self._now else asyncio.get_running_loop().time()
        if self._simulator.start_s is None:
            self._simulator.start_s = 0.0 if self._now else reading_s
        return reading_s - self._simulator.start_s

    async def _wait(self, seconds: float, patience_s: float | None, request: httpx2.Request) -> None:
        if patience_s is not None and seconds > patience_s:
            await self._sleep(patience_s)
            msg = f"no answer within the read timeout of {request.extensions['timeout']['read']} s"
            raise _library(request).ReadTimeout(msg, request=request)
        if seconds > 0:
            await self._sleep(seconds)


def _library(request: httpx2.Request) -> Any:
    """Return the module that the request comes from: httpx2, or httpx, which has the same names."""
    return importlib.import_module(type(request).__module__.partition(".")[0])
