"""Views of a session in Jupyter: the only place that knows widgets and IPython."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipybatch.errors import MissingExtra

if TYPE_CHECKING:
    from ipybatch.engine.feed.session_view import Viewed
    from ipybatch.jupyter.form import ForecastForm
    from ipybatch.jupyter.views import BreakerStatus, Log, Panel, PartitionTable, Progress, Timeline

__all__ = ["BreakerStatus", "ForecastForm", "Log", "Panel", "PartitionTable", "Progress", "Timeline", "show"]


def show(session: Viewed) -> None:
    """Display the live panel of a session in the cell's output.

    Raises:
        MissingExtra: The widgets are not installed.
    """
    __getattr__("Panel")(session).show()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        if name == "ForecastForm":
            from ipybatch.jupyter import form

            return form.ForecastForm
        from ipybatch.jupyter import views
    except ImportError as error:
        raise MissingExtra("jupyter") from error
    return getattr(views, name)
