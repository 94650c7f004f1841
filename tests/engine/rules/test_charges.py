"""Charges: what is given back, and who is a witness of an outage."""

import pytest

from ipybatch.engine.data.policy import Breaker
from ipybatch.engine.rules.breaker import CircuitBreaker
from ipybatch.engine.rules.charges import Charges


class Story:
    """Items fail and succeed, one after the other."""

    def __init__(self, failures=3):
        self.charges, self.breaker = Charges(), CircuitBreaker(Breaker(failures=failures, break_s=1, give_up_after=99))
        self.now_s, self.tried = 0.0, {}

    def _start(self, item):
        self.now_s += self.breaker.wait_s(self.now_s)
        self.tried[item] = self.tried.get(item, 0) + 1
        return self.breaker.start(self.now_s)

    def fail(self, *items):
        for item in items:
            self.breaker.fail(self.now_s, self._start(item), item)
            if self.charges.is_outage(self.breaker):
                self.charges.give_outage_back(self.breaker)

    def succeed(self, item):
        epoch = self._start(item)
        self.charges.suspect(self.breaker, item)
        self.breaker.succeed(self.now_s, epoch)

    def paid(self, item):
        return self.charges.paid(item, self.tried[item])


def test_what_an_outage_costs_is_given_back_from_its_first_failure_on():
    story = Story()
    story.fail(1, 2)
    assert [story.paid(item) for item in (1, 2)] == [1, 1], "it may be their own"
    story.fail(3, 4, 4, 1)
    assert [story.paid(item) for item in (1, 2, 3, 4)] == [0, 0, 0, 0]


def test_a_lone_item_pays_though_the_breaker_opens():
    """One witness tells nothing."""
    story = Story()
    story.fail(1, 1, 1, 1)
    assert story.breaker.state == "open"
    assert story.paid(1) == 4


@pytest.mark.parametrize("failures", [1, 2])
def test_two_witnesses_are_the_least(failures):
    story = Story(failures)
    story.fail(1, 1)
    assert story.paid(1) == 2
    story.fail(2)
    assert (story.paid(1), story.paid(2)) == (0, 0)


def test_who_failed_while_others_succeeded_is_no_witness():
    story = Story()
    story.fail(1)
    story.succeed(9)
    story.fail(1, 2, 3)
    assert [story.paid(item) for item in (1, 2, 3)] == [2, 1, 1], "two witnesses, of three"
    story.fail(4)
    assert [story.paid(item) for item in (2, 3, 4)] == [0, 0, 0]
    assert story.paid(1) == 2, "it pays for one attempt of this outage, and for the one before"


def test_who_breaks_the_service_each_time_pays_in_the_end():
    """Each round begins like an outage, and others succeed after it."""
    story = Story()
    for paid in (0, 3, 6):
        story.fail(1, 2, 3)
        story.succeed(9)
        assert sum(story.paid(item) for item in (1, 2, 3)) == paid


def test_one_that_is_settled_is_no_witness_all_the_same():
    story = Story()
    story.fail(1)
    story.succeed(9)
    story.fail(1, 2, 3)
    story.charges.settle(1, has_succeeded=False)
    assert not story.charges.is_outage(story.breaker)


@pytest.mark.parametrize("tries", [1, 3])
def test_what_is_remembered_of_a_million_items_is_bounded(tries):
    """Items that are given up one after the other, each between others that succeed."""
    story = Story(failures=5)
    for item in range(0, 200, 2):
        for _ in range(tries - 1):
            story.fail(item)
            story.succeed(item + 1)
        story.fail(item)
        story.charges.give_up(item)
        story.charges.settle(item, has_succeeded=False)
        story.succeed(item + 1)
        story.charges.settle(item + 1, has_succeeded=True)
    assert not any(getattr(story.charges, field) for field in story.charges.__struct_fields__)


def test_an_item_that_opened_the_breaker_alone_waits_once_for_others():
    story = Story()
    story.fail(1, 1, 1)
    assert story.charges.spare(1, story.breaker)
    assert not story.charges.spare(1, story.breaker)
    assert story.paid(1) == 2
    story.fail(2, 3)
    assert [story.paid(item) for item in (1, 2, 3)] == [0, 0, 0]
    story.succeed(4)
    story.fail(1, 2, 3)
    assert not story.charges.spare(1, story.breaker), "others have succeeded since"
