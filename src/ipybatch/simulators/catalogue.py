"""The games of the simulated store: everything about one follows from its id.

One name in sixteen is nasty (markup, a formula, emoji, right-to-left text, an apostrophe): each is text that
the real store could show, and that a table, a CSV file or a page must survive.

The shape is the real store's, oddities included: prices are in hundredths also for yen, `required_age` is the
number 0 or a string such as "17", and free or unreleased games have no `price_overview`.

Source: https://wiki.teamfortress.com/wiki/User:RJackson/StorefrontAPI, read 2026-11-22; the endpoint is
undocumented by Valve and may change without notice.
"""

from __future__ import annotations

from random import Random
from typing import Any

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


def game(app_id: int, country: str = "US") -> dict[str, Any]:
    """Return the `data` of one game as appdetails gives it to ``country`` (two capitals)."""
    rng = Random(f"game {app_id}")
    name = game_name(app_id)
    is_free = rng.random() < 0.15
    coming_soon = rng.random() < 0.04
    about = {
        "type": rng.choices(("game", "dlc", "demo", "mod"), (80, 14, 5, 1))[0],
        "name": name,
        "steam_appid": app_id,
        "required_age": rng.choices((0, "17", "18"), (88, 8, 4))[0],
        "is_free": is_free,
        "short_description": f"{name} is a game about a {rng.choice(_NOUNS).lower()} &amp; what was lost there.",
        "supported_languages": "English<strong>*</strong>, German<br><strong>*</strong>languages with full audio",
        "header_image": f"https://cdn.example.invalid/steam/apps/{app_id}/header.jpg?t={rng.randrange(10**9)}",
        "website": rng.choice((None, f"https://games.example.invalid/{app_id}")),
        "developers": rng.sample(_STUDIOS, rng.choice((1, 1, 1, 2))),
        "publishers": [rng.choice(_STUDIOS)],
    }
    price = {} if is_free or coming_soon else {"price_overview": price_overview(app_id, country)}
    return about | price | _rest(rng, coming_soon)


def game_name(app_id: int) -> str:
    """Return the name of one game."""
    rng = Random(f"name {app_id}")
    if rng.random() < 1 / 16:
        return rng.choice(NASTY_NAMES)
    return f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}{rng.choice(_SUFFIXES)}"


def price_overview(app_id: int, country: str) -> dict[str, Any]:
    """Return what a paid game costs in ``country``; countries without a currency of their own here pay in USD."""
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


def _rest(rng: Random, coming_soon: bool) -> dict[str, Any]:
    score, votes = rng.randrange(35, 98), int(rng.paretovariate(0.6) * 60)
    genres = rng.sample(_GENRES, rng.randrange(1, 4))
    categories = rng.sample(_CATEGORIES, rng.randrange(1, 5))
    page = f"https://www.metacritic.example.invalid/game/{score}"
    return {
        "platforms": {"windows": True, "mac": rng.random() < 0.3, "linux": rng.random() < 0.2},
        **({"metacritic": {"score": score, "url": page}} if rng.random() < 0.3 else {}),
        "categories": [{"id": number, "description": text} for number, text in categories],
        "genres": [{"id": number, "description": text} for number, text in genres],
        **({"recommendations": {"total": votes}} if votes > 100 and not coming_soon else {}),
        "release_date": {"coming_soon": coming_soon, "date": _date(rng, coming_soon)},
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
