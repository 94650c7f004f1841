"""Calls are recorded, and a budget cannot be overspent by more than the calls in flight."""

import asyncio
from decimal import Decimal

import pytest

pytest.importorskip("google.genai")

from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import InputError, Withheld
from ipybatch.gemini import CreditAccount, Tokens
from ipybatch.gemini.money.budget import Budget
from ipybatch.gemini.money.usage import USAGE_COLUMNS, Call, latency_s, record_calls, spent_usd, usage
from tests.gemini.conftest import MODEL, names

USED = Tokens(in_=10, out=20, thoughts=5, cached=4)


@pytest.fixture
def book(journal):
    """Record calls, by their differences from a usual one."""
    opened = open_journal(journal)

    def record(*differences):
        usual = {
            "at_s": 1000.0,
            "session": "stars",
            "lane": "online",
            "model": MODEL,
            "operation": "text",
            "project": "",
            "status": "ok",
            "tokens": USED,
            "usd": Decimal("0.001"),
            "ms": 200.0,
        }
        record_calls(opened, *(Call(**usual | one) for one in differences))
        opened.write(lambda database: None)  # the writer has come this far
        return opened

    return record


def rows(journal, **arguments):
    return usage(journal=journal, **arguments).to_dict("records")


def test_calls_add_up_by_operation_model_and_lane(book, journal):
    book({}, {}, {"operation": "food"}, {"model": "gemini-2.5-pro"}, {"lane": "flex"})
    frame = usage(journal=journal)
    assert frame[["operation", "model", "lane", "requests"]].values.tolist() == [
        ["food", MODEL, "online", 1],
        ["text", MODEL, "flex", 1],
        ["text", MODEL, "online", 2],
        ["text", "gemini-2.5-pro", "online", 1],
    ]
    row = frame.iloc[2]
    assert row[["tokens_in", "tokens_out", "tokens_thoughts", "tokens_cached"]].tolist() == [20, 40, 10, 8]
    assert (row["usd"], row["ms"], row["failed"]) == (pytest.approx(0.002), 200.0, 0)


def test_what_is_not_ok_has_failed(book, journal):
    book({}, {"status": "blocked"}, {"status": "429", "tokens": Tokens(), "usd": None})
    (row,) = rows(journal)
    assert (row["requests"], row["failed"]) == (3, 2)
    assert row["usd"] == pytest.approx(0.002)


def test_only_the_last_so_many_seconds_count(book, journal):
    book({"at_s": 100.0}, {"at_s": 3000.0}, {"at_s": 3600.0})
    (row,) = rows(journal, last_s=3600, now_s=6600.0)
    assert row["requests"] == 2
    assert rows(journal, last_s=3600, now_s=8000.0) == []


def test_only_a_sessions_own_calls_count_when_it_is_named(book, journal):
    book({}, {"session": "planets"}, {"session": "planets"})
    assert [row["requests"] for row in rows(journal, session="planets")] == [2]
    assert [row["requests"] for row in rows(journal)] == [3]


def test_without_calls_the_columns_are_there(book, journal):
    book()
    frame = usage(journal=journal)
    assert frame.empty
    assert frame.columns.tolist() == USAGE_COLUMNS.split()


def test_a_price_that_nobody_knows_is_none_and_no_zero(book, journal):
    book({"usd": None, "model": "my-own"})
    (row,) = rows(journal)
    assert row["usd"] is None or row["usd"] != row["usd"]


def test_credits_add_up_exactly(book, journal):
    """2.5 a pose is no float, nor is its tenth."""
    book(*[{"credits": Decimal("0.1")}] * 3, {"credits": Decimal("2.5")})
    (row,) = rows(journal)
    assert row["credits"] == Decimal("2.8")


def test_the_mean_time_leaves_out_what_was_not_answered_one_by_one(book, journal):
    book({"lane": "batch", "ms": 0.0}, {"lane": "batch", "ms": 300.0})
    (row,) = rows(journal)
    assert row["ms"] == 300.0


def test_what_a_run_has_spent_is_what_came_since_its_start(book):
    opened = book({"at_s": 10.0}, {"at_s": 20.0}, {"at_s": 30.0, "session": "planets"}, {"at_s": 30.0, "usd": None})
    assert spent_usd(opened, "stars", 15.0) == Decimal("0.001")
    assert spent_usd(opened, "stars", 0.0) == Decimal("0.002")
    assert spent_usd(opened, "nobody", 0.0) == 0


def test_latency_is_that_of_whole_answers_online(book):
    opened = book({"ms": 100.0}, {"ms": 300.0}, {"ms": 9000.0, "lane": "flex"}, {"ms": 1.0, "status": "429"})
    assert latency_s(opened, MODEL, 0.0) == pytest.approx(0.2)
    assert latency_s(opened, MODEL, 2000.0) is None


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


SEARCH = {"tools": [{"google_search": {}}]}
AUDIO = {"id": 1, "contents": [{"inline_data": {"mime_type": "audio/wav", "data": "AAAA" * 500}}, "Write it down"]}
IMAGE = {"id": 1, "prompt": "What is it?", "image": b"\x89PNG\r\n\x1a\n" + bytes(200)}
BILLS = {
    "thoughts and cached input": ([*names(5)], {}),
    "by flex": ([*names(5)], {"lane": "flex"}),
    "searches": ([*names(5)], {"config": SEARCH}),
    "searches by flex": ([*names(5)], {"config": SEARCH, "lane": "flex"}),
    "queries of a search": ([*names(5)], {"config": SEARCH, "model": "gemini-3-flash-preview"}),
    "sound": ([AUDIO], {}),
    "an image": ([IMAGE], {}),
    "an image made": (names(2), {"modalities": ["IMAGE"], "model": "gemini-2.5-flash-image"}),
    "a long prompt": ([{"id": 1, "prompt": "star " * 170_000}], {"model": "gemini-2.5-pro"}),
}


@pytest.mark.parametrize("what", BILLS)
def test_what_a_call_costs_is_what_the_service_bills(desk, tmp_path, what):
    """By a calculator that is not ours; and it is no more than what was reserved."""
    prompts, arguments = BILLS[what]
    desk.open(thought_tokens=20, cached_share=0.5 if "cached" in what else 0.0)
    session = desk.run(prompts, images_to=tmp_path, budget_usd=50, **arguments)
    assert session.counts.completed == len(prompts)
    billed_usd = sum(row["usd"] for row in desk.server.simulator.ledger())
    assert session.usage()["usd"].sum() == pytest.approx(billed_usd)
    with open_journal(desk.journal).reader() as database:
        assert all(usd <= bound for usd, bound in database.execute("SELECT usd, bound_usd FROM usage"))
