"""A fleet: processes that share one resource, each with a journal, items and clocks of its own, as on so many machines.

    parent: Fleet --start--> member 0, 1, ...: python -m tests.fleet JSON --HTTP--> the server that counts
                                   +--Limits(store=...)--> what they share

A member runs one session over its part of the items once it is told to; who was killed and is started again goes on
in it.  Its clocks, both, are as far from the others' as they are told: nothing of ours reads another one.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.rate_server import PER_S, Fetch

ROOT = Path(__file__).parents[1]
SESSION = "fleet"
ATTEMPTS = 5


class Refused(Exception):
    """What the server answers to who comes too early."""

    status_code = 429


class Asking(Fetch):
    """Ask the server, and raise where it refuses."""

    async def __call__(self, item: int) -> str:
        status = await super().__call__(item)
        if status == "429":
            raise Refused
        return status


class Starter:
    """A process that says "ready", begins at a line of stdin, and tells in the end what it came to, as JSON.

    Args:
        command: What to run.
        errors: The file that takes its stderr.
    """

    def __init__(self, command: list[str], errors: Path) -> None:
        self._command, self._errors = command, errors
        self.start()

    def start(self) -> None:
        """Start the process."""
        with self._errors.open("ab") as errors:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
            )

    def make_ready(self) -> None:
        """Wait until it has imported what it needs."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self._errors.read_text()

    def begin(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("begin\n")
        self.process.stdin.flush()

    def wait(self) -> dict[str, Any]:
        """Return what it came to."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self._errors.read_text()
        told: dict[str, Any] = json.loads(line)
        return told

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.communicate()


def command(told: dict[str, Any]) -> list[str]:
    """Return what runs one process of a fleet; see `main`."""
    return [sys.executable, "-m", __spec__.name, json.dumps(told)]


class Member(Starter):
    """One process of a fleet.

    Args:
        folder: Where its journal lies.
        told: What it is to do; see `main`.
    """

    def __init__(self, folder: Path, told: dict[str, Any]) -> None:
        self.journal = folder / "journal.sqlite3"
        self.items = range(*told["items"])
        folder.mkdir(parents=True)
        super().__init__(command(told | {"journal": str(self.journal)}), folder / "errors.txt")

    def recorded(self) -> Counter[str]:
        """Return how many items are on record, by status; by a reader that is none of ours."""
        with contextlib.closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT key, status FROM item").fetchall()
        assert {key for key, _ in rows} <= {str(item) for item in self.items}, "an item of somebody else"
        assert len(dict(rows)) == len(rows), "an item is recorded twice"
        return Counter(status for _, status in rows)


class Fleet:
    """Members that share the items evenly.

    Args:
        port: Of the server that counts; None: the work is nothing.
        store: As `Limits.store`; None for the member's own file.
        items: Of all together.
        limit: Requests a second, of all together.
        concurrency: Requests at a time, of all together.
        apart_s: How far each member's clocks are from those of the one before.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None,
        store: str | None,
        items: int,
        *,
        members: int = 8,
        limit: int = 100,
        concurrency: int = 20,
        apart_s: float = 60.0,
    ) -> None:
        self._folder, self._apart_s = folder, apart_s
        self._told = {"port": port, "store": store, "limit": limit, "concurrency": concurrency}
        self.members: list[Member] = []
        share = math.ceil(items / members)
        for first in range(0, items, share):
            self.add(first, min(items, first + share))

    def add(self, first: int, end: int) -> Member:
        """Start one more member, with items of its own."""
        number = len(self.members)
        told = self._told | {"number": number, "items": [first, end], "skew_s": number * self._apart_s}
        self.members.append(Member(self._folder / str(number), told))
        return self.members[-1]

    def begin(self) -> None:
        """Let all run, once all are ready."""
        for member in self.members:
            member.make_ready()
        for member in self.members:
            member.begin()

    def wait(self) -> list[dict[str, Any]]:
        """Return what the sessions of all came to."""
        return [member.wait() for member in self.members]

    def close(self) -> None:
        """End all processes."""
        for member in self.members:
            member.kill()


@contextlib.contextmanager
def fleet(folder: Path, port: int | None, store: str | None, items: int, **options: Any) -> Iterator[Fleet]:
    """Start a fleet, and end it."""
    made = Fleet(folder, port, store, items, **options)
    try:
        yield made
    finally:
        made.close()


def shift_clocks(by_s: float) -> None:
    """Let this process's clocks, wall and monotonic, be so much later than the machine's; before any import of ours."""
    for name in ("time", "monotonic") if by_s else ():
        clock, clock_ns = getattr(time, name), getattr(time, f"{name}_ns")
        setattr(time, name, partial(_later, clock, by_s))
        setattr(time, f"{name}_ns", partial(_later, clock_ns, round(by_s * 1e9)))


def _later(clock: Any, by: Any) -> Any:
    return clock() + by


def main(told: dict[str, Any]) -> None:
    """Run a session over ``items`` against ``port``, under ``limit`` a second and ``concurrency`` shared by ``store``.

    Without a port nothing is asked: what is left is the cost of a start.  Tells "ready"; after a line of stdin, as
    JSON: how many items were completed, and in which state; what it was told (`notes`); latencies; CPU seconds; how
    long the session took; and without a port, when the first and the last item started.
    """
    shift_clocks(told["skew_s"])
    from ipybatch import BatchSession, Limits, Rate, Retry, events

    fetch, notes, starts_s = Asking(told["port"]), list[str](), list[float]()

    async def nothing(item: int) -> None:
        """Do nothing, and note when."""
        starts_s[min(1, len(starts_s)) :] = [time.monotonic()]

    limits = Limits(concurrency=told["concurrency"], rates=[Rate(told["limit"], per_s=PER_S)], store=told["store"])
    session = BatchSession(
        SESSION,
        nothing if told["port"] is None else fetch,
        range(*told["items"]),
        limits=limits,
        retry=Retry(attempts=ATTEMPTS),
        resource="api",
        journal=told["journal"],
    )

    def tell(event: events.Event) -> None:
        if isinstance(event, events.Noted):
            notes.append(event.text)
        elif isinstance(event, events.CooledDown):
            notes.append(event.reason)

    session.on(tell)
    if "://" in (told["store"] or ""):
        import redis  # noqa: F401  # as who measures has all imported
    print("ready", flush=True)
    sys.stdin.readline()
    cpu_s, started_s = time.process_time(), time.monotonic()
    summary = session.run()
    came_to = {
        "state": summary.state,
        "reason": summary.reason,
        "done": summary.counts.completed,
        "notes": notes,
        "latencies_s": fetch.latencies_s,
        "cpu_s": time.process_time() - cpu_s,
        "took_s": time.monotonic() - started_s,
        "starts_s": starts_s,
    }
    print(json.dumps(came_to), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
