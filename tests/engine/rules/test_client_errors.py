"""Client errors: what the classes of every client mean, and what their answers, causes and frames tell."""

import asyncio
import errno
import gzip
import http.client
import json
import socket
import ssl
import urllib.error
import zlib

import aiohttp
import h11
import httpcore
import httpx
import httpx2
import msgspec
import pytest
import requests
import urllib3
from aiohttp.client_reqrep import ConnectionKey
from google.genai import errors as genai_errors

from ipybatch import Retry
from ipybatch.engine.rules import client_errors
from ipybatch.engine.rules.classify import classify
from tests.engine.rules.faults import FaultServer

NOW_S = 1_700_000_000.0


class Boto(Exception):
    """botocore's shape: the response is a dict."""

    def __init__(self, response):
        super().__init__("an error occurred")
        self.response = response


def mock_response():
    return urllib3.HTTPResponse(body=b"")


REQUEST = aiohttp.RequestInfo(url=None, method="GET", headers={}, real_url=None)
KEY = ConnectionKey("shop.example", 443, True, True, None, None, None)
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
POOL = urllib3.HTTPConnectionPool("shop.example")


def caused(error, cause):
    error.__cause__ = cause
    return error


def retried(reason):
    return urllib3.exceptions.MaxRetryError(POOL, "/", reason)


ERRORS = [  # a row for each entry of the tables, and for what libraries wrap
    (httpx.UnsupportedProtocol(""), "us"),
    (httpx.InvalidURL(""), "us"),
    (httpx.LocalProtocolError(""), "us"),
    (httpx.PoolTimeout(""), "us"),
    (httpx.TooManyRedirects(""), "item"),
    (httpx.DecodingError(""), "service"),
    (httpx.ConnectError(""), "service"),
    (httpx.ReadError(""), "service"),
    (httpx.RemoteProtocolError(""), "service"),
    (httpx.ConnectTimeout(""), "service"),
    (httpx.ProxyError(""), "service"),
    (httpx2.ReadTimeout(""), "service"),
    (httpx2.PoolTimeout(""), "us"),
    (httpx2.UnsupportedProtocol(""), "us"),
    (httpcore.ConnectError(""), "service"),
    (httpcore.ConnectionNotAvailable(""), "service"),
    (httpcore.PoolTimeout(""), "us"),
    (h11.RemoteProtocolError(""), "service"),
    (h11.LocalProtocolError(""), "us"),
    (requests.exceptions.MissingSchema(), "us"),
    (requests.exceptions.InvalidSchema(), "us"),
    (requests.exceptions.InvalidURL(), "us"),
    (requests.exceptions.InvalidProxyURL(), "us"),
    (requests.exceptions.URLRequired(), "us"),
    (requests.exceptions.InvalidHeader(), "us"),
    (requests.exceptions.TooManyRedirects(), "item"),
    (requests.exceptions.JSONDecodeError("Expecting value", "<html>", 0), "service"),
    (requests.exceptions.ChunkedEncodingError(), "service"),
    (requests.exceptions.ConnectionError(), "service"),
    (requests.exceptions.ConnectionError(urllib3.exceptions.ClosedPoolError(POOL, "closed")), "us"),
    (requests.exceptions.ContentDecodingError(), "service"),
    (requests.exceptions.RetryError(), "service"),
    (requests.exceptions.ConnectTimeout(), "service"),
    (requests.exceptions.ReadTimeout(), "service"),
    (requests.exceptions.ProxyError(), "service"),
    (requests.exceptions.SSLError(retried(urllib3.exceptions.SSLError("EOF"))), "service"),
    (requests.exceptions.SSLError(retried(urllib3.exceptions.SSLError(ssl.SSLCertVerificationError()))), "us"),
    (requests.exceptions.InvalidJSONError(), "item"),
    (requests.exceptions.StreamConsumedError(), "item"),
    (urllib3.exceptions.EmptyPoolError(POOL, ""), "us"),
    (urllib3.exceptions.FullPoolError(POOL, ""), "us"),
    (urllib3.exceptions.ClosedPoolError(POOL, ""), "us"),
    (urllib3.exceptions.LocationParseError(""), "us"),
    (urllib3.exceptions.URLSchemeUnknown(""), "us"),
    (urllib3.exceptions.ProxySchemeUnknown(""), "us"),
    (urllib3.exceptions.ProxySchemeUnsupported(""), "us"),
    (retried(urllib3.exceptions.NewConnectionError(POOL, "refused")), "service"),
    (retried(urllib3.exceptions.EmptyPoolError(POOL, "")), "us"),
    (retried(urllib3.exceptions.ResponseError("too many 500 error responses")), "service"),
    (urllib3.exceptions.DecodeError(), "service"),
    (urllib3.exceptions.InvalidHeader(), "service"),
    (urllib3.exceptions.ProtocolError(), "service"),
    (urllib3.exceptions.ProxyError("", REFUSED), "service"),
    (urllib3.exceptions.IncompleteRead(1, 2), "service"),
    (urllib3.exceptions.InvalidChunkLength(mock_response(), b"z"), "service"),
    (urllib3.exceptions.SSLError(), "service"),
    (urllib3.exceptions.ReadTimeoutError(POOL, "/", ""), "service"),
    (aiohttp.InvalidUrlRedirectClientError(""), "item"),
    (aiohttp.NonHttpUrlRedirectClientError(""), "item"),
    (aiohttp.TooManyRedirects(REQUEST, (), status=302), "item"),
    (aiohttp.InvalidURL(""), "us"),
    (aiohttp.NonHttpUrlClientError(""), "us"),
    (aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError()), "us"),
    (aiohttp.ServerFingerprintMismatch(b"", b"", "shop.example", 443), "us"),
    (aiohttp.ContentTypeError(REQUEST, (), status=200), "service"),
    (aiohttp.ContentTypeError(REQUEST, (), status=404), "item"),
    (aiohttp.ContentTypeError(REQUEST, (), status=429), "rate"),
    (aiohttp.ClientResponseError(REQUEST, (), status=503), "service"),
    (aiohttp.ServerTimeoutError(), "service"),
    (aiohttp.ClientConnectorError(KEY, REFUSED), "service"),
    (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError()), "service"),
    (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror()), "service"),
    (aiohttp.ServerDisconnectedError(), "service"),
    (aiohttp.ClientOSError(), "service"),
    (aiohttp.ClientConnectionError("Connector is closed."), "us"),
    (aiohttp.ClientPayloadError(), "service"),
    (aiohttp.http_exceptions.ContentLengthError(""), "service"),
    (http.client.InvalidURL(), "us"),
    (http.client.CannotSendRequest(), "us"),
    (http.client.IncompleteRead(b""), "service"),
    (http.client.BadStatusLine(""), "service"),
    (http.client.RemoteDisconnected(), "service"),
    (urllib.error.HTTPError("", 503, "", {}, None), "service"),
    (urllib.error.HTTPError("", 404, "", {}, None), "item"),
    (urllib.error.HTTPError("", 429, "", {"Retry-After": "7"}, None), "rate"),
    (urllib.error.ContentTooShortError("", b""), "service"),
    (urllib.error.URLError(REFUSED), "service"),
    (urllib.error.URLError(socket.gaierror(socket.EAI_AGAIN, "")), "service"),
    (urllib.error.URLError(ssl.SSLCertVerificationError()), "us"),
    (urllib.error.URLError(OSError(errno.EMFILE, "")), "us"),
    (urllib.error.URLError("unknown url type: shop"), "us"),
    (socket.gaierror(socket.EAI_NONAME, ""), "service"),
    (socket.herror(), "service"),
    (ssl.SSLCertVerificationError(), "us"),
    (ssl.SSLEOFError(), "service"),
    (ssl.SSLError(), "service"),
    (asyncio.IncompleteReadError(b"", 2), "service"),
    (json.JSONDecodeError("Expecting value", "x", 0), "item"),
    (json.JSONDecodeError("Expecting value", "", 0), "service"),
    (json.JSONDecodeError("Expecting value", " <html>", 1), "service"),
    (json.JSONDecodeError("Unterminated string starting at", '{"a": "b', 6), "service"),
    (json.JSONDecodeError("Expecting ',' delimiter", '{"a": [1, 2', 11), "service"),
    (json.JSONDecodeError("Extra data", "{} {}", 3), "item"),
    (msgspec.DecodeError("Input data was truncated"), "service"),
    (type("JSONDecodeError", (ValueError,), {"__module__": "simplejson.errors", "doc": "<html>"})(), "service"),
    (msgspec.DecodeError(), "item"),
    (msgspec.ValidationError(), "item"),
    (gzip.BadGzipFile(), "service"),
    (zlib.error(), "service"),
    (EOFError(), "item"),
    (ConnectionResetError(), "service"),
    (TimeoutError(), "service"),
    (RuntimeError("Event loop is closed"), "us"),
    (RuntimeError("<Lock> is bound to a different event loop"), "us"),
    (RuntimeError("Cannot send a request, as the client has been closed."), "us"),
    (RuntimeError("Session is closed"), "us"),
    (RuntimeError("no such shop"), "item"),
    (UnicodeDecodeError("utf-8", b"", 0, 1, ""), "item"),
    (ValueError("unknown url type: shop"), "item"),
    (caused(type("RetryError", (Exception,), {"__module__": "tenacity"})(), KeyError()), "item"),
    (caused(type("RetryError", (Exception,), {"__module__": "tenacity"})(), httpx.ReadError("")), "service"),
    (
        caused(httpx.LocalProtocolError(""), type("ProtocolError", (Exception,), {"__module__": "h2.exceptions"})()),
        "service",
    ),
    (type("TransportError", (Exception,), {"__module__": "elsewhere"})(), "service"),
]


IDS = [f"{number}-{type(error).__name__}" for number, (error, _) in enumerate(ERRORS)]


@pytest.mark.parametrize(("error", "scope"), ERRORS, ids=IDS)
def test_a_class_says_whose_fault_it_is(error, scope):
    """By its package and its name; whatever is ours says what to do, and is no failure of the service."""
    verdict = classify(error, Retry(), NOW_S)
    assert verdict.scope == scope
    assert verdict.counts is (scope == "service")
    assert bool(verdict.advice) is (scope == "us")


def test_every_class_of_the_tables_is_tried():
    """A row that no error reaches is a row that nobody has seen."""
    classes = {cls for error, _ in ERRORS for cls in type(error).__mro__}
    tried = {(client_errors._package(cls.__module__), cls.__name__) for cls in classes}
    assert set(client_errors._CLASSES) - tried == set()


@pytest.mark.parametrize(
    ("number", "scope"),
    [
        *((number, "service") for number in sorted(client_errors._OF_SERVICE)),
        (errno.EMFILE, "us"),
        (errno.ENFILE, "us"),
        (errno.EADDRNOTAVAIL, "us"),
        (errno.ENOENT, "item"),
        (errno.EACCES, "item"),
        (errno.ENOSPC, "item"),
        (errno.EPERM, "item"),
    ],
)
def test_an_error_of_the_system_says_by_its_number(number, scope):
    """No route is the service's, no file descriptor ours, no file the item's."""
    assert classify(OSError(number, "said"), Retry(), NOW_S).scope == scope
    wrapped = httpx.ConnectError("all attempts failed")
    wrapped.__cause__ = OSError(number, "said")
    assert classify(wrapped, Retry(), NOW_S).scope == ("us" if scope == "us" else "service")


def test_none_of_several_addresses_answers():
    """The error of asyncio says that in an OSError without a number."""

    async def connect():
        loop = asyncio.get_running_loop()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in dead]
        loop.getaddrinfo = lambda *_, **__: asyncio.sleep(0, found)
        await loop.create_connection(asyncio.Protocol, "shop.example", 80)

    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        dead = [one.getsockname(), other.getsockname()]
    with pytest.raises(OSError, match="Multiple exceptions") as raised:
        asyncio.run(connect())
    assert raised.value.errno is None
    assert classify(raised.value, Retry(), NOW_S).scope == "service"


QUOTA = {"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"@type": "RetryInfo", "retryDelay": "41.5s"}]}}
FREE = {"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"violations": [{"quotaValue": "0"}]}]}}
KEYLESS = {"error": {"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}


@pytest.mark.parametrize(
    ("error", "scope", "wait_s"),
    [
        (genai_errors.ClientError(429, QUOTA), "rate", 41.5),
        (genai_errors.ClientError(429, {"error": {"details": "none"}}), "rate", None),
        (genai_errors.APIError(0, QUOTA | {"code": None}), "rate", 41.5),
        (genai_errors.ClientError(400, KEYLESS), "account", None),
        (genai_errors.ClientError(429, FREE), "account", None),
        (genai_errors.ClientError(400, {"error": {}}), "item", None),
        (genai_errors.ClientError(404, {"error": {}}), "item", None),
        (genai_errors.ServerError(503, {"error": {}}), "service", None),
        (Boto({"ResponseMetadata": {"HTTPStatusCode": 503, "HTTPHeaders": {"retry-after": "7"}}}), "rate", 7.0),
        (Boto({"ResponseMetadata": {"HTTPStatusCode": 500}}), "service", None),
        (Boto({"Error": {}}), "item", None),
    ],
)
def test_what_other_services_packages_keep_is_read(error, scope, wait_s):
    verdict = classify(error, Retry(), NOW_S)
    assert (verdict.scope, verdict.retry_after_s) == (scope, wait_s)


def parsed_by_the_client(response):
    return response.json()


def parsed_by_hand(response):
    return json.loads(response.text)


def parsed_by_msgspec(response):
    return msgspec.json.decode(response.content)


def taken_for_a_result(response):
    return {}["price"]


def told_in_words(response):
    raise RuntimeError("no answer")


def an_item_is_parsed(response):
    item = "not JSON"
    return json.loads(item)


def raised_by(work, answer):
    try:
        work(answer)
    except Exception as error:
        return error


@pytest.mark.parametrize("package", [httpx, httpx2])
@pytest.mark.parametrize(
    ("work", "status", "body", "scope"),
    [
        (parsed_by_the_client, 200, b"<html>", "service"),
        (parsed_by_the_client, 200, b"what", "service"),
        (parsed_by_the_client, 200, b"\xff\xfe\xfd", "service"),
        (parsed_by_the_client, 404, b"<html>", "item"),
        (parsed_by_the_client, 429, b"<html>", "rate"),
        (parsed_by_the_client, 401, b"<html>", "account"),
        (parsed_by_the_client, 302, b"", "item"),
        (parsed_by_the_client, 204, b"", "item"),
        (parsed_by_hand, 200, b"what", "service"),
        (parsed_by_hand, 503, b"what", "service"),
        (parsed_by_hand, 429, b"what", "rate"),
        (parsed_by_msgspec, 200, b"what", "service"),
        (parsed_by_msgspec, 404, b"what", "item"),
        (taken_for_a_result, 200, b"{}", "item"),
        (taken_for_a_result, 429, b"{}", "rate"),
        (taken_for_a_result, 503, b"{}", "service"),
        (taken_for_a_result, 401, b"{}", "account"),
        (told_in_words, 500, b"{}", "service"),
        (told_in_words, 200, b"{}", "item"),
        (an_item_is_parsed, 200, b"{}", "item"),
        (an_item_is_parsed, 503, b"{}", "service"),
    ],
)
def test_an_answer_in_the_works_hands_says_why_it_failed(package, work, status, body, scope):
    """An error's JSON taken for a result, a page that is no JSON: the status tells, where there is one."""
    assert classify(raised_by(work, package.Response(status, content=body)), Retry(), NOW_S).scope == scope


def test_a_text_of_the_item_is_the_items():
    """No answer is near: only what overloaded services send is taken for theirs."""
    assert classify(raised_by(json.loads, "{bad"), Retry(), NOW_S).scope == "item"
    whole = '{"a": [true, false, null], "b": -1.5e+3, "c": "\\u00e9"}'
    assert json.loads(whole)
    for end in range(len(whole)):
        assert classify(raised_by(json.loads, whole[:end]), Retry(), NOW_S).scope == "service", whole[:end]
    assert classify(raised_by(msgspec.json.decode, b"{bad"), Retry(), NOW_S).scope == "item"
    assert classify(raised_by(lambda text: text.decode(), b"\xff"), Retry(), NOW_S).scope == "item"


def test_a_file_that_is_no_gzip_is_the_items(tmp_path):
    """Bytes in memory came from an answer; a file did not."""
    path = tmp_path / "frame.gz"
    path.write_bytes(b"no gzip")

    def read(path):
        with gzip.open(path) as file:
            return file.read()

    assert classify(raised_by(read, path), Retry(), NOW_S).scope == "item"
    assert classify(raised_by(gzip.decompress, b"no gzip"), Retry(), NOW_S).scope == "service"
    cut = gzip.compress(b"a body that is long enough")[:-9]
    assert classify(raised_by(gzip.decompress, cut), Retry(), NOW_S).scope == "service"


def test_what_our_own_frames_hold_is_another_items():
    """The engine's loop keeps the last result: it says nothing about the next error."""
    response = httpx.Response(503)
    ours = {"__name__": "ipybatch.engine.run.runner", "work": taken_for_a_result, "response": response}
    exec("def loop():\n    result = response\n    work(None)\n", ours)
    assert classify(raised_by(lambda _: ours["loop"](), None), Retry(), NOW_S).scope == "item"
    assert classify(raised_by(lambda _: taken_for_a_result(response), None), Retry(), NOW_S).scope == "service"


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_timeout_of_the_works_own_in_a_full_pool_is_ours(package):
    """It says no more than that it took too long: where it waited, tells whose fault that is."""

    async def ask(url):
        async with package.AsyncClient(limits=package.Limits(max_connections=1)) as client:
            first = asyncio.create_task(client.get(url))
            await asyncio.sleep(0.05)
            try:
                async with asyncio.timeout(0.05):
                    await client.get(url)
            finally:
                first.cancel()

    with FaultServer() as server, pytest.raises(TimeoutError) as raised:
        asyncio.run(ask(f"http://{server.address}/slow-header"))
    assert classify(raised.value, Retry(), NOW_S).scope == "us"
