"""Frames of any package as one of pandas, in types that pandas itself computes with.

Frames of other packages come over Arrow's own interface, which all of them have and which is as fast as each one's own
``to_pandas``: a million rows of polars in some 0.05 s by the one, by the other, and by narwhals.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError, MissingExtra

_COLLECT = (  # in this order: Spark's `collect` gives rows, and no frame
    "to_pandas", "toPandas", "to_table", "collect", "compute", "to_dataframe",
)  # fmt: skip
_LOOKED_AT = 1000  # cells of a column, for what cannot be a name
_STOPS_AT_NUL = len(pd.unique(np.array(["a", "a\0"], dtype=object))) == 1  # pandas 2, where all is text


def frame_of(demand: Any) -> pd.DataFrame | None:
    """Return a frame of any package as one of pandas; None for what is no frame.

    Raises:
        InputError: Its package cannot make one of it.
        MissingExtra: pyarrow is not installed.
    """
    if isinstance(demand, pd.DataFrame):
        return demand
    if isinstance(demand, pd.Series):
        return demand.to_frame("quantity" if demand.name is None else demand.name)
    if isinstance(demand, type | str | bytes | os.PathLike):
        return None
    try:
        return _converted(demand)
    except MissingExtra:
        raise
    except Exception as error:  # whatever a package of the user's raises, which may have to ask a server
        kind = f"{type(demand).__module__.partition('.')[0]} {type(demand).__name__}"
        msg = f"demand must be a table that can be read, got a {kind}: {type(error).__name__}: {error}"
        raise InputError(msg) from None


def of_arrow(table: Any) -> pd.DataFrame:
    """Return an Arrow table as a frame: days as days, decimals as numbers, whole numbers with gaps as whole numbers.

    Memory of the table that nobody else holds is freed column by column on the way.
    """
    pa = arrow()
    gaps: dict[int, Any] = {}
    for at, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_dictionary(kind) and pa.types.is_unsigned_integer(kind.index_type):  # polars'
            signed = pa.dictionary(pa.int64(), kind.value_type, kind.ordered)  # pyarrow 16 makes frames of no others
            table = table.set_column(at, field.name, table.column(at).cast(signed))
        elif pa.types.is_decimal(kind):
            table = table.set_column(at, field.name, table.column(at).cast(pa.float64()))
        elif pa.types.is_integer(kind) and table.column(at).null_count:
            gaps[at] = table.column(at)
    frame: pd.DataFrame = table.to_pandas(
        date_as_object=False, ignore_metadata=True, split_blocks=True, self_destruct=True
    )
    for at, column in gaps.items():
        name = str(column.type)
        dtype = pd.api.types.pandas_dtype(name.replace("uint", "UInt") if name[0] == "u" else name.title())
        frame.isetitem(at, column.to_pandas(types_mapper={column.type: dtype}.get).array)
    return frame[[name for name in frame.columns if not str(name).startswith("__index_level_")]]  # rows' numbers


def distinct_of(values: pd.Series[Any]) -> tuple[Any, Any]:
    """Return the different values of a column, as objects, and for each row the number of its own, -1 for missing."""
    found: Any
    if _STOPS_AT_NUL and values.dtype == object:
        no_text: Any = [object()]
        codes, found = pd.factorize(np.concatenate([values.to_numpy(), no_text]))
        return codes[:-1], found[:-1]
    codes, found = pd.factorize(values)
    return codes, np.asarray(found, dtype=object)  # Arrow's texts are slow to go through one by one


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame numbered from 0, its named index among its columns, in plain types."""
    if isinstance(frame.columns, pd.MultiIndex):
        frame = frame.set_axis([" ".join(str(word) for word in name if str(word)) for name in frame.columns], axis=1)
    frame = _with_index(frame)
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    if named:
        frame = frame.reset_index(level=named)
    frame = frame.reset_index(drop=True)
    for at, kind in enumerate(frame.dtypes):
        if isinstance(kind, pd.ArrowDtype):
            column = arrow().Table.from_pandas(frame.iloc[:, [at]], preserve_index=False)
            frame.isetitem(at, of_arrow(column).iloc[:, 0].array)
        elif pd.api.types.is_object_dtype(kind) and any(
            not isinstance(value, Hashable) for value in frame.iloc[:_LOOKED_AT, at]
        ):
            frame.isetitem(at, frame.iloc[:, at].astype(str).array)  # lists and the like: as they are shown
        elif isinstance(kind, pd.CategoricalDtype) and not pd.api.types.is_string_dtype(kind.categories.dtype):
            frame.isetitem(at, frame.iloc[:, at].astype(object).infer_objects().array)
    return frame


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose index has names where it holds more than the rows' numbers: days, or several levels."""
    index = frame.index
    if isinstance(index, pd.MultiIndex):
        return frame.rename_axis([f"level {at}" if name is None else name for at, name in enumerate(index.names)])
    if index.name is None and isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        return frame.rename_axis("index" if "date" in frame.columns else "date")
    return frame


def arrow() -> Any:
    """Return pyarrow.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtra("forecast") from None
    return pa


def _converted(demand: Any) -> pd.DataFrame | None:
    if hasattr(demand, "__arrow_c_stream__"):
        return of_arrow(arrow().table(demand).slice())  # a table of our own: the other one stays whole
    for name in _COLLECT:
        if callable(getattr(demand, name, None)):
            return frame_of(getattr(demand, name)())
    return None
