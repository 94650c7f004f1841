"""Still: a session as static HTML and as text, for saved notebooks and for front ends without widgets.

Rule: it reads well where every style is taken away, as GitHub does, and stays whole where JupyterLab cleans the
output of a notebook that is not trusted.  So: words and marks beside every colour, real tables, a bar that is
text underneath its colours, and only tags, attributes and values that both let through.  No script, no outside
address, no class.  Every text from outside is escaped, and masked.

Source: https://github.com/gjtorikian/html-pipeline (sanitization_filter.rb), GitHub's list of tags, no ``style``;
https://github.com/jupyterlab/jupyterlab (apputils/src/sanitizer.ts), JupyterLab's; both 2026-11-22.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from time import gmtime, strftime

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.engine.store.rows import RecordedItem

ROWS = 40
ITEM_COLUMNS = [("Item", False), ("Status", False), ("Attempts", True), ("Time", True), ("Error", False)]
LATEST = 10
LONGEST = 300  # characters of an error

MARKS = {
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
_GOOD, _BAD, _LATE, _BUSY, _ASIDE = (
    "#2da44e",
    "#e5484d",
    "#bf8700",
    "#3b82f6",
    "rgba(127,127,127,0.6)",
)  # to be seen on white and on black
COLOURS = {
    "completed": _GOOD,
    "failed": _BAD,
    "rolled_back": _BAD,
    "timeout": _LATE,
    "running": _BUSY,
    "paused": _LATE,
    "cancelled": _ASIDE,
    "skipped": _ASIDE,
}
_WORST = ("failed", "timeout", "running", "cancelled", "pending", "skipped", "completed")
_CELLS = 40  # characters of the bar, where it is text
_BLOCKS = {"completed": "█", "failed": "▚", "timeout": "▞", "running": "▓", "cancelled": "▒", "skipped": "▒"}
_LINE = "1px solid rgba(127,127,127,0.25)"


class Sheet(msgspec.Struct, frozen=True):
    """What stands in a table, as HTML.

    Attributes:
        columns: Titles, each with whether its column holds numbers.
    """

    columns: list[tuple[str, bool]]
    rows: list[list[str]]

    def filled(self) -> Sheet:
        """Return it without the columns in which nothing stands."""
        kept = [at for at in range(len(self.columns)) if any(row[at] for row in self.rows)]
        return Sheet([self.columns[at] for at in kept], [[row[at] for at in kept] for row in self.rows])


def html(snapshot: Snapshot, summary: Summary, group_word: str, *, has_breaker: bool = True) -> str:
    """Return the state as HTML that needs nothing else."""
    groups = worst(snapshot.groups.values(), ROWS)
    parts = [overview(snapshot, summary, has_breaker=has_breaker)]
    if groups:
        parts += [table(group_sheet(groups, group_word)), _more(len(snapshot.groups) - len(groups))]
    items = _items(snapshot)
    if items:
        parts.append(_failed(items) if groups else table(Sheet(ITEM_COLUMNS, list(map(item_row, items))).filled()))
    return (
        '<div style="max-width:920px;border:1px solid rgba(127,127,127,0.35);border-radius:8px;padding:12px 16px;'
        f'font-family:system-ui,sans-serif;font-size:13px;line-height:1.45">{"".join(parts)}</div>'
    )


def text(summary: Summary) -> str:
    """Return the state as one line."""
    return mask(str(summary))


def overview(snapshot: Snapshot, summary: Summary, *, has_breaker: bool = True) -> str:
    """Return name, bar, counts, facts and notes."""
    notes = [f'<div style="padding-top:8px">Note: {said(note)}</div>' for note in snapshot.notes]
    reason = f'<div style="padding-top:2px">{said(summary.reason)}</div>' if summary.reason else ""
    title = (
        f'<div style="font-size:15px"><b>{said(summary.name)}</b>'
        f'<span style="padding-left:10px"> {marked(summary.state)}</span></div>'
    )
    facts = _facts(snapshot, summary, has_breaker=has_breaker)
    return f"{title}{reason}{_bar(snapshot.counts)}{_line(snapshot.counts)}{facts}{''.join(notes)}"


def said(words: str, longest: int = LONGEST) -> str:
    """Return a text from outside as HTML that shows just this text.

    A dollar sign and a backslash stand in an element each: else notebooks take what is between for a formula.
    """
    masked = mask(words)
    short = masked if len(masked) <= longest else masked[: longest - 1] + "…"
    apart = {"$": "<span>$</span>", "\\": "<span>\\</span>"}
    return "".join(apart.get(letter) or escape(letter) for letter in short)


def marked(state: str) -> str:
    """Return a state as a mark in its colour, and a word."""
    return f'<span style="color:{COLOURS.get(state, _ASIDE)}">{MARKS.get(state, "")}</span> {state.replace("_", " ")}'


def span(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} m" if hours else f"{minutes} m {rest:02} s"


def moment(at_s: float) -> str:
    """Return a Unix time as date and time."""
    return strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(at_s))


def worst(groups: Iterable[Group], most: int) -> list[Group]:
    """Return at most so many groups, those that went worst first."""
    return sorted(groups, key=_badness)[:most]


def group_sheet(groups: Sequence[Group], word: str, longest: int = LONGEST) -> Sheet:
    """Return groups as rows, with the workload's own columns between ours."""
    extra = list(dict.fromkeys(title for group in groups for title in group.extra))
    titles = [
        (said(title), any(isinstance(group.extra.get(title), int | float) for group in groups)) for title in extra
    ]
    columns = [(said(word), False), ("Status", False), *titles, ("Items", True), ("Failed", True), ("Time", True)]
    rows = [
        [
            said(group.name.removeprefix(f"{word} ") or str(group.number)),
            marked(group.status),
            *[said(_value(group.extra.get(title, ""))) for title in extra],
            f"{group.items:,}" if group.done == group.items else f"{group.done:,} of {group.items:,}",
            f"{_failed_in(group):,}" if _failed_in(group) else "",
            span(group.ended_s - group.started_s) if group.ended_s else "",
            "" if group.error == group.status else said(group.error, longest),
        ]
        for group in groups
    ]
    return Sheet([*columns, ("Error", False)], rows).filled()


def item_row(item: events.ItemEnded) -> list[str]:
    """Return an item as a row of `ITEM_COLUMNS`."""
    return [said(item.key), marked(item.status), f"{item.attempts:,}", f"{item.seconds:.1f} s", error_of(item)]


def error_of(item: events.ItemEnded | RecordedItem, longest: int = LONGEST) -> str:
    """Return an item's error where that says more than its status."""
    return "" if item.error == item.status else said(item.error, longest)


def _items(snapshot: Snapshot) -> list[events.ItemEnded]:
    """Return the items that went worst, and without groups the latest ones below."""
    newest = list(snapshot.failures.values())[::-1]
    failed = sorted(newest, key=lambda item: _WORST.index(item.status))[:ROWS]
    if snapshot.groups:
        return failed
    latest = [item for item in reversed(snapshot.recent) if item.key not in snapshot.failures]
    return failed + latest[: max(0, LATEST - len(failed))]


def _bar(counts: Counts) -> str:
    """Return the bar: pieces in colour, with characters of no size in them for where colours are taken away."""
    total = max(counts.total or counts.ended + counts.running, 1)
    pieces, ended, drawn = [], 0, 0
    for status, block in _BLOCKS.items():
        items = getattr(counts, status)
        if items:
            ended += items
            cells = min(_CELLS - drawn, max(1, round(_CELLS * ended / total) - drawn))
            drawn += cells
            style = f"display:inline-block;height:8px;width:{100 * items / total:.3f}%;background:{COLOURS[status]}"
            pieces.append(f'<span style="{style}">{block * cells}</span>')
    percent = 100 * _tried(counts) // total
    return (
        '<div style="height:8px;margin:10px 0 8px 0;border-radius:4px;overflow:hidden;white-space:nowrap;'
        f'background:rgba(127,127,127,0.2);font-size:0">{"".join(pieces)}{"░" * (_CELLS - drawn)} {percent} %</div>'
    )


def _tried(counts: Counts) -> int:
    return counts.completed + counts.failed + counts.timeout


def _line(counts: Counts) -> str:
    total = "" if counts.total is None else f" of {counts.total:,}"
    facts = [f"<b>{_tried(counts):,}</b>{total}"]
    facts += [
        f'<span style="color:{COLOURS[status]}">{MARKS[status]}</span> <b>{items:,}</b> {word}'
        for status, word, items in (
            ("completed", "completed", counts.completed),
            ("failed", "failed", counts.failed),
            ("timeout", "timed out", counts.timeout),
            ("running", "running", counts.running),
            ("cancelled", "cancelled", counts.cancelled),
            ("skipped", "skipped", counts.skipped),
        )
        if items
    ]
    return f"<div>{' &nbsp; '.join(facts)}</div>"


def _facts(snapshot: Snapshot, summary: Summary, *, has_breaker: bool) -> str:
    facts = [("Breaker", *_breaker(snapshot))] if has_breaker else []
    if snapshot.state == "rolled_back":
        facts.append(("Journal", "0 recorded", "rolled back: nothing kept"))
    if summary.seconds:
        at = f"ended {moment(snapshot.ended_s)}" if snapshot.ended_s else f"since {moment(snapshot.started_s)}"
        facts.insert(0, ("Elapsed", span(summary.seconds), at))
        if snapshot.ended_here:
            per_s = snapshot.ended_here / summary.seconds
            rate = f"{per_s:,.1f} per s" if per_s >= 0.1 else f"{60 * per_s:,.1f} per min"
            facts.insert(0, ("Rate", rate, "items, on average"))
    cells = "".join(
        f'<td align="left" style="border:0;padding:8px 28px 8px 0;text-align:left;vertical-align:top">'
        f'<span style="opacity:0.7">{name}</span><br><b>{value}</b><br><small style="opacity:0.7">{more}</small></td>'
        for name, value, more in facts
    )
    if not cells:
        return ""
    style = "border-collapse:collapse;border:0;margin:6px 0 4px 0;font-size:13px"
    return f'<table style="{style}"><tbody><tr style="background:transparent">{cells}</tr></tbody></table>'


def _breaker(snapshot: Snapshot) -> tuple[str, str]:
    """Return its last state, and how often it opened in this process."""
    openings = sum(move.state == "open" for move in snapshot.breaker_moves)
    failures = snapshot.breaker.failures
    facts = [f"opened {openings:,} time{'' if openings == 1 else 's'}"] if openings else []
    facts += [f"{failures:,} failure{'' if failures == 1 else 's'} in a row"] if failures else []
    if not facts and snapshot.ended_here:
        facts = ["never opened"]
    return snapshot.breaker.state.replace("_", " "), ", ".join(facts)


def _failed(items: Sequence[events.ItemEnded]) -> str:
    """Return the items below groups, folded away: a group's row says its last error."""
    head = '<summary style="padding:8px 0 4px 0">The latest items that did not complete</summary>'
    return f"<details>{head}{table(Sheet(ITEM_COLUMNS, list(map(item_row, items))).filled())}</details>"


def _more(groups: int) -> str:
    return f'<div style="padding-top:6px">and {groups:,} more that went better</div>' if groups else ""


def _badness(group: Group) -> tuple[int, int, int]:
    failed = _failed_in(group)
    worse = "failed" if failed else group.status
    return _WORST.index(worse), -failed, group.number


def _failed_in(group: Group) -> int:
    """Return how many failed; one that is a group by itself may have been cancelled only."""
    return 0 if group.items == 1 and group.status == "cancelled" else group.failed


def _value(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def table(sheet: Sheet, *, margin: str = "4px 0 0 0") -> str:
    """Return a sheet as a table; its texts are HTML already."""
    head = "".join(_cell("th", title, is_number) for title, is_number in sheet.columns)
    kinds = [is_number for _, is_number in sheet.columns]
    rows = "".join(
        f'<tr style="background:transparent">{"".join(map(_cell, ["td"] * len(row), row, kinds))}</tr>'
        for row in sheet.rows
    )
    style = f"border-collapse:collapse;border:0;width:100%;margin:{margin};font-size:13px"
    return (
        f'<table style="{style}"><thead><tr style="background:transparent">{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _cell(tag: str, content: str, is_number: bool) -> str:
    side = "right" if is_number else "left"
    weight = ";font-weight:normal;opacity:0.7" if tag == "th" else ""
    style = f"border:0;border-top:{_LINE};padding:4px 20px 4px 0;text-align:{side};vertical-align:top{weight}"
    return f'<{tag} align="{side}" style="{style}">{content}</{tag}>'
