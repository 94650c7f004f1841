"""README, docs and notebooks use what is public, and only that."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from ipybatch.engine.data.deprecation import TABLE
from tools import api

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "notebooks").glob("*.ipynb"))]
PAGES = [path for path in [*TEXTS, ROOT / "CONTRIBUTING.md"] if path.suffix == ".md"]
DOTTED = re.compile(r"(?<![\w./])ipybatch(?:\.[A-Za-z_]\w*)+")  # not a part of a path
IMPORT = re.compile(r"^ *from (ipybatch[\w.]*) import (\([^)]*\)|[^\n#]+)", flags=re.MULTILINE)


def documented() -> dict[str, set[str]]:
    """The names of each public module that docs/api.md tells."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    modules = re.split(r"^## `([\w.]+)`$", text, flags=re.MULTILINE)[1:]
    return {
        path: set(re.findall(r"^### `(\w+)`$", told, flags=re.MULTILINE))
        for path, told in zip(modules[::2], modules[1::2], strict=True)
    }


NAMES = documented()
ENTRY_POINTS = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"])


def text_of(path: Path) -> str:
    """All that a page says, what cells printed aside."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])


def used(text: str) -> set[str]:
    """What a page names or imports of ours, dotted."""
    imported = {
        f"{module}.{name.split()[0]}"
        for module, names in IMPORT.findall(text)
        for name in names.strip("()").split(",")
        if name.strip()
    }
    return imported | set(DOTTED.findall(text))


def is_public(dotted: str) -> bool:
    """Whether it is a public module, a name that docs/api.md tells, or an attribute of one."""
    if dotted in NAMES:
        return True
    parts = dotted.split(".")
    homes = [".".join(parts[:count]) for count in range(1, len(parts)) if ".".join(parts[:count]) in NAMES]
    return bool(homes) and parts[homes[-1].count(".") + 1] in NAMES[homes[-1]]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_page_uses_only_what_is_public(path: Path) -> None:
    deprecated = {one.old for one in TABLE} if path.name == "deprecations.md" else set()
    found = (
        used(text_of(path)) - ENTRY_POINTS - deprecated - {"ipybatch.server"}
    )  # the name of the extension, in Jupyter's options
    assert sorted(name for name in found if not is_public(name)) == []


def test_pages_are_read() -> None:
    """The reader finds what is there: prose and imports, in Markdown and in cells."""
    assert {"ipybatch.BatchSession", "ipybatch.Limits"} <= used(text_of(ROOT / "README.md"))
    assert {"ipybatch.gemini.generate", "ipybatch.gemini.usage"} <= used(text_of(ROOT / "docs" / "gemini.md"))
    assert "ipybatch.library.refresh" in used(text_of(ROOT / "notebooks" / "01_library_refresh.ipynb"))


def test_what_is_private_is_told() -> None:
    assert list(NAMES) == list(api.PUBLIC)
    assert is_public("ipybatch.gemini")
    assert is_public("ipybatch.gemini.generate")
    assert is_public("ipybatch.BatchSession.open")
    assert not is_public("ipybatch.engine")
    assert not is_public("ipybatch.gemini.prices.price_of")
    assert not is_public("ipybatch.events.snapshot")
    assert used(
        "import ipybatch.engine.run as run\nfrom ipybatch.gemini.prices import (\n  price_of as p,\n  usd,\n)"
    ) == {
        "ipybatch.engine.run",
        "ipybatch.gemini.prices",
        "ipybatch.gemini.prices.price_of",
        "ipybatch.gemini.prices.usd",
    }


def named_paths(text: str) -> list[str]:
    """The files and folders that a page names: from the root, or a module within the package or the widgets."""
    return re.findall(r"(?<![\w/.:-])(?:[a-z_]+/)+(?:[a-z_]+\.(?:py|ts|md|json)|(?=[`)]))", text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_page_names_files_that_are_there(path: Path) -> None:
    places = (ROOT, path.parent, ROOT / "src" / "ipybatch", ROOT / "widgets")
    named = [
        name for name in named_paths(path.read_text(encoding="utf-8")) if not name.startswith("out/")
    ]  # made by make
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_paths_are_found() -> None:
    assert named_paths("`tests/engine/test_x.py`, `src/ipybatch/library/` ([d](docs/a_b.md)) and https://a/b/c.md") == [
        "tests/engine/test_x.py",
        "src/ipybatch/library/",
        "docs/a_b.md",
    ]
