"""What others do with the same requests: a limiter each, in a pool of as many workers.

Bottleneck runs in node, with a client as cheap as `Fetch`.  It is no dependency of ours: npm puts it into
``out/bottleneck`` when it is first measured; without node or npm it is left out.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from .measure import ROOT, Case, Figures
from .rate_server import CONCURRENCY, LIMIT, PER_S, Fetch, judged, serving

PLACE = ROOT / "out" / "bottleneck"
PACKAGES = "bottleneck@2.19.5", "ioredis@4.28.5"  # the second for what processes share
CLIENT = Path(__file__).with_name("rate_bottleneck.cjs")
# What its readme says of "100 requests every second", with as many at once as the others have.
RESERVOIR = {
    "reservoir": LIMIT,
    "reservoirRefreshInterval": int(PER_S * 1000),
    "reservoirRefreshAmount": LIMIT,
    "maxConcurrent": CONCURRENCY,
}

Wait = Callable[[], Awaitable[object]]


def pool(make: Callable[[], Wait], n: int) -> Figures:
    """Let workers wait for a limiter's leave before each request."""
    with serving() as server:
        fetch = Fetch(server.port)

        async def run() -> int:
            items, wait, done = iter(range(n)), make(), 0

            async def worker() -> None:
                nonlocal done
                for item in items:
                    await wait()
                    await fetch(item)
                    done += 1

            async with fetch, asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(worker())
            return done

        make()  # its imports, which ours has behind it as well
        started_s = time.process_time()
        done = asyncio.run(run())
        cpu_s = time.process_time() - started_s
        return judged(server.arrivals(), fetch.latencies_s, done, cpu_s)


def with_aiolimiter() -> Wait:
    """A leaky bucket."""
    from aiolimiter import AsyncLimiter

    return AsyncLimiter(LIMIT, PER_S).acquire


def with_pyrate_limiter() -> Wait:
    """A log of starts in memory, as it comes."""
    from pyrate_limiter import Limiter, Rate

    return Limiter(Rate(LIMIT, int(PER_S * 1000))).try_acquire_async


def bottleneck(more: dict[str, int], n: int) -> Figures:
    """Run the same in node."""
    with serving() as server:
        command = bottleneck_command(server.port, n, {**RESERVOIR, **more})
        ended = subprocess.run(command, input="begin\n", stdout=subprocess.PIPE, text=True, check=True)
        seen = json.loads(ended.stdout.splitlines()[-1])
        return judged(server.arrivals(), seen["latencies_s"], seen["done"], seen["cpu_s"])


def bottleneck_command(port: int, n: int, options: dict[str, object]) -> list[str]:
    """Return what runs n requests in node, under a limiter with these options."""
    node = shutil.which("node")
    assert node is not None
    told = {"port": port, "n": n, "options": options}
    return [node, str(CLIENT), str(PLACE / "node_modules" / "bottleneck"), json.dumps(told)]


def found() -> dict[str, Case]:
    """Return the peers that are here; get Bottleneck where it can be had, and say where it cannot."""
    missing = fetch_bottleneck()
    if missing:
        print(f"  rate: Bottleneck is left out: {missing}", file=sys.stderr, flush=True)
    return {name: case for name, case in CASES.items() if not missing or not name.startswith("Bottleneck")}


def fetch_bottleneck() -> str:
    """Install Bottleneck unless it is there; return why it cannot be run, "" when it can."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "there is no node or no npm on PATH"
    if all((PLACE / "node_modules" / package.partition("@")[0]).is_dir() for package in PACKAGES):
        return ""
    PLACE.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-save", "--loglevel=error", "--prefix", str(PLACE), *PACKAGES]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if ended.returncode == 0 else f"npm install {' '.join(PACKAGES)} failed: {ended.stderr.strip()[-200:]}"


CASES: dict[str, Case] = {
    "aiolimiter": partial(pool, with_aiolimiter),
    "pyrate-limiter": partial(pool, with_pyrate_limiter),
    "Bottleneck, reservoir": partial(bottleneck, {}),
    "Bottleneck, reservoir, minTime 10": partial(bottleneck, {"minTime": 10}),
}
