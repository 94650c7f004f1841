"""OpenAPI: the REST API as an OpenAPI 3.1 document, made from the table of routes and the types of `wire`.

    routes.ROUTES + Handler.operations + wire's types --document--> openapi.json --GET /openapi.json--> clients

Rule: nothing is described twice.  What follows from how all handlers work is
added here: 403 for whoever has no token, 400 for what is not UTF-8 or not JSON, 304 beside an
ETag, `Link` beside a cursor.  `python -m tools.openapi` writes the file.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from jupyter_server.auth.decorator import authorized
from tornado import web

from ipybatch.server.handler import CURSOR, IF_NONE_MATCH, RESOURCE, Handler, Media, Operation, Parameter
from ipybatch.server.wire import Problem

FILE = Path(__file__).with_name("openapi.json")

_SCHEMAS = "#/components/schemas/{name}"
_GROUP = re.compile(r"\((?:\?P<(?P<name>\w+)>)?(?P<inner>[^()]*)\)")
_WORDS = re.compile(r"[\w-]+(?:\|[\w-]+)+")  # one of several, such as csv|jsonl
_ENTRY = re.compile(r"^([\w`, ;:]+?): +(\S.*)$")
_TOLD = {
    400: "Not UTF-8, or not JSON.",
    402: "Too few credits; nothing was created.",
    403: "No token, or one that may not do this; or no XSRF header beside a cookie.",
    404: "There is no such thing.",
    409: "Not possible as it stands now.",
    412: "It is not what `If-Match` says: read it again.",
    413: "Larger than the limit, which is named.",
    415: "Not of a media type that is taken.",
    422: "A field, parameter or header is wrong; which one, and what it may be, is named.",
    428: "`If-Match` is needed.",
    429: "As many as the limit allows, which is named.",
    501: "Not there yet.",
    503: "A journal cannot be read or written.",
}
_INFO = """Every session of the user, and submissions. Times are ISO 8601 in UTC, durations are seconds.

A token is needed for every verb but OPTIONS: `Authorization: token <TOKEN>`. HEAD is answered wherever GET is, OPTIONS
everywhere, and what is not described here with 405 and `Allow`, or 404. Errors are `application/problem+json`."""


def document(
    routes: Sequence[tuple[str, type[Handler]]], aliases: Sequence[tuple[str, type[Handler]]], *, version: str
) -> dict[str, Any]:
    """Return the OpenAPI document of the routes.

    Args:
        routes: Paths below the server's base URL, as patterns, and their handlers.
        aliases: The same, for those that have the tag "aliases".

    Raises:
        ValueError: A pattern is more than names and words in groups, or two operations have the same path.
    """
    table = [*routes, *aliases]
    schemas = _Schemas(handler for _, handler in table)
    paths: dict[str, Any] = {}
    for number, (pattern, handler) in enumerate(table):
        path, groups = path_of(pattern, handler)
        if path in paths:
            msg = f"two routes have the path {path}"
            raise ValueError(msg)
        described = {}
        for method, operation in handler.operations.items():
            tag = "aliases" if number >= len(routes) else _tag(path)
            name = "_".join([method.lower(), *re.findall(r"\w+", path.removeprefix("/ipybatch/api/v1"))])
            described[method.lower()] = {
                "operationId": name if name != "get" else "get_root",
                "tags": [tag],
                **_operation(operation, groups, schemas),
            }
        paths[path] = {**({"parameters": groups} if groups else {}), **described}
    return {
        "openapi": "3.1.0",
        "info": {"title": "ipybatch", "version": version, "description": _INFO, "license": {"name": "BSD-3-Clause"}},
        "servers": [{"url": "../../..", "description": "The base URL of the Jupyter server"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "The server's token"}},
            "schemas": schemas.components,
        },
    }


def path_of(pattern: str, handler: type[Handler]) -> tuple[str, list[dict[str, Any]]]:
    """Return a pattern as a path with named parameters, and these.

    A group is called as the pattern, or else the handler's methods, call it.

    Raises:
        ValueError: It is more than names and words in groups.
    """
    names = _names(handler)
    groups: list[dict[str, Any]] = []

    def named(found: re.Match[str]) -> str:
        name = found["name"] or (names[len(groups)] if len(groups) < len(names) else "id")
        schema: dict[str, Any] = {"type": "string"}
        if _WORDS.fullmatch(found["inner"]):
            schema["enum"] = found["inner"].split("|")
        groups.append({"name": name, "in": "path", "required": True, "schema": schema})
        return f"{{{name}}}"

    path = _GROUP.sub(named, pattern.removesuffix("?").removesuffix("$")).replace("\\", "")
    path = path.removesuffix("/") or "/"
    if not re.fullmatch(r"(?:[\w/.-]|\{\w+\})+", path) or len({group["name"] for group in groups}) < len(groups):
        msg = f"the pattern {pattern!r} of {handler.__name__} cannot be told as a path"
        raise ValueError(msg)
    return path, groups


def _names(handler: type[Handler]) -> list[str]:
    for method in handler.operations:
        given = list(inspect.signature(getattr(handler, method.lower())).parameters.values())[1:]
        names = [parameter.name.rstrip("_") for parameter in given if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        if names:
            return names
    return []


def _tag(path: str) -> str:
    return path.removeprefix("/ipybatch/api/v1").strip("/").partition("/")[0].partition(".")[0] or "server"


def _operation(operation: Operation, groups: Sequence[Any], schemas: _Schemas) -> dict[str, Any]:
    told: dict[str, Any] = {"summary": operation.summary}
    if operation.parameters:
        told["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    refuses = {403, *operation.refuses}
    if groups:
        refuses.add(404)
    if any(parameter.where == "query" for parameter in operation.parameters):
        refuses |= {400, 422}
    if operation.body is not None:
        refuses |= {400, 413, 415, 422}
        told["requestBody"] = {"required": True, "content": schemas.content(operation.body)}
    answers = dict(operation.answers)
    if IF_NONE_MATCH in operation.parameters:
        answers.setdefault(304, None)
    told["responses"] = {
        **{str(status): _answer(status, answers[status], operation, schemas) for status in sorted(answers)},
        **{str(status): _refusal(status) for status in sorted(refuses)},
    }
    return told


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.told,
        "schema": dict(parameter.schema),
    }


def _answer(status: int, kind: Any, operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    told: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if headers := dict(_headers(status, operation)):
        told["headers"] = headers
    if kind is not None:
        told["content"] = schemas.content(kind)
    return told


def _headers(status: int, operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    text = {"type": "string"}
    if status in (200, 304) and IF_NONE_MATCH in operation.parameters:
        yield "ETag", {"description": "Of what was sent.", "schema": text}
    if status in (200, 206) and CURSOR in operation.parameters:
        yield "Link", {"description": 'The page after this one, as `rel="next"`; none on the last.', "schema": text}
    if status in (201, 202):
        yield "Location", {"description": "Where to ask what became of it.", "schema": text}


def _refusal(status: int) -> dict[str, Any]:
    told: dict[str, Any] = {"description": _TOLD.get(status, HTTPStatus(status).phrase)}
    if status in (429, 503):  # 503: where another program holds the journal just now
        told["headers"] = {
            "Retry-After": {"description": "Seconds, where to ask again may do.", "schema": {"type": "integer"}}
        }
    schema = {"$ref": _SCHEMAS.format(name="Problem")}
    return {**told, "content": {"application/problem+json": {"schema": schema}}}


class _Schemas:
    """The schemas of all bodies that handlers take and give."""

    def __init__(self, handlers: Iterator[type[Handler]]) -> None:
        operations = [operation for handler in handlers for operation in handler.operations.values()]
        bodies = [body for each in operations for body in (each.body, *each.answers.values())]
        self._kinds = [kind for kind in bodies if kind is not None and not isinstance(kind, Media)]
        made = msgspec.json.schema_components([*self._kinds, Problem], ref_template=_SCHEMAS)
        self._told, found = _null_last(list(made))
        structs = {(each.__name__, inspect.getdoc(each)): each for each in _subclasses(msgspec.Struct)}
        self.components = {name: _described(found[name], structs) for name in sorted(found)}

    def content(self, kind: Any) -> dict[str, Any]:
        """Return a body by its media types."""
        if isinstance(kind, Media):
            return {media: {} for media in kind.types}
        return {"application/json": {"schema": self._told[self._kinds.index(kind)]}}


def _null_last(schema: Any) -> Any:
    """Return a schema whose alternatives are in the order of newer releases of msgspec."""
    if isinstance(schema, list | tuple):
        return [_null_last(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _null_last(inner) for name, inner in schema.items()}
    if isinstance(found.get("anyOf"), list):
        found["anyOf"].sort(key=lambda one: one == {"type": "null"})
    return found


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for each in type.__subclasses__(kind):
        yield each
        yield from _subclasses(each)


def _described(schema: dict[str, Any], structs: Mapping[Any, type[Any]]) -> dict[str, Any]:
    """Return a schema in which each property says what the docstring says of it."""
    told = dict(schema)
    docstring = inspect.cleandoc(told.get("description", ""))
    if docstring:
        told["description"] = docstring.partition("\n\nAttributes:")[0]
    attributes: dict[str, str] = {}
    struct = structs.get((told.get("title"), docstring), object)
    for base in reversed(struct.__mro__):
        attributes.update(_attributes(inspect.cleandoc(base.__doc__ or "")))
    if "properties" in told:
        told["properties"] = {
            name: {**kind, "description": attributes[name]} if name in attributes else kind
            for name, kind in told["properties"].items()
        }
    return told


def _attributes(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield what a docstring's "Attributes:" says of each name."""
    section = docstring.partition("Attributes:\n")[2].partition("\n\n")[0]
    for entry in re.split(r"\n(?! {5})", section):
        line = " ".join(entry.split())
        if found := _ENTRY.match(line):
            yield found[1], found[2].replace("``", "`")


class OpenApiHandler(Handler):
    """GET /openapi.json."""

    operations: ClassVar[Mapping[str, Operation]] = {
        "GET": Operation(
            summary="This API as an OpenAPI 3.1 document",
            answers={200: dict[str, Any]},
            parameters=(IF_NONE_MATCH,),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """Send the file."""
        self.answer(await self.blocking(_file), etag=True)


@functools.cache
def _file() -> msgspec.Raw:
    return msgspec.Raw(FILE.read_bytes())
