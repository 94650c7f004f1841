"""A process that shares its journal with another one: both run, forget and prune the same sessions until a kill.

python -m tests.chaos.rival JOURNAL SEED

It tells what it does, a JSON list a line: [time, "removing" | "removed", name], "" for all names;
[time, "recorded", run, seq, token]; [time, "ended", run, state, reason].
"""

import asyncio
import json
import os
import random
import sys
import time

from ipybatch import BatchSession, JournalLocked, Limits, prune
from ipybatch.engine.store import removal
from ipybatch.testing import kill_points

NAMES = ("one", "two")
ITEMS = 30


def say(*what):
    os.write(1, json.dumps([time.time(), *what]).encode() + b"\n")  # whole, or not at all


def run(name, journal, chance):
    async def work(item):
        await asyncio.sleep(0.001 * chance.random())
        return {"run": session._run._store.run, "token": f"{os.getpid()}-{chance.random()}"}

    session = BatchSession(name, work, range(ITEMS), limits=Limits(concurrency=3), journal=journal)
    session.on_outcomes(
        lambda outcomes: [
            say("recorded", outcome.result["run"], outcome.key, outcome.result["token"]) for outcome in outcomes
        ]
    )
    summary = session.run()
    say("ended", session._run._store.run, summary.state, summary.reason)


def remove(name, act):
    say("removing", name)
    act()
    say("removed", name)


def main(journal, seed):
    chance = random.Random(seed)
    removal.CHUNK_S, removal._ROWS, removal.PAUSE_S = 0.0, 5, 0.001  # many transactions, to be killed between
    with kill_points():
        while True:
            name = chance.choice(NAMES)
            try:
                match chance.randrange(6):
                    case 0:
                        remove(name, BatchSession(name, print, range(ITEMS), journal=journal).forget)
                    case 1:
                        remove("", lambda: prune(0, journal=journal))
                    case _:
                        run(name, journal, chance)
            except JournalLocked:
                time.sleep(0.005)


if __name__ == "__main__":
    main(*sys.argv[1:])
