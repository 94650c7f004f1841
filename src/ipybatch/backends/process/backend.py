"""`Processes`: each attempt in a process of its own, which can be ended at any time.

On Linux a supervisor process forks one process an attempt (about 20 ms with
pandas and scikit-learn loaded), and whatever an attempt started is gone with it,
with the session, and with the kernel, however that ends.

On macOS and Windows, where this is untested, each attempt is a new interpreter
(a second or so to load what it imports), its memory is watched but not limited,
what it printed is not known, and processes that detach themselves may outlive a
kernel that is killed.  psutil finds the processes and their memory there.  Memory
that processes share is counted for each on Windows, and not at all on macOS.

A supervisor that is killed takes its attempts with it.  Each of them may run again
and is not counted; it then has a supervisor to itself, one after the other, so that
work that kills supervisors is told from what only ran beside it.  Where there is much
such work, so has all that follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ipybatch.backends.process import process_tree, protocol
from ipybatch.backends.process.protocol import Answer, Ended, Parts, error_of
from ipybatch.backends.threads import Threads
from ipybatch.engine.data.background import refuse_without_threads
from ipybatch.engine.data.policy import check_bound, check_count
from ipybatch.engine.data.spec import StillRunning
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import InputError, MissingExtra, Permanent

if TYPE_CHECKING:
    from ipybatch.backends.process.supervisor_client import SupervisorClient

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from ipybatch.backends.process.worker_main import main; main(sys.argv[2:])"
)
_TICK_S = 0.05
_END_S = 2.0
_HANGS_S = 10.0  # after which a process that was killed, and is there all the same, is left alone
_CARRY_S = 60.0  # for reading a call and sending an answer, beside timeout_s
_READ_S = 10.0  # for reading a result here, which took less than timeout_s where it was made
_READ_UNTIMED_S = 60.0  # where there is no such limit
_MOST_LOST = 5  # supervisors for several attempts; after these, each has one to itself


class Processes:
    """Run each attempt in a process of its own, with a limit on its time and memory.

    The work function and its item are sent to the process by value, so functions of a notebook's cells work. The result
    comes back the same way, an error with its traceback as a note. What the work prints is dropped.

    Args:
        workers: Attempts at a time, beside the session's own limit; default: as many as there are processors.
        memory_mb: Memory of one attempt and of the processes it starts, beyond the preloaded modules; None for no
            limit.
        timeout_s: Time of one attempt, from when it has read its item; None for no limit. The session's own
            ``timeout_s`` also counts the time that the attempt waits for a free worker.
        preload: Modules to import once, shared by all attempts.
        method: "fork" (Linux only) or "spawn"; default: "fork" where the system has it.

    Raises:
        InputError: A number is out of its range, or the system does not have ``method``.
    """

    def __init__(
        self,
        workers: int | None = None,
        memory_mb: float | None = None,
        timeout_s: float | None = None,
        *,
        preload: Sequence[str] = (),
        method: Literal["fork", "spawn"] | None = None,
    ) -> None:
        refuse_without_threads("Processes()", "give an async function and no backend")
        self.workers = check_count("workers", processors() if workers is None else workers, low=1)
        self.memory_mb, self.timeout_s = check_bound("memory_mb", memory_mb), check_bound("timeout_s", timeout_s)
        self.preload = tuple(preload)
        self.method = method or ("fork" if process_tree.is_here() else "spawn")
        if self.method not in ("fork", "spawn") or (self.method == "fork" and not process_tree.is_here()):
            msg = f'method must be "spawn", or "fork" on Linux, got {method!r}'
            raise InputError(msg)
        self._users = self._lost = 0
        self._suspects: set[bytes] = set()  # what ran when a supervisor ended
        self._alone = asyncio.Lock()
        self._most_mb: float | None = None  # of attempts before those of the present place
        self._place: SupervisorClient | Interpreters | None = None
        self._threads = Threads()

    @property
    def most_mb(self) -> float | None:
        """The most memory that one attempt had taken since the first `open`, as measured; None before any was."""
        return self._with(None if self._place is None else self._place.most_mb)

    def _with(self, most_mb: float | None) -> float | None:
        return max((one for one in (self._most_mb, most_mb) if one is not None), default=None)

    def within(self, *, memory_mb: float | None, timeout_s: float | None, preload: Sequence[str]) -> Processes:
        """Return a copy of this backend that takes these limits and modules where it has none of its own."""
        return Processes(
            self.workers,
            memory_mb if self.memory_mb is None else self.memory_mb,
            timeout_s if self.timeout_s is None else self.timeout_s,
            preload=self.preload or preload,
            method=self.method,
        )

    async def open(self, slots: int) -> None:
        """Start the supervisor; it imports the preloaded modules while the first attempts are sent.

        Raises:
            MissingExtra: psutil is not installed, where attempts are new interpreters.
        """
        if self._place is None:
            self._free = asyncio.Semaphore(self.workers)
            self._most_mb = None
            self._place = self._start()
        self._users += 1

    async def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call ``work`` in a process of its own, and return its result; a coroutine is awaited in that process.

        After a cancel, the process and all that it started have ended before this returns.

        Raises:
            Overrun: The attempt took longer than ``timeout_s``.
            OutOfMemory: The attempt needed more than ``memory_mb``, or more than the machine has.
            Killed: The process ended without an answer, or with the supervisor.
            Permanent: The work or its result cannot be sent from one process to another.
            MissingExtra: cloudpickle is not installed.
        """
        parts = await self._threads.run(encode_call, (work, arguments))
        answer, ended = await self.exchange(parts)
        return await result_of(answer, ended, self.timeout_s, self._threads)

    async def exchange(self, parts: Parts) -> tuple[Answer, Ended]:
        """Run one encoded call in a process; return its encoded answer, and how the process ended."""
        async with self._free:
            name = _name_of(parts) if self._suspects else b""
            if name in self._suspects or self._lost > _MOST_LOST:
                return await self._exchange_alone(parts, name)
            place = await self._present()
            answer, ended = await place.run(parts, timeout_s=self.timeout_s, memory_mb=self.memory_mb)
            if answer is None and ended.cause == "lost":
                self._lost += place is self._place
                self._suspects.add(_name_of(parts))
            return answer, ended

    async def _exchange_alone(self, parts: Parts, name: bytes) -> tuple[Answer, Ended]:
        """Run a call with a supervisor to itself."""
        async with self._alone:
            place = self._start()
            try:
                answer, ended = await place.run(parts, timeout_s=self.timeout_s, memory_mb=self.memory_mb)
            finally:
                self._most_mb = self._with(place.most_mb)
                await place.close()
        if answer is None and ended.cause == "lost":
            return None, msgspec.structs.replace(ended, cause="lost again")
        self._suspects.discard(name)
        return answer, ended

    async def close(self) -> None:
        """End the supervisor and the attempts that still run."""
        self._users -= 1
        if self._users <= 0 and self._place is not None:
            place, self._place, self._users, self._lost = self._place, None, 0, 0
            self._suspects.clear()
            self._most_mb = self._with(place.most_mb)
            await place.close()
            await self._threads.close()

    async def _present(self) -> SupervisorClient | Interpreters:
        assert self._place is not None, "open() comes first"
        lost = self._place
        if lost.is_lost:
            self._most_mb = self._with(lost.most_mb)
            self._place = self._start()
            await lost.close()
        return self._place

    def _start(self) -> SupervisorClient | Interpreters:
        if self.method == "fork":
            from ipybatch.backends.process.supervisor_client import SupervisorClient

            return SupervisorClient(self.preload)
        return Interpreters(self.preload)


def processors() -> int:
    """Return how many processors this process may use."""
    count = getattr(os, "sched_getaffinity", None)
    return len(count(0)) if count is not None else os.cpu_count() or 1


def encode_call(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Parts:
    """Pickle a call for another process.

    Raises:
        Permanent: The call cannot be sent from one process to another.
        MissingExtra: cloudpickle is not installed.
    """
    if any(isinstance(argument, Attempt) for argument in arguments):
        msg = "work in a process of its own must take the item alone: attempt cannot be used there, nor its permits"
        raise Permanent(msg)
    try:
        return protocol.encode((work, arguments))
    except MissingExtra:
        raise
    except Exception as error:
        msg = f"the work cannot be sent to a process of its own: {type(error).__name__}: {error}"
        raise Permanent(msg) from error


def _name_of(parts: Parts) -> bytes:
    digest = hashlib.blake2b()
    for part in parts:
        digest.update(part)
    return digest.digest()


async def result_of(answer: Answer, ended: Ended, timeout_s: float | None, threads: Threads) -> Any:
    """Return the result in an answer, decoded in a thread.

    Raises:
        Exception: The error in the answer; without an answer, `Overrun`, `OutOfMemory` or `Killed`.
        Permanent: The result cannot be read in this process, or not in time.
    """
    if answer is None:
        raise error_of(ended, timeout_s)
    # It has been read once where it was made, within the limits. It may be slower here; then its thread is left behind.
    bound_s = max(timeout_s or _READ_UNTIMED_S, _READ_S) + sum(map(len, answer)) / protocol.READ_BYTES_PER_S
    try:
        async with asyncio.timeout(bound_s) as bound:
            result, error = await threads.run(decode_answer, (answer,))
    except (StillRunning, TimeoutError):  # the latter from Python 3.13 on; reading raises none of its own
        if not bound.expired():
            raise
        msg = f"the result cannot be read in this process within {bound_s:.0f} s, though it was where it was made"
        raise Permanent(msg) from None
    if error is not None:
        raise error
    return result


def decode_answer(answer: list[bytearray]) -> tuple[Any, Exception | None]:
    """Return the result and the error in an answer, one of them None.

    Raises:
        Permanent: The result cannot be read in this process.
    """
    try:
        result, error = protocol.decode(answer)
    except Exception as raised:
        msg = f"the result cannot be read in this process: {type(raised).__name__}: {raised}"
        raise Permanent(msg) from raised
    return result, error


class Interpreters:
    """Run each attempt in a new interpreter, a child of the kernel (macOS, Windows).

    An attempt ends itself when the kernel's line ends, unless C code of its own holds the interpreter.

    Raises:
        MissingExtra: psutil is not installed.
    """

    is_lost = False
    most_mb: float | None = None

    def __init__(self, preload: Sequence[str]) -> None:
        try:
            importlib.import_module("psutil")
        except ImportError:
            raise MissingExtra("forecast") from None
        self._preload = preload
        self._threads = Threads()

    async def run(self, parts: Parts, *, timeout_s: float | None, memory_mb: float | None) -> tuple[Answer, Ended]:
        """Run one attempt; return once its process has ended, also after a cancel."""
        attempt = _InterpreterProcess(self._preload, timeout_s, memory_mb)
        talk = asyncio.ensure_future(self._threads.run(attempt.talk, (parts,)))
        cancelled: asyncio.CancelledError | None = None
        while not talk.done():
            try:
                await asyncio.wait({talk}, timeout=_TICK_S)
            except asyncio.CancelledError as error:
                cancelled = error
                attempt.kill("cancel")
            if not attempt.watch(time.monotonic()):
                talk.cancel()  # its thread waits for a line that some other process holds
            if attempt.most_mb:
                self.most_mb = max(self.most_mb or 0.0, attempt.most_mb)
        ended = await self._threads.run(attempt.end, ())
        if cancelled is not None:
            raise cancelled
        if talk.cancelled():
            return None, ended
        return talk.result(), ended

    async def close(self) -> None:
        """End the idle threads."""
        await self._threads.close()


_left: list[subprocess.Popen[bytes]] = []  # killed, and there all the same: reaped when another ends


class _InterpreterProcess:
    def __init__(self, preload: Sequence[str], timeout_s: float | None, memory_mb: float | None) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-u", "-c", _PROGRAM, json.dumps(sys.path), *preload],
            env={**os.environ, **protocol.ONE_THREAD},
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._timeout_s, self._memory_mb = timeout_s, memory_mb
        # Until its work begins it starts, imports, and reads its call, which may do anything.
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s + _CARRY_S
        self._base_mb: float | None = None
        self._gone_s: float | None = None
        self._killed_s: float | None = None
        self.most_mb = 0.0
        self._cause = ""
        self._killed: set[Any] = set()

    def talk(self, parts: Parts) -> Answer:
        """Send the call and return the answer."""
        line, answers = self._process.stdin, self._process.stdout
        assert line is not None
        assert answers is not None
        stream: Any = answers  # a raw file: bufsize is 0
        token = secrets.token_bytes(protocol.TOKEN_SIZE)
        try:
            protocol.send(line, [token, *parts])  # type: ignore[arg-type]  # a raw file too
            protocol.find(stream, token)
            word = protocol.read(stream, 1)
            if word == protocol.READY:
                self._base_mb = _taken_mb(self._process.pid)
                if self._timeout_s is not None:
                    self._deadline_s = time.monotonic() + self._timeout_s
                protocol.find(stream, token)
                protocol.read(stream, 1)
            if self._deadline_s is not None:
                self._deadline_s = time.monotonic() + _CARRY_S
            return protocol.receive_answer(stream, token)
        except (OSError, EOFError):
            return None
        except protocol.GarbledError:
            self._cause = self._cause or "garbled"
            return None

    def watch(self, now_s: float) -> bool:
        """Kill the process once it exceeds its time or its memory; return False where its answer will not come."""
        deadline_s = self._deadline_s
        if deadline_s is not None and now_s >= deadline_s:
            self.kill("timeout")
        elif self._memory_mb is not None:
            self.most_mb = max(self.most_mb, own_mb := self._own_mb())
            if own_mb > self._memory_mb:
                self.kill("memory")
        if self._process.poll() is None:
            return self._killed_s is None or now_s < self._killed_s + _HANGS_S
        self._gone_s = self._gone_s or now_s
        return now_s < self._gone_s + _END_S

    def _own_mb(self) -> float:
        if self._base_mb is None or self._memory_mb is None:
            return 0.0
        own_mb = _taken_mb(self._process.pid) - self._base_mb
        return own_mb if own_mb <= self._memory_mb else _taken_mb(self._process.pid, is_exact=True) - self._base_mb

    def kill(self, cause: str) -> None:
        """Kill the process and all that it started; the first cause counts."""
        self._cause = self._cause or cause
        self._killed_s = self._killed_s or time.monotonic()
        # The attempt first: one whose helper is killed must not live to take that for an answer.
        processes = _with_descendants(self._process.pid)
        self._killed.update(processes)
        for process in processes:
            with contextlib.suppress(Exception):  # it ended by itself meanwhile
                process.kill()
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # those whose parents have ended
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> Ended:
        """End the process and all that it started; return how it ended."""
        self.kill("")
        for line in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert line is not None
                line.close()
        deadline_s = (self._killed_s or 0.0) + _HANGS_S  # the system takes a moment to free what a process held
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        while any(map(_is_running, self._killed)) and time.monotonic() < deadline_s:
            time.sleep(0.001)
        _left[:] = [one for one in (*_left, self._process) if one.poll() is None]
        left = sum(map(_is_running, self._killed))  # they hang in the system, and are left alone
        return Ended(0, self._process.returncode or 0, self._cause, left=left)


def _with_descendants(pid: int) -> list[Any]:
    psutil: Any = importlib.import_module("psutil")  # its types are not among ours
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _is_running(process: Any) -> bool:
    psutil: Any = importlib.import_module("psutil")
    with contextlib.suppress(psutil.Error):
        return bool(process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) and process.is_running())
    return False


def _taken_mb(pid: int, *, is_exact: bool = False) -> float:
    """Return the memory of a process and those below it, megabytes; exact: what they share counts once at most."""
    taken = 0.0
    for process in _with_descendants(pid):
        with contextlib.suppress(Exception):  # it ended meanwhile, or is another user's
            if is_exact:
                full = process.memory_full_info()
                taken += getattr(full, "pss", full.uss) / 2**20
            else:
                taken += process.memory_info().rss / 2**20
    return taken
