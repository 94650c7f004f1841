"""The addresses of the Batch API: create, get, list, cancel, delete, and the shape of what they answer.

Oddities kept from the real service: counts are strings and zero counts are absent, a job with failed items
succeeds, the error of a failed job stands beside its metadata, a list without pageSize is empty, and the list does
not carry the results.

Source: https://ai.google.dev/api/batch-api, and replies quoted in public issues, read 2026-11-22.
"""

from __future__ import annotations

import json
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .faults import HANG_S
from .gemini_errors import as_error, as_trouble, not_found
from .gemini_files import File
from .gemini_jobs import FINAL, Item
from .gemini_quotas import as_exhausted
from .gemini_requests import camel, read
from .service import Reply, as_json, as_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .gemini_files import Files
    from .gemini_jobs import Job, Jobs
    from .service import Request

INLINE_BYTES = 20_000_000
_TYPES = "type.googleapis.com/google.ai.generativelanguage.v1main."
_REASONS = {
    "FAILED": (13, "The batch failed: internal error while reading the requests."),
    "EXPIRED": (4, "The batch was not processed within 48 hours."),
    "CANCELLED": (1, "The batch was cancelled."),
}
_TROUBLES = ("drop", "hang", "429", "500", "503", "504", "html", "truncated")
CREATE_FAULTS = tuple(f"{trouble}_{when}" for trouble in _TROUBLES for when in ("before", "after"))


class Batches:
    """Answer what is asked about batch jobs."""

    def __init__(
        self,
        jobs: Jobs,
        files: Files,
        *,
        epoch_s: float,
        create_faults: Sequence[str | None] = (),
        echo_keys: bool = True,
        inline_answers: bool = False,
    ) -> None:
        """Take the jobs and the files.

        Args:
            jobs: The jobs themselves.
            files: Where input comes from and results go.
            epoch_s: The start as a Unix time, seconds.
            create_faults: What becomes of the first creates, in order: "drop_after" and the like, or None.
            echo_keys: Whether inline results carry the keys of their requests.
            inline_answers: Whether jobs from files answer inline, as the service has done with small ones.

        Raises:
            ValueError: No such fault.
        """
        for fault in create_faults:
            if fault is not None and fault not in CREATE_FAULTS:
                msg = f"create_faults must be None or one of {', '.join(CREATE_FAULTS)}, got {fault!r}"
                raise ValueError(msg)
        self._jobs = jobs
        self._files = files
        self._epoch_s = epoch_s
        self._create_faults = deque(create_faults)
        self._echo_keys = echo_keys
        self._inline_answers = inline_answers

    def create(self, request: Request, model: str, now_s: float) -> Reply:
        """Create a job, unless the next of the scripted faults comes before it."""
        fault = self._create_faults.popleft() if self._create_faults else None
        trouble, _, when = (fault or "").partition("_")
        if when == "before":
            return _spoil(trouble, Reply())
        reply = self._create(request, model, now_s)
        return _spoil(trouble, reply) if when == "after" else reply

    def get(self, name: str, now_s: float) -> Reply:
        """Return one job, with its results when it has them."""
        job = self._jobs.find(name)
        return as_json(self._operation(job, now_s)) if job else not_found(name)

    def list(self, request: Request, now_s: float) -> Reply:
        """Return a page of jobs, latest first."""
        size = request.query.get("pageSize", "")
        if not size.isdigit():
            return as_json({})
        jobs, more = self._jobs.page(int(size), request.query.get("pageToken", ""))
        page: dict[str, Any] = {"operations": [self._operation(job, now_s, in_list=True) for job in jobs]}
        return as_json(page | ({"nextPageToken": more} if more else {}) if jobs else {})

    def cancel(self, name: str, now_s: float) -> Reply:
        """Begin to cancel a job."""
        job = self._jobs.find(name)
        if job is None:
            return not_found(name)
        self._jobs.cancel(job, now_s)
        return as_json({})

    def delete(self, name: str) -> Reply:
        """Forget a job, which runs on all the same."""
        job = self._jobs.find(name)
        if job is None:
            return not_found(name)
        job.deleted = True
        return as_json({})

    def _create(self, request: Request, model: str, now_s: float) -> Reply:
        if len(request.content) > INLINE_BYTES:
            return as_error(400, f"Request payload size exceeds the limit: {INLINE_BYTES} bytes.")
        if self._jobs.is_full():
            return as_exhausted("b")
        batch = _batch(request.content)
        source = batch.get("inputConfig", {})
        name = batch.get("displayName", "")
        if "fileName" in source:
            file = self._files.find(source["fileName"], now_s)
            if file is None:
                return not_found(source["fileName"])
            items = _lines(file.content)
            job = self._jobs.create(model, name, items or [], now_s, file=file.name)
            job.end = job.end if items else "FAILED"
        else:
            inline = _inline(source)
            if not inline:
                return as_error(400, "batch.input_config must hold requests with contents, or a file_name.")
            job = self._jobs.create(model, name, inline, now_s)
        return as_json(self._operation(job, now_s))

    def _operation(self, job: Job, now_s: float, *, in_list: bool = False) -> dict[str, Any]:
        state = job.state(now_s)
        metadata = self._metadata(job, state, now_s)
        operation: dict[str, Any] = {"name": job.name, "metadata": metadata}
        if state not in FINAL:
            return operation
        operation["done"] = True
        if state == "SUCCEEDED":
            output = self._output(job, in_list=in_list)
            metadata["output"] = output
            operation["response"] = {"@type": f"{_TYPES}GenerateContentBatchOutput", **output}
        else:
            code, message = _REASONS[state]
            operation["error"] = {"code": code, "message": message}
        return operation

    def _metadata(self, job: Job, state: str, now_s: float) -> dict[str, Any]:
        ended = {"endTime": self.time(job.ended_s())} if state in FINAL else {}
        return {
            "@type": f"{_TYPES}GenerateContentBatch",
            "model": f"models/{job.model}",
            "displayName": job.display_name,
            "inputConfig": {"fileName": job.file} if job.file else {},
            "createTime": self.time(job.created_s),
            "updateTime": self.time(min(now_s, job.ended_s())),
            **ended,
            "batchStats": _stats(job, state),
            "state": f"BATCH_STATE_{state}",
            "name": job.name,
        }

    def _output(self, job: Job, *, in_list: bool) -> dict[str, Any]:
        if job.file and not self._inline_answers:
            return {"responsesFile": self._result_file(job).name}
        if in_list:
            return {}
        results = [json.loads(result) for result in job.results]
        inlined = [_keyed(result, self._echo_keys) for result in results]
        return {"inlinedResponses": {"inlinedResponses": inlined}}

    def _result_file(self, job: Job) -> File:
        name = f"files/batch-{job.name.removeprefix('batches/')}"
        known = self._files.find(name, job.ended_s())
        if known:
            return known
        content = b"".join(result + b"\n" for result in job.results)
        job.results = []  # held once: there may be many
        file = File(name=name, mime_type="application/jsonl", content=content, created_s=job.ended_s())
        file.source = "GENERATED"
        return self._files.add(file)

    def time(self, at_s: float) -> str:
        """Return a moment as the service words it."""
        moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=self._epoch_s + at_s)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _batch(content: bytes) -> dict[str, Any]:
    """Return the batch of a body with its own fields in camelCase; the requests in it stay as they are."""
    try:
        batch = json.loads(content)["batch"]
        source = batch.get("inputConfig") or batch.get("input_config") or {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    name = batch.get("displayName") or batch.get("display_name") or ""
    file = source.get("fileName") or source.get("file_name")
    return {"displayName": name, "inputConfig": {"fileName": file} if file else source}


def _inline(source: dict[str, Any]) -> list[Item] | None:
    """Return the requests of an inline job; None when one is none."""
    requests = source.get("requests", {})
    entries = requests.get("requests", []) if isinstance(requests, dict) else []
    if not all(isinstance(entry, dict) and read(entry.get("request")) for entry in entries):
        return None
    return [Item((entry.get("metadata") or {}).get("key"), _compact(entry["request"])) for entry in entries]


def _lines(content: bytes) -> list[Item] | None:
    """Return the requests of a file; None when a line is none."""
    items = []
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            return None
        if not isinstance(entry, dict) or not read(entry.get("request")):
            return None
        items.append(Item(entry.get("key"), _compact(entry["request"])))
    return items


def _compact(request: object) -> bytes:
    return json.dumps(camel(request), separators=(",", ":"), sort_keys=True).encode()


def _keyed(result: dict[str, Any], echo: bool) -> dict[str, Any]:
    """Return a line of a result file as an inline result: there the key is metadata."""
    key = result.pop("key", None)
    return result | {"metadata": {"key": key}} if echo and key is not None else result


def _stats(job: Job, state: str) -> dict[str, str]:
    succeeded = job.count - job.failed if state == "SUCCEEDED" else 0
    counts = {
        "requestCount": job.count,
        "successfulRequestCount": succeeded,
        "failedRequestCount": job.failed if state == "SUCCEEDED" else 0,
        "pendingRequestCount": 0 if state in FINAL else job.count,
    }
    return {name: str(count) for name, count in counts.items() if count}


def _spoil(trouble: str, reply: Reply) -> Reply:
    """Return what a client gets instead of ``reply``."""
    if trouble == "drop":
        return Reply(drop="close")
    if trouble == "hang":
        return Reply(drop="close", delay_s=HANG_S)
    if trouble == "429":
        return as_exhausted("b")
    if trouble == "html":
        return as_page("Service temporarily unavailable", status=200)
    if trouble == "truncated":
        body = reply.body or b'{"name":"batches/'
        return Reply(body=body[: len(body) // 2], headers=reply.headers)
    return as_trouble(int(trouble))
