"""Freshness: what a refresh tells of itself: how many records are fresh, stale and not there.

    plan --judged--> fresh: skipped | not there: skipped | stale: asked for
                                                             |--completed--> fresh
                                                             |--not there--> not there
                                                             `--failed, or not yet --> stale

What was judged, and what an earlier start was told is not there, is read once, as it is on record, when a start
begins; what follows is counted as it comes.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping

from ipybatch.engine.data import events
from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.fact import NONE, Fact
from ipybatch.engine.data.plan import label_of
from ipybatch.engine.store import plan_rows, rows
from ipybatch.library.source import NotThere

FRESH, NOT_THERE = "fresh", "not there"  # how the reason begins why an item is not asked for
_TITLES = ("Fresh", "Stale", "Not there")


def on_record(database: sqlite3.Connection, run: int) -> tuple[dict[str, int], list[str]]:
    """Return what a start of a run begins with; see `Freshness.begin`."""
    return plan_rows.skipped(database, run), rows.keys_of_kind(database, run, NotThere.kind)


class Freshness:
    """How the records of one run stand."""

    def __init__(self) -> None:
        self._skipped: Counter[str] = Counter()
        self._missing: set[str] = set()  # that were asked for, and are not there
        self._is_known = False

    def begin(self, skipped: Mapping[str, int], missing: Iterable[str] = ()) -> None:
        """Begin a start.

        Args:
            skipped: How many items are not asked for, by reason.
            missing: Keys of those that an earlier start asked for, and that are not there.
        """
        self._skipped, self._missing, self._is_known = Counter(skipped), set(map(label_of, missing)), True

    def skip(self, reason: str) -> None:
        """Take in that an item which came during the run is not asked for."""
        self._skipped[reason] += self._is_known  # before, it is counted as it is recorded

    def follow(self, event: events.Event) -> None:
        """Take in how an item ended."""
        if isinstance(event, events.ItemEnded):
            (self._missing.add if event.kind == NotThere.kind else self._missing.discard)(event.key)

    def facts(self, counts: Counts, *, is_over: bool) -> list[Fact]:
        """Return how many are fresh, stale and not there."""
        if not self._is_known or counts.total is None:
            return [] if is_over else [Fact(title, NONE) for title in _TITLES]
        before, total = self._skipped[FRESH], counts.total
        fresh, missing = before + counts.completed, self._skipped[NOT_THERE] + len(self._missing)
        stale, failed = max(0, total - fresh - missing), counts.failed + counts.timeout - len(self._missing)
        told = f"{failed:,} could not be fetched" if failed > 0 else "to be fetched" if stale else "none is left"
        again = "again in 1 to 30 days" if missing else "all others are there"
        kept = f"{before:,} before this run" if before else "none before this run"
        return [
            Fact(_TITLES[0], f"{fresh:,}", f"of {total:,}", kept, fresh / total if total else None),
            Fact(_TITLES[1], f"{stale:,}", "", told, None, "warn" if failed > 0 else ""),
            Fact(_TITLES[2], f"{missing:,}", "", again),
        ]
