"""Browser memory: where a journal may lie when Python runs in a browser (Pyodide, JupyterLite).

JupyterLite's folder of notebooks is kept by the browser, which stores a file whole.  SQLite calls its own files damaged
there ("disk image is malformed"), with any kind of journal but an exclusive write-ahead log, which one connection has.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ipybatch.errors import JournalError


def check(asked: Path, what: str, instead: str) -> None:
    """Refuse a file of SQLite's that would not be in the memory of a Python in a browser; allow all others.

    Args:
        asked: Where it is to be.
        what: The file, as a noun.
        instead: What to do, as an order.

    Raises:
        JournalError: The folder is in no memory.
    """
    if sys.platform != "emscripten":
        return
    try:
        from pyodide_js import FS  # type: ignore[import-not-found]  # Pyodide's own name
    except ImportError:  # built into another host
        return
    there = next(folder for folder in (asked, *asked.parents) if folder.exists())
    if FS.lookupPath(str(there)).node.mount.type != FS.filesystems.MEMFS:
        where = f"{what} {asked} cannot lie in {there}: Python in a browser can keep SQLite's files in its memory alone"
        msg = f"{where}. {instead}"
        raise JournalError(msg)
