"""How pages of the project become pages of the site."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools import site

DOCS = site.DOCS
PLACES = {
    DOCS / "index.md": "index.md",
    DOCS / "limits.md": "limits.md",
    DOCS / "api.md": "api.md",
    site.ROOT / "CONTRIBUTING.md": "contributing.md",
    site.ROOT / "notebooks" / "00_first_session.ipynb": "notebooks/00_first_session.ipynb",
}
HOMES = {"generate": "api/ipybatch.gemini.md"}


def read(text: str, path: Path = DOCS / "index.md") -> str:
    return site.for_sphinx(text, path, PLACES, HOMES)


@pytest.mark.parametrize(
    ("link", "made"),
    [
        ("[a](limits.md#events)", "[a](limits.md#events)"),
        ("[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("[a](../notebooks/00_first_session.ipynb)", "[a](notebooks/00_first_session.ipynb)"),
        ("[a](#words)", "[a](#words)"),
        ("[a](https://example.org/x.md)", "[a](https://example.org/x.md)"),
        ("[`generate()`](api.md#generate)", "[`generate()`](api/ipybatch.gemini.md#generate)"),
        ("[a](api.md)", "[a](api.md)"),
        ("[a](../pyproject.toml)", "a"),
        ("[a]: ../CONTRIBUTING.md#layers", "[a]: contributing.md#layers"),
        ("`[a](gone.md)`", "`[a](gone.md)`"),
        ("```\n[a](gone.md)\n```", "```\n[a](gone.md)\n```"),
    ],
)
def test_links_lead_to_the_same_on_the_site(link: str, made: str) -> None:
    assert read(link) == made


def test_links_of_a_page_above_docs_lead_there_too() -> None:
    assert read("[a](docs/limits.md)", site.ROOT / "CONTRIBUTING.md") == "[a](limits.md)"


def test_link_to_nothing_ends_the_build() -> None:
    with pytest.raises(SystemExit, match=r"docs/index.md: gone.md is not there"):
        read("[a](gone.md)")


def test_theme_chooses_the_picture() -> None:
    github = (
        '<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="panel-dark.png">\n'
        '  <img alt="A panel" src="panel-light.png">\n</picture>'
    )
    assert read(github) == (
        "```{image} panel-light.png\n:alt: A panel\n:class: only-light\n```\n\n"
        "```{image} panel-dark.png\n:alt: A panel\n:class: only-dark\n```"
    )


def test_reader_who_wants_no_motion_sees_a_still() -> None:
    source = '<source media="(prefers-reduced-motion: reduce){}" srcset="{}">\n'
    github = (
        "<picture>\n"
        + source.format(" and (prefers-color-scheme: dark)", "dark.png")
        + source.format("", "light.png")
        + '<source media="(prefers-color-scheme: dark)" srcset="dark.webp">\n<img alt="A" src="light.webp">\n</picture>'
    )
    shown = re.findall(r"{image} (\S+)\n:alt: A\n:class: (.+)\n", read(github))
    assert shown == [
        ("light.webp", "only-light moving"),
        ("dark.png", "only-dark still"),
        ("light.png", "only-light still"),
        ("dark.webp", "only-dark moving"),
    ]


def test_order_of_pages_is_that_of_the_links_of_a_section() -> None:
    told = site.with_order("# x\n\n[out](limits.md)\n\n## Start\n\n- [Words](a.md), [b](b.ipynb#c), [again](a.md)\n")
    assert told.removeprefix("```{rst-class} first-page\n```\n\n") == (
        "# x\n\n[out](limits.md)\n\n## Start\n\n- [Words](a.md), [b](b.ipynb#c), [again](a.md)\n\n"
        "```{toctree}\n:hidden:\n:caption: Start\n\nWords <a>\nb <b>\n```\n\n"
    )


def test_notebook_shows_its_charts_as_pictures(tmp_path: Path) -> None:
    forms = {site.CHART: {"data": []}, "image/png": "AAAA"}
    cells = [
        {"cell_type": "markdown", "source": ["[a](../CONTRIBUTING.md)"]},
        {
            "cell_type": "code",
            "source": ["# NBVAL_IGNORE_OUTPUT\n", "x"],
            "outputs": [{"output_type": "display_data", "data": forms}],
        },
    ]
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    places = {path: "notebooks/x.ipynb", (tmp_path / "../CONTRIBUTING.md").resolve(): "contributing.md"}
    made = json.loads(site.notebook_for_sphinx(path, places, {}))["cells"]
    assert made[0]["source"] == "[a](../contributing.md)"
    assert made[1]["source"] == "x"
    assert made[1]["outputs"][0]["data"] == {"image/png": "AAAA"}


def test_every_page_is_in_the_order_and_every_link_of_a_page_is_there(tmp_path: Path) -> None:
    """What Sphinx would warn of last, told in a second."""
    places = site.plan()
    site.assemble(places, tmp_path)
    listed = {
        line.rpartition("<")[2].rstrip(">")
        for line in (tmp_path / "index.md").read_text(encoding="utf-8").splitlines()
        if line.endswith(">")
    }
    pages = {Path(place).with_suffix("").as_posix() for place in places.values() if place.endswith((".md", ".ipynb"))}
    assert pages - {"index"} == listed
