"""Commands: what a press in the browser does, and how it is answered."""

import asyncio
import threading

import pytest

from ipybatch import BatchSession, Limits, Permanent, Rate, Retry
from ipybatch.engine.data import masking
from ipybatch.engine.store import commands as journal_commands
from ipybatch.errors import InputError, JournalLocked
from ipybatch.jupyter import commands, messages
from ipybatch.jupyter.messages import Ack, Rows
from ipybatch.session import follower
from tests.works import Elsewhere, Recorder

LIMITS = Limits(concurrency=4, batch_size=10, rates=[Rate(20, per_s=2), Rate(500, per_s=60)])


async def work(item):
    await asyncio.sleep(1.0)
    if item % 5 == 3:
        raise ConnectionError(f"HTTP 503 of {item}")
    return item


@pytest.fixture
def session(plan):
    return plan(work, list(range(40)), limits=LIMITS, retry=Retry(attempts=2), breaker=None)


def execute(session, words):
    return commands.execute(session, f"panel/random/{words}")


def settle(session, words):
    return commands.settle(session, f"panel/random/{words}")


def test_a_command_that_waits_for_the_engine_is_answered_twice(session, clock):
    """First that it was asked, and when it has happened what was done: never before."""
    first, second, states = [], [], []

    async def press():
        for words in ("pause", "resume", "adjust/2/5/100", "cancel"):
            await asyncio.sleep(0.4)
            first.append(execute(session, words))  # on the engine's own thread: it acts at its next turn
            await asyncio.sleep(0)
            second.append(settle(session, words))
            states.append(session.state)

    clock.run(session, press())
    assert first == [
        Ack(id="panel/random/pause", ok=True, done=False, text="asked to pause: the engine is busy"),
        Ack(id="panel/random/resume", ok=True, done=False, text="asked to resume: the engine is busy"),
        Ack(id="panel/random/adjust/2/5/100", ok=True, done=True, text=second[2].text),
        Ack(id="panel/random/cancel", ok=True, done=False, text="asked to cancel: not ended yet"),
    ]
    assert second == [
        Ack(id="panel/random/pause", ok=True, done=True, text="paused, 4 in flight finish"),
        Ack(id="panel/random/resume", ok=True, done=True, text="running"),
        Ack(
            id="panel/random/adjust/2/5/100",
            ok=True,
            done=True,
            text="limits changed: 2 at a time, 5 per 2 s, 100 per 60 s",
        ),
        None,
    ]
    assert states[:2] == ["paused", "running"]
    assert session.state == "cancelled"
    assert settle(session, "cancel").text == "cancelled, 37 items left"
    assert settle(session, "pause").text == "the session is cancelled already"


@pytest.fixture
def followed(live, journal, monkeypatch):
    """A session that another machine holds, as it is followed here."""
    monkeypatch.setattr(follower, "_watch", lambda followed: None)
    monkeypatch.setattr(follower, "COMMAND_S", 0.02)
    live(Recorder({2: Permanent("gone")}), [1, 2]).run()
    held = Elsewhere(journal)
    return held, BatchSession.open("wishlist", journal=journal)


def test_a_session_that_runs_elsewhere_offers_what_works_there(followed):
    """Its limits are changed where it runs; once its process is gone, nothing is left but to make it again."""
    held, session = followed
    head = messages.head(session)
    assert (head.state, head.where, head.can) == ("running", Elsewhere.WHERE, ["pause", "cancel"])
    assert head.untold, "its limits and its breaker"
    held.write(state="paused")
    session.ask(session._follower.look)
    assert messages.head(session).can == ["resume", "cancel"]
    held.write(owner=None)
    session.ask(session._follower.look)
    head = messages.head(session)
    assert (head.state, head.where, head.can, head.untold) == ("interrupted", "", [], True)
    again = BatchSession.open("wishlist", Recorder(), journal=session.journal)
    assert not messages.head(again).untold
    assert messages.head(again).can == ["resume", "retry_failed"]


def test_a_command_that_another_process_has_not_taken_is_answered_when_it_has(followed):
    """The page is told that it was asked, and what became of it when that is on record."""
    held, session = followed
    text = f"asked to pause: not taken yet {Elsewhere.WHERE}"
    assert execute(session, "pause") == Ack(id="panel/random/pause", ok=True, done=False, text=text)
    assert settle(session, "pause") is None
    (command,) = session._follower._untaken
    held.journal.write(lambda db: journal_commands.acknowledge(db, [(command, "")], 1.0))
    held.write(state="paused")
    session.ask(session._follower.look)
    assert settle(session, "pause").text == "paused"


def test_what_is_not_done_is_not_said_to_be(session, clock):
    """Before the start nothing can be paused or cancelled, and what has completed cannot be cancelled."""
    assert execute(session, "pause").text == "not paused: the session is planned"
    assert execute(session, "cancel").text == "not cancelled: the session is planned"
    clock.run(session)
    assert execute(session, "cancel").text == "not cancelled: the session is completed"


def test_resume_after_a_rollback_runs_everything(live, wait_for):
    """The button that is offered then does what the same call does."""
    tried = []

    async def once_bad(item):
        tried.append(item)
        if tried == [1]:
            raise Permanent("bad")

    session = live(once_bad, [1, 2], limits=Limits(concurrency=1), on_failure="rollback")
    assert wait_for(session).state == "rolled_back"
    assert messages.head(session).can == ["resume"]
    assert execute(session, "resume").text == "running"
    assert str(wait_for(session)) == "wishlist completed: 2/2 successful, 0 failed, 0 skipped"
    assert tried == [1, 1, 2]


def test_cancel_and_retry_failed_of_a_live_session(live, wait_for):
    """On the engine's thread: the answer comes when it has ended; what failed runs again."""
    tried = []

    async def fail_once(item):
        tried.append(item)
        if tried.count(item) == 1:
            raise Permanent("gone")
        return item

    session = live(fail_once, [1, 2, 3])
    session.run()
    assert execute(session, "retry_failed").text == "running what failed again"
    assert wait_for(session).counts.completed == 3

    begun = threading.Event()

    async def hang(item):
        if item == 2:
            begun.set()
        await asyncio.sleep(3600)

    other = live(hang, [1, 2], name="other")
    other.start()
    assert begun.wait(20)
    assert execute(other, "cancel").text == "cancelled, 2 items left"


def test_adjust_changes_the_limits(session):
    """Concurrency, then the limit of each rate."""
    answer = execute(session, "adjust/2/5/100")
    assert answer.text == "limits changed: 2 at a time, 5 per 2 s, 100 per 60 s"
    assert session.policy.limits.concurrency == 2
    assert [rate.limit for rate in session.policy.limits.rates] == [5, 100]


def test_items_are_rows_of_a_group(session, clock):
    """Those that did not complete first, with their attempts, from an offset on."""
    clock.run(session)
    rows = execute(session, "items/1/0")
    assert isinstance(rows, Rows)
    assert (rows.id, rows.group, rows.offset, rows.total) == ("panel/random/items/1/0", 1, 0, 10)
    assert [item.key for item in rows.items] == ["3", "8", "0", "1", "2", "4", "5", "6", "7", "9"]
    assert [each.error for each in rows.items[0].tries] == ["ConnectionError: HTTP 503 of 3"]
    assert [item.key for item in execute(session, "items/1/8").items] == ["7", "9"]
    assert execute(session, "items/99/0").items == []


def test_a_hundred_rows_come_at_once(plan, clock):
    """A batch of ten thousand is asked for in parts."""

    async def nothing(item):
        return item

    session = plan(nothing, list(range(250)))
    clock.run(session)
    assert [len(execute(session, f"items/0/{offset}").items) for offset in (0, 100, 200, 300)] == [100, 100, 50, 0]


WHOLE = "must be a whole number from 0 to 9,999,999,999,999,999, got"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("explode", "unknown command 'explode'"),
        ("__class__", "unknown command '__class__'"),
        ("", "unknown command ''"),
        ("x" * 5000, f"unknown command '{'x' * 56}..."),
        ("adjust/5/20/500", "concurrency must be <= 4, which the session was made with, got 5"),
        ("adjust/4/21/500", "limit must be <= 20, which the session was made with, got 21"),
        ("adjust/4/20/0", "limit must be >= 1, got 0.0"),
        ("adjust/0/20/500", "concurrency must be a whole number >= 1, got 0"),
        ("adjust/4/20", "rates must be 2 limits, one for each rate, got 1"),
        ("adjust/4/nan/500", "limit must be >= 1, got nan"),
        ("adjust/4/inf/500", "limit must be <= 20, which the session was made with, got inf"),
        ("adjust/four/20/500", f"concurrency {WHOLE} 'four'"),
        ("adjust/-1/20/500", f"concurrency {WHOLE} '-1'"),
        ("adjust/4/x/500", "limit must be a number, got 'x'"),
        ("adjust", "adjust needs the concurrency, and then the limit of each rate: adjust/4/200"),
        ("adjust/", f"concurrency {WHOLE} ''"),
        ("items", "items needs a group and an offset, items/1/0, got 0 arguments"),
        ("items/1", "items needs a group and an offset, items/1/0, got 1 arguments"),
        ("items/1/2/3", "items needs a group and an offset, items/1/0, got 3 arguments"),
        ("items/one/0", f"group {WHOLE} 'one'"),
        ("items/x", "items needs a group and an offset"),
        ("items/-1/99999999999999999999", f"group {WHOLE} '-1'"),
        ("items/1/99999999999999999999", f"offset {WHOLE} '99999999999999999999'"),
        ("items/1/-1", f"offset {WHOLE} '-1'"),
        ("items/1/1e3", f"offset {WHOLE} '1e3'"),
        ("items/1/\N{ARABIC-INDIC DIGIT ONE}", f"offset {WHOLE} '\N{ARABIC-INDIC DIGIT ONE}'"),
        ("errors", "errors needs an offset, and takes a search, a limit and a version, got 0 arguments"),
        ("errors/0/a/b/c/d", "errors needs an offset, and takes a search, a limit and a version, got 5 arguments"),
        ("errors/-1", f"offset {WHOLE} '-1'"),
        ("errors/0//0", "limit must be a whole number from 1 to 2,000, got 0"),
        ("errors/0//99999", "limit must be a whole number from 1 to 2,000, got 99,999"),
        ("errors/0//10/x", f"version {WHOLE} 'x'"),
        ("retry_failed", "the session is planned: what failed can be tried again once it has ended"),
        ("retry_failed/a/b", "retry_failed takes one search at most, got 2 arguments"),
        ("pause/1", "pause takes no arguments, got '1'"),
        ("resume/now/please", "resume takes no arguments, got 'now/please'"),
        ("cancel/", "cancel takes no arguments, got ''"),
        ("lift/x", "lift takes no arguments, got 'x'"),
    ],
)
def test_what_is_no_command_is_refused(session, words, message):
    """With a line for the panel that says why; nothing was changed."""
    before = session.policy
    with pytest.raises(InputError) as caught:
        execute(session, words)
    assert commands.describe(caught.value).startswith(message)
    assert session.policy == before
    assert session.state == "planned"


def test_errors_are_told_by_message_and_by_page(session, clock):
    """The messages come with the first page; a page of another list is not mixed with it."""
    clock.run(session)
    first = execute(session, "errors/0")
    assert [(group.message, group.count, group.scope) for group in first.groups] == [
        ("ConnectionError: HTTP 503 of <key>", 8, "service")
    ]
    assert (first.total, first.of, first.offset, len(first.items)) == (8, 8, 0, 8)
    second = execute(session, f"errors/6//100/{first.version}")
    assert (second.version, second.offset, second.groups) == (first.version, 6, [])
    assert [item.key for item in second.items] == ["33", "38"]
    searched = execute(session, "errors/0/503%20of%203%2F/50")
    assert (searched.search, searched.total, searched.of) == ("503 of 3/", 0, 8)
    assert execute(session, "errors/9999999999999999").items == []
    assert len(execute(session, "errors/0//3").items) == 3


def test_what_matches_is_run_again(live, wait_for):
    tried = []

    async def fail(item):
        tried.append(item)
        raise Permanent("HTTP 404: no game" if item % 2 else "HTTP 410: a/b gone")

    session = live(fail, [1, 2, 3])
    session.run()
    tried.clear()
    assert execute(session, "retry_failed/a%2Fb").text == "running what failed again"
    wait_for(session)
    assert tried == [2]
    with pytest.raises(InputError, match="nothing that failed matches 'teapot'"):
        execute(session, "retry_failed/teapot")


@pytest.mark.parametrize("command", ["", "panel", "panel/random"])
def test_an_id_that_says_nothing_is_refused(session, command):
    with pytest.raises(InputError, match="a command must be <panel>/<number>/<name>, got"):
        commands.execute(session, command)


def test_the_reason_of_a_refusal_is_masked(monkeypatch):
    """An error is described like any other text that leaves the engine; one without words has its name."""
    monkeypatch.setattr(masking, "_secrets", ())
    masking.register("hunter2secret")
    assert commands.describe(ValueError("got hunter2secret")) == "got ***"
    assert commands.describe(OSError("hunter2secret")) == "OSError: ***"
    assert commands.describe(JournalLocked("it is running elsewhere")) == "it is running elsewhere"
    assert commands.describe(ValueError()) == "ValueError: "
