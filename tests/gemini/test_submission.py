import itertools
import random
import socket

import pytest

from ipybatch.errors import InputError, Permanent, RateLimited, Refused
from ipybatch.gemini import collecting
from ipybatch.gemini.remote import NotSent
from ipybatch.gemini.submission import polls
from tests.gemini.stories import KEY, MODEL, Session, chunk_of, gemini

# google-genai 3.4.0 has a session class of its own, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

LIVE = {"pending", "running", "succeeded"}


@pytest.fixture
def session(journal, clock):
    def make(service, **options):
        return Session(service.url, journal, **{"clock": clock, **options})

    return make


async def _collected(at, job):
    return [(key, body) async for key, body in collecting.results(at.remote, job)]


@pytest.mark.parametrize("images", [False, True], ids=["inline", "file"])
def test_a_job_is_submitted_followed_and_its_results_reach_their_items(session, images):
    with gemini() as service:
        at = session(service)
        job = at.submit(chunk_of(5, images=images))
        assert job.state in LIVE
        assert job.remote.startswith("batches/")
        assert bool(job.file) == images
        job = at.wait(job)
        assert (job.state, job.counts["successful"]) == ("succeeded", 5)
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
        at.tell(lambda at: at.remote.create(MODEL, job.display_name, requests=chunk.inlined()))
        assert at.refresh(job).remote.startswith("batches/")
        assert at.store.named(job.display_name).state in LIVE


def test_a_doubt_is_settled_on_a_later_page(session):
    with gemini(create_faults=[None, "drop_after"], max_active_jobs=1000, batch_delay_s=None) as service:
        at = session(service)
        first = at.submit(chunk_of(1))

        async def others(at):
            for number in range(205):
                await at.remote.create(MODEL, f"other-{number}", requests=chunk_of(1, start=number + 10).inlined())

        at.submit(chunk_of(1, start=1), 1)
        at.tell(others)
        found = at.tell(lambda at: at.remote.find(first.display_name))
        assert found.name == first.remote


def test_a_refusal_is_no_doubt(session):
    """The service said that it did not take it: the error is raised, the journal says why, nothing is looked for."""
    with gemini() as service:
        at = session(service)
        with pytest.raises(Permanent, match="404"):
            at.tell(lambda at: at.submission.submit("night", 0, "gemini-0", chunk_of()))
        (job,) = at.store.of_session("night")
        assert job.state == "failed"
        assert job.reason.startswith("not accepted: 404")
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


def test_one_job_too_many_leaves_nothing_behind(session):
    with gemini(max_active_jobs=1, batch_delay_s=None) as service:
        at = session(service)
        at.submit()
        with pytest.raises(RateLimited):
            at.submit(chunk_of(start=3), 1)
        assert [job.number for job in at.store.of_session("night")] == [0]


def test_a_429_to_a_job_that_was_taken_is_found_out(session):
    with gemini(create_faults=["429_after"]) as service:
        assert session(service).submit().state in LIVE
        assert service.jobs == 1


def test_without_a_line_nothing_is_in_doubt(journal, clock):
    """Off line, nothing was sent: no unknown job is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    at = Session(f"http://127.0.0.1:{port}", journal, clock=clock)
    with pytest.raises(NotSent, match="no line to Gemini"):
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


def test_a_job_that_was_deleted_elsewhere_is_told(session):
    with gemini(batch_delay_s=None) as service:
        at = session(service)
        job = at.submit()
        at.tell(lambda at: at.remote.delete(job.remote))
        assert at.refresh(job).reason == "failed: the service has no such job any more"


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
