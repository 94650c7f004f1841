"""Allowance: what may start without an exchange is what the store has counted, whatever becomes of a report."""

import math

from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.rules.limiter import NO_COST
from ipybatch.engine.store.allowance import Allowance

TOKENS = {"requests": 1.0, "tokens": 3.0}


def granted(cost=NO_COST, times=1, *, slot=True):
    allowance = Allowance()
    allowance.report(None)
    allowance.add(cost, times, slot=slot)
    return allowance


def test_it_allows_what_was_granted_and_no_more():
    allowance = granted(TOKENS, 2)
    assert allowance.allows(TOKENS, slot=True)
    assert not allowance.allows({"tokens": 6.5}, slot=True)
    assert not allowance.allows({"images": 1.0}, slot=True)
    allowance.draw({"tokens": 6.0}, slot=True)
    assert allowance.allows({"tokens": 0.0}, slot=True)
    assert not allowance.allows(TOKENS, slot=True)


def test_a_place_is_granted_or_it_is_not():
    assert not granted(slot=False).allows(NO_COST, slot=True)
    assert granted(slot=False).allows(NO_COST, slot=False)
    assert not granted({"requests": 0.0}).allows(NO_COST, slot=True)
    assert granted({"requests": 0.0}).allows({"requests": 0.0}, slot=True)


amounts = st.dictionaries(st.sampled_from(["tokens", "images"]), st.integers(0, 9).map(float)).flatmap(
    lambda of: st.integers(0, 9).map(lambda requests: {**of, "requests": float(requests)})
)


@given(before=amounts, reports=st.lists(st.tuples(amounts, st.booleans(), amounts), max_size=5))
def test_both_what_it_was_and_what_it_will_be_cover_what_starts(before, reports):
    """Of each report the store may have it at once, when the answer comes, or never."""
    allowance = Allowance()
    allowance.gain(before)
    allowance.slots = math.inf
    stored = [dict(before)]  # what the store may count, once what has started is taken off
    for anew, is_heard, wanted in reports:
        said, more = allowance.report(anew)
        assert said == anew
        stored.append(dict(anew))
        while allowance.allows(wanted, slot=True) and any(wanted.values()):
            allowance.draw(wanted, slot=True)
            for known in stored:
                for unit, amount in wanted.items():
                    known[unit] = known.get(unit, 0.0) - amount
                    assert known[unit] >= 0.0
        if is_heard:
            allowance.gain(more)
            assert {"requests": allowance.left, **allowance.left_of}.items() >= {
                unit: amount for unit, amount in stored[-1].items() if amount
            }.items()
            stored = [stored[-1]]


def test_it_asks_for_twice_what_started_lately():
    allowance = granted(times=4)
    for _ in range(3):
        allowance.draw(NO_COST, slot=True)
    allowance.look(is_recent=True)
    assert allowance.more(NO_COST, math.inf) == 4
    assert allowance.more(NO_COST, 2.0) == 1
    assert allowance.more({"requests": 0.0}, math.inf) == 0
    assert allowance.twice(TOKENS, 2) == {"requests": 6.0, "tokens": 12.0}
    allowance.report(None)
    allowance.look(is_recent=True)
    assert allowance.used == 1.5
    allowance.look(is_recent=False)
    assert allowance.used == 0.0
