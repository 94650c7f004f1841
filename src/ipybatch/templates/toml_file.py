"""TOML file: a template as people read and edit it, in a file of the user's alone.

    based_on = "text"
    description = "..."
    [params]
    lane = "batch"
    [json]               what TOML cannot hold, as JSON: `breaker = "null"`, or a schema with a null in it

Rule: a file is written whole or not at all, and read with every error told by its line or its key.  Comments are
people's, and are lost when the template is saved anew.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from ipybatch.engine.store.config_folder import config_folder, write_private, writing
from ipybatch.templates.shipped import SHIPPED, find_base, is_shipped
from ipybatch.templates.template import (
    NoSuchTemplate,
    Template,
    WrongField,
    check_name,
    check_template,
    near,
)

SUFFIX = ".toml"
LARGEST_BYTES = 1 << 20
_HEAD = """\
# A template of ipybatch: BatchSession.from_template({name!r}, ...), or "template": "{name}" in a submission.
# What is not said here is as in {base!r}. Keys, tokens and passwords do not belong here: the environment has them.
"""
_JSON = "json"


def folder() -> Path:
    """Return where the user's templates lie; it may not be there yet."""
    return config_folder() / "templates"


def path_of(name: Any) -> Path:
    """Return the file of a user's template, which may not be there yet.

    Raises:
        WrongField: It is no name of one, or that of a template that ships with ipybatch.
    """
    if is_shipped(name):
        msg = f"name must not be {name!r}: this template ships with ipybatch, and stays as it is"
        raise WrongField("name", msg, value=name, next_step="choose another name")
    return folder() / f"{check_name(name)}{SUFFIX}"


def names() -> list[str]:
    """Return the names of the user's templates, in order; a file of another name is none."""
    found = []
    with suppress(OSError):
        for file in folder().iterdir():
            if file.suffix == SUFFIX and not is_shipped(file.stem):
                with suppress(WrongField):
                    found.append(check_name(file.stem))
    return sorted(found, key=lambda name: (name.casefold(), name))


def stamp() -> tuple[tuple[str, int, int], ...]:
    """Return what is another one whenever a template of the user's was written, edited or deleted."""
    found = []
    for name in names():
        with suppress(OSError):
            about = path_of(name).stat()
            found.append((name, about.st_mtime_ns, about.st_size))
    return tuple(found)


def read(name: Any) -> Template:
    """Return a template of the user's.

    Raises:
        NoSuchTemplate: There is none of this name.
        WrongField: The file is not what it must be; names line or key, value and what it may be.
    """
    path = path_of(name)
    return decode(_read_text(path, name), path.name)


def read_all() -> Iterator[tuple[str, Template]]:
    """Give the user's templates by name; the description of one that cannot be used says why, and it has no base."""
    for name in names():
        try:
            yield name, read(name)
        except NoSuchTemplate:  # deleted meanwhile
            continue
        except WrongField as error:
            yield name, Template(based_on="", description=f"cannot be used: {error}")


def changed_s(name: str) -> float:
    """Return when a user's template was changed, Unix time.

    Raises:
        NoSuchTemplate: There is none of this name.
    """
    try:
        return path_of(name).stat().st_mtime
    except OSError:
        raise _unknown(name) from None


def write(name: Any, template: Template) -> Path:
    """Write a template, in the place of the one of this name, and return its file.

    Raises:
        WrongField: The name, or what it holds, is not what it must be.
        OSError: It cannot be written.
    """
    path = path_of(name)
    check_template(template)
    find_base(template.based_on)
    with writing():
        if same := [other for other in names() if other != name and other.casefold() == name.casefold()]:
            msg = f"name must differ from {same[0]!r} by more than case, got {name!r}: some systems take them for one"
            raise WrongField("name", msg, value=name, next_step=f"write {same[0]!r}, or another name")
        _refuse_folder(path)
        write_private(path, encode(name, template))
    return path


def _refuse_folder(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        step = f"move the folder {path} away"
        raise WrongField("file", f"{path.name} must be a file, and is a folder: {step}", next_step=step)


def delete(name: Any) -> None:
    """Delete a template of the user's.

    Raises:
        NoSuchTemplate: There is none of this name.
        WrongField: It ships with ipybatch, or is no file.
        OSError: It cannot be deleted.
    """
    path = path_of(name)
    with writing():
        _refuse_folder(path)
        try:
            path.unlink()
        except FileNotFoundError:
            raise _unknown(name) from None


def encode(name: str, template: Template) -> str:
    """Return the text of a file."""
    empty = Template(based_on="")
    fields = {field: getattr(template, field) for field in template.__struct_fields__}
    told = {field: value for field, value in fields.items() if value != getattr(empty, field)}
    params = told.pop("params", {})
    held = {key: value for key, value in params.items() if not _has_null(value)}
    as_json = {key: _as_json(value) for key, value in params.items() if key not in held}
    if _has_null(told.get("notify", "")):
        as_json["notify"] = _as_json(told.pop("notify"))
    document = {**told, **({"params": held} if held else {}), **({_JSON: as_json} if as_json else {})}
    has_returns = b"\\r" in msgspec.json.encode(document)  # TOML's long texts have line ends of one kind
    return (
        _HEAD.format(name=name, base=template.based_on)
        + "\n"
        + tomli_w.dumps(document, multiline_strings=not has_returns)
    )


def decode(text: str, file: str) -> Template:
    """Return the template that a file holds.

    Args:
        file: The name of the file, for errors.

    Raises:
        WrongField: It is not what it must be; names line or key, value and what it may be.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise WrongField("file", f"{file} must be TOML: {error}") from None
    with telling(file):
        for key in document:
            if key not in (*Template.__struct_fields__, _JSON):
                known = [*Template.__struct_fields__, _JSON]
                what = near(key, known) or f": it has {', '.join(known)}"
                raise WrongField(key, f"a template must not have {key!r}{what}", allowed=known)
        told = _with_json(document)
        if isinstance(told.get("start_at"), dt.date | dt.time):  # TOML has times of its own
            told["start_at"] = told["start_at"].isoformat()
        try:
            template = msgspec.convert(told, Template)
        except msgspec.ValidationError as error:
            raise _wrong_type(error) from None
        check_template(template)
        find_base(template.based_on)
    return template


@contextmanager
def telling(file: str) -> Iterator[None]:
    """Say in which file a field is wrong.

    Raises:
        WrongField: One is.
    """
    try:
        yield
    except WrongField as error:
        told = {"value": error.value, "allowed": error.allowed, "next_step": error.next_step}
        raise WrongField(error.field, f"{file}: {error}", **told) from None


def as_text(at_s: float) -> str:
    """Return a time as ISO 8601 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def _as_json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _with_json(document: dict[str, Any]) -> dict[str, Any]:
    """Return what a file holds, what it holds as JSON among it."""
    told = {key: value for key, value in document.items() if key != _JSON}
    as_json = document.get(_JSON, {})
    if not isinstance(as_json, dict):
        raise WrongField(_JSON, f"{_JSON} must be a table of texts, got {as_json!r}")
    for key, text in as_json.items():
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, TypeError) as error:
            raise WrongField(f"{_JSON}.{key}", f"{_JSON}.{key} must be JSON in a text: {error}", value=text) from None
        home = told if key == "notify" else told.setdefault("params", {})
        if not isinstance(home, dict) or key in home:
            raise WrongField(f"{_JSON}.{key}", f"{_JSON}.{key} must be given once: params has it too")
        home[key] = value
    return told


def _wrong_type(error: msgspec.ValidationError) -> WrongField:
    said, _, where = str(error).partition(" - at ")
    field = where.strip("`").removeprefix("$").lstrip(".")
    if not field:  # what lacks, which the text names
        return WrongField("based_on", f"based_on must be given, such as 'text', or 'session': {said}")
    return WrongField(field, f"{field}: {said}")


def _has_null(value: Any) -> bool:
    match value:
        case None:
            return True
        case dict():
            return any(map(_has_null, value.values()))
        case list():
            return any(map(_has_null, value))
    return False


def _read_text(path: Path, name: str) -> str:
    """Return the text of a file that nobody else can write.

    Raises:
        NoSuchTemplate: It is not there.
        WrongField: Others can write it, or it cannot be read.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise WrongField("file", f"{path.name} must be a file: delete what is there")
            if os.name == "posix" and about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                msg = (
                    f"{path.name} must be writable by you alone, as it may name a function that runs: chmod 600 {path}"
                )
                raise WrongField("file", msg)
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise _unknown(name) from None
    except OSError as error:
        raise WrongField("file", f"{path.name} cannot be read: {error.strerror}") from None
    if len(data) > LARGEST_BYTES:
        raise WrongField("file", f"{path.name} must have at most {LARGEST_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongField("file", f"{path.name} must be UTF-8: {error}") from None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would be waited for


def _unknown(name: str) -> NoSuchTemplate:
    known = [*SHIPPED, *names()]
    msg = f"there is no template {name!r}{near(name, known) or ': there are ' + ', '.join(known)}"
    return NoSuchTemplate("template", msg, value=name, allowed=known)
