"""Where SQLite's files may lie when Python runs in a browser; tests/lite asks a real one."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from ipybatch import BatchSession, JournalError
from ipybatch.engine.store import browser_memory
from ipybatch.library import Library


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder that a browser keeps; all others are in memory."""
    folder = tmp_path / "kept"
    folder.mkdir()

    def look_up(path):
        kind = "DriveFS" if path.startswith(str(folder)) else "MEMFS"
        return SimpleNamespace(node=SimpleNamespace(mount=SimpleNamespace(type=kind)))

    pyodide = ModuleType("pyodide_js")
    pyodide.FS = SimpleNamespace(lookupPath=look_up, filesystems=SimpleNamespace(MEMFS="MEMFS"))
    monkeypatch.setitem(sys.modules, "pyodide_js", pyodide)
    monkeypatch.setattr(sys, "platform", "emscripten")
    return folder


def test_a_folder_that_the_browser_keeps_is_refused(kept):
    with pytest.raises(JournalError, match=rf"journal {kept}/new/j.db cannot lie in {kept}: .* Leave out journal="):
        BatchSession("x", abs, [1], journal=kept / "new" / "j.db").start()
    with pytest.raises(JournalError, match=rf"library {kept}/games.db cannot lie in {kept}: .* Leave out its path"):
        Library(kept / "games.db")
    assert list(kept.iterdir()) == []


def test_memory_is_allowed(kept, tmp_path):
    browser_memory.check(tmp_path / "j.db", "journal", "")
    browser_memory.check(tmp_path / "new" / "j.db", "journal", "")


def test_other_pythons_ask_nobody(kept, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    browser_memory.check(kept / "j.db", "journal", "")
