"""Spooling: requests cut into chunks, and each chunk written to a file, one request at a time.

    prompts --size, estimated--> requests --number and size--> chunks --line by line, in a thread--> file

Every job is a file of lines with keys, small jobs too: answers without keys came back in another order.

Rule: requests are cut into chunks in order and without loss, and every chunk is under every limit.  A request is
encoded when its line is written, and an image is read then; so one request is in memory, whatever the number and size
of the images.

Source: https://ai.google.dev/gemini-api/docs/batch-api (2026-11-22): a file of up to 2 GB, 20 GB for all files.
"""

from __future__ import annotations

import os
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from ipybatch.engine.data.clock import Clock, in_thread
from ipybatch.engine.data.policy import check_count
from ipybatch.errors import InputError, ItemError, Permanent
from ipybatch.gemini.batch.jobs import digest_of
from ipybatch.gemini.images import Image
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.request_config import RequestConfig

FILE_BYTES = 2_000_000_000
CHUNK_BYTES = 500_000_000  # ten jobs then take a quarter of the room for files, and the temporary file fits anywhere
MAX_REQUESTS = 10_000
_AROUND = len('{"key": "9999999999-00000000", "request": {"contents": []}}\n')
_AROUND_TURN = len('{"role":"model","parts":[]},')
_AROUND_PART = len('{"inlineData":{"mimeType":"image/jpeg","data":""}},')
_ESCAPED = 4  # bytes of a character that is not ASCII, at most
_canonical = msgspec.json.Encoder(order="deterministic").encode


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request of a batch job, not encoded yet.

    Attributes:
        key: Key of the item.
        prompt: The item.
        request_config: Settings of all requests.
        size: Estimated size of its line, bytes.
    """

    key: str
    prompt: Prompt
    request_config: RequestConfig
    size: int

    @classmethod
    def of(cls, key: str, prompt: Prompt, request_config: RequestConfig) -> BatchRequest:
        """Return a prompt's request; its images are not read."""
        turns = prompt.all_turns()
        size = _AROUND + _AROUND_TURN * len(turns) + request_config.fixed_size(prompt.system, prompt.config)
        size += sum([_AROUND_PART + _length(part) for turn in turns for part in turn.parts])
        return cls(key=key, prompt=prompt, request_config=request_config, size=size)

    def line(self, place: int) -> bytes:
        """Return its line in a job's file.

        Raises:
            Permanent: An image is gone or was changed.
        """
        body = self.prompt.body(self.request_config)
        return b'{"key": "%b", "request": %b}\n' % (wire_key(place, self.key).encode(), body)

    def sent(self) -> bytes:
        """Return what identifies it: its key and all that is sent, images by their hash."""
        return _canonical((self.key, self.request_config.settings(), self.prompt._ipybatch_sent_))


def _length(value: Any) -> int:
    """Return the estimated size of a value in a request, bytes."""
    if isinstance(value, str):
        return len(value) if value.isascii() else _ESCAPED * len(value)
    if isinstance(value, Image):
        return value.size * 4 // 3 + 4
    if isinstance(value, Mapping):
        return sum(_length(name) + _length(each) + len('"": "", ') for name, each in value.items())
    if isinstance(value, list | tuple):
        return sum(_length(each) + 1 for each in value)
    return len(repr(value))


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one job.

    Attributes:
        requests: The requests, in order.
        size: Estimated size of the file, bytes.
    """

    requests: tuple[BatchRequest, ...]
    size: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The items' keys, in order."""
        return tuple([request.key for request in self.requests])


class Spooled(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that is written to a file.

    Attributes:
        path: The file.
        keys: The items in it, in order.
        failed: The items that are not in it, and why.
        digest: Hash of its requests.
        labels: Operation and project of each item; one pair for all where they are the same.
    """

    path: Path
    keys: tuple[str, ...]
    failed: Mapping[str, ItemError]
    digest: str
    labels: tuple[tuple[str, str], ...]


def wire_key(place: int, key: str) -> str:
    """Return the key that is sent: short, ASCII, and with a checksum against mix-ups."""
    return f"{place}-{zlib.crc32(key.encode()):08x}"


def chunks(
    requests: Iterable[BatchRequest], *, max_requests: int = MAX_REQUESTS, max_bytes: int = CHUNK_BYTES
) -> Iterator[Chunk]:
    """Cut requests into chunks.

    Args:
        requests: The requests, in order.
        max_requests: Most requests in a chunk.
        max_bytes: Largest size of a chunk, bytes, up to 2 GB.

    Raises:
        InputError: A limit is out of range, or one request alone is too large.
    """
    max_requests = check_count("max_requests", max_requests, low=1)
    limit = min(check_count("max_bytes", max_bytes, low=1), FILE_BYTES)
    held: list[BatchRequest] = []
    size = 0
    for request in requests:
        check_size(request, limit)
        if held and (len(held) == max_requests or size + request.size > limit):
            yield Chunk(requests=tuple(held), size=size)
            held, size = [], 0
        held.append(request)
        size += request.size
    if held:
        yield Chunk(requests=tuple(held), size=size)


def check_size(request: BatchRequest, limit: int = CHUNK_BYTES) -> None:
    """Check that a request fits into a chunk.

    Raises:
        InputError: It does not.
    """
    if request.size > limit:
        msg = f"the request of {request.key} must be <= {limit} bytes, got {request.size}: send smaller images or less"
        raise InputError(f"{msg} text")


@asynccontextmanager
async def spooled(model: str, chunk: Chunk, clock: Clock) -> AsyncIterator[Spooled]:
    """Write a chunk to a temporary file in a thread, and remove the file in the end, also after a cancellation."""
    handle, name = tempfile.mkstemp(prefix="ipybatch-", suffix=".jsonl")
    os.close(handle)
    path, stop = Path(name), threading.Event()
    try:
        yield await in_thread(clock, _write, path, model, chunk, stop)
    finally:
        stop.set()
        await in_thread(clock, _remove, path)  # which takes 0.1 s for 300 MB


def _write(path: Path, model: str, chunk: Chunk, stop: threading.Event) -> Spooled:
    """Write a chunk, up to a stop; an item whose image was changed, or that does not fit any more, is left out."""
    written: list[BatchRequest] = []
    failed: dict[str, ItemError] = {}
    try:
        with path.open("wb") as file:
            for request in chunk.requests:
                if stop.is_set():
                    break
                try:
                    _append(file, request, len(written))
                except ItemError as error:
                    failed[request.key] = error
                else:
                    written.append(request)
    finally:
        if stop.is_set():  # nobody waits for it, and the file may have been made after its removal
            _remove(path)
    labels = [(request.prompt.operation, request.prompt.project) for request in written]
    return Spooled(
        path=path,
        keys=tuple([request.key for request in written]),
        failed=failed,
        digest=digest_of(model, (request.sent() for request in written)),
        labels=tuple(labels if len(set(labels)) > 1 else labels[:1]),
    )


def _append(file: IO[bytes], request: BatchRequest, place: int) -> None:
    line = request.line(place)
    if file.tell() + len(line) > FILE_BYTES:  # the estimate was far off
        msg = f"its request has {len(line):,} bytes, more than fit into a job's file: send smaller images or less text"
        raise Permanent(msg)
    file.write(line)


def _remove(path: Path) -> None:
    with suppress(OSError):  # Windows removes no open file: the thread does it
        path.unlink(missing_ok=True)
