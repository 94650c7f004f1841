import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.simulators import battlenet_world as world

NAMES = st.text(st.characters(categories=("L", "Nd", "Zs", "Po")), max_size=30)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Kel'Thuzad", "kelthuzad"),
        ("Kel\u2019Thuzad", "kelthuzad"),
        ("Aerie Peaks", "aerie-peaks"),
        ("Level 52", "level-52"),
        ("Half-Orcs (Français)", "half-orcs-français"),
        ("Méchants Loups", "méchants-loups"),
        ("Me\u0301chants  Loups", "méchants-loups"),
        ("Стражи Севера", "стражи-севера"),
    ],
)
def test_a_slug_has_no_capitals_apostrophes_or_spaces_and_keeps_its_letters(name, slug):
    assert world.slug(name) == slug
    assert world.well_formed(slug)


@pytest.mark.parametrize(
    "text",
    ["", "Leeroy", "kel'thuzad", "aerie peak", "-loups", "loups-", "a--b", "me\u0301chants", "a_b", "a.b", "x" * 49],
)
def test_what_was_never_made_a_slug_of_is_not_well_formed(text):
    assert not world.well_formed(text)


@given(NAMES)
def test_a_slug_of_a_slug_is_itself(name):
    once = world.slug(name)
    assert world.slug(once) == once


@pytest.mark.parametrize(
    "build",
    [
        world.guild,
        world.roster,
        world.character,
        world.equipment,
        world.keystones,
        world.collections,
        world.mounts,
        world.pets,
    ],
)
def test_a_thing_follows_from_its_region_realm_and_name(build):
    """The same names give the same thing, other names another, and all of it is JSON."""
    one = build("eu", "aerie-peak", "leeroy")
    assert one == build("eu", "aerie-peak", "leeroy") == json.loads(json.dumps(one))
    assert one != build("us", "aerie-peak", "leeroy")
    assert one != build("eu", "kelthuzad", "leeroy")
    assert one != build("eu", "aerie-peak", "jenkins")


@pytest.mark.parametrize(
    "build", [world.guild, world.roster, world.character, world.equipment, world.mounts, world.pets]
)
def test_a_change_keeps_who_it_is_and_moves_something(build):
    before, after = (build("eu", "aerie-peak", "leeroy", changes) for changes in (0, 1))
    assert before != after
    assert before.keys() == after.keys()
    assert before.get("id") == after.get("id")


def test_named_realms_and_guilds_come_with_their_written_names():
    told = world.guild("us", "azjolnerub", "méchants-loups")
    assert (told["name"], told["realm"]["name"]) == ("Méchants Loups", "Azjol-Nerub")
    told = world.guild("us", "dun-morogh", "any-guild")
    assert (told["name"], told["realm"]["name"]) == ("Any Guild", "Dun Morogh")


@pytest.mark.parametrize("name", [*world.GUILDS, "Some Other Guild"])
def test_a_roster_lists_as_many_different_characters_as_the_guild_says(name):
    """Each has a name that asks for its profile, and the level and class that the profile says."""
    slug = world.slug(name)
    members = world.roster("eu", "aerie-peak", slug)["members"]
    asked = [(member["character"]["realm"]["slug"], member["character"]["name"].lower()) for member in members]
    assert len(set(asked)) == len(asked) == world.guild("eu", "aerie-peak", slug)["member_count"]
    assert all(world.well_formed(name) and 2 <= len(name) <= 12 and name.isalpha() for _, name in asked)
    assert [member["rank"] for member in members].count(0) == 1
    for member, names in zip(members, asked, strict=True):
        profile, listed = world.character("eu", *names), member["character"]
        assert listed["id"] == profile["id"]
        assert (listed["level"], listed["playable_class"]["id"]) == (profile["level"], profile["character_class"]["id"])


@pytest.mark.parametrize("name", world.GUILDS)
def test_members_of_a_named_guild_say_so_in_their_profiles(name):
    """Also those on the connected realm: the guild's realm is not always the member's."""
    slug = world.slug(name)
    told = world.guild("eu", "aerie-peak", slug)
    members = world.members("eu", "aerie-peak", slug)
    for realm, member in members:
        profile = world.character("eu", realm, member)
        assert profile["guild"] == {key: told[key] for key in ("name", "id", "realm", "faction")}
        assert profile["faction"] == told["faction"]


def test_some_members_are_on_the_connected_realm():
    realms = {realm for name in world.GUILDS for realm, _ in world.members("eu", "aerie-peak", world.slug(name))}
    assert realms == {"aerie-peak", "kelthuzad"}


def test_members_of_other_guilds_have_none_in_their_profiles():
    members = world.members("eu", "aerie-peak", "some-other-guild")
    assert not any("guild" in world.character("eu", *member) for member in members)


def test_some_members_names_are_accented_and_some_cyrillic():
    names = "".join(name for guild in world.GUILDS for _, name in world.members("eu", "aerie-peak", world.slug(guild)))
    assert {"é", "ø", "ü", "ж"} <= set(names)


def test_some_characters_never_ran_a_keystone():
    told = [world.keystones("eu", "aerie-peak", f"hero{n}") for n in range(200)]
    without = [one for one in told if "current_mythic_rating" not in one]
    assert len(without) == pytest.approx(50, abs=20)
    assert not any("seasons" in one for one in without)
