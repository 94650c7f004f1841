"""Requests that are sent by the workers of a cluster: the driver builds and books each, a worker only sends it.

    Api --> RemoteTransport -- backend --> Sender, once on each worker --> the service

The key and the headers travel once to each worker, within the sender, and a request brings its address and its body.
What comes back is the answer as it is: reading it, and what it costs, is the driver's.

Rule: a request is sent once, as in `transport`.  Where a worker is lost it may have been sent, and been billed: it is
recorded as unanswered, and counts at what was reserved.
"""

from __future__ import annotations

import contextlib
import io
import ssl
from typing import TYPE_CHECKING, Any

from ipybatch.engine.data.spec import Backend
from ipybatch.errors import InputError
from ipybatch.gemini.service import tls
from ipybatch.gemini.service.transport import LARGE, DirectTransport, needs_environment

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from google.genai import Client


class RemoteTransport:
    """Sends the requests of a client from where a backend runs coroutines.

    Args:
        client: The client.
        options: The HTTP options of each request, in the form that the client accepts.
        backend: One for which `check_remote` raises nothing; it is opened and closed by whoever made it.

    Raises:
        InputError: The client's requests cannot be sent by anybody else.
    """

    def __init__(self, client: Client, options: dict[str, Any], backend: Backend) -> None:
        inner: Any = client._api_client
        if not DirectTransport.is_for(client) or tls.is_of_user(
            getattr(inner._http_options, "async_client_args", None)
        ):
            msg = (
                "backend= needs a client that is made from a key, without a proxy, TLS settings, transport or HTTP"
                f" client of its own, and aiohttp, got {type(client).__name__}: leave client= or backend= out"
            )
            raise InputError(msg)
        self._direct, self._backend = DirectTransport(client, options), backend
        self._sender: Sender | None = None
        self._urls: dict[str, str] = {}

    async def post(self, path: str, body: bytes) -> bytes:
        """Send one request and return the body of its answer.

        Raises:
            APIError: The status is not 200; as Google's client raises it.
        """
        url = self._urls.get(path)
        if url is None:
            request = self._direct.build(path)
            url = self._urls[path] = str(request.url)
            if self._sender is None:
                self._sender = Sender(url, dict(request.headers), request.timeout)
        assert self._sender is not None
        answer: Answer = await self._backend.run(self._sender, (url, body))
        if answer[0] != 200:
            await _raise_for(answer)
        return answer[3]

    async def close(self) -> None:
        """Do nothing: the backend closes what it opened."""


Answer = tuple[int, str, dict[str, str], bytes]  # status, reason, headers, body


async def _raise_for(answer: Answer) -> None:
    """Raise what Google's client raises for an answer, which it takes in the form of its own HTTP client."""
    from google.genai import errors

    status, reason, headers, body = answer
    response_type: Any = errors._HTTPX_RESPONSE_TYPES[0]
    kept = [
        (_as_sent(name), _as_sent(value))
        for name, value in headers.items()
        if not name.lower().startswith(("content-", "transfer-"))
    ]
    extensions = {"reason_phrase": _as_sent(reason)}
    await errors.APIError.raise_for_async_response(
        response_type(status, headers=kept, content=body, extensions=extensions)
    )


def _as_sent(text: str) -> bytes:
    """Return the bytes of which aiohttp made a text: those that are no UTF-8 are halves of characters there."""
    return text.encode(errors="surrogateescape")


def check_remote(backend: Backend | None) -> None:
    """Check that a backend can send requests from elsewhere.

    Raises:
        InputError: It cannot.
    """
    enters = getattr(backend, "enters", None)
    if backend is not None and (enters is None or not enters(Sender("", {}, None))):
        msg = f"backend must be one that runs coroutines elsewhere, such as Dask(client), got {backend!r}"
        raise InputError(msg)


class Sender:
    """Work that sends requests over one aiohttp session, which is opened where they are sent.

    Args:
        url: An address of the service.
        headers: Of every request; the key is among them.
        timeout_s: Of one request, seconds; None for no limit.
    """

    def __init__(self, url: str, headers: dict[str, str], timeout_s: float | None) -> None:
        self._url, self._headers, self._timeout_s = url, headers, timeout_s
        self._session: ClientSession | None = None

    def __repr__(self) -> str:
        return "Sender()"  # never the key

    async def __aenter__(self) -> Sender:
        """Open the session."""
        import aiohttp

        trusted = ssl.create_default_context()
        with contextlib.suppress(ImportError):
            import certifi

            trusted = ssl.create_default_context(cafile=certifi.where())  # as Google's client
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=trusted),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            trust_env=needs_environment(self._url),
            read_bufsize=2**22,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    async def __call__(self, url: str, body: bytes) -> Answer:
        """Send one request, and return its answer."""
        assert self._session is not None
        data = body if len(body) <= LARGE else io.BytesIO(body)
        async with self._session.post(url, data=data, allow_redirects=False) as answer:
            return answer.status, answer.reason or "", dict(answer.headers), await answer.read()
