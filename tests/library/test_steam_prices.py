from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from ipybatch import InputError, Limits, Rate, Transient
from ipybatch.library import SteamPrices, SteamStore, refresh
from ipybatch.library.source import OneRequest
from ipybatch.simulators import Faults
from ipybatch.simulators.steam import game

from .conftest import DAY_S, Shop

PAID = next(app_id for app_id in range(10, 99) if "price_overview" in game(app_id))


def prices(shop: Shop, **options: Any) -> SteamPrices:
    return SteamPrices("https://steam.invalid", client=shop.client(), **options)


def poisoned(shop: Shop, answers: dict[int, Any]) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=Poisoned(shop, answers))


def sizes(shop: Shop) -> list[int]:
    """Return how many ids each request was for."""
    return [asked.count(",") + 1 for asked in shop.asked]


def test_one_request_gives_many_prices_and_each_its_record(shop: Shop) -> None:
    session = shop.run(range(10, 260), source=prices(shop))
    assert str(session.summary) == "steam prices refresh completed: 250/250 successful, 0 failed, 0 skipped"
    assert sizes(shop) == [100, 100, 50]
    for app_id in range(10, 260):
        record = shop.library.get("price", app_id, "us")
        assert record is not None
        priced = record.data["price_overview"]
        assert priced is None or priced["currency"] == "USD"
    assert {(row["kind"], row["staleness"]) for _, row in session.results().iterrows()} == {("price", "high")}
    assert any(record is None for record in shop.library.to_frame("price")["data"].str["price_overview"])  # free games


def test_a_price_is_no_game_and_belongs_to_its_country(shop: Shop) -> None:
    shop.run([PAID], source=prices(shop, cc="de"))
    assert shop.library.get("game", PAID) is None
    record = shop.library.get("price", PAID, "de")
    assert record is not None
    assert record.data["price_overview"]["currency"] == "EUR"
    assert shop.run([PAID], source=prices(shop, cc="de"), name="again").counts.skipped == 1
    assert shop.run([PAID], source=prices(shop, cc="jp"), name="japan").counts.completed == 1


def test_every_item_has_its_own_outcome(shop: Shop) -> None:
    """Of one request: a price, a game that is not there, and an id that the answer does not name."""
    shop.open(missing={20}, left_out={30})
    session = shop.run([10, 20, 30, 40], source=prices(shop))
    frame = session.results().set_index("key")
    assert frame["status"].tolist() == ["completed", "failed", "completed", "completed"]
    assert frame["error"][20] == "no such game, or not sold in US"
    assert frame["attempts"].tolist() == [1, 1, 1, 1]  # alone it is answered
    again = shop.run([10, 20, 30, 40], source=prices(shop))
    assert again.counts.skipped == 4  # what is not there is remembered too


@pytest.mark.parametrize("entry", [None, {"success": True}, {"success": True, "data": None}, 7], ids=str)
def test_ids_that_no_answer_names_fail_alone(shop: Shop, entry: Any) -> None:
    """Asked for once more, each alone: no outage, and no attempts of the others."""
    told = dict.fromkeys(range(30, 230, 10), entry)
    source = SteamPrices("https://steam.invalid", client=poisoned(shop, told))
    session = shop.run(range(10, 210), source=source)
    frame = session.results().set_index("key")
    assert frame["error"][30] == "the Steam store answered without the price of 30"
    assert frame.index[frame["status"] == "failed"].tolist() == list(range(30, 210, 10))
    assert (session.snapshot.breaker.openings, frame["attempts"].max()) == (0, 1)
    assert len(shop.asked) == 2 + 18


def test_an_answer_without_any_price_is_the_stores_fault(shop: Shop) -> None:
    source = SteamPrices("https://steam.invalid", client=poisoned(shop, dict.fromkeys(range(10, 510), None)))
    session = shop.run(range(10, 510), source=source)
    assert session.state == "failed"
    assert "without" in session.reason
    assert len(shop.asked) < 30


def test_a_request_counts_once_in_the_stores_window_however_many_it_serves(shop: Shop) -> None:
    """Beside a refresh of games, whose requests count in the same window."""
    limits = Limits(concurrency=10, rates=[Rate(3, per_s=60)])
    games = shop.session(range(500, 505), limits=limits, name="games")
    cheap = shop.session(range(10, 60), source=prices(shop, ids_per_request=10), limits=limits, name="prices")

    async def both() -> None:
        await asyncio.gather(games.drive(), cheap.drive())

    shop.clock.run_coroutine(both())
    assert (games.counts.completed, cheap.counts.completed) == (5, 50)
    assert shop.simulator.worst(60) == 3
    assert len(shop.asked) == 10
    assert shop.clock.now_s() < 240


def test_a_hiccup_costs_nobody_a_try(shop: Shop) -> None:
    shop.open(faults=Faults(outages=((0.0, 0.045),)))
    session = shop.run(range(10, 60), source=prices(shop))
    assert session.counts.completed == 50
    assert session.snapshot.breaker.openings == 0
    failed = shop.simulator.stats()["statuses"]["500"]
    assert 1 <= failed < 3
    assert session.results()["attempts"].sum() == 50


@pytest.mark.parametrize("kind", ["500", "drop"])
def test_a_dead_store_is_not_asked_for_every_item(shop: Shop, kind: Any) -> None:
    shop.open(faults=Faults(outages=((0.0, 1e9),), outage_kind=kind))
    session = shop.run(range(10, 510), source=prices(shop))
    assert session.state == "failed"
    assert len(shop.asked) <= 3 + 4  # failures, and a probe for each further opening
    shop.open()
    assert shop.run(range(10, 510), source=prices(shop)).counts.completed == 500


def test_after_an_outage_something_known_is_asked_for_first(shop: Shop) -> None:
    """The probe is one request for one price that the store gave before, with a permit of its own."""
    shop.run([PAID], source=prices(shop))
    shop.clock.advance(2 * DAY_S)
    began_s = shop.clock.now_s()
    shop.open(faults=Faults(outages=((began_s, began_s + 90.0),)))
    shop.asked.clear()
    session = shop.run(range(100, 200), source=prices(shop), name="others")
    assert session.counts.completed == 100
    assert shop.asked.count(str(PAID)) >= 1


class Poisoned(httpx2.AsyncBaseTransport):
    """A store that answers some ids oddly: no request that they are in, or without them."""

    def __init__(self, shop: Shop, answers: dict[int, Any]) -> None:
        self._shop, self._answers = shop, answers

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        ids = request.url.params["appids"].split(",")
        self._shop.asked.append(",".join(ids))
        await asyncio.sleep(0.05)
        told: dict[str, Any] = {}
        for one in ids:
            answer = self._answers.get(int(one), {"success": True, "data": []})
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, int) and answer >= 400:
                return httpx2.Response(answer)
            if answer is not None:
                told[one] = answer
        return httpx2.Response(200, json=told)


@pytest.mark.parametrize(
    "answer", [400, 404, 500, httpx2.ReadError("it closed the line"), httpx2.ReadTimeout("nothing came")], ids=str
)
def test_a_game_that_a_request_fails_for_fails_alone(shop: Shop, answer: int | Exception) -> None:
    source = SteamPrices("https://steam.invalid", client=poisoned(shop, dict.fromkeys([17, 555, 901], answer)))
    session = shop.run(range(10, 1010), source=source)
    frame = session.results().set_index("key")
    assert frame.index[frame["status"] != "completed"].tolist() == [17, 555, 901]
    assert session.state == "completed"
    assert session.snapshot.breaker.openings <= 1
    assert len(shop.asked) < 120


def test_games_that_share_a_request_start_together_whatever_the_spacing(shop: Shop) -> None:
    """It is the requests that are kept apart: 500 games are five of them, not five hundred."""
    limits = Limits(concurrency=100, spacing_s=1.5, rates=[Rate(4, per_s=10)])
    began_s = shop.clock.now_s()
    session = shop.run(range(10, 510), source=prices(shop), limits=limits)
    assert session.counts.completed == 500
    assert sizes(shop) == [100] * 5
    assert 10 < shop.clock.now_s() - began_s < 12


def test_the_estimate_counts_requests_not_games(shop: Shop) -> None:
    limits = Limits(concurrency=100, rates=[Rate(4, per_s=10)])
    session = shop.session(range(10, 1010), source=prices(shop), limits=limits)
    estimate, began_s = session.estimate(latency_s=0.05), shop.clock.now_s()
    assert estimate.requests == 10
    shop.clock.run(session)
    assert len(shop.asked) == 10
    assert 0.9 < estimate.seconds / (shop.clock.now_s() - began_s) < 1.1


def test_a_store_that_rejects_every_request_is_not_asked_for_every_item(shop: Shop) -> None:
    source = SteamPrices("https://steam.invalid", client=poisoned(shop, dict.fromkeys(range(10, 510), 404)))
    session = shop.run(range(10, 510), source=source)
    assert session.counts.failed == 500
    assert len(shop.asked) < 50


def test_a_probe_of_what_fails_for_many_is_no_success(shop: Shop) -> None:
    """What once had a price asks for others along with it: then a request for several is to be answered."""
    source, attempt = prices(shop), OneRequest("1", further=1)
    with attempt.permit():
        pass
    with pytest.raises(Transient, match="a request for several items failed"):
        attempt.permit()
    assert source.defaults().shares_requests


def test_a_ban_stops_the_session(shop: Shop) -> None:
    shop.open(limit=1, per_s=60, ban_after=1)
    limits = Limits(concurrency=10)
    session = shop.run(range(10, 60), source=prices(shop, ids_per_request=10), limits=limits)
    assert session.state == "failed"
    assert session.reason.startswith("the Steam store answered 403: it blocks this address")


def test_a_cancel_leaves_nobody_waiting(shop: Shop) -> None:
    shop.open(faults=Faults(latency_s=3.0))
    source = prices(shop)
    session = shop.session(range(10, 310), source=source)

    async def stop() -> None:
        await asyncio.sleep(5)
        session.cancel()

    shop.clock.run(session, stop())
    assert session.state == "cancelled"
    assert session.counts.completed == 100
    assert source._waiting == {}
    assert shop.run(range(10, 310), source=source).counts.completed == 200


def test_prices_are_asked_with_the_same_words_as_games() -> None:
    assert SteamPrices().defaults().resource == SteamStore().defaults().resource == "steam store"
    assert repr(SteamPrices("http://me:geheim66@127.0.0.1:8000")).count("geheim66") == 0
    for wrong in ({"cc": "deu"}, {"ids_per_request": 0}, {"ids_per_request": 1001}, {"base_url": "store"}):
        with pytest.raises(InputError):
            SteamPrices(**wrong)
    with pytest.raises(InputError, match="app id must be a whole number"):
        refresh(["x"], source=SteamPrices())


def test_stale_prices_are_fetched_anew(shop: Shop) -> None:
    shop.run([10, 20], source=prices(shop))
    shop.clock.advance(2 * DAY_S)
    assert shop.run([10, 20], source=prices(shop)).counts.completed == 2
