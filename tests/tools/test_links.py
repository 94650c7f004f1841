"""Which links of a built site are told as broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.links import broken

PAGE = '<html><head><link rel="stylesheet" href="style.css"></head><body><h2 id="words">Words</h2>{}</body></html>'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A page in a folder, which links to what a test adds to the first page."""
    (tmp_path / "style.css").write_text("")
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "index.html").write_text(PAGE.format("").replace("style", "../style"))
    return tmp_path


@pytest.mark.parametrize(
    "link",
    [
        '<a href="api/index.html">page</a>',
        '<a href="api/">folder</a>',
        '<a href="api/index.html#words">anchor of another page</a>',
        '<a href="#words">anchor</a>',
        '<a href="style.css">file</a>',
        '<a href="https://example.org/a?b=c#d">another site</a>',
        '<a href="mailto:somebody@example.org">mail</a>',
        '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">',
        '<a id="rows"></a><a href="#rows">HTML\'s own anchor</a>',
        '<a href="%61pi/index.html">quoted</a>',
    ],
)
def test_what_is_there_is_no_fault(site: Path, link: str) -> None:
    (site / "index.html").write_text(PAGE.format(link))
    assert broken(site) == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ('<a href="gone.html">x</a>', "index.html: gone.html: there is no such file"),
        ('<a href="#nouns">x</a>', "index.html: #nouns: there is no such anchor"),
        ('<a href="api/index.html#nouns">x</a>', "index.html: api/index.html#nouns: there is no such anchor"),
        ('<img src="gone.png">', "index.html: gone.png: there is no such file"),
        ('<script src="https://cdn.example.org/x.js"></script>',
         "index.html: https://cdn.example.org/x.js: is loaded from another site"),
        ('<a href="https://nowhere/x">x</a>', "index.html: https://nowhere/x: is no address"),
        ('<a href="htps://example.org">x</a>', "index.html: htps://example.org: is no address"),
        ('<a href="http://[::1">x</a>', "index.html: http://[::1: Invalid IPv6 URL"),
    ],
)  # fmt: skip
def test_what_leads_nowhere_is_told(site: Path, link: str, fault: str) -> None:
    (site / "index.html").write_text(PAGE.format(link))
    assert broken(site) == [fault]
