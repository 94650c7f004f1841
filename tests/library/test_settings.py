from __future__ import annotations

from dataclasses import fields

import pytest

from ipybatch import Breaker, InputError, Limits, Rate, Retry
from ipybatch.library import settings
from ipybatch.library.settings import BattleNetSettings, StoreSettings


def test_defaults_are_the_documented_ones() -> None:
    """3 at once, 1.5 s apart, 15 a batch, 15 s between, 2 retries, breaker after 3, the store's 200 per 300 s."""
    ours = StoreSettings.from_environment({})
    assert ours.limits() == Limits(
        concurrency=3, spacing_s=1.5, batch_size=15, batch_pause_s=15, rates=[Rate(200, per_s=300)]
    )
    assert ours.retry() == Retry(attempts=3)
    assert ours.breaker() == Breaker(failures=3)


def test_the_environment_overrides_every_setting() -> None:
    environment = {
        "IPYBATCH_STEAM_MAX_CONCURRENT_REQUESTS": "5",
        "IPYBATCH_STEAM_BATCH_SIZE": "40",
        "IPYBATCH_STEAM_BATCH_DELAY_SECONDS": "0.5",
        "IPYBATCH_STEAM_REQUEST_DELAY_MS": "250",
        "IPYBATCH_STEAM_CIRCUIT_BREAKER_THRESHOLD": "7",
        "IPYBATCH_STEAM_MAX_RETRIES": "0",
    }
    ours = StoreSettings.from_environment(environment)
    assert ours.limits() == Limits(
        concurrency=5, spacing_s=0.25, batch_size=40, batch_pause_s=0.5, rates=[Rate(200, per_s=300)]
    )
    assert ours.retry() == Retry(attempts=1)
    assert ours.breaker() == Breaker(failures=7)


def test_an_empty_variable_is_none() -> None:
    assert StoreSettings.from_environment({"IPYBATCH_STEAM_BATCH_SIZE": " "}) == StoreSettings()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MAX_CONCURRENT_REQUESTS", "0"),
        ("MAX_CONCURRENT_REQUESTS", "three"),
        ("MAX_CONCURRENT_REQUESTS", "2.5"),
        ("BATCH_SIZE", "-1"),
        ("BATCH_DELAY_SECONDS", "nan"),
        ("REQUEST_DELAY_MS", "-1"),
        ("REQUEST_DELAY_MS", "inf"),
        ("CIRCUIT_BREAKER_THRESHOLD", "0"),
        ("MAX_RETRIES", "-1"),
    ],
)
def test_a_bad_variable_is_named(variable: str, text: str) -> None:
    """Variable, range, value and what to do."""
    name = f"IPYBATCH_STEAM_{variable}"
    with pytest.raises(InputError, match=f"^{name} must be .*>= .*got '?{text}'?: correct it in the environment"):
        StoreSettings.from_environment({name: text})


def test_battlenets_settings_come_from_the_environment_and_arguments() -> None:
    """20 at once and 10 ms apart; an argument wins over the environment."""
    assert BattleNetSettings.from_environment({}) == BattleNetSettings(max_concurrent=20, min_time_ms=10)
    environment = {"BNET_MAX_CONCURRENT": "5", "BNET_MIN_TIME_MS": "12.5"}
    assert BattleNetSettings.from_environment(environment) == BattleNetSettings(max_concurrent=5, min_time_ms=12.5)
    given = BattleNetSettings.from_environment(environment, max_concurrent=3)
    assert given == BattleNetSettings(max_concurrent=3, min_time_ms=12.5)
    assert given.limits() == Limits(
        concurrency=3, spacing_s=0.0125, rates=[Rate(100, per_s=1), Rate(36_000, per_s=3600)]
    )


@pytest.mark.parametrize(("name", "text"), [("MAX_CONCURRENT", "0"), ("MAX_CONCURRENT", "2.5"), ("MIN_TIME_MS", "-1")])
def test_a_bad_variable_of_battlenet_is_named(name: str, text: str) -> None:
    with pytest.raises(InputError, match=f"^BNET_{name} must be .*>= .*got {text}: correct it in the environment"):
        BattleNetSettings.from_environment({f"BNET_{name}": text})


def test_a_bad_argument_is_named_as_it_was_given() -> None:
    with pytest.raises(InputError, match=r"^max_concurrent must be a whole number >= 1, got 0$"):
        BattleNetSettings.from_environment({}, max_concurrent=0)


def test_every_variable_is_documented() -> None:
    assert settings.__doc__ is not None
    for name in StoreSettings().as_dict():
        assert f"`IPYBATCH_STEAM_{name.upper()}`" in settings.__doc__
    for field in fields(BattleNetSettings):
        assert f"`BNET_{field.name.upper()}`" in settings.__doc__
