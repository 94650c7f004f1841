import base64
import json
import zlib

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.simulators.gemini.generation import FLAWS, Answers, camel, read, read_bytes

CITY = {
    "type": "OBJECT",
    "properties": {
        "full_name": {"type": "STRING", "minLength": 30, "maxLength": 40},
        "population": {"type": "INTEGER", "minimum": 5, "maximum": 9},
        "kind": {"type": "STRING", "enum": ["town", "city"]},
        "tags": {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": 2, "maxItems": 4},
        "capital": {"type": "BOOLEAN"},
        "height": {"type": "NUMBER"},
    },
    "required": ["full_name", "population"],
}
TREE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "left": {"anyOf": [{"$ref": "#/$defs/leaf"}, {"type": "null"}]},
        "when": {"type": "string", "format": "date"},
    },
    "required": ["name", "left"],
    "additionalProperties": False,
    "$defs": {"leaf": {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}},
}


def asked(text="What is a fish?", **config):
    return read({"contents": [{"role": "user", "parts": [{"text": text}]}], "generationConfig": config})


def answer(question, **options):
    return Answers(**options).reply(question, "gemini-2.5-flash", 1)


def text_of(body):
    return body["candidates"][0]["content"]["parts"][0]["text"]


def lowered(schema):
    """Return an OpenAPI schema in JSON Schema's words."""
    if isinstance(schema, dict):
        return {k: v.lower() if k == "type" and isinstance(v, str) else lowered(v) for k, v in schema.items()}
    return schema


def test_the_same_prompt_has_the_same_answer():
    assert answer(asked()) == answer(asked())
    assert text_of(answer(asked())[0]) != text_of(answer(asked("Why?"))[0])
    assert text_of(answer(asked())[0]) != text_of(answer(asked(), seed=1)[0])


def test_an_answer_says_what_it_answers():
    """A result given to the wrong prompt is seen at once."""
    assert text_of(answer(asked("Name\n a   tree"))[0]).startswith("On Name a tree:")


def test_a_text_is_about_as_long_as_it_shall_be():
    lengths = [answer(asked(f"{number}"), output_tokens=100)[1].out for number in range(300)]
    assert 45 <= min(lengths) < 65
    assert 135 < max(lengths) <= 160


@pytest.mark.parametrize("field", ["responseSchema", "response_json_schema"])
@pytest.mark.parametrize("schema", [CITY, TREE], ids=["city", "tree"])
def test_json_fits_the_schema_that_was_sent(schema, field):
    for number in range(50):
        question = asked(f"{number}", response_mime_type="application/json", **{field: schema})
        jsonschema.validate(json.loads(text_of(answer(question)[0])), lowered(schema))


@pytest.mark.parametrize("schema", [CITY, TREE, {"type": "array"}, {"type": "STRING"}, {"type": "integer"}])
def test_bad_json_is_json_that_does_not_fit(schema):
    question = asked("[[bad_json]]", responseMimeType="application/json", responseSchema=schema)
    value = json.loads(text_of(answer(question)[0]))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, lowered(schema))


def test_without_a_schema_json_is_an_object():
    assert isinstance(json.loads(text_of(answer(asked(responseMimeType="application/json"))[0])), dict)


def test_an_enum_is_answered_in_plain_text():
    schema = {"type": "STRING", "enum": ["yes", "no"]}
    assert text_of(answer(asked(responseMimeType="text/x.enum", responseSchema=schema))[0]) in ("yes", "no")


def test_a_picture_is_a_valid_png():
    body, billed = answer(asked(responseModalities=["TEXT", "IMAGE"]))
    image = body["candidates"][0]["content"]["parts"][0]["inlineData"]
    data = base64.b64decode(image["data"])
    kind, size = data[12:16], int.from_bytes(data[33:37])
    assert (image["mimeType"], data[:8], kind) == ("image/png", b"\x89PNG\r\n\x1a\n", b"IHDR")
    assert len(zlib.decompress(data[41 : 41 + size])) == 8 * (1 + 8 * 3)
    assert zlib.crc32(data[37 : 41 + size]) == int.from_bytes(data[41 + size : 45 + size])
    assert billed.out == 1290
    assert body["usageMetadata"]["candidatesTokensDetails"] == [{"modality": "IMAGE", "tokenCount": 1290}]


def test_thoughts_are_told_apart_and_a_budget_of_zero_has_none():
    body, billed = answer(asked(), thought_tokens=50)
    usage = body["usageMetadata"]
    assert (billed.thoughts, usage["thoughtsTokenCount"]) == (50, 50)
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"] + 50
    assert "thoughtsTokenCount" not in answer(asked(thinkingConfig={"thinking_budget": 0}), thought_tokens=50)[0]


def test_cached_tokens_are_part_of_the_prompts():
    body, billed = answer(asked("x" * 400), cached_share=0.75)
    assert (billed.prompt, billed.cached) == (100, 75)
    assert body["usageMetadata"]["promptTokenCount"] == 100
    assert body["usageMetadata"]["cachedContentTokenCount"] == 75


def test_an_answer_is_cut_at_the_longest_allowed():
    body, billed = answer(asked(maxOutputTokens=5))
    assert (len(text_of(body)), billed.out) == (20, 5)
    assert body["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_thoughts_count_in_the_longest_allowed():
    """They may leave the answer no room at all; the real service counts both together."""
    body, billed = answer(asked(maxOutputTokens=30), thought_tokens=20)
    assert (billed.thoughts, billed.out, len(text_of(body))) == (20, 10, 40)
    body, billed = answer(asked(maxOutputTokens=15), thought_tokens=20)
    assert (billed.thoughts, billed.out) == (15, 0)
    assert body["candidates"][0] == {"content": {"role": "model"}, "finishReason": "MAX_TOKENS", "index": 0}
    _, billed = answer(asked("[[uncapped]]", maxOutputTokens=15), thought_tokens=20)
    assert (billed.thoughts, billed.out) == (20, 15)


@given(flaw=st.sampled_from(FLAWS), limit=st.integers(1, 80), thoughts=st.integers(0, 60))
def test_no_answer_is_longer_than_allowed_whatever_is_wrong_with_it(flaw, limit, thoughts):
    _, billed = answer(asked(f"[[{flaw}]]", maxOutputTokens=limit), thought_tokens=thoughts)
    assert billed.out + billed.thoughts <= limit or flaw == "uncapped"


def test_sound_and_images_are_counted_apart():
    parts = [
        {"text": "x" * 40},
        {"inlineData": {"mimeType": "audio/wav", "data": "AAAA" * 100}},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://a/files/b"}},
    ]
    body, billed = answer(read({"contents": [{"role": "user", "parts": parts}]}))
    assert (billed.prompt, billed.audio, billed.drawn) == (10 + 50 + 258 + 258, 50, 258)
    assert body["usageMetadata"]["promptTokensDetails"] == [
        {"modality": "TEXT", "tokenCount": 268},
        {"modality": "IMAGE", "tokenCount": 258},
        {"modality": "AUDIO", "tokenCount": 50},
    ]


def test_a_search_has_queries_and_sources():
    request = {"contents": [{"parts": [{"text": "a"}]}], "tools": [{"google_search": {}}]}
    body, billed = answer(read(request))
    grounding = body["candidates"][0]["groundingMetadata"]
    assert billed.queries == len(grounding["webSearchQueries"]) >= 1
    assert grounding["groundingChunks"]


def test_a_blocked_prompt_has_no_candidates_and_costs_its_input():
    body, billed = answer(asked("[[blocked]]"), thought_tokens=9)
    assert body["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
    assert "candidates" not in body
    assert (billed.prompt > 0, billed.out, billed.thoughts) == (True, 0, 0)


@pytest.mark.parametrize("flaw", ["safety", "max_tokens", "recitation"])
def test_a_stopped_answer_has_a_candidate_without_parts(flaw):
    body, billed = answer(asked(f"[[{flaw}]]"))
    assert body["candidates"] == [{"content": {"role": "model"}, "finishReason": flaw.upper(), "index": 0}]
    assert (billed.prompt > 0, billed.out) == (True, 0)


def test_an_empty_answer_ends_like_any_other():
    candidate = answer(asked("[[empty]]"))[0]["candidates"][0]
    assert (candidate["content"]["parts"], candidate["finishReason"]) == ([{"text": ""}], "STOP")


def test_flaws_come_as_often_as_their_shares_say():
    answers = Answers(flaws=dict.fromkeys(FLAWS, 0.05))
    met = [answers.flaw(asked(f"{number}"), 1) for number in range(2000)]
    assert all(met.count(flaw) == pytest.approx(100, abs=39) for flaw in FLAWS)


def test_asking_again_may_go_well():
    answers = Answers(flaws={"safety": 0.5})
    assert {answers.flaw(asked(), nth) for nth in range(30)} == {"safety", None}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output_tokens": 0}, "output_tokens must be >= 1, got 0"),
        ({"thought_tokens": -1}, "thought_tokens must be >= 0, got -1"),
        ({"cached_share": 2}, r"cached_share must be in \[0, 1\], got 2"),
        ({"flaws": {"smoke": 0.1}}, "answer_faults must be keyed by blocked, safety, .*, got {'smoke': 0.1}"),
        ({"flaws": {"safety": 0.6, "empty": 0.6}}, r"the sum of answer_faults must be in \[0, 1\]"),
        ({"flaws": {"safety": -0.1}}, r"the sum of answer_faults must be in \[0, 1\]"),
    ],
)
def test_bad_options_name_field_value_and_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Answers(**fields)


CONTENTS = [{"role": "user", "parts": [{"text": "Hello"}]}]


def test_snake_case_and_camel_case_ask_the_same():
    """The client mixes the two, and files use the one where inline requests use the other."""
    schema = {"type": "OBJECT", "properties": {"first_name": {"type": "STRING"}}, "property_ordering": ["first_name"]}
    snake = {
        "contents": CONTENTS,
        "generation_config": {"response_mime_type": "application/json", "response_schema": schema},
    }
    mixed = {
        "contents": CONTENTS,
        "generationConfig": {"responseMimeType": "application/json", "responseSchema": schema},
    }
    assert read(snake) == read(mixed)
    assert list(read(snake).schema["properties"]) == ["first_name"], "names of the user's own stay as they are"


def test_a_property_called_like_a_list_of_properties_is_a_name_too():
    schema = {"properties": {"properties": {"any_of": []}, "max_items": {}}}
    assert camel(schema) == {"properties": {"properties": {"anyOf": []}, "max_items": {}}}


@pytest.mark.parametrize("more", [{"serviceTier": "flex"}, {"model": "models/x"}, {"labels": {"a": "b"}}])
def test_model_and_tier_do_not_make_it_another_request(more):
    assert read({"contents": CONTENTS} | more).fingerprint == read({"contents": CONTENTS}).fingerprint


@pytest.mark.parametrize(
    "more", [{"systemInstruction": {"parts": [{"text": "x"}]}}, {"generationConfig": {"temperature": 1}}]
)
def test_instructions_and_settings_make_it_another_request(more):
    assert read({"contents": CONTENTS} | more).fingerprint != read({"contents": CONTENTS}).fingerprint


def test_the_prompt_is_the_text_of_the_last_turn():
    turns = [
        *CONTENTS,
        {"role": "model", "parts": [{"text": "Hi"}]},
        {"parts": [{"text": "How"}, {"text": "are you?"}]},
    ]
    assert read({"contents": turns}).prompt == "How\nare you?"


def test_everything_sent_counts_as_tokens():
    image = {"inlineData": {"data": "AAAA", "mime_type": "image/png"}}
    contents = [{"parts": [{"text": "x" * 8}, image]}]
    assert read({"contents": contents, "systemInstruction": {"parts": [{"text": "y" * 5}]}}).tokens == 2 + 258 + 2


@pytest.mark.parametrize("body", [None, 1, [], {}, {"contents": []}, {"contents": "text"}])
def test_anything_else_asks_nothing(body):
    assert read(body) is None
    assert read_bytes(json.dumps(body).encode()) is None


def test_a_body_is_read_alike_whether_small_or_large():
    large = {"contents": [{"parts": [{"text": "x" * 100_000}]}]}
    for body in ({"contents": CONTENTS}, large):
        assert read_bytes(json.dumps(body).encode()) == read(body)
    assert read_bytes(b"{") is None


JSON = {"generationConfig": {"responseMimeType": "application/json", "responseSchema": CITY}}


def over_http(line, prompt, **more):
    """Return the candidate of an answer, and its row in the ledger."""
    status, body = line.generate(prompt, **more)
    assert status == 200
    return body["candidates"][0], line.ledger()[-1]


@pytest.mark.parametrize(("flaw", "reason"), [("cut", "MAX_TOKENS"), ("cut_stop", "STOP")])
def test_an_answer_is_cut_in_the_middle(start, flaw, reason):
    line = start()
    candidate, row = over_http(line, f"[[{flaw}]]", **JSON)
    text = candidate["content"]["parts"][0]["text"]
    assert (candidate["finishReason"], row["finish_reason"], row["billed"]) == (reason, reason, True)
    assert text.startswith("{")
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


@pytest.mark.parametrize(
    ("flaw", "before", "after"),
    [("fenced", "```json\n", "\n```"), ("trailing", "", "\n\nLet me know if anything is missing.")],
)
def test_json_has_something_around_it(start, flaw, before, after):
    text = over_http(start(), f"[[{flaw}]]", **JSON)[0]["content"]["parts"][0]["text"]
    assert text.startswith(before)
    assert text.endswith(after)
    jsonschema.validate(json.loads(text[len(before) : -len(after)]), lowered(CITY))


def test_json_comes_twice(start):
    text = over_http(start(), "[[doubled]]", **JSON)[0]["content"]["parts"][0]["text"]
    first, second = text.splitlines()
    assert json.loads(first) == json.loads(second)


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [("malformed_call", "MALFORMED_FUNCTION_CALL"), ("no_parts", "STOP"), ("recitation", "RECITATION")],
)
def test_a_candidate_without_parts_is_billed(start, flaw, reason):
    candidate, row = over_http(start(thought_tokens=9), f"[[{flaw}]]")
    assert candidate["finishReason"] == reason
    assert "parts" not in candidate.get("content", {})
    assert (row["billed"], row["finish_reason"], row["tokens_out"], row["tokens_thoughts"]) == (True, reason, 0, 9)


def test_an_answer_without_usage_is_billed_all_the_same(start):
    line = start()
    assert line.generate("[[no_usage]]")[1].keys() == {"candidates", "modelVersion", "responseId"}
    (row,) = line.ledger()
    assert (row["told"], row["tokens_in"] > 0, row["tokens_out"] > 0) == (False, True, True)


def test_usage_may_hold_the_total_alone(start):
    line = start()
    usage = line.generate("[[total_only]]")[1]["usageMetadata"]
    (row,) = line.ledger()
    assert usage == {"totalTokenCount": row["tokens_in"] + row["tokens_out"]}


def test_status_200_may_have_the_body_of_an_error_and_costs_nothing(start):
    line = start()
    status, body = line.generate("[[error_body]]")
    assert (status, body["error"]["code"], body["error"]["status"]) == (200, 503, "UNAVAILABLE")
    line.job(line.ended("[[error_body]]", "a"))
    name = line.ended("[[error_body]]", "a", name="again")
    first, second = line.job(name)["response"]["inlinedResponses"]["inlinedResponses"]
    assert ("error" in first["response"], "candidates" in second["response"]) == (True, True)
    assert {row["prompt"] for row in line.ledger() if row["billed"]} == {"a"}


def test_a_mark_may_hold_for_the_first_requests_only(start):
    line = start()
    reasons = [line.generate("[[no_usage:1]][[recitation:2]]")[1]["candidates"][0]["finishReason"] for _ in range(3)]
    assert reasons == ["STOP", "RECITATION", "STOP"]
    assert [row["told"] for row in line.ledger()] == [False, True, True]


def test_a_share_of_answers_is_flawed_in_every_lane(start):
    line = start(answer_faults={"no_usage": 1.0})
    line.generate("a")
    line.ended("b")
    line("GET", "/v1/models")
    assert [(row["lane"], row["told"]) for row in line.ledger()] == [("online", False), ("batch", False)]
