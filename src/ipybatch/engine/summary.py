"""Summary: what a session came to, in one line and as data."""

from __future__ import annotations

import msgspec

from ipybatch.engine.events import Counts, State


class Summary(msgspec.Struct, frozen=True):
    """How a session ended.

    Attributes:
        reason: Why it ended early; "" when it did not.
        seconds: From its start to its end, in this process.
    """

    name: str
    state: State
    counts: Counts
    reason: str
    seconds: float

    def __str__(self) -> str:
        counts = self.counts
        total = counts.ended if counts.total is None else counts.total
        line = (
            f"{self.name} {self.state}: {counts.completed}/{total} successful,"
            f" {counts.failed + counts.timeout} failed, {counts.skipped} skipped"
        )
        if counts.cancelled:
            line += f", {counts.cancelled} cancelled"
        return f"{line} ({self.reason})" if self.reason else line
