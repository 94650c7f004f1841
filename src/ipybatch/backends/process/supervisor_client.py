"""`SupervisorClient`: the session's end of the supervisor.

The supervisor is started by exec, not by fork, and in a process session of its
own: a Ctrl-C in the terminal goes to the kernel alone, which then cancels attempts.
What is started is its keeper, whose end says that nothing is left of the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import msgspec

from ipybatch.backends.process import process_tree, protocol
from ipybatch.backends.process.protocol import Answer
from ipybatch.backends.threads import Threads

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]);"
    " from ipybatch.backends.process.supervisor import main; main(int(sys.argv[1]), int(sys.argv[3]), sys.argv[4:])"
)
_MARK = "IPYBATCH_SUPERVISOR"
_LOOK_S = 1.0
_CLOSE_S = 25.0  # the supervisor, and then its keeper, wait 10 s each for processes that cannot be ended


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
        self._lost = self._failed = self._reason = ""
        self._is_cut = False
        self._last_call: asyncio.TimerHandle | None = None
        self.most_mb: float | None = None
        kernel = str(os.getpid())
        self._mark = f"{_MARK}={secrets.token_hex(16)}"
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, "-u", "-c", _PROGRAM, str(theirs.fileno()), json.dumps(sys.path), kernel, *preload],
                env={**os.environ, **protocol.ONE_THREAD, _MARK: self._mark.partition("=")[2]},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._end = os.pidfd_open(self._process.pid)  # a fork of the kernel may hold the line, so it tells no end
        self._loop.add_reader(self._control, self._receive)
        self._loop.add_reader(self._end, self._see_end)

    @property
    def is_lost(self) -> bool:
        """Whether the supervisor has ended by itself."""
        return bool(self._lost)

    async def run(
        self, parts: protocol.Parts, *, timeout_s: float | None, memory_mb: float | None
    ) -> tuple[Answer, protocol.Ended]:
        """Run one attempt; return once its processes have ended, also after a cancel."""
        number, token = next(self._numbers), secrets.token_bytes(protocol.TOKEN_SIZE)
        ended = self._ended[number] = self._loop.create_future()
        ours, theirs = socket.socketpair()
        with ours:
            self._sockets[number] = ours
            with theirs:
                self._send(protocol.Start(number, token, timeout_s, memory_mb), theirs.fileno())
            talk = self._loop.create_task(self._threads.run(_exchange, (ours, token, parts)))
            try:
                await self._wait({talk, ended}, number)
            finally:
                del self._ended[number], self._sockets[number]
        answer, end = talk.result(), ended.result()
        if answer is None:
            answer = await self._threads.run(_from_file, (token,))
        return (None, msgspec.structs.replace(end, cause="garbled")) if answer == [] else (answer, end)

    async def close(self) -> None:
        """End the supervisor, and with it all attempts."""
        self._stop_reading()
        self._control.close()
        os.close(self._end)
        for bound_s in (_CLOSE_S, 1.0):
            with contextlib.suppress(subprocess.TimeoutExpired):
                await self._threads.run(self._process.wait, (bound_s,))
            self._process.kill()
        await self._threads.close()

    async def _wait(self, both: set[Any], number: int) -> None:
        cancelled: asyncio.CancelledError | None = None
        while not all(one.done() for one in both):
            try:
                await asyncio.wait(both, timeout=_LOOK_S)
                self._continue()
            except asyncio.CancelledError as error:
                cancelled = error
                self._send(protocol.Kill(number))
        if cancelled is not None:
            raise cancelled

    def _continue(self) -> None:
        """Continue a keeper that is stopped, which then continues the supervisor: else no deadline holds."""
        if self._process.returncode is None and process_tree.state(self._process.pid) == "T":
            self._process.send_signal(signal.SIGCONT)

    def _send(self, message: protocol.Message, *descriptors: int) -> None:
        # A supervisor that has ended takes nothing; `_lose` follows once nothing is left of it, or came before.
        with contextlib.suppress(OSError):
            socket.send_fds(self._control, [protocol.encode_message(message)], descriptors)
            return
        if self._lost:
            self._lose()

    def _receive(self) -> None:
        piece = b""
        with contextlib.suppress(OSError):
            piece = self._control.recv(1 << 20)
        for message in self._messages.feed(piece):
            if isinstance(message, protocol.Ended) and message.number in self._ended:
                self._settle(message)
            elif isinstance(message, protocol.Taken):
                self.most_mb = message.most_mb
            elif isinstance(message, protocol.Failed):
                self._failed = message.reason
        if not piece:
            self._loop.remove_reader(self._control)
            self._is_cut = True
            self._lose_if_over()

    def _settle(self, ended: protocol.Ended) -> None:
        future = self._ended[ended.number]
        if not future.done():
            future.set_result(ended)
        # What was sent can still be read. But a process that cannot be ended may hold the other end, or a fork of ours.
        with contextlib.suppress(OSError):
            self._sockets[ended.number].shutdown(socket.SHUT_RDWR)

    def _see_end(self) -> None:
        self._loop.remove_reader(self._end)
        code = self._process.poll() or 0
        number = -code if code < 0 else max(0, code - 128)
        self._reason = f"killed by {protocol.signal_name(number)}" if number else f"exit code {code}"
        self._lose_if_over()

    def _lose_if_over(self) -> None:
        """Give up once both have ended, the supervisor and its keeper: the second ends what is left of the first."""
        if self._is_cut and self._reason:
            self._lose()
        elif self._last_call is None:
            self._last_call = self._loop.call_later(_CLOSE_S, self._lose)

    def _stop_reading(self) -> None:
        self._loop.remove_reader(self._control)
        self._loop.remove_reader(self._end)
        if self._last_call is not None:
            self._last_call.cancel()

    def _lose(self) -> None:
        """End all attempts: the supervisor has ended, and they with it."""
        if not self._lost:
            self._lost = self._failed or self._reason or "it has closed its line"
            self._stop_reading()
            process_tree.kill_marked(self._mark)  # what a keeper that was killed, too, could not
        for number in list(self._ended):
            self._settle(protocol.Ended(number, 1, "lost", self._lost))


def _exchange(line: socket.socket, token: bytes, parts: protocol.Parts) -> Answer:
    """Send the call and return the answer; one without parts where it was garbled."""
    with line.makefile("rwb", buffering=0) as stream:
        try:
            protocol.send(stream, [token, *parts])
            return protocol.receive_answer(stream, token)
        except protocol.GarbledError:
            line.shutdown(socket.SHUT_RDWR)  # its process need not wait until all of it is read
            return []
        except (OSError, EOFError):
            return None


def _from_file(token: bytes) -> Answer:
    """Return the answer of a process that could send none, because its work had closed the line."""
    path = protocol.answer_file(tempfile.gettempdir(), token)
    for one in (path, path.with_suffix(".part")):
        with contextlib.suppress(OSError, EOFError, protocol.GarbledError), one.open("rb", buffering=0) as file:
            one.unlink()
            return protocol.receive_answer(file, token)
    return None
