"""Test data of the simulated Battle.net: guilds and characters, computed from region, realm and name.

So any well-formed name exists: a slug in lower case, without apostrophes, its words joined by hyphens, accents and
Cyrillic kept.  A name that is not a slug (Kel'Thuzad, Aerie Peak, LEEROY) is not found, as by the real service, and the
slugs of realms are Latin.
Digits are accepted, unlike there, so that tests may number their characters.

    realm      --in pairs--> its connected realm; the guilds of `GUILDS` are at the first of the pair
    guild      --ending of its members' names--> roster, one in eight of it from the connected realm
    character  --ending of its name--> its guild, one of `GUILDS`, or none

Source: the realms and their slugs as https://github.com/wboyz/wow-io lists them, data/realms.ts, read 2026-11-22.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import product
from random import Random
from typing import Any

REGIONS = ("us", "eu", "kr", "tw", "cn")
REALMS = {
    "aerie-peak": "Aerie Peak",
    "kelthuzad": "Kel'Thuzad",
    "area-52": "Area 52",
    "malganis": "Mal'Ganis",
    "argent-dawn": "Argent Dawn",
    "quelthalas": "Quel'Thalas",
    "azjolnerub": "Azjol-Nerub",
    "cthun": "C'Thun",
    "confrérie-du-thorium": "Confrérie du Thorium",
    "chants-éternels": "Chants éternels",
    "pozzo-delleternità": "Pozzo dell'Eternità",
    "aggra-português": "Aggra (Português)",
    "howling-fjord": "Ревущий фьорд",
    "gordunni": "Гордунни",
    "die-nachtwache": "Die Nachtwache",
    "stormrage": "Stormrage",
    "azshara": "아즈샤라",
    "sundown-marsh": "日落沼泽",
}
GUILDS = (
    "Méchants Loups",
    "Strangers With Candy",
    "Стражи Севера",
    "Les Clairvoyants",
    "Nachtwächter",
    "Knights of the Ebon Blade",
    "Última Esperança",
    "Ravenfall",
)
_SYLLABLES = ("ka", "ra", "el", "thi", "mor", "zu", "lé", "an", "dri", "øs", "va", "grü", "ny", "sha", "bel", "é")
_CYRILLIC = ("ка", "жа", "ел", "ти", "мор", "зу", "лё", "ан", "дри", "юш", "ва", "гил", "ны", "ша", "бел", "й")
_ENDINGS = ("dor", "ril", "мир", "wen", "gar", "nna", "lys", "zul")
_LONELY = "eth"
_CLASSES = ("Warrior", "Paladin", "Hunter", "Rogue", "Priest", "Death Knight", "Shaman", "Mage", "Warlock", "Monk")
_RACES = ("Human", "Orc", "Dwarf", "Night Elf", "Undead", "Tauren", "Gnome", "Troll")
_SLOTS = ("Head", "Neck", "Shoulder", "Chest", "Waist", "Legs", "Feet", "Wrist", "Hands", "Back", "Main Hand")
_QUALITIES = ("Uncommon", "Rare", "Epic", "Legendary")
_SLUG = re.compile(r"[^\W_]+(-[^\W_]+)*")


def slug(name: str) -> str:
    """Return the slug of a guild's name: "Méchants Loups" is méchants-loups."""
    kept = "".join(letter for letter in name.lower() if letter not in "'\u2019()")
    return unicodedata.normalize("NFC", "-".join(kept.split()))


def well_formed(text: str) -> bool:
    """Return whether this is a slug of at most 48 characters of letters, digits and single hyphens."""
    plain = text == text.lower() == unicodedata.normalize("NFC", text)
    return plain and len(text) <= 48 and _SLUG.fullmatch(text) is not None


def is_latin(text: str) -> bool:
    """Return whether every letter is Latin, accents or not."""
    return all(unicodedata.name(letter, "").startswith("LATIN") for letter in text if letter.isalpha())


def realms(locale: str | None) -> list[dict[str, Any]]:
    """Return the index of realms: each name in one language, or in all, None; the realm's own and English here."""
    found = []
    for number, (slug_of, name) in enumerate(REALMS.items()):
        script = unicodedata.name(name[0]).split()[0]
        own = _LANGUAGES.get(script, "en_US")
        english = name if is_latin(name) else slug_of.replace("-", " ").title()
        names = {"en_US": english, own: name}
        found.append({"id": 1 + number, "name": names.get(locale, english) if locale else names, "slug": slug_of})
    return found


def guild(region: str, realm: str, name: str, changes: int = 0) -> dict[str, Any]:
    """Return a guild by its two slugs, after so many ``changes``."""
    rng = Random(f"guild {region} {realm} {name}")
    return {
        "id": rng.randrange(10**7, 10**8),
        "name": _NAMES.get(name) or name.replace("-", " ").title(),
        "faction": _faction(rng),
        "achievement_points": rng.randrange(200, 4000) + 10 * changes,
        "member_count": len(members(region, realm, name)),
        "realm": _realm(region, realm, named=True),
        "created_timestamp": rng.randrange(1_230_000_000, 1_700_000_000) * 1000,
    }


def roster(region: str, realm: str, name: str, changes: int = 0) -> dict[str, Any]:
    """Return a guild and its members."""
    whole = guild(region, realm, name, changes)
    about = {key: whole[key] for key in ("name", "id", "realm", "faction")}
    listed = []
    for nth, (realm_of, member) in enumerate(members(region, realm, name)):
        played = _played(region, realm_of, member)
        profile = {
            **_character(region, realm_of, member),
            "level": min(80, played["level"] + changes),
            "playable_class": {"id": played["class"]},
            "faction": {"type": whole["faction"]["type"]},
        }
        listed.append({"character": profile, "rank": 0 if not nth else 1 + nth % 9})
    return {"guild": about, "members": listed}


@lru_cache(maxsize=1024)
def members(region: str, realm: str, name: str) -> tuple[tuple[str, str], ...]:
    """Return the members as pairs (realm, name in lower case); one in eight is of the connected realm."""
    rng = Random(f"roster {region} {realm} {name}")
    ending = _ENDINGS[_MARKS[name]] if name in _MARKS and _home(realm) == realm else _LONELY
    stems = list(product(_SYLLABLES if ending.isascii() else _CYRILLIC, repeat=2))
    names = ["".join((*stem, ending)) for stem in rng.sample(stems, rng.randrange(5, 60))]
    connected = _SLUGS[_PLACES[realm] ^ 1] if realm in _PLACES else realm
    return tuple((connected if rng.random() < 1 / 8 else realm, member) for member in names)


def character(region: str, realm: str, name: str, changes: int = 0) -> dict[str, Any]:
    """Return a character's profile by the realm's slug and the name in lower case."""
    rng = Random(f"profile {region} {realm} {name}")
    number = rng.randrange(len(_RACES))
    played = _played(region, realm, name)
    item_level = rng.randrange(400, 640) + changes
    ending = name[-3:]
    at_home = guild(region, _home(realm), slug(GUILDS[_ENDINGS.index(ending)])) if ending in _ENDINGS else None
    return {
        **_character(region, realm, name, named=True),
        "gender": _typed(rng.choice(("Female", "Male"))),
        "faction": at_home["faction"] if at_home else _faction(rng),
        "race": {"name": _RACES[number], "id": number + 1},
        "character_class": {"name": _CLASSES[played["class"] - 1], "id": played["class"]},
        **({"guild": {key: at_home[key] for key in ("name", "id", "realm", "faction")}} if at_home else {}),
        "level": min(80, played["level"] + changes),
        "experience": rng.randrange(200_000),
        "achievement_points": rng.randrange(0, 40_000, 5) + 10 * changes,
        "average_item_level": item_level,
        "equipped_item_level": item_level - rng.randrange(6),
    }


def equipment(region: str, realm: str, name: str, changes: int = 0) -> dict[str, Any]:
    """Return what a character wears."""
    rng = Random(f"equipment {region} {realm} {name}")
    worn = rng.sample(_SLOTS, rng.randrange(4, len(_SLOTS) + 1))
    items = [
        {
            "item": {"id": rng.randrange(10_000, 230_000)},
            "slot": _typed(part),
            "quantity": 1,
            "quality": _typed(rng.choice(_QUALITIES)),
            "name": f"{part} of the {rng.choice(_RACES)}",
            "level": {"value": (level := rng.randrange(400, 640) + changes), "display_string": f"Item Level {level}"},
        }
        for part in worn
    ]
    return {"character": _character(region, realm, name), "equipped_items": items}


def keystones(region: str, realm: str, name: str, changes: int = 0) -> dict[str, Any]:
    """Return a character's keystones; one in four never ran any and has neither rating nor seasons."""
    rng = Random(f"keystones {region} {realm} {name}")
    about = {"current_period": {"period": {"id": 980 + changes}}, "character": _character(region, realm, name)}
    if rng.random() < 0.25:
        return about
    rating = round(rng.uniform(0, 3600) + changes, 2)
    colour = {"r": 255, "g": rng.randrange(256), "b": 0, "a": 1.0}
    return {**about, "seasons": [{"id": 13}], "current_mythic_rating": {"color": colour, "rating": rating}}


def collections(region: str, realm: str, name: str, changes: int = 0) -> dict[str, Any]:
    """Return the index of a character's collections."""
    here = f"https://{region}.api.blizzard.com/profile/wow/character/{realm}/{name}/collections"
    about = {what: {"href": f"{here}/{what}?namespace=profile-{region}"} for what in ("pets", "mounts", "toys")}
    return {**about, "character": _character(region, realm, name)}


def mounts(region: str, realm: str, name: str, changes: int = 0) -> dict[str, Any]:
    """Return a character's mounts."""
    rng = Random(f"mounts {region} {realm} {name}")
    ids = rng.sample(range(6, 2200), rng.randrange(5, 60) + changes)
    return {"mounts": [{"mount": {"name": f"Reins {number}", "id": number}, "is_useable": True} for number in ids]}


def pets(region: str, realm: str, name: str, changes: int = 0) -> dict[str, Any]:
    """Return a character's pets."""
    rng = Random(f"pets {region} {realm} {name}")
    ids = rng.sample(range(39, 4500), rng.randrange(5, 60) + changes)
    owned = [
        {"species": {"name": f"Pet {n}", "id": n}, "level": 1 + n % 25, "quality": _typed("Rare"), "id": n} for n in ids
    ]
    return {"pets": owned, "unlocked_battle_pet_slots": 3}


def _realm(region: str, realm: str, *, named: bool = False) -> dict[str, Any]:
    number = Random(f"realm {region} {realm}").randrange(1, 4000)
    name = {"name": _NAMES.get(realm) or realm.replace("-", " ").title()} if named else {}
    return {**name, "id": number, "slug": realm}


def _home(realm: str) -> str:
    """Return the realm where the guilds of this one are: the named realms are connected two by two."""
    return _SLUGS[_PLACES[realm] // 2 * 2] if realm in _PLACES else realm


def _played(region: str, realm: str, name: str) -> dict[str, int]:
    rng = Random(f"played {region} {realm} {name}")
    level = rng.choice((80, 80, 80, 70, rng.randrange(10, 80)))
    return {"level": level, "class": rng.randrange(1, len(_CLASSES) + 1)}


def _character(region: str, realm: str, name: str, *, named: bool = False) -> dict[str, Any]:
    number = Random(f"character {region} {realm} {name}").randrange(10**7, 3 * 10**8)
    return {"id": number, "name": name.capitalize(), "realm": _realm(region, realm, named=named)}


def _faction(rng: Random) -> dict[str, str]:
    return _typed(rng.choice(("Alliance", "Horde")))


def _typed(name: str) -> dict[str, str]:
    return {"type": name.upper().replace(" ", "_"), "name": name}


_LANGUAGES = {"CYRILLIC": "ru_RU", "HANGUL": "ko_KR", "CJK": "zh_TW"}
_NAMES = REALMS | {slug(name): name for name in GUILDS}
_SLUGS = tuple(REALMS)
_PLACES = {realm: nth for nth, realm in enumerate(_SLUGS)}
_MARKS = {slug(name): nth for nth, name in enumerate(GUILDS)}
