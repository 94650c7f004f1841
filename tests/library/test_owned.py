from __future__ import annotations

import logging
from collections.abc import Callable

import httpx
import pytest

from ipybatch import InputError, Refused, Transient
from ipybatch.library import SteamStore
from ipybatch.simulators import serve

ALICE, BOB = "76561197960435530", "76561197960287930"
KEY = "ABCDEF0123456789ABCDEF0123456789"


def test_owned_games_are_a_library_to_refresh() -> None:
    with serve("steam", key=KEY, libraries={ALICE: [570, 440]}) as url:
        assert SteamStore(url, api_url=url).owned_games(ALICE, KEY) == [570, 440]
        assert SteamStore(url, api_url=url).owned_games(int(ALICE), KEY) == [570, 440]


def test_a_private_profile_is_told() -> None:
    with serve("steam", key=KEY, private={BOB}) as url, pytest.raises(InputError, match=f"public, got {BOB}: open"):
        SteamStore(url, api_url=url).owned_games(BOB, KEY)


def test_a_profile_without_games_owns_none() -> None:
    with serve("steam", key=KEY, libraries={ALICE: []}) as url:
        assert SteamStore(url, api_url=url).owned_games(ALICE, KEY) == []


def test_a_wrong_key_is_told_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the error nor httpx's log, which holds whole addresses, has the key."""
    wrong = "0123WRONG0123WRONG0123WRONG01234"
    caplog.set_level(logging.DEBUG)
    refused = pytest.raises(Refused, match="Steam answered 401: it does not accept the key")
    with serve("steam", key=KEY) as url, refused as caught:
        SteamStore(url, api_url=url).owned_games(ALICE, wrong)
    assert wrong not in str(caught.value)
    assert "GetOwnedGames" in caplog.text
    assert wrong not in caplog.text


def test_nobody_there_is_told_without_the_key() -> None:
    store = SteamStore(api_url="http://127.0.0.1:9")
    with pytest.raises(Transient, match="Steam did not answer") as caught:
        store.owned_games(ALICE, KEY)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # httpx's own error carries the request, and with it the key


@pytest.mark.parametrize("steam_id", ["", "alice", "123", ALICE + "0", True, None])
def test_what_is_no_profile_is_refused(steam_id: str) -> None:
    with pytest.raises(InputError, match="steam_id must be the 17 digits"):
        SteamStore().owned_games(steam_id, KEY)


@pytest.mark.parametrize("key", ["", "  ", None])
def test_an_absent_key_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="key must be a Steam Web API key"):
        SteamStore().owned_games(ALICE, key)


@pytest.mark.parametrize(
    "body", ["null", "[]", "{}", '{"response": {"games": [{"appid": "440"}]}}', '{"response": []}']
)
def test_a_wrong_shape_is_told(answering: Callable[..., SteamStore], body: str) -> None:
    with pytest.raises(Transient, match="without a list of games"):
        answering(200, text=body).owned_games(ALICE, KEY)


def test_the_users_client_is_used_and_not_closed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"response": {"game_count": 1, "games": [{"appid": 440}]}})

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    assert SteamStore(client=client).owned_games(ALICE, KEY) == [440]
    assert not client.is_closed
