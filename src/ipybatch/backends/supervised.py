"""Supervised: the kernel's side of the supervisor.

The supervisor is started by exec, not by fork, and in a session of its own: an
interrupt in a terminal is for the kernel, which then says what is to end.
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

from ipybatch.backends import wire
from ipybatch.backends.threads import Threads

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]);"
    " from ipybatch.backends.supervisor import main; main(int(sys.argv[1]), sys.argv[3:])"
)
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_CLOSE_S = 5.0

Answer = list[bytearray] | None


class Supervised:
    """Run attempts as children of a supervisor process (Linux)."""

    def __init__(self, preload: Sequence[str]) -> None:
        self._threads = Threads()
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._ended: dict[int, asyncio.Future[wire.Ended]] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._lines = wire.Lines()
        self._lost = ""
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, "-u", "-c", _PROGRAM, str(theirs.fileno()), json.dumps(sys.path), *preload],
                env={**os.environ, **dict.fromkeys(THREADS, "1")},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._loop.add_reader(self._control, self._hear)

    @property
    def is_lost(self) -> bool:
        """Whether the supervisor has ended by itself."""
        return bool(self._lost)

    async def run(
        self, parts: wire.Parts, *, timeout_s: float | None, memory_mb: float | None
    ) -> tuple[Answer, wire.Ended]:
        """Run one attempt; return when nothing of it is left, also when cancelled."""
        number = next(self._numbers)
        ended = self._ended[number] = self._loop.create_future()
        ours, theirs = socket.socketpair()
        with ours:
            self._sockets[number] = ours
            with theirs:
                self._tell(wire.Start(number, timeout_s, memory_mb), theirs.fileno())
            talk = self._loop.create_task(self._threads.run(_talk, (ours, parts)))
            try:
                await self._wait({talk, ended}, number)
            finally:
                del self._ended[number], self._sockets[number]
        return talk.result(), ended.result()

    async def close(self) -> None:
        """End the supervisor, and with it all that it runs."""
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
                self._tell(wire.Kill(number))
        if cancelled is not None:
            raise cancelled

    def _tell(self, message: wire.Message, *descriptors: int) -> None:
        try:
            socket.send_fds(self._control, [wire.line(message)], descriptors)
        except OSError as error:
            self._lose(str(error))

    def _hear(self) -> None:
        try:
            piece = self._control.recv(65536)
        except OSError:
            piece = b""
        for message in self._lines.feed(piece):
            if isinstance(message, wire.Ended) and message.number in self._ended:
                self._ended[message.number].set_result(message)
            elif isinstance(message, wire.Failed):
                self._lose(message.reason)
        if not piece:
            self._lose(f"exit code {self._process.poll()}")

    def _lose(self, reason: str) -> None:
        """Give up all attempts: the supervisor is gone, and they with it."""
        self._lost = self._lost or reason
        self._loop.remove_reader(self._control)
        for number, ended in self._ended.items():
            if not ended.done():
                ended.set_result(wire.Ended(number, 1, "lost", self._lost))
            with contextlib.suppress(OSError):
                self._sockets[number].shutdown(socket.SHUT_RDWR)


def _talk(line: socket.socket, parts: wire.Parts) -> Answer:
    """Hand an attempt its work and return its answer; None when it gave none."""
    with line.makefile("rwb", buffering=0) as stream:
        try:
            wire.send(stream, parts)
            return wire.receive(stream)
        except (OSError, EOFError):
            return None
