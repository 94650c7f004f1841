"""Replies of the service: answers of generateContent, and the quota in a reply 429.

An answer has a verdict:

    promptFeedback.blockReason, finishReason SAFETY ...   blocked
    finishReason MAX_TOKENS ...                           cut
    no content, or no image where one was requested       empty
    text or an image                                      ok

All four are billed, so their tokens are always read: a count that the reply does not tell is None, and never 0.  A
field of another kind than it must be counts as absent, since the rest was paid for; an image that cannot be read makes
an answer a cut one.  What is no reply at all (half a JSON, say) is a transient error.

A 429 may name the quota that was exceeded:

    QuotaFailure + RetryInfo     a quota per minute: its size, and when to send again
    Help only                    a daily or billing quota, too many batch jobs
    no details at all            any of these

There is no Retry-After header: the delay is in the body, as a text like "45.837906927s".

Source: replies quoted in public issues of google-genai, and
https://ai.google.dev/gemini-api/docs/rate-limits (2026-11-22).

One subject, whence more than 500 lines: what the service's replies say, whatever their form.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from ipybatch.errors import Permanent, Transient

Verdict = Literal["ok", "blocked", "cut", "empty"]

# Source: https://ai.google.dev/api/generate-content#FinishReason and google-genai 3.4.0 (2026-11-22).
_BLOCKED = frozenset(
    {
        "BLOCKLIST",
        "ESCALATION",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_SAFETY",
        "LANGUAGE",
        "MODEL_ARMOR",
        "PROHIBITED_CONTENT",
        "PUP_LIMITED_DISABLED",
        "RECITATION",
        "SAFETY",
        "SPII",
    }
)
_WHOLE = frozenset({"", "STOP", "FINISH_REASON_UNSPECIFIED"})
_LINE = 200  # characters of a service's own words in an error

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class Tokens(msgspec.Struct, frozen=True):
    """The billed tokens of one call, and its searches.

    Attributes:
        in_: Input: prompt and tool use, including cached tokens; None: the service did not tell.
        out: Output: the answer without thoughts; None: the service did not tell.
        thoughts: Thoughts; billed as output; None: the service did not tell.
        cached: The part of ``in_`` that was read from a cache.
        image: The part of ``out`` that belongs to images.
        audio: The part of ``in_`` that belongs to sound.
        image_in: The part of ``in_`` that belongs to images.
        cached_audio: The part of ``audio`` that was read from a cache.
        searches: Queries of a search that grounds the answer; 0: there was no search.
    """

    in_: int | None = 0
    out: int | None = 0
    thoughts: int | None = 0
    cached: int = 0
    image: int = 0
    audio: int = 0
    image_in: int = 0
    cached_audio: int = 0
    searches: int = 0

    @property
    def are_told(self) -> bool:
        """Whether the service told input, output and thoughts."""
        return self.in_ is not None and self.out is not None and self.thoughts is not None

    @property
    def answered(self) -> int:
        """Tokens of the answer with its thoughts, as far as they are told."""
        return (self.out or 0) + (self.thoughts or 0)


UNTOLD = Tokens(None, None, None)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one prompt.

    Attributes:
        verdict: "ok", "blocked", "cut" or "empty".
        reason: Why the verdict is not "ok", in one line; "" otherwise.
        text: All text without thoughts; of a cut answer, the part that was received.
        images: MIME type and content of each image.
        finish_reason: The service's finish reason; "" if it gave none.
        block_reason: Why the prompt was blocked; "" if it was not.
        tokens: The billed tokens.
        model_version: The model that answered; "" if the service omits it.
        body: The whole reply.
    """

    verdict: Verdict
    reason: str = ""
    text: str = ""
    images: tuple[tuple[str, bytes], ...] = ()
    finish_reason: str = ""
    block_reason: str = ""
    tokens: Tokens = Tokens()
    model_version: str = ""
    body: dict[str, Any] = {}


def read_answer(body: Any, *, image: bool = False) -> Answer:
    """Read a reply of generateContent, as JSON.

    Args:
        image: Whether an image was requested: an answer without one is then empty.

    Raises:
        Transient: ``body`` is no reply of generateContent.
    """
    if not isinstance(body, dict):
        msg = f"Gemini replied with a {type(body).__name__} instead of an answer"
        raise Transient(msg)
    try:
        reply = _convert(body)
    except (msgspec.ValidationError, RecursionError) as error:
        msg = f"Gemini replied with something that is no answer: {_line(str(error))}"
        raise Transient(msg) from None
    if not reply.candidates and reply.prompt_feedback is None and reply.usage_metadata is None:
        msg = "Gemini replied without an answer: no candidates, no block reason, no usage"
        raise Transient(msg)
    candidate = reply.candidates[0] if reply.candidates else _Candidate()
    parts = (candidate.content and candidate.content.parts) or []
    text = "".join([part.text for part in parts if part.text and not part.thought])
    blobs = [part.inline_data for part in parts if part.inline_data is not None and not part.thought]
    images, broken = _images([blob for blob in blobs if blob.is_image])
    feedback = reply.prompt_feedback or _Feedback()
    tokens = _tokens(reply.usage_metadata, candidate, has_content=bool(text or images))
    verdict, reason = _judge(
        candidate, feedback, tokens, text=bool(text.strip()), image=bool(images), image_asked=image
    )
    if broken and verdict in ("ok", "empty"):
        verdict, reason = "cut", broken
    return Answer(
        verdict=verdict,
        reason=reason,
        text=storable(text),
        images=images,
        finish_reason=storable(candidate.finish_reason or ""),
        block_reason=storable(feedback.block_reason or ""),
        tokens=tokens,
        model_version=storable(reply.model_version or ""),
        body=body,
    )


def result_of(
    answer: Answer, *, usd: Decimal | float | None = None, data: Any = msgspec.UNSET, files: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the result columns of an item.

    Args:
        usd: Cost of the call, or the most that it may be if the tokens are not told; None if it is not known.
        data: The answer's data under a schema, in place of its text.
        files: Paths of its images.

    Returns:
        text or data, file (files, if there are several), tokens_in, tokens_out, tokens_thoughts, usd, model and
        finish_reason; and usd_is_bound, True, where the service did not tell the tokens, which are None.
    """
    said = {"text": answer.text} if data is msgspec.UNSET else {"data": data}
    saved = {"file": files[0]} if len(files) == 1 else {"files": list(files)} if files else {}
    return {
        **said,
        **saved,
        "tokens_in": answer.tokens.in_,
        "tokens_out": answer.tokens.out,
        "tokens_thoughts": answer.tokens.thoughts,
        "usd": None if usd is None else float(usd),
        "model": answer.model_version,
        "finish_reason": answer.finish_reason,
        **({} if answer.tokens.are_told or usd is None else {"usd_is_bound": True}),
    }


class _Wire(msgspec.Struct, rename="camel"):
    """Part of a reply, of which every field may be absent or null."""


class _Blob(_Wire):
    mime_type: str | None = None
    data: str | None = None

    @property
    def is_image(self) -> bool:
        return bool(self.data) and (self.mime_type or "").startswith("image/")


class _Part(_Wire):
    text: str | None = None
    thought: bool | None = None
    inline_data: _Blob | None = None
    function_call: Any = None


class _Content(_Wire):
    parts: list[_Part] | None = None


class _Rating(_Wire):
    category: str | None = None
    blocked: bool | None = None


class _Candidate(_Wire):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    safety_ratings: list[_Rating] | None = None
    grounding_metadata: Any = None


class _Feedback(_Wire):
    block_reason: str | None = None
    block_reason_message: str | None = None
    safety_ratings: list[_Rating] | None = None


class _Modality(_Wire):
    modality: str | None = None
    token_count: Count | None = None


class _Usage(_Wire):
    prompt_token_count: Count | None = None
    candidates_token_count: Count | None = None
    thoughts_token_count: Count | None = None
    cached_content_token_count: Count | None = None
    tool_use_prompt_token_count: Count | None = None
    total_token_count: Count | None = None
    prompt_tokens_details: list[_Modality] | None = None
    candidates_tokens_details: list[_Modality] | None = None
    cache_tokens_details: list[_Modality] | None = None


class _Reply(_Wire):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None


_REPLY = msgspec.inspect.type_info(_Reply)
_LEAVES: dict[Any, Any] = {msgspec.inspect.StrType: str, msgspec.inspect.BoolType: bool, msgspec.inspect.IntType: Count}


def _convert(body: dict[str, Any]) -> _Reply:
    """Return a reply; a field of another kind than it must be counts as absent, since the rest was paid for.

    Raises:
        ValidationError: It cannot be read at all.
    """
    try:
        return msgspec.convert(body, _Reply, strict=False)
    except (msgspec.ValidationError, RecursionError):
        return msgspec.convert(_fitting(body, _REPLY), _Reply, strict=False)


def _fitting(value: Any, kind: Any) -> Any:
    """Return of a JSON value what fits a type of a reply, None for nothing."""
    if isinstance(kind, msgspec.inspect.UnionType):  # with None
        kind = next(one for one in kind.types if not isinstance(one, msgspec.inspect.NoneType))
    if isinstance(kind, msgspec.inspect.StructType):
        names = {field.encode_name: field.type for field in kind.fields}
        return {n: _fitting(value[n], names[n]) for n in names.keys() & value} if isinstance(value, dict) else None
    if isinstance(kind, msgspec.inspect.ListType):
        fitting = [_fitting(each, kind.item_type) for each in _list(value)]
        return [each for each in fitting if each is not None]
    if isinstance(kind, msgspec.inspect.AnyType):
        return value
    leaf: Any = next(type_ for node, type_ in _LEAVES.items() if isinstance(kind, node))
    try:
        return msgspec.convert(value, leaf, strict=False)
    except msgspec.ValidationError:
        return None


def _judge(
    candidate: _Candidate, feedback: _Feedback, tokens: Tokens, *, text: bool, image: bool, image_asked: bool
) -> tuple[Verdict, str]:
    finish = candidate.finish_reason or ""
    came = text or image
    if feedback.block_reason and not came:
        told = _told(feedback.block_reason, feedback.block_reason_message, feedback.safety_ratings)
        return "blocked", f"prompt blocked: {told}"
    told = _told(finish or "no finish reason", candidate.finish_message, candidate.safety_ratings)
    if finish in _BLOCKED:
        return "blocked", f"answer blocked: {told}"
    if finish == "MAX_TOKENS":
        advice = ": raise max_output_tokens"
        if tokens.thoughts and not text:
            advice = ", all of them thoughts: raise max_output_tokens, or lower thinking_config"
        after = f" after {tokens.answered} tokens" if tokens.answered else ""
        return "cut", f"answer cut off{after}{advice}"
    if not came or finish == "NO_IMAGE" or (image_asked and not image):
        parts = (candidate.content and candidate.content.parts) or []
        called = any(part.function_call is not None for part in parts)
        hint = "; it asks for a function call, and functions are not called here" if called else ""
        return "empty", f"{'no content' if not came else 'no image'} received: {told}{hint}"
    return ("ok", "") if finish in _WHOLE else ("cut", f"answer stopped early: {told}")


def _told(word: str, message: str | None, ratings: list[_Rating] | None) -> str:
    harms = [rating.category for rating in ratings or () if rating.blocked and rating.category]
    return _line(": ".join([word, *([", ".join(harms)] if harms else []), *([message] if message else [])]))


def _tokens(usage: _Usage | None, candidate: _Candidate, *, has_content: bool) -> Tokens:
    """Return what was counted.

    A count of 0 is absent, and so is one that is not told: the latter if the total is more than all that is there, or
    if there is content.
    """
    if usage is None:
        return msgspec.structs.replace(UNTOLD, searches=_searches(candidate.grounding_metadata))
    prompt, out, thoughts = usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count
    used = usage.tool_use_prompt_token_count or 0
    is_missing = (usage.total_token_count or 0) > (prompt or 0) + (out or 0) + (thoughts or 0) + used
    if out is None and not is_missing and not (has_content and usage.total_token_count is None):
        out = 0
    if thoughts is None and not is_missing:
        thoughts = 0
    return Tokens(
        in_=None if prompt is None else prompt + used,
        out=out,
        thoughts=thoughts,
        cached=usage.cached_content_token_count or 0,
        image=_of(usage.candidates_tokens_details, "IMAGE"),
        audio=_of(usage.prompt_tokens_details, "AUDIO"),
        image_in=_of(usage.prompt_tokens_details, "IMAGE"),
        cached_audio=_of(usage.cache_tokens_details, "AUDIO"),
        searches=_searches(candidate.grounding_metadata),
    )


def _of(details: list[_Modality] | None, modality: str) -> int:
    return sum(each.token_count or 0 for each in details or () if each.modality == modality)


def _searches(grounding: Any) -> int:
    """Return how many queries ground an answer; one, if it has sources and names no query."""
    if not isinstance(grounding, dict) or not grounding:
        return 0
    queries = {str(query) for query in _list(grounding.get("webSearchQueries"))}
    is_grounded = any(grounding.get(name) for name in ("groundingChunks", "searchEntryPoint", "groundingSupports"))
    return len(queries) or int(is_grounded)


def _images(blobs: Sequence[_Blob]) -> tuple[tuple[tuple[str, bytes], ...], str]:
    """Return MIME type and content of those images that can be read, and what is the matter with the others."""
    images, broken = [], ""
    for blob in blobs:
        try:
            images.append((blob.mime_type or "", decoded(blob.data)))
        except Permanent as error:
            broken = str(error)
    return tuple(images), broken


def decoded(data: Any) -> bytes:
    """Return the content of a blob.

    Raises:
        Permanent: It is no base64.
    """
    try:  # the client writes the URL-safe alphabet, the service the plain one
        return base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError, AttributeError, TypeError):
        msg = "Gemini replied with an image that is no valid base64"
        raise Permanent(msg) from None


def _line(text: str) -> str:
    line = " ".join(storable(text).split())
    return line if len(line) <= _LINE else line[: _LINE - 3] + "..."


def storable(text: str) -> str:
    """Return text without unpaired surrogates, which no journal could store."""
    return text if text.isascii() else text.encode(errors="replace").decode()


_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
_NO_LIMIT = re.compile(r"\blimit: 0\b(?![.,]\d)")
_IN_WORDS = re.compile(r"retry in (\d+(?:\.\d+)?)\s*(ms|s)\b")


class Refusal(msgspec.Struct, frozen=True):
    """The facts in a reply 429.

    Attributes:
        retry_s: Delay before the next request, seconds; None if the reply names none.
        is_daily: Whether the daily quota is used up.
        rpm: Allowed requests per minute; None if the reply names none.
        tpm: Allowed input tokens per minute; None if the reply names none.
    """

    retry_s: float | None = None
    is_daily: bool = False
    rpm: float | None = None
    tpm: float | None = None


def read_refusal(body: Any) -> Refusal:
    """Read the body of a reply 429; return an empty `Refusal` for any other value."""
    error = _error(body)
    violations = [
        violation
        for detail in _details(error)
        for violation in _list(detail.get("violations"))
        if isinstance(violation, dict) and isinstance(violation.get("quotaId"), str)
    ]
    delay_s = retry_delay_s(body)
    if delay_s is None and (said := _IN_WORDS.search(str(error.get("message", "")))):
        delay_s = float(said[1]) / (1000 if said[2] == "ms" else 1)
    return Refusal(
        retry_s=delay_s,
        is_daily=any("PerDay" in violation["quotaId"] for violation in violations),
        rpm=_quota(violations, of_tokens=False),
        tpm=_quota(violations, of_tokens=True),
    )


def retry_delay_s(body: Any) -> float | None:
    """Return the delay of an error's RetryInfo, seconds; None if there is none."""
    for detail in _details(_error(body)):
        match = _DURATION.fullmatch(str(detail.get("retryDelay", "")))
        if match:
            return float(match[1])
    return None


def is_nothing_allowed(body: Any) -> bool:
    """Say whether a reply 429 names a quota of 0, by its value or in its sentence: waiting does not help."""
    violations = [one for detail in _details(_error(body)) for one in _list(detail.get("violations"))]
    limits = [str(one["quotaValue"]) for one in violations if isinstance(one, dict) and "quotaValue" in one]
    is_said = bool(violations) and not limits and bool(_NO_LIMIT.search(str(_error(body).get("message", ""))))
    return is_said or any(limit.strip() == "0" for limit in limits)


def is_storage_full(body: Any) -> bool:
    """Say whether a reply 429 is about the room for files."""
    violations = [one for detail in _details(_error(body)) for one in _list(detail.get("violations"))]
    return any("file_storage" in str(one.get("quotaMetric")) for one in violations if isinstance(one, dict))


def is_key_refused(body: Any) -> bool:
    """Say whether an error's details say that it is the key."""
    return any(str(detail.get("reason", "")).startswith("API_KEY") for detail in _details(_error(body)))


def midnight_pacific_s(now_s: float) -> float:
    """Return the Unix time of the next midnight in California, when daily quotas are renewed."""
    zone = ZoneInfo("America/Los_Angeles")
    day = datetime.fromtimestamp(now_s, UTC).astimezone(zone).date() + timedelta(days=1)
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def _error(body: Any) -> dict[str, Any]:
    error = body.get("error", body) if isinstance(body, dict) else {}
    return error if isinstance(error, dict) else {}


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    return [detail for detail in _list(error.get("details")) if isinstance(detail, dict)]


def _quota(violations: list[dict[str, Any]], *, of_tokens: bool) -> float | None:
    """Return the smallest quota per minute, of tokens or of requests."""
    values = [
        _number(violation.get("quotaValue"))
        for violation in violations
        if "PerMinute" in violation["quotaId"] and ("Token" in violation["quotaId"]) == of_tokens
    ]
    return min(filter(None, values), default=None)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < 1e12 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
