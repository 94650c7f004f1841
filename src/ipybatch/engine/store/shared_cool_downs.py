"""SharedCoolDowns: cool-downs of one resource, which other processes heed as well.

What the service says here is told to the store; what the store says was said
elsewhere, or is its own: it has lost what it counted.  `SharedLimiter` is the
rest of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.rules.limiter import Cost, Limiter, cut_words
from ipybatch.engine.store.alarm import Alarm
from ipybatch.engine.store.limit_store import PULSE_S, Answer
from ipybatch.engine.store.store_link import StoreLink

USED_UP = "the service's own window is used up"
TOLD_S = 10.0  # so long a wait for that is worth a word


class SharedCoolDowns(Limiter):
    """What a limiter and its store say to one another of cool-downs.

    Attributes:
        why: Why it cools down, or did last.
        group: Name of the limit group, as people read it; "" for the resource itself.
        called: What people call the resource.
    """

    group: str
    called: str
    clock: Clock
    _link: StoreLink
    _alarm: Alarm
    _changed: Callable[[], None]
    _tell: Callable[[events.Event], None]
    _hint_s: float

    def __init__(self) -> None:
        super().__init__()
        self.why = ""
        self._asked_for = ""  # what the service asked for, where that was cut

    @property
    def label(self) -> str:
        """What people call this process."""
        raise NotImplementedError

    def _send(
        self, now_s: float, *, wanted: Cost | None = None, slot: bool = True, allowance: Cost | None = None
    ) -> None:
        raise NotImplementedError

    def _report_now(self) -> None:
        raise NotImplementedError

    def _report_soon(self) -> None:
        raise NotImplementedError

    def cool_down(self, now_s: float, started_s: float, wait_s: float) -> bool:
        """Let nothing start for ``wait_s``, in no process; say whether that is news."""
        if not super().cool_down(now_s, started_s, wait_s):
            return False
        self._cool_all(now_s, "the service asked us to slow down", wait_s)
        self._tell(self.cooled_down(now_s))
        return True

    def cooled_down(self, now_s: float) -> events.CooledDown:
        """Return the cool-down that is in force as an event."""
        unix_s = self.clock.unix_s()
        return events.CooledDown(unix_s, unix_s + self.cool_until_s - now_s, self.why, self.group, self.called)

    def _prolong(self, now_s: float, wait_s: float) -> bool:
        news = super()._prolong(now_s, wait_s)
        self._link.cool_until_s = self.cool_until_s
        self._report_soon()
        return news

    def _hold(self, now_s: float, hold_s: float) -> None:
        """Let nothing start, in no process, until the service's window begins anew."""
        if not self._prolong(now_s, hold_s):
            return
        self._cool_all(now_s, USED_UP, hold_s)
        if hold_s >= TOLD_S:
            self._tell(self.cooled_down(now_s))

    def _cool_all(self, now_s: float, why: str, asked_s: float) -> None:
        self._asked_for = cut_words(asked_s)
        self.why = why + self._asked_for
        self._send(now_s)
        self._alarm.set(PULSE_S)

    def lift(self) -> bool:
        """End the cool-down, here and in every process; return whether there was one.

        Raises:
            JournalError: The store cannot be read or written.
        """
        self._link.finish()
        now_s = self.clock.now_s()
        was_cool = sum(pacer.lift(now_s) for pacer in self._pacers) > 0 or self.cool_until_s > now_s
        self.cool_until_s = self._link.cool_until_s = -math.inf
        self._hint_s = -math.inf
        self._report_now()
        if was_cool:
            self._tell(events.CooledDown(self.clock.unix_s(), 0.0, "it was lifted", self.group, self.called))
        self._changed()
        return was_cool

    def _why(self) -> str:
        """Return why it cools down, as others are told."""
        if self.why.startswith(USED_UP):
            return self.why
        return f"the service asked {self.label or 'a session'} to slow down{self._asked_for}"

    def _cool(self, now_s: float, answer: Answer, *, is_told: bool = True) -> None:
        """Heed the store's cool-down, which another process may have begun, or somebody ended."""
        before_s = max(self.cool_until_s, now_s)
        self.cool_until_s = until_s = now_s + answer.cool_s if answer.cool_s else -math.inf
        if until_s > before_s + 0.1:
            self.why = answer.why
            is_told = is_told and not (self.group and answer.is_common)  # that is told once, for all
            if is_told and (answer.cool_s >= TOLD_S or not answer.why.startswith(USED_UP)):
                self._tell(self.cooled_down(now_s))
        elif until_s == -math.inf and before_s > now_s + 0.1:
            self._hint_s = -math.inf
            self._tell(events.CooledDown(self.clock.unix_s(), 0.0, "it was lifted", self.group, self.called))
