"""Page: a session as one HTML file that needs nothing else: no script, no outside address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from html import escape
from pathlib import Path
from time import gmtime, strftime

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.feed import event_text
from ipybatch.engine.feed.event_text import LogLine
from ipybatch.engine.feed.session_view import Viewed
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.engine.store.atomic_write import draft_of
from ipybatch.engine.store.rows import RecordedItem
from ipybatch.errors import EngineBusy, InputError
from ipybatch.jupyter import chart, still
from ipybatch.jupyter.still import Sheet, marked, said

GROUPS = 2000
FAILURES = 500
SUFFIXES = (".html", ".htm")

_ASKED_AT_MOST = 5
_AT_ONCE = 100
_LONGEST = 2000  # characters of an error
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
    """A session as it stood at one moment: nothing of it moves any more."""

    snapshot: Snapshot
    summary: Summary
    group_word: str
    allowed_per_s: float | None
    has_breaker: bool = True


def write(session: Viewed, path: Path) -> Path:
    """Write the page, whole or not at all, and return its path.

    Raises:
        InputError: The name does not end in .html or .htm.
        EngineBusy: The engine was too busy to be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        msg = f"path must end in {' or '.join(SUFFIXES)}, got {str(path)!r}"
        raise InputError(msg)
    session.recall()
    content = html(_read(session), list(_failures(session)))
    with draft_of(path) as draft:
        draft.write_text(content, encoding="utf-8")
        draft.chmod(0o644)
    return path


def html(facts: Facts, failures: list[RecordedItem]) -> str:
    """Return the page."""
    snapshot = facts.snapshot
    parts = [
        still.overview(snapshot, facts.summary, has_breaker=facts.has_breaker),
        _timeline(facts),
        _groups(snapshot, facts.group_word),
        _failed(failures, snapshot),
        _log(event_text.lines(snapshot.story, snapshot.groups), snapshot.told),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(mask(snapshot.name))}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _read(session: Viewed) -> Facts:
    """Return a copy, made where nothing moves meanwhile."""

    def copy() -> Facts:
        snapshot = session.snapshot
        still_now = msgspec.structs.replace(
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
        summary = msgspec.structs.replace(session.summary, counts=still_now.counts)
        policy, allowed_per_s = session.policy, session.gauges.allowed_per_s
        return Facts(still_now, summary, policy.opening.group_word, allowed_per_s, policy.breaker is not None)

    for _ in range(_ASKED_AT_MOST - 1):
        with suppress(EngineBusy):
            return session.ask(copy)
    return session.ask(copy)


def _failures(session: Viewed) -> Iterator[RecordedItem]:
    """Yield recorded items that did not complete, at most `FAILURES`, those of the worst groups first."""
    snapshot, left = session.snapshot, FAILURES
    bad = session.ask(lambda: [group.number for group in still.worst(snapshot.groups.values(), GROUPS) if group.failed])
    for number in [*bad, 0]:
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
    drawing = chart.svg(snapshot.pace.marks, snapshot.groups.values(), snapshot.breaker_moves, facts.allowed_per_s)
    if not drawing:
        return ""
    words = ["Attempts a second", "items that did not complete in red"]
    words += ["what the limits allow as dashes"] if facts.allowed_per_s is not None else []
    words += ["openings of the breaker upright"] if snapshot.breaker_moved else []
    words += [f"each {facts.group_word.lower()} as a bar"] if snapshot.groups else []
    begun = still.moment(snapshot.pace.marks[0].at_s)
    return f"<h2>Timeline</h2><p>{said(', '.join(words))}. It begins {begun}.</p>{drawing}"


def _groups(snapshot: Snapshot, word: str) -> str:
    if not snapshot.groups:
        return ""
    groups = still.worst(snapshot.groups.values(), GROUPS)
    if len(groups) == len(snapshot.groups):
        groups.sort(key=lambda group: group.number)
        note = ""
    else:
        note = f"<p>The {GROUPS:,} that went worst, of {len(snapshot.groups):,}.</p>"
    return f"<h2>{said(word)}: {len(snapshot.groups):,}</h2>{note}{_table(still.group_sheet(groups, word, _LONGEST))}"


def _failed(recorded: list[RecordedItem], snapshot: Snapshot) -> str:
    """Return what did not complete: what the journal knows, and what was told but is discarded."""
    known = {item.key for item in recorded}
    told = [] if len(recorded) >= FAILURES else [item for item in snapshot.failures.values() if item.key not in known]
    rows = [*map(_failure, recorded), *map(still.item_row, told)]
    if not rows:
        return ""
    more = f"<p>The first {FAILURES:,}.</p>" if len(recorded) >= FAILURES else ""
    return f"<h2>Did not complete</h2>{more}{_table(Sheet(still.ITEM_COLUMNS, rows).filled())}"


def _failure(item: RecordedItem) -> list[str]:
    """Return the row of an item, with the errors of the attempts before below its own."""
    tries = [f"attempt {each.attempt}, {each.seconds:.1f} s: {said(each.error)}" for each in item.tries]
    error = "<br>".join([still.error_of(item, _LONGEST), *[f'<span class="info">{each}</span>' for each in tries]])
    return [said(item.key), marked(item.status), f"{item.attempts:,}", f"{item.seconds:.1f} s", error]


def _log(lines: list[LogLine], told: int) -> str:
    if not lines:
        return ""
    rows = []
    for line in reversed(lines):
        mark, word = _LEVELS[line.level]
        sign = f'<span class="{line.level}" title="{word}">{mark}</span>'
        rows.append([strftime("%H:%M:%S", gmtime(line.at_s)), f"{sign} {said(line.text, _LONGEST)}"])
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
