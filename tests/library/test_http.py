from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests

from ipybatch import InputError, Permanent, RateLimited, Refused, Transient
from ipybatch.engine.data.masking import mask
from ipybatch.library import Library, SteamStore, refresh
from ipybatch.library.http import Forbidden, OwnClient, check_client, check_url, read_json
from ipybatch.library.source import NotThere


def test_json_is_given_back() -> None:
    assert read_json(httpx2.Response(200, json={"a": [1, None]}), "the store") == {"a": [1, None]}


@pytest.mark.parametrize(
    ("response", "error", "says"),
    [
        (httpx2.Response(429, json=None), RateLimited, "the store answered 429: too many requests"),
        (httpx2.Response(401), Refused, "the store answered 401: no key"),
        (httpx2.Response(403), Refused, "the store answered 403: no key"),
        (httpx2.Response(408), Transient, "the store answered 408"),
        (httpx2.Response(500), Transient, "the store answered 500"),
        (httpx2.Response(503, text="<html>"), Transient, "the store answered 503"),
        (httpx2.Response(302, headers={"location": "/busy"}), Transient, "the store answered 302"),
        (httpx2.Response(301, headers={"location": "http://[new"}), Permanent, "the store answered 301"),
        (
            httpx2.Response(301, headers={"location": "https://new"}),
            Permanent,
            "the store answered 301: it has moved to https://new; set its address accordingly",
        ),
        (httpx2.Response(404), NotThere, "the store answered 404"),
        (httpx2.Response(410), NotThere, "the store answered 410"),
        (httpx2.Response(400), Permanent, "the store answered 400"),
        (
            httpx2.Response(200, text=" <!DOCTYPE html>"),
            Transient,
            "the store answered with a web page instead of JSON",
        ),
        (httpx2.Response(200, text=""), Transient, "the store answered with nothing"),
        (
            httpx2.Response(200, text='{"440": {"succ'),
            Transient,
            "the store answered with JSON that is broken or breaks off after 14 bytes",
        ),
        (httpx2.Response(200, content=b'"\xff"'), Transient, "the store answered with JSON that is broken"),
        (httpx2.Response(200, text="[" * 100_000), Transient, "the store answered with JSON that is broken"),
    ],
)
def test_every_answer_says_what_to_do(response: httpx2.Response, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        read_json(response, "the store", refused="no key")
    assert type(caught.value) is error
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'\xef\xbb\xbf{"name": "Doom"}', {"name": "Doom"}),
        (b'{"name": "\\ud83d"}', {"name": "\ufffd"}),
        (b'{"name": "\\ud83d\\ude00 \\ude00"}', {"name": "\U0001f600 \ufffd"}),
        ('{"name": "Дум"}'.encode("utf-16"), {"name": "Дум"}),
    ],
    ids=["byte order mark", "half a surrogate pair", "a pair and a half", "utf-16"],
)
def test_what_other_readers_accept_is_read(body: bytes, value: object) -> None:
    assert read_json(httpx2.Response(200, content=body), "the store") == value


@pytest.mark.parametrize("body", [b'{"a": NaN}', b'{"a": "\\ud83d', b"\xef\xbb\xbf", b'{"a": 1} {"a": 2}'])
def test_what_is_broken_stays_broken(body: bytes) -> None:
    with pytest.raises(Transient, match="JSON that is broken"):
        read_json(httpx2.Response(200, content=body), "the store")


def test_a_403_may_be_of_one_item() -> None:
    with pytest.raises(Forbidden, match="the store answered 403: hidden") as caught:
        read_json(httpx2.Response(403), "the store", forbidden="hidden")
    assert caught.value.status == 403


@pytest.mark.parametrize("status", [403, 429, 503])
def test_the_services_own_wait_is_kept(status: int) -> None:
    with pytest.raises(RateLimited) as caught:
        read_json(httpx2.Response(status, headers={"Retry-After": "17"}), "the store")
    assert caught.value.retry_after_s == 17.0


@pytest.mark.parametrize("url", ["", "store.example", "ftp://store.example", "https://", "https://a?b=c", None, 7])
def test_what_is_no_address_is_refused(url: object) -> None:
    with pytest.raises(InputError, match=r"base_url must be an address such as .*, got "):
        check_url("base_url", url)


def test_a_password_in_an_address_is_never_repeated() -> None:
    with pytest.raises(InputError) as caught:
        check_url("base_url", "https://me:geheim99@store.example?x=1")
    assert "geheim99" not in str(caught.value)


def test_a_client_must_be_able_to_get() -> None:
    assert check_client(None) is None
    with pytest.raises(InputError, match="client must be an httpx2"):
        check_client("https://store.example")


@pytest.mark.parametrize("kind", [httpx2.Client, requests.Session])
def test_a_client_of_another_api_is_refused_at_once(kind: Any) -> None:
    """Else every item fails: it can get, but not as it is asked to."""
    with pytest.raises(InputError, match=f"got a {kind.__module__.partition('.')[0]}.{kind.__name__}: give one of"):
        check_client(kind())


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ALL_PROXY", "ftp://127.0.0.1:9", "proxy"),
        ("SSL_CERT_FILE", "/no/such/file", "SSL_CERT_FILE=/no/such/file"),
    ],
)
def test_a_broken_environment_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, says: str
) -> None:
    """Not by each item."""
    monkeypatch.setenv(variable, value)
    library, source = Library(tmp_path / "games.db"), SteamStore("http://127.0.0.1:9")
    session = refresh(range(1, 31), source=source, library=library, journal=tmp_path / "journal.db")
    session.run()
    assert (session.state, session.counts.skipped) == ("failed", 30)
    assert says in session.reason


def test_a_client_must_be_able_to_post_where_that_is_needed() -> None:
    class Getting:
        async def get(self) -> None: ...

    client = Getting()
    assert check_client(client) is client
    with pytest.raises(InputError, match="client must be an httpx2"):
        check_client(client, posts=True)


def test_no_answer_depends_on_an_earlier_one() -> None:
    """Our own client keeps no cookies, and sends each of several requests at once by another connection."""
    sent: list[httpx2.Request] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        await asyncio.sleep(0)
        return httpx2.Response(200, json={}, headers={"Set-Cookie": "country=de; Path=/"})

    async def ask() -> int:
        client = OwnClient(5.0)
        client._options["transport"] = httpx2.MockTransport(answer)
        client._idle.clear()
        client._all.clear()
        for _ in range(3):
            await asyncio.gather(*(client.get("https://store.invalid/") for _ in range(4)))
        await client.aclose()
        return len(client._all)

    assert asyncio.run(ask()) == 4
    assert len(sent) == 12
    assert not any("cookie" in request.headers for request in sent)


def test_a_password_in_an_address_is_masked_from_then_on() -> None:
    check_url("base_url", "https://me:geheim88@store.example")
    assert mask("no answer from geheim88") == "no answer from ***"
