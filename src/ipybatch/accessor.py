"""Accessor: ``df.ipybatch.run(work)`` on frames of pandas and polars, and ``series.ipybatch.run(work)``.

Rule: a frame goes in, the same kind of frame comes out, with its own columns, types and index as they were.

Registered for pandas and polars where a program has loaded them before ``import ipybatch``, for pandas by
``import ipybatch.frames``, and for what came later by `register`; nothing is loaded for it.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from ipybatch.engine.data.items import plain
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.result_columns import OURS
from ipybatch.errors import InputError, MissingExtra
from ipybatch.jupyter.kernel import this_kernel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FrameAccessor", "SeriesAccessor", "register"]

NAME = "ipybatch"  # of the attribute
_TOLD = ("status", "error")  # of `OURS`, beside the result


class FrameAccessor:
    """Run a function over the rows of a DataFrame of pandas or polars: ``df.ipybatch.run(work)``."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def session(self, work: Callable[..., Any], *, name: str | None = None, **arguments: Any) -> Any:
        """Return a `BatchSession` over the rows, not started: each item is a row as a dict of plain values.

        Args:
            work: Async or plain function of one row.
            name: Of the session: the same name continues. Default: the function's own name.
            arguments: Those of `BatchSession`, such as ``limits=``.

        Raises:
            InputError: An argument is not what it must be, or the function has no name of its own.
            JournalError: The journal is damaged or cannot be written.
        """
        return _make(work, self._frame, name, arguments)

    def run(self, work: Callable[..., Any], *, name: str | None = None, **arguments: Any) -> Any:
        """Run a function over the rows, wait for the end, and return the frame with the results beside its columns.

        The columns that come after its own: status, error, and the fields of the results, or ``result`` where they
        are no dicts. One that has a name which is there already is prefixed ``result_``. A row without a result has
        missing values and says why in ``error``, or in ``status`` where it was not tried; a warning says how many
        there are. Where no row has a result there is no column for it. In a notebook the panel is shown meanwhile;
        the cell waits, as for ``session.run()``.

        Args:
            work: Async or plain function of one row.
            name: Of the session: the same name continues, so that rows with a result are not run again. Default: the
                function's own name.
            arguments: Those of `BatchSession`, such as ``limits=``.

        Raises:
            InputError: An argument is not what it must be, or the function has no name of its own.
            JournalError: The journal is damaged or cannot be written.
        """
        session = self.session(work, name=name, **arguments)
        _wait(session)
        found = session.results().iloc[: len(self._frame)]  # the work may have added items
        columns = dict[str, Any]()
        own = [str(name[0] if isinstance(name, tuple) else name) for name in self._frame.columns]
        for field in [*_TOLD, *found.columns[len(OURS) :]]:
            columns[_free(field, [*own, *columns])] = found[field]
        return _joined(self._frame, columns)


class SeriesAccessor:
    """Run a function over the values of a Series of pandas: ``series.ipybatch.run(work)``."""

    def __init__(self, series: pd.Series[Any]) -> None:
        self._series = series

    def run(
        self, work: Callable[..., Any], *, name: str | None = None, **arguments: Any
    ) -> pd.Series[Any] | pd.DataFrame:
        """Run a function over the values, wait for the end, and return the results with the same index.

        A Series; where the results are dicts, a DataFrame with a column for each field. Each distinct value is asked
        once; missing values are not, and stay missing, as does what has no result: a warning says how many, and why.

        Args:
            work: Async or plain function of one value.
            name: Of the session: the same name continues. Default: the function's own name.
            arguments: Those of `BatchSession`, such as ``limits=``.

        Raises:
            InputError: An argument is not what it must be, or the function has no name of its own.
            JournalError: The journal is damaged or cannot be written.
        """
        values = [plain(value) for value in self._series.tolist()]
        distinct = {(type(value), repr(value)): value for value in values if value is not None}
        places = {known: place for place, known in enumerate(distinct)}
        session = _make(work, list(distinct.values()), name, arguments)
        _wait(session)
        found: pd.DataFrame = session.results().reset_index(drop=True).iloc[: len(distinct), len(OURS) :]
        told = found.reindex([places.get((type(value), repr(value)), -1) for value in values])
        told.index = self._series.index
        if len(told.columns) > 1 or (len(told.columns) == 1 and told.columns[0] != "result"):
            return told
        results = told["result"] if len(told.columns) else told.reindex(columns=["result"])["result"]
        results.name = self._series.name
        return results


class LazyFrameAccessor:
    """Say what is to be done with a LazyFrame of polars, which holds no rows yet."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def session(self, *_: Any, **__: Any) -> Any:
        """Refuse, as `run` does.

        Raises:
            InputError: Always: a LazyFrame is to be collected first.
        """
        msg = "a LazyFrame holds no rows yet: collect() it first, as in lazy.collect().ipybatch.run(work)"
        raise InputError(msg)

    run = session


def _make(work: Callable[..., Any], items: Any, name: str | None, arguments: dict[str, Any]) -> Any:
    """Return a session that is not started.

    Raises:
        InputError: An argument is not what it must be, or the function has no name of its own.
        JournalError: The journal is damaged or cannot be written.
    """
    own = getattr(work, "__name__", "")
    if name is None and (not own or own == "<lambda>"):
        msg = "name must be given: it is what the session goes on under, and this function has none of its own"
        raise InputError(msg)
    from ipybatch import BatchSession

    return BatchSession(own if name is None else name, work, items, **arguments)


def _wait(session: Any) -> None:
    """Run a session to its end, with its panel in a notebook, and warn of what has no result."""
    if this_kernel()[0]:
        with contextlib.suppress(MissingExtra):
            session.show(compact=True)
    summary = session.run()
    counts = summary.counts
    lost = (counts.total or 0) - counts.completed
    if lost or summary.state != "completed":
        why = summary.reason or next(iter(session.errors()["message"]), "")
        msg = (
            f"{summary.name} {summary.state}: {lost:,} of {counts.total:,} without a result{f' ({why})' if why else ''}"
        )
        warnings.warn(mask(msg), RuntimeWarning, stacklevel=3)


def _free(field: str, taken: Collection[str]) -> str:
    while field in taken:
        field = f"result_{field}"
    return field


def _joined(frame: Any, columns: dict[str, Any]) -> Any:
    """Return a frame of the same library with columns beside its own."""
    if hasattr(frame, "with_columns"):  # polars
        import polars as pl

        told = {name: [plain(value) for value in series.tolist()] for name, series in columns.items()}
        return frame.with_columns(*(pl.Series(name, values, strict=False) for name, values in told.items()))
    joined = frame.copy()
    below = ("",) * (joined.columns.nlevels - 1)  # columns of several levels
    for name, series in columns.items():
        joined[(name, *below) if below else name] = series.array
    return joined


def register() -> None:
    """Register the accessors with what the program has loaded of pandas and polars; again is no harm."""
    for library, register_with in (("pandas", _register_pandas), ("polars", _register_polars)):
        module: Any = sys.modules.get(library)
        # It may be half loaded, when it is what loads us.
        if hasattr(module, "DataFrame") and hasattr(module, "api") and not hasattr(module.DataFrame, NAME):
            register_with(module.api)


def _register_pandas(api: Any) -> None:
    api.extensions.register_dataframe_accessor(NAME)(FrameAccessor)
    api.extensions.register_series_accessor(NAME)(SeriesAccessor)


def _register_polars(api: Any) -> None:
    api.register_dataframe_namespace(NAME)(FrameAccessor)
    api.register_lazyframe_namespace(NAME)(LazyFrameAccessor)
