"""Results of a finished job, each for the item that waits for it.

Rule: a result is matched by key, then by order, and never by a guess.  The order is trusted only if the count is right
and every key received is in its place.

Results are read twice, at first for their keys only, so that one result at a time is in memory.
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
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import InputError, ItemError, Permanent, RateLimited, Transient
from ipybatch.gemini.batch.jobs import Job
from ipybatch.gemini.batch.spool import BatchRequest, check_size, wire_key
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.api import Api
from ipybatch.gemini.service.request_config import RequestConfig

Body = dict[str, Any]
Result = tuple[str, "dict[str, Any] | ItemError"]
# google.rpc.Code; Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto (2026-11-22)
_QUOTA = 8
_TRANSIENT = frozenset({1, 2, 4, 10, 13, 14})


class BatchPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a session's jobs.

    Attributes:
        max_requests: Most requests in a job.
        max_active: Most jobs at the same time.
        poll_s: Time to the first poll of a job, seconds; grows.
        wait_s: Longest wait for results, seconds; then jobs are left running.
    """

    max_requests: int
    max_active: int
    poll_s: float
    wait_s: float

    def left_running(self, jobs: int) -> str:
        """Return the reason why a session ends while jobs are running."""
        which = "1 job is" if jobs == 1 else f"{jobs} jobs are"
        return f"{which} still running at Gemini after {self.wait_s:g} s: run it again to pick up the results"


class TooLate(ItemError):
    """The batch is not back in time: the item takes another lane."""


class PendingItem(msgspec.Struct, frozen=True):
    """An item that waits for its answer.

    Attributes:
        key: Its key in a job.
        prompt: The item.
        attempt: The session's attempt.
        answer: Resolved with the reply or an error.
    """

    key: str
    prompt: Prompt
    attempt: Attempt
    answer: asyncio.Future[Body]

    def request(self, request_config: RequestConfig) -> BatchRequest | None:
        """Return its request; None if it fails alone, since it is too large."""
        request = BatchRequest.of(self.key, self.prompt, request_config)
        try:
            check_size(request)
        except InputError as error:
            self.fail(Permanent(str(error)))
            return None
        return request

    def succeed(self, body: Body) -> None:
        """Resolve it with its reply, unless it is resolved."""
        if not self.answer.done():
            self.answer.set_result(body)

    def fail(self, error: ItemError) -> None:
        """Resolve it with an error, which the breaker does not count, unless it is resolved."""
        if not self.answer.done():
            self.answer.set_exception(Transient(str(error), counts=False) if isinstance(error, Transient) else error)


def key_of(model: str, request_config: RequestConfig, prompt: Prompt, key: str, again: int = 0) -> str:
    """Return an item's key in a job: a hash of its key, of all that is sent, and of how often it was sent again."""
    about: tuple[Any, ...] = model, key, request_config.settings(), prompt._ipybatch_sent_
    sent = msgspec.json.encode((*about, f"again {again}") if again else about, order="deterministic")
    return hashlib.blake2b(sent, digest_size=12).hexdigest()


class _Line(msgspec.Struct):
    """The key of a line; the rest is skipped."""

    key: Any = None
    metadata: Any = None


async def results(api: Api, job: Job) -> AsyncIterator[Result]:
    """Yield each item of a succeeded job once, with its reply or its error.

    The items are in the service's order; those without an answer come last.

    Raises:
        Transient: The results could not be fetched.
        Permanent: The job failed, or its results are gone.
        Refused: The service rejects the key or the account.
    """
    operation = await api.get(job.remote)
    if operation.state != "succeeded":
        msg = f"{job.display_name} has no results: {operation.reason or operation.state}"
        raise Permanent(msg)
    file = operation.output.get("responsesFile") or operation.output.get("fileName")
    if not isinstance(file, str) or not file:
        inlined = operation.output.get("inlinedResponses")
        if isinstance(inlined, dict):
            inlined = inlined.get("inlinedResponses")
        for result in matched(inlined if isinstance(inlined, list) else [], job.keys):
            yield result
        return
    with tempfile.TemporaryDirectory(prefix="ipybatch-") as folder:
        path = Path(folder) / "results.jsonl"
        await api.download(file, path)
        echoes = await asyncio.to_thread(_echoes_of, path)
        for result in _matched(echoes, _lines(path), job.keys):
            yield result


def matched(entries: Sequence[Any], keys: Sequence[str]) -> Iterator[Result]:
    """Yield each key once, with the entry that answers it."""
    echoes = [_key(each.get("key"), each.get("metadata")) if isinstance(each, dict) else None for each in entries]
    return _matched(echoes, entries, keys)


def places(echoes: Sequence[str | None], keys: Sequence[str]) -> list[int | None]:
    """Return the index of the item that each entry answers, or None if that is uncertain.

    Args:
        echoes: The key in each entry; None without one.
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
    """Translate the google.rpc.Status of one item into our error."""
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
    why = f"its answer cannot be identified: {len(echoes)} answers to {len(keys)} requests"
    for place in missing:
        yield keys[place], Transient(why)


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


def _key(key: Any, metadata: Any) -> str | None:
    found = metadata.get("key") if key is None and isinstance(metadata, dict) else key
    return found if isinstance(found, str) and found else None


def _echoes_of(path: Path) -> list[str | None]:
    echoes: list[str | None] = []
    for line in _raw_lines(path):
        try:
            read = msgspec.json.decode(line, type=_Line)
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
