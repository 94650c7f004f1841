"""Schemas: what is sent is what is checked, and an answer that does not fit says where."""

from __future__ import annotations

import contextlib
import enum
from datetime import date

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError, Permanent
from ipybatch.engine.data.outcome import encode_result
from ipybatch.gemini.service.request_config import Schema


class Kind(enum.Enum):
    STAR = "star"
    PLANET = "planet"


class Star(pydantic.BaseModel):
    name: str
    magnitude: float | None = None
    kind: Kind = Kind.STAR
    seen: date | None = pydantic.Field(default=None, alias="seenOn")


JSON_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "moons": {"type": "array", "items": {"$ref": "#/$defs/moon"}}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"moon": {"type": ["string", "null"], "maxLength": 5}},
}
GEMINI = {
    "type": "OBJECT",
    "properties": {
        "name": {"type": "STRING", "enum": ["Vega", "Deneb"]},
        "moons": {"type": "ARRAY", "items": {"type": "INTEGER"}, "min_items": 1, "nullable": True},
        "size": {"any_of": [{"type": "NUMBER", "minimum": 0}, {"type": "STRING"}]},
    },
    "required": ["name"],
    "property_ordering": ["name", "moons"],
}


def test_a_pydantic_class_is_sent_as_json_schema():
    schema = Schema.of(Star)
    assert schema.sent == {"responseMimeType": "application/json", "responseJsonSchema": Star.model_json_schema()}
    data = schema.parse('{"name": "Vega", "seenOn": "2026-01-02"}')
    assert data == {"name": "Vega", "magnitude": None, "kind": "star", "seenOn": "2026-01-02"}
    assert encode_result(data)


def test_what_pydantic_takes_for_a_class_is_a_schema_too():
    assert Schema.of(list[Star]).parse('[{"name": "Vega"}]')[0]["name"] == "Vega"
    assert Schema.of(Kind).parse('"planet"') == "planet"


def test_json_schema_is_sent_as_it_is():
    schema = Schema.of(JSON_SCHEMA)
    assert schema.sent == {"responseMimeType": "application/json", "responseJsonSchema": JSON_SCHEMA}
    assert schema.parse('{"name": "Mars", "moons": ["a", null]}') == {"name": "Mars", "moons": ["a", None]}


def test_geminis_own_schema_is_sent_in_its_words():
    schema = Schema.of(GEMINI)
    sent = schema.sent["responseSchema"]
    assert sent["properties"]["moons"] == {
        "type": "ARRAY",
        "items": {"type": "INTEGER"},
        "minItems": 1,
        "nullable": True,
    }
    assert sent["propertyOrdering"] == ["name", "moons"]
    assert schema.parse('{"name": "Vega", "moons": null, "size": 1.5}')["moons"] is None


def test_a_schema_stays_a_schema():
    schema = Schema.of(JSON_SCHEMA)
    assert Schema.of(schema) is schema


@pytest.mark.parametrize("text", ['```json\n"a"\n```', '```\n"a"\n```', ' ```JSON \n "a" ``` \n', '"a"', ' "a"\n'])
def test_a_fence_around_the_data_is_tolerated(text):
    assert Schema.of({"type": "string"}).parse(text) == "a"
    assert Schema.of(str).parse(text) == "a"


def test_a_fence_within_the_data_is_data():
    assert Schema.of(str).parse('"```json\\n1\\n```"') == "```json\n1\n```"


@pytest.mark.parametrize(
    ("schema", "text", "says"),
    [
        (Star, '{"name": 1}', "data.name: Input should be a valid string"),
        (Star, '{"name": "Vega", "kind": "moon"}', "data.kind: Input should be 'star' or 'planet'"),
        (Star, '{"name": "Ve', "data: Invalid JSON"),
        (Star, "Vega it is", "data: Invalid JSON"),
        (Star, "", "data: Invalid JSON"),
        (list[Star], '[{"name": "a"}, {}]', r"data\[1\].name: Field required"),
        (JSON_SCHEMA, '{"moons": []}', "data: 'name' is a required property"),
        (JSON_SCHEMA, '{"name": "a", "moons": ["b", 3]}', r"data.moons\[1\]: 3 is not of type 'string', 'null'"),
        (JSON_SCHEMA, '{"name": "a", "rings": 1}', "data: Additional properties are not allowed"),
        (JSON_SCHEMA, '{"name": "Ve', "data: it is no JSON"),
        (JSON_SCHEMA, '{"name": NaN}', "data: it is no JSON"),
        (JSON_SCHEMA, "[" * 100_000, "data: it is no JSON"),
        (GEMINI, '{"name": "Sun"}', r"data.name: 'Sun' is not one of \['Vega', 'Deneb'\]"),
        (GEMINI, '{"name": "Vega", "moons": []}', r"data.moons: \[\] is not valid under any"),
        (GEMINI, '{"name": "Vega", "size": -1}', "data.size: -1 is not valid under any"),
    ],
)
def test_an_answer_that_does_not_fit_says_where(schema, text, says):
    with pytest.raises(Permanent, match=f"^answer does not fit the schema: {says}"):
        Schema.of(schema).parse(text)


def test_many_errors_are_told_in_one_line():
    with pytest.raises(Permanent, match=r"data\[0\]: .*; data\[1\]: .*; data\[10\]: .* and 9 more$") as caught:
        Schema.of({"type": "array", "items": {"type": "string"}}).parse(str(list(range(12))))
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_fits_or_says_why(text):
    for schema in (SOME_TYPE, SOME_DICT):
        with contextlib.suppress(Permanent):
            schema.parse(text)


SOME_TYPE, SOME_DICT = Schema.of(Star), Schema.of(GEMINI)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (None, "schema must be a pydantic class or a dict, got None"),
        ("Star", "schema must be a pydantic class or a dict, got 'Star'"),
        (7, "schema must be a pydantic class or a dict, got 7"),
        (object(), "schema must be a pydantic class or a dict"),
        ({"type": "objekt"}, "schema.type must be JSON Schema: 'objekt' is not valid"),
        ({"properties": {"a": {"minItems": -1}}}, "schema.properties.a.minItems must be JSON Schema"),
        ({"type": "OBJECT", "propertees": {}}, "schema.propertees must be of Gemini's Schema"),
        (
            {"$ref": "#/$defs/none"},
            "schema must define what it references, got the reference '#/.defs/none': put it under .defs",
        ),
        ({"$ref": "http://127.0.0.1:9/x"}, "schema must define what it references, got the reference 'http"),
        ({"properties": {"a": {"pattern": "["}}}, "schema.properties.a.pattern must be JSON Schema"),
    ],
)
def test_what_is_no_schema_is_refused(schema, says):
    """Before the first call, and without fetching anything."""
    with pytest.raises(InputError, match=f"^{says}"):
        Schema.of(schema)
