"""`SteamStore`: the store's details of a game, and the list of games that a profile owns.

    GET store.steampowered.com/api/appdetails?appids=ID&cc=us     {"ID": {"success": true, "data": {...}}}
                                                                  {"ID": {"success": false}}: none, or not sold there
    GET api.steampowered.com/IPlayerService/GetOwnedGames/v1      {"response": {"game_count": 2, "games": [...]}}
                                                                  {"response": {}} is a private profile

A record is the store's answer, with two more fields where they say something:

    cc        the country that answered, where several may
    part_of   the id whose details these are, where the store answers with those of another game

Valve does not document the store's endpoint: shape and limits are observed, and may change any day.

| variable                                   | default | meaning                                        |
|--------------------------------------------|---------|------------------------------------------------|
| `IPYBATCH_STEAM_MAX_CONCURRENT_REQUESTS`   | 3       | requests at the same time, a whole number >= 1 |
| `IPYBATCH_STEAM_BATCH_SIZE`                | 15      | games a batch, a whole number >= 1             |
| `IPYBATCH_STEAM_BATCH_DELAY_SECONDS`       | 15      | pause between two batches, seconds, >= 0       |
| `IPYBATCH_STEAM_REQUEST_DELAY_MS`          | 1500    | pause between two starts, milliseconds, >= 0   |
| `IPYBATCH_STEAM_CIRCUIT_BREAKER_THRESHOLD` | 3       | failures in a row that open the breaker, >= 1  |
| `IPYBATCH_STEAM_MAX_RETRIES`               | 2       | tries after the first one, a whole number >= 0 |

They are read whenever a session is made.  Arguments override them: ``limits=``, ``retry=`` and ``breaker=`` each
replace all of theirs.  The store's own 200 requests per 5 minutes hold too, unless ``limits=`` says otherwise.

Source: https://wiki.teamfortress.com/wiki/User:RJackson/StorefrontAPI (shape),
https://github.com/daniel-tran/steam-points-shop-search/wiki/Rate-Limiting-by-the-Steam-API (429, then 403) and
https://partner.steamgames.com/doc/webapi/IPlayerService#GetOwnedGames, read 2026-11-22;
https://partner.steamgames.com/doc/store/localization/languages (languages), read 2026-11-30.
"""

from __future__ import annotations

import asyncio
import logging
import numbers
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from ipybatch.engine.data.masking import mask, register
from ipybatch.engine.data.policy import Breaker, Limits, Rate, Retry, check, check_count, keep
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.run.engine_thread import engine_thread
from ipybatch.errors import InputError, ItemError, Transient
from ipybatch.library.http import TIMEOUT_S, Client, HttpSource, OwnClient, check_url, read_json
from ipybatch.library.source import Defaults, Identity, NotThere, read_environment

STORE_URL = "https://store.steampowered.com"
API_URL = "https://api.steampowered.com"
PREFIX = "IPYBATCH_STEAM_"
LARGEST_ID = 2**32 - 1

# Valve publishes no limit; this one is observed.
# Source: https://steamdb.info/blog/store-prices-api/ (2026-11-22).
STORE_RATE = Rate(200, per_s=300)

# fmt: off
LANGUAGES = (
    "arabic", "brazilian", "bulgarian", "czech", "danish", "dutch", "english", "finnish", "french", "german",
    "greek", "hungarian", "indonesian", "italian", "japanese", "koreana", "latam", "norwegian", "polish",
    "portuguese", "romanian", "russian", "schinese", "spanish", "swedish", "tchinese", "thai", "turkish",
    "ukrainian", "vietnamese",
)
# fmt: on

_NUMBER = re.compile(r"\s*([0-9]{1,10})(?:\.0+)?\s*")
DETAILS = "/api/appdetails"
_OWNED_PATH = "/IPlayerService/GetOwnedGames/v1"
BANNED = "it blocks this address for some minutes, as it does after too many requests; run the session again later"
_WRONG_KEY = "it does not accept the key; https://steamcommunity.com/dev/apikey gives one"
_OFTEN = ". Where the key is right it was asked too often: try again in some minutes"  # it may say 403 for 429


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Settings of requests to the store.

    Attributes:
        max_concurrent_requests: Requests at the same time, >= 1, default 3.
        batch_size: Games in a batch, >= 1, default 15.
        batch_delay_seconds: Pause between two batches, seconds, >= 0, default 15.
        request_delay_ms: Pause between two starts, milliseconds, >= 0, default 1500.
        circuit_breaker_threshold: Failures in a row that open the circuit breaker, >= 1, default 3.
        max_retries: Attempts after the first one, >= 0, default 2.

    Raises:
        InputError: A field is outside its range; names field, range and value.
    """

    max_concurrent_requests: int = 3
    batch_size: int = 15
    batch_delay_seconds: float = 15
    request_delay_ms: float = 1500
    circuit_breaker_threshold: int = 3
    max_retries: int = 2

    def __post_init__(self) -> None:
        keep(self, max_concurrent_requests=check_count("max_concurrent_requests", self.max_concurrent_requests, low=1))
        keep(self, batch_size=check_count("batch_size", self.batch_size, low=1))
        keep(self, batch_delay_seconds=check("batch_delay_seconds", self.batch_delay_seconds, low=0, high=1e9))
        keep(self, request_delay_ms=check("request_delay_ms", self.request_delay_ms, low=0, high=1e9))
        threshold = check_count("circuit_breaker_threshold", self.circuit_breaker_threshold, low=1)
        keep(self, circuit_breaker_threshold=threshold)
        keep(self, max_retries=check_count("max_retries", self.max_retries, low=0))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> StoreSettings:
        """Return the settings from the environment, else their defaults.

        Raises:
            InputError: A variable is outside its range; names it, its range and its value.
        """
        return read_environment(cls, PREFIX, environment, {})

    def limits(self) -> Limits:
        """Return the settings as limits, with the store's own rate."""
        return Limits(
            concurrency=self.max_concurrent_requests,
            spacing_s=self.request_delay_ms / 1000,
            batch_size=self.batch_size,
            batch_pause_s=self.batch_delay_seconds,
            rates=[STORE_RATE],
        )

    def retry(self) -> Retry:
        """Return the retry policy."""
        return Retry(attempts=1 + self.max_retries)

    def breaker(self) -> Breaker:
        """Return the policy of the circuit breaker."""
        return Breaker(failures=self.circuit_breaker_threshold)

    def as_dict(self) -> dict[str, float]:
        """Return the six settings by name."""
        return asdict(self)


class SteamStore(HttpSource):
    """The Steam store as a source of games.

    Args:
        base_url: URL of the store.
        client: An `httpx2.AsyncClient` or `httpx.AsyncClient` of yours; it stays open. Default: a client of the
            source's own, opened with its first session and closed with its last.
        cc: Country of prices and offers, two letters; or several: the next one is asked, by a further request, for
            what the one before does not sell, and the record's ``cc`` says which answered.
        language: Language of the texts, by the store's own name such as "german" or "schinese"; default: the store's.
        api_url: URL of the Web API, for `owned_games`.

    A record of other countries or in another language is another record: its place is "us,de", or "us in german".

    Raises:
        InputError: An argument is invalid; names it, its value and the allowed values.

    Example:
        >>> from ipybatch.library import SteamStore
        >>> SteamStore(cc="de")
        SteamStore('https://store.steampowered.com', cc='de')
    """

    def __init__(
        self,
        base_url: str = STORE_URL,
        client: Client | None = None,
        cc: str | Sequence[str] = "us",
        *,
        language: str | None = None,
        api_url: str = API_URL,
    ) -> None:
        super().__init__(client)
        self.base_url = check_url("base_url", base_url)
        self.api_url = check_url("api_url", api_url)
        self.countries = tuple(map(country_of, [cc] if isinstance(cc, str) or not isinstance(cc, Sequence) else cc))
        if not self.countries or len(set(self.countries)) < len(self.countries):
            msg = f"cc must be one country or several different ones such as ('us', 'de'), got {cc!r}"
            raise InputError(msg)
        if language is not None and language not in LANGUAGES:
            msg = f"language must be None or one of {', '.join(LANGUAGES)}, got {language!r}"
            raise InputError(msg)
        self.language = language
        self._place = ",".join(self.countries) + (f" in {language}" if language else "")

    def __repr__(self) -> str:
        cc = self.countries[0] if len(self.countries) == 1 else self.countries
        more = f", language={self.language!r}" if self.language else ""
        return f"SteamStore({mask(self.base_url)!r}, cc={cc!r}{more})"

    def as_params(self) -> dict[str, Any] | None:
        """Return what makes such a source, as data; None where there is more to it, such as a client of the user's."""
        if type(self) is not SteamStore or self._given is not None or self.api_url != API_URL:
            return None
        cc = self.countries[0] if len(self.countries) == 1 else list(self.countries)
        address = None if self.base_url == STORE_URL else self.base_url
        told = {"base_url": address, "cc": None if cc == "us" else cc, "language": self.language}
        return {"source": "steam", **{name: value for name, value in told.items() if value is not None}}

    def defaults(self) -> Defaults:
        """Return the policy of the store, with settings from the environment."""
        settings = StoreSettings.from_environment()
        language = {"language": self.language} if self.language else {}
        return Defaults(
            name="steam refresh",
            resource=resource_at(self.base_url),
            settings={"source": "steam", "cc": ",".join(self.countries), **language},
            limits=settings.limits(),
            retry=settings.retry(),
            breaker=settings.breaker(),
            timeout_s=2 * TIMEOUT_S,
        )

    def identify(self, item: Any) -> Identity:
        """Return the key of a game's record.

        Args:
            item: App id, the number in the address of the game's page in the store; "440" and 440.0 are the game 440.

        Raises:
            InputError: The app id is not a whole number, or is out of range.
        """
        return Identity(kind="game", key=app_id_of(item), place=self._place)

    async def fetch(
        self, item: Any, attempt: Attempt, kept: dict[str, Any] | None = None, expand: str = ""
    ) -> dict[str, Any]:
        """Return the store's details of a game, from the first of the countries that has it.

        Raises:
            NotThere: None of the countries has it.
            ItemError: The fetch failed; the class says whether it is tried again.
        """
        for country in self.countries:
            async with nullcontext() if country == self.countries[0] else attempt.permit():
                data = await self._ask(item, country)
            if data is not None:
                return {**data, "cc": country} if len(self.countries) > 1 else data
        msg = f"no such game, or not sold in {', '.join(self.countries).upper()}"
        raise NotThere(msg)

    async def _ask(self, app_id: int, country: str) -> dict[str, Any] | None:
        """Return the store's details of a game in one country; None if it has none there."""
        params = {"appids": app_id, "cc": country, **({"l": self.language} if self.language else {})}
        response = await self._client.get(f"{self.base_url}{DETAILS}", params=params, follow_redirects=False)
        answer = read_json(response, "the Steam store", refused=BANNED)
        entry = answer.get(str(app_id)) if isinstance(answer, dict) else None
        success = entry.get("success") if isinstance(entry, dict) else None
        if success is False:
            return None
        data = entry.get("data") if isinstance(entry, dict) else None
        if success is not True or not isinstance(data, dict) or not isinstance(data.get("name"), str):
            msg = f"the Steam store answered without the details of {app_id}"
            raise Transient(msg)
        told = whole(data.get("steam_appid"))
        return data if not told or told == app_id else {**data, "part_of": told}

    def owned_games(self, steam_id: str | int, key: str) -> list[int]:
        """Return the app ids of the games that a profile owns, in Steam's order; block until the answer is there.

        Args:
            steam_id: SteamID64 of the profile, 17 digits.
            key: Web API key from https://steamcommunity.com/dev/apikey; it is masked in everything shown or written.

        Raises:
            InputError: ``steam_id`` or ``key`` is invalid, or the profile is private.
            Refused: Steam does not accept the key.
            ItemError: Steam gave no valid answer; try again.
        """
        return engine_thread().wait(self._fetch_owned(steam_id, key))  # on the engine's loop, where clients live

    async def fetch_owned_games(self, steam_id: str | int, key: str) -> list[int]:
        """Return what `owned_games` does, without blocking: in a browser nothing may block.

        Args:
            steam_id: SteamID64 of the profile, 17 digits.
            key: Web API key from https://steamcommunity.com/dev/apikey; it is masked in everything shown or written.

        Raises:
            InputError: ``steam_id`` or ``key`` is invalid, or the profile is private.
            Refused: Steam does not accept the key.
            ItemError: Steam gave no valid answer; try again.
        """
        return await asyncio.wrap_future(engine_thread().spawn(self._fetch_owned(steam_id, key)))

    async def _fetch_owned(self, steam_id: str | int, key: str) -> list[int]:
        profile = str(steam_id)
        if isinstance(steam_id, bool) or not re.fullmatch("7656[0-9]{13}", profile):
            msg = (
                f"steam_id must be the 17 digits of a SteamID64, which begin with 7656, got {steam_id!r}:"
                " Steam shows it on the profile's account page"
            )
            raise InputError(msg)
        if not isinstance(key, str) or not key.strip():
            msg = "key must be a Steam Web API key, got none: https://steamcommunity.com/dev/apikey gives one"
            raise InputError(msg)
        register(key)
        for library in ("httpx2", "httpx"):
            logging.getLogger(library).addFilter(_masking)  # adding it twice is adding it once
        answer = await _ask_owned(self.api_url, self._given, profile, key)
        response = answer.get("response") if isinstance(answer, dict) else None
        if response == {}:
            msg = (
                f"steam_id must be of a profile whose game details are public, got {profile}:"
                " open its privacy settings, or use the key of its owner"
            )
            raise InputError(msg)
        games = response.get("games", []) if isinstance(response, dict) else None
        if isinstance(games, list) and all(isinstance(game, dict) and _is_id(game.get("appid")) for game in games):
            return list(dict.fromkeys(game["appid"] for game in games))
        msg = "Steam answered without a list of games: try again"
        raise Transient(msg)


async def _ask_owned(api_url: str, client: Client | None, profile: str, key: str) -> Any:
    params = {"key": key, "steamid": profile, "format": "json", "include_played_free_games": "1"}
    used: Any = client or OwnClient(TIMEOUT_S)
    trouble = ""
    try:
        response = await used.get(f"{api_url}{_OWNED_PATH}/", params=params, follow_redirects=False)
        return read_json(response, "Steam", refused=_WRONG_KEY + (_OFTEN if response.status_code == 403 else ""))
    except ItemError:
        raise
    except Exception as error:  # raised below: a client's error holds the request, and so the key
        trouble = f"{type(error).__name__}: {mask(str(error))}"
    finally:
        if client is None:
            await used.aclose()
    msg = f"Steam did not answer ({trouble}): try again"
    raise Transient(msg)


def country_of(cc: Any) -> str:
    """Return a country as the store names it.

    Raises:
        InputError: It is not two letters.
    """
    if not isinstance(cc, str) or not re.fullmatch("[A-Za-z]{2}", cc):
        msg = f"cc must be a country's two letters such as 'us' or 'de', got {cc!r}"
        raise InputError(msg)
    return cc.lower()


def resource_at(base_url: str) -> str:
    """Return the name of what a store limits: simulators do not count in the real store's windows."""
    return "steam store" if base_url == STORE_URL else f"steam store at {urlsplit(base_url).netloc.rpartition('@')[2]}"


def app_id_of(item: Any) -> int:
    """Return an item as an app id.

    Raises:
        InputError: It is not a whole number, or is out of range.
    """
    app_id = whole(item)
    if app_id is None or not 1 <= app_id <= LARGEST_ID:
        msg = (
            f"app id must be a whole number from 1 to {LARGEST_ID}, got {item!r}:"
            " take the number in the address of the game's page in the store"
        )
        raise InputError(msg)
    return app_id


def whole(item: Any) -> int | None:
    """Return a whole number for an app id as tables have it: numbers of numpy and pandas, floats, decimals, texts."""
    if isinstance(item, str):
        return int(found[1]) if (found := _NUMBER.fullmatch(item)) else None
    if isinstance(item, bool) or not isinstance(item, numbers.Real | Decimal):  # no numpy bool is one
        return None
    value: Any = item
    try:
        whole = int(value)
    except (ValueError, OverflowError):  # NaN, infinity
        return None
    return whole if whole == value else None


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class _Masking(logging.Filter):
    """Mask log records: httpx2 and httpx log whole URLs, and this endpoint takes its key in the URL."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the message."""
        record.msg, record.args = mask(record.getMessage()), ()
        return True


_masking = _Masking()
