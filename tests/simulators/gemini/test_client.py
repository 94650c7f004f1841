"""The real client against the simulator on loopback: sync, async over aiohttp, and async over httpx."""

import asyncio
import inspect
import io
import json
import time

import pytest

pytest.importorskip("google.genai")
import httpx2
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

from ipybatch.simulators import serve

# google-genai derives a class from aiohttp's session, which aiohttp discourages
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
MODEL = "gemini-2.5-flash"


class City(BaseModel):
    name: str
    population: int
    tags: list[str]


class Caller:
    """One client, used in one of three ways; every call looks alike."""

    def __init__(self, url, way, key):
        asynchronous = {"transport": httpx2.AsyncHTTPTransport()} if way == "httpx" else None
        options = types.HttpOptions(
            base_url=url,
            timeout=10_000,
            retry_options=types.HttpRetryOptions(attempts=1),
            async_client_args=asynchronous,
        )
        self.runner = None if way == "sync" else asyncio.Runner()
        self.client = genai.Client(api_key=key, http_options=options)

    def __call__(self, path, **arguments):
        """Call ``models.generate_content`` and the like; a pager comes back as a list."""
        target = self.client if self.runner is None else self.client.aio
        for name in path.split("."):
            target = getattr(target, name)
        if self.runner is None:
            answer = target(**arguments)
            return list(answer) if hasattr(answer, "next_page") else answer
        return self.runner.run(self._awaited(target, arguments))

    async def _awaited(self, target, arguments):
        answer = await target(**arguments)
        return [one async for one in answer] if hasattr(answer, "next_page") else answer

    def close(self):
        if self.runner is not None:
            self.runner.run(self.client.aio.aclose())
            self.runner.close()
        self.client.close()


@pytest.fixture(params=["sync", "aiohttp", "httpx"])
def start(request, monkeypatch):
    """Start a simulator and a client of it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = []

    def begin(key="SIMULATED", **options):
        server = serve("gemini", **options)
        made.append(server)
        made.append(Caller(server.url, request.param, key))
        return server, made[-1]

    yield begin
    for one in reversed(made):
        one.close()


def inline(*prompts):
    return [
        types.InlinedRequest(contents=prompt, metadata={"key": f"k{number}"}) for number, prompt in enumerate(prompts)
    ]


def finished(call, name):
    while not (job := call("batches.get", name=name)).done:
        time.sleep(0.01)
    return job


def test_the_client_reads_a_text_and_its_tokens(start):
    server, call = start(thought_tokens=20, cached_share=0.5)
    answer = call("models.generate_content", model=MODEL, contents="Tell me of the sea, please.")
    usage = answer.usage_metadata
    assert answer.text == server.simulator.answers.text("Tell me of the sea, please.")
    assert (usage.prompt_token_count, usage.thoughts_token_count, usage.cached_content_token_count) == (7, 20, 3)
    assert usage.total_token_count == 7 + 20 + usage.candidates_token_count
    assert (answer.model_version, answer.candidates[0].finish_reason) == (MODEL, "STOP")


def test_the_client_parses_an_answer_that_fits_its_schema(start):
    _, call = start()
    config = {"response_mime_type": "application/json", "response_schema": City}
    answer = call("models.generate_content", model=MODEL, contents="A city", config=config)
    assert isinstance(answer.parsed, City)


def test_the_client_reads_a_picture(start):
    _, call = start()
    config = {"response_modalities": ["IMAGE"]}
    answer = call("models.generate_content", model="gemini-2.5-flash-image", contents="A cat", config=config)
    image = answer.candidates[0].content.parts[0].inline_data
    assert (image.mime_type, image.data[:8]) == ("image/png", b"\x89PNG\r\n\x1a\n")


def test_the_client_streams_counts_and_lists(start):
    _, call = start(models=["gemini-2.5-flash", "gemini-2.5-pro"])
    assert call("models.count_tokens", model=MODEL, contents="12345678").total_tokens == 2
    assert [model.name for model in call("models.list")] == ["models/gemini-2.5-flash", "models/gemini-2.5-pro"]
    assert call("models.get", model=MODEL).input_token_limit == 1_048_576
    stream = call.client.models.generate_content_stream(model=MODEL, contents="Hello")
    assert "".join(chunk.text for chunk in stream).startswith("On Hello:")


@pytest.mark.parametrize(
    ("key", "model", "code", "status"),
    [
        ("WRONG", MODEL, 400, "INVALID_ARGUMENT"),
        ("SIMULATED", "gemini-0", 404, "NOT_FOUND"),
    ],
)
def test_the_client_reads_refusals(start, key, model, code, status):
    _, call = start(key)
    with pytest.raises(errors.ClientError) as caught:
        call("models.generate_content", model=model, contents="Hello")
    assert (caught.value.code, caught.value.status) == (code, status)


def test_the_client_reads_how_long_to_wait(start):
    """The delay told is what is left of the window."""
    _, call = start(windows=[(1, 60.0)])
    call("models.generate_content", model=MODEL, contents="one")
    with pytest.raises(errors.ClientError) as caught:
        call("models.generate_content", model=MODEL, contents="two")
    details = {entry["@type"].rpartition(".")[2]: entry for entry in caught.value.details["error"]["details"]}
    assert 50 < float(details["RetryInfo"]["retryDelay"].removesuffix("s")) <= 60
    assert details["QuotaFailure"]["violations"][0]["quotaValue"] == "1"


def test_a_flex_request_is_billed_as_flex(start):
    server, call = start()
    call("models.generate_content", model=MODEL, contents="Hello", config={"service_tier": "flex"})
    assert server.simulator.truth()["billed"]["flex"]["generations"] == 1


@pytest.mark.parametrize("kind", ["drop", "drop_after", "truncated", "html"])
def test_a_broken_line_is_an_error_and_only_what_was_accepted_is_billed(start, kind):
    server, call = start(**{f"rate_{kind}": 1.0})
    with pytest.raises(Exception) as caught:  # noqa: PT011  each way of calling has errors of its own
        call("models.generate_content", model=MODEL, contents="Hello")
    assert not isinstance(caught.value, errors.APIError)
    billed = server.simulator.truth()["prompts"]["Hello"]["online"]
    assert billed == (kind in ("drop_after", "truncated"))


def test_an_inline_job_is_created_found_and_read(start):
    server, call = start(batch_delay_s=0.05)
    prompts = ["one", "two", "three"]
    job = call("batches.create", model=MODEL, src=inline(*prompts), config={"display_name": "d1"})
    assert (job.state, job.display_name) == ("JOB_STATE_PENDING", "d1")
    assert [found.name for found in call("batches.list", config={"page_size": 5})] == [job.name]
    results = finished(call, job.name).dest.inlined_responses
    assert [result.response.text for result in results] == [server.simulator.answers.text(p) for p in prompts]
    assert [result.metadata for result in results] == [{"key": "k0"}, {"key": "k1"}, {"key": "k2"}]
    assert server.simulator.truth()["billed"]["batch"]["generations"] == 3


def test_a_job_from_a_file_gives_a_file(start):
    _, call = start(batch_delay_s=0.05)
    lines = [{"key": f"k{n}", "request": {"contents": [{"parts": [{"text": f"p{n}"}]}]}} for n in range(3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    about = {"display_name": "in", "mime_type": "application/jsonl"}
    file = call("files.upload", file=io.BytesIO(text.encode()), config=about)
    assert (file.state, file.size_bytes, file.display_name) == ("ACTIVE", len(text), "in")
    job = call("batches.create", model=MODEL, src=file.name, config={"display_name": "d2"})
    content = call("files.download", file=finished(call, job.name).dest.file_name)
    assert [json.loads(line)["key"] for line in content.splitlines()] == ["k0", "k1", "k2"]
    call("files.delete", name=file.name)
    with pytest.raises(errors.ClientError):
        call("files.get", name=file.name)


def test_the_client_reads_the_output_of_a_job_that_did_not_succeed(start):
    _, call = start(batch_delay_s=0.05, job_faults=["expire+partial"])
    job = finished(call, call("batches.create", model=MODEL, src=inline("one", "two")).name)
    assert (job.state, len(job.dest.inlined_responses)) == ("JOB_STATE_EXPIRED", 1)


def test_the_client_is_told_of_no_output_while_it_is_late(start):
    _, call = start(batch_delay_s=0.05, job_faults=["late"], job_looks=1)
    job = finished(call, call("batches.create", model=MODEL, src=inline("one")).name)
    assert (job.state, job.dest) == ("JOB_STATE_SUCCEEDED", None)
    assert len(call("batches.get", name=job.name).dest.inlined_responses) == 1


def test_the_client_finds_no_order_and_no_keys(start):
    server, call = start(batch_delay_s=0.05, job_faults=["shuffled+keyless"])
    job = finished(call, call("batches.create", model=MODEL, src=inline("one", "two")).name)
    texts = [result.response.text for result in job.dest.inlined_responses]
    assert texts == [server.simulator.answers.text(prompt) for prompt in ("two", "one")]
    assert [result.metadata for result in job.dest.inlined_responses] == [None, None]


@pytest.mark.parametrize(("flaw", "reason"), [("malformed_call", "MALFORMED_FUNCTION_CALL"), ("no_parts", "STOP")])
def test_the_client_finds_no_text_in_a_candidate_without_parts(start, flaw, reason):
    _, call = start()
    answer = call("models.generate_content", model=MODEL, contents=f"[[{flaw}]]")
    assert (answer.text, answer.candidates[0].finish_reason) == (None, reason)


def test_the_client_takes_an_error_of_status_200_for_an_answer(start):
    """It raises nothing: candidates and usage are just not there."""
    _, call = start()
    answer = call("models.generate_content", model=MODEL, contents="[[error_body]]")
    assert (answer.candidates, answer.usage_metadata) == (None, None)


def test_the_client_escapes_page_tokens(start):
    _, call = start(plus_tokens=True, batch_delay_s=None)
    names = [call("batches.create", model=MODEL, src=inline(f"{n}")).name for n in range(3)]
    assert [job.name for job in call("batches.list", config={"page_size": 1})] == names[::-1]


def test_a_job_is_cancelled_and_another_deleted(start):
    server, call = start(batch_delay_s=None, cancel_s=0.0)
    first, second = (
        call("batches.create", model=MODEL, src=inline(name), config={"display_name": name}) for name in ("a", "b")
    )
    call("batches.cancel", name=first.name)
    call("batches.delete", name=second.name)
    assert call("batches.get", name=first.name).state == "JOB_STATE_CANCELLED"
    assert [job.name for job in call("batches.list", config={"page_size": 5})] == [first.name]
    assert server.simulator.truth()["jobs"] == {"a": ["CANCELLED"], "b": ["RUNNING"]}


def test_a_line_dropped_after_a_create_leaves_one_job_to_find(start):
    server, call = start(create_faults=["drop_after"], batch_delay_s=None)
    with pytest.raises(Exception) as caught:  # noqa: PT011  each way of calling has errors of its own
        call("batches.create", model=MODEL, src=inline("one"), config={"display_name": "d1"})
    assert not isinstance(caught.value, errors.APIError)
    assert [job.display_name for job in call("batches.list", config={"page_size": 5})] == ["d1"]
    assert server.simulator.truth()["jobs"] == {"d1": ["RUNNING"]}


def test_a_hanging_request_meets_the_clients_timeout(start):
    server, call = start(rate_hang=1.0)
    options = types.HttpOptions(timeout=200)
    with pytest.raises((TimeoutError, httpx2.TimeoutException)):
        call("models.generate_content", model=MODEL, contents="Hello", config={"http_options": options})
    assert server.simulator.truth()["prompts"]["Hello"]["accepted"] == 0


def test_every_way_of_calling_is_the_one_it_says(start, request):
    """Without this the three could quietly be one."""
    _, call = start()
    call("models.generate_content", model=MODEL, contents="Hello")
    inner = call.client.aio._api_client
    assert inspect.iscoroutinefunction(call.client.aio.models.generate_content)
    assert inner._use_aiohttp() == ("aiohttp" in request.node.name or "sync" in request.node.name)
