"""Evaluation: the accuracy that what `forecast` delivers would have had in the past, beside other models.

The past is forecast from a few origins, a horizon apart, the last of which ends with the table. At each the table is
cut off, cut into partitions and trained as `forecast` would have done it there: the same partitions, settings, choice
of models and kind of processes, and nothing known of what came after. So the row "chosen" scores what is delivered.

    table --cut off at each origin--> partitions --`score`, in processes--> sums --`measures`--> one row per model

A partition that fails is told, and its series are left out of all rows.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from ipybatch.backends.process.backend import processors
from ipybatch.backends.threads import Threads
from ipybatch.engine.data.policy import Limits, Retry, check_count
from ipybatch.engine.data.spec import Backend
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import InputError, ItemError
from ipybatch.forecast.charts import MOST, Drawn, bars, draw, of_series
from ipybatch.forecast.data.partitions import MAX_PARTITIONS, MAX_ROWS, Partition, cut
from ipybatch.forecast.data.repairs import Repair
from ipybatch.forecast.data.table import Table, read_table, refuse
from ipybatch.forecast.models.baselines import Baseline, baselines_of
from ipybatch.forecast.models.matrix import series_of
from ipybatch.forecast.origins import AtOrigin, at_origin, names_there, numbered, origins_of, until
from ipybatch.forecast.scoring import CHOSEN, SUMS, Score, measures, score, score_alone
from ipybatch.forecast.session import Forecasting, ForecastSession
from ipybatch.forecast.settings import AUTO, Freq
from ipybatch.forecast.training import Borrowing, prepare, runner_of
from ipybatch.session.waiting import in_notebook

_FEW_ROWS = 2_000  # up to there, of models of ours only, loading a process takes longer than all takes in a thread
_KEYS = ["site", "part"]
_TOLD = 5  # partitions that failed, in a warning
_DRAWN = 3  # times what was forecast is drawn of a series' past


class Evaluation(pd.DataFrame):
    """One row per model, `CHOSEN` first: the means over the origins of its error measures.

    Columns: mase, rmsse, wape, bias, pooled_rmse, coverage, and coverage_nonzero: the share of actual values above
    zero that the intervals held. ``attrs`` has the settings: horizon, freq, origins (the last day known at each),
    series, level; and left_out, the partitions and baselines that failed, a line each.
    """

    _metadata = ["_found"]  # noqa: RUF012  # pandas' way to say that this attribute is no column
    _found: _Found | None = None

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def by_class(self, model: str = CHOSEN) -> pd.DataFrame:
        """Return the measures of one model per class that is there, and its series.

        Classes are those of demand, smooth, intermittent, erratic and lumpy; and, apart from them, the series that were
        "new" or "dead" at an origin.

        Raises:
            InputError: There is no such model.
        """
        return self._by("class", model)

    def by_partition(self, model: str = CHOSEN) -> pd.DataFrame:
        """Return the measures of one model per partition, by name; and its series.

        Raises:
            InputError: There is no such model.
        """
        return self._by("partition", model)

    def by_series(self) -> pd.DataFrame:
        """Return the measures of what is delivered per series, by site and part: those of its errors at all origins.

        Columns beside the measures: class, model_used and partition at the latest origin, absolute_error (pieces
        over all that was forecast), actual (pieces sold).
        """
        rows = self._details.series
        groups = rows.groupby(_KEYS, observed=True, sort=True)
        sums, latest = groups[list(SUMS)].sum(), groups[["class", "model_used", "partition"]].last()
        beside = sums[["absolute", "actual"]].rename(columns={"absolute": "absolute_error"})
        return pd.concat([measures(sums), beside, latest], axis=1)

    def forecasts(self) -> pd.DataFrame:
        """Return what would have been delivered: origin, site, part, date, actual, forecast, lo, hi, model_used.

        One row per origin, site, part and date, sorted; names are categories.
        """
        parts = self._details.forecasts
        origins, frames = [origin for origin, _ in parts], [frame for _, frame in parts]
        found = pd.DataFrame(
            {
                "origin": np.repeat(origins, [len(frame) for frame in frames]),
                **{name: _joined([frame[name] for frame in frames]) for name in frames[0].columns},
            },
            copy=False,
        )
        order = np.lexsort([found["date"], *(found[key].cat.codes for key in reversed(_KEYS)), found["origin"]])
        return found.take(order).reset_index(drop=True)

    def chart(
        self, *, worst: int | None = None, by: Literal["rmsse", "mase", "wape", "absolute_error"] = "rmsse"
    ) -> Any:
        """Return a plotly figure: the measures of each model, or the series that were forecast worst.

        Args:
            worst: How many series to draw, 1 to 12, with what they sold, what was forecast at each origin, and its
                interval; None for the measures.
            by: The error by which they are the worst; "absolute_error" finds those with the most pieces off.

        Raises:
            InputError: ``worst`` or ``by`` is out of its range.
            MissingExtra: plotly is not installed.
        """
        if worst is None:
            return bars(self, CHOSEN)
        worst = check_count("worst", worst, low=1)
        if worst > MOST or by not in _ERRORS:
            msg = f"worst must be 1 to {MOST}, and by one of {', '.join(map(repr, _ERRORS))}, got {worst} and {by!r}"
            raise InputError(msg)
        errors = self.by_series().nlargest(worst, by)
        return draw([self._drawn(key, row, by) for key, row in errors.iterrows()])

    @property
    def _details(self) -> _Found:
        if self._found is None:
            msg = "an evaluation must come from evaluate(), got one made of figures: these are all it has"
            raise InputError(msg)
        return self._found

    def _by(self, what: str, model: str) -> pd.DataFrame:
        sums = self._details.sums
        if model not in self.index:
            msg = f"model must be one of {', '.join(map(repr, self.index))}, got {model!r}"
            raise InputError(msg)
        rows = sums[sums["model"] == model].groupby(["origin", what], observed=True).sum(numeric_only=True)
        found = measures(rows).groupby(level=1, observed=True).mean()
        found.insert(0, "series", rows["series"].groupby(level=1, observed=True).max().astype(int))
        return found

    def _drawn(self, key: Any, row: Any, by: str) -> Drawn:
        found, (site, part) = self._details, key
        ahead = [of_series(frame, site, part) for _, frame in found.forecasts]
        ahead = sorted((one for one in ahead if len(one)), key=lambda one: one["date"].iloc[0])
        table = found.table
        ends = {"start": f"{table.start:%Y-%m-%d}", "end": f"{table.end:%Y-%m-%d}"}
        series = series_of(of_series(table.frame, site, part), table.freq, **ends)
        past = pd.DataFrame({"date": series.dates, "quantity": series.values[0]})
        shown = _DRAWN * len(ahead) * len(ahead[0])
        error = f"{row[by]:,.0f} pieces off" if by == "absolute_error" else _told_measure(by, row[by])
        return Drawn(f"{site}, {part}: {error}, {row['class']}, {row['model_used']}", ahead, past.iloc[-shown:])


def _told_measure(name: str, value: float) -> str:
    """Return a measure of a series with its name, or why it has none."""
    if np.isfinite(value):
        return f"{name.upper()} {value:.2f}"
    return f"{'sold nothing' if name == 'wape' else 'never moved'}, so that it has no {name.upper()}"


_ERRORS = ("rmsse", "mase", "wape", "absolute_error")


@dataclass(frozen=True, slots=True)
class _Found:
    """What an evaluation has beside its figures.

    Attributes:
        sums: By origin, partition, model and class.
        series: The errors of each scored series at each origin, in the order of the origins.
        forecasts: Of each origin and partition.
        table: The demand.
    """

    sums: pd.DataFrame
    series: pd.DataFrame
    forecasts: list[tuple[str, pd.DataFrame]]
    table: Table


def evaluate(
    demand: Any,
    *,
    horizon: int,
    origins: int = 3,
    by: Any = "site",
    max_rows: int = MAX_ROWS,
    max_partitions: int = MAX_PARTITIONS,
    split_series: bool = False,
    sites: Collection[Any] | None = None,
    parts: Collection[Any] | None = None,
    timeout_s: float | None = 300.0,
    memory_mb: float | None = 2048.0,
    models: Iterable[Any] | None = AUTO,
    baselines: Iterable[Any] | None = None,
    freq: Freq | None = None,
    known: Any = None,
    integer: bool = False,
    level: float = 0.8,
    select: Literal["squared", "pinball"] = "squared",
    columns: Mapping[str, Any] | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
    date_format: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    repair: Repair | None = None,
    workers: int | None = None,
    backend: Backend | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
    on_session: Callable[[ForecastSession], None] | None = None,
    verbose: bool = False,
) -> Evaluation:
    """Evaluate on the past what `forecast` delivers with the same arguments, and each model by itself.

    It waits until all is measured, and shows how far it is; Ctrl-C, or Cancel in the panel, ends it. Small tables are
    trained in a thread of this process, with the same result, unless a backend or workers are asked for.

    Args:
        demand: As for `forecast`: a DataFrame, or the path of a file.
        horizon: Periods ahead, >= 1.
        origins: Number of origins, >= 1.
        by: As for `forecast`, and so are max_rows, max_partitions, split_series, sites and parts. Series that a cut
            spreads over several partitions are not scored, which a warning says.
        timeout_s: Seconds that one partition may train at one origin; None for no limit.
        memory_mb: Memory that it may use; None for no limit.
        models: As for `forecast`.
        baselines: Models to be shown beside them that `forecast` does not choose from: names as for ``models``,
            "statsforecast" and "mlforecast" for some standard models of those packages, or models of theirs. Default:
            naive, seasonal_naive, and those two where they are installed.
        freq: "D", "W" or "M"; default: inferred from the dates.
        known: As for `forecast`.
        integer: Whether to forecast whole pieces.
        level: Share of actual values that the intervals should hold, 0.01 to 0.999.
        select: The loss that selects a model: "squared" error or "pinball".
        columns: As for `forecast`, and so are decimal, thousands, date_format, encoding, sheet and
            repair.
        workers: Partitions trained at the same time, >= 1; default: one per processor core.
        backend: Where partitions run; default: `Processes`.
        on_progress: Called with how many partitions were measured, of all origins, and how many there are.
        on_session: Called with the session that measures, before it starts: it can be watched, and cancelled.
        verbose: In a terminal, a line per partition instead of a progress line.

    Raises:
        BadRows: A row of the table cannot be used.
        InputError: A row of the table cannot be used, an argument is invalid, or the table is too short.
        ItemError: No partition could be measured.
        KeyboardInterrupt: It was cancelled.
        MissingExtra: A package that reads the table is not installed.
    """
    horizon, origins = check_count("horizon", horizon, low=1), check_count("origins", origins, low=1)
    table = read_table(
        demand,
        columns=columns,
        freq=freq,
        encoding=encoding,
        sheet=sheet,
        decimal=decimal,
        thousands=thousands,
        date_format=date_format,
        repair=repair,
    )
    refuse(table.problems)
    if by is None and (sites is not None or parts is not None):
        cut(table, None, max_rows, max_partitions, sites=sites, parts=parts)  # a name that is nowhere is refused
    items: list[AtOrigin] = []
    for day, end in origins_of(table, horizon, origins):
        past = until(table, day)
        prepared = prepare(
            past,
            horizon=horizon,
            by=by,
            max_rows=max_rows,
            max_partitions=max_partitions,
            split_series=split_series,
            sites=names_there("site", past, sites) if by is None else sites,  # else they are ignored
            parts=names_there("part", past, parts) if by is None else parts,
            models=models,
            level=level,
            integer=integer,
            known=known,
            select=select,
        )
        items += at_origin(prepared, table, day, end)
    items = numbered(items)
    names, others = baselines_of(baselines, items[0].settings)
    runner: Backend = Threads()
    is_small = backend is None and workers is None and table.rows <= _FEW_ROWS
    if not is_small or others or not all(isinstance(model, str) for model in items[0].settings.models):
        every = (*items[0].settings.models, *(one.model for one in others))
        runner = runner_of(backend, workers, memory_mb=memory_mb, timeout_s=timeout_s, models=every)
    work = Evaluating(table, items, runner, names, others)
    failed = _run(work, workers, on_progress, on_session, verbose=verbose)
    if not any(len(made.series) for made in work.scores.values()):
        spread = f", and of those that have, {found[0]}" if (found := _spread(items)) else ""
        msg = (
            "demand must have series that sold in two periods before an origin, which alone are scored, got none"
            f"{spread}: ask for fewer origins, a shorter horizon or a longer freq"
        )
        raise InputError(msg)
    made = _evaluated(work)
    made.attrs = {
        "horizon": horizon,
        "freq": table.freq,
        "origins": sorted({one.origin for one in items}),
        "series": int(table.frame.groupby(_KEYS, sort=False, observed=True).ngroups),
        "level": items[0].settings.level,
        "left_out": [*_spread(items), *failed, *(f"{name}: {why}" for name, why in work.lost.items())],
    }
    if told := made.attrs["left_out"]:
        more = f" and {len(told) - _TOLD:,} more" if len(told) > _TOLD else ""
        warnings.warn(f"left out of the evaluation: {'; '.join(told[:_TOLD])}{more}", stacklevel=2)
    for note in work.told:
        warnings.warn(note, stacklevel=2)
    return made


class Evaluating(Forecasting):
    """Work of an evaluation: score a partition at an origin on the backend.

    Attributes:
        scores: Of those that were measured, by name.
        beside: Sums of the other baselines, likewise.
        lost: Baselines that failed, and why.
        told: What else the user should know, once each.
    """

    name = ""  # nothing is recorded that could be opened again

    def __init__(  # its collaborators, each of another type
        self,
        table: Table,
        items: Sequence[AtOrigin],
        runner: Backend,
        names: Sequence[str],
        others: Sequence[Baseline],
    ) -> None:
        super().__init__(list(items), items[0].settings, runner, {"on_failure": "continue", "output": None}, table)
        self.table, self.items, self.runner, self._names, self._others = table, items, runner, names, others
        at: dict[str, list[AtOrigin]] = {}
        for one in items:
            at.setdefault(one.origin, []).append(one)
        self._borrowing = {day: Borrowing(all_, all_[0].settings, runner, self._note) for day, all_ in at.items()}
        self.scores: dict[str, Score] = {}
        self.beside: dict[str, list[pd.DataFrame]] = {}
        self.lost: dict[str, str] = {}
        self.told: dict[str, None] = {}

    def _note(self, text: str) -> None:
        super()._note(text)
        self.told[text] = None

    async def __call__(self, part: Partition, attempt: Attempt) -> dict[str, Any]:
        """Score a partition, and keep that in memory."""
        assert isinstance(part, AtOrigin)
        attempt.join(part.number)
        self._tell(part, "running")
        settings = await self._borrowing[part.origin].settings_for(part)
        made = await self._backend.run(score, (part.frame, part.later, settings, self._names))
        self.beside[part.name] = [sums for one in self._others if (sums := await self._beside(part, one)) is not None]
        self.scores[part.name] = made
        return {"rows": len(made.forecast), "series": len(made.series), "file": ""}

    async def _beside(self, part: AtOrigin, one: Baseline) -> pd.DataFrame | None:
        """Return the sums of a baseline; None for one that failed, here or elsewhere: it has no row."""
        if not self.lost.keys().isdisjoint(one.labels.values()):
            return None
        settings = msgspec.structs.replace(part.settings, models=(one.model,))
        try:
            made: pd.DataFrame = await self._backend.run(score_alone, (part.frame, part.later, settings, one.labels))
        except Exception as error:  # of another package, whatever it is: what is delivered is measured all the same
            self.lost |= dict.fromkeys(one.labels.values(), f"{part.title}: {error}")
            return None
        return made


def _run(
    work: Evaluating,
    workers: int | None,
    on_progress: Callable[[int, int | None], None] | None,
    on_session: Callable[[ForecastSession], None] | None,
    *,
    verbose: bool,
) -> list[str]:
    """Run a session of all origins and partitions, wait for it, and return those that failed, a line each."""
    runner = work.runner
    workers = workers or getattr(runner, "workers", None) or processors()
    folder = tempfile.mkdtemp(prefix="ipybatch-evaluation-")
    session = ForecastSession(
        "evaluation",
        work,
        work.items,
        limits=Limits(concurrency=1 if isinstance(runner, Threads) else workers),
        retry=Retry(attempts=1),
        breaker=None,
        key=lambda part: part.name,
        group_word="Partition",
        journal=Path(folder) / "evaluation.sqlite",
        on_progress=on_progress,
    )
    weakref.finalize(session, shutil.rmtree, folder, ignore_errors=True)  # its panel goes on reading it
    for note in work.table.notes:
        session.note(note)
    is_asked_for = threading.current_thread() is threading.main_thread()  # the output of a cell, not of a form
    if is_asked_for and in_notebook() and not isinstance(runner, Threads):
        session.show()
    if on_session is not None:
        on_session(session)
    session.run(verbose=verbose)
    if session.state == "cancelled":
        msg = "the evaluation was cancelled"
        raise KeyboardInterrupt(msg)
    rows = session.partitions()
    failed = [f"{key} ({error})" for key, error in zip(rows["key"], rows["error"], strict=True) if error]
    if not work.scores:
        msg = f"no partition could be measured: {failed[0] if failed else session.reason}"
        raise ItemError(msg)
    return failed


def _joined(columns: list[pd.Series[Any]]) -> Any:
    """Return one column of several; names stay categories, which are a number a row."""
    if isinstance(columns[0].dtype, pd.CategoricalDtype):
        return union_categoricals(columns, sort_categories=True)
    return np.concatenate([column.to_numpy() for column in columns])


def _spread(items: Iterable[AtOrigin]) -> list[str]:
    found = {one.origin: len(one.later.unscored) for one in items if one.later.unscored is not None}
    most = max(found.values(), default=0)
    return [f"{most:,} series that lie in several partitions, each of which forecasts them"] if most else []


def _evaluated(work: Evaluating) -> Evaluation:
    measured = [one for one in work.items if one.name in work.scores]
    sums, series, forecasts = [], [], []
    for one in sorted(measured, key=lambda one: one.origin):
        made = work.scores[one.name]
        named = {"origin": one.origin, "partition": one.partition}
        sums += [found.assign(**named) for found in (made.sums, *work.beside[one.name])]
        series.append(made.series.assign(**named))
        forecasts.append((one.origin, made.forecast))
    whole = pd.concat(sums, ignore_index=True)
    whole = whole[~whole["model"].isin(work.lost)]
    by_origin = whole.groupby(["model", "origin"], sort=False).sum(numeric_only=True)
    evaluation = Evaluation(measures(by_origin).groupby(level=0, sort=False).mean().rename_axis(None))
    evaluation._found = _Found(whole, pd.concat(series, ignore_index=True), forecasts, work.table)
    return evaluation
