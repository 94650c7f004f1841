"""Request settings common to all prompts, and the schema of answers; validated once, by the client's own types.

The generation config is kept as the service's JSON, which is sent in all lanes alike.  A schema may be

    a pydantic class, list[Class], ...   sent as JSON Schema, validated by pydantic
    a dict, types in lower case          JSON Schema: sent unchanged, validated by jsonschema
    a dict, types in upper case          Gemini's own form: sent unchanged, validated as the equivalent JSON Schema
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from ipybatch.engine.data.policy import check, check_count
from ipybatch.errors import InputError, MissingExtra, Permanent

if TYPE_CHECKING:
    from google.genai.types import GenerateContentConfig


_LANES = ("online", "flex", "batch")

# Fields of GenerateContentConfig that a request holds beside the generation config.
_BESIDE = ("safetySettings", "tools", "toolConfig", "cachedContent", "labels", "store", "serviceTier")

_DESCRIBED = ("responseSchema", "responseJsonSchema", "tools")  # the model reads these

_ELSEWHERE = {
    "system_instruction": "pass system=",
    "response_schema": "pass schema=",
    "response_json_schema": "pass schema=",
    "service_tier": 'pass lane="flex"',
    "http_options": "pass base_url= or client=",
    "should_return_http_response": "leave it out",
    "automatic_function_calling": "functions are not called here",
    "automatic_continuation": "leave it out: it sends requests of its own",
    "continuation_token": "leave it out",
    "speech_config": "sound is not read here",
    "audio_timestamp": "sound is not read here",
    "audio_transcription_config": "sound is not read here",
    "routing_config": "the Gemini API does not take it",
    "model_selection_config": "the Gemini API does not take it",
    "model_armor_config": "the Gemini API does not take it",
    "generation_output_config": "the Gemini API does not take it",
}


class RequestConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that are sent with every prompt.

    Attributes:
        system: The system instruction.
        config: The generation config; accepted with the field names of google-genai's `GenerateContentConfig`, kept
            as the service's JSON.
        schema: The schema of answers; see `Schema.of`.
        modalities: Modalities of answers: "TEXT", "IMAGE"; () for the model's default.
        lane: "online", "flex" or "batch".

    Raises:
        InputError: A field is invalid; the message names it.
    """

    system: str | None = None
    config: dict[str, Any] = {}
    schema: Schema | None = None
    modalities: tuple[str, ...] = ()
    lane: str = "online"
    _common: bytes = b""
    _wants_image: bool = False
    _texts: list[str] = []

    def __post_init__(self) -> None:
        check_system(self.system, "system")
        if self.lane not in _LANES:
            msg = f"lane must be one of {', '.join(map(repr, _LANES))}, got {self.lane!r}"
            raise InputError(msg)
        set_ = msgspec.structs.force_setattr
        set_(self, "modalities", _check_modalities(self.modalities))
        set_(self, "schema", None if self.schema is None else Schema.of(self.schema))
        set_(self, "config", check_config(self.config, "config"))
        set_(self, "_common", _encode(self._fixed(None, {})))
        set_(self, "_wants_image", "IMAGE" in self.generation({}).get("responseModalities", ()))
        set_(self, "_texts", self._read_texts(None, {}))

    def settings(self) -> dict[str, Any]:
        """Return the settings of which a change makes every item run again, as JSON values; the lane is not one."""
        return {"system": self.system, "config": self.generation({})}

    def wants_image(self, config: Mapping[str, Any]) -> bool:
        """Say whether a prompt with this config of its own requests an image."""
        if not config:
            return self._wants_image
        return "IMAGE" in self.generation(config).get("responseModalities", ())

    def wire(self, contents: list[dict[str, Any]], system: str | None, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a prompt's request as the service's JSON.

        Args:
            contents: The prompt's contents, as the service's JSON.
            system: The prompt's own system instruction; replaces the common one.
            config: The prompt's own generation config; overrides fields of the common one.
        """
        return {"contents": contents, **self._fixed(system, config)}

    def body(self, contents: list[dict[str, Any]], system: str | None, config: Mapping[str, Any]) -> bytes:
        """Return the JSON of `wire`; what prompts have in common is encoded once."""
        fixed = self._common if system is None and not config else _encode(self._fixed(system, config))
        return b"".join((b'{"contents":', _encode(contents), b"," if len(fixed) > 2 else b"", fixed[1:]))

    def fixed_size(self, system: str | None, config: Mapping[str, Any]) -> int:
        """Return the size of what `body` has beside the contents, bytes."""
        return len(self._common if system is None and not config else _encode(self._fixed(system, config)))

    def _fixed(self, system: str | None, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request without its contents."""
        sent = self.generation(config)
        system = self.system if system is None else system
        told = {"systemInstruction": {"parts": [{"text": system}], "role": "user"}} if system else {}
        beside = {name: sent.pop(name) for name in _BESIDE if name in sent}
        tier = {"serviceTier": "flex"} if self.lane == "flex" else {}
        generation = {"generationConfig": sent} if sent else {}
        return {**told, **beside, **tier, **generation}

    def texts(self, system: str | None, config: Mapping[str, Any]) -> list[str]:
        """Return the texts that are sent beside the contents: system instruction, and JSON of schema and tools.

        Args:
            system: The prompt's own system instruction; replaces the common one.
            config: The prompt's own generation config; overrides fields of the common one.
        """
        return self._texts if system is None and not config else self._read_texts(system, config)

    def _read_texts(self, system: str | None, config: Mapping[str, Any]) -> list[str]:
        sent = self.generation(config)
        system = self.system if system is None else system
        described = [msgspec.json.encode(sent[name]).decode() for name in _DESCRIBED if name in sent]
        return [system, *described] if system else described

    def generation(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the generation config of a prompt with this config of its own."""
        modalities = {"responseModalities": list(self.modalities)} if self.modalities else {}
        return {**modalities, **self.config, **(self.schema.sent if self.schema else {}), **own}


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a character, which the client sends escaped
        return json.dumps(value).encode()


def check_config(config: Any, field: str) -> dict[str, Any]:
    """Return a generation config as the service's JSON.

    Raises:
        InputError: The client rejects a field or its value; the message names it.
        MissingExtra: google-genai is not installed.
    """
    if not config and isinstance(config, Mapping):
        return {}
    try:
        import pydantic
        from google.genai import types
        from pydantic_core import PydanticSerializationError
    except ImportError:
        raise MissingExtra("gemini") from None
    if not isinstance(config, Mapping | types.GenerateContentConfig):
        msg = f"{field} must be a dict or a GenerateContentConfig, got {config!r}"
        raise InputError(msg)
    try:
        read = types.GenerateContentConfig.model_validate(config)
    except pydantic.ValidationError as error:
        raise _unknown(error.errors(include_url=False)[0], field, types.GenerateContentConfig) from None
    _check_read(read, field)
    try:
        sent = read.model_dump(mode="json", by_alias=True, exclude_none=True)
    except PydanticSerializationError as error:
        msg = f"{field} must hold JSON values only: {str(error).splitlines()[0]}"
        raise InputError(msg) from None
    if (cached := sent.get("cachedContent")) and not cached.startswith("cachedContents/"):
        sent["cachedContent"] = f"cachedContents/{cached}"  # as the client has it
    return sent


def check_system(system: Any, field: str) -> None:
    """Check that a system instruction is a text or None.

    Raises:
        InputError: It is neither; the message names ``field``.
    """
    if system is not None and (not isinstance(system, str) or not system.strip()):
        msg = f"{field} must be a text that is not empty, or None, got {system!r}"
        raise InputError(msg)


def _check_read(read: GenerateContentConfig, field: str) -> None:
    for name, instead in _ELSEWHERE.items():
        if (value := getattr(read, name, None)) is not None:
            msg = f"{field} must not hold {name!r}, got {value!r}: {instead}"
            raise InputError(msg)
    for tool in read.tools or ():
        if callable(tool):
            msg = f"{field}['tools'] must be declarations, got the function {tool!r}: functions are not called here"
            raise InputError(msg)
    for name, high in (("temperature", 2), ("top_p", 1)):
        if (value := getattr(read, name)) is not None:
            check(f"{field}[{name!r}]", value, low=0, high=high)
    if read.max_output_tokens is not None:
        check_count(f"{field}['max_output_tokens']", read.max_output_tokens, low=1)
    if read.candidate_count not in (None, 1):
        msg = (
            f"{field}['candidate_count'] must be 1, got {read.candidate_count!r}: pass samples= for several"
            " answers of each prompt"
        )
        raise InputError(msg)
    if read.response_modalities:
        _check_modalities(read.response_modalities)


def _check_modalities(modalities: Any) -> tuple[str, ...]:
    given = [modalities] if isinstance(modalities, str) else modalities
    if isinstance(given, Iterable):
        given = list(given)
    if not isinstance(given, list) or any(each not in ("TEXT", "IMAGE") for each in given):
        msg = f"modalities must be some of 'TEXT' and 'IMAGE', got {modalities!r}"
        raise InputError(msg)
    return tuple(given)


def _unknown(error: Any, field: str, kind: type[GenerateContentConfig]) -> InputError:
    *above, name = error["loc"]
    where = field + "".join(f"[{step!r}]" for step in above)
    if error["type"] != "extra_forbidden":
        return InputError(f"{where}[{name!r}] is invalid, got {error['input']!r}: {error['msg']}")
    near = [] if above else difflib.get_close_matches(str(name), kind.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "google-genai's GenerateContentConfig lists what it takes"
    return InputError(f"{where} must not hold {name!r}, which the service does not know: {hint}")


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
    """A schema of answers; made with `Schema.of`.

    Attributes:
        sent: The fields that it adds to the generation config.
    """

    sent: dict[str, Any]
    _check: Callable[[str], Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, value: Any) -> Schema:
        """Return ``value`` as a schema.

        Args:
            value: A pydantic class (or another type that pydantic validates, such as ``list[Class]``), or a dict.

        Raises:
            InputError: ``value`` is no valid schema; the message says where.
            MissingExtra: google-genai or jsonschema is not installed.
        """
        if isinstance(value, Schema):
            return value
        if not isinstance(value, dict):
            return _of_type(value)
        if _is_gemini(value):
            return _of_gemini(value)
        return Schema({"responseMimeType": "application/json", "responseJsonSchema": value}, _checker(value))

    def parse(self, text: str) -> Any:
        """Return the validated data of an answer, which may be fenced as ```json.

        Raises:
            Permanent: The answer is no JSON, or does not match the schema; the message says where.
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

    return Schema({"responseMimeType": "application/json", "responseJsonSchema": meant}, check)


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


def _is_gemini(value: Any) -> bool:
    """Say whether ``value`` names a type in Gemini's own form."""
    if isinstance(value, list):
        return any(map(_is_gemini, value))
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    return (isinstance(kind, str) and kind in _TYPES) or any(map(_is_gemini, value.values()))


def _meant(sent: dict[str, Any]) -> dict[str, Any]:
    """Translate a schema of Gemini's own form into JSON Schema."""
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
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012
    except ImportError:
        raise MissingExtra("gemini") from None
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        msg = f"schema{_path(error.absolute_path)} must be JSON Schema: {error.message}"
        raise InputError(msg) from None
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    for reference in _references(schema):  # none is fetched from outside the schema
        try:
            resolver.lookup(reference)
        except Unresolvable:
            msg = f"schema must define what it references, got the reference {reference!r}: put it under $defs"
            raise InputError(msg) from None
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


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
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
