"""Broadcast: the second way into a Python that runs in a browser, as JupyterLite's does, in a worker of the page.

That kernel reads the next message of a notebook when the cell before it has ended.  What a page says on a
BroadcastChannel of its site comes to Python's loop while a cell awaits; `widgets/src/broadcast.ts` says it there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

CHANNEL = "ipybatch"

_open: list[Any] = []  # the channel and what listens on it, for as long as Python runs


def listen(functions: Mapping[str, Callable[..., None]]) -> None:
    """Call these functions, by their names, as pages ask for it; do nothing where Python is not in a browser.

    Args:
        functions: Each takes texts.
    """
    if _open or sys.platform != "emscripten":
        return
    with suppress(ImportError):  # another host than a browser's, or Node's
        from js import BroadcastChannel  # type: ignore[import-not-found]  # the browser's own names
        from pyodide.ffi import create_proxy  # type: ignore[import-not-found]

        def told(event: Any) -> None:
            with suppress(ValueError, TypeError, KeyError):  # somebody else's message
                name, *values = json.loads(event.data)
                functions[name](*values)

        channel, proxy = BroadcastChannel.new(CHANNEL), create_proxy(told)
        channel.onmessage = proxy
        _open.extend([channel, proxy])
