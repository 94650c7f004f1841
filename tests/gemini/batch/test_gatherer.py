"""The jobs of one session, from inside its loop."""

import asyncio
from types import SimpleNamespace

import pytest

from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import Withheld
from ipybatch.gemini.batch.gatherer import LINGER_S, Gatherer
from ipybatch.gemini.batch.jobs import JobGroups, JobStore
from ipybatch.gemini.batch.pending import BatchPolicy, TooLate
from ipybatch.gemini.batch.submission import Submission
from ipybatch.gemini.prompts import to_prompts
from ipybatch.gemini.service.api import Api
from ipybatch.gemini.service.client import connect
from ipybatch.gemini.service.request_config import RequestConfig
from tests.gemini.nights import night_service, reached, stars, waited
from tests.gemini.stories import KEY, MODEL

# google-genai 3.4.0 has a session class of its own, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")


@pytest.fixture
def tell(journal):
    """Run ``await story(batching)`` between the opening and the closing of a session's jobs."""

    def run(service, story, *, state="running", max_active=5):
        async def whole():
            client = connect(KEY, service.url)
            try:
                policy = BatchPolicy(max_requests=10, max_active=max_active, poll_s=0.05, wait_s=60)
                parts = Api(client), JobStore(open_journal(journal)), JobGroups(lambda event: None, SystemClock())
                at = Gatherer(
                    "night", [MODEL], RequestConfig(lane="batch"), policy, *parts, SystemClock(), lambda: states["now"]
                )
                states = {"now": "running"}
                async with at:
                    told = await story(at)
                    states["now"] = state
                return told
            finally:
                await client.aio.aclose()
                await asyncio.sleep(0)

        return asyncio.run(whole())

    return run


def ask(at, text):
    (prompt,) = to_prompts([text])
    attempt = Attempt(f'"{text}"', 1, SimpleNamespace(join=lambda group: None))

    async def reply():
        item = at.ask(prompt, attempt)
        try:
            return (await item.answer).body
        finally:
            at.let_go(item)

    return asyncio.ensure_future(reply())


async def ended(*asked):
    return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)


def text_of(body):
    return body["candidates"][0]["content"]["parts"][0]["text"]


@pytest.mark.parametrize("state", ["failed", "running", "completed"])
def test_only_a_cancel_ends_jobs_at_the_service(tell, state):
    """A session that lost its journal to another process must leave that one's jobs alone."""

    async def story(at):
        asked = [ask(at, text) for text in stars(3)]
        await reached(lambda: service.jobs == 1)
        for one in asked:
            one.cancel()
        await ended(*asked)

    with night_service(batch_delay_s=None, cancel_s=0.0) as service:
        tell(service, story, state=state)
        assert service.states() == ["RUNNING"]
        tell(service, lambda at: asyncio.sleep(0), state="cancelled")
        waited(lambda: service.states() == ["CANCELLED"])


@pytest.mark.parametrize("turns", range(4))
def test_a_job_that_is_accepted_at_the_moment_of_a_cancel_is_cancelled(tell, monkeypatch, turns):
    """The end may come at any turn of the loop between the acceptance and whoever waits for it."""
    accepted = asyncio.Event()
    create = Submission.create

    async def create_and_tell(self, *args):
        job = await create(self, *args)
        accepted.set()
        return job

    async def story(at):
        asked = ask(at, "Name star 1")
        await accepted.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.cancel()

    monkeypatch.setattr(Submission, "create", create_and_tell)
    with night_service(batch_delay_s=None, cancel_s=0.0) as service:
        tell(service, story, state="cancelled")
        assert service.states() == ["CANCELLED"]


def test_items_that_come_one_after_another_share_a_job(tell):
    async def story(at):
        asked = []
        for text in stars(4):
            asked.append(ask(at, text))
            await asyncio.sleep(0)
        return await ended(*asked)

    with night_service(batch_delay_s=0.1) as service:
        bodies = tell(service, story)
        assert [text_of(body).startswith(f"On {text}: ") for text, body in zip(stars(4), bodies, strict=True)] == [
            True
        ] * 4
        assert service.jobs == 1


def test_items_that_find_no_room_for_a_job_wait_for_others(tell):
    """As a job hands its answers out, items come one by one: each would be a job of its own."""

    async def story(at):
        first = [ask(at, text) for text in stars(10)]
        await reached(lambda: service.jobs == 1)
        late = []
        for number in range(3):
            late.append(ask(at, f"Name moon {number}"))
            await asyncio.sleep(1.5 * LINGER_S)
        await ended(*first, *late)

    with night_service(batch_delay_s=1.0) as service:
        tell(service, story, max_active=1)
        assert service.jobs == 2


def test_an_item_that_comes_after_its_results_still_gets_them(tell):
    """A killed process had sent both; the new one asks for the second when the first has its answer already."""

    async def first(at):
        asked = [ask(at, text) for text in stars(2)]
        await reached(lambda: service.jobs == 1)
        for one in asked:
            one.cancel()

    async def second(at):
        one, other = stars(2)
        bodies = await ended(ask(at, one))
        return [*bodies, *await ended(ask(at, other))]

    with night_service(batch_delay_s=0.2) as service:
        tell(service, first)
        bodies = tell(service, second)
        assert [text_of(body)[:14] for body in bodies] == ["On Name star 0", "On Name star 1"]
        assert service.jobs == 1


def test_whoever_comes_after_it_was_given_up_goes_another_way(tell):
    async def story(at):
        before = ask(at, "Name star 1")
        await reached(lambda: service.jobs == 1)
        await at.give_up("no time is left")
        return await ended(before, ask(at, "Name star 2"))

    with night_service(batch_delay_s=None, cancel_s=0.0) as service:
        told = tell(service, story)
        assert [(type(error), str(error)) for error in told] == [(TooLate, "no time is left")] * 2
        assert service.states() == ["CANCELLED"]


def test_what_comes_back_while_it_is_cancelled_counts(tell):
    """A job may end before it hears that it is to be cancelled: its answer is taken, and not paid for again."""

    async def story(at):
        asked = ask(at, "Name star 1")
        await reached(lambda: service.jobs == 1)
        await at.give_up("no time is left", 20)
        return await ended(asked)

    with night_service(batch_delay_s=0.5, cancel_s=60.0) as service:
        (body,) = tell(service, story)
        assert text_of(body).startswith("On Name star 1: ")


def test_a_job_that_is_taken_out_of_the_journal_leaves_nobody_waiting(tell, journal):
    """Nothing is recorded of it any more, so nothing can be trusted: the session ends and says why."""

    async def story(at):
        store = JobStore(open_journal(journal))
        asked = ask(at, "Name star 1")
        await reached(lambda: service.jobs == 1 and store.of_session("night")[0].remote)
        await store.withdraw(store.of_session("night")[0])
        return await ended(asked)

    with night_service(batch_delay_s=None) as service:
        (error,) = tell(service, story)
        assert isinstance(error, Withheld)
        assert str(error).startswith("a batch job could not be followed: Fenced: job night-1-")


def test_a_job_whose_items_have_gone_another_way_is_not_created(tell):
    """Its file was uploaded, and not ready yet."""

    async def story(at):
        asked = ask(at, "Name star 1")
        await reached(lambda: service.uploads == 1)
        await at.give_up("no time is left", 0.1)
        (error,) = await ended(asked)
        await asyncio.sleep(1.0)
        return error

    with night_service(batch_delay_s=None, file_wait_s=0.3) as service:
        assert isinstance(tell(service, story), TooLate)
        assert service.jobs == 0


def test_jobs_that_end_together_hand_out_one_block_at_a_time(tell, monkeypatch):
    """Else the answers of all of them hold the loop, and their images are in memory, at once."""
    download, fetched, inside, most = Api.download, [], set(), []

    async def noted(api, name, path):
        await download(api, name, path)
        fetched.append(name)

    async def take(at, text):
        (prompt,) = to_prompts([text])
        item = at.ask(prompt, Attempt(f'"{text}"', 1, SimpleNamespace(join=lambda group: None)))
        received = await item.answer
        inside.add(text)
        await reached(lambda: len(fetched) == 4)
        await asyncio.sleep(0.02)  # in which all others would come as well
        most.append(len(inside))
        inside.discard(text)
        at.let_go(item)
        return text_of(received.body)

    monkeypatch.setattr(Api, "download", noted)
    with night_service(batch_delay_s=0.1) as service:
        texts = tell(service, lambda at: ended(*[asyncio.ensure_future(take(at, text)) for text in stars(40)]))
    assert [text.startswith(f"On {asked}: ") for asked, text in zip(stars(40), texts, strict=True)] == [True] * 40
    assert len(fetched) == 4
    assert max(most) == 10
