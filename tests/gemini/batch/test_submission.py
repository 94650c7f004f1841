"""A job is submitted once, and requests are cut into jobs that the service takes."""

import itertools
import json
import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.errors import InputError, RateLimited, Refused
from ipybatch.gemini.batch import results
from ipybatch.gemini.batch.submission import INLINE_BYTES, BatchRequest, chunks, polls, wire_key
from ipybatch.gemini.service.api import NotSent
from ipybatch.simulators.gemini.quotas import not_found
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
    return [(key, body) async for key, body in results.results(at.remote, job)]


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
        with pytest.raises(Refused, match=r"no such model for this key \(404"):
            at.tell(lambda at: at.submission.submit("night", 0, "gemini-0", chunk_of()))
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


texts = st.lists(st.text(max_size=30), max_size=40)


def requests_of(said, images=()):
    return [
        BatchRequest.of(f'"{number}"', {"contents": [{"parts": [{"text": text}]}]}, images=number in images)
        for number, text in enumerate(said)
    ]


@given(texts, st.integers(1, 9), st.integers(400, 2000), st.integers(100, 1500))
def test_nothing_is_lost_order_is_kept_and_every_chunk_is_under_every_limit(said, most, most_bytes, inline_bytes):
    requests = requests_of(said)
    cut = list(chunks(requests, max_requests=most, max_bytes=most_bytes, inline_bytes=inline_bytes))
    assert [request for chunk in cut for request in chunk.requests] == requests
    for chunk in cut:
        assert 1 <= len(chunk.requests) <= most
        assert len(b"".join(chunk.lines())) <= chunk.size <= most_bytes
        assert len(json.dumps(chunk.inlined())) - 2 <= chunk.size
        assert chunk.inline == (chunk.size <= inline_bytes)


@given(texts)
def test_lines_and_inlined_requests_say_the_same(said):
    """Text of any script arrives as it was, under the same key, whichever way it is sent."""
    for chunk in chunks(requests_of(said)):
        lines = [json.loads(line) for line in chunk.lines()]
        assert [line["key"] for line in lines] == [request["metadata"]["key"] for request in chunk.inlined()]
        assert [line["request"] for line in lines] == [request["request"] for request in chunk.inlined()]
        assert [line["request"]["contents"][0]["parts"][0]["text"] for line in lines] == said


def test_images_go_as_a_file():
    """An inline job of images could be submitted, but never fetched."""
    (chunk,) = chunks(requests_of(["a", "b"], images=[1]))
    assert not chunk.inline


def test_only_the_chunk_at_hand_is_drawn():
    drawn = []

    def draw():
        for request in requests_of("abcdef"):
            drawn.append(request.key)
            yield request

    next(chunks(draw(), max_requests=2))
    assert len(drawn) == 3


def test_wire_keys_of_other_items_differ():
    """A result file of another job is not taken for this one's."""
    assert wire_key(0, '"a"') != wire_key(0, '"b"')
    assert wire_key(0, '"a"') != wire_key(1, '"a"')


def test_a_request_that_is_too_large_alone_is_refused_by_name():
    with pytest.raises(InputError, match=r'the request of "1" must be <= 500 bytes, got \d+: send smaller images'):
        list(chunks(requests_of(["a", "b" * 500]), max_bytes=500))


@pytest.mark.parametrize("field", ["max_requests", "max_bytes"])
def test_limits_are_checked(field):
    with pytest.raises(InputError, match=f"{field} must be"):
        list(chunks([], **{field: 0}))


def test_a_body_stays_below_what_the_service_takes():
    assert INLINE_BYTES + 1_000_000 <= 20_000_000
