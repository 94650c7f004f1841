"""Alarm: calls a function at the soonest of the times that it was set to, on the loop of whoever uses it."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable


class Alarm:
    """One timer, whatever is to be looked after.

    Args:
        ring: What is called; then the alarm is off until it is set again.

    Attributes:
        loop: The loop; None before there is one.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._when_s = 0.0  # kept here: a browser's loop tells no time of a timer

    def move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ring on this loop from now on."""
        if self.loop is not loop:
            self.cancel()
            self.loop = loop

    def set(self, wait_s: float) -> None:
        """Ring in so many seconds, or sooner; never for inf."""
        loop = self.loop
        if loop is None or wait_s == math.inf or loop.is_closed():
            return
        when_s = loop.time() + wait_s
        if self._timer is not None:
            if self._when_s <= when_s:
                return
            self._timer.cancel()
        self._when_s = when_s
        self._timer = loop.call_later(max(0.0, wait_s), self._go_off, context=contextvars.Context())

    def cancel(self) -> None:
        """Ring no more until it is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_off(self) -> None:
        self._timer = None
        self._ring()
