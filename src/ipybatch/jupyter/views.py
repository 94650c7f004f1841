"""Views: the panel, and its parts for who wants to lay them out.

VBox([Progress(session), HBox([BreakerStatus(session), Timeline(session)]), Log(session)])
"""

from __future__ import annotations

from typing import ClassVar

from ipybatch.engine.feed.session_view import Viewed
from ipybatch.jupyter.updates import Part
from ipybatch.jupyter.view import View
from ipybatch.jupyter.wire import ViewName


class Panel(View):
    """Everything about a session on one sheet, with its controls."""


class Progress(View):
    """How far it is: done, failed, running, rate, elapsed, time left, cost; with the controls."""

    shows: ClassVar[ViewName] = "progress"
    parts: ClassVar[frozenset[Part]] = frozenset()


class PartitionTable(View):
    """The groups (batches, jobs, partitions), each with its items; the latest items where there are no groups."""

    shows: ClassVar[ViewName] = "table"
    parts: ClassVar[frozenset[Part]] = frozenset({"rows"})


class BreakerStatus(View):
    """The circuit breaker with its history, and the windows of the limiter."""

    shows: ClassVar[ViewName] = "breaker"
    parts: ClassVar[frozenset[Part]] = frozenset({"moves"})


class Timeline(View):
    """Attempts a second against the limits, and the groups as bars."""

    shows: ClassVar[ViewName] = "timeline"
    parts: ClassVar[frozenset[Part]] = frozenset({"rows", "pace", "moves"})


class Log(View):
    """What happened, newest first."""

    shows: ClassVar[ViewName] = "log"
    parts: ClassVar[frozenset[Part]] = frozenset({"log"})


def show(session: Viewed) -> None:
    """Display the live panel of a session."""
    Panel(session).show()
