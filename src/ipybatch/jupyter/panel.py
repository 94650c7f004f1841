"""The panel and its parts: anywidgets that show a session and execute its commands.

Parts can be laid out by hand:

    VBox([Progress(session), HBox([BreakerStatus(session), Timeline(session)]), Log(session)])

The browser half is `static/panel.js`, built from `widgets/src`; the messages between the halves are in `messages`.  A
command comes as a message of the widget, or, while another cell keeps the kernel from reading those, through a
private subshell that calls `act`; whichever arrives first is executed, the other one is ignored.  By the same second
road, which calls `hear`, a page says that it is there.  Python in a browser has another one, see `broadcast`.

A saved notebook holds the state of a view when its cells had run.  So the final state of a session is stored in the
widget and in its static forms no later than the end of the cell that waited for it.

Nothing is sent while no page shows the view, see `pages`.  While a session runs, its pages are sent something each
second, a beat where there is nothing else: one that hears nothing says that the kernel is gone.
"""

from __future__ import annotations

import json
import pathlib
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import anywidget
import msgspec
import traitlets
from IPython.core.getipython import get_ipython
from IPython.display import display

from ipybatch.engine.data import events
from ipybatch.engine.data.masking import mask
from ipybatch.engine.feed.session_view import SessionView
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.errors import EngineBusy, JournalError
from ipybatch.jupyter import broadcast, commands, messages, static_html
from ipybatch.jupyter.messages import (
    Ack,
    Beat,
    Bye,
    Command,
    Cursor,
    FromBrowser,
    FromKernel,
    Hello,
    Here,
    Parts,
    Resync,
    Update,
    ViewName,
)
from ipybatch.jupyter.pages import Pages, cells
from ipybatch.jupyter.publisher import publisher

_STATIC = pathlib.Path(__file__).parent / "static"
VIEW_MIME = "application/vnd.jupyter.widget-view+json"
_ANSWERED_AT_MOST = 1000
TICK_S = 1.0
LIVE = frozenset({"running", "paused"})

_views: weakref.WeakValueDictionary[str, View] = weakref.WeakValueDictionary()


class View(anywidget.AnyWidget):
    """A live view of one session; can be laid out in VBox, HBox and Tab like any widget.

    Attributes:
        shows: The view that the browser draws.
        parts: The parts of the state that it is sent, besides the head.
    """

    _esm = _STATIC / "panel.js"
    _css = _STATIC / "panel.css"
    shows: ClassVar[ViewName] = "panel"
    parts: Parts = frozenset({"rows", "pace", "moves", "log"})
    view = traitlets.Unicode("").tag(sync=True)
    initial = traitlets.Unicode("").tag(sync=True)
    panel_id = traitlets.Unicode("").tag(sync=True)

    def __init__(self, session: SessionView, **layout: Any) -> None:
        self._session = session
        self._sent = Cursor()
        self._wholes_wanted, self._wholes_sent = 1, 0  # counted, because several threads want them
        self._looked_at: Snapshot | None = None
        self._figures: tuple[Any, ...] = ()  # of the latest update
        self._looked_s = 0.0
        self._noted = 0  # notes that were sent
        self._pages = Pages(cells)
        self._told_s = self._looked_elsewhere_s = 0.0
        self.look_s = TICK_S  # between two looks for another process that has gone on with what has ended
        self._answered: deque[str] = deque(maxlen=_ANSWERED_AT_MOST)
        self._acting = threading.Lock()
        self._asked: list[str] = []  # commands whose second answer is due
        self._shown: Any = None
        self._keeping = threading.Lock()
        self._kept: tuple[float, int] | None = None  # time and event count of the stored end
        super().__init__(view=self.shows, panel_id=uuid.uuid4().hex, **layout)
        _views[self.panel_id] = self
        self.on_msg(self._hear)
        publisher().add(self)
        broadcast.listen({"act": act, "hear": hear})
        shell = get_ipython()
        cells.follow(shell)
        if shell is not None:
            shell.events.register("post_run_cell", _keep_ends)

    def __repr__(self) -> str:
        # Saved beside the widget as its text: the same in each run, so that notebooks can be compared.
        return f"{type(self).__name__}({self._session.snapshot.name!r})"

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """Return the widget's state, with the session's present state for a page that is reloaded.

        Raises:
            EngineBusy: Only "initial" was requested, and the engine did not answer.
        """
        state: dict[str, Any] = super().get_state(key=key, drop_defaults=drop_defaults)
        if key is None or "initial" in state:
            session, sent = self._session, Cursor(seq=self._sent.seq)
            try:
                update = session.ask(lambda: messages.whole_update(session, sent, self.parts))
                state["initial"] = msgspec.json.encode(update).decode()
            except EngineBusy:
                if key is not None:  # `keep_end` tries again
                    raise
        return state

    @property
    def is_open(self) -> bool:
        """Whether a page shows the view, as far as is known."""
        return self._pages.is_any

    def publish(self) -> bool:
        """Send the changes to the pages, and return whether the session runs; called by the publisher."""
        self.keep_end()
        is_live = self._session.snapshot.state in LIVE
        try:
            self._settle()
            if not self.is_open:
                self._wholes_wanted += 1
                return is_live
            self._look(is_live=is_live)
            if self._has_changed(is_live=is_live):
                self._update()
        except EngineBusy:
            self._figures = ()  # the pages keep their figures; the next round tries again
            self._show_stall()
            self.beat()
        if self._pages.is_unanswered and not is_live:
            self._beat()
        return is_live

    def _look(self, *, is_live: bool) -> None:
        """Look each `look_s` whether another process has gone on with what has ended, as far as is known here."""
        now_s = time.monotonic()
        if not is_live and now_s - self._looked_elsewhere_s >= self.look_s:
            self._looked_elsewhere_s = now_s
            with suppress(JournalError):  # locked by another program, or gone: what is shown stays
                self._session.look()

    def beat(self) -> None:
        """Tell the pages of a session that runs that the kernel is there, if they were told nothing for a second."""
        is_live = self._session.snapshot.state in LIVE
        if is_live and time.monotonic() - self._told_s >= TICK_S and self.is_open:
            self._beat()

    def _beat(self) -> None:
        answered = self._pages.answer()
        self.tell(Beat(at_s=time.time(), pages=answered.pages, always=answered.always))

    def _show_stall(self) -> None:
        """Send what was noted meanwhile: what keeps the engine from answering, so that nothing else moves."""
        noted = len(self._session.snapshot.notes)
        if noted == self._noted or not self.is_open:
            return
        with suppress(RuntimeError):  # it moves again, in the midst of reading
            self._send_changes(lambda question: question())
            self._noted = noted

    def _settle(self) -> None:
        """Send the second answers to commands that the engine had only been asked, and has executed by now."""
        asked = tuple(self._asked)
        if not asked:
            return
        answers = self._session.ask(lambda: [commands.settle(self._session, command) for command in asked])
        for answer in filter(None, answers):
            self._asked.remove(answer.id)
            self.tell(answer)

    def _update(self) -> None:
        """Send the changes since the last update that was sent.

        The engine may answer a question late, when nobody waits for it, so each gets a copy of the cursor.
        """
        if "pace" in self.parts:
            self._session.recall()
        self._send_changes(self._session.ask)
        self._noted = len(self._session.snapshot.notes)

    def _send_changes(self, ask: Callable[[Callable[[], Update]], Update]) -> None:
        wanted = self._wholes_wanted
        sent = msgspec.structs.replace(self._sent, is_whole_wanted=wanted != self._wholes_sent)
        update = ask(lambda: messages.next_update(self._session, sent, self.parts))
        self._sent, self._wholes_sent = sent, wanted
        update.pages, update.always = self._pages.answer(is_whole=update.whole)
        update.head.at_s = time.time()
        self.tell(update)

    def _has_changed(self, *, is_live: bool) -> bool:
        """Return whether there is news; countdowns of a session that waits count once a second."""
        snapshot, now_s = self._session.snapshot, time.monotonic()
        figures = (snapshot.state, snapshot.told, snapshot.started_here, snapshot.ended_here, snapshot.counts.ended)
        if snapshot is not self._looked_at:  # `forget` has replaced it
            self._wholes_wanted += 1
        is_due = is_live and now_s - self._looked_s >= TICK_S
        if figures == self._figures and not is_due and self._wholes_wanted == self._wholes_sent:
            return False
        self._looked_at, self._figures, self._looked_s = snapshot, figures, now_s
        return True

    def bundle(self) -> dict[str, Any]:
        """Return the display of the session: the widget, and static forms for front ends without widgets."""
        session = self._session
        return {
            VIEW_MIME: {"version_major": 2, "version_minor": 0, "model_id": self.model_id},
            "text/html": static_html.output(
                session.snapshot,
                session.summary,
                session.policy.group_word,
                has_breaker=session.policy.breaker is not None and not messages.is_untold(session),
            ),
            "text/plain": mask(str(session.summary)),
        }

    def show(self) -> None:
        """Display the view; its static forms are updated when the session ends."""
        found = widget_metadata(self)
        self._shown = display(self.bundle(), raw=True, display_id=True, metadata=found)  # type: ignore[no-untyped-call]  # IPython's

    def keep_end(self) -> None:
        """Store the final state in the widget and its static forms, once for each end of the session."""
        with self._keeping:  # a second caller returns when it is done
            snapshot = self._session.snapshot
            end = (snapshot.ended_s, snapshot.told)
            if snapshot.state not in events.ENDED or self._kept == end:
                return
            try:
                self.send_state("initial")
            except EngineBusy:
                return  # it is called again
            self._kept = end
            if self._shown is not None:
                self._shown.update(self.bundle(), raw=True, metadata=widget_metadata(self))

    def act(self, command: str) -> None:
        """Execute a command once, by its id, and answer it; `publish` sends the second answer of a busy engine."""
        with self._acting:
            if command in self._answered:
                return
            self._answered.append(command)
        try:
            answer = commands.execute(self._session, command)
        except Exception as error:  # shown in the panel, not in a cell
            answer = Ack(id=command, ok=False, done=True, text=commands.describe(error))
        self.tell(answer)
        if isinstance(answer, Ack) and not answer.done:
            self._asked.append(command)
        publisher().hurry()

    def tell(self, message: FromKernel) -> None:
        """Send a message to the pages, as bytes: ipykernel needs 5 ms an update for anything else."""
        self._told_s = time.monotonic()
        self.send({}, buffers=[msgspec.json.encode(message)])

    def _hear(self, widget: Any, content: Any, buffers: Any) -> None:
        self.hear(content)

    def hear(self, content: Any) -> None:
        """Take in what a page says: a message of `messages.FromBrowser`; any other is left alone."""
        try:
            message = msgspec.convert(content, FromBrowser)
        except msgspec.ValidationError:
            return  # from the browser half of a later version
        match message:
            case Command():
                self.act(message.id)
            case Hello() | Resync():
                self._pages.heard(message.view)
                self._answer_whole()
            case Here():
                if not self._pages.heard(message.view):
                    self._answer_whole()
            case Bye():
                self._pages.left(message.view)

    def _answer_whole(self) -> None:
        self._wholes_wanted += 1
        publisher().hurry()


def widget_metadata(widget: anywidget.AnyWidget) -> dict[str, Any]:
    """Return what a display adds for Colab: where its manager of other people's widgets is."""
    _, metadata = widget._repr_mimebundle_() or ({}, {})
    return dict(metadata)


def act(command: str) -> None:
    """Execute a command that did not come as a message of the widget.

    Args:
        command: See `messages.Command`.
    """
    view = _views.get(command.partition("/")[0])
    if view is not None:
        view.act(command)


def hear(panel: str, message: str) -> None:
    """Take in what a page says that does not come as a message of the widget.

    Args:
        panel: The panel's id.
        message: As the page sends it otherwise, as JSON.
    """
    view = _views.get(panel)
    if view is not None:
        view.hear(json.loads(message))


def _keep_ends(*_: Any) -> None:
    """Store the ends of sessions at the end of every cell: a notebook may be saved without later changes."""
    for view in tuple(_views.values()):
        view.keep_end()


class Panel(View):
    """Everything about a session, with its controls.

    Args:
        session: Which session.
        compact: Whether it begins as one line: state, name, bar, figures, time left and buttons; a press opens it.
        layout: Traits of the widget, as for any other.
    """

    compact = traitlets.Bool(False).tag(sync=True)

    def __init__(self, session: SessionView, *, compact: bool = False, **layout: Any) -> None:
        super().__init__(session, compact=compact, **layout)


class Progress(View):
    """Progress: done, failed, running, rate, elapsed, time left, cost; with the controls."""

    shows: ClassVar[ViewName] = "progress"
    parts: Parts = frozenset()


class PartitionTable(View):
    """The groups (batches, jobs, partitions), each with its items; the latest items where there are no groups."""

    shows: ClassVar[ViewName] = "table"
    parts: Parts = frozenset({"rows"})


class BreakerStatus(View):
    """The circuit breaker with its history, and the windows of the limiter."""

    shows: ClassVar[ViewName] = "breaker"
    parts: Parts = frozenset({"moves"})


class Timeline(View):
    """Attempts a second against the limits, and the groups as bars."""

    shows: ClassVar[ViewName] = "timeline"
    parts: Parts = frozenset({"rows", "pace", "moves"})


class Log(View):
    """The log, newest line first."""

    shows: ClassVar[ViewName] = "log"
    parts: Parts = frozenset({"log"})
