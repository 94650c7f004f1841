"""Views of a session in Jupyter: the only place that knows widgets and IPython."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipybatch.errors import MissingExtra

if TYPE_CHECKING:
    from ipybatch.jupyter.viewed import Viewed


def show(session: Viewed) -> None:
    """Display the live panel of a session in the cell's output.

    Raises:
        MissingExtra: The widgets are not installed.
    """
    try:
        from ipybatch.jupyter import panel
    except ImportError as error:
        raise MissingExtra("jupyter") from error
    panel.show(session)


__all__ = ["show"]
