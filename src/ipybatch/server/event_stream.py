"""Event stream: changes of sessions as server-sent events, for clients outside JupyterLab.

    id: 1796039000001          the cursor: a client that comes back sends it as Last-Event-ID
    event: change              data is a `Change`
    event: resync              some changes are not to be had any more: list the sessions anew
    : alive                    every 15 seconds, so that no proxy ends it

JupyterLab's tabs do not use it: a browser has six connections to a server, over all its tabs.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (2026-11-30)
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import ClassVar

from jupyter_server.auth.decorator import authorized
from tornado import web
from tornado.iostream import StreamClosedError

from ipybatch.server.handler import RESOURCE, Handler, Media, Operation, Parameter
from ipybatch.server.refusal import Refusal

HEARTBEAT_S = 15.0
RETRY_S = 5  # until a client that was refused, or cut off, comes back
LAST_EVENT_ID = Parameter(
    "Last-Event-ID", "The latest `id:` that was read: what came after it is sent.", where="header"
)


class EventsHandler(Handler):
    """GET /events."""

    operations: ClassVar = {
        "GET": Operation(
            summary="Changes of sessions as server-sent events",
            answers={200: Media(("text/event-stream",))},
            refuses=(422, 429),
            parameters=(LAST_EVENT_ID,),
        )
    }
    _waiting: asyncio.Future[list[tuple[int, bytes]] | None] | None = None

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """Send them until the client or the server ends it."""
        watcher, most = self.services.watcher, self.services.options.max_streams
        cursor = self._cursor(watcher.cursor)
        if watcher.streams >= most:
            raise Refusal(
                429,
                f"there are {most} streams already (max_streams)",
                field="max_streams",
                allowed={"max_streams": most},
                next_step="end one of them, or set c.IpyBatch.max_streams",
                headers={"Retry-After": str(RETRY_S)},
            )
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Accel-Buffering", "no")
        if self.request.method == "HEAD":
            self.finish(set_content_type="text/event-stream")
            return
        watcher.streams += 1
        try:
            with suppress(StreamClosedError, asyncio.CancelledError):
                await self._stream(cursor)
        finally:
            watcher.streams -= 1
        if not self.request.connection.stream.closed():  # type: ignore[union-attr]  # a connection of HTTP/1
            self.finish(set_content_type="text/event-stream")

    async def _stream(self, cursor: int) -> None:
        watcher = self.services.watcher
        await self._send(f"retry: {RETRY_S * 1000}\nid: {cursor}\n\n".encode())
        while not watcher.is_closed:
            self._waiting = asyncio.ensure_future(watcher.after(cursor, HEARTBEAT_S))
            changes = await self._waiting
            if changes is None:
                cursor = watcher.cursor
                await self._send(b'id: %d\nevent: resync\ndata: {"cursor":%d}\n\n' % (cursor, cursor))
            elif not changes and not watcher.is_closed:
                await self._send(b": alive\n\n")
            for number, body in changes or ():
                await self._send(b"id: %d\nevent: change\ndata: %s\n\n" % (number, body))
                cursor = number

    async def _send(self, text: bytes) -> None:
        self.write(text)
        await self.flush()

    def on_connection_close(self) -> None:
        """Wait for nothing more."""
        if self._waiting is not None:
            self._waiting.cancel()
        super().on_connection_close()

    def _cursor(self, latest: int) -> int:
        """Return where the client left off; by default now.

        Raises:
            Refusal: It sends what is no cursor.
        """
        told = self.request.headers.get("Last-Event-ID", "").strip()
        if not told:
            return latest
        if not (told.isascii() and told.isdecimal() and len(told) < 18):
            step = "leave the header out, and list the sessions"
            raise Refusal(
                422, "Last-Event-ID must be the id of an event", field="Last-Event-ID", value=told, next_step=step
            )
        return int(told)
