"""Games that can never be fetched keep no others from being fetched."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ipybatch.library import SteamStore

from .conftest import DAY_S, Shop

GOOD, BAD = list(range(10, 60)), [1001, 1002, 1003]
ANSWERS: dict[str, dict[str, Any]] = {
    "500": {"status_code": 500},
    "null": {"status_code": 200, "content": b"null"},
    "a web page": {"status_code": 200, "html": "<html>sorry</html>"},
}
PLACES = {"first": BAD + GOOD, "last": GOOD + BAD, "in between": [*GOOD[:20], *BAD, *GOOD[20:]]}
CASES = [("last", "500"), ("first", "all"), ("in between", "all")]


@pytest.mark.parametrize(("place", "kind"), CASES, ids=map(" ".join, CASES))
def test_three_bad_games_make_no_other_older_than_a_day(shop: Shop, place: str, kind: str) -> None:
    """Every day for twelve days: the 50 are fetched, and the three are told, not counted as fetched."""
    kinds = list(ANSWERS) if kind == "all" else [kind] * 3
    bad = {app_id: ANSWERS[one] for app_id, one in zip(BAD, kinds, strict=True)}

    def answer(request: httpx.Request) -> httpx.Response:
        app_id = int(request.url.params["appids"])
        if app_id in bad:
            return httpx.Response(**bad[app_id])
        return httpx.Response(200, json={str(app_id): {"success": True, "data": {"name": f"Game {app_id}"}}})

    for day in range(12):
        shop.clock.advance(day * DAY_S - shop.clock.now_s())
        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        session = shop.run(PLACES[place], source=SteamStore("https://steam.invalid", client=client))
        assert session.counts.completed == len(GOOD), f"on day {day}: {session.reason}"
        assert shop.library.by_staleness(now_s=shop.clock.unix_s())["fresh"] == len(GOOD)
        assert shop.clock.now_s() < (day + 1) * DAY_S
        told = session.results().set_index("key").loc[BAD]
        assert told["status"].tolist() == ["failed"] * 3
        assert all(told["error"])
