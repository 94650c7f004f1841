"""What is rationed: who uses it, how full it is, and why it cools down; in this kernel and in others."""

import asyncio
import subprocess
import sys
import threading

import pandas as pd
import pytest

import ipybatch
from ipybatch import InputError, Limits, Rate, RateLimited
from ipybatch.events import CooledDown
from tests.works import hear

RATES = [Rate(40, per_s=60), Rate(900, per_s=3600)]
COLUMNS = ["resource", "group", "window", "used", "limit", "owners", "cool_until", "why"]
OTHER = """
import asyncio, sys
from ipybatch import BatchSession, Limits, Rate
async def work(item):
    print("began", flush=True)
    await asyncio.sleep(60)
limits = Limits(rates=[Rate(40, per_s=60)])
BatchSession("night", work, [1, 2], journal=sys.argv[1], resource="api", limits=limits).run()
"""


@pytest.fixture
def other(journal):
    """A process that has two requests of the resource in flight."""
    command = [sys.executable, "-c", OTHER, str(journal)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert [process.stdout.readline() for _ in range(2)] == ["began\n", "began\n"]
    yield process
    process.kill()
    process.communicate()


def test_nothing_is_rationed_before_a_session_runs(journal):
    """And looking makes no file."""
    frame = ipybatch.resources(journal)
    assert frame.columns.tolist() == COLUMNS
    assert frame.empty
    assert isinstance(frame["cool_until"].dtype, pd.DatetimeTZDtype)
    assert list(journal.parent.iterdir()) == []


def test_every_window_of_a_resource_is_a_row(live, gate, journal):
    session = live(gate, list(range(5)), resource="api", limits=Limits(concurrency=3, rates=RATES))
    session.start()
    gate.wait_begun(3)
    frame = ipybatch.resources(journal)
    assert frame["resource"].tolist() == ["api", "api"]
    assert frame["window"].tolist() == ["40 per 60 s", "900 per 3600 s"]
    assert frame["limit"].tolist() == [40.0, 900.0]
    assert frame["owners"].tolist() == ["wishlist in this kernel"] * 2
    assert set(frame["used"]) == {3.0}
    assert frame["cool_until"].isna().all()
    gate.open()
    assert session.run().counts.completed == 5
    assert ipybatch.resources(journal).empty


def test_who_uses_it_elsewhere_is_named(other, live, journal):
    """And what it has in flight counts here."""
    hold = threading.Event()

    async def work(item):
        await asyncio.to_thread(hold.wait, 20)

    session = live(work, [1], resource="api", limits=Limits(rates=RATES[:1]))
    began = threading.Event()
    session.on(lambda event: began.set() if session.counts.running else None)
    session.start()
    assert began.wait(20)
    (row,) = ipybatch.resources(journal).to_dict("records")
    assert row["used"] == 3.0
    assert row["owners"] == f"night in process {other.pid}, wishlist in this kernel"
    status = session.ask(lambda: session.live_status)
    assert (status.sharing, status.running_elsewhere) == ((f"night in process {other.pid}",), 2)
    assert status.windows == [(3.0, 40, 60, "requests")]
    hold.set()
    assert session.run().state == "completed"


def test_a_cool_down_is_shown_with_its_reason_and_can_be_lifted(live, journal):
    """A service that says an hour is heeded, until somebody knows better; what waits goes on at once."""
    asked = 0

    async def work(item):
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RateLimited("slow down", retry_after_s=3600)
        return item

    session = live(work, [1, 2, 3], resource="api", limits=Limits(concurrency=1))
    cooled = hear(session, CooledDown)
    session.start()
    assert cooled.wait(20)
    (row,) = ipybatch.resources(journal).to_dict("records")
    left_s = (row["cool_until"] - pd.Timestamp.now(tz="UTC")).total_seconds()
    assert 3000 < left_s <= 3601
    assert row["why"] == "the service asked wishlist to slow down"
    assert pd.isna(row["window"])
    assert ipybatch.lift("api", journal=journal) is True
    assert session.run().counts.completed == 3
    assert asked == 4
    assert session.log()["event"].tolist().count("cooled_down") == 2
    assert session.snapshot.cool_until_s == 0.0
    assert ipybatch.lift("api", journal=journal) is False


def test_what_is_not_rationed_leaves_no_file(live, journal):
    """Neither rates nor a name: there is nothing to count, and nothing of it beside the journal."""
    session = live(lambda item: item, [1, 2], limits=Limits(concurrency=2))
    assert session.run().counts.completed == 2
    session.adjust(concurrency=1)
    assert [path.name for path in journal.parent.iterdir() if not path.name.startswith("journal.db")] == []


def test_what_has_no_name_is_its_session_s(live, journal):
    """Nobody gave it one: it is called by the session, which alone uses it."""

    async def work(item):
        raise RateLimited("slow down", retry_after_s=3600)

    session = live(work, [1, 2])
    cooled = hear(session, CooledDown)
    session.start()
    assert cooled.wait(20)
    assert ipybatch.resources(journal)["resource"].tolist() == ["session wishlist"]
    session.cancel()
    assert ipybatch.lift("session wishlist", journal=journal) is True


def test_only_what_was_used_can_be_lifted(live, journal):
    live(lambda item: item, [1], resource="api").run()
    with pytest.raises(InputError, match=r"resource must be one that was used \('api'\), got 'apy'"):
        ipybatch.lift("apy", journal=journal)
