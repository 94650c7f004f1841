import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.errors import ItemError, Permanent, RateLimited, Transient
from ipybatch.gemini.batch.results import _echoes_of, _lines, matched, places, rpc_error
from ipybatch.gemini.batch.spool import wire_key

KEYS = tuple(f'"k{number}"' for number in range(5))


def entry(place, *, key=True, **fields):
    metadata = {"metadata": {"key": wire_key(place, KEYS[place])}} if key else {}
    return {"response": {"is": place}, **metadata, **fields}


def got(entries, keys=KEYS):
    return {key: "error" if isinstance(body, ItemError) else body["is"] for key, body in matched(entries, keys)}


RIGHT = {key: place for place, key in enumerate(KEYS)}


@given(st.permutations(range(5)))
def test_keys_decide_whatever_the_order(order):
    assert got([entry(place) for place in order]) == RIGHT


def test_order_decides_where_keys_are_missing():
    """Inline jobs have come back without their keys, in the order sent."""
    assert got([entry(place, key=False) for place in range(5)]) == RIGHT
    assert got([entry(place, key=place % 2 == 0) for place in range(5)]) == RIGHT


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=8))
def test_an_answer_is_never_given_to_an_item_by_guess(said):
    """Whatever comes back, each item is told once, and what carries a key goes nowhere else."""
    results = list(matched([entry(place, key=key) for place, key in said], KEYS))
    assert sorted(key for key, _ in results) == sorted(KEYS)
    keyed = {place for place, key in said if key}
    trusted = len(said) == 5 and all(place == at for at, (place, key) in enumerate(said) if key)
    for key, body in results:
        if not isinstance(body, ItemError):
            assert trusted or RIGHT[key] == body["is"]
            assert trusted or RIGHT[key] in keyed


def test_a_wrong_count_without_keys_is_an_error_of_those_items():
    results = dict(matched([entry(0), entry(1, key=False), entry(2)], KEYS))
    assert results[KEYS[0]] == {"is": 0}
    assert results[KEYS[2]] == {"is": 2}
    for place in (1, 3, 4):
        assert isinstance(results[KEYS[place]], Transient)
        assert "3 answers to 5 requests" in str(results[KEYS[place]])


def test_two_answers_under_one_key_are_no_answer():
    assert got([entry(0), entry(0), entry(1), entry(2), entry(3)]) == {**RIGHT, KEYS[0]: "error", KEYS[4]: "error"}


def test_keys_of_another_job_are_not_taken():
    foreign = [wire_key(place, f'"other{place}"') for place in range(5)]
    assert places(foreign, KEYS) == [None] * 5


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (3, Permanent),
        (5, Permanent),
        (7, Permanent),
        (8, RateLimited),
        (13, Transient),
        (14, Transient),
        (4, Transient),
    ],
)
def test_item_errors_say_whether_to_try_again(code, kind):
    error = rpc_error({"code": code, "message": "said so"})
    assert type(error) is kind
    assert str(error) == f"said so (code {code})"


def test_an_item_error_reaches_its_item():
    results = dict(matched([entry(0), {**entry(1), "response": None, "error": {"code": 13}}], KEYS[:2]))
    assert results[KEYS[0]] == {"is": 0}
    assert str(results[KEYS[1]]) == "no message (code 13)"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "response", "error", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=6))
def test_nonsense_is_an_error_of_the_item_only(entries):
    results = list(matched(entries, KEYS))
    assert [isinstance(body, ItemError | dict) for _, body in results] == [True] * 5


def test_half_a_line_fails_alone(tmp_path):
    """A file is read line by line; what is broken counts for its place, and costs no other item its answer."""
    path = tmp_path / "results.jsonl"
    lines = [json.dumps({"key": wire_key(place, KEYS[place]), "response": {"is": place}}) for place in range(5)]
    lines[2] = lines[2][: len(lines[2]) // 2]
    lines[3] = '{"key": "\\ud800'
    path.write_bytes("\n".join(lines).encode() + b"\n\n")
    from ipybatch.gemini.batch.results import _matched

    results = dict(_matched(_echoes_of(path), _lines(path), KEYS))
    assert [key for key, body in results.items() if isinstance(body, ItemError)] == [KEYS[2], KEYS[3]]
    assert results[KEYS[4]] == {"is": 4}
