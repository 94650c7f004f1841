"""Readme: figures in README are links to rows of docs/benchmarks.md, and follow them.

Two ways to write one: ``[11 us](docs/benchmarks.md#row)``, or ``[11 us][cpu]`` with a line below that says
``[cpu]: docs/benchmarks.md#row``.  The number comes first, then its unit, which the row names, if any, then words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .measure import ROOT
from .table import Row, figure

README = ROOT / "README.md"
_ROW = r"docs/benchmarks\.md#([\w-]+)"
_DEFINITION = re.compile(rf"^\[([^\]]+)\]: {_ROW}$", flags=re.MULTILINE)
_LINK = re.compile(rf"\[([^\[\]]+)\](?:\({_ROW}\)|\[([^\[\]]+)\])")
_FIGURE = re.compile(r"([\d,]+(?:\.(\d+))?)( ?)(\S*)(.*)")


class Link(NamedTuple):
    """A figure of a text, and the row it leads to."""

    text: str
    row: str


def links(text: str) -> Iterator[Link]:
    """Give what a text shows as figures of rows."""
    named = dict(_DEFINITION.findall(text))
    for words, row, name in _LINK.findall(text):
        if row or name in named:
            yield Link(words, row or named[name])


def is_of(words: str, row: Row) -> bool:
    """Whether a figure is a row's median, rounded as far as the figure is, in a unit that the row names."""
    found = _FIGURE.fullmatch(words)
    if not found:
        return False
    number, decimals, _, unit, _ = found.groups()
    is_named = not unit or unit in re.split(r"[\s,]+", row.what)
    return is_named and float(number.replace(",", "")) == round(row.median, len(decimals or ""))


def restated(text: str, rows: Mapping[str, Row]) -> str:
    """Return a text with the present medians in place of the figures that are none any more."""
    named = dict(_DEFINITION.findall(text))

    def restate(link: re.Match[str]) -> str:
        words, row = link[1], rows.get(link[2] or named.get(link[3], ""))
        if row is None or is_of(words, row) or not (found := _FIGURE.fullmatch(words)):
            return link[0]
        return link[0].replace(words, f"{figure(row.median)}{found[3]}{found[4]}{found[5]}", 1)

    return _LINK.sub(restate, text)
