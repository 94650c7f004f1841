"""Items: what a user gives as items, read as a list where it can be looked at whole.

    list, range, array, Series --> their values, as Python's
    DataFrame (pandas, polars) --> a dict of plain values for each row, with its key and the index
    generator                  --> itself, to be drawn from

One reading for the constructor and for what the work brings while it runs.
Tables are known by the names of their classes: nothing of them is imported.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ipybatch.engine.data.plan import DROP_ONE, Keying, Plan, make_plan, short
from ipybatch.errors import InputError


class ItemList(msgspec.Struct, frozen=True):
    """Items that can be looked at whole.

    Attributes:
        keys: Of rows, which need not hold them; None where each item says its own.
        index: That of the frame whose rows they are; None for none.
        twice: What to do where two have the same key.
    """

    items: list[Any]
    keys: list[Any] | None = None
    index: Any = None
    twice: str = DROP_ONE


EXHAUSTED = "items came from a generator that is exhausted: make it anew"
_NUMBER_ANEW = "number the rows anew by frame.reset_index(drop=True), drop one, or pass key="
_NO_LIST = (str, bytes, bytearray, memoryview, Mapping)


def read_items(items: Any) -> ItemList | Iterable[Any]:
    """Return a list for what can be looked at whole, else what is drawn from.

    Raises:
        InputError: They cannot be drawn one by one, or are a table with two columns of one name.
    """
    if type(items) is list:
        return ItemList(items)
    if isinstance(items, _NO_LIST):
        msg = (
            f"items must be a list or a generator of items, got {type(items).__name__}: pass list(...) of what you mean"
        )
        raise InputError(msg)
    if isinstance(items, AsyncIterable) or inspect.iscoroutine(items):
        msg = f"items must be a list or a plain generator, got {type(items).__name__}: collect them first"
        raise InputError(msg)
    if _is_frame(items):
        return _read_frame(items)
    if isinstance(items, Sequence | set | frozenset):
        return ItemList(list(items))
    if hasattr(items, "tolist") and isinstance(values := items.tolist(), list):  # an array of no dimension is none
        return ItemList([plain(value) for value in values])
    if hasattr(items, "collect") and not isinstance(items, Iterable):  # polars.LazyFrame, a query of Spark
        msg = f"items must be a list or a generator, got {type(items).__name__}, which holds no rows yet: collect() it"
        raise InputError(msg)
    if not isinstance(items, Iterable) or hasattr(items, "tolist"):
        msg = f"items must be a list or a generator, got {short(items)}"
        raise InputError(msg)
    return items


def read_whole(items: Any) -> ItemList:
    """Return items as a list; a generator is drawn from to its end, here.

    Raises:
        InputError: As `read_items`.
    """
    found = read_items(items)
    return found if isinstance(found, ItemList) else ItemList(list(found))


def plan_items(items: Any, keying: Keying) -> tuple[Iterable[Any], Plan | None]:
    """Return what to draw from, and its plan where it can be looked at whole; None for a generator.

    Raises:
        InputError: They cannot be drawn one by one, an item has no key, two share one, or a generator is exhausted.
    """
    if isinstance(items, Plan):
        return items, items
    found = read_items(items)
    if inspect.isgenerator(found) and inspect.getgeneratorstate(found) == inspect.GEN_CLOSED:
        raise InputError(EXHAUSTED)
    if not isinstance(found, ItemList):
        return found, None
    plan = make_plan(found.items, keying, found.keys if keying.key is None else None, found.twice)
    plan.index = found.index
    return found.items, plan


def _is_frame(items: Any) -> bool:
    """Say whether it is a table of rows: a DataFrame of pandas, known by its name, or what gives its rows as dicts."""
    kinds = ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(items).__mro__)
    return ("pandas", "DataFrame") in kinds or hasattr(items, "to_dicts")


def _read_frame(frame: Any) -> ItemList:
    """Return the rows of a table as dicts of plain values, their keys, and its index.

    The key of a row is its "id" or else its "key" column, else its index: a list for one of several levels, the
    row's number where the table has none.

    Raises:
        InputError: Two columns have the same name.
    """
    names = [" ".join(filter(None, map(str, name))) if isinstance(name, tuple) else str(name) for name in frame.columns]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        msg = f"items must be a table whose columns have names of their own, got two named {twice!r}: rename one"
        raise InputError(msg)
    if hasattr(frame, "to_dicts"):  # polars
        index = None
        rows = [dict(zip(names, map(plain, row.values()), strict=True)) for row in frame.to_dicts()]
    else:
        index = frame.index
        columns = [[plain(value) for value in frame.iloc[:, at].tolist()] for at in range(len(names))]
        rows = (
            [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
            if names
            else [{} for _ in range(len(frame))]
        )
    for name in ("id", "key"):
        if name in names:
            return ItemList(rows, [row[name] for row in rows], index)
    if index is None:
        return ItemList(rows, list(range(len(rows))))
    return ItemList(rows, [plain(value) for value in index.tolist()], index, _NUMBER_ANEW)


_AS_IT_IS = frozenset({int, str, bool, type(None)})


def plain(value: Any) -> Any:
    """Return a value of a table as JSON can hold it, where that is known: numbers, None for missing, ISO texts."""
    kind = type(value)
    if kind in _AS_IT_IS:
        return value
    module, name = kind.__module__.partition(".")[0], kind.__name__
    found = value
    if kind is float:
        found = None if math.isnan(value) else value
    elif kind is list or kind is tuple:
        found = [plain(inner) for inner in value]
    elif kind is dict:
        found = {key: plain(inner) for key, inner in value.items()}
    elif module == "pandas" and name in ("NaTType", "NAType"):
        found = None
    elif module == "numpy" and name == "datetime64":  # as Python's it would be a number of nanoseconds
        found = None if str(value) == "NaT" else str(value)
    elif module == "numpy" and hasattr(value, "tolist"):
        found = plain(value.tolist())
    elif hasattr(value, "isoformat"):
        found = value.isoformat()
    elif module == "pandas":
        found = str(value)
    return found
