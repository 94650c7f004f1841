"""Sizes: how many tokens a prompt has, counted by the service or estimated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.errors import InputError
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.request_config import RequestConfig

# Source: https://ai.google.dev/gemini-api/docs/tokens (2026-11-22); a large image is several tiles of 258 tokens each.
CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 258

_LONGEST = 120  # characters of what a service said


class Size(msgspec.Struct, frozen=True):
    """What is known of the prompts' tokens.

    Attributes:
        tokens: Of one prompt on average, rounded up.
        said: Where the figure comes from.
    """

    tokens: int
    said: str


def size_of(prompts: Sequence[Prompt], count: int) -> Size:
    """Return an estimate for prompts that nobody counts.

    Raises:
        InputError: There are prompts to come, and none to estimate them by.
    """
    if not prompts:
        if count:
            msg = f"input_tokens must be given for {count:,} prompts of which none is there: pass some, or a number"
            raise InputError(msg)
        return Size(0, "nothing to count")
    tokens = [
        math.ceil(len(prompt.text) / CHARACTERS_PER_TOKEN) + IMAGE_TOKENS * len(prompt.images) for prompt in prompts
    ]
    images = f", {IMAGE_TOKENS} an image" if any(prompt.images for prompt in prompts) else ""
    return Size(_mean(tokens), f"estimated at {CHARACTERS_PER_TOKEN} characters a token{images}")


def count_size(client: Any, model: str, prompts: Sequence[Prompt], count: int, *, sample: int) -> Size:
    """Return what the service counts on at most ``sample`` prompts, spread evenly; an estimate where it does not."""
    few = [prompts[at * len(prompts) // sample] for at in range(sample)] if len(prompts) > sample else prompts
    try:
        tokens = [_count(client, model, prompt) for prompt in few]
    except Exception as error:  # whatever went wrong, a quote can do without
        size = size_of(prompts, count)
        reason = getattr(error, "message", None) or str(error) or type(error).__name__  # the client's have one
        return Size(size.tokens, f"{size.said}, because counting failed: {mask(str(reason))[:_LONGEST]}")
    return Size(_mean(tokens), f"measured on {len(few):,} of {count:,} prompts")


def _count(client: Any, model: str, prompt: Prompt) -> int:
    contents = prompt.arguments(RequestConfig())["contents"]
    return int(client.models.count_tokens(model=model, contents=contents).total_tokens or 0)


def _mean(tokens: Sequence[int]) -> int:
    return math.ceil(sum(tokens) / len(tokens))
