"""Run a script, or the code cells of a notebook, in a Python that cannot start threads, as in a browser.

    python -m tests.threadless FILE

It is CPython that says what Pyodide says of itself, and whose threads fail to start in the same words.  Every cell
runs in the one event loop, as a kernel runs it.
"""

from __future__ import annotations

import ast
import asyncio
import contextvars
import inspect
import json
import sys
import threading
import types
from pathlib import Path
from typing import Any


def _start(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def be_a_browser() -> None:
    """Have no threads from now on."""
    sys.platform = "emscripten"
    sys._emscripten_info = types.SimpleNamespace(pthreads=False)  # type: ignore[attr-defined]
    threading.Thread.start = _start  # type: ignore[method-assign]


async def run_cells(cells: list[str]) -> dict[str, Any]:
    """Run code with top-level ``await``, a cell at a time, each in a context of its own; return what it defined."""
    names: dict[str, Any] = {"display": lambda *shown, **_: print(*shown), "__name__": "__main__"}
    loop = asyncio.get_running_loop()
    for cell in cells:
        code = compile(cell, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

        async def run(code: types.CodeType = code) -> None:
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result

        await loop.create_task(run(), context=contextvars.copy_context())
    return names


def cells_of(path: Path) -> list[str]:
    """Return the code cells of a notebook, or a whole script as one."""
    if path.suffix != ".ipynb":
        return [path.read_text()]
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return [cell for cell in cells if not cell.startswith("%pip")]


if __name__ == "__main__":
    import httpx2  # noqa: F401
    import numpy as np  # noqa: F401  # before: the packages that look at the platform are not what is tested
    import pandas as pd  # noqa: F401
    import plotly.graph_objects as go  # noqa: F401
    from IPython.display import display  # noqa: F401

    be_a_browser()
    asyncio.run(run_cells(cells_of(Path(sys.argv[1]))))
