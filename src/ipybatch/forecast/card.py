"""Card: an analysis as static HTML and as text.

Rule: as for sessions (`ipybatch.jupyter.static_html`): it reads well without its styles, and every text from outside is
escaped, and masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipybatch.engine.data.masking import mask
from ipybatch.forecast.dates import PERIODS
from ipybatch.forecast.partitions import MAX_ROWS, SIZES
from ipybatch.forecast.remedies import REMEDIES
from ipybatch.jupyter.static_html import Sheet, said, span, table

if TYPE_CHECKING:
    from ipybatch.forecast.analysis import Analysis

_GOOD, _BAD = "#2da44e", "#e5484d"
_SOFT = 'style="padding-top:4px;opacity:0.7"'
_SHOWN = 20  # partitions
_TOLD = 8  # problems
_FAILURES = (("a timeout", "timeout"), ("out of memory", "memory"), ("a row that cannot be used", "row"))


def html(analysis: Analysis) -> str:
    """Return the analysis as HTML that needs nothing else."""
    mark = f'<span style="color:{_GOOD}">✓</span>' if analysis.pays else "→"
    title = (
        f'<div style="font-size:15px"><b>{work(analysis)}</b></div>'
        f'<div style="padding-top:2px">{mark} <b>{verdict(analysis)}</b>: {said(analysis.why)}</div>'
    )
    problems = "".join(f"<div>{said(problem)}</div>" for problem in problems_of(analysis))
    if problems:
        count = f"{len(analysis.problems):,} problem{'' if len(analysis.problems) == 1 else 's'}"
        problems = f'<div style="padding-top:6px"><span style="color:{_BAD}">✕</span> <b>{count}</b>{problems}</div>'
    facts = "".join(f"<div>{said(fact)}</div>" for fact in facts_of(analysis))
    notes = "".join(f"<div {_SOFT}>Note: {said(note)}</div>" for note in analysis.notes)
    return (
        '<div style="max-width:920px;border:1px solid rgba(127,127,127,0.35);border-radius:8px;padding:12px 16px;'
        f'font-family:system-ui,sans-serif;font-size:13px;line-height:1.45">{title}{problems}'
        f'<div style="padding-top:6px">{facts}</div>{_partitions(analysis)}{notes}{_advice()}</div>'
    )


def text(analysis: Analysis) -> str:
    """Return the analysis as a few lines, the same every time for what is measured not anew."""
    lines = [f"{work(analysis)}: {verdict(analysis)[0].lower()}{verdict(analysis)[1:]}, {analysis.why}"]
    lines += [f"  {line}" for line in (*facts_of(analysis), *problems_of(analysis), *analysis.notes)]
    return mask("\n".join(lines))


def work(analysis: Analysis) -> str:
    """Return what the table is made of."""
    counts = ((analysis.rows, "row"), (analysis.sites, "site"), (analysis.parts, "part"))
    return ", ".join(_counted(*count) for count in counts)


def verdict(analysis: Analysis) -> str:
    """Return whether batch mode pays."""
    return "Batch mode pays" if analysis.pays else "One job will do (by=None)"


def facts_of(analysis: Analysis) -> list[str]:
    """Return what is known of the forecast, a line each."""
    table = analysis.table
    many = _counted(len(analysis.partitions), "partition")
    facts = [
        f"{PERIODS[table.freq]}, {table.start:%Y-%m-%d} to {table.end:%Y-%m-%d}; {_counted(analysis.series, 'series')}",
        f"{many}, the largest of {analysis.partitions[0].rows:,} rows; {analysis.workers:,} at a time",
    ]
    return [*facts, *_estimated(analysis)]


def problems_of(analysis: Analysis) -> list[str]:
    """Return the first problems, with where they are."""
    told = [
        f"{problem}, column {problem.column}{'' if problem.site is None else f', site {problem.site}'}"
        for problem in analysis.problems[:_TOLD]
    ]
    more = len(analysis.problems) - _TOLD
    return [*told, f"and {more:,} more"] if more > 0 else told


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 or word == 'series' else 's'}"


def _estimated(analysis: Analysis) -> list[str]:
    timing, speed_up = analysis.timing, analysis.speed_up
    if timing is None or speed_up is None or analysis.seconds is None or analysis.normal_s is None:
        return []
    if analysis.by is None:
        return [f"estimated {span(analysis.seconds)} (measured here with {timing.samples[-1][0]:,} series)"]
    times = f"estimated {span(analysis.seconds)}, as one job {span(analysis.normal_s)}"
    quicker = f"{speed_up:.1f} times as fast" if speed_up >= 1 else "no quicker here, but one that fails harms no other"
    return [f"{times}: {quicker} (measured here with {timing.samples[-1][0]:,} series)"]


def _partitions(analysis: Analysis) -> str:
    timing = analysis.timing
    titles = ["Partition", "Sites", "Parts", "Rows", *(["Estimated"] if timing else []), ""]
    rows = []
    for one, series in list(zip(analysis.partitions, analysis.series_of, strict=True))[:_SHOWN]:
        seconds = [span(timing.alone_s(series))] if timing else []
        problems = f'<span style="color:{_BAD}">✕</span> {said(one.problems[0])}' if one.problems else ""
        name = said(f"{one.number} ({one.name})")
        rows.append([name, f"{len(one.sites):,}", f"{one.parts:,}", f"{one.rows:,}", *seconds, problems])
    columns = [(title, 0 < at < len(titles) - 1) for at, title in enumerate(titles)]
    return table(Sheet(columns, rows).filled(), margin="8px 0 4px 0") + _more(len(analysis.partitions) - _SHOWN)


def _more(count: int) -> str:
    return f"<div>and {count:,} smaller ones</div>" if count > 0 else ""


def _advice() -> str:
    """Return how many partitions a size makes, and what helps when one fails; folded away."""
    sizes = "; ".join(f"{rows:,} rows: {partitions}" for rows, partitions in SIZES)
    helps = "".join(f"<div>{failure}: {said(REMEDIES[kind])}</div>" for failure, kind in _FAILURES)
    return (
        '<details><summary style="padding-top:6px">How many partitions, and what helps when one fails</summary>'
        f'<div>with by="size" and {MAX_ROWS:,} rows to a partition, {sizes} partitions</div>{helps}</details>'
    )
