"""Names of sites and parts: as numbers that say which name stands in which row.

What is the same name for any reader is one name here, and that is told: blanks around it and runs of blanks, no-break
and thin spaces, zero-width characters, accents that are characters of their own (NFC), and ``123.0`` where a column
of numbers had gaps. What may be the same name is told by `duplicates`, and merged only when that is asked for.

Text stays text: leading zeros and ``1E5`` are kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from ipybatch.forecast.data.frame import distinct_of

# Zero-width space, word joiner, byte-order mark, soft hyphen, marks of direction. A joiner (U+200C, U+200D) has a
# meaning between letters of some scripts and in emoji: beside Latin letters it has none.
_UNSEEN = re.compile(
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\x00-\x08\x0e-\x1b\x7f]"
    "|(?<![^\x00-\u024f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\u024f])"
)
_HALVES = re.compile("[\ud800-\udfff]")  # of characters: nothing can be written of them
_NOTHING = frozenset({"nan", "NaN", "<NA>", "NaT"})  # what a missing name becomes as text
_NUMBER = re.compile(r"\d+\.\d+")
_WHOLE = re.compile(r"(\d+)\.0+")
_SHORTENED = re.compile(r"\d(?:[.,]\d+)?E\+\d+", re.IGNORECASE)

_AROUND = "blanks around them: these were taken away"
_WITHIN = "unusual blanks: these are single plain ones now"
_INVISIBLE = "invisible characters: these were taken away"
_PIECES = "accents apart from their letters: these were put together"
ZEROS = "a .0 that numbers get in a column with gaps: it was taken away"


@dataclass(frozen=True, slots=True)
class Keys:
    """A column of names as numbers: in the order of the names, -1 for missing.

    Attributes:
        codes: For each row the position of its name.
        names: The names, sorted.
        changes: By what was put right in how many rows.
        shortened: How many rows have a name that a spreadsheet shortened, such as 1.23E+12.
    """

    codes: Any
    names: pd.Index[Any]
    changes: tuple[tuple[str, int], ...] = ()
    shortened: int = 0

    @property
    def texts(self) -> list[str | int | None]:
        """The names as Python's own numbers or texts, which JSON can hold; the last, of code -1, is None."""
        return [*self.names.tolist(), None]

    @property
    def counts(self) -> Any:
        """In how many rows each name stands."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))

    def notes(self, ours: str) -> list[str]:
        """Return what was put right, and what cannot be, a line each.

        Args:
            ours: "site" or "part".
        """
        told = [f"{rows:,} {ours} names had {what}" for what, rows in self.changes]
        if self.shortened:
            told.append(
                f"{self.shortened:,} {ours} names are numbers that a spreadsheet shortened (1.23E+12): different"
                f" {ours}s may share one name; make the column text there, and export it again"
            )
        return told


def read_names(values: pd.Series[Any], *, is_piece: bool = False) -> Keys:
    """Number the names of a column, as any reader sees them; whole numbers stay numbers.

    Args:
        values: The column.
        is_piece: Whether it is one of several pieces of a column: then `whole_names` of all of them says which are
            numbers.
    """
    codes, found = distinct_of(values)
    plain = [_plain(value) for value in found]
    kinds = {type(name) for name in plain if name != ""}
    names: list[Any] = plain if kinds <= {int} else [str(name) for name in plain]
    changes = [_changes(old, new) for old, new in zip(found, names, strict=True)]
    if whole := {} if is_piece else whole_names(names):
        names = [whole.get(name, name) for name in names]
        for at, old in enumerate(plain):
            if old in whole:
                changes[at] = (*changes[at], ZEROS)
    known = sorted({name for name in names if name != ""})
    rank = {name: at for at, name in enumerate(known)}
    to_rank = np.array([*(rank.get(name, -1) for name in names), -1], dtype=np.int64)
    rows = np.bincount(codes[codes >= 0], minlength=len(found))
    counts: Counter[str] = Counter()
    for at, some in enumerate(changes):
        for what in some:
            counts[what] += int(rows[at])
    is_short = [isinstance(name, str) and _SHORTENED.fullmatch(name) is not None for name in names]
    shortened = int(rows[np.array(is_short, dtype=bool)].sum())
    return Keys(to_rank[codes], pd.Index(known), tuple(counts.items()), shortened)


def clean(text: str) -> str:
    """Return a name as any reader sees it: without what cannot be seen, with single plain blanks, its accents whole."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split()) if " " in text else text
    whole = unicodedata.normalize("NFC", _UNSEEN.sub("", _HALVES.sub("\ufffd", text)))
    return " ".join(whole.split())


def _plain(value: Any) -> str | int:
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        name = clean(value)
        return "" if name in _NOTHING else name
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float | np.floating | Decimal) and float(value).is_integer() and abs(float(value)) < 2**53:
        return int(value)  # whole numbers of a column that had gaps
    return clean(str(value))


def whole_names(names: Iterable[Any]) -> dict[str, str]:
    """Return names like 123.0 without their .0, unless another number of the column has decimals that count."""
    numbers = {name: _WHOLE.fullmatch(name) for name in set(names) if isinstance(name, str) and _NUMBER.fullmatch(name)}
    if not numbers or None in numbers.values():
        return {}
    return {name: found[1] for name, found in numbers.items() if found is not None}


def _changes(old: Any, new: Any) -> tuple[str, ...]:
    if not isinstance(old, str) or old == new or not new:
        return ()
    told = [_AROUND] if old != old.strip() else []
    seen = _UNSEEN.sub("", old)
    if seen != old:
        told.append(_INVISIBLE)
    if unicodedata.normalize("NFC", seen) != seen:
        told.append(_PIECES)
    if " ".join(seen.split()) != seen.strip():
        told.append(_WITHIN)
    return tuple(told)
