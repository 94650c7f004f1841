"""A session as static HTML: in the notebook's output, and as a page of its own.

Over 500 lines, because the page is made of the same pieces as the output: overview, tables, escaped text.

`output` is for saved notebooks and for front ends without widgets.  It must be readable where every style is removed,
as on GitHub, and unchanged where JupyterLab sanitizes the output of an untrusted notebook.  So: words and marks beside
every colour, real tables, a bar that is text underneath its colours, and only tags, attributes and values that both
allow.  No script, no external address, no class.

`write_page` is one HTML file that needs nothing else, with all groups, failures, the timeline and the log.

Rule: every text that is not ours is escaped and masked.

Source: https://github.com/gjtorikian/html-pipeline (sanitization_filter.rb), GitHub's list of tags, no ``style``;
https://github.com/jupyterlab/jupyterlab (apputils/src/sanitizer.ts), JupyterLab's; both 2026-11-22.

One subject, hence its length: one page, with all that stands on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from time import gmtime, strftime
from typing import TypeVar

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.outcome import RecordedItem, Summary
from ipybatch.engine.feed import event_text
from ipybatch.engine.feed.event_text import LogLine
from ipybatch.engine.feed.session_view import SessionView
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.engine.store.atomic_write import draft_of
from ipybatch.errors import EngineBusy, InputError
from ipybatch.jupyter import timeline

T = TypeVar("T")

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
    "interrupted": "↯",
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
    "interrupted": _LATE,
    "cancelled": _ASIDE,
    "skipped": _ASIDE,
}
_DEADLINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_WORST = ("failed", "timeout", "running", "cancelled", "pending", "skipped", "completed")
_CELLS = 40  # characters of the bar, where it is text
_BLOCKS = {"completed": "█", "failed": "▚", "timeout": "▞", "running": "▓", "cancelled": "▒", "skipped": "▒"}
_LINE = "1px solid rgba(127,127,127,0.25)"


class Sheet(msgspec.Struct, frozen=True):
    """The cells of a table, as HTML.

    Attributes:
        columns: Titles, each with whether its column holds numbers.
    """

    columns: list[tuple[str, bool]]
    rows: list[list[str]]

    def filled(self) -> Sheet:
        """Return the table without its empty columns."""
        kept = [at for at in range(len(self.columns)) if any(row[at] for row in self.rows)]
        return Sheet([self.columns[at] for at in kept], [[row[at] for at in kept] for row in self.rows])


def output(snapshot: Snapshot, summary: Summary, group_word: str, *, has_breaker: bool = True) -> str:
    """Return the state as HTML for the output of a cell."""
    groups = worst(snapshot.groups.values(), ROWS)
    parts = [overview(snapshot, summary, has_breaker=has_breaker)]
    if groups:
        parts.append(table(group_sheet(groups, group_word)))
    more = len(snapshot.groups) - len(groups)
    if more:
        parts.append(f'<div style="padding-top:6px">and {more:,} more with fewer failures</div>')
    items = _items(snapshot)
    if items:
        told = table(Sheet(ITEM_COLUMNS, list(map(item_row, items))).filled())
        title = '<summary style="padding:8px 0 4px 0">The latest items that did not complete</summary>'
        # folded below the groups, whose rows hold the latest errors
        parts.append(f"<details>{title}{told}</details>" if groups else told)
    return (
        '<div style="max-width:920px;border:1px solid rgba(127,127,127,0.35);border-radius:8px;padding:12px 16px;'
        f'font-family:system-ui,sans-serif;font-size:13px;line-height:1.45">{"".join(parts)}</div>'
    )


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
    """Return a text as escaped and masked HTML, cut at ``longest`` characters.

    A dollar sign and a backslash get an element each: else notebooks render the text between two as a formula.
    """
    masked = mask(words)
    short = masked if len(masked) <= longest else masked[: longest - 1] + "…"
    apart = {"$": "<span>$</span>", "\\": "<span>\\</span>"}
    return "".join(apart.get(letter) or escape(letter) for letter in short)


def marked(state: str) -> str:
    """Return a state as a coloured mark and a word."""
    return f'<span style="color:{COLOURS.get(state, _ASIDE)}">{MARKS.get(state, "")}</span> {state.replace("_", " ")}'


def span(seconds: float) -> str:
    """Return a duration in words, such as "2 m 05 s"."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} m" if hours else f"{minutes} m {rest:02} s"


def moment(at_s: float) -> str:
    """Return a Unix time as date and time, UTC."""
    return strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(at_s))


def worst(groups: Iterable[Group], most: int) -> list[Group]:
    """Return at most ``most`` groups, those with most failures first."""
    return sorted(groups, key=_badness)[:most]


def group_sheet(groups: Sequence[Group], word: str, longest: int = LONGEST) -> Sheet:
    """Return groups as a table, with the workload's columns in the middle."""
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
    """Return an item's error unless it only repeats the status."""
    return "" if item.error == item.status else said(item.error, longest)


def _items(snapshot: Snapshot) -> list[events.ItemEnded]:
    """Return the failed items, and without groups the latest other ones below."""
    newest = list(snapshot.failures.values())[::-1]
    failed = sorted(newest, key=lambda item: _WORST.index(item.status))[:ROWS]
    if snapshot.groups:
        return failed
    latest = [item for item in reversed(snapshot.recent) if item.key not in snapshot.failures]
    return failed + latest[: max(0, LATEST - len(failed))]


def _bar(counts: Counts) -> str:
    """Return the progress bar: coloured segments that hold text of size 0, for where colours are removed."""
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
        if ended := snapshot.ended_before + snapshot.ended_here:
            per_s = ended / summary.seconds
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
    """Return the breaker's state, and how often it opened in this process."""
    openings = sum(move.state == "open" for move in snapshot.breaker_moves)
    failures = snapshot.breaker.failures
    facts = [f"opened {openings:,} time{'' if openings == 1 else 's'}"] if openings else []
    facts += [f"{failures:,} failure{'' if failures == 1 else 's'} in a row"] if failures else []
    if not facts and snapshot.ended_here:
        facts = ["never opened"]
    state, limit_group = snapshot.breaker.state.replace("_", " "), snapshot.breaker.limit_group
    return f"{state} ({said(limit_group, 40)})" if limit_group else state, ", ".join(facts)


def _badness(group: Group) -> tuple[int, int, int]:
    failed = _failed_in(group)
    worse = "failed" if failed else group.status
    return _WORST.index(worse), -failed, group.number


def _failed_in(group: Group) -> int:
    """Return the number of failures; a cancelled group of one item has none."""
    return 0 if group.items == 1 and group.status == "cancelled" else group.failed


def _value(value: object) -> str:
    """Return a value of the workload's; of a deadline, which the panel counts down to, its time."""
    if isinstance(value, int | float):
        return f"{value:,}"
    text = str(value)
    return f"{text[:10]} {text[11:16]} UTC" if _DEADLINE.fullmatch(text) else text


def table(sheet: Sheet, *, margin: str = "4px 0 0 0") -> str:
    """Return the table as HTML."""
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


GROUPS = 2000
FAILURES = 500
SUFFIXES = (".html", ".htm")

_ASKED_AT_MOST = 5
_AT_ONCE = 100
LONGEST_ON_PAGE = 2000  # characters of an error
_LEVELS = {"info": ("·", "noted"), "good": ("✓", "good"), "warn": ("!", "warning"), "bad": ("✕", "bad")}
_STYLE = """
:root { color-scheme: light dark; --fg: #1f2328; --soft: #59636e; --bg: #fff; --line: #d8dee4; --good: #1a7f37;
  --bad: #cf222e; --late: #9a6700; --busy: #0969da; --aside: #afb8c1 }
@media (prefers-color-scheme: dark) { :root { --fg: #e6edf3; --soft: #9198a1; --bg: #111418; --line: #2b3138;
  --good: #3fb950; --bad: #f85149; --late: #d29922; --busy: #58a6ff; --aside: #565d66 } }
body { margin: 0 auto; padding: 28px 24px 60px; max-width: 960px; background: var(--bg); color: var(--fg);
  font: 13px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums }
h2 { font-size: 13px; font-weight: 600; margin: 30px 0 6px } p { color: var(--soft); margin: 6px 0 }
.sheet { border-collapse: collapse; width: 100% }
.sheet th { font-weight: 400; color: var(--soft); text-align: left }
.sheet th, .sheet td { border-top: 1px solid var(--line); padding: 4px 20px 4px 0; vertical-align: top }
.sheet .n { text-align: right; white-space: nowrap } td { overflow-wrap: anywhere }
.good { color: var(--good) } .bad { color: var(--bad) } .warn { color: var(--late) } .info { color: var(--soft) }
svg { display: block; width: 100%; font-size: 11px } svg text { fill: var(--soft) }
svg rect { rx: 1px; fill: var(--aside) }
.grid { stroke: var(--line) } .tried { fill: var(--busy); fill-opacity: .22; stroke: var(--busy); stroke-width: 1.2 }
.allowed { stroke: var(--soft); stroke-dasharray: 2 3 } .opened { stroke: var(--late) }
svg .failed { fill: var(--bad) } svg .timeout { fill: var(--late) } svg .completed { fill: var(--good) }
svg .running { fill: var(--busy) } svg .opened, svg .grid, svg .allowed { fill: none }
@media print { body { padding: 0 } tr { break-inside: avoid } }
"""


class Facts(msgspec.Struct, frozen=True):
    """A copy of a session's state at one moment."""

    snapshot: Snapshot
    summary: Summary
    group_word: str
    allowed_per_s: float | None
    has_breaker: bool = True


def write_page(session: SessionView, path: Path) -> Path:
    """Write the page atomically, and return its path.

    Raises:
        InputError: The name does not end in .html or .htm.
        EngineBusy: The engine did not answer.
    """
    if path.suffix.lower() not in SUFFIXES:
        msg = f"path must end in {' or '.join(SUFFIXES)}, got {str(path)!r}"
        raise InputError(msg)
    _patiently(session.recall)
    content = page(_read(session), list(_failures(session)))
    with draft_of(path) as draft:
        draft.write_text(content, encoding="utf-8")
        draft.chmod(0o644)
    return path


def page(facts: Facts, failures: list[RecordedItem]) -> str:
    """Return the page."""
    snapshot = facts.snapshot
    parts = [
        overview(snapshot, facts.summary, has_breaker=facts.has_breaker),
        _timeline(facts),
        _groups(snapshot, facts.group_word),
        _all_failed(failures, snapshot),
        _log(event_text.lines(snapshot.story, snapshot.groups), snapshot.told),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(mask(snapshot.name))}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _read(session: SessionView) -> Facts:
    """Return a copy of the state, made on the engine's thread."""

    def copy() -> Facts:
        snapshot = session.snapshot
        frozen = msgspec.structs.replace(
            snapshot,
            counts=msgspec.structs.replace(snapshot.counts),
            groups={number: msgspec.structs.replace(group) for number, group in snapshot.groups.items()},
            notes=list(snapshot.notes),
            recent=snapshot.recent.copy(),
            failures=dict(snapshot.failures),
            pace=msgspec.structs.replace(snapshot.pace, marks=list(snapshot.pace.marks)),
            breaker_moves=snapshot.breaker_moves.copy(),
            story=snapshot.story.copy(),
        )
        summary = msgspec.structs.replace(session.summary, counts=frozen.counts)
        policy, allowed_per_s = session.policy, session.live_status.allowed_per_s
        return Facts(frozen, summary, policy.group_word, allowed_per_s, policy.breaker is not None)

    return _patiently(lambda: session.ask(copy))


def _patiently(ask: Callable[[], T]) -> T:
    for _ in range(_ASKED_AT_MOST - 1):
        with suppress(EngineBusy):
            return ask()
    return ask()


def _failures(session: SessionView) -> Iterator[RecordedItem]:
    """Yield recorded failed items, at most `FAILURES`, those of the groups with most failures first."""
    snapshot, left = session.snapshot, FAILURES
    groups = _patiently(lambda: session.ask(lambda: worst(snapshot.groups.values(), GROUPS)))
    for number in [*[group.number for group in groups if group.failed], 0]:
        offset = 0
        while left > 0:
            _, items = session.items_of(number, offset=offset, limit=min(left, _AT_ONCE))
            failed = [item for item in items if item.status != "completed"]
            yield from failed
            left -= len(failed)
            offset += len(items)
            if not failed or len(failed) < len(items):
                break


def _timeline(facts: Facts) -> str:
    snapshot = facts.snapshot
    drawing = timeline.svg(snapshot.pace.marks, snapshot.groups.values(), snapshot.breaker_moves, facts.allowed_per_s)
    if not drawing:
        return ""
    words = ["Attempts a second", "items that did not complete in red"]
    words += ["what the limits allow as dashes"] if facts.allowed_per_s is not None else []
    words += ["openings of the breaker as vertical lines"] if snapshot.breaker_moved else []
    words += [f"each {facts.group_word.lower()} as a bar"] if snapshot.groups else []
    begun = moment(snapshot.pace.marks[0].at_s)
    return f"<h2>Timeline</h2><p>{said(', '.join(words))}. It begins {begun}.</p>{drawing}"


def _groups(snapshot: Snapshot, word: str) -> str:
    if not snapshot.groups:
        return ""
    groups = worst(snapshot.groups.values(), GROUPS)
    if len(groups) == len(snapshot.groups):
        groups.sort(key=lambda group: group.number)
        note = ""
    else:
        note = f"<p>The {GROUPS:,} with most failures, of {len(snapshot.groups):,}.</p>"
    return f"<h2>{said(word)}: {len(snapshot.groups):,}</h2>{note}{_table(group_sheet(groups, word, LONGEST_ON_PAGE))}"


def _all_failed(recorded: list[RecordedItem], snapshot: Snapshot) -> str:
    """Return the failed items: those in the journal, and those that a rollback has discarded."""
    known = {item.key for item in recorded}
    told = [] if len(recorded) >= FAILURES else [item for item in snapshot.failures.values() if item.key not in known]
    rows = [*map(_failure, recorded), *map(item_row, told)]
    if not rows:
        return ""
    more = f"<p>The first {FAILURES:,}.</p>" if len(recorded) >= FAILURES else ""
    return f"<h2>Did not complete</h2>{more}{_table(Sheet(ITEM_COLUMNS, rows).filled())}"


def _failure(item: RecordedItem) -> list[str]:
    """Return the row of an item: below its error where it came from, and the errors of its earlier attempts."""
    tries = [said(line) for line in item.traceback.splitlines()]
    tries += [f"attempt {each.attempt}, {each.seconds:.1f} s: {said(each.error)}" for each in item.tries]
    error = "<br>".join([error_of(item, LONGEST_ON_PAGE), *[f'<span class="info">{each}</span>' for each in tries]])
    return [said(item.key), marked(item.status), f"{item.attempts:,}", f"{item.seconds:.1f} s", error]


def _log(lines: list[LogLine], told: int) -> str:
    if not lines:
        return ""
    rows = []
    for line in reversed(lines):
        mark, word = _LEVELS[line.level]
        sign = f'<span class="{line.level}" title="{word}">{mark}</span>'
        rows.append([strftime("%H:%M:%S", gmtime(line.at_s)), f"{sign} {said(line.text, LONGEST_ON_PAGE)}"])
    more = f"<p>The latest {len(lines):,} of {told:,}, newest first.</p>" if told > len(lines) else ""
    return f"<h2>Log</h2>{more}{_table(Sheet([('UTC', False), ('What happened', False)], rows))}"


def _table(sheet: Sheet) -> str:
    kinds = [' class="n"' if is_number else "" for _, is_number in sheet.columns]
    head = "".join(f"<th{kind}>{title}</th>" for kind, (title, _) in zip(kinds, sheet.columns, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>\n"
        for row in sheet.rows
    )
    return f'<table class="sheet"><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>'
