"""Parcel: one message as it is handed to whoever sends it, and what they raise when it was not sent."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec

from ipybatch.engine.data.masking import describe
from ipybatch.engine.data.notice import Kind
from ipybatch.engine.feed.session_item import Session
from ipybatch.errors import BatchError


class NotSent(BatchError):
    """A message was not sent; the reason is masked.

    Attributes:
        wait_s: How long the receiver wants to be left alone, seconds; 0 where it did not say.
        reached: Marks of those who have it all the same, where the channel has several receivers.
    """

    def __init__(self, reason: str, wait_s: float = 0.0, reached: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.wait_s, self.reached = wait_s, reached


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent.

    Attributes:
        id: The same whenever this message comes again.
        title: One line, and ``body``: some more.
        at_s: When it became true, Unix.
        session: As the REST API tells it; None where it is on record no more.
        attachment: A file of results; None for none.
        reached: Marks of receivers that have it already.
    """

    id: str
    kind: Kind
    title: str
    body: str
    at_s: float
    session: Session | None = None
    attachment: Path | None = None
    reached: tuple[str, ...] = ()


def reason_of(error: BaseException) -> str:
    """Return why something was not sent, from what was raised; what is to be done where a certificate is the cause."""
    told = describe(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        step = "name its authority in the environment's SSL_CERT_FILE, or give the receiver one that is"
        why = getattr(error, "verify_message", "") or told
        return f"the receiver's certificate is not trusted here ({why}): {step}"
    return told
