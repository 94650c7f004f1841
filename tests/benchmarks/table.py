"""Table: the figures of all questions, as one table that a README can hold."""

from __future__ import annotations

import datetime as dt
import os
import platform
import sqlite3
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HEAD = "| what | with | median | range | beside ours | goal | reached |\n|---|---|---:|---:|---:|---:|---|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contestant's figures in one question.

    Attributes:
        what: The question, with its unit.
        name: The contestant.
        values: One figure a run.
        ours: The figures that this contestant's are compared with; () for ours, or where a ratio says nothing.
        goal: The bar for the median; None for no goal.
        least: Whether the goal is the least allowed, not the most.
        note: What a reader must know to read the figure.
    """

    what: str
    name: str
    values: Sequence[float]
    ours: Sequence[float] = ()
    goal: float | None = None
    least: bool = False
    note: str = ""

    @property
    def median(self) -> float:
        """The figure of the table."""
        return statistics.median(self.values)

    @property
    def reached(self) -> str:
        """Whether the median reaches the goal; says so when only the best run does."""
        if self.goal is None:
            return ""
        if self._reaches(self.median):
            return "yes"
        return "best run only" if any(map(self._reaches, self.values)) else "no"

    @property
    def title(self) -> str:
        """The contestant, with what must be known."""
        return f"{self.name} ({self.note})" if self.note else self.name

    @property
    def span(self) -> str:
        """The range of the runs."""
        return f"{figure(min(self.values))} - {figure(max(self.values))}"

    @property
    def beside(self) -> str:
        """The median over that of ours."""
        return f"{self.median / statistics.median(self.ours):.2f} x" if self.ours else ""

    @property
    def bar(self) -> str:
        """The goal, and on which side of it the figure is to be."""
        return "" if self.goal is None else f"{'>=' if self.least else '<='} {self.goal:g}"

    def line(self, *, first: bool) -> str:
        """Return the row; only the ``first`` of a question names it."""
        what = self.what if first else ""
        cells = [what, self.title, figure(self.median), self.span, self.beside, self.bar, self.reached]
        return f"| {' | '.join(cells)} |"

    def _reaches(self, value: float) -> bool:
        assert self.goal is not None
        return value >= self.goal if self.least else value <= self.goal


def figure(value: float) -> str:
    """Return a number with about three digits."""
    if value == 0 or value == round(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def table(rows: Sequence[Row], *, rounds: int, scale: float, load: Sequence[float]) -> str:
    """Return the table under a line that says when and where it was measured.

    Args:
        scale: Share of the full number of items.
        load: Load averages over the last minute, from start to end.
    """
    scaled = "" if scale == 1 else f" {scale:g} of the full number of items."
    when = (
        f"{dt.datetime.now().astimezone():%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.machine()}."
        f" Medians of {rounds} runs in turn, each in a process of its own;"
        f" load average {min(load):.1f} to {max(load):.1f} meanwhile, the runs themselves included.{scaled}"
    )
    before = ["", *(row.what for row in rows)]
    lines = [row.line(first=row.what != above) for row, above in zip(rows, before, strict=False)]
    return "\n".join([when, "", HEAD, *lines])
