"""Change the engine in one place at a time, and tell which changes no test notices.

python -m tools.mutants            a sample of the mutants, every fifth, in at most an hour
python -m tools.mutants --all      all of them
python -m tools.mutants NAME...    those whose names match, e.g. 'ipybatch.engine.rules.breaker*'

What is changed, and by which tests it must be noticed, stands in pyproject.toml under tool.mutmut. The score is the
share that the tests or mypy notice; a mutant that runs out of time is noticed too. `mutmut show NAME` shows a survivor.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

LIMIT_S = 3600
SAMPLE = ("ipybatch.engine.*[27]",)  # a mutant's name ends in its number within its function
NOTICED = ("killed", "timeout", "caught by type check", "suspicious", "segfault")
NOT_NOTICED = ("survived", "no tests")
_LINE = re.compile(r"^ +(ipybatch\.\S+): (.+)$", re.MULTILINE)
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # mutants come first


def statuses(results: str) -> dict[str, str]:
    """Return how it went with each mutant, from what ``mutmut results`` prints."""
    return dict(_LINE.findall(results))


def report(found: dict[str, str]) -> str:
    """Return the score of each module and of all, and the survivors."""
    noticed, tested = Counter[str](), Counter[str]()
    for name, status in found.items():
        if status in NOTICED + NOT_NOTICED:
            for scope in (name.rpartition(".")[0], "all"):
                tested[scope] += 1
                noticed[scope] += status in NOTICED
    survivors = [f"{name}: {status}" for name, status in found.items() if status in NOT_NOTICED]
    scores = [
        f"{noticed[scope]:>5} of {tested[scope]:>5} noticed, {noticed[scope] / tested[scope]:4.0%}  {scope}"
        for scope in sorted(tested, key=lambda scope: (scope == "all", scope))
    ]
    return "\n".join([*survivors, *scores])


def main(arguments: list[str]) -> int:
    """Run them and print the score."""
    patterns = [] if arguments == ["--all"] else arguments or list(SAMPLE)
    with subprocess.Popen(["mutmut", "run", "--max-children", "1", *patterns], env=_ENVIRONMENT) as running:
        try:
            running.wait(None if arguments else LIMIT_S)
        except subprocess.TimeoutExpired:  # what has been found out is kept
            running.terminate()
            print(f"\nstopped after {LIMIT_S} s")
    print(
        report(statuses(subprocess.check_output(["mutmut", "results", "--all", "true"], env=_ENVIRONMENT, text=True)))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
