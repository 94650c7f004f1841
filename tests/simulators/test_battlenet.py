import asyncio
import base64
import json
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx2
import pytest

from ipybatch.simulators import BattleNetSimulator, Faults, Request, SimTransport, serve
from ipybatch.simulators import battlenet_world as world
from ipybatch.simulators.battlenet import TokenIssuer

BASIC = {"Authorization": f"Basic {base64.b64encode(b'SIMULATED:SIMULATED').decode()}"}
GUILD = "/data/wow/guild/aerie-peak/méchants-loups"
CHARACTER = "/profile/wow/character/aerie-peak/leeroy"
EPOCH_S = 1_800_000_000.0


def send(service, path, now_s=0.0, token=None, *, namespace="profile-eu", method="GET", **headers):
    """Ask as a client does, the path percent-encoded; without a token a new one is issued."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given["Authorization"] = f"Bearer {issue(service) if token is None else token}"
    url = f"{quote(path)}?namespace={namespace}&locale=en_US"
    return service.handle(Request(url, method, given), now_s)


def issue(service, now_s=0.0):
    reply = service.handle(Request("/oauth/token", "POST", BASIC, b"grant_type=client_credentials"), now_s)
    return json.loads(reply.body)["access_token"]


def statuses(service, path, times, **options):
    token = issue(service)
    return [send(service, path, now_s, token, **options).status for now_s in times]


@pytest.mark.parametrize(
    ("path", "build"),
    [
        (GUILD, world.guild),
        (f"{GUILD}/roster", world.roster),
        (CHARACTER, world.character),
        (f"{CHARACTER}/equipment", world.equipment),
        (f"{CHARACTER}/mythic-keystone-profile", world.keystones),
        (f"{CHARACTER}/collections", world.collections),
        (f"{CHARACTER}/collections/mounts", world.mounts),
        (f"{CHARACTER}/collections/pets", world.pets),
    ],
)
def test_every_path_answers_with_its_thing(path, build):
    name = "méchants-loups" if "guild" in path else "leeroy"
    reply = send(BattleNetSimulator(), path)
    assert (reply.status, json.loads(reply.body)) == (200, build("eu", "aerie-peak", name))
    assert reply.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("guild", world.GUILDS)
@pytest.mark.parametrize("realm", world.REALMS)
def test_every_named_guild_is_found_on_every_named_realm(realm, guild):
    answer = json.loads(send(BattleNetSimulator(), f"/data/wow/guild/{realm}/{world.slug(guild)}").body)
    assert (answer["name"], answer["realm"]["name"]) == (guild, world.REALMS[realm])


@pytest.mark.parametrize(
    "path",
    [
        "/data/wow/guild/kel'thuzad/loups",
        "/data/wow/guild/Aerie Peak/loups",
        "/data/wow/guild/aerie-peak/Loups",
        "/data/wow/guild/aerie-peak/loups/achievements",
        "/profile/wow/character/aerie-peak/Leeroy",
        "/profile/wow/character/aerie-peak/leeroy/pets",
        "/profile/wow/character/aerie-peak",
        "/data/wow/realm/list",
    ],
)
def test_a_path_that_is_not_there_gets_404_with_the_services_body(path):
    reply = send(BattleNetSimulator(), path)
    assert (reply.status, json.loads(reply.body)) == (
        404,
        {"code": 404, "type": "BLZWEBAPI00000404", "detail": "Not Found"},
    )


def test_who_opted_out_is_hidden_and_nobody_else():
    service = BattleNetSimulator(hidden={"Leeroy", "Méchants Loups"})
    token = issue(service)
    assert send(service, CHARACTER, token=token).status == send(service, GUILD, token=token).status == 403
    assert send(service, CHARACTER + "x", token=token).status == 200


def test_members_without_a_name_are_the_last_of_every_roster():
    members = json.loads(send(BattleNetSimulator(nameless=2), f"{GUILD}/roster").body)["members"]
    assert ["name" in member["character"] for member in members] == [True] * (len(members) - 2) + [False] * 2


def test_the_index_of_realms_has_names_in_one_language_or_in_all():
    service = BattleNetSimulator()
    index = send(service, "/data/wow/realm/index", namespace="dynamic-eu")  # with a locale
    names = {realm["slug"]: realm["name"] for realm in json.loads(index.body)["realms"]}
    assert (names["gordunni"], names["kelthuzad"]) == ("Gordunni", "Kel'Thuzad")
    token = {"Authorization": f"Bearer {issue(service)}"}
    index = service.handle(Request("/data/wow/realm/index?namespace=dynamic-eu", "GET", token), 0.0)
    names = {realm["slug"]: realm["name"] for realm in json.loads(index.body)["realms"]}
    assert names["gordunni"] == {"en_US": "Gordunni", "ru_RU": "Гордунни"}
    assert names["azshara"] == {"en_US": "Azshara", "ko_KR": "아즈샤라"}
    assert send(service, "/data/wow/realm/index").status == 403  # of profiles
    assert service.stats()["kinds"]["realms"] == {"200": 2, "403": 1}
    assert send(service, "/profile/wow/character/гордунни/leeroy").status == 404


@pytest.mark.parametrize("fault", [301, 400, 403, 404, "drop"])
def test_a_token_service_may_have_gone(fault):
    service = BattleNetSimulator(token_fault=fault)
    reply = service.handle(Request("/oauth/token", "POST", BASIC, b"grant_type=client_credentials"), 0.0)
    assert (reply.drop or reply.status) == ("close" if fault == "drop" else fault)
    assert service.stats()["tokens"] == 0


def test_ghosts_are_not_found_by_name_or_by_set():
    service = BattleNetSimulator(ghosts={"Leeroy", "Méchants Loups"})
    found = {
        name: send(service, f"/data/wow/guild/aerie-peak/{name}").status
        for name in ("méchants-loups", "ghost-hunters", "loups")
    }
    assert found == {"méchants-loups": 404, "ghost-hunters": 404, "loups": 200}
    assert send(service, CHARACTER).status == 404
    assert send(service, f"{CHARACTER}/collections/pets").status == 404


def test_a_share_of_the_names_is_ghosts_and_always_the_same():
    service, again = (BattleNetSimulator(ghost_rate=0.1, faults=Faults(seed=3)) for _ in range(2))
    ghosts = [n for n in range(2000) if not service.has("aerie-peak", f"hero{n}")]
    assert len(ghosts) == pytest.approx(200, abs=54)
    assert ghosts == [n for n in range(2000) if not again.has("aerie-peak", f"hero{n}")]
    assert send(service, f"/profile/wow/character/aerie-peak/hero{ghosts[0]}").status == 404


@pytest.mark.parametrize("namespace", ["", "profile-xx", "profile", "static-eu", "dynamic-eu"])
def test_a_wrong_namespace_gets_403(namespace):
    assert send(BattleNetSimulator(), CHARACTER, namespace=namespace).status == 403


@pytest.mark.parametrize("region", world.REGIONS)
def test_the_namespace_decides_the_region(region):
    reply = send(BattleNetSimulator(), CHARACTER, namespace=f"profile-{region}")
    assert json.loads(reply.body) == world.character(region, "aerie-peak", "leeroy")


def test_data_is_only_got():
    assert send(BattleNetSimulator(), CHARACTER, method="POST").status == 405


def test_an_unknown_token_gets_401_and_counts_in_the_windows():
    service = BattleNetSimulator()
    assert send(service, CHARACTER, token="unknown").status == 401
    assert service.stats()["worst_second"] == 1


def test_a_token_ends_with_its_lifetime():
    service = BattleNetSimulator(token_lifetime_s=60.0)
    assert statuses(service, CHARACTER, (0, 59.9, 60.0)) == [200, 200, 401]
    assert send(service, CHARACTER, 61.0, issue(service, 60.5)).status == 200
    assert service.stats()["tokens"] == 2


def test_a_token_may_end_before_its_answer_says():
    """A client that trusts expires_in meets a 401 in mid-run."""
    service = BattleNetSimulator(token_lifetime_s=60.0, token_told_s=3600.0)
    reply = service.handle(Request("/oauth/token", "POST", BASIC, b"grant_type=client_credentials"), 0.0)
    assert json.loads(reply.body)["expires_in"] == 3600
    assert statuses(service, CHARACTER, (59.0, 61.0)) == [200, 401]


def test_revoked_tokens_end_at_once():
    service = BattleNetSimulator()
    token = issue(service)
    before = send(service, CHARACTER, 1.0, token).status
    service.revoke()
    assert (before, send(service, CHARACTER, 1.0, token).status) == (200, 401)


def test_the_hundred_and_first_request_of_a_second_gets_429():
    service = BattleNetSimulator()
    got = statuses(service, CHARACTER, [n / 200 for n in range(101)])
    assert got == [200] * 100 + [429]
    assert (service.stats()["worst_second"], service.stats()["worst_hour"]) == (101, 101)
    assert send(service, CHARACTER, 1.6).status == 200


def test_the_request_over_the_hours_limit_gets_429_until_the_hour_has_passed():
    service = BattleNetSimulator(per_hour=3)
    assert statuses(service, CHARACTER, (0, 10, 20, 30, 3599.9, 3630.1)) == [200, 200, 200, 429, 429, 200]
    assert [window["worst"] for window in service.stats()["worst"]] == [1, 5]
    assert (service.stats()["worst_second"], service.stats()["worst_hour"]) == (1, 5)


def test_without_limits_nobody_is_refused_and_the_worst_is_still_told():
    service = BattleNetSimulator(per_second=None, per_hour=None)
    assert set(statuses(service, CHARACTER, [0.0] * 300)) == {200}
    assert (service.stats()["worst_second"], service.stats()["worst_hour"]) == (300, 300)


def test_requests_for_tokens_count_in_no_window():
    service = BattleNetSimulator(per_second=1)
    for _ in range(5):
        issue(service)
    assert send(service, CHARACTER).status == 200
    assert service.stats()["worst_second"] == 1


def test_429_has_no_retry_after_unless_asked_for():
    silent, telling = BattleNetSimulator(per_second=1), BattleNetSimulator(per_second=1, retry_after_s=2)
    replies = [[send(service, CHARACTER) for _ in range(2)][1] for service in (silent, telling)]
    assert [reply.status for reply in replies] == [429, 429]
    assert [reply.headers.get("Retry-After") for reply in replies] == [None, "2"]
    assert json.loads(replies[0].body)["code"] == 429


def test_stray_429s_meet_a_share_of_the_requests_within_the_limits():
    service, again = (BattleNetSimulator(stray_429_rate=0.05, faults=Faults(seed=2)) for _ in range(2))
    refused = [_stray_hero(service, n) for n in range(2000)]
    assert sum(refused) == pytest.approx(100, abs=40)
    assert service.stats()["faults"] == {"429": sum(refused)}
    assert refused == list(reversed([_stray_hero(again, n) for n in reversed(range(2000))]))


def _stray_hero(service, n):
    return send(service, f"/profile/wow/character/aerie-peak/hero{n}", n * 1.0).status == 429


@pytest.mark.parametrize("in_a_row", [1, 2, 3])
def test_stray_429s_come_as_often_in_a_row_as_asked(in_a_row):
    service = BattleNetSimulator(stray_429_rate=0.02, stray_429_in_a_row=in_a_row)
    got = "".join("x" if status == 429 else "." for status in statuses(service, CHARACTER, range(3000)))
    runs = [len(run) for run in got.split(".") if run]
    assert len(runs) > 20
    assert min(runs) == in_a_row


def test_what_did_not_change_since_gets_304_and_no_body():
    service = BattleNetSimulator(epoch_s=EPOCH_S)
    whole = send(service, GUILD)
    reply = send(service, GUILD, If_Modified_Since=whole.headers["Last-Modified"])
    assert (reply.status, reply.body) == (304, b"")
    assert reply.headers["Last-Modified"] == whole.headers["Last-Modified"]


@pytest.mark.parametrize("since", ["Sat, 01 Jan 2000 00:00:00 GMT", "yesterday", ""])
def test_what_changed_since_and_what_is_no_date_get_the_whole_answer(since):
    assert send(BattleNetSimulator(), GUILD, If_Modified_Since=since).status == 200


def test_a_thing_that_changes_is_sent_again_once_for_each_change():
    """Its Last-Modified is never in the service's future."""
    service = BattleNetSimulator(change_every_s=100.0, epoch_s=EPOCH_S)
    reply, codes, bodies = send(service, GUILD), [], set()
    for now_s in range(0, 1000, 10):
        since = reply.headers["Last-Modified"]
        answer = send(service, GUILD, now_s, If_Modified_Since=since)
        codes.append(answer.status)
        if answer.status == 200:
            reply = answer
            bodies.add(answer.body)
        assert parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp() <= EPOCH_S + now_s
    assert (codes.count(200), codes.count(304), len(bodies)) == (10, 90, 10)


def test_every_answer_carries_the_date_of_the_services_clock():
    service = BattleNetSimulator(epoch_s=EPOCH_S, date_offset_s=7.0, per_second=2, faults=Faults(outages=((50, 60),)))
    token = issue(service)
    replies = [send(service, CHARACTER, 12.9, token), send(service, "/nowhere", 12.9, token)]
    replies += [send(service, CHARACTER, 12.9, token), send(service, CHARACTER, 14.0, "unknown")]
    replies += [send(service, CHARACTER, 55.0, token)]
    told_s = [parsedate_to_datetime(reply.headers["Date"]).timestamp() - EPOCH_S for reply in replies]
    assert [reply.status for reply in replies] == [200, 404, 429, 401, 500]
    assert told_s == [19, 19, 19, 21, 62]


def test_faults_break_a_share_of_the_answers():
    service = BattleNetSimulator(faults=Faults(rate_500=0.2))
    token = issue(service)
    codes = [send(service, f"/profile/wow/character/aerie-peak/hero{n}", n, token).status for n in range(500)]
    assert codes.count(500) == pytest.approx(100, abs=30)
    assert codes.count(200) == 500 - codes.count(500)


def test_the_statistics_count_by_kind_and_status_and_by_id():
    service = BattleNetSimulator()
    token = issue(service)
    for path in (GUILD, GUILD, f"{GUILD}/roster", CHARACTER, f"{CHARACTER}/collections/mounts", "/nowhere"):
        send(service, path, 0.0, token)
    send(service, CHARACTER, 0.0, "unknown")
    stats = service.stats()
    assert stats["kinds"] == {
        "character": {"200": 1, "401": 1},
        "guild": {"200": 2},
        "mounts": {"200": 1},
        "other": {"404": 1},
        "roster": {"200": 1},
        "token": {"200": 1},
    }
    assert stats["ids"]["eu/guild/aerie-peak/méchants-loups"] == 2
    assert stats["duplicates"] == ["eu/guild/aerie-peak/méchants-loups", "eu/character/aerie-peak/leeroy"]
    assert (stats["requests"], stats["tokens"]) == (8, 1)


def test_the_same_name_in_two_regions_is_two_ids():
    service = BattleNetSimulator()
    for region in ("us", "eu"):
        send(service, CHARACTER, namespace=f"profile-{region}")
    assert not service.stats()["duplicates"]


def test_reading_the_statistics_is_not_counted():
    service = BattleNetSimulator()
    reply = service.handle(Request("/_sim/stats"), 1.0)
    assert json.loads(reply.body) == service.stats()
    assert service.stats()["kinds"] == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_lifetime_s": 0}, "token_lifetime_s must be > 0 and finite, got 0"),
        ({"token_told_s": -1}, "token_told_s must be >= 0 and finite, got -1"),
        ({"per_second": 0}, "per_second must be >= 1 or None, got 0"),
        ({"per_hour": 0}, "per_hour must be >= 1 or None, got 0"),
        ({"stray_429_rate": 1.5}, r"stray_429_rate must be in \[0, 1\], got 1.5"),
        ({"stray_429_in_a_row": 0}, "stray_429_in_a_row must be >= 1, got 0"),
        ({"retry_after_s": -1}, "retry_after_s must be >= 0 or None, got -1"),
        ({"ghost_rate": -0.1}, r"ghost_rate must be in \[0, 1\], got -0.1"),
        ({"change_every_s": 0}, "change_every_s must be > 0 or None, got 0"),
        ({"date_offset_s": float("nan")}, "date_offset_s must be finite, got nan"),
    ],
)
def test_bad_options_name_field_value_and_range(options, message):
    with pytest.raises(ValueError, match=message):
        BattleNetSimulator(**options)


def test_one_server_gives_tokens_and_data():
    """A 304 over HTTP has no body, and the date is the service's, not the server's."""
    server = serve("battlenet", client_id="me", client_secret="cret", epoch_s=EPOCH_S, per_hour=3)
    with server as url, httpx2.Client(base_url=url, trust_env=False, params={"namespace": "profile-eu"}) as client:
        grant = client.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=("me", "cret"))
        client.headers["Authorization"] = f"Bearer {grant.json()['access_token']}"
        whole = client.get(GUILD)
        same = client.get(GUILD, headers={"If-Modified-Since": whole.headers["Last-Modified"]})
        missing = client.get("/data/wow/guild/aerie-peak/ghosts")
        refused = client.get(GUILD)
    assert whole.json() == world.guild("eu", "aerie-peak", "méchants-loups")
    assert [answer.status_code for answer in (grant, whole, same, missing, refused)] == [200, 200, 304, 404, 429]
    assert same.content == b""
    assert 0 <= parsedate_to_datetime(whole.headers["Date"]).timestamp() - EPOCH_S < 3600
    assert "retry-after" not in refused.headers


def test_in_process_it_answers_under_a_virtual_clock(clock):
    """Two hours with 20 requests at a time take no time, and the arrivals lie between sending and answer."""
    service = BattleNetSimulator(faults=Faults(latency_s=(0.001, 0.02)), token_lifetime_s=3600.0, epoch_s=EPOCH_S)

    async def work():
        transport = SimTransport(service, sleep=clock.sleep, now=clock.now)
        params = {"namespace": "profile-us", "locale": "en_US"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://battle.invalid", params=params) as client:
            codes = []
            for _ in range(2):
                grant = await client.post(
                    "/oauth/token", data={"grant_type": "client_credentials"}, auth=("SIMULATED", "SIMULATED")
                )
                client.headers["Authorization"] = f"Bearer {grant.json()['access_token']}"
                answers = await asyncio.gather(*(client.get(f"{CHARACTER}{n}") for n in range(20)))
                codes += [answer.status_code for answer in answers]
                await clock.sleep(3600.0)
            return codes, answers[0].headers["Date"], (await client.get(CHARACTER)).status_code

    codes, date, late = clock.run(work())
    assert codes == [200] * 40
    assert late == 401
    assert parsedate_to_datetime(date).timestamp() == EPOCH_S + 3600
    assert service.stats()["worst_second"] == 20
    assert service.stats()["tokens"] == 2


GRANT = b"grant_type=client_credentials"


def desk(lifetime_s=100.0, told_s=100.0):
    return TokenIssuer("me", "se:cret", lifetime_s=lifetime_s, told_s=told_s)


def basic(text):
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def ask(tokens, now_s=0.0, headers=None, method="POST", content=GRANT):
    request = Request("/oauth/token", method, basic("me:se:cret") if headers is None else headers, content)
    reply = tokens.answer(request, now_s)
    return reply.status, json.loads(reply.body)


def bearer(token):
    return Request("/data", headers={"authorization": f"Bearer {token}"})


def test_right_credentials_get_a_token():
    status, answer = ask(desk(lifetime_s=86_399.5, told_s=86_399.5))
    assert status == 200
    assert answer.keys() == {"access_token", "token_type", "expires_in", "sub"}
    assert (answer["token_type"], answer["expires_in"], answer["sub"]) == ("bearer", 86_399, "me")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("me:wrong"),
        basic("you:se:cret"),
        {"Authorization": "Basic me:se:cret"},
        {"Authorization": "Basic /w=="},
        {"Authorization": "Bearer x"},
    ],
)
def test_wrong_credentials_get_401_and_no_token(headers):
    tokens = desk()
    status, answer = ask(tokens, headers=headers)
    assert (status, answer["error"], tokens.issued) == (401, "invalid_client", 0)


@pytest.mark.parametrize(("method", "content"), [("GET", GRANT), ("POST", b""), ("POST", b"grant_type=password")])
def test_another_grant_gets_400(method, content):
    tokens = desk()
    assert ask(tokens, method=method, content=content)[0] == 400
    assert tokens.issued == 0


def test_a_token_lives_from_its_issue_to_its_end():
    tokens = desk(lifetime_s=10.0)
    token = ask(tokens, 5.0)[1]["access_token"]
    assert [tokens.valid(bearer(token), now_s) for now_s in (5.0, 14.9, 15.0, 99.0)] == [True, True, False, False]


@pytest.mark.parametrize("token", ["", "unknown", "SIM"])
def test_an_unknown_token_is_not_valid(token):
    tokens = desk()
    ask(tokens)
    assert not tokens.valid(bearer(token), 0.0)


def test_a_token_is_valid_only_as_a_bearer():
    tokens = desk()
    token = ask(tokens)[1]["access_token"]
    assert not tokens.valid(Request("/data", headers={"Authorization": f"Basic {token}"}), 0.0)
    assert not tokens.valid(Request("/data"), 0.0)


def test_every_grant_is_a_token_of_its_own_and_counted():
    """The older one goes on living: who asks too often shows in the number, not in an error."""
    tokens = desk()
    first, second = (ask(tokens, now_s)[1]["access_token"] for now_s in (0.0, 1.0))
    assert first != second
    assert tokens.issued == 2
    assert tokens.valid(bearer(first), 2.0)
    assert tokens.valid(bearer(second), 2.0)


def test_a_revoked_token_has_ended_whatever_its_answer_said():
    tokens = desk()
    token = ask(tokens)[1]["access_token"]
    tokens.revoke(3.0)
    assert not tokens.valid(bearer(token), 3.0)
    assert tokens.issued == 1
    assert tokens.valid(bearer(ask(tokens, 3.0)[1]["access_token"]), 3.0)
