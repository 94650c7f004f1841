"""Masking: secrets never reach journal, event, error, repr or output; an error becomes one masked line.

Rule: whoever is given a key, token or password registers it here, and every
text that leaves the engine passes through `mask`.
"""

from __future__ import annotations

import re
import threading
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

from ipybatch.errors import ItemError

MASK = "***"
_SHORTEST = 4  # masking "a" would spoil every text

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

# Every spelling, as text and as JSON has it, the longest first: one may be part of another.
_secrets: tuple[tuple[str, bytes], ...] = ()
_registering = threading.Lock()
_in_address = re.compile(r"(?<=://)([^/\s:@]*):([^/\s]+)@")
_in_query = re.compile(r"(?i)(?<=[?&])((?:api_?)?key|token|access_token|client_secret|password)=[^&\s'\"]+")


def register(secret: str | None) -> None:
    """Mask ``secret`` from now on, wherever it turns up: as it is, or as an address or JSON spells it."""
    global _secrets
    if not secret or len(secret) < _SHORTEST:
        return
    spellings = {
        secret,
        quote(secret, errors="replace"),
        quote(secret, "", errors="replace"),
        quote_plus(secret, errors="replace"),
    }
    with _registering:
        known = sorted({text for text, _ in _secrets} | spellings, key=len, reverse=True)
        _secrets = tuple((text, _encode(text.encode(errors="replace").decode())[1:-1]) for text in known)


def mask(text: str) -> str:
    """Return ``text`` without registered secrets, passwords in addresses and keys in query strings.

    What no file could hold (half a surrogate pair) is replaced too.
    """
    for secret, _ in _secrets:
        text = text.replace(secret, MASK)
    if "://" in text:
        text = _in_address.sub(rf"\1:{MASK}@", text)
    if "=" in text:
        text = _in_query.sub(rf"\1={MASK}", text)
    return text if text.isascii() else text.encode(errors="replace").decode()


def mask_bytes(data: bytes) -> bytes:
    """Return encoded JSON without registered secrets; numbers stay numbers."""
    if any(escaped in data for _, escaped in _secrets):
        return _encode(_masked(_decode(data)))
    return data


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        for secret, _ in _secrets:
            value = value.replace(secret, MASK)
    elif isinstance(value, list):
        return [_masked(inner) for inner in value]
    elif isinstance(value, dict):
        return {_masked(name): _masked(inner) for name, inner in value.items()}
    return value


OTHER_LOOP = re.compile(r"different (event )?loop|[Ee]vent loop is closed")
OTHER_LOOP_HINT = (
    "the work uses a client that was opened in another event loop: open it in __aenter__ of the work object, which is"
    " entered in the loop that uses it"
)


def describe(error: BaseException) -> str:
    """Return an error as one masked line."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(its text cannot be had)"
    name = type(error).__name__
    is_ours = isinstance(error, ItemError) and type(error).__module__.startswith("ipybatch.")
    line = text if is_ours and text else f"{name}: {text}" if text else name
    return mask(line)[:500]
