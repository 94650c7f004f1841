from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.library import Character, Guild
from ipybatch.library.battlenet.names import character_slug, guild_slug, item_of, path_of, realm_slug

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\?#%&"), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Aerie Peak", "aerie-peak"),
        ("Kel'Thuzad", "kelthuzad"),
        ("Kel\u2019Thuzad", "kelthuzad"),  # as pasted from a page
        ("Area 52", "area-52"),
        ("Azjol-Nerub", "azjolnerub"),
        ("Aggra (Português)", "aggra-português"),
        ("La Croisade écarlate", "la-croisade-écarlate"),
        ("Ревущий фьорд", "ревущий-фьорд"),
        ("  Aerie   Peak ", "aerie-peak"),
        ("aerie-peak", "aerie-peak"),
        ("azjolnerub", "azjolnerub"),
    ],
)
def test_a_realm_by_name_or_slug(name: str, slug: str) -> None:
    assert realm_slug(name) == slug


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Méchants Loups", "méchants-loups"), ("Стражи Севера", "стражи-севера"), ("Les P'tits Loups", "les-ptits-loups")],
)
def test_a_guild_by_name(name: str, slug: str) -> None:
    assert guild_slug(name) == slug
    assert guild_slug(slug) == slug


def test_a_character_keeps_its_accents() -> None:
    assert character_slug("Ârthâs") == "ârthâs"


def test_two_spellings_of_one_accent_are_one_name() -> None:
    """A name typed on macOS comes decomposed; Battle.net's addresses do not."""
    typed = unicodedata.normalize("NFD", "Méchants Loups")
    assert Guild("Aerie Peak", typed).key == Guild("aerie-peak", "méchants loups").key


def test_addresses_are_percent_encoded_utf_8() -> None:
    assert path_of("méchants-loups") == "m%C3%A9chants-loups"
    assert path_of("стражи") == "%D1%81%D1%82%D1%80%D0%B0%D0%B6%D0%B8"


def test_a_value_reads_as_it_was_written() -> None:
    assert repr(Guild("Aerie Peak", "Méchants Loups")) == "Guild(realm='Aerie Peak', name='Méchants Loups')"
    assert Guild("Aerie Peak", "Méchants Loups").key == "guild/aerie-peak/méchants-loups"
    assert Character("Kel'Thuzad", "Thrall").key == "character/kelthuzad/thrall"


@given(NAMES, NAMES)
def test_a_key_is_an_item_with_the_same_key(realm: str, name: str) -> None:
    """What the library gives back finds the record it came from, whatever the name."""
    for kind in (Guild, Character):
        try:
            item = kind(realm, name)
        except InputError:
            continue
        assert item_of(item.key).key == item.key
        assert item.key.count("/") == 2


@pytest.mark.parametrize(
    "name", ["", "  ", "..", "'", "a/b", "a?b", "a%2fb", "a\nb", "\ud800a", "x" * 65, None, 7, b"x"]
)
def test_what_is_no_name_is_refused(name: Any) -> None:
    """Nothing that could lead to another address is ever sent."""
    for make, field in ((lambda: Guild(name, "x"), "realm"), (lambda: Guild("x", name), "guild name")):
        with pytest.raises(InputError, match=f"^{field} must be .* at most 64 characters"):
            make()
    with pytest.raises(InputError, match=r"^character name must be"):
        Character("x", name)


def test_a_character_is_one_word() -> None:
    with pytest.raises(InputError, match="one word without the realm, such as 'Thrall', got 'Thrall Durotan'"):
        Character("Aerie Peak", "Thrall Durotan")


@pytest.mark.parametrize("item", [440, None, "wolves", "guild", "guild/x", "realm/x/y", ("a", "b"), {"kind": "guild"}])
def test_what_is_no_item_is_refused(item: Any) -> None:
    with pytest.raises(InputError, match="must be"):
        item_of(item)
