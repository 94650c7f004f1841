"""`SteamPrices`: the store's prices of many games in one request.

    GET store.steampowered.com/api/appdetails?appids=440,570&cc=us&filters=price_overview

        {"440": {"success": true, "data": {"price_overview": {"currency": "USD", "final": 999, ...}}},
         "570": {"success": true, "data": []}}        free, or not for sale

Items are app ids, each with an outcome and a record of its own.  Those that run at the same time share requests:

    items --> waiting --no more for 20 ms--> permit --> one request for up to 100 --> each has its own price or error
                                                            |
                                                            +--> fails: asked again in tenths, down to the one game
                                                                 that it fails for; that one alone fails, and is
                                                                 asked for alone from then on

A game that an answer does not name is asked for once more, alone.  So many failures in a row are no game's fault: then
they are the error of all who wait.

Only this filter takes several ids; the store answers any other request for several with 400.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.policy import Limits, check_count
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import Permanent, RateLimited, Refused, Transient
from ipybatch.library.http import TIMEOUT_S, Client, HttpSource, check_url, read_json
from ipybatch.library.source import Defaults, Identity, NotThere
from ipybatch.library.steam import (
    BANNED,
    DETAILS,
    STORE_RATE,
    STORE_URL,
    StoreSettings,
    app_id_of,
    country_of,
    resource_at,
)

IDS_PER_REQUEST = 100
LINGER_S = 0.02  # for the next item: where all that ran ended together, their outcomes are recorded first
FAILURES = 3  # so many in a row, and those who wait do not ask again each on their own
REJECTIONS = 20  # the same for answers that say that it cannot succeed: the service is there
PARTS = 10  # of a request that failed

_NO_PRICES = "the Steam store answered without prices"

Answer = asyncio.Future[dict[str, Any]]


class SteamPrices(HttpSource):
    """The Steam store as a source of prices, of which one request gives many.

    A record's kind is "price", its place the country, and its data ``{"price_overview": {...}}``, in hundredths of the
    currency; None instead of a price for what is free or not for sale.

    Args:
        base_url: URL of the store.
        client: An `httpx2.AsyncClient` or `httpx.AsyncClient` of yours; it stays open. Default: a client of the
            source's own, opened with its first session and closed with its last.
        cc: Country of the prices, two letters.
        ids_per_request: Games in one request, 1 to 1000; fewer where ``limits=`` lets fewer items run at once.

    Raises:
        InputError: An argument is invalid; names it, its value and the allowed values.

    Example:
        >>> from ipybatch.library import Library, SteamPrices, refresh
        >>> from ipybatch.simulators import serve
        >>> with serve("steam") as url:
        ...     session = refresh(range(10, 260), source=SteamPrices(url), library=Library("prices.db"))
        ...     print(session.run())
        steam prices refresh completed: 250/250 successful, 0 failed, 0 skipped
    """

    def __init__(
        self,
        base_url: str = STORE_URL,
        client: Client | None = None,
        cc: str = "us",
        *,
        ids_per_request: int = IDS_PER_REQUEST,
    ) -> None:
        super().__init__(client)
        self.ids_per_request = check_count("ids_per_request", ids_per_request, low=1, high=1000)
        self.base_url, self.cc = check_url("base_url", base_url), country_of(cc)
        self._waiting: dict[Answer, int] = {}
        self._turn = asyncio.Lock()
        self._failures = 0
        self._alone: set[int] = set()  # games that a request failed for
        self._has_told = False  # it has told of any game

    def __repr__(self) -> str:
        return f"SteamPrices({mask(self.base_url)!r}, cc={self.cc!r})"

    def defaults(self) -> Defaults:
        """Return the policy of the store: its own rate, and no pause between items that share a request."""
        settings = StoreSettings.from_environment()
        return Defaults(
            name="steam prices refresh",
            resource=resource_at(self.base_url),
            settings={"source": "steam prices", "cc": self.cc},
            limits=Limits(concurrency=self.ids_per_request, rates=[STORE_RATE]),
            retry=settings.retry(),
            breaker=settings.breaker(),
            timeout_s=None,  # each request has its own; a permit may take minutes
            shares_requests=True,
            items_per_request=self.ids_per_request,
        )

    def identify(self, item: Any) -> Identity:
        """Return the key of a price's record.

        Raises:
            InputError: The app id is not a whole number, or is out of range.
        """
        return Identity(kind="price", key=app_id_of(item), place=self.cc)

    async def __aenter__(self) -> SteamPrices:
        """Open a client, unless one was given."""
        await super().__aenter__()
        if self._entered == 1:
            self._waiting, self._turn, self._failures, self._alone = {}, asyncio.Lock(), 0, set()
            self._has_told = False
        return self

    async def fetch(
        self, item: Any, attempt: Attempt, kept: dict[str, Any] | None = None, expand: str = ""
    ) -> dict[str, Any]:
        """Return the price of one game, from a request that other items share.

        Raises:
            NotThere: The store has no such game, or does not sell it in the country.
            ItemError: The fetch failed; the class says whether it is tried again.
        """
        answer: Answer = asyncio.get_running_loop().create_future()
        self._waiting[answer] = item
        try:
            async with self._turn:
                if not answer.done():
                    await self._ask(answer, attempt)
            return await answer
        finally:
            self._waiting.pop(answer, None)

    async def _ask(self, mine: Answer, attempt: Attempt) -> None:
        """Send requests for the items that wait, this one first, and give each of them its answer."""
        seen = 0
        while seen < len(self._waiting) < self.ids_per_request:
            seen = len(self._waiting)
            await asyncio.sleep(LINGER_S)
        async with attempt.permit():
            parts = await self._send(self._together(mine))
        while parts:
            part = [answer for answer in parts.pop(0) if not answer.done()]
            if part:
                async with attempt.permit():
                    parts = await self._send(part) + parts

    def _together(self, mine: Answer) -> list[Answer]:
        """Return who is asked for in one request with an item."""
        if self._waiting[mine] in self._alone:
            return [mine]
        others = [answer for answer in self._waiting if answer is not mine and not answer.done()]
        others = [answer for answer in others if self._waiting[answer] not in self._alone]
        return [mine, *others[: self.ids_per_request - 1]]

    async def _send(self, asked: list[Answer]) -> list[list[Answer]]:
        """Send one request, and give each item its answer; return those that are to be asked for again, in parts."""
        ids = {answer: self._waiting[answer] for answer in asked if answer in self._waiting}
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                found = await self._request(sorted(set(ids.values())))
            is_told = any(_is_told(found.get(str(app_id))) for app_id in ids.values())
            if not is_told and (len(ids) > 1 or self._failures or not self._has_told):
                raise Transient(_NO_PRICES)
        except Exception as error:
            self._failures += 1
            return self._divide(ids, error)
        self._failures, self._has_told = 0, True
        self._alone.difference_update(ids.values())
        unnamed = []
        for answer, app_id in ids.items():
            if answer.done():  # its item was given up meanwhile
                continue
            entry = found.get(str(app_id))
            if len(ids) > 1 and not _is_told(entry):  # alone it may be answered
                unnamed.append([answer])
            else:
                _settle(answer, app_id, entry, self.cc)
        return unnamed

    def _divide(self, ids: dict[Answer, int], error: Exception) -> list[list[Answer]]:
        """Return the parts of a request that failed, to be asked for again; give its error to those who are not."""
        asked = [*ids]
        if len(asked) == 1 and not isinstance(error, RateLimited | Refused):
            self._alone.update(ids.values())
        most = REJECTIONS if isinstance(error, Permanent) else FAILURES
        if self._failures >= most or isinstance(error, Refused):
            self._fail([*self._waiting], error)
        elif len(asked) == 1 or isinstance(error, RateLimited):
            self._fail(asked[:1], error)
        else:
            size = math.ceil(len(asked) / PARTS)
            return [asked[at : at + size] for at in range(0, len(asked), size)]
        return []

    async def _request(self, ids: list[int]) -> dict[str, Any]:
        params = {"appids": ",".join(map(str, ids)), "cc": self.cc, "filters": "price_overview"}
        response = await self._client.get(f"{self.base_url}{DETAILS}", params=params, follow_redirects=False)
        found = read_json(response, "the Steam store", refused=BANNED)
        if not isinstance(found, dict):
            raise Transient(_NO_PRICES)
        return found

    @staticmethod
    def _fail(answers: list[Answer], error: Exception) -> None:
        for answer in answers:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # it may have been given up: then nobody asks


def _is_told(entry: Any) -> bool:
    """Return whether a request's answer says anything of a game."""
    if not isinstance(entry, dict):
        return False
    data = entry.get("data")
    has_price = isinstance(data, dict) and isinstance(data.get("price_overview"), dict)
    return entry.get("success") is False or (entry.get("success") is True and (has_price or data in ([], {})))


def _settle(answer: Answer, app_id: int, entry: Any, country: str) -> None:
    """Give one item what a request's answer says of it."""
    if not _is_told(entry):  # the service is there, and answers others
        answer.set_exception(Permanent(f"the Steam store answered without the price of {app_id}"))
    elif entry["success"] is False:
        answer.set_exception(NotThere(f"no such game, or not sold in {country.upper()}"))
    else:
        answer.set_result({"price_overview": entry["data"]["price_overview"] if entry["data"] else None})
    answer.exception()  # it may have been given up: then nobody asks
