"""Batch jobs in the journal, the items in them, and their rows in the panel's table.

Rule: a job is on disk before it is sent.  Its state says what is known of it, so that a restart knows what may be sent
again::

    intent ----> unknown ----> pending ----> running ----> succeeded
       |            |             ^                        failed
       |            |  found      |                        cancelled
       |            `-------------'                        expired
       `-- withdrawn: nothing was sent

``unknown`` is written before the request is sent, and only over ``intent``: of two processes with the same intent one
sends it.  Only the service's own list leads out of ``unknown``.

One subject, hence its length: jobs on record, and where each item is.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.events import Event, Status
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.notice import Notice
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import key_value
from ipybatch.engine.store import outbox
from ipybatch.engine.store.journal import Journal, Unit, to_disk
from ipybatch.errors import Fenced, InputError, JournalError
from ipybatch.gemini.service.api import RemoteState

JobState = Literal["intent", "unknown"] | RemoteState
ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled", "expired"})
KEPT_S = 172_800.0  # of results; Source: https://ai.google.dev/gemini-api/docs/files (2026-11-30): 48 hours
EXPIRES = "Expires in"  # a column of the panel: a time, of which it shows what is left
CANCELLED = "cancelled here"  # how the reason of a job begins that was cancelled by us
CANCELLING = f"{CANCELLED}, and still running there"  # of one that runs on for a while
_COLUMNS = (
    "display_name, session, number, model, remote, state, file, created_s, updated_s, ended_s, requests, reason, keys,"
    " collected, account, bound_usd, look, answers, rows, is_released, labels"
)
_FLAGS = ("collected", "is_released")
_NEVER_SENT = "(remote = '' AND state IN ('intent', 'failed') AND NOT is_released)"
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


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A batch job at the service.

    Attributes:
        display_name: Unique name that we give it; our only handle.
        session: Name of its session.
        number: Number of its group in the session.
        model: Name of the model.
        keys: Keys of the items, in the order sent.
        state: What is known of the job.
        remote: The service's name for it, ``batches/ID``; "" until it is known.
        file: The uploaded requests, ``files/ID``; "" before the upload, and after the file was deleted.
        created_s: Time of the intent, Unix time.
        updated_s: Time of the last change in the journal, Unix time.
        ended_s: Time of the end, Unix time: as the service tells it, else when it was first seen; None before.
        reason: Reason for the state, in one line.
        collected: Whether all of its results are recorded.
        account: Hash of the key that sent it: to another key it is not there; "" if it is not known.
        bound_usd: Most that it may cost, USD; None if it is not known.
        look: Why the last look at it failed; "" after one that did not.
        answers: Number of its items that were answered, as the service told last; None if it never did.
        rows: Number of rows of its output, answers and errors, at the last look; None before its results were read.
        is_released: Whether the user allowed that what it did not answer is sent again.
        labels: Operation and project of each item; one pair for all where they are the same.
        counts: Number of requests by state, as last reported by the service; not in the journal.
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
    account: str = ""
    bound_usd: float | None = None
    look: str = ""
    answers: int | None = None
    rows: int | None = None
    is_released: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    counts: Mapping[str, int] = {}

    @property
    def requests(self) -> int:
        """Number of items."""
        return len(self.keys)

    @property
    def ended(self) -> bool:
        """Whether the job has ended at the service."""
        return self.state in ENDED

    @property
    def sent(self) -> bool:
        """Whether the job may have reached the service: then it is never sent again."""
        return bool(self.remote) or self.state not in ("intent", "failed") or self.is_released

    @property
    def was_cancelled_here(self) -> bool:
        """Whether we asked for its cancellation, in this process or an earlier one."""
        return self.reason.startswith(CANCELLED)

    def as_cancelled_here(self) -> Job:
        """Return it with the note that we asked for its cancellation, unless it has ended otherwise."""
        if self.was_cancelled_here or self.state in ENDED - {"cancelled"}:
            return self
        reason = f"{CANCELLED}: {self.reason.removeprefix('cancelled: ')}" if self.ended else CANCELLING
        return msgspec.structs.replace(self, reason=reason)

    @property
    def expires_s(self) -> float | None:
        """Unix time at which results are deleted that are not collected yet; None if there are none."""
        has_results = self.ended_s is not None and (self.state == "succeeded" or bool(self.rows))
        return self.ended_s + KEPT_S if has_results and self.ended_s is not None and not self.collected else None

    def told_answers(self, counts: Mapping[str, int]) -> int | None:
        """Return how many of its items were answered as the service tells; None where its numbers tell nothing."""
        successful, failed = counts.get("successful", 0), counts.get("failed", 0)
        if min(successful, failed) < 0 or successful + failed > self.requests:
            return None
        return successful if successful + failed or counts.get("requests") == self.requests else None

    @property
    def is_held(self) -> bool:
        """Whether items of it wait for the user's word: it may have been paid for, and is not collected."""
        return not self.collected and (
            self.state == "unknown" or self.lacks_answers or (bool(self.remote) and self.state in ("expired", "failed"))
        )

    @property
    def lacks_answers(self) -> bool:
        """Whether it succeeded, and its results hold fewer answers than it has items."""
        return self.state == "succeeded" and self.rows is not None and self.rows < self.requests

    @property
    def digest(self) -> str:
        """A short hash of its requests."""
        return self.display_name.rsplit("-", 2)[-2]


def display_name(session: str, number: int, digest: str) -> str:
    """Return a unique name: a slug of the session, the number, a hash of the requests, a random part."""
    slug = re.sub(r"[^a-z0-9]+", "-", mask(session).lower()).strip("-")[:40] or "batch"
    return f"{slug}-{number}-{digest[:8]}-{secrets.token_hex(6)}"


def digest_of(model: str, requests: Iterable[bytes]) -> str:
    """Return the hash of a job's requests."""
    found = hashlib.blake2b(model.encode(), digest_size=4)
    for request in requests:
        found.update(len(request).to_bytes(8, "big"))
        found.update(request)
    return found.hexdigest()


class JobStore:
    """The batch jobs of a journal.

    Args:
        journal: The journal.
        clock: A virtual clock stands still while a commit is awaited.
    """

    def __init__(self, journal: Journal, clock: Clock | None = None) -> None:
        self._journal = journal
        self._clock = clock or SystemClock()

    async def intend(self, job: Job, *, once: bool = False, instead_of: Job | None = None) -> Job:
        """Record that a job is about to be submitted; the record survives a power cut.

        Args:
            once: Reject the job if one of this session and number was, or is being, submitted.
            instead_of: An intent that is deleted in the same step: its requests, and its file, are now this job's.

        Raises:
            InputError: There is such a job.
            Fenced: ``instead_of`` is no intent any more.
        """
        now_s = self._clock.unix_s()
        new = msgspec.structs.replace(job, state="intent", created_s=now_s, updated_s=now_s, reason=mask(job.reason))
        place = job.session, job.number
        places = ", ".join(f":{name}" for name in _COLUMNS.split(", "))

        def unit(database: sqlite3.Connection) -> bool | None:
            if once and _jobs(database, "WHERE session = ? AND number = ? AND NOT " + _NEVER_SENT, place):
                return False
            if instead_of is not None and not _delete(database, instead_of.display_name, only="intent"):
                return None
            if once:
                database.execute(f"DELETE FROM job WHERE session = ? AND number = ? AND {_NEVER_SENT}", place)  # noqa: S608  # a constant
            database.execute(f"INSERT INTO job ({_COLUMNS}) VALUES ({places})", _row(new))  # noqa: S608  # constants of ours
            return True

        written = await self._commit(unit, durable=True)
        if written is None:
            raise _taken_over(job)
        if not written:
            msg = f"job {job.number} of {job.session!r} was submitted already: wait for it, or choose another name="
            raise InputError(msg)
        return new

    async def send(self, job: Job) -> Job:
        """Record that a job's request is sent now: from here on it may have been accepted.

        Raises:
            Fenced: Another process took the intent over.
        """
        return await self._change(job, state="unknown", reason="sent, not confirmed", only="intent", durable=True)

    async def hold(self, job: Job, reason: str) -> Job:
        """Record that the service did not accept a job for now: it is an intent again.

        Raises:
            Fenced: The job is no longer in the journal, or was found meanwhile.
        """
        return await self._change(job, state="intent", reason=reason, only="unknown")

    async def put(self, job: Job, *, only: JobState | None = None) -> Job:
        """Record the present state of a job.

        Args:
            only: The state that it must be in on record.

        Raises:
            Fenced: The job is no longer in the journal, or not in that state.
        """
        return await self._change(job, only=only)

    async def withdraw(self, job: Job) -> None:
        """Delete an intent of which nothing was sent, or a job that the user gave up."""
        await self._commit(lambda database: _delete(database, job.display_name))

    async def collect(self, job: Job) -> Job:
        """Record that all results of a job are recorded.

        Raises:
            Fenced: The job is no longer in the journal.
        """
        return await self._change(job, collected=True)

    def release(self, session: str, numbers: Sequence[int]) -> None:
        """Record that the user allows jobs' items without an answer to be sent again."""
        places = [(session, number) for number in numbers]
        query = "UPDATE job SET is_released = 1 WHERE session = ? AND number = ?"
        self._journal.write(lambda database: database.executemany(query, places).rowcount)

    def of_session(self, session: str) -> list[Job]:
        """Return all jobs of a session, by number."""
        return self.find("WHERE session = ?", (session,))

    def named(self, name: str) -> Job | None:
        """Return the job with this display name or remote name, or None."""
        found = self.find("WHERE display_name = ? OR (remote = ? AND remote != '')", (name, name))
        return found[0] if found else None

    def find(self, where: str = "", values: Sequence[Any] = ()) -> list[Job]:
        """Return the jobs that meet an SQL condition, oldest first."""
        with self._journal.reader() as database:
            return _jobs(database, where, values)

    async def _change(self, job: Job, *, only: JobState | None = None, durable: bool = False, **fields: Any) -> Job:
        now_s = self._clock.unix_s()
        changed = msgspec.structs.replace(job, updated_s=now_s, **fields)
        if changed.ended:  # by our clock it ended between its creation and now
            ended_s = now_s if changed.ended_s is None else max(changed.created_s, min(changed.ended_s, now_s))
            changed = msgspec.structs.replace(changed, ended_s=ended_s)
        changed = msgspec.structs.replace(changed, reason=mask(changed.reason))
        if not await self._commit(lambda database: _update(database, changed, only), durable=durable):
            raise _taken_over(job)
        if changed.expires_s is not None:
            outbox.announce(self._journal)
        return changed

    async def _commit(self, unit: Unit, *, durable: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        written: asyncio.Future[Any] = loop.create_future()

        def tell(result: Any, error: JournalError | None) -> None:
            loop.call_soon_threadsafe(_resolve, written, result, error)

        self._clock.hold(+1)
        try:
            self._journal.submit(unit, tell)
            result = await written
            if durable:
                await asyncio.to_thread(to_disk, self._journal.path)
        finally:
            self._clock.hold(-1)
        return result


def jobs_of(database: sqlite3.Connection, session: str) -> list[Job]:
    """Return all jobs of a session, by number."""
    return _jobs(database, "WHERE session = ?", (session,))


def _jobs(database: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Job]:
    query = f"SELECT {_COLUMNS} FROM job {where} ORDER BY created_s, session, number"  # noqa: S608  # constants of ours
    return [_from_row(row) for row in database.execute(query, values)]


def _row(job: Job) -> dict[str, Any]:
    fields = {name: getattr(job, name) for name in _COLUMNS.split(", ")}
    flags = {name: int(getattr(job, name)) for name in _FLAGS}
    return {
        **fields,
        **flags,
        "keys": msgspec.json.encode(job.keys),
        "labels": msgspec.json.encode(job.labels).decode(),
    }


def _from_row(row: Sequence[Any]) -> Job:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    del fields["requests"]
    fields |= {name: bool(fields[name]) for name in _FLAGS}
    fields["keys"] = msgspec.json.decode(fields["keys"], type=tuple[str, ...])
    fields["labels"] = msgspec.json.decode(fields["labels"], type=tuple[tuple[str, str], ...])
    return Job(**fields)


def _update(database: sqlite3.Connection, job: Job, only: JobState | None) -> bool:
    places = ", ".join(f"{name} = :{name}" for name in _COLUMNS.split(", ")[1:])
    query = f"UPDATE job SET {places} WHERE display_name = :display_name AND state = coalesce(:only, state)"  # noqa: S608
    if database.execute(query, {**_row(job), "only": only}).rowcount != 1:
        return False
    if (expires_s := job.expires_s) is None:
        outbox.drop(database, "expiring", job.display_name)
    else:
        notice = Notice(
            kind="expiring",
            name=job.session,
            state="running",
            at_s=job.updated_s,
            job=job.number,
            requests=job.requests,
            expires_s=expires_s,
        )
        outbox.foresee(database, job.session, notice, job.display_name)
    return True


def _delete(database: sqlite3.Connection, name: str, only: JobState | None = None) -> bool:
    query = "DELETE FROM job WHERE display_name = ? AND state = coalesce(?, state)"
    if database.execute(query, (name, only)).rowcount != 1:
        return False
    outbox.drop(database, "expiring", name)
    return True


def _taken_over(job: Job) -> Fenced:
    return Fenced(f"job {job.display_name} was taken over by another process, which submits it")


def _extra(job: Job, state: str) -> events.Extra:
    expires_s = job.expires_s
    until = "" if expires_s is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires_s))
    return {"Remote": job.remote.removeprefix("batches/"), "State": state, EXPIRES: until}


def _resolve(written: asyncio.Future[Any], result: Any, error: JournalError | None) -> None:
    if written.done():  # the waiting task was cancelled
        return
    if error is None:
        written.set_result(result)
    else:
        written.set_exception(error)


class JobIndex:
    """Index of a session's items by job, and of results that are not recorded yet; to be used on one event loop.

        added --handed out--> owed --recorded--> collected
                  |
                  `--> kept: some of its items have not been asked for yet, or will be again

    Rule: a billed answer can be fetched again until its item is on disk.

    Attributes:
        kept: Jobs that succeeded and still have results, by number.
    """

    def __init__(self) -> None:
        self.kept: dict[int, Job] = {}
        self._where: dict[str, int] = {}  # job number by the item's key in the job
        self._owed: dict[int, dict[Any, str]] = {}  # results not on disk: by item, the key in the job
        self._handed: dict[int, Job] = {}

    def of(self, key: str) -> int | None:
        """Return the number of the job that holds an item; None if the item is still to be sent."""
        return self._where.get(key)

    def add(self, job: Job) -> None:
        """Add a job's items; they no longer count as items of an earlier job."""
        self._where.update(dict.fromkeys(job.keys, job.number))

    def keep(self, job: Job) -> None:
        """Add a job whose results can be fetched."""
        self.add(job)
        self.kept[job.number] = job

    def retain(self, job: Job) -> None:
        """Keep a job whose items were added before: those that are in another job by now stay there."""
        self.kept[job.number] = job

    def drop(self, job: Job) -> None:
        """Remove a job without results: its items have to be sent again."""
        self.kept.pop(job.number, None)
        for key in job.keys:
            self.release(job.number, key)

    def release(self, number: int, key: str) -> None:
        """Remove an item without an answer from a job, so that it may go into another one."""
        if self._where.get(key) == number:
            del self._where[key]

    def owe(self, number: int, key: str, item: str) -> None:
        """Record that an item's answer was handed out."""
        self._owed.setdefault(number, {})[key_value(item)] = key

    def handed_out(self, job: Job) -> None:
        """Record that all pending items of a job have their answers."""
        self.kept[job.number] = self._handed[job.number] = job

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Handle outcomes that are on disk; a cancelled item may ask for its answer again."""
        done = {outcome.key for outcome in outcomes if outcome.status in ("completed", "failed")}
        for number, owed in self._owed.items():
            for item in done & owed.keys():
                self.release(number, owed.pop(item))

    def settled(self) -> list[tuple[Job, bool]]:
        """Return, once, the jobs whose answers are all on disk, and whether all of their items are answered."""
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
    """Publishes the state of a session's jobs, as rows of the panel's table, whenever it changes."""

    def __init__(self, tell: Callable[[Event], None], clock: Clock) -> None:
        self._tell, self._clock = tell, clock
        self._shown: dict[int, tuple[Status, events.Extra, str]] = {}

    def queue(self, number: int, items: int) -> None:
        """Show a job that is not submitted yet."""
        self._start(number, items, {"Remote": "", "State": "queued", EXPIRES: ""})
        self._change(number, "pending", {}, "")

    def show(self, job: Job) -> None:
        """Show a job as the service reports it."""
        total, pending, failed = (job.counts.get(name, 0) for name in ("requests", "pending", "failed"))
        state = f"running {total - pending}/{total}" if job.state == "running" and total else job.state
        # The failed items go into another job and no longer count in this row.
        reason = f"{failed} failed, to be sent again" if job.state == "succeeded" and failed else job.reason
        if job.look:  # in a column that changes with the next look, as an error does not
            state = f"{state}, last look failed: {job.look}"
        extra = _extra(job, state)
        if job.number not in self._shown:
            self._start(job.number, job.requests, extra)
        status = "running" if job.state == "succeeded" else _STATUS[job.state]  # until its results are on disk
        self._change(job.number, status, extra, reason)
        if job.ended and job.state != "succeeded":
            self.end(job.number, status)

    def collect(self, job: Job) -> None:
        """Show that all results of a job are recorded: nothing of it expires any more."""
        status: Status = "running" if job.state == "succeeded" else _STATUS[job.state]
        whole = msgspec.structs.replace(job, collected=True)
        self._change(job.number, status, _extra(whole, job.state), job.reason)

    def note(self, job: Job, why: str) -> None:
        """Show what is the matter with the results of an ended job, which is looked at again."""
        self._change(job.number, "running", _extra(job, why), "")

    def hold(self, number: int, why: str) -> None:
        """Show why a job is not submitted yet."""
        self._change(number, "pending", {"State": "queued"}, why)

    def refuse(self, number: int, why: str, status: Status = "failed") -> None:
        """Show that a job was rejected, or not sent at all."""
        self._change(number, status, {"State": "not submitted"}, why)
        self.end(number, status)

    def end(self, number: int, status: Status) -> None:
        """Show that all items of a job have their outcomes."""
        self._tell(events.GroupEnded(self._clock.unix_s(), number, status))

    def recall(self, job: Job) -> None:
        """Show a job of an earlier process that has ended."""
        failed = 0 if job.state == "succeeded" else job.requests
        ended_s = job.ended_s or job.updated_s
        self._tell(
            events.GroupRecalled(
                self._clock.unix_s(),
                job.number,
                f"Job {job.number}",
                job.requests,
                failed,
                job.created_s,
                ended_s,
                "",
            )
        )
        self._change(job.number, _STATUS[job.state], _extra(job, job.state), job.reason)

    def _start(self, number: int, items: int, extra: events.Extra) -> None:
        self._tell(events.GroupStarted(self._clock.unix_s(), number, f"Job {number}", items, extra, lasts=True))

    def _change(self, number: int, status: Status, extra: events.Extra, error: str) -> None:
        now = (status, extra, error)
        if self._shown.get(number) != now:
            self._shown[number] = now
            self._tell(events.GroupChanged(self._clock.unix_s(), number, status, extra, error))
