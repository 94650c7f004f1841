import json

import pytest

from ipybatch.simulators.gemini_requests import camel, read, read_bytes

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
