"""Parcel: one message as it is handed to whoever sends it, and what they raise when it was not sent."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ipybatch.engine.data.notice import Kind
from ipybatch.engine.feed.session_item import Session
from ipybatch.errors import BatchError


class NotSent(BatchError):
    """A message was not sent; the reason is masked.

    Attributes:
        wait_s: How long the receiver wants to be left alone, seconds; 0 where it did not say.
    """

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent.

    Attributes:
        id: The same whenever this message comes again.
        title: One line, and ``body``: some more.
        at_s: When it became true, Unix.
        session: As the REST API tells it; None where it is on record no more.
        attachment: A file of results; None for none.
    """

    id: str
    kind: Kind
    title: str
    body: str
    at_s: float
    session: Session | None = None
    attachment: Path | None = None
