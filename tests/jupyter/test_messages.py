"""Updates: the parts a view is sent, and that they add up to the whole."""

import asyncio
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import BatchSession, Breaker, Limits, Permanent, Rate, RateLimited, Retry
from ipybatch.engine.data import events
from ipybatch.jupyter import messages
from ipybatch.jupyter.messages import Cursor
from ipybatch.testing import VirtualClock
from tests.jupyter.folding import Page
from tests.open_files import close_journal

ALL = frozenset({"rows", "pace", "moves", "log"})


class Shaky:
    """Work that fails now and then, as it is told by a seed."""

    def __init__(self, seed=0, bad=0.3):
        self.chance, self.bad = random.Random(seed), bad

    async def __call__(self, item):
        await asyncio.sleep(self.chance.choice([0.0, 0.4, 1.0, 5.0]))
        if self.chance.random() < self.bad:
            raise self.chance.choice([ConnectionError("HTTP 503"), Permanent("gone"), RateLimited(retry_after_s=1.0)])
        return item


runs = st.fixed_dictionaries(
    {
        "count": st.integers(0, 60),
        "limits": st.sampled_from(
            [
                Limits(concurrency=4, spacing_s=0.3),
                Limits(concurrency=3, batch_size=4, batch_pause_s=2),
                Limits(concurrency=5, rates=[Rate(3, per_s=2), Rate(50, per_s=60)]),
                Limits(concurrency=8, batch_size=1),
            ]
        ),
        "bad": st.sampled_from([0.0, 0.3, 1.0]),
        "starts": st.integers(1, 3),
        "seed": st.integers(0, 2**32),
        "looks": st.lists(
            st.tuples(
                st.sampled_from([0.05, 0.7, 3.0, 30.0]),
                st.sampled_from(["look", "look", "look", "whole", "recall", "pause", "resume", "cancel"]),
            ),
            max_size=12,
        ),
    }
)


def check_same(page, session):
    """What the page made of many updates is what one whole update says."""
    anew = Page()
    anew.fold(messages.whole_update(session, Cursor(), ALL))
    assert page.groups == anew.groups
    assert page.pace == anew.pace
    assert page.moves == anew.moves
    assert page.failures == anew.failures
    assert page.columns == anew.columns
    assert page.head["counts"] == anew.head["counts"]
    assert page.log[-len(anew.log) :] == anew.log
    assert [line["number"] for line in page.log] == sorted({line["number"] for line in page.log})
    if not session.snapshot.groups:
        assert page.items == anew.items


@given(asked=runs)
def test_updates_add_up_to_the_whole(asked):
    """Any session, looked at whenever, paused, cancelled, gone on with: the page knows what a new page would."""
    clock, sent, page = VirtualClock(), Cursor(), Page()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        try:
            session = BatchSession(
                "wishlist",
                Shaky(asked["seed"], asked["bad"]),
                list(range(asked["count"])),
                limits=asked["limits"],
                retry=Retry(attempts=2),
                breaker=Breaker(failures=3, break_s=3, give_up_after=4),
                journal=path,
                clock=clock,
            )

            def look():
                page.fold(messages.next_update(session, sent, ALL))
                check_same(page, session)

            async def watch():
                for after_s, what in asked["looks"]:
                    await asyncio.sleep(after_s)
                    if what == "whole":
                        sent.is_whole_wanted = True
                    elif what != "look":
                        getattr(session, what)()
                    look()
                session.resume()

            for _ in range(asked["starts"]):
                clock.run(session, watch())
                look()
        finally:
            close_journal(path)


class Partitions:
    """Work that shows all its groups when it is entered, as a forecast does, and is told which items fail."""

    def __init__(self, numbers):
        self.numbers, self.session, self.bad = numbers, None, set()

    async def __aenter__(self):
        for number in sorted(self.numbers):
            self.session.tell(events.GroupStarted(self.session._clock.unix_s(), number, f"Partition {number}", 1))
            self.session.tell(events.GroupChanged(self.session._clock.unix_s(), number, "pending", {}))
        return self

    async def __aexit__(self, *_):
        pass

    async def __call__(self, number, attempt):
        attempt.join(number)
        self.session.tell(events.GroupStarted(self.session._clock.unix_s(), number, f"Partition {number}", 1))
        await asyncio.sleep(number % 4)
        status = "failed" if number in self.bad else "completed"
        self.session.tell(events.GroupEnded(self.session._clock.unix_s(), number, status))
        if number in self.bad:
            raise Permanent("gone")


@given(
    order=st.permutations(range(1, 14)),
    bad=st.sets(st.integers(1, 13)),
    looks=st.lists(st.sampled_from([0.5, 1.0, 4.0]), max_size=8),
    after=st.sampled_from(["again", "taken back"]),
)
def test_groups_that_begin_in_any_order_and_begin_again_add_up(order, bad, looks, after):
    """Partitions are shown all at once, run in any order and run again; after a rollback ended ones change too."""
    clock, sent, page, work = VirtualClock(), Cursor(), Page(), Partitions(order)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        try:
            work.session = session = BatchSession(
                "parts", work, order, limits=Limits(concurrency=3), journal=path, clock=clock, breaker=None
            )
            work.bad = bad

            def look():
                page.fold(messages.next_update(session, sent, ALL))
                check_same(page, session)

            async def watch():
                for after_s in looks:
                    await asyncio.sleep(after_s)
                    look()

            clock.run(session, watch())
            look()
            assert {number for number, group in page.groups.items() if group["status"] == "failed"} == bad
            for number in bad:
                if after == "again":
                    session.tell(events.GroupStarted(0.0, number, f"Partition {number}", 1))
                else:
                    session.tell(events.GroupChanged(0.0, number, "cancelled", {}))
            look()
        finally:
            close_journal(path)


@pytest.fixture
def ran(plan, clock):
    """A session in batches, with failures and openings of the breaker, at its end."""
    session = plan(
        Shaky(1),
        list(range(60)),
        limits=Limits(concurrency=5, batch_size=10, rates=[Rate(20, per_s=2)]),
        retry=Retry(attempts=2),
        breaker=Breaker(failures=2, break_s=3, give_up_after=50),
    )
    clock.run(session)
    return session


@pytest.mark.parametrize(
    ("part", "fields"),
    [("rows", {"groups", "failures"}), ("pace", {"pace"}), ("moves", {"moves"}), ("log", {"log"})],
)
def test_a_view_is_sent_its_parts(ran, part, fields):
    """And nothing of the others: a progress bar costs no table."""
    update = messages.whole_update(ran, Cursor(), frozenset({part}))
    filled = {name for name in ("groups", "failures", "items", "pace", "moves", "log") if getattr(update, name)}
    assert filled == fields
    bare = messages.whole_update(ran, Cursor(), frozenset())
    assert not any(getattr(bare, name) for name in ("groups", "failures", "items", "pace", "moves", "log", "columns"))
    assert bare.head.counts == ran.counts


def test_an_update_without_news_is_small(ran):
    """After the whole state only the head, what is at most two marks, and the latest failures."""
    sent = Cursor()
    assert messages.next_update(ran, sent, ALL).whole
    update = messages.next_update(ran, sent, ALL)
    assert (update.whole, update.seq) == (False, 2)
    assert (update.groups, update.moves, update.log) == ([], [], [])
    assert len(update.pace) <= 2


def test_a_story_is_sent_in_its_latest_lines(ran):
    """A view that was away gets the latest lines, not all of them."""
    for number in range(300):
        ran._feed.note(f"note {number}")
    sent = Cursor()
    update = messages.next_update(ran, sent, ALL)
    assert [line.text for line in update.log] == [
        f"note {number}" for number in range(300 - messages.LINES_AT_ONCE, 300)
    ]
    ran._feed.note("one more")
    assert [line.text for line in messages.next_update(ran, sent, ALL).log] == ["one more"]


def test_the_head_says_what_may_be_done(plan, clock):
    """Commands that make sense now: a button that would do nothing is not shown."""
    session = plan(Shaky(bad=1.0), [1, 2, 3], retry=Retry(attempts=1), breaker=None)
    seen = [messages.head(session).can]

    async def watch():
        await asyncio.sleep(0.01)
        seen.append(messages.head(session).can)
        session.pause()
        await asyncio.sleep(0.01)
        seen.append(messages.head(session).can)
        session.resume()

    clock.run(session, watch())
    seen.append(messages.head(session).can)
    assert seen == [["resume"], ["pause", "cancel", "adjust"], ["resume", "cancel", "adjust"], ["retry_failed"]]


def test_windows_are_told_with_what_they_were_made_with(plan, clock):
    """Also while nothing runs; the form goes no further than that."""
    session = plan(
        Shaky(bad=0.0), [1, 2, 3], limits=Limits(concurrency=4, rates=[Rate(20, per_s=2), Rate(90, 60, "tokens")])
    )
    session.adjust(concurrency=2, rates=[5, 90])
    head = messages.head(session)
    assert (head.concurrency, head.most_concurrency) == (2, 4)
    assert [(window.limit, window.most, window.per_s, window.unit) for window in head.windows] == [
        (5, 20, 2, "requests"),
        (90, 90, 60, "tokens"),
    ]


def test_lanes_and_what_waits_by_priority_are_told(plan, clock):
    """The limits of each lane, the busiest eight, and how many items of each priority have yet to start."""
    heads = []

    async def work(item):
        await asyncio.sleep(0.1)
        if item == "r0-0":
            heads.append(messages.next_update(session, Cursor(), ALL).head)

    items = [f"r{lane}-{number}" for lane in range(10) for number in range(3)]
    session = plan(
        work,
        items,
        limits=Limits(concurrency=1, each=Limits(rates=[Rate(5, per_s=2.0)])),
        per=lambda item: item.split("-")[0],
        priority=lambda item: "high" if item.startswith("r0") else "low",
    )
    clock.run(session)
    (head,) = heads
    assert head.queued == [2, 0, 27]
    assert [(lane.name, lane.waiting) for lane in head.limit_groups] == [(f"r{lane}", 3) for lane in range(1, 9)]
    assert [(one.used, one.limit, one.per_s) for one in head.limit_groups[0].windows] == [(0.0, 5.0, 2.0)]
    assert head.more_limit_groups == 2
