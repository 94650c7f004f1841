"""What a template is called, and what none holds."""

import pytest

from ipybatch import secret
from ipybatch.templates.template import Template, WrongField, check_name, check_template, merged

GOOD = ["night", "Night run 2", "a", "nacht-lauf_1.v2", "Überblick", "夜", "x" * 64]
BAD = [
    "", " ", "../night", "a/b", "a\\b", "..", ".night", "night.", "night ", " night", "-x", "a\nb", "a\0", "x" * 65,
    "con", "NUL", "com1.txt", "a:b", "a*", "~", None, 3, "e\u0301te",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_name(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_name_that_is_no_safe_file(name):
    with pytest.raises(WrongField, match=r"^name must be") as refused:
        check_name(name)
    assert refused.value.field == "name"


SECRETS = [
    ({"api_key": "x"}, "params.api_key"),
    ({"client_secret": "x"}, "params.client_secret"),
    ({"PASSWORD": None}, "params.PASSWORD"),
    ({"system": "use AKIAIOSFODNN7EXAMPLE"}, "params.system"),
    ({"config": {"headers": [{"a": "Authorization: Bearer abcdef0123456789abcdef"}]}}, "params.config.headers[0].a"),
    ({"base_url": "https://me:hunter22@example.org"}, "params.base_url"),
    ({"limits": {"store": "redis://:hunter22@host/0"}}, "params.limits.store"),
    ({"system": "say REGISTERED-WORD"}, "params.system"),
]


@pytest.mark.parametrize(("params", "field"), SECRETS, ids=[field for _, field in SECRETS])
def test_secret_is_refused_and_not_told(params, field):
    secret("REGISTERED-WORD")
    with pytest.raises(WrongField) as refused:
        check_template(Template(based_on="text", params=params))
    assert refused.value.field == field
    assert not any(word in str(refused.value) for word in ("AKIA", "abcdef", "hunter22", "REGISTERED"))
    assert refused.value.value is None


NO_DATA = [
    (float("nan"), "params.x"),
    (float("inf"), "params.x"),
    (1 << 60, "params.x"),
    ({"a": [1, object()]}, "params.x.a[1]"),
    ({1: 2}, "params.x"),
    ("half \ud800", "params.x"),
    (b"x", "params.x"),
]


@pytest.mark.parametrize(("value", "field"), NO_DATA, ids=repr)
def test_value_that_no_file_holds(value, field):
    with pytest.raises(WrongField) as refused:
        check_template(Template(based_on="text", params={"x": value}))
    assert refused.value.field == field


def test_nested_too_deeply():
    value = []
    for _ in range(2000):
        value = [value]
    with pytest.raises(WrongField, match=r"params\.x must not be nested so deeply"):
        check_template(Template(based_on="text", params={"x": value}))


@pytest.mark.parametrize("name", ["a b", "", "1a", "a.b", "x" * 101, "ä"])
def test_name_of_a_parameter(name):
    with pytest.raises(WrongField, match="must be the name of an argument"):
        check_template(Template(based_on="text", params={name: 1}))
    with pytest.raises(WrongField, match=r"asks\[0\] must be the name of an argument"):
        check_template(Template(based_on="text", asks=[name]))


@pytest.mark.parametrize("name", ["name", "journal", "fresh", "replace", "verbose"])
def test_what_belongs_to_one_call(name):
    with pytest.raises(WrongField, match="it belongs to one call"):
        check_template(Template(based_on="text", params={name: True}))


def test_later_layers_win_and_drop_what_says_the_same():
    replaces = {"model": ("models",), "models": ("model",), "lane": ("poll_s",)}
    base, own = {"model": "a", "lane": "batch"}, {"poll_s": 5, "config": {"x": 1}}
    assert merged([base, own], replaces) == {"model": "a", "lane": "batch", "poll_s": 5, "config": {"x": 1}}
    assert merged([base, own, {"models": ["b"]}], replaces)["models"] == ["b"]
    assert "model" not in merged([base, own, {"models": ["b"]}], replaces)
    assert merged([base, own, {"lane": "online", "config": {}}], replaces) == {
        "model": "a", "lane": "online", "config": {},
    }  # fmt: skip
    both = merged([base, {"model": "b", "models": ["c"]}], replaces)
    assert (both["model"], both["models"]) == ("b", ["c"]), "who gives both is told so by whoever takes them"
