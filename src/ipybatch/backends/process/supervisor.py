"""Supervisor: the process that forks every attempt, watches it, and ends with the kernel.

Rule: every direct child of the supervisor is an attempt, or is killed.  Each
attempt adopts the orphans below it (a child subreaper), and the supervisor those
of attempts that have ended::

    kernel --- keeper --- supervisor --+-- attempt 1 --- its processes, in whatever session
                                       +-- attempt 2
                                       `-- (an orphan of an attempt that ended: killed)

So nothing that an attempt started outlives it, and nothing outlives the kernel:
at the end of the control line, of the kernel's process or of the keeper, all is killed.
The packages are loaded once, here, with one thread each; an attempt is a fork.
The kernel itself is never forked: it has threads.

A process that hangs in the system can be killed and be there all the same.  After
`END_S` it is left alone, which is told, and others take its place.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from ipybatch.backends.process import keeper, process_tree, protocol, worker_main
from ipybatch.backends.process.attempt_process import AttemptProcess, read_piece
from ipybatch.backends.process.tree_memory import SystemKills

_TICK_S = 0.05
_TELL_S = 0.5  # between two reports of the memory that attempts take
_TOLD_MB = 1.0  # more than this is worth a report
_IN_ALL = ("cloudpickle", "ctypes", "fcntl", "resource", "traceback")  # every attempt needs them
_HIGH = 512  # descriptors from here on are rarely met by work that opens, closes or writes by number


class Supervisor:
    """Serve one kernel over its control line, until the line or the kernel ends."""

    def __init__(self, control: socket.socket, kernel: int) -> None:
        self._control, self._kernel = control, kernel
        control.setblocking(False)
        self._messages = protocol.MessageReader()
        self._unsent = b""
        self._data: list[int] = []  # descriptors whose Start message is still incomplete
        self._attempts: dict[int, AttemptProcess] = {}  # by pid
        self._ended: list[protocol.Ended] = []  # reported once their descendants are dead
        self._orphans: dict[int, float] = {}  # when each was first killed
        self._left: set[int] = set()  # killed, and there all the same
        self._kills = SystemKills()
        self._selector = selectors.DefaultSelector()
        self._is_over = False
        self._most_mb = self._told_mb = 0.0  # of one attempt, of all so far
        self._told_s = self._look_s = 0.0

    def run(self, ends: Sequence[int]) -> None:
        """Serve until the control line or one of the descriptors ``ends`` can be read at its end; then kill all."""
        process_tree.adopt_orphans()
        self._watch(self._control.fileno(), self._receive)
        # A process forked from the kernel keeps the control line open, so the kernel's own end is watched too.
        for end in ends:
            self._watch(end, self._give_up)
        wakes = _descriptor_for_child_exits()
        self._watch(wakes, lambda: read_piece(wakes))
        while not self._is_over:
            self._turn()
        if not keeper.end_all(keeper.END_S, self._left) or self._left:
            sys.exit(keeper.LEFT)

    def _turn(self) -> None:
        is_busy = self._attempts or self._ended or self._unsent
        wait_s = max(0.0, min(self._look_s - time.monotonic(), _TICK_S)) if is_busy else None
        for key, _ in self._selector.select(wait_s):
            key.data()
        now_s = time.monotonic()
        if now_s >= self._look_s:  # not at every message: an attempt that prints a lot is not looked at more often
            self._look_s = now_s + _TICK_S
            of_all = sum(1 + len(attempt.below) for attempt in self._attempts.values())
            for attempt in self._attempts.values():
                attempt.look(now_s, of_all)
                self._note_memory(attempt)
            if now_s >= self._told_s + _TELL_S:
                self._told_s = now_s
                self._tell_memory()
        self._reap(now_s)
        self._send()

    def _note_memory(self, attempt: AttemptProcess) -> None:
        self._most_mb = max(self._most_mb, attempt.memory.most_mb)

    def _tell_memory(self) -> None:
        if self._most_mb > self._told_mb + _TOLD_MB:
            self._told_mb = self._most_mb
            self._unsent += protocol.encode_message(protocol.Taken(self._most_mb))

    def _send(self) -> None:
        """Send what the line takes: a kernel that is stopped must not stop the clock of its attempts."""
        if self._unsent:
            with contextlib.suppress(OSError):  # it takes nothing now, or the kernel has ended
                self._unsent = self._unsent[self._control.send(self._unsent) :]

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
        attempt = AttemptProcess(start, self._kernel, self._kills)
        status, status_end = os.pipe()
        output, output_end = os.pipe()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            cause = "memory" if error.errno == errno.ENOMEM else ""
            self._ended.append(protocol.Ended(start.number, 1, cause, f"no process could be started: {error}"))
            pid = -1
        if pid == 0:
            _become_child(attempt, parent, (data, status_end, output_end))
        for end in (data, status_end, output_end):
            os.close(end)
        if pid < 0:
            os.close(status)
            os.close(output)
            return
        os.set_blocking(status, False)
        os.set_blocking(output, False)
        attempt.begin(pid, status, output)
        self._attempts[pid] = attempt
        self._watch(status, functools.partial(self._take, status, attempt.read_status))
        self._watch(output, functools.partial(self._take, output, attempt.read_output))

    def _take(self, descriptor: int, take: Callable[[], bool]) -> None:
        if not take():
            self._forget(descriptor)

    def _reap(self, now_s: float) -> None:
        """Reap exited children; report an attempt only after its orphaned descendants are dead, or beyond help."""
        for pid, status in _ended_children():
            self._left.discard(pid)
            if pid in self._attempts:
                self._end(pid, os.waitstatus_to_exitcode(status))
        for pid in [pid for pid, attempt in self._attempts.items() if attempt.is_beyond_help(now_s)]:
            self._left.add(pid)
            self._end(pid, None)
        if not self._ended:
            return
        known = self._left.union(self._attempts)
        orphans = [pid for pid in process_tree.children(os.getpid()) if pid not in known]
        self._orphans = {pid: self._orphans.get(pid, now_s) for pid in orphans}
        for pid, first_s in self._orphans.items():
            process_tree.kill(pid)
            if now_s >= first_s + keeper.END_S:
                self._left.add(pid)
                self._ended = [msgspec.structs.replace(ended, left=ended.left + 1) for ended in self._ended]
        if not orphans:
            self._tell_memory()
            self._unsent += b"".join(map(protocol.encode_message, self._ended))
            self._ended.clear()

    def _end(self, pid: int, code: int | None) -> None:
        attempt = self._attempts.pop(pid)
        self._forget(attempt.status)
        self._forget(attempt.output)
        self._ended.append(attempt.end(code))
        self._note_memory(attempt)


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


def _become_child(attempt: AttemptProcess, parent: int, lines: tuple[int, int, int]) -> NoReturn:
    code = 1
    report: Callable[[bytes], object] = bytes
    try:
        data, status = _enter_new_session(parent, lines)
        report = functools.partial(_say, status)
        with open(data, "r+b", buffering=0, closefd=False) as stream:
            worker_main.answer(stream, report, attempt.start.memory_mb)
        code = 0
    except MemoryError:
        report(attempt.start.token + protocol.SHORT)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _say(status: int, told: bytes) -> None:
    with contextlib.suppress(OSError):  # the work has closed what it did not open: the clock runs on
        os.write(status, told)


def _enter_new_session(parent: int, lines: tuple[int, int, int]) -> tuple[int, int]:
    """Start a process session with nothing open but the standard streams; return where its lines are, data and status.

    They are where work that closes or writes to low numbers does not meet them.
    """
    import fcntl  # every module of ours can be imported on every system; this one is run where fcntl is

    os.setsid()
    process_tree.end_with_parent(parent)
    process_tree.adopt_orphans()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, status, output = lines
    nothing = os.open(os.devnull, os.O_RDONLY)
    most = os.sysconf("SC_OPEN_MAX")
    above = max(16, min(_HIGH, most // 2))
    wanted = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, above) for one in (data, status, nothing, output)]
    for place, one in enumerate((wanted[2], wanted[3], wanted[3])):
        os.dup2(one, place)
    first, second = wanted[:2]
    for low, high in ((3, first), (first + 1, second), (second + 1, most)):
        os.closerange(low, high)
    # When the system runs out of memory, it kills an attempt, neither the kernel nor the supervisor.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")
    return first, second


def main(control: int, kernel: int, preload: Sequence[str]) -> None:
    """Serve the kernel at the other end of the socket ``control``; ``kernel`` is its process."""
    # A library's idle thread of its own (jemalloc's, in pyarrow) survives a fork: its allocator sees to that.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    ends = keeper.fork_supervisor(kernel, control)
    with socket.socket(fileno=control) as line:
        try:
            tempfile.gettempdir()  # looked for once, not in every attempt
            gc.disable()  # nothing here is garbage, and collecting takes a seventh of the time
            for name in (*_IN_ALL, *preload):
                with contextlib.suppress(ImportError):  # an attempt that needs it raises the error itself
                    importlib.import_module(name)
            gc.freeze()  # so that the modules stay shared
            gc.enable()
            Supervisor(line, kernel).run(ends)
        except Exception as error:  # sent to the kernel, the only one to read it
            with contextlib.suppress(OSError):
                line.sendall(protocol.encode_message(protocol.Failed(f"{type(error).__name__}: {error}")))
            raise
