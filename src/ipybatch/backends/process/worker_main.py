"""The process of one attempt.

It reads (function, arguments), sends READY, calls the function, sends DONE,
writes the answer and exits.  An error of the work is an answer too; only a
process that is killed, or that the work itself ends, gives none.

What work may do to its process, and what comes of it:

====================================================  ===========================================================
a fork of its own that returns, raises or exits       the copy ends, and says nothing: only this process answers
this process exits, or is killed, whatever forks do   no answer, told with code or signal; what it started is killed
threads, daemons, other sessions, an inherited line   killed with the attempt, whether or not it gave an answer
closes all descriptors                                the answer goes through a file
writes to descriptors that are not its own            skipped, if before the answer; told, if within it
prints megabytes                                      dropped but for the end
a result that is slow or large to read                read here once: its time and memory count; too slow is refused
====================================================  ===========================================================

The soft RLIMIT_DATA makes an allocation fail where it is asked for, in numpy,
in C++ and in Python alike, so that the error can be sent; RLIMIT_AS would hang
native code.  The limit is lifted before the error is handled, which needs memory too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import importlib
import inspect
import io
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ipybatch.backends.process import protocol
from ipybatch.backends.process.protocol import OutOfMemory
from ipybatch.engine.data.policy import Retry
from ipybatch.engine.data.user_frames import REMOTE
from ipybatch.engine.rules.classify import Judged, Kind, Verdict, classify, culprit
from ipybatch.errors import Held, ItemError, Permanent, RateLimited, Refused, Transient, Withheld

_HEADROOM_MB = 300  # below that the packages themselves fail to load, with misleading errors
_READ_S = 5.0  # of a processor, beside what its size needs: reading may stop all threads of the kernel
_OURS: dict[Kind, type[Exception]] = {
    Kind.TRANSIENT: Transient,
    Kind.TIMEOUT: TimeoutError,
    Kind.RATE_LIMITED: RateLimited,
    Kind.PERMANENT: Permanent,
    Kind.REFUSED: Refused,
    Kind.WITHHELD: Withheld,
    Kind.HELD: Held,
}


def answer(data: protocol.Stream, report: Callable[[bytes], object], memory_mb: float | None) -> None:
    """Read a call from ``data``, run it and write its answer there; ``report`` takes READY and DONE behind the token.

    In a copy of this process that the work made, this does not return.
    """
    line = _AnswerLine(data)
    try:
        _limit(memory_mb)
        line.token = bytes(protocol.read(data, protocol.TOKEN_SIZE))
        report = functools.partial(_say, report, line.token)
        parts = _run(protocol.receive(data), report, line)
    except BaseException as error:  # the answer to the kernel, whatever it is
        line.end_copy(error)
        _lift()
        parts = encode_error(error)
    report(protocol.DONE)
    line.send(parts)


def _say(report: Callable[[bytes], object], token: bytes, word: bytes) -> None:
    report(token + word)


class _AnswerLine:
    """Where the answer goes, if this is the process that is to give it."""

    def __init__(self, stream: protocol.Stream) -> None:
        self._stream, self._pid = stream, os.getpid()
        self._folder = tempfile.gettempdir()
        self._file = _identity(stream.fileno())
        self.token = b""

    def end_copy(self, error: BaseException | None = None) -> None:
        """End a copy of the process: a helper that the work forked, and that came back from there."""
        if os.getpid() == self._pid:
            return
        code = 0
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            code = 1
            with contextlib.suppress(Exception):
                traceback.print_exception(error)
        os._exit(code & 0xFF)

    def send(self, parts: protocol.Parts) -> None:
        """Send the answer, through a file where the work has closed the line."""
        if _identity(self._stream.fileno()) == self._file:
            protocol.send_answer(self._stream, self.token, parts)
            return
        path = protocol.answer_file(self._folder, self.token)
        part = path.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
            protocol.send_answer(file, self.token, parts)
        part.rename(path)


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _run(received: list[bytearray], report: Callable[[bytes], object], line: _AnswerLine) -> protocol.Parts:
    try:
        work, arguments = protocol.decode(received)
    except Exception as error:
        if _is_memory(error):
            raise
        msg = f"the work cannot be read in a process of its own: {type(error).__name__}: {error}"
        raise Permanent(msg) from error
    del received
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()  # else forked children would all draw the same numbers
    report(protocol.READY)
    result = work(*arguments)
    if inspect.isawaitable(result):
        result = asyncio.run(_finish(result))
    line.end_copy()
    try:
        parts = protocol.encode((result, None))
    except Exception as error:
        if _is_memory(error):
            raise
        msg = f"the result cannot be sent back: {type(error).__name__}: {error}"
        raise Permanent(msg) from error
    del result
    if not protocol.is_plain(parts):
        _prove(parts)
    return parts


def _prove(parts: protocol.Parts) -> None:
    """Read a result here, where it has a limit on its time and memory: the kernel, which reads it next, has none."""
    try:
        _read_back(parts)
    except _SlowToReadError as error:
        raise Permanent(str(error)) from None
    except Exception as error:
        if _is_memory(error):
            error.add_note("while its result was read back")
            raise
        msg = f"the result cannot be read back: {type(error).__name__}: {error}"
        raise Permanent(msg) from error


class _SlowToReadError(Exception):
    """Reading a result holds the kernel up for too long."""


def _read_back(parts: protocol.Parts) -> Any:
    begun_s = time.thread_time()
    made = protocol.decode(parts[1:])
    took_s, size = time.thread_time() - begun_s, sum(memoryview(part).nbytes for part in parts)
    if took_s > _READ_S + size / protocol.READ_BYTES_PER_S:
        msg = f"the result takes {took_s:.1f} s of a processor to be read back, which would hold everything else up"
        raise _SlowToReadError(f"{msg}: return plain data, or write it to a file and return its path")
    return made


async def _finish(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def encode_error(error: BaseException) -> protocol.Parts:
    """Pickle an error of the work with its traceback as a note; one that cannot travel as one that means the same."""
    error = _told(error)
    sent = OutOfMemory() if _is_memory(error) else _plain(error)
    if sent is not error:
        sent.add_note("".join(traceback.format_exception_only(error)).strip())
    sent.add_note(REMOTE + "".join(traceback.format_tb(error.__traceback__)).rstrip())
    now_s = time.time()
    verdict = classify(sent, Retry(), now_s)
    for form in (sent, protocol.ByParts(sent)):
        with contextlib.suppress(Exception):  # cannot be pickled, or not be made again from what it keeps
            parts = protocol.encode((None, form))
            _, copy = _read_back(parts)
            if (str(copy), classify(copy, Retry(), now_s)) == (str(sent), verdict):
                return parts
    return protocol.encode((None, _likeness(sent, verdict)))


def _told(error: BaseException) -> BaseException:
    """Return an error that has a text, since whoever reads it asks for that."""
    try:
        str(error)
    except Exception as raised:
        told = RuntimeError(
            f"the work raised {type(error).__name__}, whose text cannot be read: {type(raised).__name__}"
        )
        return told.with_traceback(error.__traceback__)
    return error


def _plain(error: BaseException) -> Exception:
    """Return an error that a coroutine can raise: some mean something else there, or would end the kernel."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    return RuntimeError(f"the work raised {type(error).__name__}: {error}")


def _likeness(error: Exception, verdict: Verdict) -> Exception:
    """Return an error of ours that means the same to the engine."""
    told = culprit(error)
    text = f"{type(told).__name__}: {told}"
    said = {"kind": told.kind, "advice": told.advice} if isinstance(told, ItemError) else {}
    likeness = _OURS.get(verdict.kind, Permanent)(text)
    likeness.__dict__.update(retry_after_s=verdict.retry_after_s, counts=not verdict.is_neutral, **said)
    likeness.__dict__.update(status=verdict.status, is_own=verdict.is_own)
    if classify(likeness, Retry(), 0.0) != verdict:  # it means more than one of them can say
        likeness = Judged(text, verdict)
        likeness.__dict__.update(said)
    for note in error.__notes__:
        likeness.add_note(note)
    return likeness


def _is_memory(error: BaseException) -> bool:
    """Return whether an error is a lack of memory: by its type, or by its text where the process took much.

    Errors of numpy and Arrow are MemoryErrors. The C interfaces of some packages keep nothing of C++'s error but its
    text, which is all of theirs.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if not isinstance(error, Exception) or str(error).strip() != "std::bad_alloc":
        return False
    return type(error).__module__.partition(".")[0] in _TELL_BY_TEXT or _took_much()


_TELL_BY_TEXT = ("lightgbm", "xgboost", "catboost")
_MUCH = 0.5  # of the memory that it may take: what it asked for last, and did not get, is not known
_begun = (0.0, 0.0)  # the address space of this process before its work, and what it may take, megabytes


def _took_much() -> bool:
    """Return whether this process ever had much of the memory that it may take; False where that is not known."""
    if sys.platform != "linux" or not _begun[0]:
        return False
    from ipybatch.backends.process import tree_memory

    _, most_mb = tree_memory.address_mb(os.getpid())
    return most_mb - _begun[0] >= _MUCH * (_begun[1] or tree_memory.machine_mb())


def _limit(memory_mb: float | None) -> None:
    global _begun  # a process has one attempt
    if sys.platform != "linux":
        return
    from ipybatch.backends.process import tree_memory

    _begun = tree_memory.address_mb(os.getpid())[0], memory_mb or 0.0
    if memory_mb is None:
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = int((tree_memory.data_mb(os.getpid()) + max(memory_mb, _HEADROOM_MB)) * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard < 0 else min(soft, hard), hard))


def _lift() -> None:
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


class _StandardStreams:
    """Standard input and output as one stream; what the work prints is dropped."""

    def __init__(self) -> None:
        self._reads = io.FileIO(os.dup(0), "rb")
        self._writes = io.FileIO(os.dup(1), "wb")
        self.readinto, self.write, self.fileno = self._reads.readinto, self._writes.write, self._writes.fileno
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)

    def report(self, word: bytes) -> None:
        """Send READY or DONE; from READY on, this process ends when the kernel closes the line."""
        self.write(word)
        if word.endswith(protocol.READY):
            threading.Thread(target=self.end_with_line, daemon=True).start()

    def end_with_line(self) -> None:
        """End once the kernel has, with all processes that this one started."""
        self._reads.read(1)
        if sys.platform != "win32":
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


def main(preload: Sequence[str]) -> None:
    """Answer over standard input and output, where there is no supervisor, then wait to be killed."""
    streams = _StandardStreams()
    for name in preload:
        with contextlib.suppress(ImportError):  # an attempt that needs it raises the error itself
            importlib.import_module(name)
    answer(streams, streams.report, None)
    # The processes that the work started are found below this one: it has to end last.
    streams.end_with_line()
