"""What the simulated Gemini answers: everything follows from the request, the seed and the nth time it is asked.

A prompt may ask for trouble by a mark of its own, ``[[safety]]``; a share of all prompts meets it by the seed:

    blocked                           no candidates, promptFeedback says why
    safety, max_tokens, recitation    a candidate without parts
    empty                             a candidate with the text ""
    bad_json                          JSON of another type than the schema's
    invalid                           the request itself is refused with 400 (by its mark only)

All but ``invalid`` are billed, as the real ones are.

Source: https://ai.google.dev/api/generate-content, read 2026-11-22.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from .faults import uniforms
from .gemini_content import fitting, misfit, picture, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .gemini_requests import Asked

FLAWS = ("blocked", "safety", "max_tokens", "recitation", "empty", "bad_json")
IMAGE_TOKENS = 1290


class Billed(NamedTuple):
    """The tokens of one generation: ``prompt`` includes cached ones, ``out`` excludes thoughts."""

    prompt: int = 0
    out: int = 0
    thoughts: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How the service answers.

    Attributes:
        seed: Same seed, same answers.
        output_tokens: Length of a usual text, tokens, >= 1; each is between half and one and a half of it.
        thought_tokens: Thoughts of a model that thinks, tokens, >= 0; none with a thinking budget of 0.
        cached_share: Share of each prompt that is told, and billed, as cached, [0, 1].
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
        for name, ok, allowed, value in (
            ("output_tokens", self.output_tokens >= 1, ">= 1", self.output_tokens),
            ("thought_tokens", self.thought_tokens >= 0, ">= 0", self.thought_tokens),
            ("cached_share", 0 <= self.cached_share <= 1, "in [0, 1]", self.cached_share),
            ("answer_faults", self.flaws.keys() <= set(FLAWS), f"keyed by {', '.join(FLAWS)}", dict(self.flaws)),
            ("the sum of answer_faults", 0 <= sum(self.flaws.values()) <= 1 + 1e-9, "in [0, 1]", dict(self.flaws)),
        ):
            if not ok:
                msg = f"{name} must be {allowed}, got {value!r}"
                raise ValueError(msg)

    def flaw(self, asked: Asked, nth: int) -> str | None:
        """Return what is wrong with the ``nth`` answer to this request, or None."""
        for name in FLAWS:
            if f"[[{name}]]" in asked.prompt:
                return name
        draw = uniforms("flaw", self.seed, asked.prompt, nth)[0]
        for name, share in self.flaws.items():
            if draw < share:
                return name
            draw -= share
        return None

    def reply(self, asked: Asked, model: str, nth: int) -> tuple[dict[str, Any], Billed]:
        """Return the body of the ``nth`` answer to this request, and what is billed for it."""
        flaw = self.flaw(asked, nth)
        if flaw == "blocked":
            body: dict[str, Any] = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
            out = 0
        elif flaw in ("safety", "max_tokens", "recitation"):
            body = {"candidates": [{"content": {"role": "model"}, "finishReason": flaw.upper(), "index": 0}]}
            out = 0
        else:
            parts, out, reason = self._parts(asked, flaw)
            body = {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": reason, "index": 0}]}
        billed = self._billed(asked, out, thinks=flaw != "blocked")
        digest = f"{asked.fingerprint[:16]}{nth:04x}"
        return body | {"usageMetadata": _usage(billed, asked), "modelVersion": model, "responseId": digest}, billed

    def _parts(self, asked: Asked, flaw: str | None) -> tuple[list[dict[str, Any]], int, str]:
        if flaw == "empty":
            return [{"text": ""}], 0, "STOP"
        rng = Random(f"answer {self.seed} {asked.prompt}")
        if asked.wants_image:
            image = {"inlineData": {"mimeType": "image/png", "data": picture(rng)}}
            return [image], IMAGE_TOKENS, "STOP"
        if flaw == "bad_json":
            return _cut(misfit(asked.schema), asked)
        if asked.form == "text/x.enum":
            return _cut(str(fitting(asked.schema, rng, asked.prompt)), asked)
        if asked.form == "application/json":
            value = fitting(asked.schema, rng, asked.prompt)
            return _cut(json.dumps(value, ensure_ascii=False), asked)
        return _cut(self.text(asked.prompt), asked)

    def text(self, prompt: str) -> str:
        """Return the usual text for a prompt: it starts with the prompt's own first words."""
        rng = Random(f"answer {self.seed} {prompt}")
        length = max(1, round(self.output_tokens * rng.uniform(0.5, 1.5)))
        return words(rng, prompt, length * 4)

    def _billed(self, asked: Asked, out: int, *, thinks: bool) -> Billed:
        thoughts = self.thought_tokens if thinks and asked.may_think else 0
        return Billed(asked.tokens, out, thoughts, int(asked.tokens * self.cached_share))


def tokens_of(text: str) -> int:
    """Return the tokens of a text: about four characters each."""
    return math.ceil(len(text) / 4)


def _cut(text: str, asked: Asked) -> tuple[list[dict[str, Any]], int, str]:
    limit = asked.max_tokens
    if limit is not None and tokens_of(text) > limit:
        return [{"text": text[: limit * 4]}], limit, "MAX_TOKENS"
    return [{"text": text}], tokens_of(text), "STOP"


def _usage(billed: Billed, asked: Asked) -> dict[str, Any]:
    total = billed.prompt + billed.out + billed.thoughts
    usage: dict[str, Any] = {
        "promptTokenCount": billed.prompt,
        "candidatesTokenCount": billed.out,
        "thoughtsTokenCount": billed.thoughts,
        "cachedContentTokenCount": billed.cached,
    }
    usage = {name: count for name, count in usage.items() if count}  # zero is absent, as protobuf has it
    usage["totalTokenCount"] = total
    usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": billed.prompt}]
    if asked.wants_image and billed.out:
        usage["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": billed.out}]
    return usage
