"""The endpoints of the simulated Gemini that create, read, list, cancel and delete batch jobs.

Oddities kept from the real service: creating is not idempotent, deleting does not cancel, results come in the order
of the requests unless a fault shuffles them; counts are strings and zero counts are absent, a job with failed items
succeeds, the error of a failed job stands beside its metadata, and so may an output of what it did finish; a list
without pageSize is empty, and the list does not carry the results.  A job is visible to its own key only.

Source: https://ai.google.dev/gemini-api/docs/batch-api and https://ai.google.dev/api/batch-api, and replies quoted in
public issues, read 2026-11-22.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ipybatch.simulators.faults import HANG_S, check
from ipybatch.simulators.service import Reply, as_json, as_page

from .files import Files, PageTokens
from .generation import camel, read
from .jobs import FINAL, BatchItem, BatchJob, BatchJobs
from .quotas import as_error, as_exhausted, as_trouble, not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipybatch.simulators.service import Request

INLINE_BYTES = 20_000_000
_TYPES = "type.googleapis.com/google.ai.generativelanguage.v1main."
_REASONS = {
    "FAILED": (13, "The batch failed: internal error while reading the requests."),
    "EXPIRED": (4, "The batch was not processed within 48 hours."),
    "CANCELLED": (1, "The batch was cancelled."),
}
_TROUBLES = ("drop", "hang", "429", "500", "503", "504", "html", "truncated", "error_body")
CREATE_FAULTS = tuple(f"{trouble}_{when}" for trouble in _TROUBLES for when in ("before", "after"))


class BatchEndpoints:
    """The endpoints for batch jobs."""

    def __init__(
        self,
        jobs: BatchJobs,
        files: Files,
        tokens: PageTokens,
        deliver: Callable[[Sequence[int]], None],
        *,
        epoch_s: float,
        create_faults: Sequence[str | None] = (),
        echo_keys: bool = True,
        inline_answers: bool = False,
        foreign_status: int = 404,
    ) -> None:
        """Set up the endpoints.

        Args:
            jobs: The jobs.
            files: Uploaded inputs and generated results.
            tokens: The tokens of pages.
            deliver: Told the rows of the ledger whose results have left the service.
            epoch_s: The start as a Unix time, seconds.
            create_faults: Faults of the first requests that create jobs, in order, such as "drop_after"; None for none.
            echo_keys: Whether inline results carry their requests' keys.
            inline_answers: Whether jobs from files answer inline, as the real service has done with small ones.
            foreign_status: Status of a job of another key, 404 or 403.

        Raises:
            ValueError: A fault is not one of `CREATE_FAULTS`, or a status is another one.
        """
        for fault in create_faults:
            ok = fault is None or fault in CREATE_FAULTS
            check("create_faults", ok, f"None or one of {', '.join(CREATE_FAULTS)}", fault)
        check("foreign_status", foreign_status in (403, 404), "403 or 404", foreign_status)
        self._jobs = jobs
        self._files = files
        self._tokens = tokens
        self._deliver = deliver
        self._epoch_s = epoch_s
        self._create_faults = deque(create_faults)
        self._echo_keys = echo_keys
        self._inline_answers = inline_answers
        self._foreign_status = foreign_status
        self._of_file: dict[str, BatchJob] = {}

    def create(self, request: Request, model: str, key: str, now_s: float) -> Reply:
        """Create a job, unless the next of ``create_faults`` prevents it."""
        fault = self._create_faults.popleft() if self._create_faults else None
        trouble, _, when = (fault or "").rpartition("_")
        if when == "before":
            return _spoil(trouble, Reply())
        reply = self._create(request, model, key, now_s)
        return _spoil(trouble, reply) if when == "after" else reply

    def get(self, name: str, key: str, now_s: float) -> Reply:
        """Return one job, with its output once it has ended."""
        job = self._find(name, key)
        if isinstance(job, Reply):
            return job
        if self._jobs.meets(job, "unseen", now_s):
            return not_found(name)
        if self._jobs.meets(job, "error_body", now_s):
            return _spoil("error_body", Reply())
        operation, rows = self._operation(job, now_s)
        return replace(as_json(operation), sent=lambda: self._deliver(rows))

    def list(self, request: Request, key: str, now_s: float) -> Reply:
        """Return a page of jobs, latest first."""
        size, before = request.query.get("pageSize", ""), self._tokens.number(request)
        if isinstance(before, Reply):
            return before
        if not size.isdigit():
            return as_json({})
        jobs, following = self._jobs.page(int(size), before, key)
        page: dict[str, Any] = {"operations": [self._operation(job, now_s, in_list=True)[0] for job in jobs]}
        more = {} if following is None else {"nextPageToken": self._tokens.token(following)}
        return as_json(page | more if jobs else {})

    def cancel(self, name: str, key: str, now_s: float) -> Reply:
        """Start to cancel a job."""
        job = self._find(name, key)
        if isinstance(job, Reply):
            return job
        self._jobs.cancel(job, now_s)
        return as_json({})

    def delete(self, name: str, key: str) -> Reply:
        """Delete a job's record; the job continues to run."""
        job = self._find(name, key)
        if isinstance(job, Reply):
            return job
        job.deleted = True
        return as_json({})

    def download(self, name: str, whole: Reply, now_s: float) -> Reply:
        """Return what a client gets of a result file: not all of it while the job's fault lasts."""
        job = self._of_file.get(name)
        if job is None or whole.status != 200:
            return whole
        if self._jobs.meets(job, "late_file", now_s):
            return not_found(name)
        if self._jobs.meets(job, "error_file", now_s):
            return _spoil("error_body", Reply())
        order, lines = job.order(), whole.body.splitlines(keepends=True)
        body = b"".join(lines[: self._kept(job, now_s)])
        order = order[: body.count(b"\n")]
        if len(body) < len(whole.body) and "torn" in job.faults:
            body += lines[len(order)][: len(lines[len(order)]) // 2]
        return replace(whole, body=body, sent=lambda: self._deliver([job.first_row + number for number in order]))

    def _find(self, name: str, key: str) -> BatchJob | Reply:
        job = self._jobs.find(name)
        if job is None or (job.key != key and self._foreign_status == 404):
            return not_found(name)
        return job if job.key == key else as_error(403, "The caller does not have permission")

    def _create(self, request: Request, model: str, key: str, now_s: float) -> Reply:
        if len(request.content) > INLINE_BYTES:
            return as_error(400, f"Request payload size exceeds the limit: {INLINE_BYTES} bytes.")
        if self._jobs.is_full(key):
            return as_exhausted("b")
        batch = _batch(request.content)
        source = batch.get("inputConfig", {})
        name = batch.get("displayName", "")
        if "fileName" in source:
            file = self._files.usable(source["fileName"], key, now_s)
            if isinstance(file, Reply):
                return file
            job = self._jobs.create(key, model, name, _lines(file.content) or [], now_s, file=file.name)
        else:
            inline = _inline(source)
            if not inline:
                return as_error(400, "batch.input_config must hold requests with contents, or a file_name.")
            job = self._jobs.create(key, model, name, inline, now_s)
        self._jobs.settle(now_s)  # it may have ended already
        return as_json(self._operation(job, now_s)[0])

    def _operation(self, job: BatchJob, now_s: float, *, in_list: bool = False) -> tuple[dict[str, Any], Sequence[int]]:
        """Return a job as the service shows it, and the rows of the ledger whose results are in it."""
        state = job.state(now_s)
        metadata = self._metadata(job, state, now_s)
        operation: dict[str, Any] = {"name": job.name, "metadata": metadata}
        if state not in FINAL:
            return operation, []
        operation["done"] = True
        output: dict[str, Any] = {}
        rows: Sequence[int] = []
        if job.has_output(now_s) and not self._jobs.meets(job, "late", now_s, looked=not in_list):
            output, rows = self._output(job, now_s, in_list=in_list)
            metadata["output"] = output
        if state != "SUCCEEDED":
            code, message = _REASONS[state]
            operation["error"] = {"code": code, "message": message}
        elif "output" in metadata:
            operation["response"] = {"@type": f"{_TYPES}GenerateContentBatchOutput", **output}
        return operation, rows

    def _metadata(self, job: BatchJob, state: str, now_s: float) -> dict[str, Any]:
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

    def _output(self, job: BatchJob, now_s: float, *, in_list: bool) -> tuple[dict[str, Any], Sequence[int]]:
        if job.file and not self._inline_answers and "inline" not in job.faults:
            return {"responsesFile": self._result_file(job)}, []
        if in_list:
            return {}, []
        echo = self._echo_keys and "keyless" not in job.faults
        order = job.order()[: self._kept(job, now_s)]
        inlined = [_keyed(json.loads(job.results[number]), echo) for number in order]
        return {"inlinedResponses": {"inlinedResponses": inlined}}, [job.first_row + number for number in order]

    def _kept(self, job: BatchJob, now_s: float) -> int:
        """Return how many results a look gets."""
        cut = next((fault for fault in ("cut", "torn") if self._jobs.meets(job, fault, now_s)), None)
        return job.done // 2 if cut else job.done

    def _result_file(self, job: BatchJob) -> str:
        name = f"files/batch-{job.name.removeprefix('batches/')}"
        if name not in self._of_file:
            lines = [job.results[number] for number in job.order()]
            if "keyless" in job.faults:
                lines = [_keyless(line) for line in lines]
            self._files.generate(name, job.key, b"".join(line + b"\n" for line in lines), job.ended_s())
            self._of_file[name] = job
            job.results = []  # held once: there may be many
        return name

    def time(self, at_s: float) -> str:
        """Return a time as the service formats it."""
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


def _inline(source: dict[str, Any]) -> list[BatchItem] | None:
    """Return the requests of an inline job; None when one is none."""
    requests = source.get("requests", {})
    entries = requests.get("requests", []) if isinstance(requests, dict) else []
    if not all(isinstance(entry, dict) and read(entry.get("request")) for entry in entries):
        return None
    return [BatchItem((entry.get("metadata") or {}).get("key"), _compact(entry["request"])) for entry in entries]


def _lines(content: bytes) -> list[BatchItem] | None:
    """Return the requests of a file; None when a line is none."""
    items = []
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            return None
        if not isinstance(entry, dict) or not read(entry.get("request")):
            return None
        items.append(BatchItem(entry.get("key"), _compact(entry["request"])))
    return items


def _compact(request: object) -> bytes:
    return json.dumps(camel(request), separators=(",", ":"), sort_keys=True).encode()


def _keyed(result: dict[str, Any], echo: bool) -> dict[str, Any]:
    """Return a line of a result file as an inline result: there the key is metadata."""
    key = result.pop("key", None)
    return result | {"metadata": {"key": key}} if echo and key is not None else result


def _keyless(line: bytes) -> bytes:
    return json.dumps(_keyed(json.loads(line), echo=False), separators=(",", ":")).encode()


def _stats(job: BatchJob, state: str) -> dict[str, str]:
    counts = {
        "requestCount": job.count,
        "successfulRequestCount": job.done - job.failed,
        "failedRequestCount": job.failed,
        "pendingRequestCount": 0 if state in FINAL else job.count,
    }
    return {name: str(count) for name, count in counts.items() if count}


def _spoil(trouble: str, reply: Reply) -> Reply:
    """Return what a client gets instead of ``reply``."""
    if trouble in ("drop", "hang"):
        return Reply(drop="close", delay_s=HANG_S if trouble == "hang" else 0.0)
    if trouble == "429":
        return as_exhausted("b")
    if trouble == "error_body":
        return replace(as_trouble(503), status=200)
    if trouble == "html":
        return as_page("Service temporarily unavailable", status=200)
    if trouble == "truncated":
        body = reply.body or b'{"name":"batches/'
        return Reply(body=body[: len(body) // 2], headers=reply.headers)
    return as_trouble(int(trouble))
