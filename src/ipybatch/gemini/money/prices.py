"""Prices: the cost of a call in USD, by model, lane and day.

    the user's own   prices={"gemini-2.5-flash": {"in": 0.30, "out": 2.50, "batch": 0.5}}     USD per million tokens
    genai-prices     with rows for batch and flex: those rows; without: half of the online price, marked "assumed"

Rule: an unknown price is never a price of zero.  For a lane without a row (batch for 23 of its 43 Gemini models, flex
for 41) genai-prices returns the full price without a warning, so the row is looked up first.

Source: https://ai.google.dev/gemini-api/docs/optimization, "Flex: 50% discount, Batch: 50% discount" (2026-11-22);
https://ai.google.dev/gemini-api/docs/pricing for searches: "$35 / 1,000 grounded prompts", from Gemini 3 on
"$14 / 1,000 search queries" (2026-11-22).  What is free each day is not taken off.
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
_FIELDS = ("in", "out", "cached", "image", "audio", "image_in", "search", "batch", "flex")
_PRICED = (
    "input_mtok",
    "output_mtok",
    "cache_read_mtok",
    "output_image_mtok",
    "input_audio_mtok",
    "input_image_mtok",
    "cache_audio_read_mtok",
)
_BY_QUERY = "gemini-3"  # these bill each query of a search, others each request with one

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
            also ``cached``, ``audio`` and ``image_in`` (for cached input, and for sound and images in it; default: as
            ``in``), ``image`` (for images of answers; default: as ``out``), and ``search`` (USD per 1,000 requests
            that searched). ``batch`` and ``flex`` are shares of these prices in (0, 1]; without them 0.5 is assumed.

    Raises:
        InputError: The lane is unknown, ``prices`` are malformed, tokens are None, or no price is known; the message
            says how to give one.
        MissingExtra: genai-prices is not installed, and ``prices`` has no such model.
    """
    found = find_price(model, tokens, lane, at=at, prices=prices)
    if not tokens.are_told:
        msg = f"tokens must be numbers, got {tokens}"
        raise InputError(msg)
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
    """Return the cost of tokens as `price_of` does, or None if no price is known, or a number of tokens.

    Raises:
        InputError: The lane is unknown, or ``prices`` are malformed.
        MissingExtra: genai-prices is not installed, and ``prices`` has no such model.
    """
    check_lane(lane)
    if not tokens.are_told:
        return None
    moment = at or datetime.now(tz=UTC)
    rates = rates_of(find_rates(model, lane, at=moment, own=check_prices(prices)), tokens.in_ or 0)
    return None if rates is None else Price(rates.cost(tokens), rates.assumed, rates.source, moment.date())


def find_rates(
    model: str, lane: str, *, at: datetime, own: Mapping[str, Mapping[str, Decimal]]
) -> list[tuple[int, Rates]]:
    """Return the rates of calls with prompts above each of some lengths, the greatest first; none without a price.

    Args:
        own: The user's own prices, as `check_prices` returns them.

    Raises:
        MissingExtra: genai-prices is not installed, and ``own`` has no such model.
    """
    name = model.removeprefix("models/")
    return [(-1, _own_rates(own[name], lane))] if name in own else _known_rates(name, lane, at)


def rates_of(tiers: list[tuple[int, Rates]], prompt: int) -> Rates | None:
    """Return the rates of a prompt of so many tokens, of those that `find_rates` returned; None if there are none."""
    for start, rates in tiers:
        if prompt > start:
            return rates
    return None


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


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of a lane: USD per million tokens, to be multiplied by ``share``; searches are not.

    Attributes:
        search: USD per 1,000 requests with a search, or per 1,000 queries; None: it is not known.
        is_by_query: Whether each query of a request is billed.
        share: Share of the online price.
        assumed: As in `Price`, with source.
    """

    in_: Decimal
    out: Decimal
    cached: Decimal
    image: Decimal
    audio: Decimal
    image_in: Decimal
    cached_audio: Decimal
    search: Decimal | None
    is_by_query: bool
    share: Decimal
    assumed: bool
    source: str

    def cost(self, tokens: Tokens) -> Decimal:
        """Return the cost of tokens, USD; of counts that contradict each other, each is at most the whole."""
        asked, answered = tokens.in_ or 0, tokens.out or 0
        million = asked * self.in_ + (answered + (tokens.thoughts or 0)) * self.out
        if tokens.cached or tokens.audio or tokens.image_in:
            cached = min(tokens.cached, asked)
            cached_audio = min(tokens.cached_audio, tokens.audio, cached)
            audio = min(tokens.audio - cached_audio, asked - cached)
            drawn = min(tokens.image_in, asked - cached - audio)
            million += (
                (cached - cached_audio) * (self.cached - self.in_)
                + cached_audio * (self.cached_audio - self.in_)
                + audio * (self.audio - self.in_)
                + drawn * (self.image_in - self.in_)
            )
        if tokens.image:
            million += min(tokens.image, answered) * (self.image - self.out)
        return million * self.share / 1_000_000 + self.fee(tokens.searches)

    def fee(self, searches: int) -> Decimal:
        """Return the cost of the searches of one call, USD."""
        if not searches or self.search is None:
            return _FREE
        return self.search * (searches if self.is_by_query else 1) / 1000

    def most(self, asked: int, answered: int, *, has_audio: bool, has_images: bool, searches: int) -> Decimal:
        """Return the most that a call may cost, USD: every token at the dearest rate that may apply to it."""
        in_ = max(self.in_, self.cached, self.image_in, *((self.audio, self.cached_audio) if has_audio else ()))
        out = max(self.out, self.image) if has_images else self.out
        return (asked * in_ + answered * out) * self.share / 1_000_000 + self.fee(searches)


def _own_rates(own: Mapping[str, Decimal], lane: str) -> Rates:
    return Rates(
        in_=own["in"],
        out=own["out"],
        cached=own.get("cached", own["in"]),
        image=own.get("image", own["out"]),
        audio=own.get("audio", own["in"]),
        image_in=own.get("image_in", own["in"]),
        cached_audio=own.get("cached", own.get("audio", own["in"])),
        search=own.get("search"),
        is_by_query=False,
        share=Decimal(1) if lane == "online" else own.get(lane, HALF),
        assumed=lane != "online" and lane not in own,
        source="your prices",
    )


def _known_rates(name: str, lane: str, moment: datetime) -> list[tuple[int, Rates]]:
    """Return the rates of a model that genai-prices may know.

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
    return kept[asked]


_Kept = dict[tuple[str, str, datetime], list[tuple[int, Rates]]]
_kept: tuple[DataSnapshot | None, _Kept] = (None, {})  # of one edition of the prices
_MOST_KEPT = 1000


def _read_rates(snapshot: DataSnapshot, name: str, lane: str, moment: datetime) -> list[tuple[int, Rates]]:
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
    given = [getattr(rates, price) for price in _PRICED]
    search = model.get_prices(moment).web_searches_kcount  # the same in every lane: rows of a lane leave it out
    starts = {
        tier.start for price in given if price is not None and not isinstance(price, Decimal) for tier in price.tiers
    }
    found = []
    for start in sorted({-1, *starts}, reverse=True):
        asked, answered, cached, image, audio, image_in, cached_audio = (_tier(price, start + 1) for price in given)
        of_length = Rates(
            in_=asked or _FREE,
            out=answered or _FREE,
            cached=_first(cached, asked),
            image=_first(image, answered),
            audio=_first(audio, asked),
            image_in=_first(image_in, asked),
            cached_audio=_first(cached_audio, cached, audio, asked),
            search=_tier(search, start + 1),
            is_by_query=name.startswith(_BY_QUERY),
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
    unit = "USD per 1,000 requests, >= 0" if field == "search" else "USD per million tokens, >= 0"
    allowed = "a share of the online price, > 0 and <= 1" if is_share else unit
    msg = f"{name} must be {allowed}, got {value!r}"
    raise InputError(msg)
