"""Requests that workers send come to the same as those from here, and the key is seen nowhere on the way."""

from __future__ import annotations

import asyncio
import logging
import pickle
import re

import pytest

pytest.importorskip("google.genai")
pytest.importorskip("distributed")
from google import genai
from google.genai import types

from ipybatch import InputError, Retry
from ipybatch.backends import Dask, Threads, WorkerLost
from ipybatch.gemini.service.api import Api, NotSent
from ipybatch.gemini.service.client import connect
from ipybatch.gemini.service.remote import Sender
from ipybatch.simulators.service import as_json, as_page
from tests.gemini.conftest import KEY, MODEL

pytestmark = [
    pytest.mark.usefixtures("patience"),
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]
SECRET = "k3y-that-is-nowhere"


PROMPTS = [f"Name star {number}" for number in range(40)]


def test_prompts_sent_by_workers_are_answered_and_billed_as_from_here(desk, client, tmp_path):
    desk.open(seed=3)
    here = desk.run(PROMPTS, name="here")
    there = desk.run(PROMPTS, name="there", backend=Dask(client))
    columns = ["key", "status", "text", "tokens_in", "tokens_out", "usd", "finish_reason"]
    assert there.results()[columns].equals(here.results()[columns])
    assert there.counts.completed == len(PROMPTS)
    assert desk.stats["requests"] == 2 * len(PROMPTS)


def answering(status):
    def answer(request, now_s):
        if status == "page":
            return as_page("busy", status=200)
        details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}] if status == "429" else []
        return as_json(
            {"error": {"code": int(status), "message": "no", "status": "NO", "details": details}}, int(status)
        )

    return answer


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "429", "500", "503", "page"])
def test_what_the_service_refuses_is_raised_as_from_here(desk, client, status):
    desk.open()
    desk.server.simulator.refused = answering(status)

    async def raised(backend):
        google = connect(KEY, desk.server.url)
        if backend is not None:
            await backend.open(1)
        api = Api(google, backend=backend)
        try:
            await api.generate(MODEL, b'{"contents": []}')
        except Exception as error:
            cause = error.__cause__
            facts = (getattr(cause, "code", None), getattr(cause, "status", None), getattr(cause, "details", None))
            return type(error), str(error), getattr(error, "retry_after_s", None), facts
        finally:
            await api.close()
            await google.aio.aclose()
            if backend is not None:
                await backend.close()

    assert asyncio.run(raised(Dask(client))) == asyncio.run(raised(None))


def test_an_answer_with_odd_bytes_is_judged_as_from_here(client):
    """A reason and a header of Latin-1: the wait that it asks for counts all the same."""
    body = b'{"error": {"code": 429, "message": "no", "status": "NO"}}'
    head = b"HTTP/1.1 429 caf\xe9\r\nX-Shop: caf\xe9\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    head %= len(body)

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async def raised(url, backend):
        google = connect(KEY, url)
        api = Api(google, backend=backend)
        try:
            await api.generate(MODEL, b'{"contents": []}')
        except Exception as error:
            return type(error), str(error), getattr(error, "retry_after_s", None)
        finally:
            await api.close()
            await google.aio.aclose()

    async def run():
        backend = Dask(client)
        await backend.open(1)
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            told = [await raised(url, None), await raised(url, backend)]
        await backend.close()
        return told

    here, there = asyncio.run(run())
    assert there == here
    assert "UnicodeEncodeError" not in here[1]


def test_a_service_that_cannot_be_reached_was_sent_nothing(client):
    async def run():
        backend = Dask(client)
        await backend.open(1)
        api = Api(connect(KEY, "http://127.0.0.1:9"), backend=backend)
        try:
            with pytest.raises(NotSent, match="no connection to Gemini"):
                await api.generate(MODEL, b"{}")
        finally:
            await backend.close()

    asyncio.run(run())


def test_a_call_whose_worker_is_lost_counts_as_billed_and_is_sent_again(desk, client, monkeypatch):
    """It may have been billed: the bound of its cost is spent, and the next try is another call."""
    desk.open()
    backend = Dask(client)
    run, lost = backend.run, []

    async def lose(work, arguments):
        answer = await run(work, arguments)
        if not lost:
            lost.append(answer)
            raise WorkerLost("The worker was lost")
        return answer

    monkeypatch.setattr(backend, "run", lose)
    session = desk.run(["Name a star"], backend=backend, budget_usd=1, config={"max_output_tokens": 100})
    assert session.counts.completed == 1
    assert session.results()["attempts"].iloc[0] == 2
    assert desk.stats["requests"] == 2
    (row,) = session.usage().to_dict("records")
    assert (row["requests"], row["unanswered"]) == (2, 1)
    assert 0 < row["usd_unconfirmed"] < row["usd"]


def test_the_key_is_nowhere_on_the_way(desk, client, caplog):
    """Not in names of tasks, events, logs of scheduler and workers, nor in what Dask shows of either."""
    desk.open(key=SECRET)
    with caplog.at_level(logging.DEBUG):
        desk.run(PROMPTS[:10], api_key=SECRET, backend=Dask(client), name="secret")
        desk.server.simulator.refused = answering("500")
        failed = desk.session(
            ["one"], api_key=SECRET, backend=Dask(client), name="failed", retry=Retry(attempts=1), breaker=None
        )
        failed.run()

    def seen(dask_scheduler):
        events = [list(topic.events) for topic in dask_scheduler._broker._topics.values()]
        return repr([list(dask_scheduler.tasks), events, dask_scheduler.identity()])

    told = [
        client.run_on_scheduler(seen),
        repr(client.get_scheduler_logs()),
        repr(client.get_worker_logs()),
        repr(client.get_events()),
        caplog.text,
        repr(failed.errors().to_dict("records")),
    ]
    assert [SECRET in one for one in told] == [False] * len(told)
    assert SECRET not in repr(Sender("", {"x-goog-api-key": SECRET}, None))
    assert SECRET.encode() in pickle.dumps(
        Sender("", {"x-goog-api-key": SECRET}, None)
    )  # it does travel, within the work


@pytest.mark.parametrize("backend", [Threads(), object()])
def test_what_runs_no_coroutines_elsewhere_is_refused(desk, backend):
    with pytest.raises(InputError, match=re.escape("backend must be one that runs coroutines elsewhere")):
        desk.session(["a"], backend=backend)


def test_a_client_that_nobody_else_can_play_is_refused(desk, client):
    google = genai.Client(
        api_key=KEY, http_options=types.HttpOptions(async_client_args={"proxy": "http://127.0.0.1:9"})
    )
    with pytest.raises(InputError, match=re.escape("backend= needs a client that is made from a key")):
        desk.session(["a"], client=google, backend=Dask(client))
