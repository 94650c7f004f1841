"""The Steam store and the list of owned games, as clients of the real ones see them.

    GET /api/appdetails?appids=ID[&cc=DE]                     {"ID": {"success": true, "data": {...}}}
                                                              {"ID": {"success": false}}: no such game, or not sold
                                                              there; the real store does not say which
    GET /api/appdetails?appids=1,2&filters=price_overview     several ids; without that filter 400 and null
    too many                                                  429 and null, no Retry-After
    too many for too long                                     403
    GET /IPlayerService/GetOwnedGames/v1?key=..&steamid=..    {"response": {"game_count": 2, "games": [...]}}
                                                              {"response": {}}: a private profile; 401: a wrong key

The store's endpoint is undocumented: this is what people observe, and Valve may change it any day.

Source: https://wiki.teamfortress.com/wiki/User:RJackson/StorefrontAPI (shape, several ids),
https://steamdb.info/blog/store-prices-api/ (200 requests per 5 minutes) and
https://github.com/daniel-tran/steam-points-shop-search/wiki/Rate-Limiting-by-the-Steam-API (429, then 403),
read 2026-11-22.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from .catalogue import game, game_name, price_overview
from .faults import Faults, uniforms
from .service import Reply, Request, Service, as_json, as_page
from .traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

DETAILS = "/api/appdetails"
OWNED = "/IPlayerService/GetOwnedGames"


class SteamSimulator(Service):
    """The store, deterministic: a game follows from its id, a fault from the seed of `faults`."""

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        limit: int | None = 200,
        per_s: float = 300.0,
        ban_after: int | None = 20,
        ban_s: float = 300.0,
        missing: Collection[int] = (),
        missing_rate: float = 0.0,
        not_sold_in: Mapping[str, Collection[int]] | None = None,
        key: str = "SIMULATED",
        libraries: Mapping[str, Sequence[int]] | None = None,
        library_size: int = 500,
        private: Collection[str] = (),
    ) -> None:
        """Open the store.

        Args:
            faults: What goes wrong; default nothing.
            limit: Requests to the store in any ``per_s`` seconds, >= 1; None for no limit.  GetOwnedGames is another
                service and does not count.
            per_s: Length of the sliding window, seconds, > 0.
            ban_after: 429s within ``per_s`` that end in a ban, >= 1; None for no bans.  Injected 429s do not count.
            ban_s: How long a ban lasts, seconds, > 0.
            missing: Ids without a game.
            missing_rate: Share of all other ids without a game, [0, 1]; the seed of ``faults`` decides which.
            not_sold_in: Ids not sold in a country, by its two capitals: ``{"DE": {440}}``.
            key: The Web API key that GetOwnedGames accepts.
            libraries: Ids owned, by steamid; a steamid that is not listed owns ``library_size`` ids of its own.
            library_size: Games of a steamid that is not listed, >= 0.
            private: Steamids whose profile is private.

        Raises:
            ValueError: A value is outside its range.
        """
        for name, ok, allowed, value in (
            ("missing_rate", 0 <= missing_rate <= 1, "in [0, 1]", missing_rate),
            ("library_size", library_size >= 0, ">= 0", library_size),
        ):
            if not ok:
                msg = f"{name} must be {allowed}, got {value!r}"
                raise ValueError(msg)
        windows = [] if limit is None else [(limit, per_s)]
        super().__init__(faults=faults, traffic=Traffic(windows, ban_after=ban_after, ban_s=ban_s))
        self._missing = frozenset(missing)
        self._missing_rate = missing_rate
        self._not_sold_in = {country.upper(): frozenset(ids) for country, ids in (not_sold_in or {}).items()}
        self._key = key
        self._libraries = dict(libraries or {})
        self._library_size = library_size
        self._private = frozenset(private)

    def items(self, request: Request) -> Sequence[str]:
        """Return the ids asked for."""
        return [text for text in request.query.get("appids", "").split(",") if text] if self.rationed(request) else ()

    def rationed(self, request: Request) -> bool:
        """Say whether the store, not the list of owned games, is asked."""
        return not request.path.startswith(OWNED)

    def answer(self, request: Request) -> Reply:
        """Answer as a store without trouble does."""
        if request.path == DETAILS:
            return self._details(request)
        if request.path in (f"{OWNED}/v1", f"{OWNED}/v0001"):
            return self._owned(request)
        return as_page("Not Found", status=404)

    def refusal(self, status: int) -> Reply:
        """Return 429 with the body `null` and no Retry-After, or 403 with a page."""
        if status == 429:
            return as_json(None, status=429)
        return as_page("Access Denied", status=status)

    def has(self, app_id: int, country: str = "US") -> bool:
        """Say whether the store shows this game in ``country``; tests use it as the truth."""
        if app_id in self._missing or app_id in self._not_sold_in.get(country.upper(), ()):
            return False
        return uniforms("missing", self.faults.seed, app_id)[0] >= self._missing_rate

    def library(self, steam_id: str) -> list[int]:
        """Return the ids that ``steam_id`` owns, in the order of the reply."""
        if steam_id in self._libraries:
            return list(self._libraries[steam_id])
        return sorted(Random(f"library {steam_id}").sample(range(10, 3_000_000, 10), self._library_size))

    def _details(self, request: Request) -> Reply:
        ids = self.items(request)
        prices_only = request.query.get("filters") == "price_overview"
        if not ids or not all(text.isascii() and text.isdigit() for text in ids) or (len(ids) > 1 and not prices_only):
            return as_json(None, status=400)
        country = request.query.get("cc", "US").upper()
        return as_json({text: self._entry(int(text), country, prices_only) for text in ids})

    def _entry(self, app_id: int, country: str, prices_only: bool) -> dict[str, Any]:
        if not self.has(app_id, country):
            return {"success": False}
        data = game(app_id, country)
        if not prices_only:
            return {"success": True, "data": data}
        # a game without a price has an empty list here, not an empty object
        priced = {"price_overview": price_overview(app_id, country)} if "price_overview" in data else []
        return {"success": True, "data": priced}

    def _owned(self, request: Request) -> Reply:
        if request.query.get("key") != self._key:
            return as_page("Unauthorized: please verify your key= parameter", status=401)
        steam_id = request.query.get("steamid", "")
        if not steam_id.isdigit():
            return as_page("Bad Request", status=400)
        if steam_id in self._private:
            return as_json({"response": {}})
        named = request.query.get("include_appinfo", "0").lower() in ("1", "true")
        games = [_owned_game(app_id, named=named) for app_id in self.library(steam_id)]
        return as_json({"response": {"game_count": len(games), "games": games}})


def _owned_game(app_id: int, *, named: bool) -> dict[str, Any]:
    """Return one game of a library; its name and icon come only when asked for with include_appinfo."""
    rng = Random(f"owned {app_id}")
    about = {"name": game_name(app_id), "img_icon_url": f"{rng.getrandbits(160):040x}"} if named else {}
    minutes = 0 if rng.random() < 0.4 else int(rng.expovariate(1 / 900))
    return {"appid": app_id, **about, "playtime_forever": minutes}
