"""A process that follows a session and tells it to pause and go on, until the session ends or a kill.

python -m tests.chaos.follower JOURNAL SEED
"""

import random
import sys
import time

from ipybatch import BatchSession, InputError
from ipybatch.testing import kill_points


def main(journal, seed):
    chance = random.Random(seed)
    with kill_points():
        while True:
            try:
                session = BatchSession.open("victim", journal=journal)
            except InputError:  # not begun yet
                time.sleep(0.01)
                continue
            if session.elsewhere is None:
                time.sleep(0.01)
                continue
            session.pause()
            time.sleep(0.05 * chance.random())
            session.adjust(concurrency=1)
            if session.state == "paused":  # else there may be nobody left to ask
                session.resume()
            print(session.counts.completed, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
