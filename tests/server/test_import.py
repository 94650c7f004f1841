"""What Jupyter loads is light: the import of the package, and that of the extension with all its routes."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator

import pytest

import ipybatch


def loaded_by(statement: str, *, after: str = "pass") -> set[str]:
    """The modules that a fresh Python loads for a statement."""
    code = f"import sys\n{after}\nbefore = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_package_loads_no_engine() -> None:
    """Jupyter imports `ipybatch.server` as it starts, whether it is asked for or not."""
    ours = {module for module in loaded_by("import ipybatch.server") if module.startswith(("ipybatch", "msgspec"))}
    assert ours == {"ipybatch", "ipybatch.errors", "ipybatch.jupyter", "ipybatch.server"}


def test_routes_load_nothing_heavy() -> None:
    """What takes long to import is imported in a thread or a kernel, never on the server's loop."""
    found = loaded_by(
        "import ipybatch.server.extension, ipybatch.server.routes", after="import jupyter_server.serverapp"
    )
    assert "ipybatch.server.root" in found
    heavy = ("pandas", "numpy", "pyarrow", "google", "sklearn", "distributed", "aiohttp", "httpx2", "ipywidgets")
    assert sorted(module for module in found if module.split(".")[0] in heavy) == []


def test_every_name_loads_alone() -> None:
    """A name that is asked for first is there, whatever was loaded before it."""
    for name in ("secret", "Counts", "BatchSession", "backends"):
        assert loaded_by(f"import ipybatch; ipybatch.{name}; from ipybatch import {name}")


def typed_imports() -> Iterator[tuple[str, str]]:
    """The names that type checkers are told, and where they are."""
    tree = ast.parse(inspect.getsource(ipybatch))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    for node in block.body:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((name.name, node.module.removeprefix("ipybatch.")) for name in node.names)


def test_type_checkers_and_python_find_the_same() -> None:
    assert dict(typed_imports()) == ipybatch._HOMES


def test_all_is_listed_and_nothing_else_is_there() -> None:
    assert set(ipybatch.__all__) <= set(dir(ipybatch))
    with pytest.raises(AttributeError, match="no attribute 'Sessions'"):
        _ = ipybatch.Sessions
