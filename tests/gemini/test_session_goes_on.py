"""Sessions that go on where an earlier process was killed, cancelled or left: nothing is paid twice, none is lost."""

import math

import msgspec
import pytest

from ipybatch.testing import VirtualClock
from tests.gemini.killed import PRICES
from tests.gemini.nights import SOON, check_billed_once, check_matched, night, reached, stars
from tests.gemini.nights import night_service as gemini
from tests.gemini.stories import Session

# google-genai 3.4.0 has a session class of its own, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

MOST = {"config": {"max_output_tokens": 100}, "prices": PRICES}
MOST_USD = 0.5 * (128 + 10 * 100) / 1e6  # of a short prompt, by batch


def leave(service, journal, clock, prompts=6, **given):
    """Leave jobs running."""
    assert clock.run(night(service, journal, prompts, clock=clock, wait_s=1, **given)).state == "failed"


def cancel(service, journal, clock, prompts=6, **given):
    """Cancel a session when its job runs; a process that is killed then sees the job's end."""
    session = night(service, journal, prompts, clock=clock, **given)

    async def when_it_runs():
        await reached(lambda: service.jobs == 1)
        session.cancel()

    assert clock.run(session, when_it_runs()).state == "cancelled"


def see_the_end(service, journal):
    here = Session(service.url, journal)
    for job in here.store.of_session("night"):
        here.wait(job)


@pytest.mark.parametrize("is_seen", [False, True])
def test_what_we_cancelled_goes_into_another_job(journal, clock, is_seen):
    """Also if the process that saw the end of the job was killed before it sent anything again."""
    with gemini(batch_delay_s=None, cancel_s=0.0) as service:
        cancel(service, journal, clock)
        if is_seen:
            see_the_end(service, journal)
        service.simulator._jobs._endless, service.simulator._jobs._running_s = False, SOON
        session = night(service, journal, 6, clock=clock)
        assert clock.run(session).counts.completed == 6
        assert service.states() == ["CANCELLED", "SUCCEEDED"]
        check_matched(session, 6)
        assert list(session.statement().unknown) == [0, 0]


def test_a_budget_has_room_for_what_was_cancelled_before_it_was_billed(journal, clock):
    with gemini(batch_delay_s=None, cancel_s=0.0) as service:
        cancel(service, journal, clock, budget_usd=7 * MOST_USD, **MOST)
        service.simulator._jobs._endless, service.simulator._jobs._running_s = False, SOON
        session = night(service, journal, 6, clock=clock, budget_usd=7 * MOST_USD, **MOST)
        summary = clock.run(session)
        assert summary.counts.completed == 6, summary.reason
        assert service.jobs == 2


@pytest.mark.parametrize("prompts", [2, 6])
@pytest.mark.parametrize(
    "lane",
    [
        {"lane": "online"},
        {"lane": "flex"},
        {"lane": "flex", "flex_fallback": "batch"},
        {"lane": "auto"},
        {"lane": "auto", "deadline_s": 1e6},
    ],
    ids=str,
)
def test_what_a_job_has_is_not_sent_by_another_lane(journal, clock, lane, prompts):
    with gemini(batch_delay_s=0.1) as service:
        leave(service, journal, clock)
        asked = [*stars(prompts), "Name a comet"]
        session = night(service, journal, asked, clock=clock, wait_s=1e6, **lane)
        assert clock.run(session).counts.completed == len(asked)
        check_matched(session, len(asked))
        check_billed_once(service)


def test_what_expired_twice_is_sent_no_third_time_by_a_process_after_a_kill(journal, clock):
    """The first job was done with when the second one ran, and that was not on record."""
    with gemini(batch_delay_s=SOON, job_faults=["expire", "expire"]) as service:
        clock.run(night(service, journal, 4, clock=clock))
        here = Session(service.url, journal)
        first, second = here.store.of_session("night")
        assert (first.collected, second.collected) == (True, False)
        here.tell(lambda at: at.store.put(msgspec.structs.replace(first, collected=False)))
        session = night(service, journal, 4, clock=clock)
        assert clock.run(session).counts.skipped == 4
        assert service.jobs == 2
        assert session.resend() == 1
        assert clock.run(session).counts.completed == 4
        assert all(job.collected for job in here.store.of_session("night"))
        assert service.files == []


def test_what_fails_at_the_service_is_no_answer_that_was_lost(journal, clock):
    with gemini(batch_delay_s=SOON, item_failure_rate=1.0) as service:
        session = night(service, journal, 3, clock=clock)
        clock.run(session)
        statement = session.statement()
        assert statement.sent.sum() > 3
        assert statement[["billed", "kept", "waiting", "lost", "unknown"]].sum().sum() == 0


def test_results_are_kept_for_48_hours_from_the_end_and_not_from_when_it_was_seen(journal):
    clock = VirtualClock()
    ended_s = clock.unix_s()
    with gemini(batch_delay_s=0.1, job_faults=["cut"], job_looks=math.inf, epoch_s=ended_s) as service:
        leave(service, journal, clock)
        clock.advance(10 * 3600)
        session = night(service, journal, 6, clock=clock, wait_s=1e6)
        assert clock.run(session).counts.skipped == 3
        (expires,) = session.statement().expires
        assert expires.timestamp() == pytest.approx(ended_s + 48 * 3600, abs=600)


def test_what_nobody_found_may_be_billed_also_when_it_was_sent_again(journal, clock):
    budget_usd = 6.5 * MOST_USD
    with gemini(batch_delay_s=SOON, create_faults=["drop_before"]) as service:
        session = night(service, journal, 3, clock=clock, budget_usd=budget_usd, **MOST)
        clock.run(session)
        assert session.resend() == 1
        assert clock.run(session).counts.completed == 3
        assert list(session.statement().sent) == [3, 3]
        assert list(session.statement().unknown) == [3, 0]
        assert session.usage().usd_unconfirmed.sum() == pytest.approx(3 * MOST_USD)
        more = night(service, journal, 7, clock=clock, budget_usd=budget_usd, **MOST)
        assert clock.run(more).counts.completed < 7


@pytest.mark.parametrize("days", [0, 3])
@pytest.mark.parametrize("fault", ["late", "late_file", "cut"])
def test_what_never_comes_is_sent_again_on_request(journal, clock, fault, days):
    with gemini(batch_delay_s=SOON, job_faults=[fault], job_looks=math.inf) as service:
        clock.run(night(service, journal, 4, clock=clock))
        clock.advance(days * 86_400)
        session = night(service, journal, 4, clock=clock)
        assert clock.run(session).counts.skipped > 0
        assert service.jobs == 1
        assert session.resend() == 1
        assert clock.run(session).counts.completed == 4
        check_matched(session, 4)
        assert service.jobs == 2


def test_of_prompts_of_which_one_is_long_that_one_may_be_billed(journal, clock):
    """A job that we cancelled tells how many it billed, and not which: the dearest of them."""
    prompts = [*stars(5), "Name the longest star of all " + "and of these " * 3000]
    long_usd = 0.5 * len(prompts[-1]) / 1e6
    with gemini(batch_delay_s=None, cancel_s=0.0, job_faults=["billed"], partial_share=0.3) as service:
        cancel(service, journal, clock, prompts, **MOST)
        service.simulator._jobs._endless, service.simulator._jobs._running_s = False, SOON
        session = night(service, journal, prompts, clock=clock, **MOST)
        assert clock.run(session).counts.completed == 6
        assert session.usage().usd_unconfirmed.sum() > long_usd


def test_a_budget_counts_what_a_job_of_the_run_before_may_cost(journal, clock):
    budget_usd = 9.5 * MOST_USD
    with gemini(batch_delay_s=0.6) as service:
        leave(service, journal, clock, **MOST)
        session = night(service, journal, 20, clock=clock, fresh=True, wait_s=1e6, budget_usd=budget_usd, **MOST)
        clock.run(session)
        first, *others = Session(service.url, journal).store.of_session("night")
        assert first.requests == 6
        assert others[0].requests == 3
        assert session.usage().usd.sum() <= budget_usd
        check_billed_once(service)
