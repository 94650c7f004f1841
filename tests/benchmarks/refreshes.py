"""Refreshes: CPU per request of a refresh, beside bare clients that keep nothing.

The simulated store runs in a process of its own, over real HTTP on loopback, so its CPU time is not counted.  Everybody
asks for the same games, 50 at once; all threads count, from where everything is imported.  Ours judges staleness,
paces, and commits a record and an outcome for each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

from .measure import Case, Figures, Runs, run
from .table import Row

GAMES = 3000
AT_ONCE = 50
GOAL = 1.3
URL = "BENCH_URL"
OURS, BARE = "ipybatch refresh()", "bare httpx2"

Get = Callable[[int], Any]


def ours(n: int) -> Figures:
    """Refresh a library."""
    import httpx2  # noqa: F401  # what is loaded on first use, here as with the peers

    from ipybatch import Limits
    from ipybatch.library import Library, SteamStore, refresh

    library = Library(os.environ["BENCH_FOLDER"] + "/library.db")
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    limits = Limits(concurrency=AT_ONCE)
    session = refresh(range(10, 10 + n), source=SteamStore(os.environ[URL]), library=library, limits=limits)
    done = session.run().counts.completed
    return _figures(wall_s, cpu_s, done)


def bare(opened: Callable[[str], contextlib.AbstractAsyncContextManager[Get]], n: int) -> Figures:
    """Ask from as many coroutines as there may be requests at once, and read each answer."""

    async def ask_all() -> int:
        games, done = iter(range(10, 10 + n)), 0

        async def ask(get: Get) -> None:
            nonlocal done
            for app_id in games:
                answer = await get(app_id)
                done += answer[str(app_id)]["success"]

        async with opened(f"{os.environ[URL]}/api/appdetails") as get:
            await asyncio.gather(*(ask(get) for _ in range(AT_ONCE)))
        return done

    for name in ("aiohttp", "httpx", "httpx2"):
        importlib.import_module(name)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    return _figures(wall_s, cpu_s, asyncio.run(ask_all()))


@contextlib.asynccontextmanager
async def of_httpx(name: str, url: str) -> AsyncIterator[Get]:
    """Open a client of httpx or httpx2, its pool as large as what runs at once."""
    module: Any = importlib.import_module(name)
    limits = module.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with module.AsyncClient(timeout=30, limits=limits) as client:

        async def get(app_id: int) -> Any:
            return (await client.get(url, params={"appids": app_id, "cc": "us"})).json()

        yield get


@contextlib.asynccontextmanager
async def of_aiohttp(url: str) -> AsyncIterator[Get]:
    """Open a client of aiohttp."""
    import aiohttp

    async with aiohttp.ClientSession() as client:

        async def get(app_id: int) -> Any:
            async with client.get(url, params={"appids": app_id, "cc": "us"}) as response:
                return await response.json()

        yield get


def _figures(wall_s: float, cpu_s: float, done: int) -> Figures:
    return {"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - wall_s, "done": done}


CASES: dict[str, Case] = {
    OURS: ours,
    BARE: partial(bare, partial(of_httpx, "httpx2")),
    "bare httpx": partial(bare, partial(of_httpx, "httpx")),
    "bare aiohttp": partial(bare, of_aiohttp),
}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run everybody in turn, each beside a store of its own."""
    n = max(100, int(GAMES * scale))
    os.environ["NO_PROXY"] = "127.0.0.1"
    runs: Runs = {name: [] for name in CASES}
    for number in range(rounds):
        for name in CASES:
            print(f"  refresh {number + 1}/{rounds}: {name}", file=sys.stderr, flush=True)
            with serving() as url:
                os.environ[URL] = url
                command = [sys.executable, "-m", "tests.benchmarks.measure", "refreshes", name, str(n)]
                runs[name].append(run(command))
    return runs, n


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Start the store in a process of its own, and give its address."""
    command = [sys.executable, "-m", "ipybatch.simulators", "steam", "--limit", "None"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def check(runs: Runs, n: int) -> None:
    """Everybody has every answer."""
    for name, of_case in runs.items():
        assert all(figures["done"] == n for figures in of_case), (name, of_case)


def rows(runs: Runs, n: int) -> list[Row]:
    """Return CPU per request, and requests a second of one core."""
    cpu_ms = {name: [1e3 * figures["cpu_s"] / n for figures in of_case] for name, of_case in runs.items()}
    floor_ms = statistics.median(cpu_ms[BARE])
    what = f"CPU a request, ms, {AT_ONCE} at once"
    per_s = [1e3 / ms for ms in cpu_ms[OURS]]
    return [
        Row(what=what, name=OURS, values=cpu_ms[OURS]),
        *[Row(what=what, name=name, values=ms, ours=cpu_ms[OURS]) for name, ms in cpu_ms.items() if name != OURS],
        Row(what=f"the same over {BARE}", name=OURS, values=[ms / floor_ms for ms in cpu_ms[OURS]], goal=GOAL),
        Row(what="requests a second on a core", name=OURS, values=per_s, goal=450, least=True),
    ]
