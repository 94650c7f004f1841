"""Two kernels at one journal, killed while they open, take over, forget and prune each other's sessions."""

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing

import pytest

from ipybatch.testing import KILL_VARIABLE
from tests.chaos.rounds import ROOT

KILLS = 120


class Rival:
    """One of two processes, started again whenever it was killed.

    Attributes:
        said: What all of its processes told, in order.
        unfinished: What was being removed when one was killed, with the time it began.
    """

    def __init__(self, journal, chance):
        self.journal, self.chance = journal, chance
        self.said, self.unfinished, self.during = [], [], Counter()
        self.kills = 0

    def live_once(self):
        """Run a process until it is killed: at a commit of its own choice, or from outside after a line."""
        at = (
            f"{self.chance.choice(['before', 'after'])}:{self.chance.randint(3, 60)}"
            if self.chance.random() < 0.6
            else ""
        )
        lines = self.chance.randint(1, 60)
        command = [sys.executable, "-m", "tests.chaos.rival", str(self.journal), str(self.chance.random())]
        environment = {**os.environ, KILL_VARIABLE: at}
        told = []
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                told.append(json.loads(line))
                if not at and len(told) >= lines:
                    process.kill()
        assert process.returncode == -9
        self.kills += 1
        self.said += told
        last = told[-1] if told else [0.0, "opening"]
        self.during[last[1]] += 1
        if last[1] == "removing":
            self.unfinished.append(last)


def removals(rivals):
    """Return when each removal was over, by name; one that was killed may be finished by anybody later."""
    over = [(name, at_s) for rival in rivals for at_s, what, name, *_ in rival.said if what == "removed"]
    return over + [(name, float("inf")) for rival in rivals for _, _, name in rival.unfinished]


def check(journal, rivals):
    """Return how much was lost, recorded twice, or is in another run than its own."""
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
        names = dict(database.execute("SELECT id, name FROM run WHERE name <> ''"))
        rows = {
            (id_ >> 40, json.loads(key)): json.loads(result)
            for id_, key, result in database.execute("SELECT id, key, result FROM item JOIN payload USING (id)")
        }
    mixed = sum(result["run"] != run for (run, _), result in rows.items())
    acknowledged = [tuple(line) for rival in rivals for line in rival.said if line[1] == "recorded"]
    times = Counter((run, key) for _, _, run, key, _ in acknowledged)
    over = [at_s for _, at_s in removals(rivals)]
    lost = 0
    for at_s, _, run, key, token in acknowledged:
        if run in names:
            lost += rows.get((run, key), {}).get("token") != token
        else:  # whoever removed it was not done by then
            lost += not any(removed_s >= at_s for removed_s in over)
    return len(acknowledged), lost, sum(number > 1 for number in times.values()), mixed


@pytest.mark.chaos
def test_rivals_that_are_killed_lose_nothing_and_mix_nothing(tmp_path):
    """0 lost, 0 recorded twice, 0 rows of one run in another; and nobody who lives loses a session."""
    journal = tmp_path / "journal.db"
    rivals = [Rival(journal, random.Random(seed)) for seed in range(2)]
    failures = []

    def live(rival):
        try:
            while rival.kills < KILLS // 2:
                rival.live_once()
        except BaseException as error:
            failures.append(error)
            raise

    both = [threading.Thread(target=live, args=(rival,)) for rival in rivals]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert not failures
    recorded, lost, twice, mixed = check(journal, rivals)
    ended = Counter(
        (state, reason)
        for rival in rivals
        for _, what, _, state, reason in (line for line in rival.said if line[1] == "ended")
    )
    during = sum((rival.during for rival in rivals), Counter())
    removed = sum(what == "removed" for rival in rivals for _, what, *_ in rival.said)
    print(
        f"rivals: {sum(rival.kills for rival in rivals)} kills ({dict(during)} was the last that was said), {recorded}"
        f" outcomes acknowledged, {removed} removals: {lost} lost, {twice} recorded twice,"
        f" {mixed} rows of one run in another"
    )
    assert (lost, twice, mixed) == (0, 0, 0)
    assert set(ended) == {("completed", "")}
    assert recorded > 10 * KILLS
    assert during["removing"] > 3
