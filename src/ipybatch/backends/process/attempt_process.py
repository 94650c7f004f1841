"""`AttemptProcess`: the process of one attempt, as the supervisor sees it.

What the process says of itself counts only behind the attempt's token: what is
written to the wrong descriptor neither stops the clock nor turns it back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from ipybatch.backends.process import keeper, process_tree, protocol
from ipybatch.backends.process.tree_memory import SystemKills, TreeMemory

_CARRY_S = 60.0  # for reading the call and for sending the answer, beside timeout_s
_KEEP = 2_000  # bytes of what an attempt printed


class AttemptProcess:
    """The process of one attempt.

    Attributes:
        deadline_s: When it is killed, on the monotonic clock; None for never.
        cause: What it was killed for.
        below: The processes that it had started when it was last looked at.
    """

    def __init__(self, start: protocol.Start, kernel: int, kills: SystemKills) -> None:
        self.start = start
        self.pid = self.status = self.output = -1
        self.cause = ""
        self.below: list[int] = []
        self.deadline_s: float | None = None
        self._kernel, self._kills = kernel, kills
        self._kills_before = kills.count()
        self._start_s = time.time()
        self._said, self._is_short_of_memory = b"", False
        self._carries, self._is_done = True, False  # its call or its answer is on the way
        self._killed_s: float | None = None
        self._printed = b""

    def begin(self, pid: int, status: int, output: int) -> None:
        """Take the process that was forked, and its lines."""
        self.pid, self.status, self.output = pid, status, output
        self.memory = TreeMemory(pid, os.getpid(), self._start_s)
        self._set_deadline(_CARRY_S)

    def read_status(self) -> bool:
        """Read READY and DONE, between which its time counts; return False at the end of the line."""
        piece, token = read_piece(self.status), self.start.token
        self._said += piece
        while (at := self._said.find(token) + len(token)) >= len(token) and at < len(self._said):
            self._hear(self._said[at : at + 1])
            self._said = self._said[at + 1 :]
        self._said = self._said[-len(token) :]
        return bool(piece)

    def _hear(self, told: bytes) -> None:
        if told == protocol.SHORT:
            self._is_short_of_memory = True
        elif told == protocol.READY and self._carries and not self._is_done:
            self._carries = False
            self._set_deadline(0.0)
        elif told == protocol.DONE and not self._is_done:
            self._carries = self._is_done = True
            self.look(time.monotonic(), 1)  # at the end most has been taken, and it may have been short
            # Until it is gone, whatever it has said.
            self.deadline_s = None if self.deadline_s is None else time.monotonic() + _CARRY_S

    def _set_deadline(self, more_s: float) -> None:
        if self.start.timeout_s is not None:
            self.deadline_s = time.monotonic() + self.start.timeout_s + more_s

    def read_output(self) -> bool:
        """Keep the end of what it prints; return False at the end of the line."""
        piece = read_piece(self.output)
        self._printed = (self._printed + piece)[-_KEEP:]
        return bool(piece)

    def kill(self, cause: str) -> None:
        """Kill the process and all that it started; the first cause counts."""
        self.cause = self.cause or cause
        self._killed_s = self._killed_s or time.monotonic()
        process_tree.kill(self.pid)

    def look(self, now_s: float, of_all: int) -> None:
        """Measure the memory of the process, and kill it once it exceeds its time or its memory."""
        if self._killed_s is not None:
            self.kill(self.cause)  # what it had started meanwhile
            return
        if self._carries:
            self._let_it_carry()
        self.below = process_tree.descendants(self.pid)
        if self.deadline_s is not None and now_s >= self.deadline_s:
            if self._carries and process_tree.state(self._kernel) in ("T", "t"):
                self.deadline_s = now_s + _CARRY_S  # a kernel that is stopped reads nothing
            else:
                self.kill("timeout")
            return
        taken_mb = self.memory.measure(self.below, self.start.memory_mb, of_all, now_s)
        if self.start.memory_mb is not None and taken_mb > self.start.memory_mb:
            self.kill("memory")

    def _let_it_carry(self) -> None:
        """Continue a process that is stopped while its call or its answer is on the way: none of it is the work's."""
        if process_tree.state(self.pid) == "T":
            self.read_status()  # else its work may have begun already
            if self._carries:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGCONT)

    def is_beyond_help(self, now_s: float) -> bool:
        """Return whether it was killed, and is there all the same: it hangs in the system."""
        return self._killed_s is not None and now_s >= self._killed_s + keeper.END_S

    def end(self, code: int | None) -> protocol.Ended:
        """Close its lines and return how it ended; without a code, it has not, and is left."""
        self.read_status()
        self.read_output()
        os.close(self.status)
        os.close(self.output)
        printed = self._printed.decode("utf-8", "replace").strip()
        if not self.cause and self._was_short_of_memory(code):
            self.cause = "memory"
        left = 0 if code is not None else 1
        return protocol.Ended(self.start.number, code or 0, self.cause, printed, left)

    def _was_short_of_memory(self, code: int | None) -> bool:
        """Return whether it ended for lack of memory: it has said so itself, or the system has counted it.

        What it printed proves nothing: a program may print of memory and fail for something else.
        """
        if code == -signal.SIGKILL and self._kills.count() > self._kills_before:
            self._kills.explain()
            return True
        return self._is_short_of_memory


def read_piece(descriptor: int) -> bytes:
    """Return what can be read without waiting."""
    with contextlib.suppress(BlockingIOError):
        return os.read(descriptor, 65536)
    return b""
