"""Contents: texts, images and earlier turns, as the service takes them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from ipybatch.errors import InputError, MissingExtra
from ipybatch.gemini.images import MAX_BYTES, Image

Part: TypeAlias = str | Image | dict[str, Any]

_ROLES = ("user", "model")


class Turn(msgspec.Struct, frozen=True):
    """What was said before, by whom.

    Attributes:
        role: "user" or "model".
        parts: Texts, images, and other parts as the service's JSON.
    """

    role: str
    parts: tuple[Part, ...]


def read_contents(value: Any, field: str) -> tuple[Turn, ...]:
    """Return contents as the client takes them (a text, a part, a list of parts or of turns) as turns.

    Raises:
        InputError: Something in it is none of these; says where.
    """
    value = _plain(value)
    listed = list(value) if isinstance(value, list | tuple) else [value]
    items = [_plain(item) for item in listed]
    if not any(isinstance(item, Mapping) and "parts" in item for item in items):
        return (Turn("user", _parts(items, field)),)
    turns = tuple(_turn(item, f"{field}[{number}]") for number, item in enumerate(items))
    if turns[-1].role != "user":
        msg = f"{field} must end with a turn of 'user', got {turns[-1].role!r}: the model answers the last turn"
        raise InputError(msg)
    return turns


def read_images(value: Any, field: str) -> tuple[Image, ...]:
    """Return one image or a list of them.

    Raises:
        InputError: One is no image; says which, and why.
    """
    if not isinstance(value, list | tuple):
        return (Image.of(value, field),)
    return tuple(Image.of(each, f"{field}[{number}]") for number, each in enumerate(value))


def check_parts(parts: tuple[Part, ...], where: str) -> None:
    """Refuse parts that say nothing, or whose images do not fit a request.

    Raises:
        InputError: Names the item.
    """
    if not any(part.strip() if isinstance(part, str) else part for part in parts):
        msg = f"{where} must have a text that is not empty, or an image, got {parts!r}"
        raise InputError(msg)
    for part in parts:
        if isinstance(part, str) and not part.isascii():
            _check_text(part, where)
    size = sum(part.size for part in parts if isinstance(part, Image))
    if size > MAX_BYTES:
        msg = f"{where} must have at most {MAX_BYTES:,} bytes of images, got {size:,}: make them smaller or fewer"
        raise InputError(msg)


def to_wire(turn: Turn) -> dict[str, Any]:
    """Return a turn as the service's JSON; reads its images."""
    return {"role": turn.role, "parts": [_part_to_wire(part) for part in turn.parts]}


def _part_to_wire(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if isinstance(part, Image):
        return {"inlineData": {"mimeType": part.mime_type, "data": base64.b64encode(part.read()).decode()}}
    return part


def to_client(turn: Turn) -> Any:
    """Return a turn in the client's types; reads its images."""
    from google.genai import types

    return types.Content(role=turn.role, parts=[_part_to_client(part) for part in turn.parts])


def _part_to_client(part: Part) -> Any:
    from google.genai import types

    if isinstance(part, str):
        return types.Part(text=part)
    if isinstance(part, Image):
        return types.Part.from_bytes(data=part.read(), mime_type=part.mime_type)
    return types.Part.model_validate_json(msgspec.json.encode(part))  # as JSON: there its bytes are base64


def _turn(item: Any, field: str) -> Turn:
    if isinstance(item, str):
        return Turn("user", (item,))
    if not isinstance(item, Mapping) or not isinstance(item.get("parts"), list | tuple | str):
        msg = f"{field} must be a turn such as {{'role': 'user', 'parts': ['Hello']}}, got {_short(item)}"
        raise InputError(msg)
    role = item.get("role") or "user"
    if role not in _ROLES or not set(item) <= {"role", "parts"}:
        msg = f"{field} must have 'parts' and a 'role' of 'user' or 'model', got {_short(item)}"
        raise InputError(msg)
    parts = item["parts"]
    return Turn(role, _parts([parts] if isinstance(parts, str) else parts, f"{field}['parts']"))


def _parts(items: Any, field: str) -> tuple[Part, ...]:
    if not items:
        msg = f"{field} must have at least one part, got none"
        raise InputError(msg)
    return tuple(_part(_plain(item), f"{field}[{number}]") for number, item in enumerate(items))


def _part(item: Any, field: str) -> Part:
    if isinstance(item, str | Image):
        return item
    if not isinstance(item, Mapping):
        msg = f"{field} must be a text, an Image or a part such as {{'text': ...}}, got {_short(item)}"
        raise InputError(msg)
    if set(item) == {"text"} and isinstance(item["text"], str):
        return str(item["text"])
    blob = item.get("inlineData", item.get("inline_data"))
    if len(item) == 1 and isinstance(blob, Mapping):
        data = _blob_data(blob.get("data"), field)
        mime_type = blob.get("mimeType", blob.get("mime_type"))
        if isinstance(mime_type, str) and mime_type.startswith("image/"):
            return Image.of(data, field)
        item = {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode()}}
    return _checked(item, field)


def _blob_data(data: Any, field: str) -> bytes:
    try:  # the client's own base64 is the one for addresses
        return (
            data
            if isinstance(data, bytes)
            else base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
        )
    except (binascii.Error, ValueError, AttributeError):
        msg = f"{field} must have base64 or bytes as the data of its inlineData, got {_short(data)}"
        raise InputError(msg) from None


def _checked(item: Mapping[str, Any], field: str) -> dict[str, Any]:
    try:
        import pydantic
        from google.genai import types
    except ImportError:
        raise MissingExtra("gemini") from None
    try:
        read = types.Part.model_validate_json(msgspec.json.encode(dict(item)))
    except (pydantic.ValidationError, TypeError) as error:
        first = error.errors(include_url=False)[0]["msg"] if isinstance(error, pydantic.ValidationError) else error
        msg = f"{field} must be a part of Gemini's Content, got {_short(item)}: {first}"
        raise InputError(msg) from None
    sent: dict[str, Any] = read.model_dump(mode="json", by_alias=True, exclude_none=True)
    return sent


def _plain(value: Any) -> Any:
    """Return one of the client's types (`types.Content`, `types.Part`) as its JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return value


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = f"{where} must be valid Unicode, got half a character at position {error.start}: read it again as UTF-8"
        raise InputError(msg) from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
