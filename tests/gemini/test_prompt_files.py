"""Files that prompts name: waited for, and never taken for the account."""

import io
from dataclasses import replace

import pytest

pytest.importorskip("google.genai")
from google import genai
from google.genai import types

from tests.gemini.conftest import KEY

# google-genai derives a class from aiohttp's session, which aiohttp discourages
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
LANES = ["online", "flex", "batch", "auto"]
SOON_S = 0.005  # in real time: virtual looks are 2 ms apart


def upload(desk):
    """Upload a file, and return prompts of which one names it."""
    options = types.HttpOptions(base_url=desk.server.url)
    with genai.Client(vertexai=False, api_key=KEY, http_options=options) as client:
        file = client.files.upload(file=io.BytesIO(b"a film"), config={"mime_type": "video/mp4"})
    part = {"fileData": {"fileUri": file.uri, "mimeType": "video/mp4"}}
    return [{"id": "film", "contents": [part, "What is it?"]}, {"id": "other", "prompt": "Name a star"}]


@pytest.mark.parametrize("lane", LANES)
def test_a_file_is_waited_for_until_it_is_active(desk, clock, lane):
    """The others go on meanwhile; it costs its prompt no attempt, and nobody is asked over and over."""
    desk.open(file_wait_s=0.1, batch_delay_s=SOON_S)
    session = desk.session(upload(desk), lane=lane, clock=clock)
    clock.run(session)
    assert session.results()["status"].tolist() == ["completed"] * 2
    assert session.results()["attempts"].tolist() == [1, 1]
    assert desk.asked.get("What is it?", 0) <= 2


@pytest.mark.parametrize("lane", ["online", "flex"])
@pytest.mark.parametrize("state", ["FAILED", "PROCESSING"])
def test_a_file_that_is_never_active_leaves_its_prompt_behind(desk, clock, lane, state):
    """Told at once where it failed, and within half an hour where it is still being processed."""
    desk.open(file_wait_s=1000.0)
    answer = desk.server.simulator.answer

    def look(request):
        reply = answer(request)
        if request.method == "GET" and "/files/" in request.path and state == "FAILED":
            return replace(reply, body=reply.body.replace(b"PROCESSING", b"FAILED"))
        return reply

    desk.server.simulator.answer = look
    began_s = clock.now_s()
    session = desk.session(upload(desk), lane=lane, clock=clock)
    clock.run(session)
    film, other = session.results().to_dict("records")
    assert other["status"] == "completed"
    assert film["status"] == ("failed" if state == "FAILED" else "skipped")
    assert ("could not process" if state == "FAILED" else "has not processed") in film["error"]
    assert clock.now_s() - began_s < (60 if state == "FAILED" else 2000)


@pytest.mark.parametrize("lane", ["online", "flex"])
@pytest.mark.parametrize("word", ["region", "billing_400"])
def test_an_account_that_is_refused_is_not_waited_for(desk, clock, lane, word):
    """Though the same status would say that the file is not ready."""
    desk.open()
    prompts = upload(desk)[:1]
    desk.close()
    desk.open(refusals={"*": word})
    if word == "billing_400":  # which is about content alone: the file can be looked at
        prompts = upload(desk)[:1]
    began_s = clock.now_s()
    session = desk.session(prompts, lane=lane, clock=clock)
    clock.run(session)
    assert session.state == "failed"
    assert "check its region and billing" in session.reason
    assert set(session.errors()["scope"]) == {"account"}
    assert clock.now_s() - began_s < 60
