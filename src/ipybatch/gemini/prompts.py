"""Prompts: what a user writes, as what is sent for each item.

"Name a star"                                   its own key
{"id": 7, "prompt": "...", "image": "a.png"}    one request, field by field
a frame or dicts with template="About {name}"   one request a row
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ipybatch.errors import InputError
from ipybatch.gemini.contents import Part, Turn, check_parts, read_contents, read_images, to_client, to_wire
from ipybatch.gemini.images import Image
from ipybatch.gemini.sending import Sending, check_config, check_system
from ipybatch.gemini.template import Template, is_missing

__all__ = ["Prompt", "Sending", "to_prompts"]

_TEXTS = ("prompt", "text", "contents")
_FIELDS = ("id", "key", *_TEXTS, "image", "images", "system", "config", "operation", "project")


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent for one item.

    As JSON it holds all that is sent for it, images by their hash: when that changes, the item runs again.

    Attributes:
        id: The item's key.
        parts: Texts, images, and other parts as the service's JSON, in order.
        turns: What was said before.
        system: Its own system instruction; None for that of all.
        config: Its own generation config, over that of all; the service's JSON.
        operation: What it is for, in the usage table.
        project: Whom it is for, in the usage table.
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
        """What a change of makes it run again: all of it but the labels."""
        return {"parts": self.parts, "turns": self.turns, "system": self.system, "config": self.config}

    @property
    def text(self) -> str:
        """All its text, that of earlier turns first."""
        return "\n".join([part for part in self._all_parts() if isinstance(part, str)])

    @property
    def images(self) -> tuple[Image, ...]:
        """All its images, those of earlier turns first."""
        return tuple(part for part in self._all_parts() if isinstance(part, Image))

    def wire(self, settings: Sending) -> dict[str, Any]:
        """Return the request as the service's JSON: a line of a batch.  Reads its images.

        Raises:
            Permanent: An image is no longer what it was.
        """
        return settings.wire([to_wire(turn) for turn in self._all_turns()], self.system, self.config)

    def arguments(self, settings: Sending) -> dict[str, Any]:
        """Return ``contents`` and ``config`` for the client's generate_content.  Reads its images.

        Raises:
            Permanent: An image is no longer what it was.
        """
        contents = [to_client(turn) for turn in self._all_turns()]
        return {"contents": contents, "config": settings.arguments(self.system, self.config)}

    def _all_turns(self) -> tuple[Turn, ...]:
        return (*self.turns, Turn("user", self.parts))

    def _all_parts(self) -> Iterator[Part]:
        for turn in self._all_turns():
            yield from turn.parts


def to_prompts(
    prompts: Iterable[Any],
    *,
    template: str | None = None,
    key: str | Callable[[Any], Any] | None = None,
    operation: str = "text",
    project: str = "",
) -> list[Prompt]:
    """Return what is sent for each item.

    Args:
        prompts: Texts, dicts, or both; or a frame.  Fields of a dict, and columns of a frame: ``prompt`` (or ``text``,
            or ``contents`` as the client takes them), ``image`` or ``images``, ``system``, ``config``, ``id`` (or
            ``key``), ``operation`` and ``project``.
        template: A text with columns in braces, in place of ``prompt``; all other columns are left alone.
        key: The field that holds the key, or a function of the item.  Default: its ``id`` or ``key``, else the index
            of a frame where it is unique, else the text (and the names of the images).
        operation: For items that name none.
        project: For items that name none.

    Raises:
        InputError: An item is no prompt; names its number, the field and the value.
    """
    reader = _Reader(None if template is None else Template.of(template), key, operation, project)
    for field in ("operation", "project"):
        _check_label(getattr(reader, field), field)
    if hasattr(prompts, "columns") and hasattr(prompts, "itertuples"):
        return list(_read_frame(prompts, reader))
    if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
        msg = f"prompts must be a list of prompts or a frame, got {_short(prompts)}: pass it in a list"
        raise InputError(msg)
    return [reader.read(item, f"prompts[{number}]") for number, item in enumerate(prompts)]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Read items, one way for all."""

    template: Template | None
    key: str | Callable[[Any], Any] | None
    operation: str
    project: str

    def read(self, item: Any, where: str, *, index: Any = None, is_row: bool = False) -> Prompt:
        """Return one item as a prompt; a row of a frame may have more columns, and empty cells."""
        if isinstance(item, Prompt):
            return item
        fields = self._fields(item, where)
        if is_row:
            fields = {name: value for name, value in fields.items() if name in _TEXTS or not is_missing(value)}
        elif self.template is None:
            _check_known(fields, where)
        turns = self._turns(item, fields, where)
        parts = (*_images(fields, where), *turns[-1].parts)
        check_parts(parts, where)
        system = fields.get("system")
        check_system(system, f"{where}['system']")
        own = {name: fields.get(name, getattr(self, name)) for name in ("operation", "project")}
        for name, value in own.items():
            _check_label(value, f"{where}[{name!r}]")
        return Prompt(
            id=self._id(item, fields, where, index, parts),
            parts=parts,
            turns=turns[:-1],
            system=system,
            config=check_config(fields.get("config") or {}, f"{where}['config']"),
            **own,
        )

    def _fields(self, item: Any, where: str) -> Mapping[str, Any]:
        """Return an item as fields; what the template takes as a column is no field."""
        if isinstance(item, str):
            return {} if self.template else {"prompt": item}
        if not isinstance(item, Mapping):
            msg = f"{where} must be a text or a dict, got {_short(item)}"
            raise InputError(msg)
        if self.template is None:
            return item
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

    def _id(self, item: Any, fields: Mapping[str, Any], where: str, index: Any, parts: tuple[Part, ...]) -> str | int:
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
        texts = [part for part in parts if isinstance(part, str)]
        return "\n".join(texts + [f"[{part.label}]" for part in parts if isinstance(part, Image)])


def _read_frame(frame: Any, reader: _Reader) -> Iterator[Prompt]:
    columns = list(frame.columns)
    if len(set(columns)) < len(columns):
        msg = f"prompts must be a frame whose columns differ, got {_short(columns)}: rename one"
        raise InputError(msg)
    indexes = frame.index.tolist() if frame.index.is_unique else [None] * len(frame)
    rows = frame.itertuples(index=False, name=None)
    for number, (index, row) in enumerate(zip(indexes, rows, strict=True)):
        name = index if index is None or isinstance(index, int | str) else str(index)
        yield reader.read(dict(zip(columns, row, strict=True)), f"prompts[{number}]", index=name, is_row=True)


def _images(fields: Mapping[str, Any], where: str) -> tuple[Image, ...]:
    given = [name for name in ("image", "images") if name in fields]
    return tuple(image for name in given for image in read_images(fields[name], f"{where}[{name!r}]"))


def _check_known(fields: Mapping[str, Any], where: str) -> None:
    for name in fields:
        if name not in _FIELDS:
            msg = f"{where} has the unknown field {name!r}: it may have {', '.join(_FIELDS)}; for others pass template="
            raise InputError(msg)


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
