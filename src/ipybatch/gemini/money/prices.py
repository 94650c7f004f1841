"""Prices: the cost of a call in USD, by model, lane and day.

    the user's own   prices={"gemini-2.5-flash": {"in": 0.30, "out": 2.50, "batch": 0.5}}     USD per million tokens
    genai-prices     with rows for batch and flex: those rows; without: half of the online price, marked "assumed"

Rule: an unknown price is never a price of zero.  For a lane without a row (batch for 23 of its 43 Gemini models, flex
for 41) genai-prices returns the full price without a warning, so the row is looked up first.

Source: https://ai.google.dev/gemini-api/docs/optimization, "Flex: 50% discount, Batch: 50% discount" (2026-11-22).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import msgspec

from ipybatch.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import TieredPrices

    from ipybatch.gemini.service.reply import Tokens


LANES = ("online", "flex", "batch")
HALF = Decimal("0.5")

_FREE = Decimal(0)
_ROWS = {"flex": ("service_tier", "flex"), "batch": ("processing", "batch")}  # as genai-prices names them
_FIELDS = ("in", "out", "cached", "image", "batch", "flex")

Prices = Mapping[str, Mapping[str, Any]]


class Price(msgspec.Struct, frozen=True):
    """The cost of tokens.

    Attributes:
        usd: Cost, exact.
        assumed: Whether the lane's price is an assumption (half of online), because no price of the lane is known.
        source: Source of the price.
        dated: Day of the price.
    """

    usd: Decimal
    assumed: bool
    source: str
    dated: date


def price_of(
    model: str, tokens: Tokens, lane: str, *, at: datetime | None = None, prices: Prices | None = None
) -> Price:
    """Return the cost of tokens.

    Args:
        model: Name of the model, with or without "models/".
        tokens: Tokens of one call: prices may depend on the length of its prompt.
        lane: "online", "flex" or "batch".
        at: Time of the call; default: now.
        prices: The user's own prices, which take precedence: by model, USD per million tokens ``in`` and ``out``;
            also ``cached`` (for cached input; default: as ``in``) and ``image`` (for images of answers; default: as
            ``out``). ``batch`` and ``flex`` are shares of these prices in (0, 1]; without them 0.5 is assumed.

    Raises:
        InputError: The lane is unknown, ``prices`` are malformed, or no price is known; the message says how to
            give one.
        MissingExtra: genai-prices is not installed, and ``prices`` has no such model.
    """
    found = find_price(model, tokens, lane, at=at, prices=prices)
    if found is None:
        msg = (
            f"model must be one with a known price, got {model!r}: correct the name, or give its USD per million"
            f' tokens as prices={{"{model}": {{"in": ..., "out": ...}}}}'
        )
        raise InputError(msg)
    return found


def find_price(
    model: str, tokens: Tokens, lane: str, *, at: datetime | None = None, prices: Prices | None = None
) -> Price | None:
    """Return the cost of tokens as `price_of` does, or None if no price is known.

    Raises:
        InputError: The lane is unknown, or ``prices`` are malformed.
        MissingExtra: genai-prices is not installed, and ``prices`` has no such model.
    """
    check_lane(lane)
    name = model.removeprefix("models/")
    moment = at or datetime.now(tz=UTC)
    own = check_prices(prices).get(name)
    rates = _own_rates(own, lane) if own is not None else _known_rates(name, lane, moment, tokens.in_)
    if rates is None:
        return None
    cached = min(tokens.cached, tokens.in_)  # an inconsistent reply must not lead to a negative cost
    image = min(tokens.image, tokens.out)
    asked = (tokens.in_ - cached) * rates.in_ + cached * rates.cached
    answered = (tokens.out - image + tokens.thoughts) * rates.out + image * rates.image
    usd = (asked + answered) * rates.share / 1_000_000
    return Price(usd, rates.assumed, rates.source, moment.date())


def check_lane(lane: Any) -> None:
    """Check the name of a lane.

    Raises:
        InputError: It is unknown; the message names the lanes.
    """
    if lane not in LANES:
        msg = f"lane must be one of {', '.join(map(repr, LANES))}, got {lane!r}"
        raise InputError(msg)


def check_prices(prices: Any) -> dict[str, dict[str, Decimal]]:
    """Return the user's own prices as exact numbers, by model without "models/".

    Raises:
        InputError: A field is missing, unknown or out of range; the message names model and field.
    """
    if prices is None:
        return {}
    if not isinstance(prices, Mapping) or not all(isinstance(own, Mapping) for own in prices.values()):
        msg = f'prices must be a dict such as {{"gemini-2.5-flash": {{"in": 0.30, "out": 2.50}}}}, got {prices!r}'
        raise InputError(msg)
    return {str(model).removeprefix("models/"): _check_own(str(model), own) for model, own in prices.items()}


class _Rates(msgspec.Struct, frozen=True):
    """USD per million tokens, to be multiplied by ``share``."""

    in_: Decimal
    out: Decimal
    cached: Decimal
    image: Decimal
    share: Decimal
    assumed: bool
    source: str


def _own_rates(own: Mapping[str, Decimal], lane: str) -> _Rates:
    return _Rates(
        in_=own["in"],
        out=own["out"],
        cached=own.get("cached", own["in"]),
        image=own.get("image", own["out"]),
        share=Decimal(1) if lane == "online" else own.get(lane, HALF),
        assumed=lane != "online" and lane not in own,
        source="your prices",
    )


def _known_rates(name: str, lane: str, moment: datetime, prompt: int) -> _Rates | None:
    """Return the rates for a prompt of so many tokens.

    The rows are read here because the package's own `calc_price` takes 0.5 ms a call; a test compares the two.  They
    are kept for a minute, since a row may hold for some hours of the day.
    """
    global _kept
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        raise MissingExtra("gemini") from None
    if _kept[0] is not (snapshot := get_snapshot()) or len(_kept[1]) > _MOST_KEPT:
        _kept = snapshot, {}
    asked = name, lane, moment.replace(second=0, microsecond=0)
    if asked not in (kept := _kept[1]):
        kept[asked] = _read_rates(snapshot, *asked)
    return next((rates for start, rates in kept[asked] if prompt > start), None)


_Kept = dict[tuple[str, str, datetime], list[tuple[int, _Rates]]]
_kept: tuple[DataSnapshot | None, _Kept] = (None, {})  # of one edition of the prices
_MOST_KEPT = 1000


def _read_rates(snapshot: DataSnapshot, name: str, lane: str, moment: datetime) -> list[tuple[int, _Rates]]:
    """Return the rates of prompts above each of some lengths, the greatest first; none of a model without a price."""
    from genai_prices import __version__

    try:
        _, model = snapshot.find_provider_model(name, None, "google", None)
    except LookupError:
        return []
    key, value = _ROWS.get(lane, ("", ""))
    has_row = any(
        row.when == {key: value} and (row.constraint is None or row.constraint.active(moment))
        for row in model.price_variants or ()
    )
    rates = model.get_prices(moment, {key: value} if has_row else None)
    assumed = lane != "online" and not has_row
    given = rates.input_mtok, rates.output_mtok, rates.cache_read_mtok, rates.output_image_mtok
    starts = {
        tier.start for price in given if price is not None and not isinstance(price, Decimal) for tier in price.tiers
    }
    found = []
    for start in sorted({-1, *starts}, reverse=True):
        asked, answered, cached, image = (_tier(price, start + 1) for price in given)
        of_length = _Rates(
            in_=asked or _FREE,
            out=answered or _FREE,
            cached=_first(cached, asked),
            image=_first(image, answered),
            share=HALF if assumed else Decimal(1),
            assumed=assumed,
            source=f"genai-prices {__version__}",
        )
        found.append((start, of_length))
    return found


def _first(*rates: Decimal | None) -> Decimal:
    return next((rate for rate in rates if rate is not None), _FREE)


def _tier(price: Decimal | TieredPrices | None, prompt: int) -> Decimal | None:
    """Return the rate for a prompt's length: beyond the start of a tier it applies to every token."""
    if price is None or isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if prompt > tier.start), price.base)


def _check_own(model: str, own: Mapping[str, Any]) -> dict[str, Decimal]:
    unknown = [field for field in own if field not in _FIELDS]
    missing = [field for field in ("in", "out") if field not in own]
    if unknown or missing:
        trouble = f"has no {missing[0]!r}" if missing else f"has {unknown[0]!r}"
        optional = ", ".join(map(repr, _FIELDS[2:]))
        msg = f"prices[{model!r}] must have 'in' and 'out', and may have {optional}: it {trouble}"
        raise InputError(msg)
    return {field: _number(f"prices[{model!r}][{field!r}]", value, field) for field, value in own.items()}


def _number(name: str, value: Any, field: str) -> Decimal:
    is_share = field in _ROWS
    try:
        number = Decimal("NaN") if isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if number.is_finite() and (0 < number <= 1 if is_share else number >= 0):
        return number
    allowed = "a share of the online price, > 0 and <= 1" if is_share else "USD per million tokens, >= 0"
    msg = f"{name} must be {allowed}, got {value!r}"
    raise InputError(msg)
