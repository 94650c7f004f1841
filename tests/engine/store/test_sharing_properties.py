"""Properties of processes that share a resource: never faster than allowed, and nobody starves."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ipybatch import Limits, Rate
from ipybatch.engine.rules.limiter import NO_COST, cost_in
from ipybatch.engine.rules.rate_headers import Quota, Told
from ipybatch.engine.store import sqlite_limits, store_link
from tests.engine.store.sharing import DELAYS_S, Process, World, worst_case

who = st.integers(0, 3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("want"), who, st.sampled_from([1, 3, 12, 40]), st.sampled_from([0.0, 0.003, 0.05, 0.4, 2.5])),
        st.tuples(st.just("want"), who, st.integers(1, 12), st.sampled_from([0.0, 0.003, 0.05, 0.4, 2.5])),
        st.tuples(st.just("pass"), st.sampled_from([0.001, 0.01, 0.03, 0.06, 0.5, 1.1, 4.0])),
        st.tuples(st.just("stop"), who, st.sampled_from([0.02, 3.0, 25.0, 80.0])),
        st.tuples(st.just("kill"), who),
        st.tuples(st.just("leave"), who),
        st.tuples(st.just("store"), st.just("go_away"), st.sampled_from([0.5, 4.0, 20.0])),
        st.tuples(st.just("store"), st.just("wipe")),
        st.tuples(st.just("heed"), who, st.integers(0, 30), st.sampled_from([None, 0.3, 2.0])),
    ),
    min_size=8,
    max_size=40,
)
rates = st.lists(
    st.builds(
        Rate,
        st.sampled_from([1, 2, 3, 8, 30]),
        st.sampled_from([0.5, 1.0, 3.0]),
        st.sampled_from(["requests", "requests", "tokens"]),
    ),
    min_size=1,
    max_size=2,
)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    """Nobody waits in real time for a store that is held."""
    monkeypatch.setattr(store_link, "PATIENCE_S", -1.0)


def play(world, limits, steps, cost, *, living=None, kind=Process):  # noqa: C901  # one case a step
    living = {} if living is None else living

    def process(which):
        if which not in living:
            living[which] = kind(world, f"process {which}/{len(world.processes)}", limits)
            world.at(world.now_s, living[which], living[which].begin)
        return living[which]

    for step in steps:
        match step:
            case ("want", which, requests, latency_s):
                process(which).want([latency_s] * requests, cost)
            case ("pass", seconds):
                world.run_until(world.now_s + seconds)
            case ("stop", which, seconds) if which in living:
                living[which].stop(seconds)
            case ("kill", which) if which in living:
                living.pop(which).kill()
            case ("leave", which) if which in living:
                living.pop(which).leave()
            case ("store", act, *how):
                getattr(world.far, act)(*how)
            case ("heed", which, remaining, reset_s) if which in living and living[which].has_begun:
                quotas = Quota(remaining=remaining, reset_s=reset_s), Quota(limit=limits.rates[0].limit, remaining=1)
                living[which].limiter.heed(living[which].now_s(), Told(quotas=quotas))
    return living


def check(world, limits):
    for rate in limits.rates:
        sent = [
            (start_s, end_s, cost_in(rate.unit, cost))
            for process in world.processes.values()
            for start_s, end_s, cost in process.sent
        ]
        most = worst_case(sent, rate.per_s)
        assert most <= rate.limit, f"{most:g} in {rate}"


@settings(max_examples=max(1, settings().max_examples // 2))
@given(
    steps=steps,
    rates=rates,
    concurrency=st.sampled_from([2, 40]),
    tokens=st.sampled_from([0.0, 1.0]),
    faults=st.sampled_from([0.0, 0.05, 0.3]),
    delays_s=st.one_of(st.just(()), st.lists(st.sampled_from(DELAYS_S), min_size=1, max_size=4)),
    seed=st.integers(0, 10_000),
)
def test_no_window_is_exceeded_whatever_befalls_the_processes(
    *, steps, rates, concurrency, tokens, faults, delays_s, seed
):
    """Late and early arrivals, lost answers, a store that is held, SIGSTOP, kill -9; and all of them go on after it.

    And of a store that is a network away, late answers, reports that come after later ones, and one that is away, or
    has forgotten everything.
    """
    limits = Limits(concurrency=concurrency, rates=rates)
    cost = {"tokens": tokens} if tokens else NO_COST
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        world = World(Path(folder) / "limits.sqlite3", random.Random(seed), faults, delays_s)
        patch.setattr(sqlite_limits, "find_process", world.find_process)
        try:
            living = play(world, limits, steps, cost)
            world.run_until(world.now_s + 5.0)
            world.faults = 0.0
            for process in living.values():
                process.wanted.clear()
            world.run_until(world.now_s + 100.0)
            for process in living.values():
                process.want([0.1], cost)
            world.run_until(world.now_s + (90.0 if delays_s else 20.0))
            check(world, limits)
            assert [process.owner for process in living.values() if process.wanted] == [], "starved"
            event(f"{len(world.processes)} processes")
        finally:
            world.close()
