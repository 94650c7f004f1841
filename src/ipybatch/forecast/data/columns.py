"""Columns of a user's table: which one is the site, the part, the date and the quantity.

    heading --> what it speaks for, and how strongly --> beside it, what the cells can be --> the strongest

A heading speaks for at most one of the four (`headings`). The cells weigh in: pieces are mostly whole numbers, money
has fractions and signs of currency, dates are dates.

The strongest heading is taken. One that might have been taken too is told; where two are nearly as strong and mean
different things ("Qty Ordered", "Qty Shipped"), the user is asked. ``columns={"site": "Lokasi"}`` answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.data.dates import looks_like_dates
from ipybatch.forecast.data.headings import OWN, STRENGTHS, spoken_for
from ipybatch.forecast.data.numbers import is_missing, read_cell

OURS = ("site", "part", "date", "quantity")

_TAKEN_FROM = 1.0  # the least that a column is taken for
_NEAR = 1.5  # difference that does not tell two columns apart
_LOOKED_AT = 400  # distinct cells of a column


class UnknownColumns(InputError):
    """A column of the table is not known by its heading: name it with ``columns=``.

    Attributes:
        names: All columns of the table.
        found: For each of `OURS` its column, None for those that are to be named.
    """

    def __init__(self, message: str, names: Sequence[Any], found: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.names, self.found = list(names), dict(found)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table that were taken.

    Attributes:
        names: For each of `OURS` the table's column.
        notes: Which were taken beside others that they might have been.
    """

    names: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A column that may be one of `OURS`, and how much speaks for it."""

    name: Any
    ours: str
    score: float
    entity: str
    facet: str = ""
    has_fractions: bool = False
    is_weak: bool = False


def find_columns(names: Sequence[Any], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the column for each of `OURS` by its heading alone; of several the strongest, none is asked about.

    Raises:
        UnknownColumns: A column is missing.
        InputError: As for `choose_columns`.
    """
    return _choose(pd.DataFrame(columns=list(names), dtype=object), given, is_asking=False).names


def choose_columns(table: pd.DataFrame, given: Mapping[str, Any] | None = None) -> Columns:
    """Return the table's column for each of `OURS`.

    Args:
        table: The user's table.
        given: The columns that the user names, e.g. ``{"site": "Lokasi"}``; the others are found by heading and cells.

    Raises:
        UnknownColumns: A column is missing, or several may be meant.
        InputError: ``given`` names one column twice, or one that is not in the table; or the table has two columns
            of that name.
    """
    return _choose(table, given, is_asking=True)


def _choose(table: pd.DataFrame, given: Mapping[str, Any] | None, *, is_asking: bool) -> Columns:
    names, given = list(table.columns), dict(given or {})
    _check_given(given, names)
    free = [name for name in dict.fromkeys(names) if name not in given.values()]
    wanted = [ours for ours in OURS if ours not in given]
    candidates = [one for name in free if (one := _candidate(table, name, wanted)) is not None]
    found: dict[str, Any] = dict(given)
    notes, asked = [], []
    for ours in wanted:
        likely = sorted((one for one in candidates if one.ours == ours), key=lambda one: -one.score)
        likely = [one for one in likely if one.score >= _TAKEN_FROM]
        taken, beside = (likely[0] if likely else None), likely[1:]
        if taken is None and ours == "date":
            taken = _only_dates(table, [name for name in free if name not in found.values()])
            notes += [f"read {str(taken.name)!r} as the date, as no other column has dates"] if taken else []
        found[ours] = None if taken is None else taken.name
        if taken is None or not is_asking:
            continue
        if rivals := [one for one in beside if _is_rival(taken, one)]:
            asked.append(_asked(ours, sorted([taken, *rivals], key=lambda one: names.index(one.name))))
            found[ours] = None
        elif beside and taken.score < OWN:
            also = ", ".join(repr(str(one.name)) for one in beside[:3])
            notes.append(f"read {str(taken.name)!r} as the {ours} (beside {also})")
        elif taken.has_fractions and taken.score < STRENGTHS[1]:
            notes.append(f"read {str(taken.name)!r} as the quantity, though its cells have fractions, as money has")
        elif taken.is_weak:
            notes.append(f"read {str(taken.name)!r} as the {ours}, for want of a clearer heading")
    found = {ours: found[ours] for ours in OURS}
    _refuse_missing(names, found, asked)
    for name in found.values():
        if names.count(name) > 1:
            msg = f"demand must have one column {name!r}, got {names.count(name)}: rename or drop the others"
            raise InputError(msg)
    return Columns(found, tuple(notes))


def _is_rival(taken: _Candidate, other: _Candidate) -> bool:
    """Whether another column is nearly as likely and means another thing: not just the name beside a code."""
    if taken.score >= OWN > other.score or taken.score - other.score >= _NEAR:
        return False
    is_of_one = taken.ours == "part" or (taken.ours == "site" and taken.entity == other.entity)
    return not (is_of_one and taken.facet != other.facet)


def _asked(ours: str, rivals: Sequence[_Candidate]) -> str:
    which = " or ".join(repr(str(one.name)) for one in rivals[:4])
    return f"{ours} may be {which}: say which with columns={{{ours!r}: {str(rivals[0].name)!r}}}"


def _refuse_missing(names: Sequence[Any], found: Mapping[str, Any], asked: Sequence[str]) -> None:
    missing = [ours for ours, name in found.items() if name is None]
    if not missing:
        return
    lost = [ours for ours in missing if not any(one.startswith(f"{ours} may be") for one in asked)]
    if not lost:
        raise UnknownColumns("; ".join(asked), names, found)
    told = " and ".join(f"a {ours!r} column" for ours in lost)
    hint = ", ".join(f'"{ours}": ...' for ours in lost)
    msg = f"demand must have {told}, got {_listed(names)}: name the column with columns={{{hint}}}"
    raise UnknownColumns("; ".join([msg, *asked]), names, found)


def _candidate(table: pd.DataFrame, name: Any, wanted: Sequence[str]) -> _Candidate | None:
    """Return what a column most likely is, by its heading and its cells."""
    spoken = spoken_for(str(name))
    if spoken is None or spoken.ours not in wanted:
        return None
    values = table[name]
    if isinstance(values, pd.DataFrame):  # a heading that comes twice: refused if it is taken
        values = values.iloc[:, 0]
    weight = _weight(spoken.ours, values)
    has_fractions = spoken.ours == "quantity" and weight < 0
    is_weak = spoken.strength <= STRENGTHS[2]
    return _Candidate(name, spoken.ours, spoken.strength + weight, spoken.entity, spoken.facet, has_fractions, is_weak)


def _weight(ours: str, values: pd.Series[Any]) -> float:
    """Return how much a column's cells speak for it, or against it."""
    if ours == "date":
        share = looks_like_dates(values)
        return 0.0 if share > 0.5 or not len(values) else -4.0
    if ours == "quantity":
        return _weight_of_quantity(values)
    return -2.0 if pd.api.types.is_datetime64_any_dtype(values.dtype) else 0.0


def _weight_of_quantity(values: pd.Series[Any]) -> float:
    distinct = list(values.iloc[:20_000].dropna().drop_duplicates().iloc[:_LOOKED_AT])
    if pd.api.types.is_bool_dtype(values.dtype) or pd.api.types.is_datetime64_any_dtype(values.dtype):
        return -4.0
    cells = [read_cell(str(value)) for value in distinct if not (isinstance(value, str) and is_missing(value))]
    if not cells:
        return 0.0
    read = [cell for cell in cells if cell is not None]
    if len(read) < 0.5 * len(cells):
        return -4.0
    weight = -3.0 * (np.mean([bool(cell.money) for cell in read]) > 0.2)
    is_whole = [
        any(number is not None and float(number).is_integer() for number in (cell.point, cell.comma)) for cell in read
    ]
    return float(weight + (0.5 if np.mean(is_whole) > 0.8 else -1.0))


def _only_dates(table: pd.DataFrame, free: Sequence[Any]) -> _Candidate | None:
    """Return the only column whose cells are dates, whatever its heading."""
    dated = []
    for name in free:
        values = table[name]
        is_number = isinstance(values, pd.Series) and pd.api.types.is_numeric_dtype(values.dtype)
        if isinstance(values, pd.DataFrame) or is_number or not len(values):
            continue
        texts = [str(value) for value in values.iloc[:200].dropna().drop_duplicates()]
        if texts and not all(text.strip().isdigit() for text in texts) and looks_like_dates(values) > 0.95:
            dated.append(name)
    return _Candidate(dated[0], "date", _TAKEN_FROM, "date") if len(dated) == 1 else None


def _check_given(given: Mapping[str, Any], names: Sequence[Any]) -> None:
    for ours, name in given.items():
        if ours not in OURS:
            msg = f"columns must name {', '.join(map(repr, OURS))}, got {ours!r}"
            raise InputError(msg)
        if name not in list(names):
            msg = f"columns[{ours!r}] must be a column of demand, one of {_listed(names)}, got {name!r}"
            raise InputError(msg)
    if len(set(given.values())) < len(given):
        msg = f"columns must name a column once, got {dict(given)!r}"
        raise InputError(msg)


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(repr(str(name)) for name in list(names)[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"
