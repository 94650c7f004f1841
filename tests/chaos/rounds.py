"""Rounds of a process that is killed and started again, and what the service and the journal have to say about it."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from ipybatch.simulators import Server, SteamSimulator, serve
from ipybatch.testing import KILL_VARIABLE

ROOT = Path(__file__).parents[2]


class Rounds:
    """One journal, one service, any number of processes.

    Attributes:
        breaks: Processes that did not end well: killed, or out of room.
        asked_again: Ids that a round asked for although an earlier one had; at most ``concurrency`` a kill.
    """

    def __init__(self, journal, ids, concurrency, **service):
        self.journal, self.ids, self.concurrency = journal, ids, concurrency
        self.server: Server = serve("steam", limit=None, **{"latency_s": 0.002, "jitter_s": 0.01, **service})
        self.kills = self.breaks = 0
        self.asked_again = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.close()

    def run(self, *, kill_at="", after_lines=None, room_bytes=""):
        """Start one process, let it be killed at a commit or after so many recorded items, and check what it did."""
        recorded, asked = self.recorded(), self.asked()
        environment = {**os.environ, KILL_VARIABLE: kill_at, "VICTIM_ROOM_BYTES": str(room_bytes)}
        command = [
            sys.executable,
            "-m",
            "tests.chaos.victim",
            self.server.url,
            self.journal,
            self.ids,
            self.concurrency,
        ]
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = []
        with process:
            for line in process.stdout:
                said.append(line.strip())
                if after_lines is not None and len(said) >= after_lines:
                    process.kill()
        self.kills += process.returncode == -9
        self.breaks += process.returncode == -9 or "failed:" in said[-1]
        self._check(recorded, asked, said, killed=process.returncode == -9)
        return process.returncode, said

    def recorded(self):
        """Return what is in the journal, by a reader that is none of ours."""
        if not Path(self.journal).exists():
            return {}
        with sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True) as database:
            try:
                rows = database.execute("SELECT key, status FROM item").fetchall()
            except sqlite3.OperationalError:  # killed before the first table
                rows = []
        database.close()
        assert len(dict(rows)) == len(rows), "an id is recorded twice"
        return dict(rows)

    def asked(self):
        simulator = self.server.simulator
        assert isinstance(simulator, SteamSimulator)
        return simulator.stats()["ids"]

    def _check(self, recorded, asked_before, said, *, killed):
        asked, now = self.asked(), self.recorded()
        for key in (key for key, status in recorded.items() if status == "completed"):
            assert asked[key] == asked_before[key], f"{key} was recorded and asked for again"
        lines = {line for line in said if line.isdigit()}
        assert lines <= now.keys(), "an item was shown before it was on disk"
        again = [key for key in asked if asked[key] > asked_before.get(key, 0) and key in asked_before]
        assert len(again) <= self.concurrency, f"{len(again)} ids were asked for twice after one kill"
        self.asked_again += len(again)
        in_doubt = asked.keys() - now.keys()
        assert not killed or len(in_doubt) <= self.concurrency

    def check_complete(self):
        """Finish without a kill: every id recorded once, the repeats within what was in flight."""
        returncode, said = self.run()
        assert returncode == 0
        assert said[-1] == f"victim completed: {self.ids}/{self.ids} successful, 0 failed, 0 skipped"
        assert self.recorded() == {str(number): "completed" for number in range(1, self.ids + 1)}
        asked = self.asked()
        assert set(asked) == {str(number) for number in range(1, self.ids + 1)}
        assert sum(asked.values()) - self.ids <= self.breaks * self.concurrency
