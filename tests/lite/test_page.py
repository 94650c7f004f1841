"""The built demo in a real Chromium: Python as Pyodide in a worker, JupyterLab, the panel with its buttons."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright")

from playwright.sync_api import Browser, expect

from tests.browser.lab import chromium
from tests.lite.page import BUILT, Demo, DemoNotebook

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (BUILT / "static" / "pyodide").is_dir(), reason=f"no demo in {BUILT}: make lite builds it"),
]

SLOW = """
async def slowly(item):
    await asyncio.sleep(0.2)
    return item

night = BatchSession("night", slowly, range(1000), limits=Limits(concurrency=4))
night.start()
night
"""
REFUSED = """
from ipybatch.backends import Processes
from ipybatch.library import Library
from ipybatch.simulators import serve

def kept():
    BatchSession("kept", slowly, [1], journal="kept.db").start()

for wrong in (Processes, night.run, kept, lambda: Library("games.db"), lambda: serve("steam")):
    try:
        wrong()
    except (ValueError, OSError, ipybatch.JournalError) as error:
        print(error)
"""
COUNTED = """
from collections import Counter

print(max(Counter(sound.stats()["ids"]).values()) <= 2, azeroth.stats()["tokens"] > 1)
print(azeroth.stats()["worst_second"] <= 100)
figure = go.Figure(go.Scatter(x=[0, 1], y=[1, 0]))
display({"application/vnd.plotly.v1+json": json.loads(figure.to_json())}, raw=True)
"""
ASKED = """
from js import location
from ipybatch.library import Library, SteamStore, get_library_games, refresh

store = SteamStore(location.origin, api_url=location.origin)
print(await get_library_games(steam_id="76561197960287930", key="SIMULATED", source=store))
shelf = Library("/tmp/shelf.db")
print(await refresh([440], source=store, library=shelf), shelf.get("game", 440).data["name"])
"""
GAME = {"steam_appid": 440, "name": "Team Fortress 2", "type": "game"}
ANSWERS = {
    "IPlayerService/GetOwnedGames/v1/": {"response": {"game_count": 1, "games": [{"appid": 440}]}},
    "api/appdetails": {"440": {"success": True, "data": GAME}},
}
MORE = [ASKED, SLOW, "print(await night)", "print(night.counts.cancelled + night.counts.completed)", REFUSED]


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    server = Demo()
    yield server
    server.close()


@pytest.fixture(scope="module", name="chromium")
def one_for_all() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def opened(chromium: Browser, demo: Demo, name: str, sources: list[str]) -> DemoNotebook:
    """Open a notebook, with some cells more, in a window of its own, and install the package there."""
    demo.offer(name, sources)
    page = chromium.new_page(viewport={"width": 1280, "height": 1200}, reduced_motion="reduce")
    notebook = DemoNotebook(page, demo, name)
    assert notebook.run_to_end("%pip install", 120) == ""
    return notebook


@pytest.fixture(scope="module")
def notebook(chromium: Browser, demo: Demo) -> Iterator[DemoNotebook]:
    """Notebook 00, whose first cell has imported the package."""
    demo.files |= {path: json.dumps(answer).encode() for path, answer in ANSWERS.items()}
    first = opened(chromium, demo, "00_first_session.ipynb", MORE)
    assert first.run_to_end("import asyncio") == ""
    yield first
    first.page.close()


def test_the_first_notebook_runs(demo, notebook):
    assert "100 requests" in notebook.run_to_end("session.estimate")
    notebook.run(started := notebook.index("session.start()\nsession"))
    panel = notebook.output(started)
    expect(panel.get_by_role("button", name="Pause")).to_be_visible(timeout=30_000)
    assert "99/100 successful, 1 failed" in notebook.run_to_end("summary = await session")
    expect(panel.get_by_role("button", name="Retry failed")).to_be_visible()
    again, longer, labels, frames = notebook.run_all(
        ["session.retry_failed()", "again = BatchSession", "from aiolimiter", "Results are a DataFrame"]
    )
    assert "100/100 successful" in again
    assert "101 calls so far" in again
    assert "121 calls so far" in longer
    assert "30/30 successful" in labels
    assert not demo.has_pandas or "print labels" in frames
    expect(panel).to_contain_text("100 of 100")
    expect(panel).to_contain_text("completed")


def test_buttons_work_in_the_page_while_a_cell_waits_and_while_none_does(notebook):
    notebook.run(shown := notebook.index("night.start()"))
    panel = notebook.output(shown)
    panel.get_by_role("button", name="Pause").click(timeout=30_000)
    expect(panel.get_by_role("button", name="Resume")).to_be_visible()
    notebook.run(waiting := notebook.index("await night"))
    panel.get_by_role("button", name="Resume").click()
    panel.get_by_role("button", name="Pause").click()
    panel.get_by_role("button", name="Resume").click()
    panel.get_by_role("button", name="Cancel").click()
    notebook.wait_done(waiting)
    assert "night cancelled" in notebook.output(waiting).inner_text()
    assert notebook.run_to_end("night.counts.cancelled").strip() == "1000"


def test_what_cannot_be_there_is_refused_in_a_sentence(notebook):
    processes, run, journal, library, port = notebook.run_to_end("import Processes").splitlines()
    assert processes.startswith("Processes() cannot run here, because Python in a browser has no threads")
    assert run.startswith("run() cannot wait here")
    assert journal.startswith("journal /drive/kept.db cannot lie in /drive: ")
    assert library.startswith("library /drive/games.db cannot lie in /drive: ")
    assert port == "serve('steam') cannot listen here, because a browser has no ports: use InProcess('steam')"


def test_services_are_asked_by_the_browser_itself(notebook):
    owned, refreshed = notebook.run_to_end("from js import location").splitlines()
    assert owned == "[440]"
    assert refreshed == "steam refresh completed: 1/1 successful, 0 failed, 0 skipped Team Fortress 2"


def test_a_library_is_refreshed_from_services_in_the_page(chromium, demo):
    """Notebook 01: a store with a limit that goes dark, a session that is cancelled, guilds with their members."""
    library = opened(chromium, demo, "01_library_refresh.ipynb", [COUNTED])
    assert "500 games owned, 0 known" in library.run_to_end("import asyncio")
    assert "The defaults take about" in library.run_to_end("plans = {", 120)
    library.run(started := library.index('name="library", limits=limits, retry=retry'))
    expect(library.output(started).get_by_role("button", name="Pause")).to_be_visible(timeout=30_000)
    store, down, cancelled, _, guilds, counted = library.run_all(
        ["store.outage(3)", "down = ", "night.cancel()", "bnet = BattleNet", "await refresh(wanted", "Counter("], 120
    )
    assert "library completed: 497/500 successful, 3 failed" in store
    assert "answers 429, too many requests: 0" in store
    assert "at most 40 requests in any 2 s: True" in store
    assert "requests reached the store while it was down" in down
    assert "wishlist cancelled: " in cancelled
    assert "completed with what was left: True" in cancelled
    assert "battlenet eu refresh completed: 428/429 successful, 1 failed" in guilds
    assert "library completed: 0/500 successful, 0 failed, 500 skipped" in guilds
    assert counted.split()[:3] == ["True", "True", "True"]
    expect(library.output(library.index("Counter(")).locator(".js-plotly-plot")).to_be_visible()


@pytest.mark.usefixtures("notebook")
def test_the_page_asks_for_no_server_of_ours(demo):
    """The side bar would ask a server again and again."""
    assert not [path for path in demo.asked if "ipybatch" in path], json.dumps(demo.asked)
