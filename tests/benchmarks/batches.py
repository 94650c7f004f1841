"""Batches: what batch jobs of Gemini take of the process that sends them, from the first prompt to the last answer.

    texts    10,000 prompts, in one job
    images   120 prompts with an image of 4 MB each
    many     100,000 prompts

The service runs in a process of its own, on loopback.  A heartbeat on the engine's loop tells for how long nothing else
turned there; what passes of Python's garbage collector take of that is told apart: they are longer the more objects a
process has, 50 ms with the imports alone.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from .gemini import URL, serving
from .measure import Case, Figures, Runs, run
from .memory import MB, peak
from .table import Row

TEXTS, IMAGES, MANY = "10,000 prompts", "120 images of 4 MB", "100,000 prompts"
SIZES = {TEXTS: 10_000, IMAGES: 120, MANY: 100_000}
GOALS_MB = {TEXTS: 300.0, IMAGES: 300.0, MANY: 900.0}
GOAL_S = 0.05
IMAGE_BYTES = 4_000_000
BEAT_S = 0.002
OURS = "ipybatch, batch"
SERVICE = {"batch_delay_s": 1.0, "output_tokens": 60}


class Heartbeat:
    """Measures how long the engine's loop does not turn, with and without the garbage collector."""

    def __init__(self) -> None:
        self.gaps: list[tuple[float, float]] = []  # begin, end
        self.passes: list[tuple[float, float]] = []
        self._began_s = 0.0

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat on the engine's loop meanwhile."""
        from ipybatch.engine.run.engine_thread import engine_thread

        beat = asyncio.run_coroutine_threadsafe(self._beat(), engine_thread().loop)
        gc.callbacks.append(self._note)
        try:
            yield
        finally:
            gc.callbacks.remove(self._note)
            beat.cancel()

    @property
    def figures(self) -> Figures:
        """The longest stop but for the garbage collector, and its longest pass, seconds."""
        long = [(begin, end) for begin, end in self.gaps if end - begin > GOAL_S / 2]
        return {
            "stop_s": max([end - begin - self._collected(begin, end) for begin, end in long], default=0.0),
            "gc_s": max([end - begin for begin, end in self.passes], default=0.0),
        }

    def _collected(self, begin_s: float, end_s: float) -> float:
        return sum(max(0.0, min(end, end_s) - max(begin, begin_s)) for begin, end in self.passes)

    async def _beat(self) -> None:
        last_s = time.perf_counter()
        while True:
            await asyncio.sleep(BEAT_S)
            now_s = time.perf_counter()
            self.gaps.append((last_s + BEAT_S, now_s))
            last_s = now_s

    def _note(self, phase: str, info: Any) -> None:
        now_s = time.perf_counter()
        if phase == "start":
            self._began_s = now_s
        else:
            self.passes.append((self._began_s, now_s))


def prompts_of(case: str, n: int) -> list[Any]:
    """Return the prompts; images are files in the run's own folder."""
    if case != IMAGES:
        return [f"Name star {number}" for number in range(n)]
    rng, folder = random.Random(1), Path(os.environ["BENCH_FOLDER"])
    made = []
    for number in range(n):
        path = folder / f"{number}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + rng.randbytes(IMAGE_BYTES))
        made.append({"id": number, "prompt": "Name it", "image": path})
    return made


def measured(case: str, n: int) -> Figures:
    """Run one session against the service that is there."""
    from google import genai  # noqa: F401  # what is loaded on first use

    from ipybatch.gemini import generate

    prompts, heartbeat = prompts_of(case, n), Heartbeat()
    idle = psutil.Process().memory_info().rss
    options: dict[str, Any] = {"lane": "batch", "poll_s": 1, "base_url": os.environ[URL], "api_key": "SIMULATED"}
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    session = generate(prompts, **options)
    with heartbeat.beating():
        done = session.run().counts.completed
    return {
        "wall_s": time.perf_counter() - wall_s,
        "cpu_s": time.process_time() - cpu_s,
        "mb": (peak() - idle) / MB,
        "lost": n - done,
        **heartbeat.figures,
    }


CASES: dict[str, Case] = {case: partial(measured, case) for case in SIZES}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run every case; return the figures, and the number of prompts of the first one."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    runs: Runs = {}
    for number in range(rounds):
        for case, size in SIZES.items():
            print(f"  batches {number + 1}/{rounds}: {case}", file=sys.stderr, flush=True)
            with serving(SERVICE) as (url, truth):
                os.environ[URL] = url
                n = max(1, int(size * scale))
                figures = run([sys.executable, "-m", "tests.benchmarks.measure", "batches", case, str(n)])
                runs.setdefault(case, []).append({**figures, **truth()})
    return runs, int(SIZES[TEXTS] * scale)


def check(runs: Runs, n: int) -> None:
    """Every prompt has its answer, no job was submitted twice, and nothing was billed twice."""
    for case, of_case in runs.items():
        for figures in of_case:
            assert (figures["lost"], figures["twice"], figures["jobs_twice"]) == (0, 0, 0), (case, figures)


def rows(runs: Runs, n: int) -> list[Row]:
    """Return how long the loop stopped, memory and CPU."""
    made: list[Row] = []
    for case, of_case in runs.items():
        asked: list[tuple[str, str, float | None]] = [
            ("longest stop of the loop, s", "stop_s", GOAL_S),
            ("longest pass of the garbage collector, s", "gc_s", None),
            ("resident MB over the imports", "mb", GOALS_MB[case]),
            ("CPU s", "cpu_s", None),
            ("s", "wall_s", None),
            ("jobs", "jobs", None),
        ]
        what = f"gemini batch jobs, {case}: "
        made += [
            Row(what=what + word, name=OURS, values=[figures[key] for figures in of_case], goal=goal)
            for word, key, goal in asked
        ]
    return made
