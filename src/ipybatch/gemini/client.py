"""Client: Google's own, made so that nothing below us sends twice.

Rule: retry is ours alone.  Left to its defaults the client posts again after a
dropped line, and one call is billed twice.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ipybatch.engine.masking import register
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
        InputError: There is no key.
        MissingExtra: google-genai is not installed.
    """
    if client is not None:
        _register_key(client)
        return client
    key = find_key(api_key)
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
        InputError: There is none.
    """
    key = api_key or os.environ.get("GEMINI_API_KEY") or os.environ.get("GOOGLE_API_KEY")
    if not key or not isinstance(key, str) or not key.strip():
        msg = "api_key must be a Gemini API key: pass it, or set GEMINI_API_KEY (https://aistudio.google.com/apikey)"
        raise InputError(msg)
    register(key)
    return key


def _register_key(client: Client) -> None:
    key = getattr(getattr(client, "_api_client", None), "api_key", None)
    if isinstance(key, str):
        register(key)
