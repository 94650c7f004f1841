"""The notebooks of the demo without a server: those of the repository, changed where a browser has no processes.

Rule: each change names what it replaces, which must be there once.  So a notebook that is changed, and whose change
here is forgotten, fails the build, and no copy of a notebook lies anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

INSTALL = "%pip install -q ipybatch ipywidgets anywidget"


class Change(NamedTuple):
    """A part of a notebook's text, and what stands in the browser's in its place."""

    old: str
    new: str


class Cell(NamedTuple):
    """A whole cell, by its first line, and its text in the browser; "" where it has none there."""

    first: str
    new: str


class ForBrowser(NamedTuple):
    """A notebook of the demo: the packages that it needs besides, and what is changed."""

    packages: str
    changes: Sequence[Change | Cell]


CANCEL_IT = """
## Cancel it

A night job refreshes a wishlist of 150 games. After 60 requests we cancel it. Then we make the same call again. What
was fetched before lies in the library and is fresh, so only the rest is asked for. This second store makes no mistakes
of its own, so that every request can be counted. (On your own machine this page kills a process instead: here is none.)
"""
CANCELLED = """
sound = InProcess("steam", limit=40, per_s=2, latency_s=(0.02, 0.08))
limits = Limits(concurrency=3, rates=[Rate(40, per_s=2)])
wished = {"source": SteamStore(sound.url, client=sound.client), "library": library, "name": "wishlist"}

night = refresh(range(15, 1515, 10), **wished, limits=limits)
night.start()
while sound.stats()["requests"] < 60:
    await asyncio.sleep(0.01)
night.cancel()
print(await night)

# The same call again: each call judges anew what is stale, and counts what it did itself.
wishlist = refresh(range(15, 1515, 10), **wished, limits=limits)
summary = await wishlist
print(summary.state, "with what was left:", 55 <= summary.counts.skipped <= 100)

asked = pd.Series(sound.stats()["ids"])  # how often the server was asked for each game
print("each game recorded once:", len(wishlist.results()) == wishlist.results().key.nunique() == 150)
print("asked for twice, at most the three in flight:", (asked == 2).sum() <= 3 and asked.max() <= 2)
"""
NOTEBOOKS = {
    "00_first_session.ipynb": ForBrowser("aiolimiter pandas", []),
    "01_library_refresh.ipynb": ForBrowser(
        "plotly pandas",
        [
            Change("store on your own machine keeps", "store in this page keeps"),
            Change("It is a real server and real HTTP, and it is no saint: one", "It is no saint: one"),
            Change("process is killed in the middle of its work", "session is cancelled in the middle of its work"),
            Change("import os\nimport subprocess\nimport sys\n", "import json\nimport os\n"),
            Change("Library, SteamStore, refresh\nfrom", "Library, SteamStore, get_library_games, refresh\nfrom"),
            Change("simulators import serve\n", "simulators import InProcess\n"),
            Change('store = serve("steam"', 'store = InProcess("steam"'),
            Change("api_url=store.url)", "api_url=store.url, client=store.client)"),
            Change("steam.owned_games(", "await get_library_games(steam_id="),
            Change('key="SIMULATED")', 'key="SIMULATED", source=steam)'),
            # JupyterLab's renderer wants nbformat, which is not there.
            Change(
                'chart.show(renderer="plotly_mimetype")',
                'display({"application/vnd.plotly.v1+json": json.loads(chart.to_json())}, raw=True)',
            ),
            Cell("## Kill it", CANCEL_IT),
            Cell('sound = serve("steam"', CANCELLED),
            Change('azeroth = serve("battlenet"', 'azeroth = InProcess("battlenet"'),
            Change("base_url=azeroth.url)", "base_url=azeroth.url, client=azeroth.client)"),
            Cell("# The real services, not run by default.", ""),  # neither lets a page of another site ask it
        ],
    ),
}


def for_browser(name: str, notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with a first code cell that installs what it needs, on the kernel of JupyterLite.

    Raises:
        ValueError: What is to be changed is not there, or is there more than once.
    """
    cells = [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"]]
    for change in NOTEBOOKS[name].changes:
        part = change.old if isinstance(change, Change) else change.first
        found = [cell for cell in cells if part in cell["source"]]
        if len(found) != 1 or found[0]["source"].count(part) != 1:
            msg = f"{name} must have {part!r} once, to be changed for the browser: see tools/lite_notebooks.py"
            raise ValueError(msg)
        (cell,) = found
        cell["source"] = cell["source"].replace(*change) if isinstance(change, Change) else change.new.strip()
    cells = [cell for cell in cells if cell["source"]]
    first = next(at for at, cell in enumerate(cells) if cell["cell_type"] == "code")
    install: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "install",
        "metadata": {},
        "outputs": [],
        "source": f"{INSTALL} {NOTEBOOKS[name].packages}",
    }
    kernel = {"kernelspec": {"display_name": "Python (Pyodide)", "language": "python", "name": "python"}}
    cells = [*cells[:first], install, *cells[first:]]
    for cell in cells:
        if cell["cell_type"] == "code":  # what was shown was shown elsewhere
            cell |= {"outputs": [], "execution_count": None}
    return {**notebook, "cells": cells, "metadata": {**notebook["metadata"], **kernel}}
