"""HTTP clients of the sources, and what an HTTP answer means, the same for every service.

2xx with JSON                      the answer
2xx with HTML or broken JSON       try again: overloaded services send that
429; 403, 503 with Retry-After     slow down
401, 403                           refused: the session stops; 403 of one item alone, where a source says so
408, 5xx, 302, 303, 307            try again
404, 410                           the service has no such thing
any other                          this item cannot succeed

Rule: a request is sent exactly once.  Nothing here resends it or follows a redirect, and a connection carries one
request at a time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from ipybatch.engine.data import lenient_json
from ipybatch.engine.data.masking import mask, register
from ipybatch.engine.rules.rate_headers import read_headers
from ipybatch.errors import InputError, ItemError, Permanent, RateLimited, Refused, Transient
from ipybatch.library.source import NotThere

TIMEOUT_S = 30.0

_OTHERS = frozenset({"aiohttp.ClientSession", "httpx.Client", "httpx2.Client", "requests.Session"})  # they can get, too
_PASSING = frozenset({302, 303, 307, 408})


class Forbidden(Permanent):
    """Say that the service does not show this item, with status 403, though it may show others."""


class Response(Protocol):
    """The part of a response of httpx and httpx2 that is read here."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""

    @property
    def content(self) -> bytes:
        """The whole body."""


class Client(Protocol):
    """The part of the API of `httpx2.AsyncClient`, and of `httpx.AsyncClient`, that a source needs."""

    async def get(self, url: str, *, params: Any = None, headers: Any = None, follow_redirects: bool = False) -> Any:
        """Send one request and return its `Response`."""

    async def post(self, url: str, *, data: Any = None, headers: Any = None, follow_redirects: bool = False) -> Any:
        """Post one form and return its `Response`."""


def read_json(response: Response, service: str, *, refused: str = "check the key", forbidden: str = "") -> Any:
    """Return the JSON in an answer.

    Args:
        service: Name of the service, for the errors.
        refused: Meaning of a 401 or 403 from this service.
        forbidden: Meaning of a 403 that is about this item alone; "" where it is about the client.

    Raises:
        RateLimited: The status is 429, or a 403 or 503 that names a time.
        Refused: The status is 401 or 403.
        Forbidden: The status is 403, and ``forbidden`` is given.
        Transient: The same request may succeed later.
        NotThere: The status is 404 or 410.
        Permanent: The same request cannot succeed.
    """
    status = response.status_code
    if not 200 <= status < 300:
        raise _error(response, service, refused, forbidden)
    body = response.content
    try:
        return lenient_json.read_json(body)
    except ValueError:
        raise Transient(_not_json(body, service)) from None


def check_url(field: str, url: Any) -> str:
    """Return the URL of a service without its last slash; mask a password in it from now on.

    Raises:
        InputError: ``url`` is not an http or https URL, or has a query or a fragment.
    """
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        msg = f"{field} must be an address such as 'https://store.example.org', got {mask(repr(url))}"
        raise InputError(msg)
    register(parts.password)
    return parts.geturl().rstrip("/")


def check_client(client: Any, *, posts: bool = False) -> Any:
    """Return a user's client, or None.

    Args:
        posts: Whether it must be able to post, not only to get.

    Raises:
        InputError: The client does not have httpx's API.
    """
    if client is not None and not (hasattr(client, "get") and (hasattr(client, "post") or not posts)):
        msg = f"client must be an httpx2.AsyncClient or an httpx.AsyncClient, or have their API, got {client!r}"
        raise InputError(msg)
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(client).__mro__}
    if other := next(iter(sorted(kinds & _OTHERS)), ""):
        msg = f"client must be an httpx2.AsyncClient or an httpx.AsyncClient, got a {other}: give one of those, or none"
        raise InputError(msg)
    return client


class OwnClient:
    """Clients of httpx2, each with one request at a time: as many as the session has requests in flight.

    The pool of a single client looks at every idle connection for every request: at 50 of them that is a third of the
    CPU time.  The client used last is used first, so that no more connections stay open than are needed.

    Args:
        timeout_s: Time for each phase of a request, seconds.

    Raises:
        InputError: The certificates that the environment names cannot be read.
    """

    def __init__(self, timeout_s: float) -> None:
        import httpx2

        self.is_closed = False
        self._class: Any = httpx2.AsyncClient
        self._url: Any = httpx2.URL
        self._options: dict[str, Any] = {
            "timeout": timeout_s,
            "follow_redirects": False,
            "mounts": dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]")),  # never through a proxy
            "verify": _certificates(),
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # no answer depends on an earlier one
        }
        self._all: list[Any] = []
        self._idle: list[Any] = [self._take()]  # now: what is wrong with the proxies of the environment is said once

    async def get(self, url: str, *, params: Any = None, headers: Any = None, follow_redirects: bool = False) -> Any:
        """Send one request and return its `Response`."""
        whole = self._url(url, params=params)  # read once; the client would read it three times
        client = self._take()
        try:
            return await client.get(whole, headers=headers, follow_redirects=follow_redirects)
        finally:
            self._idle.append(client)

    async def post(self, url: str, *, data: Any = None, headers: Any = None, follow_redirects: bool = False) -> Any:
        """Post one form and return its `Response`."""
        client = self._take()
        try:
            return await client.post(url, data=data, headers=headers, follow_redirects=follow_redirects)
        finally:
            self._idle.append(client)

    async def aclose(self) -> None:
        """Close every connection."""
        self.is_closed = True
        for client in self._all:
            await client.aclose()

    def _take(self) -> Any:
        if self._all and self._idle:
            return self._idle.pop()
        client = self._class(**self._options)
        self._all.append(client)
        return client


def _certificates() -> Any:
    """Return the certificates that services are checked by, read once for all clients; a browser has its own."""
    import httpx2

    if sys.platform == "emscripten":
        return True
    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        where = [f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ]
        msg = f"the certificates cannot be read ({error}): {' and '.join(where) or 'see those of Python'}"
        raise InputError(msg) from error


class GivenClient:
    """A user's client; an error of its pool says how large the pool is.

    Args:
        source: Name of the class that it was given to.
    """

    def __init__(self, client: Client, source: str) -> None:
        self._client, self._source = client, source

    async def get(self, url: str, *, params: Any = None, headers: Any = None, follow_redirects: bool = False) -> Any:
        """Send one request and return its `Response`."""
        with self._pool_told():
            return await self._client.get(url, params=params, headers=headers, follow_redirects=follow_redirects)

    async def post(self, url: str, *, data: Any = None, headers: Any = None, follow_redirects: bool = False) -> Any:
        """Post one form and return its `Response`."""
        with self._pool_told():
            return await self._client.post(url, data=data, headers=headers, follow_redirects=follow_redirects)

    @contextmanager
    def _pool_told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if type(error).__name__ == "PoolTimeout":
                size = getattr(getattr(getattr(self._client, "_transport", None), "_pool", None), "_max_connections", 0)
                has = f" has {size} connections, and" if isinstance(size, int) and size else ""
                msg = (
                    f"the pool of the client given to {self._source}{has} had none free in time: give the client"
                    " limits=Limits(max_connections=...) of at least the session's concurrency, or give none"
                )
                error.args = (msg,)
            raise


def _not_json(body: bytes, service: str) -> str:
    start = body[:200].lstrip().lower()
    if start.startswith(b"<"):
        return f"{service} answered with a web page instead of JSON"
    if not start:
        return f"{service} answered with nothing"
    return f"{service} answered with JSON that is broken or breaks off after {len(body)} bytes"


def _error(response: Response, service: str, refused: str, forbidden: str) -> ItemError:
    """Return what an answer without 2xx means; it has the answer's status, unless the source knows what that means."""
    error = _meaning(response, service, refused, forbidden)
    if not isinstance(error, Refused):
        error.status = response.status_code
    return error


def _meaning(response: Response, service: str, refused: str, forbidden: str) -> ItemError:
    status, headers = response.status_code, response.headers
    answered = f"{service} answered {status}"
    wait_s = asked_wait_s(headers)
    if status == 429 or (status in (403, 503) and wait_s is not None):
        return RateLimited(f"{answered}: too many requests", retry_after_s=wait_s)
    if status == 403 and forbidden:
        return Forbidden(f"{answered}: {forbidden}")
    if status in (401, 403):
        return Refused(f"{answered}: {refused}")
    if status in _PASSING or status >= 500:
        return Transient(answered, retry_after_s=wait_s)
    if status in (404, 410):
        return NotThere(answered, is_certain=False)
    where = _host_of(headers.get("location", "")[:200])
    return Permanent(f"{answered}: it has moved to {where}; set its address accordingly" if where else answered)


def _host_of(location: str) -> str:
    """Return where an answer points to, the same for every item; "" where that is no address."""
    try:
        moved = urlsplit(location)
        return f"{moved.scheme}://{moved.hostname}" if moved.hostname else moved.path
    except ValueError:
        return ""


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Return how long an answer asks us to wait, or until a window that is used up begins anew; None for neither."""
    told = read_headers(headers, time.time())
    return told.retry_after_s if told.retry_after_s is not None else told.reset_s if told.is_used_up else None


class HttpSource:
    """Base of sources with an HTTP client, opened with the first of their sessions and closed with the last.

    A source is entered on the engine's event loop, so its client belongs to that loop.

    Args:
        client: The user's client, which stays open; None for a client of the source's own.
        posts: Whether the client must be able to post, not only to get.

    Raises:
        InputError: ``client`` does not have httpx's API.
    """

    def __init__(self, client: Any, *, posts: bool = False) -> None:
        self._given: Any = check_client(client, posts=posts)
        self._client: Any = None
        self._entered = 0  # sessions that run side by side share one client

    async def __aenter__(self) -> Self:
        """Open a client, unless one was given.

        Raises:
            InputError: The client that was given is closed.
        """
        if getattr(self._given, "is_closed", False):
            msg = f"client is closed: give {type(self).__name__} one that is open, or none"
            raise InputError(msg)
        if self._client is None:
            given = self._given
            self._client = OwnClient(TIMEOUT_S) if given is None else GivenClient(given, type(self).__name__)
        self._entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client with the last session, unless it was given."""
        self._entered -= 1
        if self._entered == 0:
            client, self._client = self._client, None
            if self._given is None:
                await client.aclose()
