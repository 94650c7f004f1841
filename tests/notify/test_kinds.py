"""What is told, when, and in which words: the whole table."""

import asyncio

import pytest

from ipybatch import Breaker, Permanent, Refused, Retry, Transient, notify
from ipybatch.engine.data.events import Counts, Spent
from ipybatch.engine.data.notice import KINDS, Notice, Notify, decode_notify, encode_notify, kind_of_end, read_notify
from ipybatch.engine.store import outbox as rows
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import InputError
from ipybatch.gemini.batch.jobs import KEPT_S, Job, JobStore
from ipybatch.notify import delivery, texts
from ipybatch.testing import VirtualClock

ALL = Notify("hook", on=KINDS)


@pytest.fixture(autouse=True)
def unsent(hook, monkeypatch):
    """Nothing is sent: what is told is looked at in the outbox."""
    monkeypatch.setattr(delivery.Deliverer, "wake", lambda self, path: None)


def told(journal):
    with open_journal(journal).reader() as database:
        return [(message.kind, message.notice) for message in rows.read(database)]


async def good(item):
    return item


async def slow(item):
    await asyncio.sleep(100)
    return item


async def third_is_bad(item):
    if item == 3:
        raise Permanent("there is no such page")
    return item


def ending(work, notify_, **arguments):
    """Run work in virtual time, and return the one thing that was told; None for nothing."""

    def end(plan, clock, journal):
        session = plan(work, [1, 2, 3, 4], notify=notify_, **arguments)
        clock.run(session)
        found = told(journal)
        assert len(found) <= 1
        return found[0] if found else None

    return end


@pytest.mark.parametrize(
    ("work", "arguments", "kind", "line"),
    [
        (good, {}, "finished", "wishlist completed: 4/4 successful, 0 failed, 0 skipped"),
        (third_is_bad, {}, "finished", "wishlist completed: 3/4 successful, 1 failed, 0 skipped"),
        (third_is_bad, {"on_failure": "stop", "limits": None}, "failed", "wishlist failed: "),
        (third_is_bad, {"on_failure": "rollback"}, "failed", "wishlist rolled_back: "),
    ],
)
def test_an_end_is_told_by_its_kind(plan, clock, journal, *, work, arguments, kind, line):
    found = ending(work, ALL, **arguments)(plan, clock, journal)
    assert found[0] == kind
    assert texts.title_of(found[1]).startswith(line)
    assert found[1].error == ("there is no such page" if work is third_is_bad else "")


def test_a_refused_account_is_told_with_the_services_own_sentence(plan, clock, journal):
    async def refused(item):
        raise Refused("this key was revoked")

    kind, notice = ending(refused, ALL)(plan, clock, journal)
    assert kind == "failed"
    assert "this key was revoked" in notice.reason


def test_a_cancel_is_told_to_those_alone_who_ask_for_it(plan, clock, journal):
    """Whoever cancels it knows of it; others may want to."""
    for number, (given, kinds) in enumerate([("hook", []), (ALL, ["cancelled"])]):
        session = plan(slow, [1], name=f"cancelled {number}", notify=given)

        async def cancel(session=session):
            await asyncio.sleep(1)
            session.cancel()

        clock.run(session, cancel())
        assert session.state == "cancelled"
        assert [kind for kind, notice in told(journal) if notice.name == session.name] == kinds


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_asked_for_is_not_told(journal, kind):
    with_out = Notify("hook", on=set(KINDS) - {kind})
    notice = Notice(kind=kind, name="night", state="running", at_s=0.0)
    journal_ = open_journal(journal)
    assert journal_.write(lambda database: rows.put(database, 1, 1, with_out, notice, due_s=0.0)) is False
    assert journal_.write(lambda database: rows.put(database, 1, 1, ALL, notice, due_s=0.0)) is True
    assert journal_.write(lambda database: rows.put(database, 1, 1, ALL, notice, due_s=0.0)) is False  # once
    assert [found for found, _ in told(journal)] == [kind]


class Outage:
    """A service that is away from its second request on, until a time."""

    def __init__(self, clock, until_s):
        self.clock, self.until_s, self.calls = clock, until_s, 0

    async def __call__(self, item):
        self.calls += 1
        await asyncio.sleep(1)
        if self.calls > 1 and self.clock.now_s() < self.until_s:
            raise Transient("the service is away")
        return item


def outage(plan, clock, until_s, **arguments):
    patient = {"breaker": Breaker(failures=2, break_s=60, give_up_after=1000), "retry": Retry(attempts=5)}
    session = plan(Outage(clock, until_s), list(range(6)), **patient, **arguments)
    clock.run(session)
    assert session.state == "completed"


def test_an_outage_of_ten_minutes_is_told_once(plan, clock, journal):
    """However often a probe failed meanwhile, and the breaker opened again."""
    outage(plan, clock, 3600, notify="hook")
    kinds = [kind for kind, _ in told(journal)]
    assert kinds == ["breaker", "finished"]
    notice = told(journal)[0][1]
    assert notice.at_s - notice.since_s == pytest.approx(600)
    assert texts.title_of(notice) == "wishlist: the service has not answered for 10 min"
    assert "Last error: the service is away" in texts.body_of(notice)


def test_a_short_outage_is_not_told(plan, clock, journal):
    outage(plan, clock, 300, notify="hook")
    assert [kind for kind, _ in told(journal)] == ["finished"]


def test_the_minutes_of_an_outage_are_the_users(plan, clock, journal):
    outage(plan, clock, 300, notify=Notify("hook", breaker_min=2))
    assert [kind for kind, _ in told(journal)] == ["breaker", "finished"]


def test_a_budget_that_is_nearly_spent_is_told_once_a_run(plan, clock, journal):
    """At nine tenths of it; not again when it goes on, unless the budget is another."""

    def spending(session, budget_usd):
        spent = iter([0.5, 0.89, 0.9, 0.95, 1.0])

        async def work(item):
            session().tell(Spent(clock.unix_s(), next(spent), budget_usd))
            return item

        return work

    made = []
    for items, budget_usd in ([1, 2, 3], 1.0), ([1, 2, 3, 4, 5, 6], 1.0):
        made.append(plan(spending(lambda: made[-1], budget_usd), items, notify="hook"))
        clock.run(made[-1])
    found = told(journal)
    assert [kind for kind, _ in found] == ["budget", "finished", "finished"]
    assert texts.title_of(found[0][1]) == "wishlist: 90% of the budget is spent, 0.90 of 1.00 USD"
    assert "raise budget_usd" in texts.body_of(found[0][1])


def job(number, **changes):
    return Job(display_name=f"night-{number}", session="night", number=number, model="m", keys=("a", "b"), **changes)


def put_job(journal, clock, changed):
    store = JobStore(open_journal(journal), clock)

    async def put():
        return await (store.put(changed) if store.named(changed.display_name) else store.intend(changed))

    return clock.run_coroutine(put())


def messages(journal):
    with open_journal(journal).reader() as database:
        return rows.read(database)


def test_results_about_to_expire_are_told_in_time_unless_they_are_collected(plan, clock, journal):
    """Written when the job is seen finished, due 36 hours later; dropped when its results are on record."""
    clock.run(plan(good, [1], name="night", notify=Notify("hook", on="expiring")))
    for number in (1, 2):
        put_job(journal, clock, job(number))
        put_job(journal, clock, job(number, state="running", remote=f"batches/{number}"))
    assert messages(journal) == []
    for number in (1, 2):
        put_job(journal, clock, job(number, state="succeeded", remote=f"batches/{number}"))
        put_job(journal, clock, job(number, state="succeeded", remote=f"batches/{number}"))
    found = messages(journal)
    assert [message.notice.job for message in found] == [1, 2]
    assert found[0].due_s == pytest.approx(clock.unix_s() + KEPT_S - 12 * 3600, abs=10)
    assert texts.title_of(found[0].notice).startswith("night: the results of job 1 expire at 20")
    assert "Not collected: 2 requests" in texts.body_of(found[0].notice)
    put_job(journal, clock, job(1, state="succeeded", remote="batches/1", collected=True))
    assert [message.notice.job for message in messages(journal)] == [2]

    async def withdraw():
        await JobStore(open_journal(journal), clock).withdraw(job(2))

    clock.run_coroutine(withdraw())
    assert messages(journal) == []


def test_jobs_of_a_session_that_asks_for_nothing_are_not_told(plan, clock, journal):
    clock.run(plan(good, [1], name="night"))
    put_job(journal, clock, job(1))
    put_job(journal, clock, job(1, state="succeeded", remote="batches/1"))
    assert messages(journal) == []


def test_each_start_says_anew_who_is_told(plan, clock, journal):
    """`notify` is recorded with the start: without it the next one tells nobody."""
    clock.run(plan(good, [1], notify="hook"))
    clock.run(plan(good, [1, 2]))
    with open_journal(journal).reader() as database:
        assert database.execute("SELECT notify FROM run").fetchall() == [(None,)]
    assert [kind for kind, _ in told(journal)] == ["finished"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"on": "finnished"}, "on must be some of 'finished'"),
        ({"on": ()}, "on must be some of"),
        ({"on": 3}, "on must be some of"),
        ({"on": "test"}, "on must be some of"),
        ({"breaker_min": 0}, "breaker_min must be > 0"),
        ({"budget_share": 1.5}, "budget_share must be > 0 and <= 1"),
        ({"expiring_h": 49}, "expiring_h must be > 0 and <= 48"),
        ({"attach_mb": -1}, "attach_mb must be >= 0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(given, why):
    with pytest.raises(InputError, match=why):
        Notify("hook", **given)


def test_who_is_told_what_survives_the_journal():
    assert decode_notify(encode_notify(ALL)) == ALL
    assert decode_notify(encode_notify(None)) is None
    assert decode_notify('{"channels": ["hook"], "on": ["of a later version"]}') is None
    assert read_notify(["a", "b", "a"]) == Notify(("a", "b"))
    assert notify.Notify is Notify


def test_every_end_has_a_kind():
    assert {kind_of_end(state) for state in ("completed", "failed", "rolled_back", "cancelled", "interrupted")} == {
        "finished",
        "failed",
        "cancelled",
    }


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.2 s"), (42, "42 s"), (600, "10 min"), (7260, "2 h 01 min"), (90_000, "1 d 1 h"), (59.99, "60 s")],
)
def test_a_length_of_time_is_told_in_words(seconds, words):
    assert texts.duration(seconds) == words


def test_what_a_name_or_an_error_holds_moves_nothing(journal):
    """A text of a service cannot add lines, colours, or turn the mail around."""
    notice = Notice(
        kind="finished",
        name="night\x1b[31m\n",
        state="completed",
        at_s=0.0,
        counts=Counts(completed=1, failed=1, total=2),
        error="bad\nSubject: x\u202e",
        notebook="/home/ana/secret-project/night.ipynb",
    )
    title, body = texts.title_of(notice), texts.body_of(notice)
    assert "\n" not in title
    assert "\x1b" not in title + body
    assert "First error: bad Subject: x" in body
    assert "Notebook: night.ipynb" in body
    assert "ana" not in body


def test_time_stands_still_for_what_is_told(plan, journal):
    """The facts are those of the moment that they tell of, by the session's own clock."""
    clock = VirtualClock()
    session = plan(good, [1], notify="hook", clock=clock)
    clock.run(session)
    ((_, notice),) = told(journal)
    assert notice.at_s == pytest.approx(clock.unix_s(), abs=1)
