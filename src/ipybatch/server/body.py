"""Body: how the body of a request comes: piece by piece, so that one that is refused is in nobody's memory.

    headers --`admit`, `begin`--> refused, or taken --`take`, a piece at a time--> the method

Rule: a refusal is written as soon as it is known, before the rest of the body has come, and what still comes is read
and dropped, up to a bound: a connection that is closed in the face of a client that sends loses the answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from jupyter_server.base.handlers import APIHandler
from tornado import web

from ipybatch.errors import BatchError
from ipybatch.server.refusal import Refusal, as_refusal
from ipybatch.server.services import Services

MB = 1_000_000
DROPPED_BYTES, DROPPED_S = 2 << 30, 60.0  # of a body that was refused
_ANY = 1 << 62


@web.stream_request_body
class BodyReader(APIHandler):
    """Base of handlers: reads the body, which is `received` where it is small."""

    _dropped: int | None = None  # bytes of a body that was refused; None for one that was not
    _answered_s = 0.0

    @property
    def services(self) -> Services:
        """What answers are made with."""
        services: Services = self.settings["ipybatch"]
        return services

    async def admit(self) -> None:
        """Refuse who may not ask, and what cannot be asked; for subclasses.

        Raises:
            HTTPError: It is refused.
        """
        await super().prepare()

    async def begin(self) -> None:
        """Refuse a body by its headers; for subclasses.

        Raises:
            HTTPError: It is refused.
            BatchError: It cannot be kept.
        """
        most_mb = self.services.options.max_body_mb
        self.check_size(self.told_bytes, most_mb * MB, "max_body_mb", most_mb)
        self.received = bytearray()

    async def take(self, chunk: bytes) -> None:
        """Take a piece of the body; for subclasses.

        Raises:
            HTTPError: It is refused.
            BatchError: It cannot be kept.
        """
        most_mb = self.services.options.max_body_mb
        self.received += chunk
        self.check_size(len(self.received), most_mb * MB, "max_body_mb", most_mb)

    received = bytearray()

    @property
    def told_bytes(self) -> int:
        """Bytes of the body, as its header says; 0 where it does not."""
        told = self.request.headers.get("Content-Length", "")
        return (
            int(told) if told.isascii() and told.isdecimal() and len(told) < 20 else 0
        )  # what is odd, tornado refuses

    async def prepare(self) -> None:  # type: ignore[override]  # as APIHandler has it
        """Refuse what can be refused before the body comes."""
        has_body = "Transfer-Encoding" in self.request.headers or self.told_bytes > 0
        try:
            await self.admit()
            if has_body:
                self._allow(_ANY)  # the server's own limit closes the connection; ours are told
                await self.begin()
        except (web.HTTPError, BatchError) as error:
            if self._finished:
                raise
            if not has_body:
                self._refuse_then(error)
                return
            self._allow(_ANY)
            if self.request.headers.get("Expect"):  # whoever waits to be asked for the body sends none
                raise
            await self._refuse(error)

    async def data_received(self, chunk: bytes) -> None:
        """Take a piece of the body, or drop it."""
        if self._dropped is not None:
            self._dropped += len(chunk)
            is_late = asyncio.get_running_loop().time() - self._answered_s > DROPPED_S
            if not self._finished and (is_late or self._dropped > DROPPED_BYTES):
                self._end()
            return
        try:
            await self.take(chunk)
        except (web.HTTPError, BatchError) as error:
            await self._refuse(error)

    @staticmethod
    def check_size(size: int, most_bytes: int, option: str, most_mb: int, *, step: str = "") -> None:
        """Refuse a body that is too large.

        Raises:
            Refusal: It is; names the limit, and the option that sets it.
        """
        if size > most_bytes:
            msg = f"the body must be at most {most_mb} MB ({option})"
            allowed = {"maximum": most_bytes, option: most_mb}
            step = step or f"send less, or set c.IpyBatch.{option}"
            raise Refusal(413, msg, field="body", value=size, allowed=allowed, next_step=step)

    def discard(self) -> None:
        """Forget what has come of the body."""
        self.received = bytearray()

    def _allow(self, most_bytes: int) -> None:
        self.request.connection.set_max_body_size(most_bytes)  # type: ignore[union-attr]  # a connection of HTTP/1

    def _refuse_then(self, error: Exception) -> None:
        """Refuse when the request has been read: else the connection ends without a word."""

        async def refuse(*args: str) -> None:
            raise error

        setattr(self, (self.request.method or "").lower(), refuse)

    async def _refuse(self, error: BaseException) -> None:
        """Write a refusal while the body still comes; the request ends with the body, or at the bound."""
        self.discard()
        self._dropped, self._answered_s = 0, asyncio.get_running_loop().time()
        self._instead(None)
        refusal = as_refusal(error)
        self.write_error(refusal.status_code, exc_info=(type(refusal), refusal, None))
        await self.flush()

    def finish(self, *args: Any, **named: Any) -> Any:
        """End the request; of a refusal, only write it."""
        if self._dropped is None or self._headers_written:
            if not self._headers_written and not self.request._body_future.done():
                self.set_header("Connection", "close")  # tornado closes it, and a client must know
            return super().finish(*args, **named)
        (body,) = args
        self.set_header("Content-Type", named["set_content_type"])
        self.set_header("Content-Length", len(body))
        self.write(body)
        return None

    def _instead(self, error: BaseException | None) -> None:
        """Let the method raise an error, or end what is written, once the body has come: so the connection stays."""

        def method(*args: str) -> None:
            if error is not None:
                raise error
            self._end()

        setattr(self, (self.request.method or "").lower(), method)

    def _end(self) -> None:
        web.RequestHandler.finish(self)

    def on_finish(self) -> None:
        """Forget the body."""
        self.discard()
        super().on_finish()

    def on_connection_close(self) -> None:
        """Forget the body."""
        self.discard()
        super().on_connection_close()
