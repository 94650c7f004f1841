"""Delivery: what is due in outboxes is sent, by one process at a time, at least once.

    session's process   a thread, woken by each commit that put something there; a script waits some seconds for it
    Jupyter server      beside its supervisor: whatever other processes left, and sessions whose process died
    command line        python -m ipybatch notify deliver, for cron

        outbox --claim, committed--> send --settle, committed--> sent, later, or given up

Nothing here waits on the engine's loop, and nothing that goes wrong here is
the session's: it goes on, and the outbox tells it.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import re
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipybatch.engine.data.fork import after_fork
from ipybatch.engine.data.masking import describe
from ipybatch.engine.data.notice import Notice
from ipybatch.engine.store import history, registration
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import outbox as rows
from ipybatch.engine.store.outbox import DeliveryState, Message
from ipybatch.engine.store.schema import ids
from ipybatch.errors import BatchError, InputError, JournalError
from ipybatch.notify import addresses, channel_list, people, rests, texts, webhook
from ipybatch.notify.addresses import MAIL, WEBHOOK, Channel
from ipybatch.notify.parcel import NotSent, Parcel
from ipybatch.notify.session_json import session_of

if TYPE_CHECKING:
    import pandas as pd

EXIT_S = 5.0  # how long a script's end waits until what is due was sent
SENDING_S = 20.0  # and then for what is being sent: without its record another process would send it once more
AT_ONCE = 8  # messages that are sent at the same time
TO_ONE = 2  # of them to one channel
LOOK_S = 0.2  # between two looks at what became due, while some are being sent
LONGEST_REST_S = 300.0  # between two looks while something waits: clocks are set, machines sleep, and rests are ended
AGAIN_S = 5.0  # until a journal is looked at again that could not be
SETTLE_S = 1.0  # between two tries to record what was sent, where the journal cannot be written
RESULTS = 200_000  # items: of more, no results are attached

_log = logging.getLogger(__name__)
_unrecorded: set[str] = set()  # ids of messages that this process sent, and of which no journal tells yet
_ENDS = ("finished", "failed", "cancelled")


def deliver(journal: str | Path | None = None) -> int:
    """Send now what is due, and return how many messages were sent; what fails is tried again later.

    Sessions whose process died are told too, where they asked for it.  A Jupyter server with the extension does this
    by itself, and so does each session for its own messages.

    Args:
        journal: Only what this one holds; default: all that this user's processes have opened since the machine
            started, and the default one.

    Raises:
        JournalError: ``journal`` cannot be read.
    """
    sent = 0
    for path in [Path(journal)] if journal is not None else _everywhere():
        try:
            sent += Round(path).run().sent
        except JournalError as error:
            if journal is not None:
                raise
            if not isinstance(error, history.Gone):
                _log.warning("%s", error)
    return sent


def outbox(journal: str | Path | None = None) -> pd.DataFrame:
    """Return the latest messages, oldest first: at (UTC), session, kind, channel, state, attempts, due, error, id.

    ``state`` is "waiting", "sent" or "given up"; ``session`` of kind "skipped" or "asks" is a schedule's name.

    Args:
        journal: Path of the journal; default: ``IPYBATCH_JOURNAL``, else the user's data folder.

    Raises:
        JournalError: It cannot be read.
    """
    import pandas as pd

    found, held = read_messages(None if journal is None else Path(journal)), rests.in_force()
    due = [max(told.due_s, held.get(told.channel, 0.0)) if told.state == "waiting" else told.due_s for told in found]
    columns = {
        "at": pd.to_datetime([message.created_s for message in found], unit="s", utc=True).round("ms"),
        "session": [message.notice.name for message in found],
        "kind": [message.kind for message in found],
        "channel": [message.channel for message in found],
        "state": [message.state for message in found],
        "attempts": [message.attempts for message in found],
        "due": pd.to_datetime(due, unit="s", utc=True).round("ms"),
        "error": [message.error for message in found],
        "id": [message.id for message in found],
    }
    return pd.DataFrame(columns)


def read_messages(journal: Path | None) -> list[Message]:
    """Return the latest messages of a journal, oldest first; none where it is not there.

    Raises:
        JournalError: It cannot be read.
    """
    path = journals.resolved(journal or journals.default_path())
    with suppress(history.Gone):
        return history.look(path, lambda database, _: rows.read(database) if rows.has_table(database) else [])
    return []


def test_channel(name: str) -> None:
    """Send a message to a channel now, to see whether it arrives; if so, its receiver is left alone no longer.

    Raises:
        InputError: There is no such channel, or it is not what it must be.
        NotSent: It was refused, or could not be sent.
        MissingExtra: What it needs is not installed.
    """
    channel_list.check_channels([name], "name")
    now_s = time.time()
    notice = Notice(kind="test", name="ipybatch", state="planned", at_s=now_s)
    id_ = f"test{os.urandom(10).hex()}"
    try:
        _send(addresses.load(name), _parcel(id_, notice))
    except NotSent as refusal:
        if refusal.wait_s:
            rests.begin(name, refusal.wait_s)
        raise
    with suppress(OSError):
        rests.end(name)


def _everywhere() -> Iterable[Path]:
    asked = [registered.asked for registered in registration.registered()]
    with suppress(JournalError):
        default = journals.resolved(journals.default_path())
        if default.exists():
            asked.append(default)
    return dict.fromkeys(asked)


class Round:
    """One look at a journal's outbox, and all that is due in it.

    Args:
        path: As it is asked for.
        is_for_all: Whether sessions are looked for that other processes left.
        is_ending: Says whether nothing more is to be begun.

    Attributes:
        sent: How many messages were.
        next_s: When the next one is due, Unix; None for none that waits.
        is_awaited: Whether a session has not ended that is to be told of.
    """

    def __init__(self, path: Path, *, is_for_all: bool = True, is_ending: Callable[[], bool] = lambda: False) -> None:
        self.sent = 0
        self.next_s: float | None = None
        self.is_awaited = False
        self._path, self._is_for_all, self._is_ending = path, is_for_all, is_ending
        self._ended: queue.SimpleQueue[tuple[Message, bool | JournalError]] = queue.SimpleQueue()

    def run(self) -> Round:
        """Send what is due.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        left, self.next_s = history.look(self._path, lambda database, _: self._look(database))
        for run in left:
            history.jot(self._path, lambda database, run=run: rows.put_interrupted(database, run, time.time()))  # type: ignore[misc]  # a default is no argument
            self.next_s = time.time()
        if self.next_s is None or self.next_s > time.time():
            return self
        skipped = _skipped()
        begun = self._send_all(skipped)
        held = rests.in_force()
        self.next_s = history.look(self._path, lambda database, _: rows.next_s(database, skipped, held))
        if self.next_s is not None and not begun:  # another process is sending what is due
            self.next_s = max(self.next_s, time.time() + AGAIN_S)
        return self

    def _look(self, database: sqlite3.Connection) -> tuple[list[int], float | None]:
        if not rows.has_table(database):
            return [], None
        self.is_awaited = self._is_for_all and rows.is_awaited(database)
        left = rows.find_interrupted(database, time.time()) if self.is_awaited else []
        return left, rows.next_s(database, rests=rests.in_force())

    def _send_all(self, skipped: list[str]) -> int:
        """Send what is due, several at a time, and what becomes due meanwhile: one that hangs holds no other up.

        Returns:
            How many messages were tried.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        under_way: dict[int, tuple[str, float]] = {}  # by number: the channel, and when its lease is over
        resting: set[str] = set()  # channels that just failed: the rest of theirs comes in the next round
        begun = 0
        while True:
            late = {number for number, (_, until_s) in under_way.items() if time.monotonic() >= until_s}
            resting |= {under_way.pop(number)[0] for number in late}  # left to itself: other journals are waiting
            counts = Counter(channel for channel, _ in under_way.values())
            full = [channel for channel, count in counts.items() if count >= TO_ONE]
            may_begin = len(under_way) < AT_ONCE and not self._is_ending()
            message = self._claimed([*skipped, *rests.in_force(), *resting, *full]) if may_begin else None
            if message is not None:
                under_way[message.number] = message.channel, time.monotonic() + rows.LEASE_S
                begun += 1
                self._begin(message)
                continue
            if not under_way:
                return begun
            with suppress(queue.Empty):
                ended, is_sent = self._ended.get(timeout=LOOK_S)
                under_way.pop(ended.number, None)
                if isinstance(is_sent, JournalError):
                    raise is_sent
                self.sent += is_sent
                if not is_sent:
                    resting.add(ended.channel)

    def _begin(self, message: Message) -> None:
        sending = threading.Thread(target=self._handle, args=(message,), name="ipybatch-message", daemon=True)
        try:
            sending.start()
        except RuntimeError:  # a script ends: Python 3.12 begins no thread then, and this one is there
            self._handle(message)

    def _claimed(self, skipped: list[str]) -> Message | None:
        return history.jot(self._path, lambda database: rows.claim(database, time.time(), skipped))

    def _handle(self, message: Message) -> None:
        """Send a message, and tell whether it was sent, or why nothing can be told of it."""
        ended: bool | JournalError = False
        try:
            ended = self._send_one(message)
        except JournalError as error:
            ended = error
        except Exception:  # others are sent all the same
            _log.exception("what became of a message cannot be recorded")
        finally:
            self._ended.put((message, ended))

    def _send_one(self, message: Message) -> bool:
        error, wait_s, reached = "", 0.0, message.notice.reached
        until_s = time.monotonic() + rows.LEASE_S
        try:
            if message.id not in _unrecorded:
                channel = addresses.load(message.channel)
                with ExitStack() as stack:
                    _send(channel, self._parcel(message, channel, stack))
        except NotSent as refusal:
            error, wait_s = str(refusal), min(refusal.wait_s, rests.LONGEST_S)
            reached = refusal.reached or reached
            if wait_s:
                rests.begin(message.channel, wait_s)
        except BatchError as refusal:  # the channel is gone, or its file is not what it must be
            error = str(refusal)
        except Exception as failure:
            _log.debug("a message was not sent", exc_info=True)
            error = describe(failure)
        state = self._settle(message, until_s, error, wait_s=wait_s, reached=reached)
        if state == "given up":
            _log.warning("session %r: %s", message.notice.name, rows.given_up(message, error))
        elif error:
            _log.info("session %r: channel %r was not told: %s", message.notice.name, message.channel, error)
        return state == "sent"

    def _settle(self, message: Message, until_s: float, error: str, **told: Any) -> DeliveryState:
        """Record how an attempt came out, as soon as the journal can be written.

        What was sent, and cannot be recorded before its lease is over, is not sent again by this process.

        Raises:
            JournalError: It could not be written for as long as the attempt may take.
        """
        now_s = time.time()
        if not error:
            _unrecorded.add(message.id)
        while True:
            try:
                state = history.jot(self._path, lambda database: rows.settle(database, message, now_s, error, **told))
            except JournalError as trouble:
                if isinstance(trouble, history.Gone) or time.monotonic() + SETTLE_S >= until_s:
                    raise
                time.sleep(SETTLE_S)
            else:
                _unrecorded.discard(message.id)
                return state

    def _parcel(self, message: Message, channel: Channel, stack: ExitStack) -> Parcel:
        if channel.kind == WEBHOOK:
            asked = journals.resolved(self._path)
            session = history.look(self._path, lambda database, _: session_of(database, asked, message))
            return _parcel(message.id, message.notice, session=session)
        attachment = self._attachment(message, stack) if channel.kind == MAIL else None
        return _parcel(message.id, message.notice, attachment=attachment)

    def _attachment(self, message: Message, stack: ExitStack) -> Path | None:
        """Return a file with the session's results, where that is small enough, and they are those of the notice."""
        notice, most = message.notice, message.notice.attach_mb * 1e6
        if not most or message.kind not in _ENDS or not notice.counts.completed:
            return None
        if (notice.counts.total or 0) > RESULTS or not history.look(
            self._path, lambda database, _: _is_latest(database, message, most)
        ):
            return None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ipybatch-")))
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", notice.name).strip("-.")[:80] or "results"
        target = folder / f"{name}.csv"
        from ipybatch import BatchSession

        try:
            BatchSession.open(notice.name, journal=self._path).save(target)
        except Exception as error:  # the message is sent without
            _log.info("session %r: its results are not attached: %s", notice.name, describe(error))
            return None
        return target if target.stat().st_size <= most else None


def _is_latest(database: sqlite3.Connection, message: Message, most: float) -> bool:
    asked = "SELECT id, epoch, owner FROM run WHERE name = ? ORDER BY id DESC LIMIT 1"
    found = database.execute(asked, (message.notice.name,)).fetchone()
    if found is None or tuple(found[:2]) != (message.run, message.epoch):
        return False
    held = "SELECT coalesce(sum(length(result)), 0) FROM payload WHERE id >= ? AND id < ?"
    (size,) = database.execute(held, ids(message.run)).fetchone()
    return bool(size <= 4 * most)  # JSON is longer than what CSV makes of it, by its fields' names


def _parcel(id_: str, notice: Notice, **given: Any) -> Parcel:
    title, body = texts.title_of(notice), texts.body_of(notice)
    told = {"kind": notice.kind, "at_s": notice.at_s, "reached": notice.reached, **given}
    return Parcel(id=id_, title=title, body=body, **told)


def _send(channel: Channel, parcel: Parcel) -> None:
    (webhook if channel.kind == WEBHOOK else people).send(channel, parcel)


def _skipped() -> list[str]:
    """Return the channels that are left to processes that have what they need."""
    with suppress(InputError):  # each message's attempt says what is wrong
        return channel_list.not_here()
    return []


class Deliverer:
    """The thread of a process that sends what its own sessions have to tell; it ends when nothing waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next_s: dict[Path, float] = {}  # when a journal is to be looked at
        self._thread: threading.Thread | None = None
        self._is_busy = False
        self._is_ending = threading.Event()

    def wake(self, path: Path) -> None:
        """Look at a journal's outbox now; from any thread, and never waited for."""
        with self._changed:
            self._next_s[path] = 0.0
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ipybatch-notify", daemon=True)
                with suppress(RuntimeError):  # the interpreter ends: a server delivers it
                    self._thread.start()
            self._changed.notify_all()

    def finish(self, patience_s: float, sending_s: float = 0.0) -> None:
        """Wait until nothing is due, but no longer than that.

        Args:
            patience_s: Seconds.
            sending_s: How much longer, where something is being sent then; nothing more is begun meanwhile.
        """
        with self._changed:
            if self._changed.wait_for(lambda: not self._lives or not (self._is_busy or self._due()), patience_s):
                return
            self._is_ending.set()
            self._changed.wait_for(lambda: not self._lives or not self._is_busy, sending_s)
            self._is_ending.clear()

    @property
    def _lives(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def forget(self) -> None:
        """Look at nothing more than what is being sent: others find the rest."""
        with self._changed:
            self._next_s.clear()
            self._changed.notify_all()

    def _due(self) -> Path | None:
        now_s = time.time()
        return next((path for path, next_s in self._next_s.items() if next_s <= now_s), None)

    def _run(self) -> None:
        while (path := self._await_due()) is not None:
            next_s: float | None = None
            try:
                next_s = Round(path, is_for_all=False, is_ending=self._is_ending.is_set).run().next_s
            except history.Gone:
                pass
            except Exception as error:  # the next look may do
                _log.debug("the outbox of %s cannot be looked at: %s", path, describe(error))
                next_s = time.time() + AGAIN_S
            with self._changed:
                self._is_busy = False
                if next_s is not None and self._next_s.get(path) != 0.0:
                    now_s = time.time()
                    self._next_s[path] = min(max(next_s, now_s + 0.1), now_s + LONGEST_REST_S)
                self._changed.notify_all()

    def _await_due(self) -> Path | None:
        """Wait for the next journal to look at, and return it; None when there is none left."""
        with self._changed:
            while (path := self._due()) is None:
                if not self._next_s:
                    self._thread = None
                    return None
                self._changed.wait(min(LONGEST_REST_S, max(0.0, min(self._next_s.values()) - time.time())))
            del self._next_s[path]
            self._is_busy = True
            return path


deliverer = Deliverer()


def begin() -> None:
    """Deliver what sessions of this process tell, from now on."""
    rows.on_written = _wake


def _wake(path: Path) -> None:
    deliverer.wake(path)  # which is another one after a fork


@atexit.register
def _finish() -> None:
    deliverer.finish(EXIT_S, SENDING_S)


def _forget() -> None:
    """Begin anew after a fork: the thread is the parent's."""
    global deliverer
    deliverer = Deliverer()


after_fork(_forget)
