"""Eight processes with clocks 60 s apart share 100 a second through one Redis, whatever befalls it, or one of them.

Each has a journal and items of its own, as on a machine of its own.  The server counts what arrives, and answers 429
to what is above 100 in any second.
"""

import re
import signal
import statistics
import time
from collections import Counter

import pytest

from tests.benchmarks.rate_server import seen_in, serving
from tests.fleet import fleet
from tests.redis_server import PROGRAM, RedisServer

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no redis-server"),
    pytest.mark.usefixtures("patience"),
]

LIMIT, CONCURRENCY, APART_S = 100, 20, 60.0
ITEMS = 1600
BEFORE = 400  # requests that arrive before something happens
AWAY_S, STOPPED_S = 5.0, 30.0


def after(server, count):
    """Wait until so many requests have arrived."""
    while server.count() < count:
        time.sleep(0.05)


def check(record, all_told, members, *, again=0):
    """Nothing is above the window, nothing lost, nothing asked twice; and print how much of the rate was used.

    Args:
        again: Requests that may have been made twice: those in flight in a process that was killed.
    """
    arrivals = sorted(at_s for at_s, _ in record)
    seen = seen_in(arrivals)
    items = [item for member in members for item in member.items]
    times = Counter(item for _, item in record)
    per_s = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
    latency_s = statistics.fmean(latency_s for told in all_told for latency_s in told["latencies_s"])
    longest_s = max(told["took_s"] for told in all_told)
    print(
        f"{len(members)} processes, {len(items)} items: worst second {max(seen)},"
        f" {sum(one > LIMIT for one in seen)} x 429, latency {latency_s * 1e3:.0f} ms;"
        f" {per_s:.1f}/s from the first request to the last, {len(arrivals) / longest_s:.1f}/s from the start;"
        f" told {dict(Counter(notes(all_told)))}"
    )
    assert max(seen) <= LIMIT
    assert {told["state"] for told in all_told} == {"completed"}
    assert set(times) == set(items)
    assert sum(times.values()) - len(items) <= again
    for member in members:
        assert member.recorded() == {"completed": len(member.items)}


def notes(all_told):
    return [note for told in all_told for note in told["notes"]]


def test_three_processes_share_a_window_through_redis(tmp_path):
    """The same in short, with nothing befalling anybody."""
    with (
        RedisServer(tmp_path / "redis") as redis,
        serving(LIMIT) as server,
        fleet(tmp_path / "fleet", server.port, redis.url, 250, members=3, apart_s=APART_S) as made,
    ):
        made.begin()
        told = made.wait()
        check(server.record(), told, made.members)


def nothing(redis, server, made):
    """Let them run."""


def restart_empty(redis, server, made):
    """Redis is killed, stays away for a while, and comes back with nothing."""
    after(server, BEFORE)
    redis.kill()
    time.sleep(AWAY_S)
    redis.start(empty=True)


def restart_old(redis, server, made):
    """Redis is killed and comes back with what it saved some hundred requests ago."""
    after(server, BEFORE // 2)
    redis.save()
    after(server, BEFORE)
    redis.kill()
    time.sleep(AWAY_S / 10)
    redis.start()


def flush(redis, server, made):
    """Somebody wipes Redis."""
    after(server, BEFORE)
    redis.flush()


def flush_twice(redis, server, made):
    """Somebody wipes Redis, and again a second later."""
    flush(redis, server, made)
    time.sleep(1.0)
    redis.flush()


def flush_and_join(redis, server, made):
    """Somebody wipes Redis just when a ninth process joins, which knows nothing of what was before."""
    ninth = made.add(ITEMS, ITEMS + 100)
    ninth.make_ready()
    flush(redis, server, made)
    ninth.begin()


def stop_redis(redis, server, made):
    """Redis stands still for a while."""
    after(server, BEFORE)
    redis.stop()
    time.sleep(AWAY_S)
    redis.go_on()


def stop_client(redis, server, made):
    """One process stands still for a while."""
    after(server, BEFORE)
    made.members[3].send(signal.SIGSTOP)
    time.sleep(STOPPED_S)
    made.members[3].send(signal.SIGCONT)


def kill_client(redis, server, made):
    """One process is killed, and started again later."""
    after(server, BEFORE)
    made.members[3].kill()
    after(server, 2 * BEFORE)
    made.members[3].start()
    made.members[3].make_ready()
    made.members[3].begin()


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("befall", "is_told"),
    [
        (nothing, ""),
        (restart_empty, "nothing starts until|lost"),
        (restart_old, "nothing starts until|lost"),  # a quick one is noticed by what it has forgotten
        (flush, "lost"),
        (flush_twice, "lost"),
        (flush_and_join, "lost"),
        (stop_redis, "nothing starts until"),
        (stop_client, ""),
        (kill_client, ""),
    ],
)
def test_fleet_keeps_the_limit_whatever_happens(befall, is_told, tmp_path):
    """Never above 100 in a second, 0 x 429, each item on record once, and what held it up is told."""
    items = ITEMS + (int(STOPPED_S) * LIMIT if befall is stop_client else 0)
    with (
        RedisServer(tmp_path / "redis") as redis,
        serving(LIMIT) as server,
        fleet(tmp_path / "fleet", server.port, redis.url, items, apart_s=APART_S) as made,
    ):
        made.begin()
        befall(redis, server, made)
        told = made.wait()
        check(server.record(), told, made.members, again=CONCURRENCY if befall is kill_client else 0)
    assert any(re.search(is_told, note) for note in [*notes(told), ""])
