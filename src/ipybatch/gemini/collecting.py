"""Collecting: a finished job's results, each to the item that asked.

Rule: by key, then by order, and never by guess.  The order is trusted only
where the count is right and every key that did come back stands in its place.

Results are read twice, first for their keys only, so that nothing but one
result is held beside what the service sent.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.errors import ItemError, Permanent, RateLimited, Transient
from ipybatch.gemini.chunks import wire_key
from ipybatch.gemini.jobs import Job
from ipybatch.gemini.remote import Operation, Remote

Result = tuple[str, "dict[str, Any] | ItemError"]

# google.rpc.Code; Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto (2026-11-22)
_QUOTA = 8
_TRANSIENT = frozenset({1, 2, 4, 10, 13, 14})


class _Line(msgspec.Struct):
    """The key of a line; the rest is skipped."""

    key: Any = None
    metadata: Any = None


_read_line = msgspec.json.Decoder(_Line).decode


async def results(remote: Remote, job: Job) -> AsyncIterator[Result]:
    """Give each item of a succeeded job once, with the body that answers it or its error.

    Items come as the service has them; those it did not answer come last.

    Raises:
        Transient: The results could not be fetched.
        Permanent: The job has none: it failed, or they are gone.
    """
    operation = await remote.get(job.remote)
    if operation.state != "succeeded":
        msg = f"{job.display_name} has no results: {operation.reason or operation.state}"
        raise Permanent(msg)
    file = _file(operation)
    if not file:
        for result in matched(_inlined(operation), job.keys):
            yield result
        return
    with tempfile.TemporaryDirectory(prefix="ipybatch-") as folder:
        path = Path(folder) / "results.jsonl"
        await remote.download(file, path)
        echoes = await asyncio.to_thread(_echoes_of, path)
        for result in _matched(echoes, _lines(path), job.keys):
            yield result


def matched(entries: Sequence[Any], keys: Sequence[str]) -> Iterator[Result]:
    """Give each key once, with the entry that answers it."""
    return _matched([_echo(entry) for entry in entries], entries, keys)


def places(echoes: Sequence[str | None], keys: Sequence[str]) -> list[int | None]:
    """Return which item each entry answers, None for one that cannot be said.

    Args:
        echoes: The key that each entry came back with; None for none.
        keys: The items' keys, in the order sent.
    """
    sent = {wire_key(place, key): place for place, key in enumerate(keys)}
    seen = Counter(echo for echo in echoes if echo is not None)
    found = [sent.get(echo) if echo is not None and seen[echo] == 1 else None for echo in echoes]
    in_order = len(echoes) == len(keys) and all(
        echo is None or place == at for at, (echo, place) in enumerate(zip(echoes, found, strict=True))
    )
    return list(range(len(keys))) if in_order else found


def rpc_error(status: Mapping[str, Any]) -> ItemError:
    """Return our error for the google.rpc.Status of one item."""
    code = status.get("code")
    said = mask(f"{status.get('message') or 'no message'} (code {code})")
    if code == _QUOTA:
        return RateLimited(said)
    return Transient(said) if code in _TRANSIENT or not isinstance(code, int) else Permanent(said)


def _matched(echoes: Sequence[str | None], entries: Iterable[Any], keys: Sequence[str]) -> Iterator[Result]:
    missing = dict.fromkeys(range(len(keys)))
    for place, entry in zip(places(echoes, keys), entries, strict=True):
        if place is not None:
            del missing[place]
            yield keys[place], _body(entry)
    for place in missing:
        yield (
            keys[place],
            Transient(f"no answer can be told to be its own: {len(echoes)} answers to {len(keys)} requests"),
        )


def _body(entry: Any) -> dict[str, Any] | ItemError:
    if not isinstance(entry, dict):
        return Transient("its answer is no whole JSON object")
    if isinstance(entry.get("response"), dict):
        response: dict[str, Any] = entry["response"]
        return response
    status = entry.get("error", entry.get("status"))
    if isinstance(status, dict):
        return rpc_error(status)
    return Transient("its answer holds neither a response nor an error")


def _inlined(operation: Operation) -> list[Any]:
    given = operation.output.get("inlinedResponses")
    if isinstance(given, dict):
        given = given.get("inlinedResponses")
    return given if isinstance(given, list) else []


def _file(operation: Operation) -> str:
    name = operation.output.get("responsesFile") or operation.output.get("fileName")
    return name if isinstance(name, str) else ""


def _echo(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return None
    return _key(entry.get("key"), entry.get("metadata"))


def _key(key: Any, metadata: Any) -> str | None:
    found = metadata.get("key") if key is None and isinstance(metadata, dict) else key
    return found if isinstance(found, str) and found else None


def _echoes_of(path: Path) -> list[str | None]:
    echoes: list[str | None] = []
    for line in _raw_lines(path):
        try:
            read = _read_line(line)
        except msgspec.MsgspecError:
            echoes.append(None)
        else:
            echoes.append(_key(read.key, read.metadata))
    return echoes


def _lines(path: Path) -> Iterator[Any]:
    for line in _raw_lines(path):
        try:
            yield msgspec.json.decode(line)
        except msgspec.MsgspecError:
            yield None


def _raw_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield line
