"""Sessions for pictures: one function a state, and what a page of it is sent.

The sessions are real, so what they show follows the code. Most run on a clock that jumps, at the end of which stands
the present: an hour takes a second. `forecast`, `gemini` and `refresh` run against simulators, in real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from ipybatch import BatchSession, Breaker, Limits, Rate, RateLimited, Retry
from ipybatch.jupyter import messages
from ipybatch.testing import VirtualClock

ALL: messages.Parts = frozenset({"rows", "pace", "moves", "log"})
UNKNOWN_S = 1800.0  # the present of sessions that run to their end

T = TypeVar("T")


class Shown(NamedTuple):
    """What a page is sent, by whom, and how it is shaken afterwards."""

    update: messages.Update
    session: Any
    after: str = ""


class PresentClock(VirtualClock):
    """A clock that jumps, and shows the present when `until_s` have passed."""

    def __init__(self, until_s: float) -> None:
        super().__init__()
        self._begun_s = time.time() - until_s

    def unix_s(self) -> float:
        """Return the virtual Unix time."""
        return self._begun_s + self.now_s()


def whole(session: Any) -> messages.Update:
    """Return what a page that has just been opened is sent."""
    return messages.whole_update(session, messages.Cursor(seq=1), ALL)


def copied(update: T) -> T:
    """Return a copy that shares nothing with a session that runs on."""
    return msgspec.json.decode(msgspec.json.encode(update), type=type(update))


class Maker:
    """Makes sessions whose journals lie in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def journal(self) -> Path:
        """Return the path of a journal that nobody has."""
        self.made += 1
        return self.folder / f"{self.made}.db"

    def at(
        self, until_s: float, work: Callable[..., Any], items: Any, *, name: str, pause: bool = False, **more: Any
    ) -> Shown:
        """Run a session for so many seconds, and look at it then; `pause` it shortly before."""
        clock = PresentClock(until_s)
        session = BatchSession(name, work, items, clock=clock, journal=self.journal(), **more)
        seen: list[messages.Update] = []

        async def look() -> None:
            await asyncio.sleep(max(0.0, until_s - 10))
            if pause:
                session.pause()
            await asyncio.sleep(min(10.0, until_s))
            seen.append(copied(whole(session)))
            session.cancel()

        clock.run(session, look())
        return Shown(seen[0] if seen else whole(session), session)


def _seconds(item: Any) -> float:
    return 0.4 + random.Random(item).random() * 1.6


async def fetch(item: int) -> dict[str, int]:
    """Do what takes a second or so, and fails once in forty."""
    await asyncio.sleep(_seconds(item))
    if item % 40 == 13:
        msg = f"404 no such game: app {item}"
        raise LookupError(msg)
    return {"item": item}


PACED = Limits(concurrency=3, spacing_s=1.5, batch_size=15, batch_pause_s=15, rates=[Rate(200, per_s=300)])


def running(make: Maker) -> Shown:
    """Seven minutes of a list of 300, in batches."""
    return make.at(412, fetch, range(300), name="wishlist", limits=PACED)


def paused(make: Maker) -> Shown:
    """The same, paused."""
    return make.at(412, fetch, range(300), name="wishlist", limits=PACED, pause=True)


def waiting(make: Maker) -> Shown:
    """The window is full."""
    limits = Limits(concurrency=10, rates=[Rate(200, per_s=300)], batch_size=50)
    return make.at(150, fetch, range(500), name="library", limits=limits)


def breaker_open(make: Maker) -> Shown:
    """A service that went away."""
    calls = 0

    async def work(item: int) -> dict[str, int]:
        nonlocal calls
        calls += 1
        if calls > 120:
            msg = "[Errno 111] Connect call failed ('203.0.113.7', 443)"
            raise ConnectionError(msg)
        return await fetch(item)

    breaker, retry = Breaker(failures=3, break_s=60), Retry(attempts=5)
    return make.at(310, work, range(300), name="wishlist", limits=PACED, breaker=breaker, retry=retry)


def story(make: Maker, at_s: float) -> Shown:
    """A moment of a short run: a brisk beginning, an outage of three seconds, and the rest."""
    begun: list[float] = []

    async def work(item: int) -> dict[str, int]:
        now_s = asyncio.get_running_loop().time()
        begun.append(now_s)
        await asyncio.sleep(_seconds(item) / 3)
        if 9 < now_s - begun[0] < 12:
            msg = "[Errno 111] Connect call failed ('203.0.113.7', 443)"
            raise ConnectionError(msg)
        if item % 80 == 13:
            msg = f"404 no such game: app {item}"
            raise LookupError(msg)
        return {"item": item}

    limits = Limits(concurrency=6, batch_size=20, rates=[Rate(30, per_s=2), Rate(2000, per_s=300)])
    breaker, retry = Breaker(failures=3, break_s=4), Retry(attempts=4, initial_s=0.5)
    return make.at(at_s, work, range(240), name="wishlist", limits=limits, breaker=breaker, retry=retry)


def lanes(make: Maker) -> Shown:
    """Regions with limits of their own, of which one asked to be left alone, and items of three priorities."""
    slowed: list[int] = []

    async def work(item: int) -> dict[str, int]:
        if item % 3 == 2 and item > 100 and not slowed:
            slowed.append(item)
            msg = "429 Too Many Requests"
            raise RateLimited(msg, retry_after_s=40)
        return await fetch(item)

    each = Limits(concurrency=20, rates=[Rate(30, per_s=10)])
    limits = Limits(concurrency=40, rates=[Rate(80, per_s=10)], each=each)
    more: dict[str, Any] = {
        "per": lambda item: ("eu", "us", "kr")[item % 3],
        "priority": lambda item: ("high", "medium", "low")[item % 4 % 3],
    }
    return make.at(30, work, range(600), name="profiles", limits=limits, **more)


def completed(make: Maker) -> Shown:
    """A list of 300 to its end."""
    return make.at(UNKNOWN_S, fetch, range(300), name="wishlist", limits=PACED)


def failed_104(make: Maker) -> Shown:
    """104 failed of 10,000, for three reasons."""
    reasons = ["404 no such game"] * 92 + ["403 not sold in this region: ask again with another country"] * 9
    reasons += [
        "the answer is no JSON: <html><body>Access denied</body></html> " + "at the edge of the network " * 8
    ] * 3
    failing = dict(zip(random.Random(4).sample(range(10_000), 104), reasons, strict=True))

    async def work(item: int) -> dict[str, int]:
        await asyncio.sleep(_seconds(item))
        if item in failing:
            raise ValueError(failing[item])
        return {"item": item}

    limits = Limits(concurrency=20, batch_size=100)
    return make.at(UNKNOWN_S, work, range(10_000), name="all games", limits=limits)


def cancelled(make: Maker) -> Shown:
    """Stopped in the middle."""
    shown = make.at(412, fetch, range(300), name="wishlist", limits=PACED)
    return Shown(whole(shown.session), shown.session)


def unknown(make: Maker) -> Shown:
    """From a generator, without batches: nobody knows how many there will be."""
    return make.at(90, fetch, iter(range(100_000)), name="a stream", limits=Limits(concurrency=8))


def planned(make: Maker) -> Shown:
    """Not started."""
    session = BatchSession("wishlist", fetch, range(300), limits=PACED, journal=make.journal())
    return Shown(whole(session), session)


def empty(make: Maker) -> Shown:
    """Nothing to do."""
    return make.at(UNKNOWN_S, fetch, [], name="nothing")


def text(make: Maker) -> Shown:
    """Names and errors from elsewhere: markup, bidirectional text, stacked accents, long words."""
    keys = [
        r"C:\games\doom",
        "<b>bold</b>",
        "שלום abc",
        "a\u202ereversed",
        "z" + "\u0300\u0301\u0302" * 20,
        "=1+2",
        "x" * 300,
    ]
    keys += ["two\nlines", "игра", "ゲーム", "\U0001f3ae\U0001f3ae", "tab\there"]

    async def work(item: str) -> str:
        await asyncio.sleep(1)
        if len(item) % 2:
            msg = f"no {item!s} here: <img src=x onerror=alert(1)>"
            raise ValueError(msg)
        return item

    limits = Limits(concurrency=3)
    return make.at(
        UNKNOWN_S, work, keys, name="a name that is as long as names may be, or so it seems to me", limits=limits
    )


def gone(make: Maker) -> Shown:
    """The kernel was restarted under a panel of a running session."""
    return running(make)._replace(after="restart()")


ELSEWHERE = """
import asyncio, sys
from ipybatch import BatchSession, Limits

async def fetch(item):
    await asyncio.sleep(0.05)
    return {"item": item}

limits = Limits(concurrency=4, batch_size=20)
BatchSession("night", fetch, range(4000), limits=limits, breaker=None, journal=sys.argv[1]).run()
"""


@contextlib.contextmanager
def other_process(journal: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a session in another process, killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", ELSEWHERE, str(journal)], stdout=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 30
        while not _recorded(journal) and process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def _recorded(journal: Path) -> bool:
    if not journal.exists():
        return False
    with contextlib.suppress(Exception):  # while it is being made
        return int(BatchSession.open("night", journal=journal).counts.completed) > 40
    return False


def elsewhere(make: Maker) -> Shown:
    """Run by another process, and followed."""
    journal = make.journal()
    with other_process(journal):
        session = BatchSession.open("night", journal=journal)
        time.sleep(1.5)
        return Shown(copied(whole(session)), session)


def interrupted(make: Maker) -> Shown:
    """Its process was killed."""
    journal = make.journal()
    with other_process(journal):
        pass
    session = BatchSession.open("night", journal=journal)
    return Shown(whole(session), session)


def forecast(make: Maker) -> Shown:
    """Thirteen partitions, seen while they are trained."""
    from ipybatch.forecast import forecast as forecasting
    from ipybatch.simulators import demand

    journal = make.journal()
    session = forecasting(demand(seed=0), horizon=14, workers=2, name="spare parts", journal=journal)
    return _seen_at(session, 0.5)


def rolled_back(make: Maker) -> Shown:
    """Thirteen partitions, of which one has a date that is none."""
    from ipybatch.forecast import forecast as forecasting
    from ipybatch.simulators import demand

    table = demand(seed=0).astype({"date": str})
    bad = table.index[table["site"] == sorted(table["site"].unique())[2]][5]
    table.loc[bad, "date"] = "31/13/2025"
    session = forecasting(table, horizon=14, workers=2, name="spare parts", journal=make.journal())
    session.run(verbose=False)
    return Shown(whole(session), session)


def gemini(make: Maker) -> Shown:
    """Batch jobs that are waited for."""
    return _seen_at(_shop_texts(make), 0.2)


def gemini_failed(make: Maker) -> Shown:
    """Batch jobs of which one expired, and one failed."""
    return _seen_at(_shop_texts(make, job_faults=[None, "expire", "fail", None], batch_delay_s=(0.2, 1)), 1.0)


def _shop_texts(make: Maker, **simulated: Any) -> Any:
    from ipybatch.gemini import generate
    from ipybatch.simulators import serve

    things = [
        {"id": f"{what} {thing}"} for what in ("oak", "linen", "wool") for thing in ("mug", "lamp", "vase", "bowl")
    ]
    simulator = serve("gemini", **{"seed": 2, "latency_s": 0.05, "batch_delay_s": (0.5, 30), **simulated})
    more: dict[str, Any] = {"base_url": simulator.url, "api_key": "SIMULATED", "model": "gemini-2.5-flash"}
    more |= {"lane": "batch", "max_requests_per_job": 3, "poll_s": 0.2, "budget_usd": 0.5, "journal": make.journal()}
    return generate(things, template="Describe our {id}.", name="shop texts", **more)


def refresh(make: Maker) -> Shown:
    """A game library from a simulated store."""
    from ipybatch.library import Library, SteamStore
    from ipybatch.library import refresh as refreshing
    from ipybatch.simulators import serve

    store = serve("steam", limit=40, per_s=2, latency_s=(0.02, 0.08), rate_500=0.02, missing_rate=0.02)
    library = Library(make.folder / f"games-{make.made}.db")
    source = SteamStore(store.url, api_url=store.url)
    app_ids = source.owned_games("76561197960287930", key="SIMULATED")[:300]
    limits = Limits(concurrency=3, batch_size=50, rates=[Rate(40, per_s=2)])
    more: dict[str, Any] = {"retry": Retry(attempts=8, initial_s=0.2), "journal": make.journal()}
    session = refreshing(app_ids, source=source, library=library, name="library", limits=limits, **more)
    return _seen_at(session, 0.5)


def _seen_at(session: Any, share: float) -> Shown:
    """Start a session, look at it when so much is done, and let it go."""
    session.start()
    deadline_s = time.monotonic() + 40
    while session.counts.ended < share * session.counts.total and time.monotonic() < deadline_s:
        time.sleep(0.05)
    update = copied(session.ask(lambda: whole(session)))
    session.cancel()
    return Shown(update, session)


STATES: dict[str, Callable[[Maker], Shown]] = {
    "running": running,
    "paused": paused,
    "waiting": waiting,
    "breaker-open": breaker_open,
    "lanes": lanes,
    "completed": completed,
    "failed-104": failed_104,
    "cancelled": cancelled,
    "unknown": unknown,
    "planned": planned,
    "empty": empty,
    "text": text,
    "gone": gone,
    "elsewhere": elsewhere,
    "interrupted": interrupted,
    "forecast": forecast,
    "rolled-back": rolled_back,
    "gemini": gemini,
    "gemini-failed": gemini_failed,
    "refresh": refresh,
}


@contextlib.contextmanager
def maker() -> Iterator[Maker]:
    """Make sessions in a folder that goes at the end."""
    with tempfile.TemporaryDirectory(prefix="ipybatch-shots-", ignore_cleanup_errors=True) as folder:
        yield Maker(Path(folder))
