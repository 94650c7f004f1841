"""Notice: what whoever asked to be notified is told of a run, and who is to be told of what.

Notify      of a session's argument: channels, kinds, and when       --recorded with the run
Notice      the facts of one message, as they were when it was due   --a row of the outbox for each channel
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

from ipybatch.engine.data.events import Counts, State
from ipybatch.engine.data.plan import short
from ipybatch.engine.data.policy import check, keep
from ipybatch.errors import InputError

NoticeKind = Literal["finished", "failed", "cancelled", "breaker", "budget", "expiring", "skipped", "asks"]
Kind = Literal[NoticeKind, "test"]
KINDS: tuple[NoticeKind, ...] = get_args(NoticeKind)
USUAL: tuple[NoticeKind, ...] = tuple(kind for kind in KINDS if kind != "cancelled")  # whoever cancels it knows of it
_KIND_OF_END: dict[State, NoticeKind] = {
    "completed": "finished",
    "failed": "failed",
    "rolled_back": "failed",
    "interrupted": "failed",
    "cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class Notify:
    """Who is told what of a session, and when: what ``notify=`` of sessions takes beside plain names.

    Attributes:
        channels: The name of a channel, or several; `ipybatch.notify.add_channel` makes them.
        on: What is told: some of "finished", "failed" (ended early, rolled back, or its process died), "cancelled",
            "breaker", "budget", "expiring"; of a schedule "skipped", "asks". Default: all but "cancelled".
        breaker_min: Minutes that the breaker has been open, > 0, before that is told, once an outage.
        budget_share: Share of the budget, > 0 to 1, that is spent when that is told, once a run.
        expiring_h: Hours before results expire that were not collected, > 0 to 48, when that is told.
        attach_mb: Results up to this size are attached to mails at the end, megabytes; 0 for never.

    Raises:
        InputError: A value is outside its range, or there is no such kind; the message names the field.
    """

    channels: str | Iterable[str]
    on: NoticeKind | Iterable[NoticeKind] = USUAL
    breaker_min: float = 10.0
    budget_share: float = 0.9
    expiring_h: float = 12.0
    attach_mb: float = 5.0

    def __post_init__(self) -> None:
        keep(self, channels=_names("channels", self.channels), on=_kinds(self.on))
        keep(self, breaker_min=check("breaker_min", self.breaker_min, low=0, above=True))
        keep(self, budget_share=check("budget_share", self.budget_share, low=0, above=True, high=1))
        keep(self, expiring_h=check("expiring_h", self.expiring_h, low=0, above=True, high=48))
        keep(self, attach_mb=check("attach_mb", self.attach_mb, low=0))


def read_notify(notify: Any) -> Notify | None:
    """Return what ``notify=`` of a session is: a name, several, or a `Notify`; None for nobody.

    Raises:
        InputError: It is something else.
    """
    if notify is None or isinstance(notify, Notify):
        return notify
    return Notify(_names("notify", notify))


def _names(field: str, given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple | set) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        msg = f"{field} must be the name of a channel, or a list of names, got {short(given)}"
        raise InputError(msg)
    return tuple(dict.fromkeys(names))


def _kinds(given: Any) -> tuple[str, ...]:
    kinds = {given} if isinstance(given, str) else set(given) if isinstance(given, Iterable) else {given}
    if not kinds or not kinds <= set(KINDS):
        msg = f"on must be some of {', '.join(map(repr, KINDS))}, got {short(given)}"
        raise InputError(msg)
    return tuple(kind for kind in KINDS if kind in kinds)  # in one order, as they are recorded


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of one message.

    Attributes:
        name: Of the session, or of the schedule.
        state: How it stood.
        at_s: When that was, Unix.
        counts: How many items stood where.
        reason: Why it ended early; of a schedule what became of its time; "" otherwise.
        seconds: How long it had run, over all its starts.
        usd: What it had cost; None where nothing is known. ``budget_usd``: its budget; None for none.
        error: The first error of an item, as far as is known; of an outage the last one.
        notebook: Where it ran; "" where that is not known.
        limit_group: Whose breaker is open; "" for that of all. ``since_s``: since when, Unix.
        job: The number of the batch job whose results expire, and ``requests``: how many it had.
        expires_s: When they do, Unix.
        attach_mb: As of `Notify`.
        next_s: When a schedule comes again, Unix; 0 for never more. ``zone``: whose clocks its times are of.
        reached: Marks of the channel's receivers that have the message already, where it has several.
    """

    kind: Kind
    name: str
    state: State
    at_s: float
    counts: Counts = msgspec.field(default_factory=Counts)
    reason: str = ""
    seconds: float = 0.0
    usd: float | None = None
    budget_usd: float | None = None
    error: str = ""
    notebook: str = ""
    limit_group: str = ""
    since_s: float = 0.0
    job: int = 0
    requests: int = 0
    expires_s: float = 0.0
    attach_mb: float = 0.0
    next_s: float = 0.0
    zone: str = ""
    reached: tuple[str, ...] = ()


def kind_of_end(state: State) -> NoticeKind:
    """Return what an end is told as."""
    return _KIND_OF_END[state]


_encode_notify = msgspec.json.Encoder().encode
_decode_notify = msgspec.json.Decoder(dict[str, Any]).decode


def encode_notify(notify: Notify | None) -> str | None:
    """Return it as the journal holds it; None for nobody."""
    return None if notify is None else _encode_notify(notify).decode()


def decode_notify(recorded: str | None) -> Notify | None:
    """Return what the journal holds; None for nobody, or for what a later version wrote."""
    try:
        return None if recorded is None else Notify(**_decode_notify(recorded))
    except (InputError, TypeError, msgspec.MsgspecError):
        return None
