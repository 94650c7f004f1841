"""Submission view: a submission as its readers are told of it: what its row says, and what its session does.

row PENDING                         PENDING
row RUNNING, its owner lives        the session's state, once it has begun: RUNNING or PAUSED
             its owner is gone      PENDING: it is started again
             its owner is silent    UNKNOWN: its machine sleeps, or cannot be seen from here
row ended                           as it ended; where its session was begun again since then, as that stands
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.masking import mask, printable
from ipybatch.engine.feed.session_item import GroupItem, SessionItem, iso
from ipybatch.engine.store import lease
from ipybatch.server import record
from ipybatch.server import submission_rows as rows
from ipybatch.server.handler import PAGE
from ipybatch.server.refusal import Refusal, without_paths
from ipybatch.server.results import file_names
from ipybatch.server.services import Services
from ipybatch.server.submission_rows import ENDED, PRIORITIES, Row
from ipybatch.server.wire import Credits, ErrorItem, ErrorPage, GroupPage, Submission, SubmissionState

if TYPE_CHECKING:
    from ipybatch.server.submission_store import Submissions

_FILES = 1000  # as many are told
_REST = 20  # groups and errors of a live session are read again after so many times the time that it took
_LIVE: dict[str, SubmissionState] = {"running": "RUNNING", "paused": "PAUSED"}
_OVER: dict[str, SubmissionState] = {
    "completed": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "rolled_back": "ROLLED_BACK",
}


class _Facts(msgspec.Struct):
    """What the journal has beside the row.

    Attributes:
        is_latest: Whether none of a later submission goes on with its session.
        ended_s: When its session's run ended last; None for not yet.
        used: The credits that were taken for it.
        waits_for: How many others must end before it begins; None for one that does not wait.
    """

    is_latest: bool = True
    ended_s: float | None = None
    used: float = 0.0
    waits_for: int | None = None


def tell(services: Services, store: Submissions, row: Row, *, is_whole: bool = True) -> Submission:
    """Return a submission as it stands.

    Args:
        is_whole: With its groups, errors and results; a list goes without.

    Raises:
        JournalError: The journal cannot be read.
    """
    base = f"{services.app.base_url.rstrip('/')}/ipybatch/api/v1"
    facts = store.read(lambda database: _facts(database, row, services.options.max_running), _Facts())
    session = _session(services, store, row)
    state, reason = _stands(store, row, session, facts)
    counts = Counts(pending=row.requests, total=row.requests) if session is None else session.counts
    links = {"self": f"{base}/submissions/{row.id}", "commands": f"{base}/submissions/{row.id}/commands"}
    if session is not None:
        links |= {"session": f"{base}/sessions/{session.id}", "results": f"{base}/sessions/{session.id}/results.csv"}
    groups, errors, results = _parts(services, session, base) if is_whole and session is not None else ([], [], [])
    return Submission(
        id=row.id,
        name=printable(row.name),
        template=row.template,
        state=state,
        reason=without_paths(mask(reason)),
        created=iso(row.created_s),
        ended=None if row.ended_s is None else iso(row.ended_s),
        start_at=None if row.start_at_s is None else iso(row.start_at_s),
        priority=PRIORITIES[row.priority],
        request_count=row.requests,
        counts=counts,
        progress=round(100 * counts.ended / counts.total, 1) if counts.total else 0.0,
        eta_s=None if session is None else session.eta_s,
        starts=row.starts,
        groups=groups,
        errors=errors,
        results=results,
        credits=_credits(store, row, facts),
        usd=None if session is None else session.usd,
        session=None if session is None else session.id,
        links=links,
        waits_for=facts.waits_for,
    )


def _facts(database: sqlite3.Connection, row: Row, max_running: int) -> _Facts:
    from ipybatch.gemini.money.credits import used_for

    used = float(used_for(database, row.account, rows.reference_of(row.id))) if row.credits else 0.0
    if row.run is None:
        return _Facts(used=used, waits_for=rows.waits_for(database, row, max_running, time.time()))
    latest = rows.of_run(database, row.run)
    (ended_s,) = database.execute("SELECT ended_s FROM run WHERE id = ?", (row.run,)).fetchone() or (None,)
    return _Facts(
        is_latest=latest is None or latest.id == row.id,
        ended_s=ended_s,
        used=used,
        waits_for=rows.waits_for(database, row, max_running, time.time()),
    )


def _session(services: Services, store: Submissions, row: Row) -> SessionItem | None:
    if row.run is None:
        return None
    try:
        return services.catalogue.item(services.catalogue.id_of(store.path, row.run))
    except Refusal as refusal:
        if refusal.status_code == 404:  # its session was deleted
            return None
        raise


def _stands(store: Submissions, row: Row, session: SessionItem | None, facts: _Facts) -> tuple[SubmissionState, str]:
    if row.state in ENDED:
        return _ended(row, session if facts.is_latest else None, facts)
    if row.state == "PENDING":
        return "PENDING", row.reason
    is_live = store.is_live(row)
    if is_live is None:
        return "UNKNOWN", f"{lease.process_of(row.owner or '')} was last heard of at {iso(row.beat_s)}"
    if row.state == "CANCELLING":
        return ("RUNNING" if is_live else "CANCELLED"), "it was asked to cancel"
    if not is_live:
        return "PENDING", f"{row.reason or rows.silent(row.owner)}: it is started again"
    begun = session if session is not None and session.where else None
    return ("RUNNING", "its kernel starts") if begun is None else (_LIVE.get(begun.state, "RUNNING"), begun.reason)


def _ended(row: Row, session: SessionItem | None, facts: _Facts) -> tuple[SubmissionState, str]:
    """Return how one stands that has ended; whoever has its session may have begun it again since then."""
    if session is not None and session.where:
        return _LIVE.get(session.state, "RUNNING"), session.reason
    if session is not None and session.state in _OVER and (facts.ended_s or 0.0) > (row.ended_s or 0.0):
        return _OVER[session.state], session.reason
    return _OVER[row.state.lower()], row.reason


def _credits(store: Submissions, row: Row, facts: _Facts) -> Credits | None:
    if row.credits is None:
        return None
    balance, available = store.balance(row.account)
    return Credits(
        account=row.account,
        cost=float(row.credits),
        used=facts.used if row.state in ENDED else None,
        balance=float(balance),
        available=float(available),
    )


def _parts(services: Services, session: SessionItem, base: str) -> tuple[list[GroupItem], list[ErrorItem], list[str]]:
    """Return the first groups and errors of a session, and the addresses of its files."""
    catalogue, is_live = services.catalogue, bool(session.where)
    path, run = catalogue.row(session.id)

    def groups(database: sqlite3.Connection) -> GroupPage:
        return record.groups(database, run, is_live=is_live, limit=PAGE, cursor="")

    def errors(database: sqlite3.Connection) -> ErrorPage:
        return record.errors(database, run, limit=PAGE, cursor="")

    def files(database: sqlite3.Connection) -> list[str]:
        return [
            f"{base}/sessions/{session.id}/files/{quote(name, '')}" for name in file_names(database, run.id, _FILES)
        ]

    rest = _REST if is_live else 0.0
    grouped = catalogue.ask(path, ("groups", run.id, is_live, PAGE, ""), groups, rest=rest).items
    urls = catalogue.ask(path, ("files of", session.id), files, rest=rest)
    if not session.counts.failed + session.counts.timeout:
        return grouped, [], urls
    return grouped, catalogue.ask(path, ("errors of", session.id), errors, rest=rest).items, urls
