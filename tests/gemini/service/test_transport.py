"""What goes out online is what Google's client would send, each request once, whatever becomes of the line."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import socket
import ssl

import pytest

pytest.importorskip("google.genai")
import aiohttp
import httpx2
from google import genai
from google.genai import types
from google.genai._replay_api_client import ReplayApiClient

from ipybatch import Permanent, RateLimited, Refused, Retry, Transient
from ipybatch.engine.run.engine_thread import engine_thread
from ipybatch.gemini import generate
from ipybatch.gemini.prompts import to_prompts
from ipybatch.gemini.service.api import Api, NotSent
from ipybatch.gemini.service.client import TIMEOUT_S, connect
from ipybatch.gemini.service.reply import read_refusal
from ipybatch.gemini.service.request_config import _ELSEWHERE, RequestConfig
from ipybatch.gemini.service.transport import DirectTransport
from ipybatch.testing import VirtualClock
from tests.engine.rules.faults import CERTIFICATE
from tests.gemini.conftest import KEY, MODEL, client_arguments
from tests.gemini.service.wire import listening, reply
from tests.gemini.test_prompts import GEMINI_SCHEMA, JSON_SCHEMA, PNG, _plain_base64, camel

# google-genai derives a class from aiohttp's session, which aiohttp discourages
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

BODY = b'{"contents":[]}'
FUNCTION = {"name": "look_up", "description": "d", "parameters": {"type": "OBJECT", "properties": {}}}

CONFIGS = {
    "temperature": 0.0,
    "top_p": 0.5,
    "top_k": 3,
    "candidate_count": 1,
    "max_output_tokens": 100,
    "stop_sequences": ["END"],
    "response_logprobs": True,
    "logprobs": 2,
    "presence_penalty": 0.1,
    "frequency_penalty": -0.1,
    "seed": 7,
    "response_mime_type": "application/json",
    "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "tools": [
        {"google_search": {}},
        {"url_context": {}},
        {"code_execution": {}},
        {"function_declarations": [FUNCTION]},
    ],
    "tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["look_up"]}},
    "labels": {"team": "stars", "its_part": "b_2"},
    "cached_content": "abc",
    "response_modalities": ["TEXT", "IMAGE"],
    "media_resolution": "MEDIA_RESOLUTION_LOW",
    "thinking_config": {"thinking_budget": 0, "include_thoughts": True},
    "image_config": {"aspect_ratio": "1:1"},
    "enable_enhanced_civic_answers": True,
    "store": False,
}
PROMPTS = {
    "text": ("Name a star", {}),
    "letters of all kinds": ('Nenne "Sterne":\n\u2728 \u00e4\\', {"system": "K\u00fcrze!"}),
    "flex": ("Name a star", {"lane": "flex", "system": "Be brief"}),
    "flex of its own config": ({"prompt": "a", "config": {"temperature": 0.7}}, {"lane": "flex"}),
    "system and config of its own": (
        {"prompt": "a", "system": "Be long", "config": {"temperature": 0.7}},
        {"system": "b", "config": {"seed": 3}},
    ),
    "image": ({"prompt": "What is it?", "image": PNG}, {"modalities": ("TEXT", "IMAGE")}),
    "turns": ({"contents": [{"role": "user", "parts": ["a"]}, {"role": "model", "parts": ["b"]}, "c"]}, {}),
    "file": ({"contents": [{"fileData": {"fileUri": "https://x/files/1", "mimeType": "application/pdf"}}, "read"]}, {}),
    "pdf": ({"contents": [{"inlineData": {"mimeType": "application/pdf", "data": "+/+/"}}, "read"]}, {}),
    "Gemini's schema": ("a", {"schema": GEMINI_SCHEMA}),
    "JSON schema": ("a", {"schema": JSON_SCHEMA}),
    **{name: ("a", {"config": {name: value}}) for name, value in CONFIGS.items()},
    "all": ("a", {"system": "b", "lane": "flex", "config": {**CONFIGS, "response_mime_type": "text/plain"}}),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,::1")


@pytest.fixture(scope="module")
def common():
    with listening() as server:
        yield server


async def use(client, calls, clock=None, timeout_s=10.0):
    """Make `Api` calls one after another; an error is what is returned for it."""
    api, told = Api(client, clock, timeout_s=timeout_s), []
    try:
        for call in calls:
            try:
                told.append(await call(api))
            except Exception as error:  # whatever it is
                told.append(error)
        return told
    finally:
        await api.close()
        await client.aio.aclose()
        client.close()


def send(url, *, count=1, model=MODEL, body=BODY, client=None, timeout_s=10.0):
    """Send requests one after another on a loop of their own; return each answer or error."""
    made = client or connect(KEY, url)
    return asyncio.run(use(made, [lambda api: api.generate(model, body)] * count, timeout_s=timeout_s))


def test_every_option_is_compared():
    """Every field of the client's config is in the table, or refused with what to do instead."""
    assert set(types.GenerateContentConfig.model_fields) == CONFIGS.keys() | _ELSEWHERE.keys()


@pytest.mark.parametrize("name", PROMPTS)
def test_a_request_is_the_one_of_googles_client(common, name):
    """Line, headers and body. Two spellings are one to the service: top_p and topP, and base64 with - and with +."""
    item, sending = PROMPTS[name]
    prompt, settings = to_prompts([item])[0], RequestConfig(**sending)
    arguments = client_arguments(prompt, settings)

    async def both():
        client = connect(KEY, common.url)
        api = Api(client, timeout_s=TIMEOUT_S)
        assert DirectTransport.is_for(client)
        await api.generate(MODEL, prompt.body(settings))
        await client.aio.models.generate_content(model=MODEL, **arguments)
        await api.close()
        await client.aio.aclose()
        client.close()

    asyncio.run(both())
    ours, theirs = common.seen[-2:]
    assert ours.line == theirs.line == f"POST /v1/models/{MODEL}:generateContent HTTP/1.1"
    assert _without_length(ours) == _without_length(theirs)
    sent = camel(ours.json)
    assert _plain_base64({"generationConfig": {}, **sent}) == _plain_base64(camel(theirs.json))
    assert ours.json == json.loads(json.dumps(prompt.wire(settings)))


def test_half_a_character_goes_out_escaped():
    contents = [{"role": "user", "parts": [{"text": "\ud800"}]}]
    body = RequestConfig(system="\udfff").body(contents, None, {})
    assert body.isascii()
    assert json.loads(body) == RequestConfig(system="\udfff").wire(contents, None, {})


def _without_length(seen):
    return {name: value for name, value in seen.headers.items() if name != "content-length"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"api_version": "v1beta"},
        {"headers": {"X-Team": "stars", "User-Agent": "mine/1"}},
        {"base_url": "{url}/gate/way/"},
        {"retry_options": types.HttpRetryOptions(attempts=4), "timeout": 5_000},
    ],
    ids=["plain", "version", "headers", "path", "retries"],
)
@pytest.mark.parametrize("model", [MODEL, "tunedModels/mine", "models/gemini-2.5-pro"])
def test_a_users_client_goes_out_with_its_own_options(common, options, model):
    """Address, version, headers and agent are the same on both roads."""
    given = {**options, "base_url": options.get("base_url", "{url}").format(url=common.url)}
    roads = []
    for is_direct in (True, False):
        client = genai.Client(api_key=KEY, http_options=types.HttpOptions(**given))
        assert DirectTransport.is_for(client)
        if not is_direct:
            client._api_client.async_request = client._api_client.async_request  # patched: its own road
            assert not DirectTransport.is_for(client)
        send(common.url, client=client, model=model, body=b'{"contents":[{"parts":[]}]}')
        roads.append(common.seen[-1])
    ours, theirs = roads
    assert (ours.line, _without_length(ours), ours.json) == (theirs.line, _without_length(theirs), theirs.json)


def _of_vertex(url):
    options = types.HttpOptions(base_url=url)
    return genai.Client(vertexai=True, api_key=KEY, http_options=options)


def _with(url, **options):
    return genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=url, **options))


def _replay(url):
    client = _with(url)
    client._api_client = ReplayApiClient(mode="replay", replay_id="none", api_key=KEY)
    return client


ROADS = {
    "key": (True, _with),
    "proxy": (True, lambda url: _with(url, async_client_args={"proxy": "http://127.0.0.1:1"})),
    "certificate": (True, lambda url: _with(url, async_client_args={"ssl": False})),
    "transport": (False, lambda url: _with(url, async_client_args={"transport": httpx2.AsyncHTTPTransport()})),
    "httpx client": (False, lambda url: _with(url, httpx_async_client=httpx2.AsyncClient())),
    "extra body": (False, lambda url: _with(url, extra_body={"more": 1})),
    "middleware": (False, lambda url: _with(url, async_client_args={"middlewares": ()})),
    "vertex": (False, _of_vertex),
    "replay": (False, _replay),
    "no client at all": (False, lambda url: object()),
}


@pytest.mark.parametrize("name", ROADS)
def test_which_road_a_client_takes(name):
    is_direct, make = ROADS[name]
    client = make("http://127.0.0.1:1")
    assert DirectTransport.is_for(client) is is_direct
    if isinstance(client, genai.Client):
        asyncio.run(client.aio.aclose())
        client.close()


def test_an_aiohttp_session_of_the_users_own_is_the_clients_affair(common):
    async def run():
        async with aiohttp.ClientSession(headers={"X-Mine": "yes"}) as session:
            client = _with(common.url, aiohttp_client=session)
            assert not DirectTransport.is_for(client)
            await Api(client).generate(MODEL, b'{"contents":[1]}')
            client.close()

    asyncio.run(run())
    assert (common.seen[-1].headers["x-mine"], common.seen[-1].json) == ("yes", {"contents": [1]})


def test_what_a_client_adds_to_the_body_is_added(common):
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=common.url, extra_body={"more": 1}))
    send(common.url, client=client)
    assert common.seen[-1].json == {"contents": [], "more": 1}


def _error(status, code, **details):
    return reply(status, {"error": {"code": status, "status": code, "message": "said", **details}})


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}
QUOTA = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "50"}]}
TROUBLE = {
    "dropped": (b"", Transient),
    "500": (_error(500, "INTERNAL"), Transient),
    "503": (_error(503, "UNAVAILABLE", details=[RETRY_INFO]), Transient),
    "429": (_error(429, "RESOURCE_EXHAUSTED", details=[QUOTA, RETRY_INFO]), RateLimited),
    "400": (_error(400, "INVALID_ARGUMENT"), Permanent),
    "403": (_error(403, "PERMISSION_DENIED"), Refused),
    "404": (_error(404, "NOT_FOUND"), Refused),
    "429 with 200": (reply(200, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}), RateLimited),
    "web page of 502": (reply(502, b"<html>", kind="text/html"), Transient),
    "web page of 200": (reply(200, b"<html>", kind="text/html"), Transient),
    "no object": (reply(200, [1]), Transient),
    "half": (reply()[:-5], Transient),
    **{str(code): (reply(code, {}, "Location: /elsewhere"), Transient) for code in (302, 303, 307)},
    **{str(code): (reply(code, {}, "Location: /elsewhere"), Refused) for code in (301, 308)},
}


@pytest.mark.parametrize("name", TROUBLE)
def test_one_attempt_is_one_request_at_the_server(name):
    """Neither aiohttp nor Google's client repeats a request or follows a redirect: each would be billed twice."""
    answer, kind = TROUBLE[name]
    with listening(answers=[answer, reply()], closes=name == "half") as server:
        (told,) = send(server.url, timeout_s=0.3 if name == "half" else 10.0)
        assert type(told) is kind, told
        assert len(server.seen) == 1


@pytest.mark.parametrize("odd", [b"\\ud83d", b"caf\xe9", b"\\u0000"])
def test_an_answer_that_strict_readers_refuse_is_an_answer(odd):
    """It is billed: taken for none, it would be sent again, and billed again."""
    body = b'{"candidates": [{"content": {"parts": [{"text": "so: %b"}]}, "finishReason": "STOP"}]}' % odd
    with listening(answers=[reply(200, body)]) as server:
        (told,) = send(server.url)
    assert told["candidates"][0]["content"]["parts"][0]["text"].startswith("so: ")


def test_a_redirect_says_where_to():
    with listening(answers=[reply(308, {}, "Location: https://gate.example/v1")]) as server:
        (told,) = send(server.url)
    assert str(told) == "the address redirects to https://gate.example/v1 (308): pass that server as base_url="


def test_a_line_that_died_while_idle_is_one_request_too():
    """The server closes a kept connection when the next request is on it; aiohttp would repeat a GET."""
    with listening(closes=True) as server:
        first, second = send(server.url, count=2)
        assert first["candidates"]
        assert isinstance(second, Transient)
        assert "ServerDisconnectedError" in str(second)
        assert [seen.connection for seen in server.seen] == [0, 0]


@pytest.mark.parametrize("name", ["500", "503", "429", "400", "403", "404", "web page of 502"])
def test_an_error_is_the_one_that_googles_client_raises(name):
    """Code, status and details, from which quotas, delays and scopes follow."""
    answer, _ = TROUBLE[name]
    errors = []
    with listening(answers=[answer]) as server:
        for is_direct in (True, False):
            client = connect(KEY, server.url)
            if not is_direct:
                client._api_client.async_request = client._api_client.async_request
            (told,) = send(server.url, client=client)
            cause = told.__cause__
            errors.append((type(told), str(told), type(cause), cause.code, cause.status, cause.details))
    assert errors[0] == errors[1]
    if name == "429":
        refusal = read_refusal(told.__cause__.details)
        assert (refusal.is_daily, refusal.retry_s, told.retry_after_s) == (True, 7.5, 7.5)


def test_no_connection_is_nothing_sent():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (told,) = send(f"http://127.0.0.1:{port}")
    assert type(told) is NotSent


def test_no_answer_in_time_is_transient():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (told,) = send(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05)
    assert str(told) == "TimeoutError: no answer in time"
    assert type(told) is Transient


def test_virtual_time_stands_while_an_answer_is_awaited(common):
    clock = VirtualClock()
    began_s = clock.now_s()
    client = connect(KEY, common.url)
    (told,) = clock.run_coroutine(use(client, [lambda api: api.generate(MODEL, BODY)], clock, timeout_s=1.0))
    assert told["candidates"]
    assert clock.now_s() == began_s


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    """The service's name is resolved by the proxy alone; what NO_PROXY names is asked directly."""
    with listening() as proxy, listening() as server:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:pass@"))
        send("http://service.invalid")
        assert proxy.seen[-1].line == f"POST http://service.invalid/v1/models/{MODEL}:generateContent HTTP/1.1"
        assert proxy.seen[-1].headers["proxy-authorization"] == "Basic " + base64.b64encode(b"me:pass").decode()
        send(server.url)
        assert (len(proxy.seen), len(server.seen)) == (1, 1)


def test_a_proxy_of_a_users_client_is_used():
    with listening() as proxy:
        client = _with("http://service.invalid", async_client_args={"proxy": proxy.url})
        send("", client=client)
        assert proxy.seen[0].line.startswith("POST http://service.invalid/v1/models/")


def test_certificates_are_those_of_the_client(monkeypatch):
    """Nobody signed the server's: nothing is sent until the environment, or the client's options, trust it."""
    with listening(certificate=str(CERTIFICATE)) as server:
        assert type(send(server.url)[0]) is NotSent
        assert server.seen == []
        trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
        assert send(server.url, client=_with(server.url, async_client_args={"ssl": trusting}))[0]["candidates"]
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        assert send(server.url)[0]["candidates"]
        assert len(server.seen) == 2


def test_a_login_of_netrc_is_used(monkeypatch, tmp_path, common):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password pass\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    send(common.url)
    assert common.seen[-1].headers["authorization"] == "Basic " + base64.b64encode(b"me:pass").decode()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_address_of_ipv6_is_reached():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on loopback")
    with listening(host="::1") as server:
        (told,) = send(server.url)
        assert told["candidates"]
        assert server.seen[0].headers["host"].startswith("[::1]:")


def test_a_large_image_goes_out_whole_and_without_a_warning(common):
    """A body of more than 1 MB that is bytes is warned of by aiohttp."""
    prompt = to_prompts([{"prompt": "a", "image": PNG + bytes(2_000_000)}])[0]
    send(common.url, body=prompt.body(RequestConfig()))
    data = common.seen[-1].json["contents"][0]["parts"][0]["inlineData"]["data"]
    assert base64.b64decode(data) == PNG + bytes(2_000_000)


def test_a_session_keeps_its_lines_and_leaves_none(common, journal):
    """Calls one after another share a connection; when the session has ended, the engine's loop holds none."""
    before, others = len(common.seen), _sessions()
    session = generate(
        list("abc"), base_url=common.url, api_key=KEY, journal=journal, concurrency=1, retry=Retry(attempts=1)
    )
    assert session.run().counts.completed == 3
    assert len({seen.connection for seen in common.seen[before:]}) == 1
    gc.collect()
    assert [one for one in _sessions() if not one.closed and one not in others] == []


def _sessions():
    async def found():
        return [one for one in gc.get_objects() if type(one) is aiohttp.ClientSession]

    return engine_thread().spawn(found()).result()
