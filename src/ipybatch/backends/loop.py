"""Loop: coroutines on the engine's own event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


class Loop:
    """Run coroutine functions; cancelling an attempt cancels its coroutine."""

    async def open(self, slots: int) -> None:
        """Do nothing: the loop is there."""

    def run(self, work: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]) -> Awaitable[Any]:
        """Return one attempt, to be awaited."""
        return work(*arguments)

    async def close(self) -> None:
        """Do nothing: the loop stays."""
