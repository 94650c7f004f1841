"""What others share over Redis: the same requests, from as many processes, each with a pool of workers.

    python -m tests.benchmarks.fleet_peers NAME JSON    is one of those processes, see `tests.fleet.Starter`

`limits` and Bottleneck are no dependencies of ours: pip and npm put them into ``out`` when they are first measured.
Each is used as its documentation says; who may not start waits for as long as the limiter says.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from tests.fleet import shift_clocks

from .measure import ROOT
from .rate_peers import bottleneck_command, fetch_bottleneck
from .rate_server import PER_S, Fetch

LIMITS_PLACE = ROOT / "out" / "limits"
LIMITS_PACKAGE = "limits==5.8.0"
PYRATE, LIMITS, BOTTLENECK = "pyrate-limiter, RedisBucket", "limits, moving window", "Bottleneck, Redis cluster"

Wait = Callable[[], Awaitable[object]]


async def with_pyrate_limiter(url: str, limit: int) -> Wait:
    """Its log of starts, kept in Redis by the clocks of the clients."""
    from pyrate_limiter import Limiter, Rate, RedisBucket
    from redis.asyncio import Redis

    bucket = RedisBucket.init([Rate(limit, int(PER_S * 1000))], Redis.from_url(url), "fleet")
    limiter = Limiter(await bucket)  # type: ignore[misc]  # of both kinds, by the client
    return lambda: limiter.try_acquire_async("api")


async def with_limits(url: str, limit: int) -> Wait:
    """Its log of starts, kept in Redis by the clocks of the clients."""
    sys.path.append(str(LIMITS_PLACE))
    from limits import RateLimitItemPerSecond  # type: ignore[import-not-found]
    from limits.aio.storage import RedisStorage  # type: ignore[import-not-found]
    from limits.aio.strategies import MovingWindowRateLimiter  # type: ignore[import-not-found]

    limiter = MovingWindowRateLimiter(RedisStorage(f"async+{url}", implementation="redispy"))
    rate = RateLimitItemPerSecond(limit)

    async def wait() -> None:
        while not await limiter.hit(rate, "api"):
            stats = await limiter.get_window_stats(rate, "api")
            await asyncio.sleep(max(0.001, stats.reset_time - time.time()))

    return wait


MAKE = {PYRATE: with_pyrate_limiter, LIMITS: with_limits}
NAMES = (*MAKE, BOTTLENECK)


def command(name: str, told: dict[str, Any]) -> list[str]:
    """Return what runs one process of a peer.

    Args:
        told: Of ``port``, the ``url`` and ``redis_port`` of Redis, ``limit``, ``items`` (how many),
            ``concurrency`` (of all together), ``processes``, ``skew_s``.
    """
    if name != BOTTLENECK:
        return [sys.executable, "-m", __spec__.name, name, json.dumps(told)]
    options = {
        "id": "fleet",
        "datastore": "ioredis",
        "clientOptions": {"host": "127.0.0.1", "port": told["redis_port"]},
        "reservoir": told["limit"],
        "reservoirRefreshInterval": int(PER_S * 1000),
        "reservoirRefreshAmount": told["limit"],
        "maxConcurrent": told["concurrency"],
    }
    return bottleneck_command(told["port"], told["items"], options)


def missing() -> Iterator[str]:
    """Get the peers that are not here; tell of those that cannot be had."""
    if why := fetch_bottleneck():
        print(f"  fleet: Bottleneck is left out: {why}", file=sys.stderr, flush=True)
        yield BOTTLENECK
    if not LIMITS_PLACE.is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(LIMITS_PLACE), LIMITS_PACKAGE]
        ended = subprocess.run(install, capture_output=True, text=True, check=False)
        if ended.returncode:
            print(f"  fleet: limits is left out: {ended.stderr.strip()[-200:]}", file=sys.stderr, flush=True)
            yield LIMITS


async def pool(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """Let workers wait for the limiter's leave before each request, once a line of stdin has come."""
    wait = await MAKE[name](told["url"], told["limit"])
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    cpu_s, fetch, items, done = time.process_time(), Fetch(told["port"]), iter(range(told["items"])), 0

    async def worker() -> None:
        nonlocal done
        for item in items:
            await wait()
            await fetch(item)
            done += 1

    async with fetch, asyncio.TaskGroup() as group:
        for _ in range(told["concurrency"] // told["processes"]):
            group.create_task(worker())
    return {"done": done, "latencies_s": fetch.latencies_s, "cpu_s": time.process_time() - cpu_s}


def main(name: str, told: dict[str, Any]) -> None:
    """Run one process."""
    shift_clocks(told["skew_s"])
    print(json.dumps(asyncio.run(pool(name, told))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
