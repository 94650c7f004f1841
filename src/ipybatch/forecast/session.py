"""Session that forecasts a demand table, each partition trained in a process of its own.

    demand --clean--> table --cut--> partitions --train, isolated--> files --> one forecast

With ``on_failure="rollback"``, the default, one partition that fails ends all of them, and no forecast is left.

Over 500 lines: `forecast`, the session and its workload know each other.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast

from ipybatch import frames
from ipybatch.backends.dask import Dask
from ipybatch.backends.process.backend import Processes, processors
from ipybatch.engine.data import events
from ipybatch.engine.data.events import Status
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import NOTHING_AGAIN, Again, canonical
from ipybatch.engine.data.policy import Limits, Retry
from ipybatch.engine.data.spec import Backend
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.run.run import Run
from ipybatch.engine.store import run_store
from ipybatch.errors import InputError, JournalError
from ipybatch.forecast import worker
from ipybatch.forecast.data.partitions import ADVICE, BadRow, Partition
from ipybatch.forecast.data.repairs import Repair, check_repair
from ipybatch.forecast.data.sources import pieces_of
from ipybatch.forecast.data.stored_partitions import check_by
from ipybatch.forecast.data.summaries import SplitTable
from ipybatch.forecast.data.table import READING, Table, read_table
from ipybatch.forecast.forecast_files import ForecastFiles, check_output, table_in
from ipybatch.forecast.models.model_registry import described
from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.output import Output, check_other, forget_outputs, telling_output
from ipybatch.forecast.settings import AUTO, Settings, as_models
from ipybatch.forecast.split import split_table
from ipybatch.forecast.storage import check_storage
from ipybatch.forecast.training import Borrowing, check_shared, prepare, runner_of
from ipybatch.forecast.training_facts import TrainingFacts
from ipybatch.session.arguments import Arguments
from ipybatch.session.session import BatchSession
from ipybatch.session.workload import Workload, given_to, recordable
from ipybatch.templates import shipped

if TYPE_CHECKING:
    import pandas as pd


class ForecastSession(BatchSession):
    """A `BatchSession` whose results are one forecast.

    Attributes:
        table_notes: How its table was read and cut, and what the user should know of it.
    """

    table_notes: tuple[str, ...] = ()

    def tell_table(self) -> None:
        """Note how the table was read and cut."""
        for note in self.table_notes:
            self.note(note)

    @property
    def _recorded(self) -> RecordedForecast:
        return cast("RecordedForecast", self.workload)

    def partitions(self) -> pd.DataFrame:
        """Return one row per partition, the largest first.

        Columns: key, status, attempts, seconds, error, advice (what helps against the error; "" where nothing is
        known), rows, series, coverage, new, dead and intermittent (how many series are), models, file.
        After a rollback those that did not fail are "rolled_back", and their
        error says which one did.

        Raises:
            JournalError: The journal cannot be read.
        """
        rows = super().results()
        if self.state == "rolled_back":
            is_other = ~rows["status"].isin(("failed", "timeout"))
            rows.loc[is_other, ["status", "error"]] = ["rolled_back", f"rolled back: {self.reason}"]
        kinds = {key: kind for key, kind, _ in frames.recorded(self._journal, self.name)}
        advice = [
            (self._recorded.advice.get(key) or ADVICE.get(kinds.get(key, ""), "")) if error else ""
            for key, error in zip(rows["key"], rows["error"], strict=True)
        ]
        rows.insert(len(frames.OURS), "advice", advice)
        lacking = [name for name in _FIGURES if name not in rows]  # where no partition has been completed
        return rows.assign(**dict.fromkeys(lacking))

    def results(self, *, with_items: bool = False, columns: Literal["flat"] | None = None) -> pd.DataFrame:
        """Return the forecast: one row per (site, part, date), with forecast, lo, hi, model_used and reason.

        With ``on_failure="rollback"`` it is empty until all partitions are completed; else it holds those that are.

        Raises:
            JournalError: The journal cannot be read, or forecasts beside it are gone.
            InputError: ``with_items`` is given: a forecast's rows are not its items, which `partitions` lists; or
                there are no such ``columns``.
        """
        frames.check_columns(columns)  # a forecast's are flat
        if with_items:
            msg = "with_items must be False for a forecast, whose rows are not its items: use partitions()"
            raise InputError(msg)
        return self._recorded.files.read(self._delivered())

    def save(self, path: str | Path) -> Path:
        """Write the forecast to a .csv, .xlsx, .parquet or .jsonl file, atomically, and return its path.

        Raises:
            InputError: The file has another suffix, or its folder does not exist.
            MissingExtra: pyarrow is not installed, or for .xlsx XlsxWriter.
            JournalError: The journal cannot be read, or forecasts beside it are gone.
        """
        found = check_output(path)
        assert found is not None
        self._recorded.files.write(self._delivered(), found)
        return found

    def _delivered(self) -> list[str]:
        """Return the names of the files of which the forecast consists."""
        rows = self.partitions()
        done = rows[rows["status"] == "completed"]
        is_kept_back = self._recorded.is_all_or_nothing and (self.state == "rolled_back" or len(done) < len(rows))
        if is_kept_back or not len(done):
            return []
        if lost := [key for key, file in zip(done["key"], done["file"], strict=True) if not self._has(file)]:
            some = ", ".join(lost[:_TOLD]) + (f" and {len(lost) - _TOLD:,} more" if len(lost) > _TOLD else "")
            where = str(self._recorded.about.get("storage") or f"beside {self.journal}")
            msg = (
                f"the forecasts of {len(lost):,} of {len(rows):,} partitions ({some}) are gone from"
                f" {where}, or broken: run the same forecast() call again, which trains these anew"
            )
            raise JournalError(msg)
        return cast("list[str]", done["file"].tolist())

    def _has(self, file: str) -> bool:
        return self._recorded.files.has(file)

    def _open_run(self, again: Again = NOTHING_AGAIN) -> Run:
        """Begin a run; what was completed is trained again where its forecasts are gone."""
        if again is NOTHING_AGAIN:
            recorded = frames.recorded(self._journal, self.name)
            lost = {key for key, _, result in recorded if result is not None and not self._has(result["file"])}
            if lost:
                self.note(f"{len(lost):,} completed partitions are trained again: their forecasts are gone")
                again = Again(frozenset({"completed"}), frozenset(map(canonical, lost)))
        return super()._open_run(again)

    def finished(self) -> set[str]:
        """Return the names of the completed partitions.

        Raises:
            JournalError: The journal cannot be read.
        """
        rows = self.partitions()
        return set(rows["key"][rows["status"] == "completed"].astype(str))

    @property
    def now_s(self) -> float:
        """Unix time, by the session's clock."""
        return self._clock.unix_s()

    def forget(self) -> None:
        """Delete everything that is recorded under this name, and the files of its forecasts.

        Raises:
            InputError: It is running.
            JournalError: The journal cannot be written.
        """
        super().forget()
        self._recorded.files.clear()
        forget_outputs(self._journal, self.name)
        self.tell_table()


def forecast(
    demand: Any,
    *,
    horizon: int = 30,
    by: Any = "site",
    max_rows: int = 2000,
    max_partitions: int = 20,
    split_series: bool = False,
    sites: Collection[Any] | None = None,
    parts: Collection[Any] | None = None,
    timeout_s: float | None = 300.0,
    memory_mb: float | None = 2048.0,
    models: Iterable[Any] | None = None,
    freq: Any = None,
    known: Any = None,
    integer: bool = False,
    level: float = 0.8,
    select: Any = "squared",
    columns: Mapping[str, Any] | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
    date_format: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    repair: Repair | None = None,
    output: str | Path | None = None,
    storage: str | Path | None = None,
    workers: int | None = None,
    backend: Backend | None = None,
    name: str = "forecast",
    **arguments: Unpack[Arguments],
) -> ForecastSession:
    """Return a session that forecasts every series of a demand table; it is not started yet.

    Args:
        demand: Site, part, date, quantity: a frame of pandas, polars or pyarrow; the path, folder, pattern or URL of
            text files, spreadsheets or .parquet files; or an open file.
        horizon: Periods ahead, >= 1.
        by: What a partition is: "site", "size" (``max_rows`` rows), a column's value, a label returned by a function of
            the frame, or None for one job.
        max_rows: Rows of a partition with ``by="size"``, >= 1.
        max_partitions: Largest number of partitions, >= 1; the smallest are merged.
        split_series: With ``by="size"``, whether a series longer than ``max_rows`` is split too.
        sites: With ``by=None``, the sites to forecast; default: all.
        parts: With ``by=None``, the parts to forecast; default: all.
        timeout_s: Seconds that one partition may train, > 0; None for no limit.
        memory_mb: Memory that one partition may use; None for no limit.
        models: Names (`Settings.models`), scikit-learn regressors, or models of statsforecast or mlforecast; default:
            all names.
        freq: "D", "W" or "M"; default: inferred from the dates.
        known: What is known ahead, such as prices or holidays, in anything that ``demand`` may be: a date, also site
            and part if the values differ by them, and columns of numbers. Every date of the horizon must be there.
        integer: Whether to forecast whole pieces.
        level: Share of actual values that the intervals should hold, 0.01 to 0.999.
        select: The loss that selects a model: "squared" error or "pinball".
        columns: The table's columns, e.g. ``{"site": "Lokasi"}``; the others are found by heading and cells.
        decimal: The decimal mark of the quantities, "." or ","; default: found.
        thousands: What separates their thousands: ",", ".", " " or "'", "" for nothing; default: found.
        date_format: How the dates are written, as for strftime, e.g. ``"%d/%m/%y"``; default: found.
        encoding: Of a text file, e.g. "latin-1"; default: found.
        sheet: Of a spreadsheet, its name; default: the one that has such a table.
        repair: Repairs of rows and names, told and counted: a set of "drop_bad_rows", "merge_near_duplicates" and
            "net_returns"; see docs/forecasting.md. Default: none.
        output: A .csv, .xlsx, .parquet or .jsonl file, written when all partitions are completed. Otherwise, an earlier
            forecast of this session in its place is renamed: ``out.csv`` to ``out.earlier.csv``.
        storage: A folder that all machines see, by its path or an address that fsspec knows, such as
            ``"s3://bucket/run"``: workers read their rows from it and write their forecasts to it. A storage belongs to
            one journal. Default: a folder beside the journal, of which only workers of this machine know.
        workers: Partitions trained at the same time, >= 1; default: one per processor core, or per thread of the
            cluster.
        backend: Where partitions run; default: `Processes`. ``Dask(client)`` for more than one machine. A limit that
            the backend was made with overrides ``timeout_s`` or ``memory_mb``.
        name: Name of the session; the same name continues.
        arguments: As for `BatchSession`. ``on_failure`` is "rollback" by default; "stop" keeps the completed
            partitions, and the same call runs the others; "continue" delivers all partitions but those that fail.

    Raises:
        InputError: The table or an argument is invalid; nothing was started.
        MissingExtra: A package that reads the table is not installed.
    """
    asked_for = given_to(forecast, locals())
    repair = sorted(check_repair(repair))  # a list, which the journal can hold
    about = recordable(locals(), _RECORDED)
    path = check_output(output)
    if path is not None:
        check_other(path, demand=demand, known=known)
    shared = None if storage is None else check_storage(storage)
    asked = as_models(models) if models is not None else AUTO
    runner = runner_of(backend, workers, memory_mb=memory_mb, timeout_s=timeout_s, models=asked)
    if isinstance(runner, Processes | Dask):
        workers = workers or runner.workers
    reading = {
        "columns": columns,
        "freq": freq,
        "encoding": encoding,
        "decimal": decimal,
        "thousands": thousands,
        "date_format": date_format,
        "repair": repair,
    }
    with telling_output(output):
        pieces = None if shared is None else pieces_of(demand)
        table: Table
        if shared is None or pieces is None:
            table = read_table(demand, sheet=sheet, **reading)
        else:
            check_by(by)
            Settings(horizon=horizon, models=asked, level=level, integer=integer, select=select)
            table = split_table(pieces, table_in(shared, name), runner, workers or processors(), **reading)
        cut, settings = prepare(
            table,
            horizon=horizon,
            by=by,
            max_rows=max_rows,
            max_partitions=max_partitions,
            split_series=split_series,
            sites=sites,
            parts=parts,
            models=asked,
            level=level,
            integer=integer,
            known=known,
            select=select,
        )
    given = {field: value for field, value in arguments.items() if value is not None}
    defaults: dict[str, Any] = {"limits": Limits(concurrency=workers or processors()), "retry": Retry(attempts=1)}
    defaults |= {"on_failure": "rollback", "breaker": None}
    about["on_failure"] = (defaults | given)["on_failure"]
    about["output"] = None if path is None else str(path.absolute())
    about["storage"] = None if shared is None else shared.address
    work = Forecasting(cut.partitions, settings, runner, about, table)
    work.given = asked_for
    session = ForecastSession(
        name,
        work,
        cut.partitions,
        **{**defaults, **given},
        key=lambda part: part.name,
        settings=_settings(settings),
        group_word="Partition",
    )
    session.table_notes = ("; ".join(table.understood.lines()), *table.notes, *cut.notes)
    session.tell_table()
    return session


_TOLD = 5  # partitions whose forecasts are gone, in a message
_FIGURES = ("rows", "series", "coverage", "new", "dead", "intermittent", "models", "file")
_ROWS = re.compile(r" in (?:row \d|[\d,]+ rows)")  # where a message goes on to name the rows

# Arguments of `forecast` that are recorded, so that the session can go on with its table alone.
_RECORDED = (
    "horizon",
    "by",
    "max_rows",
    "max_partitions",
    "split_series",
    "sites",
    "parts",
    "timeout_s",
    "memory_mb",
    "models",
    "integer",
    "level",
    "select",
    *READING,
    "workers",
    "known",
    "backend",
)


class RecordedForecast(Workload[ForecastSession]):
    """What a forecast session has without its table: the files of its forecasts.

    Attributes:
        files: Of the completed partitions.
        advice: By partition, where an error of this process had its own.
        is_all_or_nothing: Whether there is no forecast until all partitions are completed.
    """

    name = "forecast"
    needs = "demand"
    session_class = ForecastSession
    files: ForecastFiles

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.about = about
        self.advice: dict[str, str] = {}
        self.is_all_or_nothing = about["on_failure"] == "rollback"
        self.output: Output | None = None

    def bind(self, session: ForecastSession) -> None:
        """Belong to a session, and find its files."""
        super().bind(session)
        self.files = ForecastFiles(session.journal, session.name, self.about.get("storage") or "")
        if path := self.about.get("output"):
            self.output = Output(Path(path), session._journal, session.name)
        session.on(self._tell_interrupted)

    def _tell_interrupted(self, event: events.Event) -> None:
        """Say that the output is older than a run whose process died, which could not set it aside."""
        if self.output is not None and isinstance(event, events.StateChanged) and event.state == "interrupted":
            with self.session._journal.reader() as database:
                found = run_store.find(database, self.session.name)
            if note := self.output.earlier((found and found.begun_s) or 0.0):
                self.session.note(note, "passing")

    @classmethod
    def reading(cls, name: str, journal: Path, about: Mapping[str, Any]) -> RecordedForecast:
        """Return what a recorded session has without its table."""
        return RecordedForecast(about)

    @classmethod
    def going_on(
        cls, name: str, journal: Path, about: Mapping[str, Any], items: Any, arguments: dict[str, Any]
    ) -> ForecastSession:
        """Return the session made anew with ``demand=``.

        Raises:
            InputError: The table or an argument is not what it must be.
        """
        return forecast(**{**about, "name": name, "journal": journal, **arguments})


class Forecasting(RecordedForecast):
    """Work of a forecast session: train a partition on the backend, and write its forecasts to a file."""

    @classmethod
    def from_template(cls, name: str, arguments: dict[str, Any]) -> ForecastSession:
        """Return the session of a template.

        Raises:
            InputError: The table or an argument is not what it must be.
        """
        given = {shipped.about(cls.name).other_names.get(field, field): value for field, value in arguments.items()}
        if arguments.get("partition_strategy") == "auto":
            given["by"] = "size"
        return forecast(given.pop("demand"), **{"name": name, **given})

    def __init__(  # its collaborators, each of another type
        self,
        partitions: list[Partition],
        settings: Settings,
        backend: Backend,
        about: Mapping[str, Any],
        table: Table,
    ) -> None:
        super().__init__(about)
        self._partitions, self._settings, self._backend = partitions, settings, backend
        self._clear_up_table = table.clear_up if isinstance(table, SplitTable) else None  # a table holds rows
        self._training = TrainingFacts(partitions, backend)
        self._has_sites = any(len(part.sites) != 1 for part in partitions)  # else a column of ones
        self._borrowing = {"": Borrowing(partitions, settings, backend, self._note)}  # by origin, where it has some

    def bind(self, session: ForecastSession) -> None:
        """Publish the partitions' events in a session, and delete files that it no longer needs."""
        super().bind(session)
        session.on_outcomes(self._hear)
        session.on(self._clear_up)

    async def __aenter__(self) -> Forecasting:
        """Open the backend, and publish all partitions."""
        try:
            await self._backend.open(self.session.policy.limits.concurrency)
            if self.about.get("storage"):
                await check_shared(self.files.storage, self._backend)
            if self._clear_up_table is not None:
                await asyncio.to_thread(self._clear_up_table)
        except BaseException:
            await self._set_aside()
            raise
        self._delete_files()
        done = self.session.finished()
        self._training.begin(done)
        for part in self._partitions:
            self._tell(part, "completed" if part.name in done else "pending")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the backend; write the output when the forecast is complete, else let none lie there as if it were."""
        is_written = False
        try:
            for borrowing in self._borrowing.values():
                await borrowing.close()
            await self._backend.close()
            counts = self.session.counts
            is_whole = counts.completed == counts.total
            is_kept = self.session.policy.on_failure == "continue" and counts.completed > 0
            is_wanted = is_whole or (is_kept and not counts.pending)
            if self.output is not None and is_wanted:
                await asyncio.to_thread(self.output.write, self.session.save, self.session.now_s)
                is_written = True
        finally:
            if not is_written:
                await self._set_aside()

    async def __call__(self, part: Partition, attempt: Attempt) -> dict[str, Any]:
        """Train a partition, write its forecasts to a file, and return the figures that are recorded.

        Raises:
            BadRow: A row of the partition cannot be used.
        """
        attempt.join(part.number)
        self._tell(part, "running")
        if part.problems:
            raise BadRow(part.problems)
        is_shared = isinstance(self._backend, Processes) or self.about.get("storage")
        train = self._train_by_file if is_shared else self._train_by_value
        return await train(part, await self._borrowing[""].settings_for(part))

    async def _train_by_file(self, part: Partition, settings: Settings) -> dict[str, Any]:
        """Train a partition in a process that sees the files: it reads its rows and writes its forecasts itself."""
        storage, name = self.files.storage, self.files.name(part.name, part.digest)
        if part.stored is not None:
            return {**await self._backend.run(worker.train, (storage, part.stored, settings, name)), "file": name}
        with self.files.rows(part.name) as rows:
            await asyncio.to_thread(lambda: worker.write_rows(part.frame, storage, rows))
            figures = await self._backend.run(worker.train, (storage, rows, settings, name))
        return {**figures, "file": name}

    async def _train_by_value(self, part: Partition, settings: Settings) -> dict[str, Any]:
        """Train a partition wherever the backend does, which may be where these files are not."""
        made = await self._backend.run(run_partition, (part.frame, settings))
        file = await asyncio.to_thread(self.files.put, part.name, part.digest, made)
        return {**worker.figures(made, settings.horizon), "file": file}

    def facts(self, *, is_over: bool) -> list[Fact]:
        """Return processes busy, memory of the largest, the slowest partition, and the time."""
        session = self.session
        return self._training.read(session.snapshot, self._workers, session.now_s, is_over=is_over)

    def left_s(self) -> tuple[float, float] | None:
        """Return the seconds left: partitions differ in size, the largest come first."""
        session = self.session
        return self._training.left_s(session.snapshot, self._workers, session.now_s)

    @property
    def _workers(self) -> int:
        most = getattr(self._backend, "workers", None) or len(self._partitions)
        return max(1, min(self.session.policy.limits.concurrency, most))

    def _note(self, text: str) -> None:
        self.session.note(text)

    async def _set_aside(self) -> None:
        if self.output is not None and (note := await asyncio.to_thread(self.output.set_aside)):
            self.session.note(note)

    def _tell(self, part: Partition, status: Status) -> None:
        sites: events.Extra = {"Sites": len(part.sites)} if self._has_sites else {}
        extra: events.Extra = {**sites, "Parts": part.parts, "Rows": part.rows}
        now_s = self.session.now_s
        self.session.tell(events.GroupStarted(now_s, part.number, part.title, 1, extra, status=status))

    def _hear(self, outcomes: Iterable[Outcome]) -> None:
        numbers = {part.name: part.number for part in self._partitions}
        session = self.session
        for outcome in outcomes:
            session.tell(events.GroupEnded(session.now_s, numbers[str(outcome.key)], outcome.status))
            self.advice[str(outcome.key)] = outcome.advice
            if outcome.status in ("completed", "failed", "timeout"):
                is_completed = outcome.status == "completed"
                self._training.ended(str(outcome.key), outcome.seconds, is_completed=is_completed)
            if advice := outcome.advice or ADVICE.get(outcome.kind, ""):
                session.note(f"{_ROWS.split(outcome.error, maxsplit=1)[0]}: {advice}")

    def _clear_up(self, event: events.Event) -> None:
        has_ended = isinstance(event, events.StateChanged) and event.state in events.ENDED - {"interrupted"}
        if has_ended and self.session.elsewhere is None:  # else the files are another process's to delete
            self._delete_files()

    def _delete_files(self) -> None:
        """Delete the files that no recorded partition refers to: of former forecasts, and of killed processes."""
        results = [result for _, _, result in frames.recorded(self.session._journal, self.session.name)]
        self.files.keep(result["file"] for result in results if result is not None)


def _settings(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON data; every partition runs again when they change.

    What small partitions borrow is not among them: to correct one row would else train all partitions again.
    """
    from pandas.util import hash_pandas_object

    given = {field: getattr(settings, field) for field in settings.__struct_fields__ if field != "prior"}
    known = ""
    if settings.known is not None:
        rows = hash_pandas_object(settings.known, index=False).to_numpy()
        known = hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()
    return {**given, "models": described(settings.models), "known": known}
