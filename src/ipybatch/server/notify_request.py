"""Notify request: who is to be told of a submission, as its request says it by names of channels, and as its session
takes it.

A submission that fails before it has a session is told here, and so is a time of a schedule that becomes no
submission: nobody else would.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import suppress
from typing import Literal

import msgspec

from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.notice import Notice, Notify, read_notify
from ipybatch.engine.store import outbox
from ipybatch.errors import BatchError, InputError
from ipybatch.notify import channel_list
from ipybatch.server.wire import NotifyRequest, SubmissionRequest

Unrun = Literal["busy", "refused", "missed", "asks"]  # why a time of a schedule becomes no run, or not yet


def to_notify(request: SubmissionRequest) -> Notify | None:
    """Return who is told what of a request's session; None for nobody.

    Raises:
        InputError: It is not what it must be.
    """
    given = request.notify
    if not isinstance(given, NotifyRequest):
        return read_notify(given)
    told = {name: value for name, value in msgspec.structs.asdict(given).items() if value is not None}
    return Notify(**told)


def only_usable(request: SubmissionRequest) -> tuple[SubmissionRequest, str]:
    """Return a request without the channels that cannot be used here, and what is wrong with them; "" for nothing.

    Work that waited for its time is worth more than a message: a channel may be gone since, or a keyring be locked.
    """
    notify, wrong = None, {}
    with suppress(InputError):  # its session refuses it
        notify = to_notify(request)
    names = () if notify is None else tuple(notify.channels)
    for name in names:
        try:
            channel_list.check_channels([name])
        except BatchError as error:
            wrong[name] = str(error)
    if not wrong:
        return request, ""
    left: str | list[str] | NotifyRequest | None = [name for name in names if name not in wrong] or None
    if isinstance(request.notify, NotifyRequest) and isinstance(left, list):
        left = msgspec.structs.replace(request.notify, channels=left)
    said = "; ".join(f"channel {name!r} was left out ({why})" for name, why in wrong.items())
    return msgspec.structs.replace(request, notify=left), said


def put_failed(  # noqa: PLR0917  # the row
    database: sqlite3.Connection, number: int, name: str, run: int | None, queued_s: float, reason: str, now_s: float
) -> None:
    """Put into the outbox that a submission has failed, as part of a transaction, unless its session tells that.

    Args:
        number: Of the submission, and ``name``: its session's.
        run: Of its session; None where it never had one.
        queued_s: When it came into the queue: a session that began before that told another end.
    """
    if run is not None:
        found = database.execute("SELECT begun_s FROM run WHERE id = ?", (run,)).fetchone()
        if found is not None and (found[0] or 0.0) >= queued_s:
            return
    body, requests = database.execute("SELECT request, requests FROM submission WHERE number = ?", (number,)).fetchone()
    try:
        notify = to_notify(msgspec.json.decode(body, type=SubmissionRequest))
    except (InputError, msgspec.MsgspecError):  # of a later version
        return
    if notify is not None:
        counts = Counts(total=requests, pending=requests)
        notice = Notice(kind="failed", name=name, state="failed", at_s=now_s, counts=counts, reason=reason)
        outbox.put(database, 0, number, notify, notice, due_s=now_s, detail=f"{queued_s:.3f}")


def put_unrun(  # the row
    database: sqlite3.Connection,
    schedule: str,
    notify: Notify,
    notice: Notice,
    due_s: float,
    *,
    why: Unrun,
) -> bool:
    """Put into the outbox that a time of a schedule became no submission, as part of a transaction.

    A schedule that comes every minute would tell so all night: of each ``why`` a day's first time is told; and each
    question, as it waits for an answer.

    Args:
        schedule: Its id.
        due_s: The time, Unix.

    Returns:
        Whether it is new.
    """
    at = dt.datetime.fromtimestamp(due_s, dt.UTC)
    when = at.isoformat() if why == "asks" else at.date().isoformat()
    return outbox.put(database, 0, 0, notify, notice, due_s=notice.at_s, detail=f"{schedule} {why} {when}")
