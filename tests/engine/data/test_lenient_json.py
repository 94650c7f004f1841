import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.data.lenient_json import read_json


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": "\\ud83d"}', {"a": "\ufffd"}),
        ('{"a": "Дум"}'.encode("utf-16"), {"a": "Дум"}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    ],
    ids=["plain", "byte order mark", "half a surrogate pair", "utf-16", "a text"],
)
def test_what_other_readers_accept_is_read(body, value):
    assert read_json(body) == read_json(body, lenient=True) == value


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": "caf\xe9"}', {"a": "caf\ufffd"}),
        (b'{"a": NaN, "b": -Infinity}', {"a": None, "b": None}),
        (b'{"a": 1e999}', {"a": None}),
        (b'{"a": %b}' % (b"9" * 5000), {"a": None}),
    ],
    ids=["no UTF-8", "no number", "too large", "too long"],
)
def test_what_was_paid_is_read_whatever_is_odd_in_it(body, value):
    assert read_json(body, lenient=True) == value
    with pytest.raises(ValueError):  # noqa: PT011  # the words are those of the reader
        read_json(body)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": "\\ud83d', b'{"a": 1} {"a": 2}', b"[" * 100_000])
def test_what_is_broken_stays_broken(body):
    for lenient in (False, True):
        with pytest.raises(ValueError):  # noqa: PT011  # the words are those of the reader
            read_json(body, lenient=lenient)


def test_a_value_is_of_the_type_that_is_asked_for():
    class Row(msgspec.Struct):
        name: str

    assert read_json(b'{"name": "\\ud83d", "more": 1}', Row) == Row("\ufffd")
    with pytest.raises(ValueError, match="Expected `str`"):
        read_json(b'{"name": 1}', Row)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(), st.lists, max_leaves=5))
def test_what_is_sound_is_read_as_it_is(value):
    assert read_json(json.dumps(value).encode(), lenient=True) == value
