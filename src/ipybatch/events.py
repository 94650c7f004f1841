"""Event types: what a session's listeners are called with, and the words that events use.

`BatchSession.on` calls a listener with these; `BatchSession.log` shows the same as a DataFrame.
"""

from __future__ import annotations

from ipybatch.engine.data.events import *
from ipybatch.engine.feed.event_text import NAMES, Name

__all__ = [
    "NAMES",
    "AnyEvent",
    "AttemptFailed",
    "AttemptStarted",
    "BreakerMoved",
    "BreakerState",
    "Commanded",
    "CooledDown",
    "Counted",
    "Counts",
    "Depleted",
    "Drawn",
    "Event",
    "Exhausted",
    "GroupChanged",
    "GroupEnded",
    "GroupRecalled",
    "GroupStarted",
    "ItemEnded",
    "ItemsAdded",
    "ItemsLeft",
    "Name",
    "Noted",
    "PaceRecalled",
    "Planned",
    "Spent",
    "State",
    "StateChanged",
    "Status",
    "Tallied",
]
