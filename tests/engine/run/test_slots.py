"""Workers are cancelled a hundred at a time."""

import asyncio
import gc
from types import SimpleNamespace

import pytest

from ipybatch.engine.run.slots import AT_ONCE, MANY, Pool


@pytest.fixture
def thawed():
    """Let nothing be frozen, as in a user's process."""
    gc.unfreeze()
    yield
    gc.freeze()


async def busy(count):
    """A pool whose workers all have an attempt that waits."""
    pool = Pool(asyncio.get_running_loop(), count, lambda slot: asyncio.sleep(60))
    for _ in range(count):
        pool.hire()
    for slot in pool.slots:
        slot.ticket = SimpleNamespace(handed=None)
    await asyncio.sleep(0)
    return pool


async def ended(pool):
    await asyncio.gather(*[slot.worker for slot in pool.slots], return_exceptions=True)
    await asyncio.sleep(0)  # Python 3.13 gathers what has ended before it tells the pool


def test_no_turn_of_the_loop_cancels_more_than_some():
    """Each wakes up for it, in one turn of the loop: thousands would hold it."""
    count = 2 * AT_ONCE + 10

    async def story():
        pool = await busy(count)
        pool.cancel()
        stopped = []
        while not stopped or stopped[-1] < count:
            stopped.append(sum(bool(slot.stopped_by) for slot in pool.slots))
            await asyncio.sleep(0)
        await ended(pool)
        assert pool.workers == 0
        return stopped

    assert asyncio.run(story()) == [AT_ONCE, 2 * AT_ONCE, count]


def test_python_collects_no_garbage_while_many_are_cancelled():
    """It is collected again when they have ended."""

    async def story(count):
        pool = await busy(count)
        pool.cancel()
        meanwhile = gc.isenabled()
        await ended(pool)
        pool.end_without_stuck()
        await asyncio.sleep(0)
        return meanwhile, gc.isenabled()

    assert asyncio.run(story(MANY)) == (True, True)
    assert asyncio.run(story(MANY + 1)) == (False, True)


def test_attempts_that_wait_count_as_old_ones_while_they_come(thawed):
    """Python would look at all of them again and again, which holds the loop."""

    async def story():
        pool = await busy(AT_ONCE)
        known = {id(old) for old in gc.get_objects(generation=2)}
        are_old = [id(slot) in known for slot in pool.slots]
        pool.cancel()
        await ended(pool)
        return are_old

    assert all(asyncio.run(story()))


def test_what_a_user_has_frozen_stays_so(thawed):
    async def story():
        pool = await busy(AT_ONCE)
        frozen = gc.get_freeze_count()
        pool.cancel()
        await ended(pool)
        return frozen

    gc.freeze()
    assert asyncio.run(story()) > 0
