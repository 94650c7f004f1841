"""The Gemini API: requests, batch jobs and files, as raw JSON through Google's client.

Rule: retries are ours alone.  With its default settings Google's client repeats a request after a dropped connection,
and one call is billed twice.  So each request is sent once, also by a client of the user's own.

Raw bodies are read because the client's types omit why a job failed and how many of its requests are done.

One subject, whence more than 500 lines: what is asked of the service, how its answers are read, and its errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.lenient_json import read_json
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.spec import Backend
from ipybatch.errors import BatchError, Permanent, RateLimited, Refused, Transient
from ipybatch.gemini.service.remote import RemoteTransport
from ipybatch.gemini.service.reply import is_key_refused, is_nothing_allowed, is_storage_full, retry_delay_s
from ipybatch.gemini.service.transport import DirectTransport

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.errors import APIError

Asked = Literal["content", "content with a file", "create", "list", "named"]  # the last: a job or a file by its name
RemoteState = Literal["pending", "running", "succeeded", "failed", "cancelled", "expired"]

ANSWER_TIMEOUT_S = 300.0  # for one request about jobs
FILE_TIMEOUT_S = 3600.0
PAGE = 100
JSONL = "application/jsonl"

# BATCH_STATE_* and JOB_STATE_*; Source: https://ai.google.dev/api/batch-api (2026-11-22)
_STATES: dict[str, RemoteState] = {
    "PENDING": "pending",
    "QUEUED": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "PARTIALLY_SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
}
_ERROR_STATES: dict[int, RemoteState] = {1: "cancelled", 4: "expired"}


class NotSent(Transient):
    """No connection to the service could be opened: nothing was sent."""


class NotReady(Transient):
    """The service accepts nothing yet: a file is not ACTIVE."""


class StoreFull(RateLimited):
    """The service has no room for another file of this key."""


class Missing(Permanent):
    """The service has no job or file of this name."""


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as the service reports it.

    Attributes:
        name: ``files/ID``.
        state: "PROCESSING", "ACTIVE", "FAILED", or what the service says.
        display_name: The name that its owner gave it.
        size: Size, bytes.
        expires_s: When the service removes it, Unix time; None if it does not say.
        reason: Why its processing failed; "" otherwise.
    """

    name: str
    state: str
    display_name: str = ""
    size: int = 0
    expires_s: float | None = None
    reason: str = ""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A batch job as the service reports it.

    Attributes:
        name: ``batches/ID``.
        display_name: The name that we gave it; "" if the service omits it.
        model: Model name without ``models/``.
        state: One of the six remote states.
        counts: Number of requests by "requests", "successful", "failed" and "pending".
        created: Time of creation, as the service writes it.
        reason: Why the job failed, was cancelled or expired; "" otherwise.
        output: Results: "responsesFile", or "inlinedResponses" of an odd job; empty until the job has succeeded.
        ended_s: When it ended, Unix time; None before, and if the service does not say.
    """

    name: str
    display_name: str
    model: str
    state: RemoteState
    counts: Mapping[str, int]
    created: str
    reason: str
    output: Mapping[str, Any]
    ended_s: float | None = None


class Api:
    """Requests to the service.

    Args:
        client: A `google.genai.Client`.
        clock: A virtual clock stands still while a response is awaited.
        timeout_s: Time limit of one request, seconds; a file transfer has an hour.
        backend: Where `generate` sends its requests from; None: from here.

    Raises:
        InputError: The client's requests cannot be sent by a backend.
    """

    def __init__(
        self,
        client: Client,
        clock: Clock | None = None,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        backend: Backend | None = None,
    ) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._clock = clock or SystemClock()
        self._direct: DirectTransport | RemoteTransport | None = None
        if backend is not None:
            self._direct = RemoteTransport(client, _once(timeout_s), backend)
        elif DirectTransport.is_for(client):
            self._direct = DirectTransport(client, _once(timeout_s))

    @property
    def account(self) -> str:
        """A hash of the client's key: a job is there for the key that sent it; "" if the client has none."""
        key = getattr(getattr(self._client, "_api_client", None), "api_key", None)
        return account_of(key) if isinstance(key, str) else ""

    async def create(self, model: str, display_name: str, file: str) -> Operation:
        """Submit a job once, with the requests of an uploaded file.

        Raises:
            Permanent: The service rejects the job.
            Refused: The service rejects the key or the account.
            RateLimited: The service rejects the job for now.
            NotReady: The file is not ACTIVE yet.
            NotSent: The service could not be reached.
            Transient: It is unknown whether the job was accepted.
        """
        body = {"batch": {"displayName": display_name, "inputConfig": {"fileName": file}}}
        return read_operation(await self._ask("post", f"{_path(model)}:batchGenerateContent", body, asked="create"))

    async def generate(self, model: str, request: bytes) -> dict[str, Any]:
        """Send one request of generate_content, as JSON, and return the reply.

        The client's own generate_content sends the same, but takes several times the CPU, and repeats the request
        after a dropped connection if the client is the user's own.

        Raises:
            ItemError: There is no reply; the client's error is the cause.
        """
        path = f"{_path(model)}:generateContent"
        asked = _kind_of(json.loads(request)) if b'"fileData"' in request else "content"
        if self._direct is None:
            return await self._ask("post", path, json.loads(request), asked=asked)
        with self._asking(asked):
            return _read(await self._direct.post(path, request), asked)

    async def close(self) -> None:
        """Close the connections of `generate`; the client stays open."""
        if self._direct is not None:
            await self._direct.close()

    async def get(self, name: str) -> Operation:
        """Return a job's present state, with its results if they are inline.

        Raises:
            Missing: The service has no such job.
            ItemError: There is no answer.
        """
        return read_operation(await self._ask("get", name))

    async def list(self) -> AsyncIterator[Operation]:
        """Yield all jobs that the service lists, page by page.

        Raises:
            ItemError: There is no answer.
        """
        async for raw in self._pages("batches", "operations"):
            with contextlib.suppress(Transient):  # a job that we cannot read is not ours
                yield read_operation(raw)

    async def _pages(self, path: str, field: str = "") -> AsyncIterator[Any]:
        token = ""
        while True:
            # Without a page size the service has answered with nothing: googleapis/python-genai#1250
            after = f"&pageToken={quote(token, safe='')}" if token else ""
            page = await self._ask("get", f"{path}?pageSize={PAGE}{after}", asked="list")
            for raw in page.get(field or path) or ():
                yield raw
            if page.get("nextPageToken") in (None, "", token):  # a repeated token would never end
                return
            token = page["nextPageToken"]

    async def find(self, display_name: str) -> Operation | None:
        """Return the job with this display name, the oldest of several; None if none is listed.

        Raises:
            ItemError: There is no answer.
        """
        found = [operation async for operation in self.list() if operation.display_name == display_name]
        return min(found, key=lambda operation: operation.created, default=None)

    async def cancel(self, name: str) -> None:
        """Request the cancellation of a job; the job may run on for a while.

        Raises:
            ItemError: The request failed.
        """
        await self._ask("post", f"{name}:cancel", {})

    async def delete(self, name: str) -> None:
        """Delete a job or a file, if it still exists; this does not cancel a running job.

        Raises:
            ItemError: The request failed.
        """
        with contextlib.suppress(Missing):
            await self._ask("delete", name)

    async def upload(self, path: Path, display_name: str) -> RemoteFile:
        """Upload a job's requests, block by block.

        Raises:
            StoreFull: There is no room for the file; says what takes it.
            ItemError: The upload failed, or the answer holds no name.
        """
        config: Any = {"display_name": display_name, "mime_type": JSONL}
        try:
            with self._asking():
                uploaded = await self._client.aio.files.upload(file=path, config=config)
        except RateLimited as error:
            if is_storage_full(getattr(error.__cause__, "details", None)):
                raise StoreFull(await self._what_is_stored()) from error
            raise
        return read_file(uploaded.model_dump(mode="json", by_alias=True))

    async def file(self, name: str) -> RemoteFile:
        """Return a file's present state.

        Raises:
            Missing: The service has no such file.
            ItemError: There is no answer.
        """
        return read_file(await self._ask("get", name))

    async def files(self) -> AsyncIterator[RemoteFile]:
        """Yield all files of the key, page by page.

        Raises:
            ItemError: There is no answer.
        """
        async for raw in self._pages("files"):
            with contextlib.suppress(Transient):
                yield read_file(raw)

    async def _what_is_stored(self) -> str:
        """Say what takes the room for files, and what to delete."""
        stored: list[RemoteFile] = []
        with contextlib.suppress(BatchError):
            stored = [file async for file in self.files()]
        size = sum(file.size for file in stored)
        largest = sorted(stored, key=lambda file: file.size, reverse=True)[:3]
        named = ", ".join(
            f"{file.name} ({file.display_name or 'no name'}, {file.size / 1e6:,.0f} MB)" for file in largest
        )
        holds = f": {len(stored)} hold {size / 1e9:.1f} GB, the largest are {named}" if stored else ""
        return (
            f"Gemini has no room for another file of this key{holds}. Delete what no job needs any more, with"
            " client.files.delete(name=...), or wait: each file is removed 48 hours after its upload"
        )

    async def download(self, name: str, path: Path) -> None:
        """Write a result file to disk, block by block.

        Raises:
            ItemError: The download failed.
        """
        config: Any = {"http_options": _once(FILE_TIMEOUT_S)}
        with self._asking("named"):
            await self._client.aio.files.download(file=name, destination=path, config=config)

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, asked: Asked = "named"
    ) -> dict[str, Any]:
        with self._asking(asked):
            # No public method returns a raw body and keeps the client's address, key and headers.
            answer = await self._client.aio._api_client.async_request(method, path, body or {}, _once(self._timeout_s))
            return _read(answer.body or b"", asked)

    def _asking(self, asked: Asked = "list") -> _Asking:
        return _Asking(self._clock, asked)


class _Asking:
    """A request that is under way: a virtual clock stands still, and errors of any transport become ours."""

    __slots__ = ("_asked", "_clock")

    def __init__(self, clock: Clock, asked: Asked) -> None:
        self._clock, self._asked = clock, asked

    def __enter__(self) -> None:
        self._clock.hold(+1)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._clock.hold(-1)
        if isinstance(error, Exception) and not isinstance(error, BatchError):
            raise explain(error, self._asked) from error


def account_of(key: str) -> str:
    """Return a short hash of a key, which tells keys apart and does not tell the key."""
    return hashlib.blake2b(key.encode(), digest_size=4).hexdigest()


def _path(model: str) -> str:
    return model if "/" in model else f"models/{model}"


def _read(body: str | bytes, asked: Asked) -> dict[str, Any]:
    read = read_json(body or b"{}", lenient=True)
    if not isinstance(read, dict):
        msg = f"Gemini replied with a {type(read).__name__} instead of an object"
        raise Transient(msg)
    if isinstance(read.get("error"), dict) and (asked != "named" or "name" not in read):  # a job may hold its error
        raise _as_error(read)  # with status 200
    return read


def _once(timeout_s: float) -> Any:
    """Return options for one attempt, which also hold for a client of the user's own."""
    return {"retry_options": {"attempts": 1}, "timeout": int(timeout_s * 1000)}


def read_operation(raw: Any) -> Operation:
    """Read a job's JSON.

    Raises:
        Transient: ``raw`` is no job.
    """
    if not isinstance(raw, dict) or not str(raw.get("name", "")).startswith("batches/"):
        msg = "Gemini replied with something that is no batch job"
        raise Transient(msg)
    told = _dict(raw.get("metadata"))
    error = _dict(raw.get("error"))
    state = _state(str(told.get("state", "")), done=bool(raw.get("done")), error=error)
    stats = _dict(told.get("batchStats"))
    counts = {word: _number(stats.get(f"{word}RequestCount")) for word in ("successful", "failed", "pending")}
    return Operation(
        name=raw["name"],
        display_name=str(told.get("displayName", "")),
        model=str(told.get("model", "")).removeprefix("models/"),
        state=state,
        counts={"requests": _number(stats.get("requestCount")), **counts},
        created=str(told.get("createTime", "")),
        ended_s=_unix_s(told.get("endTime")),
        reason=_reason(state, error),
        output=_dict(raw.get("response")) or _dict(told.get("output")),
    )


def read_file(raw: Any) -> RemoteFile:
    """Read a file's JSON.

    Raises:
        Transient: ``raw`` is no file.
    """
    found = _dict(raw)
    if not str(found.get("name", "")).startswith("files/"):
        msg = "Gemini replied with something that is no file"
        raise Transient(msg)
    return RemoteFile(
        name=found["name"],
        state=str(found.get("state") or "ACTIVE").removeprefix("FILE_STATE_"),
        display_name=str(found.get("displayName") or ""),
        size=_number(found.get("sizeBytes")),
        expires_s=_unix_s(found.get("expirationTime")),
        reason=mask(str(_dict(found.get("error")).get("message") or "")),
    )


def _kind_of(request: Mapping[str, Any]) -> Asked:
    """Return whether a request for content names a file: then what is refused may be that file."""
    contents = request.get("contents")
    parts = [
        part
        for content in (contents if isinstance(contents, list) else [contents])
        for part in (content.get("parts") or () if isinstance(content, dict) else ())
    ]
    return "content with a file" if any(isinstance(part, dict) and "fileData" in part for part in parts) else "content"


def _as_error(body: dict[str, Any]) -> Exception:
    """Return the error that an answer with status 200 holds, as the client raises one with a status of its own."""
    from google.genai.errors import APIError

    return APIError(_number(body["error"].get("code")) or 500, body)


def explain(error: Exception, asked: Asked = "content") -> BatchError:
    """Translate an error of the client or its transport into ours.

    Args:
        asked: What was asked for: the same status means another thing of a model than of one file.
    """
    from google.genai.errors import APIError

    if not isinstance(error, APIError):
        return _explain_line(error)
    code = error.code if isinstance(error.code, int) else 0
    words = [str(code), *([str(error.status)] if error.status else [])]
    said = mask(f"{' '.join(words)}: {error.message or 'no message'}")
    if 300 <= code < 400:  # followed, it would be a second request
        moved = getattr(error.response, "headers", {}).get("Location", "another address")
        said = mask(f"the address redirects to {moved} ({code}): pass that server as base_url=")
        return Refused(said) if code in (301, 308) else Transient(said)
    refused, wait_s = _of_account(error, code, asked), retry_delay_s(error.details)
    if refused is not None:
        return Refused(refused.replace("{}", said))
    if code == 429:
        return RateLimited(said, retry_after_s=wait_s)
    is_passing = code == 400 and error.status == "FAILED_PRECONDITION"  # a file that is not ACTIVE yet
    if code not in (400, 403, 404, 413) or is_passing:
        return NotReady(said, counts=False) if is_passing else Transient(said, retry_after_s=wait_s)
    its_own = Missing(said) if code in (403, 404) else Permanent(said)
    its_own.status = code  # what all items meet is no fault of theirs
    return its_own


def _of_account(error: APIError, code: int, asked: Asked) -> str | None:
    """Return what an answer says of the key, the account or the model; None where it says nothing of them."""
    if asked == "content with a file" and "file" not in str(error.message).lower():
        asked = "content"  # a refused file is named
    is_of_file = asked in ("named", "content with a file")
    if code == 401 or is_key_refused(error.details):
        return "Gemini refuses the key ({}): check api_key"
    if code == 403 and not is_of_file:
        return "Gemini refuses the key ({}): check api_key, and the billing of its project"
    if code == 404 and asked in ("content", "create"):
        return "Gemini has no such model for this key ({}): check model"
    if code == 429 and is_nothing_allowed(error.details):
        return "Gemini allows this key no requests ({}): check its plan and billing"
    if code == 400 and error.status == "FAILED_PRECONDITION" and asked in ("content", "list"):
        return "Gemini does not serve this key ({}): check its region and billing"
    return None


def _explain_line(error: Exception) -> Transient:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = mask(str(error)) or "no answer in time"
    if kinds & {"ClientConnectorError", "ConnectError", "ConnectTimeout"}:  # of aiohttp, httpx and httpx2
        return NotSent(f"no connection to Gemini: {said}")
    return Transient(f"{type(error).__name__}: {said}")


def _state(word: str, *, done: bool, error: Mapping[str, Any]) -> RemoteState:
    known = _STATES.get(re.sub(r"^(BATCH|JOB)_STATE_", "", word))
    if known in ("succeeded", "failed", "cancelled", "expired"):
        return known
    if done:
        return _ERROR_STATES.get(_number(error.get("code")), "failed") if error else "succeeded"
    return known or "running"


def _reason(state: RemoteState, error: Mapping[str, Any]) -> str:
    said = mask(str(error.get("message", ""))).strip()
    code = f" (code {_number(error.get('code'))})" if error else ""
    if state == "expired":
        return f"expired: the service did not finish it within 48 hours{': ' + said if said else ''}"
    if state in ("failed", "cancelled"):
        return f"{state}: {said or 'the service does not say why'}{code}"
    return ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _unix_s(value: Any) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def count_tokens(client: Client, model: str, request: Mapping[str, Any]) -> int:
    """Return the service's count of a request's input tokens, its system instruction included.

    The client's own count_tokens takes no system instruction for the Gemini API.
    Source: https://ai.google.dev/api/tokens (2026-11-29).
    """
    body: dict[str, object] = {"generateContentRequest": {"model": _path(model), **request}}
    answer = client._api_client.request("post", f"{_path(model)}:countTokens", body, _once(ANSWER_TIMEOUT_S))
    return int(msgspec.json.decode(answer.body or "{}")["totalTokens"])
