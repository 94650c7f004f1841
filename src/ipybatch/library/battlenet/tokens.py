"""Tokens: OAuth access tokens, cached and renewed before they expire; and the server's clock, from its Date headers.

    missing, or about to expire --> request (one request at a time; others wait for its answer)
    a 401 although it is valid  --> request once more, unless another attempt has done so meanwhile

Rule: a token request is no request to the API and takes no permit.

Source: RFC 6749, sections 4.4 and 2.3.1 (client credentials).

A Date header has whole seconds, so an answer puts the server's clock between two bounds:

    sent ------- stamped "12:00:05" ------- received        12:00:05 <= server's clock < 12:00:06
    5 - received <= server - ours < 6 - sent

The bounds of many answers are intersected: a hundred a second leave a few milliseconds.
"""

from __future__ import annotations

import asyncio
import base64
import math
from email.utils import parsedate_to_datetime
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


GRACE_S = 0.05


class ServerClock:
    """A server's clock, seen from ours."""

    def __init__(self) -> None:
        self._low_s, self._high_s = -math.inf, math.inf  # of server - ours

    def learn(self, stamped_s: float, sent_s: float, received_s: float) -> None:
        """Take an answer's Date.

        Args:
            stamped_s: As Unix time.
            sent_s: When the request was sent, by our clock; ``received_s`` likewise.
        """
        low_s, high_s = stamped_s - received_s, stamped_s + 1.0 - sent_s
        together = max(self._low_s, low_s), min(self._high_s, high_s)
        # Bounds that contradict each other: a clock was set, we slept, or another machine answered.
        self._low_s, self._high_s = together if together[0] < together[1] else (low_s, high_s)

    def until_next_s(self, stamped_s: float, now_s: float) -> float:
        """Return seconds from ``now_s`` to 50 ms after the end of the second ``stamped_s``.

        The server's clock may be ahead of the lower bound, never behind it: what waits is late rather than early.
        """
        return max(0.0, stamped_s + 1.0 + GRACE_S - (now_s + self._low_s))


def read_date(text: str | None) -> float | None:
    """Return what a Date header says as Unix time; None if it is none."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (OverflowError, TypeError, ValueError):
        return None
