"""Made-up content: words, JSON that fits a schema or does not, and a small picture."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

_WORDS = (
    *("amber", "balance", "careful", "early", "fresh", "gentle", "honest", "island", "journey", "kitchen", "lantern"),
    *("morning", "north", "open", "paper", "quiet", "river", "simple", "table", "under", "valley", "winter", "yellow"),
)
_SHORTEST = 5  # letters and a space
_DEEPEST = 8  # a schema that refers to itself ends here
_PIXELS = 8


def words(rng: Random, prompt: str, length: int) -> str:
    """Return ``length`` characters that start with the first words of the prompt, or these alone if they are more."""
    about = f"On {' '.join(prompt.split())[:60]}:"
    more = rng.choices(_WORDS, k=length // _SHORTEST)
    return f"{' '.join([about, *more])[: max(length - 1, len(about))]}."


def fitting(schema: Mapping[str, Any] | None, rng: Random, prompt: str) -> Any:
    """Return a value that fits a schema, in OpenAPI's words or in JSON Schema's; without one an object."""
    if not schema:
        return {"answer": words(rng, prompt, 40)}
    return _value(schema, rng, prompt, schema, 0)


def misfit(schema: Mapping[str, Any] | None) -> str:
    """Return JSON of another type than the schema's."""
    return '["not", "what", "was", "asked"]' if _type(schema or {}) == "object" else json.dumps({"not": "asked"})


def picture(rng: Random) -> str:
    """Return a valid PNG of one colour, in base64."""
    row = b"\0" + bytes(rng.randrange(256) for _ in range(3)) * _PIXELS
    header = struct.pack(">2I5B", _PIXELS, _PIXELS, 8, 2, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(row * _PIXELS)), _chunk(b"IEND", b""))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    return str(kind).lower()


def _value(schema: Mapping[str, Any], rng: Random, prompt: str, whole: Mapping[str, Any], depth: int) -> Any:
    schema = _resolved(schema, whole)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    kind = _type(schema)
    if kind == "object":
        return {
            name: _value(inner, rng, prompt, whole, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if depth < _DEEPEST or name in schema.get("required", ())
        }
    if kind == "array":
        low, high = int(schema.get("minItems", 1)), int(schema.get("maxItems", 3))
        count = rng.randint(low, max(low, min(high, low + 2))) if depth < _DEEPEST else low
        return [_value(schema.get("items", {}), rng, prompt, whole, depth + 1) for _ in range(count)]
    return _scalar(kind, schema, rng, prompt)


def _resolved(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references and take the first of several choices that is not null."""
    while True:
        choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if "$ref" in schema:
            schema = whole.get("$defs", {})[str(schema["$ref"]).rpartition("/")[2]]
        elif choices:
            schema = next((one for one in choices if str(one.get("type")).lower() != "null"), choices[0])
        else:
            return schema


def _scalar(kind: str, schema: Mapping[str, Any], rng: Random, prompt: str) -> Any:
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 101) - 1)
        value = rng.randint(int(low), max(int(low), int(high)))
        return value if kind == "integer" else float(min(max(value, low), high))
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    return _string(schema, rng, prompt)


def _string(schema: Mapping[str, Any], rng: Random, prompt: str) -> str:
    formats = {"date-time": "2026-01-02T03:04:05Z", "date": "2026-01-02", "time": "03:04:05", "uuid": f"{0:032x}"}
    if schema.get("format") in formats:
        return formats[schema["format"]]
    text = words(rng, prompt, max(24, int(schema.get("minLength", 0))))
    return text[: int(schema.get("maxLength", len(text)))]
