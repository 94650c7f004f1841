"""Testing: time that does not pass by itself, and what every backend and every limit store must do.

For our own tests and for users': a session with hours of pauses runs in
milliseconds, and a new backend or limit store is checked with one call.

Prior art: trio's MockClock with autojump, https://trio.readthedocs.io/en/stable/reference-testing.html (2026-11-22).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import selectors
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.data.spec import Backend, StillRunning
from ipybatch.engine.store.limit_promises import check_limit_store
from ipybatch.engine.store.limit_store import Answer, Bounds, LimitStore, MemoryLimits, Owner, Report, StoreBusy
from ipybatch.session.session import BatchSession

__all__ = [
    "Answer",
    "Bounds",
    "LimitStore",
    "MemoryLimits",
    "Owner",
    "Report",
    "StoreBusy",
    "VirtualClock",
    "check_backend",
    "check_limit_store",
    "kill_points",
]

T = TypeVar("T")

START_UNIX_S = 1_700_000_000.0


class VirtualClock:
    """A clock that jumps to the next timer whenever nothing else is to do.

    Hand it to a session, then let it run the session::

        clock = VirtualClock()
        session = BatchSession("hours", work, items, limits=limits, clock=clock, journal=path)
        summary = clock.run(session)

    Inside, ``asyncio.sleep`` takes no real time.  While the engine waits for a real thread (the journal), virtual time
    stands still.

    Args:
        start_s: What the clock on the wall shows at first, Unix seconds: for working hours and starts at a time of day.
    """

    def __init__(self, start_s: float = START_UNIX_S) -> None:
        self._now_s, self._start_s = 0.0, start_s
        self._awaited = 0

    def now_s(self) -> float:
        """Return virtual seconds since the clock was made."""
        return self._now_s

    def unix_s(self) -> float:
        """Return the virtual Unix time."""
        return self._start_s + self._now_s

    def hold(self, change: int) -> None:
        """Let time stand while answers from real threads are awaited."""
        self._awaited += change

    def advance(self, seconds: float) -> None:
        """Move the time on, between runs."""
        self._now_s += seconds

    def run(self, session: BatchSession, *beside: Coroutine[Any, Any, Any]) -> Summary:
        """Run a session to its end in virtual time, on this thread, with coroutines beside it."""

        async def together() -> None:
            tasks = [asyncio.create_task(coroutine) for coroutine in beside]
            try:
                await session.drive()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        self.run_coroutine(together())
        return session.summary

    def run_coroutine(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run any coroutine in virtual time."""
        with asyncio.Runner(loop_factory=lambda: _VirtualLoop(self)) as runner:
            return runner.run(coroutine)

    def _wait(self, select: Callable[[float | None], Any], timeout_s: float | None) -> Any:
        ready = select(0.0)
        if ready or timeout_s == 0.0:
            return ready
        if self._awaited or timeout_s is None:
            return select(1.0)
        self._now_s += timeout_s
        return ready


class _VirtualSelector(selectors.DefaultSelector):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        return self._clock._wait(super().select, timeout)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_VirtualSelector(clock))
        self._virtual = clock
        # A timer is due when it is within the clock's resolution; virtual time needs some to absorb rounding.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.now_s()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncio's own name
        """Wait for threads to end: in virtual time the 5 minutes that Python 3.12 gives them are over at once."""
        await super().shutdown_default_executor()


KILL_VARIABLE = "IPYBATCH_KILL_AT"


@contextlib.contextmanager
def kill_points(where: Mapping[str, int] | None = None) -> Iterator[None]:
    """End this process by SIGKILL at a commit: ``{"before": 3}`` before the third one, ``{"after": 3}`` after it.

    Without an argument it is read from ``IPYBATCH_KILL_AT``, as in ``before:3``.  For tests of what survives.
    """
    from ipybatch.engine.store import journal

    place, _, number = os.environ.get(KILL_VARIABLE, "").partition(":")
    wanted = dict(where) if where is not None else ({place: int(number)} if place else {})
    seen = {"before": 0, "after": 0}

    def hit(place: str) -> None:
        seen[place] += 1
        if wanted.get(place) == seen[place]:
            os.kill(os.getpid(), 9)

    before, journal.on_commit = journal.on_commit, hit
    try:
        yield
    finally:
        journal.on_commit = before


async def check_backend(backend: Backend, *, plain: bool) -> None:
    """Check that a backend does what the engine relies on; raises AssertionError where it does not.

    Args:
        plain: Whether it runs plain functions; else it is handed coroutine functions.
    """
    await backend.open(2)
    try:
        await _check_result(backend, plain=plain)
        await _check_error(backend, plain=plain)
        await _check_together(backend, plain=plain)
        await _check_cancel(backend, plain=plain)
    finally:
        await backend.close()


async def _check_result(backend: Backend, *, plain: bool) -> None:
    result = await backend.run(_as(plain, lambda item: {"twice": item * 2}), (21,))
    assert result == {"twice": 42}, f"a result must come back as it is, got {result!r}"


async def _check_error(backend: Backend, *, plain: bool) -> None:
    def fail(item: Any) -> None:
        raise KeyError(item)

    raised: BaseException | None = None
    try:
        await backend.run(_as(plain, fail), ("missing",))
    except KeyError as error:
        raised = error
    assert raised is not None, "an error of the work must reach the engine"
    assert raised.args == ("missing",), f"it must reach it as it is, got {raised!r}"


async def _check_together(backend: Backend, *, plain: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # the one place where attempts meet wherever they run
        work = functools.partial(_meet if plain else _meet_on_loop, folder, wanted=2)
        both = list(await asyncio.wait_for(asyncio.gather(backend.run(work, (1,)), backend.run(work, (2,))), 20))
    assert both == [1, 2], f"two attempts must run at the same time, got {both!r}"


def _meet(folder: str, item: int, *, wanted: int) -> int:
    while not _has_met(folder, item, wanted):
        time.sleep(0.01)
    return item


async def _meet_on_loop(folder: str, item: int, *, wanted: int) -> int:
    try:
        while not await asyncio.to_thread(_has_met, folder, item, wanted):  # noqa: ASYNC110  # others may be elsewhere
            await asyncio.sleep(0.01)
    finally:
        await asyncio.sleep(0.05)  # to clean up takes a moment
        await asyncio.to_thread(Path(folder, f"{item} has ended").touch)
    return item


def _has_met(folder: str, item: int, wanted: int) -> bool:
    note = Path(folder, str(item))
    note.open("a").close()
    assert time.time() < note.stat().st_mtime + 10, "nobody came"
    return len(list(Path(folder).iterdir())) >= wanted


async def _check_cancel(backend: Backend, *, plain: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = functools.partial(_meet if plain else _meet_on_loop, folder, wanted=3)
        attempt = asyncio.ensure_future(backend.run(work, (1,)))
        await asyncio.to_thread(_meet, folder, 2, wanted=2)
        attempt.cancel()
        cancelled: asyncio.CancelledError | None = None
        try:
            await attempt
        except asyncio.CancelledError as error:
            cancelled = error
        goes_on = cancelled.ended if isinstance(cancelled, StillRunning) else None
        assert cancelled is not None, "a cancelled attempt must not return"
        assert goes_on is None or not goes_on.done(), "an attempt that goes on must say so while it does"
        is_over = plain or goes_on is not None or await asyncio.to_thread(Path(folder, "1 has ended").exists)
        assert is_over, "a cancelled attempt must have ended when the cancel returns"
        if goes_on is not None:
            await asyncio.to_thread(_meet, folder, 3, wanted=3)
            await asyncio.wait_for(asyncio.wait([goes_on]), 10)


def _as(plain: bool, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if plain:
        return function

    async def coroutine(item: Any) -> Any:
        return function(item)

    return coroutine
