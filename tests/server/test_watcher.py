"""What changed in the sessions is told once, and soon: with a catalogue that the test writes, and on a real server."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from jupyter_events.logger import EventLogger

from ipybatch.engine.data.events import Counts
from ipybatch.engine.feed.session_item import SessionItem
from ipybatch.server import watcher as watchers
from ipybatch.server.journal_files import Files
from ipybatch.server.refusal import Refusal
from ipybatch.server.watcher import ENDED_S, LATEST, TIMED_S, UNHEARD_S, Watcher
from ipybatch.server.wire import Change, SessionPage
from tests.server.conftest import write_runs


def session(id_="a-1", **given):
    told = {"state": "running", "where": "in process 1", "completed": 0} | given
    counts = Counts(completed=told.pop("completed"), total=10)
    empty = dict.fromkeys(("reason", "workload", "waiting", "group_word"), "")
    nothing = dict.fromkeys(("eta_s", "usd", "kernel", "notebook", "breaker", "submission"))
    return SessionItem(
        **{"id": id_, "name": id_, "counts": counts, "started": "", "seconds": 1.0, "can": [], "untaken": []}
        | {"outside_hours": False}
        | empty
        | nothing
        | told
    )


class Written:
    """Sessions as the test has written them."""

    def __init__(self):
        self.items, self.changes, self.looks, self.broken = {}, 0, 0, set()

    def write(self, *items):
        self.items |= {item.id: item for item in items}
        self.changes += 1

    def delete(self, id_):
        del self.items[id_]
        self.changes += 1

    def files(self):
        return Files({}, {"a": ((0, self.changes, 0),)})

    def live(self, files):
        self.looks += 1
        return [item for item in self.items.values() if item.where]

    def page(self, *, limit, files):
        return SessionPage(items=[*self.items.values()][: -limit - 1 : -1], next=None, unread=[])

    def item(self, id_):
        if id_ in self.broken:
            raise Refusal(503, "cannot be read")
        if id_ not in self.items:
            raise Refusal(404, "there is no such session")
        return self.items[id_]


class Watched:
    """A watcher whose looks the test takes, one after the other."""

    def __init__(self, heard=True):
        self.sessions, self.told, self.heard, self.now_s = Written(), [], heard, 0.0
        self.pool = ThreadPoolExecutor(1)
        self.queue = []
        self.templates = []
        beside = {"submissions": lambda: self.queue, "templates": lambda: list(self.templates)}
        self.watcher = Watcher(
            self.sessions,
            self.pool,
            self.told.append,
            is_heard=lambda: self.heard,
            beside=beside,
            apart=lambda: list(self.templates),
        )

    def look(self, after_s=ENDED_S):
        """Return what a look tells: cursor, items, removed; None for nothing."""
        self.now_s += after_s
        before = len(self.told)
        asyncio.run(self.watcher.look_if_due(self.now_s))
        assert len(self.told) - before in (0, 1)
        return msgspec.convert(self.told[-1], Change) if len(self.told) > before else None


@pytest.fixture
def watched():
    made = Watched()
    yield made
    made.pool.shutdown()


def test_first_look_tells_nothing(watched):
    """Whoever listens has listed the sessions."""
    watched.sessions.write(session())
    assert watched.look() is None
    assert watched.look() is None


def test_a_session_is_told_from_its_start_to_its_end(watched):
    watched.look()
    first = session(completed=0)
    watched.sessions.write(first)
    begun = watched.look()
    assert (begun.items, begun.removed) == ([first], [])
    watched.sessions.write(session(completed=3))
    assert [item.counts.completed for item in watched.look().items] == [3]
    watched.sessions.write(session(state="completed", where="", completed=10))
    ended = watched.look()
    assert [item.state for item in ended.items] == ["completed"]
    assert ended.cursor == begun.cursor + 2
    assert watched.look() is None


def test_changes_are_told_together(watched):
    watched.sessions.write(*(session(f"a-{number}") for number in range(5)))
    watched.look()
    watched.sessions.write(*(session(f"a-{number}", completed=1) for number in range(4)), session("a-9"))
    assert {item.id for item in watched.look().items} == {"a-0", "a-1", "a-2", "a-3", "a-9"}


def test_what_changes_in_no_journal_is_told(watched):
    watched.look()
    watched.templates.append("night")
    assert watched.look().templates
    assert watched.look() is None


def test_a_session_that_begins_and_ends_between_two_looks_is_told(watched):
    watched.look()
    watched.sessions.write(session(state="completed", where=""))
    assert [item.state for item in watched.look().items] == ["completed"]


def test_end_of_a_session_that_is_not_among_the_latest_is_told(watched):
    old = session("a-old")
    watched.sessions.write(old, *(session(f"a-{number}", state="completed", where="") for number in range(LATEST)))
    watched.look()
    watched.sessions.write(session("a-old", state="cancelled", where=""))
    assert [(item.id, item.state) for item in watched.look().items] == [("a-old", "cancelled")]
    assert watched.look() is None


def test_old_sessions_are_forgotten_without_a_word(watched):
    for number in range(LATEST + 5):
        watched.sessions.write(session(f"a-{number}", state="completed", where=""))
        change = watched.look()
        assert change is None or change.removed == []
    assert len(watched.watcher._told) == LATEST


def test_deleted_sessions_are_removed(watched):
    watched.sessions.write(session("a-1"), session("a-2", state="completed", where=""))
    watched.look()
    watched.sessions.delete("a-2")
    assert watched.look().removed == ["a-2"]
    watched.sessions.delete("a-1")
    assert watched.look().removed == ["a-1"]


def test_a_journal_that_cannot_be_read_for_a_moment_removes_nothing(watched):
    one = session()
    watched.sessions.write(one)
    watched.look()
    watched.sessions.delete(one.id)
    watched.sessions.broken.add(one.id)
    assert watched.look() is None
    watched.sessions.broken.clear()
    watched.sessions.write(session(completed=2))
    assert [item.counts.completed for item in watched.look().items] == [2]


def test_nothing_is_read_while_no_journal_changes(watched):
    watched.sessions.write(session(state="completed", where=""))
    watched.look()
    for _ in range(20):
        watched.look()
    assert watched.sessions.looks == 1


def test_what_is_live_is_told_twice_a_second_and_what_ended_soon_after(watched):
    watched.sessions.write(session("a-1"))
    watched.look()
    watched.sessions.write(session("a-2", state="completed", where=""), session("a-1", completed=1))
    assert [item.id for item in watched.look(0.5).items] == ["a-1"]
    assert watched.look(0.5) is None
    assert [item.id for item in watched.look().items] == ["a-2"]
    watched.sessions.write(session("a-1", state="completed", where=""))
    assert [item.state for item in watched.look(0.5).items] == ["completed"], (
        "an end that was seen live is told at once"
    )


def test_what_time_alone_tells_is_looked_for(watched):
    """An owner that died writes nothing."""
    watched.sessions.write(session())
    watched.look()
    watched.sessions.items["a-1"] = session(state="interrupted", where="")
    assert watched.look(0.5) is None
    assert [item.state for item in watched.look(TIMED_S).items] == ["interrupted"]


def test_whoever_waits_is_told_of_and_nobody_is_while_that_cannot_be_read(watched):
    watched.look()
    for queued, is_told in (([("s1", "PENDING")], True), (None, False), ([("s1", "RUNNING")], True), ([], True)):
        watched.queue = queued
        watched.sessions.changes += 1
        change = watched.look()
        assert (change is not None) == is_told, queued
        assert change is None or (change.items, change.removed, change.submissions) == ([], [], True)
    watched.sessions.write(session())
    assert not watched.look().submissions


def test_seconds_alone_are_no_change(watched):
    watched.sessions.write(session())
    watched.look()
    watched.sessions.write(session(seconds=2.0, eta_s=8.0))
    assert watched.look() is None


def test_while_nobody_listens_it_is_looked_rarely_and_no_end_is_missed(watched):
    watched.heard = False
    watched.sessions.write(session())
    watched.look()
    watched.sessions.write(session(state="completed", where=""))
    assert watched.look(UNHEARD_S - 1) is None
    assert watched.sessions.looks == 1
    watched.heard = True
    assert [item.state for item in watched.look(0.5).items] == ["completed"]
    watched.heard = False
    watched.sessions.write(session("a-2"))
    assert watched.look(0.5) is None
    assert [item.id for item in watched.look(UNHEARD_S).items] == ["a-2"]


def test_a_look_that_fails_is_taken_again(watched, caplog):
    watched.look()
    watched.sessions.live = lambda files: 1 / 0
    watched.sessions.write(session())
    assert watched.look() is None
    assert "not watched" in caplog.text
    del watched.sessions.live
    watched.sessions.write(session())
    assert [item.id for item in watched.look().items] == ["a-1"]


def test_cursors_are_never_given_twice(watched, monkeypatch):
    """Not by the server after this one either: a look takes its time, and each gives one at most."""
    watched.look()
    watched.sessions.write(session())
    assert watched.look().cursor == watched.watcher.cursor
    after_ns = time.time_ns() + int(2 * watchers.LOOK_S * 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: after_ns)
    later = Watched()
    assert later.watcher.cursor >= watched.watcher.cursor
    later.pool.shutdown()


def after(watched, cursor):
    return asyncio.run(watched.watcher.after(cursor, 0.0))


def test_what_came_after_a_cursor(watched, monkeypatch):
    start = watched.watcher.cursor
    assert after(watched, start) == []
    watched.look()
    for number in range(watchers.BACKLOG):
        watched.sessions.write(session(completed=number % 9 + 1))
        watched.look()
    told = after(watched, start)
    assert [number for number, _ in told] == [*range(start + 1, start + 1 + watchers.BACKLOG)]
    assert json.loads(told[0][1])["cursor"] == start + 1
    assert after(watched, start + 98) == told[98:]
    watched.sessions.write(session("a-2"))
    watched.look()
    assert after(watched, start) is None, "one of them is not to be had any more"
    assert after(watched, start + 1) is not None
    assert after(watched, watched.watcher.cursor + 1) is None, "the cursor of another server"


def test_whoever_waits_is_told_at_once(watched):
    async def story():
        await watched.watcher.look(0.0)
        waiting = asyncio.ensure_future(watched.watcher.after(watched.watcher.cursor, 20.0))
        await asyncio.sleep(0)
        watched.sessions.write(session())
        await watched.watcher.look(1.0)
        return await waiting

    assert [json.loads(body)["items"][0]["id"] for _, body in asyncio.run(story())] == ["a-1"]


def test_end_of_the_server_ends_those_who_wait(watched):
    async def story():
        running = asyncio.ensure_future(watched.watcher.run())
        waiting = asyncio.ensure_future(watched.watcher.after(watched.watcher.cursor, 20.0))
        await asyncio.sleep(0)
        running.cancel()
        return await waiting

    assert asyncio.run(story()) == []
    assert watched.watcher.is_closed


def test_schema_is_one_that_jupyter_takes():
    """And a change is an event of it."""
    logger, told = EventLogger(), []

    async def listen(logger, schema_id, data):
        told.append((schema_id, data))

    async def story():
        app = type("App", (), {"event_logger": logger})()
        sessions = Written()
        with ThreadPoolExecutor(1) as pool:
            watcher = watchers.watch(app, sessions, pool)
            assert not watcher._is_heard()
            logger.add_listener(schema_id=watchers.SCHEMA_ID, listener=listen)
            assert watcher._is_heard()
            await watcher.look(0.0)
            sessions.write(session())
            await watcher.look(1.0)
            await logger.gather_listeners()

    asyncio.run(story())
    ((schema_id, data),) = told
    assert schema_id == "https://ipybatch.readthedocs.io/events/sessions/v1"
    assert [item["id"] for item in data["items"]] == ["a-1"]
    assert data["removed"] == []


def test_jupyters_own_events_tell_of_a_session(served, tmp_path):
    """Through the server's event logger, as every tab subscribes to it."""
    told = asyncio.run_coroutine_threadsafe(first_event(served), served.loop)
    write_runs(tmp_path / "journal.sqlite3", [{"name": "before"}])
    served.call(look(served))
    write_runs(tmp_path / "journal.sqlite3", [{"name": "told"}])
    served.call(look(served))
    data = told.result(20)
    assert "told" in [item["name"] for item in data["items"]]


async def look(served):
    served.services.watcher._latest_s = -ENDED_S
    await served.services.watcher.look(time.monotonic())


async def first_event(served):
    logger, found = served.app.event_logger, asyncio.get_running_loop().create_future()

    async def listen(logger, schema_id, data):
        if not found.done() and any(item["name"] == "told" for item in data["items"]):
            found.set_result(data)

    logger.add_listener(schema_id=watchers.SCHEMA_ID, listener=listen)
    try:
        return await found
    finally:
        logger.remove_listener(listener=listen)
