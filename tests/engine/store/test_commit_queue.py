"""Entries of the loop, committed together."""

import asyncio

from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.store.commit_queue import MOST, TURNS, CommitQueue


class Store:
    """A store that writes at once, or keeps whoever submits waiting."""

    def __init__(self, *, is_slow=False):
        self.commits, self.waiting, self._is_slow = [], [], is_slow

    def submit(self, entries, now_s, tell):
        self.commits.append(entries)
        self.waiting.append(tell)
        if not self._is_slow:
            tell(None)


def committed(story, **options):
    """Return what a story adds to a queue, commit by commit."""

    async def run():
        store, recorded = Store(**options), []
        queue = CommitQueue(store, SystemClock(), on_recorded=recorded.extend, on_error=None, on_busy=None)
        await story(queue, store)
        for _ in range(6 * TURNS):
            await asyncio.sleep(0)
        assert recorded == [entry for entries in store.commits for entry in entries]
        return store.commits

    return asyncio.run(run())


def test_what_comes_within_a_few_turns_shares_a_commit():
    async def story(queue, store):
        for entry in range(2 * TURNS):
            queue.add(entry)
            await asyncio.sleep(0)

    first, second = committed(story)
    assert (first, second) == ([*range(TURNS)], [*range(TURNS, 2 * TURNS)])


def test_where_nothing_else_runs_no_turn_is_waited_for():
    async def story(queue, store):
        queue.add("a")
        assert not queue.commit_now(2)
        assert queue.commit_now(1)
        assert store.commits == [["a"]]
        assert not queue.commit_now(1)
        queue.add("b")

    assert committed(story) == [["a"], ["b"]]


def test_what_comes_while_a_commit_is_under_way_goes_into_the_next():
    async def story(queue, store):
        first = queue.add("a")
        await asyncio.sleep(0.01)
        second = [queue.add("b"), queue.add("c")]
        assert not queue.commit_now(3)
        store.waiting[0](None)
        await first
        await asyncio.sleep(0.01)
        store.waiting[1](None)
        await asyncio.gather(*second)

    assert committed(story, is_slow=True) == [["a"], ["b", "c"]]


def test_of_very_many_that_end_together_some_go_on_after_the_others():
    """In order, and each when its own entry is on record."""
    at = {}

    async def story(queue, store):
        async def wait(entry):
            await queue.add(entry)
            assert any(entry in entries for entries in store.commits)
            at.setdefault(len(store.commits), []).append(entry)

        await asyncio.gather(*(wait(entry) for entry in range(2 * MOST + 1)))
        assert not queue.commit_now(1)

    assert [len(entries) for entries in committed(story)] == [MOST, MOST, 1]
    assert {commits: len(entries) for commits, entries in at.items()} == {1: MOST, 2: MOST, 3: 1}
