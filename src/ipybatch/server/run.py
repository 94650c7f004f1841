"""Run: a submission, in this process: a kernel that a server started for it, cron, or Slurm.

Rule: whatever ends this process, at whatever line, the next one goes on from
what the journal tells, and the credits are settled once.

    find the row in the default journal, or in any that is registered --> `take` it, and beat
    the template makes the session --> start --> `link` --> wait --> `end`: state, reason, credits

An interrupt cancels; so Jupyter's "Interrupt kernel" does, and its "Shut down"
or "Restart" does not.  A session that has ended already (the process before this one died just then)
is not run again: what is left of its submission is done.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.masking import describe, printable
from ipybatch.engine.store import history, lease, registration, run_store
from ipybatch.engine.store.run_store import Found
from ipybatch.errors import BatchError, JournalError
from ipybatch.jupyter.kernel import this_kernel
from ipybatch.notify import delivery
from ipybatch.server.notify_request import only_usable
from ipybatch.server.submission_rows import Ended, NoSuchSubmission, Row, RowState
from ipybatch.server.submission_store import Submissions
from ipybatch.server.templates import find_template
from ipybatch.server.wire import SubmissionRequest
from ipybatch.session.session import BatchSession

TOLD_S = 10.0  # between two lines of progress
SHUTDOWN_S = 1.0  # within which a kernel that was interrupted is told to end, if it is
_STATES: dict[str, Ended] = {"completed": "COMPLETED", "cancelled": "CANCELLED", "rolled_back": "ROLLED_BACK"}


def main(submission: str) -> None:
    """Run a submission in this kernel, and wait for its end.

    Raises:
        InputError: There is no such submission, it has ended, or it runs in another process.
        JournalError: The journal cannot be read or written.
    """
    with _outliving_shutdown():
        work(submission, kernel=this_kernel()[0])


@contextmanager
def _outliving_shutdown() -> Iterator[None]:
    """Tell an interrupt of this kernel, which cancels, from its shutdown, which Jupyter begins with an interrupt.

    At a shutdown nothing more is written: whoever takes the submission next goes on.
    """
    before = signal.getsignal(signal.SIGINT)

    def hear(number: int, frame: FrameType | None) -> None:
        until_s = time.monotonic() + SHUTDOWN_S
        while time.monotonic() < until_s:
            if _is_shut_down():
                os._exit(0)
            time.sleep(0.02)
        if callable(before):
            before(number, frame)

    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_shut_down() -> bool:
    """Say whether this kernel was told to end; another thread of ipykernel hears that."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return bool(getattr(shell, "exit_now", False))


def work(submission: str, *, journal: Path | None = None, kernel: str = "") -> Row:
    """Run a submission in this process, wait for its end, and return it as it ended.

    Args:
        journal: Where it is; default: the default one, or any that is registered.
        kernel: The id of this kernel; "" for none.

    Raises:
        InputError: There is no such submission, it has ended, or it runs in another process.
        JournalError: The journal cannot be read or written.
    """
    store = _store(submission, journal)
    held = store.take(submission, kernel)
    told = _Told(held)
    told.line(f"start {held.starts} of {held.requests:,} requests ({held.template})")
    beat = _Beat(store, held)
    try:
        with beat.beating():
            state, reason, used = _run(store, held, beat, told)
    except KeyboardInterrupt:
        session = beat.session
        if session is None:
            store.end(held, "CANCELLED", "it was interrupted before it began")
        elif session.state in events.ENDED:
            store.end(held, _ended(session.state), session.reason)
        else:
            store.end(held, "CANCELLED", "it was interrupted again while it was cancelled")
        raise
    except BatchError as error:
        state, reason, used = "FAILED", str(error), None
    except Exception as error:  # of the template
        state, reason, used = "FAILED", describe(error), None
    store.end(held, state, reason, used)
    if not kernel:  # no server may be there to send what is to be told
        delivery.deliverer.wake(store.path)
    told.line(f"{state} {reason}".rstrip())
    if kernel:  # it is shut down as soon as this is over
        delivery.deliverer.finish(delivery.EXIT_S, delivery.SENDING_S)
    return store.find(submission)


def _store(submission: str, journal: Path | None) -> Submissions:
    """Return the submissions of the journal that has it.

    Raises:
        NoSuchSubmission: None has.
        JournalError: The one that was named cannot be read.
    """
    first = Submissions(journal)
    if journal is not None:
        first.find(submission)
        return first
    for store in (first, *(Submissions(registered.asked) for registered in registration.registered())):
        try:
            store.find(submission)
        except (NoSuchSubmission, JournalError):
            continue
        return store
    msg = f"there is no submission {submission[:40]!r} in any journal of this user"
    raise NoSuchSubmission(msg)


class _Beat:
    """Beats of a row, from a thread of their own, until it is told to stop.

    Attributes:
        session: What is to be cancelled when the row is.
    """

    def __init__(self, store: Submissions, held: Row) -> None:
        self.session: BatchSession | None = None
        self._store, self._held = store, held
        self.stop = threading.Event()

    def run(self) -> None:
        """Beat, every `lease.BEAT_S`."""
        while not self.stop.wait(lease.BEAT_S):
            try:
                state = self._store.beat(self._held)
            except JournalError:
                continue  # the session's own lease tells what is wrong
            if state is None:
                return
            self.obey(state)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Do so meanwhile."""
        threading.Thread(target=self.run, name="ipybatch-submission", daemon=True).start()
        try:
            yield
        finally:
            self.stop.set()

    def obey(self, state: str | None) -> None:
        """Cancel the session where that was asked of its submission."""
        if state == "CANCELLING" and self.session is not None:
            self.session.cancel()


def _run(store: Submissions, held: Row, beat: _Beat, told: _Told) -> tuple[Ended, str, Decimal | None]:
    """Run its session to the end, unless it has ended already; return how, and the credits it has used, over all."""
    request, left_out = only_usable(msgspec.json.decode(store.request(held.id), type=SubmissionRequest))
    template = find_template(held.template)
    before = _found(store, held)
    session = template.session(request, name=held.name, journal=store.path)
    has_begun = before is not None and before.begun_s is not None and before.begun_s >= held.queued_s
    if has_begun and before is not None and before.state in events.ENDED - {"interrupted"}:
        store.link(held, before.run)
        return _ended(before.state), _also(before.reason, left_out), template.used(session, since_s=held.queued_s)
    stop = session.on(told.hear(session))
    if held.verb == "retry_failed" and not has_begun:
        session.retry_failed()
    else:
        # Whoever had it paused when the process before this one ended is to say that it goes on.
        session.start(paused=has_begun and before is not None and before.state == "paused")
    beat.session = session
    try:
        beat.obey(_linked(store, held))
    except KeyboardInterrupt:
        session.cancel()
        _linked(store, held)
    session.run(verbose=False)
    stop()
    return _ended(session.state), _also(session.reason, left_out), template.used(session, since_s=held.queued_s)


def _also(reason: str, left_out: str) -> str:
    return "; ".join(filter(None, (reason, left_out)))


def _found(store: Submissions, held: Row) -> Found | None:
    return history.look(store.path, lambda database, _: run_store.find(database, held.name))


def _linked(store: Submissions, held: Row) -> RowState | None:
    found = _found(store, held)
    return None if found is None else store.link(held, found.run)


def _ended(state: str) -> Ended:
    return _STATES.get(state, "FAILED")


class _Told:
    """Lines for whoever looks at the kernel's console, or reads cron's mail."""

    def __init__(self, held: Row) -> None:
        self._name = held.name
        self._next_s = time.monotonic() + TOLD_S

    def line(self, text: str) -> None:
        """Write one."""
        with suppress(OSError, ValueError):  # whoever read it has gone
            if sys.stdout is not None:
                sys.stdout.write(f"{time.strftime('%H:%M:%S')} {printable(f'{self._name}: {text}')}\n")
                sys.stdout.flush()

    def hear(self, session: BatchSession) -> Any:
        """Return a listener that tells the progress from time to time, and every change of state."""

        def listen(event: events.Event) -> None:
            is_due = isinstance(event, events.ItemEnded) and time.monotonic() >= self._next_s
            if not is_due and not isinstance(event, events.StateChanged):
                return
            self._next_s = time.monotonic() + TOLD_S
            counts = session.snapshot.counts
            total = "?" if counts.total is None else f"{counts.total:,}"
            failed = counts.failed + counts.timeout
            self.line(f"{session.state}, {counts.ended:,} of {total} done{f', {failed:,} failed' if failed else ''}")

        return listen
