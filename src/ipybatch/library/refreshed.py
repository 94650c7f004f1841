"""Refreshed: what a refresh came to, kind by kind.

summary.by("kind")      total  completed  failed  timeout  cancelled  skipped  pending
            guild          20         19       1        0          0        0        0
            character    2000       1893       7        0          0      100        0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ipybatch.engine.data.outcome import Summary
from ipybatch.errors import InputError
from ipybatch.session.session import BatchSession

if TYPE_CHECKING:
    import pandas as pd

    from ipybatch.library.refreshing import Refreshing

COLUMNS = ("total", "completed", "failed", "timeout", "cancelled", "skipped", "pending")


class RefreshSummary(Summary, frozen=True, eq=False):
    """How a refresh ended.

    Attributes:
        session: Whose items `by` counts, as they stand when it is asked.
    """

    session: RefreshSession

    def by(self, column: str) -> pd.DataFrame:
        """Return one row per kind, the kind of the first item first: how many items of it ended how.

        Args:
            column: "kind".

        Raises:
            InputError: It is another.
        """
        if column != "kind":
            msg = f"column must be 'kind', got {column!r}"
            raise InputError(msg)
        return self.session._by_kind()


class RefreshSession(BatchSession):
    """A session that `refresh` made."""

    @property
    def summary(self) -> RefreshSummary:
        """What it came to so far."""
        so_far = super().summary
        return RefreshSummary(so_far.name, so_far.state, so_far.counts, so_far.reason, so_far.seconds, self)

    def _by_kind(self) -> pd.DataFrame:
        import pandas as pd

        work = cast("Refreshing", self._spec.work.call)
        rows: dict[str, dict[str, Any]] = {}
        results = self.results()
        for key, status in zip(results["key"], results["status"], strict=True):
            row = rows.setdefault(work.kind(key), dict.fromkeys(COLUMNS, 0))
            row["total"] += 1
            row[status] = row.get(status, 0) + 1
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)
        return frame.rename_axis("kind").astype(int)
