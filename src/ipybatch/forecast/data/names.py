"""Names of sites and parts: as numbers that say which name stands in which row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True, slots=True)
class Keys:
    """A column of names as numbers: in the order of the names, -1 for missing.

    Attributes:
        codes: For each row the position of its name.
        names: The names, sorted.
        stripped: How many rows had blanks around their name.
    """

    codes: Any
    names: pd.Index[Any]
    stripped: int

    def at(self, row: int) -> str | int | None:
        """Return the name in a row as Python's own number or text, which JSON can hold; None where it is missing."""
        if self.codes[row] < 0:
            return None
        name = self.names[self.codes[row]]
        return name.item() if isinstance(name, np.generic) else name  # type: ignore[no-any-return]  # numpy's


def read_names(values: pd.Series[Any]) -> Keys:
    """Number the names of a column, without the blanks around them; whole numbers stay numbers."""
    codes, found = pd.factorize(values)
    distinct = np.asarray(found, dtype=object)  # Arrow's texts are slow to go through one by one
    plain = [_plain(value) for value in distinct]
    kinds = {type(name) for name in plain if name != ""}
    names = plain if kinds == {int} else [str(name) for name in plain]
    known = sorted({name for name in names if name != ""})
    rank = {name: at for at, name in enumerate(known)}
    to_rank = np.array([*(rank.get(name, -1) for name in names), -1], dtype=np.int64)
    is_stripped = np.array([*(isinstance(old, str) and old != old.strip() != "" for old in distinct), False])
    return Keys(to_rank[codes], pd.Index(known), int(is_stripped[codes].sum()))


def _plain(value: Any) -> str | int:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)  # whole numbers of a column that had gaps
    return str(value)
