"""A simulated service in process, behind httpx: for tests and dry runs under any clock.

    request --way in--> arrival (counted, judged) --delay, way out--> answer

The way in and the way out are a seeded split of the latency, so the service sees a request anywhere between its
sending and its answer: what a rate limit must survive.  A request whose caller gives up on the way in arrives all
the same, because a line does not take back what was sent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import httpx

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .service import Reply, RequestLike


class Simulator(Protocol):
    """What a transport needs of a service."""

    start_s: float | None

    def handle(self, request: RequestLike, now_s: float) -> Reply:
        """Decide one request."""

    def way_s(self, request: RequestLike) -> tuple[float, float]:
        """Return the way in and the way out, seconds."""


class SimTransport(httpx.AsyncBaseTransport):
    """Answer an `httpx.AsyncClient` from a simulator, without a socket.

    Example:
        >>> from ipybatch.simulators import SimTransport, SteamSimulator
        >>> client = httpx.AsyncClient(transport=SimTransport(SteamSimulator()), base_url="http://steam.invalid")
    """

    def __init__(
        self,
        simulator: Simulator,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], float] | None = None,
    ) -> None:
        """Take the service and the clock.

        Args:
            simulator: The service; several transports may share it if they share a clock.
            sleep: Waits for so many seconds.  Give it with ``now``, from the same virtual clock.
            now: Reads that clock, seconds; its 0 is the service's start.  Default: the running loop's time, and the
                first request to the service is its start.
        """
        self._simulator = simulator
        self._sleep = sleep
        self._now = now

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request through the simulator.

        Raises:
            httpx.ReadTimeout: The answer takes longer than the request's read timeout.
            httpx.RemoteProtocolError: The line was closed without an answer.
            httpx.ReadError: The line was reset.
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
        return _response(reply, request)

    def _now_s(self) -> float:
        reading_s = self._now() if self._now else asyncio.get_running_loop().time()
        if self._simulator.start_s is None:
            self._simulator.start_s = 0.0 if self._now else reading_s
        return reading_s - self._simulator.start_s

    async def _wait(self, seconds: float, patience_s: float | None, request: httpx.Request) -> None:
        if patience_s is not None and seconds > patience_s:
            await self._sleep(patience_s)
            msg = f"no answer within the read timeout of {request.extensions['timeout']['read']} s"
            raise httpx.ReadTimeout(msg, request=request)
        if seconds > 0:
            await self._sleep(seconds)


def _response(reply: Reply, request: httpx.Request) -> httpx.Response:
    if reply.drop == "close":
        msg = "Server disconnected without sending a response."
        raise httpx.RemoteProtocolError(msg, request=request)
    if reply.drop == "reset":
        msg = "Connection reset by peer"
        raise httpx.ReadError(msg, request=request)
    return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.body, request=request)
