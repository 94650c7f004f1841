"""Client: Google's own, made so that nothing below us sends twice.

Rule: retry is ours alone.  Left to its defaults the client posts again after a
dropped line, and one call is billed twice.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ipybatch.engine.data.masking import mask, register
from ipybatch.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from google.genai import Client

TIMEOUT_S = 600.0


def connect(
    api_key: str | None = None,
    base_url: str | None = None,
    client: Client | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> Client:
    """Return a client that sends each request once.

    Args:
        api_key: Default: ``GEMINI_API_KEY``, else ``GOOGLE_API_KEY``.
        base_url: Of another server, such as a simulator.
        client: One of the user's own, taken as it is; its key is masked everywhere too.
        timeout_s: For one request, seconds.

    Raises:
        InputError: There is no key, or an argument is not what it must be.
        MissingExtra: google-genai is not installed.
    """
    if client is not None:
        return _check_client(client)
    key = find_key(api_key)
    _check_address(base_url)
    try:
        from google import genai
        from google.genai import types
    except ImportError:
        raise MissingExtra("gemini") from None
    options = types.HttpOptions(
        base_url=base_url,
        timeout=int(timeout_s * 1000),
        retry_options=types.HttpRetryOptions(attempts=1),
    )
    made: Client = genai.Client(api_key=key, http_options=options)
    return made


def find_key(api_key: str | None) -> str:
    """Return the key to use, registered so that it is masked everywhere.

    Raises:
        InputError: There is none, or it cannot be one.
    """
    key = api_key or os.environ.get("GEMINI_API_KEY") or os.environ.get("GOOGLE_API_KEY")
    if not key or not isinstance(key, str) or not key.strip():
        msg = "api_key must be a Gemini API key: pass it, or set GEMINI_API_KEY (https://aistudio.google.com/apikey)"
        raise InputError(msg)
    register(key := key.strip())
    if not (key.isascii() and key.isprintable()):  # no header could carry it; the key itself is not told
        msg = "api_key must be one line of ASCII letters, got others among them: copy it again"
        raise InputError(msg)
    return key


def _check_client(client: Client) -> Client:
    if not hasattr(client, "aio"):
        msg = f"client must be a google.genai.Client, got {client!r}"
        raise InputError(msg)
    key = getattr(getattr(client, "_api_client", None), "api_key", None)
    if isinstance(key, str):
        register(key)
    return client


def _check_address(base_url: str | None) -> None:
    if base_url is not None and not str(base_url).startswith(("http://", "https://")):
        msg = f"base_url must be an address such as 'https://gateway.example', got {mask(repr(base_url))}"
        raise InputError(msg)
