import json

import pytest

from ipybatch.simulators import Faults, Request, SteamSimulator
from ipybatch.simulators.steam import NASTY_NAMES, game, game_name, price_overview


def get(store, query, now_s=0.0, path="/api/appdetails"):
    reply = store.handle(Request(f"{path}?{query}"), now_s)
    return reply.status, json.loads(reply.body) if "json" in reply.headers["Content-Type"] else reply.body


def owned(store, query, path="/IPlayerService/GetOwnedGames/v1/"):
    return get(store, query, path=path)


def test_a_game_comes_under_its_id():
    assert get(SteamSimulator(), "appids=440") == (200, {"440": {"success": True, "data": game(440)}})


def test_a_missing_game_has_no_success_and_no_data():
    assert get(SteamSimulator(missing={440}), "appids=440") == (200, {"440": {"success": False}})


def test_a_game_not_sold_in_a_country_looks_like_a_missing_one():
    """The store does not say which of the two it is."""
    store = SteamSimulator(not_sold_in={"de": {440}})
    assert get(store, "appids=440&cc=DE") == (200, {"440": {"success": False}})
    assert get(store, "appids=440&cc=US")[1]["440"]["success"]
    assert get(store, "appids=440&cc=de")[1] == {"440": {"success": False}}


def test_a_share_of_the_ids_is_missing_and_always_the_same():
    store, again = (SteamSimulator(missing_rate=0.1, faults=Faults(seed=3)) for _ in range(2))
    missing = [app_id for app_id in range(2000) if not store.has(app_id)]
    assert len(missing) == pytest.approx(200, abs=54)
    assert missing == [app_id for app_id in range(2000) if not again.has(app_id)]
    assert get(store, f"appids={missing[0]}")[1] == {str(missing[0]): {"success": False}}


def test_the_country_decides_the_currency():
    app_id = next(number for number in range(10, 500, 10) if "price_overview" in game(number))
    data = get(SteamSimulator(), f"appids={app_id}&cc=de")[1][str(app_id)]["data"]
    assert data["price_overview"]["currency"] == "EUR"


@pytest.mark.parametrize(
    "query", ["appids=440,570", "appids=", "", "appids=abc", "appids=-1", "appids=²", "appids=1.5"]
)
def test_several_ids_and_bad_ids_get_400_and_null(query):
    assert get(SteamSimulator(), query) == (400, None)


def test_several_ids_are_answered_when_only_prices_are_asked_for():
    """A game without a price has an empty list where the others have an object."""
    free = next(number for number in range(10, 500, 10) if "price_overview" not in game(number))
    sold = next(number for number in range(10, 500, 10) if "price_overview" in game(number))
    store = SteamSimulator()
    status, answer = get(store, f"appids={sold},{free}&filters=price_overview")
    assert (status, list(answer)) == (200, [str(sold), str(free)])
    assert answer[str(sold)] == {"success": True, "data": {"price_overview": game(sold)["price_overview"]}}
    assert answer[str(free)] == {"success": True, "data": []}
    assert store.stats()["ids"] == {str(sold): 1, str(free): 1}


def test_too_many_requests_get_429_with_null_and_no_retry_after():
    store = SteamSimulator(limit=2, per_s=10)
    assert [get(store, "appids=440", now_s) for now_s in (0, 1)] == [get(SteamSimulator(), "appids=440")] * 2
    reply = store.handle(Request("/api/appdetails?appids=440"), 2.0)
    assert (reply.status, reply.body) == (429, b"null")
    assert "retry-after" not in {name.lower() for name in reply.headers}


def test_the_default_limit_is_the_stores_own():
    """200 per 300 s: the 201st within five minutes is refused, and served when the first has left the window."""
    store = SteamSimulator()
    statuses = [get(store, f"appids={number}", number)[0] for number in range(1, 202)]
    assert statuses == [200] * 200 + [429]
    assert get(store, "appids=1", 302)[0] == 200
    assert store.worst(300) == 201


def test_who_goes_on_being_too_fast_is_banned_with_403():
    store = SteamSimulator(limit=1, per_s=10, ban_after=2, ban_s=100)
    assert [get(store, "appids=440", now_s)[0] for now_s in (0, 1, 2, 3, 101, 112)] == [200, 429, 429, 403, 403, 200]


def test_without_a_limit_nobody_is_refused():
    store = SteamSimulator(limit=None)
    assert {get(store, "appids=440")[0] for _ in range(500)} == {200}


def test_owned_games_come_with_names_when_asked_for():
    store = SteamSimulator(key="K", libraries={"765": [440, 570]})
    status, answer = owned(store, "key=K&steamid=765&include_appinfo=1")
    games = answer["response"]["games"]
    assert (status, answer["response"]["game_count"]) == (200, 2)
    assert [entry["appid"] for entry in games] == [440, 570]
    assert games[0].keys() == {"appid", "name", "playtime_forever", "img_icon_url"}
    assert games[0]["name"] == game(440)["name"]
    assert owned(store, "key=K&steamid=765")[1]["response"]["games"][0].keys() == {"appid", "playtime_forever"}


def test_an_unlisted_player_owns_a_library_of_the_size_asked_for():
    store = SteamSimulator(key="K", library_size=30)
    ids = [entry["appid"] for entry in owned(store, "key=K&steamid=766")[1]["response"]["games"]]
    assert ids == store.library("766")
    assert len(set(ids)) == 30
    assert ids != store.library("767")


def test_a_private_profile_answers_with_nothing():
    assert owned(SteamSimulator(key="K", private={"765"}), "key=K&steamid=765") == (200, {"response": {}})


@pytest.mark.parametrize(("query", "status"), [("key=X&steamid=765", 401), ("steamid=765", 401), ("key=K", 400)])
def test_a_wrong_key_gets_401_and_a_wrong_player_400(query, status):
    assert owned(SteamSimulator(key="K"), query)[0] == status


def test_owned_games_do_not_count_against_the_store():
    store = SteamSimulator(key="K", limit=1, per_s=10)
    for _ in range(3):
        owned(store, "key=K&steamid=765")
    assert get(store, "appids=440")[0] == 200
    assert store.stats()["arrivals"] == [0.0]
    assert store.stats()["requests"] == 4


def test_an_unknown_address_is_not_found():
    assert get(SteamSimulator(), "", path="/api/featured")[0] == 404


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing_rate": 1.1}, r"missing_rate must be in \[0, 1\], got 1.1"),
        ({"library_size": -1}, "library_size must be >= 0, got -1"),
        ({"limit": 0}, "limit must be >= 1, got 0"),
    ],
)
def test_bad_options_name_field_value_and_range(options, message):
    with pytest.raises(ValueError, match=message):
        SteamSimulator(**options)


GAMES = [game(app_id) for app_id in range(10, 20_010, 10)]
ALWAYS = {"type", "name", "steam_appid", "required_age", "is_free", "short_description", "developers", "publishers"}
ALWAYS |= {"platforms", "categories", "genres", "release_date"}


def test_a_game_follows_from_its_id():
    assert game(440) == game(440)
    assert game(440) != game(450)


def test_every_game_has_what_the_store_always_tells():
    assert all(data.keys() >= ALWAYS for data in GAMES)
    assert json.loads(json.dumps(GAMES, allow_nan=False)) == GAMES


@pytest.mark.parametrize("key", ["price_overview", "metacritic", "recommendations"])
def test_what_the_store_tells_of_some_games_is_absent_from_others(key):
    assert 0 < sum(key in data for data in GAMES) < len(GAMES)


def test_only_games_that_are_sold_have_a_price():
    sold = [not data["is_free"] and not data["release_date"]["coming_soon"] for data in GAMES]
    assert ["price_overview" in data for data in GAMES] == sold
    assert {True, False} == set(sold)


def test_required_age_is_zero_or_a_string_as_in_the_store():
    assert {data["required_age"] for data in GAMES} == {0, "17", "18"}


def test_some_names_are_nasty_and_all_nasty_names_occur():
    names = [data["name"] for data in GAMES]
    assert set(NASTY_NAMES) <= set(names)
    assert sum(name in NASTY_NAMES for name in names) == pytest.approx(len(names) / 16, rel=0.3)
    assert any(name.startswith("=") for name in NASTY_NAMES)
    assert any("<script>" in name for name in NASTY_NAMES)


@pytest.mark.parametrize(
    ("country", "currency", "mark"), [("US", "USD", "$"), ("DE", "EUR", "€"), ("GB", "GBP", "£"), ("JP", "JPY", "¥")]
)
def test_a_price_is_in_the_money_of_the_country(country, currency, mark):
    price = price_overview(440, country)
    assert price["currency"] == currency
    assert mark in price["final_formatted"]


def test_a_discount_is_taken_from_the_price():
    prices = [price_overview(app_id, "US") for app_id in range(500)]
    for price in prices:
        assert price["final"] == price["initial"] * (100 - price["discount_percent"]) // 100
        assert price["final_formatted"] == f"${price['final'] / 100:.2f}"
        assert bool(price["initial_formatted"]) == (price["discount_percent"] > 0)
    assert len({price["discount_percent"] for price in prices}) > 3


def test_the_name_alone_is_the_name_in_the_store():
    assert [game_name(data["steam_appid"]) for data in GAMES] == [data["name"] for data in GAMES]


def test_languages_parts_and_gaps():
    """Texts in the language asked for, the details of another id, and ids left out of an answer for several."""
    store = SteamSimulator(part_of={441: 440}, left_out={20})

    def ask(query):
        return json.loads(store.handle(Request(f"/api/appdetails?{query}"), 0.0).body)

    assert ask("appids=440&l=german")["440"]["data"]["short_description"].startswith("(german) ")
    assert ask("appids=441")["441"]["data"]["steam_appid"] == 440
    assert set(ask("appids=10,20&filters=price_overview")) == {"10"}
    assert set(ask("appids=20&filters=price_overview")) == {"20"}
