"""Remote: batch jobs and files as the service has them, read from its raw JSON.

The client's own types leave out why a job failed and how many of its requests
are done, so bodies are read as they came.  Each request is sent once, also by
a client of the user's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.masking import mask
from ipybatch.errors import BatchError, Permanent, RateLimited, Refused, Transient
from ipybatch.gemini.jobs import State
from ipybatch.gemini.quotas import retry_delay_s

if TYPE_CHECKING:
    from google.genai import Client

PAGE = 100
TIMEOUT_S = 300.0
FILE_TIMEOUT_S = 3600.0
JSONL = "application/jsonl"

# BATCH_STATE_* and JOB_STATE_*; Source: https://ai.google.dev/api/batch-api (2026-11-22)
_STATES: dict[str, State] = {
    "PENDING": "pending",
    "QUEUED": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "PARTIALLY_SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
}
_ERROR_STATES: dict[int, State] = {1: "cancelled", 4: "expired"}
_REFUSALS = frozenset({400, 404, 413})
_EXPIRED = "expired: the service did not finish it within 48 hours"


class NotSent(Transient):
    """Say that no line to the service could be opened: nothing was sent."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the service tells it.

    Attributes:
        name: ``batches/ID``.
        display_name: What we called it; "" when it does not say.
        model: Without ``models/``.
        state: One of the six remote states.
        counts: requests, successful, failed, pending.
        created: When it was created, as the service writes it.
        reason: Why it failed, was cancelled or expired; "" otherwise.
        output: What it answered: inlinedResponses or responsesFile; empty before.
    """

    name: str
    display_name: str
    model: str
    state: State
    counts: Mapping[str, int]
    created: str
    reason: str
    output: Mapping[str, Any]


class Remote:
    """The service's batch jobs and files.

    Args:
        client: A `google.genai.Client`.
        clock: Stands still while an answer is awaited.
        timeout_s: For one answer, seconds; files have an hour.
    """

    def __init__(self, client: Client, clock: Clock | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._clock = clock or SystemClock()

    async def create(
        self, model: str, display_name: str, *, requests: Sequence[Mapping[str, Any]] = (), file: str = ""
    ) -> Operation:
        """Submit a job, once; of its requests or of an uploaded file.

        Raises:
            Permanent: It was refused as it is.
            Refused: The key or the account was refused.
            RateLimited: It was refused for now.
            NotSent: The service could not be reached.
            Transient: Whether it was accepted is not known.
        """
        given = {"fileName": file} if file else {"requests": {"requests": list(requests)}}
        body = {"batch": {"displayName": display_name, "inputConfig": given}}
        return read_operation(await self._ask("post", f"{_path(model)}:batchGenerateContent", body))

    async def generate(self, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to one request, as JSON; it is sent once.

        The client's own generate_content sends the same, in three times the CPU, and follows a dropped line by a
        second request when the client is the user's own.

        Raises:
            ItemError: There is none; the client's error is its cause.
        """
        return await self._ask("post", f"{_path(model)}:generateContent", dict(request))

    async def get(self, name: str) -> Operation:
        """Return a job as it stands, with all its results when they are inline."""
        return read_operation(await self._ask("get", name))

    async def list(self) -> AsyncIterator[Operation]:
        """Give all jobs that the service knows, page by page."""
        token = ""
        while True:
            # Without a page size the service has answered with nothing: googleapis/python-genai#1250
            page = await self._ask("get", f"batches?pageSize={PAGE}" + (f"&pageToken={token}" if token else ""))
            for raw in page.get("operations") or ():
                with contextlib.suppress(Transient):  # one that we cannot read is not ours
                    yield read_operation(raw)
            if page.get("nextPageToken") in (None, "", token):  # the same again would never end
                return
            token = page["nextPageToken"]

    async def find(self, display_name: str) -> Operation | None:
        """Return the job of this display name, the oldest if there are several; None when none is listed."""
        found = [operation async for operation in self.list() if operation.display_name == display_name]
        return min(found, key=lambda operation: operation.created, default=None)

    async def cancel(self, name: str) -> None:
        """Ask for a job to be cancelled; it may run on for a while."""
        await self._ask("post", f"{name}:cancel", {})

    async def delete(self, name: str) -> None:
        """Delete a job or a file; one that is gone already is no error. A running job is not cancelled by it."""
        with contextlib.suppress(Missing):
            await self._ask("delete", name)

    async def upload(self, path: Path, display_name: str) -> str:
        """Upload a job's requests and return the file's name, ``files/ID``.

        Raises:
            ItemError: The upload failed, or the answer holds no name; the type says what to do.
        """
        config: Any = {"display_name": display_name, "mime_type": JSONL}
        with self._asking():
            uploaded = await self._client.aio.files.upload(file=path, config=config)
        if not uploaded.name:
            msg = "Gemini took an upload and gave it no name"
            raise Transient(msg)
        return uploaded.name

    async def download(self, name: str, path: Path) -> None:
        """Write a result file to disk, piece by piece."""
        config: Any = {"http_options": _once(FILE_TIMEOUT_S)}
        with self._asking():
            await self._client.aio.files.download(file=name, destination=path, config=config)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._asking():
            # The one way to a raw body that keeps the client's own address, key and headers.
            answer = await self._client.aio._api_client.async_request(method, path, body or {}, _once(self._timeout_s))
            read = msgspec.json.decode(answer.body or "{}")
        if not isinstance(read, dict):
            msg = f"Gemini answered with a {type(read).__name__} instead of an object"
            raise Transient(msg)
        return read

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        self._clock.hold(+1)
        try:
            yield
        except (BatchError, asyncio.CancelledError):
            raise
        except Exception as error:  # whatever the transport raises: only what it does not say clearly is a doubt
            raise explain(error) from error
        finally:
            self._clock.hold(-1)


class Missing(Permanent):
    """Say that the service has no such thing."""


def _path(model: str) -> str:
    return model if "/" in model else f"models/{model}"


def _once(timeout_s: float) -> Any:
    """Return options that hold for a client of the user's own too: left alone, some send again by themselves."""
    return {"retry_options": {"attempts": 1}, "timeout": int(timeout_s * 1000)}


def read_operation(raw: Any) -> Operation:
    """Return what a job's JSON says.

    Raises:
        Transient: It is no job.
    """
    if not isinstance(raw, dict) or not str(raw.get("name", "")).startswith("batches/"):
        msg = "Gemini answered with something that is no batch job"
        raise Transient(msg)
    told = _dict(raw.get("metadata"))
    error = _dict(raw.get("error"))
    state = _state(str(told.get("state", "")), done=bool(raw.get("done")), error=error)
    return Operation(
        name=raw["name"],
        display_name=str(told.get("displayName", "")),
        model=str(told.get("model", "")).removeprefix("models/"),
        state=state,
        counts=_counts(_dict(told.get("batchStats"))),
        created=str(told.get("createTime", "")),
        reason=_reason(state, error),
        output=_dict(raw.get("response")) or _dict(told.get("output")),
    )


def explain(error: Exception) -> BatchError:
    """Return our error for one of the client or its transport."""
    from google.genai.errors import APIError

    if isinstance(error, APIError):
        return _explain_status(error)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = mask(str(error)) or "no answer in time"
    if kinds & {"ClientConnectorError", "ConnectError", "ConnectTimeout"}:  # of aiohttp, httpx and httpx2
        return NotSent(f"no line to Gemini: {said}")
    return Transient(f"{type(error).__name__}: {said}")


def _explain_status(error: Any) -> BatchError:
    code = error.code if isinstance(error.code, int) else 0
    said = mask(f"{code} {error.status or ''}: {error.message or 'no message'}")
    if code in (401, 403) or (code == 400 and "API_KEY_INVALID" in str(error.details)):
        return Refused(f"Gemini refuses the key ({said}): check api_key")
    if code == 429:
        return RateLimited(said, retry_after_s=retry_delay_s(error.details))
    if code == 404:
        return Missing(said)
    return Permanent(said) if code in _REFUSALS else Transient(said, retry_after_s=retry_delay_s(error.details))


def _state(word: str, *, done: bool, error: Mapping[str, Any]) -> State:
    known = _STATES.get(re.sub(r"^(BATCH|JOB)_STATE_", "", word))
    if known in ("succeeded", "failed", "cancelled", "expired"):
        return known
    if done:
        return _ERROR_STATES.get(_number(error.get("code")), "failed") if error else "succeeded"
    return known or "running"


def _counts(stats: Mapping[str, Any]) -> dict[str, int]:
    names = {
        "requests": "requestCount",
        "successful": "successfulRequestCount",
        "failed": "failedRequestCount",
        "pending": "pendingRequestCount",
    }
    return {ours: _number(stats.get(theirs)) for ours, theirs in names.items()}


def _reason(state: State, error: Mapping[str, Any]) -> str:
    said = mask(str(error.get("message", ""))).strip()
    code = f" (code {_number(error.get('code'))})" if error else ""
    if state == "expired":
        return f"{_EXPIRED}{': ' + said if said else ''}"
    if state in ("failed", "cancelled"):
        return f"{state}: {said or 'the service does not say why'}{code}"
    return ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
