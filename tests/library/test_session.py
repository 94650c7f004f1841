from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from ipybatch import BatchSession, Breaker, InputError, JournalLocked, Limits, Rate, Retry, Transient
from ipybatch.engine.data.plan import Again
from ipybatch.library import Character, Guild, Library, SteamStore, refresh
from ipybatch.library.session import COLUMNS, RefreshSession, _breakers, breaker_state
from ipybatch.simulators import Faults
from ipybatch.simulators.serve import Server, build
from tests.works import Elsewhere

from .conftest import DAY_S, Azeroth, Shop

FAST = Limits(concurrency=3)
SLOW = Limits(concurrency=1, spacing_s=1)  # a cancel comes between two items
GUILDS = [Guild("Aerie Peak", name) for name in ("Wolves", "Bears")]
CHARACTERS = [Character("Kel'Thuzad", name) for name in ("Thrall", "Jaina", "Ghosta")]


def test_the_stalest_come_first_and_the_fresh_not_at_all(shop: Shop) -> None:
    for app_id, days in ((1, 2), (2, 0.5), (3, 10), (4, 5), (5, 0)):
        shop.own(app_id, days=days)
    session = shop.run([1, 2, 3, 4, 5, 6], limits=Limits(concurrency=1))
    assert shop.asked == ["3", "6", "4", "1"]  # high, missing is high, medium, low
    assert str(session.summary) == "steam refresh completed: 4/6 successful, 0 failed, 2 skipped"
    frame = session.results().set_index("key")
    assert frame.loc[[3, 6, 4, 1], "staleness"].tolist() == ["high", "high", "medium", "low"]
    assert frame.loc[2, "error"] == "fresh: fetched 12 h ago"
    assert frame["status"].tolist() == ["completed", "skipped", "completed", "completed", "skipped", "completed"]


def test_force_fetches_the_fresh_ones_too(shop: Shop) -> None:
    shop.own(1, days=0)
    session = shop.run([1], force=True)
    assert session.counts.completed == 1
    assert session.results()["staleness"][0] == "fresh"


def test_what_is_wanted_first_comes_before_what_is_staler(shop: Shop) -> None:
    """A library's items are known by their keys; ``session.prioritize`` takes them too."""
    shop.own(1, days=10)
    session = shop.session([1, 2, 3], limits=Limits(concurrency=1), priority=lambda key: "high" if key == 1 else "low")
    session.prioritize([3], "medium")
    shop.clock.run(session)
    assert shop.asked == ["1", "3", "2"]


def test_a_record_of_another_country_is_no_answer(shop: Shop) -> None:
    shop.own(440, days=0, cc="de")
    assert shop.run([440], cc="us").counts.completed == 1


def test_the_defaults_are_the_stores(shop: Shop) -> None:
    order = shop.session([440]).policy
    assert order.limits == Limits(
        concurrency=3, spacing_s=1.5, batch_size=15, batch_pause_s=15, rates=[Rate(200, per_s=300)]
    )
    assert (order.retry, order.breaker, order.timeout_s) == (Retry(attempts=3), Breaker(failures=3), 60.0)


def test_the_environment_overrides_the_defaults_and_arguments_both(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYBATCH_STEAM_MAX_CONCURRENT_REQUESTS", "2")
    monkeypatch.setenv("IPYBATCH_STEAM_MAX_RETRIES", "4")
    assert shop.session([440]).policy.limits.concurrency == 2
    order = shop.session([440], limits=FAST, breaker=None).policy
    assert order.limits == FAST
    assert order.breaker is None
    assert order.retry == Retry(attempts=5)


def test_no_limits_means_the_stores_not_none(shop: Shop) -> None:
    """A user who passes limits=None on must not get a session without the store's windows."""
    assert shop.session([440], limits=None, retry=None).policy.limits.rates == (Rate(200, per_s=300),)


def test_the_server_sees_no_window_above_its_limit(shop: Shop) -> None:
    shop.open(limit=40, per_s=60, faults=Faults(latency_s=(0.05, 0.2)))
    session = shop.run(range(1, 121), limits=Limits(concurrency=5, rates=[Rate(40, per_s=60)]))
    assert session.counts.completed == 120
    assert shop.simulator.stats()["statuses"] == {"200": 120}


def test_two_sessions_share_the_stores_windows(shop: Shop) -> None:
    shop.open(limit=10, per_s=60)
    limits = Limits(concurrency=10, rates=[Rate(10, per_s=60)])
    first, second = (shop.session(range(n, n + 10), name=str(n), limits=limits) for n in (1, 50))

    async def both() -> None:
        await asyncio.gather(first.drive(), second.drive())

    shop.clock.run_coroutine(both())
    assert first.counts.completed + second.counts.completed == 20
    assert shop.simulator.worst(60) == 10


def test_a_dead_service_is_left_alone(shop: Shop) -> None:
    shop.open(faults=Faults(outages=((0.0, 1e9),)))
    session = shop.run(range(1, 31), breaker=Breaker(failures=3, break_s=10, give_up_after=2), limits=FAST)
    assert session.state == "failed"
    assert "breaker opened 2 times" in session.reason
    assert len(shop.asked) <= 3 + 3 + 1


@pytest.mark.parametrize(
    ("gap_s", "asked", "skipped"),
    [(3600, ["2", "3"], 1), (4 * DAY_S, ["2", "1", "3"], 0)],
    ids=["an hour", "four days"],
)
def test_an_unfinished_run_is_judged_anew(shop: Shop, gap_s: float, asked: list[str], skipped: int) -> None:
    """What the broken run fetched is fresh after an hour and stale after days, and so is the order."""
    shop.own(1, days=0.5)
    shop.own(2, days=3.5)
    shop.own(3, days=1.5)
    broken_after_1 = Breaker(failures=1, give_up_after=1)
    shop.open(faults=Faults(outages=((0.0, 1000.0),)))
    assert shop.run([1, 2, 3], breaker=broken_after_1).state == "failed"
    shop.clock.advance(gap_s)
    shop.asked.clear()
    session = shop.run([1, 2, 3], limits=Limits(concurrency=1))
    assert shop.asked == asked
    assert (session.counts.completed, session.counts.skipped) == (len(asked), skipped)


def test_what_was_fetched_counts_however_the_run_ended(shop: Shop) -> None:
    """A record that lies in the library is fresh, also where its outcome was lost."""
    shop.open(faults=Faults(outages=((0.0, 1000.0),)))
    shop.run([1, 2, 3], breaker=Breaker(failures=1, give_up_after=1))
    shop.clock.advance(2000)
    shop.own(3, days=0)  # as if killed between record and outcome
    shop.asked.clear()
    session = shop.run([1, 2, 3])
    assert sorted(shop.asked) == ["1", "2"]
    assert session.results().set_index("key").loc[3, "error"] == "fresh: fetched 0 s ago"


def test_a_refresh_at_the_same_hour_every_day_finds_all_of_yesterdays_due(shop: Shop) -> None:
    """Else what was fetched late in the first call would be skipped in the second, and two days old in the third."""
    for day in range(4):
        shop.clock.advance(day * DAY_S - shop.clock.now_s())
        assert shop.run(range(1, 31), limits=Limits(concurrency=1, spacing_s=60)).counts.completed == 30


def test_a_finished_run_is_followed_by_a_new_one(shop: Shop) -> None:
    first = shop.run([1, 2])
    assert first.counts.completed == 2
    same_day = shop.run([1, 2])
    assert (same_day.counts.completed, same_day.counts.skipped, same_day.state) == (0, 2, "completed")
    shop.clock.advance(2 * DAY_S)
    later = shop.run([1, 2])
    assert later.counts.completed == 2
    assert later.results()["staleness"].tolist() == ["low", "low"]
    assert shop.asked == ["1", "2", "1", "2"]


def stop_forced(shop: Shop, after: int = 2) -> BatchSession:
    """Force a refresh of six games, and cancel it after some."""
    session = shop.session(range(1, 7), force=True, limits=SLOW)
    stop = session.on("done", lambda *_: session.cancel() if session.counts.completed >= after else None)
    shop.clock.run(session)
    stop()
    assert (session.state, session.counts.completed) == ("cancelled", after)
    shop.asked.clear()
    return session


def test_a_forced_run_goes_on_where_it_ended(shop: Shop) -> None:
    """What this forced run fetched is not fetched again by its rest; a finished one is followed by all of it."""
    for app_id in range(1, 7):
        shop.own(app_id, days=0.5)
    stop_forced(shop)
    shop.clock.advance(60)
    again = shop.run(range(1, 7), force=True, limits=Limits(concurrency=1))
    assert shop.asked == ["3", "4", "5", "6"]
    assert (again.counts.completed, again.counts.skipped) == (4, 2)
    shop.asked.clear()
    assert shop.run(range(1, 7), force=True).counts.completed == 6


def test_a_forced_run_that_is_started_again_goes_on_too(shop: Shop) -> None:
    session = stop_forced(shop)
    shop.clock.run(session)
    assert (session.state, session.counts.completed, session.counts.skipped) == ("completed", 4, 2)
    assert shop.asked == ["3", "4", "5", "6"]


def test_a_forced_run_counts_from_its_own_start(shop: Shop) -> None:
    """What the same session fetched in an earlier start, which finished, is fetched again."""
    session = shop.session(range(1, 7), force=True, limits=SLOW)
    shop.clock.run(session)
    shop.clock.advance(3600)
    session.on("done", lambda *_: session.cancel() if session.counts.completed >= 2 else None)
    shop.clock.run(session)
    assert session.counts.completed == 2
    assert shop.run(range(1, 7), force=True).counts.completed == 4


def test_an_old_forced_run_is_stale(shop: Shop) -> None:
    stop_forced(shop)
    shop.clock.advance(2 * DAY_S)
    shop.own(5, days=0.1)  # by another session
    assert shop.run(range(1, 7), force=True).counts.completed == 6


def test_fresh_gives_an_unfinished_forced_run_up(shop: Shop) -> None:
    stop_forced(shop)
    assert shop.run(range(1, 7), force=True, fresh=True).counts.completed == 6


def test_a_session_that_is_started_again_judges_anew(shop: Shop) -> None:
    """After an hour the rest runs, after days everything; each start counts what it did."""
    session = shop.session(range(1, 7), limits=SLOW)
    stop = session.on("done", lambda *_: session.cancel() if session.counts.completed >= 2 else None)
    shop.clock.run(session)
    stop()
    shop.clock.advance(3600)
    assert shop.clock.run(session).counts.completed == 4
    assert session.counts.skipped == 2
    shop.clock.advance(10 * DAY_S)
    assert shop.clock.run(session).counts.completed == 6
    assert (session.counts.skipped, len(session.results()), len(shop.asked)) == (0, 6, 12)


def test_what_an_earlier_start_did_is_not_shown_as_this_one_s(shop: Shop) -> None:
    """Its batches belong to a run of their own, and have no items in this one."""
    session = shop.session(range(1, 7), limits=Limits(concurrency=1, spacing_s=1, batch_size=2))
    stop = session.on("done", lambda *_: session.cancel() if session.counts.completed >= 3 else None)
    shop.clock.run(session)
    stop()
    shop.clock.advance(3600)
    shop.clock.run(session)
    groups = session.snapshot.groups
    assert [group.items for group in groups.values()] == [2, 1]
    assert [session.items_of(number)[0] for number in groups] == [2, 1]
    assert session.snapshot.ended_here == 3


def test_the_members_of_a_guild_that_an_earlier_start_fetched_are_still_asked_for(azeroth: Azeroth) -> None:
    """The guild is fresh by now, so it adds none while it runs: they are read from the library."""
    session = azeroth.session(GUILDS[:1], expand="roster", limits=SLOW)
    stop = session.on("done", lambda *_: session.cancel() if session.counts.completed >= 2 else None)
    azeroth.clock.run(session)
    stop()
    total = session.counts.total
    assert total is not None
    assert total > 4
    azeroth.clock.run(session)
    assert (session.state, session.counts.total, session.counts.skipped) == ("completed", total, 2)


def test_retry_failed_goes_on_with_the_latest_run(shop: Shop) -> None:
    """It asks for what failed alone, what was not there too; what the run recorded stays, however old it is."""
    shop.open(missing={2})
    shop.run([1, 2, 3])
    shop.clock.advance(3 * DAY_S)
    shop.open()
    shop.asked.clear()
    session = shop.session([1, 2, 3])

    async def retry() -> None:
        session._open_run(Again(frozenset({"failed"})))
        await session._drive()

    shop.clock.run_coroutine(retry())
    assert shop.asked == ["2"]
    assert session.results()["status"].tolist() == ["completed"] * 3
    assert session.results()["staleness"].tolist() == ["high"] * 3


def test_a_rolled_back_run_is_followed_by_a_new_one(shop: Shop) -> None:
    """Rollback discards the plan's decisions as well: they are made anew, so fresh ones are not fetched."""
    shop.open(missing={2})
    shop.own(1, days=0)
    assert shop.run([1, 2], on_failure="rollback").state == "rolled_back"
    shop.asked.clear()
    assert shop.run([1, 2], force=True).counts.completed == 1
    assert sorted(shop.asked) == ["1", "2"]


def test_a_cancelled_run_goes_on(library: Library) -> None:
    """Cancelled in mid-flight and run again: every game recorded once, at most what was in flight asked twice."""
    server = Server("steam", build("steam", limit=None, latency_s=0.02))
    store = SteamStore(server.url)
    session = refresh(range(1, 41), source=store, library=library, limits=FAST)
    some_are_done = threading.Event()
    session.on(lambda event: some_are_done.set() if session.counts.completed >= 10 else None)
    session.start()
    assert some_are_done.wait(30)
    session.cancel()
    assert session.run().state == "cancelled"
    done = session.counts.completed
    assert 10 <= done < 40
    again = refresh(range(1, 41), source=store, library=library, limits=FAST)
    assert again.run().counts.completed + len(server.stats()["duplicates"]) <= 43 - done
    assert again.counts.completed + again.counts.skipped == 40
    assert len(server.stats()["duplicates"]) <= 3
    assert len(library) == 40
    server.close()


KILLED = """
    import sys
    from ipybatch import Limits
    from ipybatch.library import Library, SteamStore, refresh
    from ipybatch.testing import kill_points
    url, path = sys.argv[1:]
    with kill_points():
        refresh(range(1, 31), source=SteamStore(url), library=Library(path), limits=Limits(concurrency=3)).run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("place", ["before:9", "after:12"])
def test_a_killed_run_goes_on_in_a_new_process(library: Library, place: str) -> None:
    """Kill -9 around a commit: no game is lost, at most `concurrency` are asked for twice."""
    server = Server("steam", build("steam", limit=None, latency_s=0.02))
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), server.url, str(library.path)],
        env={**os.environ, "IPYBATCH_KILL_AT": place},
        check=False,
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert 0 < len(library) < 30
    session = refresh(range(1, 31), source=SteamStore(server.url), library=library, limits=FAST)
    held = len(library)
    assert session.run().counts.completed == 30 - held
    assert session.counts.skipped == held
    assert len(server.stats()["ids"]) == 30
    assert len(server.stats()["duplicates"]) <= 3
    server.close()


def test_a_record_is_written_before_its_outcome(shop: Shop) -> None:
    seen = []
    session = shop.session([1, 2, 3])
    session.on_outcomes(lambda outcomes: seen.extend(shop.library.get("game", one.key) for one in outcomes))
    shop.clock.run(session)
    assert len(seen) == 3
    assert None not in seen


def test_a_library_that_cannot_be_written_stops_the_session(shop: Shop) -> None:
    """Fetching what cannot be kept would spend the store's patience for nothing."""
    session = shop.session(range(1, 31), limits=Limits(concurrency=1))
    shop.library._database.execute("PRAGMA query_only = ON")
    shop.clock.run(session)
    assert session.state == "failed"
    assert "is read-only" in session.reason
    assert shop.asked == ["1"]


def test_no_items_is_a_finished_session(shop: Shop) -> None:
    session = shop.run([])
    assert (session.state, session.counts.total) == ("completed", 0)


def test_items_are_what_a_list_of_numbers_can_be(shop: Shop) -> None:
    """Generators, arrays, a frame's column: all are looked at whole, since the stalest come first."""
    import numpy as np
    import pandas as pd

    for name, items in {
        "generator": (n for n in (1, 2)),
        "array": np.array([1, 2]),
        "column": pd.Series([1, 2]),
        "numbers": [np.int64(1), np.int64(2)],
    }.items():
        session = shop.run(items, name=name, force=True)
        assert session.counts.completed == 2
        assert session.results()["key"].tolist() == [1, 2]


def test_an_item_named_twice_is_refused(shop: Shop) -> None:
    with pytest.raises(InputError, match="items 0 and 2 share the key 7"):
        shop.session([7, 8, 7])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"source": "steam"}, "source must be a service such as SteamStore"),
        ({"source": SteamStore}, "source must be a service such as SteamStore"),
        ({"source": SteamStore(), "library": "games.db"}, "library must be Library"),
        ({"source": SteamStore(), "name": ""}, "name must be a text"),
        ({"source": SteamStore(), "limits": 5}, "limits must be Limits"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        refresh([440], **arguments)


def test_a_text_is_no_list_of_items(shop: Shop) -> None:
    with pytest.raises(InputError, match="items must be a list or a generator of items, got str"):
        shop.session("440")


def test_another_country_runs_again_what_is_recorded(shop: Shop) -> None:
    """What is sent with an item is part of it: an unfinished run in another country asks again."""
    shop.open(limit=3, per_s=60, ban_after=1, ban_s=600)
    assert shop.run([1, 2, 3, 4, 5], limits=Limits(concurrency=1)).state == "failed"
    shop.clock.advance(700)
    session = shop.run([1, 2, 3], cc="de", limits=Limits(concurrency=1))
    assert session.counts.completed == 3
    assert shop.library.get("game", 1, "de") is not None


def test_it_is_a_batch_session(shop: Shop) -> None:
    session = shop.session([440], name="wishlist")
    assert isinstance(session, BatchSession)
    assert (session.name, session.state) == ("wishlist", "planned")
    assert not Path(os.environ["IPYBATCH_LIBRARY"]).exists()  # the library given is the one used


# The summary by kind


def test_a_summary_tells_kinds_apart(azeroth: Azeroth) -> None:
    azeroth.own(CHARACTERS[0], days=0)
    summary = azeroth.run(GUILDS + CHARACTERS).summary
    table = summary.by("kind")
    assert list(table.columns) == list(COLUMNS)
    assert table.index.tolist() == ["guild", "character"]
    assert table.loc["guild", ["total", "completed", "failed", "skipped"]].tolist() == [2, 2, 0, 0]
    assert table.loc["character", ["total", "completed", "failed", "skipped"]].tolist() == [3, 1, 1, 1]
    assert table.to_numpy().dtype.kind == "i"


def test_members_that_joined_are_counted(azeroth: Azeroth) -> None:
    session = azeroth.run(GUILDS, expand="roster")
    table = session.summary.by("kind")
    assert table.loc["guild", "completed"] == 2
    assert table.loc["character", "completed"] == session.counts.completed - 2 > 0


def test_before_it_runs_everything_is_pending(azeroth: Azeroth) -> None:
    table = azeroth.session(GUILDS).summary.by("kind")
    assert table.loc["guild", ["total", "pending"]].tolist() == [2, 2]


def test_nothing_is_an_empty_table(azeroth: Azeroth) -> None:
    assert azeroth.run([]).summary.by("kind").shape == (0, len(COLUMNS))


def test_other_sources_have_it_too(shop: Shop) -> None:
    summary = shop.run([1, 2], limits=Limits(concurrency=1)).summary
    assert summary.by("kind").loc["game", "completed"] == 2
    assert str(summary) == "steam refresh completed: 2/2 successful, 0 failed, 0 skipped"


def test_another_column_is_refused(azeroth: Azeroth) -> None:
    with pytest.raises(InputError, match="column must be 'kind', got 'realm'"):
        azeroth.session(GUILDS).summary.by("realm")


# Opened again, and forgotten


def test_a_refresh_that_is_opened_again_knows_its_kinds(azeroth: Azeroth) -> None:
    """By name alone: members that joined while it ran are told apart from their guilds."""
    session = azeroth.run(GUILDS, expand="roster")
    opened = BatchSession.open(session.name)
    assert isinstance(opened, RefreshSession)
    assert opened.summary.by("kind").equals(session.summary.by("kind"))
    assert str(opened.summary) == str(session.summary)
    with pytest.raises(InputError, match="was opened for reading: pass source= to go on"):
        opened.start()


def test_a_refresh_that_another_process_runs_is_followed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its source and without; the breaker of its store here stays as it was."""
    session = shop.run([1, 2, 3])
    held = Elsewhere(session.journal)
    monkeypatch.setitem(_breakers, session.policy.resource, "open")
    for arguments in ({}, {"source": shop.store(), "library": shop.library}):
        opened = BatchSession.open(session.name, **arguments)
        assert isinstance(opened, RefreshSession)
        assert opened.elsewhere is not None
        assert (opened.state, opened.elsewhere.where) == ("running", Elsewhere.WHERE)
        assert opened.summary.by("kind").loc["game", "completed"] == 3
    assert breaker_state(shop.store()) == "open"
    held.write(owner=None)
    reason = "its process ended without letting go: BatchSession.open('steam refresh', source=...) goes on"
    assert BatchSession.open(session.name).reason == reason


def test_a_refresh_that_runs_elsewhere_is_not_begun_here(shop: Shop) -> None:
    session = shop.run([1, 2])
    Elsewhere(session.journal)
    again = shop.session([1, 2])
    assert any("it is running" in note for note in again.snapshot.notes)
    with pytest.raises(JournalLocked, match="is already running"):
        again.start()
    assert (again.state, len(again.results())) == ("planned", 2)


def test_a_refresh_whose_process_died_is_judged_anew_when_it_is_opened(shop: Shop) -> None:
    """What it recorded is shown until then; after that what it fetched lies in the library, fresh or stale by now."""
    session = shop.run([1, 2, 3])
    Elsewhere(session.journal).write(owner=None)
    shop.clock.advance(2 * DAY_S)
    shop.own(3, days=0)
    opened = BatchSession.open(session.name, source=shop.store(), library=shop.library, clock=shop.clock)
    assert (opened.state, opened.counts.completed) == ("interrupted", 1)  # as `Elsewhere` counts
    shop.clock.run(opened)
    assert (opened.state, opened.counts.completed, opened.counts.skipped) == ("completed", 2, 1)


def test_a_refresh_goes_on_with_its_source(shop: Shop) -> None:
    """The items are those on record; an interrupted run goes on with what is left."""
    session = shop.run([1, 2, 3])
    session.forget()
    session = shop.session([1, 2, 3], limits=Limits(concurrency=1))
    session.start()
    session.cancel()
    opened = BatchSession.open(session.name, source=shop.store(), library=shop.library)
    assert isinstance(opened, RefreshSession)
    assert opened.run().counts.ended == 3
    assert opened.summary.by("kind").loc["game", "total"] == 3


def test_a_forgotten_refresh_runs_again(shop: Shop) -> None:
    """Its records stay in the library, so what is fresh is left alone unless it is forced."""
    session = shop.run([1, 2], force=True)
    session.forget()
    assert shop.clock.run(session).counts.completed == 2
    assert session.summary.by("kind").loc["game", "completed"] == 2


# What the engine asks while the service seems to be down


def probe(session: BatchSession) -> bool:
    """Ask as the engine does, inside the work."""

    async def ask() -> bool:
        async with session.workload as work:
            return await work.probe()

    return asyncio.run(ask())


def test_a_probe_asks_for_the_latest_record_and_keeps_what_it_gets(shop: Shop) -> None:
    for app_id, days in ((1, 9), (2, 3), (3, 5)):
        shop.own(app_id, days=days)
    session = shop.session([1, 7])
    assert probe(session)
    assert shop.asked == ["2"]
    assert shop.library.staleness("game", 2, now_s=shop.clock.unix_s()) == "fresh"


def test_a_probe_asks_for_no_failure_of_this_call(shop: Shop) -> None:
    shop.own(1, days=9)
    shop.own(2, days=2)
    shop.own(3, days=2, cc="de")
    shop.open(missing={2})
    session = shop.session([2, 7], limits=SLOW, breaker=None)
    shop.clock.run(session)
    shop.asked.clear()
    assert probe(session)
    assert shop.asked == ["7"]  # fetched just now
    shop.library.forget("game", 7)
    assert probe(session)
    assert shop.asked == ["7", "1"]


def test_a_probe_asks_for_nothing_that_is_marked(shop: Shop) -> None:
    shop.own(1, days=9)
    shop.own(2, days=2)
    shop.library.mark_absent([(shop.store().identify(2), shop.clock.unix_s())])
    assert probe(shop.session([1, 2]))
    assert shop.asked == ["1"]


def test_a_probe_without_a_record_asks_nothing(shop: Shop) -> None:
    shop.own(1, days=1, cc="de")
    assert not probe(shop.session([1, 2]))
    assert shop.asked == []


def test_a_probe_raises_what_the_fetch_raises(shop: Shop) -> None:
    shop.own(1, days=9)
    shop.open(faults=Faults(rate_500=1.0))
    with pytest.raises(Transient, match="answered 500"):
        probe(shop.session([1]))
    assert shop.library.staleness("game", 1, now_s=shop.clock.unix_s()) == "high"


def test_a_probe_sends_one_request(azeroth: Azeroth) -> None:
    """Further pages of a record would need permits of their own: the first answer is enough, and the record stays."""
    azeroth.run(GUILDS, expand="roster")
    azeroth.asked.clear()
    azeroth.clock.advance(60)
    guild = azeroth.library.latest("guild", "us")
    assert probe(azeroth.session(GUILDS, expand="roster"))
    assert len(azeroth.asked) == 1
    record = azeroth.library.get("guild", guild[0], "us")
    assert record is not None
    assert record.data["extras"]["roster"]["members"]


@pytest.mark.parametrize("status", [403, 500])
def test_a_guild_that_fails_keeps_none_of_its_members_stale(azeroth: Azeroth, status: int) -> None:
    """It is there, and who was in it is known: they are fetched as on every other day."""
    wolves = GUILDS[0]
    first = azeroth.run([wolves], expand="roster").results()
    for _ in range(3):
        azeroth.clock.advance(DAY_S)
        azeroth.script["/data/wow/guild/aerie-peak/wolves"] = [status] * 5
        session = azeroth.run([wolves], expand="roster", name="daily")
        frame = session.results()
        assert frame["key"].tolist() == first["key"].tolist()
        assert frame["status"].tolist() == ["failed", *["completed"] * (len(first) - 1)]
