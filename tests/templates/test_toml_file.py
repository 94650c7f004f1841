"""Files of templates: written, read, and edited by hand."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.templates import toml_file
from ipybatch.templates.template import LARGEST, NoSuchTemplate, Template, WrongField

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LARGEST, LARGEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
templates = st.builds(
    Template,
    based_on=st.sampled_from(["text", "session", "forecast"]),
    description=texts,
    start_at=st.none() | st.just("22:00"),
    priority=st.none() | st.just("high"),
    notify=st.none() | values,
    params=st.dictionaries(names, values, max_size=5),
    asks=st.lists(names, max_size=3),
)


@given(templates)
def test_round_trip(template):
    """Whatever a template says, its file says it again: texts of any kind, nulls, order of the parameters."""
    found = toml_file.decode(toml_file.encode("night", template), "night.toml")
    assert found == template
    held = [name for name, value in template.params.items() if not toml_file._has_null(value)]
    simple = [name for name in held if not isinstance(template.params[name], dict | list)]
    assert [name for name in found.params if name in simple] == simple


def test_file_is_made_to_be_read(config):
    template = Template(
        based_on="text",
        description="Summaries, at night",
        start_at="22:00",
        params={"lane": "batch", "system": "Be short.\nBe kind.", "limits": {"concurrency": 3}, "breaker": None},
        asks=["client"],
    )
    path = toml_file.write("night", template)
    assert path == config / "templates" / "night.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (
        path.read_text()
        == '''\
# A template of ipybatch: BatchSession.from_template('night', ...), or "template": "night" in a submission.
# What is not said here is as in 'text'. Keys, tokens and passwords do not belong here: the environment has them.

based_on = "text"
description = "Summaries, at night"
start_at = "22:00"
asks = [
    "client",
]

[params]
lane = "batch"
system = """
Be short.
Be kind."""

[params.limits]
concurrency = 3

[json]
breaker = "null"
'''
    )


def edited(text: str) -> str:
    """What is said of a file that somebody wrote."""
    with pytest.raises(WrongField) as refused:
        toml_file.decode(text, "night.toml")
    assert str(refused.value).startswith("night.toml")
    return f"{refused.value.field}: {refused.value}"


WRONG = [
    ("based_on = text", "file: night.toml must be TOML: Invalid value (at line 1, column 12)"),
    ('based_on = "text"\n[params]\nlane = "a"\nlane = "b"', "Cannot overwrite a value"),
    ("", "based_on: night.toml: based_on must be given"),
    ('based_on = "txt"', "based_on: night.toml: based_on must be one of character, food"),
    ("based_on = 3", "based_on: night.toml: based_on: Expected `str`, got `int`"),
    ('based_on = "text"\nparam = 3', "did you mean 'params'?"),
    ('based_on = "text"\nparams = 3', "params: night.toml: params: Expected `object`"),
    ('based_on = "text"\npriority = "urgent"', "priority: night.toml: priority: Invalid enum value 'urgent'"),
    ('based_on = "text"\nasks = "work"', "asks: night.toml: asks: Expected `array`"),
    ('based_on = "text"\nasks = [1]', "asks[0]"),
    ('based_on = "text"\n[params]\napi_key = "x"', "params.api_key"),
    ('based_on = "text"\n[params]\nwhen = 2026-01-01', "params.when must be text, a number"),
    ('based_on = "text"\n[params]\nx = nan', "params.x must be text, a number"),
    ('based_on = "text"\n[json]\nschema = "{"', "json.schema: night.toml: json.schema must be JSON in a text"),
    ('based_on = "text"\n[json]\nschema = 3', "json.schema: night.toml: json.schema must be JSON in a text"),
    ('based_on = "text"\njson = 3', "json: night.toml: json must be a table"),
    ('based_on = "text"\n[params]\nx = 1\n[json]\nx = "2"', "json.x must be given once"),
    ('based_on = "text"\n[json]\npassword = "2"', "params.password"),
    ("a = " + "[" * 3000, "file: night.toml must be TOML"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[text[-30:] for text, _ in WRONG])
def test_file_that_was_edited_wrongly(text, said):
    assert said in edited(text)


def test_a_time_of_toml_is_taken():
    assert toml_file.decode('based_on = "text"\nstart_at = 22:00:00', "night.toml").start_at == "22:00:00"


def test_names_are_those_of_files(config):
    assert toml_file.names() == []
    for name in ("b", "A", "Ü"):
        toml_file.write(name, Template(based_on="text"))
    folder = config / "templates"
    for other in ("text.toml", ".hidden.toml", "notes.txt", "-x.toml"):
        (folder / other).write_text("based_on = 3")
    assert toml_file.names() == ["A", "b", "Ü"]


def test_names_that_differ_by_case_alone(config):
    toml_file.write("Night", Template(based_on="text"))
    with pytest.raises(WrongField, match="must differ from 'Night' by more than case, got 'night'"):
        toml_file.write("night", Template(based_on="text"))
    toml_file.write("Night", Template(based_on="food"))
    assert toml_file.read("Night").based_on == "food"


@pytest.mark.parametrize("name", ["text", "Text", "session", "refresh"])
def test_shipped_names_are_taken(name):
    for act in (toml_file.read, toml_file.delete, lambda it: toml_file.write(it, Template(based_on="text"))):
        with pytest.raises(WrongField, match="ships with ipybatch"):
            act(name)


def test_what_is_not_there(config):
    toml_file.write("night", Template(based_on="text"))
    for act in (toml_file.read, toml_file.delete, toml_file.changed_s):
        with pytest.raises(NoSuchTemplate, match="there is no template 'nigth': did you mean 'night'"):
            act("nigth")
    toml_file.delete("night")
    with pytest.raises(NoSuchTemplate, match="there are character"):
        toml_file.read("zzz")


def test_file_that_others_can_write(config):
    path = toml_file.write("night", Template(based_on="text"))
    path.chmod(0o622)
    with pytest.raises(WrongField, match=r"must be writable by you alone.*chmod 600"):
        toml_file.read("night")


def test_file_that_is_no_text_or_too_large(config):
    path = toml_file.write("night", Template(based_on="text"))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(WrongField, match=r"night.toml must be UTF-8"):
        toml_file.read("night")
    path.write_bytes(b"#" * (toml_file.LARGEST_BYTES + 1))
    with pytest.raises(WrongField, match="must have at most"):
        toml_file.read("night")
    path.unlink()
    path.mkdir()
    with pytest.raises(WrongField, match="cannot be read"):
        toml_file.read("night")


def test_what_is_refused_leaves_the_file_as_it_was(config):
    path = toml_file.write("night", Template(based_on="text"))
    before = path.read_bytes()
    for wrong in (Template(based_on="nothing"), Template(based_on="text", params={"api_key": "x"})):
        with pytest.raises(WrongField):
            toml_file.write("night", wrong)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["night.toml"]


def test_stamp_is_another_one_after_every_change(config):
    seen = [toml_file.stamp()]
    path = toml_file.write("night", Template(based_on="text"))
    seen.append(toml_file.stamp())
    path.write_text('based_on = "food" # by hand')
    seen.append(toml_file.stamp())
    toml_file.write("other", Template(based_on="text"))
    seen.append(toml_file.stamp())
    toml_file.delete("night")
    seen.append(toml_file.stamp())
    assert len(set(seen)) == 5
    assert toml_file.stamp() == seen[-1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such pipes")
def test_pipe_in_the_place_of_a_file_is_not_waited_for(config):
    toml_file.folder().mkdir(parents=True)
    os.mkfifo(toml_file.folder() / "night.toml", 0o600)
    with pytest.raises(WrongField, match=r"night\.toml must be a file"):
        toml_file.read("night")


def test_folder_of_its_name_is_told():
    """It is neither written over nor deleted."""
    path = toml_file.path_of("night")
    path.mkdir(parents=True)
    for call in (lambda: toml_file.delete("night"), lambda: toml_file.write("night", Template(based_on="text"))):
        with pytest.raises(WrongField, match=r"night.toml must be a file, and is a folder: move the folder .* away"):
            call()
    assert path.is_dir()
