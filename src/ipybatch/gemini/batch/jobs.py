"""Jobs: remote batch jobs as the journal has them.

Rule: what may have been sent is on disk before it is sent.  A job's state
tells what is known of it, so a restart knows what may be sent again::

    intent ----> unknown ----> pending ----> running ----> succeeded
       |            |             ^                        failed
       |            |  found      |                        cancelled
       |            `-------------'                        expired
       `-- withdrawn: nothing was sent

``unknown`` is written before the request leaves, by whoever finds ``intent``
still there: two processes that hold the same intent send it once.  Only the
service's own list leads out of ``unknown``.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.events import Event, Status
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import key_value
from ipybatch.engine.store.journal import Journal, Unit, to_disk
from ipybatch.errors import Fenced, InputError, JournalError
from ipybatch.gemini.service.api import RemoteState

JobState = Literal["intent", "unknown"] | RemoteState
ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled", "expired"})
CANCELLING = "we asked for it to be cancelled"  # the reason of a job that goes on for a while
_COLUMNS = (
    "display_name, session, number, model, remote, state, file, created_s, updated_s, ended_s, requests, reason, keys,"
    " collected"
)
_NEVER_SENT = "(remote = '' AND state IN ('intent', 'failed'))"
_STATUS: dict[JobState, Status] = {
    "intent": "pending",
    "unknown": "pending",
    "pending": "pending",
    "running": "running",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "expired": "timeout",
}
_encode = msgspec.json.Encoder().encode
_decode_keys = msgspec.json.Decoder(tuple[str, ...]).decode


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One remote batch job.

    Attributes:
        display_name: The only handle that we choose: unique.
        session: Whom it belongs to.
        number: Its group's number there.
        model: What answers.
        keys: The items' keys, in the order sent.
        state: What is known of it.
        remote: The service's name for it, ``batches/ID``; "" until it is known.
        file: The uploaded input, ``files/ID``; "" when it was sent inline.
        created_s: When it was intended, Unix time.
        updated_s: When something about it was last written.
        ended_s: When it was first seen ended; None before.
        reason: Why it stands as it does, in one line.
        collected: Whether its results have been taken over.
        counts: Requests by state as the service last said; not kept in the journal.
    """

    display_name: str
    session: str
    number: int
    model: str
    keys: tuple[str, ...]
    state: JobState = "intent"
    remote: str = ""
    file: str = ""
    created_s: float = 0.0
    updated_s: float = 0.0
    ended_s: float | None = None
    reason: str = ""
    collected: bool = False
    counts: Mapping[str, int] = {}

    @property
    def requests(self) -> int:
        """How many items it holds."""
        return len(self.keys)

    @property
    def ended(self) -> bool:
        """Whether the service is done with it."""
        return self.state in ENDED

    @property
    def sent(self) -> bool:
        """Whether it may have reached the service: then it is never sent again."""
        return bool(self.remote) or self.state not in ("intent", "failed")

    @property
    def digest(self) -> str:
        """A short hash of what was sent in it."""
        return self.display_name.rsplit("-", 2)[-2]


def display_name(session: str, number: int, digest: str) -> str:
    """Return a name that nobody else has: a slug of the session, the number, a hash of what is sent, a random part."""
    slug = re.sub(r"[^a-z0-9]+", "-", mask(session).lower()).strip("-")[:40] or "batch"
    return f"{slug}-{number}-{digest[:8]}-{secrets.token_hex(6)}"


def digest_of(model: str, lines: Sequence[bytes]) -> str:
    """Return the hash of what a job sends."""
    found = hashlib.blake2b(model.encode(), digest_size=4)
    for line in lines:
        found.update(len(line).to_bytes(8, "big"))
        found.update(line)
    return found.hexdigest()


class JobStore:
    """The jobs of a journal.

    Args:
        journal: Where they are kept.
        clock: Stands still while a commit is awaited.
    """

    def __init__(self, journal: Journal, clock: Clock | None = None) -> None:
        self._journal = journal
        self._clock = clock or SystemClock()

    async def intend(self, job: Job, *, once: bool = False) -> Job:
        """Record that a job is about to be submitted; it is on disk, power cut or not, when this returns.

        Args:
            once: Refuse when one of this session and number was, or is being, submitted.

        Raises:
            InputError: There is one.
        """
        now_s = self._clock.unix_s()
        new = msgspec.structs.replace(job, state="intent", created_s=now_s, updated_s=now_s, reason=mask(job.reason))

        def unit(database: sqlite3.Connection) -> bool:
            if once and any(_jobs(database, "WHERE session = ? AND number = ? AND NOT " + _NEVER_SENT, _place(job))):
                return False
            if once:
                database.execute(f"DELETE FROM job WHERE session = ? AND number = ? AND {_NEVER_SENT}", _place(job))  # noqa: S608  # a constant
            _insert(database, new)
            return True

        if not await self._commit(unit, durable=True):
            msg = f"job {job.number} of {job.session!r} was submitted already: wait for it, or choose another name="
            raise InputError(msg)
        return new

    async def send(self, job: Job) -> Job:
        """Record that a job's request leaves now: from here on it may have been accepted.

        Raises:
            Fenced: Its intent is gone: another process took it over.
        """
        return await self._change(job, state="unknown", reason="sent, not confirmed", only="intent", durable=True)

    async def put(self, job: Job) -> Job:
        """Record what is known of a job now.

        Raises:
            Fenced: It is no longer in the journal.
        """
        return await self._change(job)

    async def withdraw(self, job: Job) -> None:
        """Forget an intent of which nothing was sent, or a job that the user gave up."""
        await self._commit(lambda database: _delete(database, job.display_name))

    async def collect(self, job: Job) -> Job:
        """Record that its results were taken over: they are not asked for again."""
        return await self._change(job, collected=True)

    def open_jobs(self, session: str) -> list[Job]:
        """Return a session's jobs that wait for something: to be sent, found, finished or collected."""
        return self.find(
            "WHERE session = ? AND collected = 0 AND state IN ('intent', 'unknown', 'pending', 'running', 'succeeded')",
            (session,),
        )

    def of_session(self, session: str) -> list[Job]:
        """Return all jobs of a session, by number."""
        return self.find("WHERE session = ?", (session,))

    def named(self, name: str) -> Job | None:
        """Return the job of this display name or remote name."""
        found = self.find("WHERE display_name = ? OR (remote = ? AND remote != '')", (name, name))
        return found[0] if found else None

    def find(self, where: str = "", values: Sequence[Any] = ()) -> list[Job]:
        """Return jobs by an SQL condition of ours, oldest first."""
        with self._journal.reader() as database:
            return _jobs(database, where, values)

    async def _change(self, job: Job, *, only: JobState | None = None, durable: bool = False, **fields: Any) -> Job:
        now_s = self._clock.unix_s()
        changed = msgspec.structs.replace(job, updated_s=now_s, **fields)
        if changed.ended and changed.ended_s is None:
            changed = msgspec.structs.replace(changed, ended_s=now_s)
        changed = msgspec.structs.replace(changed, reason=mask(changed.reason))
        if not await self._commit(lambda database: _update(database, changed, only), durable=durable):
            msg = f"job {job.display_name} is no longer ours to submit: another process took it over"
            raise Fenced(msg)
        return changed

    async def _commit(self, unit: Unit, *, durable: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        written: asyncio.Future[Any] = loop.create_future()

        def tell(result: Any, error: JournalError | None) -> None:
            loop.call_soon_threadsafe(_settle, written, result, error)

        self._clock.hold(+1)
        try:
            self._journal.submit(unit, tell)
            result = await written
            if durable:
                await asyncio.to_thread(to_disk, self._journal.path)
        finally:
            self._clock.hold(-1)
        return result


def _jobs(database: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Job]:
    query = f"SELECT {_COLUMNS} FROM job {where} ORDER BY created_s, session, number"  # noqa: S608  # constants of ours
    return [_from_row(row) for row in database.execute(query, values)]


def _place(job: Job) -> tuple[str, int]:
    return job.session, job.number


def _row(job: Job) -> dict[str, Any]:
    fields = {name: getattr(job, name) for name in _COLUMNS.split(", ")}
    return {**fields, "keys": _encode(job.keys), "collected": int(job.collected)}


def _from_row(row: Sequence[Any]) -> Job:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    del fields["requests"]
    return Job(**{**fields, "keys": _decode_keys(fields["keys"]), "collected": bool(fields["collected"])})


def _insert(database: sqlite3.Connection, job: Job) -> None:
    places = ", ".join(f":{name}" for name in _COLUMNS.split(", "))
    database.execute(f"INSERT INTO job ({_COLUMNS}) VALUES ({places})", _row(job))  # noqa: S608  # constants of ours


def _update(database: sqlite3.Connection, job: Job, only: JobState | None) -> bool:
    places = ", ".join(f"{name} = :{name}" for name in _COLUMNS.split(", ")[1:])
    query = f"UPDATE job SET {places} WHERE display_name = :display_name AND state = coalesce(:only, state)"  # noqa: S608
    return database.execute(query, {**_row(job), "only": only}).rowcount == 1


def _delete(database: sqlite3.Connection, name: str) -> None:
    database.execute("DELETE FROM job WHERE display_name = ?", (name,))


def _settle(written: asyncio.Future[Any], result: Any, error: JournalError | None) -> None:
    if written.done():  # whoever waited was cancelled
        return
    if error is None:
        written.set_result(result)
    else:
        written.set_exception(error)


class JobIndex:
    """The jobs of a session by their items; of one event loop.

    Attributes:
        kept: Jobs that succeeded and still have answers, by number.
    """

    def __init__(self) -> None:
        self.kept: dict[int, Job] = {}
        self._where: dict[str, int] = {}  # the job that an item is in, by its key there
        self._owed: dict[int, dict[Any, str]] = {}  # answers that are not on disk: the item's key, and the one there
        self._handed: dict[int, Job] = {}

    def of(self, key: str) -> int | None:
        """Return the number of the job that an item is in; None for one that has to be sent."""
        return self._where.get(key)

    def take(self, job: Job) -> None:
        """Count a job's items as being in it; those of a later job are not in an earlier one any more."""
        self._where.update(dict.fromkeys(job.keys, job.number))

    def keep(self, job: Job) -> None:
        """Take a job whose results are there."""
        self.take(job)
        self.kept[job.number] = job

    def drop(self, job: Job) -> None:
        """Let go of a job that brings nothing: its items have to be sent again."""
        self.kept.pop(job.number, None)
        for key in job.keys:
            self.release(job.number, key)

    def release(self, number: int, key: str) -> None:
        """Let an item that was not answered go into another job."""
        if self._where.get(key) == number:
            del self._where[key]

    def owe(self, number: int, key: str, item: str) -> None:
        """Note that an item's answer was handed out."""
        self._owed.setdefault(number, {})[key_value(item)] = key

    def handed_out(self, job: Job) -> None:
        """Note that all who waited for a job were answered."""
        self.kept[job.number] = self._handed[job.number] = job

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Hear what is on disk; what was cancelled may ask for its answer again."""
        done = {outcome.key for outcome in outcomes if outcome.status in ("completed", "failed")}
        for number, owed in self._owed.items():
            for item in done & owed.keys():
                self.release(number, owed.pop(item))

    def settled(self) -> list[tuple[Job, bool]]:
        """Return, once, the jobs whose answers are all on disk, and whether all of their items were answered."""
        found = []
        for number in [number for number in self._handed if not self._owed.get(number)]:
            job = self._handed.pop(number)
            self._owed.pop(number, None)
            is_whole = not any(self._where.get(key) == number for key in job.keys)
            if is_whole:
                self.kept.pop(number, None)
            found.append((job, is_whole))
        return found


class JobGroups:
    """Tell how the jobs of a session stand, whenever that changes."""

    def __init__(self, tell: Callable[[Event], None], clock: Clock) -> None:
        self._tell, self._clock = tell, clock
        self._shown: dict[int, tuple[Status, events.Extra, str]] = {}

    def queue(self, number: int, items: int) -> None:
        """Show a job that is not submitted yet."""
        self._start(number, items, {"Remote": "", "State": "queued"})
        self._change(number, "pending", {}, "")

    def show(self, job: Job) -> None:
        """Show a job as the service tells it."""
        extra: events.Extra = {"Remote": job.remote, "State": _state_text(job)}
        if job.number not in self._shown:
            self._start(job.number, job.requests, extra)
        status = "running" if job.state == "succeeded" else _STATUS[job.state]  # until its results are on disk
        self._change(job.number, status, extra, _reason_text(job))
        if job.ended and job.state != "succeeded":
            self.end(job.number, status)

    def hold(self, number: int, why: str) -> None:
        """Show why a job is not submitted yet."""
        self._change(number, "pending", {"State": "queued"}, why)

    def refuse(self, number: int, why: str, status: Status = "failed") -> None:
        """Show that a job was not accepted, or not sent at all."""
        self._change(number, status, {"State": "not submitted"}, why)
        self.end(number, status)

    def end(self, number: int, status: Status) -> None:
        """Show that all items of a job have their outcomes."""
        self._tell(events.GroupEnded(self._clock.unix_s(), number, status))

    def recall(self, job: Job) -> None:
        """Show a job of an earlier process whose results were taken over."""
        failed = 0 if job.state == "succeeded" else job.requests
        ended_s = job.ended_s or job.updated_s
        self._tell(
            events.GroupRecalled(
                self._clock.unix_s(),
                job.number,
                _group_name(job.number),
                job.requests,
                failed,
                job.created_s,
                ended_s,
                "",
            )
        )
        self._change(job.number, _STATUS[job.state], {"Remote": job.remote, "State": job.state}, job.reason)

    def _start(self, number: int, items: int, extra: events.Extra) -> None:
        self._tell(events.GroupStarted(self._clock.unix_s(), number, _group_name(number), items, extra, lasts=True))

    def _change(self, number: int, status: Status, extra: events.Extra, error: str) -> None:
        now = (status, extra, error)
        if self._shown.get(number) != now:
            self._shown[number] = now
            self._tell(events.GroupChanged(self._clock.unix_s(), number, status, extra, error))


def _state_text(job: Job) -> str:
    total, pending = job.counts.get("requests", 0), job.counts.get("pending", 0)
    return f"running {total - pending}/{total}" if job.state == "running" and total else job.state


def _reason_text(job: Job) -> str:
    failed = job.counts.get("failed", 0)
    # They go into another job, and are not among this row's items any more.
    return f"{failed} failed, to be sent again" if job.state == "succeeded" and failed else job.reason


def _group_name(number: int) -> str:
    return f"Job {number}"
