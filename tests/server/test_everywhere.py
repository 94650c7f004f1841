"""What holds for every route and every verb: who may ask, what is refused, and what an error never tells."""

import sys

import httpx2
import pytest

from ipybatch.server import root
from ipybatch.server.extension import BASE
from ipybatch.server.handler import Handler
from ipybatch.server.openapi import path_of
from ipybatch.server.routes import ALIASES, ROUTES
from tests.server.conftest import TOKEN

KNOWN = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
VERBS = (*KNOWN, "TRACE", "PROPFIND", "FINISH")  # the last is the name of what ends a request in tornado
SAFE = ("GET", "HEAD", "OPTIONS")
ENDLESS = f"{BASE}/events"  # a stream
TABLE = [*((f"{BASE}{pattern}", route) for pattern, route in ROUTES), *((f"/ipybatch{p}", r) for p, r in ALIASES)]
NOWHERE = ["/ipybatch", "/ipybatch/", f"{BASE}/nothing", f"{BASE}/sessions/a/b/c/d", "/ipybatch/batch/nothing"]
HOSTILE = [
    "..%2F..%2F..%2Fetc%2Fpasswd",
    "%2e%2e%2f",
    "..%5C..%5Cwindows",
    "%00",
    "%FF%FE",
    "%0d%0aSet-Cookie:%20a=b",
    "'%20OR%201=1--",
    "0123456789abcdef-99999999999999999999",
    "0123456789abcdef-1" + "0" * 4000,
    "%7B%7D",
    "%F0%9F%90%8D",
]


def example(pattern: str, handler: type[Handler], name: str = "0123456789abcdef-1") -> str:
    """A path of a route, with the same for each of its parts that is free."""
    path, groups = path_of(pattern, handler)
    for group in groups:
        one = group["schema"].get("enum", [name])[0]
        path = path.replace(f"{{{group['name']}}}", one)
    return path


ROUTE = pytest.mark.parametrize(
    ("path", "handler"), [(example(*entry), entry[1]) for entry in TABLE], ids=[pattern for pattern, _ in TABLE]
)


def allowed(handler: type[Handler]) -> set[str]:
    return {*handler.operations, "OPTIONS", *(["HEAD"] if "GET" in handler.operations else [])}


@pytest.fixture(scope="module")
def stranger(jupyter):
    """Somebody without a token."""
    with httpx2.Client(base_url=jupyter.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def browser(jupyter):
    """Somebody who logged in: a cookie, as browsers send it."""
    with httpx2.Client(base_url=jupyter.url, timeout=20, follow_redirects=True) as client:
        client.get("/", params={"token": TOKEN})
        assert "_xsrf" in client.cookies
        yield client


def is_problem(answer, method):
    """Whether it is an error as RFC 9457 has it, and as JupyterLab shows it."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    if method == "HEAD":
        return answer.content == b""
    told = answer.json()
    assert told["message"] == told["detail"]
    return told["status"] == answer.status_code and bool(told["title"])


def all_rules(router):
    for rule in router.rules:
        yield from all_rules(rule.target) if hasattr(rule.target, "rules") else [rule]


def test_what_anybody_may_ask_says_so(jupyter):
    """The server was started with `allow_unauthenticated_access=False`, JupyterServerAuthWarning being an error."""
    assert jupyter.app.allow_unauthenticated_access is False
    rules = [rule for rule in all_rules(jupyter.app.web_app.default_router) if issubclass(rule.target, Handler)]
    assert len(rules) == len(TABLE) + 1
    for rule in rules:
        assert jupyter.app.web_app._check_handler_auth(rule.matcher, rule.target) == []


@ROUTE
@pytest.mark.parametrize("sent", [{}, {"Authorization": "token wrong"}, {"Cookie": "username=me"}], ids=str)
def test_without_a_token_nothing_is_answered(served, stranger, path, handler, sent):
    """403 for every verb, also for those that are not there; only OPTIONS says which are."""
    for method in VERBS:
        answer = stranger.request(method, path, headers=sent)
        assert (method, answer.status_code) == (method, 403)
        assert is_problem(answer, method)
    answer = stranger.options(path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert set(answer.headers["Allow"].split(", ")) == allowed(handler)


@pytest.mark.parametrize("path", [*NOWHERE, *(f"{BASE}/sessions/{name}" for name in HOSTILE[:5])])
def test_without_a_token_it_is_not_told_what_is_there(served, stranger, path):
    assert {stranger.request(method, path).status_code for method in VERBS} == {403}


@ROUTE
def test_a_cookie_alone_changes_nothing(served, browser, path, handler):
    """XSRF: another site's page has the cookie sent, and cannot read it."""
    for method in VERBS:
        if method not in SAFE:
            answer = browser.request(method, path)
            assert (method, answer.status_code) == (method, 403)
            assert is_problem(answer, method)


@ROUTE
def test_a_cookie_and_its_header_are_as_good_as_a_token(served, browser, path, handler):
    for method in handler.operations:
        if path != ENDLESS:
            answer = browser.request(method, path, headers={"X-XSRFToken": browser.cookies["_xsrf"]})
            assert (method, answer.status_code) != (method, 403)


@ROUTE
def test_verb_that_is_not_there(served, path, handler):
    for method in set(VERBS) - allowed(handler):
        answer = served.request(method, path)
        assert (method, answer.status_code) == (method, 405)
        assert set(answer.headers["Allow"].split(", ")) == allowed(handler)
        assert method == "HEAD" or answer.json()["allowed"] == answer.headers["Allow"].split(", ")


def test_verb_that_nobody_knows(served):
    answer = served.request("PROPFIND", "/")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("path", NOWHERE)
def test_route_that_is_not_there(served, path):
    for method in KNOWN:
        answer = served.request(method, path)
        assert (method, answer.status_code) == (method, 404)
        assert is_problem(answer, method)


@ROUTE
def test_head_is_get_without_a_body(served, path, handler):
    if "GET" not in handler.operations or path == ENDLESS:
        pytest.skip("there is no GET that ends")
    got, head = served.get(path), served.request("HEAD", path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["Content-Type"] == got.headers["Content-Type"]


def tells_too_much(text: str) -> list[str]:
    """What an error must not tell: folders of this machine, the token, source code."""
    folders = [sys.prefix, "/tmp/", "/home/", "/root/", "site-packages", "src/ipybatch"]
    return [word for word in [*folders, TOKEN, "Traceback", 'File "', ".py", "Error("] if word in text]


@ROUTE
def test_hostile_names_and_bodies(served, path, handler):
    """Whatever is put into a path, a parameter or a body: a refusal that tells nothing, or an answer."""
    pattern = next(pattern for pattern, route in TABLE if route is handler and example(pattern, route) == path)
    bodies = [
        b"",
        b"{",
        b"[]",
        b'{"verb": 1}',
        b"\xff\xfe",
        b"[" * 5000,
        b'{"a": ' * 2000,
        b"null",
        b'"../../etc/passwd"',
    ]
    for at in sorted({example(pattern, handler, name) for name in HOSTILE}):
        for method in handler.operations:
            if path == ENDLESS:
                continue
            answer = served.request(method, at, params={"limit": "../../x", "cursor": "%00", "state": "\x00"})
            assert answer.status_code < 500 or answer.status_code == 501
            assert answer.status_code < 300 or tells_too_much(answer.text + str(answer.headers)) == []
    for body in bodies:
        for method in {"POST", "PUT", "PATCH"} & set(handler.operations):
            answer = served.request(method, path, content=body, headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500 or answer.status_code == 501
            assert tells_too_much(answer.text + str(answer.headers)) == []


def test_fault_of_the_server_tells_nothing(served, monkeypatch):
    """Of an error that nobody thought of, its reader learns that there is one."""

    def fail():
        raise RuntimeError(f"no such file: /home/me/secret.sqlite, token={TOKEN}")

    monkeypatch.setattr(root, "_version", fail)
    monkeypatch.setattr(Handler, "log_exception", lambda *_: None)
    answer = served.get("/")
    assert answer.status_code == 500
    assert is_problem(answer, "GET")
    assert tells_too_much(answer.text) == []
    assert "log" in answer.json()["detail"]


def test_body_that_is_too_large(served, monkeypatch):
    monkeypatch.setattr(type(served.services.options), "max_body_mb", 0.001)
    answer = served.request("PUT", "/templates/mine", content=b"x" * 1001)
    assert (answer.status_code, answer.json()["allowed"]["max_body_mb"]) == (413, 0.001)
    assert served.request("PUT", "/templates/mine", content=b"x" * 1000).status_code == 400


def test_polling_keeps_no_server_alive(served):
    before = served.app.web_app.settings.get("api_last_activity")
    assert served.get("/").status_code == 200
    assert served.app.web_app.settings.get("api_last_activity") == before
