"""Measure: every run in a process of its own, the contestants taking turns.

Rule: nothing here judges.  A case is a function in a question's module; `turns` runs the cases as A B C A B C, so
that a machine which is busy for a minute is busy for all of them, and gives the figures of every run.

    parent: turns --> child: python -m tests.benchmarks.measure engine "ipybatch, list" 100000 --> one line of JSON
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT_S = 600  # a run that takes longer hangs
# What is installed has its byte code; a checkout need not have any, nor be allowed to write it.
BYTE_CODE = {"PYTHONPYCACHEPREFIX": str(ROOT / "out" / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}

Figures = dict[str, float]
Case = Callable[[int], Figures]
Runs = dict[str, list[Figures]]


def turns(question: str, cases: Iterable[str], *, n: int, rounds: int) -> Runs:
    """Run every case ``rounds`` times, in turn, and return what each run measured."""
    names = list(cases)
    runs: Runs = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            print(f"  {question} {number + 1}/{rounds}: {name}", file=sys.stderr, flush=True)
            runs[name].append(run([sys.executable, "-m", __spec__.name, question, name, str(n)]))
    return runs


def run(command: list[str]) -> Figures:
    """Run one case in a fresh process, with a journal of its own, and return what it measured."""
    with tempfile.TemporaryDirectory(prefix="ipybatch-bench-") as folder:
        place = {"IPYBATCH_JOURNAL": f"{folder}/journal.db", "BENCH_FOLDER": folder, "XDG_RUNTIME_DIR": folder}
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **BYTE_CODE, **place},
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
    figures: Figures = json.loads(ended.stdout.splitlines()[-1])
    return figures


def answer(question: str, case: str, n: int) -> None:
    """Run one case in this process and print its figures."""
    cases: dict[str, Case] = importlib.import_module(f"{__spec__.parent}.{question}").CASES
    print(json.dumps(cases[case](n)))


if __name__ == "__main__":
    answer(sys.argv[1], sys.argv[2], int(sys.argv[3]))
