"""Guilds and characters as items, and slugs: names in the form of Battle.net's URLs.

    Kel'Thuzad      kelthuzad         apostrophes are dropped
    Aerie Peak      aerie-peak        spaces become hyphens
    Azjol-Nerub     azjolnerub        hyphens of a realm's name are dropped; those of a slug stay
    Méchants Loups  méchants-loups    accents and other scripts stay, percent-encoded only in the URL

Rule: the slug of a slug is that slug, so a name and its slug are one item.

Source: realms and their slugs as https://github.com/wboyz/wow-io lists them, data/realms.ts (2026-11-22).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from ipybatch.errors import InputError

LONGEST = 64
_APOSTROPHES = re.compile("['`\u00b4\u2018\u2019\u02bc]")  # typed, pasted and typeset
_SPACES = re.compile(r"\s+")
_BRACKETS = re.compile("[()]")  # Aggra (Português)
_FORBIDDEN = re.compile(r"[/\\?#%&\x00-\x1f\x7f\ud800-\udfff]")  # half a surrogate pair cannot be encoded


@dataclass(frozen=True, slots=True)
class Guild:
    """A guild, as an item of `refresh`.

    Attributes:
        realm: Name or slug of the realm: "Aerie Peak". A name that is not Latin ("Гордунни") is looked up in the
            region's index of realms; the key keeps it as it was given, so prefer the slug: "gordunni".
        name: Name as the game shows it: "Méchants Loups".
        key: Key of its record, also accepted as an item: "guild/aerie-peak/méchants-loups".

    Raises:
        InputError: A name is invalid; names the field, its value and the allowed values.
    """

    realm: str
    name: str
    key: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"guild/{realm_slug(self.realm)}/{guild_slug(self.name)}")


@dataclass(frozen=True, slots=True)
class Character:
    """A character, as an item of `refresh`.

    Attributes:
        realm: Name or slug of the realm: "Kel'Thuzad".
        name: Name as the game shows it, without the realm: "Ârthâs".
        key: Key of its record, also accepted as an item: "character/kelthuzad/ârthâs".

    Raises:
        InputError: A name is invalid; names the field, its value and the allowed values.
    """

    realm: str
    name: str
    key: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"character/{realm_slug(self.realm)}/{character_slug(self.name)}")


KINDS: dict[str, type[Guild | Character]] = {"guild": Guild, "character": Character}  # in the order they are fetched


def item_of(value: Any) -> Guild | Character:
    """Return a guild or character from itself or its key.

    Raises:
        InputError: ``value`` is neither a guild, a character nor a key of one.
    """
    if isinstance(value, Guild | Character):
        return value
    if isinstance(value, str) and value.partition("/")[0] in KINDS:
        return _item_of_key(value)
    msg = (
        "an item must be Guild(realm, name), Character(realm, name) or a key such as 'guild/aerie-peak/wolves',"
        f" got {value!r}"
    )
    raise InputError(msg)


@lru_cache(maxsize=1024)  # a refresh reads the same key several times in a row
def _item_of_key(key: str) -> Guild | Character:
    kind, realm, name = [*key.split("/", 2), "", ""][:3]
    return KINDS[kind](realm, name)


def kind_of(item: Guild | Character) -> str:
    """Return "guild" or "character"."""
    return "guild" if isinstance(item, Guild) else "character"


def realm_slug(name: Any) -> str:
    """Return the slug of a realm.

    Raises:
        InputError: ``name`` is not a valid name.
    """
    text = _check("realm", name, "the realm's name or slug, such as 'Aerie Peak'")
    if text != text.lower() or _SPACES.search(text):  # a name: what is a slug already keeps its hyphens
        text = text.replace("-", "")
    return _slug(text)


def guild_slug(name: Any) -> str:
    """Return the slug of a guild.

    Raises:
        InputError: ``name`` is not a valid name.
    """
    return _slug(_check("guild name", name, "as the game shows it, such as 'Méchants Loups'"))


def character_slug(name: Any) -> str:
    """Return the slug of a character.

    Raises:
        InputError: ``name`` is not a valid name.
    """
    text = _check("character name", name, "as the game shows it, one word without the realm, such as 'Thrall'")
    if _SPACES.search(text):
        msg = f"character name must be one word without the realm, such as 'Thrall', got {name!r}"
        raise InputError(msg)
    return _slug(text)


def is_latin(slug: str) -> bool:
    """Return whether every letter is Latin, accents or not, as in the slugs of all realms."""
    return slug.isascii() or all(
        unicodedata.name(letter, "").startswith("LATIN") for letter in slug if letter.isalpha()
    )


@lru_cache(maxsize=1024)  # of few realms
def path_of(slug: str) -> str:
    """Return a slug as one segment of a URL's path."""
    return quote(slug, safe="")


def _slug(text: str) -> str:
    bare = _BRACKETS.sub("", _APOSTROPHES.sub("", text))
    lowered = unicodedata.normalize("NFC", bare.lower())
    return _SPACES.sub("-", lowered.strip())


def _check(field_: str, value: Any, shape: str) -> str:
    text = unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else ""
    if not any(map(str.isalnum, text)) or len(text.lower()) > LONGEST or _FORBIDDEN.search(text):
        msg = f"{field_} must be {shape}, at most {LONGEST} characters and none of /\\?#%&, got {value!r}"
        raise InputError(msg)
    return text
