"""Masking: secrets never reach journal, event, error, repr or output.

Rule: whoever is handed a key, token or password registers it here, and every
text that leaves the engine passes through `mask`.
"""

from __future__ import annotations

import re

MASK = "***"
_SHORTEST = 4  # masking "a" would spoil every text

_secrets: set[str] = set()
_in_address = re.compile(r"(?<=://)([^/\s:@]*):([^/\s@]+)@")
_in_query = re.compile(r"(?i)(?<=[?&])((?:api_?)?key|token|access_token|client_secret|password)=[^&\s'\"]+")


def register(secret: str | None) -> None:
    """Mask ``secret`` from now on, wherever it turns up."""
    if secret and len(secret) >= _SHORTEST:
        _secrets.add(secret)


def mask(text: str) -> str:
    """Return ``text`` without registered secrets, passwords in addresses and keys in query strings."""
    for secret in _secrets:
        text = text.replace(secret, MASK)
    if "://" in text:
        text = _in_address.sub(rf"\1:{MASK}@", text)
    return _in_query.sub(rf"\1={MASK}", text) if "=" in text else text


def mask_bytes(data: bytes) -> bytes:
    """Return encoded JSON without registered secrets."""
    for secret in _secrets:
        data = data.replace(secret.encode(), MASK.encode())
    return data
