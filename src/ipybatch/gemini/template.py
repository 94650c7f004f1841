"""Template: a text with the names of columns in braces, filled for one row after the other."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ipybatch.errors import InputError


@dataclass(frozen=True, slots=True)
class Template:
    """A text with columns in braces; made with `Template.of`.

    Only plain names are allowed in the braces, with an optional format (``{price:.2f}``), and neither attributes nor
    indexes: a template reads nothing but the row.

    Attributes:
        text: The text as the user wrote it.
        columns: Names of the columns, by first use.
    """

    text: str
    columns: tuple[str, ...]

    @classmethod
    def of(cls, text: Any) -> Template:
        """Return ``text`` as a template.

        Raises:
            InputError: ``text`` is no text, or its braces hold no names.
        """
        if not isinstance(text, str) or not text.strip():
            msg = f"template must be a text such as 'Describe {{name}}', got {text!r}"
            raise InputError(msg)
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
        except ValueError as error:
            msg = f"template has braces that do not match ({error}): write {{{{ and }}}} for braces in the text"
            raise InputError(msg) from None
        for name in names:
            if not name or any(sign in name for sign in ".[]") or name.isdigit():
                msg = (
                    f"template must have names of columns in its braces, got {{{name}}}: write {{{{ and }}}} for braces"
                )
                raise InputError(msg)
        if not names:
            msg = f"template must name a column in braces, got {text!r}: without one all prompts are the same"
            raise InputError(msg)
        return cls(text, tuple(dict.fromkeys(names)))

    def fill(self, row: Mapping[str, Any], where: str) -> str:
        """Return the text for one row.

        Raises:
            InputError: A column is missing, is empty, or does not fit its format; the message names it.
        """
        for column in self.columns:
            if column not in row:
                msg = f"{where} has no {column!r}, which the template needs: it has {_names(row)}"
                raise InputError(msg)
            value = row[column]
            if is_missing(value) or (isinstance(value, str) and not value.strip()):
                msg = f"{where}[{column!r}] must be a value for the template, got {value!r}: fill it or drop the row"
                raise InputError(msg)
        try:
            return string.Formatter().vformat(self.text, (), row)
        except (ValueError, TypeError, KeyError) as error:
            msg = f"{where} does not fit the template {self.text!r}: {error}"
            raise InputError(msg) from None


def is_missing(value: Any) -> bool:
    """Say whether a cell is empty: None, NaN, NaT or NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and bool(value != value)  # noqa: PLR0124 - NaN alone is unlike itself


def _names(row: Mapping[str, Any]) -> str:
    names = list(map(repr, row))
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "") if names else "no columns"
