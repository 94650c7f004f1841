"""Submission order: what a request comes to, once all of it was checked and before anything is created.

Rule: whoever makes a submission, a route, a schedule or a script, checks its request here, and nowhere else.  Nothing
here needs Jupyter's server.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from dataclasses import replace

import msgspec

from ipybatch.engine.data.local_time import read_start, zone_of
from ipybatch.errors import InputError
from ipybatch.notify import channel_list
from ipybatch.server.notify_request import to_notify
from ipybatch.server.options import DEFAULTS, Options
from ipybatch.server.submission_rows import PRIORITIES, Order
from ipybatch.server.templates import WrongField, find_template, resolve
from ipybatch.server.wire import Quote, SubmissionRequest
from ipybatch.session.arguments import check_name

_START = "22:00 (the next one), or a time to come in ISO 8601, such as 2030-01-31T22:00:00Z"


def canonical(request: SubmissionRequest) -> tuple[bytes, str]:
    """Return a request as JSON that is the same for the same request, and a hash of it.

    Raises:
        RecursionError: It is nested too deeply.
    """
    body = msgspec.json.encode(request, order="sorted")
    return body, hashlib.blake2b(body, digest_size=16).hexdigest()


def without_server(request: SubmissionRequest) -> Options:
    """Return what holds where a user's own process asks: what limits a request to a server limits none there."""
    return replace(DEFAULTS, max_requests=max(DEFAULTS.max_requests, len(request.requests or ())))


def to_order(
    request: SubmissionRequest,
    options: Options,
    *,
    idempotency: str = "",
    at_once: bool = False,
    unattended: bool = False,
) -> Order:
    """Return what is to be created for a request; block for seconds at most.

    Args:
        at_once: Whoever asks has waited for the time: a start that its template names counts for nothing.
        unattended: Nobody is there to mend it: channels that cannot be used are left out when it runs.

    Raises:
        WrongField: A field is not what it must be; nothing was spent.
        BatchError: It cannot be submitted, as its template tells it.
    """
    _, digest = canonical(request)  # of what was asked: a template may have changed when it is asked once more
    label, request = request.template, resolve(request)
    if at_once:
        request = msgspec.structs.replace(request, start_at=None, zone=None)
    start_at_s = check_common(request, unattended=unattended)
    checked = find_template(request.template).check(request, options)
    return Order(
        template=request.template,
        label=label,
        name=request.name,
        request=canonical(request)[0],
        digest=digest,
        requests=checked.requests,
        idempotency=idempotency,
        priority=PRIORITIES.index(request.priority or "medium"),
        start_at_s=start_at_s,
        account=options.account,
        operation=checked.operation,
        credits=checked.credits,
    )


def to_quote(request: SubmissionRequest, options: Options) -> Quote:
    """Return what a request would take; nothing is reserved.

    Raises:
        WrongField: A field is not what it must be.
        BatchError: It cannot be submitted, as its template tells it.
    """
    request = resolve(request)
    check_common(request)
    return find_template(request.template).quote(request, options)


def check_common(request: SubmissionRequest, *, unattended: bool = False) -> float | None:
    """Check what all templates have in common, and return when it may start, Unix; None for at once.

    Args:
        unattended: As of `to_order`.

    Raises:
        WrongField: Something is not what it must be.
    """
    find_template(request.template)
    if request.name:
        try:
            check_name(request.name)
        except InputError as error:
            raise WrongField("name", str(error), value=request.name) from None
    if not unattended:
        _check_notify(request)
    try:
        zone = zone_of(request.zone)
    except InputError as error:
        raise WrongField("zone", str(error), value=request.zone) from None
    if request.start_at is None:
        return None
    try:
        return read_start(request.start_at, time.time(), zone)
    except InputError as error:
        raise WrongField("start_at", str(error), value=request.start_at, allowed=_START) from None


def _check_notify(request: SubmissionRequest) -> None:
    """Refuse channels that there are not.

    Raises:
        WrongField: Names the one, and those there are.
        MissingExtra: What a channel needs is not installed.
    """
    try:
        notify = to_notify(request)
        if notify is not None:
            channel_list.check_channels(notify.channels)
    except InputError as error:
        allowed = None
        with suppress(InputError):
            allowed = sorted(channel_list.channels())
        raise WrongField("notify", str(error), value=request.notify, allowed=allowed) from None
