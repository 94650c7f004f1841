"""Requests over aiohttp itself, as Google's client would send them: the same address, headers, key, TLS and proxies.

Google's client reads its options anew for each request, which takes several times the CPU of the request.  Here its
own code builds what all requests have in common, once; a request adds its body.

    client                                                      road
    one with a key: ours, or the user's with options            direct
    vertexai, a client for replay, a patched one                Google's client
    with an HTTP client, a transport or a body of the user's    Google's client
    no aiohttp, or a google-genai that is made otherwise        Google's client

Rule: a request is sent once.  After a dropped connection aiohttp repeats idempotent methods only, and POST is none;
redirects are not followed.
"""

from __future__ import annotations

import io
import netrc
import os
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from google.genai import Client

_TAKEN = frozenset({"proxy", "proxy_auth", "proxy_headers", "server_hostname", "ssl"})  # of async_client_args
LARGE = 2**20  # bytes


class DirectTransport:
    """Sends the requests of a client over one aiohttp session, which is opened on the loop that first uses it.

    Args:
        client: The client, for which `is_for` is true.
        options: The HTTP options of each request, in the form that the client accepts.
    """

    def __init__(self, client: Client, options: dict[str, Any]) -> None:
        self._client: Any = client._api_client
        self._options = options
        self._session: ClientSession | None = None
        self._urls: dict[str, Any] = {}  # of type yarl.URL, by path

    @staticmethod
    def is_for(client: Client) -> bool:
        """Say whether a client's requests can be sent directly, exactly as it would send them."""
        inner: Any = getattr(client, "_api_client", None)
        try:
            from google.genai._api_client import BaseApiClient

            given = inner._http_options
            return (
                type(inner) is BaseApiClient
                and not any(hasattr(BaseApiClient, name) for name, value in vars(inner).items() if callable(value))
                and bool(inner.api_key)
                and not inner.vertexai
                and inner._use_aiohttp()
                and inner._async_client_session_request_args.keys() <= _TAKEN
                and not getattr(given, "aiohttp_client", None)
                and not getattr(given, "extra_body", None)
                and callable(inner._build_request)
            )
        except (ImportError, AttributeError):  # of another release
            return False

    async def post(self, path: str, body: bytes) -> bytes:
        """Send one request and return the body of its answer.

        Raises:
            APIError: The status is not 200; as Google's client raises it.
        """
        session = self._session or self._open(path)
        url = self._urls.get(path) or self._url(path)
        given = self._client._async_client_session_request_args
        data = body if len(body) <= LARGE else io.BytesIO(body)  # which is sent in pieces: a whole one holds the loop
        answer = await session.post(url, data=data, allow_redirects=False, **given)
        if answer.status == 200:
            return await answer.read()  # which gives the connection back, whatever comes
        async with answer:
            from google.genai.errors import APIError

            await APIError.raise_for_async_response(answer)
            return await answer.read()

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def build(self, path: str) -> Any:
        """Return what Google's client would send, without a body: address, headers and time limit."""
        return self._client._build_request("post", path, {}, self._options)

    def _url(self, path: str) -> Any:
        from yarl import URL

        url = self._urls[path] = URL(self.build(path).url)
        return url

    def _open(self, path: str) -> ClientSession:
        import aiohttp

        common = self.build(path)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers=common.headers,
            timeout=aiohttp.ClientTimeout(total=common.timeout),
            trust_env=needs_environment(common.url),
            read_bufsize=2**22,  # as the client has it: large answers arrive in few steps
        )
        return self._session


def needs_environment(url: str) -> bool:
    """Say whether a proxy or a login of the environment holds for an address.

    aiohttp asks again for every request, in two threads; so it is asked only where there is something to find.
    """
    address = urlsplit(url)
    host = address.hostname or ""
    if address.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return True
    try:
        path = os.environ.get("NETRC") or Path.home() / ("_netrc" if sys.platform == "win32" else ".netrc")
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, RuntimeError, netrc.NetrcParseError):  # as aiohttp takes them: nothing to find
        return False
