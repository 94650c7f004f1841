"""Clock: where the engine takes its time from.

Time is a parameter with a real default, so that tests and `estimate()` run
hours in milliseconds (`ipybatch.testing.VirtualClock`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


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
    """Run a function in a thread and return its result; virtual time stands meanwhile."""
    clock.hold(+1)
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    finally:
        clock.hold(-1)
