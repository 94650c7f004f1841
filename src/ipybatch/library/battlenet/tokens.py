"""OAuth access tokens, cached and renewed before they expire; and the offset of the server's clock.

    no token, or about to expire --> request one (one task does; the others wait for its answer)
    401 with a valid token       --> request another, unless another task has done so meanwhile
    a refusal                    --> the account's error, for all who wait and for a minute; the session ends
    no answer, three in a row    --> the same error for all who wait and for a second; the breaker counts it

Rule: a token request does not count as a request to the API, and takes no permit.

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
from functools import lru_cache
from typing import Any

import msgspec

from ipybatch.engine.data.masking import mask, register
from ipybatch.errors import InputError, Permanent, Refused, Transient
from ipybatch.library.http import Client, Response, read_json

MARGIN_S = 60.0  # a token is renewed that long before it expires,
MARGIN = 0.05  # or, if that is later, when this share of its lifetime is left
UNTOLD_S = 600.0  # of a token whose lifetime is not told, which RFC 6749 allows; a 401 renews it earlier
LONGEST_S = 86_400.0
GRACE_S = 0.05  # after the beginning of the server's next second
FAILURES = 3  # so many in a row, and those who wait do not ask again each on their own
REFUSED_S, FAILED_S = 60.0, 1.0  # how long a refusal and such a failure are remembered
_WRONG = (
    "it does not accept client_id and client_secret; see those of the client at"
    " https://develop.battle.net/access/clients"
)
_UNOBTAINABLE = "there is no token to be had, and nothing can be fetched without; see region and oauth_url"


class AccessTokens:
    """The access token of one client id, shared by all requests on the engine's event loop.

    Args:
        url: URL of the token service.
    """

    def __init__(self, url: str, client_id: str, client_secret: str) -> None:
        self.url = url
        self._credentials = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        for secret in (client_id, client_secret, self._credentials):
            register(secret)
        self._token = ""
        self._renew_at_s = -math.inf
        self._lock = asyncio.Lock()
        self._failures = 0
        self._error: Exception = Transient("no token")
        self._ask_again_at_s = -math.inf

    def __repr__(self) -> str:
        return f"AccessTokens({mask(self.url)!r})"

    def enter(self) -> None:
        """Belong to the running event loop, and forget what failed: the account may have been put right."""
        self._lock = asyncio.Lock()
        self._failures, self._ask_again_at_s = 0, -math.inf

    async def get(self, client: Client, *, instead_of: str = "") -> str:
        """Return a valid token.

        Args:
            instead_of: A token that the API has rejected.

        Raises:
            Refused: The token service refuses the client, or does not exist any more.
            ItemError: The token service gave no token; the class says whether to try again.
        """
        if self._is_valid(instead_of):
            return self._token
        async with self._lock:
            if not self._is_valid(instead_of):
                if self._now_s() < self._ask_again_at_s:
                    raise self._error.with_traceback(None)
                await self._renew(client)
            return self._token

    def _is_valid(self, instead_of: str) -> bool:
        return self._token != instead_of and self._now_s() < self._renew_at_s

    async def _renew(self, client: Client) -> None:
        try:
            self._token, self._renew_at_s = await self._request(client)
        except Refused as error:
            self._error, self._ask_again_at_s = error, self._now_s() + REFUSED_S
            raise
        except Exception as error:
            self._failures += 1
            if self._failures >= FAILURES:
                self._error, self._ask_again_at_s = error, self._now_s() + FAILED_S
            raise
        self._failures = 0

    async def _request(self, client: Client) -> tuple[str, float]:
        """Return a new token, and when to renew it."""
        sent_s = self._now_s()  # its lifetime may begin now
        response = await client.post(
            f"{self.url}/token",
            data={"grant_type": "client_credentials"},
            headers={"Authorization": f"Basic {self._credentials}"},
            follow_redirects=False,
        )
        try:
            answer = read_json(response, "Battle.net's token service", refused=_WRONG)
        except Permanent as error:  # no fault of an item
            msg = f"{error}{_sentence_of(response)}; {_UNOBTAINABLE}"
            raise Refused(msg) from None
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if isinstance(token, str) and token and token.isascii() and token.isprintable():
            register(token)
            lasts_s = _lifetime_s(answer)
            if lasts_s > 0:
                return token, sent_s + lasts_s - min(MARGIN_S, MARGIN * lasts_s)
        msg = "Battle.net's token service answered without a token"
        raise Transient(msg)

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def _lifetime_s(answer: dict[str, Any]) -> float:
    """Return how long a token lasts: a number, its text, or, where nothing is said, a while; 0.0 for anything else."""
    try:
        lasts_s = float(answer.get("expires_in", UNTOLD_S))
    except (OverflowError, TypeError, ValueError):
        return 0.0
    return min(lasts_s, LONGEST_S) if lasts_s > 0 else 0.0


def _sentence_of(response: Response) -> str:
    """Return what a token service says of its refusal, after a colon; "" for nothing."""
    try:
        said = msgspec.json.decode(response.content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    words = [said.get(name) for name in ("error", "error_description", "detail")]
    told = ", ".join(word[:200] for word in words if isinstance(word, str) and word)
    return f": {told}" if told else ""


def check_credential(field: str, value: Any) -> str:
    """Return a client id or secret without spaces around it.

    Raises:
        InputError: ``value`` is empty or not printable ASCII text; the message does not contain it.
    """
    if not isinstance(value, str) or not value.strip() or not value.isascii() or not value.isprintable():
        what = "nothing" if value is None or value == "" else f"a {type(value).__name__} that cannot be one"
        msg = (
            f"{field} must be the text that https://develop.battle.net/access/clients shows for your client, got {what}"
        )
        raise InputError(msg)
    return value.strip()


class ServerClock:
    """Bounds of the offset between a server's clock and ours, which need only be monotonic."""

    def __init__(self) -> None:
        self._low_s, self._high_s = -math.inf, math.inf  # of server - ours

    def learn(self, stamped_s: float, sent_s: float, received_s: float) -> None:
        """Narrow the bounds by the Date of one answer.

        Args:
            stamped_s: Date of the answer, Unix time.
            sent_s: Time of the request, by our clock.
            received_s: Time of the answer, by our clock.
        """
        low_s, high_s = stamped_s - received_s, stamped_s + 1.0 - sent_s
        together = max(self._low_s, low_s), min(self._high_s, high_s)
        # Bounds that contradict each other: a clock was set, we slept, or another machine answered.
        self._low_s, self._high_s = together if together[0] < together[1] else (low_s, high_s)

    def until_next_s(self, stamped_s: float, now_s: float) -> float:
        """Return the seconds from ``now_s`` to 50 ms after the end of the server's second ``stamped_s``.

        The server's clock may be ahead of the lower bound, never behind it, so a wait ends late rather than early.
        """
        return max(0.0, stamped_s + 1.0 + GRACE_S - (now_s + self._low_s))


@lru_cache(maxsize=8)  # many answers bear the same second
def read_date(text: str | None) -> float | None:
    """Return the Unix time in a Date header; None if it is missing or invalid."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (OverflowError, TypeError, ValueError):
        return None
