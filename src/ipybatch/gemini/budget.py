"""Budget: money is reserved before a call and given back after, so it cannot be overspent.

    free --reserve--> reserved --free--> free
                          |
                          +---spend----> spent

A call that does not fit waits for those in flight: they may turn out cheaper.
When none is, it is withheld, and the session ends.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal

from ipybatch.errors import InputError, Withheld


class Budget:
    """What a session may spend, in USD; of one event loop.

    Attributes:
        limit_usd: None for no limit.
        spent_usd: So far, in this run.
    """

    def __init__(self, limit_usd: float | Decimal | None) -> None:
        self.limit_usd = None if limit_usd is None else Decimal(str(limit_usd))
        self.spent_usd = Decimal(0)
        self._reserved = Decimal(0)
        self._waiting: list[asyncio.Future[None]] = []

    def check(self, least: Decimal) -> None:
        """Refuse a budget below one call.

        Raises:
            InputError: Says how much one takes.
        """
        if self.limit_usd is not None and self.limit_usd < least:
            msg = f"budget_usd must be >= {least:.6f}, which one call may take, got {self.limit_usd}"
            raise InputError(msg)

    async def reserve(self, usd: Decimal) -> None:
        """Set aside what a call may take.

        Raises:
            Withheld: It does not fit, and nothing is in flight that may make room.
        """
        while self.limit_usd is not None and self.spent_usd + self._reserved + usd > self.limit_usd:
            if not self._reserved:
                msg = (
                    f"budget_usd is {self.limit_usd:f}: {self.spent_usd:.4f} is spent, and the next call may take"
                    f" {usd:.4f}. Raise it, and run again for the rest"
                )
                raise Withheld(msg)
            freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(freed)
            await freed
        self._reserved += usd

    def spend(self, usd: Decimal) -> None:
        """Count what a call really took."""
        self.spent_usd += usd

    def free(self, usd: Decimal) -> None:
        """Give a reservation back."""
        self._reserved -= usd
        waiting, self._waiting = self._waiting, []
        for freed in waiting:
            if not freed.done():
                freed.set_result(None)
