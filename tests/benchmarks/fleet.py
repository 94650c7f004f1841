"""Fleet: processes that share a limit over Redis, as on so many machines; what one Redis paces, and what it costs.

Eight processes ask for 1,000 requests a second together; the server counts, over real HTTP on loopback.  Beside them
the peers that share a limit over Redis, and the same with clocks 60 s apart, as machines may have them.

permit    one permit of an otherwise idle Redis (`exchange`), beside the round trip (PING) of the same client
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests import fleet
from tests.fleet import Starter
from tests.redis_server import PROGRAM, RedisServer

from . import fleet_peers as peers
from .measure import Case, Figures, Runs, turns
from .rate_server import judged, serving
from .table import Row

PROCESSES = 8
LIMIT = 1000  # a second
CONCURRENCY = 64  # of all together
SECONDS = 10  # of steady state
WARM_UP = 3 * LIMIT  # arrivals
APART_S = 60.0
PERMITS = 3000
GRACE_S = 3.0  # a store that nobody knew before grants nothing yet
GOAL_PER_S = 0.95 * LIMIT
OURS, OURS_APART, PERMIT = "ipybatch", "ipybatch, clocks 60 s apart", "permit"
PYRATE_APART = f"{peers.PYRATE}, clocks 60 s apart"

Command = Callable[[dict[str, Any]], list[str]]


def our_command(told: dict[str, Any]) -> list[str]:
    """Return what runs one process of ours."""
    first, journal = told["number"] * told["items"], Path(told["folder"]) / f"{told['number']}" / "journal.sqlite3"
    journal.parent.mkdir()
    items = [first, first + told["items"]]
    return fleet.command(told | {"store": told["url"], "items": items, "journal": str(journal)})


def cpu_s(server: RedisServer) -> float:
    """Return what a redis-server has used so far, in seconds."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def race(n: int, command: Command, apart_s: float = 0.0) -> Figures:
    """Let processes share the limit until all have done their items."""
    folder, racers = Path(os.environ["BENCH_FOLDER"]), list[Starter]()
    with RedisServer(folder / "redis") as redis, serving() as server:
        told = {"port": server.port, "url": redis.url, "redis_port": redis.port, "folder": str(folder)}
        told |= {"limit": LIMIT, "items": n // PROCESSES, "concurrency": CONCURRENCY, "processes": PROCESSES}
        try:
            for number in range(PROCESSES):
                mine = told | {"number": number, "skew_s": number * apart_s}
                racers.append(Starter(command(mine), folder / f"errors {number}.txt"))
            for racer in racers:
                racer.make_ready()
            before_s = cpu_s(redis)
            for racer in racers:
                racer.begin()
            came_to = [racer.wait() for racer in racers]
            redis_s = cpu_s(redis) - before_s
        finally:
            for racer in racers:
                racer.kill()
        arrivals = server.arrivals()
    latencies_s = [latency_s for one in came_to for latency_s in one["latencies_s"]]
    done, clients_s = sum(one["done"] for one in came_to), sum(one["cpu_s"] for one in came_to)
    figures = judged(arrivals, latencies_s, done, clients_s, limit=LIMIT, warm_up=WARM_UP)
    overall_per_s = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
    a_request = {"client_ms": 1e3 * clients_s / n, "redis_ms": 1e3 * redis_s / n}
    return figures | a_request | {"overall_per_s": overall_per_s}


def permit(n: int) -> Figures:
    """Ask for permits one by one, and PING between them; in milliseconds."""
    from redis import Redis

    from ipybatch import Rate
    from ipybatch.engine.store.limit_store import Bounds, Report
    from ipybatch.engine.store.redis_limits import RedisLimits

    exchanges_s, pings_s = list[float](), list[float]()
    with RedisServer(Path(os.environ["BENCH_FOLDER"]) / "redis") as server:
        store, beside = RedisLimits(server.url), Redis.from_url(server.url)
        bounds = Bounds(None, 0.0, (Rate(10_000_000, per_s=60.0),))
        store.exchange(Report(resource="api", owner="bench", bounds=bounds))
        time.sleep(GRACE_S)
        for _ in range(n):
            at_s = time.perf_counter()
            beside.ping()
            between_s = time.perf_counter()
            report = Report(
                resource="api", owner="bench", bounds=bounds, spent=[(0.0, "requests", 1.0)], wanted={"requests": 1.0}
            )
            answer = store.exchange(report)
            exchanges_s.append(time.perf_counter() - between_s)
            pings_s.append(between_s - at_s)
            assert answer.wait_s == 0.0, answer
    return {"exchange_ms": statistics.median(exchanges_s) * 1e3, "ping_ms": statistics.median(pings_s) * 1e3}


HELD = (OURS, OURS_APART)  # where the window is ours to hold
APART = {OURS: OURS_APART, peers.PYRATE: PYRATE_APART}  # `limits` does not end within minutes then
COMMANDS: dict[str, Command] = {OURS: our_command} | {name: partial(peers.command, name) for name in peers.NAMES}
CASES: dict[str, Case] = {name: partial(race, command=made) for name, made in COMMANDS.items()}
CASES |= {apart: partial(race, command=COMMANDS[name], apart_s=APART_S) for name, apart in APART.items()}
CASES |= {PERMIT: permit}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run all that can be run here; the requests are scaled down to the windows that a rate needs."""
    if PROGRAM is None:
        print("  fleet: left out: there is no redis-server", file=sys.stderr, flush=True)
        return {}, 0
    lacking = {*peers.missing()}
    n = WARM_UP + max(3, round(SECONDS * scale)) * LIMIT
    found = [name for name in CASES if name != PERMIT and not any(name.startswith(one) for one in lacking)]
    runs: Runs = {}
    for _ in range(max(1, rounds // 2)):
        for name in found:
            try:
                runs.setdefault(name, []).extend(turns("fleet", [name], n=n, rounds=1)[name])
            except subprocess.CalledProcessError:
                if name in HELD:
                    raise
                print(f"  fleet: {name} did not end well", file=sys.stderr, flush=True)
    runs = {name: measured for name, measured in runs.items() if measured}
    return runs | turns("fleet", [PERMIT], n=PERMITS, rounds=rounds), n


def check(runs: Runs, n: int) -> None:
    """Every request of ours arrived once, and no window was exceeded, whatever the clocks say."""
    for name in HELD:
        for figures in runs.get(name, ()):
            assert (figures["done"], figures["arrived"], figures["over"]) == (n, n, 0), (name, figures)


def rows(runs: Runs, n: int) -> list[Row]:
    """Return the rate, the worst second, what was too much, the CPU; then what a permit costs."""
    races = {name: measured for name, measured in runs.items() if name != PERMIT}
    where = f"{PROCESSES} processes over one Redis, {LIMIT:,} a second allowed"
    figures: list[tuple[str, str, dict[str, float], bool]] = [
        (f"requests a second, {where}", "per_s", dict.fromkeys(HELD, GOAL_PER_S), True),
        ("requests in the worst second at the server", "worst", dict.fromkeys(HELD, LIMIT), False),
        (f"requests above {LIMIT:,} in their second (429s), of {n:,}", "over", dict.fromkeys(HELD, 0), False),
        ("CPU ms of all clients, a request", "client_ms", {}, False),
        ("CPU ms of Redis, a request", "redis_ms", {}, False),
    ]
    found = [
        Row(what=what, name=name, values=[one[figure] for one in of_case], goal=goals.get(name), least=least)
        for what, figure, goals, least in figures
        for name, of_case in races.items()
    ]
    if PERMIT in runs:
        cost = {"exchange, RedisLimits": "exchange_ms", "PING, redis client": "ping_ms"}
        pings = [one["ping_ms"] for one in runs[PERMIT]]
        what = "ms a permit, one client, beside the round trip"
        found += [
            Row(
                what=what,
                name=name,
                values=[one[figure] for one in runs[PERMIT]],
                ours=pings if figure != "ping_ms" else (),
            )
            for name, figure in cost.items()
        ]
    return found
