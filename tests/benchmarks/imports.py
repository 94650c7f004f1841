"""Imports: how long importing takes in a fresh interpreter, and that nothing heavy comes with it."""

from __future__ import annotations

import sys

from .measure import Runs, run
from .table import Row

OURS, SESSION = "ipybatch", "ipybatch, BatchSession"
# The package loads its parts when they are first used: what a session needs is measured beside it.
IMPORTS = {OURS: "import ipybatch", SESSION: "from ipybatch import BatchSession"}
IMPORTS |= {module: f"import {module}" for module in ("asyncio", "tenacity", "aiometer", "pandas")}
HEAVY = (
    "IPython",
    "anywidget",
    "google",
    "httpx",
    "httpx2",
    "ipywidgets",
    "numpy",
    "pandas",
    "plotly",
    "sklearn",
    "tornado",
)
GOAL_S = 0.15
PROGRAM = """
import time
wall_s, cpu_s = time.perf_counter(), time.process_time()
{statement}
wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
import json, sys
print(json.dumps(dict(wall_s=wall_s, cpu_s=cpu_s, heavy=sum(name in sys.modules for name in {heavy}))))
"""


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Import in turn, once before the count so that the byte code is there."""
    runs: Runs = {name: [] for name in IMPORTS}
    for number in range(rounds + 1):
        for name, statement in IMPORTS.items():
            figures = run([sys.executable, "-c", PROGRAM.format(statement=statement, heavy=HEAVY)])
            if number:
                runs[name].append(figures)
    return runs, 1


def check(runs: Runs, n: int) -> None:
    """Nothing heavy is loaded before it is used."""
    assert {figures["heavy"] for name in (OURS, SESSION) for figures in runs[name]} == {0}


def rows(runs: Runs, n: int) -> list[Row]:
    """Return seconds, on the clock and of CPU."""
    made = []
    for what, unit, goal in (("import, s", "wall_s", GOAL_S), ("import, CPU s", "cpu_s", None)):
        values = {name: [figures[unit] for figures in runs[name]] for name in IMPORTS}
        made += [Row(what=what, name=name, values=values[name], goal=goal) for name in (OURS, SESSION)]
        others = list(IMPORTS)[2:]
        made += [Row(what=what, name=name, values=values[name], ours=values[SESSION]) for name in others]
    return made
