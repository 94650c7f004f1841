"""A library of records of games, guilds and characters, refreshed from their services.

Read in this order:

session       `refresh` and its session: which items are stale, and what is fetched
games         convenience functions that refresh a library of games
freshness     what the panel shows of a refresh
absences      what is not there any more, and whether that is believed
records       `Library`: records in a SQLite file, and how stale they are
source        the Protocol of a service, and settings from the environment
http          HTTP clients, and what an answer means
steam         `SteamStore`: the store's details of a game, and the games a profile owns
steam_prices  `SteamPrices`: prices of many games in one request
battlenet     `BattleNet`: guilds and characters of World of Warcraft
"""

from __future__ import annotations

from ipybatch.library.absences import OnVanished
from ipybatch.library.battlenet.names import Character, Guild
from ipybatch.library.battlenet.source import BattleNet
from ipybatch.library.games import (
    batch_refresh_games,
    get_cache_config,
    get_database_stats,
    get_library_games,
    smart_refresh_library,
)
from ipybatch.library.records import Absence, Library, Record, Staleness
from ipybatch.library.session import RefreshSession, refresh
from ipybatch.library.source import Defaults, Identity, NotThere, Source
from ipybatch.library.steam import SteamStore
from ipybatch.library.steam_prices import SteamPrices

__all__ = [
    "Absence",
    "BattleNet",
    "Character",
    "Defaults",
    "Guild",
    "Identity",
    "Library",
    "NotThere",
    "OnVanished",
    "Record",
    "RefreshSession",
    "Source",
    "Staleness",
    "SteamPrices",
    "SteamStore",
    "batch_refresh_games",
    "get_cache_config",
    "get_database_stats",
    "get_library_games",
    "refresh",
    "smart_refresh_library",
]
