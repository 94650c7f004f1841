"""Batch jobs of the simulated Gemini: their states over time, and the endpoints that create, list and cancel them.

Rule: a job's state follows from its times and ``now_s``; there are no timers.  `BatchJobs.settle` runs and bills the
jobs that have ended, and is called before every request is answered.

    PENDING --pending_s--> RUNNING --running_s--> SUCCEEDED | FAILED | EXPIRED
       +----------- cancel, cancel_s ----------> CANCELLED

Oddities kept from the real service: creating is not idempotent, deleting does not cancel, results come in the order
of the requests; counts are strings and zero counts are absent, a job with failed items succeeds, the error of a failed
job stands beside its metadata, a list without pageSize is empty, and the list does not carry the results.

Source: https://ai.google.dev/gemini-api/docs/batch-api and https://ai.google.dev/api/batch-api, and replies quoted in
public issues, read 2026-11-22.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ipybatch.simulators.faults import HANG_S, check, uniforms
from ipybatch.simulators.service import Reply, as_json, as_page

from .files import File, Files
from .generation import camel, read
from .quotas import as_error, as_exhausted, as_trouble, not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ipybatch.simulators.service import Request

INLINE_BYTES = 20_000_000
_TYPES = "type.googleapis.com/google.ai.generativelanguage.v1main."
_REASONS = {
    "FAILED": (13, "The batch failed: internal error while reading the requests."),
    "EXPIRED": (4, "The batch was not processed within 48 hours."),
    "CANCELLED": (1, "The batch was cancelled."),
}
_TROUBLES = ("drop", "hang", "429", "500", "503", "504", "html", "truncated")
CREATE_FAULTS = tuple(f"{trouble}_{when}" for trouble in _TROUBLES for when in ("before", "after"))
EXPIRES_S = 48 * 3600.0
ENDS = {"fail": "FAILED", "expire": "EXPIRED"}
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


class BatchItem(NamedTuple):
    """One request of a job: its key, or None, and its request as compact JSON."""

    key: str | None
    request: bytes


@dataclass(slots=True, kw_only=True)
class BatchJob:
    """One job.

    Attributes:
        number: From 1, in the order of creation.
        name: ``batches/...``.
        display_name: What the client called it; not unique.
        file: The uploaded input, or None for an inline job.
        end: Its final state at ``ends_s`` unless it is cancelled.
        items: Its requests, until it is settled.
        results: The items' results as JSON, in order, once it has succeeded.
        failed: Number of results that are errors.
    """

    number: int
    name: str
    display_name: str
    model: str
    file: str | None
    end: str
    created_s: float
    running_s: float
    ends_s: float
    count: int
    digest: str
    items: list[BatchItem] = field(default_factory=list)
    cancelled_s: float = math.inf
    deleted: bool = False
    settled: bool = False
    results: list[bytes] = field(default_factory=list)
    failed: int = 0

    def state(self, now_s: float) -> str:
        """Return PENDING, RUNNING, or its final state."""
        if now_s >= min(self.ends_s, self.cancelled_s):
            return self.end if self.ends_s <= self.cancelled_s else "CANCELLED"
        return "RUNNING" if now_s >= self.running_s else "PENDING"

    def ended_s(self) -> float:
        """Return the time of its end, seconds."""
        return min(self.ends_s, self.cancelled_s)


class BatchJobs:
    """All jobs, including deleted ones, which continue to run."""

    def __init__(
        self,
        *,
        seed: int,
        delay_s: float | tuple[float, float] | None,
        faults: Mapping[str, float | str] | Sequence[str | None],
        cancel_s: float,
        most: int,
        work: Callable[[BatchItem, str], tuple[bytes, bool]],
    ) -> None:
        """Set the timing and the faults.

        Args:
            seed: Same seed, same failing jobs.
            delay_s: Time until a job ends, half of it pending; or (pending, running); None for jobs that never end.
            faults: Faults of jobs, "fail" or "expire": by share, by display name or its prefix, or in the order of
                creation.
            cancel_s: Time from a cancellation until the job has ended, seconds.
            most: Maximum number of active jobs.
            work: Processes one item with a model; returns its result as JSON, and whether it succeeded.

        Raises:
            ValueError: A value is outside its range.
        """
        pending_s, running_s = delay_s if isinstance(delay_s, tuple) else ((delay_s or 0.0) / 2,) * 2
        check("batch_delay_s", min(pending_s, running_s) >= 0, ">= 0, a pair of such, or None", delay_s)
        check("cancel_s", cancel_s >= 0, ">= 0 seconds", cancel_s)
        check("max_active_jobs", most >= 1, ">= 1", most)
        for name, how in faults.items() if hasattr(faults, "items") else [("", how) for how in faults]:
            is_share = name in ENDS and isinstance(how, float | int) and 0 <= how <= 1
            if not (is_share or how in ENDS or (how is None and not name)):
                msg = f"job_faults must be shares in [0, 1] of fail and expire, or those words, got {name!r}: {how!r}"
                raise ValueError(msg)
        self._seed = seed
        self._pending_s = pending_s
        self._running_s = EXPIRES_S if delay_s is None else running_s
        self._endless = delay_s is None
        self._faults = faults
        self._cancel_s = cancel_s
        self._most = most
        self._work = work
        self._jobs: list[BatchJob] = []
        self._active: list[BatchJob] = []
        self._by_name: dict[str, BatchJob] = {}
        self._tries: dict[str, int] = {}
        self.submitted_twice: list[str] = []

    def is_full(self) -> bool:
        """Return whether the maximum number of jobs is active."""
        return len(self._active) >= self._most

    def create(
        self, model: str, display_name: str, items: list[BatchItem], now_s: float, *, file: str | None = None
    ) -> BatchJob:
        """Accept a job."""
        digest = hashlib.blake2b(b"\n".join(item.request for item in items), digest_size=16).hexdigest()
        nth = self._tries[digest] = self._tries.get(digest, 0) + 1
        number = len(self._jobs) + 1
        running_s = now_s + self._pending_s
        job = BatchJob(
            number=number,
            name=f"batches/{hashlib.blake2b(f'{self._seed} {number}'.encode(), digest_size=10).hexdigest()}",
            display_name=display_name,
            model=model,
            file=file,
            end=self._end(number, display_name, digest, nth),
            created_s=now_s,
            running_s=running_s,
            ends_s=min(now_s + EXPIRES_S, running_s + self._running_s),
            count=len(items),
            digest=digest,
            items=items,
        )
        if any(self._is_same(other, job, now_s) for other in self._jobs):
            self.submitted_twice.append(display_name)
        self._jobs.append(job)
        self._active.append(job)
        self._by_name[job.name] = job
        return job

    def find(self, name: str) -> BatchJob | None:
        """Return the job of that name that is not deleted."""
        job = self._by_name.get(name)
        return None if job is None or job.deleted else job

    def page(self, size: int, token: str) -> tuple[list[BatchJob], str]:
        """Return up to ``size`` jobs, latest first, and the token of the next page or an empty one."""
        before = int(token) if token else math.inf
        found = [job for job in reversed(self._jobs) if job.number < before and not job.deleted]
        more = str(found[size - 1].number) if 0 < size < len(found) else ""
        return found[:size], more

    def cancel(self, job: BatchJob, now_s: float) -> None:
        """Start to cancel a job, unless it has ended or is being cancelled."""
        if now_s < job.ended_s():
            job.cancelled_s = min(job.cancelled_s, now_s + self._cancel_s)

    def settle(self, now_s: float) -> None:
        """Process the items of the jobs that have succeeded by now, and drop the requests of all that have ended."""
        for job in [job for job in self._active if now_s >= job.ended_s()]:
            if job.state(now_s) == "SUCCEEDED":
                for item in job.items:
                    result, is_answer = self._work(item, job.model)
                    job.results.append(result)
                    job.failed += not is_answer
            job.items = []
            job.settled = True
            self._active.remove(job)

    def states(self, now_s: float) -> dict[str, list[str]]:
        """Return the states of all jobs by display name."""
        states: dict[str, list[str]] = {}
        for job in self._jobs:
            states.setdefault(job.display_name, []).append(job.state(now_s))
        return states

    def __iter__(self) -> Iterator[BatchJob]:
        return iter(self._jobs)

    def _end(self, number: int, display_name: str, digest: str, nth: int) -> str:
        if self._endless:
            return "EXPIRED"
        if not hasattr(self._faults, "items"):
            kind = self._faults[number - 1] if number <= len(self._faults) else None
            return ENDS.get(kind or "", "SUCCEEDED")
        draw = uniforms("job", self._seed, digest, nth)[0]
        for name, how in self._faults.items():
            if name in ENDS and isinstance(how, float | int):
                if draw < how:
                    return ENDS[name]
                draw -= how
            elif display_name.startswith(name):
                return ENDS[str(how)]
        return "SUCCEEDED"

    def _is_same(self, other: BatchJob, job: BatchJob, now_s: float) -> bool:
        """Return whether ``other`` has the same requests and is active or has succeeded."""
        if other.digest != job.digest:
            return False
        state = other.state(now_s)
        return state in ("PENDING", "RUNNING") or (state == "SUCCEEDED" and other.failed < other.count)


class BatchEndpoints:
    """The endpoints for batch jobs."""

    def __init__(
        self,
        jobs: BatchJobs,
        files: Files,
        *,
        epoch_s: float,
        create_faults: Sequence[str | None] = (),
        echo_keys: bool = True,
        inline_answers: bool = False,
    ) -> None:
        """Set up the endpoints.

        Args:
            jobs: The jobs.
            files: Uploaded inputs and generated results.
            epoch_s: The start as a Unix time, seconds.
            create_faults: Faults of the first requests that create jobs, in order, such as "drop_after"; None for none.
            echo_keys: Whether inline results carry their requests' keys.
            inline_answers: Whether jobs from files answer inline, as the real service has done with small ones.

        Raises:
            ValueError: A fault is not one of `CREATE_FAULTS`.
        """
        for fault in create_faults:
            ok = fault is None or fault in CREATE_FAULTS
            check("create_faults", ok, f"None or one of {', '.join(CREATE_FAULTS)}", fault)
        self._jobs = jobs
        self._files = files
        self._epoch_s = epoch_s
        self._create_faults = deque(create_faults)
        self._echo_keys = echo_keys
        self._inline_answers = inline_answers

    def create(self, request: Request, model: str, now_s: float) -> Reply:
        """Create a job, unless the next of ``create_faults`` prevents it."""
        fault = self._create_faults.popleft() if self._create_faults else None
        trouble, _, when = (fault or "").partition("_")
        if when == "before":
            return _spoil(trouble, Reply())
        reply = self._create(request, model, now_s)
        return _spoil(trouble, reply) if when == "after" else reply

    def get(self, name: str, now_s: float) -> Reply:
        """Return one job, with its results once it has succeeded."""
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
        """Start to cancel a job."""
        job = self._jobs.find(name)
        if job is None:
            return not_found(name)
        self._jobs.cancel(job, now_s)
        return as_json({})

    def delete(self, name: str) -> Reply:
        """Delete a job's record; the job continues to run."""
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

    def _operation(self, job: BatchJob, now_s: float, *, in_list: bool = False) -> dict[str, Any]:
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

    def _output(self, job: BatchJob, *, in_list: bool) -> dict[str, Any]:
        if job.file and not self._inline_answers:
            return {"responsesFile": self._result_file(job).name}
        if in_list:
            return {}
        results = [json.loads(result) for result in job.results]
        inlined = [_keyed(result, self._echo_keys) for result in results]
        return {"inlinedResponses": {"inlinedResponses": inlined}}

    def _result_file(self, job: BatchJob) -> File:
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


def _stats(job: BatchJob, state: str) -> dict[str, str]:
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
