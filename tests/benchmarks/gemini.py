"""Gemini: the same prompts through ours and through its peers, against quotas that are held strictly.

The simulated service runs in a process of its own, over real HTTP on loopback, and keeps the books: what it
refused, and what it billed more than once.  Answers take 200 ms, lognormal.

    bucket   3,000 requests a minute, 50 at once at first      ideal: (500 - 50) / 50 + one answer
    window   300 in any 6 s                                    ideal: 6 s, the 200th start, one answer
    calls    no quota, answers after 20 ms                     CPU of a call, beside aiohttp by hand

CPU and time count from where everything is imported; memory counts all.  In the third case all of them send one prompt
before that, as each loads more on its first call; sessions, clients and connections are made anew for the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import gemini_peers as peers
from .measure import Case, Figures, Runs, run
from .memory import MB, peak
from .table import Row

PROMPTS = 500
CALL_COUNT = 3000
JOB_PROMPTS = 10_000
FAILURES = 0.03
RPM = 3000
URL = "BENCH_URL"
LATENCY_S = 0.2 * 1.083  # the mean of a lognormal with this median and sigma 0.4
ANSWERS = {"latency_s": 0.2, "latency_sigma": 0.4}
GOAL_MB = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the service holds to, and how long the best client takes."""

    options: dict[str, Any]
    ideal_s: float = 0.0


BUCKET, WINDOW, JOBS = "bucket of 3,000 a minute, 50 at once", "window of 300 in 6 s", "batch jobs"
CALLS = "online, 50 at once, no quota"
SERVICES = {
    BUCKET: Service(options={**ANSWERS, "rpm": RPM, "burst": 50}, ideal_s=9.25),
    WINDOW: Service(
        options={**ANSWERS, "windows": [[300, 6.0]]},
        ideal_s=6 + 150 / peers.AT_ONCE * LATENCY_S + LATENCY_S,
    ),
    CALLS: Service(options={"latency_s": 0.02}),
    JOBS: Service(options={"item_failure_rate": FAILURES, "batch_delay_s": 1.0, "output_tokens": 60}),
}


def ours(url: str, prompts: list[str], rpm: int | None) -> Callable[[], list[str | None]]:
    """Return what runs a session."""
    from google import genai  # noqa: F401  # what is loaded on first use, here as with the peers

    from ipybatch.gemini import Model, generate

    def run() -> list[str | None]:
        session = generate(
            prompts,
            models=[Model(peers.MODEL, rpm=rpm)],
            concurrency=peers.AT_ONCE,
            base_url=url,
            api_key=peers.KEY,
        )
        done = session.run().counts.completed
        return [""] * done + [None] * (len(prompts) - done)

    return run


def jobs(url: str, prompts: list[str], rpm: int | None) -> Callable[[], list[str | None]]:
    """Return what runs a session by batch jobs."""
    from google import genai  # noqa: F401

    from ipybatch.gemini import generate

    def run() -> list[str | None]:
        session = generate(prompts, lane="batch", poll_s=1, base_url=url, api_key=peers.KEY)
        done = session.run().counts.completed
        return [""] * done + [None] * (len(prompts) - done)

    return run


def measured(contestant: peers.Contestant, rpm: int | None, n: int, *, is_warm: bool = False) -> Figures:
    """Run one contestant against the service that is there.

    Args:
        is_warm: Whether it sends one prompt before the time is taken.
    """
    if is_warm:
        contestant(os.environ[URL], ["Name no star"], rpm)()
    work = contestant(os.environ[URL], [f"Name star {number}" for number in range(n)], rpm)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    texts = work()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    done = sum(text is not None for text in texts)
    return {"wall_s": wall_s, "cpu_s": cpu_s, "mb": peak() / MB, "lost": n - done}


OURS, OURS_LEARNING, OURS_JOBS = "ipybatch, rpm=3000", "ipybatch, nothing told", "ipybatch, batch"
OURS_CALLS, BY_HAND = "ipybatch, rpm=10,000,000", "aiohttp by hand"
CALLERS: dict[str, tuple[peers.Contestant, int | None]] = {
    OURS_CALLS: (ours, 10_000_000),
    "google-genai, attempts=1": (peers.once, None),
    BY_HAND: (peers.aiohttp, None),
}
CONTESTANTS: dict[str, tuple[peers.Contestant, int | None]] = {
    OURS: (ours, RPM),
    OURS_LEARNING: (ours, None),
    "google-genai, HttpRetryOptions()": (peers.plain, None),
    "litellm Router, rpm=3000": (peers.litellm, RPM),
    "litellm Router": (peers.litellm, None),
    "lm-deluge, rpm=3000": (peers.lm_deluge, RPM),
    "lm-deluge, its default of 1,000": (peers.lm_deluge, None),
    OURS_JOBS: (jobs, None),
    **CALLERS,
}
CASES: dict[str, Case] = {
    name: partial(measured, work, rpm, is_warm=name in CALLERS) for name, (work, rpm) in CONTESTANTS.items()
}
GOALS = {OURS: (1.12, 0.0), OURS_LEARNING: (1.10, 25.0)}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run everybody against every service; what is not installed is left out.  Only the batch is scaled."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    runs: Runs = {}
    for number in range(rounds):
        for service in SERVICES:
            for name in _present(service):
                print(f"  gemini {number + 1}/{rounds}: {service}: {name}", file=sys.stderr, flush=True)
                n = {JOBS: int(JOB_PROMPTS * scale), CALLS: CALL_COUNT}.get(service, PROMPTS)
                runs.setdefault(f"{service}: {name}", []).append(_run(service, name, n))
    return runs, int(JOB_PROMPTS * scale)


def _present(service: str) -> list[str]:
    if service == JOBS:
        return [OURS_JOBS]
    if service == CALLS:
        return list(CALLERS)
    names = [name for name in CONTESTANTS if name != OURS_JOBS and name not in CALLERS]
    if peers.PYTHON.exists():
        return names
    print(f"  gemini: no litellm, no lm-deluge. Run: python -m {peers.__name__}", file=sys.stderr, flush=True)
    return [name for name in names if not _is_elsewhere(name)]


def _is_elsewhere(name: str) -> bool:
    return CONTESTANTS[name][0] in (peers.litellm, peers.lm_deluge)


def _run(service: str, name: str, n: int) -> Figures:
    with serving(SERVICES[service].options) as (url, truth):
        os.environ[URL] = url
        python = str(peers.PYTHON) if _is_elsewhere(name) else sys.executable
        figures = run([python, "-m", "tests.benchmarks.measure", "gemini", name, str(n)])
        return {**figures, **truth()}


@contextlib.contextmanager
def serving(options: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Figures]]]:
    """Start the service; give its address and a function that ends it and returns what it knows."""
    command = [sys.executable, "-m", __spec__.name, json.dumps(options)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None

    def truth() -> Figures:
        told, _ = server.communicate()
        figures: Figures = json.loads(told)
        return figures

    try:
        yield server.stdout.readline().strip(), truth
    finally:
        server.kill()
        server.wait()


def serve_alone(options: dict[str, Any]) -> None:
    """Serve until the parent closes stdin, then print what is in the books."""
    from ipybatch.simulators import serve

    server = serve("gemini", **options)
    print(server.url, flush=True)
    sys.stdin.read()
    truth: Any = dict(server.stats())["truth"]
    books = {
        "refused": truth["refused"],
        "twice": len(truth["billed_twice"]),
        "jobs": len(truth["jobs"]),
        "jobs_twice": len(truth["submitted_twice"]),
        "billed": sum(lane["generations"] for lane in truth["billed"].values()),
    }
    print(json.dumps(books))
    server.close()


def check(runs: Runs, n: int) -> None:
    """Ours loses nothing and pays for nothing twice; a job is submitted once."""
    for name, of_case in runs.items():
        for figures in of_case:
            if ": ipybatch" in name:
                assert (figures["lost"], figures["twice"], figures["jobs_twice"]) == (0, 0, 0), (name, figures)


def rows(runs: Runs, n: int) -> list[Row]:
    """Return time over ideal, 429s, what was lost and billed twice, CPU and memory."""
    made: list[Row] = []
    for service in (BUCKET, WINDOW):
        named = {name: runs[f"{service}: {name}"] for name in CONTESTANTS if f"{service}: {name}" in runs}
        for word, figure, goal in _questions(SERVICES[service].ideal_s):
            what = f"gemini, {PROMPTS} prompts, {service}: {word}"
            values = {name: [figure(figures) for figures in of_case] for name, of_case in named.items()}
            made += [
                Row(what=what, name=name, values=found, goal=None if goal is None else GOALS.get(name, NONE)[goal])
                for name, found in values.items()
            ]
    return made + _call_rows(runs) + _job_rows(runs, n)


NONE: tuple[float | None, float | None] = (None, None)


def _questions(ideal_s: float) -> list[tuple[str, Callable[[Figures], float], int | None]]:
    return [
        ("time over ideal", lambda figures: figures["wall_s"] / ideal_s, 0),
        ("answers 429", lambda figures: figures["refused"], 1),
        ("lost", lambda figures: figures["lost"], None),
        ("billed twice", lambda figures: figures["twice"], None),
        ("client CPU s", lambda figures: figures["cpu_s"], None),
        ("resident MB at most", lambda figures: figures["mb"], None),
    ]


def _call_rows(runs: Runs) -> list[Row]:
    ms = {name: [1000 * f["cpu_s"] / CALL_COUNT for f in runs[f"{CALLS}: {name}"]] for name in CALLERS}
    what = f"gemini, {CALL_COUNT:,} prompts {CALLS}: "
    beside = ms[OURS_CALLS]
    times = [ours / by_hand for ours, by_hand in zip(beside, ms[BY_HAND], strict=True)]
    return [
        *[
            Row(
                what=f"{what}client CPU ms a call",
                name=name,
                values=values,
                ours=() if name == OURS_CALLS else ms[OURS_CALLS],
            )
            for name, values in ms.items()
        ],
        Row(what=f"{what}client CPU, times aiohttp by hand", name=OURS_CALLS, values=times, goal=2.5),
        Row(
            what=f"{what}calls a second on a core",
            name=OURS_CALLS,
            values=[1000 / each for each in beside],
            goal=600.0,
            least=True,
        ),
    ]


def _job_rows(runs: Runs, n: int) -> list[Row]:
    of_case = runs[f"{JOBS}: {OURS_JOBS}"]
    asked: list[tuple[str, str, float | None]] = [
        ("s", "wall_s", None),
        ("client CPU s", "cpu_s", None),
        ("resident MB at most", "mb", GOAL_MB),
        ("jobs", "jobs", None),
        ("lost", "lost", 0.0),
        ("billed twice", "twice", 0.0),
    ]
    what = f"gemini, {n:,} prompts in batch jobs, {FAILURES:.0%} of items fail: "
    return [
        Row(what=what + word, name=OURS_JOBS, values=[f[key] for f in of_case], goal=goal) for word, key, goal in asked
    ]


if __name__ == "__main__":
    serve_alone(json.loads(sys.argv[1]))
