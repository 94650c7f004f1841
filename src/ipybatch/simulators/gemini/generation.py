"""One generation by the simulated Gemini: what a request asks, and the made-up answer.

An answer follows from the request, the seed and the number of times it was asked.  A prompt may ask for a flawed
answer by a mark, ``[[safety]]``, or ``[[safety:2]]`` for its first two requests; a share of all prompts gets one by the
seed:

    blocked                           no candidates, promptFeedback says why
    safety, max_tokens, recitation    a candidate without parts
    empty                             a candidate with the text ""
    bad_json                          JSON of another type than the schema's
    cut, cut_stop                     the first half of the text, with MAX_TOKENS or with STOP
    fenced, trailing, doubled         the text in ```json, with words after it, or twice
    malformed_call                    a candidate without content, MALFORMED_FUNCTION_CALL
    no_parts                          a candidate without parts, STOP
    no_usage                          a sound answer without usageMetadata
    total_only                        a sound answer whose usageMetadata has nothing but the total
    uncapped                          a sound answer whose thoughts are not counted in maxOutputTokens, as they ought
    extras                            a sound answer with all of `_EXTRAS` and an image that nobody asked for
    error_body                        status 200 with the body of an error 503; not billed
    invalid                           the request itself is refused with 400 (by its mark only)

All but the last two are billed, as by the real service, ``no_usage`` too; `ledger` keeps the record.  maxOutputTokens
bounds thoughts and answer together.  Sound in the input has tokens of its own modality, and a request with the tool
googleSearch gets the queries and sources of a search.

Source: https://ai.google.dev/api/generate-content, read 2026-11-22; answers cut, fenced and doubled as reported in
public issues, read 2026-11-30.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any

from ipybatch.simulators.faults import check, uniforms

from .bill import BilledTokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAMED_BY_USERS = ("properties", "$defs")
_NOT_CONTENT = ("serviceTier", "labels", "store", "model")
_IMAGE_IN_TOKENS = 258
_SMALL_BYTES = 65_536
_FILE = re.compile(r"files/[^/:?]+$")
_MARK = re.compile(r"\[\[(\w+)(?::(\d+))?\]\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRequest:
    """One request for content.

    Attributes:
        prompt: The text of the last turn; identifies the request in tests.
        fingerprint: Hash of contents and settings; the same for every model, tier and lane.
        tokens: Input tokens: one per four characters, 258 per image or file, one per eight bytes of sound in base64.
        audio: Those of sound.
        drawn: Those of images.
        searches: Whether it may search.
        tier: "flex", or "standard".
        schema: The schema of the answer, or None.
        form: The MIME type of the answer: "application/json", "text/x.enum" or plain text.
        wants_image: Whether the answer is a picture.
        max_tokens: Maximum length of the answer, tokens, or None.
        may_think: Whether thinking is allowed.
        files: The names of the files that it refers to, ``files/...``.
    """

    prompt: str
    fingerprint: str
    tokens: int
    audio: int
    drawn: int
    searches: bool
    tier: str
    schema: dict[str, Any] | None
    form: str
    wants_image: bool
    max_tokens: int | None
    may_think: bool
    files: tuple[str, ...] = ()


def read_bytes(content: bytes) -> ContentRequest | None:
    """Parse a request for content from a body; cached for small bodies, which are parsed several times."""
    return _read_small(content) if len(content) < _SMALL_BYTES else _read(content)


def _read(content: bytes) -> ContentRequest | None:
    try:
        return read(json.loads(content))
    except ValueError:
        return None


_read_small = lru_cache(maxsize=256)(_read)


def read(body: object) -> ContentRequest | None:
    """Parse a request for content; None for anything else."""
    whole = camel(body)
    if not isinstance(whole, dict) or not isinstance(whole.get("contents"), list) or not whole["contents"]:
        return None
    settings = whole.get("generationConfig") or {}
    kept = {name: value for name, value in whole.items() if name not in _NOT_CONTENT}
    parts = [part for content in [*whole["contents"], whole.get("systemInstruction")] for part in _parts(content)]
    audio, drawn = _tokens(parts, "audio"), _tokens(parts, "image")
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return ContentRequest(
        prompt="\n".join(str(part["text"]) for part in _parts(whole["contents"][-1]) if "text" in part),
        fingerprint=hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest(),
        tokens=max(1, audio + drawn + _tokens(parts, "text")),
        audio=audio,
        drawn=drawn,
        searches=any("googleSearch" in tool for tool in whole.get("tools") or () if isinstance(tool, dict)),
        tier=str(whole.get("serviceTier", "standard")).lower(),
        schema=settings.get("responseSchema") or settings.get("responseJsonSchema"),
        form=settings.get("responseMimeType") or "text/plain",
        wants_image="IMAGE" in settings.get("responseModalities", ()),
        max_tokens=settings.get("maxOutputTokens"),
        may_think=settings.get("thinkingConfig", {}).get("thinkingBudget") != 0,
        files=tuple(_files(whole["contents"])),
    )


def camel(value: object, *, are_names: bool = False) -> Any:
    """Return JSON with every field in camelCase; names of properties, which users chose, are unchanged."""
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


def _files(contents: list[object]) -> Iterator[str]:
    for content in contents:
        for part in _parts(content):
            found = _FILE.search(str(part["fileData"].get("fileUri"))) if "fileData" in part else None
            if found:
                yield found[0]


def _tokens(parts: list[dict[str, Any]], modality: str) -> int:
    """Return the input tokens of text, images or sound in these parts; files of another kind count as text."""
    total = 0
    for part in parts:
        data = part.get("inlineData") or part.get("fileData") or {}
        kind = str(data.get("mimeType")).partition("/")[0] if data else "text"
        if (kind if kind in ("audio", "image") else "text") != modality:
            continue
        if modality == "audio" and "data" in data:
            total += -(-len(str(data["data"])) // 8)
        else:
            total += -(-len(str(part["text"])) // 4) if "text" in part else _IMAGE_IN_TOKENS
    return total


_CUT = ("cut", "cut_stop")
_SPOILT = {"fenced": "```json\n{}\n```", "trailing": "{}\n\nLet me know if anything is missing.", "doubled": "{0}\n{0}"}
_CONTENTLESS: dict[str, dict[str, Any]] = {
    **{
        flaw: {"content": {"role": "model"}, "finishReason": flaw.upper()}
        for flaw in ("safety", "max_tokens", "recitation")
    },
    "malformed_call": {
        "finishReason": "MALFORMED_FUNCTION_CALL",
        "finishMessage": "Malformed function call: print(default_api.answer(",
    },
    "no_parts": {"content": {"role": "model"}, "finishReason": "STOP"},
}
_SOUND = ("no_usage", "total_only", "uncapped", "extras")
FLAWS = ("blocked", *_CONTENTLESS, "empty", "bad_json", *_CUT, *_SPOILT, *_SOUND, "error_body")
_EXTRAS: dict[str, Any] = {  # of a candidate
    "groundingMetadata": {"groundingChunks": [{"web": {"uri": "https://stars.example/1", "title": "Stars"}}]},
    "citationMetadata": {"citationSources": [{"uri": "https://stars.example/2", "startIndex": 0, "endIndex": 9}]},
}
_EXTRA_PARTS: list[dict[str, Any]] = [
    {"text": "First I think.", "thought": True},
    {"functionCall": {"name": "measure", "args": {"star": 1}}},
    {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
]
_ERROR_BODY = {"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}
IMAGE_TOKENS = 1290


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The made-up answers of the service.

    Attributes:
        seed: Same seed, same answers.
        output_tokens: Mean length of a text, tokens, >= 1; each is between 0.5 and 1.5 times as long.
        thought_tokens: Thinking tokens of an answer, >= 0; none with a thinking budget of 0.
        cached_share: Share of each prompt that is reported and billed as cached, [0, 1].
        flaws: Share of prompts for each flaw, ``{"safety": 0.01}``; together at most 1.

    Raises:
        ValueError: A field is outside its range.
    """

    seed: int = 0
    output_tokens: int = 60
    thought_tokens: int = 0
    cached_share: float = 0.0
    flaws: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check("output_tokens", self.output_tokens >= 1, ">= 1", self.output_tokens)
        check("thought_tokens", self.thought_tokens >= 0, ">= 0", self.thought_tokens)
        check("cached_share", 0 <= self.cached_share <= 1, "in [0, 1]", self.cached_share)
        check("answer_faults", self.flaws.keys() <= set(FLAWS), f"keyed by {', '.join(FLAWS)}", dict(self.flaws))
        check("the sum of answer_faults", 0 <= sum(self.flaws.values()) <= 1 + 1e-9, "in [0, 1]", dict(self.flaws))

    def flaw(self, asked: ContentRequest, nth: int) -> str | None:
        """Return the flaw of the ``nth`` answer to this request, or None."""
        for name, times in _MARK.findall(asked.prompt):
            if name in FLAWS and nth <= int(times or nth):
                return str(name)
        draw = uniforms("flaw", self.seed, asked.prompt, nth)[0]
        for name, share in self.flaws.items():
            if draw < share:
                return name
            draw -= share
        return None

    def reply(self, asked: ContentRequest, model: str, nth: int) -> tuple[dict[str, Any], BilledTokens]:
        """Return the body of the ``nth`` answer to this request, and its billed tokens."""
        flaw = self.flaw(asked, nth)
        if flaw == "error_body":
            return {"error": _ERROR_BODY}, BilledTokens()
        out = 0
        grounding: dict[str, Any] = self._grounding(asked) if asked.searches and flaw != "blocked" else {}
        thoughts = self.thought_tokens if asked.may_think and flaw != "blocked" else 0
        left = asked.max_tokens
        if left is not None and flaw != "uncapped":
            thoughts = min(thoughts, left)
            left -= thoughts
        if flaw == "blocked":
            body: dict[str, Any] = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        elif flaw in _CONTENTLESS:
            body = {"candidates": [{**_CONTENTLESS[flaw], "index": 0, **grounding}]}
        elif left == 0 and not asked.wants_image:
            body = {"candidates": [{**_CONTENTLESS["max_tokens"], "index": 0, **grounding}]}
        else:
            parts, out, reason = self._parts(asked, flaw, left)
            if flaw == "extras":
                image = {"inlineData": {"mimeType": "image/png", "data": picture(Random(asked.prompt))}}
                parts, grounding = [*_EXTRA_PARTS, *parts, image], {**_EXTRAS, **grounding}
            content = {"role": "model", "parts": parts}
            body = {"candidates": [{"content": content, "finishReason": reason, "index": 0, **grounding}]}
        billed = BilledTokens(
            prompt=asked.tokens,
            out=out,
            thoughts=thoughts,
            cached=int(asked.tokens * self.cached_share),
            audio=asked.audio,
            drawn=asked.drawn,
            image=out if asked.wants_image else 0,
            queries=len(grounding.get("groundingMetadata", {}).get("webSearchQueries", (...,))) if grounding else 0,
        )
        told = {} if flaw == "no_usage" else {"usageMetadata": _usage(billed, is_total_only=flaw == "total_only")}
        digest = f"{asked.fingerprint[:16]}{nth:04x}"
        return body | told | {"modelVersion": model, "responseId": digest}, billed

    def _grounding(self, asked: ContentRequest) -> dict[str, Any]:
        rng = Random(f"search {self.seed} {asked.prompt}")
        queries = [f"{' '.join(asked.prompt.split())[:40]} {rng.choice(_WORDS)} {number}" for number in range(2)]
        sources = [{"web": {"uri": "https://example.org/star", "title": "example.org"}}]
        found = {"webSearchQueries": queries[: rng.randint(1, 2)], "groundingChunks": sources}
        return {"groundingMetadata": found}

    def _parts(
        self, asked: ContentRequest, flaw: str | None, limit: int | None
    ) -> tuple[list[dict[str, Any]], int, str]:
        if flaw == "empty":
            return [{"text": ""}], 0, "STOP"
        rng = Random(f"answer {self.seed} {asked.prompt}")
        if asked.wants_image:
            image = {"inlineData": {"mimeType": "image/png", "data": picture(rng)}}
            return [image], IMAGE_TOKENS, "STOP"
        if flaw == "bad_json":
            return _cut(misfit(asked.schema), limit)
        if asked.form == "text/x.enum":
            text = str(fitting(asked.schema, rng, asked.prompt))
        elif asked.form == "application/json":
            text = json.dumps(fitting(asked.schema, rng, asked.prompt), ensure_ascii=False)
        else:
            text = self.text(asked.prompt)
        if flaw in _CUT:
            half = text[: min(len(text) // 2, len(text) if limit is None else limit * 4)]
            return [{"text": half}], tokens_of(half), "MAX_TOKENS" if flaw == "cut" else "STOP"
        return _cut(_SPOILT[flaw].format(text) if flaw in _SPOILT else text, limit)

    def text(self, prompt: str) -> str:
        """Return the text for a prompt: it starts with the prompt's first words."""
        rng = Random(f"answer {self.seed} {prompt}")
        length = max(1, round(self.output_tokens * rng.uniform(0.5, 1.5)))
        return words(rng, prompt, length * 4)


def tokens_of(text: str) -> int:
    """Return the tokens of a text: one per four characters."""
    return math.ceil(len(text) / 4)


def _usage(billed: BilledTokens, *, is_total_only: bool) -> dict[str, Any]:
    total = {"totalTokenCount": billed.prompt + billed.out + billed.thoughts}
    if is_total_only:
        return total
    counts = {
        "promptTokenCount": billed.prompt,
        "candidatesTokenCount": billed.out,
        "thoughtsTokenCount": billed.thoughts,
        "cachedContentTokenCount": billed.cached,
    }
    # zero is absent, as protobuf has it
    usage: dict[str, Any] = {name: count for name, count in counts.items() if count}
    modalities = {"TEXT": billed.prompt - billed.audio - billed.drawn, "IMAGE": billed.drawn, "AUDIO": billed.audio}
    usage["promptTokensDetails"] = [
        {"modality": modality, "tokenCount": count} for modality, count in modalities.items() if count
    ]
    if billed.image:
        usage["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": billed.image}]
    return usage | total


def _cut(text: str, limit: int | None) -> tuple[list[dict[str, Any]], int, str]:
    if limit is not None and tokens_of(text) > limit:
        return [{"text": text[: limit * 4]}], limit, "MAX_TOKENS"
    return [{"text": text}], tokens_of(text), "STOP"


_WORDS = (
    *("amber", "balance", "careful", "early", "fresh", "gentle", "honest", "island", "journey", "kitchen", "lantern"),
    *("morning", "north", "open", "paper", "quiet", "river", "simple", "table", "under", "valley", "winter", "yellow"),
)
_SHORTEST = 5  # letters and a space
_DEEPEST = 8  # a schema that refers to itself ends here
_PIXELS = 8


def words(rng: Random, prompt: str, length: int) -> str:
    """Return ``length`` characters, or more, that start with the first words of the prompt."""
    about = f"On {' '.join(prompt.split())[:60]}:"
    more = rng.choices(_WORDS, k=length // _SHORTEST)
    return f"{' '.join([about, *more])[: max(length - 1, len(about))]}."


def fitting(schema: Mapping[str, Any] | None, rng: Random, prompt: str) -> Any:
    """Return a value that fits an OpenAPI or JSON schema; an object when there is none."""
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
    formats = {"date-time": "2026-01-02T03:04:05Z", "date": "2026-01-02", "time": "03:04:05", "uuid": f"{0:032x}"}
    if schema.get("format") in formats:
        return formats[schema["format"]]
    text = words(rng, prompt, max(24, int(schema.get("minLength", 0))))
    return text[: int(schema.get("maxLength", len(text)))]
