"""Questions: what is measured, in the order of the table.

A question is a module with ``ask(rounds, scale)``, which runs its cases; ``check(runs, n)``, which asserts that they
did the whole work and broke no limit; and ``rows(runs, n)``.  Time is reported beside its goal and never asserted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType

from . import (
    batches,
    browser,
    cluster,
    engine,
    estimates,
    fleet,
    forecasting,
    gemini,
    imports,
    listing,
    memory,
    rate,
    refreshes,
    resume,
    shared,
    sizing,
    view,
)
from .measure import ROOT
from .table import Row, table

QUESTIONS: dict[str, ModuleType] = {
    "engine": engine,
    "memory": memory,
    "rate": rate,
    "shared": shared,
    "fleet": fleet,
    "sizing": sizing,
    "cluster": cluster,
    "imports": imports,
    "resume": resume,
    "listing": listing,
    "estimates": estimates,
    "refresh": refreshes,
    "view": view,
    "gemini": gemini,
    "batches": batches,
    "forecasting": forecasting,
    "browser": browser,
}
OUT = ROOT / "out" / "benchmarks.md"


def answer(name: str, rounds: int, scale: float) -> list[Row]:
    """Ask one question, check that the runs were sound, and return its rows."""
    question = QUESTIONS[name]
    runs, n = question.ask(rounds, scale)
    question.check(runs, n)
    rows: list[Row] = question.rows(runs, n)
    return rows


def keep(rows: Sequence[Row], *, rounds: int, scale: float, load: Sequence[float]) -> str:
    """Return the table so far, and leave it in ``out/benchmarks.md``: a run that is ended early keeps what it has."""
    text = table(rows, rounds=rounds, scale=scale, load=[*load, os.getloadavg()[0]])
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(text + "\n", encoding="utf-8")
    return text
