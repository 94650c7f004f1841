"""Session commands: what a session is asked to do, whichever process runs it.

    POST /sessions/ID/commands --a row of its journal--> the engine that runs it, within 0.2 s --acknowledged-->
    GET  /sessions/ID/commands/NUMBER

Rule: of what runs, its own process acts, and the kernel may be busy meanwhile.
What has ended begins again only where it is a submission: the work of another
session is in the notebook or the script that made it.  What cannot work is
refused with the reason.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
from jupyter_server.auth.decorator import authorized
from tornado import web

from ipybatch.engine.data.masking import mask
from ipybatch.engine.store import commands, history, lease
from ipybatch.errors import JournalError
from ipybatch.server.catalogue import Catalogue
from ipybatch.server.handler import RESOURCE, Handler, Operation, Parameter
from ipybatch.server.refusal import Refusal
from ipybatch.server.run_rows import TAKEN_S, Row, can
from ipybatch.server.submission_rows import Conflict
from ipybatch.server.submission_store import Submissions
from ipybatch.server.wire import CommandAnswer, CommandRequest

LONGEST_S = 2.0  # that an answer waits
_LOOK_S = 0.03  # between two looks for what became of a command
_TRIES = 3  # a session that changes hands is asked again
_ASKER = "the Jupyter server"
_WAIT = Parameter(
    "wait", "Seconds to wait for what becomes of it, at most 2.", {"type": "number", "minimum": 0, "maximum": 2}
)


class CommandsHandler(Handler):
    """POST /sessions/ID/commands."""

    operations: ClassVar = {
        "POST": Operation(
            summary="Ask a session to do something; `Location` tells what becomes of it",
            answers={202: CommandAnswer},
            body=CommandRequest,
            parameters=(_WAIT,),
            refuses=(402, 404, 409, 415, 422, 503),
        )
    }

    @web.authenticated
    @authorized("execute", resource=RESOURCE)
    async def post(self, session: str) -> None:
        """Ask it."""
        request = await self.blocking(self.body, CommandRequest)
        wait_s = self.wait_s()
        check(request)
        catalogue, base = self.services.catalogue, self.request.path.rstrip("/")
        until_s = time.monotonic() + wait_s
        asked = await self.blocking(ask, catalogue, session, request)
        if isinstance(asked, CommandAnswer):  # a submission that is in the queue again
            self.services.submitted.set()
            at = base.partition("/sessions/")[0]
            self.answer(asked, 202, headers={"Location": f"{at}/submissions/{asked.id}"})
            return
        answer = await self.blocking(look, catalogue, session, asked)
        while answer.state == "waiting" and time.monotonic() < until_s:
            await asyncio.sleep(_LOOK_S)
            answer = await self.blocking(look, catalogue, session, asked)
        self.answer(answer, 202, headers={"Location": f"{base}/{asked}"})

    def wait_s(self) -> float:
        """Return how long to wait for what becomes of a command.

        Raises:
            Refusal: It is no number from 0 to 2.
        """
        given = self.parameter("wait", "0")
        try:
            wait_s = float(given)
        except ValueError:
            wait_s = math.nan
        if not 0 <= wait_s <= LONGEST_S:
            allowed = {"minimum": 0, "maximum": LONGEST_S}
            raise Refusal(
                422, f"wait must be from 0 to {LONGEST_S:g} seconds", field="wait", value=given, allowed=allowed
            )
        return wait_s


class CommandHandler(Handler):
    """GET /sessions/ID/commands/NUMBER."""

    operations: ClassVar = {
        "GET": Operation(summary="What became of a command", answers={200: CommandAnswer}, refuses=(404, 503))
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session: str, command: str) -> None:
        """Tell it."""
        if not (command.isascii() and command.isdecimal() and len(command) < 16):
            raise Refusal(404, "there is no such command")
        self.answer(await self.blocking(look, self.services.catalogue, session, int(command)))


def check(request: CommandRequest) -> None:
    """Refuse arguments that a verb does not have, or that cannot be.

    Raises:
        Refusal: Names the field.
    """
    for field, verb in (
        ("keys", "retry_failed"),
        ("concurrency", "adjust"),
        ("rates", "adjust"),
        ("start_at", "adjust"),
    ):
        if getattr(request, field) is not None and request.verb != verb:
            raise Refusal(422, f"{field} belongs to the verb {verb!r}", field=field, value=request.verb, allowed=[verb])
    if request.verb == "adjust":
        if request.concurrency is None and not request.rates and request.start_at is None:
            raise Refusal(
                422, "adjust needs concurrency, rates or start_at", field="concurrency", allowed={"minimum": 1}
            )
        if request.concurrency is not None and not 1 <= request.concurrency <= 1 << 31:
            msg = f"concurrency must be >= 1, got {request.concurrency}"
            raise Refusal(422, msg, field="concurrency", value=request.concurrency, allowed={"minimum": 1})
        for rate in request.rates or ():
            if not 0 < rate < math.inf:
                raise Refusal(422, f"rates must be > 0, got {rate:g}", field="rates", value=rate)


def ask(catalogue: Catalogue, id_: str, request: CommandRequest) -> int | CommandAnswer:
    """Ask a session to do something, and return the command's number; of a submission that has ended, the answer.

    Raises:
        Refusal: It cannot be done, or could not be asked; says why.
    """
    for _ in range(_TRIES):
        path, row = catalogue.row(id_)
        _, state, _, where = catalogue.judge(path, row)
        if not where:
            return _begin_again(path, row, state, request)
        _check_live(catalogue, row, where, request)
        given: dict[str, Any] = {}
        if request.verb == "adjust":
            given = {"concurrency": request.concurrency, "rates": request.rates}
            given |= {} if request.start_at is None else {"start_at": request.start_at}
        if asked := _insert(catalogue, path, row, request.verb, msgspec.json.encode(given).decode()):
            return asked
        catalogue.forget(path)
    raise Refusal(409, "the session changes hands just now", next_step="ask again")


def _insert(catalogue: Catalogue, path: Path, row: Row, verb: str, arguments: str) -> int:
    """Write a command, and return its number; 0 when that start is over.

    Raises:
        Refusal: The journal cannot be written; says why.
    """

    def unit(database: sqlite3.Connection) -> int:
        return commands.insert(database, verb, arguments, time.time(), _ASKER, row.id, row.epoch)

    try:
        return history.jot(path, unit)
    except JournalError as error:
        raise catalogue.refuse(path, error) from None


def _check_live(catalogue: Catalogue, row: Row, where: str, request: CommandRequest) -> None:
    if request.verb == "retry_failed":
        raise Refusal(
            409, f"the session is running {where}: what failed can be tried again once it has ended", field="verb"
        )
    if not row.takes_commands:
        raise Refusal(
            409,
            f"the session is running {where} with an older ipybatch, which takes no commands from elsewhere",
            field="verb",
            next_step=f"{_by_kernel(catalogue, row)[1]}, or use the panel in its notebook",
        )


def _begin_again(path: Path, row: Row, state: str, request: CommandRequest) -> CommandAnswer:
    """Put the submission of a session that has ended into the queue again.

    Raises:
        Refusal: That cannot be; says why.
    """
    verb = request.verb
    stands = "was interrupted" if state == "interrupted" else f"has ended: {state}"
    if state == "planned":
        stands = "has not begun"
    if verb not in ("resume", "retry_failed"):
        step = f"cancel submission {row.submission}" if row.is_queued and verb == "cancel" else ""
        raise Refusal(409, f"the session {stands}; there is nothing to {verb}", field="verb", next_step=step)
    if not row.submission:
        raise Refusal(
            409,
            f"the session {stands}, and its work is in the notebook or the script that made it",
            field="verb",
            next_step=f"run it there again, or BatchSession.open({row.name!r}, work=...): the same name goes on",
        )
    if request.keys is not None:
        raise Refusal(422, "keys cannot be given for a session that has ended", field="keys")
    if verb not in can(row, state, ""):  # type: ignore[arg-type]  # as the row has it
        why = "begins again by itself" if row.is_queued else "has nothing that could be tried again"
        raise Refusal(409, f"the session {stands}, and {why}", field="verb")
    try:
        again = Submissions(path).requeue(row.id, verb)
    except Conflict as error:
        raise Refusal(409, str(error), field="verb") from None
    if again is None:
        raise Refusal(409, f"the session {stands}, and its submission is not on record any more", field="verb")
    return CommandAnswer(id=row.submission, verb=verb, state="done", detail="it is in the queue again")


def look(catalogue: Catalogue, id_: str, command: int) -> CommandAnswer:
    """Return what became of a command.

    Raises:
        Refusal: There is no such session, or no such command of it; or its journal cannot be read.
    """
    path, run = catalogue.place(id_)

    def question(database: sqlite3.Connection) -> Any:
        has = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'command'").fetchone()
        asked = "SELECT verb, asked_s, taken_s, reply FROM command WHERE id = ? AND run = ?"
        return has and database.execute(asked, (command, run)).fetchone()

    found = catalogue.ask(path, None, question)
    if not found:
        raise Refusal(404, "there is no such command")
    verb, asked_s, taken_s, reply = found
    _, row = catalogue.row(id_)
    _, state, _, where = catalogue.judge(path, row)

    def told(how: Literal["done", "waiting"], detail: str, kernel: str | None = None) -> CommandAnswer:
        return CommandAnswer(id=str(command), verb=verb, state=how, detail=mask(detail), kernel=kernel)

    if taken_s is not None:
        if verb == "cancel" and where and not reply:
            return told("waiting", "it was taken: the session ends as soon as what runs has let go")
        return told("done", reply or (f"the session is {state}" if verb in _SHOWN else "it was done"))
    if not where:
        return told("done", "nobody runs the session any more")
    if time.time() - asked_s < TAKEN_S:
        return told("waiting", f"{lease.process_of(row.owner or '')} has not taken it yet")
    why = "it may be stopped, busy with code that holds Python's lock, or run an older ipybatch"
    kernel, step = _by_kernel(catalogue, row)
    return told("waiting", f"{lease.process_of(row.owner or '')} has not taken it yet: {why}; {step}", kernel)


_SHOWN = ("pause", "resume", "cancel")


def _by_kernel(catalogue: Catalogue, row: Row) -> tuple[str | None, str]:
    """Return the kernel that runs a session, and what can be done with it, in words."""
    kernel, notebook = catalogue.kernel_of(row)
    if kernel is None:
        return None, f"end {lease.process_of(row.owner or '')} if it has to stop"
    which = f"the kernel of {notebook}" if notebook else f"kernel {kernel}"
    return kernel, f"interrupt {which}, or shut it down"
