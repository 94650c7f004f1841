"""litellm's router with Redis: how many requests of a minute its processes let through together, as the server counts.

    python -m tests.benchmarks.fleet_litellm

Apart from the questions, since pip puts 350 MB into ``out`` for it, and it counts whole minutes of the clock: two
minutes' worth of requests are asked for ten seconds before the next one begins.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fleet import Starter
from tests.redis_server import RedisServer

from .measure import ROOT
from .rate_server import Fetch, seen_in, serving

PLACE, PACKAGE = ROOT / "out" / "litellm", "litellm==1.110.2"
MINUTE_S, BEFORE_S = 60.0, 10.0
PROCESSES, WORKERS, LIMIT = 4, 8, 600  # workers of each process; requests a minute
AGAIN_S = 0.5  # who is refused asks again


async def pool(port: int, redis_port: int, items: int) -> dict[str, Any]:
    """Send requests through the router, once a line of stdin has come."""
    sys.path.append(str(PLACE))
    import litellm  # type: ignore[import-not-found]

    fetch, waiting, done = Fetch(port), iter(range(items)), 0

    class Server(litellm.CustomLLM):  # type: ignore[misc]  # it has no types
        async def acompletion(self, *_: object, **__: object) -> Any:
            await fetch(0)
            usage = litellm.Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
            choice = {"message": {"role": "assistant", "content": ""}}
            return litellm.ModelResponse(choices=[choice], model="counting", usage=usage)

    litellm.suppress_debug_info = True
    litellm.custom_provider_map = [{"provider": "loopback", "custom_handler": Server()}]
    model = {"model": "loopback/counting", "api_key": "none", "rpm": LIMIT}
    router = litellm.Router(
        model_list=[{"model_name": "counting", "litellm_params": model}],
        redis_host="127.0.0.1",
        redis_port=redis_port,
        routing_strategy="usage-based-routing-v2",
        num_retries=0,
        disable_cooldowns=True,
    )
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    cpu_s = time.process_time()

    async def worker() -> None:
        nonlocal done
        for _ in waiting:
            while True:
                try:
                    await router.acompletion(model="counting", messages=[{"role": "user", "content": ""}])
                except litellm.RateLimitError:
                    await asyncio.sleep(AGAIN_S)
                else:
                    done += 1
                    break

    async with fetch, asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(worker())
    return {"done": done, "cpu_s": time.process_time() - cpu_s}


def race() -> str:
    """Let processes share the limit; return what the server saw."""
    if not PLACE.is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(PLACE), PACKAGE]
        subprocess.run(install, check=True)
    items = 2 * LIMIT
    with tempfile.TemporaryDirectory() as name, RedisServer(Path(name)) as redis, serving() as server:
        told = [str(server.port), str(redis.port), str(items // PROCESSES)]
        command, racers = [sys.executable, "-m", __spec__.name, *told], list[Starter]()
        try:
            racers += [Starter(command, Path(name) / f"errors {number}.txt") for number in range(PROCESSES)]
            for racer in racers:
                racer.make_ready()
            time.sleep((MINUTE_S - BEFORE_S - time.time()) % MINUTE_S)
            for racer in racers:
                racer.begin()
            came_to = [racer.wait() for racer in racers]
        finally:
            for racer in racers:
                racer.kill()
        arrivals = server.arrivals()
    cpu_ms = 1e3 * sum(one["cpu_s"] for one in came_to) / items
    within = sum(at_s < arrivals[0] + BEFORE_S - 1.0 for at_s in arrivals)
    return (
        f"{PACKAGE}, {PROCESSES} processes, {LIMIT} a minute allowed: {max(seen_in(arrivals, MINUTE_S))} in the worst"
        f" minute, {within} of them before the clock's minute ended; CPU {cpu_ms:.1f} ms a request"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(pool(*map(int, sys.argv[1:])))), flush=True)
    else:
        print(race())
