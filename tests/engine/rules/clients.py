"""The clients people use, each with the code that one naturally writes; all sync, so that they can be called alike."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import urllib.error
import urllib.request
from contextlib import closing
from functools import partial
from urllib.parse import urlsplit

import aiohttp
import httpx
import httpx2
import requests
import urllib3

TRUSTED = ssl.create_default_context()  # read once: it takes longer than all the rest
PATIENCE_S = 10.0  # where the fault is not that it is slow


def by_requests(url, timeout_s=PATIENCE_S, *, follows=True):
    response = requests.get(url, timeout=timeout_s, allow_redirects=follows)
    response.raise_for_status()
    return response.json()


def by_urllib3(url, timeout_s=PATIENCE_S, *, follows=True):
    retries = urllib3.Retry(redirect=3, connect=False, read=False, status=False, other=False) if follows else False
    with urllib3.PoolManager() as pool:
        response = pool.request("GET", url, timeout=timeout_s, retries=retries)
        if response.status >= 400:
            raise RuntimeError(f"the service answered {response.status}")
        return response.json()


def by_httpx(url, timeout_s=PATIENCE_S, *, follows=True, package=httpx):
    with package.Client(verify=TRUSTED, timeout=timeout_s, follow_redirects=follows) as client:
        return client.get(url).raise_for_status().json()


def by_httpx2(url, timeout_s=PATIENCE_S, *, follows=True):
    return by_httpx(url, timeout_s, follows=follows, package=httpx2)


def by_aiohttp(url, timeout_s=PATIENCE_S, *, follows=True):
    async def get():
        timeout = aiohttp.ClientTimeout(sock_connect=timeout_s, sock_read=timeout_s)
        opened = aiohttp.ClientSession(timeout=timeout)
        async with opened as session, session.get(url, allow_redirects=follows) as response:
            response.raise_for_status()
            return await response.json()

    return asyncio.run(get())


class Stays(urllib.request.HTTPRedirectHandler):
    """How one tells urllib not to follow."""

    def redirect_request(self, *_):
        return None


def by_urllib(url, timeout_s=PATIENCE_S, *, follows=True):
    opener = urllib.request.build_opener(*([] if follows else [Stays]))
    with opener.open(url, timeout=timeout_s) as response:
        return json.load(response)


def close_answer(error):
    """Close the answer that an error of urllib's keeps open, and that a later test would be told of."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()


def by_http_client(url, timeout_s=PATIENCE_S, *, follows=True):
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=timeout_s)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"the service answered {response.status}")
        return json.loads(response.read())
    finally:
        connection.close()


CLIENTS = {
    "requests": by_requests,
    "urllib3": by_urllib3,
    "httpx": by_httpx,
    "httpx2": by_httpx2,
    "aiohttp": by_aiohttp,
    "urllib.request": by_urllib,
    "http.client": by_http_client,
}


def kept_requests(url):
    with requests.Session() as session:
        return [session.get(url).json() for _ in range(2)][-1]


def kept_urllib3(url):
    with urllib3.PoolManager(retries=False) as pool:
        return [pool.request("GET", url).json() for _ in range(2)][-1]


def kept_httpx(url, package=httpx):
    with package.Client(verify=TRUSTED) as client:
        return [client.get(url).json() for _ in range(2)][-1]


def kept_aiohttp(url):
    async def get():
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.get(url) as response:
                    found = await response.json()
            return found

    return asyncio.run(get())


def kept_http_client(url):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    for _ in range(2):
        connection.request("GET", parts.path)
        found = json.loads(connection.getresponse().read())
    return found


KEPT = {  # two requests on one connection
    "requests": kept_requests,
    "urllib3": kept_urllib3,
    "httpx": kept_httpx,
    "httpx2": partial(kept_httpx, package=httpx2),
    "aiohttp": kept_aiohttp,
    "http.client": kept_http_client,
}


def full_urllib3(url):
    with urllib3.PoolManager(maxsize=1, block=True, retries=False) as pool:
        pool.request("GET", url, preload_content=False)
        pool.request("GET", url, pool_timeout=0.01)


def full_httpx(url, package=httpx):
    limits, timeout = package.Limits(max_connections=1), package.Timeout(PATIENCE_S, pool=0.01)
    with package.Client(verify=TRUSTED, limits=limits, timeout=timeout) as client, client.stream("GET", url):
        client.get(url)


def full_aiohttp(url):
    async def get():
        timeout = aiohttp.ClientTimeout(connect=0.05)
        connector = aiohttp.TCPConnector(limit=1)
        opened = aiohttp.ClientSession(connector=connector, timeout=timeout)
        async with opened as session, session.get(url), session.get(url):
            pass

    asyncio.run(get())


def full_http_client(url):
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    with closing(connection):
        for _ in range(2):
            connection.request("GET", urlsplit(url).path)


FULL = {  # a second request where there is room for one
    "urllib3": full_urllib3,
    "httpx": full_httpx,
    "httpx2": partial(full_httpx, package=httpx2),
    "aiohttp": full_aiohttp,
    "http.client": full_http_client,
}


def closed_urllib3(url):
    pool = urllib3.HTTPConnectionPool(urlsplit(url).netloc, retries=False)
    pool.close()
    pool.request("GET", urlsplit(url).path)


def closed_httpx(url, package=httpx):
    client = package.Client(verify=TRUSTED)
    client.close()
    client.get(url)


def closed_aiohttp(url):
    async def get():
        session = aiohttp.ClientSession()
        await session.close()
        await session.get(url)

    asyncio.run(get())


CLOSED = {  # a request after the client was closed
    "urllib3": closed_urllib3,
    "httpx": closed_httpx,
    "httpx2": partial(closed_httpx, package=httpx2),
    "aiohttp": closed_aiohttp,
}


def other_loop_httpx(url, package=httpx):
    client = package.AsyncClient(verify=TRUSTED)
    asyncio.run(client.get(url))
    asyncio.run(client.get(url))


def other_loop_aiohttp(url):
    async def opened():
        return aiohttp.ClientSession()

    async def get(session):
        async with session.get(url) as response:
            return await response.json()

    session = asyncio.run(opened())
    try:
        asyncio.run(get(session))
    finally:
        asyncio.run(session.close())


OTHER_LOOP = {  # a client that was opened in one event loop and is used in another
    "httpx": other_loop_httpx,
    "httpx2": partial(other_loop_httpx, package=httpx2),
    "aiohttp": other_loop_aiohttp,
}
