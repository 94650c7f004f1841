"""The template "refresh", run against the simulators."""

import pytest

from ipybatch.errors import InputError
from ipybatch.library import Library
from ipybatch.server.templates import TEMPLATES, WrongField
from ipybatch.simulators import serve

QUICK = {"request_delay_ms": 0, "batch_delay_seconds": 0}


@pytest.fixture(scope="module")
def steam():
    server = serve("steam")
    yield server
    server.close()


def test_games_are_fetched_into_the_default_library(desk, steam):
    given = {"base_url": steam.url, **QUICK}
    assert desk.check("refresh", [440, {"app_id": 570}], **given).requests == 2
    quote = desk.quote("refresh", [440, {"app_id": 570}], **given)
    assert quote.seconds[0] < quote.seconds[1]
    assert quote.quote[0]["requests"] == 2
    session = desk.session("refresh", [440, {"app_id": 570}], **given)
    assert session.run().counts.completed == 2
    assert sorted(Library().keys("game")) == [440, 570]
    assert TEMPLATES["refresh"].used(session) == 0
    again = desk.quote("refresh", None, **given)
    assert (again.request_count, again.quote[0]["requests"]) == (2, 0), "all that the library holds, and it is fresh"


@pytest.mark.parametrize("name", ["batch_size", "max_concurrent_requests", "max_retries", "circuit_breaker_threshold"])
def test_a_number_that_no_machine_has_is_refused_or_taken(desk, steam, name):
    given = {"base_url": steam.url, **QUICK, name: 1 << 70}
    try:
        assert desk.quote("refresh", [440, 570], **given).request_count == 2
    except InputError as error:
        assert name in str(error)  # noqa: PT017  # either will do


def test_guilds_and_characters_are_fetched(desk):
    with serve("battlenet") as url:
        given = {"source": "battlenet", "base_url": url, "region": "eu"}
        requests = [{"kind": "guild", "realm": "Aerie Peak", "name": "Wolves"}, "character/aerie-peak/thrall"]
        assert desk.check("refresh", requests, **given).requests == 2
        assert desk.session("refresh", requests, **given).policy.resource.endswith(url.removeprefix("http://"))


def test_sessions_of_a_host_share_its_windows(desk, steam):
    made = [desk.session("refresh", [440], base_url=steam.url, name=name) for name in ("one", "two")]
    assert made[0].policy.resource == made[1].policy.resource


WRONG = [
    ([], {}, "requests"),
    (list(range(1, 22)), {}, "requests"),
    (["no game"], {}, "requests[0]"),
    ([440, -1], {}, "requests[1]"),
    ([{"id": 440}], {}, "requests[0]"),
    (None, {}, "requests"),
    ([440], {"source": "epic"}, "params.source"),
    ([440], {"library": "../games.db"}, "params.library"),
    ([440], {"library": "/tmp/games.db"}, "params.library"),
    ([440], {"base_url": "http://store.example"}, "params.base_url"),
    ([440], {"region": "eu"}, "params.region"),
    ([440], {"max_retries": -1}, "params.max_retries"),
    ([440], {"timeout_s": -1}, "params.timeout_s"),
    ([440], {"cc": "nowhere"}, "params.cc"),
    ([440], {"client_secret": "s3cret"}, "params.client_secret"),
    (["guild/a/b"], {"source": "battlenet", "base_url": None}, "BNET_CLIENT_ID"),
    ([{"kind": "realm", "realm": "a", "name": "b"}], {"source": "battlenet"}, "requests[0]"),
    (["guild/a/b"], {"source": "battlenet", "region": "mars"}, "params.region"),
]


@pytest.mark.parametrize(("requests", "params", "field"), WRONG)
def test_what_is_wrong_is_named(desk, steam, requests, params, field):
    error = desk.refused("refresh", requests, **{"base_url": steam.url, **params})
    assert isinstance(error, WrongField)
    assert error.field == field
