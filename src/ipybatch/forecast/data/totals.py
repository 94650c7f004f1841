"""Totals among sites and parts, as exports of pivot tables have them: a site "Total" whose rows sum all others up.

They would count every piece twice. A name that says so ("Total", "All", "Jumlah", "Gesamt") is a total where each of
its quantities is exactly the sum of the others of that day; its rows are left out then, and that is told. One whose
quantities are its own, as those of a shop of that name, is a name like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.forecast.data.grid import TOTALS

_ALL = TOTALS | {
    "all", "overall", "alle", "alles", "tous", "toutes", "tout", "todos", "todas", "todo", "semua", "seluruh", "tất",
}  # fmt: skip
_ANY = re.compile("|".join(sorted(_ALL)), re.IGNORECASE)
FEWEST = 3  # days that are compared
_OTHERS = {"site": "part", "part": "site"}


def find_totals(frame: pd.DataFrame) -> tuple[Any, list[str]]:
    """Return for each row whether it sums others up, and what to say of these.

    Args:
        frame: Clean rows: site and part (categories), date and quantity.
    """
    is_total, told = np.zeros(len(frame), dtype=bool), []
    for ours, other in _OTHERS.items():
        names = frame[ours].cat.categories
        texts = [name for name in names if isinstance(name, str)]
        maybe = maybe_totals(texts)
        if not maybe or len(names) < len(maybe) + 2:
            continue
        is_maybe = frame[ours].isin(maybe).to_numpy()
        sums = frame[~is_maybe].groupby([other, "date"], observed=True)["quantity"].sum()
        for name in maybe:
            is_one = (frame[ours] == name).to_numpy()
            rows = frame[is_one]
            expected = sums.reindex(pd.MultiIndex.from_frame(rows[[other, "date"]])).fillna(0.0).to_numpy()
            if rows["date"].nunique() < FEWEST or not is_sum(rows["quantity"], expected):
                continue
            is_total |= is_one
            told.append(told_total(ours, name, len(rows)))
    return is_total, told


def maybe_totals(names: Iterable[Any]) -> list[str]:
    """Return the names that say that they sum others up."""
    texts = [name for name in names if isinstance(name, str)]
    return [name for name in texts if _says_total(name)] if _ANY.search("\n".join(texts)) else []


def is_sum(quantities: Any, sums: Any) -> bool:
    """Say whether quantities are the sums of others."""
    return np.allclose(quantities, sums, rtol=1e-6, atol=1e-9)


def told_total(ours: str, name: str, rows: int) -> str:
    """Tell that the rows of a name were left out."""
    return f"{rows:,} rows of the {ours} {name!r} were left out: they are the sums of all other {ours}s"


def _says_total(name: str) -> bool:
    parts = [part for part in re.split(r"[\W_]+", name.casefold()) if part]
    return bool(parts) and bool({parts[0], parts[-1]} & _ALL)
