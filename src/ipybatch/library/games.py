"""Convenience functions that refresh a library of games.

A game counts as processed once its last attempt has ended, successfully or not.  Fresh games, and games that a run did
not reach before it ended early, are not processed.  So 20 games of which 5 are fresh give "15/20 games processed",
followed by ", 2 failed" when 2 of the 15 could not be fetched.

A second call on the same day finds these games fresh: "0/20 games processed", and no request.  Games that failed are
still missing, so `smart_refresh_library` tries them again; those that the store does not have only after 1, 7 and then
every 30 days.  `batch_refresh_games` fetches fresh games too.
Each call counts what it did itself: after an interrupted one, what that has fetched is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Unpack

from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.outcome import Summary
from ipybatch.errors import InputError, MissingExtra
from ipybatch.library.absences import OnVanished
from ipybatch.library.records import Library
from ipybatch.library.session import breaker_state, refresh
from ipybatch.library.source import Source
from ipybatch.library.steam import SteamStore, StoreSettings
from ipybatch.session import waiting
from ipybatch.session.arguments import SessionArguments
from ipybatch.session.session import BatchSession

KEY_VARIABLE = "STEAM_API_KEY"


@dataclass(frozen=True, slots=True)
class SmartRefresh:
    """The result of a smart refresh; its text is one line.

    Attributes:
        summary: The summary of the session.
    """

    summary: Summary

    @property
    def counts(self) -> Counts:
        """Number of games by status; fresh games are skipped."""
        return self.summary.counts

    @property
    def asked(self) -> int:
        """Number of games in the call."""
        return self.counts.total or 0

    @property
    def failed(self) -> int:
        """Number of games whose last attempt failed or timed out."""
        return self.counts.failed + self.counts.timeout

    @property
    def processed(self) -> int:
        """Number of games whose last attempt has ended, successfully or not."""
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
    on_vanished: OnVanished = "ask",
    **arguments: Unpack[SessionArguments],
) -> Summary:
    """Fetch games from the store into the library, fresh ones too, and return the session's summary.

    Args:
        app_ids: The store's app ids of the games.
        library: Library that takes the records; default: `Library()`.
        source: Service that gives the records; default: `SteamStore()`.
        name: Name of the session.
        on_vanished: What to do when many of the games are not there any more; as for `refresh`.
        arguments: As for `refresh`; in a notebook the panel shows, and ``verbose=True`` prints a line per game.

    Raises:
        InputError: An id or an argument is invalid; nothing was started.
        JournalError: The library or the journal is damaged, cannot be written, or is in use.
    """
    given: dict[str, Any] = {"library": library, "name": name, "on_vanished": on_vanished, **arguments}
    session = refresh(app_ids, source=source or SteamStore(), force=True, **given)
    return await _follow(session)


async def get_library_games(
    *,
    library: Library | None = None,
    steam_id: str | int | None = None,
    key: str | None = None,
    source: SteamStore | None = None,
) -> list[int]:
    """Return the app ids of the games in the library, the oldest record first, or of those that a Steam id owns.

    Args:
        library: Library that holds the games; default: `Library()`.
        steam_id: SteamID64 of a profile, 17 digits; then its games are returned, in Steam's order.
        key: Web API key of Steam; default: the environment variable ``STEAM_API_KEY``.
        source: Store that is asked for a profile's games; default: `SteamStore()`.

    Raises:
        InputError: ``steam_id`` or ``key`` is invalid or missing, the profile is private, or ``library`` and
            ``steam_id`` are both given.
        Refused: Steam does not accept the key.
        ItemError: Steam gave no valid answer; try again.
        JournalError: The library is damaged or cannot be opened.

    Example:
        >>> import asyncio
        >>> from ipybatch.library import Library, SteamStore, get_library_games
        >>> from ipybatch.simulators import serve
        >>> with serve("steam") as url:
        ...     source = SteamStore(api_url=url)
        ...     owned = asyncio.run(get_library_games(steam_id="76561197960287930", key="SIMULATED", source=source))
        >>> len(owned)
        500
        >>> asyncio.run(get_library_games(library=Library("games.db")))
        []
    """
    if steam_id is None:
        if key is not None:
            msg = "steam_id must be given with key=: it says whose games to return"
            raise InputError(msg)
        return (Library() if library is None else library).keys("game")
    if library is not None:
        msg = "library and steam_id must not both be given: the games of the one or those of the other are returned"
        raise InputError(msg)
    key = os.environ.get(KEY_VARIABLE, "") if key is None else key
    if not key:
        msg = f"key must be a Steam Web API key, got none: pass key=, or set {KEY_VARIABLE}"
        raise InputError(msg)
    return await (source or SteamStore()).fetch_owned_games(steam_id, key)


async def smart_refresh_library(
    app_ids: Iterable[int] | None = None,
    *,
    library: Library | None = None,
    source: Source | None = None,
    name: str = "smart library refresh",
    on_vanished: OnVanished = "ask",
    **arguments: Unpack[SessionArguments],
) -> SmartRefresh:
    """Fetch the games that are missing or stale, the stalest first, and return how many were processed.

    Args:
        app_ids: The store's app ids of the games; default: all games in the library.
        library: Library that holds and takes the records; default: `Library()`.
        source: Service that gives the records; default: `SteamStore()`.
        name: Name of the session.
        on_vanished: What to do when many of the games are not there any more; as for `refresh`.
        arguments: As for `refresh`; in a notebook the panel shows, and ``verbose=True`` prints a line per game.

    Raises:
        InputError: An id or an argument is invalid; nothing was started.
        JournalError: The library or the journal is damaged, cannot be written, or is in use.
    """
    library = Library() if library is None else library
    wanted = library.keys("game") if app_ids is None else app_ids
    given: dict[str, Any] = {"library": library, "name": name, "on_vanished": on_vanished, **arguments}
    session = refresh(wanted, source=source or SteamStore(), **given)
    return SmartRefresh(await _follow(session))


async def get_cache_config() -> dict[str, float]:
    """Return the settings of requests to the store; docs/steam.md lists their environment variables.

    Returns:
        Exactly max_concurrent_requests, batch_size, batch_delay_seconds, request_delay_ms, circuit_breaker_threshold
        and max_retries.

    Raises:
        InputError: An environment variable is invalid; names it.
    """
    return StoreSettings.from_environment().as_dict()


async def get_database_stats(*, library: Library | None = None, source: Source | None = None) -> dict[str, Any]:
    """Return the size of the library, the staleness of its records and the state of the circuit breaker.

    Returns:
        ``total``, the number of records; ``by_staleness``, their numbers by "high", "medium", "low" and "fresh";
        ``size_bytes`` on disk; ``path``; ``breaker``, the state of the latest session in this process: "closed", "open"
        or "half_open".

    Raises:
        JournalError: The library is damaged or cannot be opened.
        InputError: An environment variable is invalid; names it.
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
