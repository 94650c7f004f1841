"""What a session of prompts tells of itself: what it saved, its jobs, and when results expire that nobody fetched."""

from decimal import Decimal

import pytest

from ipybatch import BatchSession
from ipybatch.engine.data.fact import NONE
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.gemini.batch.jobs import EXPIRES
from ipybatch.gemini.bill_facts import bill_facts
from ipybatch.gemini.money.budget import Budget, Money
from ipybatch.jupyter import messages
from tests.gemini.nights import SOON, night
from tests.gemini.nights import night_service as gemini

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
PRICES = {"stars-1": {"in": 1.0, "out": 2.0, "batch": 0.25}}


def job(number, status, expires=""):
    return Group(number=number, name=f"Job {number}", status=status, items=5, extra={EXPIRES: expires})


def read(money, *jobs, spent_usd=0.0, has_jobs=True, is_over=False):
    snapshot = Snapshot(groups={one.number: one for one in jobs}, spent_usd=spent_usd)
    facts = bill_facts(snapshot, money, 0.0, is_cheaper=True, has_jobs=has_jobs, is_over=is_over)
    return {fact.title: fact for fact in facts}


def test_a_session_that_goes_online_has_nothing_to_tell():
    assert bill_facts(Snapshot(), Money(Budget(None)), 0.0, is_cheaper=False, has_jobs=False, is_over=False) == []


def test_what_was_saved_follows_from_the_prices_of_the_lanes():
    """At a quarter of the price, three quarters of what online takes."""
    money = Money(Budget(None), PRICES)
    money.save("stars-1", "batch", Decimal("0.5"))
    money.save("stars-1", "online", Decimal("0.7"))
    saved = read(money, spent_usd=1.2)["Saved"]
    assert (saved.value, saved.aside, saved.foot) == ("$1.50", "56 % less", "online it would be $2.70")


def test_a_price_that_nobody_knows_saves_nothing_that_is_told():
    money = Money(Budget(None), PRICES)
    money.save("nobody-knows-this", "batch", None)
    assert (read(money)["Saved"].value, read(money)["Saved"].foot) == (NONE, "no price is known")


def test_jobs_are_counted_while_it_runs_and_at_the_end():
    jobs = [job(1, "completed"), job(2, "running"), job(3, "running"), job(4, "pending"), job(5, "failed")]
    running = read(None, *jobs)["Batch jobs"]
    assert (running.value, running.aside, running.foot) == ("2", "running", "1 waiting, 1 done, 1 failed")
    over = read(None, *jobs, is_over=True)["Batch jobs"]
    assert (over.value, over.aside, over.foot) == ("1", "of 5 done", "3 left at the service, 1 failed")


def test_the_first_results_to_expire_are_counted_down():
    """In the same place all the time; a warning when there is little time left."""
    assert read(None, job(1, "running"))["Results expire"].value == NONE
    assert "Results expire" not in read(None, job(1, "completed"), is_over=True)
    late, soon = "1970-01-02T20:00:00Z", "1970-01-01T05:00:00Z"
    first = read(None, job(1, "running", late), job(2, "running", soon))["Results expire"]
    assert (first.value, first.foot, first.tone) == (f"in {soon}", "Job 2, not fetched yet", "warn")
    assert read(None, job(1, "running", late), is_over=True)["Results expire"].tone == ""


def test_a_night_in_batch_jobs_saves_half(journal, clock):
    """As many facts all the time; what was saved is as much as was spent, and on record."""
    seen = []
    with gemini(batch_delay_s=SOON) as service:
        session = night(service, journal, 25, clock=clock, max_requests_per_job=10)
        session.on(lambda event: seen.append(tuple(fact.title for fact in messages.facts_of(session))))
        clock.run(session)
    assert {titles for titles in seen if titles} >= {("Saved", "Batch jobs", "Results expire")}
    facts = {fact.title: fact for fact in messages.head(session).facts}
    assert list(facts) == ["Saved", "Batch jobs"]
    assert facts["Saved"].aside == "50 % less"
    assert (facts["Batch jobs"].value, facts["Batch jobs"].aside) == ("3", "of 3 done")
    reopened = messages.head(BatchSession.open("night", journal=journal))
    assert [fact.title for fact in reopened.facts] == list(facts)
    assert reopened.spent_usd == pytest.approx(session.snapshot.spent_usd)


def test_a_second_process_knows_what_the_first_one_saved(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        clock.run(first := night(service, journal, 4, clock=clock))
        clock.run(second := night(service, journal, 6, clock=clock))
    saved = [float(next(fact.value for fact in messages.head(one).facts).removeprefix("$")) for one in (first, second)]
    assert 0 < saved[0] < saved[1]
