"""The engine's thread: no code of a user's ends it, and what holds it is named."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading

import pytest

from ipybatch import EngineBusy, InputError, Limits, Retry
from ipybatch.engine.data import events
from ipybatch.engine.run.engine_thread import engine_thread
from tests.works import hear

EXITS = [SystemExit("bad config"), KeyboardInterrupt()]


async def fine(item):
    return item


async def in_a_child(error):
    async def child():
        raise error

    await asyncio.gather(child(), asyncio.sleep(0))


async def in_a_task_group(error):
    async def child():
        raise error

    async with asyncio.TaskGroup() as group:
        group.create_task(child())


async def in_a_task_nobody_awaits(error):
    async def child():
        raise error

    task = asyncio.ensure_future(child())
    while not task.done():  # noqa: ASYNC110  # awaiting it would raise it here
        await asyncio.sleep(0)


async def in_a_callback(error):
    def fail():
        raise error

    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0.01)


async def by_itself(error):
    raise error


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [by_itself, in_a_child, in_a_task_group, in_a_task_nobody_awaits, in_a_callback])
def test_work_that_exits_fails_its_item_alone(live, way, error):
    """However the work raises it: asyncio leaves its loop then, with all sessions of the process."""

    async def work(item):
        if item == 3:
            await way(error)
        return item

    session = live(work, range(10), retry=Retry(attempts=1))
    summary = session.run()
    assert (summary.state, summary.counts.completed, summary.counts.failed) == ("completed", 9, 1)
    assert type(error).__name__ in session.results()["error"][3]
    assert live(fine, range(5), name="later").run().counts.completed == 5


def test_an_exit_after_its_attempt_fails_the_session_that_did_it(live, gate):
    """There is no item left to fail."""

    async def leave_behind(item):
        async def exit_later():
            await asyncio.sleep(0.01)
            sys.exit("bad config")

        work.kept = asyncio.ensure_future(exit_later())
        return item

    async def work(item):
        return await (leave_behind(item) if item == 0 else gate(item))

    neighbour = live(gate, [1], name="neighbour")
    neighbour.start()
    session = live(work, [0, 1], limits=Limits(concurrency=2))
    summary = session.run()
    assert (summary.state, summary.counts.completed) == ("failed", 1)
    assert "SystemExit: bad config" in summary.reason
    gate.open()
    assert neighbour.run().counts.completed == 1


class Doors:
    """Work whose entering or leaving raises."""

    def __init__(self, error, where):
        self.error, self.where = error, where

    async def __aenter__(self):
        if self.where == "enter":
            raise self.error

    async def __aexit__(self, *_):
        if self.where == "leave":
            raise self.error

    async def __call__(self, item):
        return item


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["enter", "leave"])
def test_work_that_exits_where_it_is_opened_or_closed_fails_its_session(live, where, error):
    summary = live(Doors(error, where), [1]).run()
    assert summary.state == "failed"
    assert type(error).__name__ in summary.reason
    assert live(fine, [1], name="later").run().counts.completed == 1


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["events", "outcomes", "progress"])
def test_a_listener_that_exits_is_dropped(live, where, error):
    def listen(*_):
        raise error

    session = live(fine, range(5), on_progress=listen if where == "progress" else None)
    if where == "events":
        session.on(listen)
    if where == "outcomes":
        session.on_outcomes(listen)
    assert session.run().counts.completed == 5
    assert any("listener was dropped" in note for note in session.snapshot.notes)


class Unreadable(Exception):
    """An error whose every property raises."""

    def __str__(self):  # noqa: PLE0307  # that is the point
        sys.exit("no text")

    @property
    def response(self):
        sys.exit("no response")


def exits(*_):
    sys.exit("no answer")


@pytest.mark.parametrize(
    ("work_error", "policy"),
    [(Unreadable(), {}), (ValueError("x"), {"retry": Retry(on=exits)})],
    ids=["error's own properties", "Retry(on=)"],
)
def test_an_error_that_cannot_be_judged_fails_its_item(live, work_error, policy):
    async def work(item):
        raise work_error

    assert live(work, [1], **policy).run().counts.failed == 1
    assert live(fine, [1], name="later").run().counts.completed == 1


@pytest.mark.parametrize("argument", ["cost", "key"])
def test_a_function_of_the_user_s_that_exits_fails_its_item(live, argument):
    def give(item):
        if item == 2:
            raise KeyError("region")
        return item if argument == "key" else {"tokens": 1.0}

    summary = live(fine, (n for n in range(4)), **{argument: give}).run()
    assert (summary.counts.completed, summary.counts.failed) == (3, 1)


def test_a_generator_that_exits_ends_its_session_with_that_reason(live):
    def items():
        yield 1
        sys.exit("no more pages")

    summary = live(fine, items()).run()
    assert summary.state == "failed"
    assert "SystemExit: no more pages" in summary.reason


STOPS = """
import asyncio, json, os, time
from ipybatch import BatchSession
async def work(item):
    if item == 2:
        os.close(asyncio.get_running_loop()._selector.fileno())
    await asyncio.sleep(0.01)
    return item
session = BatchSession("closes", work, range(100))
first = session.run()
later = BatchSession("later", lambda item: item, range(5)).run()
print(json.dumps([first.state, first.reason, later.state]), flush=True)
os._exit(0)
"""


def test_a_thread_that_ended_is_noticed_and_replaced(tmp_path):
    """Work may close the files of the loop itself: its session fails, and the next one has another thread."""
    environment = {**os.environ, "IPYBATCH_JOURNAL": str(tmp_path / "journal.db")}
    run = subprocess.run(
        [sys.executable, "-c", STOPS], capture_output=True, text=True, timeout=100, check=True, env=environment
    )
    first, reason, later = json.loads(run.stdout)
    assert (first, later) == ("failed", "completed")
    assert "the engine's thread ended" in reason


def test_run_is_refused_where_it_would_wait_for_itself(live):
    """In async work or a listener: it would block the thread that it waits for."""
    other = live(fine, [1], name="other")

    async def work(item):
        return str(other.run())

    session = live(work, [1])
    assert session.run().counts.failed == 1
    assert "await it there" in session.results()["error"][0]
    assert other.state == "planned"


def test_another_session_may_be_awaited_in_work(live):
    other = live(fine, [1, 2], name="other")

    async def work(item):
        return str(await other)

    assert live(work, [1]).run().counts.completed == 1
    assert other.counts.completed == 2


def test_nothing_waits_for_the_engine_on_its_own_thread():
    engine = engine_thread()

    async def nothing():
        return None

    def wait():
        with pytest.raises(InputError, match="would block the thread"):
            engine.wait(nothing())
        return "refused"

    assert engine.call(wait) == "refused"
    assert engine.wait(nothing()) is None


@pytest.fixture
def held():
    """Let work hold the loop until the test lets it go."""
    released = threading.Event()
    yield released
    released.set()


def holds_the_loop(released):
    async def fetch_one_price(item):
        released.wait(20)
        return item

    return fetch_one_price


def noted(session):
    """Wait until the session has a note, looking at what everybody may look at while the loop is held."""
    for _ in range(400):
        if session.snapshot.notes:
            break
        threading.Event().wait(0.02)
    return " ".join(session.snapshot.notes)


def test_work_that_holds_the_loop_is_named_while_it_does(live, held, caplog):
    """File, line, function and source: in the notes, the log and the terminal, before the loop turns again."""
    session = live(holds_the_loop(held), [1])
    listener = hear(session, events.Noted)
    session.start()
    text = noted(session)
    assert re.search(r"for test_engine_thread\.py:\d+ in fetch_one_price: released\.wait\(20\)", text)
    assert text in caplog.text
    assert "fetch_one_price" in session.log().to_string()
    assert not listener.is_set()
    held.set()
    assert session.run().counts.completed == 1
    assert listener.wait(10)
    assert len(session.snapshot.notes) == 1


def test_only_the_session_that_holds_the_loop_is_told(live, held, gate):
    neighbour = live(gate, [1], name="neighbour")
    neighbour.start()
    session = live(holds_the_loop(held), [1])
    session.start()
    assert "fetch_one_price" in noted(session)
    assert neighbour.snapshot.notes == []
    held.set()
    gate.open()


def test_a_listener_that_holds_the_loop_is_named(live, held):
    session = live(fine, [1])

    def slow_listener(event):
        if isinstance(event, events.ItemEnded):
            held.wait(20)

    session.on(slow_listener)
    session.start()
    assert "in slow_listener" in noted(session)


def test_a_command_to_a_held_engine_is_asked_for(live, held):
    session = live(holds_the_loop(held), range(3), limits=Limits(concurrency=1))
    session.start()
    noted(session)
    with pytest.raises(EngineBusy):
        session.ask(lambda: None)
    assert session.pause() == "asked"
    held.set()
