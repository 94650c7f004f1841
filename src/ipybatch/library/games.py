"""Games: the four functions for who wants a library refreshed and no more said.

What "processed" means: a game is processed when it was tried to its end, successfully or not.  Games that are fresh, or
that a run which ended early did not come to, are not.  So 20 games of which 5 are fresh make "15/20 games processed",
with ", 2 failed" behind it when the store had no answer for 2 of the 15.

Called twice the same day, `smart_refresh_library` finds what it fetched fresh: "0/20 games processed", and no request.
What failed is still missing, so it is tried again.  `batch_refresh_games` fetches what it is told to, fresh or not.
A call that was interrupted goes on at the next one, under the same name; the counts are those of the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Unpack

from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.outcome import Summary
from ipybatch.errors import MissingExtra
from ipybatch.library.records import Library
from ipybatch.library.session import breaker_state, refresh
from ipybatch.library.source import Source
from ipybatch.library.steam import SteamStore, StoreSettings
from ipybatch.session import waiting
from ipybatch.session.arguments import SessionArguments
from ipybatch.session.session import BatchSession


@dataclass(frozen=True, slots=True)
class SmartRefresh:
    """What a smart refresh came to; its text is one line.

    Attributes:
        summary: The session's.
    """

    summary: Summary

    @property
    def counts(self) -> Counts:
        """How many games ended how; the fresh ones are skipped."""
        return self.summary.counts

    @property
    def asked(self) -> int:
        """How many games were asked for."""
        return self.counts.total or 0

    @property
    def failed(self) -> int:
        """How many games were tried to their end without success."""
        return self.counts.failed + self.counts.timeout

    @property
    def processed(self) -> int:
        """How many games were tried to their end."""
        return self.counts.completed + self.failed

    def __str__(self) -> str:
        line = f"Smart library refresh {self.summary.state}: {self.processed}/{self.asked} games processed"
        if self.failed:
            line += f", {self.failed} failed"
        return f"{line} ({self.summary.reason})" if self.summary.reason else line


async def batch_refresh_games(
    app_ids: Iterable[int],
    *,
    library: Library | None = None,
    source: Source | None = None,
    name: str = "batch game refresh",
    **arguments: Unpack[SessionArguments],
) -> Summary:
    """Fetch games from the store into the library, fresh ones too, and return the session's summary.

    Args:
        app_ids: The games.
        library: Where the records go; default: `Library()`.
        source: Default: `SteamStore()`.
        name: Of the session.
        arguments: As for `refresh`; in a notebook the panel shows, and ``verbose=True`` prints a line per game.

    Raises:
        InputError: An id or an argument is not what it must be; nothing was started.
        JournalError: Library or journal is damaged, cannot be written, or is in use.
    """
    session = refresh(app_ids, source=source or SteamStore(), library=library, name=name, force=True, **arguments)
    return await _follow(session)


async def smart_refresh_library(
    app_ids: Iterable[int] | None = None,
    *,
    library: Library | None = None,
    source: Source | None = None,
    name: str = "smart library refresh",
    **arguments: Unpack[SessionArguments],
) -> SmartRefresh:
    """Fetch the games that are missing or stale, the stalest first, and say how many that were.

    Args:
        app_ids: The games; default: all that the library holds.
        library: Where the records are and go; default: `Library()`.
        source: Default: `SteamStore()`.
        name: Of the session.
        arguments: As for `refresh`; in a notebook the panel shows, and ``verbose=True`` prints a line per game.

    Raises:
        InputError: An id or an argument is not what it must be; nothing was started.
        JournalError: Library or journal is damaged, cannot be written, or is in use.
    """
    library = Library() if library is None else library
    wanted = library.keys("game") if app_ids is None else app_ids
    session = refresh(wanted, source=source or SteamStore(), library=library, name=name, **arguments)
    return SmartRefresh(await _follow(session))


async def get_cache_config() -> dict[str, float]:
    """Return how fast the store is asked, as the environment has it now; the README lists the variables.

    Returns:
        Exactly max_concurrent_requests, batch_size, batch_delay_seconds, request_delay_ms, circuit_breaker_threshold
        and max_retries.

    Raises:
        InputError: A variable is not what it must be; names it.
    """
    return StoreSettings.from_environment().as_dict()


async def get_database_stats(*, library: Library | None = None, source: Source | None = None) -> dict[str, Any]:
    """Return what the library holds.

    Returns:
        ``total`` records; ``by_staleness``, how many of them are "high", "medium", "low" and "fresh"; ``size_bytes`` on
        disk; ``path``; ``breaker``, the state of the latest session's: "closed", "open" or "half_open".

    Raises:
        JournalError: The library is damaged or cannot be opened.
    """
    library = Library() if library is None else library
    by_staleness = library.by_staleness()
    return {
        "total": sum(by_staleness.values()),
        "by_staleness": by_staleness,
        "size_bytes": library.size_bytes(),
        "path": str(library.path),
        "breaker": breaker_state(source or SteamStore()),
    }


async def _follow(session: BatchSession) -> Summary:
    if waiting.in_notebook():
        with suppress(MissingExtra):
            session._ipython_display_()  # what a cell that ends in the session does
    with waiting.show_progress(session, verbose=session.verbose):
        return await session
