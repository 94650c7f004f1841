"""TLS contexts of Google's client, kept for the clients that are made after the first.

Each client loads the certificates of all authorities three times, some 60 ms of CPU, to no other end than the first.
"""

from __future__ import annotations

import os
import ssl
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from google.genai import Client

_SOURCES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # where the client looks for certificates


class Arguments(TypedDict, total=False):
    """HTTP options of a client."""

    client_args: dict[str, Any]
    async_client_args: dict[str, Any]


_MOST = 4  # states of the sources: a file that is written anew all day would take a megabyte each time

_kept: dict[tuple[object, ...], Arguments] = {}  # by what the sources say, the oldest first
_ours: weakref.WeakSet[ssl.SSLContext] = weakref.WeakSet()  # all that were kept, as long as a client has them
_keeping = threading.Lock()


def kept(sources: tuple[object, ...]) -> Arguments:
    """Return HTTP options with the contexts of an earlier client; none before there was one."""
    return _kept.get(sources, {})


def keep(client: Client, sources: tuple[object, ...]) -> None:
    """Keep the contexts of a client that has made its own, by the sources as they were before it read them."""
    inner: Any = client._api_client
    verify = getattr(inner, "_async_httpx_client_args", {}).get("verify")
    over_aiohttp = getattr(inner, "_async_client_session_request_args", {}).get("ssl")
    if isinstance(verify, ssl.SSLContext) and isinstance(over_aiohttp, ssl.SSLContext):
        async_args = {"verify": verify, "ssl": over_aiohttp}
        with _keeping:
            _kept.setdefault(sources, {"client_args": {"verify": verify}, "async_client_args": async_args})
            _ours.update((verify, over_aiohttp))
            while len(_kept) > _MOST:
                del _kept[next(iter(_kept))]


def is_of_user(arguments: Mapping[str, Any] | None) -> bool:
    """Say whether a client's ``async_client_args`` are others than those of `kept`."""
    if not arguments:
        return False
    return arguments.keys() != {"verify", "ssl"} or not all(context in _ours for context in arguments.values())


def sources() -> tuple[object, ...]:
    """Return what the sources say, and the state of what they name: a file may be written anew, or go."""
    named = tuple(map(os.environ.get, _SOURCES))
    return (*named, *(_state(path) for path in named if path))


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
