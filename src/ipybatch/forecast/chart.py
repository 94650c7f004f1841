"""Chart: forecasts as plotly lines with their intervals, and how good the models were."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from math import isfinite
from typing import TYPE_CHECKING, Any

from ipybatch.errors import InputError, MissingExtra

if TYPE_CHECKING:
    import pandas as pd

_GOOD, _ASIDE, _INK, _BAND = "#1a7f37", "#6e7781", "#7d8590", "rgba(26,127,55,0.2)"  # seen on white and on black
_CLEAR = "rgba(0,0,0,0)"
_MOST = 12
_LABEL = 0.6  # a label's width, as a share of what the bars take
_SHOWN = {"rmsse": "RMSSE", "mase": "MASE", "wape": "WAPE", "bias": "Bias"}


def forecasts(
    results: pd.DataFrame,
    demand: pd.DataFrame | None = None,
    *,
    series: Iterable[tuple[Any, Any]] | None = None,
) -> Any:
    """Return the figure of some series: what was sold, what is forecast, and the interval around it.

    Args:
        results: What a forecast came to: site, part, date, forecast, lo, hi.
        demand: site, part, date, quantity; the past, where it is to be seen.
        series: (site, part) of each, at most 12; default: the 4 with the largest forecasts.

    Raises:
        InputError: A series is not in the results, or there are too many.
        MissingExtra: plotly is not installed.
    """
    subplots = _import("plotly.subplots")
    chosen = _chosen(results, series)
    titles = [escape(f"{site}, {part}") for site, part in chosen]
    made = subplots.make_subplots(rows=len(chosen), cols=1, subplot_titles=titles)
    for row, (site, part) in enumerate(chosen, start=1):
        for line in _lines(_of(results, site, part), None if demand is None else _of(demand, site, part)):
            made.add_trace(line, row, 1)
    return _styled(made, height=220 * len(chosen) + 60)


def scores(evaluation: pd.DataFrame) -> Any:
    """Return the figure of an evaluation: a bar per model and measure.

    Raises:
        MissingExtra: plotly is not installed.
    """
    subplots, objects = _import("plotly.subplots"), _import("plotly.graph_objects")
    made = subplots.make_subplots(rows=1, cols=len(_SHOWN), shared_yaxes=True, subplot_titles=list(_SHOWN.values()))
    names = [escape(str(name)) for name in evaluation.index][::-1]  # a bar chart begins at the bottom
    colours = [_GOOD if name == "chosen" else _ASIDE for name in names]
    for number, column in enumerate(_SHOWN, start=1):
        values = evaluation[column].tolist()[::-1]
        text = [f"{value:.3f}" for value in values]
        bar = objects.Bar(x=values, y=names, text=text, orientation="h", marker_color=colours, hoverinfo="x+y")
        bar.update(textposition="outside", cliponaxis=False)
        made.add_trace(bar, 1, number)
        made.update_xaxes(range=_with_room(values), col=number)
    return _styled(made, height=60 + 34 * max(len(names), 4))


def _with_room(values: list[float]) -> list[float]:
    """Return an axis from zero with room for a label beyond the longest bar of each side that has one."""
    low, high = (end((0.0, *filter(isfinite, values))) for end in (min, max))
    room = _LABEL * (high - low or 1.0)
    return [low - room if low < 0 else low, high + room if high > 0 or not low else high]


def _chosen(results: pd.DataFrame, series: Iterable[tuple[Any, Any]] | None) -> list[tuple[Any, Any]]:
    totals = results.groupby(["site", "part"], observed=True)["forecast"].sum()
    if series is None:
        return list(totals.nlargest(4).index)
    chosen = list(series)
    if not 1 <= len(chosen) <= _MOST:
        msg = f"series must be 1 to {_MOST} pairs of site and part, got {len(chosen)}"
        raise InputError(msg)
    for one in chosen:
        if tuple(one) not in totals.index:
            msg = f"series must be pairs of site and part in the results, got {one!r}"
            raise InputError(msg)
    return chosen


def _of(frame: pd.DataFrame, site: Any, part: Any) -> pd.DataFrame:
    rows: pd.DataFrame = frame[(frame["site"] == site) & (frame["part"] == part)].sort_values("date")
    return rows


def _lines(ahead: pd.DataFrame, past: pd.DataFrame | None) -> list[Any]:
    objects = _import("plotly.graph_objects")
    around = {
        "x": [*ahead["date"], *ahead["date"][::-1]],
        "y": [*ahead["hi"], *ahead["lo"][::-1]],
    }
    lines = [
        objects.Scatter(**around, fill="toself", fillcolor=_BAND, line_width=0, name="interval", hoverinfo="skip"),
        objects.Scatter(x=ahead["date"], y=ahead["forecast"], line_color=_GOOD, name="forecast", mode="lines"),
    ]
    if past is not None:
        lines.append(objects.Bar(x=past["date"], y=past["quantity"], marker_color=_ASIDE, name="sold"))
    return lines


def _styled(made: Any, *, height: int) -> Any:
    made.update_layout(
        showlegend=False,
        template="none",
        font_color=_INK,
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        height=height,
        margin={"l": 120, "r": 20, "t": 40, "b": 40},
    )
    return made


def _import(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise MissingExtra("forecast") from None
