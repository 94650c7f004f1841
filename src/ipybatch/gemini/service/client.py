"""Google's client, made from a key."""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import TYPE_CHECKING

from ipybatch.engine.data.masking import mask, register
from ipybatch.errors import InputError, MissingExtra
from ipybatch.gemini.service import tls

if TYPE_CHECKING:
    from google.genai import Client

TIMEOUT_S = 600.0  # for one request of generate_content


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
        base_url: Address of another server, such as a simulator.
        client: A client of the user's own, returned unchanged; its key is masked in all output too.
        timeout_s: Time limit of one request, seconds.

    Raises:
        InputError: There is no key, an argument is invalid, or the environment's certificates cannot be read.
        MissingExtra: google-genai is not installed.
    """
    if client is not None:
        if not hasattr(client, "aio"):
            msg = f"client must be a google.genai.Client, got {client!r}"
            raise InputError(msg)
        if getattr(client, "vertexai", False) is True:
            msg = "client must be one of the Gemini Developer API, got one of Vertex AI: make it with vertexai=False"
            raise InputError(msg)
        its_key = getattr(getattr(client, "_api_client", None), "api_key", None)
        if isinstance(its_key, str):
            register(its_key)
        return client
    key = find_key(api_key)
    if base_url is not None and not str(base_url).startswith(("http://", "https://")):
        msg = f"base_url must be an address such as 'https://gateway.example', got {mask(repr(base_url))}"
        raise InputError(msg)
    try:
        from google import genai
        from google.genai import types
    except ImportError:
        raise MissingExtra("gemini") from None
    with contextlib.suppress(ImportError):  # of uploads: loaded by the first one, it would hold the engine's loop
        importlib.import_module("anyio._backends._asyncio")
    sources = tls.sources()
    options = types.HttpOptions(
        base_url=base_url,
        timeout=int(timeout_s * 1000),
        retry_options=types.HttpRetryOptions(attempts=1),
        **tls.kept(sources),
    )
    # Said, so that GOOGLE_GENAI_USE_VERTEXAI in the environment does not send a key to another service.
    try:
        made: Client = genai.Client(vertexai=False, api_key=key, http_options=options)
    except OSError as error:  # those of TLS too
        msg = f"SSL_CERT_FILE must name a file of certificates, got {os.environ.get('SSL_CERT_FILE')!r}: {error}"
        raise InputError(msg) from error
    tls.keep(made, sources)
    return made


def find_key(api_key: str | None) -> str:
    """Return the key to use, after registering it to be masked in all output.

    Raises:
        InputError: There is no key, or it is malformed.
    """
    key = api_key or os.environ.get("GEMINI_API_KEY") or os.environ.get("GOOGLE_API_KEY")
    if not key or not isinstance(key, str) or not key.strip():
        msg = "api_key must be a Gemini API key: pass it, or set GEMINI_API_KEY (https://aistudio.google.com/apikey)"
        raise InputError(msg)
    register(key := key.strip())
    if not (key.isascii() and key.isprintable()):  # no header could carry it; the message omits the key
        msg = "api_key must be one line of ASCII letters, got others among them: copy it again"
        raise InputError(msg)
    return key
