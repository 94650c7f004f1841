"""Questions: what is measured, in the order of the table.

A question is a module with ``ask(rounds, scale)``, which runs its cases; ``check(runs, n)``, which asserts that they
did the whole work and broke no limit; and ``rows(runs, n)``.  Time is reported beside its goal and never asserted.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from . import (
    batches,
    browser,
    cluster,
    engine,
    estimates,
    fleet,
    fleet_peers,
    forecasting,
    forecasting_peers,
    gemini,
    gemini_peers,
    imports,
    listing,
    memory,
    rate,
    rate_peers,
    refreshes,
    resume,
    shared,
    sizing,
    view,
)
from . import page as pages
from .machine import installed, this_machine, versions
from .measure import ROOT
from .page import Run
from .readme import README, restated
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
# Where the peers are that are no dependencies of ours, and their names.
PEERS: dict[str, tuple[Path, tuple[str, ...]]] = {
    "rate": (rate_peers.PLACE, ("bottleneck",)),
    "fleet": (fleet_peers.LIMITS_PLACE, ("limits",)),
    "gemini": (gemini_peers.PLACE, ("litellm", "lm-deluge")),
    "forecasting": (forecasting_peers.PLACE, ("statsforecast", "mlforecast", "lightgbm")),
}
NO_PEERS: tuple[Path, tuple[str, ...]] = (ROOT, ())
OUT = ROOT / "out" / "benchmarks.md"


def answer(name: str, rounds: int, scale: float) -> list[Row]:
    """Ask one question, check that the runs were sound, and return its rows.

    With the full number of items they are recorded for docs/benchmarks.md, too: a run that is ended early keeps what it
    has.
    """
    question, begun = QUESTIONS[name], dt.datetime.now(dt.UTC)
    load, begun_s = [os.getloadavg()[0]], time.monotonic()
    runs, n = question.ask(rounds, scale)
    question.check(runs, n)
    rows: list[Row] = question.rows(runs, n)
    took_s = time.monotonic() - begun_s
    print(f"  {name}: {took_s:,.0f} s", file=sys.stderr, flush=True)
    if scale == 1:
        run = Run(
            key=f"{begun:%Y-%m-%d-%H%M}-{name}",
            question=name,
            date=f"{begun:%Y-%m-%d}",
            rounds=rounds,
            load=[round(one, 1) for one in (*load, os.getloadavg()[0])],
            took_s=round(took_s),
            machine=this_machine(),
            versions=versions() | installed(*PEERS.get(name, NO_PEERS)),
        )
        record(run, rows)
    return rows


def record(run: Run, rows: Sequence[Row]) -> None:
    """Put rows into docs/benchmarks.json, and write docs/benchmarks.md."""
    results = pages.load()
    results.record(run, rows)
    pages.save(results)
    write()


def write() -> None:
    """Write docs/benchmarks.md from what was measured so far, and let README's figures follow."""
    results = pages.load()
    pages.PAGE.write_text(pages.page(results, QUESTIONS), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(restated(text, {row.id: row.row for row in results.rows}), encoding="utf-8")


def keep(rows: Sequence[Row], *, rounds: int, scale: float, load: Sequence[float]) -> str:
    """Return the table so far, and leave it in ``out/benchmarks.md``: a run that is ended early keeps what it has."""
    text = table(rows, rounds=rounds, scale=scale, load=[*load, os.getloadavg()[0]])
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(text + "\n", encoding="utf-8")
    return text
