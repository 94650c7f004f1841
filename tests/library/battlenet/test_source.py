from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import httpx2
import pytest

from ipybatch import InputError, Limits, Rate, Retry, Transient
from ipybatch.library import BattleNet, Character, Guild, Library, refresh
from ipybatch.library.battlenet import source
from ipybatch.library.battlenet.source import BattleNetSettings
from ipybatch.simulators import Faults, serve
from tests.library.conftest import DAY_S, Azeroth

ID, SECRET = Azeroth.ID, Azeroth.SECRET
WOLVES = Guild("Aerie Peak", "Méchants Loups")
THRALL = Character("Kel'Thuzad", "Thrall")
GHOST = Character("Kel'Thuzad", "Ghosta")
THRALL_PATH = "/profile/wow/character/kelthuzad/thrall"
ONE = Limits(concurrency=1)
EXTRAS = ["equipment", "mythic_keystone_profile", "collections", "mounts", "pets"]


def only(session: Any) -> Any:
    """Return the one row of a session's results."""
    frame = session.results()
    assert len(frame) == 1
    return frame.iloc[0]


def outcome(session: Any) -> tuple[str, int]:
    row = only(session)
    return row["status"], row["attempts"]


def many(count: int) -> list[Character]:
    return [Character("Kel'Thuzad", f"Orc{n}") for n in range(count)]


def test_a_guild_and_a_character_become_records(azeroth: Azeroth) -> None:
    session = azeroth.run([WOLVES, THRALL])
    assert str(session.summary) == "battlenet us refresh completed: 2/2 successful, 0 failed, 0 skipped"
    guild, thrall = azeroth.library.get("guild", WOLVES.key, "us"), azeroth.library.get("character", THRALL.key, "us")
    assert guild is not None
    assert thrall is not None
    assert (guild.data["name"], thrall.data["name"]) == ("Méchants Loups", "Thrall")
    assert "extras" not in thrall.data
    assert session.results()["kind"].tolist() == ["guild", "character"]
    assert session.results()["name"].tolist() == ["Méchants Loups", "Thrall"]


def test_it_asks_as_the_service_wants_it(azeroth: Azeroth) -> None:
    """Slugs percent-encoded as UTF-8, namespace and locale, the token in a header and never in the address."""
    azeroth.run([WOLVES, THRALL], source=azeroth.source(region="eu", locale="de_DE"))
    token, guild, character = azeroth.sent
    assert (token.method, token.url.path, token.content) == ("POST", "/oauth/token", b"grant_type=client_credentials")
    query = b"?namespace=profile-eu&locale=de_DE"
    assert guild.url.raw_path == b"/data/wow/guild/aerie-peak/m%C3%A9chants-loups" + query
    assert character.url.raw_path == b"/profile/wow/character/kelthuzad/thrall" + query
    assert guild.headers["authorization"].startswith("Bearer ")


def test_it_works_over_real_lines(library: Library) -> None:
    """A client of our own, on the engine's thread, to a server on loopback."""
    with serve("battlenet", client_id=ID, client_secret=SECRET) as url:
        session = refresh([WOLVES, *many(30)], source=BattleNet(ID, SECRET, base_url=url), library=library)
        assert str(session.run()) == "battlenet us refresh completed: 31/31 successful, 0 failed, 0 skipped"


def test_what_the_library_gives_back_are_items(azeroth: Azeroth) -> None:
    azeroth.run([WOLVES, THRALL])
    azeroth.clock.advance(2 * DAY_S)
    assert azeroth.library.keys("guild") == [WOLVES.key]
    outdated = azeroth.library.outdated(kind="guild") + azeroth.library.outdated(kind="character")
    assert outdated == [WOLVES.key, THRALL.key]
    assert azeroth.run(outdated).counts.completed == 2


def test_guilds_come_before_characters_and_the_stalest_first(azeroth: Azeroth) -> None:
    old, older = Guild("Aerie Peak", "Old"), Guild("Aerie Peak", "Older")
    for item, days in ((old, 2), (older, 10), (THRALL, 10), (GHOST, 0)):
        azeroth.own(item, days=days)
    session = azeroth.run([THRALL, GHOST, old, older], limits=Limits(concurrency=1))
    assert [path.rsplit("/", 1)[1] for path in azeroth.asked] == ["older", "old", "thrall"]
    assert session.results()["staleness"].tolist()[2:] == ["low", "high"]
    assert session.counts.skipped == 1


def test_a_ghost_fails_at_once_and_alone(azeroth: Azeroth) -> None:
    session = azeroth.run([GHOST, THRALL])
    frame = session.results().set_index("key")
    assert frame.loc[THRALL.key, "status"] == "completed"
    ghost = frame.loc[GHOST.key]
    assert (ghost["status"], ghost["attempts"]) == ("failed", 1)
    assert ghost["error"] == "Battle.net answered 404: no such character in us, or none it shows any more"


def test_an_enhanced_character_takes_a_permit_for_each_request(azeroth: Azeroth) -> None:
    """Six requests a character, and still no window above its limit at the server."""
    azeroth.open(per_second=10, latency_s=(0.005, 0.3))
    source = azeroth.source(enhanced=True)
    session = azeroth.run(many(8), source=source, limits=Limits(concurrency=8, rates=[Rate(10, per_s=1)]))
    assert session.counts.completed == 8
    stats = azeroth.simulator.stats()
    assert stats["statuses"] == {"200": 8 * 6 + 1}
    assert stats["worst_second"] == 10
    record = azeroth.library.get("character", "character/kelthuzad/orc0")
    assert record is not None
    assert set(record.data["extras"]) == set(EXTRAS)
    assert set(record.data["last_modified"]) == {"character", *EXTRAS}


def test_an_extra_that_is_not_there_is_none(azeroth: Azeroth) -> None:
    azeroth.script["/profile/wow/character/kelthuzad/thrall/mythic-keystone-profile"] = [404]
    assert azeroth.run([THRALL], source=azeroth.source(enhanced=True)).counts.completed == 1
    record = azeroth.library.get("character", THRALL.key)
    assert record is not None
    assert record.data["extras"]["mythic_keystone_profile"] is None
    assert record.data["extras"]["pets"] is not None


@pytest.mark.parametrize("enhanced", [False, True])
def test_what_was_not_modified_is_refreshed_and_stays(azeroth: Azeroth, enhanced: bool) -> None:
    """304: the record's time moves, its data stays; every extra is asked for by its own date."""
    source = azeroth.source(enhanced=enhanced)
    azeroth.run([WOLVES, THRALL], source=source)
    before = [azeroth.library.get(kind, item.key) for kind, item in (("guild", WOLVES), ("character", THRALL))]
    azeroth.clock.advance(2 * DAY_S)
    session = azeroth.run([WOLVES, THRALL], source=source)
    after = [azeroth.library.get(kind, item.key) for kind, item in (("guild", WOLVES), ("character", THRALL))]
    assert session.counts.completed == 2
    assert azeroth.simulator.stats()["statuses"]["304"] == (7 if enhanced else 2)
    for old, new in zip(before, after, strict=True):
        assert old is not None
        assert new is not None
        assert new.data == old.data
        assert new.fetched_at_s >= old.fetched_at_s + 2 * DAY_S


def test_what_was_modified_is_fetched_anew(azeroth: Azeroth) -> None:
    azeroth.open(change_every_s=DAY_S)
    azeroth.run([THRALL])
    before = azeroth.library.get("character", THRALL.key)
    azeroth.clock.advance(3 * DAY_S)
    azeroth.run([THRALL])
    after = azeroth.library.get("character", THRALL.key)
    assert before is not None
    assert after is not None
    assert after.data["achievement_points"] > before.data["achievement_points"]
    assert "304" not in azeroth.simulator.stats()["statuses"]


def test_another_language_is_no_answer(azeroth: Azeroth) -> None:
    """A record in English must not be kept as the German one because nothing was modified."""
    azeroth.run([THRALL])
    azeroth.run([THRALL], source=azeroth.source(locale="de_DE"), force=True)
    assert azeroth.simulator.stats()["statuses"] == {"200": 4}
    record = azeroth.library.get("character", THRALL.key)
    assert record is not None
    assert record.data["locale"] == "de_DE"


def test_another_region_is_another_place(azeroth: Azeroth) -> None:
    azeroth.own(THRALL, days=0)
    assert azeroth.run([THRALL], source=azeroth.source(region="eu")).counts.completed == 1
    assert azeroth.library.get("character", THRALL.key, "eu") is not None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", "without the name of the character"),
        (b"{}", "without the name of the character"),
        (b'{"name": 7}', "without the name of the character"),
        (b"<html>busy</html>", "web page instead of JSON"),
        (b'{"name": "Th', "JSON that is broken"),
    ],
)
def test_a_wrong_shape_is_tried_again(azeroth: Azeroth, body: bytes, says: str) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return httpx2.Response(200, json={"access_token": "a-token-of-it", "expires_in": 86399})
        return httpx2.Response(200, content=body)

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    row = only(azeroth.run([THRALL], source=azeroth.source(client=client), breaker=None))
    assert (row["status"], row["attempts"]) == ("failed", 3)
    assert says in row["error"]
    assert len(azeroth.library) == 0


def test_a_304_that_nobody_asked_for_is_no_record(azeroth: Azeroth) -> None:
    azeroth.script["/profile/wow/character/kelthuzad/thrall"] = [304]
    assert only(azeroth.run([THRALL]))["error"] == "Battle.net answered 304"
    assert len(azeroth.library) == 0


def test_the_roster_joins_the_session(azeroth: Azeroth) -> None:
    """Members become items of the same run; those that are fresh are skipped."""
    frame = azeroth.run([WOLVES], expand="roster", name="first").results()
    assert frame["kind"].tolist() == ["guild"] + ["character"] * (len(frame) - 1)
    assert len(frame) > 3
    record = azeroth.library.get("guild", WOLVES.key)
    assert record is not None
    assert len(record.data["extras"]["roster"]["members"]) == len(frame) - 1
    azeroth.library.forget("guild")
    azeroth.library.forget("character", frame["key"][1])
    again = azeroth.run([WOLVES], expand="roster", name="again")
    assert (again.counts.completed, again.counts.skipped) == (2, len(frame) - 2)


def test_the_members_of_a_fresh_guild_are_known(azeroth: Azeroth) -> None:
    """A guild that need not be fetched still names its members: those that failed are tried again, without it."""
    first = azeroth.run([WOLVES], expand="roster")
    member = first.results()["key"][1]
    azeroth.library.forget("character", member)
    azeroth.asked.clear()
    assert azeroth.run([WOLVES], expand="roster").counts.completed == 1
    assert len(azeroth.asked) == 1


def test_a_fresh_guild_without_its_roster_is_fetched(azeroth: Azeroth) -> None:
    azeroth.run([WOLVES])
    session = azeroth.run([WOLVES], expand="roster")
    assert session.counts.skipped == 0
    assert session.counts.completed > 3


def test_a_character_listed_beside_its_guild_runs_once(azeroth: Azeroth) -> None:
    member = azeroth.run([WOLVES], expand="roster").results()["key"][1]
    azeroth.library.forget()
    azeroth.asked.clear()
    session = azeroth.run([WOLVES, member], expand="roster")
    assert session.counts.completed == session.counts.total
    assert len(azeroth.asked) == len(set(azeroth.asked))


def test_an_interrupted_expansion_goes_on(azeroth: Azeroth) -> None:
    """The members of a guild that was fetched are read from the library: only what is left is asked for."""
    azeroth.open(faults=Faults(outages=((0.5, 1e6),), latency_s=0.1))
    source = azeroth.source()
    broken = azeroth.run([WOLVES], source=source, expand="roster", limits=Limits(concurrency=2, spacing_s=0.1))
    assert broken.state == "failed"
    done = broken.counts.completed
    assert 1 < done < broken.counts.total
    azeroth.open()
    azeroth.asked.clear()
    whole = azeroth.run([WOLVES], expand="roster")
    assert whole.counts.completed + done == whole.counts.total == broken.counts.total
    assert whole.counts.skipped == done
    assert len(azeroth.asked) == broken.counts.total - done


def test_a_roster_without_members_is_tried_again(azeroth: Azeroth) -> None:
    azeroth.script["/data/wow/guild/aerie-peak/méchants-loups/roster"] = [404, 404, 404]
    row = only(azeroth.run([WOLVES], expand="roster", breaker=None))
    assert (row["status"], row["error"]) == ("failed", "Battle.net answered without the members of the guild")
    assert len(azeroth.library) == 0


def test_a_403_of_one_character_is_its_own(azeroth: Azeroth) -> None:
    """A player who opted out fails alone, first or last; the others are fetched at every call."""
    azeroth.open(hidden=["orc0", "orc19"])
    for day in range(3):
        azeroth.clock.advance(2 * DAY_S)
        session = azeroth.run(many(20), name=f"day {day}")
        frame = session.results().set_index("key")
        assert (session.state, session.counts.completed) == ("completed", 18)
        row = frame.loc["character/kelthuzad/orc0"]
        assert (row["status"], row["attempts"]) == ("failed", 1)
        assert row["error"].startswith("Battle.net answered 403: it does not show this one; a player may have opted")


def test_members_without_a_name_are_left_out_and_counted(azeroth: Azeroth) -> None:
    azeroth.open(nameless=3)
    session = azeroth.run([WOLVES], expand="roster")
    record = azeroth.library.get("guild", WOLVES.key)
    assert record is not None
    members = len(record.data["extras"]["roster"]["members"])
    assert record.data["left_out"] == 3
    assert session.counts.completed == session.counts.total == 1 + members - 3
    azeroth.clock.advance(2 * DAY_S)
    azeroth.run([WOLVES], expand="roster")
    record = azeroth.library.get("guild", WOLVES.key)
    assert "304" in azeroth.simulator.stats()["statuses"]
    assert record is not None
    assert record.data["left_out"] == 3


@pytest.mark.parametrize(
    "roster",
    [{}, {"members": {}}, {"members": [{"character": {"id": 7}}]}, {"members": [None, 7]}, []],
    ids=["no list", "an object", "no name at all", "no members at all", "another shape"],
)
def test_a_roster_that_cannot_be_read_is_no_empty_guild(azeroth: Azeroth, roster: Any) -> None:
    with pytest.raises(Transient, match="without the members of the guild"):
        azeroth.source().expand("roster", {"extras": {"roster": roster}})


@pytest.mark.parametrize(
    ("realm", "slug"),
    [
        ("Гордунни", "gordunni"),
        ("Ревущий фьорд", "howling-fjord"),
        ("아즈샤라", "azshara"),
        ("日落沼泽", "sundown-marsh"),
    ],
)
def test_a_realm_that_is_not_latin_is_looked_up(azeroth: Azeroth, realm: str, slug: str) -> None:
    """One request for the index, with a permit of its own, however many names need it."""
    azeroth.open(per_second=2)
    rates = [Rate(2, per_s=1)]
    session = azeroth.run([Character(realm, f"Orc{n}") for n in range(4)], limits=Limits(concurrency=4, rates=rates))
    assert session.counts.completed == 4
    assert azeroth.asked.count("/data/wow/realm/index") == 1
    assert azeroth.asked.count(f"/profile/wow/character/{slug}/orc3") == 1
    assert azeroth.simulator.stats()["statuses"] == {"200": 6}  # a token, the index, four characters


@pytest.mark.parametrize(
    "index",
    [
        {"realms": [None, {}, {"name": None, "slug": "x"}, {"name": "Гордунни", "slug": "gordunni"}]},
        {"realms": [{"name": {"ru_RU": "Гордунни", "en_US": "Gordunni"}, "slug": "gordunni"}]},
        {"realms": [{"name": "Gordunni", "slug": "гордунни"}]},
    ],
    ids=["broken entries", "all languages", "a slug that is not Latin"],
)
def test_an_index_may_have_names_in_several_shapes(azeroth: Azeroth, index: Any) -> None:
    async def answered() -> Any:
        return index

    realms = source.RealmIndex("eu")
    found = azeroth.clock.run_coroutine(realms.slug("гордунни", answered))
    assert found == index["realms"][-1]["slug"]


@pytest.mark.parametrize("index", [None, [], {}, {"realms": None}, {"realms": [{"id": 7}]}])
def test_what_is_no_index_is_asked_for_again(azeroth: Azeroth, index: Any) -> None:
    async def answered() -> Any:
        return index

    with pytest.raises(Transient, match="without the index of realms"):
        azeroth.clock.run_coroutine(source.RealmIndex("eu").slug("гордунни", answered))


def test_a_slug_needs_no_index(azeroth: Azeroth) -> None:
    assert (
        azeroth.run([Character("confrérie-du-thorium", "Orc1"), Guild("gordunni", "Стражи Севера")]).counts.failed == 0
    )
    assert "/data/wow/realm/index" not in azeroth.asked


def test_a_realm_that_is_not_there_is_told_with_what_to_give(azeroth: Azeroth) -> None:
    session = azeroth.run([Character("Даларан", "Orc1"), Character("Гордунни", "Orc2")])
    assert session.results()["status"].tolist() == ["failed", "completed"]
    assert session.results()["error"][0] == (
        "no realm of region us is named 'даларан': give its slug, such as 'gordunni'"
    )


def test_an_index_that_cannot_be_had_is_asked_for_again(azeroth: Azeroth) -> None:
    azeroth.script["/data/wow/realm/index"] = [500, 204, 404, 404]
    session = azeroth.run([Character("Гордунни", "Orc1")], retry=Retry(attempts=5), breaker=None)
    assert only(session)["error"] == (
        "Battle.net has no index of realms in us (Battle.net answered 404): give the slug of 'гордунни'"
    )
    azeroth.script.clear()
    assert only(azeroth.run([Character("Гордунни", "Orc1")], name="again"))["status"] == "completed"


@pytest.mark.parametrize("status", [301, 403, 404, 410])
def test_an_index_that_is_not_there_is_one_failure_of_all(azeroth: Azeroth, status: int) -> None:
    """Told by each with its slug to give, none of them taken for an absence, and not asked for 60 times."""
    azeroth.script["/data/wow/realm/index"] = [status] * 99
    names = [Character("Гордунни", f"Orc{n}") for n in range(60)]
    session = azeroth.run([*names, Character("aerie-peak", "Elf")])
    assert (session.counts.completed, session.counts.failed) == (1, 60)
    assert azeroth.asked.count("/data/wow/realm/index") == 1
    assert azeroth.library.absent().empty
    assert session.errors()["message"][0].startswith(
        f"Battle.net has no index of realms in us (Battle.net answered {status}"
    )


def test_an_index_that_keeps_failing_is_no_outage_of_what_is_answered(azeroth: Azeroth) -> None:
    azeroth.script["/data/wow/realm/index"] = [500] * 99
    names = [Character("Гордунни", f"Orc{n}") for n in range(60)]
    session = azeroth.run([*[Character("aerie-peak", f"Elf{n}") for n in range(60)], *names])
    assert (session.state, session.counts.completed, session.counts.failed) == ("completed", 60, 60)
    assert azeroth.asked.count("/data/wow/realm/index") < 30
    assert session.snapshot.breaker.openings <= 1
    assert session.results()["error"].iloc[-1] == (
        "Battle.net has no index of realms in us (Battle.net answered 500): give the slug of 'гордунни'"
    )


def test_an_index_that_fails_in_an_outage_is_tried_again(azeroth: Azeroth) -> None:
    began_s = azeroth.clock.now_s()
    azeroth.open(faults=Faults(latency_s=0.01, outages=((began_s + 0.05, began_s + 100.0),)))
    session = azeroth.run([*[Character("Гордунни", f"Orc{n}") for n in range(30)], Character("aerie-peak", "Elf1")])
    assert (session.counts.completed, session.counts.failed) == (31, 0)


def test_twenty_guilds_and_two_thousand_characters(azeroth: Azeroth) -> None:
    """5 % stray 429, 2 % 500, tokens that end every 20 s: only ghosts fail, at 60 a second and more, in the windows."""
    faults = Faults(seed=7, rate_500=0.02, latency_s=(0.001, 0.02))
    azeroth.open(faults=faults, stray_429_rate=0.05, token_lifetime_s=20, ghosts=["orc7", "orc77"])
    guilds = [Guild("Aerie Peak", f"Wolves {n}") for n in range(20)]
    session = azeroth.run(guilds + many(2000))
    frame, stats = session.results(), azeroth.simulator.stats()
    lost = frame[frame["status"] != "completed"]
    assert session.state == "completed"
    assert sorted(lost["key"]) == ["character/kelthuzad/orc7", "character/kelthuzad/orc77"]
    assert lost["error"].str.contains("404").all()
    assert len(frame) / azeroth.clock.now_s() >= 60
    assert stats["worst_second"] <= 100
    assert set(stats["statuses"]) == {"200", "404", "429", "500"}  # no 401: tokens were renewed in time
    assert stats["tokens"] <= azeroth.clock.now_s() / 19 + 1
    assert len(azeroth.library) == session.counts.completed


def test_ten_minutes_of_nothing_but_429_lose_nothing(azeroth: Azeroth) -> None:
    """The service lets nobody in: every item waits, none pays for it, and few requests are sent meanwhile."""
    azeroth.open(faults=Faults(outages=((5.0, 605.0),), outage_kind="429", latency_s=(0.001, 0.02)))
    session = azeroth.run(many(600))
    assert (session.state, session.counts.completed) == ("completed", 600)
    assert session.snapshot.breaker.openings == 0
    assert azeroth.simulator.stats()["statuses"]["429"] < 600


def test_a_narrow_window_with_jitter_is_used_to_the_full(azeroth: Azeroth) -> None:
    """300 ids at 40 in 2 s: no 429, and at least 98 % of N / (per_s + latency)."""
    azeroth.open(per_second=None, latency_s=(0.05, 0.15))
    azeroth.simulator._traffic.windows = ((40, 2.0),)
    session = azeroth.run(many(300), limits=Limits(concurrency=40, rates=[Rate(40, per_s=2)]))
    arrivals = azeroth.simulator.stats()["arrivals"]
    assert session.counts.completed == 300
    assert "429" not in azeroth.simulator.stats()["statuses"]
    assert (280 - 40) / (arrivals[280] - arrivals[40]) >= 0.98 * 40 / (2 + 0.1)  # whole windows, after the first


def test_the_hourly_window_is_kept_too(azeroth: Azeroth) -> None:
    azeroth.open(per_second=100, per_hour=150)
    limits = Limits(concurrency=20, rates=[Rate(100, per_s=1), Rate(150, per_s=3600)])
    session = azeroth.run(many(200), limits=limits)
    assert session.counts.completed == 200
    assert azeroth.simulator.stats()["statuses"] == {"200": 200 + azeroth.simulator.stats()["tokens"]}
    assert azeroth.clock.now_s() > 3600


def test_the_defaults_are_the_services(azeroth: Azeroth, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 a second and 36,000 an hour, 20 at once, 10 ms apart; the environment and arguments say otherwise."""
    order = azeroth.session([THRALL]).policy
    rates = [Rate(100, per_s=1), Rate(36_000, per_s=3600)]
    assert order.limits == Limits(concurrency=20, spacing_s=0.01, rates=rates)
    assert order.retry == Retry(attempts=3, strategy="next_second")
    monkeypatch.setenv("BNET_MAX_CONCURRENT", "4")
    monkeypatch.setenv("BNET_MIN_TIME_MS", "25")
    assert azeroth.source().defaults().limits == Limits(concurrency=4, spacing_s=0.025, rates=rates)
    given = azeroth.source(max_concurrent=7, min_time_ms=0).defaults().limits
    assert given == Limits(concurrency=7, spacing_s=0, rates=rates)


def test_what_is_rationed_is_the_client_wherever_it_asks() -> None:
    """Regions share a client's windows, another client and a simulator do not; the id is no part of the name."""
    ours = [BattleNet(ID, SECRET, region=region).defaults().resource for region in ("us", "eu")]
    other = BattleNet("another-client-4712", SECRET).defaults().resource
    elsewhere = BattleNet(ID, SECRET, base_url="http://127.0.0.1:8000").defaults().resource
    assert len({*ours}) == 1
    assert len({*ours, other, elsewhere}) == 3
    assert ID not in ours[0]


@pytest.mark.parametrize(
    ("region", "base_url", "oauth_url"),
    [
        ("us", "https://us.api.blizzard.com", "https://oauth.battle.net"),
        ("kr", "https://kr.api.blizzard.com", "https://oauth.battle.net"),
        ("cn", "https://gateway.battlenet.com.cn", "https://oauth.battlenet.com.cn"),
    ],
)
def test_every_region_has_its_hosts(region: str, base_url: str, oauth_url: str) -> None:
    source = BattleNet(ID, SECRET, region)
    assert (source.base_url, source.tokens.url) == (base_url, oauth_url)


def test_credentials_go_where_the_requests_go() -> None:
    """With a base_url of one's own, id and secret do not go to Battle.net unasked."""
    assert BattleNet(ID, SECRET, base_url="http://127.0.0.1:1/").tokens.url == "http://127.0.0.1:1/oauth"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"client_id": ""}, "client_id must be the text that .* got nothing"),
        ({"client_secret": None}, "client_secret must be the text that .* got nothing"),
        ({"client_secret": 4711}, "client_secret must be .* got a int that cannot be one"),
        ({"client_id": "é" * 8}, "client_id must be .* got a str that cannot be one"),
        ({"region": "na"}, "region must be one of 'us', 'eu', 'kr', 'tw', 'cn', got 'na'"),
        ({"locale": "english"}, "locale must be a language and a country such as 'en_US', got 'english'"),
        ({"enhanced": "yes"}, "enhanced must be True or False, got 'yes'"),
        ({"base_url": "us.api"}, "base_url must be an address"),
        ({"oauth_url": "us.api"}, "oauth_url must be an address"),
        ({"client": object()}, "client must be an httpx2.AsyncClient"),
        ({"max_concurrent": 0}, "max_concurrent must be a whole number >= 1, got 0"),
        ({"min_time_ms": -1}, "min_time_ms must be >= 0"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        BattleNet(**{"client_id": ID, "client_secret": SECRET, **arguments})


def test_bad_items_are_refused_before_the_first_request(azeroth: Azeroth) -> None:
    with pytest.raises(InputError, match="an item must be Guild"):
        azeroth.session([WOLVES, 440])
    with pytest.raises(InputError, match="items 0 and 1 share the key"):
        azeroth.session([WOLVES, Guild("aerie-peak", "méchants loups")])
    with pytest.raises(InputError, match=r"expand must be one of 'roster', None for this source, got 'friends'"):
        azeroth.session([WOLVES], expand="friends")
    assert azeroth.sent == []


def test_a_repr_tells_no_secret(azeroth: Azeroth) -> None:
    source = BattleNet(azeroth.ID, azeroth.SECRET, enhanced=True)
    assert repr(source) == "BattleNet('https://us.api.blizzard.com', region='us', enhanced=True)"
    assert azeroth.SECRET not in repr(vars(source)["tokens"])


def test_a_record_is_what_json_holds(azeroth: Azeroth) -> None:
    azeroth.run([THRALL], source=azeroth.source(enhanced=True))
    record = azeroth.library.get("character", THRALL.key)
    assert record is not None
    assert json.loads(json.dumps(record.data)) == record.data


def test_the_library_is_asked_with_the_place(azeroth: Azeroth, library: Library) -> None:
    azeroth.own(THRALL, days=2)
    assert library.outdated(kind="character", place="eu", now_s=azeroth.clock.unix_s()) == []
    assert library.outdated(kind="character", place="us", now_s=azeroth.clock.unix_s()) == [THRALL.key]


# One request


@pytest.mark.parametrize("ahead_s", [0.0, 0.3, 0.7, -12.4])
def test_too_fast_waits_for_the_servers_next_second(azeroth: Azeroth, ahead_s: float) -> None:
    """50 ms into the next second by the server's clock, whatever ours says; its Date tells, to a few milliseconds."""
    azeroth.open(date_offset_s=ahead_s)
    azeroth.script["/profile/wow/character/kelthuzad/orc149"] = [429]
    limits = Limits(concurrency=1, spacing_s=0.01, rates=[Rate(100, per_s=1)])
    session = azeroth.run(many(150), limits=limits)
    assert session.counts.completed == 150
    *_, refused_s, again_s = azeroth.simulator.stats()["arrivals"]
    assert int(again_s + ahead_s + 100) == int(refused_s + ahead_s + 100) + 1
    assert 0.05 <= (again_s + ahead_s) % 1 < 0.09


@pytest.mark.parametrize(
    ("statuses", "ended"),
    [
        ([429], ("completed", 2)),
        ([429] * 4, ("completed", 5)),
        ([500, 429], ("completed", 3)),
        ([429, 500, 429], ("completed", 4)),
        ([500, 429, 500, 429], ("completed", 5)),
        ([500, 429, 500, 429, 500], ("failed", 5)),
        ([500, 500, 500], ("failed", 3)),
    ],
)
def test_a_429_uses_up_no_attempt(azeroth: Azeroth, statuses: list[int], ended: tuple[str, int]) -> None:
    """Whatever comes between: three failures of other kinds end an item, and no number of 429s does."""
    azeroth.script[THRALL_PATH] = [*statuses]
    assert outcome(azeroth.run([THRALL], breaker=None)) == ended


def test_a_429_is_no_failure_of_the_service(azeroth: Azeroth) -> None:
    for n in range(10):
        azeroth.script[f"/profile/wow/character/kelthuzad/orc{n}"] = [500, 429] if n % 4 == 3 else [429]
    session = azeroth.run(many(10), limits=ONE)
    assert session.counts.completed == 10
    assert session.snapshot.breaker.openings == 0


def test_the_services_own_word_wins(azeroth: Azeroth) -> None:
    azeroth.open(stray_429_rate=1.0, retry_after_s=7)
    azeroth.run([THRALL])
    first_s, second_s, *_ = azeroth.simulator.stats()["arrivals"]
    assert 7.0 <= second_s - first_s < 7.1


def test_a_token_that_ended_early_goes_unnoticed(azeroth: Azeroth) -> None:
    """401: a newer token, the request once more, with a permit of its own; the item has one attempt."""
    azeroth.open(token_lifetime_s=2, token_told_s=86_399)
    session = azeroth.run(many(30), limits=Limits(concurrency=1, spacing_s=0.2))
    stats = azeroth.simulator.stats()
    assert session.counts.completed == 30
    assert set(session.results()["attempts"]) == {1}
    assert stats["statuses"]["401"] == stats["tokens"] - 1 > 1
    gaps_s = [after - before for before, after in zip(stats["arrivals"], stats["arrivals"][1:], strict=False)]
    assert min(gaps_s) >= 0.2 - 0.02  # a token and the way to the service take up to 10 ms each


def test_requests_side_by_side_renew_a_token_once(azeroth: Azeroth) -> None:
    azeroth.open(token_lifetime_s=3, token_told_s=86_399, latency_s=0.5)
    session = azeroth.run(many(100), limits=Limits(concurrency=10))
    stats = azeroth.simulator.stats()
    assert session.counts.completed == 100
    assert stats["tokens"] <= azeroth.clock.now_s() / 3 + 1
    assert stats["statuses"]["401"] > stats["tokens"]


def test_a_second_401_stops_the_session(azeroth: Azeroth) -> None:
    azeroth.script[THRALL_PATH] = [401, 401]
    session = azeroth.run([THRALL, *many(5)], limits=ONE)
    assert session.state == "failed"
    assert session.reason.startswith("Battle.net answered 401: it rejects a token that it has just issued")
    assert azeroth.asked == [THRALL_PATH, THRALL_PATH]


def test_a_request_that_hangs_is_given_up(azeroth: Azeroth) -> None:
    """The session sets no limit of time, since a permit may take an hour; each request has one."""
    azeroth.open(faults=Faults(outages=((0.1, 1e9),), outage_kind="hang", latency_s=0.01))
    patient = azeroth.source(client=azeroth.client(timeout=None))
    session = azeroth.run(many(2), source=patient, limits=Limits(concurrency=1, spacing_s=0.2), breaker=None)
    assert session.results()["status"].tolist() == ["completed", "timeout"]
    assert azeroth.clock.now_s() < 400


# Settings


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
    assert source.__doc__ is not None
    for field in fields(BattleNetSettings):
        assert f"`BNET_{field.name.upper()}`" in source.__doc__
