"""Evaluation: the accuracy that forecasts of the past would have had, beside naive ones; and charts.

The past is forecast from a few origins, a horizon apart, the last of which ends with the table. At every origin the
models, the selection between them and the intervals know only what came before.

Series with fewer than two sales before an origin are left out there: their scale does not mean much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from html import escape
from importlib import import_module
from math import isfinite
from typing import Any

import msgspec
import pandas as pd

from ipybatch.engine.data.policy import check_count
from ipybatch.errors import InputError, MissingExtra
from ipybatch.forecast.data.table import read_table, refuse
from ipybatch.forecast.models import matrix
from ipybatch.forecast.models.matrix import Matrix, Series, series_of
from ipybatch.forecast.models.model_registry import candidates
from ipybatch.forecast.models.model_selection import choose, try_models, widths_of
from ipybatch.forecast.settings import AUTO, Freq, Settings

CHOSEN = "chosen"
_BASELINES = ("naive", "seasonal_naive")
_FEWEST = 2  # sales
_GOOD, _ASIDE, _INK, _BAND = "#1a7f37", "#6e7781", "#7d8590", "rgba(26,127,55,0.2)"  # seen on white and on black
_CLEAR = "rgba(0,0,0,0)"
_MOST = 12
_LABEL = 0.6  # a label's width, as a share of what the bars take
_SHOWN = {"rmsse": "RMSSE", "mase": "MASE", "wape": "WAPE", "bias": "Bias"}


class Evaluation(pd.DataFrame):
    """One row per model, `CHOSEN` first: mase, rmsse, wape, bias, pooled_rmse, coverage; means over the origins.

    ``attrs`` has the settings: horizon, freq, origins (the last date known at each), series, level.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def chart(self) -> Any:
        """Return the plotly figure.

        Raises:
            MissingExtra: plotly is not installed.
        """
        subplots, objects = _import("plotly.subplots"), _import("plotly.graph_objects")
        made = subplots.make_subplots(rows=1, cols=len(_SHOWN), shared_yaxes=True, subplot_titles=list(_SHOWN.values()))
        names = [escape(str(name)) for name in self.index][::-1]  # a bar chart begins at the bottom
        colours = [_GOOD if name == "chosen" else _ASIDE for name in names]
        for number, column in enumerate(_SHOWN, start=1):
            values = self[column].tolist()[::-1]
            text = [f"{value:.3f}" for value in values]
            bar = objects.Bar(x=values, y=names, text=text, orientation="h", marker_color=colours, hoverinfo="x+y")
            bar.update(textposition="outside", cliponaxis=False)
            made.add_trace(bar, 1, number)
            # from zero, with room for a label beyond the longest bar of each side that has one
            low, high = (end((0.0, *filter(isfinite, values))) for end in (min, max))
            room = _LABEL * (high - low or 1.0)
            ends = [low - room if low < 0 else low, high + room if high > 0 or not low else high]
            made.update_xaxes(range=ends, col=number)
        return _styled(made, height=60 + 34 * max(len(names), 4))


def evaluate(
    demand: Any,
    *,
    horizon: int,
    origins: int = 3,
    freq: Freq | None = None,
    models: Sequence[Any] = AUTO,
    level: float = 0.8,
    known: Any = None,
    columns: Any = None,
) -> Evaluation:
    """Evaluate the models, and the selection between them, on the past.

    Args:
        demand: As for `forecast`: a DataFrame, or the path of a .csv or .parquet file.
        horizon: Periods ahead, >= 1.
        origins: Number of origins, >= 1.
        freq: "D", "W" or "M"; default: inferred from the dates.
        models: As for `forecast`; naive and seasonal_naive are always evaluated too, but selected only if named.
        level: Share of actual values that the intervals should hold, 0.01 to 0.999.
        known: As for `forecast`.
        columns: As for `forecast`.

    Raises:
        InputError: A row of the table cannot be used, an argument is invalid, or the table is too short.
        MissingExtra: A package that reads the table is not installed.
    """
    check_count("origins", origins, low=1)
    table = read_table(demand, columns=columns, freq=freq)
    refuse(table.problems)
    settings = Settings(horizon=horizon, freq=table.freq, models=tuple(models), level=level, known=known)
    series = series_of(table.frame, table.freq, start=f"{table.start:%Y-%m-%d}", end=f"{table.end:%Y-%m-%d}")
    length = series.values.shape[1]
    cuts = [length - horizon * number for number in range(origins, 0, -1)]
    if cuts[0] < 2:
        msg = (
            f"horizon times origins must be at most {length - 2} of the table's {length} periods,"
            f" got {horizon} x {origins}: ask for fewer"
        )
        raise InputError(msg)
    with _one_thread():
        scores = pd.concat([_at_origin(series, cut, settings) for cut in cuts])
    made = Evaluation(scores.groupby(level=0, sort=False).mean())
    made.attrs = {
        "horizon": horizon,
        "freq": table.freq,
        "origins": [f"{series.dates[cut - 1]:%Y-%m-%d}" for cut in cuts],
        "series": len(series.keys),
        "level": level,
    }
    return made


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
    subplots = _import("plotly.subplots")
    totals = results.groupby(["site", "part"], observed=True)["forecast"].sum()
    chosen = list(totals.nlargest(4).index if series is None else series)
    if series is not None and not 1 <= len(chosen) <= _MOST:
        msg = f"series must be 1 to {_MOST} pairs of site and part, got {len(chosen)}"
        raise InputError(msg)
    for one in chosen:
        if tuple(one) not in totals.index:
            msg = f"series must be pairs of site and part in the results, got {one!r}"
            raise InputError(msg)
    titles = [escape(f"{site}, {part}") for site, part in chosen]
    made = subplots.make_subplots(rows=len(chosen), cols=1, subplot_titles=titles)
    for row, (site, part) in enumerate(chosen, start=1):
        for line in _lines(_of(results, site, part), None if demand is None else _of(demand, site, part)):
            made.add_trace(line, row, 1)
    return _styled(made, height=220 * len(chosen) + 60)


def _one_thread() -> AbstractContextManager[object]:
    """Train with one thread, as partitions do: several on busy cores took ten times as long."""
    try:
        import sklearn.ensemble  # noqa: F401  # a library that is loaded later would not be limited
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types
    except ImportError:
        return nullcontext()
    made: AbstractContextManager[object] = threadpool_limits(1)
    return made


def _at_origin(series: Series, cut: int, settings: Settings) -> pd.DataFrame:
    past = series.until(cut)
    actual = series.values[:, cut : cut + settings.horizon]
    chosen = candidates(settings)
    beside = [name for name in _BASELINES if name not in chosen]
    models = chosen | candidates(msgspec.structs.replace(settings, models=tuple(beside))) if beside else chosen
    trials = try_models(past, models, settings.horizon, settings.origins)
    said: dict[str, Matrix] = {}
    for name, model in models.items():
        model.fit(past, settings.horizon)
        said[name] = model.predict(past, settings.horizon)
    rows = (past.values > 0).sum(axis=1) >= _FEWEST
    scores = {}
    for names in (tuple(chosen), *((name,) for name in models)):
        choice = choose(past, trials, names, settings.select)
        forecast = choice.pick(said)
        ends = widths_of(trials, choice, settings.level).around(forecast, past.values)
        label = names[0] if CHOSEN in scores else CHOSEN
        before, came, told, lo, hi = (values[rows] for values in (past.values, actual, forecast, *ends))
        scores[label] = {
            "mase": matrix.mase(before, came, told),
            "rmsse": matrix.rmsse(before, came, told),
            "wape": matrix.wape(came, told),
            "bias": matrix.bias(came, told),
            "pooled_rmse": matrix.pooled_rmse(came, told),
            "coverage": matrix.coverage(came, lo, hi),
        }
    return pd.DataFrame.from_dict(scores, orient="index")


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
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtra("forecast") from None
