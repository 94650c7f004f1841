"""The engine, a generator, the library on a simulated store and the panel, in a real Pyodide under Node.

pandas and numpy have no wheels for Pyodide on PyPI, only on Pyodide's own server: so no frames here.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("IPYBATCH_PYODIDE", ROOT / "out" / "pyodide"))
INSTEAD = "use what can be awaited, such as `await session`"
KEPT = (
    "journal /source/j.db cannot lie in /source: Python in a browser can keep SQLite's files in its memory alone. "
    "Leave out journal= and IPYBATCH_JOURNAL, and keep results with save()"
)
SCRIPT = """
import asyncio, json, sys
from ipybatch import BatchSession, Limits, Rate

assert sys.platform == "emscripten"
calls, scale = [], {parcel: parcel for parcel in range(1, 60) if parcel != 13}

async def weigh(parcel):
    calls.append(parcel)
    await asyncio.sleep(0.01)
    return scale[parcel]

limits = Limits(concurrency=4, rates=[Rate(30, per_s=0.3)])
session = BatchSession("weigh", weigh, range(1, 41), limits=limits)
session.start()
print(session.state)
print(await session)
scale[13] = 13
session.retry_failed()
print(await session, len(calls))

longer = BatchSession("weigh", weigh, range(1, 46), limits=limits)
longer.start()
print(longer.pause())
longer.resume()
print([outcome.key async for outcome in longer.stream()], longer.state)
print(await BatchSession("drawn", weigh, (parcel for parcel in range(20, 50))))
print(BatchSession.open("drawn").counts.completed)
try:
    longer.run()
except ValueError as error:
    print(error)

import httpx2
from ipybatch.library import Library, SteamStore, refresh
from ipybatch.simulators import SimTransport, SteamSimulator
steam = SteamSimulator(limit=40, per_s=1)
client = httpx2.AsyncClient(transport=SimTransport(steam))
library = Library("/tmp/games.db")
source = SteamStore("http://steam.invalid", client=client)
games = refresh(range(10, 510, 10), source=source, library=library, limits=Limits(rates=[Rate(40, per_s=1)]))
print(await games, steam.stats()["statuses"])

from ipybatch.jupyter.panel import Panel
shown = BatchSession("shown", weigh, range(20, 26), limits=Limits(rates=[Rate(2, per_s=0.3)]))
panel, sent = Panel(shown), []
panel.send = lambda content, buffers=None: sent.append(json.loads(buffers[0]))
panel.hear({"kind": "hello", "view": "v"})
shown.start()
panel.act(f"{panel.panel_id}/1/pause")
while shown.state != "paused":
    await asyncio.sleep(0.01)
panel.act(f"{panel.panel_id}/2/resume")
print(await shown)
while not any(message["kind"] == "update" and message["head"]["state"] == "completed" for message in sent):
    await asyncio.sleep(0.01)
print(sorted(message["id"].partition("/")[2] for message in sent if message["kind"] == "ack" and message["done"]))

from js import BroadcastChannel
from ipybatch.errors import JournalError
said = Panel(BatchSession("said", weigh, range(30, 36), limits=Limits(rates=[Rate(2, per_s=0.3)])))
said.send = lambda content, buffers=None: None
said._session.start()
BroadcastChannel.new("ipybatch").postMessage(json.dumps(["act", f"{said.panel_id}/1/cancel"]))
print((await said._session).state)

try:
    BatchSession("kept", weigh, [1], journal="/source/j.db").start()
except JournalError as error:
    print(error)
"""


@pytest.mark.skipif(
    not (FOLDER / "wheels").is_dir(),
    reason=f"no Pyodide in {FOLDER}: make pyodide brings it (IPYBATCH_PYODIDE moves it)",
)
def test_sessions_run_in_pyodide(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    node = ["node", str(ROOT / "tests" / "lite" / "pyodide.mjs"), str(FOLDER), str(ROOT / "src"), str(script)]
    ended = subprocess.run(node, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "running",
        "weigh completed: 39/40 successful, 1 failed, 0 skipped",
        "weigh completed: 40/40 successful, 0 failed, 0 skipped 41",
        "done",
        "[41, 42, 43, 44, 45] completed",
        "drawn completed: 30/30 successful, 0 failed, 0 skipped",
        "30",
        f"run() cannot wait here, because Python in a browser has no threads: {INSTEAD}",
        "steam refresh completed: 50/50 successful, 0 failed, 0 skipped {'200': 50}",
        "shown completed: 6/6 successful, 0 failed, 0 skipped",
        "['1/pause', '2/resume']",
        "cancelled",
        KEPT,
    ]
