"""Control: how a session is started, and what it can be told to do.

The base of `BatchSession`: one subject of it, with the state that belongs to it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import State, Status
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.interrupts import hold_interrupts
from ipybatch.engine.data.masking import describe
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import NOTHING_AGAIN, Again, Priority, key_value, short
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.data.store_url import is_url
from ipybatch.engine.feed.feed import Feed
from ipybatch.engine.feed.session_view import Elsewhere, Reply
from ipybatch.engine.run.engine_thread import COMMAND_S, engine_thread
from ipybatch.engine.run.run import Change, Run
from ipybatch.engine.store import resources
from ipybatch.engine.store.commands import Command
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.lease import process_of
from ipybatch.engine.store.resume import Items, Wanted
from ipybatch.engine.store.run_store import Found
from ipybatch.errors import EngineBusy, InputError, JournalLocked
from ipybatch.session import arguments, follower, live_sessions, start_time, waiting
from ipybatch.session.follower import Follower
from ipybatch.session.workload import Workload

T = TypeVar("T")
_HELD: tuple[State, State] = ("running", "paused")
_AGAIN: frozenset[Status] = frozenset({"failed", "timeout", "cancelled"})


class Control:
    """Start a session, and tell it what to do."""

    _made: Spec  # as the constructor was told
    _spec: Spec
    _items: Items
    _journal: Journal
    _feed: Feed
    _clock: Clock
    _workload: Workload[Any] | None
    _on_outcomes: list[Callable[[list[Outcome]], None]]
    _turn: live_sessions.Turn

    def __init__(self) -> None:
        self._priorities: list[Change] = []  # asked for before a start
        self._run: Run | None = None
        self._running: waiting.Running | None = None
        self._follower: Follower | None = None  # of another process's session of this name
        self._opened: tuple[int, str] = 0, ""  # which run on record, 0 for none, and how to go on with it
        self._thread = 0  # the one it runs on

    @property
    def name(self) -> str:
        """What the journal, the panel and `open` know it by."""
        return self._spec.name

    @property
    def state(self) -> State:
        """planned, running, paused, completed, failed, cancelled, rolled_back, or interrupted: its process died."""
        return self._feed.snapshot.state

    @property
    def elsewhere(self) -> Elsewhere | None:
        """Where it runs, when another process runs it and this one follows; else None."""
        return None if self._follower is None else self._follower.elsewhere

    @property
    def lacks(self) -> str:
        """Why it can only be read, such as "pass work= to go on"; "" when it can run."""
        return "" if self._workload is None else self._workload.lacks

    @property
    def declared(self) -> Limits:
        """The limits it was made with, which `adjust` does not exceed."""
        if self._follower is not None and (told := self._follower.record) is not None:
            return told.limits(declared=True)
        return self._made.limits

    @property
    def facts(self) -> list[Fact]:
        """What its work tells of itself; of one that runs or ran elsewhere, as far as it is on record."""
        if self._run is None or self._follower is not None or self._is_on_other_thread():
            return self._feed.snapshot.facts
        return self._run.read_facts(is_over=self.state in events.ENDED)

    def look(self) -> None:
        """Look whether another process has gone on with it; a view asks now and then, while it does not run here.

        Raises:
            JournalError: The journal cannot be read.
        """
        with self._turn.try_to_take() as is_ours:
            if not is_ours or self._is_live():  # it is begun here, at this moment or before
                return
            if self._follower is not None:
                self._follower.revive()
                return
            run, go_on = self._opened if self._run is None else (self._items.run, live_sessions.GOES_ON)
            found = follower.run_elsewhere(self._journal, self.name, run) if run else None
            if found is not None:
                self._run = None  # what this process knows of it is outdated
                self._reattach(found, go_on)

    def ask(self, question: Callable[[], T]) -> T:
        """Answer a question on the engine's thread, where nothing moves meanwhile.

        Raises:
            EngineBusy: The engine did not answer within a second.
        """
        if self._follower is not None and not self._follower.is_over:
            return self._follower.ask(question)
        return engine_thread().call(question) if self._is_on_other_thread() else question()

    def start(self, *, paused: bool = False) -> None:
        """Start it, or go on with what is left, and return at once.

        Args:
            paused: Start nothing of it before `resume`.

        Raises:
            JournalError: The journal refuses, or another session is running this one.
            InputError: It was opened for reading, or lacks an argument of its workload.
        """
        self._launch(is_paused=paused)

    def pause(self) -> Reply:
        """Let what runs finish, start nothing more.

        Returns:
            "done", or "asked" when the engine, or the process that runs the session, is busy: it pauses as soon as it
            is free. So for all commands.

        Raises:
            JournalError: Another process runs it, and could not be asked. So for all commands.
        """
        return self._command("pause")

    def resume(self) -> Reply:
        """Go on after `pause`; after a cancel or a failure, run what is left; after a rollback, everything.

        Raises:
            JournalError: The journal refuses, or another session is running this one.
        """
        if self._follower is not None:
            self._follower.look()  # it may have ended since: then it goes on here
        if self.state in ("cancelled", "failed", "rolled_back", "planned", "interrupted"):
            self.start()
            return "done"
        return self._command("resume")

    def cancel(self) -> Reply:
        """End what runs and start nothing more.

        Returns:
            "done" when it has ended, "asked" when it has not within a second: it ends as soon as it can.
        """
        reply = self._command("cancel")
        if self._follower is not None:
            return reply
        if reply == "done" and self._is_on_other_thread() and self._running is not None:
            concurrent.futures.wait([self._running], timeout=COMMAND_S)
        return "asked" if self._is_live() else reply

    def lift(self) -> Reply:
        """End the cool-down of its resource, for all who share it: what waits goes on.

        Raises:
            JournalError: The limits cannot be read or written. So for `ipybatch.lift`, which this is.
        """
        if self._follower is None and not self._is_live():
            store = self._spec.limits.store
            resources.lift(self._journal.path, self._spec.resource, store if is_url(store) else None)
            return "done"
        return self._command("lift")

    def retry_failed(self, keys: Iterable[Any] | None = None) -> Reply:
        """Run failed, timed-out and cancelled items again, permanent failures too, and return at once.

        Args:
            keys: Of the only ones that do; the others stay as they are. What was never tried runs as at every start.

        Raises:
            JournalError: The journal refuses, or another session is running this one.
            InputError: ``keys`` names what is no item; nothing was started.
        """
        only = None if keys is None else live_sessions.known_keys(self._journal, self._spec, self._items.plan, keys)
        if self.elsewhere is not None or self._is_live():
            self._feed.note(f"retry failed: {_TOO_SOON}", "passing")
            return "done"
        self._feed.emit(events.Commanded(self._clock.unix_s(), "retry_failed"))
        self._launch(Again(_AGAIN, only))
        return "done"

    def adjust(
        self,
        *,
        concurrency: int | None = None,
        rates: Sequence[float] | None = None,
        start_at: str | dt.datetime | None = None,
    ) -> Reply:
        """Change the limits while it runs: slower at once, faster up to those it was made with; or when it starts.

        Returns:
            "done", or "asked" when the engine is busy: then it takes effect as soon as the engine is free.

        Args:
            concurrency: Attempts at the same time.
            rates: The limit of each rate, in the order of ``limits.rates``.
            start_at: "now" ends the wait for its start; or another time, as the session takes it: nothing more starts
                before. Working hours hold all the same.

        Raises:
            InputError: More than it was made with, nothing at all, or no time to come.
        """
        if self._follower is not None and self._follower.look():
            given = rates if rates is None or isinstance(rates, str) else list(rates)
            start = {} if start_at is None else {"start_at": start_time.as_text(start_at)}
            return self._follower.command("adjust", concurrency=concurrency, rates=given, **start)
        change = self._adjusting(concurrency, rates, start_at)
        return self._asked(change)

    def prioritize(self, wanted: Callable[[Any], bool] | Iterable[Any], priority: Priority) -> int:
        """Let items that wait go before the others, or after them, also while it runs; return how many were meant.

        Args:
            wanted: A function of an item, or the keys of some.
            priority: "high", "medium" or "low".

        Raises:
            InputError: There is no such priority, or the items come from a generator.
            EngineBusy: The engine did not answer within a second; it changes the priorities as soon as it is free.
        """
        self._known_items()
        change = self._prioritizing(wanted, priority)
        if self._follower is not None and self._follower.look():
            return self._prioritize_elsewhere(wanted, priority)
        return self.ask(change)

    async def drive(self) -> None:
        """Run it in the loop of the caller, start to end: what `start` does on the engine's thread.

        Raises:
            JournalError: The journal refuses, or another session is running this one.
        """
        self._open_run()
        await self._drive()

    def _launch(self, again: Again = NOTHING_AGAIN, *, is_paused: bool = False) -> None:
        with self._turn.wait(), hold_interrupts() as held:  # it begins, or nothing is left of the start
            if self.state in events.ENDED and self._running is not None and self._is_on_other_thread():
                # It has told its end, and gives the name back in a moment: a start that was dropped would be lost.
                concurrent.futures.wait([self._running], timeout=COMMAND_S)
            if self._is_live():
                return
            engine = engine_thread()
            run = self._open_run(again)
            if is_paused:
                self._hold(True)
                run.record()
            if held:
                run.stop("cancelled", "", "cancelled")
            try:
                self._running = engine.spawn(self._drive(), run)
            except BaseException:
                run.abandon()
                live_sessions.leave(self._journal, self.name, self)
                raise

    def _open_run(self, again: Again = NOTHING_AGAIN) -> Run:
        if self._follower is not None and self._follower.look() and (elsewhere := self.elsewhere) is not None:
            msg = f"session {self.name!r} is already running {elsewhere.where}: it is followed here, cancel() ends it"
            raise JournalLocked(msg)
        if self._workload is not None:
            self._workload.check_complete(self.name)
        run = Run(self._spec, self.declared, self._items, self._journal, self._feed, self._on_outcomes)
        run.obey = self._obey
        if (work := self._workload) is not None:
            run.left_s, run.tell_facts = work.left_s, lambda is_over: work.facts(is_over=is_over)
        run.open(again=again, priorities=self._priorities, on_taken=self._follow_no_more)
        self._spec = msgspec.structs.replace(self._spec, fresh=False)
        self._run, self._running = run, None
        live_sessions.enter(self._journal, self.name, self)
        return run

    async def _drive(self) -> None:
        assert self._run is not None
        self._thread = threading.get_ident()
        try:
            await self._run.run()
        finally:
            live_sessions.leave(self._journal, self.name, self)
            self._thread = 0

    def _known_items(self) -> Items:
        """Return the items; of a session that is read, also those that its work has brought since it was opened."""
        if self._follower is not None and self.lacks and self._items.plan is not None:
            self._items.plan = live_sessions.present_plan(self._journal, self.name, self._items.plan)
        return self._items

    def _reattach(self, found: Found, go_on: str) -> None:
        """Follow a recorded run that another process holds, or show that its process died.

        Args:
            go_on: How to go on with it then.
        """
        self._opened = found.run, go_on
        if not self._spec.fresh and (found.owner is not None or found.state in _HELD):
            self._follower = Follower(self.name, self._feed, self._journal, found, go_on)
            self._follower.begin()

    def _follow_no_more(self) -> None:
        if self._follower is not None:
            self._follower.stop()
            self._follower = None

    def _is_live(self) -> bool:
        is_over = self._running is not None and self._running.done()  # when the engine's thread has ended, too
        return not is_over and live_sessions.live(self._journal, self.name) is self

    def _is_on_other_thread(self) -> bool:
        return self._is_live() and self._thread != threading.get_ident()

    def _command(self, verb: str) -> Reply:
        self._turn.check()
        if self._follower is not None:
            return self._follower.command(verb)
        if not self._is_live():
            return "done"

        def act() -> None:
            _ACTS[verb](self, "")
            if self._run is not None:
                self._run.record()

        if self._thread == threading.get_ident():  # a listener's: it must not act in the midst of an event
            asyncio.get_running_loop().call_soon(act)
            return "asked"
        return self._asked(act)

    def _asked(self, change: Callable[[], None]) -> Reply:
        try:
            self.ask(change)
        except EngineBusy:
            return "asked"
        return "done"

    def _obey(self, command: Command) -> str:
        """Act on a command from another process, on the engine's thread; return why not, "" for done."""
        act = _ACTS.get(command.verb)
        if act is None:
            return f"the verb must be one of {', '.join(map(repr, _ACTS))}, got {short(command.verb)}"
        if command.arguments is None:
            return "the arguments must be a JSON object"
        try:
            act(self, process_of(command.asked_by), **command.arguments)
        except InputError as error:
            return str(error)
        except Exception as error:  # the engine goes on, whatever it was asked
            return describe(error)
        return ""

    def _emit_command(self, text: str, by: str) -> None:
        self._feed.emit(events.Commanded(self._clock.unix_s(), text, by))

    def _cancel(self, by: str = "") -> None:
        self._emit_command("cancel", by)
        if self._run is not None:
            self._run.stop("cancelled", "", "cancelled")

    def _pause(self, by: str) -> None:
        self._emit_command("pause", by)
        self._hold(True)

    def _resume(self, by: str) -> None:
        self._emit_command("resume", by)
        self._hold(False)

    def _lift(self, by: str) -> None:
        self._emit_command("lift", by)
        if self._run is not None:
            self._run.lift()

    def _start_now(self, by: str) -> None:
        self._adjust(by, start_at="now")

    def _hold(self, held: bool) -> None:
        before, after = _HELD if held else _HELD[::-1]
        if self.state == before and self._run is not None and self._run.hold(held=held):
            self._feed.emit(events.StateChanged(self._clock.unix_s(), after, ""))

    def _retry_failed(self, by: str, keys: Any = None) -> None:
        raise InputError(_TOO_SOON)

    def _adjust(self, by: str, concurrency: Any = None, rates: Any = None, start_at: Any = None) -> None:
        self._adjusting(concurrency, rates, start_at, by)()

    def _adjusting(self, concurrency: Any, rates: Any, start_at: Any, by: str = "") -> Callable[[], None]:
        """Check what is to change, on the caller's thread; return what changes it on the engine's."""
        before = self._spec
        limits = arguments.adjusted(self._made.limits, before.limits, concurrency, rates)
        start_s, start = before.start_at_s, ""
        if start_at is not None:
            start_s, start = start_time.changed_start(start_at, limits, self._clock.unix_s())
        self._spec = msgspec.structs.replace(before, limits=limits, start_at_s=start_s)

        def change() -> None:
            if not start or limits != before.limits:
                words = ", ".join([f"{limits.concurrency} at a time", *map(str, limits.rates)])
                self._emit_command(f"limits: {words}", by)
                if self._run is not None:
                    self._run.change(limits)
            if start:
                self._emit_command(start, by)
                if self._run is not None:
                    self._run.postpone(start_s)

        return change

    def _prioritize(self, by: str, keys: Any = (), priority: Any = None) -> None:
        if not isinstance(keys, list):
            msg = f"keys must be a list of items' keys, got {short(keys)}"
            raise InputError(msg)
        self._prioritizing(keys, priority, by)()

    def _prioritize_elsewhere(self, wanted: Callable[[Any], bool] | Iterable[Any], priority: Any) -> int:
        assert self._follower is not None
        assert self._items.plan is not None
        meant = [key_value(task.key) for task in Wanted(wanted).among(self._items.plan)]
        if self._follower.command("prioritize", keys=meant, priority=priority) == "asked":
            msg = f"session {self.name!r} did not answer within {COMMAND_S:g} s: it changes the priorities when it can"
            raise EngineBusy(msg)
        return len(meant)

    def _prioritizing(
        self, wanted: Callable[[Any], bool] | Iterable[Any], priority: Any, by: str = ""
    ) -> Callable[[], int]:
        """Look which items are meant, on the caller's thread; return what changes them on the engine's."""
        place, asked = arguments.place_of(priority), Wanted(wanted)
        if self._items.plan is None:
            msg = "prioritize() needs a session whose items are a list: a generator's come in its own order"
            raise InputError(msg)
        plan = self._items.plan
        looked, meant = len(plan), asked.among(plan)

        def change() -> int:
            if self._run is None or self._run.is_over:
                count = len(meant)
                self._priorities.append((asked, place))
            else:
                count = self._run.prioritize([*meant, *asked.among(plan, looked)], place)
            items = "1 item" if count == 1 else f"{count:,} items"
            self._emit_command(f"priority {priority}: {items}", by)
            return count

        return change


_TOO_SOON = "wait until the session has ended"
_ACTS: dict[str, Callable[..., None]] = {  # with the session, and which other process asks ("" for this one)
    "pause": Control._pause,
    "resume": Control._resume,
    "cancel": Control._cancel,
    "lift": Control._lift,
    "start_now": Control._start_now,
    "retry_failed": Control._retry_failed,
    "adjust": Control._adjust,
    "prioritize": Control._prioritize,
}
