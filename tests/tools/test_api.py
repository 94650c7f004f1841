"""How a docstring and a signature look in docs/api.md."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec
import pytest

from tools import api


class Point(msgspec.Struct, kw_only=True):
    """A point.

    Attributes:
        x: Metres to the right; a long line goes on
            here.
    """

    x: float
    tags: list[str] = msgspec.field(default_factory=list)


@dataclasses.dataclass
class Base:
    name: str = ""

    def first(self) -> int:
        """Return the first."""
        return len(self.name)


class Left(Base):
    """The left one."""

    @property
    def size(self) -> int:
        """How big it is."""
        return 1


class Right(Base):
    """The right one."""


@pytest.fixture(scope="module")
def reference() -> str:
    return api.generate()


def test_docstring_in_googles_style_becomes_markdown() -> None:
    docstring = (
        "Do it.\n\nSee ``x`` and <y>::\n\n    a -> b\n\nArgs:\n    x: One,\n        and more.\n    y: Two.\n\n"
        "Returns:\n    A thing.\n\nRaises:\n    InputError: It is <bad>.\n\nSource: https://example.org (2026-11-22)."
    )
    assert api.markdown_of(docstring) == (
        "Do it.\n\nSee `x` and \\<y>:\n\n```text\n    a -> b\n```\n\n**Args**:\n\n- `x`: One, and more.\n- `y`: Two."
        "\n\n**Returns**: A thing.\n\n**Raises**:\n\n- `InputError`: It is \\<bad>.\n\n"
        "**Source**: https://example.org (2026-11-22)."
    )


def test_a_colon_in_a_further_line_begins_no_entry() -> None:
    assert api.section_of("Args", "", "x: More than a fifth are not there\n    any more: ask.\ny: Two.") == (
        "**Args**:\n\n- `x`: More than a fifth are not there any more: ask.\n- `y`: Two."
    )


def test_example_is_code() -> None:
    assert api.markdown_of("Do it.\n\nExample:\n    >>> 1 + 1\n    2") == (
        "Do it.\n\n**Example**:\n\n```python\n>>> 1 + 1\n2\n```"
    )


def test_columns_are_kept_as_they_stand() -> None:
    """Markdown would run them together; two spaces after a full stop are no columns."""
    assert api.text_of("online  at once\nflex    later") == "```text\nonline  at once\nflex    later\n```"
    assert api.text_of("It ends.  It begins.") == "It ends.  It begins."


def test_signature_is_as_in_the_source() -> None:
    def short(a: int, *rest: str, b: float = 1.0, **more: bool) -> None: ...

    assert api.signature_of("short", short) == "short(a: int, *rest: str, b: float = 1.0, **more: bool) -> None"


def test_long_signature_has_a_line_for_each_argument() -> None:
    def long(first_argument: dict[str, int], *, second_argument: str = "ten", third_argument: str = "") -> None: ...

    assert api.signature_of("long", long) == (
        "long(\n    first_argument: dict[str, int],\n    *,\n    second_argument: str = 'ten',\n"
        "    third_argument: str = '',\n) -> None"
    )


def test_default_without_a_form_in_source_is_left_out() -> None:
    def function(key: object = object(), work: object = lambda item: item) -> None: ...

    assert api.signature_of("function", function) == "function(key: object = ..., work: object = ...) -> None"
    assert api.signature_of("Point", Point) == "Point(*, x: float, tags: list[str] = ...)"


def test_members_of_a_private_base_are_told_once() -> None:
    homes: dict[int, str] = {}
    left = "\n\n".join(api.class_of("Left", Left, {Left, Right}, homes))
    right = "\n\n".join(api.class_of("Right", Right, {Left, Right}, homes))
    assert "#### `Left.size`\n\n`int`: How big it is." in left
    assert "#### `Left.first`\n\n```python\nLeft.first() -> int\n```\n\nReturn the first." in left
    assert "Return the first." not in right
    assert right.endswith("As of `Left`: `first`.")


def test_members_of_a_public_base_are_told_there() -> None:
    left = "\n\n".join(api.class_of("Left", Left, {Left, Base}, {}))
    assert "Base: `Base`" in left
    assert "first" not in left


def test_async_and_values() -> None:
    async def wait() -> None:
        """Wait."""

    @contextmanager
    def opened() -> Iterator[None]:
        """Open it."""
        yield

    assert api.function_of("wait", wait, "###").startswith("### `wait`\n\n```python\nasync wait() -> None\n```")
    assert "opened() -> Iterator[None]" in api.function_of("opened", opened, "###")
    assert api.value_of(Literal["a", "b"]) == "One of `'a'`, `'b'`."
    assert api.value_of(("a", 1)) == "```python\n('a', 1)\n```"


def test_reference_is_the_same_each_time(reference: str) -> None:
    assert api.generate() == reference
    assert re.search(r"0x[0-9a-f]{6}", reference) is None, "an address in memory"


def test_reference_tells_every_public_name_once(reference: str) -> None:
    modules = re.split(r"^## `([\w.]+)`$", reference, flags=re.MULTILINE)[1:]
    assert tuple(modules[::2]) == api.PUBLIC
    for path, text in zip(modules[::2], modules[1::2], strict=True):
        names = re.findall(r"^### `(\w+)`$", text, flags=re.MULTILINE)
        assert names == api.importlib.import_module(path).__all__


def test_check_tells_a_stale_file(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(api, "TARGET", tmp_path / "api.md")
    assert api.main(["--check"]) == 1
    assert "make api" in capsys.readouterr().err
    assert api.main([]) == 0
    assert api.main(["--check"]) == 0
