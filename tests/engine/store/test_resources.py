import asyncio

import pytest

from ipybatch import BatchSession, Limits, Rate
from ipybatch.engine.data.plan import Task
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import resources
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.lease import LEASE_S
from ipybatch.engine.store.resources import History, Resource, kept_since_s, read_history, record_cool_down, resource_of
from ipybatch.engine.store.rows import Entry
from ipybatch.testing import START_UNIX_S, VirtualClock
from tests.engine.seen import busiest
from tests.engine.store.stores import NOW_S, close, take

ONE = {"requests": 1}
LIMITS = Limits(concurrency=3, rates=[Rate(10, per_s=60)])


@pytest.fixture
def book(tmp_path, patience):
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


def used(book, *responses, resource="store"):
    """Record requests that were answered at these times."""
    taken = take(book, resource=resource, concurrency=3)
    entries = [
        Entry(Task(seq, str(seq), seq), str(seq), 1, "completed", True, None, None, at_s, 0.1, "", spent)
        for seq, (at_s, spent) in enumerate(responses)
    ]
    taken.submit(entries, NOW_S, lambda error: None)
    taken.abandon()
    return taken.run


def test_what_still_counts_is_read(book):
    """What the requests of the last window cost, oldest first; nothing older, nobody else's."""
    used(book, (NOW_S - 61, ONE), (NOW_S - 5, {"requests": 2, "tokens": 70}), (NOW_S - 30, ONE))
    used(book, (NOW_S - 1, ONE), resource="another store")
    spent = [(NOW_S - 30, "requests", 1.0), (NOW_S - 5, "requests", 2.0), (NOW_S - 5, "tokens", 70.0)]
    assert read_history(book, "store", LIMITS, NOW_S) == History(spent, 0.0)


def test_a_window_is_as_long_as_the_longest_rate(book):
    """What a rate per hour needs is kept for it."""
    used(book, (NOW_S - 3000, ONE))
    assert read_history(book, "store", LIMITS, NOW_S).spent == []
    hourly = Limits(rates=[Rate(9, per_s=3600)])
    assert read_history(book, "store", hourly, NOW_S).spent == [(NOW_S - 3000, "requests", 1.0)]


def test_a_cool_down_outlives_the_kernel(book):
    """What the service asked for holds for the next process too."""
    record_cool_down(book, "store", NOW_S + 90)
    record_cool_down(book, "store", NOW_S + 120)
    assert read_history(book, "store", LIMITS, NOW_S).cool_until_s == NOW_S + 120
    assert read_history(book, "another", LIMITS, NOW_S).cool_until_s == 0.0


def killed(book, run, beat_s, concurrency=3):
    """Leave a run as ``kill -9`` leaves it."""

    def unit(database):
        database.execute(
            "UPDATE run SET owner = 'elsewhere/1/x', beat_s = ?, concurrency = ? WHERE id = ?",
            (beat_s, concurrency, run),
        )

    book.write(unit)


def test_requests_in_flight_at_a_kill_are_assumed_answered(book):
    """As many as could be under way, as late as they could be answered: the server may have seen them."""
    killed(book, used(book), NOW_S - 40)
    assert read_history(book, "store", LIMITS, NOW_S).spent == [(NOW_S - 40 + LEASE_S, "requests", 3.0)]
    killed(book, used(book), NOW_S - 1)
    assert read_history(book, "store", LIMITS, NOW_S).spent[-1] == (NOW_S, "requests", 3.0)


def test_requests_in_flight_at_a_kill_still_count_at_the_second_restart(book):
    """The process that took the run over may end within the window; the server has not forgotten."""
    run = used(book)
    killed(book, run, NOW_S - 40)
    close(take(book, concurrency=3), "cancelled", now_s=NOW_S + 1)
    spent = read_history(book, "store", LIMITS, NOW_S + 2).spent
    assert sum(cost for _, _, cost in spent) >= 3


def test_a_response_of_the_future_counts_as_now(book):
    """A clock that was set back does not close the window for hours."""
    used(book, (NOW_S + 7200, ONE))
    assert read_history(book, "store", LIMITS, NOW_S).spent == [(NOW_S, "requests", 1.0)]


def test_what_no_window_needs_is_forgotten(book):
    """The table does not grow for ever."""
    used(book, (NOW_S - 90_000 * 8, ONE), (NOW_S, ONE))
    since_s = kept_since_s(LIMITS, NOW_S)
    take(book, concurrency=3, windows_since_s=since_s).abandon()
    with book.reader() as database:
        assert database.execute("SELECT count(*) FROM window").fetchone() == (1,)


def test_sessions_that_name_one_resource_share_it(book, tmp_path):
    """One object for the same name and journal, another for any other."""
    assert resource_of(book, "store") is resource_of(book, "store")
    assert resource_of(book, "store") is not resource_of(book, "other")


def test_whoever_waits_is_woken():
    """Each member looks again when something came free, even if one of them leaves meanwhile."""
    resource, woken = Resource("store"), []

    def leave():
        woken.append("a")
        resource.wakers.remove(leave)

    resource.wakers += [leave, lambda: woken.append("b")]
    resource.changed()
    resource.changed()
    assert woken == ["a", "b", "b"]


@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize("rate", [Rate(10, per_s=60), Rate(1000, per_s=60, unit="tokens")])
def test_a_restarted_kernel_keeps_the_window(tmp_path, patience, monkeypatch, restarts, rate):
    """10 items per 60 s over several processes, whatever the rate counts: the server never sees an eleventh."""
    limits, cost = Limits(concurrency=3, rates=[rate]), {rate.unit: rate.limit / 10}
    path, arrivals, clock = tmp_path / "journal.db", [], VirtualClock()

    async def work(item):
        arrivals.append((clock.now_s(), 1))
        await asyncio.sleep(0.5)

    async def stop(session):
        await asyncio.sleep(1.2)
        session._run.stop("cancelled", "", "cancelled")

    for start in range(restarts + 1):
        monkeypatch.setattr(resources, "_resources", {})  # as a new process has it

        session = BatchSession(
            "wishlist", work, list(range(40)), limits=limits, cost=lambda item: cost, journal=path, clock=clock
        )
        clock.run(session, *([stop(session)] if start < restarts else []))
    journals._open_journals.pop(path).close()
    assert session.counts.completed == 40
    assert busiest(arrivals, 60.0) <= 10
    assert clock.unix_s() - START_UNIX_S < 5 * 60
