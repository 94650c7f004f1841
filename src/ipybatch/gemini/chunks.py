"""Chunks: requests cut into jobs that the service takes.

Rule: nothing is lost, order is kept, and every chunk is under every limit.
A chunk is cut when the next request would not fit, so only one is in memory.

Source: https://ai.google.dev/gemini-api/docs/batch-api (2026-11-22): inline
below 20 MB for the whole body, a file up to 2 GB.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ipybatch.engine.data.policy import check_count
from ipybatch.errors import InputError

INLINE_BYTES = 19_000_000  # of 20 MB: the rest is for what stands around the requests
FILE_BYTES = 2_000_000_000
CHUNK_BYTES = 100_000_000  # held in memory while it is sent
MAX_REQUESTS = 10_000

_encode = json.JSONEncoder(separators=(", ", ": "), allow_nan=False).encode


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, encoded.

    Attributes:
        key: The item's.
        body: The request as JSON, as the client will write it.
        images: Whether images go in or come out.
    """

    key: str
    body: bytes
    images: bool = False

    @classmethod
    def of(cls, key: str, wire: Mapping[str, Any], *, images: bool = False) -> Request:
        """Encode the service's JSON of a request, as `Prompt.wire` gives it."""
        return cls(key=key, body=_encode(wire).encode(), images=images)


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into one job.

    Attributes:
        requests: In order.
        inline: Whether it fits into the body; else it goes as a file.
        size: Bytes of what is sent.
    """

    requests: tuple[Request, ...]
    inline: bool
    size: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The items' keys, in order."""
        return tuple(request.key for request in self.requests)

    def inlined(self) -> list[dict[str, Any]]:
        """Return its requests as they stand in the body of a submission."""
        return [
            {"request": msgspec.json.decode(request.body), "metadata": {"key": wire_key(place, request.key)}}
            for place, request in enumerate(self.requests)
        ]

    def lines(self) -> Iterator[bytes]:
        """Give its requests as the lines of a file."""
        for place, request in enumerate(self.requests):
            yield b'{"key": "%b", "request": %b}\n' % (wire_key(place, request.key).encode(), request.body)


def wire_key(place: int, key: str) -> str:
    """Return the key that is sent: short, the same in every encoding, and not that of another item by chance."""
    return f"{place}-{zlib.crc32(key.encode()):08x}"


def chunks(
    requests: Iterable[Request],
    *,
    max_requests: int = MAX_REQUESTS,
    max_bytes: int = CHUNK_BYTES,
    inline_bytes: int = INLINE_BYTES,
) -> Iterator[Chunk]:
    """Cut requests into chunks.

    Args:
        max_requests: In one chunk.
        max_bytes: In one chunk, up to 2 GB.
        inline_bytes: Above it, and with images, a chunk goes as a file.

    Raises:
        InputError: A limit is out of range, or one request alone is too large.
    """
    check_count("max_requests", max_requests, low=1)
    check_count("max_bytes", max_bytes, low=1)
    limit = min(max_bytes, FILE_BYTES)
    held: list[Request] = []
    size = 0
    for request in requests:
        more = _size(request)
        if more > limit:
            msg = f"the request of {request.key} must be <= {limit} bytes, got {more}: send smaller images or less text"
            raise InputError(msg)
        if held and (len(held) == max_requests or size + more > limit):
            yield _chunk(held, size, inline_bytes)
            held, size = [], 0
        held.append(request)
        size += more
    if held:
        yield _chunk(held, size, inline_bytes)


_AROUND = len('{"request": , "metadata": {"key": "9999999999-00000000"}}, ')


def _size(request: Request) -> int:
    return len(request.body) + _AROUND


def _chunk(held: list[Request], size: int, inline_bytes: int) -> Chunk:
    inline = size <= inline_bytes and not any(request.images for request in held)
    return Chunk(requests=tuple(held), inline=inline, size=size)
