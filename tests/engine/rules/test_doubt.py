"""Doubt: when one error that meets every item is none of theirs."""

import pytest

from ipybatch.engine.rules.classify import Kind, Verdict
from ipybatch.engine.rules.doubt import ALIKE, ALIKE_OF_US, Doubt

BAD = Verdict(Kind.PERMANENT, status=400)


def failed(doubt, items, verdict=BAD, error=None, *, asked=False):
    for item in items:
        one = error(item) if error else ValueError("no")
        doubt.fail(item, one, verdict, str(one), str(item), asked=asked)
    return doubt


def asking():
    doubt = failed(Doubt(), range(ALIKE))
    assert doubt.wants_one
    doubt.ask()
    assert not doubt.wants_one
    return doubt


def test_twenty_alike_are_doubted_and_nineteen_are_not():
    assert failed(Doubt(), range(ALIKE - 1)).state == "watching"
    assert failed(Doubt(), range(ALIKE)).state == "asking"


def test_one_more_that_fails_alike_proves_it():
    doubt = failed(asking(), [99], asked=True)
    assert doubt.reason == "21 items failed alike, and none succeeded: no"
    assert doubt.on_record == ([*range(ALIKE), 99], "refused")


def test_one_that_fails_otherwise_or_succeeds_dismisses_it():
    otherwise = failed(asking(), [99], Verdict(Kind.PERMANENT, status=422), asked=True)
    well = asking()
    well.succeed()
    assert [(doubt.state, doubt.reason) for doubt in (otherwise, well)] == [("watching", "")] * 2
    assert otherwise.alike == [99], "it may be the first of its own kind"


def test_one_that_proves_nothing_lets_another_tell():
    doubt = asking()
    doubt.release()
    assert doubt.wants_one


def test_those_in_flight_count_to_it_and_do_not_decide():
    doubt = failed(asking(), [50, 51])
    assert (doubt.state, doubt.alike[-2:]) == ("asking", [50, 51])


def test_where_nothing_is_left_to_ask_it_is_proved():
    doubt = failed(Doubt(), range(ALIKE))
    doubt.conclude()
    assert doubt.reason


ALIKE_OR_NOT = {
    "a number in it": (lambda item: ValueError(f"row {item * 7}"), Verdict(Kind.PERMANENT), True),
    "an address in it": (lambda item: ValueError(f"bad http://shop.test/{'x' * item}"), Verdict(Kind.PERMANENT), True),
    "another text": (lambda item: ValueError("abcdefghijklmnopqrstuvwxyz"[item]), Verdict(Kind.PERMANENT), False),
    "another class": (lambda item: type(f"E{item}", (ValueError,), {})("no"), Verdict(Kind.PERMANENT), False),
    "a status": (lambda item: ValueError("abcdefghijklmnopqrstuvwxyz"[item]), BAD, True),
    "404": (lambda item: ValueError("no"), Verdict(Kind.PERMANENT, status=404), False),
    "410": (lambda item: ValueError("no"), Verdict(Kind.PERMANENT, status=410), False),
    "the work's own": (lambda item: ValueError("no"), Verdict(Kind.PERMANENT, is_own=True), False),
    "a failed line": (lambda item: ValueError("no"), Verdict(Kind.TRANSIENT), False),
}


@pytest.mark.parametrize(("error", "verdict", "is_doubted"), ALIKE_OR_NOT.values(), ids=ALIKE_OR_NOT)
def test_what_makes_two_errors_alike(error, verdict, is_doubted):
    assert (failed(Doubt(), range(ALIKE), verdict, error).state == "asking") is is_doubted


def test_after_a_success_only_a_403_is_doubted():
    for status, state in ((400, "watching"), (403, "asking")):
        doubt = Doubt(has_succeeded=True)
        assert failed(doubt, range(ALIKE), Verdict(Kind.PERMANENT, status=status)).state == state


def test_of_our_own_set_up_three_are_enough():
    doubt = failed(Doubt(), range(ALIKE_OF_US), Verdict(Kind.SETUP))
    assert (doubt.state, doubt.scope) == ("asking", "us")
    failed(doubt, [9], Verdict(Kind.SETUP), asked=True)
    assert doubt.on_record == ([0, 1, 2, 9], "setup")
