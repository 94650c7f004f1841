"""Imports: how long importing takes in a fresh interpreter, and that nothing heavy comes with it."""

from __future__ import annotations

import sys

from .measure import Runs, run
from .table import Row

OURS = "ipybatch"
MODULES = (OURS, "asyncio", "tenacity", "aiometer", "pandas")
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
import {module}
wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
import json, sys
print(json.dumps(dict(wall_s=wall_s, cpu_s=cpu_s, heavy=sum(name in sys.modules for name in {heavy}))))
"""


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Import each module in turn, once before the count so that the byte code is there."""
    runs: Runs = {module: [] for module in MODULES}
    for number in range(rounds + 1):
        for module in MODULES:
            figures = run([sys.executable, "-c", PROGRAM.format(module=module, heavy=HEAVY)])
            if number:
                runs[module].append(figures)
    return runs, 1


def check(runs: Runs, n: int) -> None:
    """Nothing heavy is loaded before it is used."""
    assert {figures["heavy"] for figures in runs[OURS]} == {0}


def rows(runs: Runs, n: int) -> list[Row]:
    """Return seconds, on the clock and of CPU."""
    made = []
    for what, unit, goal in (("import, s", "wall_s", GOAL_S), ("import, CPU s", "cpu_s", None)):
        values = {module: [figures[unit] for figures in runs[module]] for module in MODULES}
        made.append(Row(what=what, name=OURS, values=values[OURS], goal=goal))
        made += [Row(what=what, name=name, values=values[name], ours=values[OURS]) for name in MODULES[1:]]
    return made
