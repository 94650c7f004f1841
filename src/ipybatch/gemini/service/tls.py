"""TLS contexts of Google's client, kept for the clients that are made after the first.

Each client loads the certificates of all authorities three times, some 60 ms of CPU, to no other end than the first.
"""

from __future__ import annotations

import os
import ssl
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


_kept: dict[tuple[object, ...], Arguments] = {}  # by what the sources say


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
        _kept.setdefault(sources, {"client_args": {"verify": verify}, "async_client_args": async_args})


def is_of_user(arguments: Mapping[str, Any] | None) -> bool:
    """Say whether a client's ``async_client_args`` are others than the kept ones."""
    return bool(arguments) and not any(arguments == known["async_client_args"] for known in _kept.values())


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
