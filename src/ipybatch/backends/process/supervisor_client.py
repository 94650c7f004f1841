"""`SupervisorClient`: the session's end of the supervisor.

The supervisor is started by exec, not by fork, and in a process session of its
own: a Ctrl-C in the terminal goes to the kernel alone, which then cancels attempts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ipybatch.backends.process import protocol
from ipybatch.backends.process.protocol import Answer
from ipybatch.backends.threads import Threads

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]);"
    " from ipybatch.backends.process.supervisor import main; main(int(sys.argv[1]), sys.argv[3:])"
)
_CLOSE_S = 5.0


class SupervisorClient:
    """Run attempts as children of a supervisor process (Linux).

    Attributes:
        most_mb: The most memory that one attempt had taken so far; None before any was measured.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._threads = Threads()
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._ended: dict[int, asyncio.Future[protocol.Ended]] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._messages = protocol.MessageReader()
        self._lost = ""
        self.most_mb: float | None = None
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, "-u", "-c", _PROGRAM, str(theirs.fileno()), json.dumps(sys.path), *preload],
                env={**os.environ, **protocol.ONE_THREAD},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._loop.add_reader(self._control, self._receive)

    @property
    def is_lost(self) -> bool:
        """Whether the supervisor has ended by itself."""
        return bool(self._lost)

    async def run(
        self, parts: protocol.Parts, *, timeout_s: float | None, memory_mb: float | None
    ) -> tuple[Answer, protocol.Ended]:
        """Run one attempt; return once its processes have ended, also after a cancel."""
        number = next(self._numbers)
        ended = self._ended[number] = self._loop.create_future()
        ours, theirs = socket.socketpair()
        with ours:
            self._sockets[number] = ours
            with theirs:
                self._send(protocol.Start(number, timeout_s, memory_mb), theirs.fileno())
            talk = self._loop.create_task(self._threads.run(_exchange, (ours, parts)))
            try:
                await self._wait({talk, ended}, number)
            finally:
                del self._ended[number], self._sockets[number]
        return talk.result(), ended.result()

    async def close(self) -> None:
        """End the supervisor, and with it all attempts."""
        self._loop.remove_reader(self._control)
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await self._threads.run(self._process.wait, (_CLOSE_S,))
        self._process.kill()
        self._process.wait()
        await self._threads.close()

    async def _wait(self, both: set[Any], number: int) -> None:
        cancelled: asyncio.CancelledError | None = None
        while not all(one.done() for one in both):
            try:
                await asyncio.wait(both)
            except asyncio.CancelledError as error:
                cancelled = error
                self._send(protocol.Kill(number))
        if cancelled is not None:
            raise cancelled

    def _send(self, message: protocol.Message, *descriptors: int) -> None:
        try:
            socket.send_fds(self._control, [protocol.encode_message(message)], descriptors)
        except OSError as error:
            self._lose(str(error))

    def _receive(self) -> None:
        try:
            piece = self._control.recv(65536)
        except OSError:
            piece = b""
        for message in self._messages.feed(piece):
            if isinstance(message, protocol.Ended) and message.number in self._ended:
                self._ended[message.number].set_result(message)
            elif isinstance(message, protocol.Taken):
                self.most_mb = message.most_mb
            elif isinstance(message, protocol.Failed):
                self._lose(message.reason)
        if not piece:
            self._lose(f"exit code {self._process.poll()}")

    def _lose(self, reason: str) -> None:
        """End all attempts: the supervisor has ended, and they with it."""
        self._lost = self._lost or reason
        self._loop.remove_reader(self._control)
        for number, ended in self._ended.items():
            if not ended.done():
                ended.set_result(protocol.Ended(number, 1, "lost", self._lost))
            with contextlib.suppress(OSError):
                self._sockets[number].shutdown(socket.SHUT_RDWR)


def _exchange(line: socket.socket, parts: protocol.Parts) -> Answer:
    """Send the call and return the answer."""
    with line.makefile("rwb", buffering=0) as stream:
        try:
            protocol.send(stream, parts)
            return protocol.receive(stream)
        except (OSError, EOFError):
            return None
