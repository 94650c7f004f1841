"""What a request for content asks, read as a proto3 parser reads it: camelCase and snake_case alike."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_NAMED_BY_USERS = ("properties", "$defs")
_NOT_CONTENT = ("serviceTier", "labels", "store", "model")
_IMAGE_IN_TOKENS = 258
_SMALL_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request for content.

    Attributes:
        prompt: The text of the last turn: what tests know a request by.
        fingerprint: Of contents and settings, whatever the model, the tier and the lane.
        tokens: Of everything sent: about four characters each, 258 an image.
        tier: "flex", or "standard".
        schema: What the answer must fit, or None.
        form: The MIME type asked for: "application/json", "text/x.enum" or plain text.
        wants_image: Whether the answer is a picture.
        max_tokens: The longest answer, tokens, or None.
        may_think: Whether thoughts are allowed.
    """

    prompt: str
    fingerprint: str
    tokens: int
    tier: str
    schema: dict[str, Any] | None
    form: str
    wants_image: bool
    max_tokens: int | None
    may_think: bool


def read_bytes(content: bytes) -> Asked | None:
    """Read a request for content from a body; small ones are remembered, for each is read several times."""
    return _read_small(content) if len(content) < _SMALL_BYTES else _read(content)


def _read(content: bytes) -> Asked | None:
    try:
        return read(json.loads(content))
    except ValueError:
        return None


_read_small = lru_cache(maxsize=256)(_read)


def read(body: object) -> Asked | None:
    """Read a request for content; None for anything else."""
    whole = camel(body)
    if not isinstance(whole, dict) or not isinstance(whole.get("contents"), list) or not whole["contents"]:
        return None
    settings = whole.get("generationConfig") or {}
    kept = {name: value for name, value in whole.items() if name not in _NOT_CONTENT}
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return Asked(
        prompt=_text(whole["contents"][-1]),
        fingerprint=hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest(),
        tokens=max(1, _tokens(whole["contents"]) + _tokens(whole.get("systemInstruction"))),
        tier=str(whole.get("serviceTier", "standard")).lower(),
        schema=settings.get("responseSchema") or settings.get("responseJsonSchema"),
        form=settings.get("responseMimeType") or "text/plain",
        wants_image="IMAGE" in settings.get("responseModalities", ()),
        max_tokens=settings.get("maxOutputTokens"),
        may_think=settings.get("thinkingConfig", {}).get("thinkingBudget") != 0,
    )


def camel(value: object, *, are_names: bool = False) -> Any:
    """Return JSON with every field in camelCase; names that users gave, those of properties, stay as they are."""
    if isinstance(value, list):
        return [camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    named = {name if are_names else _camel(name): inner for name, inner in value.items()}
    return {name: camel(inner, are_names=not are_names and name in _NAMED_BY_USERS) for name, inner in named.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _parts(content: object) -> list[dict[str, Any]]:
    parts = content.get("parts") if isinstance(content, dict) else None
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _text(content: object) -> str:
    return "\n".join(str(part["text"]) for part in _parts(content) if "text" in part)


def _tokens(contents: object) -> int:
    total = 0
    for content in contents if isinstance(contents, list) else [contents]:
        for part in _parts(content):
            total += -(-len(str(part["text"])) // 4) if "text" in part else _IMAGE_IN_TOKENS
    return total
