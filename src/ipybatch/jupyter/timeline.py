"""The timeline of a session as SVG: attempts a second, and the groups as bars.

Rule: numbers only, so that no text from outside can get into the drawing.  Colours are classes of the page's style.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from ipybatch.engine.data.events import BreakerMoved, Mark
from ipybatch.engine.feed.snapshot import Group
from ipybatch.jupyter.static_html import shown_status

WIDTH, HEIGHT = 900, 180
_LEFT, _TOP, _FOOT = 44, 8, 20
_LANES, _LANE = 24, 9
_STEPS_S = (1, 2, 5, 10, 20, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_MOST = 300  # steps of the line
_FINEST = 0.5  # pixels, the least width of a bar


class Scale(msgspec.Struct, frozen=True):
    """The time axis: ``first_s`` at the left, ``last_s`` at the right."""

    first_s: float
    last_s: float

    def x(self, at_s: float) -> float:
        """Return the x coordinate of a time, in pixels."""
        share = (at_s - self.first_s) / max(self.last_s - self.first_s, 0.001)
        return _LEFT + (WIDTH - _LEFT) * min(1.0, max(0.0, share))


def svg(
    marks: Sequence[Mark], groups: Iterable[Group], moves: Iterable[BreakerMoved], allowed_per_s: float | None
) -> str:
    """Return the drawing; "" when there are fewer than two marks."""
    marks = _apart(marks)
    if len(marks) < 2:
        return ""
    shown = [group for group in groups if group.started_s]
    ends = [group.ended_s for group in shown]
    scale = Scale(min([marks[0].at_s, *[group.started_s for group in shown]]), max([marks[-1].at_s, *ends]))
    tried = [(before, after, _per_s(before.started, after.started, before, after)) for before, after in pairwise(marks)]
    fails = [(before, after, _per_s(before.failed, after.failed, before, after)) for before, after in pairwise(marks)]
    top = _round_up(max(allowed_per_s or 0.0, *[per_s for *_, per_s in tried]))
    bars, lanes = _bars(shown, scale)
    height = HEIGHT + _FOOT + lanes * _LANE
    parts = [_grid(scale, top), _area("tried", tried, scale, top), _area("failed", fails, scale, top)]
    if allowed_per_s is not None:
        parts.append(f'<path class="allowed" d="M{_LEFT} {_y(allowed_per_s, top):.1f}H{WIDTH}"/>')
    opened = [scale.x(move.at_s) for move in moves if move.state == "open" and scale.first_s <= move.at_s]
    parts += [f'<path class="opened" d="M{x:.1f} {_TOP}V{HEIGHT}"/>' for x in opened]
    box = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Attempts a second over time"'
    return f"<svg {box}>{''.join(parts)}{bars}</svg>"


def _apart(marks: Sequence[Mark]) -> list[Mark]:
    """Return marks that are far enough apart for a rate: a few starts in a millisecond are not thousands a second."""
    if not marks:
        return []
    least_s = max(1.0, (marks[-1].at_s - marks[0].at_s) / _MOST)
    kept = [marks[0]]
    for mark in marks[1:]:
        if mark.at_s >= kept[-1].at_s + least_s:
            kept.append(mark)
    if kept[-1] is not marks[-1]:
        kept[1 if len(kept) == 1 else -1 :] = [marks[-1]]
    return kept


def _per_s(before: int, after: int, since: Mark, until: Mark) -> float:
    return (after - before) / max(until.at_s - since.at_s, 0.001)


def _round_up(value: float) -> float:
    """Return the next round number for the axis."""
    ten = 10.0 ** math.floor(math.log10(max(value, 0.01)))
    return next(step * ten for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * ten >= value * 0.9999)


def _y(per_s: float, top: float) -> float:
    return _TOP + (HEIGHT - _TOP) * (1 - min(1.0, per_s / top))


def _area(kind: str, steps: Iterable[tuple[Mark, Mark, float]], scale: Scale, top: float) -> str:
    path = [f"M{_LEFT} {HEIGHT}"]
    is_empty = True
    for before, after, per_s in steps:
        y = _y(per_s, top)
        is_empty = is_empty and not per_s
        path.append(f"L{scale.x(before.at_s):.1f} {y:.1f}H{scale.x(after.at_s):.1f}")
    return "" if is_empty else f'<path class="{kind}" d="{"".join(path)}V{HEIGHT}Z"/>'


def _grid(scale: Scale, top: float) -> str:
    length_s = scale.last_s - scale.first_s
    step_s = next((step for step in _STEPS_S if length_s / step <= 8), math.ceil(length_s / 8 / 86400) * 86400)
    parts = []
    for part in (0.0, 0.5, 1.0):
        y = _y(part * top, top)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{part * top:g}</text>')
    for at in range(int(length_s // step_s) + 1):
        x = scale.x(scale.first_s + at * step_s)
        side = "start" if at == 0 else "middle" if x < WIDTH - 30 else "end"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT + 15}" text-anchor="{side}">{_after(at * step_s)}</text>')
    return "".join(parts)


def _after(seconds: int) -> str:
    """Return a round duration in one or two words: 90 s, 5 m, 1 h 30 m."""
    if seconds < 120:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    return " ".join(part for part in (f"{hours} h" if hours else "", f"{minutes} m" if minutes else "") if part)


def _bars(groups: Iterable[Group], scale: Scale) -> tuple[str, int]:
    """Return a bar for each group, and how many lanes they take: each goes into the first one that is free."""
    free_s: list[float] = []
    drawn: set[tuple[int, int, str]] = set()  # many short groups share a pixel
    parts = []
    for group in sorted(groups, key=lambda group: group.started_s):
        until_s = group.ended_s or scale.last_s
        lane = next((lane for lane, free in enumerate(free_s) if free <= group.started_s), len(free_s))
        lane = min(lane, _LANES - 1)
        free_s[lane : lane + 1] = [max(until_s, free_s[lane] if lane < len(free_s) else 0.0)]
        x, end = scale.x(group.started_s), scale.x(until_s)
        kind = shown_status(group)
        if end - x > 1 or (lane, int(x), kind) not in drawn:
            drawn.add((lane, int(x), kind))
            width = max(_FINEST, end - x - 0.5)
            y = HEIGHT + _FOOT + lane * _LANE
            parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_LANE - 3}"/>')
    return "".join(parts), len(free_s)
