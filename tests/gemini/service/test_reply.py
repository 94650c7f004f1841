"""Whole, blocked, cut and empty answers are told apart, and all are counted; a 429 names its quota."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import Transient
from ipybatch.engine.data.outcome import encode_result
from ipybatch.gemini.prompts import to_prompts
from ipybatch.gemini.service.client import connect
from ipybatch.gemini.service.reply import (
    UNTOLD,
    Answer,
    Refusal,
    Tokens,
    midnight_pacific_s,
    read_answer,
    read_refusal,
    result_of,
)
from ipybatch.gemini.service.request_config import RequestConfig
from ipybatch.gemini.service.whole_reply import keep_reply, names_beside
from ipybatch.simulators import serve
from tests.gemini.conftest import client_arguments

# The client's own, with aiohttp.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
USAGE = {"promptTokenCount": 4, "candidatesTokenCount": 8, "thoughtsTokenCount": 7}


def without_body(answer):
    """The same answer, to be compared by what was read of it."""
    return msgspec.structs.replace(answer, body={})


def of_response(response):
    """Return a reply of the client as the JSON that it came as."""
    unsent = {"sdk_http_response", "automatic_function_calling_history", "parsed"}
    return response.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=unsent)


def reply(*parts, finish="STOP", **more):
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}
    return {"candidates": [candidate], "usageMetadata": USAGE, "modelVersion": "gemini-2.5-flash", **more}


def image(data=PNG):
    return {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(data).decode()}}


def test_an_answer_is_its_text_without_thoughts():
    body = reply({"text": "I wonder", "thought": True}, {"text": "Ve"}, {"text": "ga"})
    assert without_body(read_answer(body)) == Answer(
        verdict="ok",
        text="Vega",
        finish_reason="STOP",
        tokens=Tokens(4, 8, 7),
        model_version="gemini-2.5-flash",
    )


def test_images_come_as_bytes():
    answer = read_answer(reply({"text": "Here"}, image()), image=True)
    assert (answer.verdict, answer.images) == ("ok", (("image/png", PNG),))


def test_every_kind_of_token_is_counted():
    """Tool use is input; what came from a cache is part of it; images are part of the output."""
    usage = {
        **USAGE,
        "toolUsePromptTokenCount": 3,
        "cachedContentTokenCount": 2,
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 1}, {"modality": "IMAGE", "tokenCount": 7}],
    }
    assert read_answer(reply({"text": "a"}, usageMetadata=usage)).tokens == Tokens(7, 8, 7, 2, 7)


# What the service told of the tokens of an answer with a text, and what is known of them; a count of 0 is absent.
PROMPT, OUT, THOUGHTS, TOTAL = "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"
TOLD = {
    "nothing": (None, UNTOLD),
    "an empty usage": ({}, Tokens(None, None, 0)),
    "the total alone": ({TOTAL: 19}, UNTOLD),
    "no thoughts": ({PROMPT: 4, OUT: 8, TOTAL: 12}, Tokens(4, 8, 0)),
    "no thoughts, though there are": ({PROMPT: 4, OUT: 8, TOTAL: 19}, Tokens(4, 8, None)),
    "no answer, though there is": ({PROMPT: 4, TOTAL: 12}, Tokens(4, None, None)),
    "no answer, no total": ({PROMPT: 4}, Tokens(4, None, 0)),
    "thoughts alone": ({PROMPT: 4, THOUGHTS: 7, TOTAL: 11}, Tokens(4, 0, 7)),
    "no prompt": ({OUT: 8, TOTAL: 12}, Tokens(None, 8, None)),
}


@pytest.mark.parametrize("what", TOLD)
def test_tokens_that_the_service_did_not_tell_are_none(what):
    usage, tokens = TOLD[what]
    answer = read_answer(reply({"text": "a"}, usageMetadata=usage))
    assert answer.tokens == tokens
    assert tokens.are_told == (None not in (tokens.in_, tokens.out, tokens.thoughts))
    assert ("usd_is_bound" in result_of(answer, usd=Decimal(1))) is not tokens.are_told


def test_a_blocked_prompt_has_no_answer_to_count():
    body = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {PROMPT: 4, TOTAL: 4}}
    assert read_answer(body).tokens == Tokens(4, 0, 0)


def test_sound_images_and_searches_are_counted_apart():
    usage = {
        **USAGE,
        "cachedContentTokenCount": 3,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 2}, {"modality": "IMAGE", "tokenCount": 1}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 1}, {"modality": "TEXT", "tokenCount": 2}],
    }
    tokens = read_answer(reply({"text": "a"}, usageMetadata=usage)).tokens
    assert tokens == Tokens(4, 8, 7, 3, audio=2, image_in=1, cached_audio=1)


@pytest.mark.parametrize(
    ("grounding", "searches"),
    [
        (None, 0),
        ({}, 0),
        ([], 0),
        ({"webSearchQueries": ["a", "b", "a"]}, 2),
        ({"webSearchQueries": [], "groundingChunks": [{"web": {}}]}, 1),
        ({"retrievalMetadata": {}}, 0),
    ],
)
def test_each_query_of_a_search_counts_once(grounding, searches):
    body = reply({"text": "a"})
    body["candidates"][0]["groundingMetadata"] = grounding
    assert read_answer(body).tokens.searches == searches


@pytest.mark.parametrize(
    ("body", "verdict", "reason"),
    [
        ({"promptFeedback": {"blockReason": "SAFETY"}}, "blocked", "prompt blocked: SAFETY"),
        (
            {
                "promptFeedback": {
                    "blockReason": "OTHER",
                    "blockReasonMessage": "no\nreason",
                    "safetyRatings": [{"category": "HARM", "blocked": True}, {"category": "FINE"}],
                }
            },
            "blocked",
            "prompt blocked: OTHER: HARM: no reason",
        ),
        (reply(finish="SAFETY"), "blocked", "answer blocked: SAFETY"),
        (reply({"text": "half"}, finish="RECITATION"), "blocked", "answer blocked: RECITATION"),
        (reply(finish="IMAGE_SAFETY"), "blocked", "answer blocked: IMAGE_SAFETY"),
        (
            reply({"text": "half"}, finish="MAX_TOKENS"),
            "cut",
            "answer cut off after 15 tokens: raise max_output_tokens",
        ),
        (
            reply(finish="MAX_TOKENS"),
            "cut",
            "answer cut off after 15 tokens, all of them thoughts: raise max_output_tokens, or lower thinking_config",
        ),
        (reply({"text": "half"}, finish="SOMETHING_NEW"), "cut", "answer stopped early: SOMETHING_NEW"),
        (reply(), "empty", "no content received: STOP"),
        (reply({"text": " \n"}), "empty", "no content received: STOP"),
        ({"usageMetadata": USAGE}, "empty", "no content received: no finish reason"),
        ({"candidates": [{}]}, "empty", "no content received: no finish reason"),
        ({"candidates": [{"content": None, "finishReason": "OTHER"}]}, "empty", "no content received: OTHER"),
        (reply({"text": "sorry"}, finish="NO_IMAGE"), "empty", "no image received: NO_IMAGE"),
        (
            reply({"functionCall": {"name": "f"}}),
            "empty",
            "no content received: STOP; it asks for a function call, and functions are not called here",
        ),
        (reply({"text": "fine"}, promptFeedback={}), "ok", ""),
        (reply({"text": "fine"}, finish=None), "ok", ""),
    ],
)
def test_answers_that_went_wrong_are_told_apart(body, verdict, reason):
    answer = read_answer(body)
    assert (answer.verdict, answer.reason) == (verdict, reason)


def test_a_text_is_no_image():
    answer = read_answer(reply({"text": "I cannot draw"}), image=True)
    assert (answer.verdict, answer.reason, answer.text) == ("empty", "no image received: STOP", "I cannot draw")


@pytest.mark.parametrize("finish", ["SAFETY", "MAX_TOKENS", "NO_IMAGE", "STOP"])
def test_what_went_wrong_is_billed_too(finish):
    assert read_answer(reply(finish=finish)).tokens == Tokens(4, 8, 7)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "half",
        {},
        {"candidates": []},
        {"candidates": "x"},
        {"candidates": [7], "promptFeedback": "no", "usageMetadata": []},
        {"error": "odd"},
    ],
)
def test_what_is_no_reply_is_tried_again(body):
    with pytest.raises(Transient, match=r"^Gemini replied with"):
        read_answer(body)


A = {"text": "a"}
ODD = {
    "a number of tokens below 0": (reply(A, usageMetadata={**USAGE, "candidatesTokenCount": -5}), "ok", "a"),
    "a number of tokens in parts": (reply(A, usageMetadata={**USAGE, "candidatesTokenCount": 7.5}), "ok", "a"),
    "a number of tokens in words": (reply(A, usageMetadata={**USAGE, "promptTokenCount": "many"}), "ok", "a"),
    "a number of tokens without end": (reply(A, usageMetadata={**USAGE, "promptTokenCount": 10**30}), "ok", "a"),
    "usage that is a list": (reply(A, usageMetadata=[]), "ok", "a"),
    "a version that is a number": (reply(A, modelVersion=7), "ok", "a"),
    "feedback that is a word": (reply(A, promptFeedback="no"), "ok", "a"),
    "a part that is a word": (reply(A, "odd"), "ok", "a"),
    "a text that is a number": (reply({"text": 5}), "empty", ""),
    "parts that are a word": ({"candidates": [{"content": {"parts": "x"}}]}, "empty", ""),
    "a candidate that is a number": ({"candidates": [7], "usageMetadata": USAGE}, "empty", ""),
    "usage alone": ({"usageMetadata": {"promptTokenCount": -1}}, "empty", ""),
    "half an image": (reply({"inlineData": {"mimeType": "image/png", "data": "iVBOR"}}), "cut", ""),
    "an image beside a text": (reply(A, {"inlineData": {"mimeType": "image/png", "data": "%%%"}}), "cut", "a"),
    "an image of half a character": (reply({"inlineData": {"mimeType": "image/png", "data": "\ud800"}}), "cut", ""),
}


@pytest.mark.parametrize("name", ODD)
def test_one_odd_field_takes_no_answer_away(name):
    """It was paid for: what is odd counts as absent, and nothing is sent again because of it."""
    body, verdict, text = ODD[name]
    answer = read_answer(body)
    assert (answer.verdict, answer.text) == (verdict, text)
    assert answer.tokens.are_told is (body.get("usageMetadata") == USAGE)
    assert answer.body is body


def test_an_image_that_cannot_be_read_leaves_the_files_of_the_others_where_they_are():
    broken = {"inlineData": {"mimeType": "image/png", "data": "%%%"}}
    answer = read_answer(reply(broken, image(), image(PNG + b"x")))
    assert [data for _, data in answer.images] == [PNG, PNG + b"x"]
    kept = keep_reply(answer, ["a.png", "b.png"])["candidates"][0]["content"]["parts"]
    assert kept[0] == broken
    assert [part["inlineData"]["file"] for part in kept[1:]] == ["a.png", "b.png"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def fields(*names):
    """Dicts that have the service's names, with anything in them."""
    return st.dictionaries(st.sampled_from(names), JSON, max_size=len(names))


PARTS = fields("text", "thought", "inlineData", "functionCall") | st.fixed_dictionaries(
    {"inlineData": fields("mimeType", "data") | st.fixed_dictionaries({"mimeType": st.just("image/png"), "data": JSON})}
)
CANDIDATES = st.fixed_dictionaries(
    {"content": st.fixed_dictionaries({"parts": st.lists(PARTS | JSON, max_size=2)}) | JSON},
    optional={"finishReason": st.text() | JSON, "finishMessage": JSON, "safetyRatings": JSON},
)
BODIES = JSON | st.fixed_dictionaries(
    {},
    optional={
        "candidates": st.lists(CANDIDATES | JSON, max_size=2) | JSON,
        "promptFeedback": fields("blockReason", "blockReasonMessage", "safetyRatings") | JSON,
        "usageMetadata": fields("promptTokenCount", "candidatesTokenCount", "candidatesTokensDetails") | JSON,
        "modelVersion": JSON,
    },
)


@given(BODIES, st.booleans())
def test_any_json_is_an_answer_or_tried_again(body, asked):
    """Whatever a service sends, the item fails alone, and what is read can be recorded."""
    try:
        answer = read_answer(body, image=asked)
    except Transient:
        return
    assert (answer.verdict == "ok") == (answer.reason == "")
    assert "\n" not in answer.reason
    assert encode_result(result_of(answer))
    assert encode_result(names_beside(body))
    keep_reply(answer, [])


def test_half_characters_can_be_recorded():
    """JSON may hold half a surrogate pair; the journal may not."""
    assert read_answer(reply({"text": "a\ud800"})).text == "a?"


def test_the_result_has_text_tokens_and_cost():
    answer = read_answer(reply({"text": "Vega"}))
    assert result_of(answer, usd=Decimal("0.0125")) == {
        "text": "Vega",
        "tokens_in": 4,
        "tokens_out": 8,
        "tokens_thoughts": 7,
        "usd": 0.0125,
        "model": "gemini-2.5-flash",
        "finish_reason": "STOP",
    }


def test_the_result_has_data_in_place_of_text_and_files_in_place_of_images():
    answer = read_answer(reply({"text": "null"}, image()))
    parsed = result_of(answer, data=None, files=["a.png"])
    assert (parsed["data"], parsed["file"], parsed["usd"]) == (None, "a.png", None)
    assert "text" not in parsed
    assert result_of(answer, files=["a.png", "a.2.png"])["files"] == ["a.png", "a.2.png"]


def test_the_clients_reply_is_read_like_the_services():
    body = reply({"text": "Vega"}, image(bytes([251, 239, 190, 255])), finish="MAX_TOKENS")
    response = types.GenerateContentResponse.model_validate_json(json.dumps(body))
    assert without_body(read_answer(of_response(response))) == without_body(read_answer(body))


@pytest.mark.parametrize("modalities", [(), ("IMAGE",)])
def test_the_real_clients_answer_is_read(modalities):
    """From the prompt through the client and the service to the answer."""

    async def ask(url):
        client = connect("SIMULATED", url)
        prompt, request_config = to_prompts(["Name a star"])[0], RequestConfig(modalities=modalities)
        try:
            return await client.aio.models.generate_content(
                model="gemini-2.5-flash", **client_arguments(prompt, request_config)
            )
        finally:
            await client.aio.aclose()
            client.close()

    with serve("gemini") as url:
        answer = read_answer(of_response(asyncio.run(ask(url))), image=bool(modalities))
    assert answer.verdict == "ok"
    assert answer.tokens.in_ > 0
    assert bool(answer.images) == bool(modalities)
    assert bool(answer.text) != bool(modalities)


MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
TOKENS = "GenerateContentInputTokensPerModelPerMinute-FreeTier"
HELP = {"@type": "type.googleapis.com/google.rpc.Help", "links": []}


def body(*violations, retry="45.837906927s", message="You exceeded your current quota."):
    details = [HELP]
    if violations:
        listed = [{"quotaId": quota, **({} if value is None else {"quotaValue": value})} for quota, value in violations]
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": listed})
    if retry:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": retry})
    return {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": message, "details": details}}


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        (body((MINUTE, "10")), Refusal(45.837906927, rpm=10.0)),
        (body((TOKENS, "250000")), Refusal(45.837906927, tpm=250_000.0)),
        (body((DAY, "250"), (MINUTE, "10"), retry="7s"), Refusal(7.0, is_daily=True, rpm=10.0)),
        (body((MINUTE, None)), Refusal(45.837906927)),
        (body(retry=None), Refusal()),
        (body((MINUTE, "10"), retry=None, message="Please retry in 47.3s."), Refusal(47.3, rpm=10.0)),
        (body(retry=None, message="Please retry in 812.5ms."), Refusal(0.8125)),
        ({"error": {"code": 429, "message": "Resource has been exhausted (e.g. check quota)."}}, Refusal()),
        ([], Refusal()),
        (None, Refusal()),
    ],
)
def test_the_three_shapes_are_read(reply, refusal):
    assert read_refusal(reply) == refusal


bodies = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "details", "violations", "quotaId", "quotaValue", "retryDelay", "message"]), inner
        )
    ),
    max_leaves=20,
)


@given(bodies)
def test_no_body_is_too_strange(value):
    assert isinstance(read_refusal(value), Refusal)


@pytest.mark.parametrize(
    ("now", "midnight"),
    [
        (datetime(2026, 11, 22, 10, tzinfo=UTC), datetime(2026, 11, 23, 8, tzinfo=UTC)),
        (datetime(2026, 11, 22, 7, 59, tzinfo=UTC), datetime(2026, 11, 22, 8, tzinfo=UTC)),
        (datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 2, 7, tzinfo=UTC)),
        (datetime(2026, 3, 8, 9, tzinfo=UTC), datetime(2026, 3, 9, 7, tzinfo=UTC)),  # the night the clocks change
    ],
)
def test_a_day_ends_at_midnight_in_california(now, midnight):
    assert midnight_pacific_s(now.timestamp()) == midnight.timestamp()


@pytest.mark.parametrize(
    ("told", "delay_s"),
    [
        ("0s", 0.0),
        ("45.837906927s", 45.837906927),
        ("9223372036854775807s", 9.223372036854775807e18),
        ("9" * 400 + "s", float("inf")),
        ("-5s", None),
        ("NaNs", None),
        ("infs", None),
        ("1e9s", None),
        ("45", None),
        ("", None),
        (None, None),
        ({"seconds": 5}, None),
    ],
)
def test_a_delay_is_a_time_or_nothing(told, delay_s):
    """Never one that is negative or no number; its bound is the limiter's."""
    body = {
        "error": {"code": 429, "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": told}]}
    }
    assert read_refusal(body).retry_s == delay_s
