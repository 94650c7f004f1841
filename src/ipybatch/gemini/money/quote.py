"""Quotes: cost and duration of work by each lane, before any of it is sent.

Durations follow from formulas:

    gap         60 / rpm; 0 if no rpm is known
    online      the longer of   gap * (n - 1) + latency   and   latency * ceil(n / concurrency)
    sequential  five requests start, a gap apart; the next five start when all five are answered
    flex        as online, with 1 to 15 minutes for an answer
    batch       5 minutes to 24 hours, whatever n is

Online and sequential are given as a range, from half the latency to twice the latency with 5 % of the requests sent
again, as in `BatchSession.estimate`.

Source: https://ai.google.dev/gemini-api/docs/optimization, "Flex: Minutes (1-15 min target); Batch: Up to 24 hours"
(2026-11-22).  The 5 minutes are ours.

One subject, whence more than 500 lines: the quote, the durations in it, and its table, text and chart.  Every text from
outside is escaped and masked in them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.policy import check, check_count
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import InputError, MissingExtra
from ipybatch.gemini.money.credits import CREDITS, batch_size_of, find_credits, plain
from ipybatch.gemini.money.prices import LANES, Price, Prices, price_of
from ipybatch.gemini.money.tokens import Size, count_size, estimate_answer, mean, size_of
from ipybatch.gemini.money.usage import MeasuredTokens, measured_tokens
from ipybatch.gemini.prompts import Prompt, to_prompts
from ipybatch.gemini.service.client import connect
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
_AGAIN = 1.05
_SEARCHED = 1000  # prompts; if the parallel mode is not quicker by then, it never is
_GOOD = "#2da44e"
_BEST, _ASIDE, _INK = "#1a7f37", "#6e7781", "#7d8590"  # readable on white and on black
_CLEAR = "rgba(0,0,0,0)"
_TICKS_S = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 21_600: "6 h", 86_400: "24 h"}


class RequestPace(msgspec.Struct, frozen=True):
    """Latency and limits of requests.

    Attributes:
        latency_s: Time to an answer, seconds.
        rpm: Requests per minute; None: unknown, so that only the concurrency limits them.
        concurrency: Requests in flight; None: 60 % of the quota by Little's law, or 10 if no rpm is known.
    """

    latency_s: float
    rpm: float | None = None
    concurrency: int | None = None

    @property
    def at_once(self) -> int:
        """Requests in flight."""
        if self.concurrency is not None:
            return self.concurrency
        return MOST if self.rpm is None else automatic_concurrency(self.rpm, self.latency_s)

    @property
    def gap_s(self) -> float:
        """Time between two starts, seconds."""
        return 0.0 if self.rpm is None else 60.0 / self.rpm

    def with_latency(self, latency_s: float) -> RequestPace:
        """Return a pace with another latency and the same limits."""
        return RequestPace(latency_s, self.rpm, self.at_once)


class Offer(msgspec.Struct, frozen=True):
    """Cost and duration of the whole work in one lane.

    Attributes:
        usd: Cost, exact for the estimated tokens.
        assumed: Whether the lane's price is an assumption, half of online.
        credits: Credits; None for an operation without credits.
        low_s: Shortest duration, seconds.
        high_s: Longest duration, seconds.
        usd_p95: Cost if every call had as many tokens as 95 % of the calls on record had at most; None for an estimate.
    """

    usd: Decimal
    assumed: bool
    credits: Decimal | None
    low_s: float
    high_s: float
    usd_p95: Decimal | None = None


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """Cost and duration of work by each lane; displayed as a table and a chart.

    Attributes:
        model: Name of the model.
        n: Number of prompts.
        offers: Cost and duration by lane: "online", "flex", "batch".
        recommended: The recommended lane.
        why: Reason for the recommendation.
        tokens: Mean tokens of one call.
        tokens_said: Source of the input tokens, in words.
        operation: Kind of work.
        batch_size: Recommended size of a batch: fewest and most items.
        pace: Latency and limits that the durations rest on.
        sequential_s: Shortest and longest duration online with five requests at a time, seconds.
        parallel_from: Number of prompts from which the parallel mode is quicker than five at a time; None: never.
        source: Source of the prices.
        dated: Day of the prices.
        tokens_p95: Of 95 % of the calls on record at most so many; None for an estimate.
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
    tokens_p95: Tokens | None = None

    def to_frame(self) -> pd.DataFrame:
        """Return one row per lane: online, flex, batch.

        Columns: lane, usd (float), assumed (whether the price is an assumption), credits (Decimal, or None), low_s,
        high_s, recommended; and usd_p95, if the tokens are those of calls on record.
        """
        import pandas as pd

        rows = [
            (lane, float(offer.usd), offer.assumed, offer.credits, offer.low_s, offer.high_s, lane == self.recommended)
            for lane, offer in self.offers.items()
        ]
        frame = pd.DataFrame(rows, columns=["lane", "usd", "assumed", "credits", "low_s", "high_s", "recommended"])
        if self.tokens_p95 is not None:
            frame["usd_p95"] = [float(offer.usd_p95 or 0) for offer in self.offers.values()]
        return frame

    def chart(self) -> Any:
        """Return a plotly figure of cost and duration by lane.

        Raises:
            MissingExtra: plotly is not installed.
        """
        return quote_figure(self)

    def __repr__(self) -> str:
        return quote_text(self)

    def _repr_html_(self) -> str:
        return quote_html(self)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        table = {"text/html": quote_html(self), "text/plain": quote_text(self)}
        display(table, raw=True)  # type: ignore[no-untyped-call]  # IPython's
        try:
            drawn = quote_figure(self)
        except MissingExtra:  # plotly is optional
            return
        drawing = {"application/vnd.plotly.v1+json": json.loads(drawn.to_json())}
        display(drawing, raw=True)  # type: ignore[no-untyped-call]  # IPython's


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
    tokens_from: str | bool = False,
    journal: str | Path | None = None,
) -> Quote:
    """Return cost and duration of these prompts by each lane; no prompt is sent for an answer.

    With ``tokens_from`` it is a quote from your own calls: their mean tokens, thoughts included, and what it would cost
    if every call had as many as 95 % of them had at most.

    With ``api_key``, ``base_url`` or ``client`` the service counts the tokens of a sample of the prompts, at no cost.

    The recommended lane is online for one or two prompts, and for urgent, interactive or preview work; for three or
    more prompts that can wait it is batch, if that is cheaper.

    Args:
        prompts: Prompts in a form that `generate` accepts.
        model: Name of the model.
        output_tokens: Tokens of one answer, including thoughts and images; at least those of its images are counted.
        system: The system instruction, as for `generate`; it is sent, and counted, with every prompt.
        schema: The schema of answers, as for `generate`; it is sent, and counted, with every prompt.
        input_tokens: Input tokens of one call, system instruction and schema included. Default: counted by the
            service on a sample, or estimated at 4 characters per token.
        images: Images of one answer, at 1,290 tokens each. Default: ``units`` for an operation with credits, else
            one if the prompt's own config asks for images.
        operation: "character", "food", "product" and "text-to-image" take credits; others do not.
        units: Poses, styles or images of one item.
        n: Number of prompts, if ``prompts`` are only some of them.
        template: Template, as for `generate`.
        latency_s: Time to an online answer, seconds.
        rpm: Requests per minute, if the quota is known.
        concurrency: Requests in flight. Default: as in lane "online".
        urgent: Whether the answers are needed soon.
        interactive: Whether somebody waits for each answer.
        preview: Whether this is a preview of later work.
        prices: Your own prices; see `ipybatch.gemini.price_of`.
        at: Time whose prices apply; default: now.
        sample: Most prompts of which the service counts the tokens.
        api_key: Key for counting.
        base_url: Address of another server, for counting.
        client: A `google.genai.Client` of your own, for counting.
        tokens_from: Name of a session whose calls, to this model and for this operation, say how many tokens a call
            has, or True for those of all sessions; in place of ``output_tokens``, and of ``input_tokens`` unless given.
        journal: Path of the journal with these calls; default: the common one.

    Raises:
        InputError: An argument is out of range, a prompt is invalid, the model's price is unknown, or ``tokens_from``
            has no such calls.
        JournalError: The journal cannot be read.
        MissingExtra: google-genai or genai-prices is needed and not installed.
    """
    name = Model(model).name
    pace = _pace(latency_s, rpm, concurrency)
    units, sample = check_count("units", units, low=1), check_count("sample", sample, low=1)
    output_tokens = check_count("output_tokens", output_tokens, low=0)
    input_tokens, images, n = _count("input_tokens", input_tokens), _count("images", images), _count("n", n)
    listed = to_prompts(prompts, template=template, operation=operation)
    count = len(listed) if n is None else n
    access = None if client is base_url is api_key is None else (api_key, base_url, client)
    request_config = RequestConfig(system=system, schema=schema)
    measured = _measured(tokens_from, journal, name, operation)
    if input_tokens is not None:
        size = Size(input_tokens, "as given")
    elif measured is not None:
        size = Size(measured.mean.in_ or 0, "the mean of calls on record")
    else:
        size = _size(listed, request_config, count, name, sample, access)
    made = units if images is None and operation in CREDITS else images
    configs = [prompt.config for prompt in listed] or [{}]
    answers = [estimate_answer(request_config, config, output_tokens, made) for config in configs]
    tokens = Tokens(
        in_=size.tokens, out=mean([each.answered for each in answers]), image=mean([each.image for each in answers])
    )
    p95: Tokens | None = None
    if measured is not None:
        replaced = {"in_": input_tokens} if input_tokens is not None else {}
        tokens = msgspec.structs.replace(measured.mean, image=tokens.image, **replaced)
        p95 = msgspec.structs.replace(measured.p95, image=tokens.image, **replaced)
        size = Size(size.tokens, f"{size.said}{_said_of(measured, tokens_from)}")
    priced = {lane: price_of(name, tokens, lane, at=at, prices=prices) for lane in LANES}
    dearest = {lane: price_of(name, p95, lane, at=at, prices=prices).usd * count for lane in LANES} if p95 else {}
    offers = _offers(priced, pace, count, operation, units, dearest)
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
        tokens_p95=p95,
    )


def _measured(tokens_from: Any, journal: str | Path | None, model: str, operation: str) -> MeasuredTokens | None:
    if tokens_from is False:
        return None
    if tokens_from is not True and not isinstance(tokens_from, str):
        msg = f"tokens_from must be a session's name, or True for all sessions, got {tokens_from!r}"
        raise InputError(msg)
    session = None if tokens_from is True else tokens_from
    measured = measured_tokens(open_journal(journal), model, operation, session)
    if measured is None:
        whose = "any session" if session is None else f"session {session!r}"
        msg = (
            f"tokens_from needs calls on record, and {whose} has none to {model} for operation {operation!r}: run a few"
            " prompts first, or leave it out for an estimate"
        )
        raise InputError(msg)
    return measured


def _said_of(measured: MeasuredTokens, tokens_from: str | bool) -> str:
    whose = "" if tokens_from is True else f" in session {tokens_from!r}"
    return f" ({measured.calls:,} call{'' if measured.calls == 1 else 's'}{whose})"


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


def _offers(  # noqa: PLR0917  # one private caller
    priced: dict[str, Price], pace: RequestPace, count: int, operation: str, units: int, dearest: dict[str, Decimal]
) -> dict[str, Offer]:
    seconds = {"online": online_s(pace, count), "flex": flex_s(pace, count), "batch": batch_s(count)}
    return {
        lane: Offer(
            price.usd * count,
            price.assumed,
            find_credits(operation, units * count, lane),
            *seconds[lane],
            dearest.get(lane),
        )
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
        f"{'one prompt is' if count == 1 else 'two prompts are'} not worth the wait of a batch": count <= 2,
        "a batch is no cheaper": saved <= 0 and fewer <= 0,
    }
    for why, holds in reasons.items():
        if holds:
            return "online", why
    less = f"{100 * saved / online.usd:.0f} % less" if saved > 0 else f"{plain(fewer)} credits less"
    assumed = " (assumed)" if batch.assumed and saved > 0 else ""
    return "batch", f"{count:,} prompts that can wait cost {less} by batch{assumed}"


def _pace(latency_s: Any, rpm: Any, concurrency: Any) -> RequestPace:
    return RequestPace(
        check("latency_s", latency_s, low=0, above=True, high=86_400),
        None if rpm is None else check("rpm", rpm, low=1),
        None if concurrency is None else check_count("concurrency", concurrency, low=1),
    )


def _count(field: str, value: Any) -> int | None:
    return None if value is None else check_count(field, value, low=0)


def online_s(pace: RequestPace, requests: int) -> tuple[float, float]:
    """Return the shortest and the longest duration in lane online, seconds."""
    return (
        _parallel_s(pace.with_latency(pace.latency_s / 2), requests),
        _parallel_s(pace.with_latency(pace.latency_s * 2), math.ceil(requests * _AGAIN)),
    )


def sequential_s(pace: RequestPace, requests: int) -> tuple[float, float]:
    """Return the shortest and the longest duration with five requests at a time, seconds."""
    return (
        _by_fives_s(pace.with_latency(pace.latency_s / 2), requests),
        _by_fives_s(pace.with_latency(pace.latency_s * 2), math.ceil(requests * _AGAIN)),
    )


def flex_s(pace: RequestPace, requests: int) -> tuple[float, float]:
    """Return the shortest and the longest duration in lane flex, seconds."""
    low_s, high_s = FLEX_S
    return _parallel_s(pace.with_latency(low_s), requests), _parallel_s(pace.with_latency(high_s), requests)


def batch_s(requests: int) -> tuple[float, float]:
    """Return the shortest and the longest duration in lane batch, seconds."""
    return BATCH_S if requests else (0.0, 0.0)


def parallel_from(pace: RequestPace) -> int | None:
    """Return the number of requests from which the parallel mode is quicker than the sequential one; None: never."""
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
    """Return the quote as static HTML."""
    title = (
        f'<div style="font-size:15px"><b>{work_text(quote)}</b> {said(f"to {quote.model}")}</div>'
        f'<div style="padding-top:2px"><span style="color:{_GOOD}">✓</span> <b>{quote.recommended}</b>:'
        f" {said(quote.why)}</div>"
    )
    notes = "".join(f'<div style="padding-top:4px;opacity:0.7">{said(note)}</div>' for note in notes_of(quote))
    return (
        '<div style="max-width:920px;border:1px solid rgba(127,127,127,0.35);border-radius:8px;padding:12px 16px;'
        f'font-family:system-ui,sans-serif;font-size:13px;line-height:1.45">{title}{_table(quote)}{notes}</div>'
    )


def quote_text(quote: Quote) -> str:
    """Return the quote as a few lines of text."""
    lanes = [f"  {lane}: {', '.join(_facts(offer, ' credits'))}" for lane, offer in quote.offers.items()]
    head = f"{work_text(quote)} to {quote.model}: use {quote.recommended}, because {quote.why}"
    return mask("\n".join([head, *lanes, *(f"  {note}" for note in _p95_notes(quote))]))


def notes_of(quote: Quote) -> list[str]:
    """Return the assumptions behind the figures, one line each."""
    pace, tokens = quote.pace, quote.tokens
    images = f", {tokens.image:,} of them images" if tokens.image else ""
    low, high = quote.batch_size
    rpm = "" if pace.rpm is None else f", {pace.rpm:g} requests a minute"
    pays = f"from {quote.parallel_from:,} prompts on" if quote.parallel_from else "never, at this pace"
    guesses = [lane for lane, offer in quote.offers.items() if offer.assumed]
    assumed = f"; assumed for {' and '.join(guesses)}: half of online" if guesses else ""
    thoughts = f" and {tokens.thoughts:,} of thoughts" if tokens.thoughts else ""
    return [
        f"tokens: {tokens.in_:,} a prompt, {quote.tokens_said}; {tokens.out:,} an answer{images}{thoughts}",
        *_p95_notes(quote),
        f"prices: {quote.source}, of {quote.dated}{assumed}",
        f"online: {pace.at_once} at a time, {pace.latency_s:g} s an answer{rpm}",
        f"five at a time would take {_range(*quote.sequential_s)}; more at a time is quicker {pays}",
        "flex: 1 to 15 minutes an answer, and it may be turned away; batch: 24 hours at most, often sooner",
        f"batches of {low} to {high} items are best for {quote.operation}",
    ]


def _p95_notes(quote: Quote) -> list[str]:
    """Return what is said of the longest calls on record."""
    if quote.tokens_p95 is None:
        return []
    costs = ", ".join(f"{lane} {price_text(offer, offer.usd_p95)}" for lane, offer in quote.offers.items())
    most = f"{quote.tokens_p95.in_:,} tokens in and {quote.tokens_p95.answered:,} out, thoughts included"
    return [f"95 % of these calls had at most {most}; if all had as many: {costs}"]


def work_text(quote: Quote) -> str:
    """Return the number of prompts as text."""
    return f"{quote.n:,} prompt{'' if quote.n == 1 else 's'}"


def price_text(offer: Offer, usd: Decimal | None = None) -> str:
    """Return a lane's cost, or another amount, as text: with cents, or with more digits for a small one."""
    usd = offer.usd if usd is None else usd
    digits = 2 if usd == 0 or usd >= 1 else 4 if usd >= 0.001 else 7
    return f"${usd:,.{digits}f}"


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
    """Return the figure: USD as bars at the left, durations as ranges at the right.

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
    lows = [max(offer.low_s, 0.1) for offer in offers]  # the axis is logarithmic
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
