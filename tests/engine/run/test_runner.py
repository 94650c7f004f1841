"""The runner: a worker per slot, a commit before anything is told, and a lease that is kept warm."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from ipybatch import Limits, Retry
from ipybatch.engine.data import events
from ipybatch.engine.data.masking import describe
from ipybatch.engine.store import lease


def on_disk(journal, question="SELECT key, status FROM item"):
    """Ask the journal through a connection that is none of ours: it sees what is committed."""
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
        return database.execute(question).fetchall()


def test_there_is_a_task_per_slot_and_none_per_item(plan, clock):
    """A worker pool over an iterator: 1,000 items never make more tasks than slots."""
    most = []

    async def work(item):
        most.append(len(asyncio.all_tasks()))
        await asyncio.sleep(1)

    clock.run(plan(work, iter(range(1000)), limits=Limits(concurrency=20)))
    assert max(most) <= 20 + 3  # the session, the clock's own


def test_an_outcome_is_committed_before_it_is_told(plan, clock, journal):
    """Promise 2: whoever hears of an item finds it on disk, and so does who counts."""
    late = []

    async def work(item):
        await asyncio.sleep(item / 10)
        if item == 3:
            raise ValueError
        return item

    session = plan(work, list(range(8)))

    def hear(event):
        if isinstance(event, events.ItemEnded):
            rows = dict(on_disk(journal))
            if rows.get(event.key) != event.status or len(rows) < session.counts.ended:
                late.append(event)

    session.on(hear)
    session.on_outcomes(lambda outcomes: late.extend(o for o in outcomes if str(o.key) not in dict(on_disk(journal))))
    clock.run(session)
    assert late == []


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_slot_waits_for_its_commit(plan, clock, journal, concurrency):
    """However many have started, all but the slots' own are on disk: so a kill repeats at most those."""
    started, ahead = [], []

    async def work(item):
        started.append(item)
        ahead.append(len(started) - len(on_disk(journal)))

    clock.run(plan(work, list(range(40)), limits=Limits(concurrency=concurrency)))
    assert max(ahead) <= concurrency


@pytest.mark.parametrize("at_once", [1, 3, 20])
def test_every_slot_is_used_as_soon_as_work_waits(plan, clock, at_once):
    """Items that are answered at once need one worker; the first that waits finds all the others."""
    most, running = 0, 0

    async def work(item):
        nonlocal most, running
        if item % 50 < 25:
            return
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    started_s = clock.now_s()
    clock.run(plan(work, list(range(200)), limits=Limits(concurrency=at_once)))
    assert most == at_once
    assert clock.now_s() - started_s == pytest.approx(100 / at_once, rel=0.25)


def test_the_lease_is_renewed_while_work_holds_the_loop(live, journal, monkeypatch):
    """Nothing else turns meanwhile, and the session is not taken over."""
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    beats = set()

    async def work(item):
        while len(beats) < 4:
            beats.add(on_disk(journal, "SELECT beat_s FROM run")[0][0])

    assert live(work, [1]).run().counts.completed == 1
    assert len(beats) == 4


def test_the_lease_is_let_go_at_the_end(plan, clock, journal):
    async def work(item):
        return item

    clock.run(plan(work, [1]))
    assert on_disk(journal, "SELECT owner, state FROM run") == [(None, "completed")]


def test_attempts_that_failed_are_recorded_with_their_errors(plan, clock, journal):
    tries = []

    async def work(item):
        tries.append(item)
        if len(tries) < 3:
            error = f"try {len(tries)}"
            raise ConnectionError(error)
        return item

    clock.run(plan(work, [1], retry=Retry(attempts=3), breaker=None))
    assert on_disk(journal, "SELECT attempt, error FROM attempt ORDER BY attempt") == [
        (1, "ConnectionError: try 1"),
        (2, "ConnectionError: try 2"),
    ]


def test_the_event_of_a_retry_says_when_it_is_tried_again(plan, clock):
    waits, times = [], []

    async def work(item):
        times.append(clock.now_s())
        if len(times) == 1:
            raise ConnectionError

    session = plan(work, [1], breaker=None)
    session.on(lambda event: waits.append(event.wait_s) if isinstance(event, events.AttemptFailed) else None)
    clock.run(session)
    assert times[1] - times[0] == pytest.approx(waits[0], abs=1e-6)


def test_the_same_events_fold_to_the_live_snapshot(plan, clock):
    """Events are the truth: folding what was heard gives the state that was shown."""
    from ipybatch.engine.feed.snapshot import Snapshot

    async def work(item):
        await asyncio.sleep(item % 3)
        if item % 5 == 0:
            raise ConnectionError
        return item

    session = plan(work, list(range(30)), limits=Limits(concurrency=4, batch_size=7), retry=Retry(attempts=2))
    clock.run(session)
    folded = Snapshot()
    for event in session._feed.log:
        folded.apply(event)
    assert folded == session.snapshot


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad\n  item"), "ValueError: bad item"),
        (ValueError(), "ValueError"),
        (KeyError("name"), "KeyError: 'name'"),
        (OSError("http://me:pa55word@host/"), "OSError: http://me:***@host/"),
    ],
    ids=repr,
)
def test_an_error_is_described_in_one_masked_line(error, line):
    assert describe(error) == line


def test_a_long_error_is_cut():
    assert len(describe(ValueError("x" * 10_000))) <= 500
