"""Which arguments are data, and functions by their names."""

import datetime as dt
import json
import math
from pathlib import Path

import numpy as np
import pytest

from ipybatch import Breaker, Limits, Retry
from ipybatch.notify import Notify
from ipybatch.templates.policies import read_notify
from ipybatch.templates.template import WrongField
from ipybatch.templates.values import load_code, sayable
from tests import works


def test_what_is_data():
    given = {
        "a": 1, "b": 2.5, "c": None, "d": True, "e": "x", "f": (1, [2]), "g": {"h": {"i": None}}, "j": {"b", "a"},
        "k": Path("out.csv"), "l": dt.time(22, 0), "m": np.int64(3), "n": np.float64(0.5), "limits": Limits(),
        "breaker": Breaker(), "retry": Retry(attempts=2),
    }  # fmt: skip
    held, asked = sayable(given)
    assert asked == []
    assert held == {
        "a": 1, "b": 2.5, "c": None, "d": True, "e": "x", "f": [1, [2]], "g": {"h": {"i": None}}, "j": ["a", "b"],
        "k": "out.csv", "l": "22:00:00", "m": 3, "n": 0.5, "limits": {"concurrency": 10}, "breaker": {"failures": 3},
        "retry": {"attempts": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        object(),
        len,
        Limits,
        lambda: 1,
        b"x",
        {1: 2},
        [object()],
        np.array([1, 2]),
        math.nan,
        Retry(on=KeyError),
        1 << 99,
    ],
    ids=str,
)
def test_what_is_asked_for(value):
    assert sayable({"x": value, "y": 1}) == ({"y": 1}, ["x"])


def test_who_is_told_is_a_name_where_there_is_no_more_to_it():
    for notify, data in (
        (Notify("mail"), "mail"),
        (Notify(["mail", "desk"]), ["mail", "desk"]),
        (Notify("mail", on="failed"), {"channels": ["mail"], "on": ["failed"]}),
        ("mail", "mail"),
    ):
        assert sayable({"notify": notify}) == ({"notify": data}, [])
        read = read_notify(data)
        assert as_notify(read) == as_notify(notify)
    with pytest.raises(WrongField) as refused:
        read_notify({"channels": "mail", "onn": "failed"})
    assert refused.value.field == "notify.onn"


def as_notify(notify):
    return notify if isinstance(notify, Notify) else Notify(notify)


@pytest.mark.parametrize(("name", "value"), [("api_key", "k"), ("system", "use AKIAIOSFODNN7EXAMPLE")])
def test_secrets_are_asked_for(name, value):
    assert sayable({name: value}) == ({}, [name])


def test_function_that_can_be_imported():
    assert sayable({"work": json.dumps, "key": works.Gate.__init__}, names_code=True) == (
        {"work": "json:dumps", "key": "tests.works:Gate.__init__"},
        [],
    )
    assert sayable({"work": json.dumps}) == ({}, ["work"])
    assert load_code("json:dumps", "params.work") is json.dumps
    assert load_code("tests.works:Gate.__init__", "params.key") is works.Gate.__init__


def test_function_that_cannot(monkeypatch):
    def inner(item):
        return item

    def of_script(item):
        return item

    of_script.__module__, of_script.__qualname__ = "__main__", "of_script"
    monkeypatch.setattr("__main__.of_script", of_script, raising=False)
    for function in (inner, lambda item: item, of_script, works.Gate, json.JSONEncoder().encode):
        held, asked = sayable({"work": function}, names_code=True)
        assert (held, asked) == ({}, ["work"]) or function is works.Gate


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("json", "as 'module:name', got 'json'"),
        (":f", "as 'module:name'"),
        ("__main__:f", "as 'module:name'"),
        ("no_such_module:f", "No module named 'no_such_module'; pass work="),
        ("json:nothing", "has no attribute 'nothing'"),
        ("json:__doc__", "which is a str"),
    ],
)
def test_name_of_no_function(name, said):
    with pytest.raises(WrongField) as refused:
        load_code(name, "params.work")
    assert refused.value.field == "params.work"
    assert said in str(refused.value)
