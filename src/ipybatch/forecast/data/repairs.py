"""Repairs of a table that a user asks for: ``repair={"drop_bad_rows", "merge_near_duplicates", "net_returns"}``.

    merge_near_duplicates   names that may be one are one (`duplicates`)
    net_returns             a negative quantity is taken off earlier sales of its site and part
    drop_bad_rows           rows that cannot be used are left out

In this order: what is netted is no bad row any more. Each is told, with how many rows it changed.

Returns. A return takes back what was sold last: it is taken off the latest sales of its site and part up to its own
date, the latest first, until it is used up, so that no period falls below zero. What finds no earlier sale is left out
and told: it takes back a sale of before the table, of which the table knows nothing. What was taken off which sale, and
when, is kept: on a day of the past a sale still has what is returned later (`as_on`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ipybatch.errors import InputError

DROP_BAD_ROWS, MERGE, NET_RETURNS = "drop_bad_rows", "merge_near_duplicates", "net_returns"
REPAIRS = (DROP_BAD_ROWS, MERGE, NET_RETURNS)

Repair = Iterable[str] | str


def check_repair(repair: Any) -> frozenset[str]:
    """Return the repairs that are asked for.

    Raises:
        InputError: There is no such repair.
    """
    known = ", ".join(map(repr, REPAIRS))
    try:
        asked = frozenset({repair} if isinstance(repair, str) else repair or ())
    except TypeError:
        msg = f"repair must be a set of some of {known}, got {repair!r}"
        raise InputError(msg) from None
    if unknown := sorted(map(repr, asked - frozenset(REPAIRS))):
        msg = f"repair must be a set of some of {known}, got {', '.join(unknown)}"
        raise InputError(msg)
    return asked


class Netted(NamedTuple):
    """Quantities after their returns were netted.

    Attributes:
        quantities: For each row, none of them negative.
        left: For each row how much of its return found no earlier sale.
        taken: Of each piece of a return the row that it was taken off, its own row, and how much it was.
    """

    quantities: Any
    left: Any
    taken: Any


class Returned(NamedTuple):
    """What was taken off the rows of a table.

    Attributes:
        rows: The number of the row in the table's frame.
        days: The day of the return.
        quantities: How much was taken off, > 0.
    """

    rows: Any
    days: Any
    quantities: Any


def net_returns(series: Any, days: Any, quantities: Any) -> Netted:
    """Take returns, the negative quantities, off earlier sales of their series.

    Args:
        series: For each row the number of its series.
        days: For each row its day, as a number.
        quantities: For each row its quantity.
    """
    netted, left = quantities.copy(), np.zeros(len(quantities))
    pieces: list[tuple[int, int, float]] = []
    is_return = quantities < 0
    rows = np.flatnonzero(np.isin(series, series[is_return]))  # of series that have returns at all
    rows = rows[np.lexsort((is_return[rows], days[rows], series[rows]))]  # of a day, sales come before returns
    sold: list[int] = []
    before = None
    for row, of, quantity in zip(rows.tolist(), series[rows].tolist(), quantities[rows].tolist(), strict=True):
        if of != before:
            sold, before = [], of
        if quantity >= 0:
            sold.append(row)
            continue
        back = -quantity
        while back > 0 and sold:
            taken = min(back, netted[sold[-1]])
            netted[sold[-1]] -= taken
            pieces.append((sold[-1], row, taken))
            back -= taken
            if netted[sold[-1]] <= 0:
                sold.pop()
        netted[row], left[row] = 0.0, back
    return Netted(netted, left, np.array(pieces, dtype=float).reshape(-1, 3))


def as_on(quantities: Any, returned: Returned | None, day: Any) -> Any:
    """Return a table's quantities as they were known at the end of a day: without what was returned later."""
    if returned is None:
        return quantities
    is_later = returned.days > np.datetime64(day, "D")
    known = quantities.copy()
    np.add.at(known, returned.rows[is_later], returned.quantities[is_later])
    return known


def tell_returns(is_return: Any, quantities: Any, netted: Netted, row_of: Any) -> list[str]:
    """Return what was netted, and what found no earlier sale.

    Args:
        is_return: For each row whether it is a return.
        quantities: As they were.
        netted: As they are.
        row_of: The rows as the user counts them.
    """
    count = int(is_return.sum())
    if not count:
        return []
    pieces = -quantities[is_return].sum() - netted.left.sum()
    told = [f"{_returns(count)} netted against earlier sales of the same site and part: {pieces:,.10g} in all"]
    if lost := int((netted.left > 0).sum()):
        at = int(np.argmax(netted.left > 0))
        told.append(
            f"{_returns(lost)} left out, in whole or in part, because they are more than was sold before:"
            f" {netted.left.sum():,.10g} in all, the first in row {row_of[at]}"
        )
    return told


def _returns(count: int) -> str:
    return "1 return was" if count == 1 else f"{count:,} returns were"
