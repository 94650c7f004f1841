"""The Gemini Developer API, as clients of the real one see it: online, flex and batch.

    POST /v1/models/M:generateContent         an answer; serviceTier "flex" may be shed with 503
    POST /v1/models/M:streamGenerateContent   the same in one event
    POST /v1/models/M:countTokens             {"totalTokens": n}
    GET  /v1/models[/M]
    POST /v1/models/M:batchGenerateContent    see `batches`
    GET, DELETE /v1/batches[/ID], POST /v1/batches/ID:cancel
    POST /upload/v1/files, GET, DELETE /v1/files[/ID][:download]     see `files`

Any version that starts with v1 is accepted.  A request for content is decided in this order, and only accepted ones
are billed:

    key --> model --> outage --> flex shed --> quota: 429 --> a fault --> accepted, billed --> answer

Source: https://ai.google.dev/api, read 2026-11-22.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ipybatch.simulators.faults import FaultKind, Faults, check, uniforms
from ipybatch.simulators.service import Reply, Request, RequestLike, Service, Stats, as_json

from .batches import BatchEndpoints, BatchItem, BatchJobs
from .files import FileEndpoints, Files
from .generation import Answers, BillingLedger, ContentRequest, Lane, Truth, camel, read, read_bytes
from .quotas import Meter, Quota, Shape, as_error, as_exhausted, as_trouble, key_refusal, not_found

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
        models: Iterable[str] | Mapping[str, Mapping[str, Any]] = MODELS,
        rpm: int | None = None,
        burst: int | None = None,
        windows: Sequence[tuple[int, float]] = (),
        tpm: int | None = None,
        rpd: int | None = None,
        reset_s: float | None = None,
        shape: Shape = "a",
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
        create_faults: Sequence[str | None] = (),
        cancel_s: float = 0.2,
        max_active_jobs: int = 100,
        echo_keys: bool = True,
        inline_answers: bool = False,
        epoch_s: float | None = None,
    ) -> None:
        """Set up the service.

        Args:
            faults: Injected faults; default none.  Their latency applies to generation only.
            key: The accepted API key.
            models: The available models, or the quotas of each model: ``{"gemini-2.5-pro": {"rpm": 5}}``.
            rpm: Requests a minute of each model, >= 1; None for no limit.  The next four as in `Quota`.
            burst: Makes ``rpm`` a strict token bucket of this size.
            windows: Sliding windows (limit, per_s).
            tpm: Input tokens a minute of each model.
            rpd: Requests a day of each model.
            reset_s: When the day ends, seconds since the start; default midnight Pacific.
            shape: Which of the three 429 replies: "a" tells quota and delay, "b" a link, "c" nothing.
            network_s: Network latency of every call, both ways, seconds.
            flex_shed_rate: Share of flex requests shed with 503 before anything is billed, [0, 1].
            flex_outages: Pairs (from_s, to_s) in which every flex request is shed.
            output_tokens: As in `Answers`, with the next two.
            thought_tokens: Thoughts of an answer.
            cached_share: Share of each prompt that is cached.
            answer_faults: Share of flawed answers, by flaw: ``{"safety": 0.01}``; see `generation`.
            batch_delay_s: As ``delay_s`` in `BatchJobs`.
            item_failure_rate: Share of a job's items that fail, [0, 1]; drawn again at each submission.
            job_faults: As ``faults`` in `BatchJobs`.
            create_faults: Faults of the first requests that create jobs, in order; see `BatchEndpoints`.
            cancel_s: Time from a cancellation until the job has ended, seconds.
            max_active_jobs: Jobs alive at once; one more gets a 429.
            echo_keys: Whether inline results carry their keys.
            inline_answers: Whether jobs from files answer inline.
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
        self._meters = {model: Meter(replace(common, **quota), ends_s) for model, quota in own.items()}
        self._key = key
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
        self._now_s = 0.0  # of the present request: the lock admits one at a time
        self._jobs = BatchJobs(
            seed=seed,
            delay_s=batch_delay_s,
            faults=job_faults,
            cancel_s=cancel_s,
            most=max_active_jobs,
            work=self._do_item,
        )
        files = Files(seed)
        self._batches = BatchEndpoints(
            self._jobs,
            files,
            epoch_s=epoch_s,
            create_faults=create_faults,
            echo_keys=echo_keys,
            inline_answers=inline_answers,
        )
        self._files = FileEndpoints(files, self._batches.time)

    def items(self, request: Request) -> Sequence[str]:
        """Return the prompt of the request."""
        asked = self._asked_content(request)
        return (asked.prompt,) if asked else ()

    def rationed(self, request: Request) -> bool:
        """Return whether the request is for content."""
        return _CONTENT.fullmatch(request.path) is not None

    def truth(self, now_s: float | None = None) -> Truth:
        """Return the ledger as of ``now_s``, or of the latest request."""
        with self._lock:
            self._now_s = max(self._now_s, now_s or 0.0)
            self._jobs.settle(self._now_s)
            states = self._jobs.states(self._now_s)
            return self._ledger.truth(states, self._jobs.submitted_twice, self._statuses["429"], self._now_s)

    def stats(self) -> GeminiStats:
        """Return the statistics so far, and the ledger; callable from any thread."""
        with self._lock:
            return GeminiStats(**super().stats(), truth=self.truth())

    def handle(self, request: RequestLike, now_s: float) -> Reply:
        """Return the reply to one request, after settling the jobs that have ended."""
        with self._lock:
            self._now_s = max(self._now_s, now_s)
            self._jobs.settle(self._now_s)
            return super().handle(request, now_s)

    def refused(self, request: Request, now_s: float) -> Reply | None:
        """Return the refusal for a wrong key, an unknown model, a flex request shed, or a quota; or None."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        key = headers.get("x-goog-api-key") or request.query.get("key")
        if key != self._key and "upload_id" not in request.query:
            return key_refusal(key)
        content = _CONTENT.fullmatch(request.path)
        asked = self._asked_content(request)
        if content is None or asked is None or content[1] not in self._meters:
            return None
        model = content[1]
        self._ledger.arrive(asked, model, now_s)
        if asked.tier == "flex":
            draw = uniforms("flex", self.faults.seed, asked.prompt, self._asked[asked.prompt])[0]
            if draw < self._flex_shed_rate or self._flex.in_outage(now_s):
                return as_trouble(503)
        violations = self._meters[model].take(now_s, asked.tokens)
        return as_exhausted(self._shape, violations, model) if violations else None

    def answer(self, request: Request) -> Reply:
        """Return the answer without faults."""
        now_s, batches, files = self._now_s, self._batches, self._files
        routes: tuple[tuple[str, str, Callable[..., Reply]], ...] = (
            ("POST", r"/v1\w*/models/([^/:]+):(\w+)", self._model_call),
            ("GET", r"/v1\w*/models", self._list_models),
            ("GET", r"/v1\w*/models/([^/:]+)", self._get_model),
            ("GET", r"/v1\w*/batches", lambda request: batches.list(request, now_s)),
            ("GET", r"/v1\w*/(batches/[^/:]+)", lambda _, name: batches.get(name, now_s)),
            ("DELETE", r"/v1\w*/(batches/[^/:]+)", lambda _, name: batches.delete(name)),
            ("POST", r"/v1\w*/(batches/[^/:]+):cancel", lambda _, name: batches.cancel(name, now_s)),
            ("POST", r"/upload/v1\w*/files", lambda request: files.upload(request, now_s)),
            ("GET", r"/v1\w*/files", lambda request: files.list(request, now_s)),
            ("GET", r"/v1\w*/(files/[^/:]+)", lambda request, name: files.get(request, name, now_s)),
            ("GET", r"/(?:download/)?v1\w*/(files/[^/:]+):download", lambda _, name: files.download(name, now_s)),
            ("DELETE", r"/v1\w*/(files/[^/:]+)", lambda _, name: files.delete(name, now_s)),
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
        if model not in self._meters:
            return not_found(f"models/{model}")
        if verb == "batchGenerateContent":
            return self._batches.create(request, model, self._now_s)
        if verb == "countTokens":
            return _count(request.content)
        if self.rationed(request):
            return self._content(request, model)
        return as_error(404, f"models/{model} does not support {verb}.")

    def _content(self, request: Request, model: str) -> Reply:
        asked = self._asked_content(request)
        if asked is None:
            return as_error(400, "GenerateContentRequest.contents: contents is not specified")
        if "[[invalid]]" in asked.prompt:
            return as_error(400, "Request contains an invalid argument.")
        nth = self._asked[asked.prompt]
        body, billed = self.answers.reply(asked, model, nth)
        lane: Lane = "flex" if asked.tier == "flex" else "online"
        delay_s = sum(self.faults.way_s(asked.prompt, nth))
        waits_s = delay_s + self.faults.delay_s(asked.prompt, nth)
        self._ledger.accept(asked, self._now_s, self._now_s + waits_s)
        self._ledger.bill(lane, asked, billed)
        reply = as_json(body)
        if ":stream" in request.path:
            event = b"data: " + reply.body + b"\r\n\r\n"
            reply = replace(reply, body=event, headers={"Content-Type": "text/event-stream"})
        return replace(reply, delay_s=delay_s)

    def _do_item(self, item: BatchItem, model: str) -> tuple[bytes, bool]:
        """Process one item of a batch job: return its result line, and whether it succeeded."""
        asked = read_bytes(item.request)
        assert asked is not None, "a job accepted an invalid request"
        nth = self._item_tries[asked.fingerprint] = self._item_tries.get(asked.fingerprint, 0) + 1
        fails, which, *_ = uniforms("item", self.faults.seed, asked.fingerprint, nth)
        line: dict[str, Any] = {} if item.key is None else {"key": item.key}
        if "[[invalid]]" in asked.prompt:
            line["error"] = {"code": 3, "message": "Request contains an invalid argument."}
        elif fails < self._item_failure_rate:
            code, message = _ITEM_ERRORS[int(which * len(_ITEM_ERRORS))]
            line["error"] = {"code": code, "message": message}
        else:
            line["response"], billed = self.answers.reply(asked, model, nth)
            self._ledger.bill("batch", asked, billed)
        return json.dumps(line, separators=(",", ":")).encode(), "response" in line

    def _break(self, kind: FaultKind, request: Request, nth: int) -> Reply:
        if kind in ("500", "503", "504"):
            self._broken[kind] += 1
            return as_trouble(int(kind))
        return super()._break(kind, request, nth)

    def _asked_content(self, request: Request) -> ContentRequest | None:
        return read_bytes(request.content) if self.rationed(request) else None

    def _list_models(self, request: Request) -> Reply:
        size, start = int(request.query.get("pageSize", 50)), int(request.query.get("pageToken") or 0)
        names = list(self._meters)
        more = {"nextPageToken": str(start + size)} if start + size < len(names) else {}
        return as_json({"models": [_model(name) for name in names[start : start + size]], **more})

    def _get_model(self, _: Request, name: str) -> Reply:
        return as_json(_model(name)) if name in self._meters else not_found(f"models/{name}")


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
