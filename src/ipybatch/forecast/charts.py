"""Charts of forecasts and of evaluations: plotly figures without a background, to be read in light and dark alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import import_module
from math import isfinite
from typing import Any, NamedTuple

import pandas as pd

from ipybatch.engine.data.fact import NONE
from ipybatch.errors import InputError, MissingExtra

_GOOD, _ASIDE, _INK, _BAND = "#1a7f37", "#6e7781", "#7d8590", "rgba(45,164,78,0.28)"  # seen on white and on black
_CLEAR = "rgba(0,0,0,0)"
MOST = 12  # series
_LABEL = 0.6  # a label's width, as a share of what the bars take
_SHOWN = {"rmsse": "RMSSE", "mase": "MASE", "wape": "WAPE", "bias": "Bias"}


class Drawn(NamedTuple):
    """One series of a chart.

    Attributes:
        title: Text; it is escaped.
        ahead: date, forecast, lo and hi of each forecast of it.
        past: date and quantity; None for none.
    """

    title: str
    ahead: Sequence[pd.DataFrame]
    past: pd.DataFrame | None = None


def chart(
    results: pd.DataFrame,
    demand: pd.DataFrame | None = None,
    *,
    series: Iterable[tuple[Any, Any]] | None = None,
) -> Any:
    """Return the plotly figure of some series: their sales, forecast and interval.

    Args:
        results: The results of a forecast: site, part, date, forecast, lo, hi.
        demand: The past, to be drawn too: site, part, date, quantity.
        series: (site, part) of each, at most 12; default: the 4 with the largest forecasts.

    Raises:
        InputError: A series is not in the results, or there are too many.
        MissingExtra: plotly is not installed.
    """
    _import("plotly.subplots")
    totals = results.groupby(["site", "part"], observed=True)["forecast"].sum()
    chosen = list(totals.nlargest(4).index if series is None else series)
    if series is not None and not 1 <= len(chosen) <= MOST:
        msg = f"series must be 1 to {MOST} pairs of site and part, got {len(chosen)}"
        raise InputError(msg)
    for one in chosen:
        if tuple(one) not in totals.index:
            msg = f"series must be pairs of site and part in the results, got {one!r}"
            raise InputError(msg)
    return draw(
        [
            Drawn(
                f"{site}, {part}",
                [of_series(results, site, part)],
                None if demand is None else of_series(demand, site, part),
            )
            for site, part in chosen
        ]
    )


def of_series(frame: pd.DataFrame, site: Any, part: Any) -> pd.DataFrame:
    """Return the rows of one series, by date."""
    rows: pd.DataFrame = frame[(frame["site"] == site) & (frame["part"] == part)].sort_values("date")
    return rows


def draw(series: Sequence[Drawn]) -> Any:
    """Return the figure of some series, one below the other.

    Raises:
        MissingExtra: plotly is not installed.
    """
    subplots = _import("plotly.subplots")
    titles = [escape(one.title) for one in series]
    height = _HEIGHT * len(series)
    gap = min(_GAP / height, 1 / max(len(series) - 1, 1))  # room for dates and a title, however many there are
    made = subplots.make_subplots(rows=len(series), cols=1, subplot_titles=titles, vertical_spacing=gap)
    for row, one in enumerate(series, start=1):
        for line in _lines(one):
            line.showlegend = row == 1 and line.name not in {known.name for known in made.data}
            made.add_trace(line, row, 1)
    made.update_annotations(x=0.0, xanchor="left", font_size=13)
    made.update_yaxes(rangemode="tozero", gridcolor="rgba(127,127,127,0.2)")
    above = {"y": 1 + 26 / height, "yanchor": "bottom", "x": 1, "xanchor": "right"}
    made.update_layout(bargap=0.15, showlegend=True, legend={"orientation": "h", **above})
    return _styled(made, height=height + 100, left=48, top=60)


_HEIGHT, _GAP = 200, 68  # pixels


def bars(scores: pd.DataFrame, first: str) -> Any:
    """Return the figure of an evaluation's measures, a bar per model.

    Args:
        scores: One row per model.
        first: The one that stands out.

    Raises:
        MissingExtra: plotly is not installed.
    """
    subplots, objects = _import("plotly.subplots"), _import("plotly.graph_objects")
    made = subplots.make_subplots(rows=1, cols=len(_SHOWN), shared_yaxes=True, subplot_titles=list(_SHOWN.values()))
    names = [escape(str(name)) for name in scores.index][::-1]  # a bar chart begins at the bottom
    colours = [_GOOD if name == first else _ASIDE for name in names]
    for number, column in enumerate(_SHOWN, start=1):
        values = scores[column].tolist()[::-1]
        text = [told_figure(value) for value in values]
        bar = objects.Bar(x=values, y=names, text=text, orientation="h", marker_color=colours, hoverinfo="x+y")
        bar.update(textposition="outside", cliponaxis=False)
        made.add_trace(bar, 1, number)
        # from zero, with room for a label beyond the longest bar of each side that has one
        low, high = (end((0.0, *filter(isfinite, values))) for end in (min, max))
        room = _LABEL * (high - low or 1.0)
        ends = [low - room if low < 0 else low, high + room if high > 0 or not low else high]
        made.update_xaxes(range=ends, col=number)
    made.update_layout(showlegend=False)
    return _styled(made, height=60 + 34 * max(len(names), 4))


def told_figure(value: float) -> str:
    """Return a measure as text; of one that could not be measured, as of series that never moved, a dash."""
    return f"{value:.3f}" if isfinite(value) else NONE


def _lines(one: Drawn) -> list[Any]:
    objects = _import("plotly.graph_objects")
    lines = []
    for ahead in one.ahead:
        around = {
            "x": [*ahead["date"], *ahead["date"][::-1]],
            "y": [*ahead["hi"], *ahead["lo"][::-1]],
        }
        lines += [
            objects.Scatter(**around, fill="toself", fillcolor=_BAND, mode="none", name="interval", hoverinfo="skip"),
            objects.Scatter(x=ahead["date"], y=ahead["forecast"], line_color=_GOOD, name="forecast", mode="lines"),
        ]
    if one.past is not None:
        lines.append(objects.Bar(x=one.past["date"], y=one.past["quantity"], marker_color=_ASIDE, name="sold"))
    return lines


def _styled(made: Any, *, height: int, left: int = 120, top: int = 40) -> Any:
    made.update_layout(
        template="none",
        font_color=_INK,
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        height=height,
        margin={"l": left, "r": 20, "t": top, "b": 40},
    )
    return made


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtra("forecast") from None
