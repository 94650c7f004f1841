"""Calls: one request to Battle.net, with a token, a permit, and its word on how fast.

permit --> token --> GET --401--> another permit --> a newer token --> GET --401--> refused
                      |
                      +--429--> wait for the server's next second, then once more; then the item fails
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from ipybatch.engine.rules.retry import parse_retry_after
from ipybatch.engine.run.permits import Attempt
from ipybatch.errors import RateLimited, Transient
from ipybatch.library.clients import TIMEOUT_S
from ipybatch.library.seconds import Seconds, read_date
from ipybatch.library.tokens import Poster, Tokens


class Calls:
    """Send requests on behalf of one client id.

    Args:
        params: What every address ends in: namespace and locale.
    """

    def __init__(self, tokens: Tokens, params: dict[str, str]) -> None:
        self._tokens, self._params = tokens, params
        self._seconds = Seconds()
        self._slowed: set[str] = set()  # keys of items that were told to slow down in this round of attempts

    async def get(self, client: Poster, url: str, attempt: Attempt, *, since: str = "", is_first: bool = False) -> Any:
        """Return the response to one request; any status but 429.

        Args:
            since: Ask for what was modified since then only, as Last-Modified said it.
            is_first: Whether it is the attempt's first request, which has a permit already.

        Raises:
            Transient: It came too fast (`RateLimited`, mostly).
            Refused: There is no token to be had for id and secret.
        """
        if is_first and attempt.number == 1:
            self._slowed.discard(attempt.key)
        permit = nullcontext() if is_first else attempt.permit()
        response, token = await self._send(client, url, permit, since)
        if response.status_code == 401:
            response, _ = await self._send(client, url, attempt.permit(), since, instead_of=token)
        if response.status_code == 429:
            raise self._slow_down(response, attempt)
        return response

    async def _send(
        self,
        client: Poster,
        url: str,
        permit: AbstractAsyncContextManager[None],
        since: str,
        *,
        instead_of: str = "",
    ) -> tuple[Any, str]:
        now_s = asyncio.get_running_loop().time
        async with permit, asyncio.timeout(2 * TIMEOUT_S):  # the permit first: it may take an hour to come
            token = await self._tokens.get(client, instead_of=instead_of)
            headers = {"Authorization": f"Bearer {token}", **({"If-Modified-Since": since} if since else {})}
            sent_s = now_s()
            response = await client.get(url, params=self._params, headers=headers, follow_redirects=False)
            stamped_s = read_date(response.headers.get("date"))
            if stamped_s is not None:
                self._seconds.learn(stamped_s, sent_s, now_s())
            return response, token

    def _slow_down(self, response: Any, attempt: Attempt) -> Transient:
        """Return what makes the engine try once more after the server's next second, and no more than once.

        The engine gives an item up at a 429 of any attempt but the first.  One that comes after another failure is
        still the first 429 of its item.
        """
        is_first, said = attempt.key not in self._slowed, "Battle.net answered 429: too many requests"
        self._slowed.add(attempt.key)
        wait_s = self._wait_s(response)
        if attempt.number == 1 or not is_first or wait_s is None:
            return RateLimited(said, retry_after_s=wait_s)
        return Transient(said, retry_after_s=wait_s, counts=False)

    def _wait_s(self, response: Any) -> float | None:
        stamped_s = read_date(response.headers.get("date"))
        if stamped_s is None:  # then the engine waits by our clock
            return parse_retry_after(response.headers, time.time())
        asked_s = parse_retry_after(response.headers, stamped_s)
        now_s = asyncio.get_running_loop().time()
        return self._seconds.until_next_s(stamped_s, now_s) if asked_s is None else asked_s
