"""Answers: what a reply of generateContent holds, and whether it is one.

    promptFeedback.blockReason, finishReason SAFETY ...   blocked
    finishReason MAX_TOKENS ...                           cut
    nothing in it, or no image where one was asked for    empty
    text or an image                                      ok

All four are billed, so their tokens are always read.  What is no reply at all
(half a JSON, another shape) is worth another try.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec

from ipybatch.errors import Transient

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
    """What one call is billed for.

    Attributes:
        in_: Prompt and tool use, the cached ones included.
        out: The answer, without thoughts.
        thoughts: Billed as output.
        cached: Of ``in_``, those that came from a cache.
        image: Of ``out``, those of images.
    """

    in_: int = 0
    out: int = 0
    thoughts: int = 0
    cached: int = 0
    image: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for one prompt.

    Attributes:
        verdict: "ok", "blocked", "cut" or "empty".
        reason: Why it is not ok, in one line; "" when it is.
        text: All text without thoughts; what there is of it when it was cut.
        images: Type and bytes of each.
        finish_reason: The service's word; "" when it gave none.
        block_reason: Why the prompt was blocked; "" when it was not.
        tokens: What is billed.
        model_version: The model that answered; "" when it does not say.
    """

    verdict: Verdict
    reason: str = ""
    text: str = ""
    images: tuple[tuple[str, bytes], ...] = ()
    finish_reason: str = ""
    block_reason: str = ""
    tokens: Tokens = Tokens()
    model_version: str = ""


def read_answer(body: Any, *, image: bool = False) -> Answer:
    """Return what a reply of generateContent, as JSON, holds.

    Args:
        image: Whether an image was asked for: without one the answer is empty.

    Raises:
        Transient: It is no reply of generateContent.
    """
    reply = _convert(body)
    if not reply.candidates and reply.prompt_feedback is None and reply.usage_metadata is None:
        msg = "Gemini answered without an answer: no candidates, no block reason, no usage"
        raise Transient(msg)
    candidate = reply.candidates[0] if reply.candidates else _Candidate()
    parts = (candidate.content and candidate.content.parts) or []
    text = "".join([part.text for part in parts if part.text and not part.thought])
    blobs = [part.inline_data for part in parts if part.inline_data is not None and not part.thought]
    images = tuple((blob.mime_type or "", _bytes(blob.data)) for blob in blobs if blob.is_image)
    feedback = reply.prompt_feedback or _Feedback()
    tokens = _tokens(reply.usage_metadata or _Usage())
    verdict, reason = _judge(candidate, feedback, _Seen(bool(text.strip()), bool(images), image, tokens))
    return Answer(
        verdict=verdict,
        reason=reason,
        text=_storable(text),
        images=images,
        finish_reason=_storable(candidate.finish_reason or ""),
        block_reason=_storable(feedback.block_reason or ""),
        tokens=tokens,
        model_version=_storable(reply.model_version or ""),
    )


def result_of(
    answer: Answer, *, usd: Decimal | float | None = None, data: Any = msgspec.UNSET, files: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the result columns of an item.

    Args:
        usd: What it cost; None when the model has no price.
        data: What the answer says in the terms of a schema, in place of its text.
        files: Where its images are.

    Returns:
        text or data, file (files, when there are several), tokens_in, tokens_out, tokens_thoughts, usd, model and
        finish_reason.
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
    }


class _Wire(msgspec.Struct, rename="camel"):
    """A part of a reply: fields may be absent or null."""


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
    candidates_tokens_details: list[_Modality] | None = None


class _Reply(_Wire):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None


class _Seen(msgspec.Struct, frozen=True):
    """What came: whether text, whether images, whether an image was asked for, and the tokens."""

    text: bool
    image: bool
    image_asked: bool
    tokens: Tokens


def _convert(body: Any) -> _Reply:
    if isinstance(body, dict):
        try:
            return msgspec.convert(body, _Reply, strict=False)
        except (msgspec.ValidationError, RecursionError) as error:
            msg = f"Gemini answered with a reply that is not one of generateContent: {_line(str(error))}"
            raise Transient(msg) from None
    msg = f"Gemini answered with a {type(body).__name__} instead of a reply of generateContent"
    raise Transient(msg)


def _judge(candidate: _Candidate, feedback: _Feedback, seen: _Seen) -> tuple[Verdict, str]:
    finish = candidate.finish_reason or ""
    came = seen.text or seen.image
    if feedback.block_reason and not came:
        told = _told(feedback.block_reason, feedback.block_reason_message, feedback.safety_ratings)
        return "blocked", f"prompt blocked: {told}"
    told = _told(finish or "no finish reason", candidate.finish_message, candidate.safety_ratings)
    if finish in _BLOCKED:
        return "blocked", f"answer blocked: {told}"
    if finish == "MAX_TOKENS":
        return "cut", f"answer cut off after {seen.tokens.out + seen.tokens.thoughts} tokens{_advice(seen)}"
    if not came or finish == "NO_IMAGE" or (seen.image_asked and not seen.image):
        return "empty", f"{'nothing' if not came else 'no image'} came: {told}{_calls(candidate)}"
    return ("ok", "") if finish in _WHOLE else ("cut", f"answer stopped early: {told}")


def _advice(seen: _Seen) -> str:
    if seen.tokens.thoughts and not seen.text:
        return ", all of them thoughts: raise max_output_tokens, or lower thinking_config"
    return ": raise max_output_tokens"


def _calls(candidate: _Candidate) -> str:
    parts = (candidate.content and candidate.content.parts) or []
    called = any(part.function_call is not None for part in parts)
    return "; it asks for a function call, and functions are not called here" if called else ""


def _told(word: str, message: str | None, ratings: list[_Rating] | None) -> str:
    harms = [rating.category for rating in ratings or () if rating.blocked and rating.category]
    return _line(": ".join([word, *([", ".join(harms)] if harms else []), *([message] if message else [])]))


def _tokens(usage: _Usage) -> Tokens:
    details = usage.candidates_tokens_details or ()
    return Tokens(
        in_=(usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
        out=usage.candidates_token_count or 0,
        thoughts=usage.thoughts_token_count or 0,
        cached=usage.cached_content_token_count or 0,
        image=sum(each.token_count or 0 for each in details if each.modality == "IMAGE"),
    )


def _bytes(data: str | None) -> bytes:
    try:  # the client gives the alphabet for addresses, the service the plain one
        return base64.b64decode((data or "").replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        msg = "Gemini answered with an image that is no base64, or breaks off"
        raise Transient(msg) from None


def _line(text: str) -> str:
    line = " ".join(_storable(text).split())
    return line if len(line) <= _LINE else line[: _LINE - 3] + "..."


def _storable(text: str) -> str:
    """Return text without half surrogate pairs, which no journal could hold."""
    return text if text.isascii() else text.encode(errors="replace").decode()
