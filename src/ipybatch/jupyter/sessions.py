"""Sessions: several sessions in one output, each in a line that opens; those that run come first.

    session --+                             +-- line or panel
    session --+-- _Part ... Sessions --comm-+-- line or panel
    session --+                             +-- line or panel

Rule: a list has one widget and sends one message a round of the publisher, however many sessions it shows.  The view
of each session is a `View` like any other; what it sends goes into the next message of its list, and what the browser
says to it comes out of one.  It is told no more than its line shows until somebody opens it.
"""

from __future__ import annotations

import pathlib
import threading
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import anywidget
import msgspec
import traitlets
from IPython.display import display

from ipybatch.engine.data import events
from ipybatch.engine.data.masking import mask
from ipybatch.engine.feed import session_view
from ipybatch.engine.feed.session_view import SessionView
from ipybatch.errors import EngineBusy, InputError
from ipybatch.jupyter.messages import Ack, FromBrowser, Hello
from ipybatch.jupyter.panel import LIVE, TICK_S, VIEW_MIME, Panel, widget_metadata
from ipybatch.jupyter.publisher import publisher
from ipybatch.jupyter.static_html import Sheet, ended, said, table

_STATIC = pathlib.Path(__file__).parent / "static"
SHOWN_AT_MOST = 100  # those that run, and of those that ended the latest
LOOKS_PER_S = 10  # at the journal, for who has gone on with those that ended


class Within(msgspec.Struct, kw_only=True, tag_field="kind", tag="within"):
    """What the panel of one session says."""

    panel: str
    message: FromBrowser


class List(msgspec.Struct, kw_only=True, tag_field="kind", tag="list"):
    """The sessions of a list, and what their panels are told: a message for each of ``told``, in a buffer of its own.

    Attributes:
        panels: Ids of their panels, in the order in which they are shown.
        initial: By such an id, the first state of a panel; only in the state of the widget.
        told: Ids of the panels that the further buffers are for.
    """

    panels: list[str]
    initial: dict[str, str] = msgspec.field(default_factory=dict)
    told: list[str] = msgspec.field(default_factory=list)


FromSessions = Within | Hello


class Sessions(anywidget.AnyWidget):
    """Several sessions under each other, each in one line that opens to its panel; those that run come first.

    Args:
        sessions: Which to show; without it, all of this process, and each one that is made later. Of several with one
            name in one journal only the latest is shown, unless an earlier one runs.
        layout: Traits of the widget, as for any other.

    Raises:
        InputError: ``sessions`` holds something that is no session.

    Example:
        >>> from ipybatch.jupyter import Sessions
        >>> Sessions()  # doctest: +SKIP
        >>> Sessions([prices, guilds, forecast])  # doctest: +SKIP
    """

    _esm = _STATIC / "panel.js"
    _css = _STATIC / "panel.css"
    view = traitlets.Unicode("sessions").tag(sync=True)
    initial = traitlets.Unicode("").tag(sync=True)
    panel_id = traitlets.Unicode("").tag(sync=True)

    def __init__(self, sessions: Iterable[SessionView] | None = None, **layout: Any) -> None:
        self._given = None if sessions is None else _checked(sessions)
        self._parts: list[_Part] = []
        self._lock = threading.RLock()
        self._told: list[tuple[str, bytes]] = []
        self._is_wanted = False  # the pages are to be told the list: it has changed, or one has come
        self._kept: list[tuple[float, int]] = []  # the ends that are stored
        self._lacked = 0  # how often a session's state could not be had for want of an answer
        self._shown: Any = None
        super().__init__(panel_id=uuid.uuid4().hex, **layout)
        self._follow()
        self.send_state("initial")
        self.on_msg(self._hear)
        publisher().add(self)

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """Return the widget's state, with the present state of each session for a page that is reloaded."""
        state: dict[str, Any] = super().get_state(key=key, drop_defaults=drop_defaults)
        if key is None or "initial" in state:
            first = self._firsts()
            state["initial"] = msgspec.json.encode(List(panels=list(first), initial=first)).decode()
        return state

    def _firsts(self) -> dict[str, str]:
        """Return by panel the present states; all that run have one engine, and one that is busy is asked once."""
        found, is_busy = {}, False
        for part in self._parts:
            is_asked = not is_busy or part.session.snapshot.state not in LIVE
            found[part.panel_id] = part.first() if is_asked else ""
            is_busy |= not found[part.panel_id]
        self._lacked += is_busy
        return found

    def publish(self) -> bool:
        """Send what the panels were told since the last message; called by the publisher."""
        if self._follow():
            self._is_wanted = True
        self._tell()
        self.keep_ends()
        return False  # the panels know whether their sessions run

    def beat(self) -> None:
        """Leave it to the panels to tell that they are there; what they gather is sent at once."""
        self._tell()

    def gather(self, panel: str, message: bytes) -> None:
        """Take a message of a panel into the next one of the list."""
        with self._lock:
            self._told.append((panel, message))

    def _tell(self) -> None:
        with self._lock:
            told, self._told = self._told, []
            if told or self._is_wanted:
                self._is_wanted = False
                message = List(panels=[part.panel_id for part in self._parts], told=[name for name, _ in told])
                self.send({}, buffers=[msgspec.json.encode(message), *[data for _, data in told]])

    def show(self) -> None:
        """Display the list; its static forms are updated when the last of its sessions ends."""
        found = widget_metadata(self)
        self._shown = display(self.bundle(), raw=True, display_id=True, metadata=found)  # type: ignore[no-untyped-call]  # IPython's

    def bundle(self) -> dict[str, Any]:
        """Return the display of the list: the widget, and static forms for front ends without widgets."""
        summaries = [part.session.summary for part in self._parts]
        rows = [[said(each.name), ended(each), said(_outcome(each))] for each in summaries]
        sheet = Sheet([("Session", False), ("State", False), ("What happened", False)], rows)
        return {
            VIEW_MIME: {"version_major": 2, "version_minor": 0, "model_id": self.model_id},
            "text/html": table(sheet) if rows else "<p>No session.</p>",
            "text/plain": mask("\n".join(map(str, summaries))) or "No session.",
        }

    def keep_ends(self) -> None:
        """Store the final states in the widget, once for each end of a session; in its static forms, of the last."""
        snapshots = [part.session.snapshot for part in self._parts]
        ends = sorted((each.ended_s, each.told) for each in snapshots if each.state in events.ENDED)
        with self._lock:
            if ends == self._kept:
                return
            before, self._kept = self._kept, ends
        lacked = self._lacked
        self.send_state("initial")
        if self._lacked != lacked:
            self._kept = before  # the next round tries again
            return
        if self._shown is not None and not any(each.state in LIVE for each in snapshots):
            self._shown.update(self.bundle(), raw=True, metadata=widget_metadata(self))

    def _ipython_display_(self) -> None:
        self.show()

    def _follow(self) -> bool:
        """Add parts for new sessions and drop those of replaced ones; return whether the list or its order changed."""
        wanted = sorted(_latest(session_view.made_here()) if self._given is None else self._given, key=_place)
        before = [part.session for part in self._parts]
        if before == wanted[:SHOWN_AT_MOST]:
            return False
        known = {id(part.session): part for part in self._parts}
        self._parts = [known.get(id(session)) or _Part(session, self) for session in wanted[:SHOWN_AT_MOST]]
        for part in self._parts:
            part.look_s = max(TICK_S, len(self._parts) / LOOKS_PER_S)
        return True

    def _hear(self, widget: Any, content: Any, buffers: Any) -> None:
        try:
            message = msgspec.convert(content, FromSessions)
        except msgspec.ValidationError:
            return  # from the browser half of a later version
        if isinstance(message, Hello):
            self._is_wanted = True
            publisher().hurry()
            return
        for part in tuple(self._parts):
            if part.panel_id == message.panel:
                part.hear(content["message"])


class _Part(Panel):
    """The panel of one session in a list: it has no channel of its own."""

    def __init__(self, session: SessionView, whole: Sessions) -> None:
        self._whole = whole
        self.parts = frozenset()
        super().__init__(session, compact=True)

    @property
    def session(self) -> SessionView:
        """Whose it is."""
        return self._session

    def first(self) -> str:
        """Return its present state, for a page that is loaded; "" when the engine does not answer."""
        with suppress(EngineBusy):
            return str(self.get_state("initial")["initial"])
        return ""

    def act(self, command: str) -> None:
        """Execute a command; "open" is answered by all that the session has, from then on."""
        if command.split("/")[2:] != ["open"]:
            super().act(command)
            return
        self.parts = Panel.parts
        self._wholes_wanted += 1
        self.tell(Ack(id=command, ok=True, done=True, text=""))
        publisher().hurry()

    def open(self) -> None:
        """Do without a channel."""

    def send(self, content: Any, buffers: Any = None) -> None:
        """Have the list send it."""
        self._whole.gather(self.panel_id, buffers[0])

    def keep_end(self) -> None:
        """Leave it to the list to store how the session ended."""
        self._whole.keep_ends()


def _checked(sessions: Iterable[SessionView]) -> list[SessionView]:
    given = list(sessions)
    for place, session in enumerate(given):
        if not hasattr(session, "snapshot"):
            msg = f"sessions must be sessions, got {type(session).__name__} at {place}"
            raise InputError(msg)
    return given


def _place(session: SessionView) -> tuple[int, float]:
    """Return a key that sorts: those that run, as they were made; those to come; those that ended, the latest first."""
    snapshot = session.snapshot
    if snapshot.state in LIVE:
        return 0, 0.0
    return (1, 0.0) if snapshot.state not in events.ENDED else (2, -(snapshot.ended_s or 0.0))


def _latest(sessions: Iterable[SessionView]) -> list[SessionView]:
    """Of those with one name in one journal, return the last, and each that runs."""
    ordered = list(sessions)
    last = {(str(getattr(session, "journal", "")), session.policy.name): id(session) for session in ordered}
    wanted = {*last.values()}
    return [each for each in ordered if id(each) in wanted or each.snapshot.state in LIVE]


def _outcome(summary: Any) -> str:
    return str(summary).removeprefix(f"{summary.name} {summary.state}: ")
