import json

import pytest

from ipybatch.simulators.catalogue import NASTY_NAMES, game, game_name, price_overview

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
