"""Template of a forecast: an uploaded demand table, cut into partitions, each trained by itself.

Parameters have the names of `ipybatch.forecast.forecast`, or those of the system that users come from:

    partition_strategy        "site", or "auto" for by="size"
    max_rows_per_partition    max_rows
    max_execution_time        timeout_s

The table is read in a process of its own: it takes no memory of the server, and cannot hold it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ipybatch.server import upload_store
from ipybatch.server.notify_request import to_notify
from ipybatch.server.templates.template import (
    CHECKED,
    Checked,
    Policies,
    check_installed,
    check_unused,
    naming,
    read_params,
)
from ipybatch.server.wire import Quote, SubmissionRequest
from ipybatch.templates import shipped
from ipybatch.templates.policies import read_policies
from ipybatch.templates.template import WrongField

if TYPE_CHECKING:
    from ipybatch.forecast import ForecastSession
    from ipybatch.server.options import Options
    from ipybatch.session.session import BatchSession

OTHER_NAMES = shipped.about("forecast").other_names
_OF_TABLE = (  # parameters that are right for one table and wrong for another
    "by", "sites", "parts", "columns", "decimal", "thousands", "date_format", "encoding", "sheet", "freq", "repair",
)  # fmt: skip
_ANALYZED = (
    "by", "horizon", "max_rows", "max_partitions", "sites", "parts", "columns", "decimal", "thousands", "date_format",
    "encoding", "sheet", "freq", "repair", "models", "workers",
)  # fmt: skip


class Params(Policies, kw_only=True, forbid_unknown_fields=True):
    """Parameters of the template "forecast"; as the arguments of `ipybatch.forecast.forecast`.

    Attributes:
        by: "site", "size", or a column of the table; None for one job.
        on_failure: "rollback" by default: one partition that fails, and there is no forecast.
    """

    horizon: int = 30
    by: str | None = "site"
    partition_strategy: Literal["site", "auto"] = "site"
    max_rows: int = 2000
    max_rows_per_partition: int = 2000
    max_partitions: int = 20
    split_series: bool = False
    sites: list[str | int] | None = None
    parts: list[str | int] | None = None
    timeout_s: float | None = 300.0
    max_execution_time: float = 300.0
    memory_mb: float | None = 2048.0
    models: list[str] | None = None
    freq: Literal["D", "W", "M"] | None = None
    integer: bool = False
    level: float = 0.8
    select: Literal["squared", "pinball"] = "squared"
    columns: dict[str, str] | None = None
    decimal: str | None = None
    thousands: str | None = None
    date_format: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    repair: list[Literal["drop_bad_rows", "merge_near_duplicates", "net_returns"]] = msgspec.field(default_factory=list)
    workers: int | None = None
    on_failure: Literal["rollback", "stop", "continue"] = "rollback"


class Forecast:
    """Forecasts of an uploaded table."""

    def check(self, request: SubmissionRequest, options: Options) -> Checked:
        """Check the table and the parameters; nothing is trained.

        Raises:
            WrongField: Something is not what it must be.
            InputError: The same, where no single field is at fault.
            BatchError: A package or the journal is missing.
        """
        arguments, path = self._read(request)
        with naming(request.params, OTHER_NAMES):
            partitions = upload_store.run_apart(_partitions, path, request.name or CHECKED, arguments)
        return Checked(requests=partitions, operation="forecast", units=0)

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Check parameters, with a small table in a process of its own.

        Raises:
            WrongField: One is not what it must be.
            InputError: The same, where no single field is at fault.
            MissingExtra: A package is missing.
        """
        arguments = {name: value for name, value in read_arguments(params).items() if name not in _OF_TABLE}
        check_installed("sklearn", "forecast")
        if arguments:
            with naming(params, OTHER_NAMES):
                upload_store.run_apart(_tried, arguments)

    def quote(self, request: SubmissionRequest, options: Options) -> Quote:
        """Return the analysis of the table, with the time that training takes here.

        Raises:
            BatchError: As `check`.
        """
        arguments, path = self._read(request)
        with naming(request.params, OTHER_NAMES):
            partitions, found = upload_store.run_apart(_quoted, path, request.name or CHECKED, arguments)
        seconds, rows = found["seconds"], found.pop("partitions")
        return Quote(
            template=request.template,
            request_count=partitions,
            seconds=None if seconds is None else (seconds, seconds),
            usd=None,
            credits=None,
            quote=[*rows, found],
            notes=[found["why"], *found["notes"]],
        )

    def session(
        self, request: SubmissionRequest, *, name: str, journal: Path, options: Options | None = None
    ) -> ForecastSession:
        """Return the session.

        Raises:
            BatchError: It cannot be made any more, such as when the upload is gone.
        """
        from ipybatch.forecast import forecast

        arguments, path = self._read(request, journal)
        with naming(request.params, OTHER_NAMES):
            return forecast(path, name=name, journal=journal, notify=to_notify(request), **arguments)

    def used(self, session: BatchSession, *, since_s: float = 0.0) -> Decimal:
        """Return 0: a forecast takes no credits."""
        return Decimal(0)

    def _read(self, request: SubmissionRequest, journal: Path | None = None) -> tuple[dict[str, Any], Path]:
        """Return the arguments of `forecast`, and where the table is."""
        check_unused(request, "requests")
        if request.upload is None:
            msg = "upload must be the id of a table: POST it to uploads first"
            raise WrongField("upload", msg, next_step="POST the table to uploads, and give the id that it answers")
        arguments = read_arguments(request.params)
        check_installed("sklearn", "forecast")
        path = upload_store.path_of(request.upload, journal)
        if path is None:
            msg = "upload must be the id of a table that is kept: there is none of this id, or it is gone after a day"
            raise WrongField("upload", msg, value=request.upload, next_step="POST the table to uploads again")
        return arguments, path


def read_arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as arguments of `forecast`, whichever names they were given by.

    Raises:
        WrongField: One is not what it must be, or is given by both of its names.
    """
    read = read_params(params, Params)
    arguments = {}
    for name in params:
        ours = OTHER_NAMES.get(name, name)
        if ours != name and ours in params:
            msg = f"params.{name} and params.{ours} are the same: give one of them"
            raise WrongField(f"params.{name}", msg, value=params[name])
        value = getattr(read, name)
        arguments[ours] = "size" if (name, value) == ("partition_strategy", "auto") else value
    return read_policies(arguments)


def _quoted(path: Path, name: str, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return that number, and the analysis with the time that training takes here."""
    asked = {field: value for field, value in arguments.items() if field in _ANALYZED}
    return _partitions(path, name, arguments), upload_store.analysis_of(path, {**asked, "timed": True})


def _partitions(path: Path, name: str, arguments: dict[str, Any]) -> int:
    """Return the number of partitions of a forecast that can be made."""
    from ipybatch.forecast import forecast

    return int(forecast(path, name=name, **arguments).counts.total or 0)


def _tried(arguments: dict[str, Any]) -> None:
    """Make a forecast of a small table, and do not start it."""
    import pandas as pd

    from ipybatch.forecast import forecast

    days = [f"2026-01-{day:02}" for day in range(1, 29)]
    table = pd.DataFrame({"site": "a", "part": "p", "date": days, "quantity": 1.0})
    forecast(table, name=CHECKED, **arguments)
