"""The file and Redis decide as the store in memory does, which states plainly what a store does."""

import contextlib
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ipybatch import Rate
from ipybatch.engine.store import sqlite_limits
from ipybatch.engine.store.limit_store import Counted, cost_in
from ipybatch.engine.store.redis_limits import RedisLimits
from ipybatch.engine.store.sqlite_limits import SqliteLimits
from ipybatch.testing import START_UNIX_S, Bounds, MemoryLimits, Report

RATES = Rate(2, per_s=1), Rate(5, per_s=8), Rate(9, per_s=8, unit="tokens"), Rate(4, per_s=30)

who = st.sampled_from("abc")
bounds = st.builds(
    Bounds,
    concurrency=st.sampled_from([None, None, 1, 3]),
    spacing_s=st.sampled_from([0.0, 0.0, 0.5]),
    rates=st.sets(st.sampled_from(RATES), max_size=3).map(lambda rates: tuple(sorted(rates, key=repr))),
)
resets = st.sampled_from([0.25, 5.0, math.inf])
costs = st.sampled_from([{}, {}, {"tokens": 3.0}, {"tokens": 12.0}, {"requests": 2.0, "tokens": 1.0}])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("hold to"), who, bounds),
        st.tuples(st.just("ask"), who, costs, st.sampled_from([True, True, False]), st.just(0)),
        st.tuples(st.just("ask"), who, costs, st.sampled_from([True, True, False]), st.integers(0, 4)),
        st.tuples(st.just("answer"), who, st.integers(0, 3), st.sampled_from([{}, {"tokens": 1.0}])),
        st.tuples(st.just("pass"), st.sampled_from([0.125, 0.5, 1.0, 4.0, 16.0])),
        st.tuples(st.just("give back"), who),
        st.tuples(st.just("leave"), who),
        st.tuples(st.just("vanish"), who),
        st.tuples(st.just("cool"), who, st.sampled_from([0.0, 2.0, 20.0])),
        st.tuples(st.just("cut"), who),
        st.tuples(
            st.just("count"), who, st.sampled_from(RATES), st.integers(0, 9), st.sampled_from([0.25, 5, math.inf])
        ),
        st.tuples(
            st.just("look"),
        ),
    ),
    min_size=5,
    max_size=60,
)


class Books:
    """What an owner knows of itself."""

    def __init__(self, owner):
        self.owner, self.bounds, self.flying = owner, Bounds(rates=RATES[:1]), []
        self.round_s = 0.5 if owner == "c" else 0.0

    def report(self, **more):
        units = {unit for cost, _ in self.flying for unit in ("requests", *cost)}
        in_flight = {unit: sum(cost_in(unit, cost) for cost, _ in self.flying) for unit in units}
        running = sum(slot for _, slot in self.flying)
        values = {
            "owner": self.owner,
            "bounds": self.bounds,
            "in_flight": in_flight,
            "running": running,
            "round_s": self.round_s,
        }
        return Report(resource="api", **{**values, **more})


def reports(step, books):  # noqa: C901  # one case a step
    """Return the report that a step makes, if any."""
    report = None
    match step:
        case ("hold to", owner, bounds):
            books[owner].bounds = bounds
            report = books[owner].report()
        case ("ask", owner, cost, slot, more):
            report = books[owner].report(wanted=cost, slot=slot, more=more)
        case ("answer", owner, which, actual) if books[owner].flying:
            cost, _ = books[owner].flying.pop(which % len(books[owner].flying))
            told = {"requests": 1.0, **cost, **actual}
            report = books[owner].report(spent=[(0.0, unit, amount) for unit, amount in told.items()])
        case ("give back", owner) if books[owner].flying:
            books[owner].flying.pop()
            report = books[owner].report()
        case ("leave", owner):
            report = books[owner].report(bounds=None, in_flight={}, running=0)
            books[owner] = Books(owner)
        case ("vanish", owner):
            books[owner] = Books(owner)
        case ("cool", owner, seconds):
            report = books[owner].report(cool_s=seconds, why="asked to")
        case ("cut", owner):
            report = books[owner].report(cool_most_s=1.0)
        case ("count", owner, rate, used, reset_s):
            report = books[owner].report(counted=[Counted(rate, float(used), float(reset_s))])
        case ("look",):
            report = Report(resource="api")
    return report


@contextlib.contextmanager
def in_a_file(now_s):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_limits, "LOOK_S", 0.0)
        with contextlib.closing(SqliteLimits(Path(folder) / "limits.sqlite3", now_s, now_s)) as store:
            yield store


@pytest.fixture(params=["in a file", "in Redis"])
def home(request):
    """Open the store that is compared with the one in memory, empty."""
    if request.param == "in a file":
        return in_a_file
    server = request.getfixturevalue("redis_server")

    @contextlib.contextmanager
    def in_redis(now_s):
        server.flush()
        with contextlib.closing(RedisLimits(server.url, now_s=now_s, settle_s=0.0)) as store:
            yield store

    return in_redis


@settings(suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_two_homes_give_the_same_answers(home, steps):
    """Owners that join, leave, ask, are silent for longer than a lease, and vanish; limits that change, cool-downs."""
    now_s, granted = START_UNIX_S, 0
    books = {owner: Books(owner) for owner in "abc"}
    memory = MemoryLimits(lambda: now_s)
    with home(lambda: now_s) as file:
        for step in steps:
            if step[0] == "pass":
                now_s += step[1]
            report = reports(step, books)
            if report is None:
                continue
            plain, kept = memory.exchange(report), file.exchange(report)
            assert kept.wait_s == pytest.approx(plain.wait_s, abs=1e-6)
            assert (kept.wait_s == 0.0) is (plain.wait_s == 0.0)
            assert kept.more == plain.more
            assert kept.used == pytest.approx(plain.used)
            assert {one.name: one for one in kept.owners} == {one.name: one for one in plain.owners}
            assert kept.cool_s == pytest.approx(plain.cool_s, abs=1e-6)
            assert (kept.why, kept.is_stranger) == (plain.why, plain.is_stranger)
            if report.wanted is not None and plain.wait_s == 0.0:
                books[report.owner].flying += [(report.wanted, report.slot)] * (1 + plain.more)
                granted += 1
        told = [
            sorted((round(ago_s, 4), unit, cost) for ago_s, unit, cost in store.history("api", math.inf) if cost)
            for store in (memory, file)
        ]
        assert total(told[0]) == total(told[1])
        event(f"{granted // 10}0 granted")


def total(history):
    return {unit: sum(cost for _, of, cost in history if of == unit) for unit in ("requests", "tokens")}
