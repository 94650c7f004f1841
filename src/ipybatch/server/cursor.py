"""Cursor: where a page of entries goes on, opaque to its reader.

    a value --`to_cursor`--> `next` of a page --> ?cursor= of the request after it --`from_cursor`--> the value

Rule: a cursor holds a place, such as the last key that was told, never a count
of what came before: entries that come or go meanwhile move nothing.
"""

from __future__ import annotations

import base64
from typing import Any, TypeVar

import msgspec

from ipybatch.server.refusal import Refusal

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


def to_cursor(value: Any) -> str:
    """Return a cursor that holds a value."""
    return base64.urlsafe_b64encode(_encode(value)).decode().rstrip("=")


def from_cursor(text: str, kind: type[T]) -> T:
    """Return what a cursor holds.

    Raises:
        Refusal: It is not one of ours.
    """
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, msgspec.MsgspecError):
        raise Refusal(
            422, "cursor must be `next` of another page", field="cursor", value=text, next_step="begin without a cursor"
        ) from None
