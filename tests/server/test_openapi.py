"""The REST API as an OpenAPI document: complete, current, valid."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import msgspec
import pytest
import schemathesis
from tornado import web

from ipybatch.server import openapi
from ipybatch.server.handler import CURSOR, IF_NONE_MATCH, Handler, Media, Operation, Parameter
from ipybatch.server.routes import ALIASES, ROUTES
from tools import openapi as tool

VERBS = ("get", "head", "post", "put", "patch", "delete")
TABLE = [*ROUTES, *ALIASES]


class Coin(msgspec.Struct, kw_only=True):
    """A coin.

    Attributes:
        value: In ``cents``; a long line goes on
            here.
        worn: Whether it is.
    """

    value: int
    worn: bool = False


class OldCoin(Coin, kw_only=True):
    """A coin that is not used any more."""

    until: str


class Coins(Handler):
    """One coin."""

    operations: ClassVar = {
        "GET": Operation(summary="One", answers={200: OldCoin}, parameters=(IF_NONE_MATCH, CURSOR), refuses=(404, 429)),
        "PUT": Operation(summary="Put one", body=Coin, answers={202: None}),
        "POST": Operation(summary="Show one", body=Media(("image/png", "image/jpeg")), answers={200: list[Coin]}),
    }

    def get(self, purse: str, form: str) -> None: ...


def told(*routes: Any, aliases: Any = ()) -> dict[str, Any]:
    return openapi.document(routes, aliases, version="1")


def test_file_is_current() -> None:
    assert tool.main(["--check"]) == 0, "run: make openapi"


def test_file_is_valid() -> None:
    schemathesis.openapi.from_path(openapi.FILE).validate()


def test_file_says_what_each_field_is() -> None:
    problem = json.loads(openapi.FILE.read_text())["components"]["schemas"]["Problem"]
    assert problem["properties"]["next_step"]["description"] == "What to do."
    assert "Attributes" not in problem["description"]


def test_all_routes_are_told() -> None:
    paths = json.loads(openapi.FILE.read_text())["paths"]
    assert len(paths) == len(TABLE)
    assert "/ipybatch/api/v1" in paths
    for described in paths.values():
        for operation in (described[verb] for verb in VERBS if verb in described):
            assert "application/problem+json" in operation["responses"]["403"]["content"]


@pytest.mark.parametrize(("pattern", "handler"), TABLE, ids=[pattern for pattern, _ in TABLE])
def test_each_method_has_its_operation(pattern: str, handler: type[Handler]) -> None:
    """What a handler does is told, and what is told is done."""
    nothing = {verb: getattr(web.RequestHandler, verb) for verb in VERBS} | {"head": Handler.head}
    done = {verb.upper() for verb in VERBS if getattr(handler, verb) is not nothing[verb]}
    assert set(handler.operations) == done
    assert all(operation.answers or 501 in operation.refuses for operation in handler.operations.values())


def test_path_and_its_parameters() -> None:
    path, groups = openapi.path_of(r"/purses/([^/]+)/coins\.(png|svg)", Coins)
    assert path == "/purses/{purse}/coins.{form}"
    assert groups[1] == {
        "name": "form",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": ["png", "svg"]},
    }
    assert openapi.path_of(r"/?", Coins)[0] == "/"
    assert openapi.path_of(r"/a/(?P<key>[0-9a-f]+-[0-9]+)/?", Coins)[0] == "/a/{key}"


@pytest.mark.parametrize("pattern", [r"/a/.*", r"/a+", r"/(?P<id>x+)/(?P<id>y+)", r"/a/(b(c))"])
def test_pattern_that_is_no_path(pattern: str) -> None:
    with pytest.raises(ValueError, match="cannot be told as a path"):
        openapi.path_of(pattern, Coins)


def test_two_routes_of_one_path() -> None:
    with pytest.raises(ValueError, match="two routes have the path /x"):
        told(("/x", Coins), ("/x/?", Coins))


def test_operation() -> None:
    described = told((r"/ipybatch/api/v1/coins/([^/]+)/(\w+)", Coins))
    path = described["paths"]["/ipybatch/api/v1/coins/{purse}/{form}"]
    got, put, shown = path["get"], path["put"], path["post"]
    assert [parameter["name"] for parameter in path["parameters"]] == ["purse", "form"]
    assert (got["operationId"], got["tags"]) == ("get_coins_purse_form", ["coins"])
    assert set(got["responses"]) == {"200", "304", "400", "403", "404", "422", "429"}
    assert set(got["responses"]["200"]["headers"]) == {"ETag", "Link"}
    assert set(got["responses"]["429"]["headers"]) == {"Retry-After"}
    assert [parameter["in"] for parameter in got["parameters"]] == ["header", "query"]
    assert set(put["responses"]) == {"202", "400", "403", "404", "413", "415", "422"}
    assert set(put["responses"]["202"]) == {"description", "headers"}
    assert set(put["responses"]["202"]["headers"]) == {"Location"}
    assert set(shown["requestBody"]["content"]) == {"image/png", "image/jpeg"}
    assert shown["responses"]["200"]["content"]["application/json"]["schema"]["items"] == {
        "$ref": "#/components/schemas/Coin"
    }
    schemathesis.openapi.from_dict(described).validate()


def test_fields_say_what_the_docstrings_say() -> None:
    """Those of the types below too, and a long line whole."""
    schemas = told((r"/coins/([^/]+)/(\w+)", Coins))["components"]["schemas"]
    properties = schemas["OldCoin"]["properties"]
    assert properties["value"]["description"] == "In `cents`; a long line goes on here."
    assert properties["worn"]["description"] == "Whether it is."
    assert "description" not in properties["until"]
    assert schemas["Coin"]["description"] == "A coin."


def test_aliases_are_told_apart() -> None:
    operation = told(aliases=[(r"/ipybatch/coins/([^/]+)/(\w+)", Coins)])["paths"]["/ipybatch/coins/{purse}/{form}"]
    assert operation["get"]["tags"] == ["aliases"]


def test_parameter() -> None:
    class Wallet(Handler):
        operations: ClassVar = {
            "GET": Operation(
                summary="", answers={200: None}, parameters=(Parameter("If-Match", "Its ETag.", where="header"),)
            )
        }

    path = told(("/wallet", Wallet))["paths"]["/wallet"]["get"]
    assert path["parameters"] == [
        {"name": "If-Match", "in": "header", "description": "Its ETag.", "schema": {"type": "string"}}
    ]
    assert set(path["responses"]) == {"200", "403"}
