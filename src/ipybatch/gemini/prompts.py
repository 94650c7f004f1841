"""Prompts: the items of a session, read from the forms that users write, and their requests.

"Name a star"                                   a text; also the item's key
{"id": 7, "prompt": "...", "image": "a.png"}    one request, field by field
a frame or dicts with template="About {name}"   one request per row
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from ipybatch.engine.data.items import plain
from ipybatch.errors import InputError, MissingExtra
from ipybatch.gemini.images import MAX_BYTES, Image
from ipybatch.gemini.service.request_config import RequestConfig, check_config, check_system
from ipybatch.gemini.template import Template, is_missing

_TEXTS = ("prompt", "text", "contents")
_FIELDS = ("id", "key", *_TEXTS, "image", "images", "system", "config", "operation", "project")

# The fields of a generation config that users are likely to give outside of one.
IN_CONFIG = ("temperature", "top_p", "top_k", "seed", "max_output_tokens", "stop_sequences", "thinking_config")
_SETTINGS = {  # fields that others may mean as settings of their row; a template makes data of them
    **{name: f"put it into the field 'config', such as {{'config': {{{name!r}: ...}}}}" for name in IN_CONFIG},
    "model": "make a session for each model, with model=",
    "candidate_count": "pass samples= for several answers of each prompt",
    "system_instruction": "call it 'system'",
}

Part: TypeAlias = str | Image | dict[str, Any]


class Turn(msgspec.Struct, frozen=True):
    """A turn of a conversation.

    Attributes:
        role: "user" or "model".
        parts: Texts, images, and other parts as the service's JSON.
    """

    role: str
    parts: tuple[Part, ...]


class Prompt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The request of one item.

    Its JSON holds everything that is sent for it, images as their hash: when that changes, the item runs again.

    Attributes:
        id: The item's key.
        parts: Texts, images, and other parts as the service's JSON, in order.
        turns: Earlier turns of the conversation.
        system: The item's own system instruction; None: the common one.
        config: The item's own generation config, as the service's JSON; overrides fields of the common one.
        operation: Label in the usage table: the kind of work.
        project: Label in the usage table: the project.
    """

    id: str | int
    parts: tuple[Part, ...]
    turns: tuple[Turn, ...] = ()
    system: str | None = None
    config: dict[str, Any] = {}
    operation: str = "text"
    project: str = ""

    @property
    def _ipybatch_sent_(self) -> dict[str, Any]:
        """The fields of which a change makes the item run again: all but the labels."""
        return {"parts": self.parts, "turns": self.turns, "system": self.system, "config": self.config}

    @property
    def text(self) -> str:
        """All text of the prompt, earlier turns first."""
        return "\n".join([part for part in self.all_parts() if isinstance(part, str)])

    @property
    def images(self) -> tuple[Image, ...]:
        """All images of the prompt, earlier turns first."""
        return tuple([part for part in self.all_parts() if isinstance(part, Image)])

    def wire(self, settings: RequestConfig) -> dict[str, Any]:
        """Return the request as the service's JSON, with the content of the images.

        Raises:
            Permanent: An image is gone or was changed.
        """
        return settings.wire(self._contents(), self.system, self.config)

    def body(self, settings: RequestConfig) -> bytes:
        """Return the request as the bytes that are sent online: the JSON of `wire`.

        Raises:
            Permanent: An image is gone or was changed.
        """
        return settings.body(self._contents(), self.system, self.config)

    def all_turns(self) -> tuple[Turn, ...]:
        """Return the earlier turns and the prompt itself."""
        return (*self.turns, Turn("user", self.parts))

    def _contents(self) -> list[dict[str, Any]]:
        return [{"role": turn.role, "parts": list(map(_part_to_wire, turn.parts))} for turn in self.all_turns()]

    def all_parts(self) -> Sequence[Part]:
        """Return the parts of all turns, those of the prompt itself last."""
        return [part for turn in self.all_turns() for part in turn.parts] if self.turns else self.parts


def to_prompts(
    prompts: Iterable[Any],
    *,
    template: str | None = None,
    key: str | Callable[[Any], Any] | None = None,
    operation: str = "text",
    project: str = "",
) -> list[Prompt]:
    """Return a `Prompt` for each item.

    Args:
        prompts: Texts, dicts, or both; a Series of them; or a frame.  Fields of a dict, and columns of a frame:
            ``prompt`` (or ``text``, or ``contents`` in a form that Google's client accepts), ``image`` or ``images``,
            ``system``, ``config``, ``id`` (or ``key``), ``operation`` and ``project``.
        template: A text with columns in braces, which replaces ``prompt``; other columns are ignored.
        key: The field that holds the key, or a function of the item.  Default: its ``id`` or ``key``, else the index
            of a frame or Series if it is unique, else the text, the names of the images, and a hash of what else is
            sent for this item alone (earlier turns, other parts, its own system instruction and config).
        operation: Default for items without this field.
        project: Default for items without this field.

    Raises:
        InputError: An item is no valid prompt; the message names its number, the field and the value.
    """
    return read_prompts(prompts, template=template, key=key, operation=operation, project=project).prompts


class PromptList(msgspec.Struct, frozen=True):
    """Prompts, and what the user gave for them.

    Attributes:
        given: One for each prompt; a row of a frame as a dict of plain values.
        index: That of the frame or the Series; None for a list.
    """

    prompts: list[Prompt]
    given: list[Any]
    index: Any = None


def with_samples(read: PromptList, samples: int) -> PromptList:
    """Return each prompt several times: the first with its own key, the others with ``#2``, ``#3``, ... after it.

    So what was answered once is not asked again when more samples are wanted.
    """
    if samples == 1:
        return read
    numbers = range(1, samples + 1)
    prompts = [
        prompt if number == 1 else msgspec.structs.replace(prompt, id=f"{prompt.id}#{number}")
        for prompt in read.prompts
        for number in numbers
    ]
    rows = [row if isinstance(row, Mapping) else {"prompt": row} for row in read.given]
    given = [{**row, "sample": row.get("sample", number)} for row in rows for number in numbers]
    return PromptList(prompts, given, None if read.index is None else read.index.repeat(samples))


def read_prompts(
    prompts: Any, *, template: str | None, key: str | Callable[[Any], Any] | None, operation: str, project: str
) -> PromptList:
    """Read prompts in any form that `to_prompts` takes.

    Raises:
        InputError: As `to_prompts`.
    """
    reader = _Reader(None if template is None else Template.of(template), key, operation, project)
    for field in ("operation", "project"):
        _check_label(getattr(reader, field), field)
    if hasattr(prompts, "columns") and hasattr(prompts, "itertuples"):
        return _read_frame(prompts, reader)
    if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
        msg = f"prompts must be a list of prompts or a frame, got {_short(prompts)}: pass it in a list"
        raise InputError(msg)
    given, index = list(prompts), getattr(prompts, "index", None)
    if hasattr(index, "is_unique"):  # a Series
        pairs = enumerate(zip(given, _names_of(index), strict=True))
        read = [reader.read(item, f"prompts[{number}]", index=name) for number, (item, name) in pairs]
        return PromptList(read, given, index)
    return PromptList([reader.read(item, f"prompts[{number}]") for number, item in enumerate(given)], given)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Read items, all with the same options."""

    template: Template | None
    key: str | Callable[[Any], Any] | None
    operation: str
    project: str

    def read(self, item: Any, where: str, *, index: Any = None, is_row: bool = False) -> Prompt:
        """Return one item as a prompt; a row of a frame may have further columns, and empty cells."""
        if isinstance(item, Prompt):
            return item
        fields = self._fields(item, where)
        if is_row:
            fields = {name: value for name, value in fields.items() if name in _TEXTS or not is_missing(value)}
        elif self.template is None:
            for name in fields:
                self.check_no_setting(name, where)
                if name not in _FIELDS:
                    allowed = f"it may have {', '.join(_FIELDS)}; for others pass template="
                    msg = f"{where} has the unknown field {name!r}: {allowed}"
                    raise InputError(msg)
        turns = self._turns(item, fields, where)
        parts = (*_images(fields, where), *turns[-1].parts)
        check_parts(parts, where)
        system = fields.get("system")
        check_system(system, f"{where}['system']")
        own = {name: fields.get(name, getattr(self, name)) for name in ("operation", "project")}
        for name, value in own.items():
            _check_label(value, f"{where}[{name!r}]")
        given = self._id(item, fields, where, index)
        prompt = Prompt(
            id="" if given is None else given,
            parts=parts,
            turns=turns[:-1],
            system=system,
            config=check_config(fields.get("config") or {}, f"{where}['config']"),
            **own,
        )
        return prompt if given is not None else msgspec.structs.replace(prompt, id=_name_of(prompt))

    def check_no_setting(self, name: Any, where: str) -> None:
        """Refuse a field that looks as if it set something for its row, and would be ignored.

        Raises:
            InputError: Says where such a setting goes.
        """
        is_data = self.key == name or (self.template is not None and name in self.template.columns)
        if not is_data and isinstance(name, str) and (instead := _SETTINGS.get(name)):
            msg = f"{where} has the field {name!r}, which is not sent: {instead}, or drop it"
            raise InputError(msg)

    def _fields(self, item: Any, where: str) -> Mapping[str, Any]:
        """Return an item's fields, without the columns that the template uses."""
        if isinstance(item, str):
            return {} if self.template else {"prompt": item}
        if not isinstance(item, Mapping):
            msg = f"{where} must be a text or a dict, got {_short(item)}"
            raise InputError(msg)
        if self.template is None:
            return item
        for name in item:
            self.check_no_setting(name, where)
        taken = {*self.template.columns, *_TEXTS} - {"id", "key"}
        return {name: value for name, value in item.items() if name in _FIELDS and name not in taken}

    def _turns(self, item: Any, fields: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
        if self.template is not None:
            row = dict.fromkeys(self.template.columns[:1], item) if isinstance(item, str) else item
            return (Turn("user", (self.template.fill(row, where),)),)
        given = [name for name in _TEXTS if name in fields]
        if len(given) > 1:
            msg = f"{where} must have one of 'prompt', 'text' and 'contents', got {' and '.join(map(repr, given))}"
            raise InputError(msg)
        if not given:
            if "image" in fields or "images" in fields:
                return (Turn("user", ()),)
            msg = f"{where} must have a 'prompt', got {_short(dict(fields))}: add it, or pass template="
            raise InputError(msg)
        name, value = given[0], fields[given[0]]
        if name == "contents" and not is_missing(value):
            return read_contents(value, f"{where}['contents']")
        if not isinstance(value, str) or not value.strip():
            field = where if isinstance(item, str) else f"{where}[{name!r}]"
            msg = f"{field} must be a text that is not empty, got {_short(value)}: fill it or drop the item"
            raise InputError(msg)
        return (Turn("user", (value,)),)

    def _id(self, item: Any, fields: Mapping[str, Any], where: str, index: Any) -> str | int | None:
        """Return the key that an item was given; None for none."""
        if callable(self.key):
            return _check_id(self.key(item), f"key of {where}")
        if self.key is not None:
            if not isinstance(item, Mapping) or self.key not in item:
                msg = f"{where} has no {self.key!r}, which key= names: add it, or pass another key="
                raise InputError(msg)
            return _check_id(item[self.key], f"{where}[{self.key!r}]")
        for name in ("id", "key"):
            if name in fields:
                return _check_id(fields[name], f"{where}[{name!r}]")
        if index is not None:
            return _check_id(index, f"index of {where}")
        return None


def _read_frame(frame: Any, reader: _Reader) -> PromptList:
    columns = list(frame.columns)
    if len(set(map(str, columns))) < len(columns):
        msg = f"prompts must be a frame whose columns differ, got {_short(columns)}: rename one"
        raise InputError(msg)
    for name in columns:
        reader.check_no_setting(name, "prompts")
    rows = [dict(zip(columns, row, strict=True)) for row in frame.itertuples(index=False, name=None)]
    pairs = enumerate(zip(rows, _names_of(frame.index), strict=True))
    read = [reader.read(row, f"prompts[{number}]", index=name, is_row=True) for number, (row, name) in pairs]
    return PromptList(read, [{str(name): plain(row[name]) for name in columns} for row in rows], frame.index)


def _names_of(index: Any) -> list[str | int | None]:
    """Return the keys that the index of a frame gives its rows; None for each where they are not unique."""
    if not index.is_unique:
        return [None] * len(index)
    return [name if isinstance(name, int | str) else str(name) for name in index.tolist()]


def _name_of(prompt: Prompt) -> str:
    """Return the key of a prompt that was given none: its text, its images by name, and a hash of all else of it.

    So that prompts share a key only where the same is sent; what is sent with all of a session is not in it.
    """
    texts = [part for part in prompt.parts if isinstance(part, str)]
    images = [part for part in prompt.parts if isinstance(part, Image)]
    beside: dict[str, Any] = {
        "turns": prompt.turns,
        "system": prompt.system,
        "config": prompt.config,
        "parts": () if prompt.parts == (*images, *texts[:1]) else prompt.parts,
    }
    lines = [*texts, *(f"[{image.label}]" for image in images)]
    if any(beside.values()):
        words = ", ".join(name for name, value in beside.items() if value)
        sent = msgspec.json.Encoder(order="deterministic").encode(beside)
        lines.append(f"[{words} {hashlib.blake2b(sent, digest_size=6).hexdigest()}]")
    return "\n".join(lines)


def _images(fields: Mapping[str, Any], where: str) -> list[Image]:
    images: list[Image] = []
    for name in [name for name in ("image", "images") if name in fields]:
        value, field = fields[name], f"{where}[{name!r}]"
        if isinstance(value, list | tuple):
            images += [Image.of(each, f"{field}[{number}]") for number, each in enumerate(value)]
        else:
            images.append(Image.of(value, field))
    return images


def _check_id(value: Any, field: str) -> str | int:
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()  # numpy's numbers
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # whole numbers of a column that had gaps
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        msg = f"{field} must be a text or a whole number, got {_short(value)}: every item needs a key of its own"
        raise InputError(msg)
    return value


def _check_label(value: Any, field: str) -> None:
    if not isinstance(value, str) or len(value) > 200:
        msg = f"{field} must be a text of at most 200 characters, got {_short(value)}"
        raise InputError(msg)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_contents(value: Any, field: str) -> tuple[Turn, ...]:
    """Read contents in a form that Google's client accepts: a text, a part, a list of parts or of turns.

    Raises:
        InputError: A value in ``value`` is none of these; the message says where.
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


def check_parts(parts: tuple[Part, ...], where: str) -> None:
    """Check that parts are not empty, and that their images fit into a request.

    Raises:
        InputError: They are empty or too large; the message names the item.
    """
    if not any(part.strip() if isinstance(part, str) else part for part in parts):
        msg = f"{where} must have a text that is not empty, or an image, got {parts!r}"
        raise InputError(msg)
    for text in [part for part in parts if isinstance(part, str)]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            at = error.start
            msg = f"{where} must be valid Unicode, got half a character at position {at}: read it again as UTF-8"
            raise InputError(msg) from None
    size = sum(part.size for part in parts if isinstance(part, Image))
    if size > MAX_BYTES:
        msg = f"{where} must have at most {MAX_BYTES:,} bytes of images, got {size:,}: make them smaller or fewer"
        raise InputError(msg)


def _part_to_wire(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if isinstance(part, Image):
        return {"inlineData": {"mimeType": part.mime_type, "data": base64.b64encode(part.read()).decode()}}
    return part


def _turn(item: Any, field: str) -> Turn:
    if isinstance(item, str):
        return Turn("user", (item,))
    if not isinstance(item, Mapping) or not isinstance(item.get("parts"), list | tuple | str):
        msg = f"{field} must be a turn such as {{'role': 'user', 'parts': ['Hello']}}, got {_short(item)}"
        raise InputError(msg)
    role = item.get("role") or "user"
    if role not in ("user", "model") or not set(item) <= {"role", "parts"}:
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
    if isinstance(data, bytes):
        return data
    try:  # the client writes the URL-safe alphabet of base64
        return base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
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
    """Return a value of the client's types (`types.Content`, `types.Part`) as JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return value
