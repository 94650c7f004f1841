"""Money is reserved before a call and settled after: it cannot be overspent by more than what is in flight."""

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("google.genai")

from ipybatch.errors import InputError, Withheld
from ipybatch.gemini import CreditAccount
from ipybatch.gemini.budget import Budget

from .conftest import MODEL, names

CALL_USD = 0.000225  # the longest answer here: 90 tokens at 2.50 a million
CENTS = st.integers(1, 20).map(lambda cents: Decimal(cents) / 100)
CALLS = st.lists(st.tuples(CENTS, CENTS, st.integers(0, 4)), min_size=1, max_size=12)


class Till:
    """Calls side by side under one budget, and what each saw when it was let through."""

    def __init__(self, limit):
        self.budget, self.granted, self.withheld = Budget(limit), [], []
        self.reserved = Decimal(0)

    async def call(self, expected, actual, steps):
        try:
            await self.budget.reserve(expected)
        except Withheld:
            self.withheld.append((expected, self.budget.spent_usd, self.reserved))
            return
        self.reserved += expected
        self.granted.append(self.budget.spent_usd + self.reserved)
        try:
            for _ in range(steps):
                await asyncio.sleep(0)
            self.budget.spend(actual)
        finally:
            self.reserved -= expected
            self.budget.free(expected)

    def run(self, calls):
        async def together():
            await asyncio.gather(*(self.call(*one) for one in calls))

        asyncio.run(together())


@given(limit=CENTS, calls=CALLS)
def test_what_is_let_through_fits(limit, calls):
    """Spent and reserved never exceed the limit by a call that is let through, whatever order calls end in."""
    till = Till(limit)
    till.run(calls)
    assert all(total <= limit for total in till.granted)
    assert len(till.granted) + len(till.withheld) == len(calls)


@given(limit=CENTS, calls=CALLS)
def test_calls_as_cheap_as_expected_never_overspend(limit, calls):
    till = Till(limit)
    till.run([(expected, min(expected, actual), steps) for expected, actual, steps in calls])
    assert till.budget.spent_usd <= limit


@given(limit=CENTS, calls=CALLS)
def test_nothing_is_withheld_while_room_may_be_made(limit, calls):
    """A call is refused only when it does not fit and nothing is in flight that may turn out cheaper."""
    till = Till(limit)
    till.run(calls)
    for expected, spent, reserved in till.withheld:
        assert reserved == 0
        assert spent + expected > limit


def test_without_a_limit_nothing_waits():
    till = Till(None)
    till.run([(Decimal(100), Decimal(100), 1)] * 5)
    assert till.budget.spent_usd == 500


def test_a_call_that_is_cancelled_while_it_waits_holds_nothing():
    async def story():
        budget = Budget(1)
        await budget.reserve(Decimal(1))
        waiting = asyncio.ensure_future(budget.reserve(Decimal(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        budget.free(Decimal(1))
        await budget.reserve(Decimal(1))

    asyncio.run(story())


def test_a_budget_below_one_call_is_refused():
    with pytest.raises(InputError, match=r"budget_usd must be >= 0\.500000, which one call may take, got 0\.1"):
        Budget(0.1).check(Decimal("0.5"))


@pytest.mark.parametrize("lane", ["online", "flex"])
def test_what_would_overspend_is_not_sent(desk, lane):
    """Counted at the server; the session says so, and with more money the rest is done and nothing twice."""
    session = desk.run(names(100), lane=lane, output_tokens=60, budget_usd=0.004)
    assert session.state == "failed"
    assert "budget_usd is 0.004" in session.reason
    assert "Raise it, and run again for the rest" in session.reason
    counts = session.counts
    assert 0 < counts.completed == desk.sent < 100
    assert (counts.failed, counts.skipped) == (0, 100 - counts.completed)
    assert session.usage()["usd"].sum() <= 0.004 + 10 * CALL_USD
    more = desk.run(names(100), lane=lane, output_tokens=60, budget_usd=1)
    assert more.counts.completed == 100
    assert set(desk.asked.values()) == {1}


def test_what_was_spent_before_counts(desk):
    """The budget is the session's, not the process's: the same again sends nothing more."""
    first = desk.run(names(100), output_tokens=60, budget_usd=0.004)
    spent, sent = first.usage()["usd"].sum(), desk.sent
    again = desk.run(names(100), output_tokens=60, budget_usd=0.004)
    assert again.state == "failed"
    assert again.snapshot.spent_usd == pytest.approx(again.usage()["usd"].sum())
    assert again.usage()["usd"].sum() <= 0.004 + 10 * CALL_USD
    assert desk.sent - sent <= 10
    assert again.usage()["usd"].sum() - spent <= 10 * CALL_USD


def test_answers_longer_than_expected_overspend_by_those_in_flight_alone(desk):
    desk.open(output_tokens=1000)
    session = desk.run(names(60), output_tokens=10, budget_usd=0.01, concurrency=4)
    assert session.state == "failed"
    assert session.usage()["usd"].sum() <= 0.01 + 4 * 1500 * 2.5e-6


def test_prices_of_the_users_own_count(desk):
    session = desk.run(names(20), output_tokens=60, budget_usd=0.9, prices={MODEL: {"in": 100, "out": 1000}})
    assert session.state == "failed"
    assert 0 < session.counts.completed < 20


def account_of(desk, granted):
    account = CreditAccount("kitchen", journal=desk.journal)
    account.grant(granted)
    return account


def test_credits_are_taken_for_what_is_answered(desk):
    account = account_of(desk, 100)
    session = desk.run([*names(3), "[[blocked]] p"], operation="food", account=account)
    assert session.counts.failed == 1
    assert (account.balance, account.available, account.open_reservations()) == (88, 88, [])
    assert account.statement()["kind"].value_counts().to_dict() == {"grant": 1, "reserve": 4, "settle": 3, "refund": 1}
    assert session.usage()["credits"][0] == 12


def test_without_credits_nothing_is_sent(desk):
    """The reason says balance, need and shortfall; with more credits the rest is done."""
    account = account_of(desk, 10)
    session = desk.run(names(5), operation="food", account=account, concurrency=1)
    assert session.state == "failed"
    assert "balance of 2 credits; 4 are needed: 2 short" in session.reason
    assert desk.sent == session.counts.completed == 2
    assert session.counts.skipped == 3
    account.grant(10)
    assert desk.run(names(5), operation="food", account=account).counts.completed == 5
    assert account.balance == 0
    assert set(desk.asked.values()) == {1}


def test_an_operation_that_takes_no_credits_needs_no_account(desk):
    account = CreditAccount("empty", journal=desk.journal)
    assert desk.run(names(2), account=account).counts.completed == 2
