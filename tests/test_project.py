"""What the project promises about its own files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import ipybatch

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "src" / "ipybatch").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# In pieces, so that this file does not name them.
REGISTRIES = tuple(
    ".".join(parts).encode()
    for parts in (
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("files", "pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("conda", "anaconda", "org"),
    )
)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file in the repository; the working tree's version of it."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("only a clone knows which files are tracked")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_module_is_at_most_600_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


def test_no_module_is_a_drawer() -> None:
    """A module is one noun: what lies in utils, helpers or common has a better home."""
    assert [path for path in MODULES if path.stem in {"utils", "helpers", "common"}] == []


def test_no_tracked_file_names_a_registry(tracked: list[Path]) -> None:
    """Only pip's and npm's own settings say where packages come from."""
    naming = [
        (path.relative_to(ROOT).as_posix(), host.decode())
        for path in tracked
        for host in REGISTRIES
        if host in path.read_bytes()
    ]
    assert naming == []


def test_lock_file_holds_no_address() -> None:
    lock = (ROOT / "widgets" / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    assert "://" not in lock


def test_pins_hold_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    assert [pin for pin in pins if pin.count("==") != 1 or "/" in pin or "@" in pin] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_short(path: Path) -> None:
    """Fifteen cells of code or fewer, and no widget state saved."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert sum(cell["cell_type"] == "code" for cell in notebook["cells"]) <= 15
    assert "widgets" not in notebook["metadata"]


RELEASE = re.compile(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", flags=re.MULTILINE)
CHANGES = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_changelog_is_one_of_versions() -> None:
    """By Keep a Changelog: the newest first, dated, under six headings at most."""
    releases = RELEASE.findall(CHANGES)
    assert releases[0][0] == ipybatch.__version__
    assert releases == sorted(releases, key=lambda one: [int(part) for part in one[0].split(".")], reverse=True)
    heads = re.findall(r"^## (.+)$", CHANGES, flags=re.MULTILINE)
    assert heads == ["Unreleased", *(f"{version} - {date}" for version, date in releases)]
    kinds = set(re.findall(r"^### (.+)$", CHANGES, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_citation_is_of_this_version() -> None:
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= told.keys()
    assert told["license"] == "BSD-3-Clause"
    assert (told["version"], told["date-released"]) == RELEASE.findall(CHANGES)[0]


def test_side_bar_is_of_this_version() -> None:
    """`make widgets` takes the version over."""
    told = json.loads((ROOT / "src" / "ipybatch" / "labextension" / "package.json").read_text(encoding="utf-8"))
    assert told["version"] == ipybatch.__version__
