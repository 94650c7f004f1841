"""Panel: one anywidget that shows a session and takes its commands.

The browser half is `static/panel.js`, built from `widgets/src`; what the two
say to each other is in `wire`.  A command comes as a message of the widget,
or, while another cell keeps the kernel from reading those, through a private
subshell that calls `act`; by whatever road, it is acted on once.
"""

from __future__ import annotations

import pathlib
import threading
import uuid
import weakref
from collections import deque
from typing import Any, get_args

import anywidget
import msgspec
import traitlets
from IPython.display import display

from ipybatch.engine import events
from ipybatch.jupyter import still, updates
from ipybatch.jupyter.publisher import publisher
from ipybatch.jupyter.viewed import Viewed
from ipybatch.jupyter.wire import Ack, Bye, Command, CommandName, FromBrowser, Hello, Resync, Update

_STATIC = pathlib.Path(__file__).parent / "static"
_VIEW = "application/vnd.jupyter.widget-view+json"
_ANSWERED_AT_MOST = 1000

_panels: weakref.WeakValueDictionary[str, Panel] = weakref.WeakValueDictionary()


class Panel(anywidget.AnyWidget):
    """The live view of one session; lays out in VBox, HBox and Tab like any widget."""

    _esm = _STATIC / "panel.js"
    _css = _STATIC / "panel.css"
    initial = traitlets.Unicode("").tag(sync=True)
    panel_id = traitlets.Unicode("").tag(sync=True)

    def __init__(self, session: Viewed, **layout: Any) -> None:
        self._session = session
        self._seq = 0
        self._dirty: set[int] = set()
        self._wants_whole = False
        self._answered: deque[str] = deque(maxlen=_ANSWERED_AT_MOST)
        self._acting = threading.Lock()
        self._shown: Any = None
        self._kept_for = 0.0  # the end whose final state is kept
        super().__init__(panel_id=uuid.uuid4().hex, **layout)
        _panels[self.panel_id] = self
        self.on_msg(self._hear)
        session.on(self._notice)

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """Return the widget's state, with the session's present one: what a page that was reloaded begins with."""
        state: dict[str, Any] = super().get_state(key=key, drop_defaults=drop_defaults)
        if key is None or "initial" in state:
            update = self._session.ask(lambda: updates.whole(self._session, self._seq))
            if update is not None:
                state["initial"] = msgspec.json.encode(update).decode()
        return state

    def publish(self) -> bool:
        """Send what is new to the views; called by the publisher."""
        dirty, self._dirty = self._dirty, set()
        is_whole, self._wants_whole = self._wants_whole, False
        update = self._session.ask(lambda: self._update(dirty, is_whole=is_whole))
        if update is None:
            self._dirty |= dirty
            self._wants_whole |= is_whole
            return True
        self._seq = update.seq
        self.send(msgspec.to_builtins(update))
        if update.head.state in events.ENDED and self._kept_for != self._session.snapshot.ended_s:
            self._kept_for = self._session.snapshot.ended_s
            self._keep()
        return False

    def _keep(self) -> None:
        """Leave the final state where a page that is opened later, or has no kernel, begins."""
        self.send_state("initial")
        if self._shown is not None:
            self._shown.update(self.bundle(), raw=True)

    def bundle(self) -> dict[str, Any]:
        """Return the display of the session: the widget, and static forms for where there is none."""
        session = self._session
        return {
            _VIEW: {"version_major": 2, "version_minor": 0, "model_id": self.model_id},
            "text/html": still.html(session.snapshot, session.summary, session.policy.opening.group_word),
            "text/plain": still.text(session.summary),
        }

    def show(self) -> None:
        """Display it, and keep the static forms of that display up to date at its end."""
        self._shown = display(self.bundle(), raw=True, display_id=True)  # type: ignore[no-untyped-call]  # IPython's

    def act(self, command: str) -> None:
        """Act on a command's id once, and answer it."""
        with self._acting:
            if command in self._answered:
                return
            self._answered.append(command)
        name = command.rpartition("/")[2]
        try:
            ok, text = True, self._obey(name)
        except Exception as error:  # whatever it is belongs into the panel, not into a cell
            ok, text = False, f"{type(error).__name__}: {error}"
        self.send(msgspec.to_builtins(Ack(id=command, ok=ok, text=text)))

    def _obey(self, name: str) -> str:
        if name not in get_args(CommandName):
            msg = f"unknown command {name!r}"
            raise ValueError(msg)
        session, running = self._session, self._session.snapshot.counts.running
        getattr(session, name)()
        if name == "cancel":
            return f"cancelled, {running} in flight ended" if session.snapshot.state == "cancelled" else "cancelling"
        if name == "pause":
            return f"paused, {running} in flight finish" if running else "paused"
        return "running"

    def _hear(self, widget: Any, content: Any, buffers: Any) -> None:
        try:
            message = msgspec.convert(content, FromBrowser)
        except msgspec.ValidationError:
            return  # of a later version's browser half
        match message:
            case Command():
                self.act(message.id)
            case Hello() | Resync():
                self._wants_whole = True
                publisher().call(self)
            case Bye():
                pass

    def _notice(self, event: events.Event) -> None:
        group = getattr(event, "group", 0)
        if group:
            self._dirty.add(group)
        elif isinstance(event, events.Planned):
            self._wants_whole = True
        publisher().call(self)

    def _update(self, dirty: set[int], *, is_whole: bool) -> Update:
        if is_whole:
            return updates.whole(self._session, self._seq + 1)
        return updates.changed(self._session, self._seq + 1, dirty)


def act(command: str) -> None:
    """Act on a command that a view could not send by the widget's own message.

    Args:
        command: ``<panel id>/<random>/<name>``.
    """
    panel = _panels.get(command.partition("/")[0])
    if panel is not None:
        panel.act(command)


def show(session: Viewed) -> None:
    """Display the live panel of a session."""
    Panel(session).show()
