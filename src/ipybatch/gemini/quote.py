"""Quote: what work would cost and how long it would take, lane beside lane, before any of it is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from ipybatch.engine.data.policy import check, check_count
from ipybatch.gemini.answers import Tokens
from ipybatch.gemini.client import connect
from ipybatch.gemini.credits import CREDITS, batch_size_of, find_credits
from ipybatch.gemini.durations import Pace, batch_s, flex_s, online_s, parallel_from, sequential_s
from ipybatch.gemini.models import DEFAULT, Model
from ipybatch.gemini.movements import plain
from ipybatch.gemini.prices import LANES, Price, Prices, price_of
from ipybatch.gemini.prompts import Prompt, to_prompts
from ipybatch.gemini.sizes import Size, count_size, size_of

if TYPE_CHECKING:
    import pandas as pd

# Source: https://ai.google.dev/gemini-api/docs/pricing (2026-11-22), an image of 1024 x 1024 by gemini-2.5-flash-image.
IMAGE_TOKENS = 1290
LATENCY_S = 5.0
SAMPLE = 20

_FEW = 2


class Offer(msgspec.Struct, frozen=True):
    """What one lane asks for the whole work.

    Attributes:
        usd: Exact for the tokens that are assumed.
        assumed: Whether the lane's price is a guess, half of online.
        credits: None for an operation that takes none.
        low_s: Seconds at best.
        high_s: Seconds at worst.
    """

    usd: Decimal
    assumed: bool
    credits: Decimal | None
    low_s: float
    high_s: float


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """What work would cost by each lane; a cell that ends in it shows a table and a chart.

    Attributes:
        model: Its name.
        n: Prompts.
        offers: By lane: "online", "flex", "batch".
        recommended: The lane to use.
        why: In one sentence.
        tokens: Of one prompt and its answer.
        tokens_said: Where the tokens of a prompt come from.
        operation: What it is for.
        batch_size: From how many to how many items a batch should have.
        pace: What the seconds were reckoned with; see `ipybatch.gemini.durations` for the formulas.
        sequential_s: Seconds, from and to, online with five at a time.
        parallel_from: From how many prompts on the parallel mode is quicker than five at a time; None: never.
        source: Whose prices these are.
        dated: The day whose prices these are.
    """

    model: str
    n: int
    offers: dict[str, Offer]
    recommended: str
    why: str
    tokens: Tokens
    tokens_said: str
    operation: str
    batch_size: tuple[int, int]
    pace: Pace
    sequential_s: tuple[float, float]
    parallel_from: int | None
    source: str
    dated: date

    def to_frame(self) -> pd.DataFrame:
        """Return one row per lane: online, flex, batch.

        Columns: lane, usd (float), assumed (whether the price is a guess), credits (Decimal, or None), low_s, high_s,
        recommended.
        """
        import pandas as pd

        rows = [
            (lane, float(offer.usd), offer.assumed, offer.credits, offer.low_s, offer.high_s, lane == self.recommended)
            for lane, offer in self.offers.items()
        ]
        return pd.DataFrame(rows, columns=["lane", "usd", "assumed", "credits", "low_s", "high_s", "recommended"])

    def chart(self) -> Any:
        """Return a plotly figure: what each lane costs, and how long it takes.

        Raises:
            MissingExtra: plotly is not installed.
        """
        from ipybatch.gemini import chart

        return chart.figure(self)

    def __repr__(self) -> str:
        from ipybatch.gemini import card

        return card.text(self)

    def _repr_html_(self) -> str:
        from ipybatch.gemini import card

        return card.html(self)

    def _ipython_display_(self) -> None:
        from ipybatch.gemini import chart

        chart.show(self)


def compare(
    prompts: Iterable[Any] = (),
    *,
    model: str = DEFAULT,
    output_tokens: int = 400,
    input_tokens: int | None = None,
    images: int | None = None,
    operation: str = "text",
    units: int = 1,
    n: int | None = None,
    template: str | None = None,
    latency_s: float = LATENCY_S,
    rpm: float | None = None,
    concurrency: int | None = None,
    urgent: bool = False,
    interactive: bool = False,
    preview: bool = False,
    prices: Prices | None = None,
    at: datetime | None = None,
    sample: int = SAMPLE,
    api_key: str | None = None,
    base_url: str | None = None,
    client: Any = None,
) -> Quote:
    """Return what the lanes would ask for these prompts; sends nothing but, with a client, counts of tokens.

    The recommended lane is online for one or two prompts, and for what is urgent, interactive or a preview; for three
    or more that can wait it is batch, where that is cheaper.

    Args:
        prompts: As `generate` takes them.
        output_tokens: Of one answer, its thoughts included.
        input_tokens: Of one prompt. Default: counted by the service on a sample where ``api_key``, ``base_url`` or
            ``client`` is given, else estimated at 4 characters a token.
        images: How many an answer has, at 1,290 tokens each. Default: ``units`` for an operation that takes credits.
        operation: "character", "food", "product" and "text-to-image" take credits; others do not.
        units: Poses, styles or images of one item.
        n: How many prompts there will be, when these are only some of them.
        template: As `generate` takes it.
        latency_s: Seconds an online answer takes.
        rpm: Requests a minute, if you know your quota.
        concurrency: Requests at the same time. Default: as the online lane chooses it.
        urgent: The answers are needed soon.
        interactive: Somebody waits for each answer.
        preview: It is a first look.
        prices: Your own; see `ipybatch.gemini.prices.price_of`.
        at: The moment whose prices hold; now by default.
        sample: How many prompts are counted at most.
        api_key: For counting.
        base_url: For counting.
        client: For counting.

    Raises:
        InputError: An argument is out of range, a prompt is none, or nobody knows the model's price.
        MissingExtra: google-genai or genai-prices is needed and not installed.
    """
    name = Model(model).name
    pace = Pace(latency_s, rpm, concurrency)
    _check_counts(output_tokens, input_tokens=input_tokens, images=images, n=n)
    _check_rest(pace, units, sample)
    listed = to_prompts(prompts, template=template, operation=operation)
    count = len(listed) if n is None else n
    access = None if client is base_url is api_key is None else (api_key, base_url, client)
    size = Size(input_tokens, "as given") if input_tokens is not None else _size(listed, count, name, sample, access)
    made = IMAGE_TOKENS * (images if images is not None else units if operation in CREDITS else 0)
    tokens = Tokens(in_=size.tokens, out=output_tokens + made, image=made)
    priced = {lane: price_of(name, tokens, lane, at=at, prices=prices) for lane in LANES}
    offers = _offers(priced, pace, count, operation, units)
    recommended, why = _recommend(count, offers, urgent=urgent, interactive=interactive, preview=preview)
    return Quote(
        model=name,
        n=count,
        offers=offers,
        recommended=recommended,
        why=why,
        tokens=tokens,
        tokens_said=size.said,
        operation=operation,
        batch_size=batch_size_of(operation),
        pace=pace,
        sequential_s=sequential_s(pace, count),
        parallel_from=parallel_from(pace),
        source=priced["online"].source,
        dated=priced["online"].dated,
    )


def _size(prompts: Sequence[Prompt], count: int, model: str, sample: int, access: tuple[Any, Any, Any] | None) -> Size:
    if access is None or not prompts:
        return size_of(prompts, count)
    client = connect(*access)
    try:
        return count_size(client, model, prompts, count, sample=sample)
    finally:
        if client is not access[2]:
            client.close()


def _offers(priced: dict[str, Price], pace: Pace, count: int, operation: str, units: int) -> dict[str, Offer]:
    seconds = {"online": online_s(pace, count), "flex": flex_s(pace, count), "batch": batch_s(count)}
    return {
        lane: Offer(price.usd * count, price.assumed, find_credits(operation, units * count, lane), *seconds[lane])
        for lane, price in priced.items()
    }


def _recommend(
    count: int, offers: dict[str, Offer], *, urgent: bool, interactive: bool, preview: bool
) -> tuple[str, str]:
    online, batch = offers["online"], offers["batch"]
    saved = online.usd - batch.usd
    fewer = (online.credits or Decimal(0)) - (batch.credits or Decimal(0))
    reasons = {
        "there is nothing to do": not count,
        "it is urgent, and a batch may take a day": urgent,
        "somebody waits for each answer": interactive,
        "a preview is looked at before the rest is made": preview,
        f"{'one prompt is' if count == 1 else 'two prompts are'} not worth the wait of a batch": count <= _FEW,
        "a batch is no cheaper": saved <= 0 and fewer <= 0,
    }
    for why, holds in reasons.items():
        if holds:
            return "online", why
    less = f"{100 * saved / online.usd:.0f} % less" if saved > 0 else f"{plain(fewer)} credits less"
    assumed = " (assumed)" if batch.assumed and saved > 0 else ""
    return "batch", f"{count:,} prompts that can wait cost {less} by batch{assumed}"


def _check_counts(output_tokens: Any, **optional: Any) -> None:
    check_count("output_tokens", output_tokens, low=0)
    for field, value in optional.items():
        if value is not None:
            check_count(field, value, low=0)


def _check_rest(pace: Pace, units: Any, sample: Any) -> None:
    check_count("units", units, low=1)
    check_count("sample", sample, low=1)
    check("latency_s", pace.latency_s, low=0, above=True, high=86_400)
    if pace.rpm is not None:
        check("rpm", pace.rpm, low=1)
    if pace.concurrency is not None:
        check_count("concurrency", pace.concurrency, low=1)
