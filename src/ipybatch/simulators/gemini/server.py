"""The Gemini Developer API, as clients of the real one see it: online, flex and batch.

    POST /v1/models/M:generateContent         an answer; serviceTier "flex" may be shed with 503
    POST /v1/models/M:streamGenerateContent   the same in one event
    POST /v1/models/M:countTokens             {"totalTokens": n}
    GET  /v1/models[/M]
    POST /v1/models/M:batchGenerateContent    see `batches`
    GET, DELETE /v1/batches[/ID], POST /v1/batches/ID:cancel
    POST /upload/v1/files, GET, DELETE /v1/files[/ID][:download]     see `files`

    GET  /_sim/ledger                         {"rows": [...]}, see `ledger`

Any version that starts with v1 is accepted.  A request for content is decided in this order, and only accepted ones
are billed:

    outage --> key --> refusal of the account or model --> flex shed --> quota: 429 --> a fault --> its files
        --> accepted, billed --> answer

Each key is a project of its own: its jobs, files, quotas and credits are its own.

Source: https://ai.google.dev/api, read 2026-11-22.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from ipybatch.simulators.faults import FaultKind, Faults, check, uniforms
from ipybatch.simulators.service import SCRIPT, Reply, Request, RequestLike, Service, Stats, as_json

from .batches import BatchEndpoints
from .files import LIVES_S, FileEndpoints, Files, PageTokens
from .generation import Answers, ContentRequest, camel, read, read_bytes
from .jobs import BatchItem, BatchJob, BatchJobs, ItemResult
from .ledger import BillingLedger, LedgerRow, Truth, Work
from .quotas import (
    STORAGE_BYTES,
    Meter,
    Quota,
    Refusals,
    Shape,
    as_error,
    as_exhausted,
    as_trouble,
    key_refusal,
    model_gone,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MODELS = (
    "gemini-2.5-flash",
    "gemini-2.5-flash-lite",
    "gemini-2.5-pro",
    "gemini-2.5-flash-image",
    "gemini-2.0-flash",
    "gemini-2.0-flash-lite",
    "gemini-3-flash-preview",
    "gemini-3-pro-preview",
    "gemini-3-pro-image-preview",
)
_CONTENT = re.compile(r"/v1\w*/models/([^/:]+):(generateContent|streamGenerateContent)")
_MODEL = re.compile(r"/v1\w*/models/([^/:]+)(?::(\w+))?")
_ITEM_CODES = {400: 9, 403: 7, 404: 5}  # google.rpc's codes
_ITEM_ERRORS = ((13, "Internal error encountered."), (14, "The service is unavailable."), (8, "Quota exceeded."))


class GeminiStats(Stats):
    """The statistics of every service, and the `Truth` of this one."""

    truth: Truth


class GeminiSimulator(Service):
    """The Gemini Developer API, with a ledger that proves whether a client kept its quotas and was billed once."""

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        key: str = "SIMULATED",
        keys: Iterable[str] = (),
        models: Iterable[str] | Mapping[str, Mapping[str, Any]] = MODELS,
        rpm: int | None = None,
        burst: int | None = None,
        windows: Sequence[tuple[int, float]] = (),
        tpm: int | None = None,
        rpd: int | None = None,
        reset_s: float | None = None,
        shape: Shape = "a",
        refusals: Mapping[str, str | tuple[str, float, float]] | None = None,
        prepaid: int | None = None,
        network_s: float = 0.0,
        flex_shed_rate: float = 0.0,
        flex_outages: Sequence[tuple[float, float]] = (),
        output_tokens: int = 60,
        thought_tokens: int = 0,
        cached_share: float = 0.0,
        answer_faults: Mapping[str, float] | None = None,
        batch_delay_s: float | tuple[float, float] | None = 1.0,
        item_failure_rate: float = 0.0,
        job_faults: Mapping[str, float | str] | Sequence[str | None] = (),
        job_looks: float = 2,
        job_late_s: float = 0.0,
        partial_share: float = 0.5,
        create_faults: Sequence[str | None] = (),
        cancel_s: float = 0.2,
        max_active_jobs: int = 100,
        stall_above: int | None = None,
        echo_keys: bool = True,
        inline_answers: bool = False,
        foreign_status: Literal[403, 404] = 404,
        file_wait_s: float = 0.0,
        file_life_s: float = LIVES_S,
        gone_status: Literal[403, 404] = 404,
        storage_bytes: int = STORAGE_BYTES,
        plus_tokens: bool = False,
        epoch_s: float | None = None,
    ) -> None:
        """Set up the service.

        Args:
            faults: Injected faults; default none.  Their latency applies to generation only.
            key: The accepted API key.
            keys: More accepted keys, each a project of its own.
            models: The available models, or the quotas of each model: ``{"gemini-2.5-pro": {"rpm": 5}}``.
            rpm: Requests a minute of each model, >= 1; None for no limit.  The next four as in `Quota`.
            burst: Makes ``rpm`` a strict token bucket of this size.
            windows: Sliding windows (limit, per_s).
            tpm: Input tokens a minute of each model.
            rpd: Requests a day of each model.
            reset_s: When the day ends, seconds since the start; default midnight Pacific.
            shape: Which of the three 429 replies: "a" tells quota and delay, "b" a link, "c" nothing.
            refusals: Refusals of whole accounts and models, by key, by model or by "*" for all: a word of
                `quotas.REFUSALS` such as "region", "billing", "credits", "limit_zero", "centuries" or "gone", or
                (word, from_s, to_s).
            prepaid: Prepaid generations of each key, >= 0; after them it gets 429 for ever.  None for no end.
            network_s: Network latency of every call, both ways, seconds.
            flex_shed_rate: Share of flex requests shed with 503 before anything is billed, [0, 1].
            flex_outages: Pairs (from_s, to_s) in which every flex request is shed.
            output_tokens: As in `Answers`, with the next two.
            thought_tokens: Thoughts of an answer.
            cached_share: Share of each prompt that is cached.
            answer_faults: Share of flawed answers, by flaw: ``{"safety": 0.01, "cut": 0.1}``; see `generation`, also
                for the marks ``[[cut]]`` and ``[[cut:2]]`` in a prompt.
            batch_delay_s: As ``delay_s`` in `BatchJobs`.
            item_failure_rate: Share of a job's items that fail, [0, 1]; drawn again at each submission.
            job_faults: Faults of jobs, such as "expire+partial", "late", "cut" or "shuffled+keyless+inline": by share
                ``{"late": 0.1}``, by display name or its prefix ``{"night": "cut"}``, or in the order of creation
                ``["late", None]``; the words are in `jobs`.
            job_looks: How many looks meet a fault that lasts a while ("late", "cut", "unseen"), >= 0; ``math.inf``
                for all.
            job_late_s: How long such a fault lasts at least, seconds.
            partial_share: Share of its items that a "partial" or "billed" job processes, [0, 1].
            create_faults: Faults of the first requests that create jobs, in order; see `BatchEndpoints`.
            cancel_s: Time from a cancellation until the job has ended, seconds.
            max_active_jobs: Jobs of a key alive at once; one more gets a 429.
            stall_above: While a key has more pending jobs than this, none of them starts; the real service stalls
                above 100.  None for no such limit.
            echo_keys: Whether inline results carry their keys.
            inline_answers: Whether jobs from files answer inline.
            foreign_status: Status of a job of another key, 404 or 403.
            file_wait_s: Time from an upload until the file is ACTIVE, seconds; until then jobs and requests with it
                get 400 FAILED_PRECONDITION.
            file_life_s: Time until a file is gone, seconds; ``math.inf``: files are never removed by themselves.
            gone_status: Status of a file that is gone, 404 or 403.
            storage_bytes: Room for the files of a key; an upload beyond it gets 429.
            plus_tokens: Whether page tokens hold '+', '/' and '='; unescaped they get 400.
            epoch_s: The start as a Unix time, seconds; default now.

        Raises:
            ValueError: A value is outside its range.
        """
        super().__init__(faults=faults)
        check("shape", shape in ("a", "b", "c"), "a, b or c", shape)
        check("network_s", 0 <= network_s < math.inf, ">= 0 and finite", network_s)
        check("flex_shed_rate", 0 <= flex_shed_rate <= 1, "in [0, 1]", flex_shed_rate)
        check("item_failure_rate", 0 <= item_failure_rate <= 1, "in [0, 1]", item_failure_rate)
        epoch_s = time.time() if epoch_s is None else epoch_s
        seed = self.faults.seed
        own = models if hasattr(models, "items") else {model: {} for model in models}
        common = Quota(rpm=rpm, burst=burst, windows=tuple(windows), tpm=tpm, rpd=rpd)
        ends_s = _midnight(epoch_s) if reset_s is None else reset_s
        self._models = tuple(own)
        self._keys = (key, *keys)
        self._meters = {
            (key, model): Meter(replace(common, **quota), ends_s) for key in self._keys for model, quota in own.items()
        }
        self._refusals = Refusals(refusals or {}, (*self._keys, *self._models), prepaid)
        self._shape: Shape = shape
        self._line = Faults(seed=seed, latency_s=network_s)  # generation is a delay at the server
        self._flex_shed_rate = flex_shed_rate
        self._flex = Faults(outages=tuple(flex_outages))
        self._item_failure_rate = item_failure_rate
        self.answers = Answers(
            seed=seed,
            output_tokens=output_tokens,
            thought_tokens=thought_tokens,
            cached_share=cached_share,
            flaws=dict(answer_faults or {}),
        )
        self._ledger = BillingLedger()
        self._item_tries: dict[str, int] = {}
        self._now_s = 0.0  # these two of the present request: the lock admits one at a time
        self._key = ""
        self._jobs = BatchJobs(
            seed=seed,
            delay_s=batch_delay_s,
            faults=job_faults,
            looks=job_looks,
            late_s=job_late_s,
            partial_share=partial_share,
            cancel_s=cancel_s,
            most=max_active_jobs,
            stall_above=stall_above,
            work=self._do_item,
        )
        self._stored = Files(
            seed, wait_s=file_wait_s, life_s=file_life_s, gone_status=gone_status, storage_bytes=storage_bytes
        )
        self._tokens = PageTokens(plus=plus_tokens)
        self._batches = BatchEndpoints(
            self._jobs,
            self._stored,
            self._tokens,
            self._deliver,
            epoch_s=epoch_s,
            create_faults=create_faults,
            echo_keys=echo_keys,
            inline_answers=inline_answers,
            foreign_status=foreign_status,
        )
        self._files = FileEndpoints(self._stored, self._tokens, self._batches.time)

    def items(self, request: Request) -> Sequence[str]:
        """Return the prompt of the request."""
        asked = self._asked_content(request)
        return (asked.prompt,) if asked else ()

    def rationed(self, request: Request) -> bool:
        """Return whether the request is for content."""
        return _CONTENT.fullmatch(request.path) is not None

    def truth(self, now_s: float | None = None) -> Truth:
        """Return the ledger in sums as of ``now_s``, or of the latest request."""
        with self._lock:
            self._now_s = max(self._now_s, now_s or 0.0)
            self._jobs.settle(self._now_s)
            states = self._jobs.states(self._now_s)
            return self._ledger.truth(states, self._jobs.submitted_twice, self._statuses["429"], self._now_s)

    def ledger(self, now_s: float | None = None) -> list[LedgerRow]:
        """Return the ledger row by row as of ``now_s``, or of the latest request: each accepted call and job item."""
        with self._lock:
            self._now_s = max(self._now_s, now_s or 0.0)
            self._jobs.settle(self._now_s)
            return self._ledger.rows()

    def stats(self) -> GeminiStats:
        """Return the statistics so far, and the ledger; callable from any thread."""
        with self._lock:
            return GeminiStats(**super().stats(), truth=self.truth())

    def handle(self, request: RequestLike, now_s: float) -> Reply:
        """Return the reply to one request, after settling the jobs that have ended."""
        asked = Request.of(request)
        with self._lock:
            self._now_s = max(self._now_s, now_s)
            self._key = _key(asked)
            self._jobs.settle(self._now_s)
            return super().handle(asked, now_s)

    def refused(self, request: Request, now_s: float) -> Reply | None:
        """Return the refusal for a wrong key, an account, a flex request shed, or a quota; or None."""
        key = self._key
        if "upload_id" in request.query:
            return None
        if key not in self._keys:
            return key_refusal(key)
        named = _MODEL.fullmatch(request.path)
        model, verb = (named[1], named[2]) if named else ("", "")
        asked = self._asked_content(request) if model in self._models else None
        if asked is not None:
            self._ledger.arrive(asked, model, now_s)
        generates = verb in ("generateContent", "streamGenerateContent", "batchGenerateContent")
        billed = self._ledger.billed_to(key)
        refusal = self._refusals.reply(key, model, now_s, generates=generates, billed=billed)
        if refusal is not None or asked is None:
            return refusal
        if asked.tier == "flex":
            draw = uniforms("flex", self.faults.seed, asked.prompt, self._asked[asked.prompt])[0]
            if draw < self._flex_shed_rate or self._flex.in_outage(now_s):
                return as_trouble(503)
        violations = self._meters[key, model].take(now_s, asked.tokens)
        return as_exhausted(self._shape, violations, model) if violations else None

    def answer(self, request: Request) -> Reply:
        """Return the answer without faults."""
        now_s, batches, files, key = self._now_s, self._batches, self._files, self._key
        routes: tuple[tuple[str, str, Callable[..., Reply]], ...] = (
            ("POST", r"/v1\w*/models/([^/:]+):(\w+)", self._model_call),
            ("GET", r"/v1\w*/models", self._list_models),
            ("GET", r"/v1\w*/models/([^/:]+)", self._get_model),
            ("GET", r"/v1\w*/batches", lambda request: batches.list(request, key, now_s)),
            ("GET", r"/v1\w*/(batches/[^/:]+)", lambda _, name: batches.get(name, key, now_s)),
            ("DELETE", r"/v1\w*/(batches/[^/:]+)", lambda _, name: batches.delete(name, key)),
            ("POST", r"/v1\w*/(batches/[^/:]+):cancel", lambda _, name: batches.cancel(name, key, now_s)),
            ("POST", r"/upload/v1\w*/files", lambda request: files.upload(request, key, now_s)),
            ("GET", r"/v1\w*/files", lambda request: files.list(request, key, now_s)),
            ("GET", r"/v1\w*/(files/[^/:]+)", lambda request, name: files.get(request, name, key, now_s)),
            ("GET", r"/(?:download/)?v1\w*/(files/[^/:]+):download", self._download),
            ("DELETE", r"/v1\w*/(files/[^/:]+)", lambda _, name: files.delete(name, key, now_s)),
        )
        for method, pattern, act in routes:
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                return act(request, *match.groups())
        return as_error(404, f"{request.method} {request.path} is not found.")

    def refusal(self, status: int) -> Reply:
        """Return the reply 429 of an injected fault."""
        return as_exhausted(self._shape)

    def _model_call(self, request: Request, model: str, verb: str) -> Reply:
        if model not in self._models:
            return model_gone(model)
        if verb == "batchGenerateContent":
            return self._batches.create(request, model, self._key, self._now_s)
        if verb == "countTokens":
            return _count(request.content)
        if self.rationed(request):
            return self._content(request, model)
        return as_error(404, f"models/{model} does not support {verb}.")

    def _content(self, request: Request, model: str) -> Reply:
        asked, key = self._asked_content(request), self._key
        if asked is None:
            return as_error(400, "GenerateContentRequest.contents: contents is not specified")
        if "[[invalid]]" in asked.prompt:
            return as_error(400, "Request contains an invalid argument.")
        refusal = self._refused_file(asked, key, self._now_s)
        if refusal is not None:
            return refusal
        nth = self._asked[asked.prompt]
        body, billed = self.answers.reply(asked, model, nth)
        delay_s = sum(self.faults.way_s(asked.prompt, nth))
        reply = replace(as_json(body), delay_s=delay_s)
        if "error" in body:
            return reply
        waits_s = delay_s + self.faults.delay_s(asked.prompt, nth)
        self._ledger.accept(asked, self._now_s, self._now_s + waits_s)
        work = Work(self._now_s, key, model, "flex" if asked.tier == "flex" else "online")
        row = self._ledger.bill(work, asked, billed, body)
        if ":stream" in request.path:
            event = b"data: " + reply.body + b"\r\n\r\n"
            reply = replace(reply, body=event, headers={"Content-Type": "text/event-stream"})
        return replace(reply, sent=lambda: self._deliver((row,)))

    def _do_item(self, job: BatchJob, item: BatchItem, processed: bool) -> ItemResult:
        """Process one item of a batch job and bill it, or record that it was not processed."""
        asked = read_bytes(item.request)
        assert asked is not None, "a job accepted an invalid request"
        work = Work(job.ended_s(), job.key, job.model, "batch", job.name, item.key)
        if not processed:
            return ItemResult(self._ledger.skip(work, asked, "NOT_PROCESSED"))
        nth = self._item_tries[asked.fingerprint] = self._item_tries.get(asked.fingerprint, 0) + 1
        fails, which, *_ = uniforms("item", self.faults.seed, asked.fingerprint, nth)
        line: dict[str, Any] = {} if item.key is None else {"key": item.key}
        row = None
        refusal = self._refused_file(asked, job.key, job.ended_s())
        if refusal is not None:
            message = json.loads(refusal.body)["error"]["message"]
            line["error"] = {"code": _ITEM_CODES[refusal.status], "message": message}
        elif "[[invalid]]" in asked.prompt:
            line["error"] = {"code": 3, "message": "Request contains an invalid argument."}
        elif fails < self._item_failure_rate:
            code, message = _ITEM_ERRORS[int(which * len(_ITEM_ERRORS))]
            line["error"] = {"code": code, "message": message}
        else:
            line["response"], billed = self.answers.reply(asked, job.model, nth)
            if "error" not in line["response"]:
                row = self._ledger.bill(work, asked, billed, line["response"])
        row = self._ledger.skip(work, asked, "ERROR") if row is None else row
        return ItemResult(row, json.dumps(line, separators=(",", ":")).encode(), "response" in line)

    def _refused_file(self, asked: ContentRequest, key: str, now_s: float) -> Reply | None:
        """Return the refusal for a file that the request refers to; files of other services are not looked for."""
        for name in asked.files:
            file = self._stored.usable(name, key, now_s) if self._stored.is_known(name) else None
            if isinstance(file, Reply):
                return file
        return None

    def _download(self, _: Request, name: str) -> Reply:
        whole = self._files.download(name, self._key, self._now_s)
        return self._batches.download(name, whole, self._now_s)

    def _deliver(self, rows: Sequence[int]) -> None:
        with self._lock:
            self._ledger.deliver(rows)

    def _script(self, request: Request, now_s: float) -> Reply:
        if request.path == f"{SCRIPT}ledger":
            return as_json({"rows": self.ledger()})
        return super()._script(request, now_s)

    def _break(self, kind: FaultKind, request: Request, nth: int) -> Reply:
        if kind in ("500", "503", "504"):
            self._broken[kind] += 1
            return as_trouble(int(kind))
        return super()._break(kind, request, nth)

    def _asked_content(self, request: Request) -> ContentRequest | None:
        return read_bytes(request.content) if self.rationed(request) else None

    def _list_models(self, request: Request) -> Reply:
        size, start = int(request.query.get("pageSize", 50)), self._tokens.number(request)
        if isinstance(start, Reply):
            return start
        names = self._models
        more = {"nextPageToken": self._tokens.token(start + size)} if start + size < len(names) else {}
        return as_json({"models": [_model(name) for name in names[start : start + size]], **more})

    def _get_model(self, _: Request, name: str) -> Reply:
        return as_json(_model(name)) if name in self._models else model_gone(name)


def _key(request: Request) -> str:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return headers.get("x-goog-api-key") or request.query.get("key", "")


def _count(content: bytes) -> Reply:
    try:
        whole = camel(json.loads(content))
    except ValueError:
        whole = None
    asked = read(whole.get("generateContentRequest", whole)) if isinstance(whole, dict) else None
    if asked is None:
        return as_error(400, "CountTokensRequest.contents: contents is not specified")
    details = [{"modality": "TEXT", "tokenCount": asked.tokens}]
    return as_json({"totalTokens": asked.tokens, "promptTokensDetails": details})


def _model(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name.replace("-", " ").title(),
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens", "batchGenerateContent"],
    }


def _midnight(epoch_s: float) -> float:
    """Return the time until midnight Pacific, when daily quotas start anew, seconds."""
    zone = ZoneInfo("America/Los_Angeles")
    now = datetime.fromtimestamp(epoch_s, zone)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), zone)
    return midnight.timestamp() - epoch_s
