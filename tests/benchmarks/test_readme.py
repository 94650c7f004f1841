"""Every figure in README that leads to a row is that row's."""

from __future__ import annotations

import pytest

from tests.benchmarks import page as pages
from tests.benchmarks.readme import README, Link, is_of, links, restated
from tests.benchmarks.table import Row

LINKS = list(links(README.read_text(encoding="utf-8")))
ROWS = {row.id: row.row for row in pages.load().rows}
IMPORT = Row(what="import, s", name="ours", values=[0.0981])


@pytest.mark.parametrize("link", LINKS, ids=[link.row for link in LINKS])
def test_a_figure_is_that_of_its_row(link):
    """`python -m tests.benchmarks --page` puts right those that are not."""
    assert link.row in ROWS, "no such row in docs/benchmarks.md"
    row = ROWS[link.row]
    assert is_of(link.text, row), f"README says {link.text}; the row: {row.median:g}, {row.what}"


def test_readme_shows_figures():
    assert len(LINKS) >= 5


@pytest.mark.parametrize(
    ("words", "is_right"),
    [
        ("0.1 s", True),
        ("0.10 s", True),
        ("0.098", True),
        ("0.098 s in all", True),
        ("98 ms", False),
        ("0.099 s", False),
        ("0.1 MB", False),
        ("a tenth", False),
    ],
)
def test_a_wrong_figure_is_noticed(words, is_right):
    assert is_of(words, IMPORT) == is_right


TEXT = """It takes [0.2 s](docs/benchmarks.md#a), then [7 s in all][m], or [0.1 s][m]; see [here][h].

[m]: docs/benchmarks.md#a
[h]: docs/panel.md
"""


def test_links_of_both_kinds_are_read():
    assert list(links(TEXT)) == [Link("0.2 s", "a"), Link("7 s in all", "a"), Link("0.1 s", "a")]


def test_figures_follow_their_rows():
    """One that is right stays as it is rounded; text and other links stay."""
    said = restated(TEXT, {"a": IMPORT})
    assert said == TEXT.replace("[0.2 s]", "[0.098 s]").replace("[7 s in all]", "[0.098 s in all]")
    assert restated(TEXT, {}) == TEXT
