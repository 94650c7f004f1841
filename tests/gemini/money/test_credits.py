from __future__ import annotations

import multiprocessing
import tempfile
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.engine.data.masking import register
from ipybatch.engine.store import journal as journals
from ipybatch.errors import BatchError, JournalError
from ipybatch.gemini.money.credits import (
    CreditAccount,
    InsufficientCredits,
    batch_size_of,
    credits_of,
    find_credits,
)
from tests.open_files import close_journal


@contextmanager
def journal_at(path):
    """Give the path of a journal, closed at the end."""
    try:
        yield path
    finally:
        close_journal(path)


@pytest.fixture
def journal(tmp_path):
    with journal_at(tmp_path / "journal.db") as path:
        yield path


@pytest.fixture
def account(journal):
    account = CreditAccount(journal=journal)
    account.grant(100)
    return account


@pytest.mark.parametrize(
    ("operation", "online", "batch"),
    [("character", "4", "2"), ("food", "4", "2"), ("product", "5", "2.5"), ("text-to-image", "4", "2")],
)
def test_the_table(operation, online, batch):
    """Credits a pose, a style or an image; half by batch, and exactly so."""
    assert credits_of(operation) == credits_of(operation, lane="flex") == Decimal(online)
    assert credits_of(operation, lane="batch") == Decimal(batch)


def test_half_credits_are_exact():
    """2.5 a pose, 333 times: no float comes near it."""
    assert str(credits_of("product", 333, "batch")) == "832.5"


def test_what_takes_no_credits_is_told_or_none():
    assert find_credits("summary", 3) is None
    with pytest.raises(InputError, match="operation must be one of 'character', 'food', 'product', 'text-to-image'"):
        credits_of("summary")


@pytest.mark.parametrize(("units", "lane"), [(-1, "batch"), (1.5, "batch"), (True, "online"), (1, "auto")])
def test_impossible_units_and_lanes_are_refused(units, lane):
    with pytest.raises(InputError, match="must be"):
        credits_of("food", units, lane)


def test_batch_sizes():
    sizes = {each: batch_size_of(each) for each in ("character", "food", "product", "text-to-image", "summary")}
    assert list(sizes.values()) == [(5, 10), (5, 20), (5, 10), (10, 20), (10, 20)]


def test_a_reservation_is_settled_for_what_was_taken(account):
    """The rest comes back."""
    held = account.reserve(10, "food", "item-7")
    assert (account.balance, account.available) == (100, 90)
    assert account.settle(held, "2.5")
    assert (account.balance, account.available) == (Decimal("97.5"), Decimal("97.5"))


def test_a_refund_brings_it_all_back(account):
    assert account.refund(account.reserve(10))
    assert (account.balance, account.available) == (100, 100)


@pytest.mark.parametrize("first", ["settle", "refund"])
def test_closing_twice_is_closing_once(account, first):
    """What comes first holds, whatever comes second."""
    held = account.reserve(10)
    assert account.settle(held, 4) if first == "settle" else account.refund(held)
    before = account.balance
    assert not account.settle(held, 9)
    assert not account.refund(held)
    assert account.balance == account.available == before


def test_more_than_is_available_is_refused_with_the_figures(account):
    """Balance, need and shortfall, in words and as attributes; nothing is held."""
    account.reserve(90)
    with pytest.raises(InsufficientCredits, match="balance of 100 credits, of which 90 are reserved") as told:
        account.reserve("12.5")
    error = told.value
    assert (error.balance, error.available, error.need) == (100, 10, Decimal("12.5"))
    assert error.shortfall == Decimal("2.5")
    assert "2.5 short" in str(error)
    assert isinstance(error, BatchError)
    assert account.available == 10


def test_an_account_starts_with_nothing(journal):
    with pytest.raises(InsufficientCredits, match="account 'new' has a balance of 0 credits; 1 are needed: 1 short"):
        CreditAccount("new", journal).reserve(1)


def test_more_than_was_reserved_cannot_be_taken(account):
    held = account.reserve(5)
    with pytest.raises(InputError, match="credits must be <= 5, which are reserved, got 6"):
        account.settle(held, 6)
    assert [each.id for each in account.open_reservations()] == [held]


def test_a_reservation_of_another_account_is_unknown(account, journal):
    held = account.reserve(5)
    for reservation in (held + 1, held - 1):  # none, and a grant
        with pytest.raises(InputError, match="reservation must be one of account 'default'"):
            account.refund(reservation)
    with pytest.raises(InputError, match="reservation must be one of account 'other'"):
        CreditAccount("other", journal).refund(held)
    assert account.available == 95


def test_what_a_crash_left_open_is_listed_and_can_be_refunded(account, journal):
    """The next process sees the reservation as the first one made it."""
    held = account.reserve(5, "food", "item-7")
    with journal_at(journal):
        pass
    later = CreditAccount(journal=journal)
    (left,) = later.open_reservations()
    assert (left.id, left.credits, left.operation, left.reference) == (held, 5, "food", "item-7")
    assert later.refund(left.id)
    assert (later.open_reservations(), later.available) == ([], 100)


def test_the_statement_has_every_movement(journal):
    account = CreditAccount(journal=journal, unix_s=iter([0.0, 60.0, 120.0, 180.0, 240.0]).__next__)
    account.grant("20", "May")
    first = account.reserve(10, "food", "a")
    second = account.reserve(5, "product", "b")
    account.settle(first, "2.5")
    account.refund(second)
    told = account.statement()
    assert list(told["kind"]) == ["grant", "reserve", "reserve", "settle", "refund"]
    assert list(map(str, told["credits"])) == ["20", "0", "0", "-2.5", "0"]
    assert list(map(int, told["reserved"])) == [0, 10, 5, -10, -5]
    assert list(map(str, told["balance"])) == ["20", "20", "20", "17.5", "17.5"]
    assert list(map(str, told["available"])) == ["20", "10", "5", "12.5", "17.5"]
    assert list(told["reference"]) == ["", "a", "b", "a", "b"]
    assert list(told["reservation"].fillna(0)) == [0, first, second, first, second]
    assert str(told["at"].iloc[1]) == "1970-01-01 00:01:00+00:00"
    assert told["note"].iloc[0] == "May"


def test_an_empty_statement_has_the_same_columns(account, journal):
    empty = CreditAccount("none", journal).statement()
    assert len(empty) == 0
    assert list(empty.columns) == list(account.statement().columns)


moves = st.lists(
    st.tuples(
        st.sampled_from(["grant", "reserve", "settle", "refund"]),
        st.decimals(0, 50, places=2),
        st.integers(0, 10),
        st.booleans(),
    ),
    max_size=25,
)


@given(moves=moves)
def test_an_account_never_promises_what_it_has_not(moves):
    """Whatever is asked, in whatever order, by either of two views of it: never below nought, and the sums agree."""
    granted = taken = Decimal(0)
    open_ = {}
    with tempfile.TemporaryDirectory() as folder, journal_at(Path(folder) / "journal.db") as path:
        views = [CreditAccount(journal=path), CreditAccount(journal=path)]
        made = []
        for kind, amount, which, view in moves:
            account = views[view]
            if kind == "grant" and amount:
                account.grant(amount)
                granted += amount
            elif kind == "reserve":
                free = granted - taken - sum(open_.values())
                if amount > free:
                    with pytest.raises(InsufficientCredits):
                        account.reserve(amount)
                else:
                    made.append(account.reserve(amount))
                    open_[made[-1]] = amount
            elif made and kind != "grant":
                held = made[which % len(made)]
                if kind == "settle":
                    spent = min(amount, open_.get(held, amount))
                    assert account.settle(held, spent) is (held in open_)
                    taken += spent if held in open_ else 0
                else:
                    assert account.refund(held) is (held in open_)
                open_.pop(held, None)
            assert account.available >= 0
        for account in views:
            assert account.balance == granted - taken
            assert account.available == account.balance - sum(open_.values())
        told = views[0].statement()
        assert sum(told["credits"], Decimal(0)) == granted - taken
        assert sum(told["reserved"], Decimal(0)) == sum(open_.values())
        assert all(available >= 0 for available in told["available"])


def _spend(path, done):
    account = CreditAccount(journal=path)
    held = 0
    while True:
        try:
            account.settle(account.reserve(1), 1)
        except InsufficientCredits:
            break
        held += 1
    done.put(held)


def test_two_processes_cannot_overspend_it(account, journal):
    """100 credits are taken 100 times between them, not once more."""
    spawn = multiprocessing.get_context("spawn")
    done = spawn.Queue()
    spenders = [spawn.Process(target=_spend, args=(journal, done)) for _ in range(2)]
    for spender in spenders:
        spender.start()
    taken = [done.get(timeout=60) for _ in spenders]
    for spender in spenders:
        spender.join()
    assert sum(taken) == 100
    assert account.balance == account.available == 0


def test_what_was_not_committed_was_not_folded(account, journal, monkeypatch):
    """A write that fails on the disk leaves what is known as it was, and the next one goes through."""
    held = account.reserve(10)
    assert account.available == 90
    CreditAccount(journal=journal).settle(held, 4)

    def fail(place):
        msg = "disk I/O error"
        raise OSError(28, msg)

    with monkeypatch.context() as broken:
        broken.setattr(journals, "on_commit", fail)
        with pytest.raises(JournalError, match="disk I/O error"):
            account.reserve(50)
    account.reserve(96)
    assert (account.balance, account.available) == (96, 0)


def test_a_journal_put_in_its_place_is_another_account(account, journal, tmp_path):
    """What was known of the file before is forgotten."""
    assert account.balance == 100
    for file in tmp_path.iterdir():
        file.unlink()
    assert account.balance == 0
    assert account.grant(7) == 7


@pytest.mark.parametrize("amount", [-1, 0, "x", None, float("nan"), float("inf"), True, "0.0000001", 10**12])
def test_what_is_no_amount_is_refused(account, amount):
    with pytest.raises(InputError, match="credits must be > 0 and < 1,000,000,000,000, with at most 6 decimals"):
        account.grant(amount)


def test_amounts_may_be_written_in_any_way(account):
    """A float means what it shows: 0.1 is a tenth."""
    for amount in (0.1, "0.10", Decimal("1E+1"), 3):
        account.grant(amount)
    assert account.balance == Decimal("113.2")
    assert repr(account) == "CreditAccount('default': balance 113.2, available 113.2)"


@pytest.mark.parametrize("name", ["", " ", None, 3])
def test_an_account_has_a_name(name, journal):
    with pytest.raises(InputError, match="name must be a text"):
        CreditAccount(name, journal)


def test_secrets_are_not_written_down(account, journal):
    register("AIza-secret-of-credits")
    account.grant(1, "paid with AIza-secret-of-credits")
    account.reserve(1, "AIza-secret-of-credits", "AIza-secret-of-credits")
    assert b"AIza-secret" not in b"".join(file.read_bytes() for file in journal.parent.iterdir())
    with pytest.raises(InputError, match="note must be text, got 3"):
        account.grant(1, 3)
