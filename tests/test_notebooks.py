"""What the notebooks promise about themselves; `make notebooks` runs them and compares what they print."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST_KB = 200
# Loopback, the store itself, and documentation a reader may follow.
HOSTS = {"127.0.0.1", "localhost", "store.steampowered.com", "steamcommunity.com", "aiolimiter.readthedocs.io"}
MAY_DIFFER = "# NBVAL_IGNORE_OUTPUT"

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@each_notebook
def test_is_fifteen_cells_or_fewer(path: Path) -> None:
    """Text and code together: more is not read."""
    assert len(_read(path).cells) <= 15


@each_notebook
def test_begins_with_a_title_and_some_words(path: Path) -> None:
    first = _read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert len(first.source.split()) >= 30


@each_notebook
def test_says_what_to_install_and_needs_no_more(path: Path) -> None:
    """Its first cell names the extras that bring all it imports, and all that its part of ours needs."""
    (named,) = re.findall(r'`pip install "ipybatch\[([a-z,]+)\]"`', _read(path).cells[0].source)
    extras = named.split(",")
    installed = _requirements("ipybatch", extras)
    providers = _providers()
    imported = {name for cell in _code(path) for name in _imported(_parse(cell.source))}
    lacking = {
        name
        for name in imported
        if (top := name.partition(".")[0]) not in sys.stdlib_module_names | {"ipybatch"}
        and not installed & {canonicalize_name(provider) for provider in providers.get(top, ())}
    }
    assert lacking == set()
    of_ours = {"ipybatch.gemini": "gemini", "ipybatch.forecast": "forecast"}
    assert {extra for module, extra in of_ours.items() if module in imported} <= set(extras)


@each_notebook
def test_has_no_long_function(path: Path) -> None:
    """A function of more than five lines belongs into the package."""
    functions = [
        node
        for cell in _code(path)
        for node in ast.walk(_parse(cell.source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > 5] == []


@each_notebook
def test_shows_what_it_did_when_it_ran_top_to_bottom(path: Path) -> None:
    cells = _code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert [output.ename for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


@each_notebook
def test_says_what_its_sessions_came_to_where_nbval_compares_it(path: Path) -> None:
    compared = [
        output.text
        for cell in _code(path)
        if MAY_DIFFER not in cell.source
        for output in cell.outputs
        if output.output_type == "stream"
    ]
    assert re.search(r"completed: \d+/\d+ successful, \d+ failed, \d+ skipped", "".join(compared))


@each_notebook
def test_panels_are_kept_in_a_form_that_needs_no_kernel(path: Path) -> None:
    """A page on GitHub or in a browser knows no widgets, and an export prefers them where there is a choice."""
    notebook = _read(path)
    assert "widgets" not in notebook.metadata
    panels = [
        cell for cell in _code(path) if MAY_DIFFER in cell.source and re.search(r"^session$", cell.source, re.MULTILINE)
    ]
    assert panels
    for cell in panels:
        (forms,) = (output.data for output in cell.outputs if "data" in output)
        assert "application/vnd.jupyter.widget-view+json" not in forms
        assert re.search("completed|rolled back", forms["text/html"])
        assert "successful" in forms["text/plain"]


@each_notebook
def test_charts_have_a_picture_for_pages_that_draw_none(path: Path) -> None:
    for cell in _code(path):
        for output in cell.outputs:
            if "application/vnd.plotly.v1+json" in output.get("data", {}):
                assert "image/png" in output.data


@each_notebook
def test_is_small(path: Path) -> None:
    """No library of a chart's, no state of a widget's."""
    assert path.stat().st_size <= LARGEST_KB * 1024


@each_notebook
def test_names_no_place_on_the_writers_machine(path: Path) -> None:
    for text in _texts(path):
        assert re.findall(r"(?<![\w.:/<])/(?:home|Users|root|tmp|var|work|usr|opt|private)/\S*", text) == []
        assert re.findall(r"\b[A-Z]:\\\S*", text) == []


@each_notebook
def test_names_no_address_but_loopback_and_the_store(path: Path) -> None:
    hosts = {
        urlsplit(url).hostname for text in _texts(path) for url in re.findall(r"https?://[^\s\"'<>)\\]+", text)
    } - HOSTS
    assert hosts == set()


@each_notebook
def test_keeps_its_journal_in_a_folder_of_its_own(path: Path) -> None:
    """A second run is a first run again."""
    first = _code(path)[0].source
    assert "tempfile.TemporaryDirectory()" in first
    assert 'os.environ["IPYBATCH_JOURNAL"] =' in first


def test_only_the_last_cell_asks_the_real_store_and_only_when_told_to() -> None:
    """Whatever is not guarded is given the simulator's address, or is only estimated."""
    cells = _code(ROOT / "notebooks" / "01_library_refresh.ipynb")
    asking = [cell for cell in cells if "SteamStore()" in cell.source]
    assert asking[-1] is cells[-1]
    (guard,) = _parse(cells[-1].source).body
    assert isinstance(guard, ast.If)
    assert "IPYBATCH_REAL_STORE" in ast.unparse(guard.test)
    for cell in asking[:-1]:
        assert ".estimate()" in cell.source
        assert not re.search(r"await|\.run\(|\.start\(", cell.source)


def test_only_the_last_cell_asks_the_real_gemini_and_only_when_told_to() -> None:
    """Whatever is not guarded is given the simulator's address; nothing else may be billed."""
    cells = _code(ROOT / "notebooks" / "02_gemini_bulk_generation.ipynb")
    (guard,) = _parse(cells[-1].source).body
    assert isinstance(guard, ast.If)
    assert "IPYBATCH_REAL_GEMINI" in ast.unparse(guard.test)
    before = "\n".join(cell.source for cell in cells[:-1])
    calls = re.findall(r"\b(?:generate|compare)\([^#\n]*\*\*(\w+)\)", before)
    assert len(calls) == len(re.findall(r"^[^#\n]*\b(?:generate|compare)\((?!\))", before, re.MULTILINE))
    for name in set(calls) - {"settings"}:
        assert re.search(rf"^{name} \|?= \{{.*\*\*(?:service|picture)\b", before, re.MULTILINE)
    assert 'service = {"base_url": gemini.url, "api_key": "SIMULATED"}' in before


def test_binder_starts_on_a_notebook() -> None:
    starts = re.findall(r"urlpath=lab/tree/(\S+)", (ROOT / "binder" / "environment.yml").read_text(encoding="utf-8"))
    assert starts
    assert [start for start in starts if ROOT / start not in PATHS] == []


def _read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def _code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in _read(path).cells if cell.cell_type == "code"]


def _parse(source: str) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(source))


@cache
def _providers() -> Mapping[str, list[str]]:
    return packages_distributions()


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _requirements(name: str, extras: Iterable[str]) -> set[str]:
    """Return the names of all that an installation with these extras brings: its requirements, and theirs."""
    found: set[str] = set()
    wanted = {(canonicalize_name(name), extra) for extra in ("", *extras)}
    seen: set[tuple[str, str]] = set()
    while wanted:
        name, extra = wanted.pop()
        seen.add((name, extra))
        found.add(name)
        try:
            lines = _ours() if name == "ipybatch" else requires(name) or ()
        except PackageNotFoundError:  # for another system
            continue
        for needed in map(Requirement, lines):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                wanted |= {(canonicalize_name(needed.name), each) for each in ("", *needed.extras)} - seen
    return found


def _ours() -> list[str]:
    """Return our own requirements, as they stand in the project's file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"].items()
    return [*project["dependencies"], *(_of_extra(line, extra) for extra, lines in optional for line in lines)]


def _of_extra(line: str, extra: str) -> str:
    needs, _, marker = line.partition(";")
    return f"{needs}; {f'({marker}) and ' if marker else ''}extra == '{extra}'"


def _texts(path: Path) -> Iterator[str]:
    """Yield what a person may read: sources, and outputs as text."""
    for cell in _read(path).cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield output.get("text", "")
            yield from (form for kind, form in output.get("data", {}).items() if kind.startswith("text/"))
