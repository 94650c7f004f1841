import datetime as dt
import decimal
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import Outcome, Permanent
from ipybatch.engine.data.outcome import BadResult, encode_result

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(result=plain)
def test_a_result_comes_back_as_it_was(result):
    """None, bool, int, finite float, str, list and dict with str keys, nested at will."""
    payload = encode_result(result)
    assert (None if payload is None else msgspec.json.decode(payload)) == result


def test_none_needs_no_room():
    """Work that returns nothing writes no result."""
    assert encode_result(None) is None


class Record(dict):
    """A dict of a class of its own: what it means is lost in JSON."""


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (math.nan, "result is nan; results must be finite numbers: return None instead"),
        ({"price": math.inf}, "result['price'] is inf; results must be finite numbers: return None instead"),
        ([1, [2, -math.inf]], "result[1][1] is -inf; results must be finite numbers: return None instead"),
        (b"raw", "result is a builtins.bytes; results are None, bool,"),
        ({"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}, "result['at'] is a datetime.datetime; results"),
        ({"rows": [(1, 2)]}, "result['rows'][0] is a builtins.tuple; results are"),
        ({1, 2}, "result is a builtins.set; results are"),
        (decimal.Decimal("1.5"), "result is a decimal.Decimal; results are"),
        (Record(a=1), "Record; results are"),
        ({"a": {1: "x"}}, "result['a'] has the key 1 (int); keys must be str"),
        ({None: 1}, "result has the key None (NoneType); keys must be str"),
        ({"a": "\ud800"}, "result has text that is not valid Unicode"),
        ({"\ud800": 1}, "result has text that is not valid Unicode"),
    ],
)
def test_what_json_cannot_hold_names_its_field(result, message):
    """The user learns which field of which item to convert, and how."""
    with pytest.raises(BadResult) as refused:
        encode_result(result)
    assert message in str(refused.value)
    assert isinstance(refused.value, Permanent)


def test_a_result_that_contains_itself_is_refused():
    """It would never end."""
    loop = []
    loop.append(loop)
    with pytest.raises(BadResult, match="nested too deeply, or contains itself"):
        encode_result({"a": loop})


def test_an_outcome_is_frozen_and_reads_plainly():
    """What a stream yields cannot be changed by whoever reads it."""
    outcome = Outcome(key="a", status="completed", result=1)
    assert (outcome.error, outcome.attempts, outcome.seconds) == ("", 0, 0.0)
    with pytest.raises(AttributeError):
        outcome.status = "failed"
