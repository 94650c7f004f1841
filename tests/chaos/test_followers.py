"""Kill -9 of a session's process, and of one that follows and commands it: nothing is lost, and no command outlives."""

import os
import random
import subprocess
import sys
import threading
import time

import pytest

from ipybatch import BatchSession, InputError
from ipybatch.engine.store import commands
from ipybatch.engine.store.journal import open_journal
from ipybatch.testing import KILL_VARIABLE
from tests.chaos.rounds import ROOT, Rounds


class Followers:
    """One process after the other that follows the victim, each killed at one of its commits."""

    def __init__(self, journal, chance):
        self.journal, self.chance = journal, chance
        self.kills = 0
        self._is_over = False
        self._thread = threading.Thread(target=self._live)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over = True
        self._thread.join()

    def _live(self):
        while not self._is_over:
            at = f"{self.chance.choice(['before', 'after'])}:{self.chance.randint(1, 6)}"
            command = [sys.executable, "-m", "tests.chaos.follower", str(self.journal), str(self.chance.random())]
            with subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, KILL_VARIABLE: at}, stdout=subprocess.DEVNULL
            ) as process:
                while process.poll() is None and not self._is_over:
                    time.sleep(0.01)
                process.kill()
            self.kills += process.returncode == -9
            self._go_on()

    def _go_on(self):
        """Resume what it left paused; a third process can."""
        try:
            BatchSession.open("victim", journal=self.journal).resume()
        except InputError:  # nothing is recorded yet, or nobody runs it
            return


def plant(journal):
    """Ask the process that was killed to cancel; return the command."""
    book = open_journal(journal)
    with book.reader() as database:
        run, epoch = database.execute("SELECT id, epoch FROM run").fetchone()
    return commands.ask(book, run, epoch, "cancel", {}, time.time(), "elsewhere/1/x")


def check(tmp_path, seed, kills, ids):
    chance, journal = random.Random(seed), tmp_path / "journal.db"
    planted = []
    with Rounds(journal, ids=ids, concurrency=4) as rounds:
        with Followers(journal, chance) as followers:
            while rounds.kills < kills:
                code, _ = rounds.run(after_lines=chance.randint(3, 12))
                if code == -9:
                    planted.append(plant(journal))
        rounds.check_complete()
    with open_journal(journal).reader() as database:
        said = {commands.answer(database, command) for command in planted if command}
        left = database.execute("SELECT count(*) FROM command WHERE taken_s IS NULL").fetchone()
    assert (said, left) == ({"the session had ended by then"}, (0,))
    assert BatchSession.open("victim", journal=journal).state == "completed"
    killed = f"{rounds.kills} kills of the owner, {followers.kills} of followers"
    print(f"followed: {killed}, {rounds.asked_again} asked again")
    assert followers.kills > 0


def test_a_kill_of_either_loses_nothing(tmp_path):
    check(tmp_path, seed=1, kills=2, ids=60)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(2))
def test_many_kills_of_either_lose_nothing(tmp_path, seed):
    check(tmp_path, seed=seed, kills=25, ids=400)
