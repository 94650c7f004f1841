"""Owned: the games of a Steam profile.

    GET api.steampowered.com/IPlayerService/GetOwnedGames/v1      {"response": {"game_count": 2, "games": [...]}}
                                                                  {"response": {}} is a private profile

Source: https://partner.steamgames.com/doc/webapi/IPlayerService#GetOwnedGames (2026-11-22).
"""

from __future__ import annotations

import logging
import re
from typing import Any

from ipybatch.engine.data.masking import mask, register
from ipybatch.engine.run.engine_thread import host
from ipybatch.errors import InputError, ItemError, Transient
from ipybatch.library.answers import Client, make_client, read_json

TIMEOUT_S = 30.0
_PATH = "/IPlayerService/GetOwnedGames/v1"
_WRONG_KEY = "it does not accept the key; https://steamcommunity.com/dev/apikey gives one"


def games(api_url: str, client: Client | None, steam_id: str | int, key: str) -> list[int]:
    """Return the ids of the games that ``steam_id`` owns; asks on the engine's loop, where clients live.

    Raises:
        InputError: An argument is not what it must be, or the profile is private.
        ItemError: Steam refused, or did not answer as it should.
    """
    profile = _check(steam_id, key)
    register(key)
    _mask_log()
    answer = host().spawn(_ask(api_url, client, profile, key)).result()
    response = answer.get("response") if isinstance(answer, dict) else None
    if response == {}:
        msg = (
            f"steam_id must be of a profile whose game details are public, got {profile}: open its privacy settings,"
            " or use the key of its owner"
        )
        raise InputError(msg)
    found = response.get("games", []) if isinstance(response, dict) else None
    if not isinstance(found, list) or not all(isinstance(game, dict) and _is_id(game.get("appid")) for game in found):
        msg = "Steam answered without a list of games: try again"
        raise Transient(msg)
    return list(dict.fromkeys(game["appid"] for game in found))


async def _ask(api_url: str, client: Client | None, profile: str, key: str) -> Any:
    params = {"key": key, "steamid": profile, "format": "json", "include_played_free_games": "1"}
    used: Any = client or make_client(TIMEOUT_S)
    trouble = ""
    try:
        response = await used.get(f"{api_url}{_PATH}/", params=params, follow_redirects=False)
        return read_json(response, "Steam", refused=_WRONG_KEY)
    except ItemError:
        raise
    except Exception as error:  # raised anew below: a client's own error carries the request, and with it the key
        trouble = f"{type(error).__name__}: {mask(str(error))}"
    finally:
        if client is None:
            await used.aclose()
    msg = f"Steam did not answer ({trouble}): try again"
    raise Transient(msg)


def _check(steam_id: Any, key: Any) -> str:
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
    return profile


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class _Masking(logging.Filter):
    """Mask what is logged: httpx logs whole addresses, and this endpoint takes its key in the address."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the message."""
        record.msg, record.args = mask(record.getMessage()), ()
        return True


_masking = _Masking()


def _mask_log() -> None:
    logging.getLogger("httpx").addFilter(_masking)  # adding it twice is adding it once
