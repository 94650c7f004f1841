"""Protocol: messages between the session, the supervisor and the process of an attempt, and errors without an answer.

Three lines, each of them private to one process and its children::

    session <-- control: Start, Kill / Ended, Taken, Failed --> supervisor
    session <-- data: one pickle each way -------------> process of the attempt
    supervisor <-- status: READY, then DONE ------------ process of the attempt

Work can write to any line of its process.  So the call brings a token, random
bytes that stand before and after the answer: what stands elsewhere is none.

Large arrays travel beside the pickle (protocol 5), so a frame of 100 MB is not
copied to be sent.  What is unpickled comes from a child of ours.

How an attempt ends without an answer::

    Overrun         it took longer than it may (also a TimeoutError)
    OutOfMemory     it needs more memory than there is, or than it may have
    Killed          its process is gone: a signal, or an exit without an answer
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import signal
import struct
from collections import ChainMap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType
from typing import Any, ClassVar, Protocol

import msgspec

from ipybatch.engine.rules.classify import Judged, Kind, Verdict
from ipybatch.errors import ItemError, MissingExtra, Permanent, Transient

READY, DONE = b"R", b"D"  # its time begins, and ends
SHORT = b"M"  # of memory, to send its answer
TOKEN_SIZE = 16
READ_BYTES_PER_S = 10e6  # of an answer, at least

# Environment of every attempt: one thread for each numeric library, since attempts run side by side; and its mark.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "IPYBATCH_ATTEMPT",
    ),
    "1",
)


class Start(msgspec.Struct, tag="start", frozen=True):
    """Start an attempt; its data socket comes with the message.

    Attributes:
        token: What stands before whatever its process says.
        timeout_s: Time from READY; None for no limit.
        memory_mb: Memory beyond the preloaded modules; None for no limit.
    """

    number: int
    token: bytes
    timeout_s: float | None
    memory_mb: float | None


class Kill(msgspec.Struct, tag="kill", frozen=True):
    """End an attempt at once."""

    number: int


class Ended(msgspec.Struct, tag="ended", frozen=True):
    """An attempt has ended, and all processes that it had started.

    Attributes:
        code: Its exit code; a signal's number with a minus.
        cause: "timeout", "memory", "cancel", "garbled" (the answer was), "lost" (the supervisor has ended), "lost
            again" (with this attempt alone in it), or "" where it is not known.
        printed: The end of what it printed.
        left: How many processes were killed and are there all the same.
    """

    number: int
    code: int
    cause: str = ""
    printed: str = ""
    left: int = 0


class Taken(msgspec.Struct, tag="taken", frozen=True):
    """The most memory that one attempt had taken so far, beyond the preloaded modules."""

    most_mb: float


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The supervisor has to end."""

    reason: str


Message = Start | Kill | Ended | Taken | Failed
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


class MessageReader:
    """Decode messages from the pieces in which they arrive."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[Message]:
        """Return the messages that ``piece`` completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [_decoder.decode(line) for line in lines]


def encode_message(message: Message) -> bytes:
    """Return a message as one line of JSON."""
    return msgspec.json.encode(message) + b"\n"


class Stream(Protocol):
    """A raw binary file or socket."""

    def write(self, data: Any, /) -> int | None:
        """Write part of ``data``; return how many bytes."""

    def readinto(self, room: Any, /) -> int | None:
        """Read into ``room``; return how many bytes, 0 at the end."""

    def fileno(self) -> int:
        """Return its descriptor."""


Parts = Sequence[bytes | memoryview]
Answer = list[bytearray] | None  # the parts that `encode` made; None when the process ended without an answer


def encode(value: Any) -> Parts:
    """Pickle an object, definitions of a notebook by value; large arrays become parts of their own.

    Raises:
        MissingExtra: cloudpickle is not installed.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = dumps(value, buffers.append)
    parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    sizes = [part.nbytes for part in parts]
    return [struct.pack(f"!{len(sizes) + 1}Q", len(sizes), *sizes), *parts]


def dumps(value: Any, buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None) -> bytes:
    """Pickle an object, definitions of a notebook by value.

    Raises:
        MissingExtra: cloudpickle is not installed.
    """
    file = io.BytesIO()
    _pickler()(file, protocol=5, buffer_callback=buffer_callback).dump(value)
    return file.getvalue()


@functools.cache
def _pickler() -> Any:
    """Return cloudpickle's class, so changed that code keeps its file: from 3.1.3 on it is sent without.

    Tracebacks would name ``<dynamic-code>`` instead of a cell. Source: https://github.com/cloudpipe/cloudpickle/pull/560
    """
    try:
        import cloudpickle
    except ImportError:
        raise MissingExtra("forecast") from None
    ways = cloudpickle.Pickler.dispatch_table

    def reduce_code(code: CodeType) -> tuple[Any, ...]:
        make, arguments = ways[CodeType](code)
        return _code_in_file, (code.co_filename, make, arguments)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # without types
        dispatch_table: ClassVar = ChainMap({CodeType: reduce_code}, ways)

    return Pickler


def _code_in_file(filename: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    return make(*arguments).replace(co_filename=filename)


def decode(parts: Sequence[Any]) -> Any:
    """Unpickle what `encode` returned, without its first part, the sizes."""
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301  # from our own child, or from our own kernel


class ByParts:
    """Pickle an error by class, arguments and attributes: for classes that cannot be called with what they keep.

    Attributes that cannot be pickled are left out.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        kept = {}
        for name, value in vars(self._error).items():
            with contextlib.suppress(Exception):
                decode([bytes(part) for part in encode(value)[1:]])
                kept[name] = value
        return _from_parts, (type(self._error), self._error.args, kept)


def _from_parts(kind: type[Exception], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(attributes)
    return error


# What may be imported and called when a pickle is read: STACK_GLOBAL, and the three of copyreg's registry.
_CALLS = (b"\x93", b"\x82", b"\x83", b"\x84")


def is_plain(parts: Parts) -> bool:
    """Return whether reading what `encode` returned calls nothing; False where it is not certain."""
    body: Any = parts[1].obj if isinstance(parts[1], memoryview) else parts[1]
    return not any(call in body for call in _CALLS)  # a search of bytes, far faster than one by a pattern


def send(stream: Stream, parts: Parts) -> None:
    """Write all parts."""
    for part in parts:
        rest = memoryview(part)
        while rest.nbytes:
            rest = rest[stream.write(rest) or 0 :]


def send_answer(stream: Stream, token: bytes, parts: Parts) -> None:
    """Write an answer between two tokens."""
    send(stream, [token + parts[0], *parts[1:], token])


def receive(stream: Stream) -> list[bytearray]:
    """Read the parts of one object, the sizes left out.

    Raises:
        EOFError: The other side closed the stream too early.
    """
    (count,) = struct.unpack("!Q", read(stream, 8))
    sizes = struct.unpack(f"!{count}Q", read(stream, 8 * count))
    return [read(stream, size) for size in sizes]


def receive_answer(stream: Stream, token: bytes) -> list[bytearray]:
    """Read the answer behind the first token, whatever stands before it.

    Raises:
        EOFError: The other side closed the stream too early.
        GarbledError: Something else was written into the answer.
    """
    find(stream, token)
    parts = receive(stream)
    if read(stream, len(token)) != token:
        raise GarbledError
    return parts


def find(stream: Stream, token: bytes) -> None:
    """Read up to the end of a token.

    Raises:
        EOFError: The other side closed the stream too early.
    """
    seen = bytes(read(stream, len(token)))
    while seen != token:
        fits = next(size for size in range(len(token) - 1, -1, -1) if token.startswith(seen[len(seen) - size :]))
        seen = seen[len(seen) - fits :] + bytes(read(stream, len(token) - fits))


def read(stream: Stream, size: int) -> bytearray:
    """Read so many bytes.

    Raises:
        EOFError: The other side closed the stream too early.
    """
    data = bytearray(size)
    rest = memoryview(data)
    while rest.nbytes:
        got = stream.readinto(rest)
        if not got:
            raise EOFError
        rest = rest[got:]
    return data


class GarbledError(Exception):
    """An answer has something in it that does not belong to it."""


def answer_file(folder: str, token: bytes) -> Path:
    """Return where an answer is left that cannot be sent, because the work has closed the line."""
    return Path(folder, f"ipybatch-answer-{token.hex()}")


class Overrun(ItemError, TimeoutError):
    """The attempt took longer than ``timeout_s``."""

    kind = "timeout"


class OutOfMemory(Permanent):
    """The attempt needs more memory than ``memory_mb``, or than the machine has."""

    kind = "out_of_memory"

    def __init__(self, message: str = "Out of memory") -> None:
        super().__init__(message)


class Killed(Transient):
    """The process of the attempt ended without an answer; the circuit breaker does not count it.

    Its ``kind`` is "killed"; "crashed" by a fault of its own; or "exited" where the work has ended it.
    """

    kind = "killed"

    def __init__(self, message: str) -> None:
        super().__init__(message, counts=False)


class Lost(Killed, Judged):
    """The supervisor ended while the attempt ran: the attempt is not counted, and runs again."""

    advice = "what it ran starts again, one at a time in a supervisor of its own, and the lost attempts are not counted"

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)
        self.counts, self.retry_after_s = False, None
        self.verdict = Verdict(Kind.TRANSIENT, is_neutral=True, advice=self.advice, whose="us")


# Signals by which a process ends itself, or the system ends it for what it did.
_FAULTS = {signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, getattr(signal, "SIGBUS", None)}


def error_of(ended: Ended, timeout_s: float | None) -> Exception:
    """Return the error of an attempt that ended without an answer."""
    left = f"; {ended.left} of its processes cannot be ended, and were left" if ended.left else ""
    error: Exception
    match ended.cause:
        case "timeout":
            return Overrun(f"Exceeded {timeout_s:g}s{left}")
        case "lost":
            return Lost(f"The supervisor of the processes has ended: {ended.printed}")
        case "lost again":
            return Killed(f"The supervisor of the processes has ended again, with this alone in it: {ended.printed}")
        case "memory":
            error = OutOfMemory(f"Out of memory{left}")
        case "garbled":
            error = Killed("The answer cannot be read: the work, or a process that it started, wrote into its line")
        case _ if ended.code < 0:
            error = Killed(f"Killed by {signal_name(-ended.code)}{left}")
            if -ended.code in _FAULTS:
                error.kind = "crashed"
        case _:
            error = Killed(f"Ended without an answer, exit code {ended.code}{left}")
            error.kind = "exited"
    if ended.printed:
        error.add_note(f"Last output:\n{ended.printed}")
    return error


def signal_name(number: int) -> str:
    """Return a signal's name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
