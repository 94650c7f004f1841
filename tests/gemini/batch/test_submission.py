"""A job is submitted once."""

import itertools
import math
import random
import socket
import time

import pytest

from ipybatch.errors import Fenced, InputError, RateLimited, Refused, Transient
from ipybatch.gemini.batch import results
from ipybatch.gemini.batch.spool import spooled
from ipybatch.gemini.batch.submission import FileLost, polls, reported
from ipybatch.gemini.service.api import Api, NotReady, NotSent, StoreFull
from ipybatch.simulators.gemini.batches import BatchEndpoints
from ipybatch.simulators.gemini.files import File
from ipybatch.simulators.gemini.quotas import as_trouble, not_found
from ipybatch.testing import START_UNIX_S
from tests.gemini.stories import KEY, MODEL, Session, chunk_of, create_elsewhere, gemini

# google-genai 3.4.0 has a session class of its own, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

LIVE = {"pending", "running", "succeeded"}


@pytest.fixture
def session(journal, clock):
    def make(service, **options):
        return Session(service.url, journal, **{"clock": clock, **options})

    return make


async def _collected(at, job):
    async with results.fetch(at.remote, job) as output:
        return [result async for block in output.blocks(is_last=True) for result in block]


@pytest.mark.parametrize("count", [1, 5])
def test_a_job_is_submitted_followed_and_its_results_reach_their_items(session, count):
    """The smallest job too is a file with keys."""
    with gemini() as service:
        at = session(service)
        job = at.submit(chunk_of(count))
        assert job.state in LIVE
        assert job.remote.startswith("batches/")
        assert job.file.startswith("files/")
        job = at.wait(job)
        assert (job.state, job.counts["successful"]) == ("succeeded", count)
        answers = dict(at.tell(lambda at: _collected(at, job)))
        assert list(answers) == list(job.keys)
        assert all(body["candidates"] for body in answers.values())
        assert at.store.named(job.remote).state == "succeeded"
        assert service.jobs == 1


@pytest.mark.parametrize("fault", ["drop", "500", "503", "504", "html", "truncated"])
def test_a_job_that_was_accepted_in_doubt_is_adopted(session, fault):
    """Whatever becomes of the answer, the service's list decides: one job, found by its name."""
    with gemini(create_faults=[f"{fault}_after"]) as service:
        job = session(service).submit()
        assert job.state in LIVE
        assert service.jobs == 1


def test_an_answer_that_never_comes_is_a_doubt(session):
    with gemini(create_faults=["hang_after"]) as service:
        job = session(service, clock=None, timeout_s=0.3).submit()
        assert job.state in LIVE
        assert service.jobs == 1


@pytest.mark.parametrize("fault", ["drop", "503", "html"])
def test_a_job_that_is_not_found_is_told_and_never_sent_again(session, clock, fault):
    with gemini(create_faults=[f"{fault}_before"]) as service:
        at = session(service, grace_s=60.0)
        job = at.submit()
        assert job.state == "unknown"
        assert "the service does not list it. It is not sent again by itself" in job.reason
        assert clock.now_s() >= 60.0
        assert at.refresh(job).state == "unknown"
        assert service.jobs == 0


def test_an_unknown_job_that_turns_up_later_is_adopted(session):
    """The request may have been on its way for longer than anybody waited."""
    with gemini(create_faults=["drop_before"]) as service:
        at, chunk = session(service), chunk_of()
        job = at.submit(chunk)
        assert job.state == "unknown"
        at.tell(lambda at: create_elsewhere(at, job.display_name, chunk))
        assert at.refresh(job).remote.startswith("batches/")
        assert at.store.named(job.display_name).state in LIVE


def test_a_doubt_is_settled_on_a_later_page(session):
    with gemini(create_faults=[None, "drop_after"], max_active_jobs=1000, batch_delay_s=None) as service:
        at = session(service)
        first = at.submit(chunk_of(1))

        async def others(at):
            for number in range(205):
                await at.remote.create(MODEL, f"other-{number}", first.file)

        at.submit(chunk_of(1, start=1), 1)
        at.tell(others)
        found = at.tell(lambda at: at.remote.find(first.display_name))
        assert found.name == first.remote


def test_a_refusal_is_no_doubt(session):
    """The service said that it did not take it: the error is raised, the journal says why, nothing is looked for."""
    with gemini() as service:
        at = session(service)
        with pytest.raises(Refused, match=r"no such model for this key \(404"):
            at.submit(model="gemini-0")
        (job,) = at.store.of_session("night")
        assert job.state == "failed"
        assert job.reason.startswith("not accepted: Gemini has no such model")
        assert not job.sent
        assert service.jobs == 0


def test_a_wrong_key_is_refused_and_told_nowhere(session, journal):
    with gemini() as service:
        at = session(service, key="WRONG-key-of-mine")
        with pytest.raises(Refused, match="check api_key") as caught:
            at.submit()
        assert "WRONG-key-of-mine" not in str(caught.value) + str(at.store.of_session("night"))
        for path in journal.parent.glob("journal.db*"):
            assert b"WRONG-key-of-mine" not in path.read_bytes()


def test_one_job_too_many_leaves_its_upload_for_the_next_time(session):
    """Another number, another process: the same requests are not uploaded again."""
    with gemini(max_active_jobs=1, batch_delay_s=None, cancel_s=0.0) as service:
        at = session(service)
        first = at.submit()
        for number in (1, 2):
            with pytest.raises(RateLimited):
                session(service).submit(chunk_of(start=3), number)
            assert [(job.number, job.state) for job in at.store.of_session("night")] == [
                (0, first.state),
                (number, "intent"),
            ]
        at.tell(lambda at: at.remote.cancel(first.remote))
        assert at.submit(chunk_of(start=3), 3).state in LIVE
        assert service.uploads == 2


def test_a_429_to_a_job_that_was_taken_is_found_out(session):
    with gemini(create_faults=["429_after"]) as service:
        assert session(service).submit().state in LIVE
        assert service.jobs == 1


def test_a_job_that_another_process_has_found_meanwhile_is_left_to_it(session, monkeypatch):
    create = Api.create

    async def found_elsewhere(self, *arguments):
        accepted = await create(self, *arguments)
        other = session(service)
        (job,) = other.store.of_session("night")
        await other.store.put(reported(job, accepted))
        return accepted

    monkeypatch.setattr(Api, "create", found_elsewhere)
    with gemini() as service:
        at = session(service)
        with pytest.raises(Fenced, match="taken over"):
            at.submit()
        assert [job.state for job in at.store.of_session("night")] == ["pending"]


@pytest.fixture
def hidden(monkeypatch):
    """Let so many looks at the list of jobs fail; the number can be changed."""
    left, shown = {"looks": math.inf}, BatchEndpoints.list

    def shown_or_not(self, *arguments):
        left["looks"] -= 1
        return as_trouble(503) if left["looks"] >= 0 else shown(self, *arguments)

    monkeypatch.setattr(BatchEndpoints, "list", shown_or_not)
    return left


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_429_is_believed_once_the_list_can_be_read(session, hidden, when):
    """A job that was taken all the same would be sent twice."""
    hidden["looks"] = 2
    with gemini(create_faults=[f"429_{when}"]) as service:
        at = session(service)
        if when == "after":
            assert at.submit().state in LIVE
        else:
            with pytest.raises(RateLimited):
                at.submit()
            assert [job.state for job in at.store.of_session("night")] == ["intent"]
        assert service.jobs == (when == "after")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_429_is_a_doubt_while_the_list_cannot_be_read(session, hidden, when):
    """Told, and looked for in the list before anything is sent again."""
    with gemini(create_faults=[f"429_{when}"]) as service:
        at = session(service)
        job = at.submit()
        assert job.state == "unknown"
        assert "the service could not be asked" in job.reason
        assert "It is not sent again by itself" in job.reason
        assert at.refresh(job).state == "unknown"
        hidden["looks"] = 0
        found = at.refresh(job).state
        assert found in LIVE if when == "after" else found == "unknown"
        assert service.jobs == (when == "after")


def test_without_a_line_nothing_is_in_doubt(journal, clock):
    """Off line, nothing was sent: no unknown job is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    at = Session(f"http://127.0.0.1:{port}", journal, clock=clock)
    with pytest.raises(NotSent, match="no connection to Gemini"):
        at.submit()
    assert at.store.of_session("night") == []


def test_a_client_of_the_users_own_sends_once_too(journal, clock):
    """With its defaults the client would post again after a dropped line."""
    from google import genai

    with gemini(create_faults=["drop_after"]) as service:
        own = genai.Client(api_key=KEY, http_options={"base_url": service.url})
        assert Session(service.url, journal, clock=clock, client=own).submit().state in LIVE
        assert service.jobs == 1


def test_without_aiohttp_it_is_the_same(journal, clock):
    """The client takes httpx where a transport of its kind is given; its errors have other names."""
    import httpx
    from google import genai
    from google.genai import types

    for fault, jobs in (("drop_after", 1), ("503_after", 2), ("drop_before", 2)):
        with gemini(create_faults=[fault]) as service:
            options = types.HttpOptions(
                base_url=service.url, async_client_args={"transport": httpx.AsyncHTTPTransport()}
            )
            own = genai.Client(api_key=KEY, http_options=options)
            job = Session(service.url, journal, clock=clock, client=own).submit(chunk_of(start=jobs), jobs)
            assert (job.state == "unknown") == (fault == "drop_before")
            assert service.jobs == (fault != "drop_before")


def test_why_a_job_failed_or_expired_is_told(session):
    with gemini(job_faults=["fail", "expire"]) as service:
        at = session(service)
        jobs = [at.wait(at.submit(chunk_of(start=number), number)) for number in (0, 1)]
        assert [job.state for job in jobs] == ["failed", "expired"]
        assert jobs[0].reason == "failed: The batch failed: internal error while reading the requests. (code 13)"
        assert jobs[1].reason.startswith("expired: the service did not finish it within 48 hours")


def test_a_job_that_the_service_shows_no_more_is_in_doubt(session):
    """Deleted elsewhere, or asked for with another key: it may run, and be paid; nothing is sent again by itself."""
    with gemini(batch_delay_s=None) as service:
        at = session(service)
        job = at.submit()
        at.tell(lambda at: at.remote.delete(job.remote))
        again = at.refresh(job)
        assert again.state == "unknown"
        assert "the service shows no job 0 to this key (404" in again.reason
        assert "another key" in again.reason
        assert at.refresh(again).state == "unknown"
        assert service.jobs == 1


def test_a_job_whose_status_cannot_be_had_is_found_in_the_list(session):
    """A 404 of one look is no proof."""
    with gemini(batch_delay_s=None) as service:
        at = session(service)
        job = at.submit()
        simulator = service._server.simulator
        answer = simulator.refused
        simulator.refused = lambda request, now_s: (
            not_found(job.remote) if request.path.endswith(job.remote) else answer(request, now_s)
        )
        assert at.refresh(job).state in LIVE


def test_waiting_ends_with_the_jobs_or_with_the_time(session, clock):
    with gemini(batch_delay_s=None) as service:
        at = session(service)
        job = at.submit()
        before_s = clock.now_s()
        (job,) = at.tell(lambda at: at.submission.wait([job], poll_s=30, wait_s=7200))
        assert job.state in ("pending", "running")
        assert clock.now_s() - before_s == pytest.approx(7200)
        at.tell(lambda at: at.remote.cancel(job.remote))
        assert at.wait(job).state == "cancelled"


def test_once_is_once(session):
    with gemini() as service:
        at = session(service)
        at.submit(once=True)
        with pytest.raises(InputError, match="was submitted already"):
            at.submit(once=True)
        assert service.jobs == 1


def test_looks_grow_apart_up_to_five_minutes():
    waits = list(itertools.islice(polls(30, random.Random(1)), 12))
    ideal = [30, 45, 67.5, 101.25, 151.875, 227.8125, *[300] * 6]
    assert all(0.9 * due <= wait <= 1.1 * due for wait, due in zip(waits, ideal, strict=True))
    assert len(set(waits)) == 12


@pytest.fixture
def uploaded(session):
    """Upload a chunk and return its intent."""

    def upload(at, chunk=None, number=0):
        async def story(at):
            async with spooled(MODEL, chunk or chunk_of(), at.clock) as written:
                return await at.submission.upload("night", number, MODEL, written)

        return at.tell(story)

    return upload


def test_a_job_is_created_when_its_file_is_ready(session):
    with gemini(file_wait_s=0.03) as service:
        assert session(service).submit().state in LIVE
        assert (service.jobs, service.uploads) == (1, 1)


def test_a_file_that_is_never_ready_is_waited_for_so_long(session, uploaded, clock):
    with gemini(file_wait_s=math.inf) as service:
        at = session(service)
        job = uploaded(at)
        with pytest.raises(
            Transient, match=r"has not processed the uploaded requests within 1800 s: files/\w+ is PROC"
        ):
            at.tell(lambda at: at.submission.wait_for_file(job))
        assert 1800 <= clock.now_s() < 1900
        assert at.store.of_session("night") == [job]
        assert service.jobs == 0


def test_a_job_that_is_refused_as_its_file_is_not_ready_is_an_intent_again(session, uploaded):
    with gemini(file_wait_s=math.inf) as service:
        at = session(service)
        job = uploaded(at)
        with pytest.raises(NotReady, match="400 FAILED_PRECONDITION"):
            at.tell(lambda at: at.submission.create(job))
        (held,) = at.store.of_session("night")
        assert (held.state, held.file) == ("intent", job.file)
        assert "not in an ACTIVE state" in held.reason
        assert uploaded(at, number=1).file == job.file
        assert service.uploads == 1


def test_a_file_that_could_not_be_processed_is_told_and_not_used_again(session, uploaded, monkeypatch):
    with gemini(file_wait_s=math.inf) as service:
        at = session(service)
        job = uploaded(at)
        shown = File.as_dict
        failed = {"state": "FAILED", "error": {"code": 13, "message": "Line 2 is no JSON."}}
        monkeypatch.setattr(File, "as_dict", lambda *arguments: shown(*arguments) | failed)
        with pytest.raises(FileLost, match=r"could not process the uploaded requests: Line 2 is no JSON\."):
            at.tell(lambda at: at.submission.wait_for_file(job))
        assert at.store.of_session("night") == []
        assert service.files == []


@pytest.mark.parametrize("status", [403, 404])
def test_a_file_that_is_gone_is_uploaded_anew(session, uploaded, status):
    with gemini(file_life_s=0.05, gone_status=status) as service:
        at = session(service)
        job = uploaded(at)
        time.sleep(0.06)  # the service has its own time
        with pytest.raises(FileLost, match="has lost the uploaded requests"):
            at.tell(lambda at: at.submission.wait_for_file(job))
        assert at.store.of_session("night") == []
        other = uploaded(at)
        time.sleep(0.06)
        assert uploaded(at, number=1).file != other.file
        assert [job.number for job in at.store.of_session("night")] == [1]


def test_a_file_that_is_about_to_go_is_uploaded_anew(session, uploaded):
    with gemini(file_life_s=3000.0, epoch_s=START_UNIX_S) as service:
        at = session(service)
        assert uploaded(at).file != uploaded(at, number=1).file


@pytest.mark.parametrize("other", [chunk_of(2), chunk_of(3, start=1)], ids=["fewer", "others"])
def test_the_upload_of_other_requests_is_not_used(session, uploaded, other):
    with gemini() as service:
        at = session(service)
        assert uploaded(at).file != uploaded(at, other, 1).file
        assert service.uploads == 2


def test_an_upload_is_used_by_one_of_two_who_want_it(session, uploaded):
    """The other process had it, and was about to create its job."""
    with gemini() as service:
        at = session(service)
        before = uploaded(at)
        after = uploaded(session(service), number=1)
        assert before.file == after.file
        with pytest.raises(Fenced, match="was taken over by another process"):
            at.tell(lambda at: at.submission.create(before))
        assert at.tell(lambda at: at.submission.create(after)).state in LIVE
        assert service.jobs == 1


def test_the_file_of_a_job_is_deleted_once_and_a_failure_is_tried_again(session):
    with gemini() as service:
        at = session(service)
        job = at.wait(at.submit())
        simulator = service._server.simulator
        answer = simulator.refused
        simulator.refused = lambda request, now_s: as_trouble(503)
        assert at.tell(lambda at: at.submission.tidy(job)) == job
        assert service.files == [job.file]
        simulator.refused = answer
        for _ in range(2):
            tidied = at.tell(lambda at: at.submission.tidy(job))
            assert (tidied.file, service.files) == ("", [])
            assert at.store.named(job.remote).file == ""


def test_a_rejected_job_leaves_no_file(session):
    with gemini() as service:
        with pytest.raises(Refused):
            session(service).submit(model="gemini-0")
        assert service.files == []


def test_a_full_store_says_what_to_delete(session):
    with gemini(storage_bytes=400) as service:
        at = session(service)
        at.submit()
        with pytest.raises(StoreFull) as caught:
            at.submit(chunk_of(start=3), 1)
        (file,) = service.files
        said = str(caught.value)
        assert said.startswith("Gemini has no room for another file of this key: 1 hold 0.0 GB, the largest are ")
        assert f"the largest are {file} (night-0-" in said
        assert "Delete what no job needs any more, with client.files.delete(name=...)" in said
        assert [job.number for job in at.store.of_session("night")] == [0]
