"""Steam: the store's details of a game, and the list of games that a profile owns.

    GET store.steampowered.com/api/appdetails?appids=ID&cc=us     {"ID": {"success": true, "data": {...}}}

Valve does not document the store's endpoint: shape and limits are what people observe, and may change any day.

Source: https://wiki.teamfortress.com/wiki/User:RJackson/StorefrontAPI (shape) and
https://github.com/daniel-tran/steam-points-shop-search/wiki/Rate-Limiting-by-the-Steam-API (429, then 403),
read 2026-11-22.
"""

from __future__ import annotations

import operator
import re
from typing import Any
from urllib.parse import urlsplit

from ipybatch.engine.data.masking import mask
from ipybatch.engine.run.permits import Attempt
from ipybatch.errors import InputError, Permanent, Transient
from ipybatch.library import owned
from ipybatch.library.answers import Client, check_url, read_json
from ipybatch.library.clients import TIMEOUT_S, HttpSource
from ipybatch.library.settings import StoreSettings
from ipybatch.library.source import Defaults, Identity

STORE_URL = "https://store.steampowered.com"
API_URL = "https://api.steampowered.com"
LARGEST_ID = 2**32 - 1
_BANNED = "it does not answer this address for now, as it does after too many requests; run it again in some minutes"


class SteamStore(HttpSource):
    """The Steam store as a source of games.

    Args:
        base_url: Where the store is.
        client: Any client of `httpx.AsyncClient`'s API; it is not closed. Default: one of our own, for each session.
        cc: The country whose prices and offers are asked for, two letters.
        api_url: Where the Web API is, for `owned_games`.

    Raises:
        InputError: An argument is not what it must be; names it, its value and what it may be.

    Example:
        >>> from ipybatch.library import SteamStore
        >>> SteamStore(cc="de")
        SteamStore('https://store.steampowered.com', cc='de')
    """

    def __init__(
        self,
        base_url: str = STORE_URL,
        client: Client | None = None,
        cc: str = "us",
        *,
        api_url: str = API_URL,
    ) -> None:
        super().__init__(client)
        if not isinstance(cc, str) or not re.fullmatch("[A-Za-z]{2}", cc):
            msg = f"cc must be a country's two letters such as 'us' or 'de', got {cc!r}"
            raise InputError(msg)
        self.base_url = check_url("base_url", base_url)
        self.api_url = check_url("api_url", api_url)
        self.cc = cc.lower()

    def __repr__(self) -> str:
        return f"SteamStore({mask(self.base_url)!r}, cc={self.cc!r})"

    def defaults(self) -> Defaults:
        """Return the store's limits and ours, with what the environment overrides; see `settings`."""
        settings = StoreSettings.from_environment()
        host = urlsplit(self.base_url).netloc.rpartition("@")[2]
        return Defaults(
            name="steam refresh",
            resource="steam store" if self.base_url == STORE_URL else f"steam store at {host}",
            settings={"source": "steam", "cc": self.cc},
            limits=settings.limits(),
            retry=settings.retry(),
            breaker=settings.breaker(),
            timeout_s=2 * TIMEOUT_S,
        )

    def identify(self, item: Any) -> Identity:
        """Return what a game's record is known by.

        Args:
            item: The number in the address of the game's page in the store.

        Raises:
            InputError: It is no whole number, or out of range.
        """
        return Identity(kind="game", key=_app_id(item), place=self.cc)

    async def fetch(
        self, item: Any, attempt: Attempt, kept: dict[str, Any] | None = None, expand: str = ""
    ) -> dict[str, Any]:
        """Return the store's details of a game, as they are.

        Raises:
            ItemError: It could not be fetched; the type says what to do.
        """
        address = f"{self.base_url}/api/appdetails"
        response = await self._client.get(address, params={"appids": item, "cc": self.cc}, follow_redirects=False)
        return self._details(item, read_json(response, "the Steam store", refused=_BANNED))

    def owned_games(self, steam_id: str | int, key: str) -> list[int]:
        """Return the ids of the games a profile owns, in Steam's order; waits for the answer.

        Args:
            steam_id: The profile's SteamID64, 17 digits.
            key: A Web API key; https://steamcommunity.com/dev/apikey gives one. It is masked wherever it turns up.

        Raises:
            InputError: ``steam_id`` or ``key`` is not what it must be, or the profile is private.
            Refused: Steam does not accept the key.
            ItemError: Steam did not answer as it should; try again.
        """
        return owned.games(self.api_url, self._given, steam_id, key)

    def _details(self, app_id: int, answer: Any) -> dict[str, Any]:
        entry = answer.get(str(app_id)) if isinstance(answer, dict) else None
        success = entry.get("success") if isinstance(entry, dict) else None
        if success is False:
            msg = f"no such game, or not sold in {self.cc.upper()}"
            raise Permanent(msg)
        data = entry.get("data") if isinstance(entry, dict) else None
        if success is not True or not isinstance(data, dict) or not isinstance(data.get("name"), str):
            msg = f"the Steam store answered without the details of {app_id}"
            raise Transient(msg)
        return data


def _app_id(item: Any) -> int:
    try:
        app_id = None if isinstance(item, bool) else operator.index(item)  # numpy's integers too
    except TypeError:
        app_id = None
    if app_id is None or not 1 <= app_id <= LARGEST_ID:
        msg = (
            f"app id must be a whole number from 1 to {LARGEST_ID}, got {item!r}:"
            " take the number in the address of the game's page in the store"
        )
        raise InputError(msg)
    return app_id
