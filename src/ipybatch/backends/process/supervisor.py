"""Supervisor: the process that forks every attempt, watches it, and ends with the kernel.

Rule: every direct child of the supervisor is an attempt, or is killed.  Each
attempt adopts the orphans below it (a child subreaper), and the supervisor those
of attempts that have ended::

    kernel --- supervisor --+-- attempt 1 --- its processes, in whatever session
                            +-- attempt 2
                            `-- (an orphan of an attempt that ended: killed)

So nothing that an attempt started outlives it, and nothing outlives the kernel:
at the end of the control line, or of the kernel's process, all is killed.
The packages are loaded once, here, with one thread each; an attempt is a fork.
The kernel itself is never forked: it has threads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import gc
import importlib
import os
import re
import selectors
import signal
import socket
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ipybatch.backends.process import process_tree, protocol, worker_main

_TICK_S = 0.05
_START_S = 60.0  # for reading its call, beside timeout_s
_KEEP = 2_000  # bytes of what an attempt printed
_TELL_S = 0.5  # between two reports of the memory that attempts take
_TOLD_MB = 1.0  # more than this is worth a report

_OUT_OF_MEMORY_CODE = 86  # of a process that is too short of memory to send its error
# Printed by C++, OpenBLAS, Cython and the loader before they give up.
_OUT_OF_MEMORY = re.compile(r"bad_alloc|MemoryError|[Mm]emory allocation|[Cc]annot allocate memory|out of memory")
_FROM_OUTSIDE = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})


class AttemptProcess:
    """The process of one attempt.

    Attributes:
        deadline_s: When it is killed, on the monotonic clock; None for never.
        base_mb: What it had in memory when it began.
        most_mb: The most that it and the processes it started took for themselves.
        cause: What it was killed for.
    """

    def __init__(self, start: protocol.Start, pid: int, status: int, output: int) -> None:
        self.start, self.pid, self.status, self.output = start, pid, status, output
        self.deadline_s = None if start.timeout_s is None else time.monotonic() + start.timeout_s + _START_S
        self.base_mb = process_tree.resident_mb(os.getpid())
        self.base_private_mb = process_tree.private_mb(os.getpid())
        self.most_mb = 0.0
        self.system_kills = process_tree.system_kills()
        self.cause = ""
        self.printed = b""

    def read_status(self) -> bool:
        """Read READY and DONE, between which its time counts; return False at the end of the line."""
        words = _read(self.status)
        if protocol.READY in words and self.start.timeout_s is not None:
            self.deadline_s = time.monotonic() + self.start.timeout_s
        if protocol.DONE in words:
            self.deadline_s = None
        return bool(words)

    def read_output(self) -> bool:
        """Keep the end of what it prints; return False at the end of the line."""
        piece = _read(self.output)
        self.printed = (self.printed + piece)[-_KEEP:]
        return bool(piece)

    def kill(self, cause: str) -> None:
        """Kill the process and all that it started; the first cause counts."""
        self.cause = self.cause or cause
        process_tree.kill(self.pid)

    def watch(self, now_s: float) -> None:
        """Measure the memory of the process, and kill it once it exceeds its time or its memory."""
        descendants = process_tree.descendants(self.pid)
        own_mb = process_tree.private_mb(self.pid) - self.base_private_mb
        self.most_mb = max(self.most_mb, own_mb + sum(map(process_tree.private_mb, descendants)))
        if self.deadline_s is not None and now_s >= self.deadline_s:
            self.kill("timeout")
        elif self.start.memory_mb is not None and self._taken_mb(descendants) > self.start.memory_mb:
            self.kill("memory")

    def end(self, code: int) -> protocol.Ended:
        """Close its lines and return how it ended."""
        self.read_output()
        os.close(self.status)
        os.close(self.output)
        printed = self.printed.decode("utf-8", "replace").strip()
        was_killed_by_system = code == -signal.SIGKILL and process_tree.system_kills() > self.system_kills
        if not self.cause and (was_killed_by_system or was_short_of_memory(code, printed)):
            self.cause = "memory"
        return protocol.Ended(self.start.number, code, self.cause, printed)

    def _taken_mb(self, descendants: list[int]) -> float:
        own_mb = process_tree.resident_mb(self.pid) - self.base_mb
        return own_mb + sum(map(process_tree.resident_mb, descendants))


class Supervisor:
    """Serve one kernel over its control line, until the line or the kernel ends."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._messages = protocol.MessageReader()
        self._data: list[int] = []  # descriptors whose Start message is still incomplete
        self._attempts: dict[int, AttemptProcess] = {}  # by pid
        self._ended: list[protocol.Ended] = []  # reported once their descendants are dead
        self._selector = selectors.DefaultSelector()
        self._is_over = False
        self._most_mb = self._told_mb = 0.0  # of one attempt, of all so far
        self._told_s = 0.0

    def run(self) -> None:
        """Serve until the kernel has ended; then kill all attempts."""
        process_tree.adopt_orphans()
        self._watch(self._control.fileno(), self._receive)
        # A process forked from the kernel keeps the control line open, so the kernel's own end is watched too.
        self._watch(os.pidfd_open(os.getppid()), self._give_up)
        wakes = _descriptor_for_child_exits()
        self._watch(wakes, lambda: _read(wakes))
        while not self._is_over:
            is_busy = self._attempts or self._ended
            for key, _ in self._selector.select(_TICK_S if is_busy else None):
                key.data()
            now_s = time.monotonic()
            for attempt in self._attempts.values():
                attempt.watch(now_s)
                self._most_mb = max(self._most_mb, attempt.most_mb)
            if now_s >= self._told_s + _TELL_S:
                self._told_s = now_s
                self._tell_memory()
            self._reap()
        for attempt in self._attempts.values():
            attempt.kill("cancel")
        while self._attempts or process_tree.children(os.getpid()):
            self._selector.select(_TICK_S)
            self._reap()

    def _tell_memory(self) -> None:
        if self._most_mb > self._told_mb + _TOLD_MB and not self._is_over:
            self._told_mb = self._most_mb
            with contextlib.suppress(OSError):  # the kernel has ended
                self._control.sendall(protocol.encode_message(protocol.Taken(self._most_mb)))

    def _watch(self, descriptor: int, act: Callable[[], object]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, act)

    def _forget(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(descriptor)

    def _receive(self) -> None:
        piece, descriptors, _, _ = socket.recv_fds(self._control, 65536, 64)
        self._data += descriptors
        if not piece:
            self._give_up()
        for message in self._messages.feed(piece):
            if isinstance(message, protocol.Start):
                self._start(message, self._data.pop(0))
            elif isinstance(message, protocol.Kill):
                for attempt in self._attempts.values():
                    if attempt.start.number == message.number:
                        attempt.kill("cancel")

    def _give_up(self) -> None:
        self._is_over = True

    def _start(self, start: protocol.Start, data: int) -> None:
        status, status_end = os.pipe()
        output, output_end = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            cause = "memory" if error.errno == errno.ENOMEM else ""
            self._ended.append(protocol.Ended(start.number, 1, cause, f"no process could be started: {error}"))
            pid = -1
        if pid == 0:
            _become_child(start, (data, status_end, output_end))
        for end in (data, status_end, output_end):
            os.close(end)
        if pid < 0:
            os.close(status)
            os.close(output)
            return
        os.set_blocking(status, False)
        os.set_blocking(output, False)
        attempt = self._attempts[pid] = AttemptProcess(start, pid, status, output)
        self._watch(status, functools.partial(self._take, status, attempt.read_status))
        self._watch(output, functools.partial(self._take, output, attempt.read_output))

    def _take(self, descriptor: int, take: Callable[[], bool]) -> None:
        if not take():
            self._forget(descriptor)

    def _reap(self) -> None:
        """Reap exited children; report an attempt only after its orphaned descendants are dead."""
        for pid, status in _ended_children():
            attempt = self._attempts.pop(pid, None)
            if attempt is not None:
                self._forget(attempt.status)
                self._forget(attempt.output)
                self._ended.append(attempt.end(os.waitstatus_to_exitcode(status)))
        if not self._ended and not self._is_over:
            return
        orphans = [pid for pid in process_tree.children(os.getpid()) if pid not in self._attempts]
        for pid in orphans:
            process_tree.kill(pid)
        if not orphans and self._ended:
            self._tell_memory()
            with contextlib.suppress(OSError):  # the kernel has ended
                self._control.sendall(b"".join(map(protocol.encode_message, self._ended)))
            self._ended.clear()


def was_short_of_memory(code: int, printed: str) -> bool:
    """Return whether a process gave up for lack of memory.

    What such a program printed is all there is to know it by.  One that another process ended did not give up.
    """
    return code == _OUT_OF_MEMORY_CODE or (-code not in _FROM_OUTSIDE and bool(_OUT_OF_MEMORY.search(printed)))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


def _ended_children() -> list[tuple[int, int]]:
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(one)
    return ended


def _descriptor_for_child_exits() -> int:
    """Return a descriptor that becomes readable when a child exits."""
    wakes, wake = os.pipe()
    os.set_blocking(wakes, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wakes


def _become_child(start: protocol.Start, lines: tuple[int, int, int]) -> NoReturn:
    code = _OUT_OF_MEMORY_CODE
    try:
        _enter_new_session(lines)
        with open(3, "r+b", buffering=0, closefd=False) as data:
            worker_main.answer(data, functools.partial(os.write, 4), start.memory_mb)
        code = 0
    except MemoryError:
        pass
    except BaseException:
        code = 1
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _enter_new_session(lines: tuple[int, int, int]) -> None:
    """Start a process session with nothing open but standard input and output, data (3) and status (4)."""
    os.setsid()
    process_tree.end_with_parent()
    process_tree.adopt_orphans()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, status, output = lines
    wanted = (os.open(os.devnull, os.O_RDONLY), output, output, data, status)
    aside = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 16) for one in wanted]
    for place, one in enumerate(aside):
        os.dup2(one, place, inheritable=place < 3)
    os.closerange(5, os.sysconf("SC_OPEN_MAX"))
    # When the system runs out of memory, it kills an attempt, neither the kernel nor the supervisor.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")


def main(control: int, preload: Sequence[str]) -> None:
    """Serve the kernel at the other end of the socket ``control``."""
    # A library's idle thread of its own (jemalloc's, in pyarrow) survives a fork: its allocator sees to that.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    with socket.socket(fileno=control) as line:
        try:
            gc.disable()  # nothing here is garbage, and collecting takes a seventh of the time
            for name in preload:
                with contextlib.suppress(ImportError):  # an attempt that needs it raises the error itself
                    importlib.import_module(name)
            gc.freeze()  # so that the modules stay shared
            gc.enable()
            Supervisor(line).run()
        except BaseException as error:  # sent to the kernel, the only one to read it
            with contextlib.suppress(OSError):
                line.sendall(protocol.encode_message(protocol.Failed(f"{type(error).__name__}: {error}")))
            raise
