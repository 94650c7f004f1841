import json
import math

import pytest

from ipybatch.simulators import Faults, GeminiSimulator, Request

FLASH, PRO = "gemini-2.5-flash", "gemini-2.5-pro"
KEY = {"X-Goog-Api-Key": "SIMULATED"}


def body(text, **more):
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}


def call(service, text="Hello", now_s=0.0, *, model=FLASH, verb="generateContent", headers=KEY, **more):
    content = json.dumps(body(text, **more)).encode()
    return service.handle(Request(f"/v1beta/models/{model}:{verb}", "POST", headers, content), now_s)


def get(service, path, now_s=0.0):
    reply = service.handle(Request(path, "GET", KEY), now_s)
    return reply.status, json.loads(reply.body)


def status_of(reply):
    return reply.status, json.loads(reply.body)["error"]["status"]


def test_any_version_that_starts_with_v1_is_taken():
    service = GeminiSimulator()
    for version in ("v1", "v1beta", "v1alpha"):
        assert get(service, f"/{version}/models/{FLASH}")[0] == 200
    assert get(service, f"/v2/models/{FLASH}")[0] == 404


def test_a_wrong_key_is_told_so_and_none_is_refused():
    service = GeminiSimulator(key="K")
    wrong = call(service, headers={"x-goog-api-key": "X"})
    assert status_of(wrong) == (400, "INVALID_ARGUMENT")
    assert json.loads(wrong.body)["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert status_of(call(service, headers={})) == (403, "PERMISSION_DENIED")
    assert call(service, headers={"x-goog-api-key": "K"}).status == 200
    assert service.truth()["prompts"]["Hello"]["requests"] == 1


@pytest.mark.parametrize("verb", ["generateContent", "countTokens", "batchGenerateContent", "streamGenerateContent"])
def test_an_unknown_model_is_not_found(verb):
    assert status_of(call(GeminiSimulator(), model="gemini-0", verb=verb)) == (404, "NOT_FOUND")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"contents": []}', b'{"contents": "x"}'])
def test_a_body_that_asks_nothing_is_refused(content):
    service = GeminiSimulator()
    for verb in ("generateContent", "countTokens", "batchGenerateContent"):
        reply = service.handle(Request(f"/v1/models/{FLASH}:{verb}", "POST", KEY, content), 0.0)
        assert status_of(reply) == (400, "INVALID_ARGUMENT")


def test_a_prompt_marked_invalid_is_refused_and_not_billed():
    service = GeminiSimulator()
    assert call(service, "[[invalid]]").status == 400
    assert service.truth()["billed"]["online"]["generations"] == 0


def test_models_are_listed_in_pages():
    service = GeminiSimulator(models=["a", "b", "c"])
    status, page = get(service, "/v1/models?pageSize=2")
    assert [model["name"] for model in page["models"]] == ["models/a", "models/b"]
    status, page = get(service, f"/v1/models?pageSize=2&pageToken={page['nextPageToken']}")
    assert (status, [model["name"] for model in page["models"]]) == (200, ["models/c"])
    assert "nextPageToken" not in page


def test_tokens_are_counted_as_they_are_billed():
    service = GeminiSimulator()
    counted = json.loads(call(service, "x" * 41, verb="countTokens").body)["totalTokens"]
    used = json.loads(call(service, "x" * 41).body)["usageMetadata"]["promptTokenCount"]
    assert counted == used == 11
    assert service.truth()["billed"]["online"]["prompt"] == 11


def test_each_model_has_a_quota_of_its_own():
    service = GeminiSimulator(models={FLASH: {}, PRO: {"rpm": 1}}, rpm=2)
    assert [call(service, f"f{n}", n).status for n in range(3)] == [200, 200, 429]
    assert [call(service, f"p{n}", n, model=PRO).status for n in range(2)] == [200, 429]
    assert service.truth()["arrivals"] == {FLASH: [0.0, 1.0, 2.0], PRO: [0.0, 1.0]}
    assert service.worst(60) == 5
    assert service.truth()["refused"] == 2


def test_a_refused_request_is_answered_at_once_and_not_billed():
    service = GeminiSimulator(faults=Faults(latency_s=5.0), windows=[(1, 10.0)])
    assert call(service, "a").delay_s == pytest.approx(5.0)
    refused = call(service, "b")
    assert (refused.status, refused.delay_s) == (429, 0.0)
    prompt = service.truth()["prompts"]["b"]
    assert (prompt["requests"], prompt["accepted"], prompt["online"]) == (1, 0, 0)


@pytest.mark.parametrize(("shape", "count"), [("a", 3), ("b", 1), ("c", 0)])
def test_the_shape_of_a_429_is_chosen(shape, count):
    service = GeminiSimulator(shape=shape, rpd=1)
    call(service)
    error = json.loads(call(service).body)["error"]
    assert len(error.get("details", [])) == count


def test_the_day_ends_at_midnight_pacific_unless_told():
    """2026-01-01 at 00:00 UTC it is 16:00 in Los Angeles, eight hours before midnight."""
    service = GeminiSimulator(rpd=1, epoch_s=1_767_225_600.0)
    statuses = [call(service, now_s=now_s).status for now_s in (0, 8 * 3600 - 1, 8 * 3600)]
    assert statuses == [200, 429, 200]


def test_generating_takes_the_latency_and_other_calls_none():
    service = GeminiSimulator(faults=Faults(latency_s=2.0))
    assert call(service).delay_s == pytest.approx(2.0)
    assert call(service, verb="countTokens").delay_s == 0.0
    assert service.way_s(Request("/v1/models")) == (0.0, 0.0)


def test_the_line_takes_its_time_for_every_call():
    service = GeminiSimulator(network_s=0.5)
    ways = [service.way_s(Request("/v1/models")) for _ in range(50)]
    assert all(sum(way) == pytest.approx(0.5) for way in ways)
    assert max(in_s for in_s, _ in ways) > 0.3
    assert service.way_s(Request("/_sim/stats")) == (0.0, 0.0)


def test_flex_is_shed_before_anything_is_billed():
    service = GeminiSimulator(flex_shed_rate=1.0, rpm=1)
    assert status_of(call(service, serviceTier="flex")) == (503, "UNAVAILABLE")
    assert service.truth()["prompts"]["Hello"]["accepted"] == 0
    assert call(service).status == 200, "what was shed took nothing of the quota"


def test_a_flex_request_that_is_shed_may_fit_later():
    service = GeminiSimulator(flex_shed_rate=0.5)
    assert {call(service, serviceTier="flex").status for _ in range(30)} == {200, 503}


def test_a_flex_outage_leaves_online_alone():
    service = GeminiSimulator(flex_outages=[(10, 20)])
    assert [call(service, serviceTier="flex", now_s=now_s).status for now_s in (9, 10, 20)] == [200, 503, 200]
    assert call(service, now_s=21).status == 200


@pytest.mark.parametrize(("kind", "name"), [("500", "INTERNAL"), ("503", "UNAVAILABLE"), ("504", "DEADLINE_EXCEEDED")])
def test_trouble_is_worded_as_google_does(kind, name):
    service = GeminiSimulator(faults=Faults(**{f"rate_{kind}": 1.0}))
    assert status_of(call(service)) == (int(kind), name)
    assert service.stats()["faults"] == {kind: 1}


@pytest.mark.parametrize(
    ("kind", "billed"),
    [
        *(("429", 0), ("500", 0), ("503", 0), ("504", 0), ("drop", 0), ("html", 0), ("hang", 0)),
        *(("truncated", 1), ("drop_after", 1)),
    ],
)
def test_only_what_was_accepted_is_billed(kind, billed):
    service = GeminiSimulator(faults=Faults(**{f"rate_{kind}": 1.0}))
    call(service)
    prompt = service.truth()["prompts"]["Hello"]
    assert (prompt["requests"], prompt["accepted"], prompt["online"]) == (1, billed, billed)


def test_a_line_dropped_after_accepting_closes_when_the_answer_would_come():
    service = GeminiSimulator(faults=Faults(rate_drop_after=1.0, latency_s=2.0))
    reply = call(service)
    assert (reply.drop, reply.delay_s) == ("close", pytest.approx(2.0))


@pytest.mark.parametrize("flaw", ["blocked", "safety", "max_tokens", "recitation", "empty", "bad_json"])
def test_answers_gone_wrong_are_billed(flaw):
    service = GeminiSimulator()
    call(service, f"[[{flaw}]]")
    assert service.truth()["billed"]["online"]["generations"] == 1


def test_the_same_prompt_and_settings_billed_again_are_billed_twice():
    """Whatever the lane and the model: the answer was paid for once already."""
    service = GeminiSimulator()
    call(service, "a")
    call(service, "b", generationConfig={"temperature": 0.1})
    call(service, "b", generationConfig={"temperature": 0.2})
    assert service.truth()["billed_twice"] == []
    call(service, "a", model=PRO, serviceTier="flex")
    assert service.truth()["billed_twice"] == ["a"]
    call(service, "b", generation_config={"temperature": 0.2})
    assert service.truth()["billed_twice"] == ["a", "b"]


def test_a_request_refused_and_sent_again_is_billed_once():
    service = GeminiSimulator(windows=[(1, 1.0)])
    assert [call(service, text, now_s).status for text, now_s in [("a", 0), ("b", 0), ("b", 1)]] == [200, 429, 200]
    truth = service.truth()
    assert truth["billed_twice"] == []
    assert truth["prompts"]["b"] == {"requests": 2, "accepted": 1, "online": 1, "flex": 0, "batch": 0}


def test_tokens_are_billed_by_lane():
    service = GeminiSimulator(thought_tokens=7, cached_share=0.5)
    usage = json.loads(call(service, "x" * 40, serviceTier="flex").body)["usageMetadata"]
    billed = service.truth()["billed"]
    assert billed["flex"] == {
        "generations": 1,
        "prompt": 10,
        "out": usage["candidatesTokenCount"],
        "thoughts": 7,
        "cached": 5,
    }
    assert billed["online"]["generations"] == billed["batch"]["generations"] == 0


def test_generations_under_way_are_counted():
    """Ten a second that take 2.5 s each: 25 at once."""
    service = GeminiSimulator(faults=Faults(latency_s=2.5))
    for number in range(100):
        call(service, f"p{number}", number / 10)
    assert service.truth()["most_in_flight"] == 25
    assert service.truth(now_s=10.95)["in_flight"] == 15
    assert service.truth(now_s=20.0)["in_flight"] == 0


def test_the_truth_is_in_the_statistics():
    service = GeminiSimulator()
    call(service, "a", 1.0)
    call(service, "b", 2.0, model=PRO)
    status, stats = get(service, "/_sim/stats", 3.0)
    assert (status, stats) == (200, service.stats())
    assert stats["truth"]["arrivals"] == {FLASH: [1.0], PRO: [2.0]}
    assert stats["ids"] == {"a": 1, "b": 1}
    assert stats["arrivals"] == [1.0, 2.0]


def test_an_outage_is_scripted_as_for_every_service():
    service = GeminiSimulator(faults=Faults(outages=[(5, math.inf)], outage_kind="503"))
    assert [call(service, now_s=now_s).status for now_s in (4, 5)] == [200, 503]


def test_faults_follow_the_prompt_not_the_order_of_arrival():
    prompts = [f"p{number}" for number in range(50)]
    forward, backward = (GeminiSimulator(faults=Faults(rate_500=0.5)) for _ in range(2))
    there = {prompt: call(forward, prompt).status for prompt in prompts}
    assert there == {prompt: call(backward, prompt).status for prompt in reversed(prompts)}
    assert set(there.values()) == {200, 500}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "d"}, "shape must be a, b or c, got 'd'"),
        ({"network_s": -1}, "network_s must be >= 0 and finite, got -1"),
        ({"flex_shed_rate": 2}, r"flex_shed_rate must be in \[0, 1\], got 2"),
        ({"item_failure_rate": -1}, r"item_failure_rate must be in \[0, 1\], got -1"),
        ({"rpm": 0}, "rpm must be >= 1 or None, got 0"),
        ({"max_active_jobs": 0}, "max_active_jobs must be >= 1, got 0"),
        ({"batch_delay_s": -1}, "batch_delay_s must be >= 0, .*, got -1"),
        ({"batch_delay_s": (1, -1)}, r"batch_delay_s must be >= 0, .*, got \(1, -1\)"),
        ({"cancel_s": -1}, "cancel_s must be >= 0 .*, got -1"),
        ({"job_faults": {"fail": 1.5}}, "job_faults must be .*, got 'fail': 1.5"),
        ({"job_faults": ["burn"]}, "job_faults must be .*, got .*'burn'"),
        ({"create_faults": ["drop"]}, "create_faults must be None or one of drop_before, .*, got 'drop'"),
        ({"answer_faults": {"smoke": 1}}, "answer_faults must be keyed by .*"),
    ],
)
def test_bad_options_name_field_value_and_range(options, message):
    with pytest.raises(ValueError, match=message):
        GeminiSimulator(**options)
