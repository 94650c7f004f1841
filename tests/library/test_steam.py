from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import httpx2
import numpy as np
import pandas as pd
import pytest

from ipybatch import Breaker, InputError, Limits, Rate, RateLimited, Refused, Retry, Transient
from ipybatch.library import Library, SteamStore, refresh, steam
from ipybatch.library.steam import StoreSettings
from ipybatch.simulators import Faults, SimTransport, SteamSimulator, serve
from ipybatch.testing import VirtualClock

from .conftest import Shop

PATIENT = Retry(attempts=12)
ALICE, BOB = "76561197960435530", "76561197960287930"
KEY = "ABCDEF0123456789ABCDEF0123456789"


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
    """One by itself lets its own request wait; several cool the store down."""
    shop.open(faults=Faults(outages=((0.0, 30.0),), outage_kind="429"))
    session = shop.run([440, 570, 10, 20], retry=PATIENT)
    assert session.counts.completed == 4
    assert session.snapshot.breaker.openings == 0
    assert "cooled_down" in set(session.log()["event"])


def test_a_ban_stops_the_session_and_a_later_run_goes_on(shop: Shop) -> None:
    """403: one error, nothing more is sent; what was left runs next time."""
    shop.open(limit=3, per_s=60, ban_after=1, ban_s=600)
    session = shop.run(range(1, 21), limits=Limits(concurrency=3))
    assert session.state == "failed"
    assert session.reason.startswith("the Steam store answered 403: it blocks this address for some minutes")
    assert 1 <= shop.simulator.stats()["statuses"]["403"] <= 3  # at most what was in flight
    shop.clock.advance(700)
    shop.asked.clear()
    again = shop.run(range(1, 21), limits=Limits(rates=[Rate(3, per_s=60)]))
    assert (again.state, again.counts.completed, again.counts.skipped) == ("completed", 17, 3)
    assert len(shop.asked) == 20 - session.counts.completed


def test_a_redirect_is_not_followed(shop: Shop) -> None:
    """Every request needs its own permit, whatever the user's client is set to."""
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return httpx2.Response(301, headers={"location": "https://elsewhere.invalid/"})

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer), follow_redirects=True)
    row = only(shop.run([440], source=SteamStore("https://steam.invalid", client=client)))
    assert asked == ["https://steam.invalid/api/appdetails?appids=440&cc=us"]
    assert "moved to https://elsewhere.invalid;" in row["error"]  # the same text for every item


@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_a_client_of_either_library_is_taken(library: Library, module: Any) -> None:
    """Over a real line and in process, with its answers and its errors."""
    with serve("steam") as url:
        client = module.AsyncClient(limits=module.Limits(max_keepalive_connections=0))  # it leaves nothing open
        session = refresh([440], source=SteamStore(url, client=client), library=library)
        assert session.run().counts.completed == 1
    clock, simulator = VirtualClock(), SteamSimulator(faults=Faults(outages=((0.0, 10.0),), outage_kind="drop"))
    client = module.AsyncClient(transport=SimTransport(simulator, now=clock.now_s))
    store = SteamStore("https://steam.invalid", client=client)
    again = refresh([570], source=store, library=library, clock=clock, name="in process", breaker=Breaker(failures=9))
    clock.run(again)
    assert again.results()["status"].tolist() == ["failed"]
    assert again.results()["error"].str.contains("RemoteProtocolError|ReadError").all()


@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_a_pool_that_is_too_small_is_named(library: Library, module: Any) -> None:
    """One connection for three at once: what the pool has, and what to give."""
    limits, timeout = module.Limits(max_connections=1, max_keepalive_connections=0), module.Timeout(5, pool=0.05)
    with serve("steam", latency_s=0.3) as url:
        store = SteamStore(url, client=module.AsyncClient(limits=limits, timeout=timeout))
        session = refresh([10, 20, 30], source=store, library=library, limits=Limits(concurrency=3), retry=Retry(1))
        session.run()
        told = " ".join(session.snapshot.notes)
    assert session.counts.completed == 3
    assert "the pool of the client given to SteamStore has 1 connections, and had none free in time" in told


def test_our_own_pool_is_as_large_as_what_runs_at_once(library: Library) -> None:
    """150 requests in flight, more than an httpx pool has connections."""
    with serve("steam", limit=None, latency_s=0.5) as url:
        session = refresh(
            range(10, 160), source=SteamStore(url), library=library, limits=Limits(concurrency=150), retry=Retry(1)
        )
        assert session.run().counts.completed == 150


def test_a_connection_is_used_again(library: Library) -> None:
    """No more connections than requests at once, and those in the order that leaves the fewest open."""
    with serve("steam", limit=None) as url:
        store = SteamStore(url)

        async def ask() -> int:
            async with store:
                for app_id in range(10, 40):
                    await store._client.get(f"{url}/api/appdetails", params={"appids": app_id})
                return len(store._client._all)

        assert asyncio.run(ask()) == 1


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


@pytest.mark.parametrize(
    "item",
    [440, 440.0, "440", " 440\n", "440.0", np.int32(440), np.float32(440), np.uint64(440), Decimal(440)],
    ids=lambda item: f"{type(item).__name__} {item}",
)
def test_an_id_is_a_game_however_it_is_written(shop: Shop, item: Any) -> None:
    """One key and one record, so that a text of a file and a number of a table are the same game."""
    shop.own(440, days=0)
    session = shop.run([item])
    assert session.counts.skipped == 1
    assert session.results()["key"].tolist() == [440]


@pytest.mark.parametrize(
    "items",
    [
        pd.Series([440, 570], dtype="Int64"),
        pd.Series([440.0, 570.0]),
        pd.Series(["440", "570"]),
        ["440", 570.0],
        pd.DataFrame({"name": ["a", "b"], "id": [440.0, 570.0]}),
    ],
)
def test_a_column_of_ids_is_a_list_of_games(shop: Shop, items: Any) -> None:
    assert shop.run(items).results()["key"].tolist() == [440, 570]
    assert shop.asked == ["440", "570"]


def test_the_same_game_written_twice_is_refused(shop: Shop) -> None:
    with pytest.raises(InputError, match="items 0 and 1 share the key 440"):
        shop.session([440, "440"])


@pytest.mark.parametrize(
    "items",
    [
        pd.Series([440, 570, None]),
        pd.Series([440, 570, None], dtype="Int64"),
        [440, 570, float("nan")],
        [440, 570, True],
        pd.Series([440, 570, True], dtype=object),
        [440, 570, np.True_],
        [440, 570, "4四0"],
    ],
    ids=["NaN", "NA", "nan", "bool", "a column's bool", "numpy's bool", "other digits"],
)
def test_what_is_no_id_is_refused_with_its_row(shop: Shop, items: Any) -> None:
    with pytest.raises(InputError, match=r"item 2: app id must be a whole number"):
        shop.session(items)


@pytest.mark.parametrize("item", [0, -1, 2**32, True, 1.5, "x", "", None, [440], float("inf"), 10**400])
def test_what_is_no_app_id_is_refused_before_the_first_request(shop: Shop, item: Any) -> None:
    with pytest.raises(InputError, match=r"app id must be a whole number from 1 to 4294967295, got .*take the number"):
        shop.session([570, item])
    assert shop.asked == []


def test_the_next_country_is_asked_for_what_one_does_not_sell(shop: Shop) -> None:
    """Each request has a permit of its own; the record says which country answered."""
    shop.open(not_sold_in={"US": {440, 570}, "DE": {570}}, missing={10})
    limits = Limits(rates=[Rate(2, per_s=10)])
    session = shop.run([440, 570, 730, 10], cc=("us", "DE", "jp"), limits=limits)
    frame = session.results().set_index("key")
    assert frame["status"].tolist() == ["completed", "completed", "completed", "failed"]
    assert frame["cc"].tolist()[:3] == ["de", "jp", "us"]
    assert frame["error"][10] == "no such game, or not sold in US, DE, JP"
    assert sorted(shop.asked) == sorted(["440"] * 2 + ["570"] * 3 + ["730"] + ["10"] * 3)
    assert shop.simulator.worst(10) == 2
    record = shop.library.get("game", 440)
    assert record is not None
    assert (record.place, record.data["cc"]) == ("us,de,jp", "de")
    assert shop.run([440], cc="us", name="us alone").counts.failed == 1  # what Germany sells is no record of it


def test_a_country_that_fails_is_no_country_without_the_game(shop: Shop) -> None:
    shop.open(faults=Faults(outages=((0.0, 1e6),)))
    row = only(shop.run([440], cc=("us", "de"), breaker=None))
    assert (row["status"], row["attempts"], row["error"]) == ("failed", 3, "the Steam store answered 500")
    assert shop.asked == ["440"] * 3


def test_another_language_is_fetched_anew(shop: Shop) -> None:
    shop.run([440])
    session = shop.run([440], source=shop.store(language="german"), name="german")
    assert session.counts.completed == 1
    german, english = shop.library.get("game", 440, "us in german"), shop.library.get("game", 440, "us")
    assert german is not None
    assert english is not None
    assert german.data["short_description"] == f"(german) {english.data['short_description']}"
    assert shop.run([440], source=shop.store(language="german"), name="again").counts.skipped == 1


@pytest.mark.parametrize("language", ["", "deutsch", "de", 7, "German"])
def test_a_language_has_the_stores_own_name(language: Any) -> None:
    with pytest.raises(InputError, match=r"language must be None or one of arabic, .*, vietnamese, got"):
        SteamStore(language=language)


def test_what_is_part_of_another_says_so(shop: Shop) -> None:
    shop.open(part_of={441: 440})
    frame = shop.run([440, 441]).results()
    assert frame["part_of"].fillna(0).tolist() == [0, 440]
    record = shop.library.get("game", 441)
    assert record is not None
    assert (record.data["part_of"], record.data["steam_appid"]) == (440, 440)


@pytest.mark.parametrize("told", [None, 0, "", "440", "soon", [440], True])
def test_an_id_that_says_nothing_is_no_other_game(shop: Shop, answering: Callable[..., SteamStore], told: Any) -> None:
    source = answering(200, json={"440": {"success": True, "data": {"name": "Fort", "steam_appid": told}}})
    assert only(shop.run([440], source=source))["status"] == "completed"
    record = shop.library.get("game", 440)
    assert record is not None
    assert "part_of" not in record.data


def test_stray_429s_fail_no_game(shop: Shop) -> None:
    shop.open(faults=Faults(seed=3, rate_429=0.3))
    assert shop.run(range(10, 110)).counts.completed == 100


@pytest.mark.parametrize("cc", [(), [], ("us", "US"), ("us", "deu"), {"us": 1}])
def test_countries_are_different_ones(cc: Any) -> None:
    with pytest.raises(InputError, match="cc must be"):
        SteamStore(cc=cc)


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


# The games of a profile


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
    """Neither the error nor httpx2's log, which holds whole addresses, has the key."""
    wrong = "0123WRONG0123WRONG0123WRONG01234"
    caplog.set_level(logging.DEBUG)
    refused = pytest.raises(Refused, match="Steam answered 401: it does not accept the key")
    with serve("steam", key=KEY) as url, refused as caught:
        SteamStore(url, api_url=url).owned_games(ALICE, wrong)
    assert wrong not in str(caught.value)
    assert "GetOwnedGames" in caplog.text
    assert wrong not in caplog.text


def test_too_many_requests_are_no_wrong_key(answering: Callable[..., SteamStore]) -> None:
    """The Web API answers 403 where it means 429; with a time to wait it is one."""
    with pytest.raises(RateLimited, match="Steam answered 403: too many requests") as caught:
        answering(403, headers={"Retry-After": "60"}).owned_games(ALICE, KEY)
    assert caught.value.retry_after_s == 60.0
    with pytest.raises(Refused, match=r"Steam answered 403: it does not accept the key.* asked too often"):
        answering(403).owned_games(ALICE, KEY)


def test_nobody_there_is_told_without_the_key() -> None:
    store = SteamStore(api_url="http://127.0.0.1:9")
    with pytest.raises(Transient, match="Steam did not answer") as caught:
        store.owned_games(ALICE, KEY)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # httpx2's own error carries the request, and with it the key


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
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"response": {"game_count": 1, "games": [{"appid": 440}]}})

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    assert SteamStore(client=client).owned_games(ALICE, KEY) == [440]
    assert not client.is_closed


# Settings


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


def test_every_variable_is_documented() -> None:
    assert steam.__doc__ is not None
    for name in StoreSettings().as_dict():
        assert f"`IPYBATCH_STEAM_{name.upper()}`" in steam.__doc__
