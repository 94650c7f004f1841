"""Whose fault: what a session does about an error, from any client, in any wrapping."""

import asyncio
import errno
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request

import aiohttp
import httpx
import pytest
import requests
import urllib3

from ipybatch import BatchSession, Breaker, Limits, Retry
from ipybatch.errors import Refused

ITEMS = list(range(30))
POLICY = {"retry": Retry(initial_s=0.01), "breaker": Breaker(failures=3, break_s=0.01, give_up_after=1)}


@pytest.fixture(scope="module")
def dead():
    """An address of loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def raising(error):
    def ask(address):
        raise error

    return ask


def by_http_client(address):
    connection = http.client.HTTPConnection(address)
    connection.request("GET", "/")


def in_a_task_group(address):
    async def ask():
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.open_connection(*address.split(":")))

    asyncio.run(ask())


def in_words_of_its_own(address):
    try:
        requests.get(f"http://{address}/")
    except requests.RequestException as error:
        msg = "no price"
        raise LookupError(msg) from error


DEAD = {
    "requests": lambda address: requests.get(f"http://{address}/").json(),
    "urllib3": lambda address: urllib3.request("GET", f"http://{address}/", retries=False).json(),
    "urllib": lambda address: json.load(urllib.request.urlopen(f"http://{address}/")),
    "http.client": by_http_client,
    "a task group": in_a_task_group,
    "words of its own": in_words_of_its_own,
    "no name": raising(socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
    "no name under urllib": raising(urllib.error.URLError(socket.gaierror(socket.EAI_AGAIN, "try again"))),
    "no route": raising(OSError(errno.ENETUNREACH, "Network is unreachable")),
    "half a body": raising(aiohttp.ClientPayloadError("Response payload is not completed")),
    "half a body of http.client": raising(http.client.IncompleteRead(b"half")),
    "a broken chunk": raising(requests.exceptions.ChunkedEncodingError("IncompleteRead")),
    "a page": raising(requests.exceptions.JSONDecodeError("Expecting value", "<html>", 0)),
}


@pytest.mark.parametrize("kind", DEAD)
def test_a_dead_line_loses_no_item_and_is_spared(journal, dead, kind):
    """Three failures, and the service is left alone; when it is back, the same name runs every item."""
    calls = []

    def work(item):
        calls.append(item)
        return DEAD[kind](dead)

    policy = {"journal": journal, "limits": Limits(concurrency=2), **POLICY}
    assert BatchSession("wishlist", work, ITEMS, **policy).run().state == "failed"
    assert len(calls) <= 15
    assert BatchSession("wishlist", lambda item: item, ITEMS, **policy).run().counts.completed == len(ITEMS)


def http_error(status, **headers):
    response = httpx.Response(status, headers=headers, request=httpx.Request("GET", "http://store.invalid"))
    return httpx.HTTPStatusError(f"the store answered {status}", request=response.request, response=response)


def test_a_429_in_a_task_group_is_a_429(plan, clock):
    """The group hides neither what the service asks for nor its words."""
    asked, events = [], []

    async def ask(item):
        asked.append(clock.now_s())
        if len(asked) == 1:
            raise http_error(429, **{"retry-after": "7"})
        return item

    async def work(item):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            return await group.create_task(ask(item))

    session = plan(work, [1], limits=Limits(concurrency=1))
    session.on(events.append)
    assert clock.run(session).counts.completed == 1
    assert asked[1] - asked[0] >= 7
    told = [event.error for event in events if hasattr(event, "error")]
    assert "the store answered 429" in told[0]


async def in_a_group(item):
    async with asyncio.TaskGroup() as group:
        group.create_task(parse(item))


async def parse(item):
    return item["price"]


def test_a_group_tells_what_its_member_says(plan, clock):
    """Text, place and word for how it failed: of the member that decides."""
    session = plan(in_a_group, [{"id": 1}])
    clock.run(session)
    (row,) = session.errors().itertuples()
    assert row.message == "KeyError: 'price'"
    assert row.traceback.splitlines()[-1].endswith('return item["price"]')


def test_a_refusal_in_a_group_ends_the_session(plan, clock):
    async def work(item):
        raise ExceptionGroup("unhandled errors in a TaskGroup", [ValueError("odd"), Refused("this key is banned")])

    summary = clock.run(plan(work, ITEMS, limits=Limits(concurrency=1)))
    assert (summary.state, summary.reason) == ("failed", "this key is banned")


@pytest.mark.parametrize(
    ("error", "advised", "tried"),
    [
        (httpx.UnsupportedProtocol("Request URL is missing an 'http://' or 'https://' protocol."), "https://", 4),
        (requests.exceptions.MissingSchema("Invalid URL 'shop.example'"), "https://", 4),
        (urllib.error.URLError(ssl.SSLCertVerificationError(1, "self-signed certificate")), "certificate", 4),
        (RuntimeError("Session is closed"), "__aenter__", 1),
        (RuntimeError("<asyncio.locks.Event> is bound to a different event loop"), "__aenter__", 1),
        (http_error(407), "proxy", 1),
    ],
)
def test_our_own_set_up_is_said_at_once_with_what_to_do(plan, clock, error, advised, tried):
    """One error and not one an item; no item is lost by it. What may be one item's fault, others are asked about."""
    calls = []

    async def work(item):
        calls.append(item)
        raise error

    session = plan(work, ITEMS, limits=Limits(concurrency=1))
    summary = clock.run(session)
    assert (summary.state, len(calls)) == ("failed", tried)
    assert advised in summary.reason
    assert "test_whose_fault.py" in summary.reason
    assert set(session.errors()["scope"]) == {"us"}
    assert clock.run(plan(lambda item: item, ITEMS)).counts.completed == len(ITEMS)


def test_a_full_pool_is_no_outage(plan, clock):
    """The service is not spared for what is ours, and the items are tried again."""
    moves, told, calls = [], [], []

    async def work(item):
        calls.append(item)
        if len(calls) <= 4:
            raise httpx.PoolTimeout("")
        return item

    session = plan(work, ITEMS, limits=Limits(concurrency=4), breaker=Breaker(failures=2))
    session.on(lambda event: moves.append(event) if type(event).__name__ == "BreakerMoved" else None)
    session.on(lambda event: told.append(event.error) if type(event).__name__ == "AttemptFailed" else None)
    assert clock.run(session).counts.completed == len(ITEMS)
    assert moves == []
    assert all("at least as large as Limits(concurrency=)" in text for text in told)
    assert len(told) == 4


class Shop:
    """Work whose client opens in a group, as those with a background task do."""

    async def __aenter__(self):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sign_in())

    async def __aexit__(self, *_):
        pass

    async def sign_in(self):
        msg = "the shop has no such user"
        raise PermissionError(msg)

    async def __call__(self, item):
        return item


def test_a_group_of_work_that_cannot_open_tells_what_its_member_says(plan, clock):
    summary = clock.run(plan(Shop(), [1]))
    assert "PermissionError: the shop has no such user" in summary.reason
