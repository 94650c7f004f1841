"""Loop: coroutines on the engine's own event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Loop:
    """Run coroutine functions; cancelling an attempt cancels its coroutine."""

    async def open(self, slots: int) -> None:
        """Do nothing: the loop is there."""

    async def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Await one attempt."""
        return await work(*arguments)

    async def close(self) -> None:
        """Do nothing: the loop stays."""
