"""Protocol: what a driver and a worker of Dask say to each other, and the errors of an attempt whose worker is lost.

    driver -- push: Define, Forget, Run, Cancel, Granted, Denied --------------> worker
    driver <- pull: Ended, GoesOn, Ask, Release, Withdraw, Join, Heed, Stand, GiveUp, Billed -- worker

Both are requests of the driver, through the scheduler; a worker need not be reachable from the driver.  They are
numbered: one that is made again, because its reply was lost, changes nothing.  So an attempt starts once at most.

A batch is messages (msgpack) and the frames that they refer to, in their order: pickles.
"""

from __future__ import annotations

import hashlib
import importlib
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from ipybatch.backends.process import protocol
from ipybatch.backends.process.protocol import Ended as ProcessEnd
from ipybatch.backends.process.protocol import Killed, Lost
from ipybatch.engine.rules.classify import Judged, Verdict
from ipybatch.engine.rules.classify import Kind as VerdictKind

OPERATION = "ipybatch"  # of a worker's server
LEASE_S = 10.0  # a worker that hears nothing from a driver for so long ends that driver's attempts
GATHER_S = 0.005  # a request costs the driver more than what it brings: so long is waited for more of that
HOLD_S = 2.0  # longest time for which a pull waits for something to answer

Kind = Literal["coroutine", "thread", "process"]  # how work runs on a worker
Frame = bytes | bytearray | memoryview
Frames = Sequence[Frame]
_LARGE = 2**16  # bytes: such a frame is not copied into the batch


class Handed(msgspec.Struct, frozen=True, array_like=True):
    """The attempt that the work is handed.

    Attributes:
        place: Of it among the arguments.
    """

    place: int
    key: str
    number: int


class Define(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A work function, in one frame; attempts name it."""

    work: int
    kind: Kind


class Forget(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """No further attempt names this work."""

    work: int


class Run(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Run an attempt; its frames hold the arguments, or the whole call where it is for a process.

    Attributes:
        work: Name of its function; 0 for a process.
        handed: None where the work takes its item alone.
        frames: How many.
    """

    number: int
    work: int
    handed: Handed | None
    frames: int


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """End an attempt."""

    number: int


class Granted(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The permit that an attempt asked for."""

    number: int
    ask: int


class Denied(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """There is no such permit; the frames hold the error."""

    number: int
    ask: int
    frames: int


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An attempt has ended; its frames hold result and error, none where there is no answer.

    Attributes:
        end: How its process ended; None where it had none.
        actual: What it really cost, by unit, as the work said.
    """

    number: int
    frames: int
    end: ProcessEnd | None
    actual: dict[str, float]


class GoesOn(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An attempt was cancelled and goes on: a thread, or a coroutine that ignores it. `Ended` follows."""

    number: int


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An attempt waits for a permit of one further request."""

    number: int
    ask: int
    cost: dict[str, float]


class Release(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The response to a further request is there, or nobody waits for its permit any more."""

    number: int
    ask: int


class Join(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An attempt's item belongs to a group."""

    number: int
    group: int


class Heed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What an answer's headers say of the service's limits."""

    number: int
    headers: dict[str, str]


class Stand(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An attempt's clock stands (+1), or goes on (-1)."""

    number: int
    change: int


class GiveUp(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The work stopped waiting by itself."""

    number: int


class Billed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What runs now is paid for, or is not any more."""

    number: int
    is_billed: bool


FromDriver = Define | Forget | Run | Cancel | Granted | Denied
Request = Ask | Release | Join | Heed | Stand | GiveUp | Billed  # what an attempt asks of the engine
FromWorker = Ended | GoesOn | Request

# Both sides must know the same messages, field by field; versions of this package differ in more than these.
_FIELDS = [(kind.__name__, kind.__struct_fields__) for kind in (*get_args(FromDriver), *get_args(FromWorker))]
VERSION = hashlib.blake2b(repr(_FIELDS).encode(), digest_size=8).hexdigest()

_to_worker = msgspec.msgpack.Decoder(tuple[list[FromDriver], list[bytes | None]])
_to_driver = msgspec.msgpack.Decoder(tuple[list[FromWorker], list[bytes | None]])
_encoder = msgspec.msgpack.Encoder()
Batch = tuple[bytes, list[Frame]]


def encode(message: FromWorker) -> msgspec.Raw:
    """Return a message as part of a batch: one that cannot be encoded harms no other.

    Raises:
        UnicodeEncodeError: It holds text that is no valid Unicode.
    """
    return msgspec.Raw(_encoder.encode(message))


def encode_batch(messages: Sequence[FromDriver | msgspec.Raw], frames: Frames) -> Batch:
    """Return messages and their frames in the form in which they travel: a body, and the large frames beside it."""
    small = [one if len(one) <= _LARGE else None for one in frames]
    return _encoder.encode((messages, small)), [one for one in frames if len(one) > _LARGE]


def as_message(batch: Batch) -> dict[str, Any]:
    """Return a batch as part of a message of Dask, which the scheduler passes on unread."""
    distributed: Any = importlib.import_module("distributed.protocol")  # half of its functions have no types
    body, large = batch
    return {
        "body": distributed.to_serialize(body),
        "large": [distributed.to_serialize(memoryview(one)) for one in large],
    }


def read_push(batch: Batch) -> tuple[list[FromDriver], list[Frame]]:
    """Return the messages of a driver, and their frames."""
    messages, small = _to_worker.decode(batch[0])
    return messages, _merged(small, batch[1])


def read_pull(batch: Batch) -> tuple[list[FromWorker], list[Frame]]:
    """Return the messages of a worker, and their frames."""
    messages, small = _to_driver.decode(batch[0])
    return messages, _merged(small, batch[1])


def _merged(small: list[bytes | None], large: list[Frame]) -> list[Frame]:
    beside = iter(large)
    return [next(beside) if one is None else one for one in small]


def pack(value: Any) -> list[bytes | memoryview]:
    """Pickle an object for another machine; plain data at a tenth of the cost of a notebook's definitions.

    Raises:
        MissingExtra: cloudpickle is not installed.
    """
    try:
        body = pickle.dumps(value, protocol=5)
    except Exception:  # what pickle cannot, cloudpickle may
        body = b""
    if body and protocol.is_plain([b"", body]):
        return [body]
    return [one if isinstance(one, bytes) else memoryview(one) for one in protocol.encode(value)[1:]]


def is_small(frames: Frames) -> bool:
    """Return whether reading what `pack` returned takes no time worth a thread: little, and it calls nothing."""
    return len(frames) == 1 and len(frames[0]) <= _LARGE and protocol.is_plain([b"", bytes(frames[0])])


def headers_of(headers: Mapping[Any, Any]) -> dict[str, str]:
    """Return headers as text; bytes that are none, which clients keep as halves of characters, become "?"."""
    return {_text(name): _text(value) for name, value in headers.items()}


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value).encode(errors="replace").decode()


class WorkerLost(Lost):
    """The worker was lost while it ran the attempt, which runs again; it counts only if nothing ran beside it.

    Whether what it had sent was answered is not known: a call may have been billed.
    """

    kind = "worker_lost"
    advice = "its attempts run again on other workers, and count only where nothing ran beside them"


class NoWorker(WorkerLost):
    """The cluster has no worker that takes attempts; the attempt did not begin, and waits for one again."""

    advice = "attempts go on once there is one"


class ClientClosed(Killed, Judged):
    """The client of Dask is closed: the session ends, and what has not ended runs when it goes on."""

    kind = "withheld"

    def __init__(self, message: str = "The Dask client was closed") -> None:
        Exception.__init__(self, message)
        self.counts, self.retry_after_s = False, None
        self.verdict = Verdict(VerdictKind.WITHHELD, is_neutral=True, advice="Give the next start an open client.")
