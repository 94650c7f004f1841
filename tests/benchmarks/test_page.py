"""What was measured is kept row by row, and the page shows it."""

from __future__ import annotations

from types import ModuleType

import msgspec
import pytest

from tests.benchmarks import page as pages
from tests.benchmarks.machine import Machine, installed
from tests.benchmarks.page import Results, Run
from tests.benchmarks.questions import QUESTIONS
from tests.benchmarks.table import Row

MACHINE = Machine(cpu="Some CPU", cores=2, memory_gb=24.0, system="Linux 6.1 x86_64")


def run(day: int, *, question: str = "engine", load: float = 0.1) -> Run:
    date = f"2026-11-{day:02}"
    return Run(key=f"{date}-{question}", question=question, date=date, rounds=3, load=[load], machine=MACHINE)


def row(name: str, *values: float, what: str = "CPU, us") -> Row:
    return Row(what=what, name=name, values=values)


def modules(**told: str) -> dict[str, ModuleType]:
    made = {name: ModuleType(f"tests.benchmarks.{name}") for name in told}
    for name, module in made.items():
        module.__doc__ = told[name]
    return made


def test_a_run_replaces_its_own_rows_only():
    """Others keep their figures and their dates: those of other questions, and those that were not measured again."""
    results = Results()
    results.record(run(1), [row("ours", 1.0), row("theirs", 3.0), row("ours", 5.0, what="wall, s")])
    results.record(run(1, question="rate"), [row("ours", 7.0)])
    results.record(run(2), [row("ours", 2.0)])
    assert {one.id: (one.values, one.run) for one in results.rows} == {
        "engine-cpu-us-ours": ([2.0], "2026-11-02-engine"),
        "engine-cpu-us-theirs": ([3.0], "2026-11-01-engine"),
        "engine-wall-s-ours": ([5.0], "2026-11-01-engine"),
        "rate-cpu-us-ours": ([7.0], "2026-11-01-rate"),
    }
    told = [one.id for one in results.rows if one.question == "engine"]
    assert told == ["engine-cpu-us-ours", "engine-cpu-us-theirs", "engine-wall-s-ours"]


def test_a_run_of_which_no_row_is_left_is_forgotten():
    results = Results()
    results.record(run(1), [row("ours", 1.0)])
    results.record(run(2), [row("ours", 2.0)])
    assert [one.key for one in results.runs] == ["2026-11-02-engine"]


def test_two_rows_of_one_name_are_refused():
    """A link would lead to one of them."""
    with pytest.raises(AssertionError, match="one id"):
        Results().record(run(1), [row("ours", 1.0), row("Ours", 2.0)])


def test_a_row_has_an_anchor_its_spread_and_its_date():
    results = Results()
    results.record(run(1, load=1.5), [row("ours | a list", 1.0, 3.0, 2.0)])
    text = pages.page(results, modules(engine="Engine: what it takes.\n\nMore."))
    assert r'| CPU, us | <a id="engine-cpu-us-ours-a-list"></a>ours \| a list | 2 | 1 - 3 | 3 |' in text
    assert "[2026-11-01, busy](#run-2026-11-01-engine)" in text
    assert '<a id="run-2026-11-01-engine"></a>2026-11-01' in text
    assert "## Engine\n\nWhat it takes.\n" in text
    assert "A: Some CPU, 2 cores, 24 GB, Linux 6.1 x86_64." in text


def test_a_question_that_was_not_asked_is_not_told():
    assert "## Rate" not in pages.page(Results(), modules(rate="Rate: how fast."))


def test_what_is_saved_is_read_again(tmp_path):
    results = Results()
    results.record(run(1), [row("ours", 1.23456789, 2e9)])
    pages.save(results, tmp_path / "figures.json")
    assert msgspec.to_builtins(pages.load(tmp_path / "figures.json")) == msgspec.to_builtins(results)
    assert pages.load(tmp_path / "none.json") == Results()


def test_versions_of_peers_are_found_where_they_are(tmp_path):
    package = tmp_path / "node_modules" / "bottleneck" / "package.json"
    package.parent.mkdir(parents=True)
    package.write_text('{"version": "2.19.5"}')
    told = tmp_path / "lib" / "python3.11" / "site-packages" / "limits-5.8.0.dist-info" / "METADATA"
    told.parent.mkdir(parents=True)
    told.write_text("Metadata-Version: 2.1\nName: limits\nVersion: 5.8.0\n")
    assert installed(tmp_path, ["bottleneck", "limits", "nobody"]) == {"bottleneck": "2.19.5", "limits": "5.8.0"}


def test_the_page_is_current():
    """`python -m tests.benchmarks --page` writes it."""
    assert pages.PAGE.read_text(encoding="utf-8") == pages.page(pages.load(), QUESTIONS)


def test_every_row_belongs_to_a_question_and_to_a_run():
    results = pages.load()
    assert {one.question for one in results.rows} <= set(QUESTIONS)
    assert {one.run for one in results.rows} == {one.key for one in results.runs}
    assert len({one.id for one in results.rows}) == len(results.rows)
