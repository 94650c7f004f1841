"""Job groups: remote jobs as rows of the panel's table."""

from __future__ import annotations

from collections.abc import Callable

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import Event, Status
from ipybatch.gemini.jobs import Job, State

_STATUS: dict[State, Status] = {
    "intent": "pending",
    "unknown": "pending",
    "pending": "pending",
    "running": "running",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "expired": "timeout",
}


class JobGroups:
    """Tell how the jobs of a session stand, whenever that changes."""

    def __init__(self, tell: Callable[[Event], None], clock: Clock) -> None:
        self._tell, self._clock = tell, clock
        self._shown: dict[int, tuple[Status, events.Extra, str]] = {}

    def queue(self, number: int, items: int) -> None:
        """Show a job that is not submitted yet."""
        self._start(number, items, {"Remote": "", "State": "queued"})
        self._change(number, "pending", {}, "")

    def show(self, job: Job) -> None:
        """Show a job as the service tells it."""
        extra: events.Extra = {"Remote": job.remote, "State": _state(job)}
        if job.number not in self._shown:
            self._start(job.number, job.requests, extra)
        status = "running" if job.state == "succeeded" else _STATUS[job.state]  # until its results are on disk
        self._change(job.number, status, extra, _reason(job))
        if job.ended and job.state != "succeeded":
            self.end(job.number, status)

    def hold(self, number: int, why: str) -> None:
        """Show why a job is not submitted yet."""
        self._change(number, "pending", {"State": "queued"}, why)

    def refuse(self, number: int, why: str, status: Status = "failed") -> None:
        """Show that a job was not accepted, or not sent at all."""
        self._change(number, status, {"State": "not submitted"}, why)
        self.end(number, status)

    def end(self, number: int, status: Status) -> None:
        """Show that all items of a job have their outcomes."""
        self._tell(events.GroupEnded(self._clock.unix_s(), number, status))

    def recall(self, job: Job) -> None:
        """Show a job of an earlier process whose results were taken over."""
        failed = 0 if job.state == "succeeded" else job.requests
        ended_s = job.ended_s or job.updated_s
        self._tell(
            events.GroupRecalled(
                self._clock.unix_s(), job.number, _name(job.number), job.requests, failed, job.created_s, ended_s, ""
            )
        )
        self._change(job.number, _STATUS[job.state], {"Remote": job.remote, "State": job.state}, job.reason)

    def _start(self, number: int, items: int, extra: events.Extra) -> None:
        self._tell(events.GroupStarted(self._clock.unix_s(), number, _name(number), items, extra, lasts=True))

    def _change(self, number: int, status: Status, extra: events.Extra, error: str) -> None:
        now = (status, extra, error)
        if self._shown.get(number) != now:
            self._shown[number] = now
            self._tell(events.GroupChanged(self._clock.unix_s(), number, status, extra, error))


def _state(job: Job) -> str:
    total, pending = job.counts.get("requests", 0), job.counts.get("pending", 0)
    return f"running {total - pending}/{total}" if job.state == "running" and total else job.state


def _reason(job: Job) -> str:
    failed = job.counts.get("failed", 0)
    # They go into another job, and are not among this row's items any more.
    return f"{failed} failed, to be sent again" if job.state == "succeeded" and failed else job.reason


def _name(number: int) -> str:
    return f"Job {number}"
