"""Simulated services on loopback: a real HTTP server in a thread of its own.

The thread has its own event loop, so that a notebook, a script and other processes use the service in the same way.
The server is tornado's, which every Jupyter has; it is imported when the first server starts.

    with serve("steam", limit=40, per_s=2) as url:      httpx.get(f"{url}/api/appdetails?appids=440")
    server = serve("steam", rate_500=0.1); ...; server.close()

Any process may read ``{url}/_sim/stats`` and start an outage with ``{url}/_sim/outage?seconds=10[&kind=drop]``
(``seconds=0`` ends it); these requests are not counted.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .battlenet import BattleNetSimulator
from .faults import FaultKind, Faults, check
from .gemini.server import GeminiSimulator
from .service import Reply, Request, Service, Stats
from .steam import SteamSimulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tornado.web import Application, RequestHandler

SERVICES: dict[str, Callable[..., Service]] = {
    "battlenet": BattleNetSimulator,
    "gemini": GeminiSimulator,
    "steam": SteamSimulator,
}
_SPELLING = {"X-Goog-Upload-Url": "X-Goog-Upload-URL"}
_FAULTS = {field.name for field in fields(Faults)}


def serve(service: str, *, port: int = 0, **options: Any) -> Server:
    """Start a simulated service on 127.0.0.1.

    Args:
        service: "battlenet", "gemini" or "steam".
        port: The port to listen on; 0 for any free one.
        options: The arguments of the simulator (see `BattleNetSimulator`, `GeminiSimulator`, `SteamSimulator`) and the
            fields of `Faults`, side by side: ``limit=40, per_s=2, rate_500=0.1``; or a whole ``faults=Faults(...)``.

    Raises:
        ValueError: No such service, or an option outside its range.
        TypeError: No such option.
        OSError: The port is taken, or Python is in a browser, which has no ports.
        ImportError: tornado is not installed.
    """
    if sys.platform == "emscripten":
        msg = f"serve({service!r}) cannot listen here, because a browser has no ports: use InProcess({service!r})"
        raise OSError(msg)
    return Server(service, build(service, **options), port=port)


def build(service: str, **options: Any) -> Service:
    """Make a simulator from its name and the options of `serve`, without starting a server."""
    if service not in SERVICES:
        msg = f"service must be one of {', '.join(sorted(SERVICES))}, got {service!r}"
        raise ValueError(msg)
    faults = {name: options.pop(name) for name in _FAULTS & options.keys()}
    if faults and "faults" in options:
        msg = f"give faults=Faults(...) or its fields, not both: got faults and {', '.join(sorted(faults))}"
        raise ValueError(msg)
    if faults:
        options["faults"] = Faults(**faults)
    return SERVICES[service](**options)


class Server:
    """A simulator that listens on a port; as a context manager, its value is its address.

    Attributes:
        url: ``http://127.0.0.1:port``, without a slash at the end.
        port: The port it listens on.
        simulator: The service.
    """

    def __init__(self, name: str, simulator: Service, *, port: int = 0) -> None:
        """Bind the port, start the thread, and return when the server listens."""
        self._name = name
        self.simulator = simulator
        self._started_s = time.monotonic()
        self._application = _application(simulator, self.now_s)
        self._socket = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._socket.setblocking(False)  # tornado accepts until the queue is empty
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"simulator-{name}", daemon=True)
        self._thread.start()
        self._ready.wait()

    def __repr__(self) -> str:
        return f"<{self._name} simulator at {self.url}>"

    def __enter__(self) -> str:
        return self.url

    def __exit__(self, *_: object) -> None:
        self.close()

    def now_s(self) -> float:
        """Return the seconds since the start: the clock of `stats`."""
        return time.monotonic() - self._started_s

    def advance(self, seconds: float) -> None:
        """Let the service's clock run ahead by ``seconds`` >= 0: jobs end and files grow old at once.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        check("seconds", seconds >= 0, ">= 0", seconds)
        self._started_s -= seconds

    def stats(self) -> Stats:
        """Return the statistics so far."""
        return self.simulator.stats()

    def outage(self, seconds: float, kind: FaultKind | None = None) -> None:
        """Start an outage of ``seconds`` now; 0 ends the present one."""
        self.simulator.outage(seconds, self.now_s(), kind)

    def close(self) -> None:
        """Stop listening, close every connection, and wait for the thread; a second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        from tornado.httpserver import HTTPServer

        server = HTTPServer(self._application)
        server.add_socket(self._socket)
        self._ready.set()
        await self._stop.wait()
        server.stop()
        await server.close_all_connections()


def _application(simulator: Service, now_s: Callable[[], float]) -> Application:
    try:
        from tornado.httputil import HTTPHeaders
        from tornado.web import Application, RequestHandler
    except ImportError as error:
        msg = 'a simulator on loopback needs tornado. Run: pip install "ipybatch[lab]"'
        raise ImportError(msg) from error

    class Spelled(HTTPHeaders):
        """Send names as the service spells them: tornado writes -Url, and there are clients that look for -URL."""

        def get_all(self) -> Iterator[tuple[str, str]]:
            for name, value in super().get_all():
                yield _SPELLING.get(name, name), value

    class Handler(RequestHandler):
        """Wait as long as the reply says, and answer it."""

        async def prepare(self) -> None:
            sent = self.request
            request = Request(sent.uri, sent.method or "GET", dict(sent.headers), sent.body)
            in_s, out_s = simulator.way_s(request)
            await _wait(in_s)
            reply = simulator.handle(request, now_s())
            await _wait(reply.delay_s + out_s)
            if reply.drop:
                _drop(self, reply)
            else:
                await _send(self, reply)

        def clear(self) -> None:
            """Start with headers that keep their spelling."""
            super().clear()
            self._headers = Spelled(self._headers)

        def compute_etag(self) -> None:
            """Have no etag: the real services send none."""

    return Application([(r".*", Handler)], log_function=lambda _: None)


async def _wait(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


async def _send(handler: RequestHandler, reply: Reply) -> None:
    handler.set_status(reply.status)
    handler.clear_header("Content-Type")
    for name, value in reply.headers.items():
        handler.set_header(name, value)
    leaving = handler.finish(
        reply.body or None
    )  # tornado takes even an empty one for a body, which a 304 must not have
    if reply.sent:
        with suppress(OSError):  # the client has gone
            await leaving
            reply.sent()


def _drop(handler: RequestHandler, reply: Reply) -> None:
    stream = handler.detach()
    if reply.drop == "reset" and not stream.closed():
        # lingering for 0 s makes close() send RST instead of FIN
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()
