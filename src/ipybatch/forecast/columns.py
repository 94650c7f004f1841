"""Columns: which column of a user's table is the site, the part, the date and the quantity.

A column that is called like one of ours, or as people commonly call it, is found: "Part No.", "part_no" and "PARTNO"
are the same name.  The commonest name wins where there are several; whatever else is meant is given:
``columns={"site": "Lokasi"}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ipybatch.errors import InputError

OURS = ("site", "part", "date", "quantity")
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


class UnknownColumns(InputError):
    """Say that columns were not found: the user is to name them.

    Attributes:
        names: All columns of the table.
        found: For each of `OURS` its column, None for those that were not found.
    """

    def __init__(self, message: str, names: Sequence[Any], found: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.names, self.found = list(names), dict(found)


def find_columns(names: Sequence[Any], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return for each of `OURS` the column of the table that it is.

    Args:
        names: The table's columns.
        given: What the user says, e.g. ``{"site": "Lokasi"}``; the others are found by name.

    Raises:
        UnknownColumns: A column is missing.
        InputError: Two of ours are one, or a name is there twice.
    """
    given = dict(given or {})
    _check_given(given, names)
    taken = set(given.values())
    found = {ours: given.get(ours, _find(ours, names, taken)) for ours in OURS}
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


def _find(ours: str, names: Sequence[Any], taken: set[Any]) -> Any:
    plain: dict[str, Any] = {}
    for name in names:
        if name not in taken:
            plain.setdefault(re.sub(r"[\W_]+", "", str(name)).lower(), name)
    return next((plain[known] for known in _NAMES[ours] if known in plain), None)


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(repr(str(name)) for name in list(names)[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"
