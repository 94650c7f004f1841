"""Submissions as rows: what is created, who runs it, and what becomes of its credits."""

import itertools
import sqlite3
import threading
from contextlib import closing
from decimal import Decimal
from time import monotonic

import pytest

from ipybatch import BatchSession
from ipybatch.engine.store import lease, schema
from ipybatch.gemini.money.credits import CreditAccount, InsufficientCredits
from ipybatch.server.submission_rows import Conflict, KeyUsed, NoSuchSubmission
from ipybatch.server.submission_store import STARTS, Submissions
from tests.server.submitting import AWAY, DEAD, OTHER, Time, order, paid, set_row


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def store(journal, time):
    return Submissions(journal, unix_s=time)


@pytest.fixture
def account(journal):
    account = CreditAccount(journal=journal)
    account.grant(20)
    return account


def as_owner(monkeypatch, owner):
    monkeypatch.setattr(lease, "me", lambda: owner)


class TestReading:
    def test_no_journal_is_made_by_looking(self, store):
        """Who only looks makes no file, and finds nothing."""
        assert store.page(10) == []
        assert store.claim(2) is None
        with pytest.raises(NoSuchSubmission):
            store.find("ffff")
        assert not store.path.exists()

    def test_a_journal_of_before_there_were_submissions(self, store):
        """An older journal has none, and is not migrated by a look."""
        before = next(at for at, step in enumerate(schema.STEPS) if "CREATE TABLE submission" in step)
        with closing(sqlite3.connect(store.path)) as database:
            for step in schema.STEPS[:before]:
                database.executescript(step)
            database.execute(f"PRAGMA user_version = {before}")
        assert store.page(10) == []
        assert store.claim(2) is None
        with closing(sqlite3.connect(store.path)) as database:
            assert schema.version(database) == before

    def test_pages_go_back_from_the_latest(self, store):
        made = [store.create(order()).id for _ in range(5)]
        first = store.page(2)
        assert [row.id for row in first] == made[:-3:-1]
        assert [row.id for row in store.page(10, first[-1].number)] == made[2::-1]


class TestCreating:
    def test_it_waits(self, store, time):
        row = store.create(order(name="night", request=b'{"a":1}', priority=0, start_at_s=2e6))
        assert (row.state, row.name, row.priority, row.start_at_s) == ("PENDING", "night", 0, 2e6)
        assert (row.created_s, row.starts, row.owner, row.run) == (time.now_s, 0, None, None)
        assert store.find(row.id) == row
        assert store.request(row.id) == b'{"a":1}'

    def test_a_name_follows_the_id(self, store):
        row = store.create(order())
        assert row.name == f"words-{row.id[:8]}"

    def test_credits_are_reserved_with_it(self, store, account):
        row = store.create(paid(8))
        (held,) = account.open_reservations()
        assert (held.id, held.credits, held.operation) == (row.reservation, 8, "character")
        assert (account.balance, account.available) == (20, 12)

    def test_too_few_credits_create_nothing(self, store, account):
        with pytest.raises(InsufficientCredits) as refused:
            store.create(paid(21, idempotency="k"))
        assert (refused.value.balance, refused.value.need) == (20, 21)
        assert store.page(10) == []
        assert not account.open_reservations()
        account.grant(1)
        assert store.create(paid(21, idempotency="k")).state == "PENDING"

    def test_the_same_key_is_the_same_submission(self, store, account):
        row = store.create(paid(8, idempotency="k"))
        assert store.create(paid(8, idempotency="k")) == row
        assert store.repeated("k", "d") == row
        assert store.repeated("other", "d") is None
        assert len(account.open_reservations()) == 1

    def test_the_same_key_with_another_body_is_refused(self, store):
        store.create(order(idempotency="k"))
        for ask in (lambda: store.create(order(idempotency="k", digest="e")), lambda: store.repeated("k", "e")):
            with pytest.raises(KeyUsed, match="another request"):
                ask()
        assert len(store.page(10)) == 1

    def test_one_of_many_at_once_is_created(self, store, account):
        """Threads that create with one key, at the same time, get one submission."""
        made = []
        threads = [
            threading.Thread(target=lambda: made.append(store.create(paid(8, idempotency="k")).id)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 8
        assert len(set(made)) == 1
        assert account.available == 12

    @pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELLING"])
    def test_a_name_that_is_taken(self, store, state):
        row = store.create(order(name="night"))
        set_row(store, row, state=state)
        with pytest.raises(Conflict, match="has not ended"):
            store.create(order(name="night"))

    def test_a_name_that_ended_is_free(self, store):
        store.cancel(store.create(order(name="night")).id)
        assert store.create(order(name="night")).number == 2

    def test_a_name_that_runs_in_a_notebook(self, store, live, gate):
        session = live(gate, [1], name="night", journal=store.path)
        session.start()
        with pytest.raises(Conflict, match="already running"):
            store.create(order(name="night"))
        gate.open()


class TestQueue:
    def test_high_goes_first_then_who_came_first(self, store):
        ids = [store.create(order(priority=priority)).id for priority in (2, 1, 0, 1, 0)]
        claimed = [store.claim(99).id for _ in ids]
        assert claimed == [ids[at] for at in (2, 4, 1, 3, 0)]
        assert store.claim(99) is None

    def test_no_more_than_may_run(self, store):
        for _ in range(3):
            store.create(order())
        first, second = store.claim(2), store.claim(2)
        assert store.claim(2) is None
        store.end(first, "COMPLETED")
        assert store.claim(2) is not None
        assert second.starts == 1

    def test_others_count_too(self, store, time, monkeypatch):
        """What another server's kernel runs takes one of the places."""
        rows = [store.create(order()) for _ in range(2)]
        set_row(store, rows[0], state="RUNNING", owner=OTHER, beat_s=time.now_s)
        assert store.claim(1) is None
        assert store.claim(2).id == rows[1].id

    def test_not_before_its_time(self, store, time):
        row = store.create(order(start_at_s=time.now_s + 60))
        assert store.claim(2) is None
        time.now_s += 60
        assert store.claim(2).id == row.id

    def test_a_claim_is_one_start(self, store, time):
        store.create(order())
        row = store.claim(2)
        assert (row.state, row.starts, row.owner, row.beat_s) == ("RUNNING", 1, lease.me(), time.now_s)
        assert store.claim(2) is None


class TestDying:
    def test_who_is_gone_is_started_again(self, store):
        row = store.create(order())
        set_row(store, row, state="RUNNING", starts=1, owner=DEAD, kernel="k")
        again = store.claim(2)
        assert (again.id, again.starts, again.kernel) == (row.id, 2, "")

    def test_not_while_it_beats(self, store, time):
        row = store.create(order())
        set_row(store, row, state="RUNNING", starts=1, owner=AWAY, beat_s=time.now_s - lease.LEASE_S + 1)
        assert store.claim(2) is None

    def test_who_is_silent_is_watched_first(self, store, time, monkeypatch):
        """An owner of another machine with an old beat may have slept: it has a moment to beat again."""
        row = store.create(order())
        set_row(store, row, state="RUNNING", starts=1, owner=AWAY, beat_s=time.now_s - 3600)
        ticks = itertools.count(monotonic())
        monkeypatch.setattr("ipybatch.engine.store.lease.time.monotonic", lambda: next(ticks))
        assert store.claim(2) is None
        assert store.is_live(store.find(row.id)) is None
        looks = next(look for look in range(1, 60) if store.claim(2))
        assert looks * lease.LOOK_S >= lease.SILENCE_S - 1

    def test_three_starts_and_no_more(self, store, account):
        row = store.create(paid(8))
        for start in range(1, STARTS + 1):
            claimed = store.claim(2)
            assert claimed.starts == start
            store.release(claimed, "its kernel died")
        assert store.claim(2) is None
        ended = store.find(row.id)
        assert ended.state == "FAILED"
        assert ended.reason == "it was started 3 times, and ended each time: its kernel died"
        assert account.available == 20

    def test_a_start_that_ended_with_its_server_is_not_counted(self, store):
        store.create(order())
        for _ in range(STARTS + 1):
            claimed = store.claim(2)
            assert claimed.starts == 1
            store.release(claimed, "its server has ended", counted=False)

    def test_a_cancelled_one_is_not_started_again(self, store, account):
        row = store.create(paid(8))
        set_row(store, row, state="RUNNING", starts=1, owner=DEAD)
        set_row(store, row, state="CANCELLING")
        assert store.claim(2) is None
        assert store.find(row.id).state == "CANCELLED"
        assert account.available == 20

    def test_a_late_word_of_an_earlier_start_changes_nothing(self, store):
        store.create(order())
        first = store.claim(2)
        store.release(first, "its kernel died")
        second = store.claim(2)
        assert store.end(first, "FAILED", "late") is False
        store.release(first, "late")
        found = store.find(second.id)
        assert (found.state, found.starts, found.owner) == ("RUNNING", 2, lease.me())


class TestTaking:
    def test_the_kernel_that_was_started_for_it(self, store, monkeypatch):
        store.create(order())
        claimed = store.claim(2)
        store.started(claimed, "kernel-1")
        assert store.stands(claimed) == "ours"
        with monkeypatch.context() as patch:
            as_owner(patch, OTHER)
            taken = store.take(claimed.id, "kernel-1")
            assert (taken.owner, taken.starts) == (OTHER, 1)
            assert store.beat(taken) == "RUNNING"
        assert store.stands(claimed) == "theirs"
        assert store.beat(taken) is None  # this process does not hold it any more

    def test_another_kernel_is_refused(self, store, monkeypatch):
        store.create(order())
        claimed = store.claim(2)
        store.started(claimed, "kernel-1")
        with monkeypatch.context() as patch:
            as_owner(patch, OTHER)
            patch.setattr(lease, "may_live", lambda owner: True)
            for kernel in ("kernel-2", ""):
                with pytest.raises(Conflict, match="already running"):
                    store.take(claimed.id, kernel)

    def test_cron_takes_one_that_waits(self, store):
        row = store.create(order(start_at_s=9e9))
        taken = store.take(row.id)
        assert (taken.state, taken.starts, taken.owner) == ("RUNNING", 1, lease.me())
        assert store.claim(2) is None

    def test_cron_takes_what_died(self, store):
        row = store.create(order())
        set_row(store, row, state="RUNNING", starts=1, owner=DEAD)
        assert store.take(row.id).starts == 2

    @pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", "ROLLED_BACK"])
    def test_what_has_ended_is_refused(self, store, state):
        row = store.create(order())
        set_row(store, row, state=state, reason="so it was")
        with pytest.raises(Conflict, match=rf"has ended: {state} \(so it was\)"):
            store.take(row.id)

    def test_what_was_cancelled_before_its_kernel_began(self, store):
        store.create(order())
        claimed = store.claim(2)
        store.started(claimed, "kernel-1")
        assert store.cancel(claimed.id).state == "CANCELLING"
        with pytest.raises(Conflict, match="was cancelled"):
            store.take(claimed.id, "kernel-1")
        assert store.find(claimed.id).state == "CANCELLED"
        assert store.stands(claimed) == "ended"

    def test_whose_process_is_gone(self, store):
        store.create(order())
        claimed = store.claim(2)
        set_row(store, claimed, owner=DEAD)
        assert store.stands(claimed) == "gone"


class TestEnding:
    def test_what_was_used_is_taken_once(self, store, account):
        store.create(paid(8))
        claimed = store.claim(2)
        assert store.end(claimed, "COMPLETED", used=Decimal("6.5")) is True
        assert store.end(claimed, "FAILED", "again", used=Decimal(8)) is False
        assert (account.balance, account.available) == (Decimal("13.5"), Decimal("13.5"))
        found = store.find(claimed.id)
        assert (found.state, found.reason, found.owner) == ("COMPLETED", "", None)

    def test_no_more_is_taken_than_was_reserved(self, store, account):
        store.create(paid(8))
        store.end(store.claim(2), "COMPLETED", used=Decimal(9))
        assert account.balance == 12

    def test_nobody_tells_what_was_used(self, store, account, time, journal):
        """Of one that failed for good, the items that have completed are paid."""
        row = store.create(paid(8, name="night"))
        BatchSession("night", lambda item: item, [1, 2, 3, 4], journal=journal, backend="threads").run()
        set_row(store, row, run=1, queued_s=0.0)
        with closing(sqlite3.connect(journal, isolation_level=None)) as database:
            database.execute("UPDATE item SET status = 'failed' WHERE id = (SELECT max(id) FROM item)")
        store.end(store.claim(2), "FAILED", "it died")
        assert account.balance == 14

    def test_a_pending_one_gives_its_credits_back(self, store, account):
        row = store.create(paid(8))
        assert store.cancel(row.id).state == "CANCELLED"
        assert store.claim(2) is None
        assert account.available == 20

    def test_cancelling_twice_is_cancelling_once(self, store, account):
        row = store.create(paid(8))
        first = store.cancel(row.id)
        assert store.cancel(row.id) == first
        assert account.balance == 20


class TestQueueingAgain:
    def test_what_is_left_is_reserved_again(self, store, account):
        row = store.create(paid(8))
        claimed = store.claim(2)
        store.link(claimed, 7)
        store.end(claimed, "FAILED", "the breaker gave up", used=Decimal(6))
        again = store.requeue(7, "retry_failed")
        assert (again.id, again.state, again.verb, again.starts) == (row.id, "PENDING", "retry_failed", 0)
        assert (account.balance, account.available) == (14, 12)
        store.end(store.claim(2), "COMPLETED", used=Decimal(1))
        assert (account.balance, account.available) == (13, 13)

    def test_too_few_credits_leave_it_as_it_was(self, store, account):
        store.create(paid(8))
        claimed = store.claim(2)
        store.link(claimed, 7)
        store.end(claimed, "CANCELLED", used=Decimal(0))
        account.settle(account.reserve(15), 15)
        with pytest.raises(InsufficientCredits):
            store.requeue(7, "resume")
        assert store.find(claimed.id).state == "CANCELLED"

    def test_a_session_of_none(self, store):
        assert store.requeue(7, "resume") is None
        store.create(order())
        assert store.requeue(7, "resume") is None

    def test_one_that_has_not_ended(self, store):
        store.create(order())
        store.link(store.claim(2), 7)
        with pytest.raises(Conflict, match="has not ended"):
            store.requeue(7, "resume")

    def test_the_latest_of_a_name_goes_on(self, store):
        ids = []
        for _ in range(2):
            ids.append(store.create(order(name="night")).id)
            claimed = store.claim(2)
            store.link(claimed, 7)
            store.end(claimed, "CANCELLED")
        assert store.requeue(7, "resume").id == ids[1]
