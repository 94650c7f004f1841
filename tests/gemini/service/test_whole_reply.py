"""What comes beside an answer: its names, and the reply as a journal can hold it."""

import base64
import json

import pytest

from ipybatch.engine.data.outcome import encode_result
from ipybatch.gemini.service.reply import read_answer
from ipybatch.gemini.service.whole_reply import drafts, keep_reply, names_beside

PNG = b"\x89PNG\r\n\x1a\nanswer"
DRAFT = b"\x89PNG\r\n\x1a\ndraft"


def blob(content=PNG, mime_type="image/png"):
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(content).decode()}}


def reply(*parts, **beside):
    candidate = {"content": {"parts": [{"text": "Yes."}, *parts]}, "finishReason": "STOP", **beside}
    return {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 1}}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (reply(), []),
        (reply({"text": " No.", "thoughtSignature": "c2ln"}), []),
        (reply(blob()), []),
        (reply(safetyRatings=[{"category": "HARM"}], avgLogprobs=-0.1, index=0, tokenCount=3), []),
        (reply(groundingMetadata={}, citationMetadata=None), []),
        (reply(groundingMetadata={"webSearchQueries": ["a"]}), ["grounding"]),
        (reply(citationMetadata={"citationSources": []}), ["citations"]),
        (reply(urlContextMetadata={"urlMetadata": [1]}), ["addresses read"]),
        (reply(logprobsResult={"chosenCandidates": []}), ["logprobs"]),
        (reply({"functionCall": {"name": "f"}}, {"functionCall": {"name": "g"}}), ["function calls"]),
        (reply({"executableCode": {}}, {"codeExecutionResult": {"output": "1"}}), ["executed code"]),
        (reply({"text": "Hm.", "thought": True}), ["thoughts"]),
        (reply({**blob(DRAFT), "thought": True}), ["thoughts"]),
        (reply(blob(b"RIFF", "audio/wav")), ["audio"]),
        (reply({"fileData": {"fileUri": "files/a"}}), ["files"]),
        (reply({"hologram": {"x": 1}}, dreams=[1]), ["dreams", "hologram"]),
        ({"candidates": [*reply()["candidates"], *reply()["candidates"]]}, ["other answers"]),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, []),
        ({"candidates": [{"finishReason": "STOP"}, {}]}, ["other answers"]),
    ],
)
def test_what_comes_beside_an_answer_has_a_name(body, names):
    assert names_beside(body) == names


def test_images_are_kept_as_their_files():
    """Those of the answer first, as they are saved, then its drafts; other content stays."""
    body = reply({**blob(DRAFT), "thought": True}, blob(), blob(b"RIFF", "audio/wav"))
    kept = keep_reply(read_answer(body), ["a.png", "a.2.png"])
    parts = kept["candidates"][0]["content"]["parts"]
    assert [part["inlineData"]["file"] for part in parts[1:3]] == ["a.2.png", "a.png"]
    assert parts[3] == blob(b"RIFF", "audio/wav")
    assert drafts(body) == [("image/png", DRAFT)]
    assert body == reply({**blob(DRAFT), "thought": True}, blob(), blob(b"RIFF", "audio/wav")), "it was changed"


def test_images_that_are_thrown_away_leave_their_place():
    kept = keep_reply(read_answer(reply(blob())), [])
    assert kept["candidates"][0]["content"]["parts"][1] == {"inlineData": {"mimeType": "image/png", "file": None}}


def test_half_a_character_is_kept_as_a_question_mark():
    body = reply(groundingMetadata={"\ud83d": ["a\ud83d"]})
    kept = keep_reply(read_answer(body), [])
    assert kept["candidates"][0]["groundingMetadata"] == {"?": ["a?"]}
    assert encode_result(kept)


def test_what_no_journal_can_hold_is_left_out():
    assert keep_reply(read_answer(reply(groundingMetadata={"score": float("nan")})), []) is None


def test_a_reply_without_an_answer_is_kept_too():
    body = {"promptFeedback": {"blockReason": "SAFETY"}}
    assert keep_reply(read_answer(body), []) == body
    assert json.dumps(body)
