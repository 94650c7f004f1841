"""Whole replies: what comes beside the text and images of an answer, its name in a row, and the reply as it is kept.

    candidate    groundingMetadata, citationMetadata, ...        grounding, citations, ...
    parts        functionCall, executableCode, thoughts, ...     function calls, executed code, thoughts, ...

What is not known here has its own name, so nothing that the service adds is left out unsaid.  Ratings, counts and
signatures are no content and have no name.

Source: https://ai.google.dev/api/generate-content#v1beta.Candidate and
https://ai.google.dev/api/caching#Part (2026-11-22).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ipybatch.engine.data.outcome import encode_result
from ipybatch.errors import Permanent
from ipybatch.gemini.service.reply import Answer, decoded, storable

IMAGES = "images"
_OF_CANDIDATE = frozenset(
    {"content", "finishReason", "finishMessage", "index", "safetyRatings", "tokenCount", "avgLogprobs"}
)
_OF_PART = frozenset({"text", "thought", "thoughtSignature", "inlineData", "videoMetadata", "mediaResolution"})
_NAMES = {
    "groundingMetadata": "grounding",
    "groundingAttributions": "grounding",
    "citationMetadata": "citations",
    "urlContextMetadata": "addresses read",
    "logprobsResult": "logprobs",
    "functionCall": "function calls",
    "functionResponse": "function calls",
    "executableCode": "executed code",
    "codeExecutionResult": "executed code",
    "fileData": "files",
}
_LONGEST = 40  # letters of a name


def names_beside(body: Mapping[str, Any]) -> list[str]:
    """Return the names of what a reply of generateContent holds beside the text and images of its answer."""
    found: list[str] = []
    for number, candidate in enumerate(_dicts(body.get("candidates"))):
        if number:
            found.append("other answers")
            break
        found += [_NAMES.get(name, name) for name, value in candidate.items() if value and name not in _OF_CANDIDATE]
        for part in _parts(candidate):
            if len(part) > 1 or "text" not in part:
                found += _names_of(part)
    return list(dict.fromkeys([storable(name)[:_LONGEST] for name in found])) if found else found


def _names_of(part: Mapping[str, Any]) -> Iterator[str]:
    if part.get("thought"):
        yield "thoughts"
        return
    if (blob := part.get("inlineData")) and not _is_image(blob):
        yield str((isinstance(blob, dict) and blob.get("mimeType")) or "data").partition("/")[0]
    yield from (_NAMES.get(name, name) for name, value in part.items() if value is not None and name not in _OF_PART)


def drafts(body: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """Return the images in a reply's thoughts: MIME type and content of each, as in `Answer.images`."""
    return [(str(part["inlineData"]["mimeType"]), data) for part, data in _image_parts(body) if part.get("thought")]


def keep_reply(answer: Answer, files: Sequence[str]) -> dict[str, Any] | None:
    """Return the reply of an answer as a journal can hold it, with the paths of images in place of their content.

    Args:
        files: Paths of its images, then of its `drafts`; () if they are not saved.

    Returns:
        A copy; None if no journal can hold it.
    """
    try:
        body: dict[str, Any] = _copy(answer.body)
        parts = [part for part, _ in _image_parts(body)]
        parts.sort(key=lambda part: bool(part.get("thought")))
        for number, part in enumerate(parts):
            path = files[number] if number < len(files) else None
            part["inlineData"] = {"mimeType": part["inlineData"]["mimeType"], "file": path}
        encode_result(body)
    except (Permanent, RecursionError):
        return None
    return body


def _image_parts(body: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the parts that are images, with their content; one that cannot be read has no file."""
    for candidate in _dicts(body.get("candidates"))[:1]:
        for part in _parts(candidate):
            if _is_image(part.get("inlineData")):
                with suppress(Permanent):
                    yield part, decoded(part["inlineData"]["data"])


def _parts(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = candidate.get("content")
    return _dicts(content.get("parts")) if isinstance(content, dict) else []


def _dicts(listed: Any) -> list[dict[str, Any]]:
    """Return what is an object of a list: a reply may hold anything anywhere."""
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _is_image(blob: Any) -> bool:
    return isinstance(blob, dict) and bool(blob.get("data")) and str(blob.get("mimeType")).startswith("image/")


def _copy(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_copy(each) for each in value]
    return {storable(name): _copy(each) for name, each in value.items()} if isinstance(value, dict) else value
