"""Pace: how the counts grew over time, in a few hundred marks however long it takes.

A mark a second at first; when there are too many, every second one goes and
the next ones are twice as far apart.
"""

from __future__ import annotations

import msgspec

MARKS = 240


class Mark(msgspec.Struct, frozen=True, gc=False):
    """What had happened by a moment, counted from the beginning.

    Attributes:
        at_s: Unix time.
        started: Attempts.
        ended: Items that had an outcome; ``failed`` of them did not complete.
    """

    at_s: float
    started: int
    ended: int
    failed: int


class Pace(msgspec.Struct):
    """The marks of one session.

    Attributes:
        is_whole: Whether those of earlier processes are among them.
        step_s: Seconds between two of them, at least.
        thinned: How often marks were taken out: who kept a copy must take them all anew.
    """

    marks: list[Mark] = msgspec.field(default_factory=list)
    step_s: float = 1.0
    thinned: int = 0
    is_whole: bool = False

    def put_before(self, earlier: list[Mark]) -> Mark:
        """Take in the marks of earlier processes; return where those ended, which all later ones count from."""
        base = earlier[-1] if earlier else Mark(0.0, 0, 0, 0)
        own, self.marks = self.marks, []
        self.is_whole = True
        self.thinned += 1
        for mark in earlier:
            self.add(mark)
        for mark in own:
            self.add(Mark(mark.at_s, base.started + mark.started, base.ended + mark.ended, base.failed + mark.failed))
        return base

    def add(self, mark: Mark) -> None:
        """Note where the counts stand; too soon after the latest, it takes that one's place."""
        marks = self.marks
        if len(marks) > 1 and mark.at_s < marks[-2].at_s + self.step_s:
            marks[-1] = mark
        else:
            marks.append(mark)
        if len(marks) > MARKS:
            self.marks = [*marks[:-1:2], marks[-1]]
            self.step_s *= 2
            self.thinned += 1
