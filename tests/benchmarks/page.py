"""Page: docs/benchmarks.md, every figure that was measured, each with an anchor, and when and where that was.

    a question's rows --> docs/benchmarks.json, which keeps all that was measured --> docs/benchmarks.md

A run writes its own rows and leaves the others with the dates they have; ``python -m tests.benchmarks --page`` writes
the page anew and measures nothing.  The id of a row is made of its question, what is measured, and the contestant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import msgspec

from .machine import Machine
from .measure import ROOT
from .table import Row, figure

RESULTS = ROOT / "docs" / "benchmarks.json"
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = (
    "| what | with | median | range | runs | beside ours | goal | reached | measured |\n"
    "|---|---|---:|---:|---:|---:|---|---|---|"
)
RUNS_HEAD = "| date | question | runs | took s | load average | machine | remark |\n|---|---|---:|---:|---|---|---|"
PREAMBLE = """# Benchmarks

What ipybatch takes, beside what others take for the same work. `make bench` measures all of it and writes this page;
`python -m tests.benchmarks --only engine rate` measures some of it and writes their rows only, so that each row has a
date of its own. Nothing here is written by hand; [benchmarks.json](benchmarks.json) has the same figures for programs.

How to read it: every run is a process of its own, the contestants taking turns, and a row has the median and the range
of its runs. "Beside ours" is the median over that of ipybatch. A goal is ours; whether the median reaches it stands
beside it, and where only the best run does, that. "Busy" means that other work ran on the machine when the measuring
began: read the CPU times then, not the wall times. A number of runs with a star is that of a table from before this
page, which kept the median alone. Each row has a name, so that a figure elsewhere can lead to it.
"""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A row as it is kept.

    Attributes:
        id: The row's name on the page.
        question: The question it belongs to.
        run: Which run measured it, by its key.
        median_of: How many runs the one value is the median of, where a table from before kept no more; else 0.
    """

    id: str
    question: str
    what: str
    name: str
    values: list[float]
    ours: list[float] = []
    goal: float | None = None
    least: bool = False
    note: str = ""
    run: str
    median_of: int = 0

    @property
    def row(self) -> Row:
        """The row as a question gives it."""
        return Row(
            what=self.what,
            name=self.name,
            values=self.values,
            ours=self.ours,
            goal=self.goal,
            least=self.least,
            note=self.note,
        )

    def line(self, run: Run, *, first: bool) -> str:
        """Return the row of the page; only the ``first`` of what is measured names it."""
        row = self.row
        busy = ", busy" if run.is_busy else ""
        cells = [
            escaped(self.what) if first else "",
            f'<a id="{self.id}"></a>{escaped(row.title)}',
            figure(row.median),
            row.span if len(self.values) > 1 else "",
            f"{self.median_of}*" if self.median_of else str(len(self.values)),
            row.beside,
            row.bar,
            row.reached,
            f"[{run.date}{busy}](#{run.anchor})",
        ]
        return f"| {' | '.join(cells)} |"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """When and where rows were measured.

    Attributes:
        key: Date, time and question.
        rounds: Runs of each case that were asked for.
        load: Load averages of the last minute, from start to end.
        took_s: Seconds on the clock, all contestants together.
        remark: What a reader must know of all its rows.
    """

    key: str
    question: str
    date: str
    rounds: int
    load: list[float] = []
    took_s: float | None = None
    machine: Machine
    versions: dict[str, str] = {}
    remark: str = ""

    @property
    def anchor(self) -> str:
        """The run's name on the page."""
        return f"run-{slug(self.key)}"

    @property
    def is_busy(self) -> bool:
        """Whether other work ran when the measuring began: a quarter of the cores or more."""
        return bool(self.load) and bool(self.machine.cores) and self.load[0] > self.machine.cores / 4

    def line(self, place: str) -> str:
        """Return the row of the table of runs.

        Args:
            place: The letter of the machine and its versions.
        """
        load = f"{self.load[0]:.1f} before, {max(self.load):.1f} at most" if self.load else "not kept"
        took = "not kept" if self.took_s is None else f"{self.took_s:,.0f}"
        told = [self.date, self.question, str(self.rounds), took, load, place, self.remark]
        return f'| <a id="{self.anchor}"></a>{" | ".join(map(escaped, told))} |'


class Results(msgspec.Struct, kw_only=True):
    """All that was measured, in the order of the page."""

    rows: list[Measured] = []
    runs: list[Run] = []

    def record(self, run: Run, rows: Sequence[Row]) -> None:
        """Put a run's rows in the place of those with the same ids; leave all others as they are."""
        found = [kept(run, row) for row in rows]
        taken = {row.id for row in found}
        assert len(taken) == len(found), f"two rows have one id: {sorted(row.id for row in found)}"
        older = [row for row in self.rows if row.question == run.question and row.id not in taken]
        for row in older:
            alike = [place for place, one in enumerate(found) if one.what == row.what]
            found.insert(alike[-1] + 1 if alike else len(found), row)
        self.rows = [row for row in self.rows if row.question != run.question] + found
        used = {row.run for row in self.rows}
        self.runs = sorted(
            (one for one in [*(one for one in self.runs if one.key != run.key), run] if one.key in used),
            key=lambda one: one.key,
        )


def kept(run: Run, row: Row) -> Measured:
    """Return a row as it is kept, its figures cut to what a page can say."""
    return Measured(
        id=row_id(run.question, row),
        question=run.question,
        what=row.what,
        name=row.name,
        values=[float(f"{value:.6g}") for value in row.values],
        ours=[float(f"{value:.6g}") for value in row.ours],
        goal=row.goal,
        least=row.least,
        note=row.note,
        run=run.key,
    )


def row_id(question: str, row: Row) -> str:
    """Return the name of a row on the page: made of words and numbers, so that it stays when nothing is renamed."""
    about = row.what if slug(row.what).startswith(question) else f"{question} {row.what}"
    return slug(f"{about} {row.name}")


def slug(text: str) -> str:
    """Return letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def escaped(text: str) -> str:
    """Return a text that breaks no table."""
    return text.replace("|", r"\|")


def load(path: Path = RESULTS) -> Results:
    """Return what was measured so far."""
    return msgspec.json.decode(path.read_bytes(), type=Results) if path.exists() else Results()


def save(results: Results, path: Path = RESULTS) -> None:
    """Keep what was measured, a row a line, so that a change shows as what it is."""
    rows, runs = (b",\n".join(map(msgspec.json.encode, some)) for some in (results.rows, results.runs))
    path.write_bytes(b'{"rows":[\n' + rows + b'\n],"runs":[\n' + runs + b"\n]}\n")


def page(results: Results, questions: Mapping[str, ModuleType]) -> str:
    """Return the page, a part for each question, in their order."""
    runs = {run.key: run for run in results.runs}
    parts = [PREAMBLE]
    for question, module in questions.items():
        rows = [row for row in results.rows if row.question == question]
        if not rows:
            continue
        title, _, told = (module.__doc__ or "").partition("\n\n")[0].partition(": ")
        above = ["", *(row.what for row in rows)]
        lines = [row.line(runs[row.run], first=row.what != before) for row, before in zip(rows, above, strict=False)]
        source = f"tests/benchmarks/{module.__name__.rpartition('.')[2]}.py"
        parts += [
            f"## {title}\n",
            f"{told[:1].upper()}{told[1:]}\n",
            f"`python -m tests.benchmarks --only {question}`; source: [{source}](../{source})\n",
            "\n".join([HEAD, *lines]) + "\n",
        ]
    return "\n".join([*parts, *_when(results.runs)])


def _when(runs: Iterable[Run]) -> Iterator[str]:
    """Give the runs, and once each the machines with their versions."""
    places: dict[tuple[str, str], str] = {}
    lines = []
    for run in runs:
        versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
        place = places.setdefault((str(run.machine), versions), chr(ord("A") + len(places)))
        lines.append(run.line(place))
    yield "## When and where\n"
    yield "\n".join([RUNS_HEAD, *lines]) + "\n"
    yield from (f"{place}: {machine}. {versions}.\n" for (machine, versions), place in places.items())
