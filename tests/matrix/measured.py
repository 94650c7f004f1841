"""Measured: what the matrix found, as a table."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BAR_MS = 1000


@dataclass(frozen=True, kw_only=True)
class Case:
    """One press.

    Attributes:
        setup: Kernel and front end, in words.
        doing: What the kernel was doing.
        press: Which button; the second one finds the subshell open.
        said_ms: From the click until the panel said something.
        acted_ms: From the click until the panel showed the state.
    """

    setup: str
    doing: str
    press: str
    said_ms: float
    acted_ms: float


def table(cases: Sequence[Case], setups: Iterable[str]) -> str:
    """Return the milliseconds until the state, one column for each setup; those above the bar in bold."""
    by_place = {(case.setup, case.doing, case.press): case for case in cases}
    columns = [setup for setup in setups if any(case.setup == setup for case in cases)]
    lines = [
        f"| the kernel's main shell | press | {' | '.join(columns)} |",
        f"|---|---|{'---:|' * len(columns)}",
    ]
    for doing, press in dict.fromkeys((case.doing, case.press) for case in cases):
        cells = [_cell(by_place.get((setup, doing, press))) for setup in columns]
        lines.append(f"| {doing} | {press} | {' | '.join(cells)} |")
    return "\n".join(lines)


def said(cases: Sequence[Case]) -> str:
    """Return how long the panel took to say anything."""
    times = sorted(case.said_ms for case in cases)
    return f"Words in the panel after the click: median {times[len(times) // 2]:.0f} ms, at most {times[-1]:.0f} ms."


def machine() -> str:
    """Return date, versions and machine in one line."""
    names = ("jupyterlab", "anywidget", "ipywidgets", "playwright")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    return f"{today}; Python {platform.python_version()}, {versions}; {os.cpu_count()} shared cores."


def _cell(case: Case | None) -> str:
    if case is None:
        return ""
    return f"{case.acted_ms:.0f}" if case.acted_ms <= BAR_MS else f"**{case.acted_ms:.0f}**"
