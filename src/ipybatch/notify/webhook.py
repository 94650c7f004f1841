"""Webhook: a message as signed JSON, to an address of the user's own.

    POST, Content-Type: application/json
    X-Ipybatch-Delivery    the message's id: the same whenever it comes again
    X-Ipybatch-Kind        "finished", "failed" or another kind, or "test"
    X-Ipybatch-Timestamp   when this attempt was sent, Unix seconds
    X-Ipybatch-Signature   sha256=HMAC-SHA256(secret, timestamp + "." + body), hexadecimal

Any answer from 200 to 299 is a receipt.  A redirect is none: the body would go
to an address that nobody has named.  Prior art: the signatures of GitHub's and
Stripe's webhooks; as with the latter, the time is signed too, so that an old
message cannot be sent again by somebody else.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ipybatch.engine.data.notice import Kind
from ipybatch.engine.feed.session_item import Session, iso
from ipybatch.engine.rules.rate_headers import read_headers
from ipybatch.notify.addresses import LOOPBACK, Channel
from ipybatch.notify.parcel import NotSent, Parcel, reason_of

TIMEOUT_S = 15.0
MAX_AGE_S = 300.0


class WebhookBody(msgspec.Struct, kw_only=True):
    """What is sent.

    Attributes:
        id: The same whenever the message comes again.
        at: When it became true, ISO 8601.
        text: One line, and ``details``: what belongs to it.
        session: As GET /sessions/ID tells it; None where it is on record no more.
    """

    id: str
    kind: Kind
    at: str
    text: str
    details: str
    session: Session | None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_open = urllib.request.build_opener(_NoRedirect).open
_open_here = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({})).open  # no proxy leads to itself
_encode = msgspec.json.Encoder().encode


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a body that is sent at a time."""
    return f"sha256={hmac.new(secret.encode(), timestamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, max_age_s: float = MAX_AGE_S) -> bool:
    """Say whether a webhook's request was signed with a secret, and not long ago.

    Args:
        secret: As `add_channel` was told it.
        headers: Of the request, in any case.
        body: Of the request, as it came.
        max_age_s: How old it may be, and how far ahead the sender's clock, seconds.
    """
    told = {name.lower(): value for name, value in headers.items()}
    timestamp, signature = told.get("x-ipybatch-timestamp", ""), told.get("x-ipybatch-signature", "")
    if not timestamp.isascii() or not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > max_age_s:
        return False
    return hmac.compare_digest(sign(secret, timestamp, body).encode(), signature.encode(errors="replace"))


def send(channel: Channel, parcel: Parcel) -> None:
    """Send a message, once.

    Raises:
        NotSent: There was no receipt.
    """
    told = WebhookBody(
        id=parcel.id,
        kind=parcel.kind,
        at=iso(parcel.at_s),
        text=parcel.title,
        details=parcel.body,
        session=parcel.session,
    )
    body, timestamp = _encode(told), str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "ipybatch",
        "X-Ipybatch-Delivery": parcel.id,
        "X-Ipybatch-Kind": parcel.kind,
        "X-Ipybatch-Timestamp": timestamp,
        "X-Ipybatch-Signature": sign(channel.secret, timestamp, body),
    }
    address = channel.url.partition("+")[2]  # json+https: the scheme was checked when it was loaded
    request = urllib.request.Request(address, body, headers, method="POST")  # noqa: S310  # as above
    try:
        with (_open_here if is_here(address) else _open)(request, timeout=TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        with error:
            redirected = ", a redirect: name the address that it leads to" if error.code in range(300, 400) else ""
            wait_s = read_headers(error.headers, time.time()).retry_after_s or 0.0
            raise NotSent(f"it answered {error.code}{redirected}", wait_s) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        told_error = reason if isinstance(reason, BaseException) else error
        raise NotSent(channel.redact(reason_of(told_error))) from None


def is_here(address: str) -> bool:
    """Say whether an address is this machine's own."""
    return urlsplit(address).hostname in LOOPBACK
