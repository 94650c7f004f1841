"""Submission of batch jobs: requests cut into jobs, and each job submitted once, whatever fails.

Rule: only an intent is sent, and it is marked as sent before.  Whether a job was accepted in doubt is looked up in the
service's list, and never found out by sending it again.

    intend --> upload --> mark as sent --> create --> accepted: pending, running ...
                                             |------> rejected: failed, the error is raised
                                             `------> in doubt: list until found --> adopted
                                                        `--> not found in time: unknown

The service has no idempotency key; a unique display name is the only handle.

Rule: requests are cut into chunks in order and without loss, and every chunk is under every limit.  A chunk ends when
the next request would not fit, so only one is in memory.

Source: https://ai.google.dev/gemini-api/docs/batch-api (2026-11-22): inline below 20 MB for the whole body, a file up
to 2 GB.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.policy import check_count
from ipybatch.errors import BatchError, InputError, Permanent, RateLimited, Refused, Transient
from ipybatch.gemini.batch.jobs import CANCELLING, Job, JobStore, digest_of, display_name
from ipybatch.gemini.service.api import Api, Missing, NotSent, Operation

INLINE_BYTES = 19_000_000  # of 20 MB: the rest of the body takes some
FILE_BYTES = 2_000_000_000
CHUNK_BYTES = 100_000_000  # held in memory while it is sent
MAX_REQUESTS = 10_000
GRACE_S = 120.0
FIRST_PAUSE_S = 0.5
LONGEST_POLL_S = 300.0
_AROUND = len('{"request": , "metadata": {"key": "9999999999-00000000"}}, ')
_encode_wire = json.JSONEncoder(separators=(", ", ": "), allow_nan=False).encode


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One encoded request of a batch job.

    Attributes:
        key: Key of the item.
        body: The request as JSON, as Google's client writes it.
        images: Whether the prompt or the answer has images.
    """

    key: str
    body: bytes
    images: bool = False

    @classmethod
    def of(cls, key: str, wire: Mapping[str, Any], *, images: bool = False) -> BatchRequest:
        """Encode the service's JSON of a request, as returned by `Prompt.wire`."""
        return cls(key=key, body=_encode_wire(wire).encode(), images=images)


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one job.

    Attributes:
        requests: The requests, in order.
        inline: Whether they are sent in the body; otherwise as a file.
        size: Size of the encoded requests, bytes.
    """

    requests: tuple[BatchRequest, ...]
    inline: bool
    size: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The items' keys, in order."""
        return tuple(request.key for request in self.requests)

    def inlined(self) -> list[dict[str, Any]]:
        """Return the requests as JSON of the body."""
        return [
            {"request": msgspec.json.decode(request.body), "metadata": {"key": wire_key(place, request.key)}}
            for place, request in enumerate(self.requests)
        ]

    def lines(self) -> Iterator[bytes]:
        """Yield the requests as lines of a file."""
        for place, request in enumerate(self.requests):
            yield b'{"key": "%b", "request": %b}\n' % (wire_key(place, request.key).encode(), request.body)


def wire_key(place: int, key: str) -> str:
    """Return the key that is sent: short, ASCII, and with a checksum against mix-ups."""
    return f"{place}-{zlib.crc32(key.encode()):08x}"


def chunks(
    requests: Iterable[BatchRequest],
    *,
    max_requests: int = MAX_REQUESTS,
    max_bytes: int = CHUNK_BYTES,
    inline_bytes: int = INLINE_BYTES,
) -> Iterator[Chunk]:
    """Cut requests into chunks.

    Args:
        requests: The requests, in order.
        max_requests: Most requests in a chunk.
        max_bytes: Largest size of a chunk, bytes, up to 2 GB.
        inline_bytes: A larger chunk is sent as a file, and any chunk with images.

    Raises:
        InputError: A limit is out of range, or one request alone is too large.
    """
    check_count("max_requests", max_requests, low=1)
    check_count("max_bytes", max_bytes, low=1)
    limit = min(max_bytes, FILE_BYTES)
    held: list[BatchRequest] = []
    size = 0
    for request in requests:
        more = len(request.body) + _AROUND
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


def _chunk(held: list[BatchRequest], size: int, inline_bytes: int) -> Chunk:
    inline = size <= inline_bytes and not any(request.images for request in held)
    return Chunk(requests=tuple(held), inline=inline, size=size)


class Submission:
    """Submits jobs and follows them.

    Args:
        api: The service.
        store: Where jobs are recorded.
        grace_s: Time for which a job in doubt is looked up before it is unknown, seconds.
        clock: The clock.
    """

    def __init__(self, api: Api, store: JobStore, *, grace_s: float = GRACE_S, clock: Clock | None = None) -> None:
        self._api = api
        self._store = store
        self._grace_s = grace_s
        self._clock = clock or SystemClock()

    async def submit(self, session: str, number: int, model: str, chunk: Chunk, *, once: bool = False) -> Job:
        """Submit a chunk as a job, and return it in a remote state, or ``unknown`` with the reason.

        Args:
            session: Name of the session.
            number: Number of the job in the session.
            model: Name of the model.
            chunk: The requests.
            once: Reject the job if one of this session and number was submitted before.

        Raises:
            Permanent: The service rejects the job.
            Refused: The service rejects the key or the account.
            RateLimited: The service rejects the job for now; the journal keeps no trace of it.
            Transient: The job was not sent; the journal keeps no trace of it.
            Fenced: Another process submits it.
            InputError: With ``once``, such a job was submitted before.
        """
        name = display_name(session, number, digest_of(model, [request.body for request in chunk.requests]))
        job = Job(display_name=name, session=session, number=number, model=model, keys=chunk.keys)
        job = await self._store.intend(job, once=once)
        if not chunk.inline:
            try:
                job = msgspec.structs.replace(job, file=await self._upload(name, chunk))
            except Exception:
                await self._store.withdraw(job)
                raise
        return await self._create(await self._store.send(job), chunk)

    async def adopt(self, job: Job) -> Job:
        """Look a job in doubt up in the service's list, repeatedly within the grace time.

        Raises:
            Fenced: The job is no longer in the journal.
        """
        deadline_s = self._clock.now_s() + self._grace_s
        pause_s = FIRST_PAUSE_S
        while not isinstance(found := await self._look(job), Operation):
            left_s = deadline_s - self._clock.now_s()
            if left_s <= 0:
                reason = _lost(job, found) if job.remote else _unanswered(job, found)
                return await self._store.put(msgspec.structs.replace(job, state="unknown", reason=reason))
            await asyncio.sleep(min(pause_s, left_s))
            pause_s *= 2
        return await self._store.put(reported(job, found))

    async def refresh(self, job: Job) -> Job:
        """Request and record a job's present state, once; a job in doubt is looked up once.

        Raises:
            Transient: There is no answer; the job is unchanged.
            Refused: The service rejects the key or the account.
            Fenced: The job is no longer in the journal.
        """
        if job.ended or job.state == "intent":
            return job
        if not job.remote:
            found = await self._look(job)
            return job if isinstance(found, str) else await self._store.put(reported(job, found))
        try:
            return await self._store.put(reported(job, await self._api.get(job.remote)))
        except Missing as error:  # the list may show it all the same; and to another key it shows nothing
            found = await self._look(job)
            if isinstance(found, Operation):
                return await self._store.put(reported(job, found))
            return await self._store.put(msgspec.structs.replace(job, state="unknown", reason=_lost(job, str(error))))

    async def wait(self, jobs: Sequence[Job], *, poll_s: float, wait_s: float) -> list[Job]:
        """Poll until all jobs have ended, or ``wait_s`` is over; a poll without an answer is repeated.

        Args:
            jobs: The jobs.
            poll_s: Time between the first two polls, seconds; grows to 300.
            wait_s: Longest wait, seconds.

        Raises:
            Refused: The service rejects the key or the account.
            Fenced: A job is no longer in the journal.
        """
        deadline_s = self._clock.now_s() + wait_s
        for pause_s in polls(poll_s):
            jobs = [await self._try(job) for job in jobs]
            left_s = deadline_s - self._clock.now_s()
            if left_s <= 0 or all(job.ended or not job.sent for job in jobs):
                break
            await asyncio.sleep(min(pause_s, left_s))
        return list(jobs)

    async def _try(self, job: Job) -> Job:
        try:
            return await self.refresh(job)
        except Transient:
            return job

    async def _create(self, job: Job, chunk: Chunk) -> Job:
        requests = chunk.inlined() if chunk.inline else []
        try:
            accepted = await self._api.create(job.model, job.display_name, requests=requests, file=job.file)
        except NotSent:
            await self._store.withdraw(job)
            raise
        except RateLimited:
            # As far as we know it then accepts nothing; a look-up is free, and a second job is not.
            if isinstance(found := await self._look(job), Operation):
                return await self._store.put(reported(job, found))
            await self._store.withdraw(job)
            raise
        except (Permanent, Refused) as error:
            await self._store.put(msgspec.structs.replace(job, state="failed", reason=f"not accepted: {error}"))
            raise
        except Transient:
            return await self.adopt(job)
        return await self._store.put(reported(job, accepted))

    async def _look(self, job: Job) -> Operation | str:
        """Return the job as the service lists it, or the reason why it is not found."""
        try:
            return await self._api.find(job.display_name) or "the service does not list it"
        except BatchError as error:
            return f"the service could not be asked: {error}"

    async def _upload(self, name: str, chunk: Chunk) -> str:
        with tempfile.TemporaryDirectory(prefix="ipybatch-") as folder:
            path = Path(folder) / "requests.jsonl"
            await asyncio.to_thread(_write, path, chunk)
            return await self._api.upload(path, name)


def _unanswered(job: Job, why: str) -> str:
    """Return what is said of a job that was sent, and may not have arrived."""
    return (
        f"unknown: {job.display_name} was sent and no answer came; {why}. It is not sent again by itself: look for it"
        " later, or forget it and submit it anew"
    )


def _lost(job: Job, why: str) -> str:
    """Return what is said of a job that was there, and that the service does not show any more."""
    return (
        f"unknown: the service shows no job {job.number} to this key ({why}). It may belong to another key, or be"
        " deleted; it is not sent again by itself: look for it later, or forget it and submit it anew"
    )


def reported(job: Job, operation: Operation) -> Job:
    """Return a job updated by the service's report."""
    return msgspec.structs.replace(
        job,
        remote=operation.name,
        state=operation.state,
        counts=operation.counts,
        reason=operation.reason or (CANCELLING if job.reason == CANCELLING else ""),
    )


def polls(poll_s: float, chance: random.Random | None = None) -> Iterator[float]:
    """Yield the pauses between polls, seconds: growing by half up to 300, with a jitter of a tenth."""
    chance = chance or random.Random()
    wait_s = poll_s
    while True:
        yield wait_s * chance.uniform(0.9, 1.1)
        wait_s = min(wait_s * 1.5, max(LONGEST_POLL_S, poll_s))


def _write(path: Path, chunk: Chunk) -> None:
    with path.open("wb") as file:
        file.writelines(chunk.lines())
