"""Reference pages that are made from what the program says of itself."""

from __future__ import annotations

import json
import re

from tools import reference, site

DOCUMENT = json.loads(site.OPENAPI.read_text(encoding="utf-8"))
TEXT = """# API reference

## `ipybatch`

One function.

### `Rate`

#### `Rate.limit`

## `ipybatch.frames`

Frames.

### `Rate`

See `ipybatch.Rate`.
"""


def test_each_module_has_a_page_with_its_names_as_sections() -> None:
    pages = reference.api_pages(TEXT)
    assert list(pages) == ["ipybatch", "ipybatch.frames"]
    text, anchors = pages["ipybatch"]
    assert text.startswith("# `ipybatch`\n\nOne function.\n\n## `Rate`\n\n### `Rate.limit`")
    assert anchors == ["ipybatch", "rate", "ratelimit"]


def test_anchors_are_those_that_the_one_page_has() -> None:
    """The second heading of the same text has a number, as on GitHub."""
    text, anchors = reference.api_pages(TEXT)["ipybatch.frames"]
    assert anchors == ["ipybatchframes", "rate-1"]
    assert "See [`ipybatch.Rate`](ipybatch.md#rate)." in text


def test_index_names_everything_that_is_public() -> None:
    told = reference.api_index(reference.api_pages(TEXT))
    assert "## [`ipybatch`](api/ipybatch.md)\n\nOne function.\n\n[Rate](api/ipybatch.md#rate)" in told


def test_rest_tells_every_operation_and_every_type() -> None:
    told = reference.rest(DOCUMENT)
    operations = {
        f"{verb.upper()} {path.removeprefix(reference.BASE) or '/'}"
        for path, item in DOCUMENT["paths"].items()
        for verb in item
        if verb != "parameters"
    }
    assert set(re.findall(r"^### `(.+)`$", told, flags=re.MULTILINE)) == operations
    types = set(re.findall(r"^\(type-([\w-]+)\)=$", told, flags=re.MULTILINE))
    assert types == {reference._key(name) for name in DOCUMENT["components"]["schemas"]}
    assert set(re.findall(r"#type-([\w-]+)", told)) <= types


def test_rest_says_what_a_field_may_be() -> None:
    assert reference._shape({"type": "integer", "minimum": 1, "maximum": 9}) == "integer, 1 to 9"
    assert reference._shape({"type": "array", "items": {"$ref": "#/components/schemas/Item"}}) == (
        "list of [Item](#type-item)"
    )
    assert reference._shape({"anyOf": [{"type": "string"}, {"type": "null"}]}) == "string or null"
    assert reference._shape({"enum": ["a", "b"]}) == "`a`, `b`"
    assert reference._shape({"type": "object", "additionalProperties": {"type": "number"}}) == "object of number"


def test_command_line_has_a_section_for_each_command() -> None:
    told = reference.command_line()
    assert re.findall(r"^### `ipybatch (\w+)`$", told, flags=re.MULTILINE)[:2] == ["list", "show"]
    assert "--journal PATH" in told
    assert max(map(len, told.splitlines())) <= 120
