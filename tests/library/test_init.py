from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ipybatch import library
from ipybatch.library import games, session, steam
from ipybatch.library.battlenet import source


def test_exports_are_sorted_and_there() -> None:
    assert library.__all__ == sorted(library.__all__)
    assert all(hasattr(library, name) for name in library.__all__)


def test_importing_it_loads_nothing_heavy() -> None:
    """Pandas and the HTTP clients load when they are needed."""
    code = (
        "import sys, ipybatch.library; print([m for m in ('pandas', 'httpx', 'httpx2', 'IPython') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("module", [games, source, session, steam], ids=lambda module: module.__name__)
def test_every_example_runs(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried > 0
