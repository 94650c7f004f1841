"""Columns of a user's table: which one is the site, the part, the date and the quantity, and how its dates are read.

Names. A column is found by our name or by a common one; case, blanks and punctuation do not count: "Part No.",
"part_no" and "PARTNO" are the same name. The commonest name wins. Other columns are named by the user:
``columns={"site": "Lokasi"}``.

Dates. One format is used for the whole column, the one that fits most values; values that do not fit it are problems of
their rows. Where day first and month first fit equally well, the user must choose: nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.errors import InputError
from ipybatch.forecast.settings import Freq

OURS = ("site", "part", "date", "quantity")
PERIODS = {"D": "daily", "W": "weekly", "M": "monthly"}
_NAMES = {
    "site": (
        "site", "sitename", "siteid", "sitecode", "location", "store", "storeid", "warehouse", "branch", "plant",
        "depot", "shop", "outlet", "lokasi", "cabang", "gudang", "city", "region", "country",
    ),
    "part": (
        "part", "partnumber", "partno", "partid", "partcode", "partname", "item", "itemid", "itemcode", "itemno",
        "sku", "product", "productid", "productcode", "material", "article", "stockcode", "uniqueid", "kodebarang",
    ),
    "date": (
        "date", "ds", "day", "orderdate", "invoicedate", "transactiondate", "salesdate", "demanddate", "timestamp",
        "datetime", "time", "week", "month", "period", "tanggal",
    ),
    "quantity": (
        "quantity", "qty", "demand", "y", "sales", "units", "unitssold", "orderqty", "orderquantity", "demandqty",
        "amount", "volume", "count", "jumlah",
    ),
}  # fmt: skip

_FIRST, _LAST = pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01")
_TIME = r"(?<=\d)[ T]+\d{1,2}:\d{2}.*$"
_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%Y-%m",
    "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y", "%d/%m/%y", "%m/%d/%y",
    "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%b %Y",
)  # fmt: skip
_ALIKE = (("%d/%m/%Y", "%m/%d/%Y"), ("%d-%m-%Y", "%m-%d-%Y"), ("%d/%m/%y", "%m/%d/%y"))


class UnknownColumns(InputError):
    """A column of the table was not found by its name: name it with ``columns=``.

    Attributes:
        names: All columns of the table.
        found: For each of `OURS` its column, None for those that were not found.
    """

    def __init__(self, message: str, names: Sequence[Any], found: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.names, self.found = list(names), dict(found)


def find_columns(names: Sequence[Any], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the table's column for each of `OURS`.

    Args:
        names: The table's columns.
        given: The columns that the user names, e.g. ``{"site": "Lokasi"}``; the others are found by name.

    Raises:
        UnknownColumns: A column is missing.
        InputError: ``given`` names one column twice, or one that is not in the table; or the table has two columns
            of that name.
    """
    given = dict(given or {})
    _check_given(given, names)
    taken = set(given.values())
    plain: dict[str, Any] = {}
    for name in names:
        if name not in taken:
            plain.setdefault(re.sub(r"[\W_]+", "", str(name)).lower(), name)
    likely = {ours: next((plain[known] for known in _NAMES[ours] if known in plain), None) for ours in OURS}
    found = {**likely, **given}
    missing = [ours for ours, name in found.items() if name is None]
    if missing:
        lost = " and ".join(f"a {ours!r} column" for ours in missing)
        hint = ", ".join(f'"{ours}": ...' for ours in missing)
        msg = f"demand must have {lost}, got {_listed(names)}: name the column with columns={{{hint}}}"
        raise UnknownColumns(msg, names, found)
    for name in found.values():
        if list(names).count(name) > 1:
            msg = f"demand must have one column {name!r}, got {list(names).count(name)}: rename or drop the others"
            raise InputError(msg)
    return found


def read_dates(values: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Return the days of a column, without time and zone; NaT for values that are no day from 1900 to 2199.

    Args:
        values: The column.
        name: The user's name of the column, for messages.

    Raises:
        InputError: Day first and month first fit equally well.
    """
    if isinstance(values.dtype, pd.PeriodDtype):
        values = values.dt.to_timestamp()
    if not pd.api.types.is_datetime64_any_dtype(values):
        codes, distinct = pd.factorize(values)  # a table has far fewer days than rows
        days = _read_distinct(distinct, name)
        values = pd.Series(days.append(pd.DatetimeIndex([pd.NaT])).take(codes))  # the code -1, missing, takes the last
    if values.dt.tz is not None:
        values = values.dt.tz_localize(None)
    values = values.dt.normalize().astype("datetime64[us]").reset_index(drop=True)
    return values.where((values >= _FIRST) & (values < _LAST))


def check_freq(freq: Any) -> None:
    """Refuse an unknown frequency.

    Raises:
        InputError: It is not "D", "W", "M" or None.
    """
    if freq is not None and freq not in PERIODS:
        known = ", ".join(f"{key!r} ({word})" for key, word in PERIODS.items())
        msg = f"freq must be one of {known} or None to infer it, got {freq!r}"
        raise InputError(msg)


def infer_freq(dates: Any) -> Freq:
    """Return the longest period that fits the table's dates: "M", "W" or "D"."""
    days = pd.DatetimeIndex(pd.to_datetime(dates)).unique().sort_values()
    if len(days) < 2:
        return "D"
    if _is_monthly(days):
        return "M"
    gaps = np.diff(days.to_numpy()) / np.timedelta64(1, "D")
    return "W" if (gaps % 7 == 0).all() else "D"


def span(dates: Any, freq: Freq) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the first and the last day that a table's dates cover.

    In a weekly or monthly table, one date covers its whole period.
    """
    days = pd.DatetimeIndex(pd.to_datetime(dates)).normalize().unique()
    first, last = days.min(), days.max()
    if freq == "W" and ((last - days).days % 7 == 0).all():
        first -= pd.Timedelta(days=6)
    if freq == "M" and _is_monthly(days):
        last += pd.offsets.MonthEnd(0)
    return first, last


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


def _read_distinct(distinct: Any, name: str) -> pd.DatetimeIndex:
    # 20250701 may be a number, and an object of datetime is its ISO form
    whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in distinct]
    words = pd.Series([str(value) for value in whole], dtype=object)
    words = words.astype(str).str.strip().str.replace(_TIME, "", regex=True)
    read = {form: pd.to_datetime(words, format=form, errors="coerce") for form in _FORMATS}
    best = max(read, key=lambda form: int(read[form].notna().sum()))
    for one, other in _ALIKE:
        is_read = read[one].notna()
        is_same_many = int(is_read.sum()) == int(read[other].notna().sum()) > 0
        if best == one and is_same_many and not read[one][is_read].equals(read[other][is_read]):
            at = np.flatnonzero((read[one] != read[other]) & is_read)[0]
            msg = (
                f"{name} must say which is the day and which is the month, got {words[at]!r}, and all fit either way:"
                f" hand over dates, e.g. pd.to_datetime(demand[{name!r}], dayfirst=True)"
            )
            raise InputError(msg)
    return pd.DatetimeIndex(read[best])


def _is_monthly(days: pd.DatetimeIndex) -> bool:
    one_day = len(days.day.unique()) == 1 or bool(days.is_month_end.all())
    return one_day and len(days.to_period("M").unique()) == len(days) and bool((days.month != days.month[0]).any())
