"""A call a few turns of the event loop later: what comes meanwhile on a busy loop shares it.

On an idle loop the turns take microseconds; on one that is busy with thousands of answers a second, each brings one or
two, and a commit of four turns costs hardly more than that of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class AfterTurns:
    """Calls a function some turns of the loop after it was first asked for, once for all that ask meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turns: int, call: Callable[[], None]) -> None:
        self._loop, self._turns, self._call = loop, turns, call
        self._left = 0
        self._handle: asyncio.Handle | None = None

    @property
    def is_due(self) -> bool:
        """Whether the call is yet to come."""
        return self._handle is not None

    def ask(self) -> None:
        """Let the call come, unless it does already."""
        if self._handle is None:
            self._left = self._turns
            self._turn()

    def cancel(self) -> None:
        """Let no call come before it is asked for anew."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _turn(self) -> None:
        self._left -= 1
        self._handle = self._loop.call_soon(self._turn if self._left else self._come)

    def _come(self) -> None:
        self._handle = None
        self._call()
