"""Tokens of a call: the one estimate for budgets, quotes, estimates, pacing and size checks.

    text of the prompt and of earlier turns     4 characters per token
    system instruction                          4 characters per token
    response schema, tools                      4 characters of their JSON per token
    image, or another file                      258 each, the size of a small image or of one page of a PDF
    cached content                              0: its size does not follow from its name

An answer is expected to have ``output_tokens``, at most ``max_output_tokens``, and 1,290 for each image.

Source: https://ai.google.dev/gemini-api/docs/tokens and https://ai.google.dev/gemini-api/docs/pricing (2026-11-22).  A
large image has several tiles of 258 tokens each; an answered image of 1024 x 1024 has 1,290.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.errors import InputError
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.api import count_tokens
from ipybatch.gemini.service.reply import Tokens
from ipybatch.gemini.service.request_config import RequestConfig

CHARACTERS_PER_TOKEN = 4
INPUT_IMAGE_TOKENS = 258
OUTPUT_IMAGE_TOKENS = 1290
OUTPUT_TOKENS = 1000  # expected of an answer, until one has been received


class Size(msgspec.Struct, frozen=True):
    """Mean number of input tokens of prompts.

    Attributes:
        tokens: Mean over the prompts, rounded up.
        said: Source of the number, in words.
    """

    tokens: int
    said: str


def estimate_input(prompt: Prompt, request_config: RequestConfig) -> int:
    """Return the estimated input tokens of a call, >= 1."""
    parts = [part for turn in prompt.all_turns() for part in turn.parts]
    texts = [part for part in parts if isinstance(part, str)]
    files = len(parts) - len(texts)
    texts += request_config.texts(prompt.system, prompt.config)
    return max(1, sum(math.ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts) + INPUT_IMAGE_TOKENS * files)


def estimate_answer(
    request_config: RequestConfig, config: Mapping[str, Any], output_tokens: float, images: int | None = None
) -> Tokens:
    """Return the estimated tokens of an answer, without input tokens.

    Args:
        config: The prompt's own generation config.
        output_tokens: Expected tokens of an answer, those of thoughts and images included.
        images: Expected images of an answer; None: one if the request asks for images.
    """
    sent = request_config.generation(config)
    wanted = request_config.wants_image(config) if images is None else images
    image = OUTPUT_IMAGE_TOKENS * wanted
    out = int(min(output_tokens, sent.get("maxOutputTokens", math.inf)))
    return Tokens(out=max(out, image), image=image)


def estimate_call(prompt: Prompt, request_config: RequestConfig, output_tokens: float) -> Tokens:
    """Return the estimated tokens of a call; ``output_tokens`` as in `estimate_answer`."""
    answer = estimate_answer(request_config, prompt.config, output_tokens)
    return msgspec.structs.replace(answer, in_=estimate_input(prompt, request_config))


def size_of(prompts: Sequence[Prompt], request_config: RequestConfig, count: int) -> Size:
    """Return the estimated mean size of prompts.

    Raises:
        InputError: ``prompts`` is empty and ``count`` is not 0.
    """
    if not prompts:
        if count:
            msg = f"input_tokens must be given for {count:,} prompts of which none is passed: pass some, or a number"
            raise InputError(msg)
        return Size(0, "nothing to count")
    images = f", {INPUT_IMAGE_TOKENS} an image" if any(prompt.images for prompt in prompts) else ""
    tokens = [estimate_input(prompt, request_config) for prompt in prompts]
    return Size(mean(tokens), f"estimated at {CHARACTERS_PER_TOKEN} characters a token{images}")


def count_size(
    client: Any, model: str, prompts: Sequence[Prompt], request_config: RequestConfig, count: int, *, sample: int
) -> Size:
    """Return the mean size that the service counts on an even sample of prompts; an estimate if counting fails."""
    few = [prompts[at * len(prompts) // sample] for at in range(sample)] if len(prompts) > sample else prompts
    try:
        tokens = [count_tokens(client, model, prompt.wire(request_config)) for prompt in few]
    except Exception as error:  # of any kind: a quote does without the count
        size = size_of(prompts, request_config, count)
        reason = getattr(error, "message", None) or str(error) or type(error).__name__  # the client's have one
        return Size(size.tokens, f"{size.said}, because counting failed: {mask(str(reason))[:120]}")
    return Size(mean(tokens), f"measured on {len(few):,} of {count:,} prompts")


def mean(tokens: Sequence[int]) -> int:
    """Return the mean, rounded up."""
    return math.ceil(sum(tokens) / len(tokens))
