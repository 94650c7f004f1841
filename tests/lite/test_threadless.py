"""A Python without threads: the engine, the panel and a notebook, in CPython that cannot start one.

Each script runs in a process of its own, because whether there are threads is looked at once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path: Path, script: str | Path) -> str:
    """Return what a script or a notebook prints where no thread can be started."""
    path = script if isinstance(script, Path) else tmp_path / "script.py"
    if isinstance(script, str):
        head = f"import os\nos.environ['IPYBATCH_JOURNAL'] = {str(tmp_path / 'j.sqlite')!r}\n"
        path.write_text(head + dedent(script))
    ended = subprocess.run(
        [sys.executable, "-m", "tests.threadless", str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_threads_cannot_be_started_there(tmp_path):
    script = """
        import threading
        try:
            threading.Thread(target=print).start()
        except RuntimeError as error:
            print(error)
    """
    assert run(tmp_path, script) == "can't start new thread\n"


def test_the_first_notebook_runs(tmp_path):
    printed = run(tmp_path, ROOT / "notebooks" / "00_first_session.ipynb")
    assert "weigh parcels completed: 100/100 successful" in printed
    assert "101 calls so far: 100 parcels, and one of them twice" in printed
    assert "121 calls so far: 20 for what is new" in printed
    assert "print labels completed: 30/30 successful" in printed


def test_sessions_are_told_what_to_do_and_go_on(tmp_path):
    script = """
        import asyncio
        from ipybatch import BatchSession, Limits

        may = asyncio.Event()
        tries = []

        async def work(item):
            tries.append(item)
            if item > 1:
                await may.wait()
            if tries.count(item) == 1 and item == 4:
                raise ValueError("not yet")
            return item

        session = BatchSession("x", work, range(6), limits=Limits(concurrency=3))
        session.start()
        stream = session.stream()
        print([(await anext(stream)).key for _ in range(2)])
        print(session.pause())
        await asyncio.sleep(0)
        print(session.state)
        may.set()
        session.resume()
        print([outcome.key async for outcome in stream] == [2, 3, 4, 5], await session)
        session.retry_failed()
        print(await session, tries.count(4))

        may.clear()
        other = BatchSession("y", work, range(10, 20))
        other.start()
        await asyncio.sleep(0)
        print(other.cancel())
        print(await other)
        again = BatchSession.open("x")
        print(again.state, len(again.results()))
    """
    assert run(tmp_path, script).splitlines() == [
        "[0, 1]",
        "asked",
        "paused",
        "True x completed: 5/6 successful, 1 failed, 0 skipped",
        "x completed: 6/6 successful, 0 failed, 0 skipped 2",
        "asked",
        "y cancelled: 0/10 successful, 0 failed, 0 skipped, 10 cancelled",
        "completed 6",
    ]


def test_generators_are_read_a_chunk_at_a_time(tmp_path):
    script = """
        from ipybatch import BatchSession

        async def work(item):
            return len(given)

        given = []
        items = (given.append(item) or item for item in range(1000))
        session = BatchSession("x", work, items)
        print(await session)
        first = session.results().result.iloc[0]
        print(first < 1000)

        def broken():
            yield 1
            raise OSError("no more")

        print(await BatchSession("y", work, broken()))
    """
    good, is_chunked, bad = run(tmp_path, script).splitlines()
    assert good == "x completed: 1000/1000 successful, 0 failed, 0 skipped"
    assert is_chunked == "True"
    assert bad.startswith("y failed: 1/1 successful")
    assert "OSError: no more" in bad


def test_panels_are_updated_and_their_buttons_work(tmp_path):
    script = """
        import asyncio, json
        from ipybatch import BatchSession, Limits, Rate
        from ipybatch.jupyter.panel import Panel

        async def work(item):
            return item

        session = BatchSession("x", work, range(3), limits=Limits(rates=[Rate(1, per_s=0.3)]))
        panel, sent = Panel(session), []
        panel.send = lambda content, buffers=None: sent.append(json.loads(buffers[0]))
        panel.hear({"kind": "hello", "view": "v"})
        session.start()
        panel.act(f"{panel.panel_id}/1/pause")
        while session.state != "paused":
            await asyncio.sleep(0.01)
        panel.act(f"{panel.panel_id}/2/resume")
        await session
        while not any(message["kind"] == "update" and message["head"]["state"] == "completed" for message in sent):
            await asyncio.sleep(0.01)
        acks = [message for message in sent if message["kind"] == "ack"]
        print({ack["id"].partition("/")[2]: ack["ok"] and ack["done"] for ack in acks})
    """
    assert run(tmp_path, script) == "{'1/pause': True, '2/resume': True}\n"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("BatchSession('x', work, [1]).run()", "run() cannot wait here, because Python in a browser has no threads"),
        ("BatchSession('x', plain, [1])", "work that is a plain function cannot run here"),
        ("Processes()", "Processes() cannot run here"),
        ("threading_start()", "none is running"),
    ],
)
def test_what_needs_threads_is_refused_in_a_sentence(tmp_path, call, told):
    script = f"""
        import contextvars
        from asyncio import events
        from ipybatch import BatchSession
        from ipybatch.backends import Processes
        from ipybatch.errors import InputError

        async def work(item):
            return item

        def plain(item):
            return item

        def threading_start():
            running = events._get_running_loop()
            events._set_running_loop(None)
            try:
                BatchSession("x", work, [1]).start()
            finally:
                events._set_running_loop(running)

        try:
            {call}
        except InputError as error:
            print(error)
    """
    printed = run(tmp_path, script)
    assert told in printed
    assert printed.count("\n") == 1


def test_beats_renew_leases_without_a_thread(tmp_path):
    script = """
        import asyncio
        from ipybatch import BatchSession
        from ipybatch.engine.store import lease
        lease.BEAT_S = 0.01
        beats = []
        beat = lease.Lease.beat
        lease.Lease.beat = lambda self: (beats.append(1), beat(self))

        async def work(item):
            while len(beats) < 3:
                await asyncio.sleep(0.01)

        print(await BatchSession("x", work, [1]))
    """
    assert run(tmp_path, script) == "x completed: 1/1 successful, 0 failed, 0 skipped\n"


def test_the_games_of_a_profile_are_awaited(tmp_path):
    script = """
        from ipybatch.library import SteamStore, get_library_games
        from ipybatch.simulators import InProcess

        steam = InProcess("steam", libraries={"76561197960287930": [570, 440]})
        store = SteamStore(steam.url, api_url=steam.url, client=steam.client)
        print(await get_library_games(steam_id="76561197960287930", key="SIMULATED", source=store))
        try:
            store.owned_games("76561197960287930", "SIMULATED")
        except ValueError as error:
            print(error)
    """
    games, refused = run(tmp_path, script).splitlines()
    assert games == "[570, 440]"
    assert refused.startswith("this call cannot wait here, because Python in a browser has no threads")
