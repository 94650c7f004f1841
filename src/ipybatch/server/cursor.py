"""Cursor: where a page of entries goes on, opaque to its reader.

    a value --`to_cursor`--> `next` of a page --> ?cursor= of the request after it --`from_cursor`--> the value

Rule: a cursor holds a place wherever entries have one that lasts, such as that
of the last one that was told: what comes or goes meanwhile moves nothing.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any

import msgspec

from ipybatch.server.refusal import Refusal

Place = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]  # a number that SQLite can hold, and be added to

_encode = msgspec.json.Encoder().encode


def to_cursor(value: Any) -> str:
    """Return a cursor that holds a value."""
    return base64.urlsafe_b64encode(_encode(value)).decode().rstrip("=")


def from_cursor(text: str, kind: Any) -> Any:
    """Return what a cursor holds.

    Args:
        kind: The type of it.

    Raises:
        Refusal: It is not one of ours.
    """
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, msgspec.MsgspecError):
        raise Refusal(
            422, "cursor must be `next` of another page", field="cursor", value=text, next_step="begin without a cursor"
        ) from None
