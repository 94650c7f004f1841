import asyncio
import random
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import BatchSession, Breaker, Limits, Permanent, Rate, RateLimited, Retry
from ipybatch.engine.data import events
from ipybatch.engine.data.events import AnyEvent, Counts
from ipybatch.engine.feed import snapshot as snapshots
from ipybatch.engine.feed.snapshot import RECENT_ITEMS, Snapshot
from ipybatch.testing import VirtualClock
from tests.open_files import close_journal


def fold(happened):
    snapshot = Snapshot()
    for event in happened:
        snapshot.apply(event)
    return snapshot


def total(counts):
    return counts.pending + counts.running + counts.ended


class Checked:
    """Check after every event that the counts add up to the items there are."""

    def __init__(self, session):
        self.session = session
        self.drawn = 0

    def __call__(self, event):
        counts = self.session.counts
        if isinstance(event, events.Planned):
            self.drawn = total(counts)
        if isinstance(event, events.Drawn):
            self.drawn += event.items - sum(event.was.values())
        assert min(msgspec.structs.astuple(counts)[:-1]) >= 0, f"{counts} after {event}"
        assert total(counts) == (self.drawn if counts.total is None else counts.total), f"{counts} after {event}"


sessions = st.fixed_dictionaries(
    {
        "count": st.integers(0, 14),
        "as_generator": st.booleans(),
        "limits": st.sampled_from(
            [
                Limits(concurrency=1),
                Limits(concurrency=4, spacing_s=0.3),
                Limits(concurrency=3, batch_size=4, batch_pause_s=2),
                Limits(concurrency=5, rates=[Rate(3, per_s=2)]),
            ]
        ),
        "breaker": st.sampled_from([None, Breaker(failures=2, break_s=3, give_up_after=2)]),
        "timeout_s": st.sampled_from([None, 0.8]),
        "on_failure": st.sampled_from(["continue", "stop", "rollback"]),
        "bad": st.sampled_from([0.0, 0.3, 1.0]),
        "commands": st.lists(
            st.tuples(st.sampled_from([0.1, 0.7, 1.3, 4.0]), st.sampled_from(["pause", "resume", "cancel"])), max_size=3
        ),
        "starts": st.integers(1, 3),
        "seed": st.integers(0, 2**32),
    }
)


@given(asked=sessions)
def test_the_events_add_up_to_the_live_state(asked):
    """Any session, with failures, timeouts, batches, breaks, pauses, cancels and resumes: fold(log) is what it shows.

    After every single event the counts add up.
    """
    chance, clock = random.Random(asked["seed"]), VirtualClock()

    async def work(item):
        await asyncio.sleep(chance.choice([0.0, 0.4, 1.0]))
        if chance.random() < asked["bad"]:
            raise chance.choice([ConnectionError(), Permanent("gone"), RateLimited(retry_after_s=1.0)])
        return item

    items = list(range(asked["count"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        try:
            session = BatchSession(
                "wishlist",
                work,
                iter(items) if asked["as_generator"] else items,
                limits=asked["limits"],
                retry=Retry(attempts=2),
                breaker=asked["breaker"],
                timeout_s=asked["timeout_s"],
                on_failure=asked["on_failure"],
                journal=path,
                clock=clock,
            )
            checked = Checked(session)
            session.on(checked)
            session._feed.emit(events.Noted(0.0, "from here on it is checked"))

            async def command():
                for after_s, what in asked["commands"]:
                    await asyncio.sleep(after_s)
                    getattr(session, what)()
                session.resume()

            for _ in range(asked["starts"]):
                clock.run(session, command())
            assert session.snapshot.notes == ["from here on it is checked"], "a listener was dropped: see its message"
            assert fold(session._feed.log) == session.snapshot
            assert session.counts.running == 0
        finally:
            close_journal(path)


def test_every_event_type_is_folded():
    """A new event type cannot be forgotten."""
    assert set(snapshots.FOLD) == set(AnyEvent.__args__)


def started(count=3, at_s=100.0):
    return [
        events.Planned(at_s, "wishlist", Counts(pending=count, total=count)),
        events.StateChanged(at_s, "running", ""),
    ]


def ended(key, status="completed", *, at_s=101.0, group=0, error=""):
    return [
        events.AttemptStarted(at_s, key, group, 1),
        events.ItemEnded(at_s, key, group, status, 1, 0.5, error),
    ]


def test_a_snapshot_does_not_change_the_events_it_is_made_from():
    """The log stays what happened: folding it twice gives the same."""
    log = [*started(), *ended("a")]
    assert fold(log) == fold(log)
    assert log[0].counts == Counts(pending=3, total=3)


def test_an_attempt_that_will_be_tried_again_waits():
    """It is pending again, not failed."""
    log = [*started(1), events.AttemptStarted(1.0, "a", 0, 1), events.AttemptFailed(2.0, "a", 0, 1, "HTTP 500", 1.5)]
    counts = fold(log).counts
    assert (counts.pending, counts.running, counts.failed) == (1, 0, 0)


def test_the_last_items_are_shown():
    """The panel shows some, a million are not kept."""
    log = started(500)
    for number in range(500):
        log += ended(str(number), "failed" if number % 2 else "completed")
    snapshot = fold(log)
    assert [event.key for event in snapshot.recent] == [str(number) for number in range(500 - RECENT_ITEMS, 500)]
    assert len(snapshot.failures) <= RECENT_ITEMS


def test_a_group_counts_its_items():
    """A batch's row: done, failed, the last error, and when it ended."""
    log = [
        *started(),
        events.GroupStarted(100.0, 1, "Batch 1", 2),
        *ended("a", group=1),
        *ended("b", "failed", group=1, error="no such game"),
        events.GroupEnded(105.0, 1, "failed"),
    ]
    (group,) = fold(log).groups.values()
    assert (group.name, group.items, group.done, group.failed) == ("Batch 1", 2, 2, 1)
    assert (group.error, group.status, group.started_s, group.ended_s) == ("no such game", "failed", 100.0, 105.0)


def test_what_was_left_has_its_status():
    """After a cancel nothing is pending any more."""
    log = [*started(3), *ended("a"), events.ItemsLeft(102.0, 2, "cancelled")]
    counts = fold(log).counts
    assert (counts.completed, counts.cancelled, counts.pending) == (1, 2, 0)


def test_the_rate_is_that_of_the_last_seconds():
    """Ten a second now is ten a second, whatever it was an hour ago."""
    log = started(1000, at_s=0.0)
    for second in range(60):
        for number in range(2 if second < 30 else 10):
            log += ended(f"{second}-{number}", at_s=float(second))
    snapshot = fold(log)
    assert snapshot.rate_per_s(60.0) == pytest.approx(10.0, rel=0.06)
    assert snapshot.rate_per_s(1000.0) == 0.0


def test_elapsed_time_ends_with_the_session():
    """It counts from the start, stands still at the end, and goes on over a resume."""
    log = started()
    assert fold(log).elapsed_s(107.0) == 7.0
    log.append(events.StateChanged(110.0, "cancelled", ""))
    assert fold(log).elapsed_s(500.0) == 10.0
    log.append(events.StateChanged(600.0, "running", ""))
    assert fold(log).this_start_s(605.0) == 5.0
    assert fold(log).elapsed_s(605.0) == 15.0


def test_a_pause_is_no_new_start():
    """The clock and the counts go on."""
    log = [*started(), events.StateChanged(105.0, "paused", ""), events.StateChanged(150.0, "running", "")]
    assert fold(log).started_s == 100.0


def test_breaker_cool_down_and_notes_are_shown():
    """What the panel's header says."""
    log = [
        events.BreakerMoved(1.0, "open", 3, 1, 61.0),
        events.CooledDown(2.0, 90.0, "429"),
        events.CooledDown(3.0, 50.0, "429"),
        events.Noted(4.0, "the journal moved"),
        events.Commanded(5.0, "pause"),
    ]
    snapshot = fold(log)
    assert (snapshot.breaker.state, snapshot.breaker.probe_at_s, snapshot.cool_until_s) == ("open", 61.0, 90.0)
    assert snapshot.notes == ["the journal moved"]


def test_a_group_of_the_workloads_own_tells_how_it_stands():
    """A remote job goes through states, and keeps what was said of it before."""
    snapshot = Snapshot()
    snapshot.apply(events.GroupStarted(1.0, 1, "Job 1", 20, {"Job": "batches/1", "State": "pending"}, lasts=True))
    snapshot.apply(events.GroupChanged(2.0, 1, "running", {"State": "running"}))
    snapshot.apply(events.GroupChanged(3.0, 1, "failed", {"State": "expired"}, "not done within 48 hours"))
    group = snapshot.groups[1]
    assert (group.status, group.error) == ("failed", "not done within 48 hours")
    assert group.extra == {"Job": "batches/1", "State": "expired"}


def test_what_was_spent_is_the_latest_that_was_said():
    snapshot = Snapshot()
    assert snapshot.spent_usd is None
    snapshot.apply(events.Spent(1.0, 0.25, 5.0))
    snapshot.apply(events.Spent(2.0, 0.5, 5.0))
    assert (snapshot.spent_usd, snapshot.budget_usd) == (0.5, 5.0)


def test_the_rate_of_a_session_that_is_followed_is_that_of_what_was_seen():
    """It has run for hours elsewhere; who opens it is told five a second as soon as that was seen, not after 20 s."""
    snapshot = fold([events.Planned(1000.0, "night", Counts(pending=900, completed=100, total=1000))])
    snapshot.apply(events.StateChanged(1000.0, "running", ""))
    snapshot.started_s = 10.0  # as the journal tells
    for second in (1, 2, 3):
        completed = 100 + 5 * second
        snapshot.apply(
            events.Counted(1000.0 + second, Counts(pending=1000 - completed, completed=completed, total=1000))
        )
        assert snapshot.rate_per_s(1000.0 + second) == pytest.approx(5.0)
