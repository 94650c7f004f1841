"""Quote: what work would cost and how long it would take, lane beside lane, before any of it is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.policy import check, check_count
from ipybatch.errors import MissingExtra
from ipybatch.gemini.money.credits import CREDITS, batch_size_of, find_credits, plain
from ipybatch.gemini.money.prices import LANES, Price, Prices, price_of
from ipybatch.gemini.money.tokens import Size, count_size, estimate_answer, mean, size_of
from ipybatch.gemini.prompts import Prompt, to_prompts
from ipybatch.gemini.service.api import connect
from ipybatch.gemini.service.pacer import DEFAULT_MODEL, MOST, SEQUENTIAL, Model, automatic_concurrency
from ipybatch.gemini.service.reply import Tokens
from ipybatch.gemini.service.request_config import RequestConfig
from ipybatch.jupyter.static_html import Sheet, said, span, table

if TYPE_CHECKING:
    import pandas as pd

LATENCY_S = 5.0
SAMPLE = 20
FLEX_S = (60.0, 900.0)
BATCH_S = (300.0, 86_400.0)
_FEW = 2
_AGAIN = 1.05
_SEARCHED = 1000  # prompts; where the parallel mode has not won by then, it does not
_GOOD = "#2da44e"
_SOFT = 'style="padding-top:4px;opacity:0.7"'
_BEST, _ASIDE, _INK = "#1a7f37", "#6e7781", "#7d8590"  # readable on white and on black
_CLEAR = "rgba(0,0,0,0)"
_TICKS_S = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 21_600: "6 h", 86_400: "24 h"}
_SHORTEST_S = 0.1  # a logarithm has no nought


class RequestPace(msgspec.Struct, frozen=True):
    """How requests follow each other.

    Attributes:
        latency_s: Seconds an answer takes.
        rpm: Requests a minute; None: not known, so that only the concurrency holds them back.
        concurrency: Requests at the same time; None: 60 % of the quota by Little's law, or 10 where no rpm is known.
    """

    latency_s: float
    rpm: float | None = None
    concurrency: int | None = None

    @property
    def at_once(self) -> int:
        """Requests at the same time."""
        if self.concurrency is not None:
            return self.concurrency
        return MOST if self.rpm is None else automatic_concurrency(self.rpm, self.latency_s)

    @property
    def gap_s(self) -> float:
        """Seconds between two starts."""
        return 0.0 if self.rpm is None else 60.0 / self.rpm

    def with_latency(self, latency_s: float) -> RequestPace:
        """Return the same pace, as many at once, with another latency."""
        return RequestPace(latency_s, self.rpm, self.at_once)


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
        pace: What the seconds were computed from.
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
    pace: RequestPace
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
        return quote_figure(self)

    def __repr__(self) -> str:
        return quote_text(self)

    def _repr_html_(self) -> str:
        return quote_html(self)

    def _ipython_display_(self) -> None:
        show_quote(self)


def compare(
    prompts: Iterable[Any] = (),
    *,
    model: str = DEFAULT_MODEL,
    output_tokens: int = 400,
    system: str | None = None,
    schema: Any = None,
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
        prices: Your own; see `ipybatch.gemini.price_of`.
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
    pace = RequestPace(latency_s, rpm, concurrency)
    _check_counts(output_tokens, input_tokens=input_tokens, images=images, n=n)
    _check_rest(pace, units, sample)
    listed = to_prompts(prompts, template=template, operation=operation)
    count = len(listed) if n is None else n
    access = None if client is base_url is api_key is None else (api_key, base_url, client)
    request_config = RequestConfig(system=system, schema=schema)
    if input_tokens is not None:
        size = Size(input_tokens, "as given")
    else:
        size = _size(listed, request_config, count, name, sample, access)
    made = units if images is None and operation in CREDITS else images
    configs = [prompt.config for prompt in listed] or [{}]
    answers = [estimate_answer(request_config, config, output_tokens, made) for config in configs]
    tokens = Tokens(
        in_=size.tokens, out=mean([each.out for each in answers]), image=mean([each.image for each in answers])
    )
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


def _size(  # noqa: PLR0917  # one private caller
    prompts: Sequence[Prompt],
    request_config: RequestConfig,
    count: int,
    model: str,
    sample: int,
    access: tuple[Any, Any, Any] | None,
) -> Size:
    if access is None or not prompts:
        return size_of(prompts, request_config, count)
    client = connect(*access)
    try:
        return count_size(client, model, prompts, request_config, count, sample=sample)
    finally:
        if client is not access[2]:
            client.close()


def _offers(priced: dict[str, Price], pace: RequestPace, count: int, operation: str, units: int) -> dict[str, Offer]:
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


def _check_rest(pace: RequestPace, units: Any, sample: Any) -> None:
    check_count("units", units, low=1)
    check_count("sample", sample, low=1)
    check("latency_s", pace.latency_s, low=0, above=True, high=86_400)
    if pace.rpm is not None:
        check("rpm", pace.rpm, low=1)
    if pace.concurrency is not None:
        check_count("concurrency", pace.concurrency, low=1)


def online_s(pace: RequestPace, requests: int) -> tuple[float, float]:
    """Return seconds, from and to, for requests that run in parallel."""
    return (
        _parallel_s(pace.with_latency(pace.latency_s / 2), requests),
        _parallel_s(pace.with_latency(pace.latency_s * 2), math.ceil(requests * _AGAIN)),
    )


def sequential_s(pace: RequestPace, requests: int) -> tuple[float, float]:
    """Return seconds, from and to, for requests of which five run at a time."""
    return (
        _by_fives_s(pace.with_latency(pace.latency_s / 2), requests),
        _by_fives_s(pace.with_latency(pace.latency_s * 2), math.ceil(requests * _AGAIN)),
    )


def flex_s(pace: RequestPace, requests: int) -> tuple[float, float]:
    """Return seconds, from and to, in the flex lane."""
    low_s, high_s = FLEX_S
    return _parallel_s(pace.with_latency(low_s), requests), _parallel_s(pace.with_latency(high_s), requests)


def batch_s(requests: int) -> tuple[float, float]:
    """Return seconds, from and to, in the batch lane."""
    return BATCH_S if requests else (0.0, 0.0)


def parallel_from(pace: RequestPace) -> int | None:
    """Return from how many requests on the parallel mode is quicker than the sequential one; None: it never is."""
    return next(
        (n for n in range(2, _SEARCHED + 1) if _by_fives_s(pace, n) - _parallel_s(pace, n) > 1e-6 * pace.latency_s),
        None,
    )


def _parallel_s(pace: RequestPace, requests: int) -> float:
    if not requests:
        return 0.0
    return max(pace.gap_s * (requests - 1) + pace.latency_s, pace.latency_s * math.ceil(requests / pace.at_once))


def _by_fives_s(pace: RequestPace, requests: int) -> float:
    if not requests:
        return 0.0
    groups = math.ceil(requests / SEQUENTIAL)
    between_groups_s = max(pace.gap_s, pace.latency_s)  # from the last start of one to the first of the next
    return pace.gap_s * (requests - groups) + between_groups_s * (groups - 1) + pace.latency_s


def quote_html(quote: Quote) -> str:
    """Return the quote as HTML that needs nothing else."""
    title = (
        f'<div style="font-size:15px"><b>{work_text(quote)}</b> {said(f"to {quote.model}")}</div>'
        f'<div style="padding-top:2px"><span style="color:{_GOOD}">✓</span> <b>{quote.recommended}</b>:'
        f" {said(quote.why)}</div>"
    )
    notes = "".join(f"<div {_SOFT}>{said(note)}</div>" for note in notes_of(quote))
    return (
        '<div style="max-width:920px;border:1px solid rgba(127,127,127,0.35);border-radius:8px;padding:12px 16px;'
        f'font-family:system-ui,sans-serif;font-size:13px;line-height:1.45">{title}{_table(quote)}{notes}</div>'
    )


def quote_text(quote: Quote) -> str:
    """Return the quote as a few lines, the same every time."""
    lanes = [f"  {lane}: {', '.join(_facts(offer, ' credits'))}" for lane, offer in quote.offers.items()]
    head = f"{work_text(quote)} to {quote.model}: use {quote.recommended}, because {quote.why}"
    return mask("\n".join([head, *lanes]))


def notes_of(quote: Quote) -> list[str]:
    """Return what the figures rest on, a line each."""
    pace, tokens = quote.pace, quote.tokens
    images = f", {tokens.image:,} of them images" if tokens.image else ""
    low, high = quote.batch_size
    rpm = "" if pace.rpm is None else f", {pace.rpm:g} requests a minute"
    pays = f"from {quote.parallel_from:,} prompts on" if quote.parallel_from else "never, at this pace"
    guesses = [lane for lane, offer in quote.offers.items() if offer.assumed]
    assumed = f"; assumed for {' and '.join(guesses)}: half of online" if guesses else ""
    return [
        f"tokens: {tokens.in_:,} a prompt, {quote.tokens_said}; {tokens.out:,} an answer{images}",
        f"prices: {quote.source}, of {quote.dated}{assumed}",
        f"online: {pace.at_once} at a time, {pace.latency_s:g} s an answer{rpm}",
        f"five at a time would take {_range(*quote.sequential_s)}; more at a time is quicker {pays}",
        "flex: 1 to 15 minutes an answer, and it may be turned away; batch: 24 hours at most, often sooner",
        f"batches of {low} to {high} items are best for {quote.operation}",
    ]


def work_text(quote: Quote) -> str:
    """Return how many prompts it is about."""
    return f"{quote.n:,} prompt{'' if quote.n == 1 else 's'}"


def price_text(offer: Offer) -> str:
    """Return what a lane costs, as people write it: cents, or as many digits as it takes."""
    digits = 2 if offer.usd == 0 or offer.usd >= 1 else 4 if offer.usd >= 0.001 else 7
    return f"${offer.usd:,.{digits}f}"


def _facts(offer: Offer, word: str = "") -> list[str]:
    assumed = " (assumed)" if offer.assumed else ""
    credits_ = [] if offer.credits is None else [f"{plain(offer.credits)}{word}"]
    return [f"{price_text(offer)}{assumed}", *credits_, _range(offer.low_s, offer.high_s)]


def _range(low_s: float, high_s: float) -> str:
    return f"{span(low_s)} to {span(high_s)}"


def _table(quote: Quote) -> str:
    has_credits = any(offer.credits is not None for offer in quote.offers.values())
    titles = ["Lane", "USD", *(["Credits"] if has_credits else []), "Time"]
    rows = []
    for lane, offer in quote.offers.items():
        mark = f' <span style="color:{_GOOD}">✓</span> recommended' if lane == quote.recommended else ""
        rows.append([f"<b>{lane}</b>{mark}", *map(said, _facts(offer))])
    columns = [(title, at > 0) for at, title in enumerate(titles)]
    return table(Sheet(columns, rows), margin="8px 0 4px 0")


def quote_figure(quote: Quote) -> Any:
    """Return the figure: USD as bars at the left, seconds as ranges at the right.

    Raises:
        MissingExtra: plotly is not installed.
    """
    try:
        from plotly import graph_objects
        from plotly.subplots import make_subplots
    except ImportError:
        raise MissingExtra("jupyter") from None
    lanes = list(quote.offers)[::-1]  # a bar chart begins at the bottom
    offers = [quote.offers[lane] for lane in lanes]
    lows = [max(offer.low_s, _SHORTEST_S) for offer in offers]
    spans = [max(offer.high_s, low_s) - low_s for offer, low_s in zip(offers, lows, strict=True)]
    style = {
        "y": lanes,
        "orientation": "h",
        "marker_color": [_BEST if lane == quote.recommended else _ASIDE for lane in lanes],
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        "textposition": "auto",
        "insidetextfont_color": "white",
    }
    made = make_subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=("USD", "Time, from and to"))
    prices = [price_text(offer) + (" (assumed)" if offer.assumed else "") for offer in offers]
    times = [f"{span(offer.low_s)} to {span(offer.high_s)}" for offer in offers]
    made.add_trace(graph_objects.Bar(x=[float(offer.usd) for offer in offers], text=prices, **style), 1, 1)
    made.add_trace(graph_objects.Bar(x=spans, base=lows, text=times, **style), 1, 2)
    made.update_xaxes(type="log", tickvals=list(_TICKS_S), ticktext=list(_TICKS_S.values()), row=1, col=2)
    made.update_layout(
        title={"text": f"{work_text(quote)} to {escape(quote.model)}: {quote.recommended} is recommended"},
        showlegend=False,
        template="none",
        font_color=_INK,
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        height=280,
        margin={"l": 60, "r": 20, "t": 80, "b": 40},
    )
    return made


def show_quote(quote: Quote) -> None:
    """Display the table, and below it the figure where plotly is installed."""
    from IPython.display import display

    table = {"text/html": quote_html(quote), "text/plain": quote_text(quote)}
    display(table, raw=True)  # type: ignore[no-untyped-call]  # IPython's
    try:
        drawn = quote_figure(quote)
    except MissingExtra:
        return
    drawing = {"application/vnd.plotly.v1+json": json.loads(drawn.to_json())}
    display(drawing, raw=True)  # type: ignore[no-untyped-call]  # IPython's
