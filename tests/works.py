"""Works: what the stories of sessions run, and how they look at what came of it."""

import asyncio
import math
import threading
import time
from itertools import pairwise

import httpx2

from ipybatch.engine.store import resources
from ipybatch.engine.store.journal import open_journal
from ipybatch.engine.store.limit_store import LEASE_S, Answer
from ipybatch.simulators import SimTransport, SteamSimulator


class Gate:
    """Coroutine work that waits until it is let go, and notes what started, ended and was cancelled."""

    def __init__(self):
        self.started, self.ended, self.cancelled = [], [], []
        self.begun = threading.Semaphore(0)
        self.is_open = False
        self._waiters = []

    async def __call__(self, item):
        self.started.append(item)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self.begun.release()
        try:
            if not self.is_open:
                await waiter
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        self.ended.append(item)
        return item

    def wait_begun(self, items):
        for _ in range(items):
            assert self.begun.acquire(timeout=20)

    def open(self):
        self.is_open = True
        for waiter in self._waiters:
            waiter.get_loop().call_soon_threadsafe(lambda waiter=waiter: waiter.done() or waiter.set_result(None))


class ThreadGate(Gate):
    """The same in threads, which nobody can cancel."""

    def __init__(self):
        super().__init__()
        self._released = threading.Event()

    def __call__(self, item):
        self.started.append(item)
        self.begun.release()
        self._released.wait(20)
        self.ended.append(item)
        return item

    def open(self):
        self._released.set()


class Failing:
    """Work that raises what it is told, in order, and then succeeds; it notes when it was called."""

    def __init__(self, clock, *errors):
        self.clock, self.errors, self.calls = clock, list(errors), []

    async def __call__(self, item):
        self.calls.append((item, self.clock.now_s()))
        await asyncio.sleep(0.1)
        if self.errors:
            error = self.errors.pop(0)
            if error is not None:
                raise error
        return item


class Recorder:
    """Work that notes what it was asked, and answers as it is told."""

    def __init__(self, answers=None):
        self.asked = []
        self.answers = answers or {}

    async def __call__(self, item):
        self.asked.append(item)
        answer = self.answers.get(item if isinstance(item, int | str) else item["id"], "ok")
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Starts:
    """Work that notes when it starts and ends, by the loop's time, and takes as long as it is told."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.at, self.ends, self.most, self._now = [], [], 0, 0

    async def __call__(self, item):
        clock = asyncio.get_running_loop().time
        self.at.append(clock())
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(self.seconds(item) if callable(self.seconds) else self.seconds)
        self._now -= 1
        self.ends.append(clock())
        return item


def gaps(times):
    return [later - earlier for earlier, later in pairwise(times)]


def worst(times, per_s):
    """Return the most that fall into any half-open window of that length."""
    return max(sum(0 <= later - at < per_s - 1e-9 for later in times) for at in times)


def hear(session, kind):
    """Return an event that is set when the session publishes one of that kind."""
    heard = threading.Event()
    session.on(lambda event: heard.set() if isinstance(event, kind) else None)
    return heard


def store(**options):
    """Return a simulated store and work that asks it, over httpx2, in that clock's time."""
    simulator = SteamSimulator(**options)
    client = httpx2.AsyncClient(transport=SimTransport(simulator), base_url="http://steam.invalid")

    async def ask(app_id):
        answer = await client.get("/api/appdetails", params={"appids": app_id})
        answer.raise_for_status()
        return answer.json()[str(app_id)]["data"]["name"]

    return simulator, ask


class Mortal:
    """A limit store of a process that is killed at some time: from then on the store hears nothing of it."""

    def __init__(self, store):
        self.store, self.is_dead = store, False

    def exchange(self, report):
        return Answer(wait_s=math.inf) if self.is_dead else self.store.exchange(report)

    def history(self, resource, since_s):
        return self.store.history(resource, since_s)


def run_until_killed(clock, session, store, after_s):
    """Run a session in virtual time, leave of it what ``kill -9`` leaves, and begin anew when its lease has run out."""

    async def kill():
        await asyncio.sleep(after_s)
        store.is_dead = True
        session._run.stop("cancelled", "", "cancelled")

    clock.run(session, kill())
    clock.advance(LEASE_S)
    resources._resources.clear()  # what a new process knows: nothing
    store.is_dead = False


class Elsewhere:
    """The latest run of a journal, held by another machine from now on, as far as the journal tells."""

    OWNER = "elsewhere/77/x"
    WHERE = "in process 77 on elsewhere"

    def __init__(self, journal, **changes):
        self.journal = open_journal(journal)
        (self.run,) = self.row("id")
        now = {"beat_s": time.time(), "begun_s": time.time(), "live": None, "completed": 1}
        self.write(owner=self.OWNER, state="running", epoch=5, **{**now, **changes})

    def row(self, columns):
        with self.journal.reader() as database:
            return database.execute(f"SELECT {columns} FROM run ORDER BY id DESC LIMIT 1").fetchone()

    def write(self, **changes):
        sets = ", ".join(f"{column} = ?" for column in changes)
        values = (*changes.values(), self.run)
        self.journal.write(lambda db: db.execute(f"UPDATE run SET {sets} WHERE id = ?", values).rowcount)
