"""The auto lane: cheapest first, and what is not back early enough goes another way."""

import pytest

from tests.gemini.nights import SOON, check_matched, groups, night, night_service
from tests.gemini.stories import MODEL

# google-genai 3.4.0 has a session class of its own, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

PRICES = {MODEL: {"in": 1.0, "out": 10.0}}  # online, USD a million tokens; flex and batch half


def auto(service, journal, prompts=20, **arguments):
    return night(service, journal, prompts, lane="auto", **{"prices": PRICES, "poll_s": 0.1, **arguments})


def usd(billed):
    """Return what the service bills, by the prices above."""
    share = {"online": 1.0, "flex": 0.5, "batch": 0.5}
    return sum(share[lane] * (used["prompt"] + 10 * used["out"]) / 1e6 for lane, used in billed.items())


def online_usd(billed):
    return sum((used["prompt"] + 10 * used["out"]) / 1e6 for used in billed.values())


def test_a_batch_that_never_ends_is_left_in_time(journal, clock):
    """All is done by the deadline, the cancelled job bills nothing, and the budget holds."""
    with night_service(batch_delay_s=None, cancel_s=0.0) as service:
        session = auto(service, journal, deadline_s=3600, budget_usd=0.05, output_tokens=80, clock=clock)
        clock.run(session)
        check_matched(session, 20)
        assert clock.now_s() < 3600
        truth = service.truth()
        assert service.states() == ["CANCELLED"]
        assert truth["billed"]["batch"]["generations"] == 0
        assert truth["billed_twice"] == []
        assert usd(truth["billed"]) <= 0.05
        assert session.usage().usd.sum() == pytest.approx(usd(truth["billed"]))


def test_a_batch_that_ends_in_time_saves_half(journal):
    with night_service(batch_delay_s=0.3, latency_s=0.02) as service:
        session = auto(service, journal, deadline_s=60.0, budget_usd=0.05, output_tokens=80)
        assert session.run().state == "completed"
        check_matched(session, 20)
        truth = service.truth()
        assert truth["billed"]["batch"]["generations"] == 20
        assert session.usage().usd.sum() <= 0.55 * online_usd(truth["billed"])
        assert session.usage().usd.sum() <= 0.05


def test_without_a_deadline_the_batch_has_all_the_time_there_is(journal, clock):
    with night_service(batch_delay_s=0.3) as service:
        session = auto(service, journal, poll_s=30, wait_s=1e6, clock=clock)
        clock.run(session)
        check_matched(session, 20)
        assert service.truth()["billed"]["batch"]["generations"] == 20


def test_flex_comes_between(journal, clock):
    """What leaves the batch early enough costs half as well."""
    with night_service(batch_delay_s=None, cancel_s=0.0) as service:
        session = auto(service, journal, deadline_s=3600, clock=clock)
        clock.run(session)
        check_matched(session, 20)
        billed = service.truth()["billed"]
        assert (billed["flex"]["generations"], billed["online"]["generations"]) == (20, 0)
        assert clock.now_s() < 3600


def test_what_flex_has_no_room_for_goes_online(journal, clock):
    with night_service(batch_delay_s=None, cancel_s=0.0, flex_shed_rate=1.0) as service:
        session = auto(service, journal, deadline_s=3600, clock=clock)
        clock.run(session)
        check_matched(session, 20)
        assert service.truth()["billed"]["online"]["generations"] == 20
        assert clock.now_s() < 3600


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_prompts_wait_for_no_batch(journal, clock, count):
    with night_service(batch_delay_s=None) as service:
        session = auto(service, journal, count, clock=clock)
        clock.run(session)
        check_matched(session, count)
        assert service.jobs == 0
        assert clock.now_s() < 60


def test_a_deadline_that_no_batch_can_meet_begins_without_one(journal, clock):
    """Once it is known how long an answer takes, no job is submitted that would be cancelled at once."""
    with night_service(batch_delay_s=None, latency_s=0.2) as service:
        night(service, journal, 4, lane="online", name="before").run()
        session = auto(service, journal, 100, deadline_s=1.0)
        assert session.run().state == "completed"
        assert service.jobs == 0
        billed = service.truth()["billed"]
        assert billed["online"]["generations"] + billed["flex"]["generations"] == 104


def test_a_job_that_does_not_say_it_is_cancelled_keeps_nobody_past_the_deadline(journal):
    with night_service(batch_delay_s=None, cancel_s=60.0) as service:
        session = auto(service, journal, deadline_s=4.0)
        assert session.run().seconds < 4.0
        check_matched(session, 20)


def test_some_jobs_back_in_time_and_some_not(journal, clock):
    with night_service(batch_delay_s=SOON, job_faults=["fail", None]) as service:
        session = auto(service, journal, 20, max_requests_per_job=10, deadline_s=86400, clock=clock)
        clock.run(session)
        check_matched(session, 20)
        assert service.truth()["billed"]["batch"]["generations"] == 20
        assert sorted(groups(session)) == [("completed", "succeeded"), ("completed", "succeeded"), ("failed", "failed")]


def test_a_budget_that_is_too_small_for_all_holds_in_every_lane(journal, clock):
    with night_service(batch_delay_s=None, cancel_s=0.0) as service:
        session = auto(service, journal, deadline_s=3600, budget_usd=0.004, output_tokens=80, clock=clock)
        summary = clock.run(session)
        assert summary.state == "failed"
        assert session.reason.startswith("budget_usd is 0.004")
        assert 0 < summary.counts.completed < 20
        assert usd(service.truth()["billed"]) <= 0.004


def test_an_auto_session_that_was_killed_by_its_wait_goes_on_with_its_job(journal, clock):
    with night_service(batch_delay_s=0.3) as service:
        assert clock.run(auto(service, journal, wait_s=60, clock=clock, poll_s=30)).state == "failed"
        session = auto(service, journal, wait_s=1e6, clock=clock, poll_s=30)
        clock.run(session)
        check_matched(session, 20)
        assert service.jobs == 1


@pytest.mark.parametrize("is_left", [False, True])
def test_a_prompt_that_left_a_job_which_runs_on_never_waits_for_it_again(journal, clock, is_left):
    """Neither when its first request by another lane fails, nor when an earlier process left the job."""
    with night_service(batch_delay_s=None, cancel_s=1e9, answer_faults={"error_body": 0.3}) as service:
        if is_left:
            assert clock.run(auto(service, journal, wait_s=60, clock=clock)).state == "failed"
        began_s = clock.now_s()
        session = auto(service, journal, deadline_s=3600, wait_s=1e6, clock=clock)
        clock.run(session)
        check_matched(session, 20)
        assert service.jobs == 1
        assert clock.now_s() - began_s < 3600
