"""Tokens of a call: the one estimate for budgets, quotes, estimates, pacing and size checks.

    text of the prompt and of earlier turns     4 characters per token
    system instruction                          4 characters per token
    response schema, tools                      4 characters of their JSON per token
    image, or another file                      258 each, the size of a small image or of one page of a PDF
    cached content                              0: its size does not follow from its name

An answer is expected to have ``output_tokens``, at most ``max_output_tokens``, and 1,290 for each image.

A bound is not an estimate: it is the most that a call can have.

    text of any kind, sound     one token a byte: no tokenizer makes more of them
    image                       6,192, that is 24 tiles of 258: a strip of 3,072 pixels, to which the service scales it
    PDF, video, a file that is no image, cached content, what tools read      the model's own limit, 1,048,576
    answer with its thoughts    ``max_output_tokens``, which bounds both; without it the model's own limit, 65,536

Source: https://ai.google.dev/gemini-api/docs/tokens, https://ai.google.dev/gemini-api/docs/pricing and
https://ai.google.dev/gemini-api/docs/models (2026-11-22).  A large image has several tiles of 258 tokens each; an
answered image of 1024 x 1024 has 1,290, and one of 4096 x 4096 has 2,000.
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
MOST_INPUT_TOKENS = 1_048_576
MOST_OUTPUT_TOKENS = 65_536
MOST_INPUT_IMAGE_TOKENS = 24 * INPUT_IMAGE_TOKENS
MOST_OUTPUT_IMAGE_TOKENS = 2000
MOST_SEARCHES = 10  # queries of one call; the service states no limit
_STEP = 64  # so that many prompts share a bound
_TURN_BYTES = 64  # of its role, and of what the service puts around it
_SEARCHING = ("googleSearch", "googleSearchRetrieval", "enterpriseWebSearch", "googleMaps")
_READING = (*_SEARCHING, "urlContext", "codeExecution", "fileSearch")  # tools that add to the input


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
    parts = prompt.all_parts()
    texts = [part for part in parts if isinstance(part, str)]
    files = len(parts) - len(texts)
    texts += request_config.texts(prompt.system, prompt.config)
    return max(1, sum([math.ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts]) + INPUT_IMAGE_TOKENS * files)


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


class Most(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a call, or what is sent with every call of a session, can have.

    Attributes:
        asked: Input tokens; of a call rounded up to a multiple of 64.
        answered: Tokens of the answer with its thoughts and images; None: no max_output_tokens is set.
        is_open: Whether the input does not follow from what is sent: then ``asked`` is the model's limit.
        has_cache: Whether there is cached content, of which only an answer tells the size.
        has_audio: Whether there may be sound in the input.
        has_images: Whether the answer may hold images.
        searches: Queries of a search.
    """

    asked: int
    answered: int | None = None
    is_open: bool = False
    has_cache: bool = False
    has_audio: bool = False
    has_images: bool = False
    searches: int = 0


def most_beside(request_config: RequestConfig, system: str | None, config: Mapping[str, Any]) -> Most:
    """Return the bound of all that is sent beside a prompt's contents, and of its answer.

    Args:
        system: The prompt's own system instruction.
        config: The prompt's own generation config.
    """
    sent = request_config.generation(config)
    tools = {name for tool in sent.get("tools") or () if isinstance(tool, Mapping) for name in tool}
    has_images = "IMAGE" in sent.get("responseModalities", ())
    answered = sent.get("maxOutputTokens")
    return Most(
        asked=request_config.fixed_size(system, config),
        answered=max(answered, MOST_OUTPUT_IMAGE_TOKENS) if answered and has_images else answered,
        is_open=not tools.isdisjoint(_READING),
        has_cache="cachedContent" in sent,
        has_audio="cachedContent" in sent or "urlContext" in tools,
        has_images=has_images,
        searches=0 if tools.isdisjoint(_SEARCHING) else MOST_SEARCHES,
    )


def most_call(prompt: Prompt, beside: Most) -> Most:
    """Return the bound of a call, with that of what is sent beside the prompt's contents."""
    asked, has_audio = beside.asked + _TURN_BYTES * (len(prompt.turns) + 1), beside.has_audio
    is_open = beside.is_open or beside.has_cache
    for part in prompt.all_parts():
        if isinstance(part, str):
            asked += len(part) if part.isascii() else len(part.encode(errors="surrogatepass"))
        elif isinstance(part, Mapping):
            tokens = _most_of_part(part)
            asked += tokens or 0
            is_open |= tokens is None
            has_audio |= not _is_image(part)
        else:
            asked += MOST_INPUT_IMAGE_TOKENS
    return Most(
        asked=MOST_INPUT_TOKENS if is_open else min(-(-asked // _STEP) * _STEP, MOST_INPUT_TOKENS),
        answered=beside.answered,
        is_open=is_open,
        has_audio=has_audio,
        has_images=beside.has_images,
        searches=beside.searches,
    )


def _most_of_part(part: Mapping[str, Any]) -> int | None:
    """Return the bound of a part as the service's JSON; None if it does not follow from the part."""
    if _is_image(part):
        return MOST_INPUT_IMAGE_TOKENS
    inline = part.get("inlineData")
    if "fileData" in part or (inline and not str(inline.get("mimeType", inline.get("mime_type"))).startswith("audio/")):
        return None
    return len(msgspec.json.encode(part))


def _is_image(part: Mapping[str, Any]) -> bool:
    data = part.get("inlineData") or part.get("fileData") or {}
    return str(data.get("mimeType", data.get("mime_type"))).startswith("image/")


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
