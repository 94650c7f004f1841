"""Chart: a quote as a plotly figure: what each lane costs, and from when to when it may take."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from ipybatch.errors import MissingExtra
from ipybatch.gemini import card
from ipybatch.jupyter.static_html import span

if TYPE_CHECKING:
    from ipybatch.gemini.quote import Quote

_GOOD, _ASIDE, _INK = "#1a7f37", "#6e7781", "#7d8590"  # to be seen on white and on black
_CLEAR = "rgba(0,0,0,0)"
_TICKS_S = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 21_600: "6 h", 86_400: "24 h"}
_SHORTEST_S = 0.1  # a logarithm has no nought


def figure(quote: Quote) -> Any:
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
        "marker_color": [_GOOD if lane == quote.recommended else _ASIDE for lane in lanes],
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        "textposition": "auto",
        "insidetextfont_color": "white",
    }
    made = make_subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=("USD", "Time, from and to"))
    prices = [card.money(offer) + (" (assumed)" if offer.assumed else "") for offer in offers]
    times = [f"{span(offer.low_s)} to {span(offer.high_s)}" for offer in offers]
    made.add_trace(graph_objects.Bar(x=[float(offer.usd) for offer in offers], text=prices, **style), 1, 1)
    made.add_trace(graph_objects.Bar(x=spans, base=lows, text=times, **style), 1, 2)
    made.update_xaxes(type="log", tickvals=list(_TICKS_S), ticktext=list(_TICKS_S.values()), row=1, col=2)
    made.update_layout(
        title={"text": f"{card.work(quote)} to {escape(quote.model)}: {quote.recommended} is recommended"},
        showlegend=False,
        template="none",
        font_color=_INK,
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        height=280,
        margin={"l": 60, "r": 20, "t": 80, "b": 40},
    )
    return made


def show(quote: Quote) -> None:
    """Display the table, and below it the figure where plotly is installed."""
    from IPython.display import display

    table = {"text/html": card.html(quote), "text/plain": card.text(quote)}
    display(table, raw=True)  # type: ignore[no-untyped-call]  # IPython's
    try:
        drawn = figure(quote)
    except MissingExtra:
        return
    drawing = {"application/vnd.plotly.v1+json": json.loads(drawn.to_json())}
    display(drawing, raw=True)  # type: ignore[no-untyped-call]  # IPython's
