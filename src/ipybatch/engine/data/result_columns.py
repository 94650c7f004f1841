"""Result columns: how the results of items become the columns of a table.

    result of an item --fields of a dict, else the column "result"--> columns beside `OURS`

Rule: names follow from all results together, so that the same results give the
same columns whether they are in memory at once or told one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

OURS = ("key", "status", "attempts", "seconds", "error")
LEFT = {"failed": "skipped", "cancelled": "cancelled", "rolled_back": "cancelled"}  # items without an outcome, by state

# What a spreadsheet takes for the beginning of a formula: a sign of ASCII or its full-width form, also behind what is
# not seen (blanks, line feeds, controls, marks of direction and of byte order), and a tab or an end of line alone.
# The panel's CSV has the same rule: the front end's is generated from this one, so both languages must read it alike.
_UNSEEN = r"\u0000-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
FORMULA = rf"^(?:[{_UNSEEN}]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])"
_FORMULA = re.compile(FORMULA)
_WIDEST = 1 << 63  # of whole numbers that a column of them holds


def column(field: str, fields: Iterable[str], word: str = "result", taken: Collection[str] = OURS) -> str:
    """Return a column name that is neither ours nor another field's."""
    name = field
    while name == word or name in taken or (name != field and name in fields):
        name = f"{word}_{name}"
    return name


def json_of(value: Any) -> Any:
    """Return a list or dict as its JSON, which other programs read; Python's own form is for Python."""
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else value


def safe_cell(value: Any) -> Any:
    """Keep a spreadsheet from running text as a formula.

    Source: https://owasp.org/www-community/attacks/CSV_Injection (2026-11-30).
    """
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return value


class ResultColumns:
    """The columns of results that are told one after the other, twice: once to `see` them, once for their `cells`."""

    def __init__(self) -> None:
        self._fields: dict[str, set[type]] = {}
        self._ours: list[set[type]] = [set() for _ in OURS]
        self._other: set[type] = set()

    def see(self, row: Sequence[Any]) -> None:
        """Take in a row: `OURS`, and the result."""
        *ours, result = row
        for kinds, value in zip(self._ours, ours, strict=True):
            kinds.add(_kind(value))
        if isinstance(result, dict):
            for field, value in result.items():
                self._fields.setdefault(field, set()).add(_kind(value))
        elif result is not None:
            self._other.add(_kind(result))

    @property
    def kinds(self) -> dict[str, set[type]]:
        """Which types a column's values have, by its name, in order; NoneType is left out."""
        named, used = set(self._fields), set(OURS)
        columns = dict(zip(OURS, self._ours, strict=True))
        for field, kinds in self._fields.items():
            name = column(field, named, "result", used)
            used.add(name)
            columns[name] = kinds
        if self._other:
            columns["result"] = self._other
        return {name: kinds - {type(None)} for name, kinds in columns.items()}

    def cells(self, row: Sequence[Any]) -> list[Any]:
        """Return a row's values by column; a field that was not seen is in none."""
        *ours, result = row
        is_dict = isinstance(result, dict)
        values = [*ours, *(result.get(field) if is_dict else None for field in self._fields)]
        return [*values, None if is_dict else result] if self._other else values


def _kind(value: Any) -> type:
    kind = type(value)
    return _Wide if kind is int and not -_WIDEST <= value < _WIDEST else kind


class _Wide:
    """A whole number that no column of them holds."""
