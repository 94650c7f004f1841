"""Batch sessions against a simulated service: in virtual time the looks at a job take none."""

import asyncio

import httpx
import pytest
from google import genai
from google.genai.types import HttpOptions

from ipybatch import Retry
from ipybatch.gemini import price_of
from ipybatch.gemini import session as session_module
from ipybatch.gemini.batch import pending
from ipybatch.gemini.batch.collector import LOOKS
from ipybatch.gemini.service.reply import Tokens
from ipybatch.simulators.gemini.batches import BatchEndpoints
from ipybatch.simulators.gemini.quotas import as_error
from ipybatch.simulators.service import as_json
from tests.gemini.nights import (
    SOON,
    check_billed_once,
    check_matched,
    groups,
    night,
    reached,
    stars,
    waited,
)
from tests.gemini.nights import night_service as gemini
from tests.gemini.stories import KEY, Session

# google-genai 3.4.0 has a session class of its own, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")


def test_every_answer_reaches_its_own_prompt(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        session = night(service, journal, 25, clock=clock, max_requests_per_job=10)
        assert str(clock.run(session)) == "night completed: 25/25 successful, 0 failed, 0 skipped"
        check_matched(session, 25)
        assert [group.items for group in session.snapshot.groups.values()] == [10, 10, 5]
        assert groups(session) == [("completed", "succeeded")] * 3
        assert check_billed_once(service)["billed"]["batch"]["generations"] == 25


def test_failed_items_are_sent_again_alone(journal, clock):
    """A job with failed items succeeds all the same: only those are submitted again, in jobs of their own."""
    with gemini(batch_delay_s=SOON, item_failure_rate=0.2, seed=3) as service:
        session = night(service, journal, 50, clock=clock, max_requests_per_job=25)
        clock.run(session)
        check_matched(session, 50)
        first, second, *more = session.snapshot.groups.values()
        assert (first.items, second.items) == (25, 25)
        assert 0 < sum(group.items for group in more) < 25
        assert groups(session) == [("completed", "succeeded")] * (2 + len(more))
        assert check_billed_once(service)["billed"]["batch"]["generations"] == 50


@pytest.mark.parametrize("images", [False, True], ids=["text", "images"])
def test_answers_are_matched_where_a_file_is_answered_inline(journal, clock, tmp_path, images):
    prompts = stars(12)
    if images:
        picture = tmp_path / "star.png"
        picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(100)))
        prompts = [{"prompt": prompt, "image": picture, "id": prompt} for prompt in prompts]
    with gemini(batch_delay_s=SOON, inline_answers=True) as service:
        session = night(service, journal, prompts, clock=clock, max_requests_per_job=5)
        clock.run(session)
        check_matched(session, 12)
        check_billed_once(service)


def test_an_item_that_the_service_refuses_fails_alone_and_once(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        session = night(service, journal, [*stars(4), "Name no star [[invalid]]"], clock=clock)
        assert str(clock.run(session)) == "night completed: 4/5 successful, 1 failed, 0 skipped"
        assert session.results().error[4] == "Request contains an invalid argument. (code 3)"
        assert service.jobs == 1


def test_an_image_that_is_gone_fails_its_own_item(journal, clock, tmp_path):
    pictures = [tmp_path / f"{number}.png" for number in range(3)]
    for picture in pictures:
        picture.write_bytes(b"\x89PNG\r\n\x1a\n" + picture.name.encode())
    with gemini(batch_delay_s=SOON) as service:
        prompts = [{"prompt": "Name it", "image": picture, "id": picture.name} for picture in pictures]
        session = night(service, journal, prompts, clock=clock)
        pictures[1].unlink()
        clock.run(session)
        assert list(session.results().status) == ["completed", "failed", "completed"]
        assert "1.png" in session.results().error[1]


def test_no_more_jobs_are_alive_than_allowed(journal, clock):
    """The service refuses a third: it is never asked for one, and what another process left counts."""
    with gemini(batch_delay_s=0.5, max_active_jobs=2) as service:
        options = {"max_requests_per_job": 2, "max_active_jobs": 2, "clock": clock}
        assert clock.run(night(service, journal, 12, **options, poll_s=1, wait_s=1)).state == "failed"
        assert service.jobs == 2
        session = night(service, journal, 12, **options, wait_s=1e6)
        clock.run(session)
        check_matched(session, 12)
        truth = check_billed_once(service)
        assert (len(truth["jobs"]), truth["refused"]) == (6, 0)


def test_why_jobs_failed_is_shown_and_their_items_go_into_others(journal, clock):
    with gemini(batch_delay_s=SOON, job_faults=["fail", "expire"]) as service:
        session = night(service, journal, 6, clock=clock, max_requests_per_job=3, max_active_jobs=1)
        clock.run(session)
        check_matched(session, 6)
        failed, expired, *others = session.snapshot.groups.values()
        assert (failed.status, failed.extra["State"]) == ("failed", "failed")
        assert failed.error == "failed: The batch failed: internal error while reading the requests. (code 13)"
        assert (expired.status, expired.extra["State"]) == ("timeout", "expired")
        assert expired.error.startswith("expired: the service did not finish it within 48 hours")
        assert [group.status for group in others] == ["completed"] * len(others)
        assert check_billed_once(service)["billed"]["batch"]["generations"] == 6


def test_items_of_a_job_that_was_cancelled_elsewhere_are_not_sent_again(journal, clock):
    """Somebody stopped it for a reason: its items say so, and go again only when they are told to."""
    with gemini(batch_delay_s=None, cancel_s=0.0) as service:
        session = night(service, journal, 3, clock=clock)

        async def elsewhere():
            await reached(lambda: service.jobs == 1)
            service.cancel_all()

        summary = clock.run(session, elsewhere())
        assert (summary.state, summary.counts.failed) == ("completed", 3)
        assert session.results().error[0].startswith("job 1 cancelled")
        assert groups(session) == [("cancelled", "cancelled")]
        again = night(service, journal, 3, clock=clock)
        assert clock.run(again).counts.failed == 3
        assert service.jobs == 1


@pytest.mark.parametrize("fault", ["drop", "503", "500", "html", "truncated", "429"])
def test_an_answer_that_is_lost_after_the_job_was_taken_makes_no_second_job(journal, clock, fault):
    with gemini(batch_delay_s=SOON, create_faults=[f"{fault}_after"]) as service:
        session = night(service, journal, 5, clock=clock)
        clock.run(session)
        check_matched(session, 5)
        check_billed_once(service)
        assert service.jobs == 1


def test_a_job_that_nobody_can_find_is_shown_and_awaits_its_listing(journal, clock):
    """Whether it was taken nobody knows: it is not sent again, and adopted as soon as the service lists it."""
    with gemini(batch_delay_s=SOON, create_faults=["drop_before"]) as service:
        for _ in range(2):
            session = night(service, journal, 3, clock=clock)
            summary = clock.run(session)
            assert (summary.state, summary.counts.skipped) == ("failed", 3)
            assert "is not sent again by itself" in session.reason
            assert groups(session) == [("pending", "unknown")]
            assert service.jobs == 0
        service.take(Session(service.url, journal, clock=clock), stars(3))
        session = night(service, journal, 3, clock=clock)
        clock.run(session)
        check_matched(session, 3)
        assert groups(session) == [("completed", "succeeded")]
        assert check_billed_once(service)["billed"]["batch"]["generations"] == 3


def test_a_job_in_doubt_keeps_no_other_from_its_results(journal, clock):
    with gemini(batch_delay_s=SOON, create_faults=["drop_before"]) as service:
        session = night(service, journal, 6, clock=clock, max_requests_per_job=3)
        summary = clock.run(session)
        assert (summary.state, summary.counts.completed, summary.counts.skipped) == ("failed", 3, 3)


def test_jobs_are_left_running_when_the_wait_is_over_and_picked_up_by_the_same_call(journal, clock):
    with gemini(batch_delay_s=0.3) as service:
        session = night(service, journal, 4, clock=clock, poll_s=30, wait_s=60)
        summary = clock.run(session)
        assert (summary.state, summary.counts.skipped) == ("failed", 4)
        assert session.reason == ("1 job is still running at Gemini after 60 s: run it again to pick up the results")
        assert 60 <= clock.now_s() < 61
        session = night(service, journal, 4, clock=clock, wait_s=1e6)
        clock.run(session)
        check_matched(session, 4)
        check_billed_once(service)
        assert service.jobs == 1


def test_looks_grow_apart(journal, clock):
    """Hours of waiting are a few dozen looks: from 30 s on, each half as long again, at most five minutes."""
    with gemini(batch_delay_s=None) as service:
        clock.run(night(service, journal, 2, clock=clock, wait_s=7200))
        assert 7200 <= clock.now_s() < 7201
        assert 25 < service.looks < 40


def test_nothing_is_submitted_while_paused(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        session = night(service, journal, 6, clock=clock)

        async def hold():
            await asyncio.sleep(0.1)
            session.pause()
            await asyncio.sleep(600)
            assert service.jobs == 0
            session.resume()

        clock.run(session, hold())
        check_matched(session, 6)
        assert clock.now_s() > 600


def test_a_cancel_ends_the_jobs_and_a_resume_sends_what_has_no_result(journal):
    """The service hears of it; what was being submitted at that moment is cancelled as well."""
    with gemini(batch_delay_s=2.0, cancel_s=0.0) as service:
        assert night(service, journal, 3, poll_s=0.05).run().state == "completed"
        session = night(service, journal, 8, poll_s=0.05, max_requests_per_job=3)
        session.start()
        waited(lambda: service.jobs == 3)
        session.cancel()
        waited(lambda: session.state == "cancelled")
        assert session.counts.cancelled == 5
        waited(lambda: service.states() == ["CANCELLED", "CANCELLED", "SUCCEEDED"])
        session.resume()
        assert session.run().state == "completed"
        check_matched(session, 8)
        assert check_billed_once(service)["billed"]["batch"]["generations"] == 8


def test_only_what_the_budget_allows_is_submitted(journal, clock):
    prices = {"gemini-2.5-flash": {"in": 0.0, "out": 1000.0}}  # by batch half: 0.5 USD a thousand tokens
    with gemini(batch_delay_s=SOON, output_tokens=100) as service:
        options = {"clock": clock, "prices": prices, "output_tokens": 200}
        session = night(service, journal, 20, **options, budget_usd=1.0)
        summary = clock.run(session)
        assert summary.state == "failed"
        assert session.reason.startswith("budget_usd is 1")
        assert 0 < summary.counts.completed < 20
        assert session.usage().usd.sum() <= 1.0
        assert service.truth()["billed"]["batch"]["generations"] == summary.counts.completed
        session = night(service, journal, 20, **options, budget_usd=10.0)
        clock.run(session)
        check_matched(session, 20)
        check_billed_once(service)


def test_usage_tells_the_batch_and_its_half_price(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        session = night(service, journal, 6, clock=clock)
        clock.run(session)
        (row,) = session.usage().to_dict("records")
        billed = service.truth()["billed"]["batch"]
        assert (row["lane"], row["requests"], row["failed"]) == ("batch", 6, 0)
        assert (row["tokens_in"], row["tokens_out"]) == (billed["prompt"], billed["out"])
        tokens = Tokens(in_=billed["prompt"], out=billed["out"])
        online = price_of("gemini-2.5-flash", tokens, "online")
        assert row["usd"] == pytest.approx(float(online.usd) / 2, rel=1e-3)
        assert session.snapshot.spent_usd == pytest.approx(row["usd"])


def test_a_session_that_is_opened_again_shows_its_jobs(journal, clock):
    with gemini(batch_delay_s=SOON, job_faults=["fail"]) as service:
        clock.run(night(service, journal, 6, clock=clock, max_requests_per_job=3))
        session = night(service, journal, 6, clock=clock)
        assert clock.run(session).state == "completed"
        assert sorted(groups(session)) == [("completed", "succeeded"), ("completed", "succeeded"), ("failed", "failed")]
        assert service.jobs == 3


def test_prompts_that_are_not_asked_any_more_keep_their_answers(journal, clock):
    """They were paid for: when they are asked again, nothing is sent."""
    with gemini(batch_delay_s=0.1) as service:
        assert clock.run(night(service, journal, 10, clock=clock, wait_s=1)).state == "failed"
        few = night(service, journal, 4, clock=clock, wait_s=1e6)
        clock.run(few)
        check_matched(few, 4)
        assert groups(few) == [("completed", "succeeded")]
        session = night(service, journal, 10, clock=clock)
        clock.run(session)
        check_matched(session, 10)
        assert service.jobs == 1
        check_billed_once(service)


@pytest.mark.parametrize("status", [403, 404])
def test_a_job_that_another_key_cannot_see_is_never_sent_again(journal, clock, status):
    """The service tells another key nothing of it: what was sent stays sent, and its own key collects it."""
    with gemini(batch_delay_s=0.1) as service:
        assert clock.run(night(service, journal, 6, clock=clock, wait_s=1)).state == "failed"
        simulator = service._server.simulator
        answer = simulator.refused

        def blind(request, now_s):
            if "/batches/" in request.path:
                return as_error(status, "not for you")
            return as_json({}) if request.path.endswith("/batches") else answer(request, now_s)

        simulator.refused = blind
        other = night(service, journal, 6, clock=clock, wait_s=1e6)
        summary = clock.run(other)
        assert (summary.state, summary.counts.skipped) == ("failed", 6)
        assert "It may belong to another key" in summary.reason
        assert service.jobs == 1
        simulator.refused = answer
        session = night(service, journal, 6, clock=clock, wait_s=1e6)
        clock.run(session)
        check_matched(session, 6)
        assert service.jobs == 1
        check_billed_once(service)


def test_a_fresh_run_takes_over_what_still_runs_and_nothing_that_has_ended(journal, clock):
    with gemini(batch_delay_s=0.1) as service:
        assert clock.run(night(service, journal, 4, clock=clock, wait_s=1)).state == "failed"
        session = night(service, journal, 4, clock=clock, wait_s=1e6, fresh=True)
        clock.run(session)
        check_matched(session, 4)
        check_billed_once(service)
        clock.advance(60)
        again = night(service, journal, 4, clock=clock, wait_s=1e6, fresh=True)
        clock.run(again)
        check_matched(again, 4)
        assert len(again.snapshot.groups) == 1
        assert service.truth()["billed"]["batch"]["generations"] == 8


def test_two_sessions_of_one_journal_keep_their_jobs_apart(journal, clock):
    with gemini(batch_delay_s=0.1) as service:
        assert clock.run(night(service, journal, 4, clock=clock, wait_s=1)).state == "failed"
        other = night(service, journal, 4, clock=clock, wait_s=1e6, name="day")
        clock.run(other)
        assert len(other.snapshot.groups) == 1
        assert service.jobs == 2


def test_a_service_that_takes_no_more_jobs_is_waited_for_and_then_left(journal, clock):
    with gemini(batch_delay_s=None, max_active_jobs=1) as service:
        clock.run(night(service, journal, 2, clock=clock, wait_s=1, name="other"))
        session = night(service, journal, 2, clock=clock, wait_s=3600)
        summary = clock.run(session)
        assert (summary.state, summary.counts.skipped) == ("failed", 2)
        assert session.reason.startswith("Gemini accepts no more jobs for now (429")
        assert 3000 < clock.now_s() < 3700
        assert groups(session) == [("skipped", "not submitted")]


def test_results_that_cannot_be_fetched_are_asked_for_again_and_never_sent_again(journal, clock):
    """The job was paid for: it is its results that are tried again, in this session and in the next."""
    with gemini(batch_delay_s=SOON) as service:
        line = Flaky(troubles=2 * LOOKS + 2)
        client = genai.Client(
            api_key=KEY, http_options=HttpOptions(base_url=service.url, async_client_args={"transport": line})
        )
        session = night(service, journal, 4, clock=clock, client=client, retry=Retry(attempts=2))
        assert clock.run(session).counts.failed == 4
        assert "503" in session.results().error[0]
        session = night(service, journal, 4, clock=clock, client=client, retry=Retry(attempts=2))
        clock.run(session)
        check_matched(session, 4)
        check_billed_once(service)
        assert service.jobs == 1


class Flaky(httpx.AsyncHTTPTransport):
    """A line that tells that a job is done, and then its results do not come through, so many times."""

    def __init__(self, troubles):
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0))
        self.troubles = troubles
        self.told = False

    async def handle_async_request(self, request):
        response = await super().handle_async_request(request)
        is_result = request.method == "GET" and b"responsesFile" in await response.aread()
        if is_result and self.told and self.troubles:
            self.troubles -= 1
            body = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "Deadline."}}
            return httpx.Response(503, json=body, request=request)
        self.told = self.told or is_result
        return response


def test_a_job_that_is_refused_seven_times_is_uploaded_once(journal, clock):
    with gemini(batch_delay_s=SOON, create_faults=["429_before"] * 7) as service:
        session = night(service, journal, 5, clock=clock)
        clock.run(session)
        check_matched(session, 5)
        check_billed_once(service)
        assert (service.jobs, service.uploads) == (1, 1)


def test_an_upload_of_an_earlier_process_is_used_again(journal, clock):
    with gemini(batch_delay_s=None, max_active_jobs=1, cancel_s=0.0) as service:
        clock.run(night(service, journal, 2, clock=clock, wait_s=1, name="other"))
        assert clock.run(night(service, journal, 5, clock=clock, wait_s=60)).state == "failed"
        service.cancel_all()
        assert clock.run(night(service, journal, 5, clock=clock, wait_s=60)).state == "failed"  # it runs
        assert (service.jobs, service.uploads) == (2, 2)


def test_a_file_is_waited_for_until_it_is_ready(journal, clock):
    with gemini(batch_delay_s=SOON, file_wait_s=0.05) as service:
        session = night(service, journal, 5, clock=clock)
        clock.run(session)
        check_matched(session, 5)
        assert (service.jobs, service.uploads) == (1, 1)


def test_a_full_store_ends_the_session_with_what_to_delete(journal, clock):
    with gemini(storage_bytes=10) as service:
        session = night(service, journal, 5, clock=clock)
        summary = clock.run(session)
        assert (summary.state, summary.counts.skipped) == ("failed", 5)
        assert "no room for another file of this key" in session.reason
        assert "client.files.delete" in session.reason


def test_a_full_store_is_waited_for_while_jobs_make_room(journal, clock):
    """It has room for the requests of one job, and the answers of another."""
    with gemini(batch_delay_s=0.1, storage_bytes=6000) as service:
        arguments = {"clock": clock, "max_requests_per_job": 2, "system": "Be brief. " * 200}
        session = night(service, journal, 4, **arguments)
        clock.run(session)
        check_matched(session, 4)
        assert (service.jobs, service.files) == (2, [])
        assert service.statuses["429"] > 0


def test_files_are_deleted_when_nobody_needs_them(journal, clock):
    """Of a collected job, of one that failed, and of one that was never created."""
    with gemini(batch_delay_s=SOON, job_faults=["fail"], create_faults=[None, "429_before"]) as service:
        session = night(service, journal, 6, clock=clock, max_requests_per_job=3, wait_s=1)
        assert clock.run(session).state == "failed"
        assert len(service.files) > 0
        session = night(service, journal, 6, clock=clock, wait_s=1e6)
        clock.run(session)
        check_matched(session, 6)
        assert service.files == []


def test_as_many_jobs_are_active_as_may_be(journal, clock, monkeypatch):
    """Where not all prompts can wait at the same time, jobs are smaller."""
    for module in (pending, session_module):
        monkeypatch.setattr(module, "WAITING", 20)
    with gemini(batch_delay_s=None) as service:
        session = night(service, journal, 50, clock=clock, max_requests_per_job=10, max_active_jobs=5, wait_s=60)
        assert clock.run(session).counts.skipped == 50
        assert [group.items for group in session.snapshot.groups.values()] == [4] * 5
        assert service.jobs == 5
        small = night(service, journal, 20, clock=clock, name="small", max_requests_per_job=10, wait_s=60)
        clock.run(small)
        assert [group.items for group in small.snapshot.groups.values()] == [10] * 2


LITE = "gemini-2.5-flash-lite"
USED_UP = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "BatchEnqueuedTokensPerDayPerProjectPerModel", "quotaValue": "3000000"}],
}
CENTURIES = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "9223372036854775807s"}


def refuse_jobs(service, model, *details):
    """Let the service take no jobs of a model."""
    simulator = service._server.simulator
    answer = simulator.refused

    def refused(request, now_s):
        if request.path.endswith(f"/{model}:batchGenerateContent"):
            return as_error(429, "Resource has been exhausted (e.g. check quota).", details)
        return answer(request, now_s)

    simulator.refused = refused
    return answer


@pytest.mark.parametrize("details", [[USED_UP], [CENTURIES], []], ids=["told", "for centuries", "without a word"])
def test_jobs_that_are_refused_for_a_quota_go_to_the_next_model(journal, clock, details):
    """At once where its day is used up, else after three refusals in a row; rows and usage name who answered."""
    with gemini(batch_delay_s=SOON) as service:
        refuse_jobs(service, "gemini-2.5-flash", *details)
        options = {"models": ["gemini-2.5-flash", LITE], "max_requests_per_job": 3, "poll_s": 1.0}
        session = night(service, journal, 5, clock=clock, **options)
        clock.run(session)
        check_matched(session, 5)
        assert set(session.results().model) == set(session.usage().model) == {LITE}
        check_billed_once(service)
        assert clock.now_s() < (10 if details else 30)
        assert [state for _, state in groups(session)[:2]] == ["not submitted"] * 2
        assert {state for _, state in groups(session)[2:]} == {"succeeded"}


def test_a_resume_finds_a_job_of_whichever_model(journal, clock):
    """It was left running, and the first model takes jobs again: what was sent is not sent to that one."""
    with gemini(batch_delay_s=0.8) as service:
        answer = refuse_jobs(service, "gemini-2.5-flash", USED_UP)
        options = {"models": ["gemini-2.5-flash", LITE], "clock": clock}
        assert clock.run(night(service, journal, 4, wait_s=1, **options)).counts.skipped == 4
        service._server.simulator.refused = answer
        session = night(service, journal, 6, wait_s=1e6, **options)
        clock.run(session)
        check_matched(session, 6)
        assert session.results().model.tolist() == [LITE] * 4 + ["gemini-2.5-flash"] * 2
        assert service.jobs == 2
        check_billed_once(service)


def test_the_last_model_is_asked_again_and_again(journal, clock):
    with gemini(batch_delay_s=SOON) as service:
        answer = refuse_jobs(service, "gemini-2.5-flash", USED_UP)
        refuse_jobs(service, LITE, USED_UP)
        session = night(service, journal, 3, clock=clock, models=["gemini-2.5-flash", LITE])

        async def later():
            await asyncio.sleep(600)
            service._server.simulator.refused = answer

        clock.run(session, later())
        check_matched(session, 3)
        assert set(session.results().model) == {LITE}


@pytest.mark.parametrize("status", [403, 404])
def test_a_file_that_is_gone_before_its_job_is_accepted_is_uploaded_anew(journal, clock, monkeypatch, status):
    """Refused for two days: the service has removed it, and nothing is wrong with the key or the model."""
    with gemini(batch_delay_s=SOON, create_faults=["429_before"], gone_status=status) as service:
        files, create = service._server.simulator._stored, BatchEndpoints.create

        def create_and_age(self, *arguments):
            if service.uploads == 1:
                for file in files._files.values():
                    file.ends_s = 0.0
            return create(self, *arguments)

        monkeypatch.setattr(BatchEndpoints, "create", create_and_age)
        session = night(service, journal, 5, clock=clock)
        clock.run(session)
        check_matched(session, 5)
        check_billed_once(service)
        assert (service.jobs, service.uploads) == (1, 2)


def test_nothing_is_created_while_paused(journal, clock):
    """The upload may be under way then."""
    with gemini(batch_delay_s=SOON, file_wait_s=0.2) as service:
        session = night(service, journal, 5, clock=clock)

        async def hold():
            await reached(lambda: service.uploads == 1)
            session.pause()
            await asyncio.sleep(3600)
            assert service.jobs == 0
            session.resume()

        clock.run(session, hold())
        check_matched(session, 5)


def test_a_job_that_has_ended_when_it_is_created_is_collected(journal, clock):
    with gemini(batch_delay_s=0.0) as service:
        session = night(service, journal, 3, clock=clock)
        assert clock.run(session).counts.completed == 3
