"""Tokens: leave to ask Battle.net, for a day or so, in exchange for a client's id and secret.

    missing, or about to end --> ask (one request at a time asks; the others wait for its answer)
    a 401 though it holds    --> ask once more, unless somebody else has done so meanwhile

Rule: a token request is no request to the API and takes no permit.

Source: RFC 6749, sections 4.4 and 2.3.1 (client credentials).
"""

from __future__ import annotations

import asyncio
import base64
import math
from typing import Any, Protocol

from ipybatch.engine.data.masking import mask, register
from ipybatch.errors import InputError, Transient
from ipybatch.library.http import Client, read_json

MARGIN_S = 60.0  # renewed that long before it ends
MARGIN = 0.05  # or, of one that holds shortly, that share of its time
_WRONG = (
    "it does not accept client_id and client_secret; https://develop.battle.net/access/clients shows those of a client"
)


class OAuthClient(Client, Protocol):
    """What is needed of a client that asks for tokens too; `httpx.AsyncClient` has it."""

    async def post(self, url: str, *, data: Any = None, headers: Any = None, follow_redirects: bool = False) -> Any:
        """Send one form and return its `Response`."""


class AccessTokens:
    """One client's token, shared by all requests; it lives on the engine's loop.

    Args:
        url: Where tokens are given.

    Attributes:
        asked: How often a token was asked for.
    """

    def __init__(self, url: str, client_id: str, client_secret: str) -> None:
        self.url = url
        self.asked = 0
        self._credentials = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        for secret in (client_id, client_secret, self._credentials):
            register(secret)
        self._token = ""
        self._renew_at_s = -math.inf
        self._asking = asyncio.Lock()

    def __repr__(self) -> str:
        return f"AccessTokens({mask(self.url)!r})"

    def enter(self) -> None:
        """Belong to the loop that runs now."""
        self._asking = asyncio.Lock()

    async def get(self, client: OAuthClient, *, instead_of: str = "") -> str:
        """Return a token that holds.

        Args:
            instead_of: One that was not accepted.

        Raises:
            Refused: The id or the secret is wrong.
            ItemError: There was no token to be had just now.
        """
        if self._holds(instead_of):
            return self._token
        async with self._asking:
            if not self._holds(instead_of):
                await self._ask(client)
            return self._token

    def _holds(self, instead_of: str) -> bool:
        return self._token != instead_of and asyncio.get_running_loop().time() < self._renew_at_s

    async def _ask(self, client: OAuthClient) -> None:
        sent_s = asyncio.get_running_loop().time()  # it may have begun to run by then
        self.asked += 1
        response = await client.post(
            f"{self.url}/token",
            data={"grant_type": "client_credentials"},
            headers={"Authorization": f"Basic {self._credentials}"},
            follow_redirects=False,
        )
        self._token, lasts_s = _read(read_json(response, "Battle.net's token service", refused=_WRONG))
        self._renew_at_s = sent_s + lasts_s - min(MARGIN_S, MARGIN * lasts_s)


def check_credential(field: str, value: Any) -> str:
    """Return a client's id or secret.

    Raises:
        InputError: It is empty, or no text; the value is not told.
    """
    if not isinstance(value, str) or not value.strip() or not value.isascii() or not value.isprintable():
        what = "nothing" if value is None or value == "" else f"a {type(value).__name__} that cannot be one"
        msg = (
            f"{field} must be the text that https://develop.battle.net/access/clients shows for your client, got {what}"
        )
        raise InputError(msg)
    return value.strip()


def _read(answer: Any) -> tuple[str, float]:
    token = answer.get("access_token") if isinstance(answer, dict) else None
    lasts_s = answer.get("expires_in") if isinstance(answer, dict) else None
    if isinstance(token, str) and token and token.isascii() and token.isprintable():
        register(token)
        if isinstance(lasts_s, int | float) and lasts_s > 0:
            return token, float(lasts_s)
    msg = "Battle.net's token service answered without a token"
    raise Transient(msg)
