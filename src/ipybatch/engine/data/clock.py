"""Clock: where the engine takes its time from.

Time is a parameter with a real default, so that tests and `estimate()` run
hours in milliseconds (`ipybatch.testing.VirtualClock`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

from ipybatch.engine.data.background import HAS_THREADS

T = TypeVar("T")
P = ParamSpec("P")


def _since_start() -> Callable[[], float]:
    try:
        time.clock_gettime(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):  # another system, or a browser, which has the name and not the clock
        return time.monotonic
    return partial(time.clock_gettime, time.CLOCK_BOOTTIME)


boot_s = _since_start()  # seconds since the machine started, those it slept included where the system tells


class Clock(Protocol):
    """What the runner needs of a clock."""

    def now_s(self) -> float:
        """Return monotonic seconds: what limits and deadlines are measured with."""

    def unix_s(self) -> float:
        """Return Unix seconds: what is recorded."""

    def hold(self, change: int) -> None:
        """Say that ``change`` more (or fewer) answers are awaited from real threads: virtual time stands meanwhile."""


class SystemClock:
    """The machine's own clock."""

    now_s = staticmethod(time.monotonic)
    unix_s = staticmethod(time.time)

    def hold(self, change: int) -> None:
        """Do nothing: real time passes anyway."""


async def in_thread(clock: Clock, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in a thread, where there are any, and return its result; virtual time stands meanwhile."""
    clock.hold(+1)
    try:
        return await asyncio.to_thread(function, *args, **kwargs) if HAS_THREADS else function(*args, **kwargs)
    finally:
        clock.hold(-1)
