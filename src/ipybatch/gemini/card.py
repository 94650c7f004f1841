"""Card: a quote as a static table and as text.

Rule: as for sessions (`ipybatch.jupyter.static_html`): it reads well without its styles, and every text from outside is
escaped, and masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipybatch.engine.data.masking import mask
from ipybatch.gemini.movements import plain
from ipybatch.jupyter.static_html import Sheet, said, span, table

if TYPE_CHECKING:
    from ipybatch.gemini.quote import Offer, Quote

_GOOD = "#2da44e"
_SOFT = 'style="padding-top:4px;opacity:0.7"'


def html(quote: Quote) -> str:
    """Return the quote as HTML that needs nothing else."""
    title = (
        f'<div style="font-size:15px"><b>{work(quote)}</b> {said(f"to {quote.model}")}</div>'
        f'<div style="padding-top:2px"><span style="color:{_GOOD}">✓</span> <b>{quote.recommended}</b>:'
        f" {said(quote.why)}</div>"
    )
    notes = "".join(f"<div {_SOFT}>{said(note)}</div>" for note in notes_of(quote))
    return (
        '<div style="max-width:920px;border:1px solid rgba(127,127,127,0.35);border-radius:8px;padding:12px 16px;'
        f'font-family:system-ui,sans-serif;font-size:13px;line-height:1.45">{title}{_table(quote)}{notes}</div>'
    )


def text(quote: Quote) -> str:
    """Return the quote as a few lines, the same every time."""
    lanes = [f"  {lane}: {', '.join(_facts(offer, ' credits'))}" for lane, offer in quote.offers.items()]
    head = f"{work(quote)} to {quote.model}: use {quote.recommended}, because {quote.why}"
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


def work(quote: Quote) -> str:
    """Return how many prompts it is about."""
    return f"{quote.n:,} prompt{'' if quote.n == 1 else 's'}"


def money(offer: Offer) -> str:
    """Return what a lane costs, as people write it: cents, or as many digits as it takes."""
    digits = 2 if offer.usd == 0 or offer.usd >= 1 else 4 if offer.usd >= 0.001 else 7
    return f"${offer.usd:,.{digits}f}"


def _facts(offer: Offer, word: str = "") -> list[str]:
    assumed = " (assumed)" if offer.assumed else ""
    credits_ = [] if offer.credits is None else [f"{plain(offer.credits)}{word}"]
    return [f"{money(offer)}{assumed}", *credits_, _range(offer.low_s, offer.high_s)]


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
