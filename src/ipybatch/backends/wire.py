"""Wire: what the kernel, the supervisor and a child say to each other.

Three lines, all of them private to one process and its children::

    kernel <-- control: Start, Kill / Ended, Failed --> supervisor
    kernel <-- data: one thing each way, pickled -----> child
    supervisor <-- status: READY, then DONE ----------- child

Large arrays travel beside the pickle (protocol 5), so a frame of 100 MB is not
copied to be sent.  What is unpickled comes from a child of ours, never from disk.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from ipybatch.errors import MissingExtra

READY, DONE = b"R", b"D"
OUT_OF_MEMORY_CODE = 86  # of a child that is too short of memory to say so


class Start(msgspec.Struct, tag="start", frozen=True):
    """Start an attempt; its data line comes with the message.

    Attributes:
        timeout_s: From READY, seconds; None for no limit.
        memory_mb: More than the preloaded packages take; None for no limit.
    """

    number: int
    timeout_s: float | None
    memory_mb: float | None


class Kill(msgspec.Struct, tag="kill", frozen=True):
    """End an attempt at once."""

    number: int


class Ended(msgspec.Struct, tag="ended", frozen=True):
    """An attempt is gone, and all that it had started.

    Attributes:
        code: Its exit code; a signal's number with a minus.
        why: What it was killed for: "", "cancel", "timeout" or "memory".
        said: The end of what it printed.
    """

    number: int
    code: int
    why: str = ""
    said: str = ""


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The supervisor itself cannot go on."""

    reason: str


Message = Start | Kill | Ended | Failed
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


class Lines:
    """Messages out of the pieces in which they arrive."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[Message]:
        """Return the messages that ``piece`` completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [_decoder.decode(line) for line in lines]


def line(message: Message) -> bytes:
    """Return a message as it is sent."""
    return msgspec.json.encode(message) + b"\n"


class Stream(Protocol):
    """A raw binary file or socket."""

    def write(self, data: Any, /) -> int | None:
        """Write some of it; return how much."""
        ...

    def readinto(self, room: Any, /) -> int | None:
        """Read some into ``room``; return how much, 0 at the end."""
        ...


Parts = Sequence[bytes | memoryview]


def encode(thing: Any) -> Parts:
    """Pickle by value what only a notebook knows; arrays come as parts of their own.

    Raises:
        MissingExtra: cloudpickle is not installed.
    """
    try:
        import cloudpickle
    except ImportError:
        raise MissingExtra("forecast") from None
    buffers: list[pickle.PickleBuffer] = []
    body: bytes = cloudpickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    sizes = [part.nbytes for part in parts]
    return [struct.pack(f"!{len(sizes) + 1}Q", len(sizes), *sizes), *parts]


def decode(parts: Sequence[Any]) -> Any:
    """Return what `encode` was given."""
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301  # from our own child, or from our own kernel


def send(stream: Stream, parts: Parts) -> None:
    """Write all of it."""
    for part in parts:
        rest = memoryview(part)
        while rest.nbytes:
            rest = rest[stream.write(rest) or 0 :]


def receive(stream: Stream) -> list[bytearray]:
    """Read the parts of one thing.

    Raises:
        EOFError: The other side went away before it was whole.
    """
    (count,) = struct.unpack("!Q", _read(stream, 8))
    sizes = struct.unpack(f"!{count}Q", _read(stream, 8 * count))
    return [_read(stream, size) for size in sizes]


def _read(stream: Stream, size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest.nbytes:
        got = stream.readinto(rest)
        if not got:
            raise EOFError
        rest = rest[got:]
    return data
