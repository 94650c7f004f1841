"""HTTP clients of the sources, and what an HTTP answer means, the same for every service.

2xx with JSON                 the answer
2xx with HTML or broken JSON  try again: overloaded services send that
429                           slow down
401, 403                      refused: the session stops
408, 5xx, 302, 303, 307       try again
404, 410                      the service has no such thing
any other                     this item cannot succeed
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import msgspec

from ipybatch.engine.data.masking import mask, register
from ipybatch.engine.rules.classify import parse_retry_after
from ipybatch.errors import InputError, Permanent, RateLimited, Refused, Transient
from ipybatch.library.source import NotThere

TIMEOUT_S = 30.0

_PASSING = frozenset({302, 303, 307, 408})


class Response(Protocol):
    """The part of httpx's response that is read here."""

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
    """The part of `httpx.AsyncClient`'s API that a source needs."""

    async def get(self, url: str, *, params: Any = None, headers: Any = None, follow_redirects: bool = False) -> Any:
        """Send one request and return its `Response`."""


def read_json(response: Response, service: str, *, refused: str = "check the key") -> Any:
    """Return the JSON in an answer.

    Args:
        service: Name of the service, for the errors.
        refused: Meaning of a 401 or 403 from this service.

    Raises:
        RateLimited: The status is 429.
        Refused: The status is 401 or 403.
        Transient: The same request may succeed later.
        NotThere: The status is 404 or 410.
        Permanent: The same request cannot succeed.
    """
    status = response.status_code
    answered = f"{service} answered {status}"
    retry_after_s = parse_retry_after(response.headers, time.time())
    if status == 429:
        raise RateLimited(f"{answered}: too many requests", retry_after_s=retry_after_s)
    if status in (401, 403):
        raise Refused(f"{answered}: {refused}")
    if status in _PASSING or status >= 500:
        raise Transient(answered, retry_after_s=retry_after_s)
    if status in (404, 410):
        raise NotThere(answered, is_certain=False)
    if not 200 <= status < 300:
        where = response.headers.get("location", "")[:200]
        raise Permanent(f"{answered}: it has moved to {where}; set base_url accordingly" if where else answered)
    try:
        return msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Transient(_not_json(response.content, service)) from None


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


def check_client(client: Any) -> Any:
    """Return a user's client, or None.

    Raises:
        InputError: The client does not have httpx's API.
    """
    if client is not None and not hasattr(client, "get"):
        msg = f"client must be an httpx.AsyncClient or have its API, got {client!r}"
        raise InputError(msg)
    return client


def make_client(timeout_s: float) -> Any:
    """Return an httpx client that sends every request exactly once: no redirects, no retries."""
    import httpx

    own_machine = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))  # never through a proxy
    return httpx.AsyncClient(timeout=timeout_s, follow_redirects=False, mounts=own_machine)


def _not_json(body: bytes, service: str) -> str:
    start = body[:200].lstrip().lower()
    if start.startswith(b"<"):
        return f"{service} answered with a web page instead of JSON"
    if not start:
        return f"{service} answered with nothing"
    return f"{service} answered with JSON that is broken or breaks off after {len(body)} bytes"


class HttpSource:
    """Base of sources with an HTTP client, opened with the first of their sessions and closed with the last.

    A source is entered on the engine's event loop, so its client belongs to that loop.

    Args:
        client: The user's client, which stays open; None for a client of the source's own.

    Raises:
        InputError: ``client`` does not have httpx's API.
    """

    def __init__(self, client: Any) -> None:
        self._given: Any = check_client(client)
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
            self._client = self._given or make_client(TIMEOUT_S)
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
