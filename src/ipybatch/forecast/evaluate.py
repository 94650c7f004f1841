"""Evaluate: how good the forecasts would have been, beside those that cost nothing.

The past is forecast from a few origins, a horizon apart, the last of which ends with the table.  At every origin the
models, the choice between them and the intervals know only what came before.

Series with fewer than two periods of demand before an origin are left out there: their scale does not mean much.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec
import pandas as pd

from ipybatch.engine.data.policy import check_count
from ipybatch.errors import InputError
from ipybatch.forecast import metrics
from ipybatch.forecast.candidates import candidates
from ipybatch.forecast.choice import choose, try_models
from ipybatch.forecast.intervals import widths_of
from ipybatch.forecast.matrix import Matrix, Series, series_of
from ipybatch.forecast.settings import AUTO, Freq, Settings
from ipybatch.forecast.tables import read_table, refuse

CHOSEN = "chosen"
_BASELINES = ("naive", "seasonal_naive")
_FEWEST = 2


class Evaluation(pd.DataFrame):
    """One row per model, `CHOSEN` first: mase, rmsse, wape, bias, pooled_rmse, coverage; means over the origins.

    ``attrs`` says how it was measured: horizon, freq, origins (the last date known at each), series, level.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def chart(self) -> Any:
        """Return the plotly figure.

        Raises:
            MissingExtra: plotly is not installed.
        """
        from ipybatch.forecast.chart import scores

        return scores(self)


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
    """Return how good the models, and the choice between them, would have been on the past.

    Args:
        demand: As for `analyze`: a frame, or the path of a CSV file.
        horizon: Periods ahead, >= 1.
        origins: How many times, >= 1.
        freq: "D", "W" or "M"; default: what the table's dates allow.
        models: As for `forecast`; naive and seasonal_naive stand beside them always, and are chosen only if named.
        level: Share of actual values that the interval should hold.
        known: What is known ahead, as for `forecast`.
        columns: As for `analyze`.

    Raises:
        InputError: The table is not clean, an argument is not what it must be, or the table is too short.
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
        scores[label] = _score(past.values[rows], actual[rows], forecast[rows], ends[0][rows], ends[1][rows])
    return pd.DataFrame.from_dict(scores, orient="index")


def _score(history: Matrix, actual: Matrix, forecast: Matrix, lo: Matrix, hi: Matrix) -> dict[str, float]:
    return {
        "mase": metrics.mase(history, actual, forecast),
        "rmsse": metrics.rmsse(history, actual, forecast),
        "wape": metrics.wape(actual, forecast),
        "bias": metrics.bias(actual, forecast),
        "pooled_rmse": metrics.pooled_rmse(actual, forecast),
        "coverage": metrics.coverage(actual, lo, hi),
    }
