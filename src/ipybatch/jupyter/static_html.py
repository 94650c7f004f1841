"""A session as static HTML in the notebook's output; `static_page` makes a page of its own of the same pieces.

`output` is for saved notebooks and for front ends without widgets.  It must be readable where every style is removed,
as on GitHub, and unchanged where JupyterLab sanitizes the output of an untrusted notebook.  So: words and marks beside
every colour, real tables, a bar that is text underneath its colours, and only tags, attributes and values that both
allow.  No script, no external address, no class.  What is coloured is a border: it is printed too, a background is not.

A table has columns of fixed widths and rows of one line; what is cut there stands whole in its ``title``.

Rule: every text that is not ours is escaped and masked.

Source: https://github.com/gjtorikian/html-pipeline (sanitization_filter.rb), GitHub's list of tags, no ``style``;
https://github.com/jupyterlab/jupyterlab (apputils/src/sanitizer.ts), JupyterLab's; both 2026-11-22.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape, unescape
from time import gmtime, strftime, time
from unicodedata import combining, east_asian_width

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.fact import standing, usd
from ipybatch.engine.data.masking import mask, turns
from ipybatch.engine.data.outcome import RecordedItem, Summary
from ipybatch.engine.feed.snapshot import Group, Snapshot

ROWS = 40
ITEM_COLUMNS = [("Item", False), ("Status", False), ("Attempts", True), ("Time", True), ("Error", False)]
LATEST = 10
LONGEST = 300  # characters of an error
LONGEST_WHOLE = 2000  # of one in a title

MARKS = {
    "pending": "…",
    "planned": "…",
    "running": "●",
    "paused": "Ⅱ",
    "completed": "✓",
    "failed": "✕",
    "partly": "◐",
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
    "partly": _LATE,
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
_BLOCKS = {
    "completed": "█",
    "failed": "▚",
    "timeout": "▞",
    "running": "▓",
    "cancelled": "▒",
    "skipped": "▒",
    "pending": "░",
}
_TRACK = "rgba(127,127,127,0.2)"
_LINE = "1px solid rgba(127,127,127,0.25)"
_TEXT = "overflow:hidden;overflow-wrap:break-word"  # of a block: stacked accents stay in it, long words are broken
_CUT = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"


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

    def widths(self) -> list[int | None]:
        """Return the columns' widths in pixels, as their texts need it; None for that of errors: what is left."""
        titles = [title for title, _ in self.columns]
        rest = next((at for at, title in enumerate(titles) if title in _REST), -1)
        return [
            None if at == rest else _GAP_PX + max(map(_breadth_of, [title, *cells]))
            for at, (title, *cells) in enumerate(zip(titles, *self.rows, strict=True))
        ]


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
        title = (
            '<summary style="display:list-item;padding:8px 0 4px 0">The latest items that did not complete</summary>'
        )
        # folded below the groups, whose rows hold the latest errors
        parts.append(f"<details>{title}{told}</details>" if groups else told)
    return (
        '<div style="max-width:1100px;border:1px solid rgba(127,127,127,0.35);border-radius:8px;padding:12px 16px;'
        f'font-family:system-ui,sans-serif;font-size:13px;line-height:1.45">{"".join(parts)}</div>'
    )


def overview(snapshot: Snapshot, summary: Summary, *, has_breaker: bool = True) -> str:
    """Return name, bar, counts, facts and notes."""
    notes = [f'<div style="margin-top:8px;{_TEXT}">Note: {said(note)}</div>' for note in snapshot.notes]
    reason = f'<div style="margin-top:2px;{_TEXT}">{said(summary.reason)}</div>' if summary.reason else ""
    title = (
        f'<div style="font-size:15px;{_TEXT}"><b>{said(summary.name)}</b>'
        f'<span style="padding-left:10px"> {ended(summary)}</span></div>'
    )
    facts = _facts(snapshot, summary, has_breaker=has_breaker)
    return f"{title}{reason}{_bar(snapshot.counts)}{_line(snapshot.counts)}{facts}{''.join(notes)}"


def said(words: str, longest: int = LONGEST) -> str:
    """Return a text as escaped and masked HTML, cut at ``longest`` characters.

    A dollar sign and a backslash get an element each: else notebooks render the text between two as a formula.  What
    has letters that are read from right to left is isolated: it turns nothing around but itself.
    """
    masked = mask(words)
    short = masked if len(masked) <= longest else masked[: longest - 1] + "…"
    apart = {"$": "<span>$</span>", "\\": "<span>\\</span>"}
    source = "".join(apart.get(letter) or escape(letter) for letter in short)
    return source if not turns(masked) else f"<bdi>{source}</bdi>"


def cut(words: str, longest: int = LONGEST) -> str:
    """Return a text for a cell of one line: as `said`, and whole in the title of what a long one is in."""
    masked = mask(words)
    source = said(masked, longest)
    if len(masked) <= _NEVER_CUT:
        return source
    tag = "bdi" if turns(masked) else "span"
    inner = source.removeprefix("<bdi>").removesuffix("</bdi>")
    whole = masked if len(masked) <= LONGEST_WHOLE else masked[: LONGEST_WHOLE - 1] + "…"
    style = f' style="display:block;{_CUT}"' if tag == "bdi" else ""  # that it is cut where its text ends
    return f'<{tag} title="{escape(whole)}"{style}>{inner}</{tag}>'


def marked(state: str) -> str:
    """Return a state as a coloured mark and a word."""
    word = "with failures" if state == "partly" else state.replace("_", " ")
    return f'<span style="color:{COLOURS.get(state, _ASIDE)}">{MARKS.get(state, "")}</span> {word}'


def ended(summary: Summary) -> str:
    """Return a session's state as `marked` does: one that ended with failures has not just completed."""
    is_partly = summary.state == "completed" and summary.counts.failed + summary.counts.timeout
    return marked("partly").replace("with", "completed with") if is_partly else marked(summary.state)


def shown_status(group: Group) -> str:
    """Return a group's status as it is shown: "partly" where it completed and some of it failed."""
    return "partly" if group.status == "completed" and group.failed else group.status


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
    """Return groups as a table, with the workload's columns in the middle.

    Where each group is one item, such as a partition, its status says how many are done and failed.
    """
    extra = list(dict.fromkeys(title for group in groups for title in group.extra))
    titles = [
        (said(title), any(isinstance(group.extra.get(title), int | float) for group in groups)) for title in extra
    ]
    is_single = all(group.items == 1 for group in groups)
    columns = [(said(word), False), ("Status", False), *titles]
    columns += [*([] if is_single else [("Items", True), ("Failed", True)]), ("Time", True)]
    rows = [
        [
            cut(group.name.removeprefix(f"{word} ") or str(group.number)),
            marked(shown_status(group)),
            *[cut(_value(group.extra.get(title, ""))) for title in extra],
            *([] if is_single else _items_of(group)),
            span(group.ended_s - group.started_s) if group.ended_s else "",
            "" if group.error == group.status else cut(group.error, longest),
        ]
        for group in groups
    ]
    return Sheet([*columns, ("Error", False)], rows).filled()


def _items_of(group: Group) -> list[str]:
    failed = _failed_in(group)
    done = f"{group.items:,}" if group.done == group.items else f"{group.done:,} of {group.items:,}"
    return [done, f"{failed:,}" if failed else ""]


def item_row(item: events.ItemEnded) -> list[str]:
    """Return an item as a row of `ITEM_COLUMNS`."""
    error = "" if item.error == item.status else cut(item.error)
    return [cut(item.key), marked(item.status), f"{item.attempts:,}", f"{item.seconds:.1f} s", error]


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
    """Return the progress bar: coloured segments that hold text of size 0, for where colours are removed.

    A segment is as wide as its share, and wide enough to be seen where that is less than two pixels.  Without a total
    no share is known.
    """
    shares = {} if counts.total is None else {status: getattr(counts, status) for status in _BLOCKS}
    if counts.total is not None:
        shares["pending"] = counts.total - counts.ended - counts.running
    shares = {status: items for status, items in shares.items() if items > 0}
    cells = _cells(list(shares.values()))
    pieces = [
        f'<span style="flex-grow:{items};flex-basis:0;min-width:2px;height:0;overflow:hidden'
        f"{';margin-right:1px' if at < len(shares) - 1 else ''}"
        f';border-top:8px solid {COLOURS.get(status, _TRACK)}">{_BLOCKS[status] * cells[at]}</span>'
        for at, (status, items) in enumerate(shares.items())
    ]
    percent = "" if counts.total is None else f" {100 * _tried(counts) // max(counts.total, 1)} %"
    rest = "" if shares else f'<span style="flex-grow:1;border-top:8px solid {_TRACK}"></span>'
    told = f'<span style="width:0;overflow:hidden">{"" if shares else _BLOCKS["pending"] * _CELLS}{percent}</span>'
    return (
        '<div style="display:flex;height:8px;margin:10px 0 8px 0;border-radius:4px;overflow:hidden;white-space:nowrap;'
        f'font-size:0;line-height:0">{"".join(pieces)}{rest}{told if percent else ""}</div>'
    )


def _cells(shares: Sequence[int]) -> list[int]:
    """Return how many of the bar's characters each share takes: one at least, and all together `_CELLS`."""
    if not shares:
        return []
    spare, total = _CELLS - len(shares), sum(shares)
    exact = [max(0.0, _CELLS * share / total - 1) for share in shares]  # beyond the one that each has
    scale = spare / sum(exact) if sum(exact) else 0.0
    cells = [1 + int(part * scale) for part in exact]
    largest = sorted(range(len(shares)), key=lambda at: exact[at] * scale % 1, reverse=True)
    for at in largest[: _CELLS - sum(cells)]:
        cells[at] += 1
    return cells


def _tried(counts: Counts) -> int:
    return counts.completed + counts.failed + counts.timeout


def _line(counts: Counts) -> str:
    total = " done" if counts.total is None else f" of {counts.total:,}"
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
    now_s = snapshot.ended_s or time()
    facts = [
        (
            said(fact.title),
            " ".join(filter(None, [said(standing(fact.value, now_s)), said(fact.aside)])),
            said(standing(fact.foot, now_s)),
        )
        for fact in snapshot.facts
        if not (fact.is_live and snapshot.state in events.ENDED)
    ]
    if snapshot.spent_usd is not None:
        budget = "" if snapshot.budget_usd is None else f"of {usd(snapshot.budget_usd)}"
        facts.append(("Spent", said(usd(snapshot.spent_usd)), said(budget)))
    if has_breaker and (breaker := _breaker(snapshot)):
        facts.append(("Breaker", *breaker))
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
        f'<td align="left" style="border:0;padding:8px 28px 8px 0;text-align:left;vertical-align:top;{_TEXT}">'
        f'<span style="opacity:0.7">{name}</span><br><b>{value}</b><br><small style="opacity:0.7">{more}</small></td>'
        for name, value, more in facts
    )
    if not cells:
        return ""
    style = "border-collapse:collapse;border:0;margin:6px 0 4px 0;font-size:13px"
    row = f'<tr style="background:transparent">{cells}</tr>'
    return f'<div style="overflow-x:auto"><table style="{style}"><tbody>{row}</tbody></table></div>'


def _breaker(snapshot: Snapshot) -> tuple[str, str] | None:
    """Return the breaker's state, and how often it opened in this process; None of one that has had nothing to do."""
    openings = sum(move.state == "open" for move in snapshot.breaker_moves)
    failures = snapshot.breaker.failures
    facts = [f"opened {openings:,} time{'' if openings == 1 else 's'}"] if openings else []
    facts += [f"{failures:,} failure{'' if failures == 1 else 's'} in a row"] if failures else []
    if not facts and snapshot.breaker.state == "closed":
        return None
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
    """Return the table as HTML: columns of fixed widths, rows of one line, in a box that scrolls where it is narrow."""
    widths = sheet.widths()
    starts = [_cell_start(title, is_number) for title, is_number in sheet.columns]
    titles = (
        f'<th{"" if " align=" in start else _LEFT}{start}{_HEAD}">{title}</th>'
        for start, (title, _) in zip(starts, sheet.columns, strict=True)
    )
    rows = "".join(
        f'<tr style="{_ROW}">'
        + "".join(f'<td{_title(cell)}{start}">{cell}</td>' for start, cell in zip(starts, row, strict=True))
        + "</tr>"
        for row in sheet.rows
    )
    style = f"table-layout:fixed;border-collapse:collapse;border:0;{whole_style(widths)};margin:0;font-size:13px"
    return (
        f'<div style="overflow-x:auto;margin:{margin}"><table style="{style}">{columns(widths)}'
        f'<thead style="border:0"><tr style="{_ROW}">{"".join(titles)}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def whole_style(widths: Sequence[int | None]) -> str:
    """Return the style for the width of a table of these columns."""
    fixed_px = sum(filter(None, widths))
    return f"width:100%;min-width:{fixed_px + _LEAST_PX}px" if None in widths else f"width:{fixed_px}px"


def columns(widths: Sequence[int | None]) -> str:
    """Return a table's columns as HTML: widths in pixels, None for what is left."""
    each = (f'<col style="width:{width}px">' if width else "<col>" for width in widths)
    return f"<colgroup>{''.join(each)}</colgroup>"


_REST = ("Error", "What happened", "")  # titles of columns that take what is left
_ROW = f"background:transparent;border:0;border-top:{_LINE}"
_GAP_PX = 16  # between columns
_CHAR_PX, _WIDE_PX = 8, 14  # of a character, in 13 px of the widest common font; twice for what East Asia calls wide
_BROAD, _BROAD_PX = re.compile("[A-Zmw@%]"), 3  # letters that are broader than others: "Rows" was cut
_NEVER_CUT = 4  # characters, whatever the font
_LEAST_PX = 160  # of the column that takes what is left
_WIDEST_PX = 200  # of any other
_TAG = re.compile("<[^>]*>")


def breadth(words: str) -> int:
    """Return about how many pixels a text takes in a cell; at most `_WIDEST_PX`."""
    if words.isascii():
        return min(_WIDEST_PX, _CHAR_PX * len(words) + _BROAD_PX * len(_BROAD.findall(words)))
    pixels = (
        0 if combining(letter) else _WIDE_PX if east_asian_width(letter) in "WF" else _CHAR_PX for letter in words[:999]
    )
    return min(_WIDEST_PX, sum(pixels))


def _breadth_of(cell: str) -> int:
    """Return about how many pixels a cell's content takes; bold letters are wider."""
    pixels = breadth(unescape(_TAG.sub("", cell)))
    return pixels * 9 // 8 if "<b>" in cell else pixels


def _title(cell: str) -> str:
    """Return the attribute that says a cell whole where it may be cut, unless what is in it does."""
    words = unescape(_TAG.sub("", cell))
    return "" if " title=" in cell or breadth(words) <= _WIDEST_PX / 2 else f' title="{escape(words)}"'


_LEFT = ' align="left"'  # where styles are removed
_HEAD = ";font-weight:normal;opacity:0.7"


def _cell_start(title: str, is_number: bool) -> str:
    """Return the attributes of a column's cells, up to where their style may go on."""
    side = "right" if is_number else "left"
    side_of_bare = ' align="right"' if is_number else ""
    whole = ' nowrap="nowrap"' if is_number or title == "Status" else ""  # where styles are removed
    style = f"padding:4px {_GAP_PX}px 4px 0;text-align:{side};line-height:19px;{_CUT}"
    return f'{side_of_bare}{whole} style="{style}'
