"""The bill of the simulated Gemini: what public prices make of tokens, in USD.

genai-prices has the prices, and its own calculator is used, so that a client's arithmetic is judged by another one.
For a lane of which it has no row the price is half of that online, searches aside; of an unknown model there is no
bill.

Source: https://ai.google.dev/gemini-api/docs/pricing, read 2026-11-22: searches are "$35 / 1,000 grounded prompts",
from Gemini 3 on "$14 / 1,000 search queries".
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

_ROWS = {"flex": ("service_tier", "flex"), "batch": ("processing", "batch")}
_BY_QUERY = "gemini-3"


class BilledTokens(NamedTuple):
    """The tokens of one generation, and its searches.

    ``prompt`` includes cached ones, ``audio`` and ``drawn`` (of images), which are parts of it; ``out`` excludes
    thoughts and includes ``image``; ``queries`` are those of a search.
    """

    prompt: int = 0
    out: int = 0
    thoughts: int = 0
    cached: int = 0
    audio: int = 0
    drawn: int = 0
    image: int = 0
    queries: int = 0


@lru_cache(maxsize=4096)
def usd_of(model: str, lane: str, billed: BilledTokens) -> float | None:
    """Return the bill for one generation, USD; None if no price is public, or genai-prices is not installed."""
    try:
        from genai_prices import Usage
        from genai_prices.data_snapshot import get_snapshot

        _, found = get_snapshot().find_provider_model(model, None, "google", None)
    except (ImportError, LookupError):
        return None
    now = datetime.now(tz=UTC)
    key, value = _ROWS.get(lane, ("", ""))
    has_row = any(
        row.when == {key: value} and (row.constraint is None or row.constraint.active(now))
        for row in found.price_variants or ()
    )
    prices = found.get_prices(now, {key: value} if has_row else None)
    tokens = {
        "input_tokens": billed.prompt,
        "cache_read_tokens": billed.cached,
        "input_audio_tokens": billed.audio,
        "input_image_tokens": billed.drawn,
        "output_tokens": billed.out + billed.thoughts,
        "output_image_tokens": billed.image,
    }
    usd = prices.calc_price(Usage(**{name: count for name, count in tokens.items() if count}))["total_price"]
    share = 1.0 if lane == "online" or has_row else 0.5
    fee = found.get_prices(now).web_searches_kcount
    searches = billed.queries if model.startswith(_BY_QUERY) else min(1, billed.queries)
    return float(usd) * share + (float(fee) * searches / 1000 if isinstance(fee, Decimal) else 0.0)
