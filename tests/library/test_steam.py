from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ipybatch import InputError, Limits, Rate, Retry
from ipybatch.library import SteamStore
from ipybatch.simulators import Faults

from .conftest import Shop

PATIENT = Retry(attempts=12)


def only(session: Any) -> Any:
    """Return the one row of a session's results."""
    frame = session.results()
    assert len(frame) == 1
    return frame.iloc[0]


def test_a_game_becomes_a_record(shop: Shop) -> None:
    session = shop.run([440])
    row, record = only(session), shop.library.get("game", 440, "us")
    assert record is not None
    assert row["status"] == "completed"
    assert (row["kind"], row["name"], row["staleness"]) == ("game", record.data["name"], "high")
    assert row["fetched_at_s"] == record.fetched_at_s == shop.clock.unix_s()
    assert record.data["steam_appid"] == 440
    assert "short_description" not in session.results().columns  # the record is in the library, not in the journal


def test_the_country_is_asked_for(shop: Shop) -> None:
    """A game not sold in Germany is a permanent error there, and a record in the US."""
    shop.open(not_sold_in={"DE": {440}})
    assert only(shop.run([440], cc="de", name="de"))["error"] == "no such game, or not sold in DE"
    assert only(shop.run([440], cc="us", name="us"))["status"] == "completed"
    assert shop.asked == ["440", "440"]


def test_success_false_is_permanent_and_says_both(shop: Shop) -> None:
    shop.open(missing={440})
    row = only(shop.run([440]))
    assert (row["status"], row["error"], row["attempts"]) == ("failed", "no such game, or not sold in US", 1)
    assert shop.library.get("game", 440) is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"null", "without the details of 440"),
        (b"[]", "without the details of 440"),
        (b"{}", "without the details of 440"),
        (b'{"441": {"success": true, "data": {"name": "x"}}}', "without the details of 440"),
        (b'{"440": []}', "without the details of 440"),
        (b'{"440": {"success": "no"}}', "without the details of 440"),
        (b'{"440": {"success": true}}', "without the details of 440"),
        (b'{"440": {"success": true, "data": []}}', "without the details of 440"),
        (b'{"440": {"success": true, "data": {"name": 7}}}', "without the details of 440"),
        (b"<html>busy</html>", "web page instead of JSON"),
        (b'{"440": {"success": tr', "JSON that is broken"),
    ],
)
def test_a_wrong_shape_is_tried_again(shop: Shop, answering: Callable[..., SteamStore], body: bytes, says: str) -> None:
    """Three tries, then the item fails and no record is left."""
    row = only(shop.run([440], source=answering(200, content=body), breaker=None))
    assert (row["status"], row["attempts"]) == ("failed", 3)
    assert says in row["error"]
    assert len(shop.library) == 0


@pytest.mark.parametrize("kind", ["500", "drop", "html", "truncated"])
def test_trouble_that_passes_is_survived(shop: Shop, kind: str) -> None:
    """Every fault of the service is tried again; a short one costs no game."""
    shop.open(faults=Faults(seed=4, **{f"rate_{kind}": 0.4}))
    session = shop.run(range(1, 31), retry=PATIENT, breaker=None)
    assert session.counts.completed == 30
    assert len(shop.asked) > 30


def test_too_fast_cools_down_and_does_not_count_for_the_breaker(shop: Shop) -> None:
    shop.open(faults=Faults(outages=((0.0, 3.0),), outage_kind="429"))
    session = shop.run([440, 570], retry=PATIENT)
    assert session.state == "completed"
    assert session.counts.completed == 2
    assert session.snapshot.breaker.openings == 0
    assert "cooled_down" in set(session.log()["event"])


def test_a_ban_stops_the_session_and_a_later_run_goes_on(shop: Shop) -> None:
    """403: one error, nothing more is sent; what was left runs next time."""
    shop.open(limit=3, per_s=60, ban_after=1, ban_s=600)
    session = shop.run(range(1, 21), limits=Limits(concurrency=3))
    assert session.state == "failed"
    assert session.reason.startswith("the Steam store answered 403: it does not answer this address for now")
    assert 1 <= shop.simulator.stats()["statuses"]["403"] <= 3  # at most what was in flight
    shop.clock.advance(700)
    shop.asked.clear()
    again = shop.run(range(1, 21), limits=Limits(rates=[Rate(3, per_s=60)]))
    assert (again.state, again.counts.completed) == ("completed", 20)
    assert len(shop.asked) == 20 - session.counts.completed


def test_a_redirect_is_not_followed(shop: Shop) -> None:
    """Every request needs its own permit, whatever the user's client is set to."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(301, headers={"location": "https://elsewhere.invalid/"})

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), follow_redirects=True)
    row = only(shop.run([440], source=SteamStore("https://steam.invalid", client=client)))
    assert asked == ["https://steam.invalid/api/appdetails?appids=440&cc=us"]
    assert "moved to https://elsewhere.invalid/" in row["error"]


def test_the_users_client_is_not_closed(shop: Shop) -> None:
    client = shop.client()
    shop.run([440], source=SteamStore("https://steam.invalid", client=client))
    assert not client.is_closed


def test_our_own_client_is_closed_with_the_last_session(shop: Shop) -> None:
    store = SteamStore("https://steam.invalid")

    async def both() -> None:
        async with store:
            first = store._client
            async with store:
                assert store._client is first
            assert not first.is_closed
        assert first.is_closed
        async with store:
            assert store._client is not first

    shop.clock.run_coroutine(both())
    gc.collect()


def test_a_closed_client_is_told_once(shop: Shop) -> None:
    client = shop.client()
    shop.clock.run_coroutine(client.aclose())
    session = shop.run([440, 570], source=SteamStore("https://steam.invalid", client=client))
    assert session.state == "failed"
    assert "client is closed" in session.reason


@pytest.mark.parametrize("item", [0, -1, 2**32, True, 1.0, "440", None, [440]])
def test_what_is_no_app_id_is_refused_before_the_first_request(shop: Shop, item: Any) -> None:
    with pytest.raises(InputError, match=r"app id must be a whole number from 1 to 4294967295, got .*take the number"):
        shop.session([570, item])
    assert shop.asked == []


@pytest.mark.parametrize("cc", ["", "usa", "u1", None, "üs"])
def test_a_country_has_two_letters(cc: Any) -> None:
    with pytest.raises(InputError, match="cc must be a country's two letters"):
        SteamStore(cc=cc)


def test_a_store_elsewhere_is_another_resource() -> None:
    """A simulator's requests must not count in the real store's windows, and a password is no part of a name."""
    assert SteamStore().defaults().resource == "steam store"
    elsewhere = SteamStore("http://me:geheim77@127.0.0.1:8000/")
    assert elsewhere.defaults().resource == "steam store at 127.0.0.1:8000"
    assert "geheim77" not in repr(elsewhere)


@pytest.mark.parametrize("name", ["=1+1", "<script>alert(1)</script>", "لعبة", "a\u202eb", "x" * 10_000])
def test_names_are_text_and_stay_as_they_are(
    shop: Shop, answering: Callable[..., SteamStore], name: str, tmp_path: Any
) -> None:
    source = answering(200, json={"440": {"success": True, "data": {"name": name}}})
    session = shop.run([440], source=source)
    assert only(session)["name"] == name
    assert shop.library.to_frame()["name"].tolist() == [name]
    assert "<script>" not in shop.library.to_frame()._repr_html_()
    if name.startswith("="):
        assert f",{name}" not in session.save(tmp_path / "out.csv").read_text(encoding="utf-8")
