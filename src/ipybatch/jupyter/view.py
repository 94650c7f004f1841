"""View: an anywidget that shows a session, or a part of it, and takes its commands.

The browser half is `static/panel.js`, built from `widgets/src`; what the two
say to each other is in `wire`.  A command comes as a message of the widget,
or, while another cell keeps the kernel from reading those, through a private
subshell that calls `act`; by whatever road, it is acted on once.

A saved notebook holds what a view was when its cells had run, so a session's
end is kept by then, at the latest when the cell that waited for it ends.

Nothing is sent while no page shows the view.  A page says Hello and Bye; until
the first of these is heard it is taken to be there, because the cell that
displays a view may keep the kernel from hearing anything.
"""

from __future__ import annotations

import pathlib
import threading
import time
import uuid
import weakref
from collections import deque
from contextlib import suppress
from typing import Any, ClassVar

import anywidget
import msgspec
import traitlets
from IPython.core.getipython import get_ipython
from IPython.display import display

from ipybatch.engine.data import events
from ipybatch.engine.feed.session_view import Viewed
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.errors import EngineBusy
from ipybatch.jupyter import commands, still, updates
from ipybatch.jupyter.publisher import publisher
from ipybatch.jupyter.updates import Part, Sent
from ipybatch.jupyter.wire import Ack, Bye, Command, FromBrowser, FromKernel, Hello, Resync, ViewName

_STATIC = pathlib.Path(__file__).parent / "static"
_VIEW = "application/vnd.jupyter.widget-view+json"
_ANSWERED_AT_MOST = 1000
TICK_S = 1.0
_LIVE = frozenset({"running", "paused"})
_HELLO_S = 5.0  # how long after its cell a view that is displayed takes to say Hello, at most

_views: weakref.WeakValueDictionary[str, View] = weakref.WeakValueDictionary()


class View(anywidget.AnyWidget):
    """A live view of one session; lays out in VBox, HBox and Tab like any widget.

    Attributes:
        shows: Which view the browser draws.
        parts: What it is sent beside the head.
    """

    _esm = _STATIC / "panel.js"
    _css = _STATIC / "panel.css"
    shows: ClassVar[ViewName] = "panel"
    parts: ClassVar[frozenset[Part]] = frozenset({"rows", "pace", "moves", "log"})
    view = traitlets.Unicode("").tag(sync=True)
    initial = traitlets.Unicode("").tag(sync=True)
    panel_id = traitlets.Unicode("").tag(sync=True)

    def __init__(self, session: Viewed, **layout: Any) -> None:
        self._session = session
        self._sent = Sent()
        self._looked_at: Snapshot | None = None
        self._figures: tuple[Any, ...] = ()  # what was seen of it
        self._looked_s = 0.0
        self._pages: set[str] = set()
        self._is_expected = True
        self._answered: deque[str] = deque(maxlen=_ANSWERED_AT_MOST)
        self._acting = threading.Lock()
        self._shown: Any = None
        self._keeping = threading.Lock()
        self._kept: tuple[float, int] | None = None  # the end that is kept, and how much had been told by then
        super().__init__(view=self.shows, panel_id=uuid.uuid4().hex, **layout)
        _views[self.panel_id] = self
        self.on_msg(self._hear)
        publisher().add(self)
        _after_cell(self._expect_no_more)
        _keep_with_cells()

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """Return the widget's state, with the session's present one: what a page that was reloaded begins with."""
        state: dict[str, Any] = super().get_state(key=key, drop_defaults=drop_defaults)
        if key is None or "initial" in state:
            with suppress(EngineBusy):
                update = self._session.ask(lambda: updates.whole(self._session, Sent(seq=self._sent.seq), self.parts))
                state["initial"] = msgspec.json.encode(update).decode()
        return state

    @property
    def is_open(self) -> bool:
        """Whether some page shows it, as far as is known."""
        return bool(self._pages) or self._is_expected

    def publish(self) -> bool:
        """Send what is new to the pages; called by the publisher.  Return whether the session runs."""
        self.keep_end()
        is_live = self._session.snapshot.state in _LIVE
        if not self.is_open:
            self._sent.is_whole_wanted = True
        elif self._has_changed(is_live=is_live):
            try:
                if "pace" in self.parts:
                    self._session.recall()
                update = self._session.ask(lambda: updates.changed(self._session, self._sent, self.parts))
            except EngineBusy:
                self._figures = ()
            else:
                update.pages = sorted(self._pages) if update.whole else []
                update.head.at_s = time.time()
                self.tell(update)
        return is_live

    def _has_changed(self, *, is_live: bool) -> bool:
        """Look whether there is anything to tell; what ticks while the session waits is told once a second."""
        snapshot, now_s = self._session.snapshot, time.monotonic()
        ended = snapshot.counts.ended
        figures = (snapshot.state, snapshot.told, snapshot.started_here, snapshot.ended_here, ended)
        if snapshot is not self._looked_at:  # it was forgotten, and begins anew
            self._sent.is_whole_wanted = True
        is_due = is_live and now_s - self._looked_s >= TICK_S
        if figures == self._figures and not is_due and not self._sent.is_whole_wanted:
            return False
        self._looked_at, self._figures, self._looked_s = snapshot, figures, now_s
        return True

    def bundle(self) -> dict[str, Any]:
        """Return the display of the session: the widget, and static forms for where there is none."""
        session = self._session
        return {
            _VIEW: {"version_major": 2, "version_minor": 0, "model_id": self.model_id},
            "text/html": still.html(
                session.snapshot,
                session.summary,
                session.policy.opening.group_word,
                has_breaker=session.policy.breaker is not None,
            ),
            "text/plain": still.text(session.summary),
        }

    def show(self) -> None:
        """Display it, and keep the static forms of that display up to date at its end."""
        self._shown = display(self.bundle(), raw=True, display_id=True)  # type: ignore[no-untyped-call]  # IPython's

    def keep_end(self) -> None:
        """Leave the final state where a page that is opened later, or has no kernel, begins; once for each end."""
        with self._keeping:  # who comes second, returns when it is done
            snapshot = self._session.snapshot
            end = (snapshot.ended_s, snapshot.told)
            if snapshot.state not in events.ENDED or self._kept == end:
                return
            self._kept = end
            self.send_state("initial")
            if self._shown is not None:
                self._shown.update(self.bundle(), raw=True)

    def act(self, command: str) -> None:
        """Act on a command's id once, and answer it."""
        with self._acting:
            if command in self._answered:
                return
            self._answered.append(command)
        try:
            answer = commands.obey(self._session, command)
        except Exception as error:  # whatever it is belongs into the panel, not into a cell
            answer = Ack(id=command, ok=False, text=commands.describe(error))
        self.tell(answer)
        publisher().hurry()

    def tell(self, message: FromKernel) -> None:
        """Send a message to the pages, as bytes: ipykernel walks through everything else in Python, 5 ms an update."""
        self.send({}, buffers=[msgspec.json.encode(message)])

    def _hear(self, widget: Any, content: Any, buffers: Any) -> None:
        try:
            message = msgspec.convert(content, FromBrowser)
        except msgspec.ValidationError:
            return  # of a later version's browser half
        match message:
            case Command():
                self.act(message.id)
            case Hello() | Resync():
                self._is_expected = False
                self._pages.add(message.view)
                self._sent.is_whole_wanted = True
                publisher().hurry()
            case Bye():
                self._is_expected = False
                self._pages.discard(message.view)

    def _expect_no_more(self) -> None:
        self._is_expected = False


def act(command: str) -> None:
    """Act on a command that a page could not send by the widget's own message.

    Args:
        command: See `wire.Command`.
    """
    view = _views.get(command.partition("/")[0])
    if view is not None:
        view.act(command)


def _after_cell(act: Any) -> None:
    """Call ``act`` some seconds after the present cell has ended: by then a page that shows its output is heard."""
    shell = get_ipython()
    if shell is None:
        return

    def ended(*_: Any) -> None:
        shell.events.unregister("post_run_cell", ended)
        timer = threading.Timer(_HELLO_S, act)
        timer.daemon = True
        timer.start()

    shell.events.register("post_run_cell", ended)


def _keep_with_cells() -> None:
    """Have every cell keep the ends that it waited for before it ends itself: what comes later may not be saved."""
    shell = get_ipython()
    if shell is not None:
        shell.events.register("post_run_cell", _keep_ends)


def _keep_ends(*_: Any) -> None:
    for view in tuple(_views.values()):
        view.keep_end()
