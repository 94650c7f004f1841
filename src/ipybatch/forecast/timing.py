"""Timing: how long partitions take on this machine, by trying a few series in the very processes that a run uses.

Two samples of the series, a small and a larger one, are trained one after the other; the line through both is what
every partition is reckoned with:

    seconds of a partition = fixed_s + per_series_s * its series

Partitions go to the workers in order, each to the first that is free; before the first of them the packages load.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import msgspec
import numpy as np
import pandas as pd

from ipybatch.backends.processes import Processes
from ipybatch.forecast.settings import Settings
from ipybatch.forecast.training import PRELOAD, run_partition

_SAMPLES = (50, 1000)  # series
_TIMEOUT_S = 30.0


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on this machine.

    Attributes:
        start_s: Seconds until the first process has its packages.
        fixed_s: Seconds of any partition, however small.
        per_series_s: Seconds of each of its series.
        samples: Series and seconds of each sample that was tried.
    """

    start_s: float
    fixed_s: float
    per_series_s: float
    samples: tuple[tuple[int, float], ...]

    def alone_s(self, series: int) -> float:
        """Return how long one partition takes."""
        return self.fixed_s + self.per_series_s * series

    def all_s(self, series: Iterable[int], workers: int) -> float:
        """Return how long all partitions take, given the series of each in order."""
        free_s = [self.start_s] * workers
        for count in series:
            heapq.heappush(free_s, heapq.heappop(free_s) + self.alone_s(count))
        return max(free_s)


def time_it(frame: pd.DataFrame, settings: Settings) -> Timing:
    """Return what training takes here; it takes a few seconds itself.

    Raises:
        Exception: What training raises, or that it took longer than half a minute.
    """
    samples = [sample(frame, series) for series in _SAMPLES]
    with ThreadPoolExecutor(1) as pool:  # a cell has a loop of its own already
        return pool.submit(lambda: asyncio.run(_tried(samples, settings))).result()


def sample(frame: pd.DataFrame, series: int) -> pd.DataFrame:
    """Return about so many whole series from all over a table that is sorted by them; all, where it has no more."""
    numbers = frame.groupby(["site", "part"], sort=False).ngroup().to_numpy()
    step = max(1, (int(numbers[-1]) + 1) // series)
    made: pd.DataFrame = frame.loc[numbers % step == 0].reset_index(drop=True)
    return made


def line(samples: Iterable[tuple[int, float]], start_s: float) -> Timing:
    """Return the line through the samples; a noisy machine makes no partition quicker for having more series."""
    tried = tuple(samples)
    (few, short_s), (many, long_s) = tried[0], tried[-1]
    per_series_s = max(0.0, (long_s - short_s) / (many - few)) if many > few else 0.0
    fixed_s = max(0.0, short_s - per_series_s * few)
    return Timing(start_s=max(0.0, start_s), fixed_s=fixed_s, per_series_s=per_series_s, samples=tried)


async def _tried(samples: list[pd.DataFrame], settings: Settings) -> Timing:
    backend = Processes(1, timeout_s=_TIMEOUT_S, preload=PRELOAD)
    await backend.open(1)
    try:
        seconds = []
        for frame in (samples[0], *samples):  # the first time the packages load
            began_s = perf_counter()
            await backend.run(run_partition, (frame, settings))
            seconds.append(perf_counter() - began_s)
    finally:
        await backend.close()
    counts = [len(np.unique(frame.groupby(["site", "part"], sort=False).ngroup())) for frame in samples]
    return line(zip(counts, seconds[1:], strict=True), seconds[0] - seconds[1])
