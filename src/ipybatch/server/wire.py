"""Wire: what the REST API and the events say, as types.

Rule: names are snake_case on both sides, with no mapping layer.  `openapi.json`
and `widgets/src/schema.ts` are generated from these types; times are ISO 8601
in UTC, durations are seconds.  A session's own are in `engine/feed/session_item`:
webhooks send them too.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ipybatch.engine.data.events import Counts, Status
from ipybatch.engine.data.notice import NoticeKind
from ipybatch.engine.data.outcome import Try
from ipybatch.engine.feed.session_item import GroupItem, SessionItem, Verb
from ipybatch.jupyter.messages import Update

CommandState = Literal["done", "waiting"]
SubmissionState = Literal["PENDING", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED", "ROLLED_BACK", "UNKNOWN"]
UrgencyWord = Literal["high", "medium", "low"]
Misfire = Literal["run", "skip", "ask"]
ScheduleState = Literal["waiting", "paused", "asking", "ended"]
ScheduleVerb = Literal["pause", "resume", "run_now", "answer"]
ScheduleAnswer = Literal["run", "skip"]


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An error, as RFC 9457 has it, and what the reader can do about it.

    Attributes:
        detail: What was wrong, in a sentence; ``message`` is the same, for JupyterLab.
        field: The field, parameter or header that was wrong; ``value``: what it was, ``allowed``: what it may be.
        next_step: What to do.
    """

    type: str
    title: str
    status: int
    detail: str
    message: str
    field: str = ""
    value: Any = None
    allowed: Any = None
    next_step: str = ""


class Link(msgspec.Struct, kw_only=True):
    """Where something is, below the server's base URL."""

    href: str


class Root(msgspec.Struct, kw_only=True):
    """What this server is and allows.

    Attributes:
        journal_schema: The version that this server reads and writes.
        limits: By the name of its option, such as ``max_requests``.
        templates: What can be submitted.
    """

    version: str
    journal_schema: int
    limits: dict[str, float]
    templates: list[str]
    links: dict[str, str]


class SessionPage(msgspec.Struct, kw_only=True):
    """Some of the sessions, the latest first; ``next`` is the cursor of the page after it.

    Attributes:
        unread: What is wrong with journals that could not be read, one sentence each.
    """

    items: list[SessionItem]
    next: str | None
    unread: list[str]


class GroupPage(msgspec.Struct, kw_only=True):
    """Some of the groups of a session, in order."""

    items: list[GroupItem]
    next: str | None


class PanelUpdate(msgspec.Struct, kw_only=True):
    """What is new of a session, for its tab; ``cursor``: what the next question says to be told what came after it."""

    update: Update
    cursor: str


class Item(msgspec.Struct, kw_only=True):
    """An item that has an outcome.

    Attributes:
        tries: Its attempts that failed, and were followed by another.
        traceback: The last frames of the user's own code, of an item that failed; "" for none.
    """

    key: Any
    status: Status
    group: int
    attempts: int
    seconds: float
    ended: str
    error: str
    scope: str
    result: Any
    tries: list[Try]
    traceback: str


class ItemPage(msgspec.Struct, kw_only=True):
    """Some of the items of a session, in plan order."""

    items: list[Item]
    next: str | None


class ErrorItem(msgspec.Struct, kw_only=True):
    """A message, and how many items failed with it."""

    message: str
    count: int
    status: Status
    scope: str
    key: Any


class ErrorPage(msgspec.Struct, kw_only=True):
    """The messages of a session's failures, the most frequent first."""

    items: list[ErrorItem]
    next: str | None


class LogItem(msgspec.Struct, kw_only=True):
    """A line of a session's log: an attempt that failed, or an item that ended."""

    at: str
    level: Literal["info", "good", "warn", "bad"]
    text: str


class LogPage(msgspec.Struct, kw_only=True):
    """Some of the lines of a session's log, the latest first."""

    items: list[LogItem]
    next: str | None


class CommandRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a session is asked to do.

    Attributes:
        keys: Of "retry_failed": only these items.
        concurrency: Of "adjust"; ``rates``: the limit of each rate; ``start_at``: "now" ends the wait for its start, as
            the verb "start_now" does, or another one.
    """

    verb: Verb
    keys: list[Any] | None = None
    concurrency: int | None = None
    rates: list[float] | None = None
    start_at: str | None = None


class CommandAnswer(msgspec.Struct, kw_only=True):
    """What became of a command.

    Attributes:
        detail: What it came to, or why it was not taken yet.
        kernel: The kernel that can be interrupted or shut down where it was not taken; None for none of this server.
    """

    id: str
    verb: str
    state: CommandState
    detail: str
    kernel: str | None = None


class Upload(msgspec.Struct, kw_only=True):
    """A table that was uploaded; it is kept until it is submitted, or for a day.

    Attributes:
        columns: Their names, in order.
        analysis: What `ipybatch.forecast.analyze` says of it, where it is a demand table; else None.
        note: Why it is none; "" where it is.
    """

    id: str
    sha256: str
    rows: int
    columns: list[str]
    bytes: int
    analysis: dict[str, Any] | None = None
    note: str = ""


class NotifyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Who is told what, and when; as `ipybatch.notify.Notify`.

    Attributes:
        channels: Names of channels, never addresses.
    """

    channels: str | list[str]
    on: list[NoticeKind] | None = None
    breaker_min: float | None = None
    budget_share: float | None = None
    expiring_h: float | None = None
    attach_mb: float | None = None


class SubmissionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is submitted.

    Attributes:
        template: One of those that `Root` lists, yours among them: what one of yours says holds where this does not.
        name: Of the session; by default it follows the submission's id.
        requests: Of the Gemini templates: a prompt each, and ``imageBase64``; of "refresh": app ids.
        upload: Of "forecast": the id of an upload.
        params: Arguments of the template, such as ``{"model": ..., "lane": "batch"}`` or ``{"horizon": 30}``.
        start_at: Not before then: "22:00", the next one, or ISO 8601, by the clocks of ``zone`` where it has no offset.
        zone: Such as "Europe/Berlin"; null for the server's own.
        priority: "high" goes first; by default "medium".
        notify: Who is told how it ends: the name of a channel, several, or the names with what is told, and when.
    """

    template: str
    name: str = ""
    requests: list[Any] | None = None
    upload: str | None = None
    params: dict[str, Any] = {}
    start_at: str | None = None
    zone: str | None = None
    priority: UrgencyWord | None = None
    notify: str | list[str] | NotifyRequest | None = None


class Credits(msgspec.Struct, kw_only=True):
    """Credits of a submission, and of the account that pays them."""

    account: str
    cost: float
    used: float | None
    balance: float
    available: float


class Submission(msgspec.Struct, kw_only=True):
    """A submission.

    Attributes:
        progress: Percent of the items that have an outcome.
        starts: How often a kernel was started for it.
        session: The id of its session; None until it has begun.
        results: Files that results hold, as URLs.
        waits_for: How many others must end before it can begin; None for one that does not wait.
    """

    id: str
    name: str
    template: str
    state: SubmissionState
    reason: str
    created: str
    ended: str | None
    start_at: str | None
    priority: UrgencyWord
    request_count: int
    counts: Counts
    progress: float
    eta_s: float | None
    starts: int
    groups: list[GroupItem]
    errors: list[ErrorItem]
    results: list[str]
    credits: Credits | None
    usd: float | None
    session: str | None
    links: dict[str, str]
    waits_for: int | None


class SubmissionPage(msgspec.Struct, kw_only=True):
    """Some of the submissions, the latest first."""

    items: list[Submission]
    next: str | None


class Quote(msgspec.Struct, kw_only=True):
    """What a submission would take; nothing is reserved.

    Attributes:
        seconds: At best and at worst; None where nothing is known of that.
        usd: None where nothing is known.
        quote: What the template's own quote or analysis says, such as a row for each lane.
        notes: What was assumed.
    """

    template: str
    request_count: int
    seconds: tuple[float, float] | None
    usd: float | None
    credits: Credits | None
    quote: list[dict[str, Any]]
    notes: list[str]


class ScheduleTiming(msgspec.Struct, kw_only=True):
    """When something is submitted: `every` so often, or by a rule of `cron`.

    Attributes:
        every: Minutes, hours, days or weeks: "30m", "6h", "1d", "1w". Days are of the calendar, at the same time of the
            clock; hours are time that passes.
        at: With whole days: the time of the clock, "22:00"; by default that of `start_at`, or of now.
        cron: Minute, hour, day, month and weekday, "0 22 * * 1-5"; through changes of the clocks as Debian's cron.
        zone: Whose clocks count, "Europe/Berlin"; by default those of this machine.
        start_at: Not before then: ISO 8601, of `zone` without an offset, or "22:00", the next one.
        until: Not after then: ISO 8601; a date is all of that day.
        misfire: What is done with times that passed while nothing was there to submit: "run" once for all of them,
            "skip" them, or "ask".
        grace: How late a time may be and is not missed yet: "15m".
        paused: Whether nothing is submitted.
    """

    every: str | None = None
    at: str | None = None
    cron: str | None = None
    zone: str | None = None
    start_at: str | None = None
    until: str | None = None
    misfire: Misfire = "run"
    grace: str = "15m"
    paused: bool = False


class ScheduleRequest(ScheduleTiming, kw_only=True, forbid_unknown_fields=True):
    """What is submitted again and again, and when.

    Attributes:
        submission: What POST /submissions takes, without `name` and `start_at`.
    """

    submission: SubmissionRequest


class ScheduledRun(msgspec.Struct, kw_only=True):
    """A time of a schedule that was submitted.

    Attributes:
        at: The time; ``submission``: the id of what it became, ``name``: of its session.
        failed: Items that failed or timed out, where it has completed; else 0.
    """

    at: str
    submission: str
    name: str
    state: SubmissionState
    failed: int = 0


class Schedule(ScheduleTiming, kw_only=True):
    """A schedule.

    Attributes:
        state: "asking": it waits for an answer to `question`; "ended": no time is left.
        question: What to do about times that were missed; "" for none.
        next: The next five times by its rule, whether it is paused or not.
        last: The latest time that was submitted.
        note: What became of the latest time, where that is not plain: that it was skipped, or could not be submitted.
    """

    name: str
    submission: SubmissionRequest
    state: ScheduleState
    question: str
    next: list[str]
    last: ScheduledRun | None
    note: str
    created: str
    links: dict[str, str]


class SchedulePage(msgspec.Struct, kw_only=True):
    """Some of the schedules, by name."""

    items: list[Schedule]
    next: str | None


class ScheduleCommand(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to be done with a schedule.

    Attributes:
        verb: "run_now" submits once, and moves no time.
        answer: Of the verb "answer": "run" once now, or "skip" what was missed.
    """

    verb: ScheduleVerb
    answer: ScheduleAnswer | None = None


class Change(msgspec.Struct, kw_only=True):
    """What changed since the event before; a gap in the cursors means: list all anew.

    Attributes:
        cursor: Counts changes, for each server.
        items: Sessions that are new, or changed.
        removed: Ids of sessions that are not there any more.
        schedules: Whether schedules changed: GET /schedules.
        submissions: Whether other submissions wait, or run, than before: list those that wait anew.
    """

    cursor: int
    items: list[SessionItem]
    removed: list[str]
    schedules: bool = False
    submissions: bool = False
    templates: bool = False


class TemplateItem(msgspec.Struct, kw_only=True):
    """A template in a list.

    Attributes:
        kind: "shipped": it comes with ipybatch, and stays as it is; "own": it is a file of the user's.
        can: "submit" where a submission may name it, "edit" where it may be written and deleted.
        changed: When its file was written; None for one that is shipped.
        error: Why its file cannot be used; "" where it can. ``reason``: why a submission may not name it, though,
            such as "asks for work, ...".
    """

    name: str
    kind: Literal["shipped", "own"]
    based_on: str
    description: str
    can: list[Literal["submit", "edit"]]
    changed: str | None
    error: str = ""
    reason: str = ""


class TemplateList(msgspec.Struct, kw_only=True):
    """All templates: those that are shipped, then those of the user, by name."""

    items: list[TemplateItem]


class ChannelItem(msgspec.Struct, kw_only=True):
    """A channel by which people are told.

    Attributes:
        kind: "mail", "webhook", "desktop", or the name of a service, such as "slack".
        usable: Whether the server has what it needs.
    """

    name: str
    kind: str
    usable: bool


class ChannelList(msgspec.Struct, kw_only=True):
    """All channels, by name; their addresses are told to nobody."""

    items: list[ChannelItem]
