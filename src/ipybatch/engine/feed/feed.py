"""Feed: where events go: the snapshot, the log, the listeners.

A listener that raises is dropped and noted once; the run goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import NoteKind
from ipybatch.engine.data.masking import describe, mask
from ipybatch.engine.feed.snapshot import FOLD, Snapshot

LOGGED_AT_MOST = 20_000  # about 5 MB

Listener = Callable[[events.Event], None]


class Feed:
    """Publish events in order.

    Attributes:
        snapshot: The fold of all events so far.
        log: The latest events, oldest first, at most `LOGGED_AT_MOST`.
    """

    def __init__(self, clock: Clock) -> None:
        self.snapshot = Snapshot()
        self.log: deque[events.Event] = deque(maxlen=LOGGED_AT_MOST)
        self.clock = clock
        self._listeners: list[Listener] = []
        self._untold: deque[events.Event] = deque()
        self._telling = False

    def emit(self, event: events.Event) -> None:
        """Fold an event in and tell everyone."""
        FOLD[type(event)](self.snapshot, event)
        self.log.append(event)
        if self._listeners:
            self.publish(event)

    def tell(self, event: events.Event) -> None:
        """Emit an event that the work made, with its texts masked: names of groups, what is said of them."""
        texts: dict[str, Any] = {}
        for field in event.__struct_fields__:
            value = getattr(event, field)
            if isinstance(value, str) and field != "key":
                texts[field] = mask(value)
            elif isinstance(value, dict):
                texts[field] = {
                    mask(name): mask(said) if isinstance(said, str) else said for name, said in value.items()
                }
        self.emit(msgspec.structs.replace(event, **texts) if texts else event)

    def publish(self, event: events.Event) -> None:
        """Tell everyone of an event that was folded in."""
        self._untold.append(event)
        if self._telling:  # a listener caused it: those behind have not heard yet what that one heard
            return
        self._telling = True
        try:
            while self._untold:
                self._tell(self._untold.popleft())
        finally:
            self._telling = False

    def on(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with every event from now on; return a function that ends that."""
        self._listeners = [*self._listeners, listener]
        return lambda: self.off(listener)

    def off(self, listener: Listener) -> None:
        """Stop calling ``listener``."""
        self._listeners = [known for known in self._listeners if known is not listener]

    def clear(self) -> None:
        """Forget what happened; whoever listens goes on listening."""
        self.snapshot = Snapshot()
        self.log.clear()

    def note(self, text: str, kind: NoteKind = "") -> None:
        """Tell the user something, once."""
        noted = self.note_beside(text, kind)
        if noted is not None and self._listeners:
            self.publish(noted)

    def recall(self, marks: list[events.Mark]) -> None:
        """Tell how items ended in earlier processes, unless another view has asked already."""
        if not self.snapshot.pace.is_whole:
            self.emit(events.PaceRecalled(self.clock.unix_s(), marks))

    def note_beside(self, text: str, kind: NoteKind = "") -> events.Noted | None:
        """Note something from another thread, while the engine's own is blocked; return what is to be published.

        The snapshot and the log have it at once; listeners hear of it on the engine's thread.
        """
        text = mask(text)
        if (text in self.snapshot.notes) is (kind != "over"):
            return None
        event = events.Noted(self.clock.unix_s(), text, kind)
        FOLD[events.Noted](self.snapshot, event)
        self.log.append(event)
        return event

    def _tell(self, event: events.Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except BaseException as error:  # a view that raises, or exits, must not stop the run
                self.off(listener)
                self.note(f"a listener was dropped: it raised {describe(error)}", "listener")
