"""A library of games kept up to date: what is missing or old is fetched, politely, and what is fresh is left alone."""

from __future__ import annotations

from ipybatch.library.battlenet.names import Character, Guild
from ipybatch.library.battlenet.source import BattleNet
from ipybatch.library.games import batch_refresh_games, get_cache_config, get_database_stats, smart_refresh_library
from ipybatch.library.records import Library, Record, Staleness
from ipybatch.library.session import RefreshSession, refresh
from ipybatch.library.source import Defaults, Identity, Source
from ipybatch.library.steam import SteamStore

__all__ = [
    "BattleNet",
    "Character",
    "Defaults",
    "Guild",
    "Identity",
    "Library",
    "Record",
    "RefreshSession",
    "Source",
    "Staleness",
    "SteamStore",
    "batch_refresh_games",
    "get_cache_config",
    "get_database_stats",
    "refresh",
    "smart_refresh_library",
]
