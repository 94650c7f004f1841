"""A session as a page of its own: one HTML file that needs nothing else.

With all groups, failures, the timeline and the log, and everything on it whole, or in a title: it is kept, printed,
sent to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from html import escape
from pathlib import Path
from time import gmtime, strftime
from typing import TypeVar

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.outcome import RecordedItem, Summary
from ipybatch.engine.feed import event_text
from ipybatch.engine.feed.event_text import LogLine
from ipybatch.engine.feed.session_view import SessionView
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.engine.store.atomic_write import draft_of
from ipybatch.errors import EngineBusy, InputError
from ipybatch.jupyter import timeline
from ipybatch.jupyter.static_html import (
    ITEM_COLUMNS,
    Sheet,
    columns,
    cut,
    error_of,
    group_sheet,
    item_row,
    marked,
    moment,
    overview,
    said,
    whole_style,
    worst,
)

T = TypeVar("T")

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
body { margin: 0 auto; padding: 28px 24px 60px; max-width: 1100px; background: var(--bg); color: var(--fg);
  font: 13px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums }
h2 { font-size: 13px; font-weight: 600; margin: 30px 0 6px } p { color: var(--soft); margin: 6px 0 }
.box { overflow-x: auto } .sheet { border-collapse: collapse; table-layout: fixed }
.sheet th { font-weight: 400; color: var(--soft) } .sheet th, .sheet td { text-align: left }
.sheet th, .sheet td { border-top: 1px solid var(--line); padding: 4px 16px 4px 0; vertical-align: top;
  line-height: 19px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.sheet .n { text-align: right } .sheet .whole { overflow-wrap: anywhere; white-space: normal }
.good { color: var(--good) } .bad { color: var(--bad) } .warn { color: var(--late) } .info { color: var(--soft) }
svg { display: block; width: 100%; font-size: 11px } svg text { fill: var(--soft) }
svg rect { rx: 1px; fill: var(--aside) }
.grid { stroke: var(--line) } .tried { fill: var(--busy); fill-opacity: .22; stroke: var(--busy); stroke-width: 1.2 }
.allowed { stroke: var(--soft); stroke-dasharray: 2 3 } .opened { stroke: var(--late) }
svg .failed { fill: var(--bad) } svg :is(.timeout, .partly) { fill: var(--late) } svg .completed { fill: var(--good) }
svg .running { fill: var(--busy) } svg .opened, svg .grid, svg .allowed { fill: none }
@media print { body { padding: 0 } tr { break-inside: avoid }
  .box { overflow: visible } .sheet { min-width: 0 !important }
  .sheet td { overflow-wrap: anywhere; white-space: normal } .sheet td * { white-space: normal !important } }
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
    with draft_of(path, 0o666) as draft:
        draft.write_text(content, encoding="utf-8")
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
    table = _table("Groups", group_sheet(groups, word, LONGEST_ON_PAGE))
    return f"<h2>{said(word)}: {len(snapshot.groups):,}</h2>{note}{table}"


def _all_failed(recorded: list[RecordedItem], snapshot: Snapshot) -> str:
    """Return the failed items: those in the journal, and those that a rollback has discarded."""
    known = {item.key for item in recorded}
    told = [] if len(recorded) >= FAILURES else [item for item in snapshot.failures.values() if item.key not in known]
    rows = [*map(_failure, recorded), *map(item_row, told)]
    if not rows:
        return ""
    more = f"<p>The first {FAILURES:,}.</p>" if len(recorded) >= FAILURES else ""
    return (
        f"<h2>Did not complete</h2>{more}{_table('What did not complete', Sheet(ITEM_COLUMNS, rows).filled(), 'whole')}"
    )


def _failure(item: RecordedItem) -> list[str]:
    """Return the row of an item: below its error where it came from, and the errors of its earlier attempts."""
    tries = [said(line) for line in item.traceback.splitlines()]
    tries += [f"attempt {each.attempt}, {each.seconds:.1f} s: {said(each.error)}" for each in item.tries]
    error = "<br>".join([error_of(item, LONGEST_ON_PAGE), *[f'<span class="info">{each}</span>' for each in tries]])
    return [cut(item.key), marked(item.status), f"{item.attempts:,}", f"{item.seconds:.1f} s", error]


def _log(lines: list[LogLine], told: int) -> str:
    if not lines:
        return ""
    rows = []
    for line in reversed(lines):
        mark, word = _LEVELS[line.level]
        sign = f'<span class="{line.level}" title="{word}">{mark}</span>'
        rows.append([strftime("%H:%M:%S", gmtime(line.at_s)), f"{sign} {said(line.text, LONGEST_ON_PAGE)}"])
    more = f"<p>The latest {len(lines):,} of {told:,}, newest first.</p>" if told > len(lines) else ""
    return f"<h2>Log</h2>{more}{_table('Log', Sheet([('UTC', False), ('What happened', False)], rows), 'whole')}"


def _table(name: str, sheet: Sheet, rest: str = "") -> str:
    """Return the table as HTML, in a box that the keyboard can scroll.

    Args:
        name: What a screen reader says of the box.
        rest: Class of the column that takes what is left; "whole" for one whose texts are not cut.
    """
    widths = sheet.widths()
    kinds = [
        "n" if is_number else rest if width is None else ""
        for (_, is_number), width in zip(sheet.columns, widths, strict=True)
    ]
    kinds = [f' class="{kind}"' if kind else "" for kind in kinds]
    head = "".join(f"<th{kind}>{title}</th>" for kind, (title, _) in zip(kinds, sheet.columns, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>\n"
        for row in sheet.rows
    )
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{name}">'
        f'<table class="sheet" style="{whole_style(widths)}">{columns(widths)}'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>"
    )
