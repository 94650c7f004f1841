"""Parking: the workers that found nothing to start, and who of them is woken.

Rule: one is woken at a time.  All of them look for the same thing: where one
finds nothing, the next would not either, and one that starts something asks
for the next.
"""

from __future__ import annotations

import asyncio


class Parking:
    """Let workers wait until somebody made room."""

    def __init__(self) -> None:
        self._parked: list[asyncio.Future[None]] = []
        self._is_waking = False  # one that was woken has not looked yet

    @property
    def wants_waking(self) -> bool:
        """Whether to wake one makes a difference."""
        return bool(self._parked) and not self._is_waking

    async def wait(self) -> None:
        """Wait until woken."""
        parked = asyncio.get_running_loop().create_future()
        self._parked.append(parked)
        await parked
        self._is_waking = False

    def wake_one(self) -> None:
        """Let one of them look, unless one is about to."""
        while self._parked and not self._is_waking:
            self._is_waking = _wake(self._parked.pop())

    def wake_all(self) -> None:
        """Let all of them look."""
        for parked in self._parked:
            _wake(parked)
        self._parked.clear()


def _wake(parked: asyncio.Future[None]) -> bool:
    if not parked.done():  # else its loop is being closed
        parked.set_result(None)
        return True
    return False
