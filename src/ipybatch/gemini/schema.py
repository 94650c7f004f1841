"""Schema: what answers must fit, as it is sent and as it is checked.

a pydantic class, list[Class], ...   sent as JSON Schema, checked by pydantic
a dict, types in lower case          JSON Schema: sent as it is, checked by jsonschema
a dict, types in upper case          Gemini's own words: sent as they are, checked as the JSON Schema they mean
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ipybatch.errors import InputError, MissingExtra, Permanent

_FENCE = re.compile(r"\s*```(?:json|JSON)?[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)
_TYPES = frozenset({"STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"})
_CHECKED = frozenset(
    {
        "additionalProperties",
        "enum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "pattern",
        "required",
    }
)
_SHOWN_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Schema:
    """What an answer must fit; made with `Schema.of`.

    Attributes:
        sent: Its part of the generation config.
    """

    sent: dict[str, Any]
    _check: Callable[[str], Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, value: Any) -> Schema:
        """Return ``value`` as a schema.

        Args:
            value: A pydantic class (or what pydantic takes for one, such as ``list[Class]``), or a dict.

        Raises:
            InputError: It is no schema; says where.
        """
        if isinstance(value, Schema):
            return value
        if not isinstance(value, dict):
            return _of_type(value)
        return _of_gemini(value) if _is_gemini(value) else _of_json_schema(value)

    def parse(self, text: str) -> Any:
        """Return the data in an answer, which may stand in a fence of ```json.

        Raises:
            Permanent: It is no JSON, or does not fit; says where.
        """
        fenced = _FENCE.fullmatch(text)
        return self._check(fenced[1] if fenced else text)


def _of_type(value: Any) -> Schema:
    try:
        import pydantic
    except ImportError:
        raise MissingExtra("gemini") from None
    try:
        if value is None or isinstance(value, str):
            raise TypeError("it is no class")
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(value)
        meant = adapter.json_schema()
    except (TypeError, pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as error:
        msg = f"schema must be a pydantic class or a dict, got {value!r}: {str(error).splitlines()[0]}"
        raise InputError(msg) from None

    def check(text: str) -> Any:
        try:
            fit = adapter.validate_json(text)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            raise _unfit((tuple(each["loc"]), each["msg"]) for each in found) from None
        return adapter.dump_python(fit, mode="json", by_alias=True)

    return Schema(_json_schema(meant), check)


def _of_json_schema(value: dict[str, Any]) -> Schema:
    return Schema(_json_schema(value), _checker(value))


def _of_gemini(value: dict[str, Any]) -> Schema:
    try:
        import pydantic
        from google.genai import types
    except ImportError:
        raise MissingExtra("gemini") from None
    try:
        read = types.Schema.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        msg = f"schema{_path(first['loc'])} must be of Gemini's Schema: {first['msg']}"
        raise InputError(msg) from None
    sent = read.model_dump(mode="json", by_alias=True, exclude_none=True)
    return Schema({"responseMimeType": "application/json", "responseSchema": sent}, _checker(_meant(sent)))


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"responseMimeType": "application/json", "responseJsonSchema": schema}


def _is_gemini(value: Any) -> bool:
    """Tell whether some type in ``value`` is written as Gemini writes it."""
    if isinstance(value, list):
        return any(map(_is_gemini, value))
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    return (isinstance(kind, str) and kind in _TYPES) or any(map(_is_gemini, value.values()))


def _meant(sent: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema that one of Gemini's means."""
    meant: dict[str, Any] = {name: value for name, value in sent.items() if name in _CHECKED}
    if "type" in sent:
        meant["type"] = str(sent["type"]).lower()
    if "items" in sent:
        meant["items"] = _meant(sent["items"])
    if "properties" in sent:
        meant["properties"] = {name: _meant(each) for name, each in sent["properties"].items()}
    if "anyOf" in sent:
        meant["anyOf"] = [_meant(each) for each in sent["anyOf"]]
    return {"anyOf": [meant, {"type": "null"}]} if sent.get("nullable") else meant


def _checker(schema: dict[str, Any]) -> Callable[[str], Any]:
    try:
        import jsonschema  # type: ignore[import-untyped]  # published without types
        from referencing import Registry
    except ImportError:
        raise MissingExtra("gemini") from None
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        msg = f"schema{_path(error.absolute_path)} must be JSON Schema: {error.message}"
        raise InputError(msg) from None
    _check_references(schema)
    validator = kind(schema, registry=Registry())

    def check(text: str) -> Any:
        try:
            data = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise _unfit([((), f"it is no JSON ({error})")]) from None
        errors = sorted(validator.iter_errors(data), key=lambda each: list(map(str, each.absolute_path)))
        if errors:
            raise _unfit((tuple(each.absolute_path), each.message) for each in errors)
        return data

    return check


def _check_references(schema: dict[str, Any]) -> None:
    """Refuse references that are not found within the schema: nothing is fetched from elsewhere."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            msg = f"schema must hold all that it refers to, got the reference {reference!r}: put it under $defs"
            raise InputError(msg) from None


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            yield reference
        schema = list(schema.values())
    if isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)


def _unfit(found: Iterable[tuple[Iterable[Any], str]]) -> Permanent:
    errors = [f"data{_path(where)}: {_short(what)}" for where, what in found]
    more = f" and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
    return Permanent(f"answer does not fit the schema: {'; '.join(errors[:_SHOWN_ERRORS])}{more}")


def _path(where: Iterable[Any]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."
