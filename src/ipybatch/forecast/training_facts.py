"""Training facts: what a forecast tells of itself while its partitions are trained, and what it came to.

    outcomes --`ended`--> seconds by partition --by their rows--> how long all will take

The estimate is made of this start's own partitions, anew whenever one has ended, and laid out on the workers as the
scheduler does.  The panel's time left is the same one.  The first one is kept, so that the end can be compared with it.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Iterable, Mapping

import msgspec

from ipybatch.backends.process.backend import Processes
from ipybatch.engine.data.fact import NONE, Fact, Tone, counted, moment, span, took
from ipybatch.engine.data.spec import Backend
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.forecast.data.partitions import Partition

_NEARLY = 0.9  # of the memory that a process may take


class TrainingFacts:
    """What is known of a forecast's partitions in one start."""

    def __init__(self, partitions: Iterable[Partition], backend: Backend) -> None:
        self._backend = backend
        self._rows = {part.name: part.rows for part in partitions}
        self._names = {part.number: part.name for part in partitions}
        self.begin(())

    def begin(self, done: Iterable[str]) -> None:
        """Begin a start, in which the partitions named need not run."""
        known = set(done)
        self._left = [name for name in self._rows if name not in known]
        self._seconds: dict[str, float] = {}  # of those that have ended, by name
        self._trained: dict[str, float] = {}  # of those that completed, from which the others follow
        self._first: tuple[float, int] | None = None  # the first estimate, and of how many partitions
        self._estimated: _Estimate | None = None

    def ended(self, name: str, seconds: float, *, is_completed: bool) -> None:
        """Take in that a partition has its outcome."""
        self._seconds[name] = seconds
        if is_completed:
            self._trained[name] = seconds

    def read(self, snapshot: Snapshot, workers: int, now_s: float, *, is_over: bool) -> list[Fact]:
        """Return processes, memory, the slowest partition and the time, as far as they can be known."""
        memory = self._memory(is_over=is_over)
        facts = [*([] if is_over else [_busy(snapshot, workers)]), *([] if memory is None else [memory])]
        if is_over:
            return [*facts, self._slowest_ended(), self._took(snapshot, now_s)]
        return [*facts, self._slowest(snapshot, now_s), self._time(snapshot, workers, now_s)]

    def _memory(self, *, is_over: bool) -> Fact | None:
        """Return the memory of the largest process; None where nobody measures it."""
        title, backend = "Largest process", self._backend
        if not isinstance(backend, Processes):
            return None
        most_mb, limit_mb = backend.most_mb, backend.memory_mb
        if most_mb is None:
            return None if is_over else Fact(title, NONE, foot="not measured yet")
        share = None if limit_mb is None else min(1.0, most_mb / limit_mb)
        tone: Tone = "warn" if share is not None and share >= _NEARLY else ""
        foot = "memory, at its most"
        return Fact(
            title, f"{most_mb:,.0f} MB", "" if limit_mb is None else f"of {limit_mb:,.0f} MB", foot, share, tone
        )

    def _slowest(self, snapshot: Snapshot, now_s: float) -> Fact:
        oldest = min(_running(snapshot), key=lambda group: group.started_s, default=None)
        if oldest is None or now_s - oldest.started_s <= max(self._seconds.values(), default=0.0):
            return self._slowest_ended()
        name = self._names.get(oldest.number, oldest.name)
        return Fact(_SLOWEST, name, "", f"{moment(oldest.started_s)} so far", is_live=True)

    def _slowest_ended(self) -> Fact:
        name = max(self._seconds, key=self._seconds.__getitem__, default="")
        if not name:
            return Fact(_SLOWEST, NONE, foot="none has ended")
        return Fact(_SLOWEST, name, "", f"took {took(self._seconds[name])}")

    def left_s(self, snapshot: Snapshot, workers: int, now_s: float) -> tuple[float, float] | None:
        """Return the seconds left, at best and at worst; None before one was trained that had no packages to load."""
        late = set(self._left[workers:])
        if late.isdisjoint(self._trained):
            return None
        if self._estimated is None or self._estimated.ended != len(self._seconds):
            self._estimated = self._estimate(snapshot, workers, now_s)
            if self._first is None:
                self._first = self._estimated.at_s + self._estimated.middle_s - snapshot.started_s, len(self._seconds)
        gone_s = now_s - self._estimated.at_s
        return max(0.0, self._estimated.low_s - gone_s), max(0.0, self._estimated.high_s - gone_s)

    def _estimate(self, snapshot: Snapshot, workers: int, now_s: float) -> _Estimate:
        running = {self._names.get(group.number, ""): now_s - group.started_s for group in _running(snapshot)}
        left = [name for name in self._left if name not in self._seconds]
        first = set(self._left[:workers])  # in their time the packages were loaded
        trained = {name: seconds for name, seconds in self._trained.items() if name not in first}
        low_s, high_s = left_of(left, running, trained, self._rows, workers)
        return _Estimate(len(self._seconds), now_s, low_s, high_s)

    def _time(self, snapshot: Snapshot, workers: int, now_s: float) -> Fact:
        foot = f"{moment(snapshot.started_s)} so far" if snapshot.started_s else ""
        if self.left_s(snapshot, workers, now_s) is None or self._estimated is None:
            return Fact("Time estimated", NONE, "", foot, is_live=True)
        whole_s = self._estimated.at_s + self._estimated.middle_s - snapshot.started_s
        return Fact("Time estimated", span(max(whole_s, now_s - snapshot.started_s)), "in all", foot, is_live=True)

    def _took(self, snapshot: Snapshot, now_s: float) -> Fact:
        seconds = max(0.0, (snapshot.ended_s or now_s) - snapshot.started_s)
        estimated = "" if self._first is None else f"{span(self._first[0])} estimated after {self._first[1]:,}"
        return Fact("Time", took(seconds), "", estimated)


class _Estimate(msgspec.Struct, frozen=True):
    """What was left when so many had ended."""

    ended: int
    at_s: float
    low_s: float
    high_s: float

    @property
    def middle_s(self) -> float:
        return (self.low_s + self.high_s) / 2


def _running(snapshot: Snapshot) -> list[Group]:
    return [group for group in snapshot.groups.values() if group.status == "running" and group.started_s]


_SLOWEST = "Slowest partition"


def _busy(snapshot: Snapshot, workers: int) -> Fact:
    busy, left = min(snapshot.counts.running, workers), snapshot.counts.pending
    foot = f"{counted(left, 'partition')} waiting" if left else "no partition waits"
    return Fact("Processes", f"{busy:,}", f"of {workers:,} busy", foot, busy / max(1, workers), is_live=True)


def left_of(
    left: Iterable[str],
    running: Mapping[str, float],
    trained: Mapping[str, float],
    rows: Mapping[str, int],
    workers: int,
) -> tuple[float, float]:
    """Return the seconds that the partitions left take on so many workers, in order: at best, and at worst.

    Args:
        running: Seconds that some of them have run, by name.
        trained: Seconds that others took. At best one takes as long as these by its rows, at worst as long as these:
            the largest come first. So the median of them.
    """
    names, typical_s = list(left), statistics.median(trained.values())
    per_row_s = statistics.median(seconds / max(1, rows.get(name, 0)) for name, seconds in trained.items())
    by_rows = {name: per_row_s * rows.get(name, 0) for name in names}
    found = [
        _laid_out_s([max(0.0, seconds_of(name) - running.get(name, 0.0)) for name in names], workers)
        for seconds_of in (by_rows.__getitem__, lambda _: typical_s)
    ]
    return min(found), max(found)


def _laid_out_s(seconds: Iterable[float], workers: int) -> float:
    free_s = [0.0] * max(1, workers)
    for each in seconds:
        heapq.heappush(free_s, heapq.heappop(free_s) + each)
    return max(free_s)
