"""Settings: how fast services are asked, and the environment that overrides it.

| variable                                 | default | what it sets                                             |
|------------------------------------------|---------|----------------------------------------------------------|
| `IPYBATCH_STEAM_MAX_CONCURRENT_REQUESTS` | 3       | requests at the same time, a whole number >= 1           |
| `IPYBATCH_STEAM_BATCH_SIZE`              | 15      | games a batch, a whole number >= 1                       |
| `IPYBATCH_STEAM_BATCH_DELAY_SECONDS`     | 15      | pause between two batches, seconds, >= 0                 |
| `IPYBATCH_STEAM_REQUEST_DELAY_MS`        | 1500    | pause between two starts, milliseconds, >= 0             |
| `IPYBATCH_STEAM_CIRCUIT_BREAKER_THRESHOLD` | 3     | failures in a row that open the breaker, >= 1            |
| `IPYBATCH_STEAM_MAX_RETRIES`             | 2       | tries after the first one, a whole number >= 0           |
| `BNET_MAX_CONCURRENT`                    | 20      | guilds and characters at the same time, a whole number >= 1 |
| `BNET_MIN_TIME_MS`                       | 10      | pause between two starts, milliseconds, >= 0             |

They are read whenever a session is made.  Arguments override them: ``limits=``, ``retry=`` and ``breaker=`` each
replace all of theirs.  The store's own 200 requests per 5 minutes always hold, and Battle.net's 100 a second and
36,000 an hour, unless ``limits=`` says otherwise.

`IPYBATCH_LIBRARY` moves the records, see `records`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from ipybatch.engine.data.policy import Breaker, Limits, Rate, Retry, check, check_count
from ipybatch.errors import InputError

PREFIX = "IPYBATCH_STEAM_"

# Valve publishes no limit; this is what people observe.
# Source: https://steamdb.info/blog/store-prices-api/ (2026-11-22).
STORE_RATE = Rate(200, per_s=300)

BATTLENET_PREFIX = "BNET_"

# For a client id, wherever it asks.
# Source: https://rate-limits.apis.io/rate-limits/battle-net/battle-net-rate-limits/ (2026-11-22).
BATTLENET_RATES = (Rate(100, per_s=1), Rate(36_000, per_s=3600))

_Settings = TypeVar("_Settings", "StoreSettings", "BattleNetSettings")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """How fast the store is asked.

    Attributes:
        max_concurrent_requests: Requests at the same time, >= 1.
        batch_size: Games a batch, >= 1.
        batch_delay_seconds: Between two batches, >= 0.
        request_delay_ms: Between two starts, milliseconds, >= 0.
        circuit_breaker_threshold: Failures in a row that open the breaker, >= 1.
        max_retries: Tries after the first one, >= 0.

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
        check_count("max_concurrent_requests", self.max_concurrent_requests, low=1)
        check_count("batch_size", self.batch_size, low=1)
        check("batch_delay_seconds", self.batch_delay_seconds, low=0, high=1e9)
        check("request_delay_ms", self.request_delay_ms, low=0, high=1e9)
        check_count("circuit_breaker_threshold", self.circuit_breaker_threshold, low=1)
        check_count("max_retries", self.max_retries, low=0)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> StoreSettings:
        """Return the defaults, with what the environment overrides.

        Raises:
            InputError: A variable is outside its range; names it, its range and its value.
        """
        return _read(cls, PREFIX, environment, {})

    def limits(self) -> Limits:
        """Return them as limits, the store's own included."""
        return Limits(
            concurrency=self.max_concurrent_requests,
            spacing_s=self.request_delay_ms / 1000,
            batch_size=self.batch_size,
            batch_pause_s=self.batch_delay_seconds,
            rates=[STORE_RATE],
        )

    def retry(self) -> Retry:
        """Return how often a game is tried."""
        return Retry(attempts=1 + self.max_retries)

    def breaker(self) -> Breaker:
        """Return when the store is left alone."""
        return Breaker(failures=self.circuit_breaker_threshold)

    def as_dict(self) -> dict[str, float]:
        """Return the six settings by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class BattleNetSettings:
    """How fast Battle.net is asked, its own windows aside.

    Attributes:
        max_concurrent: Items at the same time, >= 1.
        min_time_ms: Between two starts, milliseconds, >= 0.

    Raises:
        InputError: A field is outside its range; names field, range and value.
    """

    max_concurrent: int = 20
    min_time_ms: float = 10

    def __post_init__(self) -> None:
        check_count("max_concurrent", self.max_concurrent, low=1)
        check("min_time_ms", self.min_time_ms, low=0, high=1e9)

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] = os.environ,
        *,
        max_concurrent: int | None = None,
        min_time_ms: float | None = None,
    ) -> BattleNetSettings:
        """Return the defaults, with what the environment overrides; what is given here overrides both.

        Raises:
            InputError: A variable or an argument is outside its range; names it, its range and its value.
        """
        given = {"max_concurrent": max_concurrent, "min_time_ms": min_time_ms}
        return _read(cls, BATTLENET_PREFIX, environment, {name: at for name, at in given.items() if at is not None})

    def limits(self) -> Limits:
        """Return them as limits, Battle.net's own included."""
        return Limits(concurrency=self.max_concurrent, spacing_s=self.min_time_ms / 1000, rates=BATTLENET_RATES)


def _read(
    settings: type[_Settings], prefix: str, environment: Mapping[str, str], given: Mapping[str, Any]
) -> _Settings:
    """Return settings from the environment, under what is given."""
    names = [field.name for field in fields(settings) if field.name not in given]
    texts = {name: environment.get(prefix + name.upper(), "") for name in names}
    try:
        values: dict[str, Any] = {name: _number(text) for name, text in texts.items() if text.strip()}
        read = settings(**values)  # __post_init__ refuses what is no number
    except InputError as error:
        name, _, rest = str(error).partition(" ")
        msg = f"{prefix}{name.upper()} {rest}: correct it in the environment, or unset it"
        raise InputError(msg) from None
    return replace(read, **given)


def _number(text: str) -> float | str:
    """Return a number where the text is one; anything else is refused by the field it is for."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
