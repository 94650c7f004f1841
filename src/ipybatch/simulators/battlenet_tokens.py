"""The tokens of the simulated Battle.net: issued for credentials, ended by time or by hand.

    POST {oauth_url}/token   Basic client_id:client_secret, grant_type=client_credentials
        200 {"access_token": "..", "token_type": "bearer", "expires_in": 86399, "sub": ".."}
        401 wrong or no credentials        400 no POST, or another grant

Every grant gives a new token and leaves the older ones as they are, so the number issued is the number asked for.

Source: RFC 6749, sections 2.3.1, 4.4 and 5.2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from .service import Reply, Request, as_json

if TYPE_CHECKING:
    from collections.abc import Mapping


class Tokens:
    """Who may ask, and until when."""

    def __init__(self, client_id: str, client_secret: str, *, lifetime_s: float, told_s: float) -> None:
        """Take the credentials, how long a token is valid, and how long its answer says it is."""
        self._credentials = f"{client_id}:{client_secret}"
        self._sub = client_id
        self._lifetime_s = lifetime_s
        self._told_s = told_s
        self._ends_s: dict[str, float] = {}

    @property
    def issued(self) -> int:
        """The number of tokens issued so far."""
        return len(self._ends_s)

    def answer(self, request: Request, now_s: float) -> Reply:
        """Answer the request for a token."""
        if _credentials(request) != self._credentials:
            return as_json({"error": "invalid_client", "error_description": "Bad credentials"}, status=401)
        grant = parse_qs(request.content.decode("utf-8", "replace")).get("grant_type")
        if request.method != "POST" or grant != ["client_credentials"]:
            return as_json({"error": "invalid_request", "error_description": "Unsupported grant type"}, status=400)
        return as_json(
            {
                "access_token": self._issue(now_s),
                "token_type": "bearer",
                "expires_in": int(self._told_s),
                "sub": self._sub,
            }
        )

    def valid(self, request: Request, now_s: float) -> bool:
        """Say whether the request carries a token that lives: issued, and younger than its lifetime."""
        scheme, _, token = (header(request.headers, "authorization") or "").partition(" ")
        return scheme.lower() == "bearer" and now_s < self._ends_s.get(token, now_s)

    def revoke(self, now_s: float) -> None:
        """End every token now."""
        self._ends_s = {token: min(ends_s, now_s) for token, ends_s in self._ends_s.items()}

    def _issue(self, now_s: float) -> str:
        digest = hashlib.blake2b(f"{self._credentials} {self.issued}".encode(), digest_size=16).hexdigest()
        token = f"SIM{digest}"
        self._ends_s[token] = now_s + self._lifetime_s
        return token


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Return a header whatever its spelling; ``name`` in lower case."""
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _credentials(request: Request) -> str | None:
    """Return what the Basic header says, decoded."""
    scheme, _, encoded = (header(request.headers, "authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
