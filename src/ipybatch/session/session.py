"""BatchSession: one function, a list of items, a policy.

Rule: this file wires the parts and owns no rules of its own.  One subject,
hence its length: what a session is made of and can be asked.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

import msgspec

from ipybatch.backends import choose
from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.error_groups import FailureList
from ipybatch.engine.data.events import Counts, State
from ipybatch.engine.data.items import plan_items
from ipybatch.engine.data.notice import Notify
from ipybatch.engine.data.outcome import Outcome, RecordedItem, Summary
from ipybatch.engine.data.plan import KeyFunction, Keying, Priority, key_value
from ipybatch.engine.data.policy import Breaker, Limits, Retry
from ipybatch.engine.data.spec import Backend, OnFailure, Spec, inspect_work
from ipybatch.engine.feed.event_text import Name, named, why_waiting
from ipybatch.engine.feed.feed import Feed, Listener
from ipybatch.engine.feed.session_view import LiveStatus, Reply, SessionView, enlist
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.engine.rules.estimate import Estimate, estimate
from ipybatch.engine.rules.opening import Opening, opening_of
from ipybatch.engine.run.engine_thread import engine_thread, refuse_to_wait_for
from ipybatch.engine.run.live_status import read_live_status
from ipybatch.engine.store import failures as failed_items
from ipybatch.engine.store import removal, run_store
from ipybatch.engine.store.journal import open_journal
from ipybatch.engine.store.resources import in_force
from ipybatch.engine.store.resume import Items
from ipybatch.errors import InputError
from ipybatch.jupyter.kernel import this_kernel
from ipybatch.session import arguments, live_sessions, waiting
from ipybatch.session.control import Control
from ipybatch.session.start_time import start_of
from ipybatch.session.workload import Workload, encode_about

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


class BatchSession(Control):
    """Run a function over many items, never faster than allowed, never twice, never lost.

    The same name continues: what is recorded is not run again.

    Args:
        name: What the journal, the panel and `open` know it by.
        work: Async or plain function of one item; returns what JSON can hold. A parameter ``attempt`` is handed the
            attempt, to ask for further permits. An async context manager is entered on the engine's loop.
        items: A list (checked whole before the first call), a generator (checked as it is drawn) or a DataFrame: one
            item a row, a dict of plain values (numpy's become Python's, missing ones None, times ISO text).
        limits: How fast attempts may start.
        retry: How often a transient failure is tried again.
        breaker: When to leave a failing service alone, that of each limit group by itself; None for never.
        key: Function of an item that gives a stable key; default: the item, or its "id" or "key" field; for rows of
            a DataFrame without these columns, its index.
        backend: "loop" for coroutines, "threads" for plain functions, or a backend object; default: what work needs.
        timeout_s: Seconds one attempt may take; None for no limit.
        on_failure: "continue"; "stop" at the first item that fails; "rollback" discards everything then.
        journal: Path of the journal; default: ``IPYBATCH_JOURNAL``, else the user's data folder.
        fresh: Begin a new run under the same name.
        resource: Name of what is rationed: sessions that name the same one share its windows and cool-down.
        on_progress: Called with (done, total) whenever an item has its outcome.
        cost: Function of an item that gives what it costs on the rates with another unit than requests.
        settings: What is sent with every item; an item runs again when it changed.
        skip: Function of an item that says why it need not run ("" if it must); asked once, kept in the plan.
        rank: Function of an item: lower ranks run first; asked once, kept in the plan.
        priority: Function of an item: "high", "medium" or "low"; those run before all ranks. `prioritize` changes it.
        start_at: Start nothing before: "22:00" (the next one), a time in ISO 8601, or a `datetime.datetime`; by the
            clocks of ``Limits(zone=)`` where it has no offset. `start` returns at once and the session waits, running;
            waiting for its end waits through it. What has begun and was cut short goes on at once, so that a run that
            died at 23:00 does not wait for the next 22:00. `adjust` changes it.
        per: Function of an item that names its limit group (text or whole number), such as a region: each has limits,
            ``Limits(each=Limits(...))``, and a breaker, and delays no other. A list of names, or of ``("kind", name)``
            pairs, puts the item into all of them: "X per user and Y per app". An item without a name fails alone.
        group_word: What a batch is called in the panel.
        verbose: In a terminal, a line per item instead of a progress line.
        notify: Who is told how it ends, and what goes wrong meanwhile: a channel's name, several, or
            `ipybatch.notify.Notify`; `ipybatch.notify.add_channel` makes them.
        clock: For tests.

    Raises:
        InputError: An argument is not what it must be (a ValueError); nothing was started.
        MissingExtra: A channel of ``notify`` needs what is not installed.
        JournalError: The journal is damaged or cannot be written. So for every method that reads or writes it.
    """

    def __init__(
        self,
        name: str,
        work: Callable[..., Any],
        items: Iterable[Any],
        *,
        limits: Limits | None = None,
        retry: Retry | None = None,
        breaker: Breaker | None = Breaker(),  # noqa: B008  # frozen data
        key: KeyFunction | None = None,
        backend: str | Backend | None = None,
        timeout_s: float | None = None,
        on_failure: OnFailure = "continue",
        journal: str | Path | None = None,
        fresh: bool = False,
        resource: str | None = None,
        on_progress: Callable[[int, int | None], None] | None = None,
        cost: Callable[[Any], Any] | None = None,
        settings: Any = None,
        skip: Callable[[Any], str] | None = None,
        rank: Callable[[Any], int] | None = None,
        priority: Callable[[Any], Priority] | None = None,
        per: Callable[[Any], Any] | None = None,
        start_at: str | dt.datetime | None = None,
        group_word: str = "Batch",
        verbose: bool = False,
        notify: str | Sequence[str] | Notify | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        arguments.check_name(name)
        arguments.check_name(name if resource is None else resource, "resource")
        arguments.check_name(group_word, "group_word")
        arguments.check_functions(key=key, cost=cost, skip=skip, rank=rank, priority=priority, on_progress=on_progress)
        timeout_s = arguments.check_session(timeout_s, on_failure, limits, retry, breaker)
        arguments.check_per(per, limits)
        found = inspect_work(work)
        keying = Keying(key, arguments.encode_settings(settings))
        source, plan = plan_items(items, keying)
        self._workload = work if isinstance(work, Workload) else None
        kernel, notebook = this_kernel()
        self._journal = open_journal(journal)
        self._feed = Feed(clock or SystemClock())
        self._clock = self._feed.clock
        limits, now_s = limits or Limits(), self._clock.unix_s()
        self._made = self._spec = Spec(
            name=name,
            work=found,
            backend=choose(backend, is_coroutine=found.is_coroutine),
            limits=limits,
            retry=retry or Retry(),
            breaker=breaker,
            timeout_s=timeout_s,
            on_failure=on_failure,
            resource=f"session {name}" if resource is None else resource,
            is_private=resource is None,
            keying=keying,
            group_word=group_word,
            fresh=fresh,
            replaces=self._workload is None or self._workload.replaces,
            cost=cost,
            skip=skip,
            rank=rank,
            priority=None if priority is None else arguments.as_place(priority),
            per=per,
            start_at_s=start_of(start_at, limits, self._journal, name, fresh=fresh, now_s=now_s),
            workload="" if self._workload is None else self._workload.name,
            about=encode_about(self._workload),
            notify=arguments.check_notify(notify),
            kernel=kernel,
            notebook=notebook,
        )
        self._start_at = start_at
        self._journal_words = "" if journal is None else f", journal={str(self._journal.path)!r}"
        self._items = Items(source, plan)
        self._on_outcomes: list[Callable[[list[Outcome]], None]] = []
        self._turn = live_sessions.Turn(name)
        self._looks = failed_items.Looks()
        self.verbose = verbose
        self._show_recorded()
        if on_progress is not None:
            self.on(waiting.progress(self, on_progress))
        if self._workload is not None:
            self._workload.bind(self)
        enlist(cast("SessionView", self))

    @classmethod
    def open(
        cls, name: str, work: Callable[..., Any] | None = None, *, journal: str | Path | None = None, **arguments: Any
    ) -> BatchSession:
        """Reattach to a recorded session: read it, or go on where it ended.

        The session of a workload comes back as that workload's, such as `ForecastSession`.

        Args:
            work: Go on with this function; without it, a session of no workload can only be read.
            arguments: As for `BatchSession`, or for the workload's function: policies are not recorded. With what
                the workload needs to go on among them (``demand=`` for a forecast), the session can run.

        One that another process is running is followed: its state and counts once a second, and `pause`, `resume`,
        `cancel`, `adjust` and `prioritize` reach it there. One whose process died is "interrupted", and its reason
        says what to pass to go on.

        Raises:
            InputError: No session of that name is recorded, or it is another workload's.
        """
        return live_sessions.reopen(cls, BatchSession, name, work, journal, arguments)

    def save_template(self, name: str, *, description: str = "") -> Path:
        """Write how it works, without its items, to a file that people read and edit, and return the file's path.

        A note says in one line what no file can hold, such as a function: `from_template` asks for it by name. Keys are
        never written. A template of this name is written anew; see `ipybatch.templates`.

        Args:
            description: What it is for.

        Raises:
            InputError: The name is no safe name of a file or that of a template that ships, or the session was opened
                for reading.
            OSError: It cannot be written.
        """
        from ipybatch.session import templating

        path, told = templating.save(name, description, self._made, self._workload, self._start_at)
        self.note(told, "passing")
        return path

    @classmethod
    def from_template(cls, template: str, data: Any = None, /, **changes: Any) -> Self:
        """Return a session, not started yet, made from a template: one of yours, or one that ships with ipybatch.

        It is of the template's class, such as `GeminiSession`.

        Args:
            template: A name; `ipybatch.templates.templates` lists them.
            data: What is given anew each time: items, prompts or a demand table; also by its name.
            changes: Arguments in the place of those of the template, such as ``limits=``, and those that it asks for,
                such as ``work=``. ``name=`` of the session is by default the template's; of prompts it follows from
                these.

        Raises:
            InputError: There is no such template, its file or an argument is not what it must be, or one is missing;
                nothing was started.
        """
        from ipybatch.session import templating

        return templating.make(cls, BatchSession, template, data, changes)

    @property
    def journal(self) -> Path:
        """Where its journal lies."""
        return self._journal.path

    @property
    def reopen(self) -> str:
        """The expression that opens it again in another kernel; "" while nothing of it is on record."""
        if self.state == "planned" and self.counts.ended == 0:
            return ""
        return f"BatchSession.open({self.name!r}{self._journal_words})"

    @property
    def ending(self) -> State:
        """How it stands, or, when it has been told to end, how it will."""
        runner = None if self._run is None else self._run.runner
        return self.state if runner is None or runner.state is None else runner.state

    @property
    def reason(self) -> str:
        """Why it ended early, in one line, or why it waits for an hour or longer; "" otherwise."""
        return self._feed.snapshot.reason or why_waiting(self._feed.snapshot, self._clock.unix_s())

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user was told, the latest last."""
        return tuple(self._feed.snapshot.notes)

    @property
    def counts(self) -> Counts:
        """How many items stand where."""
        return self._feed.snapshot.counts

    @property
    def snapshot(self) -> Snapshot:
        """Everything a view may show; read it through `ask` while the session runs."""
        return self._feed.snapshot

    @property
    def live_status(self) -> LiveStatus:
        """Windows, waiting and ETA; read them through `ask` while the session runs."""
        if self._follower is not None and (told := self._follower.record) is not None:
            return told.status
        run = self._run
        runner, left_s = (None, None) if run is None else (run.runner, run.left_s)
        return read_live_status(runner, self._spec.limits, self.snapshot, self._clock, left_s)

    @property
    def summary(self) -> Summary:
        """What it came to so far."""
        snapshot = self._feed.snapshot
        return Summary(self.name, self.state, self.counts, self.reason, snapshot.elapsed_s(self._clock.unix_s()))

    def run(self, *, verbose: bool | None = None) -> Summary:
        """Start it unless it has ended, or runs elsewhere; wait for its end, and return the summary.

        The first Ctrl-C (or the notebook's stop button) cancels it and returns; a second one interrupts. Of one that
        runs elsewhere, it ends the waiting only.

        Raises:
            InputError: It was called where sessions run (in async work, in a listener): it would wait for itself.
        """
        engine_thread().refuse_to_wait("run()")
        waiting.block(self, self._begin, lambda: self._running, verbose=self.verbose if verbose is None else verbose)
        return self.summary

    def __await__(self) -> Generator[Any, None, Summary]:
        return self._wait().__await__()

    async def _wait(self) -> Summary:
        await waiting.until(self, self._begin, lambda: self._running)
        return self.summary

    def _begin(self) -> waiting.Running | None:
        refuse_to_wait_for(self._run)
        with self._turn.wait():  # another thread may be starting it: the end of that is waited for
            if self._follower is not None:
                self._follower.look()  # its process may have ended since
            if self.state in ("planned", "interrupted"):
                self.start()
            elif self._follower is not None:
                return self._follower.ended
            elif not self._is_live():
                live_sessions.note_if_forgotten(self._feed, self._journal, self.name, self._items.run)
            return self._running

    def stream(self) -> AsyncIterator[Outcome]:
        """Yield outcomes as they are recorded, in commit order; starts a planned session.

        Raises:
            InputError: Another process runs it: the outcomes are that one's.
        """
        if (elsewhere := self.elsewhere) is not None:
            msg = f"stream() needs a session of this process, and {self.name!r} runs {elsewhere.where}: use results()"
            raise InputError(msg)
        return waiting.stream(self.on_outcomes, self._begin, self._is_live)

    def on_outcomes(self, listener: Callable[[list[Outcome]], None]) -> Callable[[], None]:
        """Call ``listener`` with the outcomes of every commit, results included; return a function that ends that.

        Of a session that another process runs, none come.
        """
        listeners = self._on_outcomes
        listeners.append(listener)
        return lambda: listeners.remove(listener) if listener in listeners else None

    def results(self, *, with_items: bool = False, columns: Literal["flat"] | None = None) -> pd.DataFrame:
        """Return one row per item, in input order: key, status, attempts, seconds, error, and the result's columns.

        Items that were a DataFrame give it their index.

        Args:
            with_items: Put the items' own columns first, as `ipybatch.frames.results` names them.
            columns: "flat": fields of dicts in results become columns too, ``a.b`` for field b of field a.

        Raises:
            InputError: ``with_items`` is given, and the items came from a generator: nothing keeps them; or there are
                no such ``columns``.
        """
        from ipybatch import frames

        known = self._known_items()
        return frames.results(self._journal, self._spec, known, self.state, with_items=with_items, columns=columns)

    def errors(self) -> pd.DataFrame:
        """Return one row per message on record: message, count, status, scope, first key and its traceback.

        The most frequent first; ``<key>`` stands for the item's own key where that is all that differs.
        """
        from ipybatch import frames

        return frames.errors(self._journal, self._spec, self._known_items())

    def save(self, path: str | Path) -> Path:
        """Write the results to a .csv, .parquet or .jsonl file, whole or not at all, and return its path."""
        from ipybatch import frames

        return frames.save(self._journal, self._spec, self._known_items(), self.state, Path(path))

    def log(self) -> pd.DataFrame:
        """Return the latest events of this process, one row each: at, event, and the event's own fields."""
        from ipybatch import frames

        return frames.log(self._feed.log)

    def estimate(self, n: int | None = None, *, latency_s: float = 0.2) -> Estimate:
        """Run the scheduler dry in virtual time: seconds (low, high), requests, batches.

        It begins with the cool-downs and windows in force, also those of other kernels, and says what it waits for;
        working hours and a start that is to come count.

        Args:
            n: Items to assume; default: those still to do. Needed for a generator, which is not drawn from.
            latency_s: Seconds from a request to its response.

        Raises:
            InputError: ``n`` is missing for a generator, or out of range.
            JournalError: The limits cannot be read.
        """
        plan, spec = self._items.plan, self._spec
        left = arguments.items_left(self.counts, plan, spec.skip if self.state == "planned" else None)
        items = arguments.check_estimate(n, latency_s, left)
        cost = None if spec.cost is None else lambda task: spec.cost_of(task.item)
        look = in_force(self._journal, spec, self._clock)
        tasks = None if plan is None else iter(plan)
        return estimate(spec.limits, items, latency_s, cost, tasks, spec.per, look, self._opening_from_now())

    def _opening_from_now(self) -> Opening:
        """Return when something may start, by a clock that begins with this moment at 0."""
        now_s = self._clock.unix_s()
        return opening_of(self._spec.limits, self._spec.start_at_s, lambda passed_s: now_s + passed_s)

    def forget(self) -> None:
        """Delete everything the journal has under this name.

        Raises:
            InputError: It is running.
            JournalLocked: Another session of this name is, here or in another kernel; nothing is deleted.
        """
        arguments.check_forget(self.name, self.state if self._is_live() else "", is_drawn=self._items.is_drawn)
        removal.forget(self._journal, self.name, self._clock.unix_s())
        self._follow_no_more()
        self._feed.clear()
        self._spec, self._run, self._running, self._priorities = self._made, None, None, []
        self._items = self._items.anew()
        self._show_recorded()

    def on(self, name: Name | Listener, listener: Listener | None = None) -> Callable[[], None]:
        """Call a listener with every event, or those of one name, on the engine's thread; return what ends that.

        Args:
            name: Such as "done" or "retry": `ipybatch.events.NAMES`. The listener, for every event.
            listener: Called with the event.

        Raises:
            InputError: There is no event of that name, or the listener is not a function.
        """
        if listener is None and callable(name):
            return self._feed.on(name)
        return self._feed.on(named(name, listener, lambda: self._feed.snapshot))

    @property
    def policy(self) -> Spec:
        """Limits, retry and breaker, as they hold; those of the process that runs it, as far as they are on record."""
        if self._follower is not None and (told := self._follower.record) is not None:
            return msgspec.structs.replace(self._spec, limits=told.limits(), breaker=told.policy)
        return self._spec

    @property
    def workload(self) -> Workload[Any] | None:
        """The workload that made it; None for a session of one function."""
        return self._workload

    def note(self, text: str, kind: events.NoteKind = "") -> None:
        """Tell the user something, once.

        Args:
            kind: "passing" for what holds until the session begins or ends at the latest; as in `events.Noted`.
        """
        self._feed.note(text, kind)

    def tell(self, event: events.Event) -> None:
        """Publish something that only the work knows; on the engine's thread while it runs."""
        self._feed.tell(event)

    def items_of(self, group: int, *, offset: int = 0, limit: int = 100) -> tuple[int, list[RecordedItem]]:
        """Return how many items of a group are recorded, and some of them with their attempts, failed ones first."""
        if self._spec.fresh:
            return 0, []
        plan = self._known_items().plan
        return live_sessions.items_of(self._journal, self.name, group, offset=offset, limit=limit, plan=plan)

    def failures(
        self, search: str = "", *, offset: int = 0, limit: int = 100, version: int = 0
    ) -> tuple[FailureList, list[RecordedItem]]:
        """Return what failed, by message, and some of these items in that order, with their attempts.

        After a rollback of a generator's items, of which nothing is on record, what this process remembers.

        Args:
            search: Part of a key or of a message, in any case; "" for all.
            version: That of the look to go on with; 0 for how it stands now.
        """
        with self._look(search, version) as (database, found):
            if self.state == "rolled_back" and not found.of:
                ended, ended_s = list(self.snapshot.failures.values()), self.snapshot.ended_s
                known, items = failed_items.remembered(ended, ended_s, search)
                return known, items[offset : offset + limit]
            return found, failed_items.page(database, found.ids[offset : offset + limit])

    def retry_matching(self, search: str) -> Reply:
        """Run the failed items again whose key or message holds a text, as `retry_failed` does.

        Raises:
            InputError: None does; nothing was started.
            JournalError: The journal refuses, or another session is running this one.
        """
        if not search:
            return self.retry_failed()
        with self._look(search) as (database, found):
            keys = failed_items.keys_of(database, found.ids)
        if not keys:
            msg = f"nothing that failed matches {search!r}"
            raise InputError(msg)
        return self.retry_failed(keys=map(key_value, keys))

    @contextmanager
    def _look(self, search: str, version: int = 0) -> Iterator[tuple[sqlite3.Connection, FailureList]]:
        plan = self._known_items().plan
        with self._journal.reader() as database:
            recorded = None if self._spec.fresh else run_store.find(database, self.name)
            run = 0 if recorded is None else recorded.run
            yield database, self._looks.at(self._journal.path, database, run, search, version, plan)

    def recall(self) -> None:
        """Let the snapshot know how items ended in earlier processes."""
        snapshot = self._feed.snapshot
        if not snapshot.pace.is_whole:
            marks = [] if self._spec.fresh else live_sessions.earlier_pace(self._journal, self.name, snapshot)
            self.ask(lambda: self._feed.recall(marks))

    def export_html(self, path: str | Path) -> Path:
        """Write the panel as it stands as one HTML page that needs nothing else, and return its path."""
        from ipybatch.jupyter import static_page

        return static_page.write_page(cast("SessionView", self), Path(path))

    def show(self, *, compact: bool = False) -> None:
        """Display the live panel; a cell that ends in the session does so by itself.

        Args:
            compact: As one line: state, name, bar, figures, time left and buttons; a press opens it.

        Raises:
            MissingExtra: anywidget or IPython is not installed.
        """
        from ipybatch.jupyter import show

        show(cast("SessionView", self), compact=compact)

    def _ipython_display_(self) -> None:
        self.show()

    def __repr__(self) -> str:
        total = "?" if self.counts.total is None else self.counts.total
        return f"<BatchSession {self.name!r}: {self.state}, {self.counts.ended} of {total}>"

    def _show_recorded(self) -> None:
        """Show what is recorded of it, before it starts: as it ended, where it can only be read."""
        to_read = self._workload is not None and bool(self._workload.lacks)
        live_sessions.show_recorded(self._feed, self._journal, self._spec, self._items.plan, to_read=to_read)
