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

from .serve import build

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .faults import FaultKind
    from .service import Service, Stats


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

    def now_s(self) -> float:
        """Return the service's time: seconds since its start."""
        reading_s = self._now() if self._now else asyncio.get_running_loop().time()
        if self._simulator.start_s is None:
            self._simulator.start_s = 0.0 if self._now else reading_s
        return reading_s - self._simulator.start_s

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
        arrives_s = self.now_s() + in_s
        try:
            await self._wait(in_s, patience_s, request)
        except BaseException:  # a cancelled attempt, above all
            self._simulator.handle(request, arrives_s)
            raise
        reply = self._simulator.handle(request, self.now_s())
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

    async def _wait(self, seconds: float, patience_s: float | None, request: httpx2.Request) -> None:
        if patience_s is not None and seconds > patience_s:
            await self._sleep(patience_s)
            msg = f"no answer within the read timeout of {request.extensions['timeout']['read']} s"
            raise _library(request).ReadTimeout(msg, request=request)
        if seconds > 0:
            await self._sleep(seconds)


class InProcess:
    """A simulated service that listens on no port, and is used as that of `serve`: in a browser there are no ports.

    Attributes:
        url: Its address, which only `client` reaches.
        client: An `httpx2.AsyncClient` that reaches it; give it to a source as ``client=``.
        simulator: The service.

    Example:
        >>> from ipybatch.library import SteamStore
        >>> from ipybatch.simulators import InProcess
        >>> store = InProcess("steam", limit=40, per_s=2)
        >>> source = SteamStore(store.url, client=store.client)
    """

    def __init__(self, service: str, **options: Any) -> None:
        """Make the service; its time begins with its first request.

        Args:
            service: "battlenet", "gemini" or "steam".
            options: As those of `serve`.

        Raises:
            ValueError: No such service, or an option outside its range.
            TypeError: No such option.
        """
        self.simulator = build(service, **options)
        self.url = f"http://{service}.invalid"
        self._transport = SimTransport(self.simulator)
        self.client = httpx2.AsyncClient(transport=self._transport)

    def stats(self) -> Stats:
        """Return the statistics so far."""
        return self.simulator.stats()

    def outage(self, seconds: float, kind: FaultKind | None = None) -> None:
        """Start an outage of ``seconds`` now, in a running loop; 0 ends the present one."""
        self.simulator.outage(seconds, self._transport.now_s(), kind)


def _library(request: httpx2.Request) -> Any:
    """Return the module that the request comes from: httpx2, or httpx, which has the same names."""
    return importlib.import_module(type(request).__module__.partition(".")[0])
