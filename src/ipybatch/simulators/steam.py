"""The Steam store and the list of owned games, as clients of the real services see them.

    GET /api/appdetails?appids=ID[&cc=DE][&l=german]          {"ID": {"success": true, "data": {...}}}
                                                              {"ID": {"success": false}}: no such game, or not sold
                                                              there; the real store does not say which
    GET /api/appdetails?appids=1,2&filters=price_overview     several ids; without that filter 400 and null
    too many                                                  429 and null, no Retry-After
    too many for too long                                     403
    GET /IPlayerService/GetOwnedGames/v1?key=..&steamid=..    {"response": {"game_count": 2, "games": [...]}}
                                                              {"response": {}}: a private profile; 401: a wrong key

A game's data is computed from its id.  One name in sixteen is hostile input (markup, a formula, emoji, right-to-left
text, an apostrophe), as the real store could return it, and as a table, a CSV file or a page must survive it.  The
real store's oddities are kept: prices are in hundredths also for yen, `required_age` is the number 0 or a string such
as "17", and free or unreleased games have no `price_overview`.

The store's endpoint is undocumented: this is what people observe, and Valve may change it at any time.

Source: https://wiki.teamfortress.com/wiki/User:RJackson/StorefrontAPI (shape, several ids),
https://steamdb.info/blog/store-prices-api/ (200 requests per 5 minutes) and
https://github.com/daniel-tran/steam-points-shop-search/wiki/Rate-Limiting-by-the-Steam-API (429, then 403),
read 2026-11-22.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from .faults import Faults, check, uniforms
from .service import Reply, Request, Service, Traffic, as_json, as_page

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

DETAILS = "/api/appdetails"
OWNED = "/IPlayerService/GetOwnedGames"


class SteamSimulator(Service):
    """The Steam store: games are computed from their ids, and faults from the seed of `faults`."""

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
        part_of: Mapping[int, int] | None = None,
        left_out: Collection[int] = (),
        key: str = "SIMULATED",
        libraries: Mapping[str, Sequence[int]] | None = None,
        library_size: int = 500,
        private: Collection[str] = (),
    ) -> None:
        """Set up the store.

        Args:
            faults: Injected faults; default none.
            limit: Requests to the store in any ``per_s`` seconds, >= 1; None for no limit.  GetOwnedGames does not
                count.
            per_s: Length of the sliding window, seconds, > 0.
            ban_after: 429s within ``per_s`` that lead to a ban, >= 1; None for no bans.  Injected 429s do not count.
            ban_s: How long a ban lasts, seconds, > 0.
            missing: Ids without a game.
            missing_rate: Share of all other ids without a game, [0, 1], chosen by the seed of ``faults``.
            not_sold_in: Ids not sold in a country, by country code: ``{"DE": {440}}``.
            part_of: Ids that are answered with the details of another: ``{441: 440}``.
            left_out: Ids that an answer for several leaves out.
            key: The Web API key that GetOwnedGames accepts.
            libraries: Ids owned, by steamid; a steamid that is not listed owns ``library_size`` ids of its own.
            library_size: Games of a steamid that is not listed, >= 0.
            private: Steamids whose profile is private.

        Raises:
            ValueError: A value is outside its range.
        """
        check("missing_rate", 0 <= missing_rate <= 1, "in [0, 1]", missing_rate)
        check("library_size", library_size >= 0, ">= 0", library_size)
        windows = [] if limit is None else [(limit, per_s)]
        super().__init__(faults=faults, traffic=Traffic(windows, ban_after=ban_after, ban_s=ban_s))
        self._missing = frozenset(missing)
        self._missing_rate = missing_rate
        self._not_sold_in = {country.upper(): frozenset(ids) for country, ids in (not_sold_in or {}).items()}
        self._part_of = dict(part_of or {})
        self._left_out = frozenset(left_out)
        self._key = key
        self._libraries = dict(libraries or {})
        self._library_size = library_size
        self._private = frozenset(private)

    def items(self, request: Request) -> Sequence[str]:
        """Return the ids that the request asks for."""
        return [text for text in request.query.get("appids", "").split(",") if text] if self.rationed(request) else ()

    def rationed(self, request: Request) -> bool:
        """Return whether the request is for the store, not for the list of owned games."""
        return not request.path.startswith(OWNED)

    def answer(self, request: Request) -> Reply:
        """Return the answer without faults."""
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
        """Return whether the store has this game in ``country``: the expected result in tests."""
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
        told = [text for text in ids if len(ids) == 1 or int(text) not in self._left_out]
        language = request.query.get("l", "english")
        return as_json({text: self._entry(int(text), country, language, prices_only) for text in told})

    def _entry(self, app_id: int, country: str, language: str, prices_only: bool) -> dict[str, Any]:
        if not self.has(app_id, country):
            return {"success": False}
        data = game(self._part_of.get(app_id, app_id), country, language)
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
        games = []
        for app_id in self.library(steam_id):
            rng = Random(f"owned {app_id}")
            about = {"name": game_name(app_id), "img_icon_url": f"{rng.getrandbits(160):040x}"} if named else {}
            minutes = 0 if rng.random() < 0.4 else int(rng.expovariate(1 / 900))
            games.append({"appid": app_id, **about, "playtime_forever": minutes})
        return as_json({"response": {"game_count": len(games), "games": games}})


NASTY_NAMES = (
    '<script>alert("owned")</script>',
    '<img src=x onerror="document.title=1">',
    '=HYPERLINK("http://example.invalid";"Free game")',
    "+1 Up & Away",
    "-2+3 Lives",
    "@Sum of All Fears",
    "🐉 Dragon 竜の物語 🐉",
    "لعبة الظلال",
    "Robert'); DROP TABLE games;--",
    'Quote "Unquote", Comma',
    "{{7*7}} $PATH `id` %s",
    "Zero\u200bWidth\u202eSpaces",
)
_ADJECTIVES = ("Silent", "Crimson", "Lost", "Endless", "Broken", "Hidden", "Iron", "Frozen", "Little", "Last")
_NOUNS = ("Harbor", "Empire", "Orchard", "Signal", "Dungeon", "Voyage", "Garden", "Circuit", "Kingdom", "Tide")
_SUFFIXES = ("", "", "", " II", " Tactics", ": Reforged", " Simulator", "™", " - Definitive Edition", " VR")
_STUDIOS = ("Northlight Works", "Bitfold", "Café Röntgen", "Two Owls, Inc.", "Kappa & Sons", "Studio 墨")
_GENRES = (("1", "Action"), ("2", "Strategy"), ("3", "RPG"), ("4", "Casual"), ("23", "Indie"), ("25", "Adventure"))
_CATEGORIES = ((2, "Single-player"), (1, "Multi-player"), (9, "Co-op"), (22, "Steam Achievements"), (23, "Steam Cloud"))
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CURRENCIES = {"US": ("USD", 1.0), "GB": ("GBP", 0.85), "JP": ("JPY", 140.0)} | dict.fromkeys(
    ("AT", "BE", "DE", "ES", "FI", "FR", "IE", "IT", "NL", "PT"), ("EUR", 0.98)
)


def game(app_id: int, country: str = "US", language: str = "english") -> dict[str, Any]:
    """Return the `data` of one game as appdetails returns it for ``country`` (a code such as "DE").

    Args:
        language: The store's name of a language: "german" texts say so.
    """
    rng = Random(f"game {app_id}")
    name = game_name(app_id)
    spoken = "" if language == "english" else f"({language}) "
    is_free = rng.random() < 0.15
    coming_soon = rng.random() < 0.04
    about = {
        "type": rng.choices(("game", "dlc", "demo", "mod"), (80, 14, 5, 1))[0],
        "name": name,
        "steam_appid": app_id,
        "required_age": rng.choices((0, "17", "18"), (88, 8, 4))[0],
        "is_free": is_free,
        "short_description": f"{spoken}{name} is about a {rng.choice(_NOUNS).lower()} &amp; what was lost there.",
        "supported_languages": "English<strong>*</strong>, German<br><strong>*</strong>languages with full audio",
        "header_image": f"https://cdn.example.invalid/steam/apps/{app_id}/header.jpg?t={rng.randrange(10**9)}",
        "website": rng.choice((None, f"https://games.example.invalid/{app_id}")),
        "developers": rng.sample(_STUDIOS, rng.choice((1, 1, 1, 2))),
        "publishers": [rng.choice(_STUDIOS)],
    }
    price = {} if is_free or coming_soon else {"price_overview": price_overview(app_id, country)}
    score, votes = rng.randrange(35, 98), int(rng.paretovariate(0.6) * 60)
    genres = rng.sample(_GENRES, rng.randrange(1, 4))
    categories = rng.sample(_CATEGORIES, rng.randrange(1, 5))
    page = f"https://www.metacritic.example.invalid/game/{score}"
    more = {
        "platforms": {"windows": True, "mac": rng.random() < 0.3, "linux": rng.random() < 0.2},
        **({"metacritic": {"score": score, "url": page}} if rng.random() < 0.3 else {}),
        "categories": [{"id": number, "description": text} for number, text in categories],
        "genres": [{"id": number, "description": text} for number, text in genres],
        **({"recommendations": {"total": votes}} if votes > 100 and not coming_soon else {}),
        "release_date": {"coming_soon": coming_soon, "date": _date(rng, coming_soon)},
    }
    return about | price | more


def game_name(app_id: int) -> str:
    """Return the name of one game."""
    rng = Random(f"name {app_id}")
    if rng.random() < 1 / 16:
        return rng.choice(NASTY_NAMES)
    return f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}{rng.choice(_SUFFIXES)}"


def price_overview(app_id: int, country: str) -> dict[str, Any]:
    """Return the price of a paid game in ``country``; countries without a currency here pay in USD."""
    rng = Random(f"price {app_id}")
    currency, rate = _CURRENCIES.get(country, _CURRENCIES["US"])
    units = rng.choice((1, 3, 5, 8, 10, 15, 20, 25, 30, 40, 60)) * rate
    initial = round(units) * 100 if currency == "JPY" else max(1, round(units)) * 100 - 1
    discount = rng.choices((0, 10, 20, 25, 33, 50, 75, 90), (60, 6, 6, 6, 6, 8, 6, 2))[0]
    final = initial * (100 - discount) // 100
    return {
        "currency": currency,
        "initial": initial,
        "final": final,
        "discount_percent": discount,
        "initial_formatted": _money(initial, currency) if discount else "",
        "final_formatted": _money(final, currency),
    }


def _date(rng: Random, coming_soon: bool) -> str:
    if coming_soon:
        return rng.choice(("Coming soon", "To be announced", "Q1 2027", "2027", ""))
    return f"{rng.choice(_MONTHS)} {rng.randrange(1, 29)}, {rng.randrange(2004, 2027)}"


def _money(hundredths: int, currency: str) -> str:
    whole, cents = divmod(hundredths, 100)
    if currency == "JPY":
        return f"¥ {whole:,}"
    if currency == "EUR":
        return f"{whole},{cents:02}€"
    return f"{'£' if currency == 'GBP' else '$'}{whole}.{cents:02}"
