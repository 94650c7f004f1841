"""Backend: where an attempt runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class Backend(Protocol):
    """A place where attempts run; `ipybatch.testing.check_backend` says what each must do."""

    async def open(self, slots: int) -> None:
        """Get ready for ``slots`` attempts at a time."""
        ...

    def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Awaitable[Any]:
        """Run one attempt; awaiting it gives its result, cancelling it ends it.

        Raises:
            StillRunning: It was cancelled, but cannot be ended.
        """
        ...

    async def close(self) -> None:
        """Let everything go that `open` took."""
        ...


class StillRunning(asyncio.CancelledError):
    """A cancelled attempt that goes on by itself, such as a thread.

    Attributes:
        ended: Done when it has ended at last.
    """

    def __init__(self, ended: asyncio.Future[Any]) -> None:
        super().__init__("it cannot be ended")
        self.ended = ended
