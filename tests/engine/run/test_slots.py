"""Workers are cancelled a hundred at a time."""

import asyncio
import gc
from types import SimpleNamespace

from ipybatch.engine.run.slots import AT_ONCE, MANY, Pool


def test_no_turn_of_the_loop_cancels_more_than_some():
    """Each wakes up for it, in one turn of the loop: thousands would hold it."""
    count = 2 * AT_ONCE + 10

    async def story():
        pool = Pool(asyncio.get_running_loop(), count, lambda slot: asyncio.sleep(60))
        for _ in range(count):
            pool.hire()
        for slot in pool.slots:
            slot.ticket = SimpleNamespace(handed=None)
        await asyncio.sleep(0)
        pool.cancel()
        stopped = []
        while not stopped or stopped[-1] < count:
            stopped.append(sum(bool(slot.stopped_by) for slot in pool.slots))
            await asyncio.sleep(0)
        await asyncio.gather(*[slot.worker for slot in pool.slots], return_exceptions=True)
        assert pool.workers == 0
        return stopped

    assert asyncio.run(story()) == [AT_ONCE, 2 * AT_ONCE, count]


def test_python_collects_no_garbage_while_many_are_cancelled():
    """It is collected again when they have ended."""

    async def story(count):
        pool = Pool(asyncio.get_running_loop(), count, lambda slot: asyncio.sleep(60))
        for _ in range(count):
            pool.hire()
        for slot in pool.slots:
            slot.ticket = SimpleNamespace(handed=None)
        await asyncio.sleep(0)
        pool.cancel()
        meanwhile = gc.isenabled()
        await asyncio.gather(*[slot.worker for slot in pool.slots], return_exceptions=True)
        pool.end_without_stuck()
        await asyncio.sleep(0)
        return meanwhile, gc.isenabled()

    assert asyncio.run(story(MANY)) == (True, True)
    assert asyncio.run(story(MANY + 1)) == (False, True)
