"""Sending: what goes with every prompt, checked once by the client's own types.

One form serves all lanes: the generation config as the service's JSON.  A batch
carries it as it is; online it is read back into the client's types, which send
the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ipybatch.engine.data.policy import check, check_count
from ipybatch.errors import InputError, MissingExtra
from ipybatch.gemini.schema import Schema

if TYPE_CHECKING:
    from google.genai.types import GenerateContentConfig

_LANES = ("online", "flex", "batch")
_MODALITIES = ("TEXT", "IMAGE")

# What the service takes beside the generation config, not in it.
_BESIDE = ("safetySettings", "tools", "toolConfig", "cachedContent", "labels", "store", "serviceTier")

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


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent with every prompt.

    Attributes:
        system: The system instruction.
        config: The generation config; given in the words of google-genai's `GenerateContentConfig`, kept as the
            service's JSON.
        schema: What answers must fit; see `Schema.of`.
        modalities: What answers may hold: "TEXT", "IMAGE"; () for what the model does by itself.
        lane: "online", "flex" or "batch".

    Raises:
        InputError: A field is not what it must be; names it.
    """

    system: str | None = None
    config: dict[str, Any] = {}
    schema: Schema | None = None
    modalities: tuple[str, ...] = ()
    lane: str = "online"

    def __post_init__(self) -> None:
        check_system(self.system, "system")
        if self.lane not in _LANES:
            msg = f"lane must be one of {', '.join(map(repr, _LANES))}, got {self.lane!r}"
            raise InputError(msg)
        set_ = msgspec.structs.force_setattr
        set_(self, "modalities", _check_modalities(self.modalities))
        set_(self, "schema", None if self.schema is None else Schema.of(self.schema))
        set_(self, "config", check_config(self.config, "config"))

    def settings(self) -> dict[str, Any]:
        """Return what a change of makes every item run again, as JSON holds it; the lane does not."""
        return {"system": self.system, "config": self._config({})}

    def wants_image(self, config: Mapping[str, Any]) -> bool:
        """Tell whether a prompt with this config of its own asks for an image."""
        return "IMAGE" in self._config(config).get("responseModalities", ())

    def wire(self, contents: list[dict[str, Any]], system: str | None, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request as the service's JSON.

        Args:
            contents: The prompt's, as the service's JSON.
            system: Its own system instruction, in place of that of all.
            config: Its own generation config, over that of all.
        """
        sent = self._config(config)
        system = self.system if system is None else system
        told = {"systemInstruction": {"parts": [{"text": system}], "role": "user"}} if system else {}
        beside = {name: sent.pop(name) for name in _BESIDE if name in sent}
        tier = {"serviceTier": "flex"} if self.lane == "flex" else {}
        generation = {"generationConfig": sent} if sent else {}
        return {"contents": contents, **told, **beside, **tier, **generation}

    def arguments(self, system: str | None, config: Mapping[str, Any]) -> GenerateContentConfig:
        """Return the ``config`` of the client's generate_content that sends what `wire` does, in one request."""
        from google.genai import types

        told = {
            **self._config(config),
            "systemInstruction": (self.system if system is None else system) or None,
            "serviceTier": "flex" if self.lane == "flex" else None,
            "automaticContinuation": False,
            "automaticFunctionCalling": {"disable": True},
        }
        return types.GenerateContentConfig.model_validate(told)

    def _config(self, own: Mapping[str, Any]) -> dict[str, Any]:
        modalities = {"responseModalities": list(self.modalities)} if self.modalities else {}
        return {**modalities, **self.config, **(self.schema.sent if self.schema else {}), **own}


def check_config(config: Any, field: str) -> dict[str, Any]:
    """Return a generation config as the service's JSON.

    Raises:
        InputError: The client does not know a field, or does not take its value; names it.
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
        msg = f"{field} must be what JSON can hold: {str(error).splitlines()[0]}"
        raise InputError(msg) from None
    if (cached := sent.get("cachedContent")) and not cached.startswith("cachedContents/"):
        sent["cachedContent"] = f"cachedContents/{cached}"  # as the client has it
    return sent


def check_system(system: Any, field: str) -> None:
    """Refuse a system instruction that is no text.

    Raises:
        InputError: Names ``field``.
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
        msg = f"{field}['candidate_count'] must be 1, got {read.candidate_count!r}: list a prompt several times instead"
        raise InputError(msg)
    if read.response_modalities:
        _check_modalities(read.response_modalities)


def _check_modalities(modalities: Any) -> tuple[str, ...]:
    given = [modalities] if isinstance(modalities, str) else modalities
    if not isinstance(given, list | tuple) or any(each not in _MODALITIES for each in given):
        msg = f"modalities must be some of 'TEXT' and 'IMAGE', got {modalities!r}"
        raise InputError(msg)
    return tuple(given)


def _unknown(error: Any, field: str, kind: type[GenerateContentConfig]) -> InputError:
    *above, name = error["loc"]
    where = field + "".join(f"[{step!r}]" for step in above)
    if error["type"] != "extra_forbidden":
        return InputError(f"{where}[{name!r}] is not what it must be, got {error['input']!r}: {error['msg']}")
    near = [] if above else difflib.get_close_matches(str(name), kind.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "google-genai's GenerateContentConfig lists what it takes"
    return InputError(f"{where} must not hold {name!r}, which the service does not know: {hint}")
