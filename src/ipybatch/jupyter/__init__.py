"""Views of a session in Jupyter: as widgets, and as static HTML.

In reading order:

- `panel`: the widgets: the panel, and its parts.
- `sessions`: several sessions in one widget.
- `messages`: the messages between kernel and browser, and how they are made from a session.
- `commands`: what a button does to the session.
- `magics`: `%ipybatch`; `cell_magic`: `%%ipybatch`; `listing`: the table of what is recorded.
- `publisher`: the thread that sends updates.
- `static_html`: a session as HTML without scripts, in saved notebooks; `static_page`: as a page of its own.
- `timeline`: the chart of that page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ipybatch.errors import MissingExtra

if TYPE_CHECKING:
    from ipybatch.engine.feed.session_view import SessionView
    from ipybatch.jupyter.panel import BreakerStatus, Log, Panel, PartitionTable, Progress, Timeline
    from ipybatch.jupyter.sessions import Sessions

__all__ = [
    "BreakerStatus",
    "Log",
    "Panel",
    "PartitionTable",
    "Progress",
    "Sessions",
    "Timeline",
    "show",
]


def show(session: SessionView, *, compact: bool = False) -> None:
    """Display the live panel of a session in the cell's output.

    Args:
        compact: As one line, which opens.

    Raises:
        MissingExtra: anywidget or IPython is not installed.
    """
    __getattr__("Panel")(session, compact=compact).show()


# Deprecated names of widgets that lie above the views: the package fills it in, as the views know no workload.
aliases: dict[str, Callable[[], Any]] = {}


def __getattr__(name: str) -> Any:
    if name in aliases:
        found = globals()[name] = aliases[name]()  # so that it warns once
        return found
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        from ipybatch.jupyter import panel, sessions
    except ImportError as error:
        raise MissingExtra("jupyter") from error
    return getattr(sessions if name == "Sessions" else panel, name)
