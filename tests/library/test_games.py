from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from ipybatch import Breaker, InputError, Limits, Retry
from ipybatch.library import (
    Library,
    SteamStore,
    batch_refresh_games,
    get_cache_config,
    get_database_stats,
    smart_refresh_library,
)
from ipybatch.library.records import Record
from ipybatch.simulators.serve import Server, build

FAST = Limits(concurrency=5)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


@pytest.fixture
def server() -> Any:
    server = Server("steam", build("steam", limit=None))
    yield server
    server.close()


def own(library: Library, app_ids: Any) -> None:
    import time

    for app_id in app_ids:
        library.put(Record(kind="game", key=app_id, place="us", fetched_at_s=time.time(), data={"name": "owned"}))


def test_smart_refresh_says_how_many(server: Server) -> None:
    """20 asked for, 5 of them fresh; what was fetched is fresh the same day."""
    own(Library(), range(1, 6))
    smart = run(smart_refresh_library(range(1, 21), source=SteamStore(server.url), limits=FAST))
    assert str(smart) == "Smart library refresh completed: 15/20 games processed"
    assert (smart.asked, smart.processed, smart.failed, smart.counts.skipped) == (20, 15, 0, 5)
    assert smart.summary.state == "completed"
    again = run(smart_refresh_library(range(1, 21), source=SteamStore(server.url), limits=FAST))
    assert str(again) == "Smart library refresh completed: 0/20 games processed"
    assert server.stats()["requests"] == 15


def test_games_that_are_not_there_are_processed_and_said_once_a_day() -> None:
    server = Server("steam", build("steam", limit=None, missing={3, 4}))
    told = [str(run(smart_refresh_library([1, 2, 3, 4], source=SteamStore(server.url), limits=FAST))) for _ in "ab"]
    assert told == [
        "Smart library refresh completed: 4/4 games processed, 2 failed",
        "Smart library refresh completed: 0/4 games processed",
    ]
    assert server.stats()["ids"] == {"1": 1, "2": 1, "3": 1, "4": 1}
    server.close()


def test_games_that_fail_are_tried_again_and_only_they_are_counted() -> None:
    server = Server("steam", build("steam", limit=None))
    run(smart_refresh_library([1, 2], source=SteamStore(server.url), limits=FAST))
    server.outage(1000)
    once = Retry(attempts=1)
    broken = run(smart_refresh_library([1, 2, 3], source=SteamStore(server.url), limits=FAST, retry=once, breaker=None))
    assert str(broken) == "Smart library refresh completed: 1/3 games processed, 1 failed"
    server.outage(0)
    again = run(smart_refresh_library([1, 2, 3], source=SteamStore(server.url), limits=FAST))
    assert str(again) == "Smart library refresh completed: 1/3 games processed"
    server.close()


def test_a_refresh_that_ended_early_says_so() -> None:
    server = Server("steam", build("steam", limit=None))
    server.outage(1000)
    smart = run(
        smart_refresh_library(
            range(1, 21),
            source=SteamStore(server.url),
            limits=Limits(concurrency=1),
            retry=Retry(attempts=1),
            breaker=Breaker(failures=2, break_s=0, give_up_after=1),
        )
    )
    assert str(smart) == (
        "Smart library refresh failed: 1/20 games processed, 1 failed"
        " (the service failed, the breaker opened; last: the Steam store answered 500)"
    )
    assert run(get_database_stats(source=SteamStore(server.url)))["breaker"] == "open"
    server.close()


def test_without_games_it_refreshes_what_the_library_holds(server: Server) -> None:
    library = Library()
    for app_id in (1, 2):
        library.put(Record(kind="game", key=app_id, place="us", fetched_at_s=0.0, data={"name": "old"}))
    smart = run(smart_refresh_library(source=SteamStore(server.url), limits=FAST))
    assert str(smart) == "Smart library refresh completed: 2/2 games processed"


def test_batch_refresh_fetches_fresh_ones_too(server: Server) -> None:
    own(Library(), [1, 2])
    for _ in range(2):
        summary = run(batch_refresh_games([1, 2, 3], source=SteamStore(server.url), limits=FAST))
        assert str(summary) == "batch game refresh completed: 3/3 successful, 0 failed, 0 skipped"
    assert server.stats()["ids"] == {"1": 2, "2": 2, "3": 2}


def test_both_use_the_default_library(server: Server) -> None:
    run(batch_refresh_games([1], source=SteamStore(server.url), limits=FAST))
    run(smart_refresh_library([1, 2], source=SteamStore(server.url), limits=FAST))
    assert Library().keys("game") == [1, 2]
    assert Library().path == Path(os.environ["IPYBATCH_LIBRARY"])


def test_a_library_of_ones_own(server: Server, library: Library) -> None:
    run(batch_refresh_games([1], source=SteamStore(server.url), library=library, limits=FAST))
    assert library.keys("game") == [1]
    assert len(Library()) == 0


def test_verbose_prints_a_line_for_each_game(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    run(batch_refresh_games([11, 22], source=SteamStore(server.url), limits=FAST, verbose=True))
    printed = capsys.readouterr()
    lines = (printed.out + printed.err).splitlines()
    assert any("11 completed" in line for line in lines)
    assert any("22 completed" in line for line in lines)


def test_not_verbose_prints_nothing_into_a_file(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    run(batch_refresh_games([11, 22], source=SteamStore(server.url), limits=FAST))
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


@pytest.mark.parametrize("function", [batch_refresh_games, smart_refresh_library])
def test_bad_ids_are_refused_before_the_first_request(function: Any, server: Server) -> None:
    with pytest.raises(InputError, match="app id must be"):
        run(function([1, "two"], source=SteamStore(server.url)))
    assert server.stats()["requests"] == 0


def test_cache_config_has_exactly_six_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(get_cache_config()) == {
        "max_concurrent_requests": 3,
        "batch_size": 15,
        "batch_delay_seconds": 15,
        "request_delay_ms": 1500,
        "circuit_breaker_threshold": 3,
        "max_retries": 2,
    }
    monkeypatch.setenv("IPYBATCH_STEAM_BATCH_SIZE", "40")
    assert run(get_cache_config())["batch_size"] == 40


def test_database_stats_tell_what_is_there(server: Server) -> None:
    source = SteamStore(server.url)
    empty = run(get_database_stats(source=source))
    assert empty["total"] == 0
    assert empty["breaker"] == "closed"
    run(batch_refresh_games(range(1, 31), source=source, limits=FAST))
    Library().put(Record(kind="game", key=99, place="us", fetched_at_s=0.0, data={"name": "old"}))
    stats = run(get_database_stats(source=source))
    assert stats["total"] == 31
    assert stats["by_staleness"] == {"high": 1, "medium": 0, "low": 0, "fresh": 30}
    assert stats["size_bytes"] > empty["size_bytes"]
    assert stats["path"] == os.environ["IPYBATCH_LIBRARY"]
    assert stats["breaker"] == "closed"
