"""Collecting: a finished job's results, each to the item that asked.

Rule: by key, then by order, and never by guess.  The order is trusted only
where the count is right and every key that did come back stands in its place.

Results are read twice, first for their keys only, so that nothing but one
result is held beside what the service sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.engine.run.permits import Attempt
from ipybatch.errors import BatchError, ItemError, Permanent, RateLimited, Transient
from ipybatch.gemini.batch.jobs import Job
from ipybatch.gemini.batch.submission import BatchRequest, chunks, wire_key
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.api import Api, Operation
from ipybatch.gemini.service.request_config import RequestConfig

Body = dict[str, Any]
Result = tuple[str, "dict[str, Any] | ItemError"]
# google.rpc.Code; Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto (2026-11-22)
_QUOTA = 8
_TRANSIENT = frozenset({1, 2, 4, 10, 13, 14})


class BatchPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How jobs are made and awaited.

    Attributes:
        max_requests: In one job.
        max_active: Jobs at the same time.
        poll_s: Before the first look at a job; grows.
        wait_s: How long results are awaited; then jobs are left running.
    """

    max_requests: int
    max_active: int
    poll_s: float
    wait_s: float

    def left_running(self, jobs: int) -> str:
        """Return why a session ends when jobs took too long."""
        which = "1 job is" if jobs == 1 else f"{jobs} jobs are"
        return f"{which} still running at Gemini after {self.wait_s:g} s: run it again to pick up the results"


class TooLate(ItemError):
    """Say that the batch did not come back in time: the item goes another way."""


class PendingItem(msgspec.Struct, frozen=True):
    """An item, and who waits for its answer.

    Attributes:
        key: What it is known by in a job.
    """

    key: str
    prompt: Prompt
    attempt: Attempt
    answer: asyncio.Future[Body]

    def request(self, sending: RequestConfig) -> BatchRequest | None:
        """Return what is sent for it; None when it fails, alone: a file is not what it was, or too large."""
        try:
            images = bool(self.prompt.images) or sending.wants_image(self.prompt.config)
            request = BatchRequest.of(self.key, self.prompt.wire(sending), images=images)
            next(chunks([request]))
        except BatchError as error:
            self.fail(error if isinstance(error, ItemError) else Permanent(str(error)))
            return None
        return request

    def succeed(self, body: Body) -> None:
        """Hand it its answer, unless it has one."""
        if not self.answer.done():
            self.answer.set_result(body)

    def fail(self, error: ItemError) -> None:
        """Answer with an error, unless there is an answer; it says nothing of the service as a whole."""
        if not self.answer.done():
            self.answer.set_exception(Transient(str(error), counts=False) if isinstance(error, Transient) else error)


def key_of(model: str, sending: RequestConfig, prompt: Prompt, key: str) -> str:
    """Return what an item is known by in a job: a hash of its key and all that is sent."""
    sent = msgspec.json.encode((model, key, sending.settings(), prompt._ipybatch_sent_), order="deterministic")
    return hashlib.blake2b(sent, digest_size=12).hexdigest()


class _Line(msgspec.Struct):
    """The key of a line; the rest is skipped."""

    key: Any = None
    metadata: Any = None


_read_line = msgspec.json.Decoder(_Line).decode


async def results(remote: Api, job: Job) -> AsyncIterator[Result]:
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
