"""Submissions: what is to run in a kernel of its own: made, listed, told, cancelled.

    POST /submissions --> check --> credits, key and row in one transaction --> 202, and the supervisor looks

`submit`, `find`, `page` and `command` block: routes call them in a thread, and
so do the aliases.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
from jupyter_server.auth.decorator import authorized
from tornado import web

from ipybatch.engine.data.masking import mask
from ipybatch.engine.feed.session_item import Verb
from ipybatch.engine.store.journal import open_journal
from ipybatch.server import submission_view
from ipybatch.server.cursor import from_cursor, to_cursor
from ipybatch.server.handler import CURSOR, IF_NONE_MATCH, LIMIT, RESOURCE, Handler, Operation, Parameter
from ipybatch.server.refusal import Refusal
from ipybatch.server.run_rows import can
from ipybatch.server.services import Services
from ipybatch.server.submission_order import canonical, to_order, to_quote
from ipybatch.server.submission_rows import (
    ENDED,
    Conflict,
    KeyUsed,
    NoSuchSubmission,
    Row,
)
from ipybatch.server.wire import CommandAnswer, CommandRequest, Quote, Submission, SubmissionPage, SubmissionRequest

KEY_LENGTH = 255
_Number = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]

KEY = Parameter(
    "Idempotency-Key",
    "A text of the client's own: the same request with the same key is one submission.",
    {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH},
    where="header",
)
_WAITING = Parameter("waiting", "Only those that wait to begin.", {"type": "string", "enum": ["0", "1"]})
_DRY_RUN = Parameter(
    "dry_run", "1: only what it would take; nothing is reserved.", {"type": "string", "enum": ["0", "1"]}
)


class SubmissionsHandler(Handler):
    """GET, POST /submissions."""

    operations: ClassVar = {
        "GET": Operation(
            summary="Submissions, the latest first, without their groups, errors and results",
            answers={200: SubmissionPage},
            refuses=(422, 503),
            parameters=(_WAITING, LIMIT, CURSOR),
        ),
        "POST": Operation(
            summary="Submit work that runs in a kernel of its own",
            answers={200: Quote, 202: Submission},
            refuses=(402, 409, 415, 422, 503),
            parameters=(_DRY_RUN, KEY),
            body=SubmissionRequest,
        ),
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """List them."""
        is_waiting = self.parameter("waiting", "0", allowed=("0", "1")) == "1"
        limit, cursor = self.limit(), self.parameter("cursor")
        listed = await self.blocking(page, self.services, limit, cursor, is_waiting)
        self.answer(listed, headers=self.page_link(listed.next))

    @web.authenticated
    @authorized("execute", resource=RESOURCE)
    async def post(self) -> None:
        """Make one, or tell what it would take."""
        key = self.request.headers.get("Idempotency-Key", "")
        is_dry = self.parameter("dry_run", "0", allowed=("0", "1")) == "1"
        request = await self.blocking(self.body, SubmissionRequest)
        if is_dry:
            self.answer(await self.checking(quote, self.services, request))
            return
        made = await self.checking(submit, self.services, request, key)
        self.services.submitted.set()
        self.answer(made, 202, headers={"Location": made.links["self"]})


class SubmissionHandler(Handler):
    """GET, DELETE /submissions/ID."""

    operations: ClassVar = {
        "GET": Operation(
            summary="One submission, with its groups, errors and results",
            answers={200: Submission},
            refuses=(404, 503),
            parameters=(IF_NONE_MATCH,),
        ),
        "DELETE": Operation(
            summary="Cancel a submission, whether it waits or runs",
            answers={202: CommandAnswer},
            refuses=(404, 409, 503),
        ),
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, submission: str) -> None:
        """Tell it."""
        self.answer(await self.blocking(find, self.services, submission), etag=True)

    @web.authenticated
    @authorized("execute", resource=RESOURCE)
    async def delete(self, submission: str) -> None:
        """Cancel it."""
        said = await self.blocking(command, self.services, submission, CommandRequest(verb="cancel"))
        self.services.submitted.set()
        self.answer(said, 202, headers={"Location": self.request.path})


class SubmissionCommandsHandler(Handler):
    """POST /submissions/ID/commands."""

    operations: ClassVar = {
        "POST": Operation(
            summary="Cancel a submission, whether it waits or runs; pause, resume or retry what it runs",
            answers={202: CommandAnswer},
            refuses=(402, 404, 409, 415, 422, 503),
            body=CommandRequest,
        ),
    }

    @web.authenticated
    @authorized("execute", resource=RESOURCE)
    async def post(self, submission: str) -> None:
        """Do it, or ask whoever runs it."""
        asked = await self.blocking(self.body, CommandRequest)
        said = await self.blocking(command, self.services, submission, asked)
        self.services.submitted.set()
        self.answer(said, 202, headers={"Location": self.request.path.removesuffix("/commands")})


def quote(services: Services, request: SubmissionRequest) -> Quote:
    """Return what a submission would take; nothing is reserved.

    Raises:
        Refusal: It cannot be submitted.
        BatchError: The same, as its template tells it.
    """
    with _refused():
        return to_quote(request, services.options)


def submit(services: Services, request: SubmissionRequest, key: str = "") -> Submission:
    """Make a submission, or return the one that this idempotency key has made.

    Raises:
        Refusal: It cannot be submitted, or is being made just now.
        BatchError: The same, as its template tells it; too few credits.
    """
    if key and (len(key) > KEY_LENGTH or not key.isprintable()):
        msg = f"Idempotency-Key must be a printable text of at most {KEY_LENGTH} characters"
        raise Refusal(422, msg, field="Idempotency-Key", value=key)
    with _alone(services, key), _refused():
        store = services.submissions()
        made = store.repeated(key, canonical(request)[1]) if key else None
        if made is None:
            made = store.create(to_order(request, services.options, idempotency=key))
        return submission_view.tell(services, store, made.as_created())


def find(services: Services, submission: str) -> Submission:
    """Return a submission as it stands.

    Raises:
        Refusal: There is none of this id.
        JournalError: The journal cannot be read.
    """
    with _refused():
        store = services.submissions()
        return submission_view.tell(services, store, store.find(submission))


def page(services: Services, limit: int, cursor: str = "", is_waiting: bool = False) -> SubmissionPage:
    """Return some of the submissions, the latest first.

    Args:
        is_waiting: Only those that wait.

    Raises:
        Refusal: The cursor is not one of ours.
        JournalError: The journal cannot be read.
    """
    before: int | None = from_cursor(cursor, _Number) if cursor else None
    store = services.submissions()
    found = store.page(limit + 1, before, waiting=is_waiting)
    items = [submission_view.tell(services, store, row, is_whole=False) for row in found[:limit]]
    return SubmissionPage(items=items, next=to_cursor(found[limit - 1].number) if len(found) > limit else None)


def command(services: Services, submission: str, asked: CommandRequest) -> CommandAnswer:
    """Cancel a submission that waits, ask the session of one that runs, or put one that has ended into the queue again.

    Raises:
        Refusal: There is none of this id, or it is not possible as it stands.
        BatchError: It could not be asked; too few credits.
    """
    with _refused():
        store = services.submissions()
        row, verb = store.find(submission), asked.verb
        if row.state in ENDED and verb in ("resume", "retry_failed") and row.run is not None:
            _check_again(services, store.path, row, verb)
            store.requeue(row.run, verb)
            return _said(row, verb, "it is in the queue again")
        if row.state in ENDED:
            msg = f"submission {row.id} has ended: {row.state}"
            raise Refusal(409, msg, field="verb", value=verb, next_step="submit it again: the same name goes on")
        if verb == "cancel":
            row = store.cancel(submission)
            if row.state in ENDED:
                return _said(row, verb, row.reason)
        if row.run is None or store.is_live(row) is False:
            if verb == "cancel":
                return _said(row, verb, "its kernel starts: it ends before it begins", is_done=False)
            raise Refusal(409, f"submission {row.id} has not begun: it can only be cancelled", field="verb", value=verb)
        if verb == "adjust" or asked.keys is not None:
            step = f"POST /ipybatch/api/v1/sessions/{services.catalogue.id_of(store.path, row.run)}/commands"
            raise Refusal(422, f"{verb} is asked of its session", field="verb", value=verb, next_step=step)
        from ipybatch.session import follower

        is_done = follower.command(open_journal(store.path), row.name, verb) == "done"
        return _said(row, verb, "" if is_done else "its session does so as soon as it can", is_done=is_done)


def _check_again(services: Services, journal: Path, row: Row, verb: Verb) -> None:
    """Refuse to begin an ended one again where that does nothing, or is of another one: as its session says.

    Raises:
        Refusal: It cannot be begun again.
    """
    stands, step = f"submission {row.id} has ended: {row.state}", "submit it again: the same name goes on"
    try:
        path, run = services.catalogue.row(services.catalogue.id_of(journal, row.run or 0))
    except Refusal as error:
        if error.status_code != HTTPStatus.NOT_FOUND:
            raise
        why = "its session was deleted"
        raise Refusal(409, f"{stands}, and {why}", field="verb", value=verb, next_step=step) from None
    _, state, _, where = services.catalogue.judge(path, run)
    if run.submission not in ("", row.id):
        why = f"its session is that of submission {run.submission}"
    elif where or run.is_queued or verb in can(run, state, ""):
        return  # the store says what keeps it
    else:
        why = "has nothing that could be tried again"
    raise Refusal(409, f"{stands}, and {why}", field="verb", value=verb, next_step=step)


def _said(row: Row, verb: str, detail: str, *, is_done: bool = True) -> CommandAnswer:
    return CommandAnswer(
        id=row.id, verb=verb, state="done" if is_done else "waiting", detail=mask(detail), kernel=row.kernel or None
    )


@contextmanager
def _alone(services: Services, key: str) -> Iterator[None]:
    """Let one request at a time be made with an idempotency key.

    Raises:
        Refusal: Another one is being made.
    """
    if key in services.creating:
        msg = "a request with this Idempotency-Key is being made just now"
        raise Refusal(409, msg, field="Idempotency-Key", value=key, next_step="ask again")
    if key:
        services.creating.add(key)
    try:
        yield
    finally:
        services.creating.discard(key)


@contextmanager
def _refused() -> Iterator[None]:
    """Turn what the store refuses into answers.

    Raises:
        Refusal: The store refused.
    """
    try:
        yield
    except NoSuchSubmission:
        step = "GET /ipybatch/api/v1/submissions lists those there are"
        raise Refusal(404, "there is no such submission", next_step=step) from None
    except KeyUsed as error:
        raise Refusal(422, str(error), field="Idempotency-Key", next_step="send a new key") from None
    except RecursionError:
        raise Refusal(422, "the body must not be nested so deeply", field="body") from None
    except Conflict as error:
        raise Refusal(409, str(error), field="name", next_step="cancel it, wait, or choose another name") from None
