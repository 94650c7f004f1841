"""Still: the panel as static HTML and as text, for saved notebooks and for front ends without widgets.

No script, no outside address, no class names that a page could style by
accident; every text from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ipybatch.engine.events import Counts
from ipybatch.engine.masking import mask
from ipybatch.engine.snapshot import Group, Snapshot
from ipybatch.engine.summary import Summary

ROWS = 40

_MARKS = {
    "pending": "…",
    "planned": "…",
    "running": "●",
    "paused": "Ⅱ",
    "completed": "✓",
    "failed": "✕",
    "timeout": "◷",
    "cancelled": "⊘",
    "skipped": "→",
    "rolled_back": "↺",
}
_COLOURS = {
    "completed": "#1a7f37",
    "failed": "#cf222e",
    "timeout": "#9a6700",
    "running": "#0969da",
    "cancelled": "#6e7781",
    "skipped": "#8c959f",
}
_CELL = "padding:4px 12px;border:0;border-top:1px solid rgba(127,127,127,.25);text-align:left"


def html(snapshot: Snapshot, summary: Summary, group_word: str) -> str:
    """Return the state as HTML that needs nothing else."""
    parts = [_title(summary), _bar(snapshot.counts), _line(snapshot, summary)]
    parts += [f'<div style="padding:2px 0 8px">{escape(note)}</div>' for note in snapshot.notes]
    parts.append(_groups(list(snapshot.groups.values()), group_word) if snapshot.groups else _failures(snapshot))
    return (
        '<div style="max-width:920px;border:1px solid rgba(127,127,127,.35);border-radius:8px;padding:12px 16px;'
        f'font:13px/1.45 system-ui,sans-serif;font-variant-numeric:tabular-nums">{"".join(parts)}</div>'
    )


def text(summary: Summary) -> str:
    """Return the state as one line."""
    return mask(str(summary))


def _title(summary: Summary) -> str:
    colour = _COLOURS.get(summary.state, "inherit")
    return (
        f'<div style="font-size:14px"><b>{escape(mask(summary.name))}</b>'
        f' <span style="color:{colour};padding-left:8px">{_MARKS[summary.state]} {_word(summary.state)}</span></div>'
    )


def _bar(counts: Counts) -> str:
    total = counts.total or counts.ended or 1
    shares = (
        ("completed", counts.completed),
        ("failed", counts.failed),
        ("timeout", counts.timeout),
        ("running", counts.running),
        ("cancelled", counts.cancelled),
        ("skipped", counts.skipped),
    )
    pieces = "".join(
        f'<span style="display:inline-block;height:8px;width:{100 * items / total:.2f}%;background:{_COLOURS[status]}">'
        "</span>"
        for status, items in shares
        if items
    )
    return (
        '<div style="height:8px;margin:8px 0;border-radius:4px;overflow:hidden;background:rgba(127,127,127,.18);'
        f'font-size:0">{pieces}</div>'
    )


def _line(snapshot: Snapshot, summary: Summary) -> str:
    counts = snapshot.counts
    total = "?" if counts.total is None else f"{counts.total:,}"
    facts = [f"<b>{counts.ended:,}</b> of {total}", f"<b>{counts.completed:,}</b> completed"]
    facts += [
        f"<b>{items:,}</b> {word}"
        for word, items in (
            ("failed", counts.failed),
            ("timed out", counts.timeout),
            ("running", counts.running),
            ("cancelled", counts.cancelled),
            ("skipped", counts.skipped),
        )
        if items
    ]
    if summary.seconds:
        facts.append(f"{summary.seconds:,.1f} s")
    if summary.reason:
        facts.append(escape(summary.reason))
    return f'<div style="padding-bottom:8px">{" · ".join(facts)}</div>'


def _groups(groups: Sequence[Group], word: str) -> str:
    shown = groups if len(groups) <= ROWS else sorted(groups, key=_worst_first)[:ROWS]
    rows = [
        (
            str(group.number),
            _status(group.status),
            f"{group.done:,} of {group.items:,}",
            f"{group.failed:,}" if group.failed else "",
            f"{group.ended_s - group.started_s:,.1f} s" if group.ended_s else "",
            escape(group.error),
        )
        for group in sorted(shown, key=lambda group: group.number)
    ]
    more = len(groups) - len(shown)
    return _table((escape(word), "Status", "Items", "Failed", "Time", "Error"), rows) + (
        f'<div style="padding-top:6px">and {more:,} more</div>' if more else ""
    )


def _failures(snapshot: Snapshot) -> str:
    rows = [
        (escape(item.key), _status(item.status), str(item.attempts), f"{item.seconds:.1f} s", escape(item.error))
        for item in list(snapshot.failures.values())[-ROWS:]
    ]
    return _table(("Item", "Status", "Attempts", "Time", "Error"), rows) if rows else ""


def _word(state: str) -> str:
    return state.replace("_", " ")


def _worst_first(group: Group) -> tuple[bool, int]:
    return group.status == "completed", group.number


def _status(status: str) -> str:
    colour = _COLOURS.get(status, "inherit")
    return f'<span style="color:{colour}">{_MARKS.get(status, "")} {status}</span>'


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th style="{_CELL};font-weight:500">{name}</th>' for name in names)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<table style="border-collapse:collapse;width:100%"><tr>{head}</tr>{body}</table>'


def _cell(content: str) -> str:
    return f'<td style="{_CELL}">{content}</td>'
