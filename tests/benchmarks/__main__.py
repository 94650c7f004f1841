"""Measure: ``python -m tests.benchmarks [--rounds 5] [--scale 1] [--only engine memory]``.

It prints the table. With the full number of items the rows go to docs/benchmarks.md as well; ``--page`` writes that
page from what was measured before.
"""

from __future__ import annotations

import argparse
import os

from .questions import QUESTIONS, answer, keep, write


def main() -> None:
    """Ask what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure beside the peers.")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the items, for a quick look (default 1)")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), help="questions (default all)")
    parser.add_argument("--data", help="the daily Online Retail table, for the accuracy of forecasts (default none)")
    parser.add_argument("--page", action="store_true", help="measure nothing: write docs/benchmarks.md")
    asked = parser.parse_args()
    if asked.page:
        write()
        return
    if asked.data:
        os.environ["BENCH_DATA"] = asked.data
    rows, load, text = [], [], ""
    for name in asked.only:
        load.append(os.getloadavg()[0])
        rows += answer(name, asked.rounds, asked.scale)
        text = keep(rows, rounds=asked.rounds, scale=asked.scale, load=load)
    print(text)


if __name__ == "__main__":
    main()
