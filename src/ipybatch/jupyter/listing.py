"""Listing: the recorded sessions as a table: local times, rounded durations, states and counts."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence

from ipybatch.engine.data.masking import isolated, mask, printable
from ipybatch.engine.store.history import RecordedRun
from ipybatch.jupyter.static_html import said

SHOWN = 50  # of the latest; more are no table to read
_LONGEST = {"Session": 60, "Reason": 80}  # characters of a cell
_HEAD = ("Session", "State", "Done", "Failed", "Started", "Took", "Cost", "Reason")
_NUMBERS = frozenset({"Done", "Failed", "Took", "Cost"})
_DAY_S = 86_400
_STYLE = (
    "<style scoped>"
    ".ipybatch-sessions{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    ".ipybatch-sessions :is(th,td){padding:3px 12px 3px 0;white-space:nowrap}"
    ".ipybatch-sessions td:last-child{white-space:normal}"
    ".ipybatch-sessions th{font-weight:600}"
    "</style>"
)


class Listing:
    """The recorded runs as a table, the latest first: in a notebook as HTML, elsewhere as text."""

    def __init__(self, runs: Sequence[RecordedRun], now_s: float | None = None) -> None:
        now_s = time.time() if now_s is None else now_s
        self._earlier = max(0, len(runs) - SHOWN)
        self._rows = [_cells(run, now_s) for run in reversed(runs[self._earlier :])]

    @property
    def _columns(self) -> list[int]:
        """Those that say something: without any cost or reason there is no column for it."""
        kept = [at for at, _ in enumerate(_HEAD) if at < 6 or any(row[at] for row in self._rows)]
        return kept if self._rows else []

    @property
    def _foot(self) -> str:
        if not self._rows:
            return "No session is recorded yet."
        return f"{self._earlier:,} earlier ones: ipybatch.history()" if self._earlier else ""

    def __repr__(self) -> str:
        told = [_HEAD, *self._rows] if self._rows else []
        table = [[_cut(row[at], _HEAD[at]) for at in self._columns] for row in told]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        right = [_HEAD[at] in _NUMBERS for at in self._columns]
        lines = [
            "  ".join(
                cell.rjust(width) if is_right else f"{isolated(cell)}{' ' * (width - len(cell))}"
                for cell, width, is_right in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in table
        ]
        return "\n".join([*lines, self._foot] if self._foot else lines)

    def _repr_html_(self) -> str:
        def cells(row: Sequence[str], tag: str) -> str:
            # In the cell itself: themes of notebooks turn cells to the right, and untrusted ones lose the style sheet.
            sides = {True: "right", False: "left"}
            told = [
                f'<{tag} style="text-align:{sides[_HEAD[at] in _NUMBERS]}">{_cell(row[at], _HEAD[at])}</{tag}>'
                for at in self._columns
            ]
            return f"<tr>{''.join(told)}</tr>"

        foot = f"<p>{said(self._foot)}</p>" if self._foot else ""
        if not self._rows:
            return foot
        body = "".join(cells(row, "td") for row in self._rows)
        return f'{_STYLE}<table class="ipybatch-sessions">{cells(_HEAD, "th")}{body}</table>{foot}'


def _cells(run: RecordedRun, now_s: float) -> tuple[str, ...]:
    done, failed = run.completed + run.failed + run.timeout, run.failed + run.timeout
    state = f"{run.state.replace('_', ' ')} {run.where}".strip()
    return (
        printable(run.name),
        state,
        f"{done:,}" if run.total is None else f"{done:,} of {run.total:,}",
        f"{failed:,}" if failed else "",
        _when(run.started_s, now_s),
        _took(run.seconds),
        "" if run.usd is None else f"${run.usd:,.2f}" if run.usd >= 0.1 or not run.usd else f"${run.usd:.4f}",
        mask(printable(run.reason)),
    )


def _cut(text: str, title: str) -> str:
    most = _LONGEST.get(title, len(text))
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"


def _cell(text: str, title: str) -> str:
    """Return a cell as HTML: where it is cut, whole in its title."""
    short = _cut(text, title)
    return said(short) if short == text else f'<span title="{html.escape(text)}">{said(short)}</span>'


def _when(unix_s: float, now_s: float) -> str:
    """Return a time as the clock on this machine's wall tells it: ``14:03`` today, ``28 Nov 14:03`` before."""
    then, now = time.localtime(unix_s), time.localtime(now_s)
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    if then[:3] == time.localtime(now_s - _DAY_S)[:3]:
        return time.strftime("yesterday %H:%M", then)
    return time.strftime("%d %b %H:%M" if then[0] == now[0] else "%d %b %Y", then).removeprefix("0")


def _took(seconds: float) -> str:
    """Return a duration in two units at most: ``0.4 s``, ``48 s``, ``1 m 48 s``, ``2 h 05 m``, ``3 d 04 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < _DAY_S:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // _DAY_S} d {whole % _DAY_S // 3600:02} h"
